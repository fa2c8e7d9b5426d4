//! Counts that are far along: beyond what JavaScript can count, at the wrap of a `u32`, at the end of what a lane holds.
//!
//! Nobody publishes for fourteen years to get there: the numbers of a lane at rest are moved along in its file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use bellwire::{OpenError, Priority, Reader, ReaderOptions, Tap, TapPoll, TapStart, Wake};

use crate::common::{Bus, eventually, small};
use crate::{drain, publish};

// As in `src/layout.rs`.
const DOORBELL: u64 = 256;
const RINGS: u64 = 384;
const RING_LEN: u64 = 256 + 64 * 16;
const RESERVED: u64 = 128;
const LANDMARKS: u64 = 256;
const DATA: u64 = 8192;
const ATTACHMENT: u64 = 128 + 24;
const PARKED: u64 = 256;
const SLOT: u64 = 512;
const CURSORS: u64 = SLOT + 56;
const CURSOR_LEN: u64 = 40;
const NOWHERE: u64 = u64::MAX;

/// Capacity of each ring of `small`.
const CAPACITY: u64 = 4096;

fn file(bus: &str, name: &str) -> File {
    OpenOptions::new().read(true).write(true).open(format!("/dev/shm/bellwire.{bus}.{name}")).unwrap()
}

