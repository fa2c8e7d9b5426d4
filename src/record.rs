//! A record: a header of 48 bytes, then the archive. The same bytes stand in a ring and in the gateway's journal.
//!
//! ```text
//!       0               4               8      9      10            12             16
//!      +---------------+---------------+------+------+-------------+---------------+
//!   0  | record length | archive length| type |  prio| flags       | user hash     |
//!      +---------------+---------------+------+------+-------------+---------------+
//!  16  | lane sequence                 | timestamp, ns since the Unix epoch         |
//!      +-------------------------------+-------------------------------------------+
//!  32  | message id                                                                |
//!      +---------------------------------------------------------------------------+
//!  48  | archive ... , zeros up to a multiple of 16                                |
//!      +---------------------------------------------------------------------------+
//! ```
//!
//! All numbers are little-endian. The record length counts the header and is a multiple of 16, so that a record that
//! begins aligned is followed by one that does. The first sixteen bytes tell a reader whether the record is one of its
//! own; a lap's *padding* has only them (type 0).

use crate::codec::{self, EncodeError};
use crate::notification::{
    MessageId, MessageType, Notification, NotificationView, PayloadView, Priority, UserHash,
};

/// Length of a record's header, in bytes.
pub const RECORD_HEADER_LEN: usize = 48;

/// Every record begins at a multiple of this, and its length is one.
pub const RECORD_ALIGN: usize = 16;

/// Longest record, header included, in bytes.
pub const RECORD_LEN_MAX: usize = 64 * 1024;

/// Where the type code stands in a header.
pub(crate) const TYPE_AT: usize = 8;

/// Type code of the padding that fills a lap's end.
pub(crate) const TYPE_PADDING: u8 = 0;

/// The caller gave the timestamp, so it does not tell when the record was published.
const FLAG_TIMESTAMP_GIVEN: u16 = 1;

/// What a record says before its archive. Plain numbers: nothing in here was checked until
/// [`RecordHeader::check`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Length of the record with this header, in bytes; a multiple of [`RECORD_ALIGN`].
    pub record_len: u32,
    /// Exact length of the archive, in bytes; rkyv's root stands at its end.
    pub archive_len: u32,
    /// Code of the [`MessageType`]; 0 is padding.
    pub type_code: u8,
    /// Number of the [`Priority`].
    pub priority: u8,
    /// Bit 0: the timestamp was given by the caller. The others are zero.
    pub flags: u16,
    /// Hash of the user id.
    pub user_hash: UserHash,
    /// The how-many-th record of its lane, over all four rings, from 1.
    pub lane_sequence: u64,
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// The key for de-duplication.
    pub message_id: MessageId,
}

/// A record that no producer of this library writes. The numbers are those found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each number")]
pub enum RecordError {
    /// The lengths contradict each other or the limits.
    #[error("record of {record_len} bytes with an archive of {archive_len}: impossible lengths")]
    Length { record_len: u32, archive_len: u32 },
    /// No such type.
    #[error("record of type {0}: no such type")]
    Type(u8),
    /// No such priority, or not that of its ring.
    #[error("record of priority {0}: not one of its place")]
    Priority(u8),
    /// The archive did not pass rkyv's checked access, or its texts or numbers are not sound.
    #[error("archive of {len} bytes is not a sound {message_type:?}")]
    Archive { message_type: MessageType, len: usize },
    /// The hash in the header is not that of the user id in the archive.
    #[error("user hash {found:#010x} in the header, {expected:#010x} in the archive")]
    UserHash { found: u32, expected: u32 },
}

impl RecordHeader {
    /// The header of a record for `notification`, published at `now` (ns since the Unix epoch).
    #[inline]
    pub(crate) fn new(
        notification: &Notification<'_>,
        archive_len: usize,
        lane_sequence: u64,
        lane_tag: u32,
        now: i64,
    ) -> Self {
        let message_id =
            notification.message_id.unwrap_or_else(|| MessageId::compose(lane_tag, lane_sequence, now));
        Self {
            record_len: record_len(archive_len) as u32,
            archive_len: archive_len as u32,
            type_code: notification.message_type() as u8,
            priority: notification.priority as u8,
            flags: if notification.timestamp.is_some() { FLAG_TIMESTAMP_GIVEN } else { 0 },
            user_hash: UserHash::of(notification.user_id),
            lane_sequence,
            timestamp: notification.timestamp.unwrap_or(now),
            message_id,
        }
    }

    /// The header as it stands in memory.
    #[inline]
    pub fn to_bytes(&self) -> [u8; RECORD_HEADER_LEN] {
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.record_len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.archive_len.to_le_bytes());
        bytes[8] = self.type_code;
        bytes[9] = self.priority;
        bytes[10..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.user_hash.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.lane_sequence.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[32..48].copy_from_slice(&self.message_id.to_bytes());
        bytes
    }

    /// Reads a header. Any bytes give one; see [`RecordHeader::check`].
    #[inline]
    pub fn from_bytes(bytes: &[u8; RECORD_HEADER_LEN]) -> Self {
        let mut words = [0; RECORD_HEADER_LEN / 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        }
        Self::from_words(words)
    }

