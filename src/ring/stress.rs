//! A writer and readers in threads, on one mapping: what ThreadSanitizer can watch (`scripts/proofs/tsan`).
//!
//! Producers, readers and taps of one process map the same lane at different addresses, so that it sees no two threads at
//! the same place. Here they share one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::testing::{Gated, LaneMemory, Reader, Tally, Writer};

/// Fits 64 of the records, so that the ring wraps and fills all the time.
const CAPACITY: usize = 4096;
const RECORDS: u64 = 20_000;

/// Ends the wait for a thread that has panicked.
struct Patience(Instant);

impl Default for Patience {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Patience {
    fn wait(&self) {
        assert!(self.0.elapsed() < Duration::from_secs(15), "nobody goes on");
        std::thread::yield_now();
    }

    fn went_on(&mut self) {
        *self = Self::default();
    }
}

/// Publishes all records, as fast as the readers that gate allow; tells how often it had to wait.
fn publish(writer: &mut Writer, slowest: impl Fn() -> u64) -> u64 {
    let (mut full, mut patience) = (0, Patience::default());
    while writer.sequence < RECORDS {
        writer.ring.set_slowest(slowest());
        // Archives of all lengths that a header may leave to its last words, in batches of one to three.
        let batch = (writer.sequence % 3 + 1).min(RECORDS - writer.sequence);
        let written =
            (0..batch).take_while(|_| writer.write(1 + (writer.sequence % 90) as usize).is_ok()).count();
        writer.ring.commit();
        if written == 0 {
            full += 1;
            patience.wait();
        } else {
            patience.went_on();
        }
    }
    full
}

#[test]
fn readers_that_gate_and_taps_beside_a_writer() {
    let lane = LaneMemory::new(CAPACITY, 0);
    let mut writer = lane.writer();
    let gated = [false, true].map(|copies| Gated::new(&lane, copies));
    let cursors = gated.each_ref().map(|reader| std::sync::Arc::clone(&reader.cursor));
    let mut tap: Reader = lane.reader();
    let done = AtomicBool::new(false);
    let (full, tally) = std::thread::scope(|scope| {
        for mut reader in gated {
            scope.spawn(move || {
                let mut patience = Patience::default();
                while reader.received < RECORDS {
                    if reader.look() {
                        patience.went_on();
                    } else {
                        patience.wait();
                    }
                }
            });
        }
        let tap = scope.spawn(|| {
            let mut tally = Tally::default();
            while !done.load(Ordering::Acquire) {
                tally.look(&mut tap); // pairs with the Release below
            }
            tally.finish(&mut tap, RECORDS)
        });
        let slowest = || cursors.iter().map(|cursor| cursor.position()).min().expect("two");
        let full = publish(&mut writer, slowest);
        done.store(true, Ordering::Release); // pairs with the Acquire above
        (full, tap.join().expect("no panic"))
    });
    println!(
        "tsan: {RECORDS} records, {full} times full, the tap received {} and lost {}",
        tally.received, tally.lost
    );
    assert!(tally.received > 0 && full > 0);
}

/// The control: a reader that says it has read before it reads. ThreadSanitizer must report the writer's next lap.
#[test]
#[ignore = "a data race on purpose: scripts/proofs/tsan expects its report"]
fn control_a_reader_that_commits_before_it_reads_is_a_race() {
    let lane = LaneMemory::new(CAPACITY, 0);
    let mut writer = lane.writer();
    let mut hasty = Gated::new(&lane, false);
    let cursor = std::sync::Arc::clone(&hasty.cursor);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut patience = Patience::default();
            while hasty.received < RECORDS {
                if hasty.look_hastily() {
                    patience.went_on();
                } else {
                    patience.wait();
                }
            }
        });
        publish(&mut writer, || cursor.position());
    });
}
