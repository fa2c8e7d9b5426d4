//! `bellwirectl consumers`: who reads a bus, how far behind, and forgetting one that does not come back.

mod forget;

use bellwire::inspect::{CursorsStatus, LaneStatus, Place};
use clap::{Args, Subcommand};
use serde::Serialize;

use super::ls::state;
use crate::bus::{self, Lag, Picture, Waits};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::output::table::Table;
use crate::output::{Out, human};

/// List the consumers of a bus, and how far each is behind on each lane
///
/// GATING is whether the lane's producer waits for it: `yes`; `unmet`, it keeps everything for one that
/// has not attached to this lane yet; `gave-up`, it was dead for longer than the producer's grace time
/// and can be overtaken; `no`. P0 to P3 are unread records (`lost`: it was overtaken there), BYTES all
/// that is unread, AGE the age of the oldest unread record, by its own timestamp, LET GO how often the
/// producer has given it up.
///
/// A dead consumer that producers wait for holds on to their rings: they fill, and publishing is
/// refused until its grace time (30 s by default) is over. If it does not come back, forget it.
///
/// Exit code 3 if the bus has nothing.
///
/// Examples:
///   bellwirectl consumers
///   bellwirectl consumers --json | jq -r 'select(.state == "dead") | .consumer'
///   bellwirectl consumers forget old-monitor --yes
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub(crate) struct Consumers {
    #[command(subcommand)]
    what: Option<What>,
}

/// What to do with them.
#[derive(Subcommand, Debug)]
enum What {
    Forget(forget::Forget),
}

/// A consumer.
#[derive(Serialize)]
struct Report<'a> {
    consumer: &'a str,
    bus: &'a str,
    state: &'static str,
    pid: u32,
    path: String,
    lanes: Vec<OnLane<'a>>,
}

/// A consumer on one lane.
#[derive(Serialize)]
struct OnLane<'a> {
    lane: &'a str,
    gating: Waits,
    /// How often the producer gave it up.
    released: u64,
    unread_bytes: u64,
    oldest_unread_at: Option<i64>,
    rings: Option<[Lag; 4]>,
}

pub(crate) fn run(global: &Global, args: &Consumers) -> Result<Exit, Failure> {
    match &args.what {
        Some(What::Forget(args)) => forget::run(global, args),
        None => list(global),
    }
}

fn list(global: &Global) -> Result<Exit, Failure> {
    let picture = Picture::of(global)?;
    let place = global.place();
    let reports: Vec<_> = picture.consumers.iter().map(|one| Report::new(&picture, one, place)).collect();
    let mut out = Out::new(global);
    if global.json {
        reports.iter().try_for_each(|report| out.json(report))?;
    } else if !reports.is_empty() {
        print(&mut out, &reports)?;
    }
    out.flush()?;
    for (_, error) in &picture.unreadable {
        words(error);
    }
    if reports.is_empty() && picture.unreadable.is_empty() {
        words(format!("bus {} has no consumer: the oldest records are overwritten unread", picture.bus));
    }
    Ok(Exit::Ok)
}

impl<'a> Report<'a> {
    fn new(picture: &'a Picture, consumer: &'a CursorsStatus, place: Place<'_>) -> Self {
        Self {
            consumer: &consumer.name,
            bus: &picture.bus,
            state: state(Some(consumer.held)),
            pid: consumer.pid,
            path: consumer.path.display().to_string(),
            lanes: picture
                .lanes
                .iter()
                .filter_map(|lane| OnLane::new(&picture.bus, lane, consumer, place))
                .collect(),
        }
    }
}

impl<'a> OnLane<'a> {
    /// None: the two have nothing to do with each other.
    fn new(bus: &str, lane: &'a LaneStatus, consumer: &CursorsStatus, place: Place<'_>) -> Option<Self> {
        let (rings, gating) = (bus::lag(lane, consumer), bus::waits(lane, consumer));
        if rings.is_none() && gating == Waits::No {
            return None;
        }
        let oldest = rings.as_ref().map(|lags| bus::oldest_unread(bus, lane, place, lags));
        Some(Self {
            lane: &lane.name,
            gating,
            released: bus::ack(lane, consumer).map_or(0, |ack| ack.released),
            unread_bytes: rings.iter().flatten().map(|lag| lag.unread_bytes).sum(),
            oldest_unread_at: oldest.into_iter().flatten().flatten().min(),
            rings,
        })
    }
}

impl Waits {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Unmet => "unmet",
            Self::GaveUp => "gave-up",
            Self::No => "no",
        }
    }
}

impl Lag {
    pub(super) fn cell(&self) -> String {
        match (self.overtaken, self.unread) {
            (true, _) => "lost".to_owned(),
            (false, Some(records)) => records.to_string(),
            (false, None) => human::bytes(self.unread_bytes),
        }
    }
}

fn print(out: &mut Out, reports: &[Report<'_>]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "CONSUMER", "STATE", ">PID", "LANE", "GATING", ">P0", ">P1", ">P2", ">P3", ">BYTES", ">AGE",
        ">LET GO",
    ]);
    let dash = || "-".to_owned();
    for report in reports {
        let head = || vec![report.consumer.to_owned(), report.state.to_owned(), report.pid.to_string()];
        if report.lanes.is_empty() {
            let mut cells = head();
            cells.extend(std::iter::repeat_with(dash).take(9));
            table.row_of(cells);
        }
        for lane in &report.lanes {
            let mut cells = head();
            cells.extend([lane.lane.to_owned(), lane.gating.word().to_owned()]);
            match &lane.rings {
                Some(rings) => cells.extend(rings.iter().map(Lag::cell)),
                None => cells.extend(std::iter::repeat_with(dash).take(4)),
            }
            let age = lane.oldest_unread_at.map(|at| human::age(at).map_or(dash(), human::duration));
            cells.extend([
                human::bytes(lane.unread_bytes),
                age.unwrap_or_else(dash),
                lane.released.to_string(),
            ]);
            table.row_of(cells);
        }
    }
    table.print(out)
}
