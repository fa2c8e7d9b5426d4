//! What a run has found, as a table or as JSON.

use std::time::Duration;

use serde::Serialize;

use super::tally::Quantiles;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Out, human};

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) gateway: String,
    pub(super) sessions: u32,
    pub(super) producers: u32,
    pub(super) mix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) connect: Option<Connect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idle: Option<Idle>,
    pub(super) loads: Vec<Load>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broadcast: Option<Broadcast>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replay: Option<Replay>,
    pub(super) verdict: Verdict,
}

/// All sessions connected, token verified and subscribed.
#[derive(Debug, Serialize)]
pub(super) struct Connect {
    pub(super) seconds: f64,
    pub(super) per_second: f64,
    pub(super) gateway_cpu_us: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Idle {
    pub(super) bytes_per_session: Option<f64>,
    pub(super) cpu_percent: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Load {
    pub(super) rate: String,
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) delivered_per_second: f64,
    /// Older states that a newer one stood for, because the client lagged.
    pub(super) conflated: u64,
    /// Publishes that found a ring full, and were tried again.
    pub(super) refused: u64,
    pub(super) gateway_cpu_us: Option<f64>,
    /// How late the producers themselves were at p99: it is part of the latencies.
    pub(super) producer_late_p99_us: f64,
    pub(super) from_intended: Option<QuantilesUs>,
    pub(super) from_publish: Option<QuantilesUs>,
    pub(super) by_class: [Option<QuantilesUs>; 4],
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct QuantilesUs {
    count: u64,
    p50: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

impl From<Quantiles> for QuantilesUs {
    fn from(found: Quantiles) -> Self {
        let us = |time: Duration| time.as_nanos() as f64 / 1e3;
        Self {
            count: found.count,
            p50: us(found.p50),
            p99: us(found.p99),
            p999: us(found.p999),
            max: us(found.max),
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Broadcast {
    /// From publishing until the last session has it: the median of `times`.
    pub(super) ms: f64,
    pub(super) times: usize,
}

/// All sessions went away, missed `each` notifications, and came back at once.
#[derive(Debug, Serialize)]
pub(super) struct Replay {
    pub(super) each: u32,
    /// From the first connection until the last session has everything and is live again.
    pub(super) seconds: f64,
    pub(super) notifications_per_second: f64,
    pub(super) gateway_cpu_us: Option<f64>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Verdict {
    pub(super) received: u64,
    pub(super) conflated: u64,
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    pub(super) foreign: u64,
    pub(super) resyncs: u64,
    /// Sessions that ended although nobody wanted them to.
    pub(super) broken: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) complaint: Option<String>,
}

impl Verdict {
    pub(super) fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.reordered + self.foreign + self.resyncs + self.broken == 0
    }
}

impl Report {
    pub(super) fn new(gateway: String, sessions: u32, producers: u32, mix: String) -> Self {
        Self {
            gateway,
            sessions,
            producers,
            mix,
            connect: None,
            idle: None,
            loads: Vec::new(),
            broadcast: None,
            replay: None,
            verdict: Verdict::default(),
        }
    }

    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let mut line = |name: &str, text: String| out.line(format!("{name:<10} {text}"));
        line("gateway", self.gateway.clone())?;
        let producers =
            human::count(u64::from(self.producers), "producer process").replace("processs", "processes");
        line("load", format!("{} sessions, {producers}, mix {}", self.sessions, self.mix))?;
        if let Some(Connect { seconds, per_second, gateway_cpu_us }) = &self.connect {
            let each = gateway_cpu_us
                .map(|us| format!(", {us:.1} µs of the gateway's CPU each"))
                .unwrap_or_default();
            line(
                "connect",
                format!("{per_second:.0}/s ({seconds:.2} s), token verified and subscribed{each}"),
            )?;
        }
        if let Some(Idle { bytes_per_session: Some(bytes), cpu_percent: Some(percent) }) = &self.idle {
            line("idle", format!("{bytes:.0} bytes of the gateway a session, {percent:.2} % of a core"))?;
        }
        if !self.loads.is_empty() {
            out.line("")?;
            self.print_loads(out)?;
        }
        if self.broadcast.is_some() || self.replay.is_some() {
            out.line("")?;
        }
        let mut line = |name: &str, text: String| out.line(format!("{name:<10} {text}"));
        if let Some(Broadcast { ms, times }) = &self.broadcast {
            line("broadcast", format!("{ms:.1} ms until the last session has it (median of {times})"))?;
        }
        if let Some(Replay { each, seconds, notifications_per_second, gateway_cpu_us }) = &self.replay {
            let cpu = gateway_cpu_us
                .map(|us| format!(", {us:.2} µs of the gateway's CPU each"))
                .unwrap_or_default();
            line(
                "replay",
                format!(
                    "{seconds:.2} s until all sessions, which came back at once and had missed {each} each, have \
                     everything: {notifications_per_second:.0}/s{cpu}"
                ),
            )?;
        }
        let Verdict { received, conflated, lost, doubled, reordered, foreign, resyncs, broken, .. } =
            self.verdict;
        line(
            "checked",
            format!(
                "{received} received, {conflated} conflated; lost {lost}, doubled {doubled}, reordered {reordered}, \
                 foreign {foreign}, resyncs {resyncs}, broken sessions {broken}"
            ),
        )
    }

    fn print_loads(&self, out: &mut Out) -> Result<(), Failure> {
        let mut table = Table::new(&[
            "RATE",
            ">DELIVERED/S",
            ">CPU µs",
            "CLASS",
            ">COUNT",
            ">P50",
            ">P99",
            ">P99.9",
            ">MAX",
            "FROM",
        ]);
        for load in &self.loads {
            let mut head = [
                load.rate.clone(),
                format!("{:.0}", load.delivered_per_second),
                load.gateway_cpu_us.map_or_else(|| "-".to_owned(), |us| format!("{us:.1}")),
            ];
            let mut rows =
                vec![("all", load.from_intended, "intended"), ("all", load.from_publish, "publish")];
            let classes = ["P0", "P1", "P2", "P3"].into_iter().zip(load.by_class);
            rows.extend(classes.map(|(name, found)| (name, found, "intended")));
            for (class, found, from) in rows {
                let Some(found) = found else { continue };
                let us = |us: f64| human::duration(Duration::from_nanos((us * 1e3) as u64));
                let mut cells: Vec<String> = std::mem::take(&mut head).into();
                cells.extend([class.to_owned(), found.count.to_string()]);
                cells.extend([found.p50, found.p99, found.p999, found.max].map(us));
                cells.push(from.to_owned());
                table.row_of(cells);
            }
        }
        table.print(out)?;
        for load in self.loads.iter().filter(|load| load.conflated + load.refused > 0) {
            let (rate, conflated, refused) = (&load.rate, load.conflated, load.refused);
            out.line(format!("{rate}: {conflated} conflated, {refused} times a ring was full"))?;
        }
        Ok(())
    }
}
