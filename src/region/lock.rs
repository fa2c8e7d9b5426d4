//! The owner's lock: an open-file-description lock on the segment's first byte.
//!
//! The kernel releases it when the last descriptor of that open file goes, also by SIGKILL, and never mistakes a new
//! process for an old one, as a pid would.

use std::fs::File;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

fn first_byte() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    }
}

/// Takes the lock; `false` if somebody has it.
pub(crate) fn take(file: &File) -> nix::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&first_byte())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether somebody else has the lock: whether the owner lives. Works on a read-only descriptor.
pub(crate) fn is_held(file: &File) -> nix::Result<bool> {
    let mut lock = first_byte();
    fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
