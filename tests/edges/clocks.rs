//! Clocks that jump by days, and clocks of another time namespace.
//!
//! The machine's clock is not touched: libfaketime gives one process another wall clock, which a file sets.

use std::collections::HashSet;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bellwire::{Budget, ReaderOptions, Wake};
use nix::time::{ClockId, clock_gettime};

use crate::common::{Bus, eventually, sized, skip, small};
use crate::{publish, said};

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const DAYS: i64 = 3 * 24 * 3600;

fn wall_ns() -> i64 {
    let time = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}

/// Runs one of these tests in another process with `launcher` before it.
fn launch(mut launcher: Command, name: &str, bus: &str) -> Child {
    launcher
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("BELLWIRE_TEST_BUS", bus)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn child_publishes_by_its_own_clock() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut producer = sized(4 << 20).open(&bus, "engine").unwrap();
    for number in 1.. {
        let published = publish(&mut producer, number);
        let gating = producer.counters().gating;
        println!(
            "published {} {} {} {gating}",
            published.message_id, published.lane_sequence, published.timestamp
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_wall_clock_that_jumps_by_days_stops_nothing_and_repeats_no_id() {
    if !Path::new(FAKETIME).exists() {
        return skip("libfaketime is not installed");
    }
    let bus = Bus::new();
    let clock = std::env::temp_dir().join(format!("{}-clock", &*bus));
    let set_clock = |seconds: i64| std::fs::write(&clock, format!("{seconds:+}\n")).unwrap();
    set_clock(0);
    let mut launcher = Command::new("env");
    launcher
        .env("LD_PRELOAD", FAKETIME)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let mut child = launch(launcher, "clocks::child_publishes_by_its_own_clock", &bus);
    let mut published = said(child.stdout.take().unwrap(), "published ");
    let (mut ids, mut last) = (HashSet::new(), (0, None));
    let mut lines = |count: usize, offset: i64| {
        let mut gating = 0;
        let mut last_id = None;
        // What is still in the pipe was published before the clock jumped.
        let is_of_now =
            |timestamp: i64| (timestamp - wall_ns() - offset * 1_000_000_000).abs() < 60_000_000_000;
        let mut seen = 0;
        while seen < count {
            let line = published.next().expect("the producer goes on");
            let fields: Vec<_> = line.split(' ').collect();
            assert!(ids.insert(fields[0].to_owned()), "an id for the second time: {line}");
            let sequence: u64 = fields[1].parse().unwrap();
            assert_eq!(sequence, last.0 + 1, "the order of publishing does not depend on the clock");
            last.0 = sequence;
            if is_of_now(fields[2].parse().unwrap()) {
                seen += 1;
                // Between jumps ids sort by time.
                assert!(last_id.replace(fields[0].to_owned()) < Some(fields[0].to_owned()));
            }
            gating = fields[3].parse().unwrap();
        }
        last.1 = Some(gating);
        gating
    };
    let mut readers = Vec::new();
    let mut read = [0, 0, 0, 0];
    for (index, offset) in [0, DAYS, -DAYS, 0].into_iter().enumerate() {
        set_clock(offset);
        lines(50, offset);
        // A consumer that comes now is noticed within the time that it is by any clock.
        let reader = ReaderOptions::new().open(&bus, &format!("consumer-{index}")).unwrap();
        readers.push(reader);
        let begun = Instant::now();
        while lines(1, offset) < index + 1 {
            assert!(begun.elapsed() < Duration::from_secs(10), "a new consumer is not noticed");
            for (reader, read) in readers.iter_mut().zip(&mut read) {
                *read += reader.round(Budget::default(), |_, _| ());
                reader.commit(0);
            }
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    std::fs::remove_file(&clock).unwrap();
    for reader in &mut readers {
        reader.round(Budget::default(), |_, _| ());
        let lane = reader.lanes().next().unwrap();
        assert_eq!(reader.lane(lane).lost(), [0; 4]);
    }
}

#[test]
fn child_publishes_when_it_is_told_to() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut producer = small().open(&bus, "engine").unwrap();
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    println!("at {}", monotonic.tv_sec());
    for (number, _) in std::io::stdin().lines().enumerate() {
        publish(&mut producer, number as u64 + 1);
    }
}

#[test]
#[allow(clippy::zombie_processes, reason = "where it cannot be launched, it has ended")]
fn a_producer_of_another_time_namespace_wakes_and_is_read_like_any_other() {
    let mut launcher = Command::new("unshare");
    launcher.args(["--time", "--monotonic", "8640000", "--boottime", "8640000", "--fork"]);
    let bus = Bus::new();
    let mut reader = ReaderOptions::new().spin(Duration::ZERO).open(&bus, "storage").unwrap();
    let mut child = launch(launcher, "clocks::child_publishes_when_it_is_told_to", &bus);
    let mut words = said(child.stdout.take().unwrap(), "at ");
    let Some(theirs) = words.next() else {
        return skip("no right to make a time namespace");
    };
    let ours = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().tv_sec();
    assert!(
        theirs.parse::<i64>().unwrap() - ours > 8_000_000,
        "another monotonic clock: {theirs}, ours {ours}"
    );
    let mut stdin = child.stdin.take().unwrap();
    for number in 1..=50 {
        let waker = std::thread::spawn({
            let mut stdin = stdin;
            move || {
                std::thread::sleep(Duration::from_millis(2));
                std::io::Write::write_all(&mut stdin, b"go\n").unwrap();
                stdin
            }
        });
        let begun = Instant::now();
        eventually("it is read", || {
            assert_ne!(reader.wait(Duration::from_secs(20)), Wake::TimedOut);
            reader.round(Budget::default(), |_, _| ()) == 1
        });
        assert!(begun.elapsed() < Duration::from_secs(5), "number {number} took {:?}", begun.elapsed());
        reader.commit(0);
        stdin = waker.join().unwrap();
    }
    // The header says how its clocks differ, so that who compares times with it can tell.
    let header = std::fs::File::open(format!("/dev/shm/bellwire.{}.lane.engine", &*bus)).unwrap();
    let mut difference = [0; 8];
    header.read_exact_at(&mut difference, 128 + 16).unwrap();
    let here = wall_ns() - ours * 1_000_000_000;
    let apart = (here - i64::from_le_bytes(difference)) / 1_000_000_000;
    assert!((8_639_000..8_641_000).contains(&apart), "{apart} s");
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
