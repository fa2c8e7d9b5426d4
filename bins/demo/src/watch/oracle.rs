//! The oracle: holds what the clients got against what the producers say they published, while it happens.
//!
//! # Why equal queues mean "exactly once and in order"
//! The audit tells for each lane what was published, in the order in which it was. A client must get, of each lane and
//! each priority, exactly its own part of that, in the same order: so there is one queue of what is expected and one of
//! what arrived, for each client, lane, priority and stream. Whenever both have a head, the heads must be the same
//! notification. A lost one, a doubled one and two that changed places all make heads differ; then the queue is *off*,
//! both sides are kept, and the end of the run sorts out what it was. Whatever is left over at the end on one side was
//! lost, or was never published. Across priorities, the events of one order must come in the order of their lane
//! sequence, which is part of the message id.
//!
//! Memory is what is under way; it is bounded by [`PENDING_MAX`], beyond which the run is over and has failed.

use std::collections::{HashMap, VecDeque};

use bellwire::{MessageId, Priority};

use crate::exchange::{OrderNumber, User};

/// Notifications that are under way, over all clients.
const PENDING_MAX: usize = 8_000_000;

/// How many orders back the order of their events is watched: four minutes at a thousand orders a second.
const ORDERS_WATCHED: usize = 1 << 18;

/// One of the two streams that a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    User,
    All,
}

/// A notification as a client got it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) message_id: MessageId,
    pub(crate) priority: Priority,
    pub(crate) stream: Stream,
    /// The order it is about, if it is about one.
    pub(crate) order: Option<OrderNumber>,
}

/// What the oracle found. All but the first two should be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Deliveries that the audit calls for.
    pub(crate) expected: u64,
    /// Deliveries that were as expected.
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) reordered: u64,
    /// Notifications that nobody published.
    pub(crate) unknown: u64,
    /// Notifications of other users, and broadcasts in a user's stream or the other way round.
    pub(crate) foreign: u64,
}

impl Verdict {
    /// Whether every notification arrived exactly once and in order, everywhere.
    pub(crate) fn is_clean(&self) -> bool {
        self.expected == self.delivered
            && self.lost + self.doubled + self.reordered + self.unknown + self.foreign == 0
    }
}

/// More is under way than the oracle can remember.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} notifications are under way: the clients cannot keep up; try fewer --users or a lower --rate")]
pub(crate) struct TooFarBehind(usize);

/// What tells one queue of a client from another: lane tag, priority, stream.
type Key = (u32, Priority, Stream);

#[derive(Default)]
struct Queue {
    expected: VecDeque<MessageId>,
    arrived: VecDeque<MessageId>,
    off: bool,
}

#[derive(Default)]
struct Client {
    /// A handful: three lanes, four priorities, two streams.
    queues: Vec<(Key, Queue)>,
}

impl Client {
    fn queue(&mut self, key: Key) -> &mut Queue {
        let at = self.queues.iter().position(|(found, _)| *found == key).unwrap_or_else(|| {
            self.queues.push((key, Queue::default()));
            self.queues.len() - 1
        });
        &mut self.queues[at].1
    }
}

pub(crate) struct Oracle {
    clients: Vec<Client>,
    /// The newest event of each order: order number, whose it is, and lane sequence.
    orders: Vec<(OrderNumber, User, u64)>,
    pending: usize,
    verdict: Verdict,
    /// By priority, for the table.
    published: [u64; 4],
    delivered: [u64; 4],
}

impl Oracle {
    pub(crate) fn new(clients: User) -> Self {
        Self {
            clients: (0..clients).map(|_| Client::default()).collect(),
            orders: vec![(0, 0, 0); ORDERS_WATCHED],
            pending: 0,
            verdict: Verdict::default(),
            published: [0; 4],
            delivered: [0; 4],
        }
    }

    /// A producer published this; no user means everybody.
    pub(crate) fn published(
        &mut self,
        user: Option<User>,
        priority: Priority,
        message_id: MessageId,
    ) -> Result<(), TooFarBehind> {
        self.published[priority.index()] += 1;
        match user {
            Some(user) => {
                self.expect(user as usize, (lane_tag(message_id), priority, Stream::User), message_id)
            }
            None => {
                for client in 0..self.clients.len() {
                    self.expect(client, (lane_tag(message_id), priority, Stream::All), message_id);
                }
            }
        }
        if self.pending > PENDING_MAX { Err(TooFarBehind(self.pending)) } else { Ok(()) }
    }

