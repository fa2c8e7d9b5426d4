//! Consumers that come, die, return and are forgotten while a producer publishes: nothing is overwritten that the producer
//! promised to keep, what is lost is counted, what is read in place nobody writes to, and what has been read makes room.

use ::loom::thread;

use super::bus::{Cursors, Engine, Process};
use super::harness::{ALL, Bounds, explore};
use crate::reader::LaneFault;
use crate::ring::testing::{ARCHIVE, RECORD};

/// A lane that everybody finds, whose ring of four records holds its first `published`.
fn engine(published: usize) -> Engine {
    let mut engine = Engine::new("l", 4);
    engine.segment.link();
    publish(&mut engine, published);
    engine
}

fn publish(engine: &mut Engine, count: usize) {
    for _ in 0..count {
        engine.publish(false).expect("room");
    }
}

/// Cursors that everybody finds.
fn cursors(name: &str) -> Cursors {
    let cursors = Cursors::new(name);
    cursors.segment.link();
    cursors
}

/// Reads up to `records`, in place if the producer respects the cursor, and commits each.
fn read(process: &mut Process, records: usize) {
    let lane = process.lane();
    for _ in 0..records {
        if process.read(lane, false).expect("a sound lane") {
            process.commit();
        }
    }
}

/// Reads everything. What was received by others, by this process, lost and missed is what was published, and everything
/// that was read makes room.
fn settle(process: &mut Process, engine: &mut Engine, by_others: u64) {
    engine.look();
    read(process, 4);
    let (lost, missed) = process.lost_and_missed(process.lane());
    let received = by_others + process.received;
    assert_eq!(received + lost + missed, engine.sequence, "received + lost = published");
    publish(engine, 3);
    while engine.publish(false).is_ok() {}
    read(process, 4);
    publish(engine, 1);
    assert_eq!(process.lost_and_missed(process.lane()), (lost, missed), "respected from the look on");
}

/// A producer that looks and publishes beside a consumer that attaches and reads.
fn arrival(cursors: Cursors) {
    let mut engine = engine(4);
    let consumer = thread::spawn(move || {
        let mut process = Process::open(&cursors);
        read(&mut process, 1);
        process
    });
    let producer = thread::spawn(move || {
        engine.look();
        for _ in 0..3 {
            let _ = engine.publish(false);
        }
        engine
    });
    let mut process = consumer.join().expect("no panic");
    let mut engine = producer.join().expect("no panic");
    settle(&mut process, &mut engine, 0);
}

#[test]
fn a_consumer_that_arrives_loses_nothing_from_where_it_is_respected() {
    explore("handshake, arrival", Bounds { preemptions: [3, 2], floor: [18000, 3300] }, || {
        arrival(cursors("c"));
    });
}

#[test]
fn a_consumer_that_is_noticed_late_is_respected_only_from_where_nothing_is_overwritten() {
    explore("handshake, noticed late", Bounds { preemptions: [3, 2], floor: [60000, 26000] }, || {
        let (mut engine, cursors) = (engine(4), cursors("c"));
        let mut process = Process::open(&cursors);
        publish(&mut engine, 1); // what is reserved now reaches into the record at its cursor
        let consumer = thread::spawn(move || {
            read(&mut process, 1);
            process
        });
        let producer = thread::spawn(move || {
            engine.look();
            engine.publish_with(0, false).expect("reserved");
            engine
        });
        let mut process = consumer.join().expect("no panic");
        let mut engine = producer.join().expect("no panic");
        settle(&mut process, &mut engine, 0);
    });
}

#[test]
fn a_consumer_whose_slot_was_another_lanes_is_not_taken_to_have_come_further_than_it_has() {
    let former = || {
        // It has read more of a lane that is gone than this one has.
        let cursors = cursors("c");
        let mut gone = Engine::new("k", 4);
        gone.segment.link();
        publish(&mut gone, 4);
        let mut process = Process::open(&cursors);
        gone.look();
        for _ in 0..4 {
            read(&mut process, 4);
            publish(&mut gone, 3);
        }
        read(&mut process, 4);
        gone.segment.unlink();
        process.refresh();
        cursors
    };
    explore("handshake, used slot", Bounds { preemptions: [3, 2], floor: [18000, 3300] }, move || {
        arrival(former());
    });
}

