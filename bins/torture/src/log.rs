//! A producer's log: how far it meant to go, and how far publishing has returned `Ok`.
//!
//! An intent is written before the records are published, a confirmation after. A write that has returned survives the
//! SIGKILL of the process, and an entry never crosses a page, so there are no torn ones. What lies between the last
//! confirmation and the last intent may or may not have been published when a process was killed; the next process
//! publishes it again under the same ids, or (seldom) abandons it, and then each of it may have arrived once or not at all.
//!
//! ```text
//!       0      8               16              24              32
//!      +------+---------------+---------------+---------------+
//!      | kind | first number  | end number    | lane sequence |
//!      +------+---------------+---------------+---------------+
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

const ENTRY_LEN: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// These are published next.
    Intent(Range<u64>),
    /// Everything before this number was published; the last of it with this lane sequence.
    Confirmed { end: u64, lane_sequence: u64 },
    /// These may have been published by a process that was killed, and are not published again.
    Abandoned(Range<u64>),
    /// These were confirmed, and are published again all the same.
    Repeated(Range<u64>),
    /// Orderly end of the process.
    Ended,
}

impl Entry {
    fn to_bytes(&self) -> [u8; ENTRY_LEN] {
        let words = match self {
            Self::Intent(range) => [1, range.start, range.end, 0],
            Self::Confirmed { end, lane_sequence } => [2, 0, *end, *lane_sequence],
            Self::Abandoned(range) => [3, range.start, range.end, 0],
            Self::Repeated(range) => [4, range.start, range.end, 0],
            Self::Ended => [5, 0, 0, 0],
        };
        let mut bytes = [0; ENTRY_LEN];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        let word = |index: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[index * 8 + byte]));
        let range = word(1)..word(2);
        Some(match word(0) {
            1 => Self::Intent(range),
            2 => Self::Confirmed { end: range.end, lane_sequence: word(3) },
            3 => Self::Abandoned(range),
            4 => Self::Repeated(range),
            5 => Self::Ended,
            _ => return None,
        })
    }
}

/// What a log says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Everything before this number was published, or abandoned.
    pub(crate) confirmed: u64,
    /// Nothing from this number on was published.
    pub(crate) intended: u64,
    /// Lane sequence of the last confirmed record.
    pub(crate) lane_sequence: u64,
    pub(crate) abandoned: Vec<Range<u64>>,
    /// Records that were published again although they were confirmed.
    pub(crate) repeated: u64,
    /// Whether the last process came to an orderly end.
    pub(crate) has_ended: bool,
    pub(crate) entries: usize,
}

impl Account {
    /// Reads a log; one that does not exist is empty.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut account = Self::default();
        let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
        for entry in entries {
            let entry = Entry::from_bytes(entry).ok_or_else(|| io::Error::other("no entry of a log"))?;
            account.take(entry);
        }
        if rest.is_empty() { Ok(account) } else { Err(io::Error::other("a torn entry in a log")) }
    }

    fn take(&mut self, entry: Entry) {
        self.entries += 1;
        self.has_ended = entry == Entry::Ended;
        match entry {
            Entry::Intent(range) => self.intended = self.intended.max(range.end),
            Entry::Confirmed { end, lane_sequence } => {
                self.confirmed = self.confirmed.max(end);
                self.lane_sequence = lane_sequence;
            }
            Entry::Abandoned(range) => {
                self.confirmed = range.end;
                self.abandoned.push(range);
            }
            Entry::Repeated(range) => self.repeated += range.end - range.start,
            Entry::Ended => {}
        }
    }
}

/// A log that is being written.
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().create(true).append(true).open(path)?))
    }

    pub(crate) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.0.write_all(&entry.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_reads_back_as_what_was_confirmed_intended_and_abandoned() {
        let path = std::env::temp_dir().join(format!("bellwire-torture-log-{}", std::process::id()));
        let mut log = Log::open(&path).unwrap();
        for entry in [
            Entry::Intent(0..5),
            Entry::Confirmed { end: 5, lane_sequence: 5 },
            Entry::Intent(5..9),
            Entry::Abandoned(5..9),
            Entry::Intent(9..12),
        ] {
            log.write(&entry).unwrap();
        }
        let account = Account::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((account.confirmed, account.intended, account.lane_sequence), (9, 12, 5));
        assert_eq!(account.abandoned.first(), Some(&(5..9)));
        assert!(!account.has_ended);
    }
}
