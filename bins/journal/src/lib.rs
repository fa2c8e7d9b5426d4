//! The journal: every notification that was sequenced, in the order in which the shards deliver them.
//!
//! Append-only segment files, mapped; one process owns the directory, one thread of it appends, any number of
//! [`JournalReader`]s in the same process read in place. `layout` says what the bytes mean, `segment` holds the
//! mapped memory, `append` writes, `read` reads, `recover` finds out at start what is there, [`inspect`] looks from outside, and `housekeeper` is
//! a thread that does what would make the appending thread wait: allocating the next file, syncing, deleting, the `chain`
//! that shows whether somebody altered what is kept, and the `summary` of each full segment, by which a start is quick.
//!
//! An append has two steps, so that a record's bytes move once: [`Journal::room`] gives the next free bytes, the caller
//! copies the archive into them and checks that copy, and [`Journal::append`] turns it into an entry. What was copied but
//! not appended is overwritten by the next record. Nothing is visible to readers before [`Journal::publish`].
//!
//! # What is lost when
//!
//! The death of the process loses nothing that was appended: the bytes are in the kernel's page cache. What a power loss
//! can lose is [`SyncPolicy`]. A full disk loses nothing either: [`Journal::room`] says so and the caller waits.

#![deny(unsafe_code)]

mod append;
mod chain;
mod error;
mod housekeeper;
pub mod inspect;
mod layout;
mod read;
mod recover;
mod segment;
mod summary;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

pub use append::{Facts, Journal, Room};
pub use chain::{CHAIN_KEY_LEN_MIN, ChainHeader, ChainHeaderError, ChainKey, KeyTooShort, Link, NoLink};
pub use error::JournalError;
pub use layout::{ENTRY_ALIGN, ENTRY_HEADER_LEN, ENTRY_LEN_MAX, HeaderError, SEGMENT_HEADER_LEN};
pub use read::{Entry, JournalReader};
pub use recover::{Cut, Recovered};
pub use summary::{Summariser, Tables};

/// Length of a segment file unless the configuration says otherwise, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Shortest segment file: the longest entry fits in and leaves room for more.
pub const SEGMENT_BYTES_MIN: u64 = 128 << 10;
/// Longest segment file.
pub const SEGMENT_BYTES_MAX: u64 = 4 << 30;

/// What a power loss may take away. The death of the gateway never takes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Whatever the kernel had not written yet, commonly the last 30 seconds.
    None,
    /// What was journalled since that long ago.
    Interval(Duration),
    /// Nothing that a session was shown: each batch is on disk before it is published.
    Every,
}

/// Where the journal is and how much it keeps.
#[derive(Clone, Debug)]
pub struct JournalConfig {
    /// The directory; made if it does not exist (its parent must), readable by the owner alone.
    pub dir: PathBuf,
    /// Length of a segment file; a multiple of 4096.
    pub segment_bytes: u64,
    /// The oldest segment goes when all together are longer than this; at least two segments. On disk there is one
    /// segment more: the next, allocated ahead.
    pub retain_bytes: u64,
    /// A segment goes when its newest entry is older than this. A wall clock that is set while the gateway runs changes no
    /// age; from one start to the next the wall clock is all that there is.
    pub retain_age: Option<Duration>,
    pub sync: SyncPolicy,
    /// What its chain is made with; `None`: it has none. See `chain`.
    pub chain: Option<ChainKey>,
}

impl JournalConfig {
    /// 64 MiB segments, 1 GiB retained, no limit by age, synced every 100 ms, with a chain that anybody can check.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            retain_bytes: 1 << 30,
            retain_age: None,
            sync: SyncPolicy::Interval(Duration::from_millis(100)),
            chain: Some(ChainKey::public()),
        }
    }

    /// Checks the limits.
    ///
    /// # Errors
    /// [`JournalError::Config`] with the value and what is allowed.
    pub fn check(&self) -> Result<(), JournalError> {
        let within = |what, found, min, max| {
            if (min..=max).contains(&found) {
                Ok(())
            } else {
                Err(JournalError::Config { what, found, min, max })
            }
        };
        within("segment_bytes", self.segment_bytes, SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX)?;
        within("segment_bytes modulo 4096", self.segment_bytes % 4096, 0, 0)?;
        within("retain_bytes", self.retain_bytes, 2 * self.segment_bytes, 1 << 50)?;
        if let SyncPolicy::Interval(interval) = self.sync {
            within("sync interval in ms", interval.as_millis() as u64, 1, 60_000)?;
        }
        Ok(())
    }
}
