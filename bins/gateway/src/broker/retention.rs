//! Letting the journal's oldest segment go, a piece at a time: its entries are walked, so that the streams know what they
//! lose, and no round waits for the whole walk.

use super::intake::Intake;
use bellwire_journal::JournalReader;

/// Entries that are walked between two rounds: about 20 µs of work.
const STEP: usize = 256;

/// A walk through the segment that is to go.
pub(super) struct Retention {
    reader: JournalReader,
    walk: Option<Walk>,
}

struct Walk {
    at: u64,
    end: u64,
    /// Whether the generation has moved on: before the first user is dropped it must.
    moved_on: bool,
}

impl Retention {
    pub(super) fn new(reader: JournalReader) -> Self {
        Self { reader, walk: None }
    }

    /// Does a piece of what there is to do; whether there is more.
    pub(super) fn step(&mut self, intake: &mut Intake) -> bool {
        if self.walk.is_none() {
            let expired = intake.journal.expired(intake.now);
            self.walk = expired.map(|(at, end)| Walk { at, end, moved_on: false });
        }
        let Some(walk) = &mut self.walk else { return false };
        for _ in 0..STEP {
            let entry = self.reader.entry(walk.at).filter(|entry| entry.offset < walk.end);
            let Some(entry) = entry else {
                intake.journal.retire_oldest();
                self.walk = None;
                return true; // perhaps the next one is to go as well
            };
            if !walk.moved_on && intake.streams.is_last_of_its_stream(&entry) {
                intake.streams.set_generation(intake.journal.next_generation());
                walk.moved_on = true;
            }
            intake.streams.expire(&entry);
            walk.at = entry.next;
        }
        true
    }
}
