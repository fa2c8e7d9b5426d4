//! The gateway's broker killed between waking up and the commit of the cursors: copy into the journal, check, append,
//! publish, commit. The next broker recovers, and the journal has every record once. It is killed at each instruction that
//! changes the journal or the cursors, at each system call, and at one in some of the rest.
//!
//! It is the real thread of `broker::start` in a process of its own, traced by its thread id: nothing in the gateway
//! knows of this.

mod common;

use std::cell::Cell;
use std::time::Duration;

use bellwire::{Priority, Producer};
use bellwire_gateway::broker::start;
use bellwire_stepper::{Board, Scenario, Victim};
use common::brokering::{self, BROKER, Cursors, check_once, config, consumed, journalled, soon};
use common::{Bus, CHANGES_OF_A_ROUND, LANE, Script, contents, ensure, sized, walk};

/// Three users, three rings.
const SCRIPT: Script = Script {
    priority: |number| [Priority::P1, Priority::P2, Priority::P0][(number % 3) as usize],
    user: |number| ["user_a", "user_b", "user_c"][(number / 2 % 3) as usize],
};

/// Records before the region, and in it.
const BEFORE: u64 = 6;
const WITHIN: u64 = 4;

struct Brokering {
    board: &'static Board,
    place: Option<Place>,
}

struct Place {
    producer: Producer,
    dir: tempfile::TempDir,
    cursors: Cursors,
    /// The mark when all records were found committed for the first time.
    mark: Cell<Option<u64>>,
    bus: Bus,
}

impl Scenario for Brokering {
    fn begin(&mut self) -> Victim {
        self.place = None;
        let bus = Bus::new();
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let mut producer = sized(16 << 10).open(&bus, LANE).expect("a lane");
        for _ in 1..BEFORE {
            SCRIPT.publish(&mut producer);
        }
        let mut victim = brokering::spawn(self.board, &bus, dir.path(), LANE);
        assert!(soon(|| consumed(&bus, LANE) == Some(BEFORE - 1)), "the broker reads");
        producer.look();
        let cursors = Cursors::open(&bus);
        // One more, so that it need not be waited for until it looks by itself and sleeps again.
        let parked = cursors.parked();
        SCRIPT.publish(&mut producer);
        assert!(soon(|| consumed(&bus, LANE) == Some(BEFORE)), "the broker reads on");
        assert!(soon(|| cursors.parked() > parked.max(1)), "the broker sleeps");
        victim.attach_to("broker");
        for _ in 0..WITHIN {
            SCRIPT.publish(&mut producer);
        }
        self.place = Some(Place { producer, dir, cursors, mark: Cell::new(None), bus });
        victim
    }

    fn is_over(&self) -> bool {
        let place = self.place.as_ref().expect("a stage");
        let mark = place.cursors.mark();
        match place.mark.get() {
            Some(before) => mark != before,
            None => {
                if consumed(&place.bus, LANE) == Some(BEFORE + WITHIN) {
                    place.mark.set(Some(mark));
                }
                false
            }
        }
    }

    fn visible(&self) -> u64 {
        let place = self.place.as_ref().expect("a stage");
        let journal = std::fs::read_dir(place.dir.path().join("journal")).expect("a journal");
        let mut files: Vec<_> = journal.map_while(Result::ok).map(|file| file.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "journal"));
        files.push(place.bus.file("cursors", BROKER).into());
        contents(&files)
    }

    fn strike(&mut self, victim: Victim, _: usize) -> Result<(), String> {
        victim.kill();
        let Place { mut producer, dir, bus, .. } = self.place.take().expect("a stage");
        let last = SCRIPT.publish(&mut producer);
        // The real recovery, and the real thread, which drains the lanes and ends.
        let running = start(config(&bus, dir.path()), Vec::new()).map_err(|error| error.to_string())?;
        running.stop(Duration::from_secs(20)).map_err(|error| error.to_string())?;
        ensure(consumed(&bus, LANE) == Some(last), || format!("{BROKER} has not read all {last} records"))?;
        let lines = journalled(&bus, dir.path())?;
        let lane = lines.first().map_or(0, |line| line.lane);
        check_once(&lines, lane, SCRIPT, last)?;
        ensure(lines.len() as u64 == last, || "records of a lane that is not there".to_owned())
    }
}

fn round() -> usize {
    let mut brokering = Brokering { board: Board::new(), place: None };
    walk("broker: wake up, journal, publish, commit", 1000, CHANGES_OF_A_ROUND, &mut brokering)
}

fn main() {
    common::main("broker killed", &[("round", round)]);
}
