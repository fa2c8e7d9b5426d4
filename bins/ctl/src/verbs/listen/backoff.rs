//! How long to wait before connecting again: doubling, with jitter, so that a thousand clients of a gateway that was
//! restarted do not come back in the same millisecond.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(15);

/// Attempts since the last success.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next wait: between half and the whole of a span that doubles. `at_least` is the gateway's own wish.
    /// `random` is in 0..1.
    pub(crate) fn next(&mut self, at_least: Option<Duration>, random: f64) -> Duration {
        let span = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        let wait = span.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0);
        // The gateway's wish is spread by us, so its hint may be the same for all.
        at_least.map_or(wait, |wish| wait.max(wish.min(LONGEST).mul_f64(1.0 + random.clamp(0.0, 1.0) / 4.0)))
    }

    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit_and_heed_the_gateway() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..8).map(|_| backoff.next(None, 1.0).as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000]);
        backoff.reset();
        assert_eq!(backoff.next(None, 0.0).as_millis(), 125);
        assert_eq!(backoff.next(Some(Duration::from_secs(4)), 0.0).as_millis(), 4000);
        assert!(backoff.next(Some(Duration::MAX), 1.0) <= LONGEST.mul_f64(1.25));
        (0..100).for_each(|_| assert!(backoff.next(None, 0.5) <= LONGEST));
    }
}
