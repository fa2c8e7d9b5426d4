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
        let (words, rest) = user_id.as_bytes().as_chunks::<8>();
        for word in words {
            mix(u64::from_le_bytes(*word));
        }
        mix(little_endian(rest));
        Self((hash ^ (hash >> 32)) as u32)
    }
}

/// Fewer than eight bytes as a number. (Copying them into a word would be a call of memcpy, on the way of every publish.)
#[inline]
fn little_endian(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        // They overlap, and agree where they do.
        return u64::from(u32::from_le_bytes(*first))
            | u64::from(u32::from_le_bytes(*last)) << (8 * (len - 4));
    }
    match *bytes {
        [a, b, c] => u64::from(a) | u64::from(b) << 8 | u64::from(c) << 16,
        [a, b] => u64::from(a) | u64::from(b) << 8,
        [a] => u64::from(a),
        _ => 0,
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

    /// Of the first 0, 1, 2 ... characters of a sentence.
    const HASHES: [u32; 18] = [
        0xf071_7135,
        0xc1e3_67ca,
        0x3f5b_827a,
        0x4b8c_30e8,
        0x4f93_29bc,
        0xe93c_102e,
        0xe847_e4d2,
        0xb90a_5999,
        0x9ce0_2749,
        0x2a70_09f3,
        0x83ae_6694,
        0x4f75_0716,
        0x6a7f_6a92,
        0x5645_dfa7,
        0xe624_73f2,
        0x1537_2caf,
        0xff79_1da9,
        0x94db_1943,
    ];

    #[test]
    fn the_hash_of_a_user_id_never_changes() {
        // Lanes and journals outlive the build that wrote them.
        assert_eq!(UserHash::of("*"), UserHash::of(EVERYBODY));
        assert_ne!(UserHash::of("user_01"), UserHash::of("user_02"));
        assert_ne!(UserHash::of("a"), UserHash::of("a\0"));
        assert_ne!(UserHash::of("12345678"), UserHash::of("12345678\0"));
        let long = "the_quick_brown_fox_jumps";
        let hashes: Vec<u32> = (0..HASHES.len()).map(|len| UserHash::of(&long[..len]).0).collect();
        assert_eq!(hashes, HASHES);
    }
}
