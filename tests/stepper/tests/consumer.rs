//! A consumer killed at every instruction: the next process of its name goes on where it had committed, nothing is
//! skipped, and the producer is never stuck beyond the grace time. While it opens, which takes longer: at each instruction
//! that changes its cursors, at each system call, and at one in some of the rest.

mod common;

use std::time::Duration;

use bellwire::inspect::CursorsStatus;
use bellwire::{Priority, Producer, PublishError, Reader};
use bellwire_stepper::{Board, Scenario, Victim};
use common::{ALL, Bus, CHANGES_OF_AN_OPENING, CONSUMER, LANE, PLAIN, Script, contents, ensure, sized, walk};

const RING: usize = 4096;
/// What the victim notes: the last record that it was handed, the last one whose commit returned, and that commit's mark.
const HANDED: usize = 0;
const COMMITTED: usize = 1;
const MARK: usize = 2;

const TWO_RINGS: Script =
    Script { priority: |number| if number.is_multiple_of(2) { Priority::P2 } else { Priority::P1 }, ..PLAIN };

/// Publishes until the ring of the next record is full.
fn fill(producer: &mut Producer) -> u64 {
    loop {
        let number = producer.last_sequence() + 1;
        match TWO_RINGS.with(number, |notification| producer.publish(notification)) {
            Ok(_) => {}
            Err(PublishError::Full { .. }) => return number - 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Publishes the next record to a lane whose full ring looks for dead consumers once in a millisecond.
fn publish_soon(producer: &mut Producer) -> Result<(), String> {
    let number = producer.last_sequence() + 1;
    for _ in 0..1000 {
        match TWO_RINGS.with(number, |notification| producer.publish(notification)) {
            Ok(_) => return Ok(()),
            Err(PublishError::Full { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return Err(error.to_string()),
        }
    }
    Err("the producer is stuck behind a dead consumer".to_owned())
}

/// Reads so many records, alternately from both rings as they were published, and commits them.
fn read_and_commit(reader: &mut Reader, count: usize, board: &Board, mark: u64) {
    let lane = reader.lanes().next().expect("a lane");
    for _ in 0..count {
        let number = board.noted(HANDED) + 1;
        let priority = (TWO_RINGS.priority)(number);
        let slot = reader.peek(lane, priority).expect("a sound lane").expect("a record");
        let mut archive = [0; 256];
        let archive = &mut archive[..slot.header().archive_len as usize];
        slot.copy_archive(archive).expect("a whole record");
        slot.header().view(archive).expect("a sound record");
        assert_eq!(slot.header().lane_sequence, number);
        board.note(HANDED, number);
        reader.advance(lane, priority);
    }
    reader.commit(mark);
    board.note(COMMITTED, board.noted(HANDED));
    board.note(MARK, mark);
}

/// A consumer that reads from full rings.
struct Reading {
    board: &'static Board,
    /// Whether the producer gives it up at once when it is dead and in the way.
    no_grace: bool,
    /// Whether the region is its opening, instead of its reading.
    opens: bool,
    /// Records that an earlier process of its name read; `None`: it had none.
    earlier: Option<usize>,
    place: Option<(Bus, Producer)>,
}

impl Reading {
    fn new() -> Self {
        Self { board: Board::new(), no_grace: false, opens: false, earlier: Some(20), place: None }
    }
}

impl Scenario for Reading {
    fn begin(&mut self) -> Victim {
        self.place = None;
        self.board.wipe();
        let bus = Bus::new();
        let grace = if self.no_grace { Duration::ZERO } else { Duration::from_secs(1000) };
        let mut producer = sized(RING).grace(grace).open(&bus, LANE).expect("a lane");
        for _ in 0..30 {
            TWO_RINGS.publish(&mut producer);
        }
        if let Some(count) = self.earlier {
            let mut reader = Reader::open(&bus, CONSUMER).expect("a reader");
            producer.look();
            read_and_commit(&mut reader, count, self.board, 1);
        }
        let (board, opens) = (self.board, self.opens);
        let victim = Victim::fork(|| {
            board.pause();
            let mut reader = Reader::open(&bus, CONSUMER).expect("a reader");
            if opens {
                board.end();
            }
            board.pause();
            board.pause();
            read_and_commit(&mut reader, 3, board, 2);
            read_and_commit(&mut reader, 1, board, 3);
            board.end();
        });
        victim.wait_for_pause();
        if !self.opens {
            victim.run_to_pause();
            producer.look();
            fill(&mut producer);
            victim.run_to_pause();
        }
        self.place = Some((bus, producer));
        victim
    }

    fn is_over(&self) -> bool {
        self.board.is_over()
    }

    fn visible(&self) -> u64 {
        let (bus, _) = self.place.as_ref().expect("a stage");
        if self.opens { contents(&[bus.file("cursors", CONSUMER).into()]) } else { 0 }
    }

    fn strike(&mut self, victim: Victim, _: usize) -> Result<(), String> {
        victim.kill();
        let (bus, mut producer) = self.place.take().expect("a stage");
        let [handed, committed, mark] = [HANDED, COMMITTED, MARK].map(|index| self.board.noted(index));
        // The producer goes on: up to the limit of what is not committed, or, if it gives the dead one up, as it likes.
        std::thread::sleep(Duration::from_millis(2));
        let lapped = if self.no_grace && !self.opens {
            for _ in 0..100 {
                publish_soon(&mut producer)?;
            }
            true
        } else {
            if !self.opens {
                fill(&mut producer);
            }
            false
        };
        let last = producer.last_sequence();
        // As others see it.
        let status = CursorsStatus::read(&bus, CONSUMER, None);
        ensure(status.is_ok() || self.opens && self.earlier.is_none(), || {
            format!("the cursors: {status:?}")
        })?;
        let mut reader =
            Reader::open(&bus, CONSUMER).map_err(|error| format!("the next process: {error}"))?;
        ensure([mark, mark + 1].contains(&reader.mark()), || format!("mark {} after {mark}", reader.mark()))?;
        let numbers = TWO_RINGS.read(&mut reader)?;
        let lane = reader.lanes().next().ok_or("the reader has no lane")?;
        let info = reader.lane(lane);
        let (lost, missed): (u64, u64) = (info.lost().iter().sum(), info.missed().iter().sum());
        ensure(missed == 0, || format!("{missed} records were gone before the consumer came"))?;
        if lapped {
            // What it was handed and had not committed comes again or is counted as lost; nothing else may be missing.
            let total = lost + numbers.len() as u64;
            ensure((last - handed..=last - committed).contains(&total), || {
                format!(
                    "lost {lost}, read {} of {last}, {committed} committed, {handed} handed",
                    numbers.len()
                )
            })?;
            ensure(lost > 0, || "rings were lapped and nothing was lost".to_owned())?;
        } else {
            ensure(lost == 0, || format!("lost {lost} records, and nobody was given up"))?;
            check_where_it_goes_on(&numbers, handed, committed, last)?;
        }
        reader.commit(9);
        // And all goes on.
        producer.look();
        for _ in 0..60 {
            let number = TWO_RINGS.publish(&mut producer);
            ensure(TWO_RINGS.read(&mut reader)? == [number], || format!("record {number} is not there"))?;
            reader.commit(10);
            producer.look();
        }
        Ok(())
    }
}

/// A kill within a commit leaves some rings committed and others not, so each goes on for itself: it begins behind what was committed of it, at or before what comes next after what was handed over, and goes
/// on to the end.
fn check_where_it_goes_on(numbers: &[u64], handed: u64, committed: u64, last: u64) -> Result<(), String> {
    for parity in [0, 1] {
        let ring: Vec<u64> = numbers.iter().copied().filter(|number| number % 2 == parity).collect();
        let is_of_ring = |number: &u64| number % 2 == parity;
        let Some(next) = (handed + 1..=last).find(is_of_ring) else { continue };
        let Some(first) = ring.first().copied() else {
            return Err(format!("skipped: record {next} and all behind"));
        };
        if first > next {
            return Err(format!("skipped: record {first} comes first, {handed} was handed over"));
        }
        if first <= committed {
            return Err(format!("doubled: record {first} again, although {committed} was committed"));
        }
        let expected: Vec<u64> = (first..=last).filter(is_of_ring).collect();
        if ring != expected {
            return Err(format!("read {ring:?} where {expected:?} was expected"));
        }
    }
    Ok(())
}

fn reading() -> usize {
    walk("consumer reads and commits", 1500, ALL, &mut Reading::new())
}

fn given_up() -> usize {
    let mut reading = Reading { no_grace: true, ..Reading::new() };
    walk("consumer reads and commits, given up when dead", 1500, ALL, &mut reading)
}

fn creating() -> usize {
    let mut reading = Reading { opens: true, earlier: None, ..Reading::new() };
    walk("consumer opens, new", 300, CHANGES_OF_AN_OPENING, &mut reading)
}

fn coming_back() -> usize {
    let mut reading = Reading { opens: true, ..Reading::new() };
    walk("consumer opens, coming back", 300, CHANGES_OF_AN_OPENING, &mut reading)
}

fn main() {
    common::main(
        "consumer killed",
        &[("reading", reading), ("given_up", given_up), ("creating", creating), ("coming_back", coming_back)],
    );
}
