//! Producers, consumers and rings: who is dead or stands still, who waits for whom, what is full.

use bellwire::inspect::{CursorsStatus, LaneStatus, Place};

use super::finding::{Finding, Severity};
use super::segments::place;
use crate::bus::{self, Picture};
use crate::output::human;
use crate::process;

/// From this part of a ring on, in percent, somebody has to hurry.
const NEARLY_FULL: u64 = 75;

/// From this part of its open files on, in percent, a process should have more.
const MANY_FILES: u64 = 90;

/// Who keeps a ring full.
struct Slowest<'a> {
    consumer: &'a CursorsStatus,
    ring: usize,
    percent: u64,
}

pub(super) fn examine(picture: &Picture, look: Place<'_>, findings: &mut Vec<Finding>) {
    for lane in &picture.lanes {
        findings.push(producer(picture, lane));
        findings.push(rings(picture, lane, look));
        findings.extend(owner(picture, &lane.name, lane.held, lane.pid));
        if lane.held && !lane.membarrier {
            let what = "its producer could not register for membarrier: its readers look every millisecond";
            findings.push(
                Finding::new(Severity::Warn, "kernel", place(picture, &lane.name), what)
                    .next("see what the kernel finding says; then start the producer again"),
            );
        }
    }
    for one in &picture.consumers {
        findings.push(consumer(picture, one));
        findings.extend(owner(picture, &one.name, one.held, one.pid));
    }
    if picture.consumers.is_empty() && picture.unreadable.is_empty() {
        let what = "no consumer: the oldest records are overwritten unread";
        findings.push(
            Finding::new(Severity::Warn, "consumer", &*picture.bus, what)
                .next(format!("start the gateway (bus.name = {:?} in its configuration)", picture.bus)),
        );
    }
}

fn producer(picture: &Picture, lane: &LaneStatus) -> Finding {
    let subject = place(picture, &lane.name);
    if lane.held {
        let refused: u64 = lane.rings.iter().map(|ring| ring.refused).sum();
        let what = match refused {
            0 => format!("lives (pid {}), no publish was ever refused", lane.pid),
            _ => format!("lives (pid {}); publishes refused since the lane was made: {refused}", lane.pid),
        };
        return Finding::ok("producer", subject, what);
    }
    let unread: Vec<_> = picture
        .consumers
        .iter()
        .filter_map(|one| Some((one, bus::lag(lane, one)?)))
        .filter(|(_, lags)| lags.iter().any(|lag| lag.unread_bytes > 0))
        .map(|(one, _)| &*one.name)
        .collect();
    let what = match (lane.pid, unread.is_empty()) {
        (0, true) => "its producer has ended in order, and all of it was read".to_owned(),
        (0, false) => {
            format!("its producer has ended in order; {} have not read all of it", unread.join(", "))
        }
        (pid, true) => format!("its producer is dead (it was pid {pid}); all of it was read"),
        (pid, false) => {
            format!("its producer is dead (it was pid {pid}); {} have not read all of it", unread.join(", "))
        }
    };
    let severity = if lane.pid == 0 && unread.is_empty() { Severity::Ok } else { Severity::Warn };
    let finding = Finding::new(severity, "producer", subject, what);
    match severity {
        Severity::Ok => finding,
        _ => finding.next("start it again: it adopts the lane, nothing of what it published is lost"),
    }
}

