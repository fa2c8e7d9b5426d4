//! What the walks share: buses that clean up after themselves, records whose every byte is known beforehand, and the law
//! that whatever is read is checked against.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod brokering;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use bellwire::{
    Level, MessageId, Notification, Priority, Producer, ProducerOptions, RECORD_HEADER_LEN, Reader,
    SystemNotice, Tap, TapPoll, TapStart, to_record,
};
use bellwire_stepper::{Floor, Pace, Scenario, Walk, walk};

pub const LANE: &str = "engine";
pub const CONSUMER: &str = "storage";

/// A bus of its own for one point; its segments go when it does.
pub struct Bus(String);

impl Bus {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // All names have one length, so that all victims go the same way through them.
        Self(format!("stepper-{}-{:06}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn file(&self, kind: &str, name: &str) -> String {
        format!("/dev/shm/bellwire.{}.{kind}.{name}", self.0)
    }
}

impl std::ops::Deref for Bus {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for segment in bellwire::inspect::segments(&self.0).unwrap_or_default() {
            let _ = std::fs::remove_file(segment.path);
        }
    }
}

/// Options for rings of that many bytes each.
pub fn sized(bytes: usize) -> ProducerOptions {
    Priority::ALL
        .into_iter()
        .fold(ProducerOptions::new(), |options, priority| options.capacity(priority, bytes))
}

/// The records of a lane: the n-th record ever published to it is the n-th of these, byte for byte.
#[derive(Clone, Copy)]
pub struct Script {
    /// The priority of the n-th record.
    pub priority: fn(u64) -> Priority,
    /// And whom it is for.
    pub user: fn(u64) -> &'static str,
}

/// All in one ring.
pub const PLAIN: Script = Script { priority: |_| Priority::P1, user: |_| "user" };

/// The same content in every record, rotated, so that no two neighbours have the same bytes at the same place.
const CONTENT: &str = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";

fn title(number: u64) -> String {
    format!("{number:08}")
}

impl Script {
    /// The n-th notification: id, time, texts and numbers all tell which one it is, and all have the same length.
    pub fn with<R>(self, number: u64, f: impl FnOnce(&Notification<'_>) -> R) -> R {
        f(&self.notification(number, &title(number)))
    }

    fn notification(self, number: u64, title: &str) -> Notification<'_> {
        let turn = (number % 26) as usize;
        let content = &CONTENT[turn..turn + 40];
        let notice = SystemNotice { title, content, level: Level::Info, timestamp: number as i64 };
        Notification::new((self.user)(number), "Stepper", notice)
            .with_priority((self.priority)(number))
            .with_message_id(MessageId::from_bytes(u128::from(number).to_be_bytes()))
            .with_timestamp(1_000_000 + number as i64)
    }

