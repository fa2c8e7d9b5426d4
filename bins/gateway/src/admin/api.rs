//! What the page and programs ask for, as JSON. Every answer has the schema's version; every list has a bound: there are at
//! most 64 lanes and as many that were, and sessions are counted, not listed.

use bellwire::inspect::{CursorsStatus, LaneStatus};
use serde_json::{Value, json};

use super::watched::Watched;
use super::{errors, health, process};
use crate::broker::LaneCounters;
use crate::counts::{Count, Histogram};
use crate::protocol::Close;
use crate::version::{BUILD, VERSION};

/// Grows when a field goes or changes its meaning; new fields do not count.
const SCHEMA: u32 = 1;

/// Health, the process, and the sums over everything.
pub(super) fn overview(watched: &Watched) -> Value {
    let broker = &watched.broker;
    let faults: Vec<_> = health::ready(watched)
        .iter()
        .filter_map(|check| check.fault.map(|fault| json!({"check": check.name, "fault": fault})))
        .collect();
    let usage = process::usage();
    json!({
        "schema": SCHEMA,
        "gateway": watched.gateway,
        "bus": watched.bus,
        "version": VERSION,
        "build": BUILD,
        "uptime_ms": watched.started.elapsed().as_millis() as u64,
        "ready": faults.is_empty(),
        "faults": faults,
        "process": {
            "cpu_seconds": usage.cpu_seconds,
            "resident_bytes": usage.resident_bytes,
            "open_fds": usage.open_fds,
            "max_fds": usage.max_fds,
        },
        "journal": {
            // Beyond what JavaScript's numbers hold.
            "start": broker.journal_start.get().to_string(),
            "end": broker.journal_end.get().to_string(),
            "written_bytes": watched.journal_written(),
            "retained_bytes": watched.journal_retained(),
            "bytes": broker.journal_bytes.get(),
            "disk_full": broker.is_disk_full(),
            "disk_tight": broker.is_disk_tight(),
        },
        "latency": {
            "bucket_ends_us": Histogram::bucket_ends_us(),
            "ring_wait": broker.ring_wait.each_ref().map(|times| times.buckets()),
            "journal": broker.journal.each_ref().map(|times| times.buckets()),
            "push": std::array::from_fn::<_, 4, _>(|class| {
                let mut sum = Vec::new();
                for shard in &watched.shards {
                    let buckets = shard.latency[class].buckets();
                    sum.resize(buckets.len(), 0);
                    sum.iter_mut().zip(buckets).for_each(|(sum, count): (&mut u64, u64)| *sum += count);
                }
                sum
            }),
        },
    })
}

/// Each lane: what was read of it, and how full its rings are for this gateway.
pub(super) fn lanes(watched: &Watched) -> Value {
    let group = watched.group.as_deref();
    let cursors = CursorsStatus::read(&watched.bus, &watched.consumer, group).ok();
    let lanes: Vec<_> =
        watched.broker.lanes().iter().map(|lane| of_lane(watched, lane, cursors.as_ref())).collect();
    json!({"schema": SCHEMA, "lanes": lanes, "refused": watched.broker.refused.get()})
}

fn of_lane(watched: &Watched, lane: &LaneCounters, cursors: Option<&CursorsStatus>) -> Value {
    let numbers = |counts: &[Count; 4]| counts.each_ref().map(Count::get);
    // Another lane may have the name by now.
    let status = LaneStatus::read(&watched.bus, &lane.name, watched.group.as_deref())
        .ok()
        .filter(|status| lane.is_attached() && status.key == lane.key);
    let cursor = cursors.and_then(|cursors| cursors.lanes.iter().find(|cursor| cursor.lane_key == lane.key));
    let rings = status.as_ref().map(|status| {
        status.rings.each_ref().map(|ring| {
            let index = ring.priority.index();
            let unread =
                cursor.map(|cursor| ring.position.saturating_sub(cursor.positions[index]).min(ring.capacity));
            json!({
                "capacity_bytes": ring.capacity,
                "unread_bytes": unread,
                "high_water_bytes": ring.high_water,
                "published": ring.published,
                "refused": ring.refused,
            })
        })
    });
    json!({
        "name": lane.name,
        "key": format!("{:016x}", lane.key),
        "attached": lane.is_attached(),
        "quarantined": lane.is_quarantined(),
        "producer_alive": status.as_ref().map(|status| status.held),
        "rings": rings,
        "read": numbers(&lane.read),
        "journalled": numbers(&lane.journalled),
        "duplicate": numbers(&lane.duplicate),
        "rejected": numbers(&lane.rejected),
        "lost": numbers(&lane.lost),
        "missed": numbers(&lane.missed),
    })
}

/// Sessions by shard, and why sessions were closed.
pub(super) fn sessions(watched: &Watched) -> Value {
    let shards: Vec<_> = watched
        .shards
        .iter()
        .map(|shard| {
            json!({
                "sessions": shard.sessions.get(),
                "opened": shard.opened.get(),
                "handshakes_failed": shard.handshakes_failed.get(),
                "delivered": shard.delivered.get(),
                "writes": shard.writes.get(),
                "replayed": shard.replayed.get(),
                "conflated": shard.conflated.get(),
                "user_mismatch": shard.user_mismatch.get(),
                "unreadable": shard.unreadable.get(),
            })
        })
        .collect();
    let closes: Vec<_> = Close::ALL
        .into_iter()
        .map(|close| (close, watched.sum(|shard| &shard.closes[close.index()])))
        .filter(|(_, count)| *count > 0)
        .map(|(close, count)| json!({"code": close.code(), "reason": close.reason(), "count": count}))
        .collect();
    json!({"schema": SCHEMA, "shards": shards, "closes": closes})
}

/// How many streams there are.
pub(super) fn streams(watched: &Watched) -> Value {
    json!({"schema": SCHEMA, "streams": watched.broker.streams.get(), "drawn_forward": watched.broker.drawn_forward.get()})
}

/// Warnings and errors of late, each once.
pub(super) fn recent_errors() -> Value {
    let mut answer = errors::recent();
    answer["schema"] = SCHEMA.into();
    answer
}
