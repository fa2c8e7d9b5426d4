//! `bellwirectl tail`: watches what goes by on the lanes, through lossy taps that nobody notices.

mod rates;
mod source;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bellwire::inspect::{Place, Segment};
use bellwire::{SegmentKind, TapStart};
use clap::{Args, ValueEnum};

use self::rates::Rates;
use self::source::Source;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{self, Failure, words};
use crate::filter::{Filter, Filters};
use crate::names;
use crate::output::line::Line;
use crate::output::render::Render;
use crate::output::{Out, human};
use crate::stop::Stop;

/// Nobody rings for a tap: this often it looks whether something has come.
const LOOK: Duration = Duration::from_millis(5);

/// This often it looks for lanes that came or were made anew, and tells of losses.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// Watch notifications go by on one lane or on all, without disturbing anybody
///
/// A tap: read-only, invisible to producers and consumers, and lossy. When a producer is faster than
/// we are, records are overwritten unseen; how many is said on standard error. One lane's records
/// come in the order in which they were published, several lanes are merged by time.
///
/// Text shows the time of day (UTC), lane, priority, type, user, source and the payload's fields.
/// --json prints the notification objects that clients get, one a line; `publish --from -` reads them.
///
/// Filters of one kind add up (--user a --user b: either), different kinds must all fit. Ends with
/// --count, --seconds or Ctrl-C (exit 0); exit 1 if --count is not reached in time, 3 if there is no
/// such lane, 6 if a lane's memory is damaged.
///
/// Examples:
///   bellwirectl tail matching-engine
///   bellwirectl tail --all --priority 0 --channel risk
///   bellwirectl tail risk --from oldest --seconds 0 --json | jq .payload
///   bellwirectl tail --all --user user_01 --type trade_executed --count 10
///   bellwirectl tail --all --since 30s --priority 0 --seconds 0
///   bellwirectl tail --all --rates --channel trade
///   bellwirectl tail --all --copy /var/tmp/main.tar.gz
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Tail {
    /// The lane: its producer's name
    #[arg(value_name = "LANE", required_unless_present = "all", conflicts_with = "all")]
    lane: Option<String>,
    /// All lanes of the bus, also those that come later
    #[arg(long)]
    all: bool,
    /// Where to begin: with the oldest record that the rings still have, or with what comes now
    #[arg(long, value_enum, default_value_t = From::Now, value_name = "WHERE")]
    from: From,
    /// Only what was published since: `5m` (ago), a time in RFC 3339, or ns since the Unix epoch
    ///
    /// As far back as the rings still have it. A gateway's journal reaches further: `journal tail --since`.
    #[arg(long, value_name = "TIME", value_parser = names::instant, conflicts_with = "from")]
    since: Option<i64>,

    /// How much comes, in place of what: each second records and bytes by class, records by type
    #[arg(long)]
    rates: bool,

    #[command(flatten)]
    filters: Filters,

    /// End after so many notifications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "How long")]
    count: Option<u64>,
    /// End after this time: 10, 500ms, 5m. With 0: after what is there now
    #[arg(long, value_name = "TIME", value_parser = names::duration, help_heading = "How long")]
    seconds: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum From {
    Oldest,
    Now,
}

pub(crate) fn run(global: &Global, args: &Tail) -> Result<Exit, Failure> {
    let stop = Stop::on_signals().map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")))?;
    let mut out = Out::new(global);
    let render = match (args.rates, global.json) {
        (true, _) => Render::Nothing,
        (false, true) => Render::Json,
        (false, false) => Render::Text(Line::new(out.color())),
    };
    let mut rates = args.rates.then(Rates::new);
    let mut tail = Lanes::open(global, args, render)?;
    let (started, started_ns) = (Instant::now(), human::now_ns());
    let (mut printed, mut looked_around) = (0, started);

    let in_time = |published_at: Option<i64>| match (args.seconds, published_at) {
        (Some(time), Some(at)) => i128::from(at) <= i128::from(started_ns) + time.as_nanos() as i128,
        _ => true,
    };
    // Of a copy all is there already.
    let seconds = args.seconds.or(global.copies.as_ref().map(|_| Duration::ZERO));
    let is_late = || seconds.is_some_and(|time| started.elapsed() >= time);
    while !stop.asked() {
        match tail.next() {
            // What was published while we had time is shown, even if printing it took longer.
            Some(head) if !is_late() || in_time(head.published_at) => {
                match &mut rates {
                    Some(rates) => rates.count(&head.header),
                    None => out.bytes_line(&head.text)?,
                }
                printed += 1;
                if args.count == Some(printed) {
                    break;
                }
            }
            Some(_) => break,
            None if is_late() => break,
            None => {
                out.flush()?;
                std::thread::sleep(LOOK);
            }
        }
        if let Some(rates) = &mut rates {
            rates.tell(&mut out, global.json, false)?;
        }
        if looked_around.elapsed() >= LOOK_AROUND {
            looked_around = Instant::now();
            tail.look_around();
        }
    }
    if let Some(rates) = &mut rates {
        rates.tell(&mut out, global.json, true)?;
    }
    out.flush()?;
    tail.tell_losses();
    if tail.sources.iter().any(|source| source.unsound > 0) {
        return Ok(Exit::Unusable);
    }
    match args.count {
        Some(count) if printed < count && !stop.asked() => {
            Err(Failure::new(Exit::Wrong, format!("{printed} of {count} notifications came in time")))
        }
        _ => Ok(Exit::Ok),
    }
}

/// The lanes that are watched.
struct Lanes<'a> {
    bus: &'a str,
    place: Place<'a>,
    /// One lane, or all.
    only: Option<&'a str>,
    filter: Filter,
    render: Render,
    sources: Vec<Source>,
    /// Segments that cannot be read: said once, not every second. Emptied when it grows beyond reason.
    refused: HashSet<u64>,
}

