//! A producer's wall clock: the processor's counter of ticks, set by the system's clock ten times a second.
//!
//! A look at the system's clock is no system call, but it makes the processor wait for all that is under way, which costs
//! as much as all the rest of publishing. Counting ticks from the last look does not.
//!
//! The rate is measured from look to look, never assumed, and each look sets the clock anew. So in between, for a tenth of
//! a second, it is wrong by what the rate has changed meanwhile: at most 50 microseconds where the system's clock is slewed
//! as fast as it can be. A clock that is set is followed at the next look. Ticks that do not behave (no such counter,
//! one that the kernel does not take for its own clock, a rate that jumps) are not used.
//!
//! It goes back only if the system's clock does: if it was ahead at a look it waits, by going slower.

#![allow(unsafe_code)]

use super::wall_ns;

/// Ticks are counted no further than this from a look: less than a second on any processor, and no product overflows.
const TICKS_MAX: u64 = 1 << 30;

/// Most nanoseconds a tick, times 2^32: no processor that we know counts at less than half a gigahertz.
const RATE_MAX: u64 = 1 << 33;

/// The rate is measured over at least this many nanoseconds, so that what is not known of a look, some ten, does not count.
const MEASURE_NS: i64 = 2_000_000;

/// What is more than this ahead at a look was set back.
const AHEAD_MAX_NS: i64 = 1_000_000;

/// What is ahead at a look is made good in this time.
const WAIT_NS: i64 = 100_000_000;

/// A look that takes more ticks than this was interrupted.
const LOOK_TICKS_MAX: u64 = 1 << 12;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Mark {
    ticks: u64,
    ns: i64,
}

/// A wall clock that is cheap to read.
#[derive(Debug)]
pub(crate) struct WallClock {
    /// Nanoseconds a tick, times 2^32; 0: not known, so the system's clock is read.
    rate: u64,
    /// Where ticks are counted from.
    from: Mark,
    /// The rate as measured last; 0: it could not be.
    measured: u64,
    /// Where the measuring of the rate began; none: there are no ticks to count.
    since: Option<Mark>,
}

impl WallClock {
    /// It goes by the system's clock until two measures of the rate agree.
    pub(crate) fn new() -> Self {
        Self::since(if ticks::are_sound() { Mark::now() } else { None })
    }

    fn since(since: Option<Mark>) -> Self {
        Self { rate: 0, from: Mark { ticks: 0, ns: 0 }, measured: 0, since }
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub(crate) fn now(&self) -> i64 {
        if self.rate != 0
            && let Some(now) = self.at(ticks::read())
        {
            return now;
        }
        wall_ns()
    }

    /// The time by the ticks, unless they went back or are too many.
    #[inline]
    fn at(&self, ticks: u64) -> Option<i64> {
        let passed = ticks.wrapping_sub(self.from.ticks);
        (passed < TICKS_MAX).then(|| self.from.ns.wrapping_add(((passed * self.rate) >> 32) as i64))
    }

    /// Looks at the system's clock, and tells what it says.
    pub(crate) fn look(&mut self) -> i64 {
        match self.since.and(Mark::now()) {
            Some(now) => {
                self.set(now);
                now.ns
            }
            None => {
                self.rate = 0;
                wall_ns()
            }
        }
    }

    fn set(&mut self, now: Mark) {
        let ahead = if self.rate == 0 { None } else { self.at(now.ticks) };
        let ahead = ahead.map_or(0, |said| said.wrapping_sub(now.ns));
        let ahead = if (0..AHEAD_MAX_NS).contains(&ahead) { ahead } else { 0 };
        self.from = Mark { ticks: now.ticks, ns: now.ns.wrapping_add(ahead) };
        let mut agree = self.rate != 0;
        if let Some(since) = self.since
            && !(0..MEASURE_NS).contains(&now.ns.wrapping_sub(since.ns))
        {
            let measured = rate(since, now).unwrap_or(0);
            agree = measured != 0 && measured.abs_diff(self.measured) <= measured >> 10;
            (self.measured, self.since) = (measured, Some(now));
        }
        // A hundredth of it at most.
        let slower = (u128::from(self.measured) * ahead as u128 / WAIT_NS as u128) as u64;
        self.rate = if agree { self.measured - slower } else { 0 };
    }
}

impl Mark {
    /// Now, unless something came between the two clocks each time.
    fn now() -> Option<Self> {
        let looks = (0..4).map(|_| {
            let before = ticks::read();
            let ns = wall_ns();
            (ticks::read().wrapping_sub(before), before, ns)
        });
        // The first one finds nothing in the caches.
        let (took, before, ns) = looks.min_by_key(|(took, ..)| *took)?;
        (took < LOOK_TICKS_MAX).then(|| Self { ticks: before.wrapping_add(took / 2), ns })
    }
}

/// Nanoseconds a tick, times 2^32, if that is something that a processor does.
fn rate(since: Mark, now: Mark) -> Option<u64> {
    let ns = u128::try_from(now.ns.checked_sub(since.ns)?).ok()?;
    let ticks = u128::from(now.ticks.checked_sub(since.ticks)?);
    let rate = (ns << 32).checked_div(ticks)?;
    u64::try_from(rate).ok().filter(|rate| (1..RATE_MAX).contains(rate))
}

#[cfg(all(target_arch = "x86_64", not(bellwire_loom)))]
mod ticks {
    use std::arch::x86_64::_rdtsc;

    /// What the kernel takes for its own clock.
    const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

    /// Whether the counter goes at one rate, the same on every core, asleep or not: the kernel watches it.
    pub(super) fn are_sound() -> bool {
        std::fs::read_to_string(CLOCK_SOURCE).is_ok_and(|source| source.trim() == "tsc")
    }

