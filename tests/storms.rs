//! Storms: many processes want the same name at the same moment, and the one that gets it is killed.
//!
//! `cargo test` runs a few rounds; `scripts/proofs/storms` sets `BELLWIRE_STORM_ROUNDS` for hundreds.

mod common;

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout};
use std::time::{Duration, Instant};

use bellwire::inspect;
use bellwire::{Notification, OpenError, Producer, ProducerOptions, Reader, SystemNotice};
use common::{Bus, small, spawn};

const RIVALS: usize = 64;

/// By when a name whose owner was killed has the next one, on a busy machine. Commonly it is a few milliseconds.
const NEXT_OWNER_WITHIN: Duration = Duration::from_secs(5);

fn rounds() -> usize {
    std::env::var("BELLWIRE_STORM_ROUNDS").map_or(4, |text| text.parse().unwrap())
}

/// What a rival said.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// It owns the segment, which had so many owners before.
    Own { before: u64 },
    /// Somebody else does, with that pid.
    Busy { pid: u32 },
    /// Anything else. No storm excuses it.
    Failed(String),
}

/// A process that opens what it is told to.
struct Rival {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Rival {
    fn new(bus: &str) -> Self {
        let mut child = spawn("child_fights_for_names", bus);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(
            lines.by_ref().map_while(Result::ok).any(|line| line == "ready"),
            "a rival died at its start"
        );
        Self { child, lines }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    fn answer(&mut self) -> Answer {
        let line = self.lines.next().expect("a rival died").unwrap();
        match line.split_once(' ') {
            Some(("own", before)) => Answer::Own { before: before.parse().unwrap() },
            Some(("busy", pid)) => Answer::Busy { pid: pid.parse().unwrap() },
            _ => Answer::Failed(line),
        }
    }

    /// Kills it and waits until it is dead, but not for its remains: from here on it is a zombie.
    fn kill(&mut self) {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        self.child.kill().unwrap();
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a rival holds on to until it is told otherwise.
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
enum Segment {
    Lane(Producer),
    Cursors(Reader),
}

/// Opens a lane, or cursors, and leaves a mark in it: how many owners it has had.
fn open(bus: &str, kind: &str, name: &str) -> Result<(u64, Segment), OpenError> {
    if kind != "cursors" {
        // "wide": as large as they are by default.
        let options = if kind == "wide" { ProducerOptions::new() } else { small() };
        let mut producer = options.open(bus, name)?;
        let before = producer.last_sequence();
        let notice = SystemNotice { title: name, content: "", level: bellwire::Level::Info, timestamp: 0 };
        producer.publish(&Notification::to_all("Storm", notice)).unwrap();
        Ok((before, Segment::Lane(producer)))
    } else {
        let mut reader = Reader::open(bus, name)?;
        let before = reader.mark();
        reader.commit(before + 1);
        Ok((before, Segment::Cursors(reader)))
    }
}

#[test]
fn child_fights_for_names() {
    let Some(bus) = Bus::inherited() else { return };
    println!("\nready"); // the harness has begun a line
    let mut held = None;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let answer = match line.split(' ').collect::<Vec<_>>()[..] {
            ["open", kind, name] => match open(&bus, kind, name) {
                Ok((before, segment)) => {
                    held = Some(segment);
                    format!("own {before}")
                }
                Err(OpenError::InUse { pid, .. }) => format!("busy {pid}"),
                Err(other) => format!("failed: {other}"),
            },
            _ => {
                match held.take() {
                    Some(Segment::Lane(producer)) => drop(producer),
                    Some(Segment::Cursors(reader)) => drop(reader),
                    None => {}
                }
                "free".to_owned()
            }
        };
        println!("{answer}");
    }
}

/// The one owner of a round, if everything was as it must be.
fn judge(answers: &[(u32, Answer)], owners_before: u64) -> Result<usize, String> {
    let owners: Vec<_> =
        (0..answers.len()).filter(|&index| matches!(answers[index].1, Answer::Own { .. })).collect();
    let [owner] = owners[..] else {
        return Err(format!("{} owners; the first rival: {:?}", owners.len(), answers[0]));
    };
    let (owner_pid, owner_said) = &answers[owner];
    if *owner_said != (Answer::Own { before: owners_before }) {
        return Err(format!("{owner_said:?}, expected {owners_before} owners before"));
    }
    match answers
        .iter()
        .enumerate()
        .find(|(index, (_, said))| *index != owner && *said != Answer::Busy { pid: *owner_pid })
    {
        Some((_, wrong)) => Err(format!("{wrong:?}, while {owner_pid} is the owner")),
        None => Ok(owner),
    }
}

/// All rivals open that name at once; what they said, with their pids.
fn storm(rivals: &mut [Rival], kind: &str, name: &str) -> Vec<(u32, Answer)> {
    for rival in &mut *rivals {
        rival.tell(&format!("open {kind} {name}"));
    }
    rivals.iter_mut().map(|rival| (rival.child.id(), rival.answer())).collect()
}

fn fight_for(kind: &str) {
    let bus = Bus::new();
    let mut rivals: Vec<_> = (0..RIVALS).map(|_| Rival::new(&bus)).collect();
    let (mut opens, mut kills, mut slowest) = (0, 0, Duration::ZERO);
    for round in 0..rounds() {
        // Every third round is about a segment that has to be made.
        let name = format!("name-{}", round / 3);
        if round % 3 == 0 {
            bus.remove_segments();
        }
        let mut owners_before = 3 * (round as u64 % 3); // each round has three owners
        // One that is killed and stays a zombie: it owns nothing.
        let owner = judge(&storm(&mut rivals, kind, &name), owners_before).unwrap();
        let mut dead = std::mem::replace(&mut rivals[owner], Rival::new(&bus));
        dead.kill();
        let killed_at = Instant::now();
        owners_before += 1;
        // One that is killed while the others are still at it: then there is a second one in the same storm, or none.
        for rival in &mut rivals {
            rival.tell(&format!("open {kind} {name}"));
        }
        let owner = (0..RIVALS).find(|&index| match rivals[index].answer() {
            Answer::Own { before } => {
                assert_eq!(before, owners_before, "as many owners as were counted");
                true
            }
            Answer::Busy { .. } => false,
            Answer::Failed(why) => panic!("{why}"),
        });
        slowest = slowest.max(killed_at.elapsed());
        let owner = owner.expect("somebody is the next owner");
        rivals[owner].kill();
        owners_before += 1;
        let mut late_owner = None;
        for (index, rival) in rivals.iter_mut().enumerate().skip(owner + 1) {
            match rival.answer() {
                Answer::Own { before } => {
                    assert_eq!(before, owners_before, "an owner beside a living one");
                    assert!(late_owner.replace(index).is_none(), "two owners");
                }
                Answer::Busy { .. } => {}
                Answer::Failed(why) => panic!("{why}"),
            }
        }
        rivals[owner] = Rival::new(&bus);
        if let Some(late) = late_owner {
            rivals[late].tell("free");
            assert_eq!(rivals[late].answer(), Answer::Failed("free".to_owned()));
        } else {
            let answers = storm(&mut rivals, kind, &name);
            let owner = judge(&answers, owners_before).unwrap();
            rivals[owner].tell("free");
            assert_eq!(rivals[owner].answer(), Answer::Failed("free".to_owned()));
            opens += RIVALS;
        }
        opens += 2 * RIVALS;
        kills += 2;
        drop(dead);
        for rival in &mut rivals {
            assert!(rival.child.try_wait().unwrap().is_none(), "a rival died");
        }
    }
    assert!(slowest < NEXT_OWNER_WITHIN, "{slowest:?} without an owner");
    println!(
        "storm {kind}: rounds {} opens {opens} kills {kills} next_owner_ms {}",
        rounds(),
        slowest.as_millis()
    );
}

#[test]
fn of_sixty_four_producers_one_owns_the_lane_however_often_it_is_killed() {
    fight_for("lane");
}

#[test]
fn of_sixty_four_consumers_one_owns_the_cursors_however_often_it_is_killed() {
    fight_for("cursors");
}

#[test]
fn whoever_is_killed_while_opening_leaves_nothing_that_hinders() {
    let bus = Bus::new();
    let mut killed = 0;
    for round in 0..rounds().div_ceil(8) {
        let name = format!("name-{round}");
        let mut rivals: Vec<_> = (0..RIVALS).map(|_| Rival::new(&bus)).collect();
        for rival in &mut rivals {
            rival.tell(&format!("open lane {name}"));
        }
        // Sooner and later by a little each time: some have not begun, some are at it, one may be through.
        std::thread::sleep(Duration::from_micros(300 * (round as u64 % 12)));
        for rival in &mut rivals {
            rival.child.kill().unwrap();
            killed += 1;
        }
        let begun = Instant::now();
        let mut producer = loop {
            match small().open(&bus, &name) {
                Ok(producer) => break producer,
                // Whoever owned it is still on its way out.
                Err(OpenError::InUse { .. }) if begun.elapsed() < NEXT_OWNER_WITHIN => {
                    std::thread::sleep(Duration::from_micros(100));
                }
                Err(other) => panic!("{other}"),
            }
        };
        producer.publish(&common::note("user", "on", "")).unwrap();
    }
    // Nothing lies about but whole segments, each of which has been adopted above.
    let segments = inspect::segments(&bus).unwrap();
    assert_eq!(segments.len(), rounds().div_ceil(8));
    println!("storm opening: killed {killed}");
}

#[test]
fn of_sixty_four_consumers_of_different_names_no_more_than_a_bus_takes_get_in() {
    for _ in 0..rounds().div_ceil(8) {
        let bus = Bus::new();
        let mut rivals: Vec<_> = (0..RIVALS).map(|_| Rival::new(&bus)).collect();
        for (number, rival) in rivals.iter_mut().enumerate() {
            rival.tell(&format!("open cursors name-{number}"));
        }
        let mut owners = 0;
        for rival in &mut rivals {
            match rival.answer() {
                Answer::Own { .. } => owners += 1,
                Answer::Failed(why) if why.contains("consumers already") => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(owners <= bellwire::CONSUMERS_MAX, "{owners} consumers");
        assert_eq!(inspect::segments(&bus).unwrap().len(), owners, "who was refused leaves nothing");
    }
}

#[test]
fn where_there_is_room_for_one_lane_one_of_sixty_four_gets_it() {
    let bus = Bus::new();
    let own_exe = std::env::current_exe().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=100m tmpfs /dev/shm && exec {} --exact child_storms_where_there_is_little_room --nocapture",
        own_exe.display()
    );
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("BELLWIRE_TEST_BUS", &*bus)
        .env("LITTLE_ROOM", "1")
        .output();
    match output {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("one owner each time"));
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            common::skip("no right to mount a small /dev/shm");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn child_storms_where_there_is_little_room() {
    let Some(bus) = Bus::inherited().filter(|_| std::env::var_os("LITTLE_ROOM").is_some()) else { return };
    let mut rivals: Vec<_> = (0..RIVALS).map(|_| Rival::new(&bus)).collect();
    for round in 0..rounds().div_ceil(8) {
        let name = format!("name-{round}");
        let owner = judge(&storm(&mut rivals, "wide", &name), 0).unwrap();
        rivals[owner].tell("free");
        assert_eq!(rivals[owner].answer(), Answer::Failed("free".to_owned()));
        std::fs::remove_file(format!("/dev/shm/bellwire.{bus}.lane.{name}")).unwrap();
    }
    println!("one owner each time");
}

/// The negative control: when the rivals fight for two names, or the one whom they name is not the owner, it is noticed.
#[test]
fn a_storm_with_two_owners_is_noticed() {
    let bus = Bus::new();
    let mut rivals: Vec<_> = (0..4).map(|_| Rival::new(&bus)).collect();
    let mut answers = storm(&mut rivals[..2], "lane", "one");
    assert!(judge(&answers, 0).is_ok());
    assert!(judge(&answers, 1).unwrap_err().contains("owners before"));
    let loser = answers.iter().position(|(_, said)| matches!(said, Answer::Busy { .. })).unwrap();
    let honest = std::mem::replace(&mut answers[loser].1, Answer::Busy { pid: 1 });
    assert!(judge(&answers, 0).unwrap_err().contains("is the owner"));
    answers[loser].1 = honest;
    answers.extend(storm(&mut rivals[2..], "lane", "two"));
    assert!(judge(&answers, 0).unwrap_err().starts_with("2 owners"));
}
