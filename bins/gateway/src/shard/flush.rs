//! When which session is written to. Pure: it is given `now`.
//!
//! A session becomes due by the most urgent notification that waits for it: P0 at once, P1 within 1 ms, P2 within 20 ms,
//! P3 within 100 ms, and at once when a whole batch waits. These are the times that a notification may wait *while the
//! shard reads on in the journal*; a shard that has read everything writes at once whatever waits, most urgent first,
//! since waiting would then buy nothing. So no timer is needed: as long as anything waits, the shard is busy.
//!
//! Strict priority alone would let a flood of P0 starve everybody else, so every fourth pick goes to whoever has waited
//! longest beyond his time.

use std::collections::VecDeque;

use super::table::Handle;

/// How long a notification of each priority may wait for company, in nanoseconds.
pub(super) const WAIT_NS: [u64; 4] = [0, 1_000_000, 20_000_000, 100_000_000];

/// The urgency of a session for which a whole batch waits: after P0, before P1.
pub(super) const FULL: usize = 4;

/// In which order the queues are served.
const ORDER: [usize; 5] = [0, FULL, 1, 2, 3];

/// Every so many picks, age counts instead of priority.
const FAIR_EVERY: u32 = 4;

/// The queues in which one session stands, one bit each. A session stands in each queue at most once, which is what
/// bounds the queues.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queued(u8);

/// Sessions that wait to be written to.
#[derive(Debug, Default)]
pub(super) struct FlushQueue {
    // One queue for each urgency; within one, deadlines only grow. Bounded by the number of sessions.
    queues: [VecDeque<Waiting>; 5],
    picks: u32,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    handle: Handle,
    deadline: u64,
}

/// A session whose turn it is, and the queue it was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pick {
    pub(super) handle: Handle,
    urgency: usize,
}

impl Queued {
    /// To be called with every [`Pick`] of the session.
    pub(super) fn picked(&mut self, pick: Pick) {
        self.0 &= !(1 << pick.urgency);
    }
}

impl FlushQueue {
    /// Notes that something of that urgency (a priority's number, or [`FULL`]) waits for the session since `now`.
    pub(super) fn mark(&mut self, queued: &mut Queued, handle: Handle, urgency: usize, now: u64) {
        let bit = 1 << urgency;
        if queued.0 & bit == 0 {
            queued.0 |= bit;
            let deadline = now + WAIT_NS.get(urgency).copied().unwrap_or_default();
            self.queues[urgency].push_back(Waiting { handle, deadline });
        }
    }

    /// The session to write to next. Unless the shard has `caught_up` with the journal, only one whose time has come.
    pub(super) fn next(&mut self, now: u64, caught_up: bool) -> Option<Pick> {
        self.picks = self.picks.wrapping_add(1);
        if self.picks.is_multiple_of(FAIR_EVERY)
            && let Some(urgency) = self.longest_overdue(now)
        {
            return self.take(urgency);
        }
        let due = |queue: &VecDeque<Waiting>| {
            queue.front().is_some_and(|waiting| caught_up || waiting.deadline <= now)
        };
        let urgency = ORDER.into_iter().find(|&urgency| due(&self.queues[urgency]))?;
        self.take(urgency)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    fn longest_overdue(&self, now: u64) -> Option<usize> {
        let front = |urgency: usize| Some((self.queues[urgency].front()?.deadline, urgency));
        let (deadline, urgency) = ORDER.into_iter().filter_map(front).min()?;
        (deadline < now).then_some(urgency)
    }

    fn take(&mut self, urgency: usize) -> Option<Pick> {
        let waiting = self.queues[urgency].pop_front()?;
        Some(Pick { handle: waiting.handle, urgency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn handle(slot: u32) -> Handle {
        Handle { slot, generation: 0 }
    }

    fn picks(queue: &mut FlushQueue, now: u64, caught_up: bool) -> Vec<u32> {
        std::iter::from_fn(|| queue.next(now, caught_up)).map(|pick| pick.handle.slot).collect()
    }

    #[test]
    fn while_the_shard_reads_on_each_class_waits_its_time_and_no_longer() {
        let mut queue = FlushQueue::default();
        for urgency in [3, 2, 1, 0, FULL] {
            queue.mark(&mut Queued::default(), handle(urgency as u32), urgency, 0);
        }
        assert_eq!(picks(&mut queue, 0, false), [0, FULL as u32]);
        assert!(picks(&mut queue, MS - 1, false).is_empty());
        assert_eq!(picks(&mut queue, MS, false), [1]);
        assert_eq!(picks(&mut queue, 20 * MS, false), [2]);
        assert!(picks(&mut queue, 100 * MS - 1, false).is_empty());
        assert_eq!(picks(&mut queue, 100 * MS, false), [3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_shard_that_has_caught_up_waits_for_nothing_and_serves_the_urgent_first() {
        let mut queue = FlushQueue::default();
        for urgency in [3, 2, 1, 0] {
            queue.mark(&mut Queued::default(), handle(urgency as u32), urgency, 0);
        }
        assert_eq!(picks(&mut queue, 0, true), [0, 1, 2, 3]);
    }

    #[test]
    fn a_session_stands_in_a_queue_once() {
        let (mut queue, mut queued) = (FlushQueue::default(), Queued::default());
        for _ in 0..100 {
            queue.mark(&mut queued, handle(1), 2, 0);
        }
        let pick = queue.next(0, true).unwrap();
        assert_eq!(queue.next(0, true), None);
        queued.picked(pick);
        queue.mark(&mut queued, handle(1), 2, 0);
        assert!(queue.next(0, true).is_some());
    }

    #[test]
    fn a_flood_of_the_urgent_does_not_starve_the_others() {
        let mut queue = FlushQueue::default();
        queue.mark(&mut Queued::default(), handle(99), 3, 0);
        let late = 101 * MS;
        let mut seen = None;
        for pick in 0..8 {
            queue.mark(&mut Queued::default(), handle(pick), 0, late);
            if queue.next(late, false).unwrap().handle.slot == 99 {
                seen = Some(pick);
            }
        }
        assert!(seen.is_some(), "an overdue P3 is served among P0s");

        // One whose time has just come is not overdue: the urgent go first.
        let mut queue = FlushQueue::default();
        queue.mark(&mut Queued::default(), handle(99), 3, 0);
        assert!(!queue.is_empty());
        for pick in 0..8 {
            queue.mark(&mut Queued::default(), handle(pick), 0, 100 * MS);
            assert_eq!(queue.next(100 * MS, false).unwrap().handle.slot, pick);
        }
    }
}
