//! `bellwirectl publish`: puts notifications on a lane of its own, from flags or from lines of JSON.

mod fields;
mod lines;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bellwire::inspect::{self, Segment};
use bellwire::{
    MessageId, MessageType, Notification, Priority, Producer, ProducerOptions, PublishError, Published,
    SegmentKind,
};
use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::Value;

use self::fields::Fields;
use self::lines::{LINE_BYTES_MAX, Lines, NextLine};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::names;
use crate::output::{Out, human};
use crate::stop::Stop;

/// Waits for room in a ring begin with this and double; each look is counted by the lane as a refusal.
const FIRST_WAIT: Duration = Duration::from_micros(100);
const LONGEST_WAIT: Duration = Duration::from_millis(20);

/// Publish notifications: one from flags, or many from lines of JSON
///
/// Opens the lane --producer NAME (only one live process can have it) and publishes there. The lane
/// stays after we exit, as every lane does: readers that come later still find the records, and the
/// next publish under that name goes on with its sequence. Its size is about 54 MB of /dev/shm.
///
/// A single notification is built from --type, --user and one --field for each field of the payload;
/// what is missing is told. The payload's timestamp is now and its user_id is --user unless given.
/// Times may be nanoseconds since 1970, 2024-10-05T10:17:36Z, `now`, or from now: +30m.
///
/// --from reads one notification object a line, in the form clients get (`bellwirectl tail --json`
/// writes it): message_id, timestamp, priority and source may be left out. Bad lines are reported by
/// number and the rest goes on. Exit code 1 if any line was bad or refused, 5 if a ring stayed full
/// for longer than --timeout (what follows is not tried then, to keep the order).
///
/// Text output is the message id, or with --from a line of counts. --json prints one object for each
/// published notification: line, message_id, lane_sequence, timestamp.
///
/// Examples:
///   bellwirectl publish --producer ops --type system_notice --user '*' --source Ops \
///       --field title='Maintenance' --field content='Trading ends at 18:00' --field level=INFO
///   bellwirectl publish --producer risk-test --type margin_call --user user_01 --source RiskControl \
///       --field current_margin=4200 --field required_margin=5000 --field deadline=+30m --field message='add 800'
///   bellwirectl publish --producer replay --from yesterday.jsonl --rate 1000
///   bellwirectl tail risk --json | bellwirectl publish --bus staging --producer risk --from -
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Publish {
    /// The lane to publish on: 1 to 48 characters of a-z, 0-9, - and _
    #[arg(long, value_name = "NAME")]
    producer: String,

    /// What happened, for example margin_call
    #[arg(long = "type", value_name = "TYPE", value_parser = names::message_type, help_heading = "One notification")]
    #[arg(required_unless_present = "from", requires = "user")]
    message_type: Option<MessageType>,
    /// Whom it is for; '*' is everybody
    #[arg(long, value_name = "USER", help_heading = "One notification")]
    user: Option<String>,
    /// Which system says so
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true,
        help_heading = "One notification"
    )]
    source: String,
    /// 0 (most urgent) to 3 [default: the type's own]
    #[arg(long, value_name = "N", value_parser = names::priority, help_heading = "One notification")]
    priority: Option<Priority>,
    /// The id by which a repetition is recognised [default: a new one]
    #[arg(long, value_name = "UUID", help_heading = "One notification")]
    id: Option<MessageId>,
    /// One field of the payload; once for each
    #[arg(long = "field", short = 'f', value_name = "NAME=VALUE", help_heading = "One notification")]
    fields: Vec<String>,

    /// Read notifications from this file, one JSON object a line; `-` is standard input
    #[arg(long, value_name = "FILE", help_heading = "Many")]
    #[arg(conflicts_with_all = ["message_type", "user", "source", "priority", "id", "fields"])]
    from: Option<PathBuf>,
    /// At most so many a second
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Many")]
    rate: Option<u32>,

    /// What to do when a consumer has not read enough for the ring to have room. Each look while
    /// waiting counts as a refusal in the lane's numbers
    #[arg(long, value_enum, default_value_t = WhenFull::Wait, value_name = "WHAT", help_heading = "Full rings")]
    #[arg(verbatim_doc_comment)]
    when_full: WhenFull,
    /// How long to wait for room, for each notification
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = names::duration, help_heading = "Full rings")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WhenFull {
    /// Wait for room, up to --timeout
    Wait,
    /// Report it as refused and go on with the next
    Report,
}

