//! Looking at a bus without disturbing it: segments, lanes and cursors as they are now, through read-only mappings.

#[cfg(not(bellwire_loom))]
mod kernel;
mod place;
#[cfg(not(bellwire_loom))]
mod stamp;

use crate::sync::Ordering;
use std::path::PathBuf;

use crate::bus::{NameError, SegmentKind};
use crate::layout::{CursorsHeader, LaneHeader};
use crate::notification::Priority;
use crate::region::OpenError;
#[cfg(not(bellwire_loom))]
use crate::region::Trust;
use crate::region::foreign::{ForeignCursors, ForeignLane};
use crate::tap::{Tap, TapStart};

#[cfg(not(bellwire_loom))]
pub use crate::region::removal::Seized;
#[cfg(not(bellwire_loom))]
pub use kernel::{KernelFeatures, kernel_features};
pub use place::Place;
#[cfg(not(bellwire_loom))]
pub use stamp::Stamp;

/// Length of a lane with the capacities that it has by default, in bytes.
pub const DEFAULT_LANE_BYTES: u64 = crate::producer::DEFAULT_LEN as u64;

/// A segment's file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The file.
    pub path: PathBuf,
    /// The bus that it belongs to.
    pub bus: String,
    /// Lane or cursors.
    pub kind: SegmentKind,
    /// The producer's or consumer's name.
    pub name: String,
    /// The user that owns the file.
    pub uid: u32,
    /// The group that the file belongs to.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
    /// Length, in bytes.
    pub len: u64,
    /// Tells the file from another that gets its name later.
    pub inode: u64,
    /// Whether its owner lives. `None`: we may not even open the file.
    pub held: Option<bool>,
}

/// A lane as it was when it was read.
#[derive(Clone, Debug)]
pub struct LaneStatus {
    /// The producer's name.
    pub name: String,
    /// The segment's file.
    pub path: PathBuf,
    /// Tells this lane from any other that had or will have the same name.
    pub key: u64,
    /// When the segment was made, in nanoseconds since the Unix epoch.
    pub created_at: i64,
    /// When its owner opened it, likewise.
    pub opened_at: i64,
    /// The owner, or the last one if it died; 0 if it gave the segment up in order.
    pub pid: u32,
    /// Whether the owner lives.
    pub held: bool,
    /// Whether readers may sleep on it for longer than a millisecond.
    pub membarrier: bool,
    /// Wall clock minus monotonic clock in nanoseconds, at the producer's last look; 0 if there was none.
    pub wall_minus_monotonic: i64,
    /// How often somebody was woken.
    pub doorbell: u32,
    /// P0 to P3.
    pub rings: [RingStatus; 4],
    /// The consumers that its producer knows.
    pub consumers: Vec<AckStatus>,
}

/// A ring as it was when it was read. All counts in bytes unless said otherwise.
#[derive(Clone, Copy, Debug)]
pub struct RingStatus {
    /// Which ring.
    pub priority: Priority,
    /// How many bytes it holds.
    pub capacity: u64,
    /// Bytes ever committed.
    pub position: u64,
    /// Position of the oldest record that a newcomer finds: a landmark. There may be a few before it.
    pub oldest: u64,
    /// What begins at or behind this position was not overwritten yet.
    pub intact_from: u64,
    /// Records ever committed.
    pub published: u64,
    /// Publishes refused because the ring was full.
    pub refused: u64,
    /// Most bytes unread by the slowest consumer at any look of the producer.
    pub high_water: u64,
}

/// A consumer as a lane's producer sees it.
#[derive(Clone, Debug)]
pub struct AckStatus {
    /// Key of the consumer's cursor segment.
    pub key: u64,
    /// The consumer's name.
    pub name: String,
    /// The attachment that the producer promised not to overtake; 0: none.
    pub attachment: u64,
    /// How often the producer stopped waiting for it because it was dead for too long.
    pub released: u64,
}

