//! A process that has no file descriptor left goes on with what it has, and forgets nobody.

use std::io::{BufRead, Write};
use std::time::Duration;

use bellwire::{OpenError, PublishError, Reader};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::common::{Bus, eventually, note, sized, small, spawn};
use crate::{drain, publish, said};

/// Lets this process open no file more; gives the limit that it had.
fn no_more_files() -> (u64, u64) {
    let before = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 3, before.1).unwrap();
    assert!(std::fs::read_dir("/dev/shm").is_err(), "nothing can be opened");
    before
}

/// Makes everybody list /dev/shm anew.
fn touch(bus: &str) {
    let path = format!("/dev/shm/bellwire.{bus}.lane.other");
    std::fs::write(&path, []).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::thread::sleep(Duration::from_millis(50)); // longer than the file system's clock takes to tick
}

/// A line from the parent: it has done its part.
fn turn() {
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

#[test]
fn child_publishes_without_descriptors() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut producer = small().open(&bus, "engine").unwrap();
    eventually("acknowledged", || {
        producer.look();
        producer.counters().gating == 1
    });
    println!("at ready");
    turn();
    let limit = no_more_files();
    producer.look();
    let mut published = 0;
    let refused = loop {
        match producer.publish(&note("user", &(published + 1).to_string(), "")) {
            Ok(_) => published += 1,
            Err(refused) => break refused,
        }
        assert!(published < 1000, "it has forgotten its consumer");
    };
    assert!(matches!(refused, PublishError::Full { .. }), "{refused}");
    assert_eq!(producer.counters().gating, 1);
    println!("at {published}");
    // A second consumer has come meanwhile: it is known as soon as there are descriptors again.
    turn();
    producer.look();
    assert_eq!(producer.counters().gating, 1);
    setrlimit(Resource::RLIMIT_NOFILE, limit.0, limit.1).unwrap();
    producer.look();
    assert_eq!(producer.counters().gating, 2);
    println!("at end");
}

#[test]
fn a_producer_without_descriptors_still_waits_for_its_consumers() {
    let bus = Bus::new();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let mut child = spawn("descriptors::child_publishes_without_descriptors", &bus);
    let mut at = said(child.stdout.take().unwrap(), "at ");
    eventually("attached", || {
        reader.refresh();
        reader.lanes().count() == 1
    });
    assert_eq!(at.next().as_deref(), Some("ready"));
    touch(&bus);
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "go").unwrap();
    let published: u64 = at.next().expect("it waits for its consumer").parse().unwrap();
    assert!(drain(&mut reader).into_iter().eq(1..=published), "nothing was overwritten");
    let second = Reader::open(&bus, "monitor").unwrap();
    touch(&bus);
    writeln!(stdin, "go").unwrap();
    assert_eq!(at.next().as_deref(), Some("end"));
    assert!(child.wait().unwrap().success());
    drop(second);
}

#[test]
fn child_reads_without_descriptors() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    let mut reader = Reader::open(&bus, "storage").unwrap();
    eventually("the lane is read", || drain(&mut reader) == [1]);
    println!("at ready");
    turn();
    let limit = no_more_files();
    let refresh = reader.refresh();
    assert!(refresh.detached.is_empty(), "{:?}", refresh.detached);
    assert_eq!(drain(&mut reader), [2, 3]);
    reader.commit(0);
    println!("at read");
    turn();
    // A lane that came meanwhile is attached as soon as there are descriptors again.
    reader.refresh();
    assert_eq!(reader.lanes().count(), 1);
    setrlimit(Resource::RLIMIT_NOFILE, limit.0, limit.1).unwrap();
    eventually("the second lane is attached", || drain(&mut reader) == [4]);
    println!("at end");
}

#[test]
fn a_reader_without_descriptors_keeps_its_lanes_and_its_cursors() {
    let bus = Bus::new();
    let mut producer = sized(64 * 1024).open(&bus, "engine").unwrap();
    publish(&mut producer, 1);
    let mut child = spawn("descriptors::child_reads_without_descriptors", &bus);
    let mut at = said(child.stdout.take().unwrap(), "at ");
    let mut stdin = child.stdin.take().unwrap();
    assert_eq!(at.next().as_deref(), Some("ready"));
    producer.look();
    publish(&mut producer, 2);
    publish(&mut producer, 3);
    touch(&bus);
    writeln!(stdin, "go").unwrap();
    assert_eq!(at.next().as_deref(), Some("read"), "each once, although the directory could not be listed");
    let mut other = small().open(&bus, "risk").unwrap();
    publish(&mut other, 4);
    touch(&bus);
    writeln!(stdin, "go").unwrap();
    assert_eq!(at.next().as_deref(), Some("end"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn child_adopts_without_descriptors() {
    let Some(bus) = Bus::inherited() else { return };
    println!(); // the harness has begun a line
    // Room for the segment and its lock, and for one file more: the directory can be listed, a consumer not be looked at.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let next = std::fs::File::open("/dev/null").map(|file| std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
    let mut refused = 0;
    for room in 0..8 {
        setrlimit(Resource::RLIMIT_NOFILE, next as u64 + room, hard).unwrap();
        match small().open(&bus, "engine") {
            Ok(producer) => {
                assert_eq!(
                    producer.counters().gating,
                    1,
                    "with room for {room} files it forgot the consumer"
                );
                println!("at opened {refused}");
                return setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            }
            Err(OpenError::Io { .. }) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("never opened");
}

#[test]
fn a_lane_is_adopted_with_all_of_its_consumers_or_not_at_all() {
    let bus = Bus::new();
    let mut producer = small().open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    producer.look();
    publish(&mut producer, 1);
    reader.refresh();
    producer.look();
    drop(producer);
    let mut child = spawn("descriptors::child_adopts_without_descriptors", &bus);
    let mut words = said(child.stdout.take().unwrap(), "at opened ");
    let opened = words.next().expect("it opened in the end");
    assert!(opened.parse::<u32>().unwrap() >= 2, "refused {opened} times");
    assert!(child.wait().unwrap().success());
}
