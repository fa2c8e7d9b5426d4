//! What verifying promises: whoever alters, removes, exchanges or adds is found, and the first place is named.

mod chains;
mod walks;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellwire::Priority;

use super::*;
use crate::chain::{ChainKey, Link, chain_path};
use crate::testing::{append, config, open, order_record};
use crate::{Facts, Journal, JournalConfig, SyncPolicy};

fn chained(dir: &Path) -> JournalConfig {
    JournalConfig { chain: Some(ChainKey::public()), ..config(dir) }
}

/// Users in turn, each with a stream.
struct Writer {
    journal: Journal,
    written: u64,
    prev: [u64; 3],
}

impl Writer {
    fn new(config: JournalConfig) -> Self {
        Self { journal: open(config).unwrap(), written: 0, prev: [0; 3] }
    }

    fn write(&mut self, count: u64) {
        for _ in 0..count {
            let user = (self.written % 3) as usize;
            let record = order_record(
                &format!("user_{user}"),
                &format!("order-{:08}", self.written),
                Priority::P1,
                self.written + 1,
            );
            let facts = Facts {
                seq: self.written / 3 + 1,
                prev: self.prev[user],
                epoch: 1,
                slot: user as u32,
                lane: 7,
                journalled_at: 1_000 + self.written as i64,
            };
            self.prev[user] = append(&mut self.journal, &record, &facts);
            self.written += 1;
        }
        self.journal.publish().unwrap();
    }
}

/// A journal of several segments with that many records, closed.
fn journal(config: JournalConfig, count: u64) -> PathBuf {
    let dir = config.dir.clone();
    let mut writer = Writer::new(config);
    writer.write(count);
    writer.journal.close().unwrap();
    dir
}

fn look(dir: &Path) -> Verdict {
    look_with(dir, &ChainKey::public(), &[])
}

fn look_with(dir: &Path, key: &ChainKey, anchors: &[Anchor]) -> Verdict {
    verify(Listing::read(dir).unwrap(), key, anchors, &mut |_| ()).unwrap()
}

fn found(dir: &Path) -> Finding {
    look(dir).finding.expect("nothing was found")
}

/// Places of the entries of a segment, with their lengths.
fn entries(dir: &Path, segment: usize) -> Vec<(u64, usize)> {
    let listing = Listing::read(dir).unwrap();
    let base = listing.segments[segment].base;
    let mut walk = Walk::new(listing);
    let mut places = Vec::new();
    while let Step::Entry(found) = walk.step().unwrap() {
        if found.base == base {
            places.push((found.at, found.entry.len()));
        }
    }
    places
}

/// What one can do who may write the files and knows how crcs are made.
struct Forger {
    file: File,
    segment: SegmentFile,
}

impl Forger {
    fn new(dir: &Path, segment: usize) -> Self {
        let segment = Listing::read(dir).unwrap().segments.swap_remove(segment);
        let file = OpenOptions::new().read(true).write(true).open(&segment.path).unwrap();
        Self { file, segment }
    }

    fn read(&self, (at, len): (u64, usize)) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    /// Writes an entry with the crc that belongs there.
    fn write(&self, at: u64, entry: &[u8]) {
        let mut entry = entry.to_vec();
        let crc = entry_crc(self.segment.journal_id, self.segment.base + at, entry.len() as u32, &entry[8..]);
        entry[4..8].copy_from_slice(&crc.to_le_bytes());
        self.file.write_all_at(&entry, at).unwrap();
    }
}

#[test]
fn a_whole_journal_is_found_whole_and_every_record_is_linked() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 2_000);
    let verdict = look(&path);
    assert_eq!(verdict.finding, None);
    assert!(verdict.segments >= 3, "{verdict:?}");
    assert_eq!(
        (verdict.records, verdict.linked, verdict.before_chain, verdict.behind_chain),
        (2_000, 2_000, 0, 0)
    );
    assert!(verdict.begins.is_empty());
}

#[test]
fn an_altered_record_with_a_right_crc_is_named_and_a_start_would_not_notice() {
    let dir = tempfile::tempdir().unwrap();
    let config = chained(dir.path());
    let path = journal(config.clone(), 2_000);
    let place = entries(&path, 1)[17];
    let forger = Forger::new(&path, 1);
    let mut entry = forger.read(place);
    let text = entry.windows(6).position(|text| text == b"order-").unwrap();
    entry[text + 6] = b'9';
    forger.write(place.0, &entry);
    match found(&path) {
        Finding::Altered { place: named, .. } => assert_eq!((named.record, named.at), (18, place.0)),
        other => panic!("{other}"),
    }
    // The control: crcs and numbers are as they should be.
    drop(open(config).unwrap());
    assert!(matches!(found(&path), Finding::Altered { .. }));
}

