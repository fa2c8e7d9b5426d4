//! Everything in a stream after a given sequence number, by the journal's back-links.
//!
//! Each record points back at its stream's previous one, so what a client missed is found from the stream's end
//! backwards. The walk remembers at most a page of offsets; when the page is full, it leaves a *signpost* (where the page
//! began) and starts a new one. When it has arrived, the page in hand is the oldest, and each signpost begins the next
//! newer one, walked again when it is needed:
//!
//! ```text
//!  after           page 3 (in hand)        page 2               page 1            to
//!    |  <-------------------------- | <------------------ | <------------------ |
//!                                signpost              signpost             last offset
//! ```
//!
//! So the memory is a page and one word for each page, however long the client was away. What is published meanwhile is
//! reached by asking for the stream's end again when the pages are through: only when nothing is left the session goes
//! live, in the same turn, so there is neither a gap nor a repetition.

use bellwire::MessageType;

use super::users::Tracked;
use crate::auth::ChannelSet;
use crate::journal::JournalReader;

/// Offsets that one page holds.
const PAGE_LEN: usize = 4096;

/// Records that one call of [`Replay::walk`] looks at: some hundred microseconds, then the others have their turn.
const WALK_LEN: usize = 4096;

pub(super) struct Replay {
    epoch: u32,
    /// Everything up to here is done.
    pub(super) after: u64,
    /// Everything up to here belongs to the replay.
    pub(super) to: u64,
    /// Where the page in hand begins, at its newest record.
    begin: u64,
    /// Where the walk stands; `None` when the page in hand is complete.
    at: Option<u64>,
    /// Newest first. Bounded by PAGE_LEN.
    page: Vec<u64>,
    /// Newest first: where the newer pages begin. One for each PAGE_LEN records that the client missed.
    signposts: Vec<u64>,
}

/// The outcome of a step of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// Not there yet.
    Walking,
    /// A page is in hand; it may be empty if nothing of it is subscribed to.
    Arrived,
    /// The journal does not reach back so far.
    TooOld,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Call [`Replay::walk`].
    Walk,
    /// Take what [`Replay::next_record`] gives.
    Page,
    /// The replay has reached its end.
    End,
}

impl Replay {
    /// Everything after `after` in a stream that is as far as `tracked`.
    pub(super) fn new(after: u64, tracked: Tracked) -> Self {
        let mut replay = Self {
            epoch: tracked.epoch,
            after,
            to: after,
            begin: 0,
            at: None,
            page: Vec::new(),
            signposts: Vec::new(),
        };
        replay.extend(tracked);
        replay
    }

    /// Goes on to what was published meanwhile. `false` if there is nothing, or the stream has begun anew.
    pub(super) fn extend(&mut self, tracked: Tracked) -> bool {
        if tracked.epoch != self.epoch || tracked.head <= self.to {
            return false;
        }
        self.to = tracked.head;
        self.begin = tracked.last_offset;
        self.at = Some(tracked.last_offset);
        true
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(super) fn step(&mut self) -> Step {
        if self.at.is_some() {
            return Step::Walk;
        }
        if !self.page.is_empty() {
            return Step::Page;
        }
        match self.signposts.pop() {
            Some(begin) => {
                self.begin = begin;
                self.at = Some(begin);
                Step::Walk
            }
            None => {
                self.after = self.to;
                Step::End
            }
        }
    }

    /// Where the next record of the page stands; `None` at the page's end.
    pub(super) fn next_record(&mut self) -> Option<u64> {
        self.page.pop()
    }

    /// The record with that number is done.
    pub(super) fn done(&mut self, seq: u64) {
        self.after = seq;
    }

    /// Walks on towards `after`, keeping what belongs to `channels`.
    pub(super) fn walk(&mut self, journal: &mut JournalReader, channels: ChannelSet) -> Walk {
        for _ in 0..WALK_LEN {
            let Some(at) = self.at else { return Walk::Arrived };
            // An offset of 0 has no entry either: the stream's first record is not the one that was looked for.
            let Some(entry) = journal.entry(at).filter(|entry| entry.epoch == self.epoch) else {
                return Walk::TooOld;
            };
            if entry.seq <= self.after {
                self.at = None;
                return Walk::Arrived;
            }
            let channel = MessageType::from_code(entry.header.type_code).map(MessageType::channel);
            if channel.is_some_and(|channel| channels.contains(channel)) {
                if self.page.len() == PAGE_LEN {
                    self.signposts.push(self.begin);
                    self.begin = at;
                    self.page.clear();
                }
                self.page.push(at);
            }
            if entry.seq == self.after + 1 {
                self.at = None;
                return Walk::Arrived;
            }
            self.at = Some(entry.prev);
        }
        Walk::Walking
    }
}