    /// A client got this.
    pub(crate) fn arrived(&mut self, client: User, arrival: &Arrival) {
        let Arrival { message_id, priority, stream, order } = *arrival;
        if let Some(order) = order {
            self.watch_order(order, client, lane_sequence(message_id));
        }
        self.pending += 1;
        let key = (lane_tag(message_id), priority, stream);
        self.clients[client as usize].queue(key).arrived.push_back(message_id);
        self.settle(client as usize, key);
    }

    /// A client got something that is not his.
    pub(crate) fn foreign(&mut self) {
        self.verdict.foreign += 1;
    }

    /// Published notifications by priority, and deliveries that were as expected.
    pub(crate) fn counts(&self) -> ([u64; 4], [u64; 4]) {
        (self.published, self.delivered)
    }

    /// Whether everything that was published has arrived, as far as the audit goes.
    pub(crate) fn is_settled(&self) -> bool {
        self.pending == 0
    }

    /// How many deliveries are under way.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// The end: what is still open is lost, or nobody published it.
    pub(crate) fn verdict(&self) -> Verdict {
        let mut verdict = self.verdict;
        for (_, queue) in self.clients.iter().flat_map(|client| &client.queues) {
            judge(queue, &mut verdict);
        }
        verdict
    }

    fn expect(&mut self, client: usize, key: Key, message_id: MessageId) {
        self.verdict.expected += 1;
        self.pending += 1;
        let Some(found) = self.clients.get_mut(client) else { return };
        found.queue(key).expected.push_back(message_id);
        self.settle(client, key);
    }

    fn settle(&mut self, client: usize, key: Key) {
        let queue = self.clients[client].queue(key);
        while let (false, Some(expected), Some(arrived)) =
            (queue.off, queue.expected.front(), queue.arrived.front())
        {
            if expected != arrived {
                queue.off = true;
                break;
            }
            queue.expected.pop_front();
            queue.arrived.pop_front();
            self.pending -= 2;
            self.verdict.delivered += 1;
            self.delivered[key.1.index()] += 1;
        }
    }

    fn watch_order(&mut self, order: OrderNumber, client: User, sequence: u64) {
        let slot = &mut self.orders[order as usize % ORDERS_WATCHED];
        if slot.0 != order {
            if slot.0 < order {
                *slot = (order, client, sequence);
            }
            return;
        }
        // Who tries to cancel somebody else's order is told about it; that is not one of the order's events.
        if slot.1 == client {
            if slot.2 >= sequence {
                self.verdict.reordered += 1;
            }
            slot.2 = slot.2.max(sequence);
        }
    }
}

/// What became of the notifications of a queue that did not come out even.
fn judge(queue: &Queue, verdict: &mut Verdict) {
    let mut open: HashMap<MessageId, (usize, bool)> =
        queue.expected.iter().enumerate().map(|(index, id)| (*id, (index, false))).collect();
    let mut last = None;
    for id in &queue.arrived {
        match open.get_mut(id) {
            None if queue.expected.is_empty() && !queue.off => verdict.unknown += 1,
            // It is not expected any more: it came before this queue went off.
            None => verdict.doubled += 1,
            Some((_, true)) => verdict.doubled += 1,
            Some((index, arrived)) => {
                *arrived = true;
                if last.is_some_and(|last| *index < last) {
                    verdict.reordered += 1;
                } else {
                    verdict.delivered += 1;
                    last = Some(*index);
                }
            }
        }
    }
    verdict.lost += open.values().filter(|(_, arrived)| !arrived).count() as u64;
}

/// The lane's part of a composed message id.
fn lane_tag(id: MessageId) -> u32 {
    (low_half(id) >> 40) as u32 & 0x3f_ffff
}

/// The lane sequence in a composed message id.
fn lane_sequence(id: MessageId) -> u64 {
    low_half(id) & 0xff_ffff_ffff
}

