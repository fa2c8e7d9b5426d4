//! The writing side of the bus: one producer, one lane, four rings.
//!
//! - [`options`]: how a lane is opened.
//! - [`consumers`]: whom the producer waits for and whom it wakes; all of that happens in the slow path.
//! - [`batch`]: several notifications, one clock read, one commit.

mod batch;
pub(crate) mod consumers;
mod options;

pub use batch::Batch;
pub(crate) use options::DEFAULT_LEN;
pub use options::ProducerOptions;

use crate::bus::SegmentKind;
use crate::clock::{self, WallClock};
use crate::codec::EncodeError;
use crate::encoded::Publishable;
use crate::layout::{DATA_START, LaneHeader};
use crate::notification::{MessageId, Priority};
use crate::record::record_len;
use crate::region::fork;
use crate::region::owned::OwnedSegment;
use crate::region::{OpenError, SegmentFault};
use crate::ring::record_len_max;
use crate::ring::writer::RingWriter;
use crate::sync::Ordering;
use consumers::Consumers;

/// How often a publishing producer looks for new, moved and dead consumers, in nanoseconds.
const LOOK_INTERVAL_NS: u64 = 100_000_000;

/// A full ring looks for consumers anew at most this often.
const FULL_LOOK_INTERVAL_NS: u64 = 1_000_000;

/// The producer of one lane.
///
/// # Cost
/// [`publish`](Self::publish) neither allocates nor locks nor makes a system call, except: when a consumer sleeps it
/// wakes it (one call, once per sleep); and ten times a second, or when a ring is full, it looks for new, moved and
/// dead consumers (a `stat` of /dev/shm and of the lane, an `fcntl` and an `fstat` a consumer; allocation only when a
/// consumer appears).
///
/// # When its ring is full
/// [`PublishError::Full`], at once: nothing is overwritten that a consumer of the bus has not read, and nothing is
/// lost silently. (A consumer that is dead, or does not attach to this lane, for longer than the grace time is given up.)
/// Try again, shed, or stop trading: the caller decides. With no consumer at all on the bus the oldest records are
/// overwritten.
///
/// # When somebody truncates a segment
/// Whoever may write a consumer's cursors could so end every engine, with SIGBUS: an engine that is to survive it calls
/// [`guard_mappings`](crate::guard_mappings) when it starts. Its own lane, truncated, is then [`PublishError::Segment`].
///
/// # When it dies
/// The lane stays as it is, with every record whose publish had returned. The next producer of the same name adopts it
/// and continues its sequence.
///
/// # Threads and forks
/// `Send`, and `publish` takes `&mut self`: several publishing threads open a lane each, or share one behind their own
/// lock. A forked child gets [`PublishError::Forked`].
///
/// ```
/// use bellwire::{Notification, Producer, SystemNotice, Level};
///
/// # let bus = format!("doc-{}-a", std::process::id());
/// let mut producer = Producer::open(&bus, "matching-engine")?;
/// let notice = SystemNotice { title: "Hello", content: "The bus is up", level: Level::Info, timestamp: 0 };
/// let published = producer.publish(&Notification::to_all("MatchingEngine", notice))?;
/// assert_eq!(published.lane_sequence, 1);
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # drop(producer);
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Producer {
    // Declared before the segment: dropped first, so that no writer outlives what it points into.
    rings: [RingWriter; 4],
    consumers: Consumers,
    /// Lane sequence of the last record written.
    sequence: u64,
    /// Part of every id that this lane composes.
    tag: u32,
    clock: WallClock,
    /// Wall clock at the last look at consumers.
    looked_at: i64,
    /// [`fork::generation`] when it was opened.
    generation: u32,
    refused: [u64; 4],
    adopted: bool,
    /// The lane's file was found to be shorter than it was.
    short: Option<SegmentFault>,
    name: String,
    segment: OwnedSegment,
}

/// What became of a notification that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its id, given or composed.
    pub message_id: MessageId,
    /// The how-many-th record of the lane it is, from 1, over all four rings.
    pub lane_sequence: u64,
    /// Its time, given or that of publishing, in nanoseconds since the Unix epoch.
    pub timestamp: i64,
}

