//! The lossy reader: sees what goes by, invisible to everybody, slows nobody down.

#![allow(unsafe_code)]

use std::time::Duration;

use crate::bus::SegmentKind;
use crate::doorbell::{self, Sleep};
use crate::inspect;
use crate::notification::{NotificationView, Priority};
use crate::producer::data_offsets;
use crate::record::{RECORD_HEADER_LEN, RecordError, RecordHeader};
use crate::region::OpenError;
use crate::region::foreign::ForeignLane;
use crate::ring::Place;
use crate::ring::reader::{Next, RingFault, RingReader};

use crate::sync::Ordering;
use std::ops::ControlFlow;

/// Where a tap begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapStart {
    /// At the oldest record that the ring retains.
    Oldest,
    /// Behind the newest record.
    Now,
}

/// What a tap finds.
#[derive(Debug)]
pub enum TapPoll<'a> {
    /// The next record, copied out whole.
    Record(TapRecord<'a>),
    /// Nothing behind the last one yet.
    Empty,
    /// The producer was faster: exactly so many records were overwritten unseen. The next poll goes on behind them.
    Lost {
        /// How many.
        records: u64,
    },
}

/// A record that a tap copied out.
#[derive(Debug)]
pub struct TapRecord<'a> {
    /// Its header.
    pub header: RecordHeader,
    /// Its archive: the tap's own copy.
    pub archive: &'a [u8],
}

impl<'a> TapRecord<'a> {
    /// The notification, validated.
    ///
    /// # Errors
    /// [`RecordError`]: it is not a record that a producer of this build writes.
    pub fn view(&self) -> Result<NotificationView<'a>, RecordError> {
        self.header.view(self.archive)
    }
}

/// A lossy reader of one lane, for monitors and for people.
///
/// It maps the lane read-only and has no segment: no producer knows of it, waits for it or wakes it. It copies each
/// record and checks that it was not overwritten meanwhile; what it missed it counts exactly.
///
/// ```
/// use bellwire::{Level, Notification, Priority, Producer, SystemNotice, Tap, TapPoll, TapStart};
///
/// # let bus = format!("doc-{}-f", std::process::id());
/// let mut producer = Producer::open(&bus, "matching-engine")?;
/// let mut tap = Tap::open(&bus, "matching-engine", TapStart::Oldest)?;
/// let notice = SystemNotice { title: "Hello", content: "", level: Level::Info, timestamp: 0 };
/// producer.publish(&Notification::to_all("MatchingEngine", notice))?;
///
/// let TapPoll::Record(record) = tap.poll(Priority::P3)? else { panic!("a record is there") };
/// assert_eq!(record.view()?.user_id(), "*");
/// assert!(matches!(tap.poll(Priority::P3)?, TapPoll::Empty));
/// # drop(producer);
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Tap {
    // Declared before the mapping that they point into.
    rings: [RingReader; 4],
    scratch: Vec<u8>,
    lost: [u64; 4],
    lane: ForeignLane,
}

// SAFETY: the raw pointers of the readers lead into `lane`, which moves along with them.
unsafe impl Send for Tap {}

impl Tap {
    /// Opens a tap on a lane of this user.
    ///
    /// # Errors
    /// [`OpenError`]; among others [`OpenError::NotFound`].
    pub fn open(bus: &str, lane: &str, start: TapStart) -> Result<Self, OpenError> {
        Self::open_in(bus, lane, start, None)
    }

