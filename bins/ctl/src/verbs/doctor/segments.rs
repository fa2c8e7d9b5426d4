//! The segments of a bus: which build made them, whose they are, who may read them, and which are leftovers.

use bellwire::inspect::{Segment, Stamp};
use bellwire::{CONSUMERS_MAX, LANES_MAX, LAYOUT_VERSION, OpenError, SegmentKind, abi_fingerprint};

use super::finding::{Finding, Severity};
use crate::bus::Picture;
use crate::failure::Failure;
use crate::output::human;
use crate::verbs::gc::judge::{Verdict, judge};
use crate::verbs::ls::kind;

pub(super) fn examine(picture: &Picture, findings: &mut Vec<Finding>) {
    for segment in &picture.segments {
        findings.extend(stamp(picture, segment));
    }
    for (segment, error) in &picture.unreadable {
        findings.extend(unreadable(picture, segment, error));
    }
    findings.push(ownership(picture));
    findings.extend(numbers(picture));
    findings.push(leftovers(picture));
}

/// `main/risk`.
pub(super) fn place(picture: &Picture, name: &str) -> String {
    format!("{}/{name}", picture.bus)
}

/// None: whose it is and that we may not read it is said elsewhere.
fn stamp(picture: &Picture, segment: &Segment) -> Option<Finding> {
    let subject = place(picture, &segment.name);
    let stamp = match segment.stamp() {
        Ok(stamp) => stamp,
        Err(_) if picture.unreadable.iter().any(|(other, _)| other.path == segment.path) => return None,
        Err(error) => {
            let what = format!("{}: cannot be read: {error}", kind(segment.kind));
            return Some(
                Finding::new(Severity::Warn, "build", subject, what)
                    .next("run as root, as its user, or as a member of its group"),
            );
        }
    };
    Some(judged(segment, subject, &stamp))
}

fn judged(segment: &Segment, subject: String, stamp: &Stamp) -> Finding {
    let kind = kind(segment.kind);
    let build = |stamp: &Stamp| format!("layout {}, fingerprint {:#018x}", stamp.version, stamp.fingerprint);
    if stamp.is_ours() && stamp.kind == Some(segment.kind) {
        return Finding::ok("build", subject, format!("{kind}, {}", build(stamp)));
    }
    let lives = if segment.held == Some(true) { "its owner lives" } else { "its owner is dead" };
    if stamp.blank {
        return Finding::new(Severity::Warn, "build", subject, format!("{kind}: blank, {lives}"))
            .next("nobody of ours makes one like this; `bellwirectl gc` removes it after a minute");
    }
    if stamp.kind == Some(segment.kind) {
        let what = format!(
            "{kind} of another build: {}; this bellwirectl has layout {LAYOUT_VERSION}, fingerprint {:#018x}; {lives}",
            build(stamp),
            abi_fingerprint()
        );
        return Finding::new(Severity::Bad, "build", subject, what).next(
            "producers, gateway and bellwirectl must be of one build: update what is behind and start it again; the \
             file of a build that is no longer in use is to be removed by hand",
        );
    }
    let what = format!("{kind}: no Bellwire process made this file");
    Finding::new(Severity::Bad, "build", subject, what)
        .next(format!("find out who did, then remove {}", segment.path.display()))
}

fn unreadable(picture: &Picture, segment: &Segment, error: &OpenError) -> Option<Finding> {
    let (severity, check) = match error {
        // The build says it.
        OpenError::Identity { .. } => return None,
        OpenError::Corrupt { .. } if segment.stamp().is_ok_and(|stamp| stamp.blank) => return None,
        OpenError::Corrupt { .. } => (Severity::Bad, "damage"),
        OpenError::Writable { .. } | OpenError::NotAFile { .. } => (Severity::Bad, "permissions"),
        _ => (Severity::Warn, "permissions"),
    };
    Some(Finding::of(severity, check, place(picture, &segment.name), Failure::from(error)))
}

/// Whether those on this bus can read each other.
fn ownership(picture: &Picture) -> Finding {
    let mut users: Vec<_> = picture.segments.iter().map(|segment| segment.uid).collect();
    users.sort_unstable();
    users.dedup();
    let owner = |segment: &Segment| format!("{} ({}:{})", segment.name, segment.uid, segment.gid);
    if let [uid] = users[..] {
        return Finding::ok("ownership", &*picture.bus, format!("all segments are of uid {uid}"));
    }
    // Several users: only a common group, and a mode that lets it read, makes a bus of them.
    let gid = picture.segments.first().map(|segment| segment.gid);
    let apart: Vec<_> = picture
        .segments
        .iter()
        .filter(|segment| Some(segment.gid) != gid || segment.mode & 0o040 == 0)
        .map(owner)
        .collect();
    if apart.is_empty() {
        let what = format!("segments of {} users, all of gid {}", users.len(), gid.unwrap_or_default());
        return Finding::ok("ownership", &*picture.bus, what);
    }
    let what = format!(
        "segments of {} users that have no readable group in common: {}; they do not see each other",
        users.len(),
        apart.join(", ")
    );
    Finding::new(Severity::Bad, "ownership", &*picture.bus, what).next(
        "start producers and gateway with one group (`group` in their options, bus.group in the gateway's \
         configuration); segments are then 0640",
    )
}

fn numbers(picture: &Picture) -> Option<Finding> {
    let count = |kind| picture.segments.iter().filter(|segment| segment.kind == kind).count();
    let (lanes, consumers) = (count(SegmentKind::Lane), count(SegmentKind::Cursors));
    if lanes * 10 < LANES_MAX * 9 && consumers * 10 < CONSUMERS_MAX * 9 {
        return None;
    }
    let what = format!("{lanes} of {LANES_MAX} lanes, {consumers} of {CONSUMERS_MAX} consumers");
    Some(
        Finding::new(Severity::Warn, "limits", &*picture.bus, what)
            .next("further ones will be refused: see what `bellwirectl gc` would remove, or use another bus"),
    )
}

/// What nobody needs.
fn leftovers(picture: &Picture) -> Finding {
    let dead = picture.segments.iter().filter(|segment| segment.held == Some(false));
    // A producer that was killed is to come back: that is said of it, and not that its lane can go.
    let was_killed = |segment: &&Segment| {
        segment.kind == SegmentKind::Lane
            && picture.lanes.iter().any(|lane| lane.name == segment.name && lane.pid != 0)
    };
    let dead = dead.filter(|segment| !was_killed(segment));
    let stale: Vec<_> =
        dead.filter(|segment| matches!(judge(picture, segment), Verdict::Remove(_))).collect();
    if stale.is_empty() {
        return Finding::ok("stale", &*picture.bus, "no segment is left over");
    }
    let bytes = stale.iter().map(|segment| segment.len).sum();
    let names: Vec<_> = stale.iter().map(|segment| &*segment.name).collect();
    let what = format!("nobody needs {} ({})", names.join(", "), human::bytes(bytes));
    Finding::new(Severity::Warn, "stale", &*picture.bus, what)
        .next(format!("`bellwirectl gc --bus {}` says why and, with --yes, removes them", picture.bus))
}
