//! Reading bytes that somebody else may be writing.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// Loads one word of shared memory, as a number.
///
/// # Safety
/// `src` is aligned to 8 and valid for reads of 8 bytes.
#[inline]
pub(crate) unsafe fn load_word(src: *const u8) -> u64 {
    // SAFETY: the caller's promise; the memory is shared and read as an atomic.
    let word = unsafe { AtomicU64::from_ptr(src.cast::<u64>().cast_mut()) };
    u64::from_le(word.load(Ordering::Relaxed)) // ordered by the caller: an Acquire before, or a fence behind
}

/// Copies `dst.len()` bytes from shared memory by relaxed loads of whole words: bytes that change meanwhile come out
/// old, new or mixed, and it is for the caller to find that out.
///
/// # Safety
/// `src` is aligned to 8 and valid for reads of `dst.len()` rounded up to 8 bytes.
#[inline]
pub(crate) unsafe fn copy_out(src: *const u8, dst: &mut [u8]) {
    let words = src.cast::<u64>().cast_mut();
    for (index, chunk) in dst.chunks_mut(8).enumerate() {
        // SAFETY: within the rounded-up length, also the last, partly used word; aligned; read as an atomic only.
        let word = unsafe { AtomicU64::from_ptr(words.wrapping_add(index)) };
        let bytes = word.load(Ordering::Relaxed).to_ne_bytes(); // the caller's fence comes behind
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}
