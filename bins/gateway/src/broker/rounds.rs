//! Rounds over all lanes: P0 all that is there, P1 all that is there, P2 at most 100, P3 at most 50. "There" is at the
//! round's start, so no flood of one class starves another; and lanes take turns, so no lane's flood starves another.
//!
//! What a round took is published in *chunks*, and between chunks P0 is looked for again: a P0 record waits for one chunk
//! at most (and for what must go before it, or before one of another lane), however much of the other classes there is.
//! After a chunk, in this order: the journal's end is published, the shards that sleep are woken, the cursors are committed
//! with the journal's end as mark.
//! If a chunk was only a record or two, the broker pushes them itself instead of waking a shard: that is a few writes for each
//! shard that sleeps, and the next P0 waits for those.

use std::sync::Arc;

use bellwire::{LANES_MAX, LaneFault, Priority};

use super::ShardSignal;
use super::counters::{BrokerCounters, LaneCounters};
use super::intake::{Intake, Taken};
use super::order::{self, Scouts};
use super::source::{Source, Unread};
use bellwire_journal::JournalError;

/// Most records of each priority in one round, over all lanes.
const BUDGET: [usize; 4] = [usize::MAX, usize::MAX, 100, 50];
/// Records after which P0 is looked for again: about 20 µs of work.
pub(super) const CHUNK: usize = 64;
/// Records of each priority that are taken from a lane before it is the next one's turn.
const TURN: [usize; 4] = [1, CHUNK, CHUNK, CHUNK];
/// Longer is not a wait but a gateway that was not there, in nanoseconds.
const WAIT_MAX_NS: i64 = 60_000_000_000;
/// So much later than the chunk's begin a record may come to the chunk that takes it, in nanoseconds.
const CHUNK_MAX_NS: i64 = 1_000_000_000;

/// One lane as the rounds know it.
pub(super) struct Lane<S> {
    pub(super) key: u64,
    pub(super) counters: Arc<LaneCounters>,
    /// Highest lane sequence of each ring that was journalled.
    pub(super) highest: [u64; 4],
    scouts: Scouts<S>,
}

impl<S: Default> Lane<S> {
    pub(super) fn new(key: u64, counters: Arc<LaneCounters>, highest: [u64; 4]) -> Self {
        Self { key, counters, highest, scouts: Scouts::new() }
    }
}

/// The rounds and everything that records go through in them.
pub(super) struct Rounds<S: Source> {
    pub(super) source: S,
    pub(super) intake: Intake,
    pub(super) counters: Arc<BrokerCounters>,
    /// By the source's number of the lane.
    lanes: Vec<Option<Lane<S::Scout>>>,
    /// The numbers of the lanes that there are: most of the places are empty.
    attached: Vec<usize>,
    shards: Vec<Arc<dyn ShardSignal>>,
    clock: fn() -> i64,
    /// Records that were read since the last publishing.
    unpublished: usize,
    /// Of these, what was journalled, by priority.
    journalled: [u64; 4],
    rounds: usize,
}

/// How a look at a ring ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Nothing,
}

impl<S: Source> Rounds<S> {
    pub(super) fn new(
        source: S,
        intake: Intake,
        counters: Arc<BrokerCounters>,
        shards: Vec<Arc<dyn ShardSignal>>,
        clock: fn() -> i64,
    ) -> Self {
        let lanes = (0..LANES_MAX).map(|_| None).collect();
        let attached = Vec::with_capacity(LANES_MAX);
        let mut rounds = Self {
            source,
            intake,
            counters,
            lanes,
            attached,
            shards,
            clock,
            unpublished: 0,
            journalled: [0; 4],
            rounds: 0,
        };
        rounds.intake.now = clock();
        rounds.count_journal();
        rounds
    }

    /// The lane with that number, if the rounds know one.
    pub(super) fn lane(&self, number: usize) -> Option<&Lane<S::Scout>> {
        self.lanes[number].as_ref()
    }

    /// Begins to read the lane with that number, or no longer does; gives what stood there before.
    pub(super) fn set_lane(&mut self, number: usize, lane: Option<Lane<S::Scout>>) -> Option<Lane<S::Scout>> {
        let before = std::mem::replace(&mut self.lanes[number], lane);
        self.attached.clear();
        self.attached.extend((0..LANES_MAX).filter(|&number| self.lanes[number].is_some()));
        before
    }

    /// One round; tells how many records it read.
    ///
    /// # Errors
    /// The journal has no room or its disk failed. What was journalled before is published, if that was possible; the
    /// record that found no room is still in its ring.
    pub(super) fn round(&mut self) -> Result<usize, JournalError> {
        self.tell_time();
        let result = self.take_round();
        // Also when there was no room: what was journalled must not wait for there being some.
        let published = self.publish();
        let read = result?;
        published?;
        if read > 0 {
            self.rounds = self.rounds.wrapping_add(1);
            self.counters.rounds.add(1);
        }
        Ok(read)
    }