/// What `--json` prints for each.
#[derive(Serialize)]
struct Receipt {
    /// Line of the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    message_id: String,
    lane_sequence: u64,
    timestamp: i64,
}

#[derive(Debug, Default)]
struct Counts {
    published: u64,
    bad: u64,
    refused: u64,
}

pub(crate) fn run(global: &Global, args: &Publish) -> Result<Exit, Failure> {
    match &args.from {
        Some(path) => from_lines(global, args, path),
        None => from_flags(global, args),
    }
}

fn open(global: &Global, args: &Publish) -> Result<Producer, Failure> {
    let mut options = ProducerOptions::new();
    if let Some(group) = &global.group {
        options = options.group(group);
    }
    let producer = options.open(global.bus(), &args.producer)?;
    if !has_living_consumers(global.bus()) {
        words("nobody consumes this bus now; what is published stays until the ring comes round");
    }
    Ok(producer)
}

fn has_living_consumers(bus: &str) -> bool {
    // The name was checked when the lane was opened.
    let segments = inspect::segments(bus).unwrap_or_default();
    segments
        .iter()
        .any(|segment: &Segment| segment.kind == SegmentKind::Cursors && segment.held == Some(true))
}

fn from_flags(global: &Global, args: &Publish) -> Result<Exit, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, error);
    let (Some(message_type), Some(user)) = (args.message_type, args.user.as_deref()) else {
        return Err(wrong(&"--type and --user, or --from, are needed"));
    };
    let fields = Fields::new(&args.fields, user).map_err(|error| wrong(&error))?;
    let payload = fields.payload(message_type).map_err(|error| wrong(&error))?;
    let mut notification = Notification::new(user, &args.source, payload);
    notification.priority = args.priority.unwrap_or(notification.priority);
    notification.message_id = args.id;

    let stop = Stop::on_signals().map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")))?;
    let mut producer = open(global, args)?;
    let published = match publish(&mut producer, &notification, args, &stop) {
        Ok(published) => published,
        Err(error @ PublishError::Full { .. }) => return Err(stayed_full(global.bus(), &error)),
        Err(error) => return Err(Failure::new(Exit::Wrong, error)),
    };
    let mut out = Out::new(global);
    if global.json {
        out.json(&receipt(None, &published))?;
    } else {
        out.line(published.message_id)?;
    }
    out.flush()?;
    words(format_args!(
        "published as {} of lane {} on bus {}, {}",
        published.lane_sequence,
        args.producer,
        global.bus(),
        notification.priority
    ));
    Ok(Exit::Ok)
}

