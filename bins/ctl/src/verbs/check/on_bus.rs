//! What shared memory says.

use std::time::Duration;

use bellwire::inspect::{CursorsStatus, LaneStatus, Place};
use bellwire::{OpenError, SegmentKind};

use super::Check;
use super::outcome::{Figure, Outcome, State};
use crate::bus::{self, Picture};
use crate::failure::Failure;
use crate::output::human;
use crate::process;

pub(super) fn examine(
    args: &Check,
    place: Place<'_>,
    before: &Picture,
    now: &Picture,
    outcome: &mut Outcome,
) {
    for (segment, error) in &now.unreadable {
        let damaged = matches!(
            error,
            OpenError::Identity { .. }
                | OpenError::Corrupt { .. }
                | OpenError::Writable { .. }
                | OpenError::NotAFile { .. }
        );
        // That we may not read it says nothing of it.
        let (what, next) = Failure::from(error).into_words();
        let state = if damaged { State::Critical } else { State::Unknown };
        outcome.trouble(state, format!("{}: {what}", segment.name), next);
    }
    for lane in &now.lanes {
        producer(args, lane, outcome);
        fill(args, now, lane, outcome);
        refusals(before, lane, outcome);
    }
    for consumer in &now.consumers {
        reader(args, now, consumer, outcome);
        lag(args, place, now, consumer, outcome);
    }
    missing(args, now, outcome);
    if now.consumers.is_empty() && now.unreadable.is_empty() && !now.segments.is_empty() {
        let next = format!("start the gateway (bus.name = {:?} in its configuration)", now.bus);
        outcome.trouble(State::Warning, "no consumer reads the bus", Some(next));
    }
    let (lanes, consumers) = (now.lanes.len() as u64, now.consumers.len() as u64);
    outcome.saw(format!("{}, {}", human::count(lanes, "lane"), human::count(consumers, "consumer")));
}

/// Those that are to live and are not there at all.
fn missing(args: &Check, now: &Picture, outcome: &mut Outcome) {
    let wanted =
        [(SegmentKind::Lane, "producer", &args.producer), (SegmentKind::Cursors, "consumer", &args.consumer)];
    for (kind, word, names) in wanted {
        for name in names {
            if now.segment(kind, name).is_none() {
                let what = format!("{word} {name} has never been on this bus");
                outcome.trouble(
                    State::Critical,
                    what,
                    Some(format!("start it, or see `bellwirectl ls --bus {}`", now.bus)),
                );
            }
        }
    }
}

fn producer(args: &Check, lane: &LaneStatus, outcome: &mut Outcome) {
    let published: u64 = lane.rings.iter().map(|ring| ring.published).sum();
    outcome.figure(Figure::new(format!("{} published", lane.name), published as f64, "c"));
    if lane.held {
        return;
    }
    let next = Some("start it again: it adopts the lane, nothing of what it published is lost".to_owned());
    let is_wanted = args.producer.contains(&lane.name);
    match lane.pid {
        0 if is_wanted => outcome.trouble(State::Critical, format!("producer {} has ended", lane.name), next),
        // Nobody said that it is to live.
        0 => {}
        pid => {
            let state = if is_wanted { State::Critical } else { State::Warning };
            outcome.trouble(state, format!("producer {} is dead (it was pid {pid})", lane.name), next);
        }
    }
}

