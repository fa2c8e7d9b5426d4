//! A notification as it stands in memory.

use super::{EVERYBODY, MessageId, MessageType, PayloadView, Priority};

/// A hash of a user id, so that a reader can pass over other users' records without looking at the text.
///
/// It is 32 bits wide and the same in every build: records of two users may share one, so an equal hash is a reason to
/// compare the ids, never a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserHash(pub u32);

impl UserHash {
    /// The hash of that user id.
    #[inline]
    pub fn of(user_id: &str) -> Self {
        const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut hash = user_id.len() as u64 ^ MULTIPLIER;
        let mut mix = |word: u64| {
            let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
            hash = (product as u64) ^ (product >> 64) as u64;
        };
        let mut words = user_id.as_bytes().chunks_exact(8);
        for word in &mut words {
            mix(u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        let mut last = [0; 8];
        last[..words.remainder().len()].copy_from_slice(words.remainder());
        mix(u64::from_le_bytes(last));
        Self((hash ^ (hash >> 32)) as u32)
    }
}

/// One notification, read in place: the header's facts and the archived payload. Nothing is copied or allocated.
///
/// Whoever holds one knows that the archive passed rkyv's checked access, that its texts are UTF-8 and that its
/// numbers are finite.
#[derive(Clone, Copy)]
pub struct NotificationView<'a> {
    /// The key for de-duplication.
    pub message_id: MessageId,
    /// Nanoseconds since the Unix epoch.
    pub timestamp: i64,
    /// The ring it came through.
    pub priority: Priority,
    /// What happened.
    pub payload: PayloadView<'a>,
}

impl<'a> NotificationView<'a> {
    /// The type.
    #[inline]
    pub fn message_type(&self) -> MessageType {
        self.payload.message_type()
    }

    /// Whom it is for; [`EVERYBODY`] for all.
    #[inline]
    pub fn user_id(&self) -> &'a str {
        self.payload.envelope_user_id()
    }

    /// Which system says so.
    #[inline]
    pub fn source(&self) -> &'a str {
        self.payload.envelope_source()
    }

    /// Whether it is for everybody.
    #[inline]
    pub fn is_broadcast(&self) -> bool {
        self.user_id() == EVERYBODY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_user_id_never_changes() {
        // Lanes and journals outlive the build that wrote them.
        assert_eq!(UserHash::of("*"), UserHash::of(EVERYBODY));
        assert_ne!(UserHash::of("user_01"), UserHash::of("user_02"));
        assert_ne!(UserHash::of("a"), UserHash::of("a\0"));
        assert_ne!(UserHash::of("12345678"), UserHash::of("12345678\0"));
    }
}
