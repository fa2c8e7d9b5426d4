//! What the journal promises, as claims.

mod chain;
mod damage;
mod reading;
mod recovery;
mod summaries;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bellwire::Priority;
use proptest::prelude::*;

use super::testing::{Record, append, config, open, order_record};
use super::*;

/// What was appended: enough to compare with what is read.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    offset: u64,
    facts: Facts,
    record: Record,
}

fn kept(entry: &Entry<'_>) -> Kept {
    let facts = Facts {
        seq: entry.seq,
        prev: entry.prev,
        epoch: entry.epoch,
        slot: entry.slot,
        lane: entry.lane,
        journalled_at: entry.journalled_at,
    };
    let record = Record { header: entry.header, archive: entry.archive.to_vec() };
    Kept { offset: entry.offset, facts, record }
}

/// Appends records of `users` users in turn, with order ids of the given lengths, and publishes.
struct Writer {
    heads: HashMap<u32, (u64, u64)>,
    count: u64,
}

impl Writer {
    fn new() -> Self {
        Self { heads: HashMap::new(), count: 0 }
    }

    fn append(&mut self, journal: &mut Journal, user: u32, order_id_len: usize) -> Kept {
        self.count += 1;
        let record =
            order_record(&format!("user_{user}"), &"o".repeat(order_id_len), Priority::P1, self.count);
        let head = self.heads.entry(user).or_default();
        let facts = Facts {
            seq: head.0 + 1,
            prev: head.1,
            epoch: journal.generation(),
            slot: user,
            lane: 77,
            journalled_at: self.count as i64,
        };
        let offset = append(journal, &record, &facts);
        *head = (facts.seq, offset);
        Kept { offset, facts, record }
    }

    fn fill(&mut self, journal: &mut Journal, count: usize) -> Vec<Kept> {
        let all = (0..count).map(|index| self.append(journal, index as u32 % 7, 10 + index % 90)).collect();
        journal.publish().unwrap();
        all
    }

    /// Until the journal has so many segments, all but the last of them full.
    fn fill_segments(&mut self, journal: &mut Journal, segments: usize) {
        while journal.shared.segments().len() < segments {
            self.fill(journal, 10);
        }
    }
}

fn reopen(config: &JournalConfig) -> Result<(Journal, Vec<Kept>, Recovered), JournalError> {
    let mut all = Vec::new();
    let (journal, recovered) = Journal::open(config.clone(), 1, &mut |entry, _| {
        all.push(kept(entry));
        Ok(())
    })?;
    Ok((journal, all, recovered))
}

/// Everything that a reader sees, from the start.
fn read_all(reader: &mut JournalReader) -> Vec<Kept> {
    let mut all = Vec::new();
    let mut at = reader.start();
    while let Some(entry) = reader.entry(at) {
        all.push(kept(&entry));
        at = entry.next;
    }
    let is_at_a_new_segment = reader.end() % SEGMENT_BYTES_MIN == SEGMENT_HEADER_LEN as u64;
    assert!(at >= reader.end() || is_at_a_new_segment, "the walk stopped before the end");
    all
}

fn segment_files(config: &JournalConfig) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(&config.dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "journal"))
        .collect();
    paths.sort();
    paths
}

/// Where the journal's segment of that number begins.
fn segment_base(config: &JournalConfig, index: usize) -> u64 {
    u64::from_str_radix(segment_files(config)[index].file_stem().unwrap().to_str().unwrap(), 16).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
}

/// Found by the torture run: who had read the last entry of a segment that is full to the last byte, before the next one
/// was begun, stood at a place where nothing ever stands, and was offered nothing any more.
#[test]
fn a_segment_that_is_full_to_the_last_byte_ends_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut reader = journal.reader();
    let (mut writer, mut at) = (Writer::new(), journal.end());
    for segment in 1..4 {
        while journal.writer.room() > 2_000 {
            writer.append(&mut journal, 1, 500);
            journal.publish().unwrap();
            at = reader.entry(at).unwrap().next;
        }
        let room = journal.writer.room();
        let len_of = |len: &usize| {
            super::append::entry_len(order_record("user_1", &"o".repeat(*len), Priority::P1, 1).archive.len())
        };
        let len = (1..2_000).find(|len| len_of(len) == room).unwrap();
        writer.append(&mut journal, 1, len);
        let end = journal.publish().unwrap();
        assert_eq!(journal.writer.room(), 0);
        // One reader has seen the last entry, one stands exactly at the end: as a shard does that starts then.
        at = reader.entry(at).unwrap().next;
        assert!(reader.entry(at).is_none() && reader.end() <= at);
        let next = writer.append(&mut journal, 1, 10);
        journal.publish().unwrap();
        for place in [at, end] {
            assert_eq!(
                reader.entry(place).map(|entry| kept(&entry)),
                Some(next.clone()),
                "segment {segment}"
            );
        }
        at = reader.entry(at).unwrap().next;
    }
    assert_eq!(read_all(&mut journal.reader()).len() as u64, writer.count);
}

