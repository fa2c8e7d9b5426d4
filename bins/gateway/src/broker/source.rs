//! What the rounds need of the bus: a seam, so that they can be tested without shared memory.

use std::ops::ControlFlow;
use std::time::Duration;

use bellwire::{
    LANES_MAX, LaneFault, LaneId, OpenError, Priority, Reader, RecordHeader, Refresh, Scout, Slot, Waker,
};

/// The unread records of the lanes, each lane known by a small number.
pub(super) trait Source {
    type Unread<'a>: Unread
    where
        Self: 'a;
    /// How far headers were looked at ahead of the cursor.
    type Scout: Default;

    /// The next unread record of a ring.
    fn peek(&mut self, lane: usize, priority: Priority) -> Result<Option<Self::Unread<'_>>, LaneFault>;
    /// Moves behind the record that `peek` showed.
    fn advance(&mut self, lane: usize, priority: Priority);
    /// Position up to which records are there now.
    fn snapshot_end(&self, lane: usize, priority: Priority) -> u64;
    /// Shows headers behind the scout and moves it on; `Break` ends it before the header that it was shown.
    fn scan(
        &self,
        lane: usize,
        priority: Priority,
        scout: &mut Self::Scout,
        f: impl FnMut(&RecordHeader) -> ControlFlow<()>,
    ) -> Result<(), LaneFault>;
    /// Reads this lane no further.
    fn quarantine(&mut self, lane: usize, why: LaneFault);
    /// Lets producers overwrite what was moved over.
    fn commit(&mut self, mark: u64);
}

/// One unread record.
pub(super) trait Unread {
    fn header(&self) -> &RecordHeader;
    fn position(&self) -> u64;
    /// Copies the archive, each word read once.
    fn copy_archive(&self, dst: &mut [u8]) -> Result<(), LaneFault>;
}

/// The bus.
pub(super) struct Bus {
    reader: Reader,
    /// The attached lanes, each at its number.
    ids: [Option<LaneId>; LANES_MAX],
}

impl Bus {
    pub(super) fn new(reader: Reader) -> Self {
        let mut bus = Self { reader, ids: [None; LANES_MAX] };
        bus.list();
        bus
    }

    /// Lanes come and go only in `refresh` and `wait`; an id from before must not be used behind them.
    fn list(&mut self) {
        self.ids = [None; LANES_MAX];
        for id in self.reader.lanes() {
            self.ids[id.index()] = Some(id);
        }
    }

    pub(super) fn refresh(&mut self) -> Refresh {
        let refresh = self.reader.refresh();
        self.list();
        refresh
    }

    /// Waits for records or the waker.
    pub(super) fn wait(&mut self, timeout: Duration) {
        self.reader.wait(timeout);
        self.list();
    }

    pub(super) fn waker(&self) -> Waker {
        self.reader.waker()
    }

    /// An error if our own cursors are gone.
    pub(super) fn verify(&self) -> Result<(), OpenError> {
        self.reader.verify()
    }

    pub(super) fn mark(&self) -> u64 {
        self.reader.mark()
    }

    /// Name, key and losses of the lane with that number, if one is attached.
    pub(super) fn lane(&self, lane: usize) -> Option<&bellwire::LaneInfo> {
        self.ids.get(lane).copied().flatten().map(|id| self.reader.lane(id))
    }

    fn id(&self, lane: usize) -> LaneId {
        let id = self.ids.get(lane).copied().flatten();
        id.unwrap_or_else(|| unreachable!("lane {lane} is attached as long as the rounds know it"))
    }
}

impl Source for Bus {
    type Unread<'a> = Slot<'a>;
    type Scout = Scout;

    #[inline]
    fn peek(&mut self, lane: usize, priority: Priority) -> Result<Option<Slot<'_>>, LaneFault> {
        let id = self.id(lane);
        self.reader.peek(id, priority)
    }

    #[inline]
    fn advance(&mut self, lane: usize, priority: Priority) {
        let id = self.id(lane);
        self.reader.advance(id, priority);
    }

    fn snapshot_end(&self, lane: usize, priority: Priority) -> u64 {
        self.reader.snapshot_end(self.id(lane), priority)
    }

    fn scan(
        &self,
        lane: usize,
        priority: Priority,
        scout: &mut Scout,
        f: impl FnMut(&RecordHeader) -> ControlFlow<()>,
    ) -> Result<(), LaneFault> {
        self.reader.scan(self.id(lane), priority, scout, f)
    }

    fn quarantine(&mut self, lane: usize, why: LaneFault) {
        let id = self.id(lane);
        let info = self.reader.lane(id);
        if info.quarantined().is_none() {
            tracing::error!(
                lane = %info.name(),
                path = %info.path().display(),
                fault = %why,
                "lane is read no further; to get it back, end its producer, remove the file, and start the producer"
            );
        }
        self.reader.quarantine(id, why);
    }

    fn commit(&mut self, mark: u64) {
        self.reader.commit(mark);
    }
}

impl Unread for Slot<'_> {
    #[inline]
    fn header(&self) -> &RecordHeader {
        Slot::header(self)
    }

    #[inline]
    fn position(&self) -> u64 {
        Slot::position(self)
    }

    #[inline]
    fn copy_archive(&self, dst: &mut [u8]) -> Result<(), LaneFault> {
        Slot::copy_archive(self, dst)
    }
}