impl<'a> Lanes<'a> {
    fn open(global: &'a Global, args: &'a Tail, render: Render) -> Result<Self, Failure> {
        let start = match (args.from, args.since) {
            // To a copy nothing is added.
            _ if global.copies.is_some() => TapStart::Oldest,
            (From::Oldest, _) | (From::Now, Some(_)) => TapStart::Oldest,
            (From::Now, None) => TapStart::Now,
        };
        let (bus, place) = (global.bus(), global.place());
        let mut lanes = Self {
            bus,
            place,
            only: args.lane.as_deref(),
            filter: Filter::new(&args.filters).since(args.since),
            render,
            sources: Vec::new(),
            refused: HashSet::new(),
        };
        let segments = place.segments(bus).map_err(|error| Failure::new(Exit::Usage, error))?;
        match &args.lane {
            Some(lane) => {
                let inode = segments.iter().find(|segment| lanes.is_wanted(segment)).map_or(0, |s| s.inode);
                let source = Source::open(bus, lane, inode, start, place);
                lanes.sources.push(source.map_err(|error| Failure::lane(bus, lane, error))?);
            }
            None => {
                segments.iter().for_each(|segment| lanes.attach(segment, start));
                if lanes.sources.is_empty() && lanes.refused.is_empty() {
                    words(format_args!("{}; waiting for one", failure::no_lanes(bus)));
                }
                if lanes.sources.is_empty() && !lanes.refused.is_empty() {
                    return Err(Failure::new(Exit::Refused, format!("no lane of bus {bus} can be read"))
                        .next("`bellwirectl ls` shows whose they are; name their group with --group"));
                }
            }
        }
        Ok(lanes)
    }

    fn is_wanted(&self, segment: &Segment) -> bool {
        segment.kind == SegmentKind::Lane && self.only.is_none_or(|only| only == segment.name)
    }

    /// Puts a lane under a tap, unless it is already.
    fn attach(&mut self, segment: &Segment, start: TapStart) {
        if !self.is_wanted(segment) || self.refused.contains(&segment.inode) {
            return;
        }
        let known = self.sources.iter().position(|source| source.name == segment.name);
        if known.is_some_and(|at| self.sources[at].inode == segment.inode) {
            return;
        }
        match Source::open(self.bus, &segment.name, segment.inode, start, self.place) {
            Ok(source) => match known {
                Some(at) => {
                    words(format_args!("lane {} was removed and made anew", segment.name));
                    self.sources[at].tell_losses();
                    self.sources[at] = source;
                }
                None => self.sources.push(source),
            },
            Err(error) => {
                if self.refused.len() > bellwire::LANES_MAX {
                    self.refused.clear();
                }
                self.refused.insert(segment.inode);
                words(error);
            }
        }
    }

    /// Lanes that came since, from their beginning; and how much was lost.
    fn look_around(&mut self) {
        // The name was checked when we began.
        for segment in self.place.segments(self.bus).unwrap_or_default() {
            self.attach(&segment, TapStart::Oldest);
        }
        self.tell_losses();
    }

    fn tell_losses(&mut self) {
        self.sources.iter_mut().for_each(Source::tell_losses);
    }

    /// The record whose turn it is: each lane in its own order, the lanes by time.
    fn next(&mut self) -> Option<source::Head> {
        let mut first: Option<(i64, usize)> = None;
        for (at, source) in self.sources.iter_mut().enumerate() {
            if let Some(head) = source.look(&self.filter, &mut self.render)
                && first.is_none_or(|(timestamp, _)| head.timestamp < timestamp)
            {
                first = Some((head.timestamp, at));
            }
        }
        self.sources[first?.1].take()
    }
}
