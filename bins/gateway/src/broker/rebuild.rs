//! Rebuilding the broker's tables from the journal at start.

use bellwire::MessageId;
use hashbrown::HashMap;

use super::dedup::Dedup;
use super::streams::Streams;
use crate::journal::Entry;

/// Highest lane sequence of each ring that the journal has, by lane key. Bounded by what the journal retains.
pub(super) type Highest = HashMap<u64, [u64; 4]>;

/// The tables while the journal is read.
pub(super) struct Rebuild {
    pub(super) streams: Streams,
    pub(super) highest: Highest,
    /// The last ids, a ring: only at the end it is known which they are.
    ids: Vec<MessageId>,
    window: usize,
    /// Where the next id goes.
    next_id: usize,
    is_first: bool,
    /// Key of the lane of the entry before, and what is known of it: most entries come in runs.
    lane: (u64, [u64; 4]),
    /// Offset of the oldest entry.
    start: u64,
}

impl Rebuild {
    pub(super) fn new(window: usize) -> Self {
        Self {
            streams: Streams::new(),
            highest: HashMap::new(),
            ids: Vec::with_capacity(window),
            window,
            next_id: 0,
            is_first: true,
            lane: (0, [0; 4]),
            start: 0,
        }
    }

    /// Takes the next entry; `stream_goes_on` unless a loss of power has ended its stream.
    ///
    /// # Errors
    /// What does not fit to the entries before.
    pub(super) fn entry(&mut self, entry: &Entry<'_>, stream_goes_on: bool) -> Result<(), String> {
        if self.is_first {
            self.start = entry.offset;
            self.is_first = false;
        }
        if stream_goes_on {
            self.streams.replay(entry, self.start)?;
        }
        if entry.lane != self.lane.0 {
            self.put_lane_back();
            self.lane = (entry.lane, self.highest.get(&entry.lane).copied().unwrap_or_default());
        }
        let ring = usize::from(entry.header.priority) & 3; // `Entry` has checked that it is a priority
        self.lane.1[ring] = self.lane.1[ring].max(entry.header.lane_sequence);
        if self.ids.len() < self.window {
            self.ids.push(entry.header.message_id);
        } else if self.window > 0 {
            self.ids[self.next_id] = entry.header.message_id;
            self.next_id = if self.next_id + 1 == self.window { 0 } else { self.next_id + 1 };
        }
        Ok(())
    }

    fn put_lane_back(&mut self) {
        if !self.is_first {
            self.highest.insert(self.lane.0, self.lane.1);
        }
    }

    /// The tables as they were when the last entry was appended; without streams if those are over.
    pub(super) fn finish(mut self, generation: u32, streams_are_over: bool) -> (Streams, Dedup, Highest) {
        self.put_lane_back();
        if streams_are_over {
            self.streams = Streams::new();
        }
        self.streams.finish_replay();
        self.streams.set_generation(generation);
        let mut dedup = Dedup::new(self.window);
        for id in self.ids[self.next_id..].iter().chain(&self.ids[..self.next_id]) {
            dedup.remember(*id);
        }
        (self.streams, dedup, self.highest)
    }
}