#[test]
fn a_removed_record_is_named_by_the_one_that_stands_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 300);
    let places = entries(&path, 0);
    let forger = Forger::new(&path, 0);
    let rest: Vec<Vec<u8>> = places[101..].iter().map(|place| forger.read(*place)).collect();
    // All entries are of one length.
    for (place, entry) in places[100..].iter().zip(&rest) {
        forger.write(place.0, entry);
    }
    let last = places.last().unwrap();
    forger.file.write_all_at(&vec![0; last.1], last.0).unwrap();
    match found(&path) {
        Finding::Missing { place, missing, .. } => assert_eq!((place.record, missing), (101, 1)),
        other => panic!("{other}"),
    }
}

#[test]
fn exchanged_records_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 300);
    let places = entries(&path, 0);
    let forger = Forger::new(&path, 0);
    let (one, other) = (forger.read(places[40]), forger.read(places[43]));
    forger.write(places[40].0, &other);
    forger.write(places[43].0, &one);
    match found(&path) {
        Finding::Missing { place, missing, .. } => assert_eq!((place.record, missing), (41, 3)),
        other => panic!("{other}"),
    }
}

#[test]
fn records_removed_from_the_end_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 300);
    let places = entries(&path, 0);
    let forger = Forger::new(&path, 0);
    for place in &places[295..] {
        forger.file.write_all_at(&vec![0; place.1], place.0).unwrap();
    }
    match found(&path) {
        Finding::MissingAtEnd { records, missing, .. } => assert_eq!((records, missing), (295, 5)),
        other => panic!("{other}"),
    }
}

#[test]
fn a_removed_segment_or_chain_is_named_but_for_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 2_000);
    let segments = Listing::read(&path).unwrap().segments;
    let gone = dir.path().join("gone");
    let chain = chain_path(&segments[1].path);
    std::fs::rename(&chain, &gone).unwrap();
    assert_eq!(found(&path), Finding::NoChain { path: chain.clone() });
    std::fs::rename(&gone, &chain).unwrap();
    std::fs::rename(&segments[1].path, &gone).unwrap();
    assert_eq!(
        found(&path),
        Finding::MissingBefore { path: segments[2].path.clone(), missing: segments[1].len }
    );
    std::fs::rename(&gone, &segments[1].path).unwrap();
    assert_eq!(look(&path).finding, None);
    // As the retention does.
    std::fs::remove_file(&segments[0].path).unwrap();
    std::fs::remove_file(chain_path(&segments[0].path)).unwrap();
    assert_eq!(look(&path).finding, None);
}

/// Who redoes the whole chain is found by what was noted elsewhere, and without the key cannot redo it.
#[test]
fn a_chain_made_anew_is_found_by_an_anchor_or_by_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let config = chained(dir.path());
    let path = journal(config.clone(), 300);
    let anchor = look(&path).head.unwrap();
    assert_eq!(anchor.to_string().parse(), Ok(anchor));
    assert_eq!(look_with(&path, &ChainKey::public(), &[anchor]).anchors_held, 1);
    let place = entries(&path, 0)[17];
    let forger = Forger::new(&path, 0);
    let mut entry = forger.read(place);
    let text = entry.windows(6).position(|text| text == b"order-").unwrap();
    entry[text + 6] = b'9';
    forger.write(place.0, &entry);
    std::fs::remove_file(chain_path(&Listing::read(&path).unwrap().segments[0].path)).unwrap();
    drop(open(config).unwrap());
    // The control: the chain alone says nothing any more.
    assert_eq!(look(&path).finding, None);
    let finding = look_with(&path, &ChainKey::public(), &[anchor]).finding;
    assert!(matches!(finding, Some(Finding::Anchor { .. })), "{finding:?}");

    let dir = tempfile::tempdir().unwrap();
    let key = ChainKey::secret(&[7; 32]).unwrap();
    let secret = JournalConfig { chain: Some(key.clone()), ..chained(dir.path()) };
    let path = journal(secret, 300);
    assert_eq!(look_with(&path, &key, &[]).linked, 300);
    for (wrong, name) in
        [(ChainKey::public(), "without it"), (ChainKey::secret(&[8; 32]).unwrap(), "another key")]
    {
        let error = verify(Listing::read(&path).unwrap(), &wrong, &[], &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn an_anchor_beyond_the_end_says_that_the_end_was_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 300);
    let anchor = look(&path).head.unwrap();
    for beyond in [Anchor { records: 301, ..anchor }, Anchor { base: anchor.base + (1 << 30), ..anchor }] {
        let finding = look_with(&path, &ChainKey::public(), &[beyond]).finding;
        assert_eq!(finding, Some(Finding::AnchorBeyond { anchor: beyond }));
    }
    let gone = Anchor { base: 16, ..anchor };
    assert_eq!(look_with(&path, &ChainKey::public(), &[gone]).anchors_gone, 1);
}

