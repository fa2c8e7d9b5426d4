//! What the bytes of a `.chain` file mean.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Link;
use crate::layout::{u32_at, u64_at};

/// "BELLCHAN", little-endian.
const MAGIC: u64 = u64::from_le_bytes(*b"BELLCHAN");
/// Changes whenever anything in this folder changes what a file means.
const VERSION: u32 = 1;
/// Length of a link, in bytes.
pub(super) const LINK_LEN: usize = 32;
/// Length of the header, in bytes: whole links, so that link `n` stands at a multiple of its length.
pub(super) const CHAIN_HEADER_LEN: usize = 3 * LINK_LEN;

/// What stands before the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainHeader {
    pub journal_id: u64,
    /// Base of the segment whose entries are linked.
    pub base: u64,
    /// The last link of the segment before; [`Link::NONE`]: the chain begins here.
    pub before: Link,
    /// Tells keys apart; 0: there is none.
    pub key_mark: u64,
}

/// Why a header is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainHeaderError {
    #[error("magic {found:#018x}, expected {MAGIC:#018x}: not a chain")]
    Magic { found: u64 },
    #[error("layout {found}, this build reads {VERSION}")]
    Version { found: u32 },
    #[error("{found} bytes, not even a header of {CHAIN_HEADER_LEN}")]
    Length { found: u64 },
}

impl ChainHeader {
    pub(crate) fn to_bytes(self) -> [u8; CHAIN_HEADER_LEN] {
        let mut bytes = [0; CHAIN_HEADER_LEN];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.journal_id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.base.to_le_bytes());
        bytes[32..64].copy_from_slice(&self.before.0);
        bytes[64..72].copy_from_slice(&self.key_mark.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8; CHAIN_HEADER_LEN]) -> Result<Self, ChainHeaderError> {
        let (found, version) = (u64_at(bytes, 0), u32_at(bytes, 8));
        if found != MAGIC {
            return Err(ChainHeaderError::Magic { found });
        }
        if version != VERSION {
            return Err(ChainHeaderError::Version { found: version });
        }
        let mut before = Link::NONE;
        before.0.copy_from_slice(&bytes[32..64]);
        Ok(Self {
            journal_id: u64_at(bytes, 16),
            base: u64_at(bytes, 24),
            before,
            key_mark: u64_at(bytes, 64),
        })
    }
}

/// The chain of the segment in that file.
pub(crate) fn chain_path(segment: &Path) -> PathBuf {
    segment.with_extension("chain")
}

/// The header of an open chain, and how many whole links follow it.
pub(super) fn read_header(file: &File) -> io::Result<Result<(ChainHeader, u64), ChainHeaderError>> {
    let len = file.metadata()?.len();
    if len < CHAIN_HEADER_LEN as u64 {
        return Ok(Err(ChainHeaderError::Length { found: len }));
    }
    let mut bytes = [0; CHAIN_HEADER_LEN];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(ChainHeader::from_bytes(&bytes)
        .map(|header| (header, (len - CHAIN_HEADER_LEN as u64) / LINK_LEN as u64)))
}

/// Place of link `index` in the file.
pub(super) const fn link_at(index: u64) -> u64 {
    CHAIN_HEADER_LEN as u64 + index * LINK_LEN as u64
}

/// The link at that place.
pub(super) fn read_link(file: &File, index: u64) -> io::Result<Link> {
    let mut link = Link::NONE;
    file.read_exact_at(&mut link.0, link_at(index))?;
    Ok(link)
}

/// A whole chain, or why the file is none.
pub(crate) type Links = Result<(ChainHeader, Vec<Link>), ChainHeaderError>;

/// A whole chain, but for what is behind `count_max` links.
pub(crate) fn read_links(path: &Path, count_max: u64) -> io::Result<Links> {
    let file = File::open(path)?;
    let (header, count) = match read_header(&file)? {
        Ok(found) => found,
        Err(error) => return Ok(Err(error)),
    };
    let mut bytes = vec![0; count.min(count_max) as usize * LINK_LEN];
    file.read_exact_at(&mut bytes, link_at(0))?;
    Ok(Ok((header, bytes.as_chunks().0.iter().map(|link| Link(*link)).collect())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_others_are_refused() {
        let header = ChainHeader { journal_id: 3, base: 0x10_0000, before: Link([5; LINK_LEN]), key_mark: 9 };
        let bytes = header.to_bytes();
        assert_eq!(ChainHeader::from_bytes(&bytes), Ok(header));
        let mut wrong = bytes;
        wrong[0] ^= 1;
        assert!(matches!(ChainHeader::from_bytes(&wrong), Err(ChainHeaderError::Magic { .. })));
        let mut wrong = bytes;
        wrong[8] = 2;
        assert_eq!(ChainHeader::from_bytes(&wrong), Err(ChainHeaderError::Version { found: 2 }));
    }

    /// Other tools read these places.
    #[test]
    fn a_header_has_these_bytes() {
        let header = ChainHeader { journal_id: 1, base: 2, before: Link([3; LINK_LEN]), key_mark: 4 };
        let bytes = header.to_bytes();
        assert_eq!(&bytes[..16], b"BELLCHAN\x01\0\0\0\0\0\0\0");
        assert_eq!((bytes[16], bytes[24], bytes[32], bytes[63], bytes[64]), (1, 2, 3, 3, 4));
        assert_eq!((link_at(0), link_at(2)), (96, 160));
    }
}
