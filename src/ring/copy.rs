//! Reading bytes that somebody else may be writing.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Copies `dst.len()` bytes from shared memory by relaxed loads of whole words: bytes that change meanwhile come out
/// old, new or mixed, and it is for the caller to find that out.
///
/// # Safety
/// `src` is aligned to 8 and valid for reads of `dst.len()` rounded up to 8 bytes.
#[inline]
pub(crate) unsafe fn copy_out(src: *const u8, dst: &mut [u8]) {
    let words = src.cast::<u64>().cast_mut();
    let mut chunks = dst.chunks_exact_mut(8);
    let mut index = 0;
    for chunk in &mut chunks {
        // SAFETY: within the rounded-up length, aligned; the memory is shared and read as an atomic.
        let word = unsafe { AtomicU64::from_ptr(words.add(index)) };
        chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()); // checked by the caller's fence
        index += 1;
    }
    let rest = chunks.into_remainder();
    if !rest.is_empty() {
        // SAFETY: as above; the last, partly used word is within the rounded-up length.
        let word = unsafe { AtomicU64::from_ptr(words.add(index)) };
        rest.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes()[..rest.len()]); // likewise
    }
}
