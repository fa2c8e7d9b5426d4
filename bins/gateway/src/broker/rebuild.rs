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
    entries: usize,
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
            entries: 0,
            start: 0,
        }
    }

    /// Takes the next entry.
    ///
    /// # Errors
    /// What does not fit to the entries before.
    pub(super) fn entry(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        if self.entries == 0 {
            self.start = entry.offset;
        }
        self.streams.replay(entry, self.start)?;
        let highest = self.highest.entry(entry.lane).or_default();
        let ring = usize::from(entry.header.priority) & 3; // `Entry` has checked that it is a priority
        highest[ring] = highest[ring].max(entry.header.lane_sequence);
        if self.ids.len() < self.window {
            self.ids.push(entry.header.message_id);
        } else if self.window > 0 {
            self.ids[self.entries % self.window] = entry.header.message_id;
        }
        self.entries += 1;
        Ok(())
    }

    /// The tables as they were when the last entry was appended.
    pub(super) fn finish(mut self, generation: u32) -> (Streams, Dedup, Highest) {
        self.streams.finish_replay();
        self.streams.set_generation(generation);
        let mut dedup = Dedup::new(self.window);
        let oldest =
            if self.ids.len() < self.window || self.window == 0 { 0 } else { self.entries % self.window };
        for id in self.ids[oldest..].iter().chain(&self.ids[..oldest]) {
            dedup.remember(*id);
        }
        (self.streams, dedup, self.highest)
    }
}
