//! What verifying says of chains that were made by somebody, or not made at all.

use std::os::unix::fs::symlink;

use super::super::verify::links_of;
use super::*;
use crate::chain::ChainHeader;
use crate::chain::read_links;

/// Makes the chain of a segment anew, as it would be behind `before`.
fn forge_chain(dir: &Path, segment: usize, before: Link) -> Link {
    let key = ChainKey::public();
    let listing = Listing::read(dir).unwrap();
    let file = listing.segments[segment].clone();
    let header = ChainHeader { journal_id: file.journal_id, base: file.base, before, key_mark: 0 };
    let mut bytes = header.to_bytes().to_vec();
    let mut link = key.start(&header);
    let mut walk = Walk::new(listing);
    while let Step::Entry(found) = walk.step().unwrap() {
        if found.base == file.base {
            link = key.link(&link, found.entry.body);
            bytes.extend_from_slice(&link.0);
        }
    }
    std::fs::write(chain_path(&file.path), bytes).unwrap();
    link
}

#[test]
fn a_chain_that_follows_another_one_than_that_before_is_named_and_one_that_begins_anew_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 1_500);
    let segments = Listing::read(&path).unwrap().segments;
    assert_eq!(segments.len(), 3);
    let chains: Vec<_> = segments.iter().map(|segment| chain_path(&segment.path)).collect();
    let whole = std::fs::read(&chains[2]).unwrap();

    forge_chain(&path, 2, Link([7; 32]));
    assert_eq!(found(&path), Finding::Unlinked { path: chains[2].clone() });
    forge_chain(&path, 2, Link::NONE);
    let verdict = look(&path);
    assert_eq!((verdict.finding, verdict.begins, verdict.linked), (None, vec![segments[2].base], 1_500));
    // The control: behind the link that is there it is the chain that was there.
    let before = read_links(&chains[1], 1 << 20).unwrap().unwrap().1.pop().unwrap();
    forge_chain(&path, 2, before);
    assert!(std::fs::read(&chains[2]).unwrap() == whole);

    // Without the oldest chain nothing can be said of what the next one follows.
    std::fs::remove_file(&chains[0]).unwrap();
    let count = entries(&path, 0).len() as u64;
    let verdict = look(&path);
    assert_eq!((verdict.finding, verdict.begins), (None, vec![]));
    assert_eq!((verdict.before_chain, verdict.linked), (count, 1_500 - count));
    // But one that follows nothing was begun there.
    forge_chain(&path, 1, Link::NONE);
    let verdict = look(&path);
    assert_eq!(verdict.begins[0], segments[1].base);
}

#[test]
fn what_is_behind_the_newest_link_is_counted_and_an_anchor_there_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 1_500);
    let anchor = look(&path).head.unwrap();
    let (last, chain) = (entries(&path, 2), chain_path(&Listing::read(&path).unwrap().segments[2].path));
    let cut = |len: u64| OpenOptions::new().write(true).open(&chain).unwrap().set_len(len).unwrap();
    // Three links less, then a header in part.
    let links = last.len() as u64;
    for (len, behind) in [(96 + (links - 3) * 32, 3), (95, links)] {
        cut(len);
        let verdict = look(&path);
        assert_eq!((verdict.finding, verdict.behind_chain), (None, behind), "cut to {len}");
        assert_eq!((verdict.before_chain, verdict.linked), (0, 1_500 - behind));
        let finding = look_with(&path, &ChainKey::public(), &[anchor]).finding;
        assert_eq!(finding, Some(Finding::AnchorBeyond { anchor }), "cut to {len}");
    }
}

/// A chain that was begun and got no link: what it should cover is behind its end, and nothing is missing.
#[test]
fn a_chain_without_links_covers_nothing_and_accuses_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 12);
    let chain = chain_path(&Listing::read(&path).unwrap().segments[0].path);
    OpenOptions::new().write(true).open(&chain).unwrap().set_len(96).unwrap();
    let verdict = look(&path);
    assert_eq!((verdict.finding, verdict.linked, verdict.behind_chain), (None, 0, 12));
    // The control: with a link that is not the first record's.
    OpenOptions::new().write(true).open(&chain).unwrap().set_len(128).unwrap();
    assert!(look(&path).finding.is_some());
}

#[test]
fn an_anchor_for_the_first_record_without_a_link_is_beyond_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 12);
    let anchor = look(&path).head.unwrap();
    let chain = chain_path(&Listing::read(&path).unwrap().segments[0].path);
    OpenOptions::new().write(true).open(&chain).unwrap().set_len(96 + 11 * 32).unwrap();
    let finding = look_with(&path, &ChainKey::public(), &[anchor]).finding;
    assert_eq!(finding, Some(Finding::AnchorBeyond { anchor }));
}

#[test]
fn the_numbers_of_a_stream_that_do_not_follow_are_named_also_without_a_chain() {
    for (epoch, is_found) in [(1, true), (2, false)] {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { chain: None, ..chained(dir.path()) };
        let path = config.dir.clone();
        let mut journal = open(config).unwrap();
        for (seq, epoch) in [(1, 1), (2, 1), (5, epoch)] {
            let record = order_record("user_0", "order", Priority::P1, seq);
            append(&mut journal, &record, &Facts { seq, prev: 0, epoch, slot: 0, lane: 7, journalled_at: 1 });
        }
        journal.publish().unwrap();
        journal.close().unwrap();
        match look(&path).finding {
            Some(Finding::Number { place, found, expected, .. }) if is_found => {
                assert_eq!((place.record, found, expected), (3, 5, 3));
            }
            None if !is_found => {}
            other => panic!("epoch {epoch}: {other:?}"),
        }
    }
}

#[test]
fn the_bytes_that_were_read_are_those_of_the_entries() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 300);
    let mut walk = Walk::new(Listing::read(&path).unwrap());
    let mut bytes = 0;
    while let Step::Entry(found) = walk.step().unwrap() {
        bytes += 48 + u64::from(found.entry.header.record_len);
    }
    assert_eq!(look(&path).bytes, bytes);
}

#[test]
fn a_chain_is_read_no_further_than_entries_fit_and_one_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 12);
    let segment = Listing::read(&path).unwrap().segments.remove(0);
    let chain = chain_path(&segment.path);
    OpenOptions::new().write(true).open(&chain).unwrap().set_len(96 + 32 * 1_000_000).unwrap();
    let links = links_of(&chain, &segment.path).unwrap().unwrap().unwrap().1;
    assert_eq!(links.len() as u64, segment.len / 48);

    // What leaves the journal at this moment has none; what cannot be looked at is no excuse.
    let nothing = path.join("nothing");
    assert!(links_of(&chain, &nothing).unwrap().is_none());
    assert!(links_of(&nothing, &segment.path).unwrap().is_none());
    let looped = path.join("looped");
    symlink(&looped, &looped).unwrap();
    assert!(matches!(links_of(&chain, &looped), Err(JournalError::Io { .. })));
    assert!(matches!(links_of(&looped, &segment.path), Err(JournalError::Io { .. })));
}