/// Found by the torture run's regression test: orders to the housekeeper that had piled up made it empty the segment that
/// was just being put into use.
#[test]
fn a_segment_that_was_taken_is_not_allocated_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let journal = open(config.clone()).unwrap();
    let take = || {
        loop {
            if let Some(blank) = journal.keeper.take_blank(config.segment_bytes) {
                return blank;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let first = take();
    let before = std::fs::metadata(first.path()).unwrap();
    journal.keeper.rolled(Arc::clone(journal.writer.segment()));
    let second = take();
    assert_ne!(first.path(), second.path());
    let after = std::fs::metadata(first.path()).unwrap();
    assert_eq!(
        (before.ino(), before.len(), before.mtime_nsec()),
        (after.ino(), after.len(), after.mtime_nsec())
    );
}

/// Found by the torture run: a reader that caught up, and was suspended between its looks at what is readable and at the
/// seal, passed over everything that was appended in between.
#[test]
fn readers_that_follow_the_writer_through_many_segments_pass_over_nothing() {
    const RECORDS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.retain_bytes = 1 << 40;
    let mut journal = open(config).unwrap();
    let start = journal.end();
    std::thread::scope(|threads| {
        // More readers than cores, so that some are suspended anywhere.
        for _ in 0..12 {
            let mut reader = journal.reader();
            threads.spawn(move || {
                let (mut at, mut seq) = (start, 0);
                while seq < RECORDS {
                    match reader.entry(at) {
                        Some(entry) => {
                            assert_eq!(entry.seq, seq + 1, "at {at}");
                            (at, seq) = (entry.next, entry.seq);
                        }
                        None => std::thread::yield_now(),
                    }
                }
            });
        }
        let mut writer = Writer::new();
        for _ in 0..RECORDS {
            writer.append(&mut journal, 1, 4_000);
            journal.publish().unwrap();
        }
    });
}

#[test]
fn what_is_appended_is_invisible_until_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path())).unwrap();
    let mut reader = journal.reader();
    let one = Writer::new().append(&mut journal, 1, 10);
    assert!(reader.entry(one.offset).is_none());
    let end = journal.publish().unwrap();
    assert_eq!(kept(&reader.entry(one.offset).unwrap()), one);
    assert!(
        reader.entry(end).is_none() && reader.entry(0).is_none() && reader.entry(one.offset + 16).is_none()
    );
}

#[test]
fn room_that_is_given_and_not_used_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut writer = Writer::new();
    let mut journal = open(config.clone()).unwrap();
    let mut all = writer.fill(&mut journal, 3);
    // A refused record that contains, where the next entry will begin, bytes that were an entry elsewhere.
    let copy = {
        let mut reader = journal.reader();
        let entry = reader.entry(all[0].offset).unwrap();
        std::fs::read(&segment_files(&config)[0]).unwrap()[SEGMENT_HEADER_LEN..][..entry.len()].to_vec()
    };
    let room = journal.room(4096, 1).unwrap().archive;
    for chunk in room.chunks_mut(copy.len()) {
        chunk.copy_from_slice(&copy[..chunk.len()]);
    }
    all.push(writer.append(&mut journal, 5, 20));
    journal.publish().unwrap();
    drop(journal);
    let (_, found, recovered) = reopen(&config).unwrap();
    assert_eq!(found, all);
    assert_eq!(recovered.cut, None);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    std::fs::create_dir(&config.dir).unwrap();
    std::fs::set_permissions(&config.dir, std::fs::Permissions::from_mode(0o770)).unwrap();
    assert!(matches!(open(config), Err(JournalError::Writable { mode: 0o770, .. })));
}

#[test]
fn a_directory_that_cannot_be_made_is_named_with_what_was_tried() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(config(&dir.path().join("nowhere"))).err().expect("refused").to_string();
    assert!(error.contains("nowhere/journal") && error.contains("create"), "{error}");
}

#[test]
fn what_was_appended_to_memory_that_is_gone_is_never_published() {
    bellwire::guard_mappings().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    let all = writer.fill(&mut journal, 3);
    let end = journal.end();
    journal.verify().unwrap();
    OpenOptions::new().write(true).open(&segment_files(&config)[0]).unwrap().set_len(0).unwrap();
    // Found by looking, before anybody touches it.
    assert!(matches!(journal.verify(), Err(JournalError::Gone { .. })));
    writer.append(&mut journal, 1, 10);
    for told in [journal.publish().map(|_| ()), journal.sync(), journal.verify(), journal.close()] {
        assert!(matches!(told, Err(JournalError::Gone { .. })), "{told:?}");
    }
    assert_eq!((journal.end(), all.len()), (end, 3));
}

