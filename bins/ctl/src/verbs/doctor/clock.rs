//! Whether the wall clock was set since producers looked at it last.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::finding::{Finding, Severity};
use super::segments::place;
use crate::bus::Picture;
use crate::output::human;

/// A clock that is slewed drifts by some seconds a day against the monotonic one; one that is set jumps.
const JUMP: Duration = Duration::from_secs(5);

pub(super) fn examine(picture: &Picture, findings: &mut Vec<Finding>) {
    let now = human::now_ns();
    let offset = monotonic_ns().map(|monotonic| now.saturating_sub(monotonic));
    let mut all_well = true;
    for lane in &picture.lanes {
        let subject = place(picture, &lane.name);
        if lane.opened_at.max(lane.created_at) > now.saturating_add(nanoseconds(JUMP)) {
            all_well = false;
            let ahead = lane.opened_at.max(lane.created_at).saturating_sub(now);
            let what = format!("it was opened {} from now: the clock was set back", shown(ahead));
            findings.push(Finding::new(Severity::Warn, "clock", subject, what).next(
                "timestamps of what was published before are in the future, too: see that chrony or \
                     systemd-timesyncd slews instead of stepping",
            ));
            continue;
        }
        // What a producer that has ended saw says nothing of today.
        let drift = match offset {
            Some(offset) if lane.held && lane.wall_minus_monotonic != 0 => {
                offset.saturating_sub(lane.wall_minus_monotonic)
            }
            _ => continue,
        };
        if drift.unsigned_abs() > JUMP.as_nanos() as u64 {
            all_well = false;
            let way = if drift > 0 { "forward" } else { "back" };
            let what =
                format!("the wall clock moved {way} by {} since its producer's last look", shown(drift));
            findings.push(Finding::new(Severity::Warn, "clock", subject, what).next(
                "see that chrony or systemd-timesyncd runs and slews; a producer that has been quiet for days may \
                 only have seen the drift of all of them",
            ));
        }
    }
    if all_well {
        findings.push(Finding::ok("clock", &*picture.bus, "no jump is to be seen"));
    }
}

fn monotonic_ns() -> Option<i64> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    time.tv_sec().checked_mul(1_000_000_000)?.checked_add(time.tv_nsec())
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

fn shown(ns: i64) -> String {
    human::duration(Duration::from_nanos(ns.unsigned_abs()))
}
