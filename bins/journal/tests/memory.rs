//! No memory for the next segment: a process of its own, whose address space is limited.

use bellwire::{Notification, OrderCanceled, RECORD_HEADER_LEN, RecordHeader, to_record};
use bellwire_journal::{Facts, Journal, JournalConfig, JournalError, JournalReader, SyncPolicy};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

const SEGMENT_BYTES: u64 = 32 << 20;

/// Appends and publishes one entry of about 60 KiB.
fn append(journal: &mut Journal, number: u64) -> Result<u64, JournalError> {
    let order = OrderCanceled {
        order_id: "o",
        exchange_order_id: "x",
        instrument_id: "IX2401",
        reason: &"r".repeat(60_000),
        timestamp: 1,
    };
    let bytes = to_record(&Notification::new("anna", "engine", order), number, 1, 1).unwrap();
    let header = RecordHeader::from_bytes(bytes.first_chunk().unwrap());
    let archive = &bytes[RECORD_HEADER_LEN..][..header.archive_len as usize];
    journal.room(archive.len(), 1)?.archive.copy_from_slice(archive);
    let facts = Facts { seq: number, epoch: 1, lane: 1, journalled_at: 1, ..Facts::default() };
    let offset = journal.append(&header, &facts);
    journal.publish()?;
    Ok(offset)
}

fn count(reader: &mut JournalReader) -> u64 {
    let (mut at, mut count) = (reader.start(), 0);
    while let Some(entry) = reader.entry(at) {
        at = entry.next;
        count += 1;
        assert_eq!(entry.seq, count);
    }
    count
}

fn mapped_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// It says so, keeps what it has, and goes on when there is memory again.
#[test]
fn a_segment_that_cannot_be_mapped_is_no_room_and_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig {
        segment_bytes: SEGMENT_BYTES,
        retain_bytes: 1 << 40,
        sync: SyncPolicy::None,
        ..JournalConfig::new(dir.path().join("journal"))
    };
    let mut journal = Journal::open(config, 1, &mut |_, _| Ok(())).unwrap().0;
    let mut reader = journal.reader();
    let mut number = 0;
    let before = getrlimit(Resource::RLIMIT_AS).unwrap();
    // Less than a segment more than what is mapped now; the next one is, ahead, or will be.
    setrlimit(Resource::RLIMIT_AS, mapped_bytes() + SEGMENT_BYTES / 2, before.1).unwrap();
    let error = loop {
        match append(&mut journal, number + 1) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
        assert!(number < 4 * SEGMENT_BYTES / 60_000, "the limit limits nothing");
    };
    assert!(error.is_no_room(), "{error}");
    assert!(error.to_string().contains("map"), "{error}");
    assert_eq!(count(&mut reader), number);
    // The same again: it can be asked as often as one likes.
    assert!(append(&mut journal, number + 1).unwrap_err().is_no_room());
    setrlimit(Resource::RLIMIT_AS, before.0, before.1).unwrap();
    append(&mut journal, number + 1).unwrap();
    assert_eq!(count(&mut reader), number + 1);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with("roll.prep"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