#[test]
fn a_position_at_the_end_of_a_full_segment_leads_to_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path())).unwrap();
    let mut writer = Writer::new();
    let mut reader = journal.reader();
    let mut at = journal.end();
    let mut seen = 0;
    // The reader follows entry by entry, so it stands at the end of each segment before that segment is closed.
    while segment_files(&config(dir.path())).len() < 3 {
        let one = writer.append(&mut journal, 1, 80);
        journal.publish().unwrap();
        let entry = reader.entry(at).expect("the entry just published");
        assert_eq!(kept(&entry), one);
        at = entry.next;
        seen += 1;
    }
    assert_eq!(read_all(&mut reader).len(), seen);
}

#[test]
fn a_reader_keeps_its_segment_while_retention_deletes_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { retain_bytes: 2 * SEGMENT_BYTES_MIN, ..config(dir.path()) };
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    let first = writer.fill(&mut journal, 1).remove(0);
    let mut slow = journal.reader();
    let entry = slow.entry(first.offset).unwrap();
    let mut journals_turn = |journal: &mut Journal| {
        while journal.expired(1).is_none() {
            writer.fill(journal, 10);
        }
        let (start, end) = journal.expired(1).unwrap();
        assert_eq!((start, journal.start()), (first.offset, first.offset));
        journal.retire_oldest();
        assert_eq!(journal.start(), end + SEGMENT_HEADER_LEN as u64);
    };
    journals_turn(&mut journal);
    assert_eq!(kept(&entry), first, "an entry that is held stays as it is");
    assert!(slow.entry(first.offset).is_none(), "but it is not found again");
    assert!(!read_all(&mut slow).is_empty());
    drop(journal);
    assert_eq!(segment_files(&config).len(), 2);
    let (journal, all, _) = reopen(&config).unwrap();
    assert_eq!(all[0].offset, journal.start());
}

#[test]
fn retention_by_age_never_takes_the_last_segment() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { retain_age: Some(Duration::from_nanos(1000)), ..config(dir.path()) };
    let mut journal = open(config).unwrap();
    let mut writer = Writer::new();
    writer.fill(&mut journal, 1000);
    let newest = writer.count as i64;
    assert_eq!(journal.expired(newest), None, "every entry is younger than the limit");
    while journal.expired(newest + 10_000).is_some() {
        journal.retire_oldest();
    }
    assert!(journal.start() < journal.end());
    assert_eq!(journal.retained_bytes(), SEGMENT_BYTES_MIN);
}

#[test]
fn a_segment_is_as_old_as_its_last_entry_also_after_a_start_and_an_empty_one_as_its_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { retain_age: Some(Duration::from_nanos(1000)), ..config(dir.path()) };
    let mut journal = open(config.clone()).unwrap();
    journal.begin_streams_anew(1).unwrap();
    assert_eq!(journal.expired(1001), None);
    assert!(journal.expired(1002).is_some());
    journal.retire_oldest();
    Writer::new().fill(&mut journal, 5);
    drop(journal);
    let (mut journal, _) = Journal::open(config, 5000, &mut |_, _| Ok(())).unwrap();
    journal.begin_streams_anew(5000).unwrap();
    assert_eq!(journal.expired(1005), None, "its last entry is of 5");
    assert!(journal.expired(1006).is_some(), "when it was opened makes it no younger");
}

#[test]
fn a_generation_survives_and_reaches_the_next_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path())).unwrap();
    let first = journal.generation();
    assert_eq!(journal.next_generation(), first + 1);
    drop(journal);
    let mut journal = open(config(dir.path())).unwrap();
    assert_eq!(journal.generation(), first + 1);
    Writer::new().fill(&mut journal, 1000);
    while segment_files(&config(dir.path())).len() > 1 {
        std::fs::remove_file(&segment_files(&config(dir.path()))[0]).unwrap();
    }
    drop(journal);
    assert_eq!(open(config(dir.path())).unwrap().generation(), first + 1);
}

#[test]
fn another_journal_has_another_generation_and_other_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let one = open(config(dir.path())).unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = open(config(other.path())).unwrap();
    assert_ne!(one.generation(), other.generation());
    assert_ne!(one.end(), other.end());
}

