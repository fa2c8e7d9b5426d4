//! What the bytes of a journal file mean.
//!
//! A journal is a row of *segment files*. An *offset* is a place in the whole row: `base` of the segment plus the place
//! in its file. Offsets only grow; every one is a multiple of 16 and none is ever 0, so 0 says "none".
//!
//! ```text
//! segment file <base, 16 hex digits>.journal
//!  0        +----------------------------------------------------+
//!           | magic, stored last   | version      | header length |
//!  16       | base                 | length of the file           |
//!  32       | journal id           | fingerprint of the archives  |
//!  48       | created at, ns       | boot id (16 bytes) ...       |
//!  72       | crc of 8..72 | zero  | generation   | !generation   |  <- from here on written in place, 8 bytes at once
//!  88       | used: where the entries end, 0 while it is the last segment |
//!  96       | durable: 1 once everything above and below is on disk       |
//!  104      | fresh from: streams of entries before this offset are over; 0: none is | zero |
//!  128      | entry | entry | entry | zero ...                            |
//!           +----------------------------------------------------+
//!
//! entry, aligned to 16
//!  0        +--------------+--------------+------------------------------+
//!           | length       | crc          | sequence in the stream       |
//!  16       | offset of the stream's     | key of the lane                |
//!           | previous entry, 0: none    |                                |
//!  32       | journalled at, ns          | epoch        | stream slot     |
//!  48       | the record as it stood in the ring: header (48), archive, zeros up to a multiple of 16 |
//!           +--------------+--------------+------------------------------+
//! ```
//!
//! # Why a torn entry is never taken for a whole one
//!
//! The crc covers everything in the entry but itself, and it begins with the journal's id and the entry's offset. An
//! entry that was written in part, an old one that shows at another place, and bytes that a producer chose (a record is
//! moved into the journal's free room before it is checked) all fail it. And before an entry's length is stored, the
//! length that would follow it is set to zero, so that a scan ends there and not in what lay there before.
//!
//! The *stream slot* is the number of the stream in the gateway's table: recovery can then follow a stream from entry to
//! entry without looking at the user ids. A slot passes to another user only when all entries of the former one have left
//! the journal.

use bellwire::{RECORD_LEN_MAX, abi_fingerprint};

/// "BELLJRNL", little-endian.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"BELLJRNL");
/// Changes whenever anything in this file changes its meaning.
pub(super) const VERSION: u32 = 1;
/// Length of a segment's header, in bytes.
pub const SEGMENT_HEADER_LEN: usize = 128;
/// Length of an entry's header, in bytes.
pub const ENTRY_HEADER_LEN: usize = 48;
/// Every offset is a multiple of this.
pub const ENTRY_ALIGN: usize = 16;
/// Longest entry, in bytes.
pub const ENTRY_LEN_MAX: usize = ENTRY_HEADER_LEN + RECORD_LEN_MAX;
/// Places of the header's words that change.
pub(super) const GENERATION_AT: usize = 80;
pub(super) const USED_AT: usize = 88;
pub(super) const DURABLE_AT: usize = 96;
pub(super) const FRESH_AT: usize = 104;
/// Place of the word that says when the segment was begun.
pub(super) const CREATED_AT: usize = 48;
const CRC_AT: usize = 72;

const _: () =
    assert!(SEGMENT_HEADER_LEN.is_multiple_of(ENTRY_ALIGN) && ENTRY_HEADER_LEN.is_multiple_of(ENTRY_ALIGN));
const _: () = assert!(ENTRY_LEN_MAX.is_multiple_of(ENTRY_ALIGN) && bellwire::RECORD_ALIGN == ENTRY_ALIGN);
const _: () =
    assert!(GENERATION_AT.is_multiple_of(8) && USED_AT.is_multiple_of(8) && DURABLE_AT.is_multiple_of(8));
const _: () = assert!(FRESH_AT.is_multiple_of(8) && FRESH_AT + 8 <= SEGMENT_HEADER_LEN);