    /// Reads a header from its words, as numbers.
    #[inline]
    pub(crate) fn from_words(words: [u64; RECORD_HEADER_LEN / 8]) -> Self {
        let [lengths, kind, lane_sequence, timestamp, id_start, id_end] = words;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&id_start.to_le_bytes());
        id[8..].copy_from_slice(&id_end.to_le_bytes());
        Self {
            record_len: lengths as u32,
            archive_len: (lengths >> 32) as u32,
            type_code: kind as u8,
            priority: (kind >> 8) as u8,
            flags: (kind >> 16) as u16,
            user_hash: UserHash((kind >> 32) as u32),
            lane_sequence,
            timestamp: timestamp as i64,
            message_id: MessageId::from_bytes(id),
        }
    }

    /// Checks the lengths, the type and the priority.
    ///
    /// # Errors
    /// The first rule that the header breaks.
    #[inline]
    pub fn check(&self) -> Result<(MessageType, Priority), RecordError> {
        let (record_len, archive_len) = (self.record_len, self.archive_len);
        if record_len as usize > RECORD_LEN_MAX
            || record_len as usize != self::record_len(archive_len as usize)
        {
            return Err(RecordError::Length { record_len, archive_len });
        }
        let message_type = MessageType::from_code(self.type_code).ok_or(RecordError::Type(self.type_code))?;
        let priority = Priority::from_number(self.priority).ok_or(RecordError::Priority(self.priority))?;
        Ok((message_type, priority))
    }

    /// Checks header and archive against each other and gives the notification in place.
    ///
    /// `archive` is exactly [`RecordHeader::archive_len`] bytes long and aligned to 8: the bytes behind the header.
    /// The check reads every text once (UTF-8) and nothing twice; what it gives stays true as long as nobody writes to
    /// these bytes.
    ///
    /// # Errors
    /// What is wrong, if these bytes are not a record that a producer of this build writes.
    #[inline]
    pub fn view<'a>(&self, archive: &'a [u8]) -> Result<NotificationView<'a>, RecordError> {
        let (message_type, priority) = self.check()?;
        let unsound = RecordError::Archive { message_type, len: archive.len() };
        if archive.len() != self.archive_len as usize {
            return Err(unsound);
        }
        let payload = PayloadView::access(message_type, archive).ok_or(unsound)?;
        let view =
            NotificationView { message_id: self.message_id, timestamp: self.timestamp, priority, payload };
        let expected = UserHash::of(view.user_id());
        if expected != self.user_hash {
            return Err(RecordError::UserHash { found: self.user_hash.0, expected: expected.0 });
        }
        Ok(view)
    }

    /// The header of the same archive's next record.
    #[inline]
    pub(crate) fn again(&self, has_id: bool, lane_sequence: u64, lane_tag: u32, now: i64) -> Self {
        let timestamp = if self.flags & FLAG_TIMESTAMP_GIVEN == 0 { now } else { self.timestamp };
        let message_id =
            if has_id { self.message_id } else { MessageId::compose(lane_tag, lane_sequence, now) };
        Self { lane_sequence, timestamp, message_id, ..*self }
    }

    /// Sets a time that does not tell when the record is published.
    pub(crate) fn give_timestamp(&mut self, timestamp: i64) {
        self.timestamp = timestamp;
        // It is the only flag. Set as a whole: a load of two bytes soon after a store to one of them waits for all stores.
        self.flags = FLAG_TIMESTAMP_GIVEN;
    }

    /// When the record was published, in nanoseconds since the Unix epoch; `None` if its timestamp was the caller's.
    #[inline]
    pub fn published_at(&self) -> Option<i64> {
        (self.flags & FLAG_TIMESTAMP_GIVEN == 0).then_some(self.timestamp)
    }
}

/// A notification as a record, outside of any ring: what a recorder or a test puts into a file.
///
/// `lane_sequence`, `lane_tag` and `now` are what a lane would fill in.
///
/// # Errors
/// [`EncodeError`], as [`Producer::publish`](crate::Producer::publish) would refuse it.
pub fn to_record(
    notification: &Notification<'_>,
    lane_sequence: u64,
    lane_tag: u32,
    now: i64,
) -> Result<Vec<u8>, EncodeError> {
    to_record_parts(notification, lane_sequence, lane_tag, now).map(|(_, record)| record)
}

/// The record, and its header once more.
pub(crate) fn to_record_parts(
    notification: &Notification<'_>,
    lane_sequence: u64,
    lane_tag: u32,
    now: i64,
) -> Result<(RecordHeader, Vec<u8>), EncodeError> {
    let archive_len = codec::archive_len(notification)?;
    let header = RecordHeader::new(notification, archive_len, lane_sequence, lane_tag, now);
    // The archive is built at a multiple of 16, as in a ring: its inner alignment depends on that alone.
    let mut record = vec![0; header.record_len as usize];
    record[..RECORD_HEADER_LEN].copy_from_slice(&header.to_bytes());
    codec::write_archive(notification, &mut record[RECORD_HEADER_LEN..RECORD_HEADER_LEN + archive_len])?;
    Ok((header, record))
}