#[test]
fn limits_of_the_configuration_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    for (wrong, what) in [
        (JournalConfig { segment_bytes: 4096, ..config.clone() }, "segment_bytes is 4096"),
        (JournalConfig { segment_bytes: (1 << 20) + 1, ..config.clone() }, "modulo 4096"),
        (JournalConfig { retain_bytes: SEGMENT_BYTES_MIN, ..config.clone() }, "retain_bytes"),
        (JournalConfig { sync: SyncPolicy::Interval(Duration::ZERO), ..config.clone() }, "sync interval"),
    ] {
        let text = open(wrong).err().expect("an error").to_string();
        assert!(text.contains(what), "{text}");
    }
}

#[test]
fn synced_journals_read_back() {
    for sync in [SyncPolicy::Every, SyncPolicy::Interval(Duration::from_millis(1))] {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { sync, ..config(dir.path()) };
        let mut journal = open(config.clone()).unwrap();
        let mut writer = Writer::new();
        let mut all = Vec::new();
        for _ in 0..8 {
            all.extend(writer.fill(&mut journal, 100));
        }
        drop(journal);
        assert_eq!(reopen(&config).unwrap().1, all);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_was_published_is_read_back_in_place_and_after_a_start(
        batches in prop::collection::vec(prop::collection::vec((0u32..9, 0usize..3000), 1..40), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let mut journal = open(config.clone()).unwrap();
        let mut reader = journal.reader();
        let mut writer = Writer::new();
        let mut all = Vec::new();
        for batch in batches {
            all.extend(batch.into_iter().map(|(user, len)| writer.append(&mut journal, user, len)));
            journal.publish().unwrap();
            prop_assert_eq!(read_all(&mut reader).len(), all.len());
        }
        prop_assert_eq!(&read_all(&mut reader), &all);
        // Back-links give exactly one user's records, newest first.
        for (user, (head, last)) in &writer.heads {
            let mut at = *last;
            for seq in (1..=*head).rev() {
                let entry = reader.entry(at).expect("a back-link leads to an entry");
                prop_assert_eq!((entry.seq, entry.slot), (seq, *user));
                let user_id = format!("user_{user}");
                prop_assert_eq!(entry.view().map(|view| view.user_id()), Some(user_id.as_str()));
                at = entry.prev;
            }
            prop_assert_eq!(at, 0);
        }
        drop(journal);
        let (journal, found, recovered) = reopen(&config).unwrap();
        prop_assert_eq!(&found, &all);
        prop_assert_eq!(recovered.cut, None);
        prop_assert_eq!(read_all(&mut journal.reader()), all);
    }

    #[test]
    fn one_flipped_byte_is_damage_or_a_torn_end_and_never_another_entry(at in 128u64..20_000, count in 20usize..60) {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let mut journal = open(config.clone()).unwrap();
        let all = Writer::new().fill(&mut journal, count);
        let used = journal.end() % SEGMENT_BYTES_MIN;
        let last = all.last().unwrap().offset % SEGMENT_BYTES_MIN;
        drop(journal);
        let at = 128 + (at - 128) % (used - 128);
        flip(&segment_files(&config)[0], at);
        match reopen(&config) {
            Ok((_, found, recovered)) => {
                prop_assert!(at >= last, "byte {} of {}, last entry at {}", at, used, last);
                prop_assert_eq!(recovered.cut.expect("a cut").at, last);
                prop_assert_eq!(&found[..], &all[..count - 1]);
            }
            Err(JournalError::Damaged { at: place, .. }) => {
                prop_assert!(at < last);
                prop_assert!(all.iter().any(|kept| kept.offset % SEGMENT_BYTES_MIN == place) && place <= at);
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

#[test]
fn a_configuration_beyond_its_limits_is_refused_with_the_value_and_the_limits_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let with =
        |segment_bytes, retain_bytes| JournalConfig { segment_bytes, retain_bytes, ..config(dir.path()) };
    for segment_bytes in [SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX] {
        with(segment_bytes, 2 * segment_bytes).check().unwrap();
    }
    let refused = [
        (with(SEGMENT_BYTES_MIN - 4096, 1 << 40), SEGMENT_BYTES_MIN - 4096),
        (with(SEGMENT_BYTES_MAX + 4096, 1 << 40), SEGMENT_BYTES_MAX + 4096),
        (with(SEGMENT_BYTES_MIN + 16, 1 << 40), 16),
        (with(SEGMENT_BYTES_MIN, 2 * SEGMENT_BYTES_MIN - 1), 2 * SEGMENT_BYTES_MIN - 1),
        (JournalConfig { sync: SyncPolicy::Interval(Duration::ZERO), ..config(dir.path()) }, 0),
    ];
    for (config, value) in refused {
        match config.check() {
            Err(JournalError::Config { found, .. }) => assert_eq!(found, value),
            other => panic!("{other:?}"),
        }
    }
}
