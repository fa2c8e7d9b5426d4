//! The owner's lock: an open-file-description lock on the segment's first byte.
//!
//! The kernel releases it when the last descriptor of that open file goes, also by SIGKILL, and never mistakes a new
//! process for an old one, as a pid would.

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::fork::ForkGuard;

/// A file with its lock, which goes with it.
///
/// Guarded before it is locked and given up before the guard ends, so that no child that is forked at any moment in
/// between keeps the lock.
pub(crate) struct LockedFile {
    // Dropped in this order.
    guard: ForkGuard,
    file: File,
}

impl LockedFile {
    /// Takes the lock; gives the file back if somebody else has it.
    pub(crate) fn lock(file: File) -> nix::Result<Result<Self, File>> {
        let guard = ForkGuard::new(&file);
        Ok(if take(&file)? { Ok(Self { guard, file }) } else { Err(file) })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Whether this is the copy of a forked child: the lock is its parent's.
    pub(crate) fn is_in_child(&self) -> bool {
        self.guard.is_in_child()
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // A child shares the open file: it must not take the lock from its parent.
        if !self.is_in_child() {
            let _ = fcntl(self.file.as_fd(), FcntlArg::F_OFD_SETLK(&first_byte(libc::F_UNLCK)));
        }
    }
}

fn first_byte(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    }
}

/// Takes the lock; `false` if somebody has it.
fn take(file: &File) -> nix::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&first_byte(libc::F_WRLCK))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody else has the lock: whether the owner lives. Works on a read-only descriptor.
#[cfg(not(bellwire_loom))]
pub(crate) fn is_held(file: &File) -> nix::Result<bool> {
    let mut lock = first_byte(libc::F_WRLCK);
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