/// Length of the record for an archive of that length.
#[inline]
pub(crate) const fn record_len(archive_len: usize) -> usize {
    (RECORD_HEADER_LEN + archive_len).next_multiple_of(RECORD_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::{Level, SystemNotice};

    fn notification() -> Notification<'static> {
        let notice = SystemNotice { title: "title", content: "content", level: Level::Info, timestamp: 3 };
        Notification::new("user", "Test", notice)
    }

    fn record() -> (RecordHeader, Vec<u8>) {
        let (header, record) = to_record_parts(&notification(), 9, 7, 11).unwrap();
        let archive = record[RECORD_HEADER_LEN..][..header.archive_len as usize].to_vec();
        (header, archive)
    }

    #[test]
    fn a_header_stands_in_memory_as_the_layout_says() {
        let header = RecordHeader {
            record_len: 0x0403_0201,
            archive_len: 0x0807_0605,
            type_code: 9,
            priority: 10,
            flags: 0x0c0b,
            user_hash: UserHash(0x100f_0e0d),
            lane_sequence: 0x1817_1615_1413_1211,
            timestamp: 0x201f_1e1d_1c1b_1a19,
            message_id: MessageId::from_bytes(std::array::from_fn(|index| 0x21 + index as u8)),
        };
        let bytes: [u8; RECORD_HEADER_LEN] = std::array::from_fn(|index| index as u8 + 1);
        assert_eq!(header.to_bytes(), bytes);
        assert_eq!(RecordHeader::from_bytes(&bytes), header);
    }

    #[test]
    fn a_record_is_as_long_as_header_and_archive_and_a_multiple_of_16() {
        assert_eq!([0, 1, 16, 17, 32].map(record_len), [48, 64, 64, 80, 80]);
        let (header, archive) = record();
        assert_eq!(header.record_len as usize, record_len(archive.len()));
        assert_eq!(to_record(&notification(), 9, 7, 11).unwrap().len(), record_len(archive.len()));
    }

    #[test]
    fn each_rule_of_a_header_is_checked() {
        let (header, _) = record();
        assert_eq!(header.check(), Ok((MessageType::SystemNotice, Priority::P3)));
        let lengths = |record_len, archive_len| {
            let error = RecordError::Length { record_len, archive_len };
            assert_eq!(RecordHeader { record_len, archive_len, ..header }.check(), Err(error));
        };
        lengths(header.record_len + 16, header.archive_len);
        lengths(header.record_len, header.archive_len + 16);
        lengths(0, u32::MAX);
        let max = RECORD_LEN_MAX as u32;
        let longest = RecordHeader { record_len: max, archive_len: max - 48, ..header };
        assert!(longest.check().is_ok());
        lengths(max + 16, max - 32);
        lengths(max, max);
        for type_code in [TYPE_PADDING, 255] {
            assert_eq!(RecordHeader { type_code, ..header }.check(), Err(RecordError::Type(type_code)));
        }
        assert_eq!(RecordHeader { priority: 4, ..header }.check(), Err(RecordError::Priority(4)));
    }

    #[test]
    fn a_view_is_given_of_the_right_bytes_only() {
        let (header, mut archive) = record();
        let view = header.view(&archive).unwrap();
        assert_eq!((view.user_id(), view.source(), view.is_broadcast()), ("user", "Test", false));
        assert_eq!((view.message_id, view.timestamp), (header.message_id, 11));
        assert_eq!((view.priority, view.message_type()), (Priority::P3, MessageType::SystemNotice));

        let unsound = |len| RecordError::Archive { message_type: MessageType::SystemNotice, len };
        let refused = |header: &RecordHeader, archive: &[u8]| header.view(archive).map(|_| ()).unwrap_err();
        let short = archive.len() - 1;
        assert_eq!(refused(&header, &archive[..short]), unsound(short));
        let other = RecordHeader { user_hash: UserHash(header.user_hash.0 ^ 1), ..header };
        assert!(matches!(refused(&other, &archive), RecordError::UserHash { .. }));
        // Of the user's name: no longer his, no longer a text.
        archive[0] ^= 1;
        assert!(matches!(refused(&header, &archive), RecordError::UserHash { .. }));
        archive[0] = 0xff;
        assert_eq!(refused(&header, &archive), unsound(archive.len()));
    }

    #[test]
    fn only_a_time_that_was_not_given_tells_when_it_was_published() {
        let (header, _) = record();
        assert_eq!((header.timestamp, header.published_at()), (11, Some(11)));
        let (given, _) = to_record_parts(&notification().with_timestamp(5), 9, 7, 11).unwrap();
        assert_eq!((given.timestamp, given.published_at()), (5, None));
        assert_eq!(header.message_id, MessageId::compose(7, 9, 11));
        let id = MessageId::from_bytes([3; 16]);
        let (given, _) = to_record_parts(&notification().with_message_id(id), 9, 7, 11).unwrap();
        assert_eq!(given.message_id, id);
    }
}
