//! Every metric, in Prometheus' text format. No label says who a user is.

use std::time::UNIX_EPOCH;

use super::exposition::Exposition;
use super::process;
use super::watched::Watched;
use crate::broker::LaneCounters;
use crate::counts::{Count, Histogram};
use crate::protocol::Close;
use crate::shard::counters::Counters;
use crate::version::{BUILD, VERSION};

const CLASSES: [&str; 4] = ["P0", "P1", "P2", "P3"];

/// One number a priority of a lane.
type OfLane = fn(&LaneCounters) -> &[Count; 4];

const LANE_COUNTERS: [(&str, &str, OfLane); 6] = [
    ("bellwire_lane_read_total", "Records taken out of the lane's rings.", |lane| &lane.read),
    ("bellwire_lane_journalled_total", "Records of the lane that went into the journal.", |lane| {
        &lane.journalled
    }),
    ("bellwire_lane_duplicate_total", "Records of the lane that were there already.", |lane| &lane.duplicate),
    ("bellwire_lane_rejected_total", "Records of the lane that were not sound.", |lane| &lane.rejected),
    (
        "bellwire_lane_lost_total",
        "Records of the lane that were overwritten before they were read.",
        |lane| &lane.lost,
    ),
    ("bellwire_lane_missed_total", "Records that were gone when the lane was attached first.", |lane| {
        &lane.missed
    }),
];

pub(super) fn text(watched: &Watched) -> String {
    let mut out = Exposition::default();
    of_the_process(&mut out, watched);
    of_lanes(&mut out, watched);
    of_the_broker(&mut out, watched);
    of_sessions(&mut out, watched);
    latencies(&mut out, watched);
    out.into_text()
}

fn of_the_process(out: &mut Exposition, watched: &Watched) {
    out.gauge("bellwire_build_info", "Always 1; the labels say which build runs.").sample(
        &[("version", VERSION), ("build", BUILD), ("gateway", &watched.gateway), ("bus", &watched.bus)],
        1,
    );
    let started = watched.started_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    out.gauge("process_start_time_seconds", "When the gateway started, since the Unix epoch.")
        .sample(&[], started);
    let usage = process::usage();
    if let Some(seconds) = usage.cpu_seconds {
        out.counter("process_cpu_seconds_total", "Processor time, user and system.").sample(&[], seconds);
    }
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Resident memory, mapped journal and lanes included.",
            usage.resident_bytes,
        ),
        ("process_open_fds", "Open file descriptors.", usage.open_fds),
        ("process_max_fds", "File descriptors that may be open.", usage.max_fds),
    ] {
        if let Some(value) = value {
            out.gauge(name, help).sample(&[], value);
        }
    }
}

fn of_lanes(out: &mut Exposition, watched: &Watched) {
    // A name may come back with another key; what is counted under a name goes on.
    let mut lanes = watched.broker.lanes();
    lanes.sort_by(|a, b| a.name.cmp(&b.name));
    let named: Vec<_> = lanes.chunk_by(|a, b| a.name == b.name).collect();
    let any = |lanes: &[std::sync::Arc<LaneCounters>], holds: fn(&LaneCounters) -> bool| {
        u8::from(lanes.iter().any(|lane| holds(lane)))
    };
    out.gauge("bellwire_lane_attached", "1 while the lane is read.");
    for lanes in &named {
        out.sample(&[("lane", &lanes[0].name)], any(lanes, LaneCounters::is_attached));
    }
    out.gauge("bellwire_lane_quarantined", "1 if the attached lane broke a rule and is read no further.");
    for lanes in &named {
        let holds = |lane: &LaneCounters| lane.is_attached() && lane.is_quarantined();
        out.sample(&[("lane", &lanes[0].name)], any(lanes, holds));
    }
    for (name, help, of_lane) in LANE_COUNTERS {
        out.counter(name, help);
        for lanes in &named {
            for (index, class) in CLASSES.iter().enumerate() {
                let sum: u64 = lanes.iter().map(|lane| of_lane(lane)[index].get()).sum();
                out.sample(&[("lane", &lanes[0].name), ("class", class)], sum);
            }
        }
    }
}

