//! A page that stepper and victims share: what the victim has come to, to be read while it stands still or is dead.

#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::signal::{Signal, raise};

/// Words for the scenario's own use.
const NOTES: usize = 32;

/// The page. Every ordering is `SeqCst`: nothing here is to be quick, and a kill must not separate a note from what it
/// is about.
#[repr(C)]
pub struct Board {
    is_over: AtomicU64,
    notes: [AtomicU64; NOTES],
}

impl Board {
    /// A page that children share from their fork on. It is never unmapped: a program needs one or two.
    pub fn new() -> &'static Self {
        let len = NonZeroUsize::new(4096).expect("not zero");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let page = unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_SHARED) }.expect("a page");
        // SAFETY: the page is longer than a board, aligned, zeroed, of atomics, and stays mapped.
        unsafe { page.cast::<Self>().as_ref() }
    }

    /// Forgets everything; before a new victim.
    pub fn wipe(&self) {
        self.is_over.store(0, Ordering::SeqCst);
        for note in &self.notes {
            note.store(0, Ordering::SeqCst);
        }
    }

    /// Notes a number.
    pub fn note(&self, index: usize, number: u64) {
        self.notes[index].store(number, Ordering::SeqCst);
    }

    /// The number that was noted last; 0: none.
    pub fn noted(&self, index: usize) -> u64 {
        self.notes[index].load(Ordering::SeqCst)
    }

    /// The victim stops until the stepper lets it go on: for the stepper's part of the preparations, and, the last time,
    /// at the beginning of the region.
    pub fn pause(&self) {
        raise(Signal::SIGSTOP).expect("a stop");
    }

    /// The victim has passed the region, and stays until it is killed.
    pub fn end(&self) -> ! {
        self.is_over.store(1, Ordering::SeqCst);
        loop {
            self.pause();
        }
    }

    /// Whether the victim has passed the region.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst) != 0
    }
}

const _: () = assert!(size_of::<Board>() <= 4096);
