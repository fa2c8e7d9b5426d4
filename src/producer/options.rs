//! How a lane is opened: created, or adopted from a producer that has died.

#![allow(unsafe_code)]

use crate::sync::Ordering;
use std::ops::ControlFlow;
use std::time::Duration;

use super::consumers::Consumers;
use super::{KIND, Producer, data_offsets, lane_header};
use crate::bus::segment_file;
use crate::clock::{self, WallClock};
use crate::codec::form::{FINGERPRINT_SEED, mix, mix_text};
use crate::doorbell;
use crate::layout::{self, LANE_MAGIC, LaneHeader, init_lane, lane_capacities, lane_len};
use crate::notification::Priority;
use crate::region::owned::{Origin, OwnedSegment};
use crate::region::{OpenError, Trust, fork};
use crate::ring::reader::RingReader;
use crate::ring::writer::RingWriter;
use crate::ring::{COUNT_MAX, Place};

/// Capacities by default: the counts that were asked for, of records of 256 bytes.
const CAPACITIES: [usize; 4] = [10_000 * 256, 50_000 * 256, 100_000 * 256, 50_000 * 256];

/// Length of a lane with these capacities, in bytes.
pub(crate) const DEFAULT_LEN: usize =
    layout::DATA_START + CAPACITIES[0] + CAPACITIES[1] + CAPACITIES[2] + CAPACITIES[3];

/// Largest capacity of one ring: positions must not overflow, and nobody has more memory.
const CAPACITY_MAX: usize = 1 << 40;

/// How a producer opens its lane.
///
/// ```
/// use bellwire::{Priority, ProducerOptions};
///
/// # let bus = format!("doc-{}-c", std::process::id());
/// let producer = ProducerOptions::new().capacity(Priority::P0, 1 << 20).open(&bus, "risk")?;
/// assert_eq!(producer.capacity(Priority::P0), 1 << 20);
/// # drop(producer);
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    group: Option<String>,
    capacities: [Option<usize>; 4],
    grace: Duration,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self { group: None, capacities: [None; 4], grace: Duration::from_secs(30) }
    }
}

impl ProducerOptions {
    /// The defaults: private to this user, about 54 MB, a grace time of 30 seconds.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the members of this group read the lane (mode 0640), and trusts consumers whose segments belong to it.
    /// Without a group the lane is private to this user (mode 0600).
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Capacity of one ring, in bytes: a multiple of 4096. By default P0, P1, P2, P3 hold 10,000, 50,000, 100,000 and
    /// 50,000 records of 256 bytes.
    #[must_use]
    pub fn capacity(mut self, priority: Priority, bytes: usize) -> Self {
        self.capacities[priority.index()] = Some(bytes);
        self
    }

    /// How long a consumer may be dead before a full ring stops waiting for it.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Creates the lane, or adopts the one that the last producer of this name left and continues its sequence.
    ///
    /// # Errors
    /// [`OpenError`]; among others: a live process has the lane ([`OpenError::InUse`]); /dev/shm has no room
    /// ([`OpenError::NoSpace`]); the lane is of another build ([`OpenError::Identity`]) or of somebody else
    /// ([`OpenError::ForeignOwner`]); it exists with capacities other than those given here
    /// ([`OpenError::Capacities`]). Capacities that were not given are taken as they are found.
    pub fn open(self, bus: &str, producer: &str) -> Result<Producer, OpenError> {
        let file = segment_file(bus, KIND, producer)?;
        for (priority, bytes) in Priority::ALL.into_iter().zip(self.capacities) {
            if let Some(bytes) = bytes
                && (bytes == 0 || bytes % layout::PAGE != 0 || bytes > CAPACITY_MAX)
            {
                return Err(OpenError::Capacity { priority, bytes });
            }
        }
        let trust = Trust::with_group(self.group.as_deref())?;
        let mut capacities = CAPACITIES;
        for (capacity, asked) in capacities.iter_mut().zip(self.capacities) {
            *capacity = asked.unwrap_or(*capacity);
        }

        let mut clock = WallClock::new();
        let now = clock::wall_ns();
        let key = mix(mix(mix_text(FINGERPRINT_SEED, &file), now as u64), u64::from(std::process::id()));
        let header = new_header(producer, capacities, key, now);
        let (segment, origin) = OwnedSegment::open(&file, lane_len(capacities), &header, &trust)?;
        let capacities = check(&segment, producer, self.capacities)?;
        segment.populate()?;
        // That took a while, in which the clock could be measured; the look below is the second measure.
        clock.look();

        let header = lane_header(&segment);
        let registered = doorbell::register_for_barriers();
        // Relaxed: for people.
        header.owner.opened_at.store(now, Ordering::Relaxed);

        let offsets = data_offsets(capacities);
        let mut sequence = 0;
        let mut places = [Place::default(); 4];
        let mut anchors = [Place::default(); 4];
        for index in 0..4 {
            let last = last_record(&segment, header, index, offsets[index], capacities[index])?;
            places[index] = last.place;
            anchors[index] = last.anchor;
            sequence = sequence.max(last.sequence);
        }
        let rings = std::array::from_fn(|index| {
            let data = segment.base().wrapping_add(offsets[index]);
            let capacity = capacities[index] as u64;
            // SAFETY: `check` found header and rings to lie within the segment, which the `Producer` keeps as long as
            // the writers; holding its lock we are the only one who writes.
            unsafe {
                RingWriter::new(&raw const header.rings[index], data, capacity, places[index], anchors[index])
            }
        });
        let key = header.identity.key.load(Ordering::Relaxed); // written once, before the file had a name
        let mut producer = Producer {
            rings,
            consumers: Consumers::new(bus, key, trust, self.grace),
            sequence,
            tag: (key ^ (key >> 32)) as u32,
            clock,
            looked_at: now,
            generation: fork::generation(),
            refused: [0; 4],
            adopted: origin == Origin::Adopted,
            short: None,
            name: producer.to_owned(),
            segment,
        };
        // Whom an earlier owner has promised to wait for must be known before anything is published.
        producer.look_at(now)?;
        // Sleepers look again: at our records, and at whether we can be fenced.
        doorbell::greet(producer.header(), registered);
        Ok(producer)
    }
}

