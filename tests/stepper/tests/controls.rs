//! The controls: writers and readers that are wrong on purpose, walked over and judged by the same checks. Each must be
//! found, and its right twin must pass; otherwise the walks prove nothing.
//!
//! The wrong ones live here alone. They write a real lane, or a real journal, with the order of two steps exchanged.

mod common;

use bellwire::{Priority, Producer, Reader};
use bellwire_journal::{Facts, Journal};
use bellwire_stepper::{Board, Pace, Scenario, Victim, Walk};
use common::brokering::{self, check_once, config, journalled};
use common::{Bus, LANE, PLAIN, contiguous, ensure, sized};

const RING: usize = 4096;
const BEFORE: u64 = 3;

/// A walk that must find something, and what.
fn must_find(name: &str, what: &str, scenario: &mut impl Scenario) -> usize {
    let walk = Walk::over(name, Pace { whole: 1, slice: 7 }, scenario);
    match &walk.broken {
        Some((_, promise)) if promise.starts_with(what) => println!("  found, as it must be: {promise:.60}"),
        found => panic!("{name}: found {found:?} where {what:?} was expected"),
    }
    walk.points
}

fn must_pass(name: &str, scenario: &mut impl Scenario) -> usize {
    let walk = Walk::over(name, Pace { whole: 1, slice: 7 }, scenario);
    assert_eq!(walk.broken, None, "{name}");
    walk.points
}

/// A writer of three steps: a record's bytes, its count, the position.
struct Writing {
    board: &'static Board,
    commits_first: bool,
    place: Option<Bus>,
}

/// Where the commit line, the reservation and the records of P1 stand in a lane; see the library's `layout`.
const POSITION: usize = 384 + 1280;
const RESERVED: usize = POSITION + 128;
const RECORDS: usize = 8192 + RING;

/// Writes the next record into a lane that nobody owns, through a mapping, in the right order or the wrong one.
fn write_record(bus: &Bus, commits_first: bool, board: &Board) {
    let file =
        std::fs::File::options().read(true).write(true).open(bus.file("lane", LANE)).expect("the lane");
    let map = memmap2::MmapRaw::map_raw(&file).expect("a mapping");
    let record = PLAIN.record(BEFORE + 1);
    let at = BEFORE as usize * record.len();
    let end = (at + record.len()) as u64;
    let base = map.as_mut_ptr();
    board.pause();
    // SAFETY: all of it lies within the mapping, which is a lane of four rings of 4096 bytes that this process alone writes
    // now; the words are aligned. Volatile, so that the stores stay in the order that is tried here.
    let position = |end: u64| unsafe { base.wrapping_add(POSITION).cast::<u64>().write_volatile(end) };
    // SAFETY: as above.
    unsafe { base.wrapping_add(RESERVED).cast::<u64>().write_volatile(end.next_multiple_of(1024)) };
    if commits_first {
        position(end);
    }
    for (index, byte) in record.iter().enumerate() {
        // SAFETY: as above.
        unsafe { base.wrapping_add(RECORDS + at + index).write_volatile(*byte) };
    }
    if !commits_first {
        position(end);
    }
}

impl Scenario for Writing {
    fn begin(&mut self) -> Victim {
        self.place = None;
        self.board.wipe();
        let bus = Bus::new();
        let mut producer = sized(RING).open(&bus, LANE).expect("a lane");
        for _ in 0..BEFORE {
            PLAIN.publish(&mut producer);
        }
        drop(producer);
        let (board, commits_first) = (self.board, self.commits_first);
        let victim = Victim::fork(|| {
            write_record(&bus, commits_first, board);
            board.end();
        });
        victim.wait_for_pause();
        self.place = Some(bus);
        victim
    }

    fn is_over(&self) -> bool {
        self.board.is_over()
    }

    fn strike(&mut self, victim: Victim, _: usize) -> Result<(), String> {
        victim.kill();
        let bus = self.place.take().expect("a stage");
        let read = |bus: &Bus| -> Result<u64, String> {
            let mut reader = Reader::open(bus, "storage").map_err(|error| error.to_string())?;
            let visible = contiguous(&PLAIN.read(&mut reader)?, 1)?;
            ensure(PLAIN.tap(bus)?.last() == Some(&visible), || "the tap differs".to_owned())?;
            Ok(visible)
        };
        // A record that is half there is torn, whatever it looks like to whom.
        let visible = read(&bus).map_err(|what| format!("torn: {what}"))?;
        ensure((BEFORE..=BEFORE + 1).contains(&visible), || format!("{visible} is the last"))?;
        let producer = sized(RING).open(&bus, LANE).map_err(|error| format!("the next owner: {error}"))?;
        ensure(producer.last_sequence() == visible, || "the next owner goes on elsewhere".to_owned())
    }
}

