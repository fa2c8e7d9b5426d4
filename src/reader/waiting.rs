//! Waiting for records: spinning, then sleeping on the doorbells. The proof stands in [`doorbell`].

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
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

/// Whether spinning pays. Where records are seldom less than a spin apart, spinning before every sleep would be a fair part
/// of all the CPU that a reader takes, for nothing; so it is tried now and then only, until it has met a record again.
#[derive(Clone, Copy, Debug)]
struct SpinLuck {
    /// Grows with each spin that met a record, shrinks with each that did not; without luck there is no spinning.
    luck: u8,
    /// Waits without spinning.
    skipped: u8,
}

impl SpinLuck {
    const MOST: u8 = 16;
    const HIT: u8 = 4;
    /// So many waits without a spin before it is tried again.
    const SKIP: u8 = 32;

    const fn new() -> Self {
        Self { luck: Self::HIT, skipped: 0 }
    }

    /// Whether to spin before this sleep.
    fn tries(&mut self) -> bool {
        if self.luck > 0 || self.skipped >= Self::SKIP {
            self.skipped = 0;
            return true;
        }
        self.skipped += 1;
        false
    }

    fn met_a_record(&mut self) {
        self.luck = (self.luck + Self::HIT).min(Self::MOST);
    }

    fn was_in_vain(&mut self) {
        self.luck = self.luck.saturating_sub(1);
    }
}

/// What a reader needs to sleep and to get up.
pub(crate) struct Bedside {
    spin: Duration,
    luck: SpinLuck,
    word: Arc<AtomicU32>,
    /// The wakes that were answered.
    answered: u32,
    looked_at: Instant,
}

impl Bedside {
    pub(crate) fn new(spin: Duration) -> Self {
        Self { spin, luck: SpinLuck::new(), word: Arc::default(), answered: 0, looked_at: Instant::now() }
    }

    pub(crate) fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.word))
    }

    fn woken(&mut self) -> bool {
        let wakes = self.word.load(Ordering::Acquire); // pairs with the Release in `Waker::wake`
        std::mem::replace(&mut self.answered, wakes) != wakes
    }
}

pub(crate) fn wait(
    lanes: &mut Lanes,
    bedside: &mut Bedside,
    header: &CursorsHeader,
    timeout: Duration,
) -> Wake {
    let start = Instant::now();
    let mut now = start;
    // Who never sleeps spins without being asked.
    let tries = bedside.spin == Duration::MAX || bedside.luck.tries();
    let spin = if tries { bedside.spin } else { Duration::ZERO };
    let mut has_slept = false;
    loop {
        if now.duration_since(bedside.looked_at) >= DISCOVERY {
            bedside.looked_at = now;
            lanes.refresh(header);
        }
        if lanes.has_more() {
            if now != start && !has_slept {
                bedside.luck.met_a_record();
            }
            return Wake::Ready;
        }
        if bedside.woken() {
            return Wake::Woken;
        }
        let waited = now.duration_since(start);
        if waited >= timeout {
            return Wake::TimedOut;
        }
        if waited < spin && !has_slept {
            for _ in 0..32 {
                std::hint::spin_loop();
            }
        } else {
            if tries && !has_slept {
                bedside.luck.was_in_vain();
            }
            has_slept = true;
            park(lanes, bedside, header, now, timeout - waited);
        }
        now = Instant::now();
    }
}

/// Sleeps until somebody rings, for as long as nothing can be missed.
fn park(lanes: &mut Lanes, bedside: &Bedside, header: &CursorsHeader, now: Instant, timeout: Duration) {
    let attachment = lanes.attachment();
    let mut longest = timeout.min(DISCOVERY);
    // A lane that is read no further need not wake us, and may not: its memory may be gone, which cannot be slept on.
    for lane in lanes.iter_mut().filter(|lane| lane.info.quarantined.is_none()) {
        if lane.may_not_know_us(attachment, now) {
            longest = longest.min(doorbell::UNKNOWN_WAIT);
        }
    }
    let waker = Sleep { word: &bedside.word, value: bedside.answered };
    let awaited = lanes.iter().filter(|lane| lane.info.quarantined.is_none());
    doorbell::park(awaited.map(Lane::header), waker, &header.parked, longest, || lanes.has_more());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits of a hundred in which it would spin.
    fn spins(luck: &mut SpinLuck, meets_a_record: bool) -> usize {
        let mut spins = 0;
        for _ in 0..100 {
            if luck.tries() {
                spins += 1;
                if meets_a_record { luck.met_a_record() } else { luck.was_in_vain() }
            }
        }
        spins
    }

    #[test]
    fn spinning_in_vain_becomes_rare_and_comes_back_with_luck() {
        let mut luck = SpinLuck::new();
        assert_eq!(spins(&mut luck, true), 100);
        assert!(spins(&mut luck, false) <= usize::from(SpinLuck::MOST) + 3);
        assert!(spins(&mut luck, false) <= 4);
        assert!(spins(&mut luck, true) >= 60, "one spin in time is enough");
    }
}
