//! Several notifications, made visible together.

use super::{Producer, PublishError, Published};
use crate::notification::Notification;

/// A batch of one producer: one clock read, and one commit for each ring it touched.
///
/// Dropped without [`commit`](Self::commit), nothing of it was published. If the process is killed during `commit`, the
/// batch is visible in some of the rings that it touched and not in the others, in each of them wholly or not at all.
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
    pub fn push(&mut self, notification: &Notification<'_>) -> Result<Published, PublishError> {
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
    #[inline]
    pub fn commit(mut self) -> usize {
        let len = self.len();
        if len > 0 {
            // Most urgent first: a reader that is awake sees P0 before it is kept busy with the rest.
            for ring in &mut self.producer.rings {
                if ring.is_ahead() {
                    ring.commit();
                }
            }
            self.sequence = self.producer.sequence;
            let doorbell = &super::lane_header(&self.producer.segment).doorbell;
            self.producer.consumers.wake(doorbell);
        }
        len
    }
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