#[test]
fn a_consumer_that_dies_is_given_up_and_its_next_process_knows_what_was_lost() {
    explore("handshake, death and return", Bounds { preemptions: [2, 1], floor: [2000, 250] }, || {
        let (mut engine, cursors) = (engine(0), cursors("c"));
        let mut first = Process::open(&cursors);
        engine.look();
        publish(&mut engine, 3);
        let consumer = thread::spawn(move || {
            read(&mut first, 1);
            cursors.segment.set_held(false);
            let received = first.received;
            drop(first);
            cursors.segment.set_held(true);
            let mut second = Process::open(&cursors);
            read(&mut second, 1);
            (received, second)
        });
        let producer = thread::spawn(move || {
            for _ in 0..2 {
                let _ = engine.publish(true);
            }
            engine
        });
        let (received, mut second) = consumer.join().expect("no panic");
        let mut engine = producer.join().expect("no panic");
        settle(&mut second, &mut engine, received);
    });
}

/// A consumer that copies, while a producer stops waiting for it and writes a long record over the one that it reads, so
/// that there is no header any more where one was. What the consumer copies is whole or, if the promise went in the middle
/// of that, said to be overtaken; `next` blames the lane for nothing.
fn forgotten(forget: impl FnOnce(&mut Engine, &Cursors) + 'static) {
    let (mut engine, cursors) = (Engine::new("l", 8), cursors("c"));
    engine.segment.link();
    let mut process = Process::open(&cursors);
    engine.look();
    publish(&mut engine, 1);
    read(&mut process, 1);
    publish(&mut engine, 7);
    let consumer = thread::spawn(move || {
        let lane = process.lane();
        match process.read(lane, true) {
            Ok(_) | Err(LaneFault::Overtaken { .. }) => {}
            Err(fault) => panic!("{fault}"),
        }
        process
    });
    let producer = thread::spawn(move || {
        forget(&mut engine, &cursors);
        engine.publish_with(ARCHIVE + RECORD, false).expect("nobody gates here");
        engine
    });
    let mut process = consumer.join().expect("no panic");
    let engine = producer.join().expect("no panic");
    let lane = process.lane();
    while process.read(lane, true).expect("a sound lane") {}
    let (lost, missed) = process.lost_and_missed(lane);
    assert_eq!(process.received + lost + missed, engine.sequence, "received + lost = published");
}

#[test]
fn a_consumer_that_is_forgotten_while_it_reads_goes_on_as_one_that_is_not_waited_for() {
    explore("handshake, forgotten", Bounds { preemptions: [2, 1], floor: [24000, 2400] }, || {
        forgotten(|engine, cursors| {
            cursors.segment.unlink();
            engine.look();
        });
    });
}

#[test]
fn a_consumer_whose_entry_another_one_has_now_does_not_take_the_promise_for_its_own() {
    explore("handshake, entry of another", Bounds { preemptions: [2, 1], floor: [39000, 3500] }, || {
        forgotten(|engine, cursors| {
            // Attached as often as the first one, and it has read everything.
            let other = self::cursors("o");
            let mut process = Process::open(&other);
            read(&mut process, 8);
            cursors.segment.unlink();
            engine.look();
        });
    });
}

#[test]
fn what_an_earlier_owner_of_the_lane_promised_holds() {
    explore("handshake, new owner", Bounds { preemptions: [3, 2], floor: [170, 80] }, || {
        let (mut engine, cursors) = (engine(0), cursors("c"));
        let mut process = Process::open(&cursors);
        engine.look();
        publish(&mut engine, 3);
        let consumer = thread::spawn(move || {
            read(&mut process, 2);
            process
        });
        let producer = thread::spawn(move || {
            let mut successor = engine.succeed();
            successor.look();
            for _ in 0..2 {
                let _ = successor.publish(false);
            }
            successor
        });
        let mut process = consumer.join().expect("no panic");
        let mut engine = producer.join().expect("no panic");
        assert_eq!(process.lost_and_missed(process.lane()), (0, 0), "nothing is lost");
        settle(&mut process, &mut engine, 0);
    });
}

#[test]
fn a_lane_that_is_there_keeps_its_slot_when_another_one_needs_one() {
    explore("handshake, slots", Bounds { preemptions: [ALL, ALL], floor: [1, 1] }, || {
        let cursors = cursors("c");
        let [mut kept, gone] = ["l", "k"].map(|name| {
            let mut engine = Engine::new(name, 4);
            publish(&mut engine, 3);
            engine
        });
        // In this order, so that the slot of the lane that stays is the first.
        kept.segment.link();
        let mut process = Process::open(&cursors);
        gone.segment.link();
        process.refresh();
        kept.look();
        read(&mut process, 2);
        drop(process);
        gone.segment.unlink();
        let new = Engine::new("a", 4);
        new.segment.link();
        // The new lane's name comes first, and there is no slot that was never used.
        let mut process = Process::open(&cursors);
        let lane = process.lanes.ids().find(|id| process.lanes.get(*id).info.name() == "l");
        let lane = lane.expect("attached");
        while process.read(lane, false).expect("a sound lane") {}
        assert_eq!(process.received, 1, "two of three were read before");
    });
}
