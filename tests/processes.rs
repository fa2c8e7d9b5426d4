//! Real processes on one bus: they start in any order and die at any time. How they fight for names is in `storms.rs`.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::ChildStdout;
use std::time::{Duration, Instant};

use bellwire::{Priority, Producer, PublishError, Reader, Tap, TapPoll, TapStart};
use common::{Bus, eventually, note, sized, small, spawn, spawn_with, title};

/// Numbers that a child printed, one a line, each with `prefix`.
fn numbers(stdout: ChildStdout, prefix: &'static str) -> impl Iterator<Item = u64> {
    let lines = BufReader::new(stdout).lines();
    lines.map_while(Result::ok).filter_map(move |line| line.strip_prefix(prefix)?.parse().ok())
}

fn publish_until_done(producer: &mut Producer, number: u64) {
    let name = number.to_string();
    loop {
        match producer.publish(&note("user", &name, "")) {
            Ok(_) => return,
            Err(PublishError::Full { .. }) => std::thread::sleep(Duration::from_micros(100)),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Reads everything there is in P1 of the only lane; the numbers in the notes' titles.
fn drain(reader: &mut Reader) -> Vec<u64> {
    let mut read = Vec::new();
    reader.refresh();
    for lane in reader.lanes() {
        while let Some(slot) = reader.peek(lane, Priority::P1).unwrap() {
            read.push(title(&slot.view().unwrap()).parse().unwrap());
            reader.advance(lane, Priority::P1);
        }
    }
    read
}

#[test]
fn child_publishes_without_end() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut producer = sized(64 * 1024).open(&bus, "engine").unwrap();
    let mut out = std::io::stdout().lock();
    for number in producer.last_sequence() + 1.. {
        publish_until_done(&mut producer, number);
        writeln!(out, "ok {number}").unwrap();
    }
}

#[test]
fn a_killed_producer_loses_nothing_it_had_published_and_the_next_one_goes_on() {
    let bus = Bus::new();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let mut read = Vec::new();
    for round in 0..20 {
        let mut child = spawn("child_publishes_without_end", &bus);
        let mut acknowledged = 0;
        let until = Instant::now() + Duration::from_millis(10 + 7 * round);
        let mut said = numbers(child.stdout.take().unwrap(), "ok ");
        for number in said.by_ref() {
            acknowledged = number;
            read.extend(drain(&mut reader));
            reader.commit(0);
            if Instant::now() > until {
                break;
            }
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        acknowledged = said.last().unwrap_or(acknowledged);
        read.extend(drain(&mut reader));
        reader.commit(0);
        assert!(read.len() as u64 >= acknowledged, "published {acknowledged}, read {}", read.len());
    }
    assert!(read.len() > 1000);
    assert!(read.iter().copied().eq(1..=read.len() as u64), "each once, in order");
    let lane = reader.lanes().next().unwrap();
    assert_eq!(reader.lane(lane).lost(), [0; 4]);
}

#[test]
fn child_reads_and_commits_without_end() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let mut out = std::io::stdout().lock();
    loop {
        reader.wait(Duration::from_secs(1));
        for number in drain(&mut reader) {
            writeln!(out, "read {number}").unwrap();
        }
        out.flush().unwrap();
        reader.commit(0);
    }
}

#[test]
fn a_killed_consumer_goes_on_behind_its_last_commit() {
    let bus = Bus::new();
    let mut producer = sized(64 * 1024).open(&bus, "engine").unwrap();
    let mut next = 1;
    let mut seen = 0;
    for _ in 0..15 {
        let mut child = spawn("child_reads_and_commits_without_end", &bus);
        let mut said = numbers(child.stdout.take().unwrap(), "read ");
        // Known to the producer before it publishes so much that it would lap an unknown one.
        eventually("the consumer is acknowledged", || {
            producer.look();
            producer.counters().gating == 1
        });
        let target = next + 500;
        let mut first = true;
        while next < target {
            publish_until_done(&mut producer, next);
            next += 1;
            if next % 50 == 0 {
                let number = said.next().unwrap();
                // It may read again what it had not committed, but it never leaves anything out.
                assert!(number <= seen + 1, "{number} after {seen}");
                assert!(first || number == seen + 1, "{number} after {seen}");
                (seen, first) = (number, false);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for number in said {
            assert!(number <= seen + 1 && (first || number == seen + 1), "{number} after {seen}");
            (seen, first) = (number, false);
        }
    }
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let rest = drain(&mut reader);
    assert!(rest.first().is_none_or(|first| *first <= seen + 1));
    assert_eq!(rest.last().copied().unwrap_or(seen).max(seen), next - 1);
}

#[test]
fn a_live_consumer_that_does_not_read_gates_for_ever() {
    let bus = Bus::new();
    let mut producer = small().grace(Duration::ZERO).open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    producer.look();
    let mut published = 0;
    let until = Instant::now() + Duration::from_millis(400);
    let mut refused = 0;
    while Instant::now() < until {
        match producer.publish(&note("user", &(published + 1).to_string(), "")) {
            Ok(_) => published += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100 && producer.counters().released == 0);
    // What was refused and tried again is delivered once.
    let read = drain(&mut reader);
    assert!(read.iter().copied().eq(1..=published));
    reader.commit(0);
    publish_until_done(&mut producer, published + 1);
    assert_eq!(drain(&mut reader), [published + 1]);
}

#[test]
fn producers_and_consumers_start_in_any_order() {
    for producer_first in [true, false] {
        let bus = Bus::new();
        let (mut producer, mut reader);
        if producer_first {
            producer = sized(64 * 1024).open(&bus, "engine").unwrap();
            publish_until_done(&mut producer, 1);
            reader = Reader::open(&bus, "storage").unwrap();
        } else {
            reader = Reader::open(&bus, "storage").unwrap();
            producer = sized(64 * 1024).open(&bus, "engine").unwrap();
            publish_until_done(&mut producer, 1);
        }
        publish_until_done(&mut producer, 2);
        assert_eq!(drain(&mut reader), [1, 2]);
        // A second lane and a second consumer, later.
        let mut other = sized(64 * 1024).open(&bus, "risk").unwrap();
        publish_until_done(&mut other, 3);
        assert_eq!(drain(&mut reader), [3]);
        let mut late = Reader::open(&bus, "monitor").unwrap();
        assert_eq!(late.lanes().count(), 2);
        let mut read = drain(&mut late);
        read.sort_unstable();
        assert_eq!(read, [1, 2, 3], "a first-time consumer starts at the oldest retained record");
    }
}

#[test]
fn child_writes_to_a_lane_that_it_reads() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut reader = Reader::open(&bus, "storage").unwrap();
    assert_eq!(drain(&mut reader), [1]);
    let whose = std::env::var("WHOSE").unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let map = maps.lines().find(|line| line.ends_with(&format!("bellwire.{bus}.{whose}"))).unwrap();
    let address = usize::from_str_radix(map.split('-').next().unwrap(), 16).unwrap();
    let word = (address + 128) as *mut u64; // in the owner's words: harmless if the write is allowed
    // SAFETY: mapped, aligned.
    let found = unsafe { word.read_volatile() };
    // SAFETY: it is not safe, and that is what is tested: the kernel must end this process here if the mapping is
    // somebody else's segment. Into one's own segment it writes what was there.
    unsafe { word.write_volatile(found) };
    println!("written");
}

#[test]
fn the_kernel_stops_a_reader_that_writes_to_a_lane() {
    let bus = Bus::new();
    let mut producer = small().open(&bus, "engine").unwrap();
    publish_until_done(&mut producer, 1);
    let status = |whose| {
        let child = spawn_with("child_writes_to_a_lane_that_it_reads", &bus, &[("WHOSE", whose)]);
        child.wait_with_output().unwrap()
    };
    let output = status("lane.engine");
    assert_eq!(output.status.signal(), Some(11), "{output:?}");
    // The control: the same store into one's own segment is allowed.
    drop(producer);
    let output = status("cursors.storage");
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("written"));
}

#[test]
fn a_tap_changes_nothing_and_slows_nobody_down() {
    let bus = Bus::new();
    let mut producer = small().open(&bus, "engine").unwrap();
    let before: Vec<_> = bellwire::inspect::segments(&bus).unwrap();
    let mut tap = Tap::open(&bus, "engine", TapStart::Now).unwrap();
    for number in 1..=1000 {
        publish_until_done(&mut producer, number);
    }
    assert_eq!(producer.counters().refused, [0; 4]);
    let mut seen = 0;
    loop {
        match tap.poll(Priority::P1).unwrap() {
            TapPoll::Record(_) => seen += 1,
            TapPoll::Lost { records } => seen += records,
            TapPoll::Empty => break,
        }
    }
    assert_eq!(seen, 1000);
    assert_eq!(bellwire::inspect::segments(&bus).unwrap().len(), before.len());
}

#[test]
fn a_new_lane_waits_for_a_living_consumer_that_has_not_noticed_it_yet() {
    let bus = Bus::new();
    // It lives, and it does not look for lanes: it is not asked to wait or to refresh.
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let mut producer = small().open(&bus, "engine").unwrap();
    let mut published = 0;
    while producer.publish(&note("user", &(published + 1).to_string(), "")).is_ok() {
        published += 1;
        assert!(published < 1000, "the ring laps and nobody has read it");
    }
    assert!(published > 10);
    assert!(drain(&mut reader).into_iter().eq(1..=published), "everything from the first one on");
    let lane = reader.lanes().next().unwrap();
    assert_eq!(reader.lane(lane).missed(), [0; 4]);
    reader.commit(0);
    publish_until_done(&mut producer, published + 1);
    assert_eq!(drain(&mut reader), [published + 1]);
}

#[test]
fn a_consumer_that_never_attaches_is_given_up_after_the_grace_time_and_stays_given_up() {
    let bus = Bus::new();
    drop(Reader::open(&bus, "storage").unwrap());
    // Opening a lane looks for consumers: the grace time begins within it.
    let start = Instant::now();
    let mut producer = small().grace(Duration::from_millis(100)).open(&bus, "engine").unwrap();
    for number in 1..=500 {
        publish_until_done(&mut producer, number);
    }
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert_eq!(producer.counters().released, 1);
    drop(producer);
    let mut producer = small().grace(Duration::from_secs(1000)).open(&bus, "engine").unwrap();
    for number in 501..=1000 {
        publish_until_done(&mut producer, number);
    }
    assert_eq!(producer.counters().refused, [0; 4], "the next owner need not wait for it again");
}
