//! What waking asks of the kernel: the barrier, sleeping on words, waking who sleeps on one.

#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::{Sleep, UNFENCED_WAIT, WORDS_MAX};

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

/// Whether this kernel has the barriers that [`barrier`] and [`register_for_barriers`] ask for.
pub(crate) fn has_barriers() -> bool {
    const MEMBARRIER_CMD_QUERY: libc::c_int = 0;
    // SAFETY: membarrier takes no pointers.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0) };
    let wanted = MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
    commands >= 0 && commands & libc::c_long::from(wanted) == libc::c_long::from(wanted)
}

/// Whether this kernel can sleep on several words, and lets us.
pub(crate) fn has_waits_on_many() -> bool {
    let nothing = std::ptr::null::<FutexWaitv>();
    // SAFETY: with no waiter at all the kernel looks at no pointer: it refuses the number, if it knows the call.
    let result =
        unsafe { libc::syscall(libc::SYS_futex_waitv, nothing, 0u32, 0u32, nothing, libc::CLOCK_MONOTONIC) };
    result < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

/// Wakes everybody who sleeps on the word, in any process.
pub(crate) fn wake_all(word: &AtomicU32) {
    // SAFETY: a valid, aligned word; FUTEX_WAKE only uses its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
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
