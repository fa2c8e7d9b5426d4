//! Readers that the writer does not wait for: received + lost = published, and nothing torn.

use std::sync::Arc;

use ::loom::thread;

use super::harness::{ALL, Bounds, explore};
use crate::ring::Place;
use crate::ring::testing::{ARCHIVE, LaneMemory, RECORD, Reader, Tally, Writer};
use crate::tap::newest;

/// Where a tap begins.
#[derive(Clone, Copy)]
enum Start {
    /// At the how-many-th record, known from before.
    At(u64),
    /// As `TapStart::Oldest`, found while the writer writes.
    Oldest,
    /// As who has been overtaken again and again while he looked for the oldest.
    NewerHalf,
    /// As `TapStart::Now`, likewise.
    Now,
}

impl Start {
    /// Goes there; the tally begins with the records that come before.
    fn go(self, reader: &mut Reader) -> Tally {
        let place = match self {
            Self::At(ordinal) => Some(Place { position: ordinal * RECORD as u64, ordinal }),
            Self::Oldest => reader.ring.header().oldest(reader.ring.capacity()),
            Self::NewerHalf => reader.ring.header().oldest(reader.ring.capacity() / 2),
            Self::Now => newest(&mut reader.ring),
        };
        let place = place.unwrap_or_default();
        reader.ring.seek(place);
        Tally { lost: place.ordinal, ..Tally::default() }
    }
}

/// A tap beside a writer that runs `write`, on a ring of four records in which `before` were published already.
///
/// If it publishes the next two records together, `in_pairs` says so.
fn beside(
    before: u64,
    start: Start,
    looks: usize,
    in_pairs: bool,
    write: impl FnOnce(&mut Writer) + 'static,
) {
    let lane = LaneMemory::new(4 * RECORD, 32);
    let mut writer = lane.writer();
    publish_each(&mut writer, before as usize);
    beside_on(&lane, writer, start, looks, in_pairs, write);
}

/// The same on a ring of the caller's.
fn beside_on(
    lane: &Arc<LaneMemory>,
    mut writer: Writer,
    start: Start,
    looks: usize,
    in_pairs: bool,
    write: impl FnOnce(&mut Writer) + 'static,
) {
    let before = writer.sequence;
    let mut reader = lane.reader();
    let tap = thread::spawn(move || {
        let mut tally = start.go(&mut reader);
        tally.with_next = in_pairs.then_some(before + 1);
        for _ in 0..looks {
            tally.look(&mut reader);
        }
        (tally, reader)
    });
    let publisher = thread::spawn(move || {
        write(&mut writer);
        writer
    });
    let (tally, mut reader) = tap.join().expect("no panic");
    let writer = publisher.join().expect("no panic");
    tally.finish(&mut reader, writer.ring.committed().ordinal);
}

fn publish_each(writer: &mut Writer, count: usize) {
    for _ in 0..count {
        writer.publish().expect("nobody gates");
    }
}

/// As `Batch`: shown together, or rolled back together.
fn publish_together(writer: &mut Writer, count: usize, commit: bool) {
    let before = writer.sequence;
    if !commit {
        writer.sequence += 100; // nobody expects these
    }
    for _ in 0..count {
        writer.write(ARCHIVE).expect("nobody gates");
    }
    if commit {
        writer.ring.commit();
    } else {
        writer.ring.roll_back();
        writer.sequence = before;
    }
}

#[test]
fn a_tap_sees_what_is_being_published() {
    explore("tap, up to date", Bounds { preemptions: [ALL, 2], floor: [250, 100] }, || {
        beside(1, Start::At(1), 2, false, |writer| publish_each(writer, 2));
    });
}

#[test]
fn a_tap_that_is_lapped_counts_what_it_lost_and_shows_nothing_torn() {
    explore("tap, lapped", Bounds { preemptions: [2, 1], floor: [100000, 5000] }, || {
        beside(4, Start::At(1), 1, true, |writer| publish_together(writer, 2, true));
    });
}

#[test]
fn a_tap_that_is_lapped_by_single_records_counts_them() {
    explore("tap, lapped by single records", Bounds { preemptions: [2, 1], floor: [150000, 8000] }, || {
        beside(3, Start::At(0), 1, false, |writer| publish_each(writer, 2));
    });
}

#[test]
fn a_tap_beside_a_slow_consumer_shows_nothing_torn() {
    explore("tap, beside a slow consumer", Bounds { preemptions: [ALL, 3], floor: [5000, 300] }, || {
        // Three records to a stretch. The consumer has read one of twelve: the next record needs no landmark.
        let lane = LaneMemory::new(12 * RECORD, 32);
        let mut writer = lane.writer();
        writer.ring.set_slowest(0);
        publish_each(&mut writer, 12);
        beside_on(&lane, writer, Start::At(0), 1, false, |writer| {
            writer.ring.set_slowest(RECORD as u64);
            publish_each(writer, 1);
        });
    });
}

#[test]
fn a_tap_that_goes_on_in_the_newer_half_of_the_ring_knows_what_it_missed() {
    explore("tap, going on in the newer half", Bounds { preemptions: [2, 1], floor: [10000, 300] }, || {
        beside(3, Start::NewerHalf, 0, false, |writer| publish_together(writer, 2, true));
    });
}

#[test]
fn a_tap_that_opens_while_the_ring_wraps_knows_what_it_missed() {
    explore("tap, opening at the oldest", Bounds { preemptions: [2, 1], floor: [9000, 700] }, || {
        beside(4, Start::Oldest, 0, true, |writer| publish_together(writer, 2, true));
    });
}

#[test]
fn a_tap_that_opens_at_the_newest_while_the_ring_wraps_knows_what_came_before() {
    explore("tap, opening at the newest", Bounds { preemptions: [2, 1], floor: [13000, 1000] }, || {
        beside(3, Start::Now, 0, false, |writer| publish_each(writer, 2));
    });
}

#[test]
fn nothing_of_a_batch_is_seen_before_all_of_it_or_after_it_was_rolled_back() {
    explore("tap, batches", Bounds { preemptions: [ALL, 3], floor: [450, 200] }, || {
        beside(3, Start::At(2), 2, true, |writer| {
            publish_together(writer, 2, false);
            publish_together(writer, 2, true);
        });
    });
}
