//! Numbers that one thread counts and anybody reads, without a lock and without a read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread at a time writes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Only the one writer may call this: it loads and stores, which is cheaper than an atomic addition.
    #[inline]
    pub(crate) fn add(&self, more: u64) {
        // Relaxed: nothing is published by a count.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed); // as above
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed) // as above
    }
}

/// Buckets of a [`Histogram`]: four to a power of two, from 1 µs to over a minute.
const BUCKETS: usize = 108;

/// Times, in buckets that are at most a quarter of their value wide.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    sum_us: Count,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Count::default()), sum_us: Count::default() }
    }
}

impl Histogram {
    #[inline]
    pub(crate) fn record_ns(&self, ns: u64) {
        self.record_many(ns, 1);
    }

    /// So many that all took that long: a batch has one time.
    #[inline]
    pub(crate) fn record_many(&self, ns: u64, count: u64) {
        let us = ns / 1000;
        self.buckets[Self::bucket(us)].add(count);
        self.sum_us.add(us.saturating_mul(count));
    }

    /// Four buckets a power of two: the exponent and the next two bits.
    #[inline]
    fn bucket(us: u64) -> usize {
        if us < 4 {
            return us as usize;
        }
        let exponent = us.ilog2();
        let quarter = (us >> (exponent - 2)) & 3;
        ((exponent as usize - 1) * 4 + quarter as usize).min(BUCKETS - 1)
    }

    /// The lowest time that falls into the next bucket, in microseconds.
    fn bucket_end_us(bucket: usize) -> u64 {
        if bucket < 4 {
            return bucket as u64 + 1;
        }
        let (exponent, quarter) = (bucket / 4 + 1, bucket % 4);
        (1 << exponent) + ((quarter as u64 + 1) << (exponent - 2))
    }

    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Count::get).sum()
    }

    /// How many times fell into each bucket.
    pub fn buckets(&self) -> Vec<u64> {
        self.buckets.iter().map(Count::get).collect()
    }

    /// The lowest time that is beyond each bucket, in microseconds.
    pub fn bucket_ends_us() -> Vec<u64> {
        (0..BUCKETS).map(Self::bucket_end_us).collect()
    }

    /// All times together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }

    /// How many times were below each power of two microseconds, from that many to that many bits; and how many there are.
    /// One look at each bucket, so the numbers fit together.
    pub fn below_powers(&self, bits: std::ops::RangeInclusive<u32>) -> (Vec<(u64, u64)>, u64) {
        let mut powers = Vec::new();
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count.get();
            let end = Self::bucket_end_us(bucket);
            if end.is_power_of_two() && bits.contains(&end.ilog2()) {
                powers.push((end, seen));
            }
        }
        (powers, seen)
    }

    /// A time, in microseconds, that at most `1 - quantile` of all exceed; `None` if nothing was recorded.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count.get();
            if seen >= rank {
                return Some(Self::bucket_end_us(bucket));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins() {
        for us in (0..5000).chain([1 << 20, (1 << 26) + 12_345]) {
            let bucket = Histogram::bucket(us);
            assert!(us < Histogram::bucket_end_us(bucket), "{us}");
            assert!(bucket == 0 || us >= Histogram::bucket_end_us(bucket - 1), "{us}");
        }
        assert_eq!(Histogram::bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn powers_of_two_are_cumulative_and_end_with_all() {
        let histogram = Histogram::default();
        histogram.record_many(3_000, 5);
        histogram.record_many(9_000, 2);
        histogram.record_ns(u64::MAX);
        let (powers, count) = histogram.below_powers(2..=5);
        assert_eq!(powers, [(4, 5), (8, 5), (16, 7), (32, 7)]);
        assert_eq!(count, 8);
        assert!(histogram.sum_us() >= 33);
    }

    #[test]
    fn quantiles_are_upper_bounds() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile_us(0.5), None);
        for us in 1..=1000 {
            histogram.record_ns(us * 1000);
        }
        assert!((500..=640).contains(&histogram.quantile_us(0.5).unwrap()));
        assert!((990..=1280).contains(&histogram.quantile_us(0.99).unwrap()));
    }
}
