//! `bellwirectl consumers forget`: takes away the cursors of a consumer that does not come back.

use bellwire::{OpenError, SegmentKind};
use clap::Args;
use serde::Serialize;

use crate::bus::{self, Picture, Waits};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::names;
use crate::output::{Out, human};

/// Remove the cursors of one dead consumer, so that producers wait for it no longer
///
/// Without --yes it only says what would be lost. With it, the segment is removed if nobody holds its
/// lock then and it still is the file that was looked at. A consumer of that name that comes later
/// begins at the oldest record that is left: what it had read already it reads again, and what is
/// overwritten meanwhile it never sees. A consumer that lives is not touched.
///
/// Exit code 3 if there is none of that name, 4 if it is not ours to remove, 5 if it lives.
///
/// Examples:
///   bellwirectl consumers forget old-monitor
///   bellwirectl consumers forget old-monitor --yes
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Forget {
    /// The consumer
    #[arg(value_name = "NAME")]
    name: String,
    /// Do it
    #[arg(long)]
    yes: bool,
}

/// What would be, or was, lost.
#[derive(Serialize)]
struct Report<'a> {
    consumer: &'a str,
    bus: &'a str,
    path: String,
    inode: u64,
    removed: bool,
    /// Why what is unread cannot be told, if it cannot.
    problem: Option<String>,
    lanes: Vec<Unread<'a>>,
}

#[derive(Serialize)]
struct Unread<'a> {
    lane: &'a str,
    gating: Waits,
    /// Records; none if it cannot be told.
    unread: Option<u64>,
    unread_bytes: u64,
}

pub(crate) fn run(global: &Global, args: &Forget) -> Result<Exit, Failure> {
    let picture = Picture::of(global)?;
    let name = &*args.name;
    let Some(segment) = picture.segment(SegmentKind::Cursors, name) else {
        return Err(missing(&picture, name));
    };
    if segment.held == Some(true) {
        let pid = picture.consumers.iter().find(|one| one.name == name).map_or(0, |one| one.pid);
        return Err(lives(name, pid));
    }
    let mut report = report(&picture, name, segment.path.display().to_string(), segment.inode);
    if args.yes {
        let removed = segment.seize(global.group.as_deref()).and_then(|seized| seized.remove());
        removed.map_err(|error| match error {
            // It has come back since we looked.
            OpenError::InUse { pid, .. } => lives(name, pid),
            error => error.into(),
        })?;
        report.removed = true;
    }
    let mut out = Out::new(global);
    if global.json {
        out.json(&report)?;
    } else {
        report.print(&mut out)?;
    }
    out.flush()?;
    if !args.yes {
        words("nothing was changed: --yes does it");
    }
    Ok(Exit::Ok)
}

fn lives(name: &str, pid: u32) -> Failure {
    Failure::new(Exit::Busy, format!("consumer {name} lives (pid {pid})"))
        .next("end it first; a consumer that lives but does not read is its own trouble, not a leftover")
}

fn missing(picture: &Picture, name: &str) -> Failure {
    let known: Vec<_> = picture
        .segments
        .iter()
        .filter(|segment| segment.kind == SegmentKind::Cursors)
        .map(|segment| &*segment.name)
        .collect();
    let failure = Failure::new(Exit::Nothing, format!("bus {} has no consumer {name:?}", picture.bus));
    match names::nearest(name, &known) {
        _ if known.is_empty() => failure.next("it has no consumer at all"),
        Some(near) => failure.next(format!("did you mean {near}? there are {}", known.join(", "))),
        None => failure.next(format!("there are {}", known.join(", "))),
    }
}

fn report<'a>(picture: &'a Picture, name: &'a str, path: String, inode: u64) -> Report<'a> {
    let problem = picture.unreadable.iter().find(|(segment, _)| segment.path.as_os_str() == &*path);
    let mut lanes = Vec::new();
    if let Some(consumer) = picture.consumers.iter().find(|one| one.name == name) {
        for lane in &picture.lanes {
            let (lags, gating) = (bus::lag(lane, consumer), bus::waits(lane, consumer));
            if lags.is_none() && gating == Waits::No {
                continue;
            }
            let lags = lags.as_ref();
            let unread = lags.map_or(Some(0), |lags| lags.iter().map(|lag| lag.unread).sum());
            let unread_bytes = lags.into_iter().flatten().map(|lag| lag.unread_bytes).sum();
            lanes.push(Unread { lane: &lane.name, gating, unread, unread_bytes });
        }
    }
    let problem = problem.map(|(_, error)| error.to_string());
    Report { consumer: name, bus: &picture.bus, path, inode, removed: false, problem, lanes }
}

impl Report<'_> {
    fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let verb = if self.removed { "removed" } else { "would remove" };
        out.line(format!("{verb} consumer {} of bus {}: {}", self.consumer, self.bus, self.path))?;
        if let Some(problem) = &self.problem {
            out.line(format!("what it had not read cannot be told: {problem}"))?;
        }
        for lane in &self.lanes {
            let unread = match lane.unread {
                Some(records) => human::count(records, "unread record"),
                None => format!("{} unread", human::bytes(lane.unread_bytes)),
            };
            let waits = match (lane.gating, self.removed) {
                (Waits::Yes | Waits::Unmet, false) => "its producer waits for it",
                (Waits::Yes | Waits::Unmet, true) => "its producer waited for it",
                (Waits::GaveUp, _) => "its producer has given it up",
                (Waits::No, _) => "its producer does not wait for it",
            };
            out.line(format!("  lane {}: {unread}; {waits}", lane.lane))?;
        }
        Ok(())
    }
}
