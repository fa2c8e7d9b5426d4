//! Sleeping and waking: no wake is lost, a producer rings once per sleep, idle costs nothing.

mod common;

use std::time::{Duration, Instant};

use bellwire::{Budget, Reader, ReaderOptions, Wake};
use common::{Bus, eventually, note, sized};

#[test]
fn no_wake_is_lost_however_publishes_and_sleeps_fall() {
    let bus = Bus::new();
    let mut producer = sized(64 * 1024).open(&bus, "engine").unwrap();
    let mut reader = ReaderOptions::new().spin(Duration::ZERO).open(&bus, "storage").unwrap();
    producer.look();
    const NOTES: u64 = 20_000;
    let (read_tx, read_rx) = std::sync::mpsc::channel();
    let consumer = std::thread::spawn(move || {
        let mut read = 0;
        while read < NOTES {
            let slept = Instant::now();
            assert_eq!(reader.wait(Duration::from_secs(20)), Wake::Ready, "slept through a publish");
            assert!(slept.elapsed() < Duration::from_secs(10));
            read += reader.round(Budget::default(), |_, _| ()) as u64;
            reader.commit(0);
            read_tx.send(read).unwrap();
        }
        reader
    });
    for number in 1..=NOTES {
        producer.publish(&note("user", "n", "")).unwrap();
        // Publish again just when the reader goes to sleep: sooner and later by a little each time.
        while read_rx.recv().unwrap() < number {}
        for _ in 0..number % 200 {
            std::hint::spin_loop();
        }
    }
    let mut reader = consumer.join().unwrap();
    let rings = producer.counters().rings;
    assert!((1000..=NOTES + 1).contains(&rings), "rang {rings} times for {NOTES} sleeps");
    // One sleep, many publishes: one ring.
    let sleeper = std::thread::spawn(move || {
        reader.wait(Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(100));
        reader
    });
    std::thread::sleep(Duration::from_millis(50));
    let before = producer.counters().rings;
    for _ in 0..100 {
        producer.publish(&note("user", "n", "")).unwrap();
    }
    let rings = producer.counters().rings - before;
    assert!((1..=2).contains(&rings), "{rings}");
    drop(sleeper.join().unwrap());
}

#[test]
fn a_waker_ends_a_wait_also_if_it_came_first() {
    let bus = Bus::new();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let waker = reader.waker();
    waker.wake();
    waker.wake();
    assert_eq!(reader.wait(Duration::from_secs(20)), Wake::Woken);
    assert_eq!(reader.wait(Duration::from_millis(20)), Wake::TimedOut);
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        waker.wake();
    });
    assert_eq!(reader.wait(Duration::from_secs(20)), Wake::Woken);
    other.join().unwrap();
}

#[test]
fn a_sleeping_reader_finds_a_lane_that_appears() {
    let bus = Bus::new();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let name = bus.to_string();
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        let mut producer = sized(64 * 1024).open(&name, "late").unwrap();
        producer.publish(&note("user", "n", "")).unwrap();
        producer
    });
    assert_eq!(reader.wait(Duration::from_secs(20)), Wake::Ready);
    assert_eq!(reader.round(Budget::default(), |lane, _| assert_eq!(lane.name(), "late")), 1);
    drop(other.join().unwrap());
}

#[test]
fn a_reader_that_has_nothing_to_do_uses_no_cpu() {
    let bus = Bus::new();
    let mut producer = sized(64 * 1024).open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    eventually("acknowledged", || {
        producer.look();
        producer.counters().gating == 1
    });
    let cpu = || {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
        let micros = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
        micros(usage.user_time()) + micros(usage.system_time())
    };
    let before = cpu();
    assert_eq!(reader.wait(Duration::from_secs(2)), Wake::TimedOut);
    let used = cpu() - before;
    // Ten looks a second for new lanes, each some tens of microseconds even on a slow machine; spinning would be 2 s.
    assert!(used < 40_000, "{used} µs of CPU in two idle seconds");
}