    fn take_round(&mut self) -> Result<usize, JournalError> {
        let ends = self.ends();
        let mut read = 0;
        for priority in Priority::ALL {
            let mut left = BUDGET[priority.index()];
            // Another lane is first in each round, so that the budget is nobody's alone.
            let (mut turn, mut idle) = (self.rounds, 0);
            while left > 0 && idle < self.attached.len() {
                let lane = self.attached[turn % self.attached.len()];
                let before = left;
                let least = left.saturating_sub(TURN[priority.index()]);
                while left > least
                    && self.step(lane, priority, ends[lane][priority.index()], [false; 4])? == Step::Read
                {
                    left -= 1;
                    if self.unpublished >= CHUNK {
                        self.publish()?;
                        if priority != Priority::P0 {
                            read += self.urgent()?;
                        }
                    }
                }
                read += before - left;
                idle = if left == before { idle + 1 } else { 0 };
                turn = turn.wrapping_add(1);
            }
            if priority == Priority::P0 {
                self.publish()?;
            }
        }
        Ok(read)
    }

    /// Takes what is there of P0 now, and publishes it: of each lane in turn one, so that none waits for all that must go
    /// before another's.
    fn urgent(&mut self) -> Result<usize, JournalError> {
        let mut ends = [0; LANES_MAX];
        for &lane in &self.attached {
            ends[lane] = self.source.snapshot_end(lane, Priority::P0);
        }
        let mut read = 0;
        loop {
            let before = read;
            for index in 0..self.attached.len() {
                let lane = self.attached[index];
                if self.step(lane, Priority::P0, ends[lane], [false; 4])? == Step::Read {
                    read += 1;
                }
            }
            if read == before {
                break;
            }
            self.publish()?;
        }
        Ok(read)
    }

    /// Positions up to which records are there now.
    pub(super) fn ends(&self) -> [[u64; 4]; LANES_MAX] {
        let mut ends = [[0; 4]; LANES_MAX];
        for &lane in &self.attached {
            ends[lane] = Priority::ALL.map(|priority| self.source.snapshot_end(lane, priority));
        }
        ends
    }

    /// Whether every ring was read up to these positions, as far as it can be read.
    pub(super) fn has_passed(&mut self, ends: &[[u64; 4]; LANES_MAX]) -> bool {
        let Self { source, attached, .. } = self;
        let mut waits = |lane: usize, priority: Priority| {
            let end = ends[lane][priority.index()];
            matches!(source.peek(lane, priority), Ok(Some(unread)) if unread.position() < end)
        };
        !attached.iter().any(|&lane| Priority::ALL.into_iter().any(|priority| waits(lane, priority)))
    }

    /// Reads the next record of a ring, if it stands before `end`, and before it whatever must go first. `draining` are the
    /// rings that are being drained for a record that comes after this one.
    fn step(
        &mut self,
        lane: usize,
        priority: Priority,
        end: u64,
        mut draining: [bool; 4],
    ) -> Result<Step, JournalError> {
        let peeked = self.source.peek(lane, priority);
        let header = match peeked.map(|unread| unread.map(|unread| (*unread.header(), unread.position()))) {
            Ok(Some((header, position))) if position < end => header,
            Ok(Some(_)) => return Ok(Step::Nothing),
            Ok(None) => {
                if let Some(lane) = &mut self.lanes[lane] {
                    lane.scouts.is_empty(priority);
                }
                return Ok(Step::Nothing);
            }
            Err(fault) => return Ok(self.quarantine(lane, fault)),
        };
        if order::concerns(&header) {
            draining[priority.index()] = true;
            // Rings that were overrun are looked at once more; a hostile lane may claim to be overrun again and again.
            let mut overruns = 0;
            while let Some(known) = &mut self.lanes[lane]
                && overruns < Priority::ALL.len()
            {
                match known.scouts.earlier(&self.source, lane, draining, &header) {
                    Ok(Some((ring, until))) => self.drain(lane, ring, until, draining)?,
                    Ok(None) => break,
                    Err((ring, _)) => {
                        // A peek goes on at the oldest record that is there, or says that it is a fault.
                        if let Err(fault) = self.source.peek(lane, ring).map(|_| ()) {
                            return Ok(self.quarantine(lane, fault));
                        }
                        overruns += 1;
                    }
                }
            }
        }
        self.take(lane, priority)
    }

