//! Waiting for records: spinning, then sleeping on the doorbells. The proof stands in [`doorbell`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::bus::LANES_MAX;
use crate::doorbell::{self, Sleep};
use crate::layout::CursorsHeader;

use super::lanes::Lanes;

/// How often a waiting reader looks for new lanes.
const DISCOVERY: Duration = Duration::from_millis(100);

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// There is something to read.
    Ready,
    /// Somebody used the [`Waker`].
    Woken,
    /// The time is over.
    TimedOut,
}

/// Ends a reader's wait from another thread of the same process.
#[derive(Clone, Debug)]
pub struct Waker(Arc<AtomicU32>);

impl Waker {
    /// Ends the wait that is going on, or else the next one. Several wakes before it count as one.
    pub fn wake(&self) {
        self.0.fetch_add(1, Ordering::Release); // pairs with the Acquire in `Bedside::woken`
        doorbell::wake_all(&self.0);
    }
}

/// What a reader needs to sleep and to get up.
pub(super) struct Bedside {
    spin: Duration,
    word: Arc<AtomicU32>,
    /// The wakes that were answered.
    answered: u32,
    looked_at: Instant,
}

impl Bedside {
    pub(super) fn new(spin: Duration) -> Self {
        Self { spin, word: Arc::default(), answered: 0, looked_at: Instant::now() }
    }

    pub(super) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.word))
    }

    fn woken(&mut self) -> bool {
        let wakes = self.word.load(Ordering::Acquire); // pairs with the Release in `Waker::wake`
        std::mem::replace(&mut self.answered, wakes) != wakes
    }
}

pub(super) fn wait(
    lanes: &mut Lanes,
    bedside: &mut Bedside,
    header: &CursorsHeader,
    timeout: Duration,
) -> Wake {
    let start = Instant::now();
    let mut now = start;
    loop {
        if now.duration_since(bedside.looked_at) >= DISCOVERY {
            bedside.looked_at = now;
            lanes.refresh(header);
        }
        if lanes.has_more() {
            return Wake::Ready;
        }
        if bedside.woken() {
            return Wake::Woken;
        }
        let waited = now.duration_since(start);
        if waited >= timeout {
            return Wake::TimedOut;
        }
        if waited < bedside.spin {
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        } else {
            park(lanes, bedside, header, now, timeout - waited);
        }
        now = Instant::now();
    }
}

/// Sleeps until somebody rings, for as long as nothing can be missed.
fn park(lanes: &mut Lanes, bedside: &Bedside, header: &CursorsHeader, now: Instant, timeout: Duration) {
    let attachment = lanes.attachment();
    let mut longest = timeout.min(DISCOVERY);
    for lane in lanes.iter_mut() {
        if lane.may_not_know_us(attachment, now) {
            longest = longest.min(doorbell::UNKNOWN_WAIT);
        }
        // Relaxed: a new owner rings after it has written this, so that we look again.
        if lane.header().owner.membarrier.load(Ordering::Relaxed) == 0 {
            longest = longest.min(doorbell::UNFENCED_WAIT);
        }
    }
    let waker = Sleep { word: &bedside.word, value: bedside.answered };
    let mut words = [waker; LANES_MAX + 1];
    let mut count = 1;
    // r1: the doorbells as they are before we look for the last time.
    for (word, lane) in words[1..].iter_mut().zip(lanes.iter()) {
        let bell = &*lane.header().doorbell;
        *word = Sleep { word: bell, value: bell.load(Ordering::Acquire) }; // pairs with the Release in `ring`
        count += 1;
    }
    // r2: say that we sleep.
    let parked = header.parked.load(Ordering::Relaxed).wrapping_add(1); // written by ourselves
    header.parked.store(parked, Ordering::SeqCst); // ordered before r4 by the barrier; the producer's load is Relaxed
    // r3
    if !doorbell::barrier() {
        longest = longest.min(doorbell::UNFENCED_WAIT);
    }
    // r4, r5
    if !lanes.has_more() {
        doorbell::sleep(&words[..count], longest);
    }
}