/// A consumer's cursors as they were when they were read.
#[derive(Clone, Debug)]
pub struct CursorsStatus {
    /// The consumer's name.
    pub name: String,
    /// The segment's file.
    pub path: PathBuf,
    /// Tells this segment from any other that had or will have the same name.
    pub key: u64,
    /// When the segment was made, in nanoseconds since the Unix epoch.
    pub created_at: i64,
    /// When its owner opened it, likewise.
    pub opened_at: i64,
    /// The owner, or the last one if it died; 0 if it gave the segment up in order.
    pub pid: u32,
    /// Whether the owner lives.
    pub held: bool,
    /// How often it was opened.
    pub attachment: u64,
    /// How often it went to sleep.
    pub parked: u32,
    /// The mark of its last commit.
    pub mark: u64,
    /// The lanes that it has cursors for.
    pub lanes: Vec<CursorStatus>,
}

/// One consumer's cursors over one lane.
#[derive(Clone, Debug)]
pub struct CursorStatus {
    /// Key of the lane.
    pub lane_key: u64,
    /// Name of the lane's producer.
    pub lane_name: String,
    /// Committed position in P0 to P3.
    pub positions: [u64; 4],
    /// Records consumed of P0 to P3; `None` where it cannot be told.
    pub consumed: [Option<u64>; 4],
}

/// The names of all buses on this machine, sorted.
pub fn buses() -> Vec<String> {
    Place::from(None).buses().unwrap_or_default()
}

/// The segments of a bus, lanes first, by name. Also those that this user may not open.
///
/// # Errors
/// [`NameError`]: no bus can have that name.
pub fn segments(bus: &str) -> Result<Vec<Segment>, NameError> {
    Place::from(None).segments(bus)
}

#[cfg(not(bellwire_loom))]
impl Segment {
    /// Holds the segment so that nobody can become its owner, for removing it. It must be this very file still, of this
    /// user or of the members of `group`, and its owner dead.
    ///
    /// # Errors
    /// [`OpenError`]; among others [`OpenError::InUse`] and [`OpenError::Replaced`].
    pub fn seize(&self, group: Option<&str>) -> Result<Seized, OpenError> {
        Seized::new(&self.path, self.inode, &Trust::with_group(group)?)
    }
}

impl LaneStatus {
    /// Reads the header of a lane of this user, or of the members of a group, or of a copy.
    ///
    /// # Errors
    /// [`OpenError`] if it is not there, not ours to read, or not a lane of this build.
    pub fn read<'a>(bus: &str, lane: &str, place: impl Into<Place<'a>>) -> Result<Self, OpenError> {
        let place = place.into();
        let lane = ForeignLane::open_at(place.path(bus, SegmentKind::Lane, lane)?, &place.trust()?)?;
        let header: &LaneHeader = lane.header();
        // Relaxed throughout: a picture for people, no part of which need fit the others.
        let rings = std::array::from_fn(|index| {
            let ring = &header.rings[index];
            let capacity = lane.capacities()[index] as u64;
            RingStatus {
                priority: Priority::ALL[index],
                capacity,
                position: ring.commit.position.load(Ordering::Relaxed),
                oldest: ring.oldest(capacity).map_or(0, |place| place.position),
                intact_from: ring.reservation.reserved.load(Ordering::Relaxed).saturating_sub(capacity),
                published: ring.commit.records.load(Ordering::Relaxed),
                refused: ring.reservation.refused.load(Ordering::Relaxed),
                high_water: ring.reservation.high_water.load(Ordering::Relaxed),
            }
        });
        let acks = header.acks.iter().filter(|ack| ack.key.load(Ordering::Relaxed) != 0);
        let consumers = acks.map(|ack| AckStatus {
            key: ack.key.load(Ordering::Relaxed),
            name: ack.name.load(),
            attachment: ack.attachment.load(Ordering::Relaxed),
            released: ack.released.load(Ordering::Relaxed),
        });
        let status = Self {
            name: header.identity.name.load(),
            path: lane.segment().path().to_owned(),
            key: header.identity.key.load(Ordering::Relaxed),
            created_at: header.identity.created_at.load(Ordering::Relaxed),
            opened_at: header.owner.opened_at.load(Ordering::Relaxed),
            pid: header.owner.pid.load(Ordering::Relaxed),
            held: lane.segment().owner_lives(),
            membarrier: header.owner.membarrier.load(Ordering::Relaxed) != 0,
            wall_minus_monotonic: header.owner.wall_minus_monotonic.load(Ordering::Relaxed),
            doorbell: header.doorbell.load(Ordering::Relaxed),
            rings,
            consumers: consumers.collect(),
        };
        lane.segment().still_whole()?;
        Ok(status)
    }
}

