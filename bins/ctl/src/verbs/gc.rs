//! `bellwirectl gc`: takes away what nobody holds and nobody needs.

pub(super) mod judge;

use bellwire::OpenError;
use bellwire::inspect::Segment;
use clap::Args;
use serde::Serialize;

use self::judge::{Verdict, judge};
use crate::bus::Picture;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::output::table::Table;
use crate::output::{Out, human};
use crate::verbs::ls::kind;

/// Remove what nobody holds and nobody needs of a bus; without --yes, say what that would be
///
/// Removed are, of this user's segments (of everybody's for root, in the trusted group):
///   - lanes whose producer is dead and of which every consumer has read everything
///   - cursors of dead consumers that every producer has given up, or of which no lane is left
///   - blank segments, which nobody has finished making for a minute
///
/// Everything else stays, and why is said: what has a live owner, what somebody has still to read, what
/// is of another build. Before a segment is removed its lock is taken, so that nobody can own it, and
/// then it is judged once more; it must be the very file that was looked at.
///
/// Exit code 1 if something could not be removed, 3 if the bus has nothing.
///
/// Examples:
///   bellwirectl gc
///   bellwirectl gc --bus staging --yes
///   bellwirectl gc --json | jq -r 'select(.action == "keep") | "\(.name): \(.reason)"'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Gc {
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// What becomes of a segment.
#[derive(Serialize)]
struct Entry<'a> {
    bus: &'a str,
    kind: &'static str,
    name: &'a str,
    path: String,
    inode: u64,
    bytes: u64,
    /// `remove` or `keep`.
    action: &'static str,
    /// Whether it is gone now.
    removed: bool,
    reason: String,
}

pub(crate) fn run(global: &Global, args: &Gc) -> Result<Exit, Failure> {
    let picture = Picture::of(global)?;
    let mut entries: Vec<_> = picture.segments.iter().map(|segment| entry(&picture, segment)).collect();
    let mut exit = Exit::Ok;
    if args.yes {
        // Consumers first: what they held up may be nobody's then.
        for (entry, segment) in entries.iter_mut().zip(&picture.segments).rev() {
            if entry.action == "remove"
                && let Err(failure) = remove(global, segment, entry)
            {
                failure.print();
                exit = Exit::Wrong;
            }
        }
    }
    let mut out = Out::new(global);
    if global.json {
        entries.iter().try_for_each(|entry| out.json(entry))?;
    } else {
        print(&mut out, &entries)?;
    }
    out.flush()?;
    summary(&entries, args.yes);
    Ok(exit)
}

fn entry<'a>(picture: &'a Picture, segment: &'a Segment) -> Entry<'a> {
    let verdict = match segment.held {
        Some(true) => Verdict::Keep("its owner lives".to_owned()),
        None => {
            let why = picture.unreadable.iter().find(|(other, _)| other.path == segment.path);
            let why = why.map(|(_, error)| error.to_string());
            Verdict::Keep(why.unwrap_or_else(|| "we may not look whether its owner lives".to_owned()))
        }
        Some(false) => judge(picture, segment),
    };
    let (action, reason) = match verdict {
        Verdict::Remove(reason) => ("remove", reason),
        Verdict::Keep(reason) => ("keep", reason),
    };
    Entry {
        bus: &picture.bus,
        kind: kind(segment.kind),
        name: &segment.name,
        path: segment.path.display().to_string(),
        inode: segment.inode,
        bytes: segment.len,
        action,
        removed: false,
        reason,
    }
}

/// Removes the segment if it still is to be removed once nobody can own it.
fn remove(global: &Global, segment: &Segment, entry: &mut Entry<'_>) -> Result<(), Failure> {
    let seized = match segment.seize(global.group.as_deref()) {
        Ok(seized) => seized,
        // Somebody has come, or has been here, since we looked: no failure of ours.
        Err(error @ (OpenError::InUse { .. } | OpenError::Replaced { .. } | OpenError::NotFound { .. })) => {
            (entry.action, entry.reason) = ("keep", error.to_string());
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let now = Picture::take(global.bus(), global.place())?;
    match judge(&now, segment) {
        Verdict::Remove(_) => {
            seized.remove()?;
            entry.removed = true;
        }
        Verdict::Keep(reason) => {
            drop(seized);
            (entry.action, entry.reason) = ("keep", reason);
        }
    }
    Ok(())
}

fn print(out: &mut Out, entries: &[Entry<'_>]) -> Result<(), Failure> {
    let mut table = Table::new(&["ACTION", "KIND", "NAME", ">SIZE", "REASON"]);
    for entry in entries {
        table.row([
            if entry.removed { "removed" } else { entry.action }.to_owned(),
            entry.kind.to_owned(),
            entry.name.to_owned(),
            human::bytes(entry.bytes),
            entry.reason.clone(),
        ]);
    }
    table.print(out)
}

fn summary(entries: &[Entry<'_>], did: bool) {
    let of = |wanted: &dyn Fn(&&Entry<'_>) -> bool| {
        let those: Vec<_> = entries.iter().filter(wanted).collect();
        let bytes = those.iter().map(|entry| entry.bytes).sum();
        format!("{}, {}", human::count(those.len() as u64, "segment"), human::bytes(bytes))
    };
    if did {
        words(format!("removed {}", of(&|entry| entry.removed)));
    } else if entries.iter().any(|entry| entry.action == "remove") {
        let what = of(&|entry| entry.action == "remove");
        words(format!("nothing was changed: --yes would remove {what}"));
    } else {
        words("there is nothing to remove");
    }
}
