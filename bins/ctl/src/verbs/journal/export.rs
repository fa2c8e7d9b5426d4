//! `bellwirectl journal export`: JSON lines out of a journal.

use bellwire_journal::inspect::Step;
use clap::Args;

use super::Selection;
use super::line::{self, Shape};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::filter::Filter;
use crate::output::progress::Progress;
use crate::output::render::Render;
use crate::output::{Out, human};
use crate::stop::Stop;

/// Write what a journal keeps as JSON, one object a line
///
/// Each line has the notification as clients get it under `data`, and what the gateway knew of it:
/// schema (version of these fields), offset, journalled_at (ns), stream (`user` or `all`), epoch, seq, lane
/// (its key), lane_sequence.
/// With --bare only the notification, as `bellwirectl publish --from -` reads it.
///
/// It ends with what is there now. Exit code 6 if the journal is damaged: what stands before the damage
/// was written then.
///
/// Examples:
///   bellwirectl journal export > all.jsonl
///   bellwirectl journal export --user user_01 --since 24h | jq -r '[.seq, .data.message_type] | @tsv'
///   bellwirectl journal export --type margin_call --since 2026-11-26T00:00:00Z --until 2026-11-27T00:00:00Z
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Export {
    #[command(flatten)]
    selection: Selection,
    /// Only the notification itself
    #[arg(long)]
    bare: bool,
}

pub(super) fn run(global: &Global, args: &Export) -> Result<Exit, Failure> {
    let stop = Stop::on_signals().map_err(|error| Failure::new(Exit::Wrong, format!("signals: {error}")))?;
    let mut out = Out::new(global);
    let mut shape = if args.bare { Shape::Bare(Render::Json) } else { Shape::Envelope };
    let filter = Filter::new(&args.selection.filters);
    let mut walk = args.selection.span.walk(args.selection.dir.listing()?);
    let total = walk.listing().segments.iter().map(|segment| segment.used.unwrap_or(segment.len)).sum();
    let mut progress = Progress::new("exporting", total);
    let (mut written, mut unsound, mut read_bytes) = (0_u64, 0_u64, 0);
    while !stop.asked() {
        let step = walk.step().map_err(super::failure)?;
        match &step {
            Step::End => break,
            Step::Entry(found) => {
                read_bytes += found.entry.body.len() as u64;
                progress.at(read_bytes);
                if !args.selection.span.has(found.entry.journalled_at) {
                    continue;
                }
                match line::of(found, &filter, &mut shape) {
                    Ok(Some(text)) => {
                        out.bytes_line(&text)?;
                        written += 1;
                    }
                    Ok(None) => {}
                    Err(why) => {
                        unsound += 1;
                        words(format_args!("offset {}: {why}", found.entry.offset));
                    }
                }
            }
            other => {
                if let Some(failure) = super::told(other) {
                    out.flush()?;
                    return Err(failure);
                }
            }
        }
    }
    drop(progress);
    out.flush()?;
    if unsound > 0 {
        return Err(Failure::new(
            Exit::Unusable,
            format!("{} could not be read; {written} were written", human::count(unsound, "record")),
        ));
    }
    Ok(Exit::Ok)
}
