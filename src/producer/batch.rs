//! Several notifications, made visible together.

use super::{Producer, PublishError, Published};
use crate::encoded::Publishable;
use crate::ring::writer::RingWriter;

/// A batch of one producer: one clock read, and one commit for each run of notifications of the same priority.
///
/// Dropped without [`commit`](Self::commit), nothing of it was published. If the process is killed during `commit`, the
/// first so many runs of it are published and the rest is not.
///
/// ```
/// use bellwire::{Level, Notification, Producer, SystemNotice};
///
/// # let bus = format!("doc-{}-b", std::process::id());
/// let mut producer = Producer::open(&bus, "matching-engine")?;
/// let mut batch = producer.batch();
/// for title in ["one", "two"] {
///     let notice = SystemNotice { title, content: "", level: Level::Info, timestamp: 0 };
///     batch.push(&Notification::to_all("MatchingEngine", notice))?;
/// }
/// assert_eq!(batch.commit(), 2);
/// # drop(producer);
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a batch that is dropped without commit publishes nothing"]
pub struct Batch<'a> {
    producer: &'a mut Producer,
    /// The time of every notification in it.
    now: i64,
    /// The lane's sequence before it.
    sequence: u64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(producer: &'a mut Producer, now: i64) -> Self {
        let sequence = producer.sequence;
        Self { producer, now, sequence }
    }

    /// Adds a notification.
    ///
    /// # Errors
    /// [`PublishError`]; what was pushed before stays in the batch. A batch that is as long as its ring gets
    /// [`PublishError::Full`] also if nobody gates.
    #[inline]
    pub fn push(&mut self, notification: &impl Publishable) -> Result<Published, PublishError> {
        self.producer.write(notification, self.now)
    }

    /// How many notifications it holds.
    pub fn len(&self) -> usize {
        (self.producer.sequence - self.sequence) as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shows everything to all readers; tells how many notifications that were.
    ///
    /// It shows them in the order in which they were pushed, run by run of the same priority: whoever sees one of them
    /// finds all that were pushed before it. So no reader shows an order's rejection before its acceptance, although
    /// they go through different rings.
    ///
    /// In a child that was forked meanwhile it shows nothing: the batch is its parent's.
    ///
    /// 0, of a batch that holds something: the lane's memory is gone, which the next publish says.
    #[inline]
    pub fn commit(mut self) -> usize {
        if self.producer.is_forked() {
            return 0; // dropped, as any batch that is not committed
        }
        let len = self.len();
        if len > 0 {
            let rings = &mut self.producer.rings;
            while let Some((ring, until)) = next_run(rings) {
                rings[ring].show_until(until);
                if self.producer.segment.fault().is_some() {
                    return 0; // what the rings say of what is left is zeros
                }
            }
            self.sequence = self.producer.sequence;
            let doorbell = &super::lane_header(&self.producer.segment).doorbell;
            self.producer.consumers.wake(doorbell);
            if self.producer.segment.fault().is_some() {
                return 0;
            }
        }
        len
    }
}

/// The ring with the oldest record that is not shown, and the lane sequence at which another ring is next.
fn next_run(rings: &[RingWriter; 4]) -> Option<(usize, u64)> {
    let (mut first, mut until) = (None, u64::MAX);
    for (ring, sequence) in rings.iter().enumerate().filter_map(|(ring, r)| Some((ring, r.next_sequence()?)))
    {
        match first {
            Some((_, least)) if least < sequence => until = until.min(sequence),
            _ => {
                until = until.min(first.map_or(u64::MAX, |(_, least)| least));
                first = Some((ring, sequence));
            }
        }
    }
    first.map(|(ring, _)| (ring, until))
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if !self.is_empty() {
            for ring in &mut self.producer.rings {
                if ring.is_ahead() {
                    ring.roll_back();
                }
            }
            self.producer.sequence = self.sequence;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::{Level, Notification, Priority, SystemNotice};
    use crate::{Producer, ProducerOptions};

    /// Lane sequences of the last shown record of each ring, taken from how many are shown.
    fn shown(producer: &Producer) -> [u64; 4] {
        producer.counters().published
    }

    #[test]
    fn a_batch_is_shown_in_the_order_of_its_records_whatever_ring_they_go_through() {
        let bus = format!("t-{}-batch", std::process::id());
        let options = Priority::ALL.into_iter().fold(ProducerOptions::new(), |o, p| o.capacity(p, 4096));
        let mut producer = options.open(&bus, "engine").unwrap();
        let notice = SystemNotice { title: "t", content: "", level: Level::Info, timestamp: 0 };
        let note = Notification::to_all("Test", notice);
        for _ in 0..50 {
            let before = shown(&producer);
            let mut batch = producer.batch();
            // P1 P1 P0 P3 P3 P1: four runs; the rings wrap in the course of the fifty batches.
            for priority in
                [Priority::P1, Priority::P1, Priority::P0, Priority::P3, Priority::P3, Priority::P1]
            {
                batch.push(&note.with_priority(priority)).unwrap();
            }
            let mut states = Vec::new();
            while let Some((ring, until)) = next_run(&batch.producer.rings) {
                batch.producer.rings[ring].show_until(until);
                let now = shown(batch.producer);
                states.push(std::array::from_fn(|ring| now[ring] - before[ring]));
            }
            assert_eq!(states, [[0, 2, 0, 0], [1, 2, 0, 0], [1, 2, 0, 2], [1, 3, 0, 2]]);
            assert_eq!(batch.commit(), 6);
        }
        drop(producer);
        crate::inspect::remove_unheld(&bus).unwrap();
    }
}