fn fill(args: &Check, now: &Picture, lane: &LaneStatus, outcome: &mut Outcome) {
    let gating = now.consumers.iter().filter(|one| bus::waits(lane, one).holds());
    let lags = gating.filter_map(|one| Some((one, bus::lag(lane, one)?)));
    let rings = lags.flat_map(|(one, lags)| lags.into_iter().map(move |lag| (one, lag)));
    let fills = rings.map(|(one, lag)| {
        let capacity = lane.rings[lag.priority].capacity.max(1);
        (lag.unread_bytes.min(capacity) as f64 * 100.0 / capacity as f64, one, lag.priority)
    });
    let fullest = fills.max_by(|a, b| a.0.total_cmp(&b.0));
    let percent = fullest.as_ref().map_or(0.0, |(percent, ..)| (percent * 10.0).round() / 10.0);
    let (warning, critical) = (args.warning_fill as f64, args.critical_fill as f64);
    outcome.figure(Figure {
        warning: Some(warning),
        critical: Some(critical),
        max: Some(100.0),
        ..Figure::new(format!("{} fill", lane.name), percent, "%")
    });
    let Some((_, consumer, ring)) = fullest else { return };
    let state = match percent {
        percent if percent >= critical => State::Critical,
        percent if percent >= warning => State::Warning,
        _ => return,
    };
    let (name, pid) = (&consumer.name, consumer.pid);
    let next = match consumer.held {
        true if process::is_stopped(pid) => format!("pid {pid} is stopped: `kill -CONT {pid}`"),
        true => {
            format!("{name} lives (pid {pid}) and does not keep up: its CPU, its log, its journal's disk")
        }
        false => format!("start {name} again, or `bellwirectl consumers forget {name} --bus {}`", now.bus),
    };
    let what = format!("lane {} ring P{ring} is {percent}% full with what {name} has not read", lane.name);
    outcome.trouble(state, what, Some(next));
}

fn refusals(before: &Picture, lane: &LaneStatus, outcome: &mut Outcome) {
    let sum = |lane: &LaneStatus| lane.rings.iter().map(|ring| ring.refused).sum::<u64>();
    let refused = sum(lane);
    outcome.figure(Figure::new(format!("{} refused", lane.name), refused as f64, "c"));
    // A lane that is new began with none.
    let was = before.lanes.iter().find(|other| other.key == lane.key).map_or(0, sum);
    let recently = refused.saturating_sub(was);
    if recently > 0 {
        let what = format!("lane {}: {recently} publishes refused just now, its ring is full", lane.name);
        outcome.trouble(
            State::Critical,
            what,
            Some("`bellwirectl consumers` shows who does not read".to_owned()),
        );
    }
}

fn reader(args: &Check, now: &Picture, consumer: &CursorsStatus, outcome: &mut Outcome) {
    if consumer.held {
        return;
    }
    let waits = |lane: &&LaneStatus| bus::waits(lane, consumer).holds();
    let waiting: Vec<_> = now.lanes.iter().filter(waits).map(|lane| &*lane.name).collect();
    let name = &consumer.name;
    let next = Some(format!("start it again, or `bellwirectl consumers forget {name} --bus {}`", now.bus));
    if !waiting.is_empty() {
        let what = format!("consumer {name} is dead, and rings are kept for it by {}", waiting.join(", "));
        outcome.trouble(State::Critical, what, next);
    } else if args.consumer.contains(name) {
        outcome.trouble(State::Critical, format!("consumer {name} is dead"), next);
    } else {
        outcome.trouble(State::Warning, format!("consumer {name} is dead"), next);
    }
}

/// How long the oldest record of any lane has waited for that consumer.
fn lag(args: &Check, place: Place<'_>, now: &Picture, consumer: &CursorsStatus, outcome: &mut Outcome) {
    let oldest = now.lanes.iter().filter_map(|lane| {
        let lags = bus::lag(lane, consumer)?;
        let at = bus::oldest_unread(&now.bus, lane, place, &lags).into_iter().flatten().min()?;
        Some((human::age(at).unwrap_or_default(), lane))
    });
    let oldest = oldest.max_by_key(|(age, _)| *age);
    let age = oldest.as_ref().map_or(Duration::ZERO, |(age, _)| *age);
    outcome.figure(Figure {
        critical: args.max_lag.map(|max| max.as_secs_f64()),
        ..Figure::new(format!("{} lag", consumer.name), (age.as_secs_f64() * 1e6).round() / 1e6, "s")
    });
    if let (Some(max), Some((age, lane))) = (args.max_lag, oldest)
        && age > max
    {
        let what = format!(
            "consumer {} has not read for {} what lane {} holds",
            consumer.name,
            human::duration(age),
            lane.name
        );
        outcome.trouble(
            State::Critical,
            what,
            Some("`bellwirectl doctor` says whether it is dead or slow".to_owned()),
        );
    }
}
