//! The verbs that read a gateway's journal: one file each, and here what they share.
//!
//! The files are read, never mapped, locked or written: a gateway that appends does not notice.

mod export;
mod line;
mod ls;
mod stats;
mod tail;
mod verify;

use std::io::ErrorKind;
use std::path::PathBuf;

use bellwire_journal::JournalError;
use bellwire_journal::inspect::{Listing, Step, Walk};
use clap::{Args, Subcommand};

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::filter::Filters;

/// What to do with it.
#[derive(Subcommand, Debug)]
pub(crate) enum Journal {
    Ls(ls::Ls),
    Verify(verify::Verify),
    Tail(tail::Tail),
    Export(export::Export),
    Stats(stats::Stats),
}

pub(super) fn run(global: &Global, journal: &Journal) -> Result<Exit, Failure> {
    match journal {
        Journal::Ls(args) => ls::run(global, args),
        Journal::Verify(args) => verify::run(global, args),
        Journal::Tail(args) => tail::run(global, args),
        Journal::Export(args) => export::run(global, args),
        Journal::Stats(args) => stats::run(global, args),
    }
}

/// Which journal.
#[derive(Args, Debug)]
pub(crate) struct Dir {
    /// The journal's directory (`journal.dir` in the gateway's configuration), or a copy of it
    #[arg(
        long,
        value_name = "PATH",
        env = "BELLWIRE_JOURNAL_DIR",
        default_value = "/var/lib/bellwire/journal"
    )]
    dir: PathBuf,
}

impl Dir {
    fn listing(&self) -> Result<Listing, Failure> {
        Listing::read(&self.dir).map_err(failure)
    }
}

/// From when to when.
#[derive(Args, Debug)]
pub(crate) struct Span {
    /// Only what was journalled since: `5m` (ago), a time (2026-11-26T19:00:00Z), or ns since the Unix epoch
    #[arg(long, value_name = "TIME", value_parser = crate::names::instant, help_heading = "Filters")]
    since: Option<i64>,
    /// Only what was journalled before
    #[arg(long, value_name = "TIME", value_parser = crate::names::instant, help_heading = "Filters")]
    until: Option<i64>,
}

/// Which journal, and what of it.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    #[command(flatten)]
    dir: Dir,
    #[command(flatten)]
    span: Span,
    #[command(flatten)]
    filters: Filters,
}

impl Span {
    fn walk(&self, listing: Listing) -> Walk {
        match self.since {
            Some(since) => Walk::since(listing, since),
            None => Walk::new(listing),
        }
    }

    fn has(&self, journalled_at: i64) -> bool {
        self.since.is_none_or(|since| journalled_at >= since)
            && self.until.is_none_or(|until| journalled_at < until)
    }
}

/// What to tell of a journal that cannot be read.
fn failure(error: JournalError) -> Failure {
    let (exit, next) = match &error {
        JournalError::Io { source, .. } => match source.kind() {
            ErrorKind::NotFound => {
                (Exit::Nothing, "name its directory with --dir: `journal.dir` in the gateway's configuration")
            }
            ErrorKind::PermissionDenied => {
                (Exit::Refused, "a journal is its gateway's alone: run as that user, or as root")
            }
            _ => (Exit::Wrong, "the disk or the file system fails: see the kernel's log"),
        },
        JournalError::NoJournal { .. } => {
            (Exit::Nothing, "name its directory with --dir: `journal.dir` in the gateway's configuration")
        }
        JournalError::Header { .. } | JournalError::Mismatch { .. } => (
            Exit::Unusable,
            "use the bellwirectl of the build that made it; if there is none, the file is damaged",
        ),
        _ => (Exit::Wrong, "`bellwirectl journal verify` says what is wrong with it"),
    };
    Failure::new(exit, error).next(next)
}

/// What a walk says of a place where it cannot go on, or not without a gap.
fn told(step: &Step<'_>) -> Option<Failure> {
    match step {
        Step::Gap { path, missing } => {
            words(format_args!("{}: {missing} bytes of the journal are missing before it", path.display()));
            None
        }
        Step::Bad { path, at, why, .. } => Some(
            Failure::new(Exit::Unusable, format!("{}: damaged at byte {at}: {why}", path.display()))
                .next("what stands before was shown; `bellwirectl journal verify` looks at all of it"),
        ),
        Step::Entry(_) | Step::End => None,
    }
}