    #[inline]
    pub(super) fn read() -> u64 {
        // SAFETY: every processor of this architecture has the instruction. A process that was forbidden to use it could
        // not read the system's clock either, where `are_sound`.
        unsafe { _rdtsc() }
    }
}

#[cfg(not(all(target_arch = "x86_64", not(bellwire_loom))))]
mod ticks {
    pub(super) fn are_sound() -> bool {
        false
    }

    pub(super) fn read() -> u64 {
        0
    }
}

#[cfg(all(test, not(bellwire_loom)))]
mod tests {
    use super::*;

    const START: i64 = 1_728_123_456_000_000_000;
    const LOOK: i64 = 100_000_000;

    /// A counter of 2.5 ticks a nanosecond from the start.
    fn mark(passed: i64, set_by: i64) -> Mark {
        Mark { ticks: 7_000 + (passed as u64 * 5) / 2, ns: START + passed + set_by }
    }

    /// A clock that was looked at often enough.
    fn running() -> WallClock {
        let mut clock = WallClock::since(Some(mark(0, 0)));
        (1..=2).for_each(|look| clock.set(mark(look * LOOK, 0)));
        assert_ne!(clock.rate, 0);
        clock
    }

    fn said(clock: &WallClock, passed: i64) -> i64 {
        assert_ne!(clock.rate, 0, "it goes by the system's clock");
        clock.at(mark(passed, 0).ticks).unwrap() - START
    }

    #[test]
    fn one_measure_is_not_believed_and_two_are() {
        let mut clock = WallClock::since(Some(mark(0, 0)));
        clock.set(mark(LOOK, 0));
        assert_eq!(clock.rate, 0);
        clock.set(mark(LOOK + MEASURE_NS - 1, 0));
        assert_eq!(clock.rate, 0, "too soon to measure anything");
        clock.set(mark(2 * LOOK, 0));
        assert!((said(&clock, 2 * LOOK + 99_000_000) - 299_000_000).abs() <= 1);
    }

    #[test]
    fn it_counts_for_a_while_only_and_not_back() {
        let clock = running();
        let from = mark(2 * LOOK, 0).ticks;
        assert!(clock.at(from + TICKS_MAX - 1).is_some());
        assert_eq!(clock.at(from + TICKS_MAX), None);
        assert_eq!(clock.at(from - 1), None);
    }

    #[test]
    fn a_clock_that_is_set_is_followed_at_the_next_look_and_measured_anew() {
        for step in [3 * 24 * 3600 * 1_000_000_000, -3 * 24 * 3600 * 1_000_000_000, 10_000_000, -10_000_000] {
            let mut clock = running();
            clock.set(mark(3 * LOOK, step));
            assert_eq!(clock.rate, 0, "by the system's clock");
            clock.set(mark(4 * LOOK, step));
            clock.set(mark(5 * LOOK, step));
            assert!((said(&clock, 6 * LOOK) - 6 * LOOK - step).abs() <= 1, "set by {step} ns");
        }
    }

    #[test]
    fn what_is_ahead_waits_and_never_goes_back() {
        let mut clock = running();
        let before = said(&clock, 3 * LOOK);
        clock.set(mark(3 * LOOK, -40_000)); // slewed by 400 parts in a million
        assert!(said(&clock, 3 * LOOK) >= before);
        let (mut last, mut at) = (before, 3 * LOOK);
        while at < 4 * LOOK {
            at += 1_000;
            let now = said(&clock, at);
            assert!(now >= last);
            last = now;
        }
        // Slewed further, and what was ahead is made good.
        assert!((last - (4 * LOOK - 80_000)).abs() < 5_000, "{last}");
    }

    #[test]
    fn a_counter_that_no_processor_has_is_not_used() {
        let begun = Mark { ticks: 100, ns: START };
        let at = |ticks| Mark { ticks, ns: START + LOOK };
        assert_eq!(rate(begun, at(100)), None, "it stands");
        assert_eq!(rate(begun, at(99)), None, "it goes back");
        assert_eq!(rate(begun, at(100 + LOOK as u64 / 2)), None, "half a gigahertz");
        assert_eq!(rate(begun, at(100 + LOOK as u64)), Some(1 << 32));
        assert_eq!(rate(at(100), begun), None, "the time goes back");
    }

    #[test]
    fn it_goes_by_the_ticks_once_it_knows_their_rate() {
        let hour = 3_600_000_000_000;
        let from = Mark { ticks: ticks::read(), ns: wall_ns() + hour };
        let mut clock = WallClock { rate: 1 << 31, from, measured: 1 << 31, since: None };
        if ticks::are_sound() {
            assert!((clock.now() - wall_ns() - hour).abs() < 1_000_000_000);
        }
        clock.rate = 0;
        assert!((clock.now() - wall_ns()).abs() < 1_000_000_000);
    }

    #[test]
    fn it_agrees_with_the_system() {
        let mut clock = WallClock::new();
        let (mut last, mut known) = (0, 0);
        for _ in 0..6 {
            for _ in 0..1_000 {
                let (before, now) = (wall_ns(), clock.now());
                let off = now - before;
                assert!((-1_000_000..1_000_000_000).contains(&off), "{off} ns from the system's clock");
                assert!(now >= last);
                last = now;
            }
            std::thread::sleep(std::time::Duration::from_millis(60));
            let (before, looked) = (wall_ns(), clock.look());
            assert!((before..=wall_ns()).contains(&looked));
            known += u32::from(clock.rate != 0);
        }
        assert!(known > 0 || !ticks::are_sound(), "all looks were interrupted");
    }
}