impl CursorsStatus {
    /// Reads the cursors of a consumer of this user, or of the members of a group, or of a copy.
    ///
    /// # Errors
    /// [`OpenError`] if they are not there, not ours to read, or not of this build.
    pub fn read<'a>(bus: &str, consumer: &str, place: impl Into<Place<'a>>) -> Result<Self, OpenError> {
        let place = place.into();
        let path = place.path(bus, SegmentKind::Cursors, consumer)?;
        let cursors = ForeignCursors::open_at(path, &place.trust()?)?;
        let header: &CursorsHeader = cursors.header();
        // Relaxed throughout: a picture for people, no part of which need fit the others.
        let used = header.slots.iter().filter(|slot| slot.lane_key.load(Ordering::Relaxed) != 0);
        let lanes = used.map(|slot| CursorStatus {
            lane_key: slot.lane_key.load(Ordering::Relaxed),
            lane_name: slot.lane_name.load(),
            positions: slot.cursors.each_ref().map(|cursor| cursor.position()),
            consumed: slot.cursors.each_ref().map(|cursor| cursor.ordinal()),
        });
        let status = Self {
            name: header.identity.name.load(),
            path: cursors.segment().path().to_owned(),
            key: header.identity.key.load(Ordering::Relaxed),
            created_at: header.identity.created_at.load(Ordering::Relaxed),
            opened_at: header.owner.opened_at.load(Ordering::Relaxed),
            pid: header.owner.pid.load(Ordering::Relaxed),
            held: cursors.segment().owner_lives(),
            attachment: header.owner.attachment.load(Ordering::Relaxed),
            parked: header.parked.load(Ordering::Relaxed),
            mark: header.mark.load(Ordering::Relaxed),
            lanes: lanes.collect(),
        };
        cursors.segment().still_whole()?;
        Ok(status)
    }
}

/// The time of the record at each of these positions of a lane's rings, in nanoseconds since the Unix epoch: its own
/// timestamp, given or that of publishing. `None` where no record begins there, or none is left.
///
/// # Errors
/// As for [`LaneStatus::read`].
pub fn times_at<'a>(
    bus: &str,
    lane: &str,
    place: impl Into<Place<'a>>,
    positions: [Option<u64>; 4],
) -> Result<[Option<i64>; 4], OpenError> {
    let mut tap = Tap::open_in(bus, lane, TapStart::Oldest, place)?;
    Ok(Priority::ALL.map(|priority| tap.time_at(priority, positions[priority.index()]?)))
}

/// Removes the segments of a bus that nobody holds, of this user; tells which. What they still held is gone.
///
/// Segments with a live owner stay. Between the look and the removal a new owner could adopt a segment: use it on buses
/// that are no longer in use.
///
/// # Errors
/// [`NameError`]: no bus can have that name. Files that cannot be removed stay and are not in the list.
pub fn remove_unheld(bus: &str) -> Result<Vec<PathBuf>, NameError> {
    let uid = nix::unistd::geteuid().as_raw();
    let unheld =
        segments(bus)?.into_iter().filter(|segment| segment.uid == uid && segment.held == Some(false));
    Ok(unheld
        .filter(|segment| std::fs::remove_file(&segment.path).is_ok())
        .map(|segment| segment.path)
        .collect())
}
