//! The gateway's real broker in a child process, and what its journal must hold.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bellwire::inspect::CursorsStatus;
use bellwire_gateway::broker::{BrokerConfig, start};
use bellwire_journal::{Journal, JournalConfig, SEGMENT_BYTES_MIN, SyncPolicy};
use bellwire_stepper::{Board, Victim};

use super::{Bus, Script, ensure};

/// The name under which the broker consumes.
pub const BROKER: &str = "gateway";
/// What the child notes: that the broker runs; and, of a lane, what became of its records.
const RUNS: usize = 0;
const QUARANTINED: usize = 1;
const READ: usize = 2;
const FAILED: usize = 3;

pub fn config(bus: &str, dir: &Path) -> BrokerConfig {
    let journal = JournalConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        retain_bytes: 16 * SEGMENT_BYTES_MIN,
        sync: SyncPolicy::None,
        chain: None,
        ..JournalConfig::new(dir.join("journal"))
    };
    // It goes to sleep at once when there is nothing to do.
    BrokerConfig { spin: Duration::ZERO, ..BrokerConfig::new(bus, journal) }
}

/// A broker in a process of its own, which tells what becomes of the lane `watched`.
pub fn spawn(board: &'static Board, bus: &str, dir: &Path, watched: &str) -> Victim {
    board.wipe();
    let victim = Victim::fork_free(|| {
        let running = start(config(bus, dir), Vec::new()).expect("a broker");
        board.note(RUNS, 1);
        let counters = running.counters();
        loop {
            board.note(FAILED, u64::from(!running.is_running()));
            if let Some(lane) = counters.lanes().iter().find(|lane| lane.name == watched) {
                board.note(QUARANTINED, u64::from(lane.is_quarantined()));
                board.note(READ, lane.read.iter().map(|count| count.get()).sum());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    // The broker's thread can be at work long before the thread that tells of it.
    assert!(soon(|| board.noted(RUNS) == 1), "the broker runs");
    victim
}

/// What the child tells.
pub fn is_running(board: &Board) -> bool {
    board.noted(FAILED) == 0
}

/// How many records of the watched lane were read.
pub fn read(board: &Board) -> u64 {
    board.noted(READ)
}

/// Whether the watched lane is quarantined.
pub fn is_quarantined(board: &Board) -> bool {
    board.noted(QUARANTINED) == 1
}

/// Waits until something holds; `false` if it does not for ten seconds, which is a hang.
pub fn soon(mut holds: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    while !holds() {
        if begun.elapsed() > Duration::from_secs(10) {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    true
}

/// How many records of that lane the broker has committed.
pub fn consumed(bus: &str, lane: &str) -> Option<u64> {
    let status = CursorsStatus::read(bus, BROKER, None).ok()?;
    let lane = status.lanes.iter().find(|known| known.lane_name == lane)?;
    lane.consumed.iter().copied().sum()
}

/// The broker's cursors as they stand in shared memory, cheap to read again and again.
pub struct Cursors(File);

impl Cursors {
    pub fn open(bus: &Bus) -> Self {
        Self(File::open(bus.file("cursors", BROKER)).expect("cursors"))
    }

    fn word(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, at).expect("a word");
        u64::from_le_bytes(bytes)
    }

    /// The mark of the last commit, the last word that a commit stores.
    pub fn mark(&self) -> u64 {
        self.word(384)
    }

    /// How often the broker went to sleep.
    pub fn parked(&self) -> u64 {
        self.word(256) & 0xffff_ffff
    }
}

/// One entry, in short.
pub struct Line {
    pub lane: u64,
    pub number: u64,
    pub user: String,
    pub record: Vec<u8>,
}

/// Everything in the journal, by the real recovery, which checks every checksum; and each user's stream checked: numbered
/// from 1 without a hole, one epoch, each entry pointing back at the one before.
pub fn journalled(bus: &str, dir: &Path) -> Result<Vec<Line>, String> {
    let (journal, recovered) =
        Journal::open(config(bus, dir).journal, 1, &mut |_, _| Ok(())).map_err(|error| error.to_string())?;
    ensure(recovered.cut.is_none(), || format!("the journal was cut: {:?}", recovered.cut))?;
    let mut reader = journal.reader();
    let mut lines = Vec::new();
    let mut streams: HashMap<String, (u64, u64, u32)> = HashMap::new();
    let mut at = reader.start();
    while let Some(entry) = reader.entry(at) {
        let view = entry.view().ok_or("an entry that is not sound")?;
        let user = view.user_id().to_owned();
        let (seq, last, epoch) = streams.entry(user.clone()).or_insert((0, 0, entry.epoch));
        ensure((entry.seq, entry.prev, entry.epoch) == (*seq + 1, *last, *epoch), || {
            format!(
                "{user}: sequence {}, back-link {}, epoch {} behind {seq}, {last}, {epoch}",
                entry.seq, entry.prev, entry.epoch
            )
        })?;
        (*seq, *last) = (entry.seq, entry.offset);
        let mut record = entry.header.to_bytes().to_vec();
        record.extend_from_slice(entry.archive);
        lines.push(Line { lane: entry.lane, number: entry.header.lane_sequence, user, record });
        at = entry.next;
    }
    Ok(lines)
}

/// Whether the journal holds each of a lane's records once, byte for byte, and each ring's in their order.
pub fn check_once(lines: &[Line], lane: u64, script: Script, last: u64) -> Result<(), String> {
    let numbers: Vec<u64> = lines.iter().filter(|line| line.lane == lane).map(|line| line.number).collect();
    for number in 1..=last {
        let count = numbers.iter().filter(|found| **found == number).count();
        ensure(count != 0, || format!("skipped: record {number} of {last} is not in the journal"))?;
        ensure(count == 1, || format!("doubled: record {number} is in the journal {count} times"))?;
    }
    ensure(numbers.len() as u64 == last, || format!("{} records of {last} in the journal", numbers.len()))?;
    for ring in bellwire::Priority::ALL {
        let of_ring: Vec<u64> =
            numbers.iter().copied().filter(|number| (script.priority)(*number) == ring).collect();
        ensure(of_ring.is_sorted(), || format!("{ring}: out of order: {of_ring:?}"))?;
    }
    for line in lines.iter().filter(|line| line.lane == lane) {
        let expected = script.record(line.number);
        ensure(expected.starts_with(&line.record), || {
            format!("torn: record {} in the journal", line.number)
        })?;
    }
    Ok(())
}