/// Who made a segment and where it stands: the part of the header that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) base: u64,
    /// Length of the file, in bytes.
    pub(super) len: u64,
    pub(super) journal_id: u64,
    /// Layout of the archives, see [`abi_fingerprint`].
    pub(super) fingerprint: u64,
    pub(super) created_at: i64,
    /// Which start of the machine it was made in: what was written in an earlier one may have lost its tail.
    pub(super) boot_id: [u8; 16],
}

/// Why a header is not one of this build's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("magic {found:#018x}, expected {MAGIC:#018x}: not a journal segment")]
    Magic { found: u64 },
    #[error("layout {found}, this build reads {VERSION}")]
    Version { found: u32 },
    #[error("header of {found} bytes, expected {SEGMENT_HEADER_LEN}")]
    HeaderLength { found: u32 },
    #[error("header checksum {found:#010x}, computed {computed:#010x}")]
    Checksum { found: u32, computed: u32 },
    #[error(
        "archive layout {found:#018x}, this build has {expected:#018x}: journal of another build; move it away or run that build"
    )]
    Fingerprint { found: u64, expected: u64 },
}

impl SegmentHeader {
    /// The header's bytes, but for the magic, which is stored when everything else is in place.
    pub(super) fn to_bytes(self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(SEGMENT_HEADER_LEN as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.len.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.journal_id.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.fingerprint.to_le_bytes());
        bytes[CREATED_AT..56].copy_from_slice(&self.created_at.to_le_bytes());
        bytes[56..72].copy_from_slice(&self.boot_id);
        let crc = crc32c::crc32c(&bytes[8..CRC_AT]);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks a header.
    pub(super) fn from_bytes(bytes: &[u8; SEGMENT_HEADER_LEN]) -> Result<Self, HeaderError> {
        let (found, version) = (u64_at(bytes, 0), u32_at(bytes, 8));
        if found != MAGIC {
            return Err(HeaderError::Magic { found });
        }
        if version != VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let found = u32_at(bytes, 12);
        if found as usize != SEGMENT_HEADER_LEN {
            return Err(HeaderError::HeaderLength { found });
        }
        let (found, computed) = (u32_at(bytes, CRC_AT), crc32c::crc32c(&bytes[8..CRC_AT]));
        if found != computed {
            return Err(HeaderError::Checksum { found, computed });
        }
        let mut boot_id = [0; 16];
        boot_id.copy_from_slice(&bytes[56..72]);
        let header = Self {
            base: u64_at(bytes, 16),
            len: u64_at(bytes, 24),
            journal_id: u64_at(bytes, 32),
            fingerprint: u64_at(bytes, 40),
            created_at: u64_at(bytes, 48) as i64,
            boot_id,
        };
        if header.fingerprint != abi_fingerprint() {
            return Err(HeaderError::Fingerprint { found: header.fingerprint, expected: abi_fingerprint() });
        }
        Ok(header)
    }
}

/// A generation as it stands in a header: with its complement, so that no other bytes look like one.
pub(super) fn generation_word(generation: u32) -> u64 {
    u64::from(generation) | u64::from(!generation) << 32
}

/// The generation in that word, if it is one.
pub(super) fn generation_of(word: u64) -> Option<u32> {
    let generation = word as u32;
    (word == generation_word(generation)).then_some(generation)
}

/// What an entry says before its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EntryHeader {
    /// Length of the entry with this header, in bytes.
    pub(super) len: u32,
    pub(super) crc: u32,
    pub(super) seq: u64,
    pub(super) prev: u64,
    pub(super) lane: u64,
    pub(super) journalled_at: i64,
    pub(super) epoch: u32,
    pub(super) slot: u32,
}

impl EntryHeader {
    #[inline]
    pub(super) fn to_bytes(self) -> [u8; ENTRY_HEADER_LEN] {
        let mut bytes = [0; ENTRY_HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.seq.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.prev.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.lane.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.journalled_at.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.slot.to_le_bytes());
        bytes
    }

