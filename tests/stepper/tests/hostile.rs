//! Hostile memory: the broker's thread is stopped at an instruction between waking up and the commit of the cursors, and
//! there a lane that it reads is scribbled over. It goes on; whatever it finds, it does not crash, hang or lose a record
//! of the lane beside, and what it journals is sound and in the stream of the user that it names.

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use bellwire::{Notification, OrderAccepted, OrderRejected, Priority, Producer};
use bellwire_stepper::{Board, Scenario, Victim};
use common::brokering::{self, Cursors, check_once, consumed, journalled, soon};
use common::{Bus, HOSTILE, Script, ensure, sized, walk};

const GOOD: &str = "good";
const BAD: &str = "bad";
const RING: u64 = 16 << 10;

/// The lane that must lose nothing.
const SCRIPT: Script = Script {
    priority: |number| [Priority::P1, Priority::P0][(number % 2) as usize],
    user: |number| ["user_a", "user_b"][(number / 2 % 2) as usize],
};
const GOOD_BEFORE: u64 = 2;
const GOOD_WITHIN: u64 = 2;
const GOOD_BEHIND: u64 = 3;

/// The user of the lane that turns hostile.
const VICTIM: &str = "user_x";

/// Where things stand in a lane's file; see the library's `layout`.
const COMMIT: fn(u64) -> u64 = |ring| 384 + 1280 * ring;
const RESERVED: fn(u64) -> u64 = |ring| COMMIT(ring) + 128;
const LANDMARKS: fn(u64) -> u64 = |ring| COMMIT(ring) + 256;
const RECORDS: fn(u64) -> u64 = |ring| 8192 + RING * ring;

/// What is done to a ring whose unread records begin at `at` in the file.
type Scribble = fn(&File, ring: u64, at: u64);

fn put(file: &File, at: u64, bytes: &[u8]) {
    file.write_all_at(bytes, at).expect("a store");
}

const SCRIBBLES: [(&str, Scribble); 16] = [
    ("record length beyond everything", |file, _, at| put(file, at, &0xffff_fff0_u32.to_le_bytes())),
    ("record length 0", |file, _, at| put(file, at, &[0; 4])),
    ("record length of two", |file, _, at| put(file, at, &352_u32.to_le_bytes())),
    ("archive length beyond the record", |file, _, at| put(file, at + 4, &u32::MAX.to_le_bytes())),
    ("archive length a little less", |file, _, at| put(file, at + 4, &64_u32.to_le_bytes())),
    ("another type", |file, _, at| put(file, at + 8, &[16])),
    ("no type, padding", |file, _, at| put(file, at + 8, &[0])),
    ("another priority", |file, _, at| put(file, at + 9, &[3])),
    ("another user's hash", |file, _, at| put(file, at + 12, &[0x55; 4])),
    ("lane sequence beyond everything", |file, _, at| put(file, at + 16, &u64::MAX.to_le_bytes())),
    ("archive of ones", |file, _, at| put(file, at + 48, &[0xff; 64])),
    ("texts' end marks, and numbers", |file, _, at| {
        for back in 1..=6 {
            put(file, at + 48 + 16 * back, &[0x7f, 0xff]);
        }
    }),
    ("another user's name", |file, _, at| {
        let mut archive = [0; 128];
        file.read_exact_at(&mut archive, at + 48).expect("a load");
        if let Some(place) = archive.windows(6).position(|text| text == VICTIM.as_bytes()) {
            put(file, at + 48 + place as u64, b"user_a");
        }
    }),
    ("position far ahead", |file, ring, _| put(file, COMMIT(ring), &(1_u64 << 40).to_le_bytes())),
    ("position back to the beginning", |file, ring, _| put(file, COMMIT(ring), &[0; 8])),
    ("overtaken, and landmarks that lead nowhere", |file, ring, _| {
        put(file, RESERVED(ring), &(1_u64 << 50).to_le_bytes());
        put(file, LANDMARKS(ring), &[0xa5; 1024]);
    }),
];

struct Disturbing {
    board: &'static Board,
    outcomes: BTreeMap<&'static str, usize>,
    place: Option<Place>,
}

struct Place {
    good: Producer,
    bad: Producer,
    /// Where the first unread record of P0 and of P1 of the bad lane stands in its file.
    unread: [u64; 2],
    dir: tempfile::TempDir,
    cursors: Cursors,
    mark: Cell<Option<u64>>,
    bus: Bus,
}

/// An order's life: an acceptance (P1) and a rejection (P0), whose order the broker keeps by looking ahead.
fn publish_bad(producer: &mut Producer) {
    let accepted = OrderAccepted {
        order_id: "order-1",
        exchange_order_id: "X-1",
        instrument_id: "IX2401",
        direction: bellwire::Direction::Buy,
        offset: bellwire::Offset::Open,
        price: 1.0,
        volume: 2.0,
        order_type: bellwire::OrderType::Limit,
        frozen_margin: 3.0,
        timestamp: 4,
    };
    let rejected = OrderRejected {
        order_id: "order-1",
        instrument_id: "IX2401",
        reason: "margin",
        error_code: 7,
        timestamp: 5,
    };
    producer
        .publish(&Notification::new(VICTIM, "Bad", accepted).with_priority(Priority::P1))
        .expect("published");
    producer
        .publish(&Notification::new(VICTIM, "Bad", rejected).with_priority(Priority::P0))
        .expect("published");
}

