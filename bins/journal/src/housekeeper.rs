//! A thread for what would make the appending thread wait: allocating the next segment ahead, syncing, deleting, the chain and
//! the summaries.
//!
//! Nothing depends on it being quick, or on it at all: when its orders pile up, or it could not be started, the appending
//! thread does the work by itself.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::append::sync_dir;
use super::chain::{Follower, chain_path};
use super::error::JournalError;
use super::layout::DURABLE_AT;
use super::read::{JournalReader, Shared};
use super::segment::{Blank, Segment, allocate};
use super::summary::{self, Pace};
use super::{JournalConfig, SyncPolicy};

/// Orders that wait: one or two for each segment that fills or goes. At the bound the appending thread does it.
const ORDERS_MAX: usize = 32;
/// How long after a failure the next segment's space is asked for again.
const RETRY: Duration = Duration::from_secs(1);
/// How often what was appended since is linked.
const CHAIN_EVERY: Duration = Duration::from_millis(100);
/// How long to wait between two looks at segments that are full: reading them takes a twentieth of a core.
const SUMMARY_PAUSE: Duration = Duration::from_millis(5);
/// How long the end of the gateway may wait for the chain: more than a journal that fills at a gigabyte a second needs.
const CHAIN_AT_END: Duration = Duration::from_secs(2);

enum Order {
    /// This segment is full; allocate the next but one.
    Rolled(Arc<Segment>),
    /// Nobody can look this segment up any more.
    Remove(Arc<Segment>),
}

/// The thread and what it has ready.
pub(super) struct Housekeeper {
    orders: Option<SyncSender<Order>>,
    ahead: Arc<Mutex<Option<Blank>>>,
    thread: Option<JoinHandle<()>>,
    sync: SyncPolicy,
}

impl Housekeeper {
    pub(super) fn start(
        config: &JournalConfig,
        shared: &Arc<Shared>,
        summaries: Option<summary::Keeper>,
    ) -> Result<Self, JournalError> {
        let (sender, orders) = sync_channel(ORDERS_MAX);
        let ahead = Arc::new(Mutex::new(None));
        let work = Work {
            orders,
            ahead: Arc::clone(&ahead),
            shared: Arc::clone(shared),
            dir: config.dir.clone(),
            allocated: 0,
            segment_bytes: config.segment_bytes,
            sync: config.sync,
            synced_end: shared.end(),
            chain: config.chain.clone().map(|key| {
                Follower::new(JournalReader::new(Arc::clone(shared)), &config.dir, shared.journal_id, key)
            }),
            summaries,
        };
        let thread = std::thread::Builder::new()
            .name("journal-keeper".to_owned())
            .spawn(move || work.run())
            .map_err(JournalError::io(&config.dir, "start the journal's housekeeping thread"))?;
        Ok(Self { orders: Some(sender), ahead, thread: Some(thread), sync: config.sync })
    }

    /// The segment that was allocated ahead, if there is one of that length.
    pub(super) fn take_blank(&self, len: u64) -> Option<Blank> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner); // an option is always whole
        ahead.take().filter(|blank| blank.len() == len)
    }

    /// A segment is full and has a successor.
    pub(super) fn rolled(&self, full: Arc<Segment>) {
        if let Some(Order::Rolled(segment)) = self.order(Order::Rolled(full)) {
            finish(&segment, self.sync);
        }
    }

    /// A segment left the journal.
    pub(super) fn remove(&self, segment: Arc<Segment>) {
        if let Some(Order::Remove(segment)) = self.order(Order::Remove(segment)) {
            delete(&segment);
        }
    }

    /// Gives the order, or gives it back.
    fn order(&self, order: Order) -> Option<Order> {
        let Some(orders) = &self.orders else { return Some(order) };
        match orders.try_send(order) {
            Ok(()) => None,
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => Some(order),
        }
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.orders = None; // ends the thread's loop
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has nothing to tell
        }
        if let Some(blank) = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = std::fs::remove_file(blank.path()); // else the next start removes it
        }
    }
}

struct Work {
    orders: Receiver<Order>,
    ahead: Arc<Mutex<Option<Blank>>>,
    shared: Arc<Shared>,
    dir: PathBuf,
    /// How many segments were allocated ahead, or were to be.
    allocated: u64,
    segment_bytes: u64,
    sync: SyncPolicy,
    /// End of the journal at the last sync.
    synced_end: u64,
    chain: Option<Follower>,
    summaries: Option<summary::Keeper>,
}

