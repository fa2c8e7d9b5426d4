//! The broker: one thread between the lanes and the journal.
//!
//! Data goes one way, and each step is a file: `source` (unread records of the lanes) → `rounds` (whose turn it is) →
//! `order` (what must go first) → `intake` (copy into the journal, check, `dedup`, number by `streams`, append) →
//! the journal's published end. `queries` answers the shards, `retention` lets old segments go, `rebuild` makes the
//! tables at start, `run` is the thread.
//!
//! Nothing is counted as done before it is journalled, and the lanes' cursors move last. So a kill at any instruction
//! loses nothing, and what is read again is recognised.

mod counters;
mod dedup;
mod intake;
mod order;
mod queries;
mod rebuild;
mod retention;
mod rounds;
mod run;
mod source;
mod streams;
mod summary;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bellwire::OpenError;

pub use crate::counts::Count;
pub use counters::{BrokerCounters, LaneCounters};
pub use dedup::{DEDUP_WINDOW_DEFAULT, DEDUP_WINDOW_MAX};
pub use queries::{BrokerGone, Snapshot, StreamQueries, StreamState};
pub use run::{BrokerRunning, start};

use bellwire_journal::{JournalConfig, JournalError};

/// Serves or wakes a shard that waits for the journal.
pub trait ShardSignal: Send + Sync {
    /// The journal's end has moved. Called after every batch, so it does next to nothing unless the shard sleeps; then it may
    /// push a record or two for it, a few writes at most, instead of waking it.
    fn signal(&self);
}

/// How a broker runs.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    /// The bus whose lanes are read.
    pub bus: String,
    /// The name of this consumer: its cursors survive under it.
    pub consumer: String,
    /// Lanes of this group are trusted; without one, only those of this user.
    pub group: Option<String>,
    /// How many message ids are remembered.
    pub dedup_window: usize,
    /// Where everything goes.
    pub journal: JournalConfig,
    /// How long the thread spins before it sleeps; [`Duration::MAX`]: it never sleeps.
    pub spin: Duration,
    /// The core that the thread is bound to.
    pub core: Option<usize>,
}

impl BrokerConfig {
    /// A broker for that bus with the defaults: consumer `gateway`, 10,000 ids, no group, no core of its own.
    pub fn new(bus: impl Into<String>, journal: JournalConfig) -> Self {
        Self {
            bus: bus.into(),
            consumer: "gateway".to_owned(),
            group: None,
            dedup_window: DEDUP_WINDOW_DEFAULT,
            journal,
            spin: Duration::from_micros(10),
            core: None,
        }
    }
}

/// Why a broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("dedup window of {found} ids; at most {max} are possible", max = DEDUP_WINDOW_MAX)]
    DedupWindow { found: usize },
    #[error(transparent)]
    Bus(#[from] OpenError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot start the broker's thread: {0}")]
    Thread(std::io::Error),
}

/// Why a broker did not stop in order.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It is still at work; what it has not committed is read again at the next start.
    #[error("the broker did not stop within {waited:?}")]
    Deadline { waited: Duration },
    /// What was in the lanes could not be drained in time; it is still there.
    #[error("the broker stopped with records left in the lanes{}", if *.disk_full { ": the journal's disk is full" } else { "" })]
    Undrained { disk_full: bool },
    /// It ended with an error before.
    #[error("the broker failed: {0}")]
    Failed(JournalError),
    /// Its own cursors are gone; producers do not see how far it has come.
    #[error(
        "the broker's cursors are lost: {0}; remove that file and start again: what the lanes still hold is read again, and recognised"
    )]
    Cursors(OpenError),
    /// It panicked.
    #[error("the broker's thread panicked")]
    Panicked,
}
