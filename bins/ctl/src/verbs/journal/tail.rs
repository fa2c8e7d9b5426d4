//! `bellwirectl journal tail`: watches what is journalled.

use std::time::{Duration, Instant};

use bellwire_journal::inspect::Step;
use clap::Args;

use super::line::{self, Shape};
use super::{Selection, Span};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::filter::Filter;
use crate::names;
use crate::output::line::Line;
use crate::output::render::Render;
use crate::output::{Out, human};
use crate::stop::Stop;

/// How often it is looked whether something came.
const LOOK: Duration = Duration::from_millis(20);

/// Watch what the gateway journals, as it does, or from some time on
///
/// Unlike `bellwirectl tail` it shows what the gateway took, with the numbers that clients get, once and
/// in the order of delivery, and misses nothing: the journal keeps it. Nobody notices.
///
/// Text shows the time of day (UTC), number in the user's stream, priority, type, user, source and the
/// payload's fields. --json adds what the gateway knew: offset, stream, epoch, lane.
///
/// Examples:
///   bellwirectl journal tail
///   bellwirectl journal tail --since 10m --user user_01
///   bellwirectl journal tail --since 2026-11-26T19:00:00Z --type margin_call --seconds 0 --json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Tail {
    #[command(flatten)]
    selection: Selection,
    /// End after so many notifications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "How long")]
    count: Option<u64>,
    /// End after this time: 10, 500ms, 5m. With 0: after what is there now
    #[arg(long, value_name = "TIME", value_parser = names::duration, help_heading = "How long")]
    seconds: Option<Duration>,
}

pub(super) fn run(global: &Global, args: &Tail) -> Result<Exit, Failure> {
    let stop = Stop::on_signals().map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")))?;
    let mut out = Out::new(global);
    let mut shape =
        if global.json { Shape::Envelope } else { Shape::Text(Render::Text(Line::new(out.color()))) };
    let filter = Filter::new(&args.selection.filters);
    // Without --since: from now on.
    let now = human::now_ns();
    let span =
        Span { since: Some(args.selection.span.since.unwrap_or(now)), until: args.selection.span.until };
    let mut walk = span.walk(args.selection.dir.listing()?);
    let started = Instant::now();
    let mut printed = 0;
    while !stop.asked() {
        let step = walk.step().map_err(super::failure)?;
        match &step {
            Step::Entry(found) => {
                if span.until.is_some_and(|until| found.entry.journalled_at >= until) {
                    break;
                }
                if span.has(found.entry.journalled_at) {
                    match line::of(found, &filter, &mut shape) {
                        Ok(Some(text)) => {
                            out.bytes_line(&text)?;
                            printed += 1;
                        }
                        Ok(None) => {}
                        Err(why) => words(format_args!("offset {}: {why}", found.entry.offset)),
                    }
                }
                if args.count == Some(printed) {
                    break;
                }
            }
            Step::End => {
                out.flush()?;
                let is_late = args.seconds.is_some_and(|time| started.elapsed() >= time);
                if is_late || span.until.is_some_and(|until| human::now_ns() >= until) {
                    break;
                }
                std::thread::sleep(LOOK);
            }
            other => {
                if let Some(failure) = super::told(other) {
                    out.flush()?;
                    return Err(failure);
                }
            }
        }
    }
    out.flush()?;
    match args.count {
        Some(count) if printed < count && !stop.asked() => {
            Err(Failure::new(Exit::Wrong, format!("{printed} of {count} notifications came in time")))
        }
        _ => Ok(Exit::Ok),
    }
}