/// Why a notification was not published. Nothing of it is visible to anybody, and, but for the last two, publishing can be
/// tried again.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The notification cannot be put into a record.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Its record is longer than the ring allows.
    #[error("the record would have {len} bytes; the most this ring takes is {max}")]
    TooLarge {
        /// Length of the record, header included, in bytes.
        len: usize,
        /// The lesser of 64 KiB and a quarter of the ring's capacity.
        max: usize,
    },
    /// The ring holds what a gating consumer has not read. Counted in the lane.
    #[error("ring {priority} is full: {unread} of {capacity} bytes are unread by the slowest consumer")]
    Full {
        /// Which ring.
        priority: Priority,
        /// Its capacity, in bytes.
        capacity: u64,
        /// Bytes that the slowest gating consumer has not read.
        unread: u64,
    },
    /// This process is a forked child of the one that opened the lane.
    #[error("this process is a forked child: the lane belongs to its parent; open another one")]
    Forked,
    /// The memory of the lane is gone, and what is written to it nobody sees. Drop the producer, remove the file and open
    /// the lane anew. Whether the notification of the first such refusal was seen is not known: publish it again, under
    /// the same message id.
    #[error(transparent)]
    Segment(#[from] SegmentFault),
}

/// What a producer has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records ever committed to each ring, by this and by earlier owners of the lane.
    pub published: [u64; 4],
    /// Publishes refused by each ring because it was full, by this owner.
    pub refused: [u64; 4],
    /// How often a sleeping consumer was woken.
    pub rings: u64,
    /// Consumers that the producer waits for.
    pub gating: usize,
    /// How often it stopped waiting for a consumer that was absent for longer than the grace time.
    pub released: u64,
}

impl Producer {
    /// Opens the lane of that name with the defaults of [`ProducerOptions`]: creates it, or adopts what the last
    /// producer of that name left.
    ///
    /// # Errors
    /// See [`ProducerOptions::open`].
    pub fn open(bus: &str, producer: &str) -> Result<Self, OpenError> {
        ProducerOptions::new().open(bus, producer)
    }

    /// The producer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the lane existed before.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// Capacity of a ring, in bytes.
    pub fn capacity(&self, priority: Priority) -> u64 {
        self.rings[priority.index()].capacity()
    }

    /// Lane sequence of the last published record; 0 if there is none.
    pub fn last_sequence(&self) -> u64 {
        self.sequence
    }

    /// Puts one notification ([`Notification`](crate::Notification), or one that is [`Encoded`](crate::Encoded)) into the ring of its priority and shows it to all readers.
    ///
    /// # Errors
    /// [`PublishError`]; nothing was published.
    #[inline]
    pub fn publish(&mut self, notification: &impl Publishable) -> Result<Published, PublishError> {
        let published = self.write(notification, self.clock.now())?;
        self.rings[notification.priority().index()].commit();
        self.consumers.wake(&lane_header(&self.segment).doorbell);
        // After the last store: if it went nowhere, so did the record.
        match self.segment.fault() {
            None => Ok(published),
            Some(fault) => Err(fault.into()),
        }
    }

