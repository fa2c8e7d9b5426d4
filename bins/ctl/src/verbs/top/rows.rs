//! What `top` knows of a bus: what two looks tell, and what came before.

use std::collections::VecDeque;
use std::time::Instant;

use bellwire::inspect::{CursorsStatus, LaneStatus, Place};
use serde::Serialize;

use super::super::ls::state;
use crate::bus::{self, Picture};
use crate::cli::Global;
use crate::failure::Failure;

/// Looks that are remembered: as many as a wide terminal can show.
const HISTORY: usize = 120;

/// A bus at one moment.
pub(super) struct Look {
    at: Instant,
    lanes: Vec<LaneLook>,
    consumers: Vec<ConsumerRow>,
    pub(super) problems: Vec<String>,
}

struct LaneLook {
    name: String,
    key: u64,
    state: &'static str,
    pid: u32,
    counts: Counts,
    fill: [Option<f64>; 4],
    oldest_unread_at: Option<i64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    refused: u64,
}

/// A lane on the screen. The fields' names are those of the JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LaneRow {
    pub(super) lane: String,
    #[serde(skip)]
    key: u64,
    pub(super) state: &'static str,
    pub(super) pid: u32,
    pub(super) records_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) refused_per_s: f64,
    /// Of each ring's capacity, what the slowest gating consumer has not read; none if nobody gates.
    pub(super) fill: [Option<f64>; 4],
    pub(super) oldest_unread_at: Option<i64>,
    #[serde(skip)]
    counts: Counts,
    /// Records a second at the last looks, oldest first.
    #[serde(skip)]
    pub(super) history: VecDeque<f64>,
}

impl LaneRow {
    /// The fullest ring.
    pub(super) fn fullest(&self) -> f64 {
        self.fill.iter().flatten().copied().fold(0.0, f64::max)
    }
}

/// A consumer on the screen.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ConsumerRow {
    pub(super) consumer: String,
    pub(super) state: &'static str,
    pub(super) pid: u32,
    pub(super) lanes: usize,
    /// Records, as far as they can be counted.
    pub(super) unread: u64,
    pub(super) unread_bytes: u64,
    /// Rings in which what it had not read was overwritten.
    pub(super) overtaken: usize,
    pub(super) oldest_unread_at: Option<i64>,
}

/// What is shown, built from look to look.
#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) lanes: Vec<LaneRow>,
    pub(super) consumers: Vec<ConsumerRow>,
    at: Option<Instant>,
}

/// One look as an object.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    bus: &'a str,
    at: i64,
    records_per_s: f64,
    bytes_per_s: f64,
    refused_per_s: f64,
    lanes: &'a [&'a LaneRow],
    consumers: &'a [&'a ConsumerRow],
}

impl<'a> Report<'a> {
    pub(super) fn new(
        bus: &'a str,
        table: &Table,
        lanes: &'a [&'a LaneRow],
        consumers: &'a [&'a ConsumerRow],
    ) -> Self {
        let (records_per_s, bytes_per_s, refused_per_s) = table.totals();
        let at = crate::output::human::now_ns();
        Self { bus, at, records_per_s, bytes_per_s, refused_per_s, lanes, consumers }
    }
}

impl Look {
    pub(super) fn take(global: &Global) -> Result<Self, Failure> {
        let place = global.place();
        let picture = Picture::of(global)?;
        let lanes = picture.lanes.iter().map(|lane| LaneLook::new(&picture, lane, place)).collect();
        let consumers =
            picture.consumers.iter().map(|consumer| ConsumerRow::new(&picture, consumer, place)).collect();
        let problems = picture.unreadable.iter().map(|(_, error)| error.to_string()).collect();
        Ok(Self { at: Instant::now(), lanes, consumers, problems })
    }
}

