//! Which summaries a start takes, and what is found behind it.

use std::time::Instant;

use super::segment::Segment;
use super::summary::{Keeper, Pace, Purpose, Task};
use super::*;

/// Knows how many entries there are, and which came one by one.
#[derive(Default)]
struct Counted {
    count: u64,
    one_by_one: Vec<u64>,
    /// The first entry of each summary, and whether its streams go on.
    summaries: Vec<(u64, bool)>,
    newest: u64,
}

impl Tables for Counted {
    fn clear(&mut self) {
        *self = Self { newest: self.newest, ..Self::default() };
    }

    fn entry(&mut self, entry: &Entry<'_>, _: bool) -> Result<(), String> {
        self.count += 1;
        self.one_by_one.push(entry.offset);
        Ok(())
    }

    fn summary(&mut self, content: &[u8], first: u64, stream_goes_on: bool) -> Result<(), String> {
        self.summaries.push((first, stream_goes_on));
        self.count += u64::from_le_bytes(content.try_into().map_err(|_| "no number")?);
        Ok(())
    }

    fn newest(&self) -> u64 {
        self.newest
    }

    fn summariser(&self) -> Option<Box<dyn Summariser>> {
        Some(Box::new(Counter(0)))
    }
}

struct Counter(u64);

impl Summariser for Counter {
    fn entry(&mut self, _: &Entry<'_>) -> Result<(), String> {
        self.0 += 1;
        Ok(())
    }

    fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0).to_le_bytes().to_vec()
    }

    fn version(&self) -> u32 {
        7
    }
}

fn start(config: &JournalConfig, newest: u64) -> (Journal, Counted, Recovered) {
    let mut tables = Counted { newest, ..Counted::default() };
    let (journal, recovered) = Journal::open_with(config.clone(), 1, &mut tables).unwrap();
    (journal, tables, recovered)
}

fn summaries(config: &JournalConfig) -> Vec<PathBuf> {
    segment_files(config)
        .iter()
        .map(|path| path.with_extension("summary"))
        .filter(|path| path.exists())
        .collect()
}

#[track_caller]
fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A journal of four segments, all but the last with a summary; how many entries.
fn four(config: &JournalConfig) -> u64 {
    let mut journal = start(config, 0).0;
    let mut writer = Writer::new();
    writer.fill_segments(&mut journal, 4);
    until(|| summaries(config).len() == 3);
    writer.count
}

#[test]
fn a_start_reads_the_newest_segments_that_it_must_and_takes_the_summaries_of_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let count = four(&config);
    let (_, all, _) = reopen(&config).unwrap();
    let in_last = all.iter().filter(|kept| kept.offset >= segment_base(&config, 3)).count() as u64;
    for (newest, summarised) in [(0, 3), (in_last, 2), (count / 2, 1), (count, 0), (u64::MAX, 0)] {
        let (journal, tables, recovered) = start(&config, newest);
        assert_eq!((tables.count, recovered.entries), (count, count));
        assert_eq!((recovered.summarised, recovered.segments), (summarised, 4), "newest {newest}");
        let first = |index| (segment_base(&config, index) + SEGMENT_HEADER_LEN as u64, true);
        assert_eq!(tables.summaries, (0..summarised).map(first).collect::<Vec<_>>());
        let read: Vec<_> =
            all[all.len() - tables.one_by_one.len()..].iter().map(|kept| kept.offset).collect();
        assert_eq!(tables.one_by_one, read, "all that were read, and in order");
        // What was not read is there all the same.
        assert_eq!(read_all(&mut journal.reader()), all);
    }
    // A segment in the middle that has none, is read, and so are those behind it. Then it has one again.
    std::fs::remove_file(&summaries(&config)[1]).unwrap();
    let (journal, tables, recovered) = start(&config, 0);
    assert_eq!((tables.count, recovered.summarised), (count, 1));
    until(|| summaries(&config).len() == 3);
    drop(journal);
    assert_eq!(start(&config, 0).2.summarised, 3);
    // What a kill leaves of a segment that left the retention.
    let stray = config.dir.join("00000000000000f0.summary");
    std::fs::write(&stray, "anything").unwrap();
    drop(start(&config, 0));
    assert!(!stray.exists());
}

#[test]
fn an_entry_that_a_start_did_not_read_and_that_is_damaged_is_found_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    four(&config);
    let damaged = &segment_files(&config)[1];
    let place = SEGMENT_HEADER_LEN as u64 + 200;
    flip(damaged, place);
    let (journal, ..) = start(&config, 0);
    let found = std::cell::RefCell::new(None);
    until(|| {
        *found.borrow_mut() = journal.verify().err();
        found.borrow().is_some()
    });
    drop(journal);
    let named = |error: &JournalError| matches!(error, JournalError::Damaged { path, .. } if path == damaged);
    assert!(found.borrow().as_ref().is_some_and(named), "{found:?}");
    // The next start reads it for itself, and says the same.
    let again = Journal::open_with(config.clone(), 1, &mut Counted::default()).err();
    assert!(again.as_ref().is_some_and(named), "{again:?}");
    // The control: without the damage nothing is found, though all is read.
    flip(damaged, place);
    let (journal, ..) = start(&config, 0);
    until(|| summaries(&config).len() == 3);
    std::thread::sleep(Duration::from_millis(200));
    journal.verify().unwrap();
}