impl Scenario for Disturbing {
    fn begin(&mut self) -> Victim {
        self.place = None;
        let bus = Bus::new();
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let mut good = sized(RING as usize).open(&bus, GOOD).expect("a lane");
        let mut bad = sized(RING as usize).open(&bus, BAD).expect("a lane");
        for _ in 0..GOOD_BEFORE {
            SCRIPT.publish(&mut good);
        }
        publish_bad(&mut bad);
        let mut victim = brokering::spawn(self.board, &bus, dir.path(), BAD);
        let all = (Some(GOOD_BEFORE), Some(2));
        assert!(soon(|| (consumed(&bus, GOOD), consumed(&bus, BAD)) == all), "the broker reads");
        good.look();
        bad.look();
        let cursors = Cursors::open(&bus);
        let parked = cursors.parked();
        assert!(soon(|| cursors.parked() > parked.max(1)), "the broker sleeps");
        victim.attach_to("broker");
        let status = bellwire::inspect::LaneStatus::read(&bus, BAD, None).expect("a lane");
        let unread = [0, 1].map(|ring| RECORDS(ring as u64) + status.rings[ring].position);
        publish_bad(&mut bad);
        publish_bad(&mut bad);
        for _ in 0..GOOD_WITHIN {
            SCRIPT.publish(&mut good);
        }
        self.place = Some(Place { good, bad, unread, dir, cursors, mark: Cell::new(None), bus });
        victim
    }

    fn is_over(&self) -> bool {
        let place = self.place.as_ref().expect("a stage");
        let mark = place.cursors.mark();
        match place.mark.get() {
            Some(before) => mark != before,
            None => {
                let all = (Some(GOOD_BEFORE + GOOD_WITHIN), Some(6));
                if (consumed(&place.bus, GOOD), consumed(&place.bus, BAD)) == all {
                    place.mark.set(Some(mark));
                }
                false
            }
        }
    }

    fn strike(&mut self, mut victim: Victim, index: usize) -> Result<(), String> {
        let Place { mut good, bad, unread, dir, bus, .. } = self.place.take().expect("a stage");
        // Another one at each instruction; neighbours get neighbours, so that every stretch meets all of them.
        let (name, scribble) = SCRIBBLES[index % SCRIBBLES.len()];
        let ring = (index / SCRIBBLES.len() % 2) as u64;
        let file = File::options().read(true).write(true).open(bus.file("lane", BAD)).expect("the lane");
        scribble(&file, ring, unread[ring as usize]);
        victim.detach();
        let named = |what: String| format!("{name} in P{ring}: {what}");
        for _ in 0..GOOD_BEHIND {
            SCRIPT.publish(&mut good);
        }
        let last = good.last_sequence();
        let goes_on = soon(|| consumed(&bus, GOOD) == Some(last) || victim.has_ended());
        ensure(!victim.has_ended(), || named("the gateway died".to_owned()))?;
        ensure(goes_on, || named("the other lane is read no further".to_owned()))?;
        ensure(brokering::is_running(self.board), || named("the broker failed".to_owned()))?;
        let settled = soon(|| brokering::is_quarantined(self.board) || brokering::read(self.board) >= 6);
        let outcome = match (settled, brokering::is_quarantined(self.board)) {
            (_, true) => "quarantined",
            (true, false) => "read to the end",
            // A position that stands back or a length that swallows a record: nothing more to read, and no fault.
            (false, false) => "waiting",
        };
        victim.kill();
        drop(bad);
        let lines = journalled(&bus, dir.path()).map_err(named)?;
        let lane =
            bellwire::inspect::LaneStatus::read(&bus, GOOD, None).map_err(|error| error.to_string())?.key;
        check_once(&lines, lane, SCRIPT, last).map_err(named)?;
        for line in lines.iter().filter(|line| line.lane != lane) {
            ensure(line.user == VICTIM, || named(format!("a record of {} in {VICTIM}'s name", line.user)))?;
        }
        *self.outcomes.entry(outcome).or_default() += 1;
        Ok(())
    }
}

fn round() -> usize {
    let mut disturbing = Disturbing { board: Board::new(), outcomes: BTreeMap::new(), place: None };
    let points = walk("broker: a lane turns hostile while it is read", 900, HOSTILE, &mut disturbing);
    println!("outcomes: {:?}", disturbing.outcomes);
    for outcome in ["quarantined", "read to the end"] {
        assert!(
            disturbing.outcomes.get(outcome).is_some_and(|count| *count > points / 20),
            "few were {outcome}"
        );
    }
    points
}

fn main() {
    common::main("hostile memory", &[("round", round)]);
}
