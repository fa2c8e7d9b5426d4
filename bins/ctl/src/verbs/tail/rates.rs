//! `tail --rates`: how much comes, in place of what comes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bellwire::{MessageType, RecordHeader};
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{Out, human};

/// How often it is told.
const EVERY: Duration = Duration::from_secs(1);

/// Counts, from one line to the next.
pub(super) struct Rates {
    since: Instant,
    classes: [Count; 4],
    /// Records by type. No more entries than there are types.
    types: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    records: u64,
    bytes: u64,
}

/// One line as an object.
#[derive(Serialize)]
struct Report {
    at: i64,
    seconds: f64,
    records_per_s: f64,
    bytes_per_s: f64,
    classes: [ClassReport; 4],
    /// Records a second by type.
    types: BTreeMap<&'static str, f64>,
}

#[derive(Serialize)]
struct ClassReport {
    priority: usize,
    records_per_s: f64,
    bytes_per_s: f64,
}

impl Rates {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), classes: Default::default(), types: BTreeMap::new() }
    }

    pub(super) fn count(&mut self, header: &RecordHeader) {
        let class = &mut self.classes[usize::from(header.priority) & 3];
        class.records += 1;
        class.bytes += u64::from(header.record_len);
        let name = MessageType::from_code(header.type_code).map_or("unknown", MessageType::name);
        *self.types.entry(name).or_default() += 1;
    }

    /// Prints what came since the last time, if that is long enough ago, or in any case.
    pub(super) fn tell(&mut self, out: &mut Out, json: bool, in_any_case: bool) -> Result<(), Failure> {
        let elapsed = self.since.elapsed();
        if elapsed < EVERY && !in_any_case {
            return Ok(());
        }
        let seconds = elapsed.as_secs_f64().max(1e-3);
        let rate = |count: u64| count as f64 / seconds;
        let sum = |of: fn(&Count) -> u64| self.classes.iter().map(of).sum();
        let (records, bytes) = (rate(sum(|class| class.records)), rate(sum(|class| class.bytes)));
        if json {
            out.json(&Report {
                at: human::now_ns(),
                seconds,
                records_per_s: records,
                bytes_per_s: bytes,
                classes: std::array::from_fn(|priority| ClassReport {
                    priority,
                    records_per_s: rate(self.classes[priority].records),
                    bytes_per_s: rate(self.classes[priority].bytes),
                }),
                types: self.types.iter().map(|(name, count)| (*name, rate(*count))).collect(),
            })?;
        } else {
            let of = |count: &Count| {
                format!("{:.0}/s {}/s", rate(count.records), human::bytes(rate(count.bytes) as u64))
            };
            let mut line = format!(
                "{:.8}  {records:.0}/s {}/s",
                human::clock(human::now_ns()),
                human::bytes(bytes as u64)
            );
            for (priority, class) in self.classes.iter().enumerate().filter(|(_, class)| class.records > 0) {
                line.push_str(&format!("  P{priority} {}", of(class)));
            }
            for (name, count) in &self.types {
                line.push_str(&format!("  {name} {:.0}", rate(*count)));
            }
            out.line(line)?;
        }
        out.flush()?;
        *self = Self::new();
        Ok(())
    }
}
