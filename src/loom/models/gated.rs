//! Readers that the writer waits for, in place: nothing lost, nothing doubled, in order, and nobody writes to what is read.

use std::sync::Arc;

use ::loom::thread;

use super::harness::{ALL, Bounds, explore};
use crate::layout::Cursor;
use crate::ring::testing::{Gated, LaneMemory, RECORD, Writer};

/// Publishes `count` records beside the readers, as far as there is room; tells how many.
fn publish(writer: &mut Writer, count: usize, cursors: &[Arc<Cursor>]) -> u64 {
    let slowest = || cursors.iter().map(|cursor| cursor.position()).min().expect("somebody gates");
    for _ in 0..count {
        // As `Producer::make_room`: as things were, then as they are.
        if writer.publish().is_err() {
            let slowest = slowest();
            writer.ring.set_slowest(slowest);
            if let Err(full) = writer.publish() {
                assert_eq!(full.unread, writer.sequence * RECORD as u64 - slowest);
                assert!(full.unread + RECORD as u64 > 3 * RECORD as u64, "full with {} unread", full.unread);
            }
        }
    }
    writer.sequence
}

/// Readers beside a writer that publishes `count` records into a ring of four, `taken` of which are taken.
fn beside(readers: usize, copies: bool, looks: usize, taken: usize, count: usize) {
    let lane = LaneMemory::new(4 * RECORD, 32);
    let mut writer = lane.writer();
    let readers: Vec<_> = (0..readers).map(|_| Gated::new(&lane, copies)).collect();
    let cursors: Vec<_> = readers.iter().map(|reader| Arc::clone(&reader.cursor)).collect();
    writer.ring.set_slowest(0);
    for _ in 0..taken {
        writer.publish().expect("room");
    }
    let theirs = cursors.clone();
    let readers = readers.into_iter().map(|mut reader| {
        thread::spawn(move || {
            for _ in 0..looks {
                reader.look();
            }
            reader
        })
    });
    let readers: Vec<_> = readers.collect();
    let publisher = thread::spawn(move || {
        publish(&mut writer, count, &theirs);
        writer
    });
    let readers: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("no panic")).collect();
    let mut writer = publisher.join().expect("no panic");
    for mut reader in readers {
        while reader.look() {}
        assert_eq!(reader.received, writer.sequence, "everything that was published");
    }
    // What has been read makes room.
    let before = writer.sequence;
    assert_eq!(publish(&mut writer, 1, &cursors), before + 1);
}

#[test]
fn a_gated_reader_in_place_reads_everything_and_is_not_overwritten() {
    explore("gated, in place", Bounds { preemptions: [ALL, 2], floor: [15000, 500] }, || {
        beside(1, false, 3, 1, 4)
    });
}

#[test]
fn a_gated_reader_that_copies_reads_everything_and_is_not_overtaken() {
    explore("gated, copying", Bounds { preemptions: [ALL, 2], floor: [2500, 500] }, || {
        beside(1, true, 2, 1, 3)
    });
}

#[test]
fn the_slower_of_two_gated_readers_is_waited_for() {
    explore("gated, two readers", Bounds { preemptions: [ALL, 2], floor: [1600, 400] }, || {
        beside(2, false, 2, 2, 2)
    });
}
