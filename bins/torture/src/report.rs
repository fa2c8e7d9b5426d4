//! The figures of a run, as a table or as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::gateway::Maxima;
use crate::oracle::verdict::Totals;
use crate::oracle::{Counts, Fault};

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    pub(crate) users: u32,
    pub(crate) sessions: usize,
    pub(crate) kills: BTreeMap<&'static str, u64>,
    pub(crate) stops: BTreeMap<&'static str, u64>,
    pub(crate) restarts: BTreeMap<&'static str, u64>,
    /// Times that two were struck at once.
    pub(crate) at_once: u64,
    pub(crate) disk_full: u64,
    pub(crate) shm_full: u64,
    /// New lanes that a full /dev/shm refused, as it must.
    pub(crate) shm_refusals: u64,
    /// Ends of a gateway that could not start or end in order because its disk was full.
    pub(crate) disk_full_ends: u64,
    pub(crate) totals: Totals,
    /// Publishes that a full ring refused, and that were tried again.
    pub(crate) refused: u64,
    /// Confirmed records that a successor published again.
    pub(crate) repeated: u64,
    /// Times that a producer gave up waiting for a consumer: none, unless one was dead for 30 seconds.
    pub(crate) released: u64,
    pub(crate) stored: u64,
    pub(crate) stored_again: u64,
    /// Records of the journal at the end, all of them linked in its chain.
    pub(crate) journal_linked: u64,
    pub(crate) counts: Counts,
    pub(crate) gateway: Maxima,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) clean: bool,
}

impl Report {
    pub(crate) fn kill_count(&self) -> u64 {
        self.kills.values().sum()
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut table = String::new();
        let mut row = |name: &str, text: String| {
            let _ = writeln!(table, "  {name:<22} {text}"); // a String takes everything
        };
        row(
            "seed",
            format!(
                "{}, {:.0} s, {} sessions of {} users",
                self.seed, self.seconds, self.sessions, self.users
            ),
        );
        row("SIGKILL", by_kind(&self.kills));
        row("SIGSTOP", by_kind(&self.stops));
        row("orderly restarts", by_kind(&self.restarts));
        row("two at once", self.at_once.to_string());
        row(
            "disk full",
            format!("{} times; the gateway ended over it {} times", self.disk_full, self.disk_full_ends),
        );
        row("journal verified", format!("{} records", grouped(self.journal_linked)));
        row("/dev/shm full", format!("{} times; new lanes refused: {}", self.shm_full, self.shm_refusals));
        let Totals { published, uncertain, uncertain_published, unseen } = self.totals;
        row("published", grouped(published));
        row("", format!("full rings refused {} publishes, tried again", grouped(self.refused)));
        row("", format!("{} confirmed records sent again under their ids", grouped(self.repeated)));
        row("", format!("{uncertain_published} of {uncertain} unconfirmed, abandoned ones"));
        row("delivered", grouped(self.counts.delivered));
        row(
            "",
            format!("{} left out for newer ones; seen by nobody: {unseen}", grouped(self.counts.conflated)),
        );
        row("stored", format!("{}, {} of them twice", grouped(self.stored), grouped(self.stored_again)));
        row(
            "connections",
            format!("{}, {} resumes", grouped(self.counts.connections), grouped(self.counts.resumes)),
        );
        row("closes by the gateway", listed(&self.counts.closes));
        row("resyncs", listed(&self.counts.resyncs));
        let Maxima { anonymous_kib, descriptors, threads } = self.gateway;
        row(
            "gateway, at most",
            format!("{} MiB, {descriptors} descriptors, {threads} threads", anonymous_kib / 1024),
        );
        let faults = |fault| self.faults.get(&fault).copied().unwrap_or_default();
        row(
            "verdict",
            format!(
                "lost {}, doubled {}, reordered {}, foreign {}, corrupt {}, gaps {}, undue resyncs {}, other {}: {}",
                faults(Fault::Lost),
                faults(Fault::Doubled),
                faults(Fault::Reordered),
                faults(Fault::Foreign),
                faults(Fault::Corrupt),
                faults(Fault::Gap),
                faults(Fault::Resync),
                faults(Fault::Process) + faults(Fault::Storage),
                if self.clean { "clean" } else { "NOT CLEAN" }
            ),
        );
        table
    }
}

fn by_kind(counts: &BTreeMap<&'static str, u64>) -> String {
    format!("{}: {}", counts.values().sum::<u64>(), listed(counts))
}

fn listed<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect::<Vec<_>>().join(", ")
}

/// With commas: 1,234,567.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_grouped_by_three() {
        assert_eq!([0, 999, 1000, 1234567].map(super::grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