    /// Opens a tap on a lane of this user or of a group (`Some("name")`), or on a copy.
    ///
    /// # Errors
    /// [`OpenError`]; among others [`OpenError::NotFound`].
    pub fn open_in<'a>(
        bus: &str,
        lane: &str,
        start: TapStart,
        place: impl Into<inspect::Place<'a>>,
    ) -> Result<Self, OpenError> {
        let place: inspect::Place<'_> = place.into();
        let lane = ForeignLane::open_at(place.path(bus, SegmentKind::Lane, lane)?, &place.trust()?)?;
        let offsets = data_offsets(lane.capacities());
        let rings = std::array::from_fn(|index| {
            let place = Place { position: 0, ordinal: 0 };
            let header = &raw const lane.header().rings[index];
            let data = lane.segment().base().wrapping_add(offsets[index]);
            let capacity = lane.capacities()[index] as u64;
            // SAFETY: the capacities were checked against the file's length, and the tap keeps the mapping as long as
            // the readers.
            unsafe { RingReader::new(header, data, capacity, index as u8, place) }
        });
        let mut tap = Self { rings, scratch: Vec::new(), lost: [0; 4], lane };
        for ring in &mut tap.rings {
            let place = match start {
                TapStart::Oldest => ring.header().oldest(ring.capacity()),
                TapStart::Now => newest(ring),
            };
            if let Some(place) = place {
                ring.seek(place);
            }
        }
        tap.lane.segment().still_whole()?;
        Ok(tap)
    }

    /// The next record of a ring.
    ///
    /// # Errors
    /// [`RingFault`]: the ring breaks a rule; it will break it again.
    pub fn poll(&mut self, priority: Priority) -> Result<TapPoll<'_>, RingFault> {
        let ring = &mut self.rings[priority.index()];
        let next = ring.next_ungated(&mut self.scratch);
        // Whatever was read of memory that is gone is nothing.
        if let Some(fault) = self.lane.segment().fault() {
            return Err(fault.into());
        }
        match next? {
            Next::Empty => Ok(TapPoll::Empty),
            Next::Overrun { lost } => {
                let total = &mut self.lost[priority.index()];
                *total = total.saturating_add(lost); // a claim of the lane's
                Ok(TapPoll::Lost { records: lost })
            }
            Next::Record => {
                let header = *ring.found();
                ring.advance();
                let archive =
                    &self.scratch[RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.archive_len as usize];
                Ok(TapPoll::Record(TapRecord { header, archive }))
            }
        }
    }

    /// Records of each ring that were overwritten unseen so far.
    pub fn lost(&self) -> [u64; 4] {
        self.lost
    }

    /// Waits for records, for as long as `timeout`. Nobody rings for a tap: it looks every few milliseconds, or when
    /// the producer rings for somebody else.
    pub fn wait(&self, timeout: Duration) -> bool {
        const LOOK: Duration = Duration::from_millis(5);
        let deadline = std::time::Instant::now() + timeout;
        loop {
            let bell = &*self.lane.header().doorbell;
            let value = bell.load(Ordering::Relaxed); // what a ring that is missed costs is one LOOK
            if self.rings.iter().any(RingReader::has_more) || self.lane.segment().fault().is_some() {
                return true;
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            doorbell::sleep(&[Sleep { word: bell, value }], left.min(LOOK));
        }
    }

    /// Goes there, and tells the time of the record at that position of a ring, in nanoseconds since the Unix epoch; `None` if there is none yet, or
    /// none any more, or the position is none at which a record begins.
    pub(crate) fn time_at(&mut self, priority: Priority, position: u64) -> Option<i64> {
        let ring = &mut self.rings[priority.index()];
        if !position.is_multiple_of(crate::record::RECORD_ALIGN as u64) {
            return None;
        }
        let place = Place { position, ordinal: 0 };
        // Before the oldest landmark there may be records still: the scan sees whether they are intact.
        ring.seek(place);
        let mut time = None;
        let first = |_, header: &RecordHeader| {
            time = Some(header.timestamp);
            ControlFlow::Break(())
        };
        ring.scan(place, false, first).ok()?;
        time.filter(|_| self.lane.segment().fault().is_none())
    }

    /// Whether the lane's producer lives.
    pub fn producer_lives(&self) -> bool {
        self.lane.segment().owner_lives()
    }
}

/// The place behind the newest record.
pub(crate) fn newest(ring: &mut RingReader) -> Option<Place> {
    // Should the producer overtake us while we walk, then where we have come is new enough.
    let place = ring.header().newest_before(ring.committed().max(1), ring.capacity())?;
    ring.seek(place);
    ring.scan(place, false, |_, _| ControlFlow::Continue(())).ok()
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("lane", &self.lane.segment().path()).field("lost", &self.lost).finish()
    }
}
