//! What waits for a session: where its records stand in the journal, never their bytes. And what is left out of it once it
//! has become long.

use std::collections::{HashMap, VecDeque};

use super::conflate::Newest;
use super::render::{BYTES_MAX, RECORDS_MAX};
use crate::protocol::Stream;
use bellwire_journal::JournalReader;

/// Waiting notifications at which the first attempt is made to leave some out.
const CONFLATE_AT: u32 = 200;

/// Room for so many is kept when nothing waits.
const KEEP: usize = 32;

/// A journal offset and the stream that it belongs to. Offsets are multiples of 16, so the stream fits into their lowest
/// bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending(u64);

impl Pending {
    pub(super) fn new(offset: u64, stream: Stream) -> Self {
        Self(offset | stream as u64)
    }

    pub(super) fn offset(self) -> u64 {
        self.0 & !1
    }

    pub(super) fn stream(self) -> Stream {
        if self.0 & 1 == Stream::User as u64 { Stream::User } else { Stream::All }
    }
}

/// The list of one session, in the order of the journal. The shard closes a session whose list has `limits.pending_max`
/// entries, which bounds it.
#[derive(Debug)]
pub(super) struct Backlog {
    pending: VecDeque<Pending>,
    /// Length of their archives; more than that is as good as that.
    bytes: u32,
    /// Length at which the next conflation is tried.
    conflate_at: u32,
    /// How many older ones were left out for the notification at that offset.
    #[allow(clippy::box_collection, reason = "40 bytes less in every session that does not lag")]
    conflated: Option<Box<HashMap<u64, u32>>>,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { pending: VecDeque::new(), bytes: 0, conflate_at: CONFLATE_AT, conflated: None }
    }
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Whether anything of that stream waits.
    pub(super) fn has(&self, stream: Stream) -> bool {
        self.pending.iter().any(|pending| pending.stream() == stream)
    }

    /// Whether one write would be full.
    #[inline]
    pub(super) fn is_batch(&self) -> bool {
        self.len() >= RECORDS_MAX || self.bytes as usize >= BYTES_MAX
    }

    /// Whether [`Self::conflate`] is worth a try.
    #[inline]
    pub(super) fn is_long(&self) -> bool {
        self.len() >= self.conflate_at as usize
    }

    #[inline]
    pub(super) fn push(&mut self, pending: Pending, archive_len: u32) {
        self.pending.push_back(pending);
        self.bytes = self.bytes.saturating_add(archive_len);
    }

    pub(super) fn front(&self) -> Option<Pending> {
        self.pending.front().copied()
    }

    /// Takes the front away; tells for how many older ones it stands.
    pub(super) fn pop(&mut self, archive_len: u32) -> u32 {
        let Some(front) = self.pending.pop_front() else { return 0 };
        self.bytes = self.bytes.saturating_sub(archive_len);
        self.conflated.as_mut().and_then(|counts| counts.remove(&front.offset())).unwrap_or_default()
    }

    pub(super) fn clear(&mut self) {
        self.pending.clear();
        self.settle();
    }

    /// Forgets what waits of one stream.
    pub(super) fn forget(&mut self, stream: Stream) {
        self.pending.retain(|pending| pending.stream() != stream);
        self.settle();
    }

    /// If nothing waits any more: gives back what only a lagging session needs.
    pub(super) fn settle(&mut self) {
        if self.pending.is_empty() {
            self.bytes = 0;
            self.conflate_at = CONFLATE_AT;
            self.conflated = None;
            if self.pending.capacity() > KEEP {
                self.pending = VecDeque::new();
            }
        }
    }

    /// Leaves out every update that a newer one replaces, and tells how many. The newer one remembers how many it stands
    /// for. The next attempt is worth it when the list has doubled, so that the work stays in proportion to what comes in;
    /// in any case at `pending_max`.
    pub(super) fn conflate(&mut self, journal: &mut JournalReader, pending_max: usize) -> u64 {
        let mut newest = Newest::default();
        let mut counts = self.conflated.take().unwrap_or_default();
        let mut kept = VecDeque::new();
        let before = self.len();
        // From the newest on, so that the first of a key is the one that stays.
        for &pending in self.pending.iter().rev() {
            let offset = pending.offset();
            if let Some(newer) = newest.that_replaces(journal, pending) {
                let older = counts.remove(&offset).unwrap_or_default();
                *counts.entry(newer).or_default() += older + 1;
            } else {
                kept.push_front(pending);
            }
        }
        self.pending = kept;
        self.conflated = (!counts.is_empty()).then_some(counts);
        self.conflate_at = (2 * self.len()).max(CONFLATE_AT as usize).min(pending_max) as u32;
        (before - self.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use bellwire::{Notification, Payload};

    use super::*;
    use bellwire_journal::testing::{
        Record, account_update, append, config, open, order_accepted, position_update,
    };
    use bellwire_journal::{Facts, Journal};

    #[test]
    fn an_offset_and_its_stream_fit_into_one_word() {
        for stream in Stream::BOTH {
            let pending = Pending::new(0x1230, stream);
            assert_eq!((pending.offset(), pending.stream()), (0x1230, stream));
        }
        assert_eq!(size_of::<Pending>(), 8);
    }

    #[test]
    fn a_batch_is_full_by_its_records_or_by_its_bytes() {
        let mut backlog = Backlog::default();
        for offset in 1..RECORDS_MAX as u64 {
            backlog.push(Pending::new(16 * offset, Stream::User), 1);
            assert!(!backlog.is_batch());
        }
        backlog.push(Pending::new(16, Stream::All), 1);
        assert!(backlog.is_batch());
        for _ in 0..98 {
            backlog.pop(1);
        }
        assert!(!backlog.is_batch());
        // Two records with a byte each wait.
        backlog.push(Pending::new(16, Stream::User), BYTES_MAX as u32 - 3);
        assert!(!backlog.is_batch());
        backlog.push(Pending::new(16, Stream::User), 1);
        assert!(backlog.is_batch());
        backlog.pop(1);
        assert!(!backlog.is_batch());
        backlog.push(Pending::new(16, Stream::User), u32::MAX);
        assert!(backlog.is_batch(), "no sum that wraps");
    }

    #[test]
    fn what_is_forgotten_of_one_stream_leaves_the_other() {
        let mut backlog = Backlog::default();
        for offset in 1..=4 {
            backlog.push(Pending::new(16 * offset, Stream::BOTH[offset as usize % 2]), 10);
        }
        let kept = Stream::BOTH[0];
        backlog.forget(Stream::BOTH[1]);
        assert_eq!(backlog.len(), 2);
        assert!(backlog.has(kept) && !backlog.has(Stream::BOTH[1]));
        assert_eq!(backlog.front(), Some(Pending::new(32, kept)));
        backlog.forget(kept);
        assert!(backlog.is_empty() && !backlog.has(kept) && backlog.front().is_none());
        assert_eq!(backlog.pop(1), 0);
        // And its bytes are gone with it.
        backlog.push(Pending::new(16, kept), BYTES_MAX as u32 - 1);
        assert!(!backlog.is_batch());
        backlog.clear();
        assert!(backlog.is_empty());
    }

    /// A journal, and a list of all that was put into it.
    struct Waiting {
        journal: Journal,
        backlog: Backlog,
        _dir: tempfile::TempDir,
    }

    impl Waiting {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { journal: open(config(dir.path())).unwrap(), backlog: Backlog::default(), _dir: dir }
        }

        fn push(&mut self, stream: Stream, payload: Payload<'_>) -> u64 {
            let record = Record::new(&Notification::new("anna", "Test", payload), 1);
            let offset = append(&mut self.journal, &record, &Facts { seq: 1, ..Facts::default() });
            self.journal.publish().unwrap();
            self.backlog.push(Pending::new(offset, stream), 10);
            offset
        }

        fn conflate(&mut self, pending_max: usize) -> u64 {
            self.backlog.conflate(&mut self.journal.reader(), pending_max)
        }

        /// Everything that waits, and for how many each stands.
        fn drain(&mut self) -> Vec<(u64, u32)> {
            std::iter::from_fn(|| {
                let front = self.backlog.front()?;
                Some((front.offset(), self.backlog.pop(10)))
            })
            .collect()
        }
    }

    #[test]
    fn the_newest_of_each_key_stays_and_says_for_how_many_and_trades_are_never_left_out() {
        let mut waiting = Waiting::new();
        waiting.push(Stream::User, account_update("anna"));
        let first = waiting.push(Stream::User, order_accepted("order-1"));
        waiting.push(Stream::User, position_update("anna", "IX2401"));
        let other_stream = waiting.push(Stream::All, account_update("anna"));
        waiting.push(Stream::User, account_update("anna"));
        let other_user = waiting.push(Stream::User, account_update("bert"));
        let second = waiting.push(Stream::User, order_accepted("order-1"));
        let other_instrument = waiting.push(Stream::User, position_update("anna", "IX2402"));
        let position = waiting.push(Stream::User, position_update("anna", "IX2401"));
        waiting.push(Stream::User, account_update("anna"));
        assert_eq!(waiting.conflate(1000), 3);
        // What was left out for one that is left out itself goes with it.
        let account = waiting.push(Stream::User, account_update("anna"));
        assert_eq!(waiting.conflate(1000), 1);
        assert_eq!(waiting.conflate(1000), 0);
        let expected = [
            (first, 0),
            (other_stream, 0),
            (other_user, 0),
            (second, 0),
            (other_instrument, 0),
            (position, 1),
            (account, 3),
        ];
        assert_eq!(waiting.drain(), expected);
        waiting.backlog.settle();
        assert!(waiting.backlog.conflated.is_none() && waiting.backlog.pending.capacity() <= KEEP);
    }

    #[test]
    fn conflation_is_tried_at_200_then_when_the_list_has_doubled_and_at_the_limit() {
        let mut waiting = Waiting::new();
        let tried_at = |waiting: &mut Waiting| {
            while !waiting.backlog.is_long() {
                waiting.push(Stream::User, order_accepted("order-1"));
            }
            (waiting.backlog.len(), waiting.conflate(700))
        };
        assert_eq!([0; 4].map(|_| tried_at(&mut waiting)), [(200, 0), (400, 0), (700, 0), (700, 0)]);
        // Where a lot can be left out, the list is short again.
        let mut waiting = Waiting::new();
        for _ in 0..3 {
            while !waiting.backlog.is_long() {
                waiting.push(Stream::User, account_update("anna"));
            }
            let before = waiting.backlog.len();
            assert_eq!((before, waiting.conflate(700), waiting.backlog.len()), (200, 199, 1));
        }
        // And when nothing waits any more, it begins anew.
        let mut waiting = Waiting::new();
        tried_at(&mut waiting);
        assert_eq!(waiting.drain().len(), 200);
        waiting.backlog.settle();
        assert_eq!(tried_at(&mut waiting), (200, 0));
    }
}
