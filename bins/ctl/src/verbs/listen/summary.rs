//! What arrived: counts by type and priority, latencies, and everything that went wrong.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::frame::Facts;
use crate::failure::Failure;
use crate::output::Out;
use crate::output::human;
use crate::output::table::Table;

/// Ids remembered to notice duplicates, oldest forgotten first.
const IDS_MAX: usize = 65_536;

/// Types counted apart.
const TYPES_MAX: usize = 64;

/// A latency longer than this, or negative, says more about clocks than about us: it counts as unknown.
const LATENCY_NS_MAX: i64 = 3_600_000_000_000;

/// Counts and latencies of one run.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) notifications: u64,
    pub(crate) replayed: u64,
    pub(crate) conflated: u64,
    pub(crate) duplicates: u64,
    pub(crate) foreign: u64,
    pub(crate) gaps: u64,
    pub(crate) resyncs: u64,
    pub(crate) reconnects: u64,
    pub(crate) frames: u64,
    pub(crate) latency_unknown: u64,
    by_type: BTreeMap<String, u64>,
    by_priority: BTreeMap<u8, Latencies>,
    ids: HashSet<String>,
    ids_by_age: VecDeque<String>,
}

#[derive(Debug, Default)]
struct Latencies {
    count: u64,
    /// Nanoseconds, up to an hour, to three digits. Made with the first value.
    histogram: Option<Histogram<u64>>,
}

/// One priority's line, in the unit of the JSON field names.
#[derive(Serialize)]
struct ClassLine {
    priority: u8,
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<LatencyLine>,
}