impl Work {
    fn run(mut self) {
        let mut missing = !self.allocate_ahead();
        let mut next_sync = Instant::now();
        let mut next_link = Instant::now();
        let mut next_read = Some(Instant::now());
        loop {
            let mut wait = Duration::from_secs(3600);
            if missing {
                wait = RETRY;
            }
            if let SyncPolicy::Interval(interval) = self.sync {
                let now = Instant::now();
                if now >= next_sync {
                    self.sync_active();
                    next_sync = now + interval;
                }
                wait = wait.min(next_sync.saturating_duration_since(now));
            }
            if let Some(chain) = &mut self.chain {
                let now = Instant::now();
                if now >= next_link {
                    next_link = if chain.step() { now } else { now + CHAIN_EVERY };
                }
                wait = wait.min(next_link.saturating_duration_since(now));
            }
            if let (Some(summaries), Some(at)) = (&mut self.summaries, next_read) {
                let now = Instant::now();
                if now >= at {
                    next_read = match summaries.step() {
                        Pace::Idle => None,
                        Pace::Slow => Some(now + SUMMARY_PAUSE),
                        Pace::Fast => Some(now),
                    };
                }
                wait = next_read.map_or(wait, |at| wait.min(at.saturating_duration_since(now)));
            }
            match self.orders.recv_timeout(wait) {
                Ok(Order::Rolled(full)) => {
                    missing = !self.allocate_ahead();
                    finish(&full, self.sync);
                    if let Some(summaries) = &mut self.summaries {
                        summaries.add(full);
                        next_read = Some(Instant::now());
                    }
                }
                Ok(Order::Remove(segment)) => delete(&segment),
                Err(RecvTimeoutError::Timeout) if missing => missing = !self.allocate_ahead(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(chain) = &mut self.chain {
            let until = Instant::now() + CHAIN_AT_END;
            while chain.step() && Instant::now() < until {}
            chain.log_head();
        }
    }

    /// Whether there is a segment ahead now.
    ///
    /// Each has a name of its own. The last one may have been taken and not have got its final name yet: a file made anew
    /// under the same name would be that one, emptied, while it is written to.
    fn allocate_ahead(&mut self) -> bool {
        let is_there = || self.ahead.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_there() {
            return true;
        }
        self.allocated += 1;
        match allocate(&self.dir.join(format!("next-{}.prep", self.allocated)), self.segment_bytes) {
            Ok(blank) => {
                *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(blank);
                self.shared.tight.store(false, Ordering::Relaxed); // a hint for people
                true
            }
            Err(error) => {
                if !self.shared.tight.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "the journal's next segment cannot be allocated ahead");
                }
                false
            }
        }
    }

    fn sync_active(&mut self) {
        let end = self.shared.end();
        if end == self.synced_end {
            return;
        }
        let active = self.shared.segments().back().cloned();
        if let Some(Err(error)) = active.map(|segment| segment.sync()) {
            tracing::error!(%error, "the journal cannot be synced: a power loss may take more than configured");
            return;
        }
        self.synced_end = end;
    }
}

/// Makes a full segment durable, if that is wanted.
fn finish(full: &Segment, sync: SyncPolicy) {
    if sync == SyncPolicy::None {
        return;
    }
    // The directory as well: it has a new name in it.
    let synced = full.sync().and_then(|()| full.path().parent().map_or(Ok(()), sync_dir));
    match synced {
        Ok(()) => full.store_word(DURABLE_AT, 1),
        Err(error) => tracing::error!(%error, "a full journal segment cannot be synced"),
    }
}

/// Deletes the file of a segment, its summary and its chain.
fn delete(segment: &Segment) {
    if let Err(error) = summary::remove(segment.path()) {
        tracing::error!(path = %segment.path().display(), %error, "the summary of a journal segment cannot be deleted");
    }
    match std::fs::remove_file(chain_path(segment.path())) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::error!(path = %segment.path().display(), %error, "the chain of a journal segment cannot be deleted");
        }
        _ => {}
    }
    match std::fs::remove_file(segment.path()) {
        Ok(()) => tracing::info!(path = %segment.path().display(), "journal segment left the retention"),
        Err(error) => {
            tracing::error!(path = %segment.path().display(), %error, "journal segment cannot be deleted")
        }
    }
}
