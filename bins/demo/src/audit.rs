//! The audit: what each producer published, in the order in which it did, told to the parent through a pipe.
//!
//! The parent holds it against what the clients got. An entry is written after publish returned `Ok` and says what was
//! published, not what should have been.
//!
//! ```text
//!       0      1      2       4              8                              16
//!      +------+------+-------+--------------+-------------------------------+
//!   0  | kind | prio | zeros | user         | lane sequence, or a count     |
//!      +------+------+-------+--------------+-------------------------------+
//!  16  | message id                                                         |
//!      +--------------------------------------------------------------------+
//! ```

use bellwire::{MessageId, Priority, Published};

use crate::exchange::User;

/// Length of an entry, in bytes.
pub(crate) const ENTRY_LEN: usize = 32;

/// Stands for everybody.
const EVERYBODY: User = User::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// All consumers are there; publishing begins.
    Ready,
    /// A notification was published. No user: for everybody.
    Published { user: Option<User>, priority: Priority, lane_sequence: u64, message_id: MessageId },
    /// A full ring refused so many publishes; they were tried again.
    Refused(u64),
    /// Nothing follows. So many notifications were published.
    End(u64),
}

/// Bytes that are not an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("audit entry of kind {kind}, priority {priority}: no such thing")]
pub(crate) struct EntryError {
    kind: u8,
    priority: u8,
}

impl Entry {
    pub(crate) fn published(user: Option<User>, priority: Priority, published: &Published) -> Self {
        let Published { lane_sequence, message_id, .. } = *published;
        Self::Published { user, priority, lane_sequence, message_id }
    }

    pub(crate) fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        let (kind, number) = match self {
            Self::Ready => (1, 0),
            Self::Published { user, priority, lane_sequence, message_id } => {
                bytes[1] = priority as u8;
                bytes[4..8].copy_from_slice(&user.unwrap_or(EVERYBODY).to_le_bytes());
                bytes[16..32].copy_from_slice(&message_id.to_bytes());
                (2, lane_sequence)
            }
            Self::Refused(count) => (3, count),
            Self::End(count) => (4, count),
        };
        bytes[0] = kind;
        bytes[8..16].copy_from_slice(&number.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Result<Self, EntryError> {
        let [kind, priority, ..] = *bytes;
        let number = u64::from_le_bytes(part(bytes, 8));
        let wrong = EntryError { kind, priority };
        Ok(match kind {
            1 => Self::Ready,
            2 => {
                let user = u32::from_le_bytes(part(bytes, 4));
                Self::Published {
                    user: (user != EVERYBODY).then_some(user),
                    priority: Priority::from_number(priority).ok_or(wrong)?,
                    lane_sequence: number,
                    message_id: MessageId::from_bytes(part(bytes, 16)),
                }
            }
            3 => Self::Refused(number),
            4 => Self::End(number),
            _ => return Err(wrong),
        })
    }
}

fn part<const N: usize>(bytes: &[u8; ENTRY_LEN], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back() {
        let message_id = MessageId::compose(5, 6, 7_000_000);
        for user in [None, Some(0), Some(123)] {
            for entry in [
                Entry::Ready,
                Entry::Published { user, priority: Priority::P2, lane_sequence: 99, message_id },
                Entry::Refused(3),
                Entry::End(1 << 40),
            ] {
                assert_eq!(Entry::from_bytes(&entry.to_bytes()), Ok(entry));
            }
        }
        assert!(Entry::from_bytes(&[0; ENTRY_LEN]).is_err());
        let mut bytes =
            Entry::Published { user: None, priority: Priority::P0, lane_sequence: 1, message_id }.to_bytes();
        bytes[1] = 4;
        assert_eq!(Entry::from_bytes(&bytes), Err(EntryError { kind: 2, priority: 4 }));
    }
}
