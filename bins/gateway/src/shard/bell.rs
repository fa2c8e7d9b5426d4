//! Waking a shard.
//!
//! # Why no wake is lost
//!
//! A shard that has nothing to do says so (`asleep`), fences, and looks at the journal's end once more before it waits.
//! The broker publishes the end, fences, and looks at `asleep`. Whichever fence comes second in the single order of all
//! such fences sees what stood before the other: either the shard sees the new end, or the broker sees that it must ring
//! (or do the shard's work, see [`super::desk`]).
//! A ring before the shard waits is kept by `Notify` as a permit. Sockets and answers ring without asking: they come from
//! the shard's own thread or are rare.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Wake;

use tokio::sync::Notify;

/// What wakes one shard.
#[derive(Debug, Default)]
pub(super) struct Bell {
    asleep: AtomicBool,
    notify: Notify,
}

impl Bell {
    /// Wakes the shard, or keeps it from falling asleep.
    pub(super) fn ring(&self) {
        self.notify.notify_one();
    }

    /// Announces sleep. After this the caller must look at the journal's end again before [`Bell::rung`].
    pub(super) fn falling_asleep(&self) {
        self.asleep.store(true, Ordering::Relaxed); // ordered by the fence, see above
        fence(Ordering::SeqCst); // pairs with the fence in `sleeps`
    }

    pub(super) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed); // a late ring only costs one turn
    }

    pub(super) async fn rung(&self) {
        self.notify.notified().await;
    }

    /// Whether the shard sleeps, or is about to and will not see what was published before this call.
    pub(super) fn sleeps(&self) -> bool {
        fence(Ordering::SeqCst); // pairs with the fence in `falling_asleep`
        self.asleep.load(Ordering::Relaxed) // ordered by the fence
    }

    /// Wakes the shard if it sleeps. Once.
    pub(super) fn wake(&self) {
        if self.asleep.swap(false, Ordering::Relaxed) {
            self.notify.notify_one();
        }
    }
}

/// The sockets of one shard on which something can be done.
#[derive(Debug)]
pub(super) struct ReadyList {
    // Bounded: a slot is in it at most once. The lock is taken by the shard's own thread alone, except at shutdown.
    slots: Mutex<Vec<u32>>,
    bell: Arc<Bell>,
}

impl ReadyList {
    pub(super) fn new(bell: Arc<Bell>) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::default(), bell })
    }

    /// Moves what is ready to the end of `into`.
    pub(super) fn take(&self, into: &mut Vec<u32>) {
        into.append(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The waker of one slot: all sessions that ever stand there share it, since a ring too many is harmless.
#[derive(Debug)]
pub(super) struct SlotWaker {
    slot: u32,
    listed: AtomicBool,
    list: Arc<ReadyList>,
}

impl SlotWaker {
    pub(super) fn new(slot: u32, list: &Arc<ReadyList>) -> Self {
        Self { slot, listed: AtomicBool::new(false), list: Arc::clone(list) }
    }

    /// To be called before the socket is looked at: what happens from now on is a new reason.
    pub(super) fn unlist(&self) {
        self.listed.store(false, Ordering::Release); // pairs with the swap in `wake_by_ref`
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // AcqRel: pairs with the store in `unlist`.
        if !self.listed.swap(true, Ordering::AcqRel) {
            self.list.slots.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
            self.list.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_waker_lists_its_slot_once_until_it_is_looked_at() {
        let list = ReadyList::new(Arc::default());
        let waker = Arc::new(SlotWaker::new(7, &list));
        waker.wake_by_ref();
        Arc::clone(&waker).wake();
        let mut ready = Vec::new();
        list.take(&mut ready);
        assert_eq!(ready, [7]);
        waker.unlist();
        waker.wake_by_ref();
        list.take(&mut ready);
        assert_eq!(ready, [7, 7]);
    }

    #[tokio::test]
    async fn only_a_sleeping_shard_is_rung_by_the_broker() {
        let bell = Bell::default();
        bell.wake();
        let soon = Duration::from_millis(20);
        assert!(!bell.sleeps());
        assert!(tokio::time::timeout(soon, bell.rung()).await.is_err(), "awake: no ring");
        bell.falling_asleep();
        assert!(bell.sleeps());
        bell.wake();
        bell.rung().await;
        bell.falling_asleep();
        bell.awake();
        bell.wake();
        assert!(!bell.sleeps());
        assert!(tokio::time::timeout(soon, bell.rung()).await.is_err());
    }
}
