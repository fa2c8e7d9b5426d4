//! What the clients and the audits tell, in one place: counted, measured, judged.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use serde::Serialize;

use super::latency::{Latencies, Quantiles, TARGETS_NS};
use super::oracle::Oracle;
use crate::exchange::User;

/// Everything in the demo runs on one thread and shares this.
pub(crate) type Shared = Rc<RefCell<Tally>>;

pub(crate) struct Tally {
    pub(crate) oracle: Oracle,
    /// Since the run began, and since the last look.
    total: Latencies,
    window: Latencies,
    /// Deliveries by class.
    pub(crate) received: [u64; 4],
    pub(crate) sessions: u32,
    /// Frames whose `prev` was not the client's position.
    pub(crate) gaps: u64,
    /// Streams that could not be resumed.
    pub(crate) resyncs: u64,
    /// Connections that ended before the run did.
    pub(crate) reconnects: u64,
    /// How often the gateway was killed, or crashed, and was started again.
    pub(crate) gateway_restarts: u32,
    /// States that the gateway left out because a newer one followed, for a client that lagged.
    pub(crate) conflated: u64,
    /// Publishes that a full ring refused, and that were tried again.
    pub(crate) refused: u64,
    /// What producers said they published in all.
    pub(crate) claimed: u64,
    pub(crate) first_arrival: Option<Instant>,
    /// What went wrong with a client, the first time.
    pub(crate) complaint: Option<String>,
    /// The end has come: connections may close.
    pub(crate) ending: bool,
}

impl Tally {
    pub(crate) fn new(users: User) -> Self {
        Self {
            oracle: Oracle::new(users),
            total: Latencies::new(),
            window: Latencies::new(),
            received: [0; 4],
            sessions: 0,
            gaps: 0,
            resyncs: 0,
            reconnects: 0,
            gateway_restarts: 0,
            conflated: 0,
            refused: 0,
            claimed: 0,
            first_arrival: None,
            complaint: None,
            ending: false,
        }
    }

    /// A delivery; `latency_ns` if it tells anything (a replayed one does not).
    pub(crate) fn delivered(&mut self, class: usize, latency_ns: Option<i64>) {
        self.received[class] += 1;
        self.first_arrival.get_or_insert_with(Instant::now);
        if let Some(ns) = latency_ns {
            self.total.record(class, ns);
            self.window.record(class, ns);
        }
    }

    pub(crate) fn complain(&mut self, user_id: &str, what: impl std::fmt::Display) {
        self.complaint.get_or_insert_with(|| format!("client {user_id}: {what}"));
    }

    pub(crate) fn quantiles(&self) -> [Option<Quantiles>; 4] {
        self.total.quantiles()
    }
}

/// One look at the run, for the terminal and the page.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Look {
    pub(crate) elapsed_s: f64,
    pub(crate) users: User,
    pub(crate) sessions: u32,
    pub(crate) published: u64,
    pub(crate) published_rate: f64,
    pub(crate) delivered: u64,
    pub(crate) delivered_rate: f64,
    /// Published or arrived, and not matched with its other half yet.
    pub(crate) under_way: usize,
    pub(crate) refused: u64,
    pub(crate) reconnects: u64,
    pub(crate) gaps: u64,
    pub(crate) classes: [ClassLook; 4],
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ClassLook {
    pub(crate) published_rate: f64,
    pub(crate) delivered_rate: f64,
    pub(crate) target_us: f64,
    /// Of the time since the last look.
    pub(crate) now: Option<QuantilesUs>,
    /// Of the whole run.
    pub(crate) run: Option<QuantilesUs>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct QuantilesUs {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl From<Quantiles> for QuantilesUs {
    fn from(quantiles: Quantiles) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        Self { p50: us(quantiles.p50), p99: us(quantiles.p99), max: us(quantiles.max) }
    }
}

/// Remembers the last look, to tell rates.
pub(crate) struct Looker {
    started: Instant,
    at: Instant,
    published: [u64; 4],
    received: [u64; 4],
    users: User,
}

impl Looker {
    pub(crate) fn new(users: User) -> Self {
        let now = Instant::now();
        Self { started: now, at: now, published: [0; 4], received: [0; 4], users }
    }

    pub(crate) fn look(&mut self, tally: &mut Tally) -> Look {
        let now = Instant::now();
        let seconds = now.duration_since(self.at).as_secs_f64().max(1e-3);
        let (published, _) = tally.oracle.counts();
        let received = tally.received;
        let rate = |now: u64, before: u64| (now - before) as f64 / seconds;
        let (window, run) = (tally.window.quantiles(), tally.total.quantiles());
        let classes = std::array::from_fn(|class| ClassLook {
            published_rate: rate(published[class], self.published[class]),
            delivered_rate: rate(received[class], self.received[class]),
            target_us: TARGETS_NS[class] as f64 / 1e3,
            now: window[class].map(Into::into),
            run: run[class].map(Into::into),
        });
        let look = Look {
            elapsed_s: now.duration_since(self.started).as_secs_f64(),
            users: self.users,
            sessions: tally.sessions,
            published: published.iter().sum(),
            published_rate: classes.iter().map(|class: &ClassLook| class.published_rate).sum(),
            delivered: received.iter().sum(),
            delivered_rate: classes.iter().map(|class| class.delivered_rate).sum(),
            under_way: tally.oracle.pending(),
            refused: tally.refused,
            reconnects: tally.reconnects,
            gaps: tally.gaps,
            classes,
        };
        tally.window.reset();
        (self.at, self.published, self.received) = (now, published, received);
        look
    }
}
