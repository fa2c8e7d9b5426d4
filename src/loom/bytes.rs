//! A ring's bytes in a model: the same interface as `ring/bytes.rs`, over words that loom can see.
//!
//! loom's state space grows with every word, so the bytes are cut into *grains* of 16 bytes or more, each of them one
//! atomic: the number of its version. A record is at least two grains, so that a torn one is seen as such.
//!
//! - The writer's plain stores are relaxed stores of the grains: whoever reads without order sees any mixture of them.
//! - Reads by [`SharedBytes::load_words`] and [`SharedBytes::copy_out`] are relaxed loads.
//! - Reads in place are plain loads: loom checks that they happen behind the last write and before the next one.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use ::loom::cell::UnsafeCell;
use ::loom::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use super::kernel;

thread_local! {
    // The threads of a model run in one thread of the process, one execution after the other.
    static ARENAS: RefCell<Vec<Arc<Arena>>> = const { RefCell::new(Vec::new()) };
}

/// Some memory that a ring's bytes lie in.
pub(crate) struct Arena {
    /// Never looked at: lends its addresses, so that pointers into it can be told.
    addresses: Box<[u8]>,
    grain: usize,
    grains: Vec<Grain>,
    /// Slices that were handed out stay until the end.
    shown: Mutex<Vec<Box<[u8]>>>,
}

struct Grain {
    version: AtomicUsize,
    /// Accessed as the bytes would be, if they were plain memory.
    plain: UnsafeCell<()>,
    /// What stands there in each version.
    versions: Mutex<Vec<Box<[u8]>>>,
}

impl Arena {
    /// Zeros; gone with the next [`Arena::clear`].
    #[cfg(test)]
    pub(crate) fn zeros(len: usize, grain: usize) -> *mut u8 {
        let grains = (0..len / grain).map(|_| Grain {
            version: AtomicUsize::new(0),
            plain: UnsafeCell::new(()),
            versions: Mutex::new(vec![vec![0; grain].into()]),
        });
        let mut addresses = vec![0; len].into_boxed_slice();
        let base = addresses.as_mut_ptr();
        let arena = Self { addresses, grain, grains: grains.collect(), shown: Mutex::default() };
        ARENAS.with_borrow_mut(|arenas| arenas.push(Arc::new(arena)));
        base
    }

    /// Forgets all arenas: another execution begins.
    #[cfg(test)]
    pub(super) fn clear() {
        ARENAS.take();
    }

    fn find(base: *const u8) -> *const Arena {
        let is_in = |arena: &&Arc<Arena>| arena.addresses.as_ptr_range().contains(&base);
        ARENAS.with_borrow(|arenas| Arc::as_ptr(arenas.iter().find(is_in).expect("in an arena")))
    }

    fn grains(&self, at: usize, len: usize) -> impl Iterator<Item = usize> + use<> {
        at / self.grain..(at + len).div_ceil(self.grain)
    }

    /// Puts what stands in a grain to where it belongs in `dst`, which stands for the bytes from `at`.
    fn put(&self, index: usize, bytes: &[u8], at: usize, dst: &mut [u8]) {
        let start = (index * self.grain).max(at);
        let end = ((index + 1) * self.grain).min(at + dst.len());
        dst[start - at..end - at]
            .copy_from_slice(&bytes[start - index * self.grain..end - index * self.grain]);
    }

    /// What the model's memory shows to somebody who looks now.
    fn load(&self, at: usize, dst: &mut [u8]) {
        for index in self.grains(at, dst.len()) {
            kernel::instruction();
            let version = self.grains[index].version.load(Relaxed);
            self.put(index, &lock(&self.grains[index].versions)[version], at, dst);
        }
    }

    /// What was stored last: what the only writer sees.
    fn newest(&self, at: usize, dst: &mut [u8]) {
        for index in self.grains(at, dst.len()) {
            let versions = lock(&self.grains[index].versions);
            self.put(index, &versions[versions.len() - 1], at, dst);
        }
    }

    fn store(&self, at: usize, src: &[u8]) {
        for index in self.grains(at, src.len()) {
            let start = index * self.grain;
            let mut bytes = vec![0; self.grain].into_boxed_slice();
            self.newest(start, &mut bytes);
            let (from, to) = (start.max(at), (start + self.grain).min(at + src.len()));
            bytes[from - start..to - start].copy_from_slice(&src[from - at..to - at]);
            let grain = &self.grains[index];
            let version = {
                let mut versions = lock(&grain.versions);
                versions.push(bytes);
                versions.len() - 1
            };
            kernel::instruction();
            grain.plain.with_mut(|_| ());
            grain.version.store(version, Relaxed);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As in production, but for what it reads.
#[derive(Clone, Copy)]
pub(crate) struct SharedBytes(*const Arena, usize);

impl SharedBytes {
    pub(crate) fn new(base: *const u8) -> Self {
        let arena = Arena::find(base);
        Self(arena, base.addr() - Self(arena, 0).arena().addresses.as_ptr().addr())
    }

    fn arena<'a>(self) -> &'a Arena {
        // SAFETY: arenas live until the next execution begins, and readers do not.
        unsafe { &*self.0 }
    }

    /// # Safety
    /// The caller's promise is that of production, see `ring::bytes`. Here it is not relied upon.
    pub(crate) unsafe fn load_words<const N: usize>(self, at: usize) -> [u64; N] {
        let mut bytes = vec![0; 8 * N];
        self.arena().load(self.1 + at, &mut bytes);
        let words = bytes.as_chunks::<8>().0;
        std::array::from_fn(|index| u64::from_le_bytes(words[index]))
    }

    /// # Safety
    /// The caller's promise is that of production, see `ring::bytes`. Here it is not relied upon.
    pub(crate) unsafe fn copy_out(self, at: usize, dst: &mut [u8]) {
        self.arena().load(self.1 + at, dst);
    }

    /// # Safety
    /// The caller's promise is that of production, see `ring::bytes`. Here it is not relied upon.
    pub(crate) unsafe fn in_place<'a>(self, at: usize, len: usize) -> &'a [u8] {
        let arena = self.arena();
        for index in arena.grains(self.1 + at, len) {
            arena.grains[index].plain.with(|_| ());
        }
        let mut bytes = vec![0; len].into_boxed_slice();
        arena.load(self.1 + at, &mut bytes);
        let start = bytes.as_ptr();
        lock(&arena.shown).push(bytes);
        // SAFETY: the box that was just kept lives as long as the arena.
        unsafe { std::slice::from_raw_parts(start, len) }
    }
}

/// As in production, but for what it writes.
pub(crate) struct OwnBytes(SharedBytes);

impl OwnBytes {
    pub(crate) fn new(base: *mut u8) -> Self {
        Self(SharedBytes::new(base))
    }

    /// # Safety
    /// The caller's promise is that of production, see `ring::bytes`. Here it is not relied upon.
    pub(crate) unsafe fn write<R>(&mut self, at: usize, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let at = self.0.1 + at;
        let mut bytes = vec![0; len];
        self.0.arena().newest(at, &mut bytes);
        let result = f(&mut bytes);
        self.0.arena().store(at, &bytes);
        result
    }

    /// # Safety
    /// The caller's promise is that of production, see `ring::bytes`. Here it is not relied upon.
    pub(crate) unsafe fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.arena().newest(self.0.1 + at, &mut bytes);
        bytes
    }
}
