//! What a segment's first bytes say of the build that made it, also of a build whose layout we do not know.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::Segment;
use crate::bus::SegmentKind;
use crate::layout::{CURSORS_MAGIC, Identity, LANE_MAGIC, LAYOUT_VERSION, abi_fingerprint};

/// Who made a segment, as its first bytes say. The place of these words is the same in all layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Lane or cursors; `None`: nobody of ours made it.
    pub kind: Option<SegmentKind>,
    /// The layout.
    pub version: u32,
    /// What builds share that lay archives out in the same way: see [`abi_fingerprint`](crate::abi_fingerprint).
    pub fingerprint: u64,
    /// Nothing but zeros, or shorter than this stamp: whoever made it has not come far.
    pub blank: bool,
}

impl Stamp {
    /// Whether it was made by a build that this one understands.
    pub fn is_ours(&self) -> bool {
        self.kind.is_some() && self.version == LAYOUT_VERSION && self.fingerprint == abi_fingerprint()
    }

    fn of(bytes: &[u8]) -> Self {
        let word = |at: usize| {
            bytes.get(at..at + 8).and_then(|word| Some(u64::from_le_bytes(word.try_into().ok()?)))
        };
        let magic = word(offset_of!(Identity, magic));
        let kind = match magic {
            Some(LANE_MAGIC) => Some(SegmentKind::Lane),
            Some(CURSORS_MAGIC) => Some(SegmentKind::Cursors),
            _ => None,
        };
        Self {
            kind,
            version: word(offset_of!(Identity, version)).map_or(0, |word| word as u32), // its lower half
            fingerprint: word(offset_of!(Identity, fingerprint)).unwrap_or(0),
            blank: bytes.len() < size_of::<Identity>() || bytes.iter().all(|byte| *byte == 0),
        }
    }
}

impl Segment {
    /// Reads the stamp; nothing is mapped.
    ///
    /// # Errors
    /// The file cannot be opened or read, or is none.
    pub fn stamp(&self) -> io::Result<Stamp> {
        let mut options = File::options();
        // NONBLOCK: a FIFO under this name must not make us wait for its other end.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open(&self.path)?;
        let mut bytes = [0; size_of::<Identity>()];
        let mut len = 0;
        while len < bytes.len() {
            match file.read_at(&mut bytes[len..], len as u64)? {
                0 => break,
                read => len += read,
            }
        }
        Ok(Stamp::of(&bytes[..len]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_our_build_from_others_and_from_nobody_s() {
        let mut bytes = [0; size_of::<Identity>()];
        assert!(Stamp::of(&bytes).blank && Stamp::of(&[]).blank);
        bytes[..8].copy_from_slice(&LANE_MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&LAYOUT_VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&abi_fingerprint().to_le_bytes());
        let ours = Stamp::of(&bytes);
        assert!(ours.is_ours() && !ours.blank && ours.kind == Some(SegmentKind::Lane), "{ours:?}");
        bytes[8] += 1;
        assert!(!Stamp::of(&bytes).is_ours());
        assert_eq!(Stamp::of(&[0xa5; 128]).kind, None);
        assert!(Stamp::of(&bytes[..20]).blank);
    }
}
