//! `bellwirectl inspect`: the state of lanes, their rings and their consumers.

mod lags;
mod report;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bellwire::inspect::{CursorsStatus, LaneStatus};
use bellwire::{OpenError, SegmentKind};
use clap::Args;

use self::lags::Lags;
use self::report::{ConsumerReport, LaneReport};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{self, Failure, words};
use crate::names;
use crate::output::{Out, human};
use crate::stop::Stop;

/// How often --watch looks, unless told otherwise.
const WATCH: Duration = Duration::from_secs(2);
/// Looks within an interval, for percentiles; and what lies between two of them at least.
const SAMPLES: u32 = 100;
const SAMPLE_EVERY_MIN: Duration = Duration::from_millis(5);

/// Show the state of lanes: rings, fill, refusals, rates, and who has read how far
///
/// Rings: CAPACITY; UNREAD by the slowest consumer that the producer waits for, and how much of the
/// capacity that is (FILL); AGE of the oldest record that it has not read, by that record's timestamp;
/// HIGH-WATER, the most that ever was unread; RETAINED, what a newcomer could still read; PUBLISHED
/// records; REFUSED publishes, because the ring was full; POSITION and OLDEST, bytes ever written and
/// the position of the oldest record that is still there. With --interval or --watch also what came
/// each second between two looks: RECORDS/S, BYTES/S, REFUSED/S; and of a hundred looks in between the
/// percentiles of AGE: AGE P50, P99, MAX (with --json those of the unread bytes too).
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
///   bellwirectl inspect matching-engine --interval 1s
///   bellwirectl inspect --watch
///   bellwirectl inspect /var/tmp/main.tar.gz
///   bellwirectl inspect --json | jq 'select(.lane) | {lane, refused: [.rings[].refused]}'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Inspect {
    /// Only this lane: its producer's name; or a snapshot, or a directory with copied segments
    #[arg(value_name = "LANE|PATH")]
    lane: Option<String>,
    /// Look twice, so far apart, and show rates
    #[arg(long, value_name = "TIME", value_parser = names::duration)]
    interval: Option<Duration>,
    /// Show it again every --interval (2 s by default), until Ctrl-C
    #[arg(long)]
    watch: bool,
}

impl Inspect {
    /// The path that was given in place of a lane: no lane's name has a dot or a slash.
    pub(crate) fn take_path(&mut self) -> Option<PathBuf> {
        self.lane.take_if(|name| name.contains(['.', '/'])).map(PathBuf::from)
    }
}

/// A bus, or one lane of it, as it was at one moment.
struct Seen {
    lanes: Vec<LaneStatus>,
    consumers: Vec<CursorsStatus>,
    at: Instant,
    /// Of segments that could not be read; said already.
    fault: Option<Exit>,
}

pub(crate) fn run(global: &Global, args: &Inspect) -> Result<Exit, Failure> {
    let interval = args.interval.or(args.watch.then_some(WATCH));
    let mut seen = look(global, args, true)?;
    let mut out = Out::new(global);
    let Some(interval) = interval else {
        show(global, args, &mut out, &seen, None, None)?;
        return Ok(end(global, args, &seen));
    };
    let stop = if args.watch { Stop::on_signals() } else { Ok(Stop::never()) };
    let stop = stop.map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")))?;
    loop {
        let lags = sample(global, args, interval, &stop)?;
        if stop.asked() {
            return Ok(Exit::Ok);
        }
        // What is wrong has been said once.
        let now = look(global, args, false)?;
        if args.watch && !global.json {
            out.line(format!("at {}", human::time(human::now_ns())))?;
        }
        show(global, args, &mut out, &now, Some(&seen), Some(&lags))?;
        if !args.watch {
            return Ok(end(global, args, &seen));
        }
        if !global.json {
            out.line("")?;
            out.flush()?;
        }
        seen = now;
    }
}

/// Looks again and again until the interval is over, for how far behind the readers are meanwhile.
fn sample(global: &Global, args: &Inspect, interval: Duration, stop: &Stop) -> Result<Lags, Failure> {
    let mut lags = Lags::default();
    let (until, pause) = (Instant::now() + interval, (interval / SAMPLES).max(SAMPLE_EVERY_MIN));
    while !stop.asked() && Instant::now() < until {
        stop.sleep(pause.min(until.saturating_duration_since(Instant::now())));
        let seen = look(global, args, false)?;
        for lane in &seen.lanes {
            let report = LaneReport::new(global.bus(), global.place(), lane, &seen.consumers, None, None);
            lags.add(lane.key, &report, human::now_ns());
        }
    }
    Ok(lags)
}

fn end(global: &Global, args: &Inspect, seen: &Seen) -> Exit {
    if seen.lanes.is_empty() && args.lane.is_none() && seen.fault.is_none() {
        words(format_args!("bus {} has consumers but no lane: no producer has come yet", global.bus()));
    }
    seen.fault.unwrap_or(Exit::Ok)
}

fn look(global: &Global, args: &Inspect, aloud: bool) -> Result<Seen, Failure> {
    let (bus, place) = (global.bus(), global.place());
    let segments = place.segments(bus).map_err(|error| Failure::new(Exit::Usage, error))?;
    let names =
        |kind| segments.iter().filter(move |segment| segment.kind == kind).map(|segment| &*segment.name);
    let mut fault = None;
    let mut note = |error: OpenError| {
        let failure = Failure::from(error);
        if aloud {
            failure.print();
        }
        fault.get_or_insert(failure.exit);
    };
    let lanes: Vec<_> = match &args.lane {
        Some(lane) => {
            vec![LaneStatus::read(bus, lane, place).map_err(|error| Failure::lane(bus, lane, error))?]
        }
        None => names(SegmentKind::Lane)
            .filter_map(|lane| LaneStatus::read(bus, lane, place).map_err(&mut note).ok())
            .collect(),
    };
    let consumers: Vec<_> = names(SegmentKind::Cursors)
        .filter_map(|consumer| CursorsStatus::read(bus, consumer, place).map_err(&mut note).ok())
        .collect();
    if segments.is_empty() {
        return Err(Failure::new(Exit::Nothing, format!("nothing on bus {bus}")).next(failure::no_lanes(bus)));
    }
    Ok(Seen { lanes, consumers, at: Instant::now(), fault })
}

fn show(
    global: &Global,
    args: &Inspect,
    out: &mut Out,
    seen: &Seen,
    before: Option<&Seen>,
    lags: Option<&Lags>,
) -> Result<(), Failure> {
    let (bus, place) = (global.bus(), global.place());
    for (at, lane) in seen.lanes.iter().enumerate() {
        let was = before.and_then(|before| {
            let lane = before.lanes.iter().find(|was| was.key == lane.key)?;
            Some((lane, seen.at.duration_since(before.at)))
        });
        let report = LaneReport::new(bus, place, lane, &seen.consumers, was, lags);
        if global.json {
            out.json(&report)?;
        } else {
            if at > 0 {
                out.line("")?;
            }
            report.print(out)?;
        }
    }
    if args.lane.is_none() {
        let consumers = seen.consumers.iter();
        let reports: Vec<_> =
            consumers.map(|consumer| ConsumerReport::new(bus, consumer, &seen.lanes)).collect();
        if global.json {
            reports.iter().try_for_each(|report| out.json(report))?;
        } else if !reports.is_empty() {
            out.line("")?;
            ConsumerReport::print_all(out, &reports)?;
        }
    }
    out.flush()
}
