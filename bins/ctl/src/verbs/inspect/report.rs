//! What is said of a lane and of a consumer, as text and as JSON.

use std::time::Duration;

use bellwire::inspect::{self, CursorsStatus, LaneStatus, Place, RingStatus};
use serde::Serialize;

use super::super::ls::state;
use super::lags::{LagReport, Lags};
use crate::bus::{self, Lag};
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Out, human};

/// A lane. The fields' names are those of the JSON.
#[derive(Serialize)]
pub(super) struct LaneReport<'a> {
    lane: &'a str,
    bus: &'a str,
    state: &'static str,
    pid: u32,
    path: String,
    created_at: i64,
    opened_at: i64,
    wake_barrier: bool,
    rings: Vec<RingReport>,
    consumers: Vec<ReaderReport>,
}

#[derive(Serialize)]
struct RingReport {
    priority: usize,
    capacity: u64,
    position: u64,
    oldest: u64,
    published: u64,
    refused: u64,
    high_water: u64,
    retained: u64,
    /// By the slowest gating consumer; none if nobody gates.
    unread: Option<u64>,
    /// Of the oldest record that it has not read: its own timestamp.
    oldest_unread_at: Option<i64>,
    #[serde(flatten)]
    rates: Option<Rates>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lag: Option<LagReport>,
}

/// What came and was refused between two looks, each second.
#[derive(Serialize)]
struct Rates {
    published_per_s: f64,
    bytes_per_s: f64,
    refused_per_s: f64,
}

impl Rates {
    fn new(was: &RingStatus, now: &RingStatus, seconds: f64) -> Self {
        let rate = |was: u64, now: u64| now.saturating_sub(was) as f64 / seconds.max(1e-9);
        Self {
            published_per_s: rate(was.published, now.published),
            bytes_per_s: rate(was.position, now.position),
            refused_per_s: rate(was.refused, now.refused),
        }
    }
}

/// A consumer, seen from one lane.
#[derive(Serialize)]
struct ReaderReport {
    consumer: String,
    state: &'static str,
    gating: bool,
    released: u64,
    rings: [Lag; 4],
}

impl<'a> LaneReport<'a> {
    /// `before` is the lane as it was, and how long ago; of an earlier lane of that name it says nothing.
    pub(super) fn new(
        bus: &'a str,
        place: Place<'_>,
        lane: &'a LaneStatus,
        consumers: &[CursorsStatus],
        before: Option<(&LaneStatus, Duration)>,
        lags: Option<&Lags>,
    ) -> Self {
        let readers = readers(lane, consumers);
        let slowest = |ring: usize| {
            let gating = readers.iter().filter(|reader| reader.gating).map(|reader| &reader.rings[ring]);
            gating.max_by_key(|lag| lag.unread_bytes)
        };
        let positions = std::array::from_fn(|ring| {
            slowest(ring).filter(|lag| lag.unread_bytes > 0 && !lag.overtaken).map(|lag| lag.acknowledged)
        });
        // Of a lane that goes at this moment nothing is unread any more.
        let oldest = inspect::times_at(bus, &lane.name, place, positions).unwrap_or_default();
        let before = before.filter(|(was, _)| was.key == lane.key);
        let rings = lane.rings.iter().enumerate().map(|(at, ring)| RingReport {
            priority: ring.priority.index(),
            capacity: ring.capacity,
            position: ring.position,
            oldest: ring.oldest,
            published: ring.published,
            refused: ring.refused,
            high_water: ring.high_water,
            retained: ring.position.saturating_sub(ring.oldest),
            unread: slowest(at).map(|lag| lag.unread_bytes),
            oldest_unread_at: oldest[at],
            rates: before.map(|(was, ago)| Rates::new(&was.rings[at], ring, ago.as_secs_f64())),
            lag: lags.and_then(|lags| lags.of(lane.key, at)),
        });
        Self {
            lane: &lane.name,
            bus,
            state: state(Some(lane.held)),
            pid: lane.pid,
            path: lane.path.display().to_string(),
            created_at: lane.created_at,
            opened_at: lane.opened_at,
            wake_barrier: lane.membarrier,
            rings: rings.collect(),
            consumers: readers,
        }
    }

