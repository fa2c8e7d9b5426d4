//! The gated reading side: a named consumer that no producer overtakes.
//!
//! - [`options`]: how a consumer is opened.
//! - [`lanes`]: attaching to lanes as they come and go.
//! - [`slot`]: one record, in place or copied.
//! - [`waiting`]: spinning, parking, waking.
//! - [`round`]: rounds over all lanes with budgets, for plain consumers.

pub(crate) mod lanes;
mod options;
mod round;
mod slot;
pub(crate) mod waiting;

use crate::sync::Ordering;
use std::ops::ControlFlow;
use std::time::Duration;

pub use lanes::{LaneId, LaneInfo, Refresh};
pub use options::ReaderOptions;
pub use round::Budget;
pub use slot::Slot;
pub use waiting::{Wake, Waker};

use crate::layout::CursorsHeader;
use crate::notification::Priority;
use crate::record::RecordHeader;
use crate::region::OpenError;
use crate::region::fork;
use crate::region::owned::OwnedSegment;
use crate::ring::Place;
use crate::ring::reader::RingFault;
use lanes::Lanes;
use waiting::Bedside;

/// A rule that a lane broke. Its records are read no further.
pub type LaneFault = RingFault;

/// How far a scout has come in one ring; see [`Reader::scan`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Scout(u64, u64);

/// A named consumer of a bus: reads every record of every lane once, in the order of each ring.
///
/// Its cursors live in a segment of its own and survive it: the next process that opens the same name goes on behind the
/// last [`commit`](Self::commit). Several consumers read the same bus independently.
///
/// # Guarantees
/// A producer that has acknowledged the consumer (within 100 ms of its next publish) never overwrites what the consumer
/// has not committed; its publishes are refused with `Full` instead. Until then the reader copies records and checks
/// that it was not overtaken. If it was, or if it was dead for longer than the producer's grace time while a ring was
/// full, [`LaneInfo::lost`] tells exactly how many records of each ring are gone.
///
/// # When there is nothing
/// [`peek`](Self::peek) gives `None`; [`wait`](Self::wait) sleeps until a producer rings.
///
/// # When a producer dies
/// Its committed records are read as ever. The next producer of the name adopts the lane; the reader need not care.
///
/// # Forks
/// A forked child gets [`LaneFault::Forked`], and its commits are ignored: the cursors belong to its parent.
///
/// # Trust
/// [`Slot::view`] reads in place and trusts the producer not to rewrite what it published. A reader that trusts nobody
/// uses [`Slot::copy_archive`] and validates its own copy; everything else here is checked on a local copy either way.
///
/// ```
/// use std::time::Duration;
/// use bellwire::{Budget, Level, Notification, Producer, Reader, SystemNotice};
///
/// # let bus = format!("doc-{}-d", std::process::id());
/// let mut producer = Producer::open(&bus, "matching-engine")?;
/// let mut reader = Reader::open(&bus, "storage")?;
/// let notice = SystemNotice { title: "Hello", content: "", level: Level::Info, timestamp: 0 };
/// producer.publish(&Notification::to_all("MatchingEngine", notice))?;
///
/// reader.wait(Duration::from_secs(1));
/// let read = reader.round(Budget::default(), |lane, notification| {
///     assert_eq!(lane.name(), "matching-engine");
///     assert_eq!(notification.user_id(), "*");
/// });
/// assert_eq!(read, 1);
/// reader.commit(0);
/// # drop((producer, reader));
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Reader {
    // Declared before the segment that `lanes` writes cursors into.
    lanes: Lanes,
    bedside: Bedside,
    /// Room for a record that had to be copied.
    scratch: Vec<u8>,
    name: String,
    /// [`fork::generation`] when it was opened.
    generation: u32,
    segment: OwnedSegment,
}

impl Reader {
    /// Opens the consumer of that name with the defaults of [`ReaderOptions`], and attaches to all lanes of the bus.
    ///
    /// # Errors
    /// See [`ReaderOptions::open`].
    pub fn open(bus: &str, consumer: &str) -> Result<Self, OpenError> {
        ReaderOptions::new().open(bus, consumer)
    }

    /// The consumer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Looks for lanes that are new or gone, and tells what was found since the last call.
    ///
    /// [`wait`](Self::wait) and [`round`](Self::round) look by themselves, `wait` ten times a second at most, and what
    /// they find is told here. It costs one `stat` when nothing changed.
    pub fn refresh(&mut self) -> Refresh {
        if !self.is_forked() {
            self.lanes.refresh(cursors_header(&self.segment));
        }
        self.lanes.tell()
    }

    /// Whether this process is a forked child of the one that opened the consumer.
    #[inline]
    fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    /// The lanes that the reader is attached to.
    pub fn lanes(&self) -> impl Iterator<Item = LaneId> + Clone + use<> {
        self.lanes.ids()
    }

    /// What is known of a lane.
    ///
    /// # Panics
    /// If the id is not one of [`Self::lanes`] since the last refresh.
    pub fn lane(&self, id: LaneId) -> &LaneInfo {
        &self.lanes.get(id).info
    }