#[test]
fn an_entry_that_is_damaged_before_its_segment_has_a_summary_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    four(&config);
    let (damaged, summary) = (&segment_files(&config)[1], summaries(&config)[1].clone());
    std::fs::remove_file(&summary).unwrap();
    // It is read by the start, and damaged behind it, so that what makes the summary finds it: or the damage comes too late.
    let (journal, ..) = start(&config, 0);
    flip(damaged, SEGMENT_HEADER_LEN as u64 + 200);
    std::thread::sleep(Duration::from_millis(300));
    journal.verify().unwrap();
}

#[test]
fn a_summary_that_says_something_else_than_its_segment_is_found_behind_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let count = four(&config);
    // Made by somebody who took another one's content, and made it fit.
    let path = &segment_files(&config)[1];
    let facts = summary::read_facts(path).unwrap();
    summary::write(path, &facts, &7u64.to_le_bytes(), false).unwrap();
    let (journal, tables, recovered) = start(&config, 0);
    assert_eq!(recovered.summarised, 3);
    assert_ne!(tables.count, count, "it was believed");
    until(|| journal.verify().is_err());
    drop(journal);
    let (_, tables, recovered) = start(&config, 0);
    assert_eq!((tables.count, recovered.summarised), (count, 1), "the next start reads");
}

#[test]
fn a_summary_of_another_segment_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let count = four(&config);
    let made = summaries(&config);
    std::fs::copy(&made[0], &made[1]).unwrap();
    let (_, tables, recovered) = start(&config, 0);
    assert_eq!((tables.count, recovered.summarised), (count, 1));
}

#[test]
fn a_segment_that_a_loss_of_power_may_have_changed_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let count = four(&config);
    let path = &segment_files(&config)[0];
    let reboot = |durable: u8| {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut header = [0; SEGMENT_HEADER_LEN];
        file.read_exact_at(&mut header, 0).unwrap();
        let parsed = crate::layout::SegmentHeader::from_bytes(&header).unwrap();
        let other = crate::layout::SegmentHeader { boot_id: [9; 16], ..parsed }.to_bytes();
        file.write_all_at(&other[8..80], 8).unwrap();
        file.write_all_at(&[durable], crate::layout::DURABLE_AT as u64).unwrap();
    };
    reboot(0);
    let (_, tables, recovered) = start(&config, 0);
    assert_eq!((tables.count, recovered.summarised), (count, 0));
    // The control: of a segment that was synced nothing can be lost.
    reboot(1);
    assert_eq!(start(&config, 0).2.summarised, 3);
}

#[test]
fn what_leaves_the_retention_takes_its_summary_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    four(&config);
    config.retain_bytes = 2 * config.segment_bytes;
    let (mut journal, ..) = start(&config, 0);
    let gone = summaries(&config)[0].clone();
    while journal.expired(1).is_some() {
        journal.retire_oldest();
    }
    until(|| summaries(&config).len() == 1);
    assert!(!gone.exists());
}

/// Reading is done in parts, quicker while others wait, and never for what has left the journal.
#[test]
fn segments_are_summarised_in_parts_one_after_another_and_not_when_they_have_left() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { segment_bytes: 1 << 20, ..config(dir.path()) };
    // Nobody else makes any.
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    writer.fill_segments(&mut journal, 5);
    let full: Vec<_> = journal.shared.segments().iter().take(4).cloned().collect();
    let task = |segment: &Arc<Segment>| Task { segment: Arc::clone(segment), purpose: Purpose::Make };
    let tasks = full.iter().map(task).collect();
    let mut keeper = Keeper::new(Arc::clone(&journal.shared), Box::new(Counter(0)), tasks, false);
    let gone = segment_files(&config)[0].with_extension("summary");
    journal.retire_oldest();
    let mut paces = Vec::new();
    loop {
        match keeper.step() {
            Pace::Idle => break,
            pace => paces.push(matches!(pace, Pace::Fast)),
        }
    }
    // A segment is a megabyte, and a part a quarter of it; two others waited during the first.
    assert_eq!(paces.len(), 3 * 4, "{paces:?}");
    assert_eq!(paces.iter().filter(|is_fast| **is_fast).count(), 4, "{paces:?}");
    assert!(paces[..4].iter().all(|is_fast| *is_fast));
    assert_eq!(summaries(&config).len(), 3);
    assert!(!gone.exists());
}

/// One that is nearly as long as its segment helps nobody, unless it is short anyway.
#[test]
fn a_summary_that_is_not_worth_its_room_is_not_written() {
    struct OfLen(usize);
    impl Summariser for OfLen {
        fn entry(&mut self, _: &Entry<'_>) -> Result<(), String> {
            Ok(())
        }
        fn finish(&mut self) -> Vec<u8> {
            vec![1; self.0]
        }
        fn version(&self) -> u32 {
            7
        }
    }
    const MIB: usize = 1 << 20;
    // A third of a segment, or a megabyte if that is more.
    for segment_len in [6 * MIB, MIB] {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { segment_bytes: segment_len as u64, ..config(dir.path()) };
        let mut journal = open(config.clone()).unwrap();
        let mut writer = Writer::new();
        writer.fill_segments(&mut journal, 2);
        let segment = Arc::clone(&journal.shared.segments()[0]);
        let limit = MIB.max(segment.extent().0 / 3);
        for (len, is_worth) in [(limit, true), (limit + 1, false)] {
            let tasks = [Task { segment: Arc::clone(&segment), purpose: Purpose::Make }].into();
            let mut keeper = Keeper::new(Arc::clone(&journal.shared), Box::new(OfLen(len)), tasks, false);
            while keeper.step() != Pace::Idle {}
            assert_eq!(summaries(&config).len() == 1, is_worth, "{len} of {segment_len}");
            summary::remove(segment.path()).unwrap();
        }
    }
}