fn low_half(id: MessageId) -> u64 {
    let bytes = id.to_bytes();
    u64::from_be_bytes(std::array::from_fn(|index| bytes[8 + index]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: u32 = 5;

    fn id(sequence: u64) -> MessageId {
        MessageId::compose(LANE, sequence, 1_728_123_456_000_000_000)
    }

    fn run(published: &[u64], arrived: &[u64]) -> Verdict {
        let mut oracle = Oracle::new(2);
        for &sequence in published {
            oracle.published(Some(0), Priority::P1, id(sequence)).unwrap();
        }
        for &sequence in arrived {
            arrive(&mut oracle, 0, sequence, Stream::User, None);
        }
        oracle.verdict()
    }

    fn arrive(oracle: &mut Oracle, client: User, sequence: u64, stream: Stream, order: Option<OrderNumber>) {
        oracle.arrived(client, &Arrival { message_id: id(sequence), priority: Priority::P1, stream, order });
    }

    #[test]
    fn the_parts_of_a_message_id_are_read_as_they_were_composed() {
        let id = MessageId::compose(0x2a_bcde, 0x12_3456_789a, 1_728_123_456_000_000_000);
        assert_eq!((lane_tag(id), lane_sequence(id)), (0x2a_bcde, 0x12_3456_789a));
    }

    #[test]
    fn exactly_once_and_in_order_is_clean_whoever_speaks_first() {
        let verdict = run(&[1, 2, 3], &[1, 2, 3]);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.expected, verdict.delivered), (3, 3));

        let mut oracle = Oracle::new(1);
        arrive(&mut oracle, 0, 1, Stream::User, None);
        assert!(!oracle.is_settled());
        oracle.published(Some(0), Priority::P1, id(1)).unwrap();
        assert!(oracle.is_settled() && oracle.verdict().is_clean());
    }

    #[test]
    fn every_way_to_be_wrong_is_told_apart() {
        let counts = |verdict: Verdict| (verdict.lost, verdict.doubled, verdict.reordered, verdict.unknown);
        assert_eq!(counts(run(&[1, 2, 3], &[1, 3])), (1, 0, 0, 0));
        assert_eq!(counts(run(&[1, 2, 3], &[1, 2])), (1, 0, 0, 0));
        assert_eq!(counts(run(&[1, 2, 3], &[1, 2, 2, 3])), (0, 1, 0, 0));
        assert_eq!(counts(run(&[1, 2, 3], &[2, 1, 3])), (0, 0, 1, 0));
        assert_eq!(counts(run(&[1], &[1, 9])), (0, 0, 0, 1));
        for (published, arrived) in [(&[1, 2, 3][..], &[1, 3][..]), (&[1, 2], &[2, 1]), (&[1], &[1, 1])] {
            assert!(!run(published, arrived).is_clean(), "{published:?} {arrived:?}");
        }
    }

    #[test]
    fn a_broadcast_must_reach_every_client() {
        let mut oracle = Oracle::new(2);
        oracle.published(None, Priority::P1, id(1)).unwrap();
        arrive(&mut oracle, 0, 1, Stream::All, None);
        assert_eq!(oracle.verdict().lost, 1);
        arrive(&mut oracle, 1, 1, Stream::All, None);
        assert!(oracle.verdict().is_clean());
    }

    #[test]
    fn somebody_elses_notification_is_never_clean() {
        let mut oracle = Oracle::new(2);
        oracle.published(Some(0), Priority::P1, id(1)).unwrap();
        arrive(&mut oracle, 1, 1, Stream::User, None);
        let verdict = oracle.verdict();
        assert_eq!((verdict.lost, verdict.unknown), (1, 1));
        oracle.foreign();
        assert_eq!(oracle.verdict().foreign, 1);
    }

    #[test]
    fn an_order_that_is_rejected_before_it_was_accepted_is_noticed_across_priorities() {
        let mut oracle = Oracle::new(1);
        for (priority, sequence) in [(Priority::P1, 1), (Priority::P0, 2)] {
            oracle.published(Some(0), priority, id(sequence)).unwrap();
        }
        let arrival = |priority, sequence| Arrival {
            message_id: id(sequence),
            priority,
            stream: Stream::User,
            order: Some(77),
        };
        oracle.arrived(0, &arrival(Priority::P0, 2));
        oracle.arrived(0, &arrival(Priority::P1, 1));
        assert_eq!(oracle.verdict().reordered, 1);
    }
}