fn rings(picture: &Picture, lane: &LaneStatus, look: Place<'_>) -> Finding {
    let subject = place(picture, &lane.name);
    let Some(slowest) = slowest(picture, lane) else {
        return Finding::ok("fill", subject, "no producer has to wait for anybody");
    };
    let (consumer, percent) = (slowest.consumer, slowest.percent);
    let ring = &lane.rings[slowest.ring];
    let what = format!(
        "ring P{} is {percent}% full with what {} has not read; {} refused, high-water {}%",
        slowest.ring,
        consumer.name,
        ring.refused,
        ring.high_water.saturating_mul(100) / ring.capacity.max(1)
    );
    if percent < NEARLY_FULL {
        return Finding::ok("fill", subject, what);
    }
    let age = bus::lag(lane, consumer)
        .and_then(|lags| bus::oldest_unread(&picture.bus, lane, look, &lags)[slowest.ring])
        .and_then(human::age);
    let what = match age {
        Some(age) => format!("{what}, the oldest unread is {} old", human::duration(age)),
        None => what,
    };
    let next = if !consumer.held {
        format!(
            "start {0} again; if it is not to come back: `bellwirectl consumers forget {0} --bus {1}`",
            consumer.name, picture.bus
        )
    } else if process::is_stopped(consumer.pid) {
        format!("pid {} is stopped: `kill -CONT {0}`", consumer.pid)
    } else {
        format!(
            "{} lives (pid {}) and does not keep up: look at its CPU, its log and, of a gateway, its journal's disk; \
             publishers get `Full` and can shed or wait",
            consumer.name, consumer.pid
        )
    };
    Finding::new(Severity::Bad, "fill", subject, what).next(next)
}

/// The consumer and the ring for which the lane's producer has the least room.
fn slowest<'a>(picture: &'a Picture, lane: &LaneStatus) -> Option<Slowest<'a>> {
    let gating = picture.consumers.iter().filter(|one| bus::waits(lane, one).holds());
    let each = gating.filter_map(|one| Some((one, bus::lag(lane, one)?)));
    let rings = each.flat_map(|(consumer, lags)| {
        lags.into_iter().map(move |lag| Slowest {
            consumer,
            ring: lag.priority,
            percent: lag.unread_bytes.saturating_mul(100) / lane.rings[lag.priority].capacity.max(1),
        })
    });
    rings.max_by_key(|slowest| slowest.percent)
}

fn consumer(picture: &Picture, consumer: &CursorsStatus) -> Finding {
    let subject = place(picture, &consumer.name);
    if consumer.held {
        return Finding::ok("consumer", subject, format!("lives (pid {})", consumer.pid));
    }
    let waiting: Vec<_> = picture
        .lanes
        .iter()
        .filter(|lane| bus::waits(lane, consumer).holds())
        .map(|lane| &*lane.name)
        .collect();
    if waiting.is_empty() {
        return Finding::new(Severity::Warn, "consumer", subject, "dead; no producer waits for it")
            .next(format!("start it again, or see what `bellwirectl gc --bus {}` says of it", picture.bus));
    }
    let what = format!(
        "dead (it was pid {}), and producers wait for it: {}; their rings fill until its grace time is over",
        consumer.pid,
        waiting.join(", ")
    );
    Finding::new(Severity::Bad, "consumer", subject, what).next(format!(
        "start it again (a gateway: `systemctl status`, then its log); if it is not to come back: `bellwirectl \
         consumers forget {} --bus {}`",
        consumer.name, picture.bus
    ))
}

/// What is wrong with a process that lives.
fn owner(picture: &Picture, name: &str, held: bool, pid: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !held || pid == 0 {
        return findings;
    }
    let subject = place(picture, name);
    if process::is_stopped(pid) {
        let what = format!("{} (pid {pid}) is stopped, by a signal or a debugger", process::name(pid));
        findings.push(
            Finding::new(Severity::Bad, "process", &*subject, what)
                .next(format!("`kill -CONT {pid}`, or end it; as long as it lives it is waited for")),
        );
    }
    if let Some((open, most)) = process::files(pid)
        && open.saturating_mul(100) >= most.saturating_mul(MANY_FILES)
    {
        let what = format!("{} (pid {pid}) has {open} of {most} files open", process::name(pid));
        findings.push(
            Finding::new(Severity::Bad, "limits", subject, what)
                .next("raise its RLIMIT_NOFILE (LimitNOFILE= in its unit) and start it again"),
        );
    }
    findings
}
