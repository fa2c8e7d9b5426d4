//! Waking readers that sleep, without a polling clock and without a system call when nobody does.
//!
//! The *doorbell* is a word in the lane, written by its producer; parked readers sleep on it. The *parked* word is a
//! counter in the consumer's segment, which says how often it went to sleep. It is a counter and not a flag, so that a
//! producer rings once per sleep and not once per publish until the reader has got up.
//!
//! # Why no wake is lost
//!
//! ```text
//! reader, in `park`                        producer
//!  r1: d = doorbell                         p1: position = new (Release)
//!  r2: parked += 1                          p2: (compiler fence)
//!  r3: membarrier                           p3: if parked != seen { doorbell += 1; FUTEX_WAKE; seen = parked }
//!  r4: position moved? then do not sleep
//!  r5: FUTEX_WAIT(doorbell, d)
//! ```
//!
//! `membarrier` makes every running thread of a registered process pass a full fence between r2 and r4. Where that
//! fence falls in the producer decides:
//!
//! - before p1: then p3 comes after r2 and sees the new `parked`: it rings;
//! - after p3's load: then p1 comes before r4, which sees the new position: the reader does not sleep;
//! - between them: both hold.
//!
//! If the producer rings before r1 for a sleep that is over, it stored the position before that fence, and r4 sees it. If
//! it rings between r1 and r5, the doorbell is no longer `d`, and the kernel, which compares under its own lock, does not
//! let the reader sleep. If it rings after r5, FUTEX_WAKE finds the reader.
//!
//! A producer that is not registered for membarrier says so in its lane, and readers then never sleep on it for longer
//! than [`UNFENCED_WAIT`]. A lane may change hands while a reader goes to sleep: the new owner says whether he is
//! registered, then rings. Whoever sees that ring in r1 (Release, Acquire) sees what he said; for whoever does not, the
//! doorbell is no longer `d`.
//!
//! A producer looks at the parked word only of consumers that it knows; one that it may not know yet sleeps no longer
//! than [`UNKNOWN_WAIT`].
//!
//! `scripts/proofs/loom` runs this file in models (`src/loom/models/waking.rs`): one producer, two, and a lane that changes
//! hands, with the barrier falling between any two instructions of a producer. In them a lost wake is a deadlock.

use std::time::Duration;

use crate::bus::LANES_MAX;
use crate::layout::LaneHeader;
use crate::sync::{AtomicU32, Ordering};

#[cfg(not(bellwire_loom))]
mod kernel;
#[cfg(bellwire_loom)]
use crate::loom::kernel;

#[cfg(not(bellwire_loom))]
pub(crate) use kernel::{has_barriers, has_waits_on_many};
pub(crate) use kernel::{register_for_barriers, sleep, wake_all};

/// Longest sleep on a lane whose producer cannot be fenced.
pub(crate) const UNFENCED_WAIT: Duration = Duration::from_millis(1);

/// Longest sleep on a lane whose producer may not have noticed us yet.
pub(crate) const UNKNOWN_WAIT: Duration = Duration::from_millis(1);

/// Words that one waiter sleeps on: all doorbells, and its own waker.
const WORDS_MAX: usize = LANES_MAX + 1;

/// One word to sleep on, and the value it had when its owner was last looked at.
#[derive(Clone, Copy)]
pub(crate) struct Sleep<'a> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) value: u32,
}

/// A new owner of a lane says whether sleepers can fence him, and makes them look again.
pub(crate) fn greet(lane: &LaneHeader, registered: bool) {
    lane.owner.membarrier.store(registered.into(), Ordering::Relaxed); // published by the ring
    ring(&lane.doorbell);
}

/// Rings: bumps the word and wakes everybody who sleeps on it. The word has one writer.
#[cold]
pub(crate) fn ring(doorbell: &AtomicU32) {
    let next = doorbell.load(Ordering::Relaxed).wrapping_add(1); // Relaxed: written by ourselves
    doorbell.store(next, Ordering::Release); // pairs with the Acquire in r1
    wake_all(doorbell);
}

/// p3: rings if the consumer went to sleep since the bell was last rung for it. Tells whether it rang.
#[inline]
pub(crate) fn ring_if_parked(doorbell: &AtomicU32, parked: &AtomicU32, rung_for: &mut u32) -> bool {
    // Relaxed: ordered behind the commit by the barrier that the consumer makes everybody pass.
    let parked = parked.load(Ordering::Relaxed);
    if parked == *rung_for {
        return false;
    }
    *rung_for = parked;
    ring(doorbell);
    true
}

/// Sleeps until somebody rings or uses the waker, `longest` at most, unless `has_more` finds something to read.
/// Spurious returns are allowed.
pub(crate) fn park<'a>(
    lanes: impl Iterator<Item = &'a LaneHeader>,
    waker: Sleep<'a>,
    parked: &AtomicU32,
    mut longest: Duration,
    has_more: impl FnOnce() -> bool,
) {
    let mut words = [waker; WORDS_MAX];
    let mut count = 1;
    for (word, lane) in words[1..].iter_mut().zip(lanes) {
        // r1: the doorbells as they are before we look for the last time.
        let value = lane.doorbell.load(Ordering::Acquire); // pairs with the Release in `ring`
        *word = Sleep { word: &lane.doorbell, value };
        count += 1;
        // Relaxed: what the owner said before he rang the bell that we saw; behind it, see above.
        if lane.owner.membarrier.load(Ordering::Relaxed) == 0 {
            longest = longest.min(UNFENCED_WAIT);
        }
    }
    // r2: say that we sleep.
    let next = parked.load(Ordering::Relaxed).wrapping_add(1); // written by ourselves
    parked.store(next, Ordering::Relaxed); // ordered before r4, and before the producer's p3, by the barrier
    // r3
    if !kernel::barrier() {
        longest = longest.min(UNFENCED_WAIT);
    }
    // r4, r5
    if !has_more() {
        sleep(&words[..count], longest);
    }
}
