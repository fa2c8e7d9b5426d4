//! What a shard has done. Written by whoever has its state, its thread or for a moment the broker's (see [`super::desk`]), and
//! read by anybody.
//!
//! `delivered` counts notifications of which the kernel has accepted every byte. A notification whose bytes are still in
//! an out buffer is not delivered, and if the connection breaks it never was; the client that resumes gets it again.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::Close;

/// Counts of one shard.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions now: WebSockets that are open, also before they authenticate.
    pub sessions: Count,
    /// Sessions ever.
    pub opened: Count,
    /// Handshakes that came to nothing.
    pub handshakes_failed: Count,
    /// Notifications of which the kernel has every byte, replayed ones among them.
    pub delivered: Count,
    /// Writes by which they went out.
    pub writes: Count,
    /// Notifications that were rendered for a replay.
    pub replayed: Count,
    /// Notifications that were left out for a newer one of the same key.
    pub conflated: Count,
    /// Records that were not the session's on the send path. Anything but 0 is a bug; the session was aborted.
    pub user_mismatch: Count,
    /// Records that could not be read back from the journal.
    pub unreadable: Count,
    /// Sessions closed by the gateway, by the place of the code in [`Close::ALL`].
    pub closes: [Count; Close::ALL.len()],
    /// From publishing to the kernel's acceptance, by priority.
    pub latency: [Histogram; 4],
}

/// A number that one thread at a time writes.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Only who has the shard's state may call this: it loads and stores, which is cheaper than an atomic addition.
    #[inline]
    pub(super) fn add(&self, more: u64) {
        // Relaxed: nothing is published by a count.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(super) fn set(&self, value: u64) {
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
pub struct Histogram([Count; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Count::default()))
    }
}

impl Histogram {
    #[inline]
    pub(super) fn record_ns(&self, ns: u64) {
        self.0[Self::bucket(ns / 1000)].add(1);
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
        self.0.iter().map(Count::get).sum()
    }

    /// A time, in microseconds, that at most `1 - quantile` of all exceed; `None` if nothing was recorded.
    pub fn quantile_us(&self, quantile: f64) -> Option<u64> {
        let total = self.count();
        let rank = ((total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
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