    /// Of each ring the unread bytes, and when the oldest unread record was made.
    pub(super) fn lags(&self) -> impl Iterator<Item = (Option<u64>, Option<i64>)> {
        self.rings.iter().map(|ring| (ring.unread, ring.oldest_unread_at))
    }

    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let ago = |at| human::age(at).map_or_else(|| "?".to_owned(), human::duration);
        out.line(format!(
            "lane {}: {}, pid {}, opened {} ago, made {} ago, {}",
            self.lane,
            self.state,
            self.pid,
            ago(self.opened_at),
            ago(self.created_at),
            self.path
        ))?;
        let mut headings = vec![
            "RING",
            ">CAPACITY",
            ">UNREAD",
            ">FILL",
            ">AGE",
            ">HIGH-WATER",
            ">RETAINED",
            ">PUBLISHED",
            ">REFUSED",
            ">POSITION",
            ">OLDEST",
        ];
        let has_rates = self.rings.iter().any(|ring| ring.rates.is_some());
        if has_rates {
            headings.extend([">RECORDS/S", ">BYTES/S", ">REFUSED/S"]);
        }
        let has_lags = self.rings.iter().any(|ring| ring.lag.is_some());
        if has_lags {
            headings.extend([">AGE P50", ">P99", ">MAX"]);
        }
        let mut rings = Table::new(&headings);
        let dash = || "-".to_owned();
        for ring in &self.rings {
            let fill = |unread| format!("{:.1}%", unread as f64 * 100.0 / ring.capacity.max(1) as f64);
            let age = ring.oldest_unread_at.and_then(human::age).map_or_else(dash, human::duration);
            let mut cells = vec![
                format!("P{}", ring.priority),
                human::bytes(ring.capacity),
                ring.unread.map_or_else(dash, human::bytes),
                ring.unread.map_or_else(dash, fill),
                age,
                human::bytes(ring.high_water),
                human::bytes(ring.retained),
                ring.published.to_string(),
                ring.refused.to_string(),
                ring.position.to_string(),
                ring.oldest.to_string(),
            ];
            if has_rates {
                let rate = |of: fn(&Rates) -> String| ring.rates.as_ref().map_or_else(dash, of);
                cells.extend([
                    rate(|rates| format!("{:.0}", rates.published_per_s)),
                    rate(|rates| human::bytes(rates.bytes_per_s as u64)),
                    rate(|rates| format!("{:.0}", rates.refused_per_s)),
                ]);
            }
            if has_lags {
                let lag = |of: fn(&LagReport) -> u64| {
                    let age = ring.lag.as_ref().map(|lag| Duration::from_nanos(of(lag)));
                    age.map_or_else(dash, human::duration)
                };
                cells.extend([
                    lag(|lag| lag.age_ns_p50),
                    lag(|lag| lag.age_ns_p99),
                    lag(|lag| lag.age_ns_max),
                ]);
            }
            rings.row_of(cells);
        }
        rings.print(out)?;
        if self.consumers.is_empty() {
            return out.line("no consumer has attached to this lane");
        }
        let mut readers =
            Table::new(&["CONSUMER", "STATE", "GATING", ">UNREAD P0", ">P1", ">P2", ">P3", ">LET GO"]);
        for reader in &self.consumers {
            let mut cells = vec![
                reader.consumer.clone(),
                reader.state.to_owned(),
                if reader.gating { "yes" } else { "no" }.to_owned(),
            ];
            cells.extend(reader.rings.iter().map(Lag::cell));
            cells.push(reader.released.to_string());
            readers.row_of(cells);
        }
        readers.print(out)
    }
}

/// The consumers that read this lane, or for whom it is kept.
fn readers(lane: &LaneStatus, consumers: &[CursorsStatus]) -> Vec<ReaderReport> {
    let here = consumers.iter().filter_map(|consumer| {
        let ack = bus::ack(lane, consumer);
        Some(ReaderReport {
            consumer: consumer.name.clone(),
            state: state(Some(consumer.held)),
            gating: bus::waits(lane, consumer).holds(),
            released: ack.map_or(0, |ack| ack.released),
            rings: bus::lag(lane, consumer)?,
        })
    });
    here.collect()
}

/// A consumer of the bus.
#[derive(Serialize)]
pub(super) struct ConsumerReport<'a> {
    consumer: &'a str,
    bus: &'a str,
    state: &'static str,
    pid: u32,
    path: String,
    created_at: i64,
    opened_at: i64,
    /// How often it was opened.
    attachment: u64,
    /// How often it went to sleep.
    parked: u32,
    mark: u64,
    lanes: Vec<&'a str>,
}

impl<'a> ConsumerReport<'a> {
    pub(super) fn new(bus: &'a str, consumer: &'a CursorsStatus, lanes: &'a [LaneStatus]) -> Self {
        let is_read = |lane: &&LaneStatus| consumer.lanes.iter().any(|cursor| cursor.lane_key == lane.key);
        Self {
            consumer: &consumer.name,
            bus,
            state: state(Some(consumer.held)),
            pid: consumer.pid,
            path: consumer.path.display().to_string(),
            created_at: consumer.created_at,
            opened_at: consumer.opened_at,
            attachment: consumer.attachment,
            parked: consumer.parked,
            mark: consumer.mark,
            lanes: lanes.iter().filter(is_read).map(|lane| lane.name.as_str()).collect(),
        }
    }

    pub(super) fn print_all(out: &mut Out, reports: &[Self]) -> Result<(), Failure> {
        let mut table = Table::new(&["CONSUMER", "STATE", ">PID", ">OPENED", ">SINCE", ">PARKED", "LANES"]);
        for report in reports {
            let since = human::age(report.opened_at).map_or_else(|| "?".to_owned(), human::duration);
            table.row([
                report.consumer.to_owned(),
                report.state.to_owned(),
                report.pid.to_string(),
                format!("{}x", report.attachment),
                since,
                report.parked.to_string(),
                if report.lanes.is_empty() { "-".to_owned() } else { report.lanes.join(",") },
            ]);
        }
        table.print(out)
    }
}
