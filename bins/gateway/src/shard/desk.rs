//! Where a shard's state lies while its thread sleeps, so that the broker can do a little for it.
//!
//! To wake a thread costs more than to write to one socket, on both sides, and the record waits for it meanwhile. So while a
//! shard sleeps, everything that it owns lies on its desk, and the broker, which has just published a record or two, reads on
//! and writes for it. Whatever is more than a little, or not a push at all, is left to the shard's own thread, which is woken
//! then: under load shards and broker work side by side as ever.
//!
//! There is one owner at any time: the thread takes its state from the desk when it wakes and puts it back before it sleeps;
//! the lock is held by whoever works, and is never waited for by the broker.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Bell, Shard};
use crate::broker::ShardSignal;

/// Journalled bytes that are a little.
const LITTLE_BYTES: u64 = 2048;

/// Writes that are a little.
const LITTLE_WRITES: usize = 4;

/// One shard's desk, and the bell beside it.
#[derive(Default)]
pub struct Desk {
    bell: Arc<Bell>,
    shard: Mutex<Option<Box<Shard>>>,
}

impl Desk {
    pub(super) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }

    /// The thread goes to sleep.
    pub(super) fn put(&self, shard: Box<Shard>) {
        *self.shard.lock().unwrap_or_else(PoisonError::into_inner) = Some(shard);
    }

    /// The thread is awake. It waits for the broker, if that is just doing a little. `None`: nobody put anything there.
    pub(super) fn take(&self) -> Option<Box<Shard>> {
        self.shard.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Does what there is to do for the shard, if its state is here and it is a little; whether nothing is left.
    fn help(&self) -> bool {
        let Ok(mut shard) = self.shard.try_lock() else { return false };
        shard.as_mut().is_some_and(|shard| shard.push_a_little(LITTLE_BYTES, LITTLE_WRITES))
    }
}

impl ShardSignal for Desk {
    fn signal(&self) {
        if self.bell.sleeps() && !self.help() {
            self.bell.wake();
        }
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("bell", &self.bell).finish_non_exhaustive()
    }
}