    /// The next unread record of a ring; the cursor stays where it is until [`Self::advance`]. `None`: there is nothing
    /// now, or the lane is quarantined.
    ///
    /// # Errors
    /// [`LaneFault`]: the lane broke a rule. It would break it again: [`quarantine`](Self::quarantine) it.
    #[inline]
    pub fn peek(&mut self, id: LaneId, priority: Priority) -> Result<Option<Slot<'_>>, LaneFault> {
        if self.is_forked() {
            return Err(LaneFault::Forked);
        }
        let attachment = self.lanes.attachment();
        let lane = self.lanes.get_mut(id);
        Ok(match lane.next(attachment, priority.index(), &mut self.scratch)? {
            Some(found) => Some(lane.slot(priority.index(), found, &self.scratch)),
            None => None,
        })
    }

    /// Moves the cursor behind the record that the last [`peek`](Self::peek) of that ring showed; without one it does
    /// nothing. Producers learn of it with the next [`commit`](Self::commit).
    #[inline]
    pub fn advance(&mut self, id: LaneId, priority: Priority) {
        self.lanes.get_mut(id).advance(priority.index());
    }

    /// The position up to which a ring's records are there now; compare with [`Slot::position`].
    #[inline]
    pub fn snapshot_end(&self, id: LaneId, priority: Priority) -> u64 {
        self.lanes.get(id).rings[priority.index()].committed()
    }

    /// Shows the headers of unread records behind the scout (or behind the cursor, if that has come further), and moves
    /// the scout on. Neither the cursor nor the records are touched. `Break` ends it before the record that it was
    /// shown, which is shown again next time.
    ///
    /// # Errors
    /// [`LaneFault`]: as for [`peek`](Self::peek).
    pub fn scan(
        &self,
        id: LaneId,
        priority: Priority,
        scout: &mut Scout,
        mut f: impl FnMut(&RecordHeader) -> ControlFlow<()>,
    ) -> Result<(), LaneFault> {
        let lane = self.lanes.get(id);
        if lane.info.quarantined.is_some() {
            return Ok(());
        }
        let ring = &lane.rings[priority.index()];
        let gated = lane.is_gated(self.lanes.attachment(), priority.index());
        let from = Place { position: scout.0, ordinal: scout.1 };
        let at = ring.scan(from, gated, |_, header| f(header))?;
        *scout = Scout(at.position, at.ordinal);
        Ok(())
    }

    /// Reads this lane no further. Its producer will see full rings once they are.
    pub fn quarantine(&mut self, id: LaneId, why: LaneFault) {
        self.lanes.get_mut(id).info.quarantined.get_or_insert(why);
    }

    /// Publishes every cursor that moved, so that producers may overwrite what lies behind it; then stores `mark` beside
    /// them: a number of the caller's, for example how far his own journal reached when he committed.
    ///
    /// A process killed in the middle has committed some rings and not others, and the mark is the previous one.
    pub fn commit(&mut self, mark: u64) {
        if self.is_forked() {
            return;
        }
        let header = cursors_header(&self.segment);
        self.lanes.commit(header);
        header.mark.store(mark, Ordering::Release); // a process killed in between has committed and not marked
    }

    /// The mark of the last commit, by this or by an earlier process of this consumer; 0 if there was none.
    pub fn mark(&self) -> u64 {
        cursors_header(&self.segment).mark.load(Ordering::Relaxed) // our own, or that of a process that is dead
    }

    /// Whether the consumer's own cursor segment is whole: if it is not, producers do not see what is committed, and the
    /// consumer has to open anew. Without [`guard_mappings`](crate::guard_mappings) a commit to a truncated one is SIGBUS.
    /// It costs one `fstat`.
    ///
    /// # Errors
    /// [`OpenError::Corrupt`] says what has become of the file.
    pub fn verify(&self) -> Result<(), OpenError> {
        match self.segment.look() {
            None => Ok(()),
            Some(fault) => {
                Err(OpenError::Corrupt { path: self.segment.path().to_owned(), what: fault.to_string() })
            }
        }
    }

    /// A handle that ends a [`wait`](Self::wait) from another thread.
    pub fn waker(&self) -> Waker {
        self.bedside.waker()
    }

    /// Waits until there is something to read, somebody uses the [`Waker`], or the time is over: spins briefly, then
    /// sleeps until a producer rings. Lanes that appear meanwhile are attached.
    pub fn wait(&mut self, timeout: Duration) -> Wake {
        if self.is_forked() {
            std::thread::sleep(timeout); // nobody rings for it
            return Wake::TimedOut;
        }
        waiting::wait(&mut self.lanes, &mut self.bedside, cursors_header(&self.segment), timeout)
    }

    /// Hands over what is there, most urgent first over all lanes, as far as the budget goes; tells how many
    /// notifications that were. A lane that breaks a rule is quarantined; see [`LaneInfo::quarantined`].
    ///
    /// It does not commit.
    pub fn round(
        &mut self,
        budget: Budget,
        f: impl FnMut(&LaneInfo, crate::notification::NotificationView<'_>),
    ) -> usize {
        if self.is_forked() {
            return 0;
        }
        self.lanes.refresh(cursors_header(&self.segment));
        round::round(&mut self.lanes, &mut self.scratch, budget, f)
    }
}

#[allow(unsafe_code)]
fn cursors_header(segment: &OwnedSegment) -> &CursorsHeader {
    // SAFETY: `OwnedSegment::open` made sure that the segment is long enough for a header, and it is aligned to a page;
    // the header is made of atomics.
    unsafe { &*segment.base().cast::<CursorsHeader>() }
}

// SAFETY: the raw pointers of the lanes' readers lead into mappings that the reader owns and that move along with it.
#[allow(unsafe_code)]
unsafe impl Send for Reader {}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("cursors", &self.segment.path()).finish()
    }
}
