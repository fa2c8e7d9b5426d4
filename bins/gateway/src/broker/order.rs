//! One order's events are never shown out of the order in which they were published, although a rejection is P0, an
//! acceptance P1 and an expiry P3.
//!
//! The rule: before a record of the trade channel goes out, that user's earlier ones of the same lane go first, wherever
//! they wait. Earlier is what has a smaller lane sequence. The ring that such a record waits in is drained *in ring order*
//! up to it, so one priority's records are never reordered.
//!
//! To find them without reading every ring again for each record, a *scout* goes ahead of each ring's cursor, sees each
//! header once, and remembers the trade records that are still unread. It never goes further than the record in question:
//! what was published after it does not matter.
//!
//! # Why nothing earlier is missed
//!
//! A producer commits in the order in which it publishes. Whoever sees a record sees everything that was committed before
//! it, in every ring, so when a record is at hand all earlier ones can be seen by a scout, or have been read.
//!
//! # Why the rule comes to an end
//!
//! A ring that is being drained for a record stands at a record that is later than all that the rule still looks for, so
//! it is never drained again for one of them. A hostile lane may number its records as it likes; therefore a ring that is
//! being drained is left out, and every drain takes at least one record.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bellwire::{Channel, LaneFault, MessageType, Priority, RecordHeader, UserHash};
use hashbrown::HashMap;

use super::source::Source;

/// Trade records that a scout remembers in one ring. At the bound it waits, and the ring is drained for it to go on.
pub(super) const REMEMBERED_MAX: usize = 65_536;

/// Whether the rule is about this record.
#[inline]
pub(super) fn concerns(header: &RecordHeader) -> bool {
    MessageType::from_code(header.type_code).is_some_and(|kind| kind.channel() == Channel::Trade)
}

/// The scouts of one lane.
pub(super) struct Scouts<S> {
    rings: [Ahead<S>; 4],
}

/// What is known of a ring ahead of its cursor.
#[derive(Default)]
struct Ahead<S> {
    scout: S,
    /// The unread trade records that were seen, in ring order.
    seen: VecDeque<(u64, UserHash)>,
    /// How many of them each user has. Two users that share a hash count as one: then more is drained than need be.
    users: HashMap<UserHash, u32>,
}

impl<S: Default> Scouts<S> {
    pub(super) fn new() -> Self {
        Self {
            rings: std::array::from_fn(|_| Ahead {
                scout: S::default(),
                seen: VecDeque::new(),
                users: HashMap::new(),
            }),
        }
    }

    /// A ring, other than those in `draining`, with an earlier record of the user of `header`: and the lane sequence up to
    /// which that ring is to be drained before `header` goes out.
    ///
    /// # Errors
    /// The ring whose headers cannot be read, and why. It need not be a fault: the records at its cursor may have been
    /// overwritten, because its producer does not know us yet. The next peek of that ring tells.
    #[inline]
    pub(super) fn earlier(
        &mut self,
        source: &impl Source<Scout = S>,
        lane: usize,
        draining: [bool; 4],
        header: &RecordHeader,
    ) -> Result<Option<(Priority, u64)>, (Priority, LaneFault)> {
        for priority in Priority::ALL {
            if draining[priority.index()] {
                continue;
            }
            let ahead = &mut self.rings[priority.index()];
            let is_full = ahead
                .go_on(source, lane, priority, header.lane_sequence)
                .map_err(|fault| (priority, fault))?;
            let last = ahead.last_of(header.user_hash, header.lane_sequence);
            let until = last.or_else(|| is_full.then(|| ahead.seen[ahead.seen.len() / 2].0));
            if let Some(until) = until {
                return Ok(Some((priority, until)));
            }
        }
        Ok(None)
    }

    /// Takes note that a record of that ring was read.
    #[inline]
    pub(super) fn was_read(&mut self, priority: Priority, lane_sequence: u64) {
        let ahead = &mut self.rings[priority.index()];
        while let Some((sequence, user)) = ahead.seen.front().copied().filter(|seen| seen.0 <= lane_sequence)
        {
            ahead.seen.pop_front();
            debug_assert!(sequence <= lane_sequence);
            if let Some(count) = ahead.users.get_mut(&user) {
                *count -= 1;
                if *count == 0 {
                    ahead.users.remove(&user);
                }
            }
        }
    }

    /// Takes note that nothing is left to read in that ring.
    pub(super) fn is_empty(&mut self, priority: Priority) {
        let ahead = &mut self.rings[priority.index()];
        ahead.seen.clear();
        ahead.users.clear();
    }
}

impl<S> Ahead<S> {
    /// Looks at the headers before that lane sequence; whether it had to stop because no more can be remembered.
    #[inline]
    fn go_on(
        &mut self,
        source: &impl Source<Scout = S>,
        lane: usize,
        priority: Priority,
        before: u64,
    ) -> Result<bool, LaneFault> {
        let Self { scout, seen, users } = self;
        let mut is_full = false;
        source.scan(lane, priority, scout, |header| {
            if header.lane_sequence >= before {
                return ControlFlow::Break(());
            }
            if concerns(header) {
                if seen.len() == REMEMBERED_MAX {
                    is_full = true;
                    return ControlFlow::Break(());
                }
                seen.push_back((header.lane_sequence, header.user_hash));
                *users.entry(header.user_hash).or_insert(0) += 1;
            }
            ControlFlow::Continue(())
        })?;
        Ok(is_full)
    }

    /// The lane sequence of that user's last record that was seen, before `before`.
    fn last_of(&self, user: UserHash, before: u64) -> Option<u64> {
        if !self.users.contains_key(&user) {
            return None;
        }
        let end = self.seen.partition_point(|seen| seen.0 < before);
        self.seen.range(..end).rev().find(|seen| seen.1 == user).map(|seen| seen.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_forgotten_and_what_was_not_is_remembered() {
        let (anna, bert) = (UserHash::of("anna"), UserHash::of("bert"));
        let mut scouts = Scouts::<()>::new();
        let remember = |scouts: &mut Scouts<()>, records: &[(u64, UserHash)]| {
            for &(sequence, user) in records {
                scouts.rings[1].seen.push_back((sequence, user));
                *scouts.rings[1].users.entry(user).or_insert(0) += 1;
            }
        };
        remember(&mut scouts, &[(1, anna), (2, anna), (3, bert)]);
        scouts.was_read(Priority::P1, 1);
        assert_eq!(scouts.rings[1].last_of(anna, 9), Some(2));
        scouts.was_read(Priority::P1, 2);
        assert_eq!(scouts.rings[1].last_of(anna, 9), None);
        assert!(!scouts.rings[1].users.contains_key(&anna), "nobody is remembered for nothing");
        assert_eq!(scouts.rings[1].last_of(bert, 9), Some(3));
        assert_eq!(scouts.rings[1].last_of(bert, 3), None, "itself is not before it");
        scouts.is_empty(Priority::P1);
        assert!(scouts.rings[1].seen.is_empty() && scouts.rings[1].users.is_empty());
    }
}
