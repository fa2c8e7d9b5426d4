//! Archiving one payload form with rkyv, and reading it back in place.

#![allow(unsafe_code)]

use rkyv::api::low::{LowValidator, access as checked_access};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{Failure, Strategy};
use rkyv::ser::{Positional, Writer};
use rkyv::{Place, Portable, Serialize};

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
    F: for<'w> Serialize<Strategy<Room<'w>, Failure>>,
{
    let len = out.len();
    let root_at = len.saturating_sub(size_of::<F::Archived>());
    let mut room = Room { out, at: 0 };
    room.clear_end::<F::Archived>();
    let written = form.serialize(Strategy::wrap(&mut room));
    let (Ok(resolver), Some(place)) = (written, room.place::<F::Archived>(root_at)) else {
        // The length was computed from the same texts and the same root: only a broken build gets here.
        unreachable!("an archive of {len} bytes has {} bytes of texts", room.at)
    };
    form.resolve(resolver, place);
    Ok(())
}

/// Where an archive is written. rkyv's own buffer and `serialize_using` would do, but not as fast: one call for each text of
/// a few bytes, one more of memcpy, and a root that is put together elsewhere and copied, half of which the processor has not
/// finished writing when it is read. Together that was half of what a publish costs.
pub(crate) struct Room<'b> {
    out: &'b mut [u8],
    at: usize,
}

impl Room<'_> {
    /// Makes zeros of a root at the end, and of what may lie between the texts and it.
    #[inline]
    fn clear_end<A>(&mut self) {
        let len = size_of::<A>() + align_of::<A>();
        // A length that is known to the compiler: no call.
        match self.out.len().checked_sub(len).and_then(|at| self.out.get_mut(at..at + len)) {
            Some(end) => end.fill(0),
            None => self.out.fill(0),
        }
    }

    /// The place of a root at `at`, behind the texts; `None` if that is not where one can be.
    #[inline]
    fn place<A>(&mut self, at: usize) -> Option<Place<A>> {
        if at < self.at || at + size_of::<A>() != self.out.len() {
            return None;
        }
        let root = self.out.as_mut_ptr().wrapping_add(at).cast::<A>();
        if !root.is_aligned() {
            return None;
        }
        // SAFETY: just checked: aligned, and within `out`, which is borrowed mutably and whose bytes are initialised.
        Some(unsafe { Place::new_unchecked(at, root) })
    }
}

impl Positional for Room<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.at
    }
}

impl Writer<Failure> for Room<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let end = self.at + bytes.len(); // both are lengths of what is in memory
        let room = self.out.get_mut(self.at..end).ok_or(Failure)?;
        copy_short(bytes, room);
        self.at = end;
        Ok(())
    }
}

/// Copies between slices of the same length, without a call if that is short: its two ends overlap.
#[inline]
fn copy_short(from: &[u8], to: &mut [u8]) {
    /// Copies the first and the last `N` bytes, if there are `N`.
    #[inline]
    fn ends<const N: usize>(from: &[u8], to: &mut [u8]) -> bool {
        let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else {
            return false;
        };
        let Some(start) = to.first_chunk_mut() else { return false };
        *start = *first;
        let Some(end) = to.last_chunk_mut() else { return false };
        *end = *last;
        true
    }
    match from.len() {
        0 => {}
        17.. => to.copy_from_slice(from),
        _ => {
            let _done =
                ends::<8>(from, to) || ends::<4>(from, to) || ends::<2>(from, to) || ends::<1>(from, to);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_any_length_is_the_whole_and_nothing_else() {
        let from: Vec<u8> = (1..=40).collect();
        for len in 0..=from.len() {
            let mut to = [0; 42];
            copy_short(&from[..len], &mut to[1..=len]);
            assert_eq!((to[0], &to[1..=len], to[len + 1]), (0, &from[..len], 0));
        }
    }

    #[test]
    fn nothing_is_written_beyond_the_room() {
        let mut out = [0; 4];
        let mut room = Room { out: &mut out, at: 0 };
        assert!(room.write(b"abc").is_ok() && room.write(b"de").is_err() && room.write(b"f").is_ok());
        assert_eq!(&out, b"abcf");
    }
}
