//! Rebuilding the broker's tables from the journal at start.

use bellwire::MessageId;
use hashbrown::HashMap;

use super::dedup::Dedup;
use super::streams::Streams;
use super::summary::{BySegment, Summary};
use bellwire_journal::{Entry, Summariser, Tables};

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
    /// Key of the lane of the entry before, and what is known of it: most entries come in runs.
    lane: Option<(u64, [u64; 4])>,
    /// Offset of the oldest entry; `None` before it.
    start: Option<u64>,
}

impl Rebuild {
    pub(super) fn new(window: usize) -> Self {
        Self {
            streams: Streams::new(),
            highest: HashMap::new(),
            ids: Vec::with_capacity(window),
            window,
            next_id: 0,
            lane: None,
            start: None,
        }
    }

    fn put_lane_back(&mut self) {
        if let Some((key, highest)) = self.lane.take() {
            self.highest.insert(key, highest);
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

impl Tables for Rebuild {
    fn clear(&mut self) {
        *self = Self::new(self.window);
    }

    fn newest(&self) -> u64 {
        self.window as u64
    }

    fn summariser(&self) -> Option<Box<dyn Summariser>> {
        Some(Box::new(BySegment::default()))
    }

    fn summary(&mut self, content: &[u8], first: u64, streams_go_on: bool) -> Result<(), String> {
        let Summary { streams, lanes } = Summary::from_bytes(content)?;
        let start = *self.start.get_or_insert(first);
        if streams_go_on {
            streams.into_iter().try_for_each(|row| self.streams.replay_row(row, start))?;
        }
        for (key, highest) in lanes {
            let known = self.highest.entry(key).or_default();
            for (known, highest) in known.iter_mut().zip(highest) {
                *known = (*known).max(highest);
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>, stream_goes_on: bool) -> Result<(), String> {
        let start = *self.start.get_or_insert(entry.offset);
        if stream_goes_on {
            self.streams.replay(entry, start)?;
        }
        if self.lane.is_none_or(|(key, _)| key != entry.lane) {
            self.put_lane_back();
        }
        let (_, highest) = self
            .lane
            .get_or_insert_with(|| (entry.lane, self.highest.get(&entry.lane).copied().unwrap_or_default()));
        let ring = usize::from(entry.header.priority) & 3; // `Entry` has checked that it is a priority
        highest[ring] = highest[ring].max(entry.header.lane_sequence);
        if self.ids.len() < self.window {
            self.ids.push(entry.header.message_id);
        } else if self.window > 0 {
            self.ids[self.next_id] = entry.header.message_id;
            self.next_id = if self.next_id + 1 == self.window { 0 } else { self.next_id + 1 };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bellwire::Priority;

    use super::*;
    use bellwire_journal::testing::order_record;

    #[test]
    fn the_highest_sequence_is_known_of_each_ring_of_each_lane_also_without_a_window() {
        for window in [0, 1, 10] {
            let mut rebuild = Rebuild::new(window);
            for (number, (lane, priority, sequence)) in
                [(5, Priority::P0, 3), (5, Priority::P3, 4), (6, Priority::P1, 9), (5, Priority::P0, 7)]
                    .into_iter()
                    .enumerate()
            {
                let record = order_record("anna", "order-1", priority, sequence);
                let (seq, offset) = (number as u64 + 1, (number as u64 + 1) * 512);
                let entry = Entry {
                    offset,
                    next: offset + 512,
                    seq,
                    prev: if seq == 1 { 0 } else { offset - 512 },
                    epoch: 1,
                    slot: 0,
                    lane,
                    journalled_at: 0,
                    header: record.header,
                    archive: &record.archive,
                    body: &[],
                };
                rebuild.entry(&entry, true).unwrap();
            }
            let (streams, dedup, highest) = rebuild.finish(1, false);
            assert_eq!((highest[&5], highest[&6]), ([7, 0, 0, 4], [0, 9, 0, 0]));
            assert_eq!(streams.known("anna").map(|known| known.head), Some(4));
            let newest = order_record("anna", "order-1", Priority::P0, 7).header.message_id;
            assert_eq!(dedup.contains(newest), window > 0);
        }
    }
}
