//! What a full segment comes to, so that a start need not read it.
//!
//! A start rebuilds its owner's tables from the journal. Entry by entry that takes as long as the journal is long: seconds
//! for twenty million entries. So for each segment that is full a *summary* is kept beside it, `<base>.summary`: what the
//! owner would know after reading it, in bytes of his own that nobody here looks into. A start takes the summaries of the
//! oldest segments, as many in a row as there are, and reads the rest. The segments of which the newest entries are wanted
//! one by one ([`Tables::newest`]) are read in any case, and so is one that a loss of power may have changed.
//!
//! Summaries are made by the housekeeper, behind the appending thread, with entries whose crc is checked. The segments that
//! a start did not read, he reads afterwards, slowly: an entry that is damaged, or a summary that says something else, ends
//! the gateway ([`Journal::verify`](crate::Journal::verify)) as it would have prevented the start, and the summary goes, so
//! that the next start reads for itself. An entry that is found damaged in a segment that this gateway wrote or read itself is an
//! error in the log and ends nothing: it has the tables that it should have.
//!
//! No summary is needed: one that is missing, damaged, of another build or of another segment costs time and nothing else.

mod file;
mod keeper;

#[cfg(test)]
pub(crate) use file::write;
pub(crate) use file::{SummaryFacts, read_content, read_facts, remove};
pub(crate) use keeper::{Keeper, Pace, Purpose, Task};

use crate::read::Entry;

/// What is rebuilt from a journal at start.
pub trait Tables {
    /// Forgets everything. What was taken from summaries does not fit; entry by entry it begins again.
    fn clear(&mut self);

    /// Takes the next entry, its crc checked; `stream_goes_on` unless a loss of power has ended its stream.
    ///
    /// # Errors
    /// What does not fit to what came before: the entry counts as bad.
    fn entry(&mut self, entry: &Entry<'_>, stream_goes_on: bool) -> Result<(), String>;

    /// Takes what a [`Summariser`] made of the next segment, whose first entry stands at `first`, in place of its entries.
    ///
    /// # Errors
    /// It cannot be read or does not fit: [`clear`](Self::clear) follows.
    fn summary(&mut self, content: &[u8], first: u64, streams_go_on: bool) -> Result<(), String>;

    /// How many of the newest entries must come one by one.
    fn newest(&self) -> u64;

    /// What makes summaries for tables of this kind; `None`: the journal is to be read whole.
    fn summariser(&self) -> Option<Box<dyn Summariser>>;
}

/// Makes summaries, one segment at a time.
pub trait Summariser: Send {
    /// Takes the next entry of the segment.
    ///
    /// # Errors
    /// Why the segment cannot be summarised.
    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), String>;

    /// The summary of what was taken since the last call; the same bytes for the same entries. Then it is the next segment's
    /// turn, also if this one's end was not reached.
    fn finish(&mut self) -> Vec<u8>;

    /// Changes whenever the bytes change their meaning: of another version no summary is taken.
    fn version(&self) -> u32;
}

/// Tables of somebody who wants each entry.
pub(crate) struct EntryByEntry<'a>(pub(crate) &'a mut dyn FnMut(&Entry<'_>, bool) -> Result<(), String>);

impl Tables for EntryByEntry<'_> {
    fn clear(&mut self) {}

    fn entry(&mut self, entry: &Entry<'_>, stream_goes_on: bool) -> Result<(), String> {
        (self.0)(entry, stream_goes_on)
    }

    fn summary(&mut self, _content: &[u8], _first: u64, _streams_go_on: bool) -> Result<(), String> {
        Err("not asked for".to_owned())
    }

    fn newest(&self) -> u64 {
        u64::MAX
    }

    fn summariser(&self) -> Option<Box<dyn Summariser>> {
        None
    }
}