    /// Begins a batch: what is pushed to it becomes visible together, ring by ring, with [`Batch::commit`].
    #[inline]
    pub fn batch(&mut self) -> Batch<'_> {
        let now = self.clock.now();
        Batch::new(self, now)
    }

    /// Looks for consumers now instead of at the next publish that is due to.
    ///
    /// For producers that publish rarely and want a new consumer to be acknowledged before they do.
    pub fn look(&mut self) {
        if !self.is_forked() {
            self.look_again(self.clock.now());
        }
    }

    /// What the producer has done.
    pub fn counters(&self) -> Counters {
        Counters {
            published: self.rings.each_ref().map(|ring| ring.committed().ordinal),
            refused: self.refused,
            rings: self.consumers.rings(),
            gating: self.consumers.gating(),
            released: self.consumers.released(),
        }
    }

    fn header(&self) -> &LaneHeader {
        lane_header(&self.segment)
    }

    /// Whether this process is a forked child of the one that opened the lane.
    #[inline]
    fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Writes one record behind those that are committed, without showing it.
    #[inline]
    fn write(&mut self, notification: &impl Publishable, now: i64) -> Result<Published, PublishError> {
        if self.is_forked() {
            return Err(PublishError::Forked);
        }
        // Wrapping: a wall clock that was set back counts as time passed, too.
        if now.wrapping_sub(self.looked_at) as u64 >= LOOK_INTERVAL_NS {
            self.look_again(now);
        }
        if let Some(fault) = self.short.or_else(|| self.segment.fault()) {
            return Err(fault.into());
        }
        let archive_len = notification.archive_len()?;
        let len = record_len(archive_len);
        let priority = notification.priority();
        if !self.rings[priority.index()].fits(len) {
            self.make_room(priority, len, now)?;
        }
        let header = notification.header(archive_len, self.sequence + 1, self.tag, now);
        self.rings[priority.index()].write(&header, |archive| notification.write_archive(archive))?;
        self.sequence += 1;
        Ok(Published {
            message_id: header.message_id,
            lane_sequence: self.sequence,
            timestamp: header.timestamp,
        })
    }

    /// The slow path of a ring: at the end of each 64th of it, and when it is full.
    #[cold]
    fn make_room(&mut self, priority: Priority, len: usize, now: i64) -> Result<(), PublishError> {
        let index = priority.index();
        let max = record_len_max(self.rings[index].capacity() as usize);
        if len > max {
            return Err(PublishError::TooLarge { len, max });
        }
        // First as things were at the last look, then as they are, then without those who are dead for too long.
        if self.rings[index].make_room(len).is_ok() {
            return Ok(());
        }
        self.consumers.update_slowest(&mut self.rings);
        if self.rings[index].make_room(len).is_ok() {
            return Ok(());
        }
        if now.wrapping_sub(self.looked_at) as u64 >= FULL_LOOK_INTERVAL_NS {
            self.look_again(now);
            self.consumers.release_absent(lane_header(&self.segment), &mut self.rings, index);
        }
        self.rings[index].make_room(len).map_err(|no_room| {
            self.rings[index].count_refusal();
            self.refused[index] += 1;
            PublishError::Full { priority, capacity: self.rings[index].capacity(), unread: no_room.unread }
        })
    }

    /// A look whose failure changes nothing: whoever is known stays known, and the next look tries again.
    #[cold]
    fn look_again(&mut self, now: i64) {
        let _ = self.look_at(now);
    }

    /// Looks for new, moved and dead consumers.
    ///
    /// # Errors
    /// Some that are not known yet could not be looked at.
    fn look_at(&mut self, now: i64) -> Result<(), OpenError> {
        self.looked_at = now;
        self.short = self.segment.look();
        let header = lane_header(&self.segment);
        header.owner.wall_minus_monotonic.store(
            self.clock.look().wrapping_sub(clock::monotonic_ns()),
            Ordering::Relaxed, // a hint for readers of latencies
        );
        let looked = self.consumers.look(header, &mut self.rings);
        for ring in &self.rings {
            ring.note_high_water();
        }
        looked
    }
}

/// Where each ring's records begin in the lane.
pub(crate) fn data_offsets(capacities: [usize; 4]) -> [usize; 4] {
    let mut at = DATA_START;
    capacities.map(|capacity| {
        let start = at;
        at += capacity;
        start
    })
}

#[allow(unsafe_code)]
fn lane_header(segment: &OwnedSegment) -> &LaneHeader {
    // SAFETY: `OwnedSegment::open` made sure that the segment is long enough for a header, and it is aligned to a
    // page; the header is made of atomics.
    unsafe { &*segment.base().cast::<LaneHeader>() }
}

const KIND: SegmentKind = SegmentKind::Lane;

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer")
            .field("lane", &self.segment.path())
            .field("sequence", &self.sequence)
            .finish()
    }
}

const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Producer>();
};

// SAFETY: the pointers lead into `segment`, which moves along with them, and nothing else in this process uses them.
#[allow(unsafe_code)]
unsafe impl Send for Producer {}
