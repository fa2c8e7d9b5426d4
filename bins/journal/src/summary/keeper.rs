//! Making summaries, and checking those that a start relied on.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Summariser;
use super::file::{SummaryFacts, remove, write};
use crate::error::JournalError;
use crate::layout::SEGMENT_HEADER_LEN;
use crate::read::{Entry, Shared};
use crate::segment::Segment;

/// How much is read before other housekeeping gets its turn, in bytes: a fraction of a millisecond.
const STEP_BYTES: usize = 256 << 10;
/// With so many full segments that have no summary there is no pause.
const BEHIND: usize = 2;

/// A summary is worth its room if it is by so much shorter than the entries, or short at all.
const WORTH: usize = 3;
const SHORT: usize = 1 << 20;

/// Why a segment is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// It has no summary.
    Make,
    /// A start took its summary, whose content had that crc.
    Check { crc: u32 },
}

/// A segment that is to be read.
pub(crate) struct Task {
    pub(crate) segment: Arc<Segment>,
    pub(crate) purpose: Purpose,
}

/// How soon the next step should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// There is nothing to do.
    Idle,
    /// There is time.
    Slow,
    /// Segments fill faster than they are read.
    Fast,
}

/// Reads full segments, one after the other.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    summariser: Box<dyn Summariser>,
    /// Bounded by the number of segments.
    tasks: VecDeque<Task>,
    reading: Option<Reading>,
    sync: bool,
}

struct Reading {
    task: Task,
    /// Place in the file of the next entry.
    at: usize,
    entries: u64,
    newest_at: i64,
}

impl Keeper {
    pub(crate) fn new(
        shared: Arc<Shared>,
        summariser: Box<dyn Summariser>,
        tasks: VecDeque<Task>,
        sync: bool,
    ) -> Self {
        Self { shared, summariser, tasks, reading: None, sync }
    }

    /// A segment is full: before all that is only to be checked.
    pub(crate) fn add(&mut self, segment: Arc<Segment>) {
        self.tasks.push_front(Task { segment, purpose: Purpose::Make });
    }

    /// Reads on.
    pub(crate) fn step(&mut self) -> Pace {
        if self.reading.is_none() {
            // What has left the journal meanwhile needs no summary any more.
            let start = self.shared.start();
            let task = loop {
                match self.tasks.pop_front() {
                    None => return Pace::Idle,
                    Some(task) if task.segment.end() <= start => {}
                    Some(task) => break task,
                }
            };
            let newest_at = task.segment.created_at();
            self.reading = Some(Reading { task, at: SEGMENT_HEADER_LEN, entries: 0, newest_at });
        }
        if let Err(error) = self.read() {
            self.reading = None;
            self.summariser.finish(); // what it has is of no use
            self.shared.set_damage(error);
        }
        let to_make = self.tasks.iter().filter(|task| matches!(task.purpose, Purpose::Make)).count();
        if to_make >= BEHIND { Pace::Fast } else { Pace::Slow }
    }

    fn read(&mut self) -> Result<(), JournalError> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let segment = &reading.task.segment;
        let (used, _) = segment.extent();
        let until = used.min(reading.at + STEP_BYTES);
        while reading.at < until {
            let rest = segment.bytes(reading.at, used - reading.at).unwrap_or_default();
            let offset = segment.base() + reading.at as u64;
            let taken = Entry::checked(rest, offset, self.shared.journal_id)
                .and_then(|entry| self.summariser.entry(&entry).map(|()| entry));
            let entry = match (taken, reading.task.purpose) {
                (Ok(entry), _) => entry,
                (Err(what), Purpose::Check { .. }) => return Err(damaged(segment, reading.at, what)),
                // Nobody relied on it yet, and whoever is served now is not served from there: those who are shall be.
                (Err(what), Purpose::Make) => {
                    tracing::error!(path = %segment.path().display(), at = reading.at, what,
                        "a full journal segment is damaged: the next start will not take it");
                    self.summariser.finish();
                    self.reading = None;
                    return Ok(());
                }
            };
            reading.entries += 1;
            reading.newest_at = entry.journalled_at;
            reading.at += entry.len();
        }
        if reading.at >= used {
            self.finish()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), JournalError> {
        let Some(Reading { task, at, entries, newest_at }) = self.reading.take() else { return Ok(()) };
        let content = self.summariser.finish();
        let segment = &task.segment;
        match task.purpose {
            Purpose::Check { crc } if crc == crc32c::crc32c(&content) => {
                tracing::debug!(path = %segment.path().display(), "the summary of a journal segment is right");
            }
            Purpose::Check { .. } => {
                return Err(damaged(
                    segment,
                    at,
                    "its summary, which the start relied on, is wrong".to_owned(),
                ));
            }
            // With a user to nearly each entry: reading that takes as long as reading the segment.
            Purpose::Make if content.len() > SHORT.max(at / WORTH) => {}
            Purpose::Make => {
                let facts = SummaryFacts {
                    content_version: self.summariser.version(),
                    journal_id: self.shared.journal_id,
                    base: segment.base(),
                    created_at: segment.created_at(),
                    used: at as u64,
                    entries,
                    newest_at,
                };
                if let Err(error) = write(segment.path(), &facts, &content, self.sync) {
                    tracing::warn!(path = %segment.path().display(), %error,
                        "the summary of a journal segment cannot be written: the next start reads the segment");
                }
            }
        }
        Ok(())
    }
}

/// The next start shall read this segment for itself.
fn damaged(segment: &Segment, at: usize, what: String) -> JournalError {
    let path = segment.path().to_owned();
    if let Err(error) = remove(&path) {
        tracing::error!(path = %path.display(), %error, "the summary of a damaged journal segment cannot be deleted");
    }
    JournalError::Damaged { path, at: at as u64, what }
}
