//! `bellwirectl inspect`: the state of lanes, their rings and their consumers.

mod report;

use bellwire::inspect::{self, CursorsStatus, LaneStatus};
use bellwire::{OpenError, SegmentKind};
use clap::Args;

use self::report::{ConsumerReport, LaneReport};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{self, Failure, words};
use crate::output::Out;

/// Show the state of lanes: rings, fill, refusals, and who has read how far
///
/// Rings: CAPACITY; UNREAD by the slowest consumer that the producer waits for, and how much of the
/// capacity that is (FILL); HIGH-WATER, the most it ever was; RETAINED, what a newcomer could still
/// read; PUBLISHED records; REFUSED publishes, because the ring was full; POSITION and OLDEST, bytes
/// ever written and the position of the oldest record that is still there.
///
/// Consumers: whether they live; GATING, whether the producer waits for them (`no`: it reads like a
/// tap and can be overtaken); UNREAD records per ring (`lost`: it was overtaken there); LET GO, how
/// often the producer stopped waiting for it because it was dead for too long.
///
/// Everything is mapped read-only and read while it changes: numbers of a busy lane may be a moment
/// apart. Exit code 3 if there is no such lane.
///
/// Examples:
///   bellwirectl inspect
///   bellwirectl inspect matching-engine
///   bellwirectl inspect --json | jq 'select(.lane) | {lane, refused: [.rings[].refused]}'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Inspect {
    /// Only this lane: its producer's name
    #[arg(value_name = "LANE")]
    lane: Option<String>,
}

pub(crate) fn run(global: &Global, args: &Inspect) -> Result<Exit, Failure> {
    let (bus, group) = (global.bus(), global.group.as_deref());
    let segments = inspect::segments(bus).map_err(|error| Failure::new(Exit::Usage, error))?;
    let names =
        |kind| segments.iter().filter(move |segment| segment.kind == kind).map(|segment| &*segment.name);

    let mut faults = Vec::new();
    let mut note = |error: OpenError| {
        let failure = Failure::from(error);
        failure.print();
        faults.push(failure.exit);
    };
    let lanes: Vec<_> = match &args.lane {
        Some(lane) => {
            vec![LaneStatus::read(bus, lane, group).map_err(|error| Failure::lane(bus, lane, error))?]
        }
        None => names(SegmentKind::Lane)
            .filter_map(|lane| LaneStatus::read(bus, lane, group).map_err(&mut note).ok())
            .collect(),
    };
    let consumers: Vec<_> = names(SegmentKind::Cursors)
        .filter_map(|consumer| CursorsStatus::read(bus, consumer, group).map_err(&mut note).ok())
        .collect();
    if segments.is_empty() {
        return Err(Failure::new(Exit::Nothing, format!("nothing on bus {bus}")).next(failure::no_lanes(bus)));
    }

    let mut out = Out::new(global);
    for (at, lane) in lanes.iter().enumerate() {
        let report = LaneReport::new(bus, lane, &consumers);
        if global.json {
            out.json(&report)?;
        } else {
            if at > 0 {
                out.line("")?;
            }
            report.print(&mut out)?;
        }
    }
    if args.lane.is_none() {
        let reports: Vec<_> =
            consumers.iter().map(|consumer| ConsumerReport::new(bus, consumer, &lanes)).collect();
        if global.json {
            reports.iter().try_for_each(|report| out.json(report))?;
        } else if !reports.is_empty() {
            out.line("")?;
            ConsumerReport::print_all(&mut out, &reports)?;
        }
    }
    out.flush()?;
    if lanes.is_empty() && args.lane.is_none() && faults.is_empty() {
        words(format_args!("bus {bus} has consumers but no lane: no producer has come yet"));
    }
    Ok(faults.first().copied().unwrap_or(Exit::Ok))
}
