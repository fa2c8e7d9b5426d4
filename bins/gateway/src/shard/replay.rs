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
use bellwire_journal::JournalReader;

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bellwire::{Channel, Notification};

    use super::*;
    use bellwire_journal::testing::{Record, account_update, append, config, open, order_accepted};
    use bellwire_journal::{Facts, Journal};

    const EPOCH: u32 = 7;
    /// Stands in for a record that left the journal: no entry begins there.
    const GONE: u64 = 16;

    /// A journal with the stream of one user among the records of another.
    struct Kept {
        journal: Journal,
        stream: Tracked,
        trade: Record,
        account: Record,
    }

    impl Kept {
        /// With records of which `head` are older and no longer there.
        fn new(dir: &Path, head: u64) -> Self {
            let record = |payload| Record::new(&Notification::new("anna", "Test", payload), 1);
            Self {
                journal: open(config(dir)).unwrap(),
                stream: Tracked { epoch: EPOCH, head, last_offset: if head == 0 { 0 } else { GONE } },
                trade: record(order_accepted("order-1")),
                account: record(account_update("anna")),
            }
        }

        /// Publishes that many; those with an even number are trades, the others account updates.
        fn publish(&mut self, count: u64) {
            for _ in 0..count {
                let (seq, prev) = (self.stream.head + 1, self.stream.last_offset);
                let record = if seq.is_multiple_of(2) { &self.trade } else { &self.account };
                let facts = Facts { seq, prev, epoch: EPOCH, ..Facts::default() };
                let last_offset = append(&mut self.journal, record, &facts);
                self.stream = Tracked { epoch: EPOCH, head: seq, last_offset };
                append(&mut self.journal, &self.trade, &Facts { seq, epoch: 1, slot: 1, ..Facts::default() });
            }
            self.journal.publish().unwrap();
        }

        /// What a replay shows from here to its end, and how many times it was asked to walk; `None` if it is too old.
        fn shown(&self, replay: &mut Replay, channels: ChannelSet) -> Option<(Vec<u64>, usize)> {
            let mut reader = self.journal.reader();
            let (mut seqs, mut walks) = (Vec::new(), 0);
            loop {
                match replay.step() {
                    Step::Walk => {
                        walks += 1;
                        if replay.walk(&mut reader, channels) == Walk::TooOld {
                            return None;
                        }
                        assert!(replay.page.len() <= PAGE_LEN);
                    }
                    Step::Page => {
                        while let Some(offset) = replay.next_record() {
                            let entry = reader.entry(offset).unwrap();
                            assert_eq!(entry.epoch, EPOCH, "the other user's");
                            replay.done(entry.seq);
                            assert_eq!(replay.after, entry.seq);
                            seqs.push(entry.seq);
                        }
                    }
                    Step::End => {
                        assert_eq!(replay.after, replay.to);
                        return Some((seqs, walks));
                    }
                }
            }
        }

        fn all_after(&self, after: u64) -> Option<Vec<u64>> {
            Some(self.shown(&mut Replay::new(after, self.stream), ChannelSet::ALL)?.0)
        }
    }

    #[test]
    fn everything_after_a_position_is_shown_once_and_in_order_however_many_pages_it_takes() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(dir.path(), 0);
        let page = PAGE_LEN as u64;
        kept.publish(3 * page + 10);
        let head = kept.stream.head;
        for missed in [0, 1, 2, page - 1, page, page + 1, 2 * page, 2 * page + 1, head - 1, head] {
            assert_eq!(kept.all_after(head - missed), Some((head - missed + 1..=head).collect()), "{missed}");
        }
    }

    #[test]
    fn a_walk_that_takes_longer_than_a_turn_goes_on_in_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(dir.path(), 0);
        kept.publish(WALK_LEN as u64 + 1);
        let walks = |after| kept.shown(&mut Replay::new(after, kept.stream), ChannelSet::NONE).unwrap().1;
        assert_eq!((walks(1), walks(0)), (1, 2));
    }

    #[test]
    fn what_is_not_subscribed_to_is_passed_over_and_the_end_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(dir.path(), 0);
        kept.publish(10);
        let mut trades = ChannelSet::NONE;
        trades.insert(Channel::Trade);
        for (channels, expected) in [(trades, vec![4, 6, 8, 10]), (ChannelSet::NONE, vec![])] {
            let mut replay = Replay::new(3, kept.stream);
            assert_eq!(kept.shown(&mut replay, channels).unwrap().0, expected);
            assert_eq!(replay.after, 10);
        }
    }

    #[test]
    fn a_stream_that_does_not_reach_back_is_too_old_and_the_record_before_is_not_needed() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(dir.path(), 4);
        kept.publish(3);
        assert_eq!(kept.all_after(4), Some(vec![5, 6, 7]), "4 is gone, and nobody asked for it");
        assert_eq!(kept.all_after(3), None);
        let of_another_epoch = Tracked { epoch: EPOCH + 1, ..kept.stream };
        assert!(kept.shown(&mut Replay::new(5, of_another_epoch), ChannelSet::ALL).is_none());
    }

    #[test]
    fn a_replay_goes_on_to_what_was_published_meanwhile_unless_the_stream_began_anew() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(dir.path(), 0);
        kept.publish(3);
        let mut replay = Replay::new(1, kept.stream);
        assert_eq!(replay.epoch(), EPOCH);
        assert_eq!(kept.shown(&mut replay, ChannelSet::ALL).unwrap().0, [2, 3]);
        assert!(!replay.extend(kept.stream), "nothing came");
        kept.publish(2);
        assert!(!replay.extend(Tracked { epoch: EPOCH + 1, ..kept.stream }));
        assert!(replay.extend(kept.stream));
        assert_eq!(kept.shown(&mut replay, ChannelSet::ALL).unwrap().0, [4, 5]);
    }
}
