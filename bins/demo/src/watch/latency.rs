//! How long notifications took, by class, against the targets.

use hdrhistogram::Histogram;

/// p99 from publish to client, by priority, in nanoseconds.
pub(crate) const TARGETS_NS: [u64; 4] = [1_000_000, 5_000_000, 100_000_000, 1_000_000_000];

/// Longer than this counts as this.
const LONGEST_NS: u64 = 60_000_000_000;

/// Quantiles of one class, in nanoseconds; `None` without a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantiles {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// The latencies of four classes.
pub(crate) struct Latencies([Histogram<u64>; 4]);

impl Latencies {
    pub(crate) fn new() -> Self {
        // From a microsecond, three digits: the bounds are constants that the library accepts.
        let histogram = || {
            Histogram::new_with_bounds(1_000, LONGEST_NS, 3).unwrap_or_else(|error| unreachable!("{error}"))
        };
        Self(std::array::from_fn(|_| histogram()))
    }

    pub(crate) fn record(&mut self, class: usize, ns: i64) {
        // A clock that was set back makes negative latencies; they count as the shortest.
        self.0[class].saturating_record(ns.clamp(1_000, LONGEST_NS as i64) as u64);
    }

    pub(crate) fn quantiles(&self) -> [Option<Quantiles>; 4] {
        self.0.each_ref().map(|histogram| {
            (!histogram.is_empty()).then(|| Quantiles {
                p50: histogram.value_at_quantile(0.5),
                p99: histogram.value_at_quantile(0.99),
                max: histogram.max(),
            })
        })
    }

    pub(crate) fn reset(&mut self) {
        self.0.iter_mut().for_each(Histogram::reset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_samples() {
        let mut latencies = Latencies::new();
        assert_eq!(latencies.quantiles(), [None; 4]);
        for ns in 1..=100 {
            latencies.record(1, ns * 100_000);
        }
        let found = latencies.quantiles()[1].unwrap();
        let near = |value: u64, expected: u64| value.abs_diff(expected) <= expected / 500;
        assert!(
            near(found.p50, 5_000_000) && near(found.p99, 9_900_000) && near(found.max, 10_000_000),
            "{found:?}"
        );
        latencies.record(0, -5);
        assert!(latencies.quantiles()[0].is_some());
        latencies.reset();
        assert_eq!(latencies.quantiles(), [None; 4]);
    }
}
