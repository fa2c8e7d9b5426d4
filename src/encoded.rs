//! What a producer publishes: a notification, or one that was encoded ahead of time.

use crate::codec::{self, EncodeError};
use crate::notification::{Notification, Priority};
use crate::record::{RecordHeader, to_record_parts};

/// What [`Producer::publish`](crate::Producer::publish) and [`Batch::push`](crate::Batch::push) take: a [`Notification`],
/// or one that is [`Encoded`] already.
pub trait Publishable: sealed::Content {}

impl Publishable for Notification<'_> {}
impl Publishable for Encoded {}

pub(crate) mod sealed {
    use super::{EncodeError, Priority, RecordHeader};

    /// What becomes a record.
    pub trait Content {
        /// The ring it goes through.
        fn priority(&self) -> Priority;

        /// Exact length of its archive, in bytes.
        ///
        /// # Errors
        /// It cannot be put into a record.
        fn archive_len(&self) -> Result<usize, EncodeError>;

        /// The header of its record.
        fn header(&self, archive_len: usize, lane_sequence: u64, lane_tag: u32, now: i64) -> RecordHeader;

        /// Writes the archive to exactly as many bytes, aligned to 8.
        ///
        /// # Errors
        /// It cannot be put into a record.
        fn write_archive(&self, out: &mut [u8]) -> Result<(), EncodeError>;
    }
}

impl sealed::Content for Notification<'_> {
    #[inline]
    fn priority(&self) -> Priority {
        self.priority
    }

    #[inline]
    fn archive_len(&self) -> Result<usize, EncodeError> {
        codec::archive_len(self)
    }

    #[inline]
    fn header(&self, archive_len: usize, lane_sequence: u64, lane_tag: u32, now: i64) -> RecordHeader {
        RecordHeader::new(self, archive_len, lane_sequence, lane_tag, now)
    }

    #[inline]
    fn write_archive(&self, out: &mut [u8]) -> Result<(), EncodeError> {
        codec::write_archive(self, out)
    }
}

/// A notification that was encoded ahead of time: publishing it copies its bytes and does nothing else, and cannot fail
/// for what is in it.
///
/// For what is to be said often (to several lanes or buses), or what has to go out at once when its moment comes: the
/// halt of trading, prepared before anybody needs it. Each publish gives it a lane sequence, and an id and a time of
/// its own unless the notification had them; the same id twice is one notification to a gateway.
///
/// ```
/// use bellwire::{Encoded, Level, Notification, Producer, SystemNotice};
///
/// # let bus = format!("doc-{}-e", std::process::id());
/// let notice = SystemNotice { title: "Halt", content: "Trading stops", level: Level::Warning, timestamp: 0 };
/// let halt = Encoded::new(&Notification::to_all("MatchingEngine", notice))?;
///
/// let mut producer = Producer::open(&bus, "matching-engine")?;
/// let published = producer.publish(&halt)?;
/// assert_eq!(published.lane_sequence, 1);
/// # drop(producer);
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encoded {
    /// But for lane sequence, and id and time if they were not given.
    header: RecordHeader,
    has_id: bool,
    priority: Priority,
    archive: Box<[u8]>,
}

impl Encoded {
    /// Encodes it. The one allocation is here.
    ///
    /// # Errors
    /// [`EncodeError`], as publishing it would have refused it.
    pub fn new(notification: &Notification<'_>) -> Result<Self, EncodeError> {
        let (header, record) = to_record_parts(notification, 0, 0, 0)?;
        let archive = record[crate::RECORD_HEADER_LEN..][..header.archive_len as usize].into();
        let (has_id, priority) = (notification.message_id.is_some(), notification.priority);
        Ok(Self { header, has_id, priority, archive })
    }

    /// Gives it a time, in nanoseconds since the Unix epoch, as [`Notification::with_timestamp`] does.
    pub fn set_timestamp(&mut self, timestamp: i64) {
        self.header.give_timestamp(timestamp);
    }

    /// Length of the record that it becomes, header included, in bytes.
    pub fn record_len(&self) -> usize {
        self.header.record_len as usize
    }
}