/// What a killed gateway left, at every length of its chain's file: the next one goes on, and every record is linked.
#[test]
fn a_chain_that_ends_anywhere_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let config = chained(dir.path());
    let path = journal(config.clone(), 12);
    let chain = chain_path(&Listing::read(&path).unwrap().segments[0].path);
    let whole = std::fs::read(&chain).unwrap();
    for len in 0..=whole.len() {
        std::fs::write(&chain, &whole[..len]).unwrap();
        drop(open(config.clone()).unwrap());
        assert!(std::fs::read(&chain).unwrap() == whole, "cut at {len}");
    }
}

#[test]
fn a_chain_that_was_off_for_a_while_begins_anew_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = chained(dir.path());
    let off = JournalConfig { chain: None, ..config.clone() };
    let path = journal(off, 1_000);
    assert_eq!(look(&path).before_chain, 1_000);
    // Turned on: what is there is linked, too.
    drop(open(config.clone()).unwrap());
    let verdict = look(&path);
    assert_eq!((verdict.linked, verdict.finding), (1_000, None));
    // Another key: from the newest segment on.
    let key = ChainKey::secret(&[7; 32]).unwrap();
    drop(open(JournalConfig { chain: Some(key.clone()), ..config }).unwrap());
    let error = verify(Listing::read(&path).unwrap(), &key, &[], &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("without a key"), "{error}");
}

/// What the retention takes takes its chain along, also when the chain is far behind.
#[test]
fn chains_leave_with_their_segments() {
    let dir = tempfile::tempdir().unwrap();
    let config = chained(dir.path());
    let path = config.dir.clone();
    let mut writer = Writer::new(config);
    for _ in 0..40 {
        writer.write(500);
        while writer.journal.retained_bytes() > 3 * crate::SEGMENT_BYTES_MIN {
            writer.journal.retire_oldest();
        }
    }
    writer.journal.close().unwrap();
    drop(writer);
    let verdict = look(&path);
    assert_eq!(verdict.finding, None, "{verdict:?}");
    let count = |kind: &str| {
        let entries = std::fs::read_dir(&path).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|found| found == kind))
            .count()
    };
    assert_eq!((count("journal"), count("chain")), (3, 3));
}

/// A walk beside a writer sees every record once, in order, and never a torn one.
#[test]
fn a_walk_follows_a_gateway_that_writes() {
    const COUNT: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let config = chained(dir.path());
    let path = config.dir.clone();
    let mut writer = Writer::new(config);
    let thread = std::thread::spawn(move || {
        while writer.written < COUNT {
            writer.write(7.min(COUNT - writer.written));
        }
        writer
    });
    let mut walk = Walk::new(Listing::read(&path).unwrap());
    let mut seen = 0;
    let until = Instant::now() + Duration::from_secs(60);
    while seen < COUNT && Instant::now() < until {
        match walk.step().unwrap() {
            Step::Entry(found) => {
                assert_eq!(found.entry.journalled_at, 1_000 + seen as i64);
                seen += 1;
            }
            Step::End => std::thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(seen, COUNT);
    drop(thread.join().unwrap());
    assert_eq!(look(&path).linked, COUNT);
}

/// Any bit of any entry, of any header of a chain and of any link.
#[test]
fn a_flipped_bit_anywhere_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 600);
    let segments = Listing::read(&path).unwrap().segments;
    let ends: Vec<u64> = (0..segments.len())
        .map(|segment| entries(&path, segment).last().map_or(0, |(at, len)| at + *len as u64))
        .collect();
    let mut places: Vec<(PathBuf, u64)> = Vec::new();
    for (segment, end) in segments.iter().zip(&ends) {
        places.extend((SEGMENT_HEADER_LEN as u64..*end).step_by(97).map(|at| (segment.path.clone(), at)));
        let chain = chain_path(&segment.path);
        let chain_len = std::fs::metadata(&chain).unwrap().len();
        // Twelve bytes of the header say nothing, twenty-four more are zero: the links cover them all.
        places.extend((0..chain_len).step_by(13).map(|at| (chain.clone(), at)));
    }
    assert!(places.len() > 1_000);
    for (file, at) in places {
        let handle = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        let mut byte = [0];
        handle.read_exact_at(&mut byte, at).unwrap();
        handle.write_all_at(&[byte[0] ^ 4], at).unwrap();
        let outcome = verify(Listing::read(&path).unwrap(), &ChainKey::public(), &[], &mut |_| ());
        // An altered mark asks for a key.
        let is_found = outcome.map_or(true, |verdict| verdict.finding.is_some());
        let in_zeros = (12..16).contains(&at) || (72..96).contains(&at);
        assert!(is_found || in_zeros, "{}: byte {at}", file.display());
        handle.write_all_at(&byte, at).unwrap();
    }
    assert_eq!(look(&path).finding, None);
}