/// A small broker of the real reader and the real journal, with its steps in the right order or not.
struct Small {
    board: &'static Board,
    /// Commits the cursor before the record is in the journal: what is killed in between is skipped.
    commits_first: bool,
    /// Does not recognise what it reads again: what is killed in between is doubled.
    forgets: bool,
    place: Option<(Bus, tempfile::TempDir, Producer)>,
}

/// Reads everything that is there into the journal. `highest`: the last record that it has already.
fn journal_everything(
    reader: &mut Reader,
    journal: &mut Journal,
    commits_first: bool,
    highest: u64,
    begin: impl FnOnce(),
) {
    let lane = reader.lanes().next().expect("a lane");
    let (mut seq, mut prev) = (0, 0);
    let mut entries = journal.reader();
    let mut at = entries.start();
    while let Some(entry) = entries.entry(at) {
        (seq, prev, at) = (entry.seq, entry.offset, entry.next);
    }
    let key = reader.lane(lane).key();
    begin();
    while let Some(slot) = reader.peek(lane, Priority::P1).expect("a sound lane") {
        let header = *slot.header();
        let room = journal.room(header.archive_len as usize, 1).expect("room");
        slot.copy_archive(room.archive).expect("a whole record");
        let offset = room.offset;
        reader.advance(lane, Priority::P1);
        if commits_first {
            reader.commit(1);
        }
        if header.lane_sequence > highest {
            seq += 1;
            let facts = Facts { seq, prev, epoch: 1, slot: 0, lane: key, journalled_at: 1 };
            prev = offset;
            journal.append(&header, &facts);
            journal.publish().expect("published");
        }
        if !commits_first {
            reader.commit(1);
        }
    }
}

impl Scenario for Small {
    fn begin(&mut self) -> Victim {
        self.place = None;
        self.board.wipe();
        let bus = Bus::new();
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory");
        let mut producer = sized(RING).open(&bus, LANE).expect("a lane");
        drop(Reader::open(&bus, brokering::BROKER).expect("a reader"));
        for _ in 0..BEFORE {
            PLAIN.publish(&mut producer);
        }
        let (board, commits_first) = (self.board, self.commits_first);
        let victim = Victim::fork(|| {
            let mut reader = Reader::open(&bus, brokering::BROKER).expect("a reader");
            let mut journal =
                Journal::open(config(&bus, dir.path()).journal, 1, &mut |_, _| Ok(())).expect("a journal").0;
            journal_everything(&mut reader, &mut journal, commits_first, 0, || board.pause());
            board.end();
        });
        victim.wait_for_pause();
        self.place = Some((bus, dir, producer));
        victim
    }

    fn is_over(&self) -> bool {
        self.board.is_over()
    }

    fn strike(&mut self, victim: Victim, _: usize) -> Result<(), String> {
        victim.kill();
        let (bus, dir, producer) = self.place.take().expect("a stage");
        let mut highest = 0;
        let open = Journal::open(config(&bus, dir.path()).journal, 1, &mut |entry, _| {
            highest = entry.header.lane_sequence;
            Ok(())
        });
        let mut journal = open.map_err(|error| error.to_string())?.0;
        let mut reader = Reader::open(&bus, brokering::BROKER).map_err(|error| error.to_string())?;
        let highest = if self.forgets { 0 } else { highest };
        journal_everything(&mut reader, &mut journal, false, highest, || {});
        drop(journal);
        let lines = journalled(&bus, dir.path())?;
        let lane = lines.first().map_or(0, |line| line.lane);
        check_once(&lines, lane, PLAIN, producer.last_sequence())
    }
}

fn writer() -> usize {
    let writing = |commits_first| Writing { board: Board::new(), commits_first, place: None };
    must_pass("control: a writer that commits last", &mut writing(false))
        + must_find("control: a writer that commits first", "torn", &mut writing(true))
}

fn broker() -> usize {
    let small = |commits_first, forgets| Small { board: Board::new(), commits_first, forgets, place: None };
    must_find("control: a broker that commits before it journals", "skipped", &mut small(true, false))
        + must_find("control: a broker that does not recognise a record", "doubled", &mut small(false, true))
}

fn main() {
    common::main("controls", &[("writer", writer), ("broker", broker)]);
}