fn word(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

fn set(file: &File, at: u64, value: u64) {
    file.write_all_at(&value.to_le_bytes(), at).unwrap();
}

fn add(file: &File, at: u64, more: u64) {
    set(file, at, word(file, at) + more);
}

/// Moves all positions in P1 of the lane `engine` and of the cursors `storage` along by `more`, a multiple of the capacity.
fn move_positions(bus: &str, more: u64) {
    let lane = file(bus, "lane.engine");
    let ring = RINGS + RING_LEN;
    add(&lane, ring, more);
    add(&lane, ring + RESERVED, more);
    for at in (0..64).map(|landmark| ring + LANDMARKS + landmark * 16) {
        if word(&lane, at) != NOWHERE {
            add(&lane, at, more);
        }
    }
    let cursors = file(bus, "cursors.storage");
    let cursor = CURSORS + CURSOR_LEN;
    // The position, and that of each of the two pairs of position and count.
    for at in [0, 8, 24] {
        add(&cursors, cursor + at, more);
    }
}

/// The lane sequence of the last record in the lane, which is its only one in P1.
fn set_last_sequence(bus: &str, sequence: u64) {
    let lane = file(bus, "lane.engine");
    assert_eq!(word(&lane, DATA + CAPACITY + 16), 1, "the first record of P1");
    set(&lane, DATA + CAPACITY + 16, sequence);
}

/// A lane with one record, read and committed by one consumer; nobody has it open.
fn at_rest() -> Bus {
    let bus = Bus::new();
    let mut producer = small().open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    producer.look();
    publish(&mut producer, 1);
    assert_eq!(drain(&mut reader), [1]);
    reader.commit(0);
    bus
}

#[test]
fn a_lane_goes_on_at_any_position_that_it_can_reach() {
    for far in [1 << 32, 1 << 53, (1 << 62) - CAPACITY] {
        let bus = at_rest();
        // Half a lap before the number, so that the rings pass it.
        move_positions(&bus, far - CAPACITY);
        let mut producer = small().open(&bus, "engine").unwrap();
        let mut reader = Reader::open(&bus, "storage").unwrap();
        let mut tap = Tap::open(&bus, "engine", TapStart::Oldest).unwrap();
        producer.look();
        let mut read = Vec::new();
        for number in 2..200 {
            publish(&mut producer, number);
            read.extend(drain(&mut reader));
            reader.commit(0);
        }
        assert!(read.iter().copied().eq(2..200), "past {far:#x}");
        let position = word(&file(&bus, "lane.engine"), RINGS + RING_LEN);
        assert!(position > far, "{position:#x} has not passed {far:#x}");
        let mut seen = 0;
        loop {
            match tap.poll(Priority::P1).unwrap() {
                TapPoll::Record(_) => seen += 1,
                TapPoll::Lost { records } => seen += records,
                TapPoll::Empty => break,
            }
        }
        assert_eq!(seen, 199, "the tap has seen, or knows that it has missed, every record");
        let lane = reader.lanes().next().unwrap();
        assert_eq!(reader.lane(lane).lost(), [0; 4]);
    }
}

#[test]
fn a_lane_beyond_what_it_can_hold_is_refused() {
    for far in [(1 << 62) + CAPACITY, u64::MAX - 2 * CAPACITY + 1] {
        let bus = at_rest();
        move_positions(&bus, far);
        let error = small().open(&bus, "engine").unwrap_err();
        assert!(matches!(&error, OpenError::Corrupt { what, .. } if what.contains("beyond all")), "{error}");
        // Who reads it finds what there is, which is nothing that is new.
        let mut reader = Reader::open(&bus, "storage").unwrap();
        assert_eq!(drain(&mut reader), [0; 0]);
        // Made anew, it goes on.
        std::fs::remove_file(format!("/dev/shm/bellwire.{}.lane.engine", &*bus)).unwrap();
        let mut producer = small().open(&bus, "engine").unwrap();
        publish(&mut producer, 2);
        eventually("the new lane is read", || drain(&mut reader) == [2]);
    }
    for sequence in [(1 << 62) + 1, u64::MAX] {
        let bus = at_rest();
        set_last_sequence(&bus, sequence);
        let error = small().open(&bus, "engine").unwrap_err();
        assert!(
            matches!(&error, OpenError::Corrupt { what, .. } if what.contains("lane sequence")),
            "{error}"
        );
    }
}

/// Found by the fuzzer: such a lane was adopted, and then every tap and every new consumer found that nothing in it was intact.
#[test]
fn a_lane_that_is_reserved_by_more_than_a_lap_is_refused() {
    let refused = |bus: &str, ring: u64| {
        set(&file(bus, "lane.engine"), RINGS + ring * RING_LEN + RESERVED, 2 * CAPACITY);
        let error = small().open(bus, "engine").unwrap_err();
        assert!(
            matches!(&error, OpenError::Corrupt { what, .. } if what.contains("reserved up to 8192")),
            "{error}"
        );
    };
    refused(&at_rest(), 1);
    // A ring that nothing was written to yet.
    refused(&at_rest(), 0);
}

/// Found by the fuzzer: opening panicked, or (without checks for overflow) gave the number that says that nobody is attached, so
/// that a consumer which the producer had given up took itself for one that it waits for.
#[test]
fn the_last_attachment_is_followed_by_the_first() {
    let bus = at_rest();
    let cursors = file(&bus, "cursors.storage");
    assert_eq!(word(&cursors, ATTACHMENT), 1);
    set(&cursors, ATTACHMENT, u64::MAX);
    let mut producer = small().open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    assert_eq!(word(&cursors, ATTACHMENT), 1);
    producer.look();
    assert_eq!(producer.counters().gating, 1);
    publish(&mut producer, 2);
    assert_eq!(drain(&mut reader), [2]);
}

#[test]
fn ids_stay_unique_and_sorted_where_the_sequence_outgrows_its_part_of_the_id() {
    for far in [1 << 40, 1 << 53] {
        let bus = at_rest();
        set_last_sequence(&bus, far - 10);
        let mut producer = small().open(&bus, "engine").unwrap();
        let mut reader = Reader::open(&bus, "storage").unwrap();
        let mut last = None;
        for number in 2..22 {
            let published = publish(&mut producer, number);
            assert_eq!(published.lane_sequence, far - 10 + number - 1);
            // The time comes first in an id, and a quarter of a microsecond is its step.
            std::thread::sleep(Duration::from_micros(1));
            assert!(last.replace(published.message_id) < Some(published.message_id));
        }
        assert!(drain(&mut reader).into_iter().eq(2..22));
    }
}

#[test]
fn doorbell_and_parked_wrap_and_nobody_sleeps_through_a_publish() {
    const NOTES: u64 = 200;
    let bus = at_rest();
    let almost = (u32::MAX - 50).to_le_bytes();
    file(&bus, "lane.engine").write_all_at(&almost, DOORBELL).unwrap();
    file(&bus, "cursors.storage").write_all_at(&almost, PARKED).unwrap();
    let mut producer = small().open(&bus, "engine").unwrap();
    let mut reader = ReaderOptions::new().spin(Duration::ZERO).open(&bus, "storage").unwrap();
    producer.look();
    let (read_tx, read_rx) = std::sync::mpsc::channel();
    let sleeper = std::thread::spawn(move || {
        for _ in 0..NOTES {
            let begun = std::time::Instant::now();
            assert_eq!(reader.wait(Duration::from_secs(20)), Wake::Ready);
            assert!(begun.elapsed() < Duration::from_secs(10), "slept through a publish");
            assert_eq!(drain(&mut reader).len(), 1);
            reader.commit(0);
            read_tx.send(()).unwrap();
        }
    });
    let parked = || {
        let mut bytes = [0; 4];
        file(&bus, "cursors.storage").read_exact_at(&mut bytes, PARKED).unwrap();
        u32::from_le_bytes(bytes)
    };
    for number in 0..NOTES {
        let before = parked();
        eventually("it sleeps", || parked() != before || number == 0);
        std::thread::sleep(Duration::from_micros(500));
        publish(&mut producer, number);
        read_rx.recv().unwrap();
    }
    sleeper.join().unwrap();
    let bell = word(&file(&bus, "lane.engine"), DOORBELL) as u32;
    assert!(bell < u32::MAX / 2 && parked() < u32::MAX / 2, "both have wrapped: {bell}, {}", parked());
}
