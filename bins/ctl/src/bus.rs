//! A bus as it is at one moment, and what follows from it: who waits for whom, and who is how far behind.
//!
//! Nothing here changes anything: all of it comes from read-only mappings.

use bellwire::inspect::{self, AckStatus, CursorStatus, CursorsStatus, LaneStatus, Place, Segment};
use bellwire::{OpenError, SegmentKind};
use serde::Serialize;

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{self, Failure};

/// Everything on a bus that can be seen.
pub(crate) struct Picture {
    pub(crate) bus: String,
    pub(crate) segments: Vec<Segment>,
    pub(crate) lanes: Vec<LaneStatus>,
    pub(crate) consumers: Vec<CursorsStatus>,
    /// Segments that are not ours to read, or that nobody can.
    pub(crate) unreadable: Vec<(Segment, OpenError)>,
}

/// Whether a lane's producer keeps records for a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Waits {
    /// It does not overtake it.
    Yes,
    /// It has seen it and keeps room for it, but the two have not met on this lane yet.
    Unmet,
    /// It has given it up, because it was dead for too long.
    GaveUp,
    /// It does not know it.
    No,
}

/// How far a consumer is behind in one ring.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Lag {
    pub(crate) priority: usize,
    pub(crate) acknowledged: u64,
    pub(crate) unread_bytes: u64,
    /// Records; none if it cannot be told.
    pub(crate) unread: Option<u64>,
    /// What it had not read was overwritten.
    pub(crate) overtaken: bool,
}

impl Picture {
    /// Looks at one bus.
    pub(crate) fn take(bus: &str, place: Place<'_>) -> Result<Self, Failure> {
        let segments = place.segments(bus).map_err(|error| Failure::new(Exit::Usage, error))?;
        let mut picture = Self {
            bus: bus.to_owned(),
            segments: Vec::new(),
            lanes: Vec::new(),
            consumers: Vec::new(),
            unreadable: Vec::new(),
        };
        for segment in segments {
            let read = match segment.kind {
                SegmentKind::Lane => {
                    LaneStatus::read(bus, &segment.name, place).map(|lane| picture.lanes.push(lane))
                }
                SegmentKind::Cursors => CursorsStatus::read(bus, &segment.name, place)
                    .map(|consumer| picture.consumers.push(consumer)),
            };
            match read {
                Ok(()) => {}
                // It went while we looked.
                Err(OpenError::NotFound { .. }) => continue,
                // The same for all.
                Err(error @ OpenError::NoSuchGroup { .. }) => return Err(error.into()),
                Err(error) => picture.unreadable.push((segment.clone(), error)),
            }
            picture.segments.push(segment);
        }
        Ok(picture)
    }

    /// Looks at the bus that is meant; one with nothing on it is an error that says what there is.
    pub(crate) fn of(global: &Global) -> Result<Self, Failure> {
        let picture = Self::take(global.bus(), global.place())?;
        if picture.segments.is_empty() {
            let bus = global.bus();
            return Err(
                Failure::new(Exit::Nothing, format!("nothing on bus {bus}")).next(failure::no_lanes(bus))
            );
        }
        Ok(picture)
    }

    /// The segment's file.
    pub(crate) fn segment(&self, kind: SegmentKind, name: &str) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.kind == kind && segment.name == name)
    }
}

/// The lane's entry for that consumer.
pub(crate) fn ack<'a>(lane: &'a LaneStatus, consumer: &CursorsStatus) -> Option<&'a AckStatus> {
    lane.consumers.iter().find(|ack| ack.key == consumer.key && ack.name == consumer.name)
}

/// The consumer's cursors over that lane.
pub(crate) fn cursor<'a>(lane: &LaneStatus, consumer: &'a CursorsStatus) -> Option<&'a CursorStatus> {
    consumer.lanes.iter().find(|cursor| cursor.lane_key == lane.key)
}

/// Whether the lane's producer waits for that consumer.
pub(crate) fn waits(lane: &LaneStatus, consumer: &CursorsStatus) -> Waits {
    match ack(lane, consumer) {
        Some(ack) if ack.attachment != 0 => Waits::Yes,
        Some(ack) if ack.released > 0 => Waits::GaveUp,
        Some(_) => Waits::Unmet,
        None => Waits::No,
    }
}

impl Waits {
    /// Whether the producer's rings fill with what that consumer does not read.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Self::Yes | Self::Unmet)
    }
}

/// How far that consumer is behind on that lane; none if the two have nothing to do with each other.
///
/// A consumer that the producer has seen and that has not attached to the lane has read nothing of it: all that is
/// retained is kept for it, and the producer's rings fill as with any other.
pub(crate) fn lag(lane: &LaneStatus, consumer: &CursorsStatus) -> Option<[Lag; 4]> {
    let Some(cursor) = cursor(lane, consumer) else {
        return (waits(lane, consumer) == Waits::Unmet).then(|| {
            lane.rings.map(|ring| Lag {
                priority: ring.priority.index(),
                acknowledged: ring.oldest,
                unread_bytes: ring.position.saturating_sub(ring.oldest),
                // A producer counts the records of a ring from its making, and not those that are left.
                unread: (ring.position == ring.oldest).then_some(0),
                overtaken: false,
            })
        });
    };
    Some(lane.rings.map(|ring| {
        let at = ring.priority.index();
        let position = cursor.positions[at];
        Lag {
            priority: at,
            acknowledged: position,
            unread_bytes: ring.position.saturating_sub(position),
            unread: cursor.consumed[at].map(|consumed| ring.published.saturating_sub(consumed)),
            overtaken: position < ring.intact_from,
        }
    }))
}

/// The times of the oldest unread record of each ring: its own timestamp.
pub(crate) fn oldest_unread(
    bus: &str,
    lane: &LaneStatus,
    place: Place<'_>,
    lags: &[Lag; 4],
) -> [Option<i64>; 4] {
    let positions = lags.map(|lag| (lag.unread_bytes > 0 && !lag.overtaken).then_some(lag.acknowledged));
    // A lane that goes at this moment has nothing unread.
    inspect::times_at(bus, &lane.name, place, positions).unwrap_or_default()
}