#[test]
fn what_is_no_journal_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Listing::read(dir.path()), Err(JournalError::NoJournal { .. })));
    assert!(matches!(Listing::read(&dir.path().join("nothing")), Err(JournalError::Io { .. })));
    std::fs::write(dir.path().join("0000000000000010.journal"), [1; 200]).unwrap();
    assert!(matches!(Listing::read(dir.path()), Err(JournalError::Header { .. })));
    assert_eq!("a:b".parse::<Anchor>(), Err(NoAnchor));
    assert_eq!(format!("10:0:{}", Link::NONE).parse::<Anchor>(), Err(NoAnchor));
}

#[test]
fn a_segment_that_is_none_is_refused_with_what_is_wrong_and_the_limits_are_allowed() {
    use crate::layout::{MAGIC, SegmentHeader};
    use crate::{SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
    use bellwire::abi_fingerprint;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0000000000000001.journal");
    let header = |base, len, used: u64| {
        let mut bytes = SegmentHeader {
            base,
            len,
            journal_id: 7,
            fingerprint: abi_fingerprint(),
            created_at: 1,
            boot_id: [9; 16],
        }
        .to_bytes();
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[USED_AT..][..8].copy_from_slice(&used.to_le_bytes());
        bytes
    };
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        SegmentFile::read(&path)
    };
    let wrong = |bytes: &[u8]| match read(bytes) {
        Err(JournalError::Mismatch { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    const BASE: u64 = 1 << 32;
    const HEADER: u64 = SEGMENT_HEADER_LEN as u64;
    let whole = header(BASE, SEGMENT_BYTES_MIN, 0);
    for len in 0..SEGMENT_HEADER_LEN {
        assert_eq!(wrong(&whole[..len]), "file length", "{len} bytes");
    }
    read(&whole).unwrap();
    read(&header(BASE, SEGMENT_BYTES_MAX, 0)).unwrap();
    for len in [0, SEGMENT_BYTES_MIN - 4096, SEGMENT_BYTES_MAX + 4096] {
        assert_eq!(wrong(&header(BASE, len, 0)), "segment length", "{len}");
    }
    let last = (u64::MAX >> 1) - (ENTRY_ALIGN as u64 - 1);
    for base in [ENTRY_ALIGN as u64, last] {
        read(&header(base, SEGMENT_BYTES_MIN, 0)).unwrap();
    }
    for base in [0, BASE + 1, BASE + 8, last + ENTRY_ALIGN as u64] {
        assert_eq!(wrong(&header(base, SEGMENT_BYTES_MIN, 0)), "base", "{base}");
    }
    for used in [HEADER, SEGMENT_BYTES_MIN] {
        assert_eq!(read(&header(BASE, SEGMENT_BYTES_MIN, used)).unwrap().used, Some(used));
    }
    for used in [1, HEADER - 1, SEGMENT_BYTES_MIN + 1] {
        assert_eq!(wrong(&header(BASE, SEGMENT_BYTES_MIN, used)), "used length", "{used}");
    }
}

/// A loss of power takes from a durable segment nothing, so a start need not doubt it.
#[test]
fn full_segments_are_marked_durable_unless_nothing_is_to_be_synced() {
    for (sync, is_marked) in [
        (SyncPolicy::Interval(Duration::from_secs(60)), true),
        (SyncPolicy::Every, true),
        (SyncPolicy::None, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { sync, ..chained(dir.path()) };
        let path = config.dir.clone();
        let mut writer = Writer::new(config);
        writer.write(1_500);
        // Waits until the housekeeper has done what it was told.
        drop(writer);
        let segments = Listing::read(&path).unwrap().segments;
        let (last, full) = segments.split_last().unwrap();
        assert!(!full.is_empty());
        assert!(full.iter().all(|segment| segment.is_durable == is_marked), "{sync:?}");
        // It was not closed.
        assert!(!last.is_durable);
    }
}
