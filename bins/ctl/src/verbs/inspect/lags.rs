//! How far behind readers were over a time, by many looks: what a single look can miss.

use std::collections::HashMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::report::LaneReport;

/// The longest age that is told apart: an hour.
const AGE_MAX_NS: u64 = 3_600_000_000_000;

/// By lane key: of each ring, the unread bytes and the age of the oldest unread record at each look.
#[derive(Default)]
pub(super) struct Lags(HashMap<u64, [Seen; 4]>);

struct Seen {
    unread: Histogram<u64>,
    age_ns: Histogram<u64>,
}

/// The fields' names are those of the JSON.
#[derive(Serialize)]
pub(super) struct LagReport {
    /// Looks.
    samples: u64,
    unread_p50: u64,
    unread_p99: u64,
    unread_max: u64,
    pub(super) age_ns_p50: u64,
    pub(super) age_ns_p99: u64,
    pub(super) age_ns_max: u64,
}

impl Seen {
    fn new() -> Self {
        // Two digits are more than a look is worth. The bounds are ones that a histogram can have.
        let histogram =
            |max| Histogram::new_with_max(max, 2).unwrap_or_else(|_| unreachable!("a bound above 1"));
        Self { unread: histogram(1 << 40), age_ns: histogram(AGE_MAX_NS) }
    }
}

impl Lags {
    /// Takes one look at a lane.
    pub(super) fn add(&mut self, key: u64, lane: &LaneReport<'_>, now: i64) {
        let rings = self.0.entry(key).or_insert_with(|| std::array::from_fn(|_| Seen::new()));
        for (seen, ring) in rings.iter_mut().zip(lane.lags()) {
            let (unread, oldest) = ring;
            seen.unread.saturating_record(unread.unwrap_or_default());
            let age = oldest.map_or(0, |at| u64::try_from(now.saturating_sub(at)).unwrap_or_default());
            seen.age_ns.saturating_record(age);
        }
    }

    pub(super) fn of(&self, key: u64, ring: usize) -> Option<LagReport> {
        let seen = &self.0.get(&key)?[ring];
        let quantile = |of: &Histogram<u64>, at| of.value_at_quantile(at).min(of.max());
        Some(LagReport {
            samples: seen.unread.len(),
            unread_p50: quantile(&seen.unread, 0.5),
            unread_p99: quantile(&seen.unread, 0.99),
            unread_max: seen.unread.max(),
            age_ns_p50: quantile(&seen.age_ns, 0.5),
            age_ns_p99: quantile(&seen.age_ns, 0.99),
            age_ns_max: seen.age_ns.max(),
        })
    }
}
