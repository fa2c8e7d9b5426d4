//! What a client process tells the oracle: entries of one length on its standard output.
//!
//! The items of a frame come first, then the move of the position that the frame as a whole makes. A process that is killed
//! in between has told nothing of the frame, and has not handled it: its successor resumes from before it.

use std::io::{self, Read};

pub(crate) const ENTRY_LEN: usize = 48;

/// An epoch as it came, padded with zeros.
pub(crate) type Epoch = [u8; 16];

pub(crate) fn epoch(text: &str) -> Option<Epoch> {
    let mut epoch = Epoch::default();
    epoch.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    Some(epoch)
}

pub(crate) fn epoch_text(epoch: &Epoch) -> &str {
    let len = epoch.iter().position(|byte| *byte == 0).unwrap_or(epoch.len());
    std::str::from_utf8(&epoch[..len]).unwrap_or_default()
}

/// Which of a session's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stream {
    User,
    All,
}

impl Stream {
    pub(crate) const BOTH: [Self; 2] = [Self::User, Self::All];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::All => "all",
        }
    }
}

/// Why a position could not be resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Why {
    EpochChanged,
    TooOld,
    Unknown,
}

/// What moved a position: for those who look for a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mover {
    Notification,
    Batch,
    ReplayEnd,
    Heartbeat,
}

impl Mover {
    const ALL: [Self; 4] = [Self::Notification, Self::Batch, Self::ReplayEnd, Self::Heartbeat];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A notification in the frame whose move follows. `code` is its record's, 0 if it is none; it is not `sound` if it
    /// differs by a byte from what was published.
    Item {
        seq: u64,
        code: u64,
        conflated: u64,
        sound: bool,
    },
    /// A frame moves the position.
    Move {
        prev: u64,
        seq: u64,
        epoch: Epoch,
        by: Mover,
    },
    /// What `auth_ok` says of a stream.
    Door {
        head: u64,
        oldest: u64,
        epoch: Epoch,
    },
    /// What `subscribed` says of a stream.
    Joined {
        seq: u64,
        recovered: bool,
        epoch: Epoch,
    },
    Resync {
        head: u64,
        why: Why,
        epoch: Epoch,
    },
    /// The connection ended: a close code, or 0 without one. `ours`: the client wanted it.
    Closed {
        code: u64,
        ours: bool,
    },
    /// A frame that is not of the protocol, or an error that no request explains; the process's log has it.
    Wrong {
        code: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) session: u32,
    pub(crate) stream: Stream,
    pub(crate) event: Event,
}

impl Entry {
    pub(crate) fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let none = Epoch::default();
        let (kind, flag, words, epoch) = match self.event {
            Event::Item { seq, code, conflated, sound } => (1, sound, [seq, code, conflated], none),
            Event::Move { prev, seq, epoch, by } => (2, false, [prev, seq, by as u64], epoch),
            Event::Door { head, oldest, epoch } => (3, false, [head, oldest, 0], epoch),
            Event::Joined { seq, recovered, epoch } => (4, recovered, [seq, 0, 0], epoch),
            Event::Resync { head, why, epoch } => (5, false, [head, why as u64, 0], epoch),
            Event::Closed { code, ours } => (6, ours, [code, 0, 0], none),
            Event::Wrong { code } => (7, false, [code, 0, 0], none),
        };
        let mut bytes = [0; ENTRY_LEN];
        bytes[..4].copy_from_slice(&self.session.to_le_bytes());
        bytes[4..7].copy_from_slice(&[self.stream as u8, kind, flag.into()]);
        for (place, word) in bytes[8..32].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[32..].copy_from_slice(&epoch);
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Option<Self> {
        let word = |index: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[8 + index * 8 + byte]));
        let epoch: Epoch = std::array::from_fn(|index| bytes[32 + index]);
        let flag = bytes[6] != 0;
        let event = match bytes[5] {
            1 => Event::Item { seq: word(0), code: word(1), conflated: word(2), sound: flag },
            2 => {
                let by = *Mover::ALL.get(word(2) as usize)?;
                Event::Move { prev: word(0), seq: word(1), epoch, by }
            }
            3 => Event::Door { head: word(0), oldest: word(1), epoch },
            4 => Event::Joined { seq: word(0), recovered: flag, epoch },
            5 => {
                let why = [Why::EpochChanged, Why::TooOld].into_iter().find(|why| *why as u64 == word(1));
                Event::Resync { head: word(0), why: why.unwrap_or(Why::Unknown), epoch }
            }
            6 => Event::Closed { code: word(0), ours: flag },
            7 => Event::Wrong { code: word(0) },
            _ => return None,
        };
        let stream = Stream::BOTH.into_iter().find(|stream| *stream as u8 == bytes[4])?;
        let session = u32::from_le_bytes(std::array::from_fn(|index| bytes[index]));
        Some(Self { session, stream, event })
    }
}

/// Reads entries until the pipe ends, and hands them over in chunks. A torn one at the end is no entry.
pub(crate) fn read_all(mut pipe: impl Read, mut f: impl FnMut(&[Entry])) -> io::Result<()> {
    let mut bytes = vec![0; 1024 * ENTRY_LEN];
    let mut entries = Vec::with_capacity(1024);
    let mut filled = 0;
    loop {
        let read = pipe.read(&mut bytes[filled..])?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (whole, rest) = bytes[..filled].as_chunks::<ENTRY_LEN>();
        let left = rest.len();
        entries.clear();
        for entry in whole {
            entries.push(Entry::from_bytes(entry).ok_or_else(|| io::Error::other("no entry of a client"))?);
        }
        f(&entries);
        bytes.copy_within(filled - left..filled, 0);
        filled = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_back() {
        let epoch = epoch("7cadce57").unwrap();
        assert_eq!(epoch_text(&epoch), "7cadce57");
        for event in [
            Event::Item { seq: 1, code: 2, conflated: 3, sound: true },
            Event::Move { prev: 4, seq: 5, epoch, by: Mover::ReplayEnd },
            Event::Door { head: 6, oldest: 7, epoch },
            Event::Joined { seq: 8, recovered: true, epoch },
            Event::Resync { head: 9, why: Why::TooOld, epoch },
            Event::Closed { code: 4002, ours: false },
            Event::Wrong { code: 10 },
        ] {
            let entry = Entry { session: 77, stream: Stream::All, event };
            assert_eq!(Entry::from_bytes(&entry.to_bytes()), Some(entry));
            let mut read = Vec::new();
            let bytes = [&entry.to_bytes()[..], &entry.to_bytes()[..20]].concat();
            read_all(&bytes[..], |entries| read.extend_from_slice(entries)).unwrap();
            assert_eq!(read, [entry]);
        }
    }
}
