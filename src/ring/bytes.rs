//! A ring's bytes: the one place where they are touched. (The models of `loom` put words that loom can see in their place.)

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// The bytes of a ring that somebody else may be writing.
#[derive(Clone, Copy)]
pub(crate) struct SharedBytes(*const u8);

impl SharedBytes {
    /// `base` is aligned to 16. It stays valid as long as the segment that it points into.
    pub(crate) fn new(base: *const u8) -> Self {
        Self(base)
    }

    /// Loads words as numbers, each of them once.
    ///
    /// # Safety
    /// `at` is a multiple of 8, and `N` words from there are valid for reads.
    #[inline]
    pub(crate) unsafe fn load_words<const N: usize>(self, at: usize) -> [u64; N] {
        let src = self.0.wrapping_add(at).cast::<u64>().cast_mut();
        std::array::from_fn(|index| {
            // SAFETY: the caller's promise; the memory is shared and read as an atomic.
            let shared = unsafe { AtomicU64::from_ptr(src.wrapping_add(index)) };
            u64::from_le(shared.load(Ordering::Relaxed)) // ordered by the caller: an Acquire before, or a fence behind
        })
    }

    /// Copies `dst.len()` bytes by relaxed loads of whole words: bytes that change meanwhile come out old, new or mixed,
    /// and it is for the caller to find that out.
    ///
    /// # Safety
    /// `at` is a multiple of 8, and from there `dst.len()` bytes, rounded up to 8, are valid for reads.
    #[inline]
    pub(crate) unsafe fn copy_out(self, at: usize, dst: &mut [u8]) {
        let src = self.0.wrapping_add(at).cast::<u64>().cast_mut();
        for (index, chunk) in dst.chunks_mut(8).enumerate() {
            // SAFETY: within the rounded-up length, also the last, partly used word; aligned; read as an atomic only.
            let word = unsafe { AtomicU64::from_ptr(src.wrapping_add(index)) };
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes(); // the caller's fence comes behind
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// The bytes in place.
    ///
    /// # Safety
    /// They are valid for reads, and nobody writes to them, as long as the slice lives.
    #[inline]
    pub(crate) unsafe fn in_place<'a>(self, at: usize, len: usize) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts(self.0.wrapping_add(at), len) }
    }
}

/// The bytes of a ring as its one writer has them.
pub(crate) struct OwnBytes(*mut u8);

impl OwnBytes {
    /// `base` is aligned to 16. It stays valid as long as the segment that it points into.
    pub(crate) fn new(base: *mut u8) -> Self {
        Self(base)
    }

    /// Lets `f` write to `len` bytes.
    ///
    /// # Safety
    /// They are valid for writes, and nobody reads them but as [`SharedBytes`], by loads whose result is thrown away.
    #[inline]
    pub(crate) unsafe fn write<R>(&mut self, at: usize, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        // SAFETY: the caller's promise; `&mut self` is the only writer.
        f(unsafe { std::slice::from_raw_parts_mut(self.0.wrapping_add(at), len) })
    }

    /// What was written there.
    ///
    /// # Safety
    /// `N` bytes from `at` are valid for reads.
    #[inline]
    pub(crate) unsafe fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        // SAFETY: the caller's promise; nobody but `self` writes to them. Bytes have no alignment.
        unsafe { self.0.wrapping_add(at).cast::<[u8; N]>().read() }
    }
}