/// The bytes of a new lane's header.
fn new_header(name: &str, capacities: [usize; 4], key: u64, created_at: i64) -> Vec<u8> {
    // SAFETY: the header is made of atomic integers, for which zeros are values.
    let header: Box<LaneHeader> = unsafe { Box::<LaneHeader>::new_zeroed().assume_init() };
    init_lane(&header, name, capacities, key, created_at);
    header.owner.pid.store(std::process::id(), Ordering::Relaxed); // nobody else knows the header yet
    // SAFETY: as many initialised bytes as the header has (zeroed as a whole, padding too); nobody else knows it.
    unsafe { std::slice::from_raw_parts((&raw const *header).cast::<u8>(), size_of::<LaneHeader>()) }.to_vec()
}

/// Checks a lane that may be somebody else's leftover.
fn check(segment: &OwnedSegment, name: &str, asked: [Option<usize>; 4]) -> Result<[usize; 4], OpenError> {
    let path = segment.path();
    let header = lane_header(segment);
    let len = segment.len() as u64;
    header.identity.check(LANE_MAGIC, len).map_err(|reason| OpenError::identity(path, reason))?;
    OpenError::unless_named(path, &header.identity.name.load(), name)?;
    let found = lane_capacities(header, len).map_err(|reason| OpenError::identity(path, reason))?;
    if asked.iter().zip(found).any(|(asked, found)| asked.is_some_and(|asked| asked != found)) {
        let mut wanted = found;
        for (wanted, asked) in wanted.iter_mut().zip(asked) {
            *wanted = asked.unwrap_or(*wanted);
        }
        return Err(OpenError::Capacities { path: path.to_owned(), found, asked: wanted });
    }
    Ok(found)
}

/// What the last owner left in a ring.
#[derive(Default)]
struct Last {
    /// The end of what is committed.
    place: Place,
    /// The newest landmark before it.
    anchor: Place,
    /// Lane sequence of the last record; 0: none.
    sequence: u64,
}

/// Finds the end of what is committed in a ring.
fn last_record(
    segment: &OwnedSegment,
    header: &LaneHeader,
    index: usize,
    offset: usize,
    capacity: usize,
) -> Result<Last, OpenError> {
    let corrupt = |what: String| OpenError::Corrupt {
        path: segment.path().to_owned(),
        what: format!("ring P{index}: {what}"),
    };
    let ring = &header.rings[index];
    // Relaxed: holding the lock we are the only one who writes, and the last owner is dead.
    let position = ring.commit.position.load(Ordering::Relaxed);
    let reserved = ring.reservation.reserved.load(Ordering::Relaxed);
    if position > reserved {
        return Err(corrupt(format!("committed up to {position}, reserved only up to {reserved}")));
    }
    if position > COUNT_MAX {
        return Err(corrupt(format!("position {position}, beyond all that a lane can hold; make it anew")));
    }
    let newest = ring.newest_before(position, capacity as u64);
    let newest = newest.ok_or_else(|| corrupt(format!("no landmark before the end at {position}")))?;
    // A writer keeps it intact. If it is not, readers that are not gated would find nothing from which to go on.
    if newest.position < reserved.saturating_sub(capacity as u64) {
        let last = newest.position;
        return Err(corrupt(format!(
            "reserved up to {reserved}, beyond the newest landmark at {last} by more than a lap"
        )));
    }
    let data = segment.base().wrapping_add(offset);
    // SAFETY: `check` found the ring to lie within the segment, which outlives this function.
    let reader = unsafe { RingReader::new(&raw const *ring, data, capacity as u64, index as u8, newest) };
    let mut sequence = 0;
    let end = reader.scan(newest, true, |_, header| {
        sequence = header.lane_sequence;
        ControlFlow::Continue(())
    });
    match end {
        Ok(end) if sequence > COUNT_MAX || end.ordinal > COUNT_MAX => Err(corrupt(format!(
            "lane sequence {sequence}, {} records: beyond all that a lane can hold; make it anew",
            end.ordinal
        ))),
        Ok(end) if end.position == position => Ok(Last { place: end, anchor: newest, sequence }),
        Ok(end) => Err(corrupt(format!("records end at {}, committed up to {position}", end.position))),
        Err(fault) => Err(corrupt(fault.to_string())),
    }
}
