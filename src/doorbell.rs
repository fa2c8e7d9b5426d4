//! Waking readers that sleep, without a polling clock and without a system call when nobody does.
//!
//! The *doorbell* is a word in the lane, written by its producer; parked readers sleep on it. The *parked* word is a
//! counter in the consumer's segment, which says how often it went to sleep. It is a counter and not a flag, so that a
//! producer rings once per sleep and not once per publish until the reader has got up.
//!
//! # Why no wake is lost
//!
//! ```text
//! reader                                   producer
//!  r1: d = doorbell                         p1: position = new (Release)
//!  r2: parked += 1                          p2: (compiler fence)
//!  r3: membarrier                           p3: if parked != seen { doorbell += 1; FUTEX_WAKE; seen = parked }
//!  r4: position moved? then do not sleep
//!  r5: FUTEX_WAIT(doorbell, d)
//! ```
//!
//! `membarrier` makes every running thread of a registered process pass a full fence between r2 and r4. Where that
//! fence falls in the producer decides:
//!
//! - before p1: then p3 comes after r2 and sees the new `parked`: it rings;
//! - after p3's load: then p1 comes before r4, which sees the new position: the reader does not sleep;
//! - between them: both hold.
//!
//! If the producer rings before r1, r4 sees the position that was stored before (doorbell is stored with Release and
//! loaded with Acquire). If it rings between r1 and r5, the doorbell is no longer `d`, and the kernel, which compares
//! under its own lock, does not let the reader sleep. If it rings after r5, FUTEX_WAKE finds the reader.
//!
//! A producer that is not registered for membarrier says so in its lane, and readers then never sleep on it for longer
//! than [`UNFENCED_WAIT`]. A producer looks at the parked word only of consumers that it knows; one that it may not know
//! yet sleeps no longer than [`UNKNOWN_WAIT`].

#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::bus::LANES_MAX;

/// Longest sleep on a lane whose producer cannot be fenced.
pub(crate) const UNFENCED_WAIT: Duration = Duration::from_millis(1);

/// Longest sleep on a lane whose producer may not have noticed us yet.
pub(crate) const UNKNOWN_WAIT: Duration = Duration::from_millis(1);

/// Words that one waiter sleeps on: all doorbells, and its own waker.
const WORDS_MAX: usize = LANES_MAX + 1;

const FUTEX2_SIZE_U32: u32 = 2;

// The commands of membarrier(2); the libc crate has them for few targets.
const MEMBARRIER_CMD_GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

/// Asks the kernel to include this process in the barriers of others. `false`: it would not.
pub(crate) fn register_for_barriers() -> bool {
    // SAFETY: membarrier takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0 }
}

/// Makes every thread of every registered process pass a full fence before this returns. `false`: refused.
pub(crate) fn barrier() -> bool {
    // SAFETY: membarrier takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0 }
}

/// Rings: bumps the word and wakes everybody who sleeps on it. The word has one writer.
#[cold]
pub(crate) fn ring(doorbell: &AtomicU32) {
    let next = doorbell.load(Ordering::Relaxed).wrapping_add(1); // Relaxed: written by ourselves
    doorbell.store(next, Ordering::Release); // pairs with the Acquire load of the doorbell in r1
    wake_all(doorbell);
}

/// Wakes everybody who sleeps on the word, in any process.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: a valid, aligned word; FUTEX_WAKE only uses its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// One word to sleep on, and the value it had when its owner was last looked at.
#[derive(Clone, Copy)]
pub(crate) struct Sleep<'a> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) value: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct FutexWaitv {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

/// Sleeps until one of the words is woken or is not what it was, or the time is over. Spurious returns are allowed.
///
/// The words may be in read-only mappings. At most 65 of them. On a kernel without futex_waitv (before 5.16) it sleeps
/// on the first word alone, for a millisecond at most.
pub(crate) fn sleep(words: &[Sleep<'_>], timeout: Duration) {
    let mut waiters = [FutexWaitv { value: 0, address: 0, flags: 0, reserved: 0 }; WORDS_MAX];
    let words = &words[..words.len().min(WORDS_MAX)];
    for (waiter, sleep) in waiters.iter_mut().zip(words) {
        waiter.value = u64::from(sleep.value);
        waiter.address = sleep.word.as_ptr() as u64;
        waiter.flags = FUTEX2_SIZE_U32;
    }
    let deadline = deadline(timeout);
    // SAFETY: `words.len()` initialised waiters with valid, aligned addresses, and a timespec, all outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            waiters.as_ptr(),
            words.len() as libc::c_uint,
            0u32,
            &raw const deadline,
            libc::CLOCK_MONOTONIC,
        )
    };
    if result < 0
        && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS)
        && let Some(first) = words.first()
    {
        sleep_on_one(first, timeout.min(UNFENCED_WAIT));
    }
}

fn sleep_on_one(sleep: &Sleep<'_>, timeout: Duration) {
    let timeout = timespec(timeout);
    // SAFETY: a valid, aligned word and a timespec that outlives the call.
    unsafe {
        libc::syscall(libc::SYS_futex, sleep.word.as_ptr(), libc::FUTEX_WAIT, sleep.value, &raw const timeout)
    };
}

/// The monotonic time after `timeout`.
fn deadline(timeout: Duration) -> libc::timespec {
    let now = Duration::from_nanos(crate::clock::monotonic_ns().max(0) as u64);
    timespec(now.saturating_add(timeout))
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
