//! How the chain is made: in steps, from where an earlier one ended, and never on top of somebody else's.

use super::*;
use crate::chain::{ChainHeader, ChainKey, Follower, Link, chain_path, read_links};

/// Makes the chain of a journal that is opened without one, so that a test says when.
fn follower(journal: &Journal, config: &JournalConfig) -> Follower {
    with(journal, config, journal.shared.journal_id, ChainKey::public())
}

fn with(journal: &Journal, config: &JournalConfig, journal_id: u64, key: ChainKey) -> Follower {
    Follower::new(journal.reader(), &config.dir, journal_id, key)
}

fn finish(mut follower: Follower) {
    while follower.step() {}
}

/// The chains, oldest first.
fn chains(config: &JournalConfig) -> Vec<PathBuf> {
    segment_files(config).iter().map(|path| chain_path(path)).collect()
}

fn chain(path: &Path) -> (ChainHeader, Vec<Link>) {
    read_links(path, u64::MAX >> 8).unwrap().unwrap()
}

fn bytes(config: &JournalConfig) -> Vec<Vec<u8>> {
    chains(config).iter().map(|path| std::fs::read(path).unwrap()).collect()
}

#[test]
fn a_chain_that_is_made_in_steps_is_the_one_that_is_made_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    let mut in_steps = follower(&journal, &config);
    while journal.shared.segments().len() < 3 {
        writer.fill(&mut journal, 50);
        assert!(!in_steps.step(), "there was more");
    }
    let made = bytes(&config);
    let linked: usize = chains(&config).iter().map(|path| chain(path).1.len()).sum();
    assert_eq!(linked as u64, writer.count);
    drop(in_steps);
    chains(&config).iter().for_each(|path| std::fs::remove_file(path).unwrap());
    finish(follower(&journal, &config));
    assert!(bytes(&config) == made);
}

/// Or what was done to the records meanwhile would be covered up.
#[test]
fn a_start_goes_on_with_the_chain_and_does_not_make_it_anew() {
    const PLACE: u64 = 96 + 3 * 32;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    writer.fill(&mut journal, 20);
    finish(follower(&journal, &config));
    let path = chains(&config).remove(0);
    flip(&path, PLACE);
    let before = std::fs::read(&path).unwrap();
    writer.fill(&mut journal, 20);
    finish(follower(&journal, &config));
    assert!(std::fs::read(&path).unwrap().starts_with(&before), "it was made anew");
    // But for that, it is the one that belongs there.
    flip(&path, PLACE);
    let whole = bytes(&config);
    std::fs::remove_file(&path).unwrap();
    finish(follower(&journal, &config));
    assert!(bytes(&config) == whole);
    assert_eq!(chain(&path).1.len(), 40);
}

#[test]
fn a_long_journal_is_linked_in_several_steps_between_which_other_work_gets_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    while journal.retained_bytes() < 6 << 20 {
        writer.append(&mut journal, 1, 500);
    }
    journal.publish().unwrap();
    let mut follower = follower(&journal, &config);
    let mut steps = 1;
    while follower.step() {
        steps += 1;
    }
    assert_eq!(steps, 2);
    let linked: usize = chains(&config).iter().map(|path| chain(path).1.len()).sum();
    assert_eq!(linked as u64, writer.count);
}

#[test]
fn a_chain_of_another_journal_key_or_segment_is_replaced_from_its_segment_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    writer.fill_segments(&mut journal, 4);
    let journal_id = journal.shared.journal_id;
    finish(follower(&journal, &config));
    let (paths, ours) = (chains(&config), bytes(&config));
    let (newest, last) = (&paths[3], chain(&paths[3]));
    let others: [(&str, &dyn Fn()); 3] = [
        ("another journal's", &|| finish(with(&journal, &config, journal_id ^ 1, ChainKey::public()))),
        ("with another key", &|| {
            finish(with(&journal, &config, journal_id, ChainKey::secret(&[7; 32]).unwrap()))
        }),
        ("another segment's", &|| std::fs::write(newest, &ours[2]).unwrap()),
    ];
    for (what, make) in others {
        // The others are taken away, or there would be nothing for another journal to begin with.
        std::fs::remove_file(newest).unwrap();
        let hidden = dir.path().join("hidden");
        std::fs::create_dir(&hidden).unwrap();
        let away = |path: &PathBuf| hidden.join(path.file_name().unwrap());
        paths[..3].iter().for_each(|path| std::fs::rename(path, away(path)).unwrap());
        make();
        paths[..3].iter().for_each(|path| std::fs::rename(away(path), path).unwrap());
        std::fs::remove_dir(&hidden).unwrap();
        assert_ne!(chain(newest).0, last.0, "{what}");

        finish(follower(&journal, &config));
        let (header, links) = chain(newest);
        assert_eq!((header.journal_id, header.base, header.key_mark), (journal_id, last.0.base, 0), "{what}");
        assert_eq!(links.len(), last.1.len(), "{what}");
        // It cannot know what that chain was of: it begins with the segment that the chain names.
        let begins = if what == "another segment's" { 2 } else { 3 };
        for (index, path) in paths.iter().enumerate() {
            assert_eq!(chain(path).0.before == Link::NONE, index == begins || index == 0, "{what}: {index}");
        }
        assert!(bytes(&config)[..begins] == ours[..begins], "{what}");
        // For the next one: as it was.
        chains(&config).iter().for_each(|path| std::fs::remove_file(path).unwrap());
        finish(follower(&journal, &config));
        assert!(bytes(&config) == ours);
    }
}
