//! Waiting for records: spinning, then sleeping on the doorbells. The proof stands in [`doorbell`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::doorbell::{self, Sleep};
use crate::layout::CursorsHeader;
use crate::sync::{AtomicU32, Ordering};

use super::lanes::{Lane, Lanes};

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
    }
    let waker = Sleep { word: &bedside.word, value: bedside.answered };
    doorbell::park(lanes.iter().map(Lane::header), waker, &header.parked, longest, || lanes.has_more());
}
