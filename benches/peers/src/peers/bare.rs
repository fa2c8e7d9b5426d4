//! The limit of what is possible: a ring of fixed slots in shared memory, one writer, one reader, cached indices, and
//! nothing else: no types, no checks, no death of anybody, no second reader. Slots are as long as our records of such a
//! message, so that the same bytes move.

use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

use memmap2::MmapMut;

use super::shared;
use crate::message::{BODY_LEN, Check, LEN, Message};
use crate::peer::{Peer, Receiver, Sender};

/// As our record of the same message: header, texts' end marks, envelope and padding included.
const SLOT_LEN: usize = 304;
const SLOTS: u64 = 16_384;
const DATA_START: usize = 4096;

/// Positions on cache lines of their own.
#[repr(C)]
struct Header {
    written: AtomicU64,
    _apart: [u64; 31],
    read: AtomicU64,
    _too: [u64; 31],
    asleep: AtomicU32,
}

struct Ring {
    memory: MmapMut,
}

impl Ring {
    fn create(link: &str) -> Self {
        Self { memory: shared::create(link, DATA_START + SLOT_LEN * SLOTS as usize) }
    }

    fn open(link: &str) -> Self {
        Self { memory: shared::open(link) }
    }

    fn header(&self) -> &Header {
        // SAFETY: the mapping is longer than a header, aligned to a page, and a header is made of atomics.
        unsafe { &*self.memory.as_ptr().cast::<Header>() }
    }

    fn slot(&self, position: u64) -> *mut u8 {
        let offset = DATA_START + (position % SLOTS) as usize * SLOT_LEN;
        self.memory.as_ptr().cast_mut().wrapping_add(offset)
    }
}

pub struct RingSender<const WAKES: bool> {
    ring: Ring,
    at: u64,
    limit: u64,
}

impl<const WAKES: bool> Sender for RingSender<WAKES> {
    #[inline]
    fn send(&mut self, message: &Message) -> bool {
        if self.at == self.limit {
            // Acquire: pairs with the reader's Release; the slot is ours again.
            self.limit = self.ring.header().read.load(Ordering::Acquire) + SLOTS;
            if self.at == self.limit {
                return false;
            }
        }
        let slot = self.ring.slot(self.at);
        // SAFETY: the reader has left this slot, and the rest of the slot is as long as what is written.
        unsafe {
            ptr::copy_nonoverlapping(message.to_bytes().as_ptr(), slot, LEN);
            ptr::write_bytes(slot.add(LEN), 0, SLOT_LEN - LEN);
        }
        self.at += 1;
        // Release: pairs with the reader's Acquire.
        self.ring.header().written.store(self.at, Ordering::Release);
        if WAKES {
            fence(Ordering::SeqCst); // pairs with the fence in `park`
            let asleep = &self.ring.header().asleep;
            if asleep.load(Ordering::Relaxed) != 0 && asleep.swap(0, Ordering::Relaxed) != 0 {
                // SAFETY: a valid word; FUTEX_WAKE uses its address only.
                unsafe { libc::syscall(libc::SYS_futex, asleep.as_ptr(), libc::FUTEX_WAKE, 1) };
            }
        }
        true
    }
}

pub struct RingReceiver<const WAKES: bool> {
    ring: Ring,
    at: u64,
    /// What was given back last.
    given: u64,
    known: u64,
}

impl<const WAKES: bool> Receiver for RingReceiver<WAKES> {
    #[inline]
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        if self.at == self.known {
            self.known = self.ring.header().written.load(Ordering::Acquire); // pairs with the writer's Release
            if self.at == self.known {
                return 0;
            }
        }
        let begin = self.at;
        while self.at < self.known.min(begin + 256) {
            let slot = self.ring.slot(self.at);
            // SAFETY: the writer has finished this slot and does not touch it before it is given back.
            let bytes = unsafe { std::slice::from_raw_parts(slot, LEN) };
            stamp(check.bytes(bytes));
            self.at += 1;
        }
        self.given = self.at;
        self.ring.header().read.store(self.given, Ordering::Release); // pairs with the writer's Acquire
        (self.at - begin) as usize
    }

    fn park(&mut self, timeout: Duration) {
        let header = self.ring.header();
        header.asleep.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with the fence in `send`
        if header.written.load(Ordering::Relaxed) == self.at {
            let timeout = libc::timespec { tv_sec: 0, tv_nsec: timeout.subsec_nanos().into() };
            // SAFETY: a valid word, and a timespec that outlives the call.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    header.asleep.as_ptr(),
                    libc::FUTEX_WAIT,
                    1,
                    &raw const timeout,
                )
            };
        }
        header.asleep.store(0, Ordering::Relaxed);
    }
}

fn receiver<const WAKES: bool>(link: &str) -> RingReceiver<WAKES> {
    RingReceiver { ring: Ring::create(link), at: 0, given: 0, known: 0 }
}

fn sender<const WAKES: bool>(link: &str) -> RingSender<WAKES> {
    RingSender { ring: Ring::open(link), at: 0, limit: SLOTS }
}

pub struct Bare;

impl Peer for Bare {
    const NAME: &'static str = "bare-ring";
    type Sender = RingSender<false>;
    type Receiver = RingReceiver<false>;

    fn receiver(link: &str, _: usize, _: usize) -> Self::Receiver {
        receiver(link)
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        sender(link)
    }

    fn clean(link: &str) {
        shared::remove(link);
    }
}

/// The same with a futex, so that the reader can sleep; its writer pays a full fence for it.
pub struct BareWithFutex;

impl Peer for BareWithFutex {
    const NAME: &'static str = "bare-ring-futex";
    const PARKS: bool = true;
    type Sender = RingSender<true>;
    type Receiver = RingReceiver<true>;

    fn receiver(link: &str, _: usize, _: usize) -> Self::Receiver {
        receiver(link)
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        sender(link)
    }

    fn clean(link: &str) {
        shared::remove(link);
    }
}

const _: () = assert!(SLOT_LEN >= LEN + 48 && BODY_LEN == 192 && SLOT_LEN.is_multiple_of(16));
