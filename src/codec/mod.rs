//! Between a [`Notification`](crate::Notification) and its bytes in shared memory.
//!
//! An archive is one rkyv root of fixed size, preceded by all texts packed into one string:
//!
//! ```text
//!  0                          t (texts)   aligned to 8                      archive_len
//! +--------------------------------------+--------------------------------------------+
//! | user_id source text text ...   | pad | numbers, times, words | end marks | rel ptr |
//! +--------------------------------------+--------------------------------------------+
//!                                         ^ the root: its place follows from the length
//! ```
//!
//! One UTF-8 pass checks all texts, where ten separate strings would cost ten checks and ten relative pointers. And the
//! length of the archive is known before a byte of it is written, so a ring reserves exactly what it needs.

pub(crate) mod form;
pub(crate) mod texts;

use crate::notification::{Notification, USER_ID_BYTES_MAX};

/// Why a notification cannot be put into a record. Nothing was published.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each number")]
pub enum EncodeError {
    /// A number is NaN or infinite. JSON cannot say such numbers.
    #[error("field {field}: {value} is not a finite number")]
    NotFinite { field: &'static str, value: f64 },
    /// The user id is empty: nobody would get it. Everybody is `*`.
    #[error("user_id is empty; `*` addresses everybody")]
    UserIdEmpty,
    /// The user id is too long.
    #[error("user_id has {len} bytes; the longest allowed is {max}", max = USER_ID_BYTES_MAX)]
    UserIdTooLong { len: usize },
    /// All texts together, user id and source included, do not fit into one record.
    #[error("the texts have {len} bytes together; the most that fits into a record of this type is {max}")]
    TextsTooLong { len: usize, max: usize },
}

/// Checks a notification and tells the exact length of its archive, in bytes.
#[inline]
pub(crate) fn archive_len(notification: &Notification<'_>) -> Result<usize, EncodeError> {
    let user_id = notification.user_id;
    if user_id.is_empty() {
        return Err(EncodeError::UserIdEmpty);
    }
    if user_id.len() > USER_ID_BYTES_MAX {
        return Err(EncodeError::UserIdTooLong { len: user_id.len() });
    }
    notification.payload.check()?;
    notification.payload.archive_len(user_id, notification.source)
}

/// Writes the archive; `out` is exactly [`archive_len`] bytes long and aligned to 8.
#[inline]
pub(crate) fn write_archive(notification: &Notification<'_>, out: &mut [u8]) -> Result<(), EncodeError> {
    notification.payload.archive(notification.user_id, notification.source, out)
}

#[cfg(test)]
mod tests {
    use crate::notification::{Level, Notification, SystemNotice};
    use crate::record::{RECORD_HEADER_LEN, RECORD_LEN_MAX, RecordHeader, to_record};

    use super::*;

    #[test]
    fn a_user_id_has_1_to_128_bytes() {
        let id = "i".repeat(USER_ID_BYTES_MAX + 1);
        let with = |len: usize| {
            let notice = SystemNotice { title: "t", content: "c", level: Level::Info, timestamp: 0 };
            to_record(&Notification::new(&id[..len], "", notice), 1, 0, 0)
        };
        assert_eq!(with(0), Err(EncodeError::UserIdEmpty));
        assert!(with(1).is_ok() && with(USER_ID_BYTES_MAX).is_ok());
        assert_eq!(with(USER_ID_BYTES_MAX + 1), Err(EncodeError::UserIdTooLong { len: 129 }));
    }

    /// Found by the fuzzer: texts that the end marks could count, but no record could hold, gave a record that nobody reads.
    #[test]
    fn the_longest_texts_give_the_longest_record_and_one_byte_more_is_refused() {
        let content = "x".repeat(RECORD_LEN_MAX);
        let with = |len: usize| {
            let notice =
                SystemNotice { title: "", content: &content[..len], level: Level::Info, timestamp: 0 };
            to_record(&Notification::new("u", "", notice), 1, 0, 0)
        };
        let Err(EncodeError::TextsTooLong { max, .. }) = with(content.len()) else { panic!("too long") };
        let record = with(max - 1).unwrap();
        assert_eq!(record.len(), RECORD_LEN_MAX);
        let header = RecordHeader::from_bytes(record[..RECORD_HEADER_LEN].try_into().unwrap());
        assert!(header.view(&record[RECORD_HEADER_LEN..][..header.archive_len as usize]).is_ok());
        assert_eq!(with(max), Err(EncodeError::TextsTooLong { len: max + 1, max }));
    }
}