fn from_lines(global: &Global, args: &Publish, path: &Path) -> Result<Exit, Failure> {
    let is_stdin = path.as_os_str() == "-";
    let reader: Box<dyn Read> = if is_stdin {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| Failure::file(path, &error))?)
    };
    // While we wait for standard input, Ctrl-C ends us as it ends any filter: what was published is whole.
    let stop = if is_stdin { Ok(Stop::never()) } else { Stop::on_signals() };
    let stop = stop.map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")))?;
    let mut producer = open(global, args)?;
    let mut lines = Lines::new(BufReader::with_capacity(64 << 10, reader));
    let mut receipts = Receipts { out: Out::new(global), json: global.json, is_broken: false };
    let mut pace = Pace::new(args.rate);
    let mut counts = Counts::default();
    let mut full = None;

    while !stop.asked() {
        if lines.would_wait() {
            receipts.flush();
        }
        let (number, line) = match lines.next().map_err(|error| Failure::file(path, &error))? {
            NextLine::End => break,
            NextLine::TooLong(number) => {
                let limit = human::bytes(LINE_BYTES_MAX as u64);
                bad(&mut counts, number, format_args!("longer than {limit}"));
                continue;
            }
            NextLine::Line(number, line) => (number, line),
        };
        let value: Value = match serde_json::from_slice(line) {
            Ok(value) => value,
            Err(error) => {
                bad(&mut counts, number, format_args!("not JSON: {error}"));
                continue;
            }
        };
        let notification = match bellwire::json::parse(&value) {
            Ok(notification) => notification,
            Err(error) => {
                bad(&mut counts, number, error);
                continue;
            }
        };
        pace.wait(&stop);
        match publish(&mut producer, &notification, args, &stop) {
            Ok(published) => {
                counts.published += 1;
                receipts.print(number, &published);
            }
            Err(error @ PublishError::Full { .. }) if args.when_full == WhenFull::Wait => {
                words(format_args!("line {number}: {error}; ended there"));
                counts.refused += 1;
                full = Some(error);
                break;
            }
            Err(error @ PublishError::Full { .. }) => {
                words(format_args!("line {number}: {error}"));
                counts.refused += 1;
            }
            Err(error) => bad(&mut counts, number, error),
        }
    }

    let Counts { published, bad, refused } = counts;
    let elapsed = pace.started.elapsed();
    let rate = published as f64 / elapsed.as_secs_f64().max(1e-9);
    let summary = format!(
        "published {published}, bad {bad}, refused {refused} in {} ({rate:.0}/s)",
        human::duration(elapsed)
    );
    if global.json {
        words(&summary);
    } else {
        receipts.line(&summary);
    }
    receipts.flush();
    if let Some(error) = full {
        return Err(stayed_full(global.bus(), &error));
    }
    if stop.asked() {
        return Err(Failure::new(Exit::Wrong, "interrupted: the lines that follow were not tried"));
    }
    Ok(if bad + refused == 0 { Exit::Ok } else { Exit::Wrong })
}

fn bad(counts: &mut Counts, line: u64, why: impl std::fmt::Display) {
    counts.bad += 1;
    words(format_args!("line {line}: {why}"));
}

/// Publishes, and waits for room if that was asked for.
fn publish(
    producer: &mut Producer,
    notification: &Notification<'_>,
    args: &Publish,
    stop: &Stop,
) -> Result<Published, PublishError> {
    let started = Instant::now();
    let mut wait = FIRST_WAIT;
    loop {
        match producer.publish(notification) {
            Err(PublishError::Full { .. })
                if args.when_full == WhenFull::Wait && started.elapsed() < args.timeout && !stop.asked() =>
            {
                std::thread::sleep(wait.min(args.timeout.saturating_sub(started.elapsed())));
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            result => return result,
        }
    }
}

fn stayed_full(bus: &str, error: &PublishError) -> Failure {
    Failure::new(Exit::Busy, error).next(format!(
        "`bellwirectl --bus {bus} inspect` shows which consumer does not read; a dead one is no longer waited for \
         after 30 s"
    ))
}

fn receipt(line: Option<u64>, published: &Published) -> Receipt {
    Receipt {
        line,
        message_id: published.message_id.to_string(),
        lane_sequence: published.lane_sequence,
        timestamp: published.timestamp,
    }
}

/// Standard output while publishing: when its reader goes away, publishing goes on.
struct Receipts {
    out: Out,
    json: bool,
    is_broken: bool,
}

impl Receipts {
    fn print(&mut self, line: u64, published: &Published) {
        if self.json && !self.is_broken {
            self.is_broken = self.out.json(&receipt(Some(line), published)).is_err();
        }
    }

    fn line(&mut self, text: &str) {
        if !self.is_broken {
            self.is_broken = self.out.line(text).is_err();
        }
    }

    fn flush(&mut self) {
        if !self.is_broken {
            self.is_broken = self.out.flush().is_err();
        }
    }
}

/// Keeps to `--rate`, without catching up on time that was spent waiting for input.
struct Pace {
    started: Instant,
    due: Instant,
    interval: Option<Duration>,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        let now = Instant::now();
        Self { started: now, due: now, interval: rate.map(|rate| Duration::from_secs(1) / rate) }
    }

    fn wait(&mut self, stop: &Stop) {
        const SLICE: Duration = Duration::from_millis(50);
        let Some(interval) = self.interval else { return };
        while let Some(left) = self.due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            if stop.asked() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
        // A bit of catching up evens out late wake-ups.
        let earliest = Instant::now().checked_sub(SLICE).unwrap_or(self.due);
        self.due = self.due.max(earliest) + interval;
    }
}
