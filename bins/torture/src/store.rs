//! The second consumer of the bus: a storage writer that appends what it reads to a file, then commits.
//!
//! At least once: what a killed process had written and not committed is read again by the next one. An entry's lane and
//! lane sequence tell.
//!
//! ```text
//!       0      8            16        24              32
//!      +------+------------+---------+---------------+
//!      | kind | lane, ring | number  | lane sequence |
//!      +------+------------+---------+---------------+
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellwire::{Priority, Reader};
use clap::Args;

use crate::Result;
use crate::life::{self, Wish};
use crate::log::Account;
use crate::plan::{LANES_MAX, Record, lane_name};

const ENTRY_LEN: usize = 32;

/// Records that are written and committed together.
const CHUNK: usize = 256;

/// How often what was written is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(15);

/// Name of the consumer.
pub(crate) const STORE: &str = "storage";

const RECORD: u64 = 1;
/// A process began; its mark stands in the place of the number.
const BEGAN: u64 = 2;

#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    bus: String,
    #[arg(long)]
    file: PathBuf,
}

pub(crate) fn run(args: &StoreArgs) -> Result<()> {
    life::die_with(args.parent)?;
    let wishes = life::follow();
    let mut reader = Reader::open(&args.bus, STORE)?;
    let mut file = OpenOptions::new().create(true).append(true).open(&args.file)?;
    let mut written = file.metadata()?.len();
    let mut committed_at = Instant::now();
    let mut chunk = Vec::with_capacity(CHUNK * ENTRY_LEN);
    push(&mut chunk, [BEGAN, 0, reader.mark(), 0]);
    loop {
        let is_over = *wishes.borrow() == Wish::End;
        let read = read(&mut reader, &mut chunk)?;
        if !chunk.is_empty() {
            file.write_all(&chunk)?;
            written += chunk.len() as u64;
            chunk.clear();
        }
        // Not at once: a kill shall find something that was written and not committed.
        if committed_at.elapsed() >= COMMIT_EVERY || (is_over && read == 0) {
            reader.commit(written);
            committed_at = Instant::now();
        }
        if read == 0 {
            if is_over {
                return Ok(());
            }
            reader.wait(COMMIT_EVERY);
        }
    }
}

/// Reads what is there into `chunk`, as far as that goes.
fn read(reader: &mut Reader, chunk: &mut Vec<u8>) -> Result<usize> {
    reader.refresh();
    let mut read = 0;
    for id in reader.lanes() {
        let info = reader.lane(id);
        let Some(lane) = (0..LANES_MAX).find(|lane| lane_name(*lane) == info.name()) else { continue };
        if info.lost() != [0; 4] || info.missed() != [0; 4] || info.quarantined().is_some() {
            return Err(format!("{info:?}").into());
        }
        for priority in Priority::ALL {
            while chunk.len() < CHUNK * ENTRY_LEN
                && let Some(slot) = reader.peek(id, priority)?
            {
                let record = Record::of(slot.view()?.message_id).ok_or("a record that nobody published")?;
                let place = u64::from(lane) << 8 | priority.index() as u64;
                push(chunk, [RECORD, place, record.number, slot.header().lane_sequence]);
                reader.advance(id, priority);
                read += 1;
            }
        }
    }
    Ok(read)
}

fn push(chunk: &mut Vec<u8>, words: [u64; 4]) {
    chunk.extend(words.iter().flat_map(|word| word.to_le_bytes()));
}

/// What a store's file says.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) records: u64,
    /// Read again after a restart.
    pub(crate) repeated: u64,
    /// For each lane, by lane sequence from 1 on: the number of the record plus one; 0: not there.
    lanes: Vec<Vec<u64>>,
    pub(crate) problems: Vec<String>,
}

impl Stored {
    /// Reads the file, and checks what can be checked by itself: within one process every ring's records come in order,
    /// what is read again is what was read before, and a mark is never ahead of the file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let mut stored = Self { lanes: vec![Vec::new(); usize::from(LANES_MAX)], ..Self::default() };
        let bytes = std::fs::read(path)?;
        let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
        if !rest.is_empty() {
            stored.problems.push("storage: a torn entry".to_owned());
        }
        let mut last = [[0; 4]; LANES_MAX as usize];
        for (index, entry) in entries.iter().enumerate() {
            let word = |word: usize| u64::from_le_bytes(std::array::from_fn(|byte| entry[word * 8 + byte]));
            if word(0) == BEGAN {
                last = [[0; 4]; LANES_MAX as usize];
                if word(2) > (index * ENTRY_LEN) as u64 {
                    stored.problems.push(format!("storage: mark {} at entry {index}", word(2)));
                }
                continue;
            }
            let (lane, ring) = ((word(1) >> 8) as usize, (word(1) & 3) as usize);
            stored.take(lane, word(2), word(3), &mut last[lane][ring]);
        }
        Ok(stored)
    }

    fn take(&mut self, lane: usize, number: u64, lane_sequence: u64, last: &mut u64) {
        if lane_sequence <= *last {
            self.problems.push(format!("storage: lane {lane}: sequence {lane_sequence} after {last}"));
        }
        *last = lane_sequence;
        let records = &mut self.lanes[lane];
        if records.len() < lane_sequence as usize {
            records.resize(lane_sequence as usize, 0);
        }
        match &mut records[lane_sequence as usize - 1] {
            found @ 0 => {
                *found = number + 1;
                self.records += 1;
            }
            found if *found == number + 1 => self.repeated += 1,
            found => {
                let was = *found - 1;
                self.problems.push(format!("storage: lane {lane}: {lane_sequence} is {number}, was {was}"));
            }
        }
    }

    /// Checks that everything is there that was published: every lane sequence up to the lane's last, and every number
    /// that was confirmed. What was intended and not confirmed may be there: the last process may have been killed amid it,
    /// and its successor have ended at once.
    pub(crate) fn check(
        &mut self,
        lane: u8,
        last_sequence: u64,
        is_certain: impl Fn(u64) -> bool,
        account: &Account,
    ) {
        let records = &self.lanes[usize::from(lane)];
        let missing = (0..last_sequence as usize).find(|at| records.get(*at).is_none_or(|found| *found == 0));
        if let Some(at) = missing {
            self.problems.push(format!(
                "storage: lane {lane}: lane sequence {} of {last_sequence} is missing",
                at + 1
            ));
        }
        let mut seen = vec![false; account.intended as usize];
        for number in records.iter().filter_map(|found| found.checked_sub(1)) {
            match seen.get_mut(number as usize) {
                Some(seen) => *seen = true,
                None => self.problems.push(format!("storage: lane {lane}: {number} was never published")),
            }
        }
        if let Some(number) =
            (0..account.confirmed).find(|number| is_certain(*number) && !seen[*number as usize])
        {
            self.problems.push(format!("storage: lane {lane}: number {number} is missing"));
        }
    }
}
