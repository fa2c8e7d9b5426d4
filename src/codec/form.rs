//! Archiving one payload form with rkyv, and reading it back in place.

use rkyv::api::low::{LowValidator, access as checked_access};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::writer::Buffer;
use rkyv::{Portable, Serialize};

use super::{EncodeError, texts};
use crate::record::{RECORD_HEADER_LEN, RECORD_LEN_MAX};

/// Exact length of the archive with root `A` and these texts, in bytes.
#[inline]
pub(crate) fn archive_len<A: Portable>(texts: &[&str]) -> Result<usize, EncodeError> {
    let len = texts::len(texts);
    let max = const { texts_len_max::<A>() };
    if len > max {
        return Err(EncodeError::TextsTooLong { len, max });
    }
    Ok(len.next_multiple_of(align_of::<A>()) + size_of::<A>())
}

/// Most bytes of text with which an archive with root `A` fits into the longest record.
const fn texts_len_max<A: Portable>() -> usize {
    let len = RECORD_LEN_MAX - RECORD_HEADER_LEN - size_of::<A>();
    assert!(len <= texts::END_MAX);
    len / align_of::<A>() * align_of::<A>()
}

/// Writes the archive of `form` into `out`, which has exactly its length.
#[inline]
pub(crate) fn write<'b, F>(form: &F, out: &'b mut [u8]) -> Result<(), EncodeError>
where
    F: for<'w> Serialize<Strategy<Buffer<'w>, Failure>>,
{
    let len = out.len();
    let mut buffer = Buffer::from(out);
    match rkyv::api::serialize_using::<_, Failure>(form, &mut buffer) {
        Ok(_) if buffer.len() == len => Ok(()),
        // The length was computed from the same texts and the same root: only a broken build gets here.
        _ => unreachable!("an archive of {len} bytes came out {} bytes long", buffer.len()),
    }
}

/// Checks the bytes and gives the root in place. `None`: not a sound archive of this type.
#[inline]
pub(crate) fn access<A>(archive: &[u8]) -> Option<&A>
where
    A: Portable + for<'v> CheckBytes<LowValidator<'v, Failure>>,
{
    checked_access::<A, Failure>(archive).ok()
}

/// FNV-1a's offset basis.
pub(crate) const FINGERPRINT_SEED: u64 = 0xcbf2_9ce4_8422_2325;

/// Mixes one number into a fingerprint (FNV-1a, byte by byte).
pub(crate) const fn mix(mut hash: u64, value: u64) -> u64 {
    let bytes = value.to_le_bytes();
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

/// Mixes a text into a fingerprint, white space left out: how a table is laid out in the source is no matter.
pub(crate) const fn mix_text(mut hash: u64, text: &str) -> u64 {
    let bytes = text.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if !bytes[index].is_ascii_whitespace() {
            hash = mix(hash, bytes[index] as u64);
        }
        index += 1;
    }
    hash
}