impl LaneLook {
    fn new(picture: &Picture, lane: &LaneStatus, place: Place<'_>) -> Self {
        let gating = picture.consumers.iter().filter(|consumer| bus::waits(lane, consumer).holds());
        let lags: Vec<_> = gating.filter_map(|consumer| bus::lag(lane, consumer)).collect();
        let fill = std::array::from_fn(|ring| {
            let unread = lags.iter().map(|lags| lags[ring].unread_bytes).max()?;
            Some(unread as f64 / lane.rings[ring].capacity.max(1) as f64)
        });
        let oldest = lags.iter().flat_map(|lags| bus::oldest_unread(&picture.bus, lane, place, lags));
        let sum = |of: fn(&bellwire::inspect::RingStatus) -> u64| lane.rings.iter().map(of).sum();
        let counts = Counts {
            records: sum(|ring| ring.published),
            bytes: sum(|ring| ring.position),
            refused: sum(|ring| ring.refused),
        };
        Self {
            name: lane.name.clone(),
            key: lane.key,
            state: state(Some(lane.held)),
            pid: lane.pid,
            counts,
            fill,
            oldest_unread_at: oldest.flatten().min(),
        }
    }
}

impl ConsumerRow {
    fn new(picture: &Picture, consumer: &CursorsStatus, place: Place<'_>) -> Self {
        let mut row = Self {
            consumer: consumer.name.clone(),
            state: state(Some(consumer.held)),
            pid: consumer.pid,
            lanes: 0,
            unread: 0,
            unread_bytes: 0,
            overtaken: 0,
            oldest_unread_at: None,
        };
        for lane in &picture.lanes {
            let Some(lags) = bus::lag(lane, consumer) else { continue };
            row.lanes += 1;
            for lag in &lags {
                row.unread += lag.unread.unwrap_or_default();
                row.unread_bytes += lag.unread_bytes;
                row.overtaken += usize::from(lag.overtaken);
            }
            let oldest = bus::oldest_unread(&picture.bus, lane, place, &lags).into_iter().flatten().min();
            row.oldest_unread_at = [row.oldest_unread_at, oldest].into_iter().flatten().min();
        }
        row
    }
}

impl Table {
    /// Takes the next look. Of a lane that was not there at the last one, nothing is known of its rates.
    pub(super) fn add(&mut self, look: &Look) {
        let seconds = self.at.map(|at| look.at.duration_since(at).as_secs_f64()).filter(|time| *time > 0.0);
        let mut former = std::mem::take(&mut self.lanes);
        self.lanes = look
            .lanes
            .iter()
            .map(|lane| {
                let was = former.iter_mut().find(|was| was.key == lane.key && was.lane == lane.name);
                let mut history = VecDeque::new();
                let mut rates = [0.0; 3];
                if let (Some(was), Some(seconds)) = (was, seconds) {
                    let rate = |was: u64, now: u64| now.saturating_sub(was) as f64 / seconds;
                    rates = [
                        rate(was.counts.records, lane.counts.records),
                        rate(was.counts.bytes, lane.counts.bytes),
                        rate(was.counts.refused, lane.counts.refused),
                    ];
                    history = std::mem::take(&mut was.history);
                    if history.len() == HISTORY {
                        history.pop_front();
                    }
                    history.push_back(rates[0]);
                }
                LaneRow {
                    lane: lane.name.clone(),
                    key: lane.key,
                    state: lane.state,
                    pid: lane.pid,
                    records_per_s: rates[0],
                    bytes_per_s: rates[1],
                    refused_per_s: rates[2],
                    fill: lane.fill,
                    oldest_unread_at: lane.oldest_unread_at,
                    counts: lane.counts,
                    history,
                }
            })
            .collect();
        self.consumers.clone_from(&look.consumers);
        self.at = Some(look.at);
    }

    /// Records, bytes and refusals a second of all lanes.
    pub(super) fn totals(&self) -> (f64, f64, f64) {
        self.lanes.iter().fold((0.0, 0.0, 0.0), |(records, bytes, refused), lane| {
            (records + lane.records_per_s, bytes + lane.bytes_per_s, refused + lane.refused_per_s)
        })
    }
}
