//! Message ids: UUIDs that sort by time, composed from what the lane knows instead of drawn at random.
//!
//! ```text
//!  0                   47 48  51 52          63
//! +----------------------+------+--------------+
//! | Unix time, ms        | 0111 | time within  |   version 7: time-ordered
//! |                      |      | the ms /4096 |
//! +----+-----------------+------+--------------+
//! | 10 | lane tag (22)   | lane sequence (40)  |   variant 10
//! +----+-----------------+---------------------+
//! ```
//!
//! Within one lane the sequence makes ids unique; between lanes the tag (a hash of the lane's name and of the instant
//! of its creation) and the time do. Drawing 74 random bits for each message would cost more than publishing it.

use std::fmt;
use std::str::FromStr;

/// The key by which a notification is recognised when it is sent twice. A UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; 16]);

/// A text that is not a message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 36 characters xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx, found {len} bytes{}", match .at {
    Some(at) => format!(", first wrong one at {at}"),
    None => String::new(),
})]
pub struct ParseMessageIdError {
    /// Length of the text, in bytes.
    pub len: usize,
    /// Index of the first byte that is wrong, if the length was right.
    pub at: Option<usize>,
}

impl MessageId {
    /// An id from the sixteen bytes of any UUID.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The sixteen bytes, most significant first.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Composes the id of record `sequence` of a lane, published at `timestamp` (ns since the Unix epoch).
    #[inline]
    pub fn compose(lane_tag: u32, sequence: u64, timestamp: i64) -> Self {
        const NS_PER_MS: u64 = 1_000_000;
        let ns = timestamp.max(0) as u64;
        let (ms, within) = (ns / NS_PER_MS, ns % NS_PER_MS);
        // within < 10^6, and 10^6 / 4096 = 244.140625: the fraction of the millisecond in 12 bits.
        let fraction = (within << 12) / NS_PER_MS;
        let high = (ms << 16) | 0x7000 | fraction;
        let low = (0b10 << 62) | (u64::from(lane_tag & 0x3f_ffff) << 40) | (sequence & 0xff_ffff_ffff);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        Self(bytes)
    }

    /// The 36-character form, without allocating.
    #[inline]
    pub fn encode(self, out: &mut [u8; 36]) -> &str {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut at = 0;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                out[at] = b'-';
                at += 1;
            }
            out[at] = HEX[usize::from(byte >> 4)];
            out[at + 1] = HEX[usize::from(byte & 15)];
            at += 2;
        }
        std::str::from_utf8(out).unwrap_or_default()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.encode(&mut [0; 36]))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = ParseMessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |at| ParseMessageIdError { len: text.len(), at };
        let text: &[u8; 36] = text.as_bytes().try_into().map_err(|_| wrong(None))?;
        let mut bytes = [0; 16];
        let mut nibble = 0;
        for (at, &c) in text.iter().enumerate() {
            if matches!(at, 8 | 13 | 18 | 23) {
                if c != b'-' {
                    return Err(wrong(Some(at)));
                }
                continue;
            }
            let digit = (c as char).to_digit(16).ok_or_else(|| wrong(Some(at)))? as u8;
            bytes[nibble / 2] = (bytes[nibble / 2] << 4) | digit;
            nibble += 1;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composed_id_is_a_version_7_uuid_that_sorts_by_time_then_sequence() {
        let early = MessageId::compose(0x2f_abcd, 7, 1_728_123_456_000_000_000);
        let later = MessageId::compose(0x01_0000, 8, 1_728_123_456_000_400_000);
        let next = MessageId::compose(0x2f_abcd, 8, 1_728_123_456_000_000_000);
        assert_eq!(early.to_bytes()[6] >> 4, 7);
        assert_eq!(early.to_bytes()[8] >> 6, 0b10);
        assert!(early < next && next < later);
    }

    #[test]
    fn the_text_form_reads_back_and_bad_text_names_the_byte() {
        let id = MessageId::compose(1, 2, 3_000_000);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("".parse::<MessageId>(), Err(ParseMessageIdError { len: 0, at: None }));
        let mut text = id.to_string();
        text.replace_range(9..10, "g");
        assert_eq!(text.parse::<MessageId>(), Err(ParseMessageIdError { len: 36, at: Some(9) }));
    }
}
