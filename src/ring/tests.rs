//! What writer and reader promise each other, one thread at a time: scans, faults, bounds.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::reader::{Next, RingFault};
use super::testing::{ARCHIVE, LaneMemory, RECORD, Reader, Writer, header};
use super::{Place, record_len_max};
use crate::record::{RECORD_LEN_MAX, RecordHeader};
use crate::sync::Ordering;

const CAPACITY: usize = 4096;

fn lane() -> (Arc<LaneMemory>, Writer, Reader) {
    let lane = LaneMemory::new(CAPACITY, CAPACITY);
    let (writer, reader) = (lane.writer(), lane.reader());
    (lane, writer, reader)
}

/// Numbers that look random, the same each time.
fn random(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

#[test]
fn a_ring_takes_records_of_a_quarter_of_it_and_no_longer_than_any_may_be() {
    assert_eq!(record_len_max(4096), 1024);
    assert_eq!(record_len_max(4 * RECORD_LEN_MAX - 64), RECORD_LEN_MAX - 16);
    assert_eq!(record_len_max(4 * RECORD_LEN_MAX + 64), RECORD_LEN_MAX);
    assert_eq!(record_len_max(1 << 30), RECORD_LEN_MAX);
}

#[test]
fn a_scan_shows_each_unread_header_once_and_leaves_the_cursor() {
    for gated in [true, false] {
        let (_lane, mut writer, mut reader) = lane();
        let (mut state, mut from) = (7, Place::default());
        let (mut read, mut scanned, mut laps) = (0, 0, 0);
        for _ in 0..3000 {
            writer.ring.set_slowest(reader.ring.at().position);
            for _ in 0..random(&mut state) % 6 {
                if writer.write(1 + random(&mut state) % 300).is_err() {
                    break;
                }
            }
            writer.ring.commit();
            // Up to some record, or to the end.
            let upto = read + random(&mut state) as u64 % 30;
            let cursor = reader.ring.at();
            let mut expected = scanned.max(read);
            from = reader
                .ring
                .scan(from, gated, |place, found| {
                    if expected == upto {
                        return ControlFlow::Break(());
                    }
                    expected += 1;
                    assert_eq!((found.lane_sequence, place.ordinal), (expected, expected - 1));
                    assert_eq!(*found, header(expected, found.archive_len as usize));
                    ControlFlow::Continue(())
                })
                .unwrap();
            scanned = expected;
            assert!(scanned == writer.sequence || scanned >= upto, "it ended before its end");
            assert_eq!((from.ordinal, reader.ring.at()), (scanned, cursor));
            for _ in 0..random(&mut state) % 6 {
                match reader.ring.next_gated().unwrap() {
                    Next::Record => read += 1,
                    _ => break,
                }
                assert_eq!(reader.ring.found().lane_sequence, read);
                reader.ring.advance();
                laps += usize::from(reader.ring.at().position % CAPACITY as u64 == 0);
            }
        }
        assert!(read > 3000 && reader.ring.at().position > 100 * CAPACITY as u64, "{read} read, {laps} laps");
    }
}

#[test]
fn a_scan_ends_where_records_were_overwritten() {
    let (_lane, mut writer, reader) = lane();
    while writer.ring.committed().position < 2 * CAPACITY as u64 {
        writer.publish().unwrap();
    }
    let mut shown = 0;
    let mut count = |_, _: &RecordHeader| {
        shown += 1;
        ControlFlow::Continue(())
    };
    // The producer does not know the cursor: nothing is wrong, and there is nothing to see here.
    assert_eq!(reader.ring.scan(Place::default(), false, &mut count), Ok(Place::default()));
    // It has acknowledged the cursor: it broke its word.
    let broken = reader.ring.scan(Place::default(), true, &mut count);
    assert!(matches!(broken, Err(RingFault::Position { cursor: 0, .. })), "{broken:?}");
    assert_eq!(shown, 0);
}

/// All ways to look at the record at the cursor.
fn looks(lane: &Arc<LaneMemory>, at: Place) -> [Result<(), RingFault>; 4] {
    let reader = || {
        let mut reader = lane.reader();
        reader.ring.seek(at);
        reader
    };
    let scan = |gated| reader().ring.scan(at, gated, |_, _| ControlFlow::Break(())).map(drop);
    let (mut gated, mut ungated) = (reader(), reader());
    [
        gated.ring.next_gated().map(drop),
        ungated.ring.next_ungated(&mut Vec::new()).map(drop),
        scan(true),
        scan(false),
    ]
}

#[test]
fn a_committed_position_that_cannot_be_is_a_fault() {
    let (lane, mut writer, _) = lane();
    for _ in 0..4 {
        writer.publish().unwrap();
    }
    let at = Place { position: 2 * RECORD as u64, ordinal: 2 };
    let position = &lane.header.rings[0].commit.position;
    let with = |committed: u64| {
        position.store(committed, Ordering::Relaxed);
        looks(&lane, at)
    };
    assert_eq!(with(4 * RECORD as u64), [Ok(()); 4], "control");
    assert_eq!(with(at.position), [Ok(()); 4], "nothing new");
    assert_eq!(with(at.position + CAPACITY as u64), [Ok(()); 4], "as much as a ring holds");
    for committed in [0, at.position - 16, at.position + CAPACITY as u64 + 16, u64::MAX] {
        let fault =
            RingFault::Position { position: committed, cursor: at.position, capacity: CAPACITY as u64 };
        assert_eq!(with(committed), [Err(fault); 4]);
    }
}

#[test]
fn a_record_that_cannot_be_there_is_a_fault_each_way_to_look_at_it() {
    const LAP: u64 = CAPACITY as u64;
    let (lane, _, _) = lane();
    let sound = header(1, ARCHIVE);
    // What stands at a position, with so much committed behind it.
    let with = |at: u64, record: &RecordHeader, committed: u64| {
        lane.scribble((at % LAP) as usize, &record.to_bytes()[..((LAP - at % LAP) as usize).min(48)]);
        lane.header.rings[0].reservation.reserved.store(at + committed, Ordering::Relaxed);
        lane.header.rings[0].commit.position.store(at + committed, Ordering::Relaxed);
        looks(&lane, Place { position: at, ordinal: 0 })
    };
    let long = |record_len: u32| RecordHeader { record_len, archive_len: record_len - 48, ..sound };
    let bad_len = |len, at, committed| [Err(RingFault::Length { len, at, position: at + committed }); 4];

    assert_eq!(with(LAP, &sound, RECORD as u64), [Ok(()); 4], "control");
    assert_eq!(with(LAP, &long(1024), 1024), [Ok(()); 4], "the longest");
    assert_eq!(with(LAP, &long(1040), 2048), bad_len(1040, LAP, 2048), "longer than any may be");
    assert_eq!(with(LAP, &long(96), 80), bad_len(96, LAP, 80), "longer than what was committed");
    assert_eq!(with(2 * LAP - 64, &long(96), 512), bad_len(96, 2 * LAP - 64, 512), "beyond the lap");
    assert_eq!(with(LAP, &long(72), 512), bad_len(72, LAP, 512), "not aligned");

    let padding = RecordHeader::padding;
    lane.scribble(0, &sound.to_bytes());
    for left in [16_u64, 64] {
        let at = 2 * LAP - left;
        assert_eq!(with(at, &padding(left as u32), left + RECORD as u64), [Ok(()); 4], "control");
        assert_eq!(with(at, &padding(left as u32), left), bad_len(left as u32, at, left), "padding alone");
        let short = left as u32 + 16;
        assert_eq!(with(at, &padding(short), 512), bad_len(short, at, 512), "padding to elsewhere");
    }

    let other = RecordHeader { priority: 2, ..sound };
    let faults = with(LAP, &other, RECORD as u64);
    assert!(faults.iter().all(|fault| matches!(fault, Err(RingFault::Record { at: LAP, .. }))), "{faults:?}");
}

#[test]
fn what_was_not_advanced_over_is_shown_again() {
    let (_lane, mut writer, mut reader) = lane();
    writer.publish().unwrap();
    writer.publish().unwrap();
    assert!(matches!(reader.ring.next_gated(), Ok(Next::Record)));
    reader.ring.forget();
    reader.ring.advance();
    assert_eq!(reader.ring.at(), Place::default(), "nothing was shown that one could move behind");
    assert!(matches!(reader.ring.next_gated(), Ok(Next::Record)));
    assert_eq!(reader.ring.found().lane_sequence, 1);
    reader.ring.advance();
    reader.ring.advance();
    assert_eq!(reader.ring.at().ordinal, 1);
}

#[test]
fn a_writer_knows_what_is_unread_and_what_is_intact() {
    // Stretches of 16 records: within one, none needs another look at the consumers.
    const CAPACITY: usize = 64 * 16 * RECORD;
    let lane = LaneMemory::new(CAPACITY, CAPACITY);
    let (mut writer, reader) = (lane.writer(), lane.reader());
    assert_eq!((writer.ring.capacity(), reader.ring.capacity()), (CAPACITY as u64, CAPACITY as u64));
    assert_eq!(writer.ring.floor(), 0);
    writer.ring.set_slowest(0);
    for _ in 0..4 {
        writer.publish().unwrap();
    }
    assert_eq!((writer.ring.slowest(), writer.ring.unread()), (0, 4 * RECORD as u64));
    writer.ring.set_slowest(3 * RECORD as u64);
    assert_eq!((writer.ring.slowest(), writer.ring.unread()), (3 * RECORD as u64, RECORD as u64));
    writer.write(ARCHIVE).unwrap();
    assert_eq!(writer.ring.unread(), 2 * RECORD as u64, "what is not committed counts too");
    writer.ring.commit();

    // While nobody falls behind, there is no need to look again; a consumer behind the others is one.
    writer.ring.set_slowest(3 * RECORD as u64);
    assert!(writer.ring.fits(RECORD));
    writer.ring.set_slowest(4 * RECORD as u64);
    assert!(writer.ring.fits(RECORD));
    writer.ring.set_slowest(RECORD as u64);
    assert!(!writer.ring.fits(RECORD));
    assert!(writer.ring.make_room(RECORD).is_ok());

    writer.ring.set_slowest(u64::MAX);
    for _ in 0..3 * CAPACITY / RECORD {
        writer.publish().unwrap();
        let committed = writer.ring.committed().position;
        assert!(writer.ring.floor() >= committed.saturating_sub(CAPACITY as u64));
        assert!(writer.ring.floor() < committed, "the newest record is intact");
    }
}

#[test]
fn who_was_overtaken_goes_on_at_intact_records_and_knows_how_many_he_lost() {
    let (_lane, mut writer, mut reader) = lane();
    let (mut state, mut lost, mut read) = (3, 0, 0);
    for _ in 0..300 {
        for _ in 0..random(&mut state) % 200 {
            writer.write(1 + random(&mut state) % 300).unwrap();
            writer.ring.commit();
        }
        let mut record = Vec::new();
        for _ in 0..random(&mut state) % 20 {
            match reader.ring.next_ungated(&mut record).unwrap() {
                Next::Record => {
                    read += 1;
                    assert_eq!(reader.ring.found().lane_sequence, read + lost, "none is skipped in silence");
                    reader.ring.advance();
                }
                Next::Overrun { lost: more } => lost += more,
                Next::Empty => break,
            }
        }
    }
    assert!(read > 1000 && lost > 1000, "{read} read, {lost} lost");
}