impl sealed::Content for Encoded {
    #[inline]
    fn priority(&self) -> Priority {
        self.priority
    }

    #[inline]
    fn archive_len(&self) -> Result<usize, EncodeError> {
        Ok(self.archive.len())
    }

    #[inline]
    fn header(&self, _: usize, lane_sequence: u64, lane_tag: u32, now: i64) -> RecordHeader {
        self.header.again(self.has_id, lane_sequence, lane_tag, now)
    }

    #[inline]
    fn write_archive(&self, out: &mut [u8]) -> Result<(), EncodeError> {
        out.copy_from_slice(&self.archive);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::{Level, MessageId, SystemNotice};
    use crate::{Producer, PublishError, Reader};

    fn notice(content: &str) -> Notification<'_> {
        let notice = SystemNotice { title: "t", content, level: Level::Info, timestamp: 7 };
        Notification::new("user", "Test", notice)
    }

    #[test]
    fn what_is_encoded_ahead_is_the_same_record_with_a_sequence_an_id_and_a_time_of_its_own() {
        let bus = format!("t-{}-encoded", std::process::id());
        let mut producer = Producer::open(&bus, "engine").unwrap();
        let mut reader = Reader::open(&bus, "reader").unwrap();
        producer.look();
        let plain = notice("content").with_priority(Priority::P1);
        let id = MessageId::from_bytes([9; 16]);
        let given = plain.with_message_id(id).with_timestamp(11);
        let (encoded, given) = (Encoded::new(&plain).unwrap(), Encoded::new(&given).unwrap());

        let first = producer.publish(&plain).unwrap();
        let second = producer.publish(&encoded).unwrap();
        let mut batch = producer.batch();
        let third = batch.push(&encoded).unwrap();
        let fourth = batch.push(&given).unwrap();
        let mut timed = encoded.clone();
        timed.set_timestamp(12);
        let fifth = batch.push(&timed).unwrap();
        assert_eq!(batch.commit(), 3);

        let published = [first, second, third, fourth, fifth];
        assert_eq!(published.map(|it| it.lane_sequence), [1, 2, 3, 4, 5]);
        assert_eq!((fourth.message_id, fourth.timestamp, fifth.timestamp), (id, 11, 12));
        assert!(second.timestamp >= first.timestamp && second.message_id != third.message_id);
        let lane = reader.lanes().next().unwrap();
        let mut count = 0;
        for expected in published {
            let slot = reader.peek(lane, Priority::P1).unwrap().unwrap();
            let (header, view) = (*slot.header(), slot.view().unwrap());
            assert_eq!(
                (header.lane_sequence, header.message_id),
                (expected.lane_sequence, expected.message_id)
            );
            assert_eq!(header.timestamp, expected.timestamp);
            assert_eq!(header.published_at().is_some(), expected.lane_sequence < 4);
            assert_eq!(header.record_len as usize, encoded.record_len());
            assert_eq!(view.user_id(), "user");
            reader.advance(lane, Priority::P1);
            count += 1;
        }
        assert_eq!(count, 5);
        drop((producer, reader));
        crate::inspect::remove_unheld(&bus).unwrap();
    }

    #[test]
    fn what_cannot_be_encoded_is_refused_ahead_and_what_is_too_long_for_a_ring_when_it_is_published() {
        let nobody = Notification { user_id: "", ..notice("content") };
        assert!(matches!(Encoded::new(&nobody), Err(EncodeError::UserIdEmpty)));

        let bus = format!("t-{}-encoded-long", std::process::id());
        let options = crate::ProducerOptions::new().capacity(Priority::P3, 4096);
        let mut producer = options.open(&bus, "engine").unwrap();
        let content = "x".repeat(2000);
        let long = Encoded::new(&notice(&content).with_priority(Priority::P3)).unwrap();
        let refused = producer.publish(&long);
        assert!(
            matches!(refused, Err(PublishError::TooLarge { len, max: 1024 }) if len == long.record_len()),
            "{refused:?}"
        );
        drop(producer);
        crate::inspect::remove_unheld(&bus).unwrap();
    }
}