    /// The notifications from `first` on.
    pub fn with_many<const N: usize, R>(self, first: u64, f: impl FnOnce([&Notification<'_>; N]) -> R) -> R {
        let titles: [String; N] = std::array::from_fn(|index| title(first + index as u64));
        let all: [_; N] =
            std::array::from_fn(|index| self.notification(first + index as u64, &titles[index]));
        f(all.each_ref())
    }

    /// The record that it makes.
    pub fn record(self, number: u64) -> Vec<u8> {
        self.with(number, |notification| to_record(notification, number, 0, 0)).expect("a record")
    }

    /// Publishes the record after the lane's last one; panics if that is refused.
    pub fn publish(self, producer: &mut Producer) -> u64 {
        let number = producer.last_sequence() + 1;
        let published = self.with(number, |notification| producer.publish(notification));
        assert_eq!(published.expect("published").lane_sequence, number);
        number
    }

    /// Whether these are the bytes of the record that its header says it is.
    pub fn check(self, header: &bellwire::RecordHeader, archive: &[u8]) -> Result<u64, String> {
        let number = header.lane_sequence;
        let expected = self.record(number);
        let (head, rest) = expected.split_at(RECORD_HEADER_LEN);
        if header.to_bytes() != head {
            return Err(format!("torn: the header of record {number} is {header:?}"));
        }
        if archive != &rest[..archive.len()] || archive.len() != header.archive_len as usize {
            return Err(format!("torn: the archive of record {number} is {archive:02x?}"));
        }
        header.view(archive).map_err(|error| format!("record {number} is not sound: {error}"))?;
        Ok(number)
    }

    /// Everything that a gated reader finds now, each record compared byte for byte; sorted.
    pub fn read(self, reader: &mut Reader) -> Result<Vec<u64>, String> {
        reader.refresh();
        let mut numbers = Vec::new();
        for lane in reader.lanes() {
            for priority in Priority::ALL {
                let mut last = 0;
                loop {
                    let slot = match reader.peek(lane, priority) {
                        Ok(Some(slot)) => slot,
                        Ok(None) => break,
                        Err(fault) => return Err(format!("a reader finds {fault}")),
                    };
                    let mut archive = vec![0; slot.header().archive_len as usize];
                    slot.copy_archive(&mut archive).map_err(|fault| format!("a reader finds {fault}"))?;
                    let number = self.check(slot.header(), &archive)?;
                    if number <= last {
                        return Err(format!("doubled: record {number} after {last}"));
                    }
                    last = number;
                    numbers.push(number);
                    reader.advance(lane, priority);
                }
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Everything that a tap finds, each record compared byte for byte; sorted.
    pub fn tap(self, bus: &str) -> Result<Vec<u64>, String> {
        let mut tap = Tap::open(bus, LANE, TapStart::Oldest).map_err(|error| format!("a tap: {error}"))?;
        let mut numbers = Vec::new();
        for priority in Priority::ALL {
            loop {
                match tap.poll(priority) {
                    Ok(TapPoll::Record(record)) => numbers.push(self.check(&record.header, record.archive)?),
                    Ok(TapPoll::Empty) => break,
                    Ok(TapPoll::Lost { .. }) => {}
                    Err(fault) => return Err(format!("a tap finds {fault}")),
                }
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }
}

/// Whether these are the numbers from `first` on, without a hole; tells the last one (or the one before `first`).
pub fn contiguous(numbers: &[u64], first: u64) -> Result<u64, String> {
    for (expected, number) in (first..).zip(numbers) {
        if *number > expected {
            return Err(format!("skipped: record {number} where {expected} was expected"));
        }
        if *number < expected {
            return Err(format!("doubled: record {number} where {expected} was expected"));
        }
    }
    Ok(first + numbers.len() as u64 - 1)
}

/// Fails with `what` unless it holds.
pub fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// Every instruction.
pub const ALL: Pace = Pace { whole: 1, slice: 23 };

/// Every instruction that changes what others see, and one in some of the rest, in regions of some ten thousand.
pub const CHANGES_OF_A_CALL: Pace = Pace { whole: 7, slice: 211 };
pub const CHANGES_OF_A_ROUND: Pace = Pace { whole: 11, slice: 997 };
pub const CHANGES_OF_AN_OPENING: Pace = Pace { whole: 211, slice: 1999 };

/// Here it is the stepper that changes something.
pub const HOSTILE: Pace = Pace { whole: 23, slice: 997 };

/// Walks over a scenario; tells the number of points.
pub fn walk(name: &str, floor: usize, pace: Pace, scenario: &mut impl Scenario) -> usize {
    Walk::over(name, pace, scenario).must_hold(Floor(floor), pace)
}

/// A number for the contents of files; one that is missing counts as such.
pub fn contents(files: &[PathBuf]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in files {
        std::fs::read(file).ok().hash(&mut hasher);
    }
    hasher.finish()
}

/// Mounts a /dev/shm that nobody else sees; it goes with this process.
fn with_shm_of_our_own() -> nix::Result<()> {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("stepper"), "/dev/shm", Some("tmpfs"), flags, Some("mode=1777"))
}

/// A part of a program: its name, and what walks and tells the number of points.
pub type Part = (&'static str, fn() -> usize);

/// Does what the command line asks for, as `cargo test` passes it on: all parts, or those whose name has one of these
/// texts in it. Ends with the number of points.
pub fn main(what: &str, parts: &[Part]) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return;
    }
    // What others do to /dev/shm changes the way of those who look there.
    if let Err(error) = with_shm_of_our_own() {
        println!("{what}: /dev/shm is shared with others ({error}): expect detours");
    }
    let filters: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_asked_for =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let run = |part: &fn() -> usize| {
        // A part that hangs is to fail.
        nix::unistd::alarm::set(570);
        part()
    };
    let points: usize = parts.iter().filter(|(name, _)| is_asked_for(name)).map(|(_, part)| run(part)).sum();
    let mode = if walk::is_whole() { "whole walks" } else { "slices" };
    println!("{what}: {points} points ({mode})");
}
