//! Forked children.
//!
//! A child inherits mappings and the open files behind our locks. It must not write a lane that its parent writes, and
//! it must not keep the lock alive when the parent dies. A handler in the child counts the fork, which every publish
//! compares, and points the descriptors of the locks elsewhere. (Children that exec lose both by themselves. A child made by
//! a bare `clone` or `_Fork` runs no handlers: it must exec.)

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Segments that one process owns at the same time and that are protected; more are owned unprotected.
const LOCKS_MAX: usize = 128;

static FORKS: AtomicU32 = AtomicU32::new(0);
static LOCKS: [AtomicI32; LOCKS_MAX] = [const { AtomicI32::new(-1) }; LOCKS_MAX];

/// How many forks lie between the first process and this one.
#[inline]
pub(crate) fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed) // changes only in a child's only thread, before anything else runs there
}

/// Makes forked children give up the lock of a file. Forgotten again when dropped.
pub(crate) struct ForkGuard {
    slot: Option<&'static AtomicI32>,
    /// [`generation`] when it was made.
    generation: u32,
}

impl ForkGuard {
    pub(crate) fn new(file: &File) -> Self {
        install();
        let fd = file.as_raw_fd();
        // Relaxed: read by a forked child's only thread, which sees what its parent had written.
        let free =
            |slot: &&AtomicI32| slot.compare_exchange(-1, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        Self { slot: LOCKS.iter().find(free), generation: generation() }
    }

    /// Whether this is the copy of a forked child.
    pub(crate) fn is_in_child(&self) -> bool {
        self.generation != generation()
    }
}

impl Drop for ForkGuard {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            slot.store(-1, Ordering::Relaxed); // see `new`
        }
    }
}

#[allow(unsafe_code)]
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: the handler is a function of this program and lives as long as it; it calls only async-signal-safe
        // functions, as a handler in the child of a threaded process must.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

#[allow(unsafe_code)]
extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed); // see `generation`
    // SAFETY: a constant, NUL-terminated path; open is async-signal-safe.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    for slot in &LOCKS {
        let fd = slot.load(Ordering::Relaxed); // see `ForkGuard::new`
        if fd >= 0 {
            // The child's copy of the descriptor leaves the locked file; its number stays taken, so that the `File`
            // that thinks it owns it closes nothing else. Without /dev/null it is closed: better that than a lock
            // that outlives its owner.
            //
            // SAFETY: close takes any number and is async-signal-safe.
            let close = || unsafe { libc::close(fd) };
            // SAFETY: dup3 takes any numbers and is async-signal-safe.
            let replace = || unsafe { libc::dup3(null, fd, libc::O_CLOEXEC) };
            if null >= 0 {
                replace()
            } else {
                close()
            };
        }
    }
    if null >= 0 {
        // SAFETY: our own descriptor, used no more.
        unsafe { libc::close(null) };
    }
}