    /// Reads a ring's records in their order up to that lane sequence, and at least one if there is one.
    #[cold]
    fn drain(
        &mut self,
        lane: usize,
        ring: Priority,
        until: u64,
        draining: [bool; 4],
    ) -> Result<(), JournalError> {
        loop {
            if self.step(lane, ring, u64::MAX, draining)? == Step::Nothing {
                return Ok(());
            }
            self.counters.drawn_forward.add(1);
            // There may be a whole ring of it: it must not wait for its end, nor its producer for room.
            if self.unpublished >= CHUNK {
                self.publish()?;
            }
            let next = match self.source.peek(lane, ring) {
                Ok(Some(unread)) => unread.header().lane_sequence,
                _ => return Ok(()), // whoever looks next finds out why
            };
            if next > until {
                return Ok(());
            }
        }
    }

    /// Takes in the record at a ring's cursor.
    fn take(&mut self, lane: usize, priority: Priority) -> Result<Step, JournalError> {
        let ring = priority.index();
        let Some(known) = &mut self.lanes[lane] else { return Ok(Step::Nothing) };
        let (taken, published_at, lane_sequence, position) = match self.source.peek(lane, priority) {
            Ok(Some(unread)) => {
                let taken = self.intake.take(&unread, known.key, &mut known.highest[ring])?;
                let header = unread.header();
                (taken, header.published_at(), header.lane_sequence, unread.position())
            }
            Ok(None) => return Ok(Step::Nothing),
            Err(fault) => (Taken::Fault(fault), None, 0, 0),
        };
        let counters = &known.counters;
        let fault = match taken {
            Taken::Journalled => {
                counters.journalled[ring].add(1);
                self.journalled[ring] += 1;
                if let Some(wait) = published_at.and_then(|at| waited(at, self.intake.now)) {
                    self.counters.ring_wait[ring].record_ns(wait);
                }
                None
            }
            Taken::Duplicate => {
                counters.duplicate[ring].add(1);
                None
            }
            Taken::Rejected(error) => {
                counters.rejected[ring].add(1);
                Some(LaneFault::Record { at: position, error })
            }
            Taken::Fault(fault) => return Ok(self.quarantine(lane, fault)),
        };
        counters.read[ring].add(1);
        known.scouts.was_read(priority, lane_sequence);
        self.source.advance(lane, priority);
        self.unpublished += 1;
        if let Some(fault) = fault {
            // The record itself is counted and moved over, the lane is not trusted any more.
            self.quarantine(lane, fault);
        }
        Ok(Step::Read)
    }

    /// Publishes the journal, wakes shards, commits the cursors.
    pub(super) fn publish(&mut self) -> Result<(), JournalError> {
        if self.unpublished == 0 {
            return Ok(());
        }
        let before = self.intake.journal.end();
        let end = self.intake.journal.publish()?;
        if end != before {
            // Before the shards, which may be served here.
            self.count_chunk();
            for shard in &self.shards {
                shard.signal();
            }
        }
        self.source.commit(end);
        self.unpublished = 0;
        self.tell_time();
        self.count_journal();
        Ok(())
    }

    /// Counts how long the chunk took from its begin to its publishing: one more look at the clock.
    fn count_chunk(&mut self) {
        let took = u64::try_from((self.clock)().wrapping_sub(self.intake.now)).unwrap_or(0); // a clock that was set back
        self.counters.chunks.add(1);
        for (histogram, count) in self.counters.journal.iter().zip(&mut self.journalled) {
            if *count > 0 {
                histogram.record_many(took, std::mem::take(count));
            }
        }
    }

    /// Makes it now.
    pub(super) fn tell_time(&mut self) {
        self.intake.now = (self.clock)();
        self.intake.journal.note_time(self.intake.now);
    }

    pub(super) fn count_journal(&self) {
        let journal = &self.intake.journal;
        self.counters.journal_end.set(journal.end());
        self.counters.journal_start.set(journal.start());
        self.counters.journal_bytes.set(journal.retained_bytes());
        self.counters.streams.set(self.intake.streams.len() as u64);
        self.counters.disk_tight.store(journal.is_tight(), std::sync::atomic::Ordering::Relaxed); // for people
    }

    #[cold]
    fn quarantine(&mut self, lane: usize, fault: LaneFault) -> Step {
        self.source.quarantine(lane, fault);
        if let Some(known) = &self.lanes[lane] {
            known.counters.set_quarantined();
        }
        Step::Nothing
    }
}

/// How long a record waited, in nanoseconds, as of the begin of its chunk; nothing if one of the clocks was set.
#[inline]
fn waited(published_at: i64, now: i64) -> Option<u64> {
    let wait = now.wrapping_sub(published_at);
    (-CHUNK_MAX_NS..WAIT_MAX_NS).contains(&wait).then(|| u64::try_from(wait).unwrap_or(0))
}
