//! What the broker counts. One thread writes, anybody reads; each number is right, two of them may be a moment apart.
//!
//! For each ring of a lane: `read = journalled + duplicate + rejected`, and what was published is what was read and what
//! is unread, and what was overwritten before (`lost`, `missed`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bellwire::LANES_MAX;

use crate::counts::{Count, Histogram};

/// Lanes that are listed: those attached, and as many that were. At the bound the oldest that is gone is taken off.
const LISTED_MAX: usize = 2 * LANES_MAX;

/// What came through one lane, by priority.
#[derive(Debug, Default)]
pub struct LaneCounters {
    /// The producer's name.
    pub name: String,
    /// Tells this lane from others of the same name.
    pub key: u64,
    /// Records that were taken out of the ring.
    pub read: [Count; 4],
    /// Of these, what went into the journal.
    pub journalled: [Count; 4],
    /// Of these, what was there already.
    pub duplicate: [Count; 4],
    /// Of these, what was not a sound record.
    pub rejected: [Count; 4],
    /// Records that were overwritten before they were read.
    pub lost: [Count; 4],
    /// Records that were gone already when the lane was attached for the first time.
    pub missed: [Count; 4],
    is_attached: AtomicBool,
    is_quarantined: AtomicBool,
}

impl LaneCounters {
    /// Whether the lane is being read.
    pub fn is_attached(&self) -> bool {
        self.is_attached.load(Ordering::Relaxed) // see `Count::get`
    }

    /// Whether it broke a rule and is read no further.
    pub fn is_quarantined(&self) -> bool {
        self.is_quarantined.load(Ordering::Relaxed) // see `Count::get`
    }

    pub(super) fn set_quarantined(&self) {
        self.is_quarantined.store(true, Ordering::Relaxed); // see `Count::get`
    }
}

/// What the broker counts.
#[derive(Debug, Default)]
pub struct BrokerCounters {
    lanes: RwLock<Vec<Arc<LaneCounters>>>,
    /// Rounds that found something.
    pub rounds: Count,
    /// Records that went first because the user's later record was about to overtake them.
    pub drawn_forward: Count,
    /// Offset up to which the journal is published.
    pub journal_end: Count,
    /// Offset of the oldest entry that is kept.
    pub journal_start: Count,
    /// Length of all segment files, in bytes.
    pub journal_bytes: Count,
    /// Users of whom the journal keeps a record.
    pub streams: Count,
    /// Looks for lanes: about ten a second while the broker's thread goes on, whatever there is to do.
    pub beats: Count,
    /// Lanes that were refused: foreign, squatted, of another layout.
    pub refused: Count,
    /// Chunks that were published.
    pub chunks: Count,
    /// From publishing to when the broker begins the chunk that takes the record, by priority.
    pub ring_wait: [Histogram; 4],
    /// From there to the journal's published end, by priority. One time a chunk.
    pub journal: [Histogram; 4],
    /// Questions that were answered.
    pub queries: Count,
    /// How often the disk was full.
    pub disk_full_total: Count,
    pub(super) disk_full: AtomicBool,
    pub(super) disk_tight: AtomicBool,
    pub(super) failed: AtomicBool,
}

impl BrokerCounters {
    /// The lanes that are or were read.
    pub fn lanes(&self) -> Vec<Arc<LaneCounters>> {
        self.lanes.read().unwrap_or_else(PoisonError::into_inner).clone() // a list of pointers is always whole
    }

    /// Whether the broker has stopped reading because the journal's disk is full. Producers see full rings.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed) // see `Count::get`
    }

    /// Whether the journal's next segment could not be allocated ahead.
    pub fn is_disk_tight(&self) -> bool {
        self.disk_tight.load(Ordering::Relaxed) // see `Count::get`
    }

    /// Whether the broker ended with an error. The gateway cannot go on without it.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed) // see `Count::get`
    }

    /// Counters for a lane that was attached; those that it had, if it was attached before.
    pub(super) fn attach(&self, name: &str, key: u64) -> Arc<LaneCounters> {
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let known = lanes.iter().find(|lane| lane.key == key).cloned();
        let lane = known.unwrap_or_else(|| {
            if lanes.len() >= LISTED_MAX
                && let Some(gone) = lanes.iter().position(|lane| !lane.is_attached())
            {
                lanes.remove(gone);
            }
            let lane = Arc::new(LaneCounters { name: name.to_owned(), key, ..LaneCounters::default() });
            lanes.push(Arc::clone(&lane));
            lane
        });
        lane.is_attached.store(true, Ordering::Relaxed); // see `Count::get`
        lane
    }

    pub(super) fn detach(&self, lane: &LaneCounters) {
        lane.is_attached.store(false, Ordering::Relaxed); // see `Count::get`
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_comes_back_goes_on_with_its_counters_and_the_list_is_bounded() {
        let counters = BrokerCounters::default();
        let first = counters.attach("engine", 1);
        first.read[0].add(5);
        counters.detach(&first);
        assert!(!first.is_attached());
        assert_eq!(counters.attach("engine", 1).read[0].get(), 5);
        assert!(first.is_attached());
        // One that was made anew under the same name is another lane.
        assert_eq!(counters.attach("engine", 2).read[0].get(), 0);
        let listed: Vec<_> = counters.lanes().iter().map(|lane| (lane.name.clone(), lane.key)).collect();
        assert_eq!(listed, [("engine".to_owned(), 1), ("engine".to_owned(), 2)]);
        // Those that are attached stay listed, whatever comes and goes.
        for key in 3..3 + 2 * LISTED_MAX as u64 {
            counters.detach(&counters.attach("passing", key));
        }
        let lanes = counters.lanes();
        assert_eq!((lanes.len(), LISTED_MAX), (128, 128));
        assert_eq!((lanes[0].key, lanes[1].key), (1, 2));
        assert_eq!(lanes.last().map(|lane| lane.key), Some(2 + 2 * LISTED_MAX as u64));
    }
}