    #[inline]
    pub(super) fn from_bytes(bytes: &[u8; ENTRY_HEADER_LEN]) -> Self {
        Self {
            len: u32_at(bytes, 0),
            crc: u32_at(bytes, 4),
            seq: u64_at(bytes, 8),
            prev: u64_at(bytes, 16),
            lane: u64_at(bytes, 24),
            journalled_at: u64_at(bytes, 32) as i64,
            epoch: u32_at(bytes, 40),
            slot: u32_at(bytes, 44),
        }
    }
}

/// The crc of an entry: `body` is everything behind the crc field.
#[inline]
pub(super) fn entry_crc(journal_id: u64, offset: u64, len: u32, body: &[u8]) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = (journal_id ^ offset ^ u64::from(len).rotate_left(40)).wrapping_mul(MULTIPLIER);
    crc32c::crc32c_append((mixed >> 32) as u32, body)
}

#[inline]
pub(crate) fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[inline]
pub(crate) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        base: 0x1_0000_0000,
        len: 65536,
        journal_id: 7,
        fingerprint: 0,
        created_at: 1_728_123_456_000_000_000,
        boot_id: [9; 16],
    };

    #[test]
    fn an_entry_header_has_these_bytes() {
        let header = EntryHeader {
            len: 0x0101,
            crc: 0x0202_0202,
            seq: 3,
            prev: 4,
            lane: 5,
            journalled_at: 6,
            epoch: 7,
            slot: 8,
        };
        let bytes = header.to_bytes();
        assert_eq!(&bytes[..16], [1, 1, 0, 0, 2, 2, 2, 2, 3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            &bytes[16..48],
            [4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0]
        );
        assert_eq!(EntryHeader::from_bytes(&bytes), header);
    }

    #[test]
    fn a_segment_header_reads_back_and_every_flipped_byte_is_named() {
        let header = SegmentHeader { fingerprint: abi_fingerprint(), ..HEADER };
        let mut bytes = header.to_bytes();
        assert_eq!(SegmentHeader::from_bytes(&bytes), Err(HeaderError::Magic { found: 0 }));
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        assert_eq!(SegmentHeader::from_bytes(&bytes), Ok(header));
        for at in 0..CRC_AT + 4 {
            let mut wrong = bytes;
            wrong[at] ^= 0x10;
            assert!(SegmentHeader::from_bytes(&wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_journal_of_another_schema_is_refused_by_both_numbers() {
        let mut bytes = HEADER.to_bytes();
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        let error = SegmentHeader::from_bytes(&bytes).unwrap_err();
        assert_eq!(error, HeaderError::Fingerprint { found: 0, expected: abi_fingerprint() });
    }

    /// Or an entry of another journal, or of another place, would be taken for one that belongs there.
    #[test]
    fn the_crc_of_an_entry_tells_journals_places_and_lengths_apart_bit_by_bit() {
        let (journal_id, offset, len, body) = (0x0123_4567_89ab_cdef, 0x0f_ff00_fff0, 0x0000_0150, [7; 40]);
        let crc = entry_crc(journal_id, offset, len, &body);
        for bit in 0..64 {
            assert_ne!(entry_crc(journal_id ^ 1 << bit, offset, len, &body), crc, "bit {bit} of the journal");
            assert_ne!(entry_crc(journal_id, offset ^ 1 << bit, len, &body), crc, "bit {bit} of the offset");
        }
        for bit in 0..17 {
            assert_ne!(entry_crc(journal_id, offset, len ^ 1 << bit, &body), crc, "bit {bit} of the length");
        }
    }

    #[test]
    fn a_generation_is_known_by_its_complement() {
        assert_eq!(generation_of(generation_word(41)), Some(41));
        assert_eq!(generation_of(0), None);
    }
}
