//! A reader's wait as a whole: what it has to read or was woken for ends it, and a sleep that nobody ends is a deadlock.

use std::sync::Arc;

use ::loom::thread;

use super::bus::{Cursors, Engine, Process};
use super::harness::{Bounds, explore};
use crate::loom::kernel::Processor;
use crate::reader::Wake;
use crate::sync::{AtomicU32, Ordering};

fn cursors() -> Cursors {
    let cursors = Cursors::new("c");
    cursors.segment.link();
    cursors
}

#[test]
fn who_is_woken_sees_what_was_done_before() {
    explore("wait, waker", Bounds { preemptions: [3, 2], floor: [1000, 260] }, || {
        let cursors = cursors();
        let mut process = Process::open(&cursors);
        let (waker, done) = (process.waker(), Arc::new(AtomicU32::default()));
        let seen = Arc::clone(&done);
        let sleeper = thread::spawn(move || {
            let mut last = 0;
            // Two wakes may come as one.
            while last < 2 {
                assert_eq!(process.wait(), Wake::Woken);
                let now = seen.load(Ordering::Relaxed);
                assert!(now > last, "woken for nothing");
                last = now;
            }
        });
        let other = thread::spawn(move || {
            for number in 1..=2 {
                done.store(number, Ordering::Relaxed);
                waker.wake();
            }
        });
        other.join().expect("no panic");
        sleeper.join().expect("no panic");
    });
}

#[test]
fn a_producer_that_has_just_noticed_a_sleeper_wakes_it() {
    explore("wait, noticed", Bounds { preemptions: [3, 2], floor: [57000, 8000] }, || {
        let mut engine = Engine::new("l", 4);
        engine.lane.owner.membarrier.store(1, Ordering::Relaxed);
        engine.segment.link();
        let cursors = cursors();
        let mut process = Process::open(&cursors);
        let processor = Processor::new();
        let sleeper = thread::spawn(move || {
            let lane = process.lane();
            assert_eq!(process.wait(), Wake::Ready);
            assert!(process.read(lane, false).expect("a sound lane"), "ready for nothing");
        });
        let producer = thread::spawn(move || {
            processor.run(|| {
                engine.look();
                engine.publish(false).expect("room");
            });
        });
        producer.join().expect("no panic");
        sleeper.join().expect("no panic");
    });
}
