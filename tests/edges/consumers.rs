//! Consumers that are away: dead beyond the grace time, or stopped.

use std::time::{Duration, Instant};

use bellwire::{Budget, LANES_MAX, Priority, Producer, PublishError, Reader, ReaderOptions, Wake};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Bus, eventually, note, small, spawn};
use crate::{drain, publish, said};

const GRACE: Duration = Duration::from_millis(300);

#[test]
fn child_reads_until_it_is_killed() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let mut read = 0;
    while read < 8 {
        reader.wait(Duration::from_secs(1));
        read += reader.round(Budget::default(), |_, _| ());
        reader.commit(read as u64);
    }
    println!("read {read}");
    std::thread::sleep(Duration::from_secs(60));
}

/// Publishes that many to each ring, for as long as it takes; tells how often a ring was full.
fn fill(producer: &mut Producer, counts: [u64; 4]) -> u64 {
    let mut refused = 0;
    for (priority, count) in Priority::ALL.into_iter().zip(counts) {
        let mut published = 0;
        while published < count {
            match producer.publish(&note("user", "n", "").with_priority(priority)) {
                Ok(_) => published += 1,
                Err(PublishError::Full { .. }) => {
                    refused += 1;
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    refused
}

#[test]
fn a_consumer_dead_beyond_the_grace_time_learns_exactly_what_it_lost_of_each_ring() {
    let bus = Bus::new();
    let mut producer = small().grace(GRACE).open(&bus, "engine").unwrap();
    let mut child = spawn("consumers::child_reads_until_it_is_killed", &bus);
    let mut words = said(child.stdout.take().unwrap(), "read ");
    eventually("acknowledged", || {
        producer.look();
        producer.counters().gating == 1
    });
    assert_eq!(fill(&mut producer, [2; 4]), 0);
    assert_eq!(words.next().as_deref(), Some("8"));
    child.kill().unwrap();
    child.wait().unwrap();

    let died = Instant::now();
    // P3 stays within its ring.
    let counts = [500, 400, 300, 3];
    let refused = fill(&mut producer, counts);
    assert!(died.elapsed() >= GRACE && refused > 10, "it did not gate: {refused}, {:?}", died.elapsed());
    assert_eq!(producer.counters().released, 1, "given up once, for all rings");

    let mut reader = Reader::open(&bus, "storage").unwrap();
    assert_eq!(reader.mark(), 8);
    let lane = reader.lanes().next().unwrap();
    let mut read = [0; 4];
    for priority in Priority::ALL {
        while reader.peek(lane, priority).unwrap().is_some() {
            reader.advance(lane, priority);
            read[priority.index()] += 1;
        }
    }
    let lost = reader.lane(lane).lost();
    for ring in 0..4 {
        assert_eq!(
            read[ring] + lost[ring],
            counts[ring],
            "P{ring}: read {}, lost {}",
            read[ring],
            lost[ring]
        );
    }
    assert!(lost[0] > 300 && lost[1] > 200 && lost[2] > 100 && lost[3] == 0, "{lost:?}");
    // It gates again, and nothing more is lost.
    reader.commit(9);
    producer.look();
    assert_eq!(producer.counters().gating, 1);
    while producer.publish(&note("user", "n", "")).is_ok() {}
    assert!(reader.round(Budget::default(), |_, _| ()) > 10);
    assert_eq!(reader.lane(lane).lost(), lost);
    println!("edges: dead beyond the grace time: lost {lost:?} of {counts:?}, told exactly");
}

#[test]
fn a_consumer_that_is_stopped_for_longer_than_the_grace_time_lives_and_loses_nothing() {
    let bus = Bus::new();
    let mut producer = small().grace(Duration::from_millis(50)).open(&bus, "engine").unwrap();
    let mut child = spawn("consumers::child_reads_until_it_is_killed", &bus);
    eventually("acknowledged", || {
        producer.look();
        producer.counters().gating == 1
    });
    let pid = Pid::from_raw(child.id() as i32);
    kill(pid, Signal::SIGSTOP).unwrap();
    nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WUNTRACED)).unwrap();
    let stopped_at = Instant::now();
    let (mut published, mut refused) = (0, 0);
    while stopped_at.elapsed() < Duration::from_millis(500) {
        match producer.publish(&note("user", "n", "")) {
            Ok(_) => published += 1,
            Err(PublishError::Full { .. }) => {
                refused += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(published > 10 && refused > 10, "{published} published, {refused} refused");
    assert_eq!(producer.counters().released, 0, "it lives: it is waited for");
    kill(pid, Signal::SIGCONT).unwrap();
    let read: u64 = said(child.stdout.take().unwrap(), "read ").next().unwrap().parse().unwrap();
    assert_eq!(read, published);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Found by a model: with every slot of the cursors used, a new lane took the slot of one whose turn to be attached had not
/// come yet, and that one was read again from its oldest record.
#[test]
fn a_lane_that_is_there_keeps_its_cursors_when_new_ones_come() {
    let bus = Bus::new();
    let publish = |name: &str| publish(&mut small().open(&bus, name).unwrap(), 1);
    let lane = |index: usize| format!("lane-{index:02}");
    let read = |reader: &mut Reader| {
        let read = drain(reader).len();
        reader.commit(0);
        read
    };
    for index in 0..LANES_MAX {
        publish(&lane(index));
    }
    let mut reader = Reader::open(&bus, "storage").unwrap();
    assert_eq!(read(&mut reader), LANES_MAX);
    // While it is away, half of the lanes go, and others come whose names are before and behind.
    drop(reader);
    for index in (0..LANES_MAX).step_by(2) {
        std::fs::remove_file(format!("/dev/shm/bellwire.{}.lane.{}", &*bus, lane(index))).unwrap();
        publish(&format!("{}-{index}", if index % 4 == 0 { "a" } else { "z" }));
    }
    let mut reader = Reader::open(&bus, "storage").unwrap();
    assert_eq!(read(&mut reader), LANES_MAX / 2, "only what is new");
}

#[test]
fn the_last_of_64_lanes_wakes_a_sleeping_reader_and_a_65th_is_refused() {
    let bus = Bus::new();
    let mut producers: Vec<_> =
        (0..LANES_MAX).map(|index| small().open(&bus, &format!("lane-{index:02}")).unwrap()).collect();
    let mut reader = ReaderOptions::new().spin(Duration::ZERO).open(&bus, "storage").unwrap();
    assert_eq!(reader.lanes().count(), LANES_MAX);
    producers.iter_mut().for_each(Producer::look);
    for index in [0, LANES_MAX - 1] {
        let sleeper = std::thread::spawn(move || {
            let slept = Instant::now();
            assert_eq!(reader.wait(Duration::from_secs(20)), Wake::Ready);
            assert!(slept.elapsed() < Duration::from_secs(10), "lane {index} did not wake it");
            assert_eq!(drain(&mut reader), [1]);
            reader
        });
        std::thread::sleep(Duration::from_millis(50));
        publish(&mut producers[index], 1);
        reader = sleeper.join().unwrap();
        reader.commit(0);
    }

    let one_more = small().open(&bus, "one-more").unwrap();
    let mut refused = Vec::new();
    eventually("refused", || {
        refused.extend(reader.refresh().refused);
        !refused.is_empty()
    });
    let (name, error) = &refused[0];
    assert_eq!(name, "one-more");
    assert!(error.to_string().contains("more than 64 lanes"), "{error}");
    assert_eq!(reader.lanes().count(), LANES_MAX, "the others stay");
    // There is room as soon as one of them goes.
    drop((one_more, producers.remove(7)));
    std::fs::remove_file(format!("/dev/shm/bellwire.{}.lane.lane-07", &*bus)).unwrap();
    eventually("attached", || {
        reader.refresh();
        reader.lanes().any(|id| reader.lane(id).name() == "one-more")
    });
    assert_eq!(reader.lanes().count(), LANES_MAX);
}