#[derive(Serialize)]
struct LatencyLine {
    measured: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Summary {
    /// Counts a notification. `arrived` is the wall clock in nanoseconds; `live` ones tell a latency, replayed ones
    /// were waiting for us.
    pub(crate) fn count(&mut self, facts: &Facts<'_>, arrived: i64, live: bool) {
        self.notifications += 1;
        // A gateway knows nineteen types; one that sends more shall not fill our memory.
        let known = self.by_type.len() < TYPES_MAX || self.by_type.contains_key(&*facts.message_type);
        let name = if known { &*facts.message_type } else { "other" };
        match self.by_type.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.by_type.insert(name.to_owned(), 1)),
        }
        let class = self.by_priority.entry(facts.priority).or_default();
        class.count += 1;
        if !live {
            self.replayed += 1;
            return;
        }
        match arrived.checked_sub(facts.timestamp) {
            Some(latency @ 0..=LATENCY_NS_MAX) => class.record(latency as u64),
            _ => self.latency_unknown += 1,
        }
    }

    /// Whether this id was here before, among the last [`IDS_MAX`].
    pub(crate) fn is_duplicate(&mut self, message_id: &str) -> bool {
        if !self.ids.insert(message_id.to_owned()) {
            self.duplicates += 1;
            return true;
        }
        self.ids_by_age.push_back(message_id.to_owned());
        if self.ids_by_age.len() > IDS_MAX
            && let Some(oldest) = self.ids_by_age.pop_front()
        {
            self.ids.remove(&oldest);
        }
        false
    }

    /// What went wrong, in words; empty if nothing did.
    pub(crate) fn faults(&self, gaps_are_healed: bool) -> Vec<String> {
        let mut faults = Vec::new();
        let mut fault = |count, what: &str| {
            if count > 0 {
                faults.push(human::count(count, what));
            }
        };
        fault(if gaps_are_healed { 0 } else { self.gaps }, "gap");
        fault(self.duplicates, "duplicate");
        fault(self.foreign, "notification of another user");
        fault(self.resyncs, "resync (notifications could not be replayed)");
        faults
    }

    /// The summary as text.
    pub(crate) fn print(&self, out: &mut Out, elapsed: Duration) -> Result<(), Failure> {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let number = |count: u64| count.to_string();
        let mut classes = Table::new(&["CLASS", ">COUNT", ">P50", ">P90", ">P99", ">MAX"]);
        for line in self.class_lines() {
            let latency = |pick: fn(&LatencyLine) -> f64| match &line.latency_us {
                Some(latency) => human::duration(Duration::from_nanos((pick(latency) * 1e3) as u64)),
                None => "-".to_owned(),
            };
            classes.row([
                format!("P{}", line.priority),
                number(line.count),
                latency(|l| l.p50),
                latency(|l| l.p90),
                latency(|l| l.p99),
                latency(|l| l.max),
            ]);
        }
        let mut types = Table::new(&["TYPE", ">COUNT"]);
        for (name, count) in &self.by_type {
            types.row([name.clone(), number(*count)]);
        }
        let mut totals = Table::new(&["TOTAL", ">COUNT"]);
        for (name, count) in self.totals() {
            totals.row([name.to_owned(), number(count)]);
        }
        if self.notifications > 0 {
            classes.print(out)?;
            out.line("")?;
            types.print(out)?;
            out.line("")?;
        }
        totals.print(out)?;
        let rate = self.notifications as f64 / seconds;
        out.line(format!("\n{rate:.1} notifications/s over {}", human::duration(elapsed)))
    }

    /// The summary as one JSON object.
    pub(crate) fn print_json(&self, out: &mut Out, elapsed: Duration) -> Result<(), Failure> {
        #[derive(Serialize)]
        struct Json<'a> {
            elapsed_ms: u64,
            #[serde(flatten)]
            totals: BTreeMap<&'static str, u64>,
            by_priority: Vec<ClassLine>,
            by_type: &'a BTreeMap<String, u64>,
        }
        out.json(&Json {
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            totals: self.totals().into_iter().collect(),
            by_priority: self.class_lines().collect(),
            by_type: &self.by_type,
        })
    }

    fn totals(&self) -> [(&'static str, u64); 10] {
        [
            ("notifications", self.notifications),
            ("replayed", self.replayed),
            ("conflated", self.conflated),
            ("latency_unknown", self.latency_unknown),
            ("gaps", self.gaps),
            ("duplicates", self.duplicates),
            ("foreign", self.foreign),
            ("resyncs", self.resyncs),
            ("reconnects", self.reconnects),
            ("frames", self.frames),
        ]
    }

    fn class_lines(&self) -> impl Iterator<Item = ClassLine> {
        self.by_priority.iter().map(|(&priority, class)| ClassLine {
            priority,
            count: class.count,
            latency_us: class.histogram.as_ref().map(|histogram| LatencyLine {
                measured: histogram.len(),
                p50: histogram.value_at_quantile(0.5) as f64 / 1e3,
                p90: histogram.value_at_quantile(0.9) as f64 / 1e3,
                p99: histogram.value_at_quantile(0.99) as f64 / 1e3,
                max: histogram.max() as f64 / 1e3,
            }),
        })
    }
}

impl Latencies {
    fn record(&mut self, ns: u64) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new_with_bounds(1, LATENCY_NS_MAX as u64, 3).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(timestamp: i64) -> Facts<'static> {
        Facts {
            message_id: "id".into(),
            message_type: "order_filled".into(),
            user_id: "u".into(),
            priority: 1,
            timestamp,
        }
    }

    #[test]
    fn absurd_latencies_are_unknown_and_replays_have_none() {
        let mut summary = Summary::default();
        summary.count(&facts(1_000), 3_000, true);
        summary.count(&facts(5_000), 3_000, true);
        summary.count(&facts(i64::MIN), i64::MAX, true);
        summary.count(&facts(1_000), 3_000, false);
        assert_eq!((summary.notifications, summary.latency_unknown, summary.replayed), (4, 2, 1));
        let line = summary.class_lines().next().unwrap();
        assert_eq!((line.count, line.latency_us.unwrap().measured), (4, 1));
    }

    #[test]
    fn an_id_is_a_duplicate_until_it_is_forgotten() {
        let mut summary = Summary::default();
        assert!(!summary.is_duplicate("first"));
        assert!(summary.is_duplicate("first"));
        (0..IDS_MAX).for_each(|n| assert!(!summary.is_duplicate(&n.to_string())));
        assert!(!summary.is_duplicate("first"));
        assert_eq!(summary.ids.len(), summary.ids_by_age.len());
        assert_eq!(summary.ids.len(), IDS_MAX);
    }
}
