//! No wake is lost: a sleep that nobody ends is a deadlock, which loom reports.

use std::sync::Arc;
use std::time::Duration;

use ::loom::thread;

use super::harness::{Bounds, explore};
use crate::doorbell::{self, Sleep};
use crate::layout::CursorsHeader;
use crate::loom::atomic::compiler_reorders;
use crate::loom::kernel::Processor;
use crate::ring::testing::{LaneMemory, RECORD, Reader, Writer};
use crate::sync::{AtomicU32, Ordering};

/// A lane whose owner can be fenced, and its writer, which has published once (and passed every fence once).
fn lane() -> (Arc<LaneMemory>, Writer, Reader) {
    let lane = LaneMemory::new(4 * RECORD, 64);
    lane.header.owner.membarrier.store(1, Ordering::Relaxed);
    let mut writer = lane.writer();
    writer.publish().expect("room");
    let mut reader = lane.reader();
    let end = writer.ring.committed();
    reader.ring.seek(end);
    (lane, writer, reader)
}

/// What a producer does for each record: commit, then look at the parked words.
fn publish(writer: &mut Writer, cursors: &CursorsHeader, rung_for: &mut u32) {
    let lane = Arc::clone(&writer.lane);
    let mut wake = || doorbell::ring_if_parked(&lane.header.doorbell, &cursors.parked, rung_for);
    if compiler_reorders() {
        wake();
        writer.publish().expect("room");
    } else {
        writer.publish().expect("room");
        wake();
    }
}

/// Sleeps until each of the readers has come to `end`.
fn sleep_until(readers: &[Reader], lanes: &[Arc<LaneMemory>], cursors: &CursorsHeader, end: u64) {
    let word = AtomicU32::default(); // of a waker that nobody uses
    loop {
        let seen: Vec<_> = readers.iter().map(|reader| reader.ring.committed()).collect();
        if seen.iter().all(|committed| *committed == end) {
            return;
        }
        let has_more = || readers.iter().zip(&seen).any(|(reader, seen)| reader.ring.committed() != *seen);
        let headers = lanes.iter().map(|lane| &*lane.header);
        doorbell::park(headers, Sleep { word: &word, value: 0 }, &cursors.parked, Duration::MAX, has_more);
    }
}

#[test]
fn a_sleeping_reader_is_woken_by_every_record() {
    explore("doorbell, one producer", Bounds { preemptions: [3, 2], floor: [15000, 700] }, || {
        let (lane, mut writer, reader) = lane();
        let cursors = Arc::new(CursorsHeader::default());
        let theirs = Arc::clone(&cursors);
        let processor = Processor::new();
        let sleeper = thread::spawn(move || sleep_until(&[reader], &[lane], &theirs, 3 * RECORD as u64));
        let producer = thread::spawn(move || {
            processor.run(|| {
                let mut rung_for = 0;
                for _ in 0..2 {
                    publish(&mut writer, &cursors, &mut rung_for);
                }
            });
        });
        producer.join().expect("no panic");
        sleeper.join().expect("no panic");
    });
}

#[test]
fn a_reader_of_two_lanes_is_woken_by_either() {
    explore("doorbell, two producers", Bounds { preemptions: [2, 1], floor: [12000, 200] }, || {
        let cursors = Arc::new(CursorsHeader::default());
        let (mut lanes, mut readers, mut producers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..2 {
            let (lane, mut writer, reader) = lane();
            lanes.push(lane);
            readers.push(reader);
            let (processor, theirs) = (Processor::new(), Arc::clone(&cursors));
            let run = move || processor.run(|| publish(&mut writer, &theirs, &mut 0));
            producers.push(run);
        }
        let sleeper = thread::spawn(move || sleep_until(&readers, &lanes, &cursors, 2 * RECORD as u64));
        let producers: Vec<_> = producers.into_iter().map(thread::spawn).collect();
        for producer in producers {
            producer.join().expect("no panic");
        }
        sleeper.join().expect("no panic");
    });
}

#[test]
fn a_lane_that_changes_hands_is_not_slept_on_as_if_it_could_be_fenced() {
    explore("doorbell, new owner", Bounds { preemptions: [3, 3], floor: [1400, 700] }, || {
        let (lane, mut writer, reader) = lane();
        let cursors = Arc::new(CursorsHeader::default());
        let theirs = Arc::clone(&cursors);
        let sleeper = thread::spawn(move || sleep_until(&[reader], &[lane], &theirs, 2 * RECORD as u64));
        // No `Processor`: the kernel does not fence it.
        let successor = thread::spawn(move || {
            doorbell::greet(&writer.lane.header, doorbell::register_for_barriers());
            publish(&mut writer, &cursors, &mut 0);
        });
        successor.join().expect("no panic");
        sleeper.join().expect("no panic");
    });
}
