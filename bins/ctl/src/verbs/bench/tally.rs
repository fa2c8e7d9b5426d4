//! What all sessions together received: counted, timed, checked.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::scan::Data;
use crate::output::human::now_ns;

/// Longer than this counts as this, in nanoseconds.
const LONGEST_NS: u64 = 60_000_000_000;

pub(super) struct Tally {
    /// When the bytes came that are being taken in.
    now: i64,
    pub(super) received: u64,
    pub(super) conflated: u64,
    pub(super) foreign: u64,
    pub(super) reordered: u64,
    pub(super) doubled: u64,
    pub(super) resyncs: u64,
    /// By class: from the intended moment of publishing, and from the real one.
    from_intended: [Histogram<u64>; 4],
    from_publish: Histogram<u64>,
    /// The highest lane sequence that each session got, by lane and class.
    newest: Vec<u64>,
    lanes: Vec<u32>,
    sessions: usize,
}

/// Quantiles of some latencies, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantiles {
    pub(super) count: u64,
    pub(super) p50: Duration,
    pub(super) p99: Duration,
    pub(super) p999: Duration,
    pub(super) max: Duration,
}

impl Tally {
    pub(super) fn new(sessions: usize) -> Self {
        Self {
            now: 0,
            received: 0,
            conflated: 0,
            foreign: 0,
            reordered: 0,
            doubled: 0,
            resyncs: 0,
            from_intended: std::array::from_fn(|_| histogram()),
            from_publish: histogram(),
            newest: Vec::new(),
            lanes: Vec::new(),
            sessions,
        }
    }

    /// Bytes have come.
    pub(super) fn arrived(&mut self) {
        self.now = now_ns();
    }

    /// One notification for that session.
    pub(super) fn notification(&mut self, session: usize, data: &Data<'_>, is_live: bool) {
        self.received += 1;
        let class = usize::from(data.priority & 3);
        if is_live {
            // A clock that was set back makes negative latencies; they count as none.
            let since = |at: i64| self.now.saturating_sub(at).clamp(0, LONGEST_NS as i64) as u64;
            self.from_intended[class].saturating_record(since(data.intended_at));
            self.from_publish.saturating_record(since(data.published_at));
        }
        let lane = self.lanes.iter().position(|&lane| lane == data.lane).unwrap_or_else(|| {
            self.lanes.push(data.lane);
            self.newest.resize(self.lanes.len() * self.sessions * 4, 0);
            self.lanes.len() - 1
        });
        let newest = &mut self.newest[(lane * self.sessions + session) * 4 + class];
        match data.lane_sequence.cmp(newest) {
            std::cmp::Ordering::Greater => *newest = data.lane_sequence,
            std::cmp::Ordering::Equal => self.doubled += 1,
            std::cmp::Ordering::Less => self.reordered += 1,
        }
    }

    /// Forgets the latencies: a new measurement begins.
    pub(super) fn begin(&mut self) {
        self.from_intended.iter_mut().for_each(Histogram::reset);
        self.from_publish.reset();
    }

    /// From the intended moment of publishing, by class.
    pub(super) fn by_class(&self) -> [Option<Quantiles>; 4] {
        self.from_intended.each_ref().map(quantiles)
    }

    /// From the intended moment of publishing, over all classes.
    pub(super) fn all(&self) -> Option<Quantiles> {
        let mut all = histogram();
        for class in &self.from_intended {
            // All have the same bounds.
            let _ = all.add(class);
        }
        quantiles(&all)
    }

    /// From the real moment of publishing, over all classes.
    pub(super) fn since_publish(&self) -> Option<Quantiles> {
        quantiles(&self.from_publish)
    }
}

/// Of nanoseconds, up to [`LONGEST_NS`].
pub(super) fn histogram() -> Histogram<u64> {
    // Constant bounds that the library accepts.
    Histogram::new_with_bounds(100, LONGEST_NS, 3).unwrap_or_else(|error| unreachable!("{error}"))
}

fn quantiles(histogram: &Histogram<u64>) -> Option<Quantiles> {
    let at = |quantile| Duration::from_nanos(histogram.value_at_quantile(quantile));
    (!histogram.is_empty()).then(|| Quantiles {
        count: histogram.len(),
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: Duration::from_nanos(histogram.max()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(lane_sequence: u64, priority: u8) -> Data<'static> {
        let user_id = b"u";
        Data { lane: 7, lane_sequence, user_id, priority, published_at: 2_000, intended_at: 1_000 }
    }

    #[test]
    fn what_comes_twice_or_out_of_order_is_noticed_in_each_class_and_session() {
        let mut tally = Tally::new(2);
        for (session, sequence, class) in [(0, 5, 1), (1, 5, 1), (0, 4, 0), (0, 6, 1)] {
            tally.notification(session, &data(sequence, class), true);
        }
        assert_eq!((tally.received, tally.doubled, tally.reordered), (4, 0, 0));
        tally.notification(0, &data(6, 1), true);
        tally.notification(1, &data(4, 1), true);
        assert_eq!((tally.doubled, tally.reordered), (1, 1));
    }

    #[test]
    fn latency_counts_from_the_intended_moment() {
        let mut tally = Tally::new(1);
        tally.now = 11_000;
        tally.notification(0, &data(1, 1), true);
        tally.notification(0, &data(2, 1), false);
        let found = tally.all().unwrap();
        assert_eq!((found.count, found.max.as_nanos() / 1_000), (1, 10));
        assert_eq!(tally.since_publish().unwrap().p50.as_nanos() / 1_000, 9);
        tally.begin();
        assert!(tally.all().is_none() && tally.by_class().iter().all(Option::is_none));
    }
}