fn of_the_broker(out: &mut Exposition, watched: &Watched) {
    let broker = &watched.broker;
    for (name, help, count) in [
        ("bellwire_broker_beats_total", "Signs of life of the broker, about ten a second.", &broker.beats),
        ("bellwire_broker_rounds_total", "Rounds over the lanes that found something.", &broker.rounds),
        ("bellwire_broker_chunks_total", "Chunks that were published to the journal.", &broker.chunks),
        (
            "bellwire_broker_drawn_forward_total",
            "Records that went first to keep an order's events in order.",
            &broker.drawn_forward,
        ),
        ("bellwire_broker_queries_total", "Questions of the shards that were answered.", &broker.queries),
        (
            "bellwire_lanes_refused_total",
            "Lanes that could not be attached, each once a reason.",
            &broker.refused,
        ),
        (
            "bellwire_journal_disk_full_total",
            "How often there was no room for the journal.",
            &broker.disk_full_total,
        ),
    ] {
        out.counter(name, help).sample(&[], count.get());
    }
    out.counter("bellwire_journal_written_bytes_total", "Bytes published to the journal.")
        .sample(&[], watched.journal_written());
    for (name, help, value) in [
        ("bellwire_journal_bytes", "Length of all journal segments.", broker.journal_bytes.get()),
        (
            "bellwire_journal_retained_bytes",
            "From the oldest entry that is kept to the end.",
            watched.journal_retained(),
        ),
        ("bellwire_streams", "Users of whom the journal keeps a record.", broker.streams.get()),
        (
            "bellwire_journal_disk_full",
            "1 while there is no room for the journal and nothing is read.",
            u64::from(broker.is_disk_full()),
        ),
        (
            "bellwire_journal_disk_tight",
            "1 if the journal's next segment could not be allocated ahead.",
            u64::from(broker.is_disk_tight()),
        ),
        ("bellwire_broker_failed", "1 if the broker ended with an error.", u64::from(broker.has_failed())),
        ("bellwire_draining", "1 while the gateway is being stopped.", u64::from(watched.is_draining())),
    ] {
        out.gauge(name, help).sample(&[], value);
    }
}

/// One count of a shard.
type OfShard = fn(&Counters) -> &Count;

const SHARD_COUNTERS: [(&str, &str, OfShard); 8] = [
    ("bellwire_sessions_opened_total", "Sessions ever.", |shard| &shard.opened),
    ("bellwire_handshakes_failed_total", "Handshakes that came to nothing.", |shard| {
        &shard.handshakes_failed
    }),
    ("bellwire_delivered_total", "Notifications of which the kernel has every byte.", |shard| {
        &shard.delivered
    }),
    ("bellwire_writes_total", "Writes by which they went out.", |shard| &shard.writes),
    ("bellwire_replayed_total", "Notifications that were rendered for a replay.", |shard| &shard.replayed),
    ("bellwire_conflated_total", "Updates that were left out for a newer one of the same key.", |shard| {
        &shard.conflated
    }),
    ("bellwire_user_mismatch_total", "Foreign records on the send path. Anything but 0 is a bug.", |shard| {
        &shard.user_mismatch
    }),
    ("bellwire_unreadable_total", "Records that could not be read back from the journal.", |shard| {
        &shard.unreadable
    }),
];

fn of_sessions(out: &mut Exposition, watched: &Watched) {
    let of_each = |out: &mut Exposition, count: OfShard| {
        for (index, shard) in watched.shards.iter().enumerate() {
            out.sample(&[("shard", &index.to_string())], count(shard).get());
        }
    };
    out.gauge("bellwire_sessions", "Open sessions, also before they authenticate.");
    of_each(out, |shard| &shard.sessions);
    for (name, help, count) in SHARD_COUNTERS {
        out.counter(name, help);
        of_each(out, count);
    }
    out.counter("bellwire_closes_total", "Sessions closed by the gateway, by close code.");
    for close in Close::ALL {
        let count = watched.sum(|shard| &shard.closes[close.index()]);
        out.sample(&[("code", &close.code().to_string()), ("reason", close.reason())], count);
    }
}

/// What of a shard's or the broker's time is told by class.
fn latencies(out: &mut Exposition, watched: &Watched) {
    let of_broker = |out: &mut Exposition, histograms: &[Histogram; 4]| {
        for (class, histogram) in CLASSES.iter().zip(histograms) {
            out.times(&[("class", class)], std::iter::once(histogram));
        }
    };
    out.histogram(
        "bellwire_ring_wait_seconds",
        "From publish to the begin of the broker's chunk that takes the record.",
    );
    of_broker(out, &watched.broker.ring_wait);
    out.histogram("bellwire_journal_seconds", "From there to the journal's published end.");
    of_broker(out, &watched.broker.journal);
    out.histogram("bellwire_push_seconds", "From publish until the kernel has every byte for the session.");
    for (index, class) in CLASSES.iter().enumerate() {
        out.times(&[("class", class)], watched.shards.iter().map(|shard| &shard.latency[index]));
    }
}
