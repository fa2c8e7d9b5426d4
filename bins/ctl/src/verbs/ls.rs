//! `bellwirectl ls`: which buses, lanes and consumers there are, and whether their owners live.

use bellwire::SegmentKind;
use bellwire::inspect::{CursorsStatus, LaneStatus, Place, Segment};
use clap::Args;
use serde::Serialize;

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::output::table::Table;
use crate::output::{Out, human};

/// List buses, lanes and consumers, and whether their owners live
///
/// Without --bus: every bus on this machine. A lane or a consumer's cursors stay when their process
/// ends; STATE says whether it lives: `live`, `dead`, or `?` where this user may not look. PID is the
/// owner, or the last one. What is wrong with a segment is said on standard error.
///
/// Exit code 3 if there is nothing.
///
/// Examples:
///   bellwirectl ls
///   bellwirectl ls --bus main --json | jq -r 'select(.state == "dead") | .name'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Ls {}

/// One segment.
#[derive(Serialize)]
struct Entry {
    bus: String,
    kind: &'static str,
    name: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    owner: String,
    uid: u32,
    gid: u32,
    mode: String,
    bytes: u64,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub(crate) fn run(global: &Global, _: &Ls) -> Result<Exit, Failure> {
    let buses = match &global.bus {
        Some(bus) => vec![bus.clone()],
        None => global.place().buses().unwrap_or_default(),
    };
    let mut entries = Vec::new();
    for bus in &buses {
        let segments = global.place().segments(bus).map_err(|error| Failure::new(Exit::Usage, error))?;
        entries.extend(segments.into_iter().map(|segment| entry(segment, global.place())));
    }
    if entries.is_empty() {
        return Err(nothing(global));
    }
    let mut out = Out::new(global);
    if global.json {
        entries.iter().try_for_each(|entry| out.json(entry))?;
    } else {
        print(&mut out, &entries)?;
    }
    out.flush()?;
    for problem in entries.iter().filter_map(|entry| entry.problem.as_ref()) {
        words(problem);
    }
    Ok(Exit::Ok)
}

fn nothing(global: &Global) -> Failure {
    match &global.bus {
        Some(bus) => {
            Failure::new(Exit::Nothing, format!("nothing on bus {bus}")).next(crate::failure::no_lanes(bus))
        }
        None => Failure::new(Exit::Nothing, "no bus on this machine").next(
            "it comes with its first producer or gateway; `bellwirectl publish --help` shows how to try",
        ),
    }
}

fn entry(segment: Segment, place: Place<'_>) -> Entry {
    let pid = match segment.kind {
        SegmentKind::Lane => LaneStatus::read(&segment.bus, &segment.name, place).map(|lane| lane.pid),
        SegmentKind::Cursors => {
            CursorsStatus::read(&segment.bus, &segment.name, place).map(|cursors| cursors.pid)
        }
    };
    let problem = pid.as_ref().err().map(ToString::to_string);
    Entry {
        kind: kind(segment.kind),
        state: state(segment.held),
        pid: pid.ok().filter(|pid| *pid != 0),
        owner: owner(segment.uid, segment.gid),
        uid: segment.uid,
        gid: segment.gid,
        mode: format!("{:04o}", segment.mode),
        bytes: segment.len,
        path: segment.path.display().to_string(),
        problem,
        bus: segment.bus,
        name: segment.name,
    }
}

fn print(out: &mut Out, entries: &[Entry]) -> Result<(), Failure> {
    let mut table = Table::new(&["BUS", "KIND", "NAME", "STATE", ">PID", "OWNER", "MODE", ">SIZE"]);
    for entry in entries {
        table.row([
            entry.bus.clone(),
            entry.kind.to_owned(),
            entry.name.clone(),
            entry.state.to_owned(),
            entry.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            entry.owner.clone(),
            entry.mode.clone(),
            human::bytes(entry.bytes),
        ]);
    }
    table.print(out)
}

/// What a segment is, in one word.
pub(super) fn kind(kind: SegmentKind) -> &'static str {
    match kind {
        SegmentKind::Lane => "lane",
        SegmentKind::Cursors => "consumer",
    }
}

/// Whether an owner lives, in one word.
pub(super) fn state(held: Option<bool>) -> &'static str {
    match held {
        Some(true) => "live",
        Some(false) => "dead",
        None => "?",
    }
}

/// `user:group`, as numbers where there are no names.
fn owner(uid: u32, gid: u32) -> String {
    use nix::unistd::{Gid, Group, Uid, User};
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name);
    format!("{}:{}", user.unwrap_or_else(|| uid.to_string()), group.unwrap_or_else(|| gid.to_string()))
}
