//! Taking away a segment that nobody owns.
//!
//! # Why no live owner loses its segment
//!
//! An owner holds the lock on its file. Here the lock is taken before anything is decided and kept until the file is gone:
//! who lives is found out by the kernel, and nobody can adopt the file meanwhile. Between opening and locking, the name may
//! have come to another file, so both inodes are compared. It could also do so between that and the removal, if somebody
//! removed our file by hand and an owner made a new one at once: makers of segments take turns with a lock on /dev/shm, and
//! that is held from before the comparison until behind the removal.
//!
//! Whoever opens the segment in that moment finds it locked by nobody who runs, tries again, finds that the name has gone,
//! and makes a new one.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::LockedFile;
use super::owned::{Turn, owner_pid, refused};
use super::{OpenError, Trust, not_a_file};

/// Longest wait for a turn among the makers of segments: each of them takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// A segment whose owner is dead, held so that no other process can become its owner. Dropping it lets go of it.
///
/// As long as it is held, the segment looks to others as if its owner lived: decide quickly.
pub struct Seized {
    path: PathBuf,
    inode: u64,
    locked: LockedFile,
}

impl std::fmt::Debug for Seized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seized").field("path", &self.path).field("inode", &self.inode).finish()
    }
}

impl Seized {
    /// Seizes the file of that inode. It must be ours, or our group's, and it must be one that we may write.
    pub(crate) fn new(path: &Path, inode: u64, trust: &Trust) -> Result<Self, OpenError> {
        let mut options = File::options();
        // NONBLOCK: a FIFO under this name must not make us wait for its other end.
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open(path).map_err(|error| refused(path, trust, error))?;
        let stat = nix::sys::stat::fstat(&file).map_err(|error| OpenError::io(path, "fstat", error))?;
        if let Some(found) = not_a_file(&stat) {
            return Err(OpenError::NotAFile { path: path.to_owned(), found });
        }
        trust.check(path, &stat)?;
        if stat.st_ino != inode {
            return Err(OpenError::Replaced { path: path.to_owned() });
        }
        let locked = LockedFile::lock(file).map_err(|error| OpenError::io(path, "lock", error))?;
        let locked =
            locked.map_err(|file| OpenError::InUse { path: path.to_owned(), pid: owner_pid(&file) })?;
        let seized = Self { path: path.to_owned(), inode, locked };
        seized.still_named()?;
        Ok(seized)
    }

    /// Takes the segment away.
    ///
    /// # Errors
    /// [`OpenError::Replaced`], [`OpenError::NoTurn`], or what the system says. Nothing was removed.
    pub fn remove(self) -> Result<(), OpenError> {
        let turn = Turn::take(PATIENCE);
        let _turn = turn.ok_or_else(|| OpenError::NoTurn { path: self.path.clone() })?;
        self.still_named()?;
        std::fs::remove_file(&self.path).map_err(|error| OpenError::io(&self.path, "remove", error))
    }

    /// An error if the name leads to another file, or to none.
    fn still_named(&self) -> Result<(), OpenError> {
        let ours = self.locked.file().metadata();
        let ours = ours.map_err(|error| OpenError::io(&self.path, "fstat", error))?;
        let named = std::fs::symlink_metadata(&self.path);
        let named = named.map_err(|error| OpenError::io(&self.path, "stat", error))?;
        if named.ino() == self.inode && named.dev() == ours.dev() {
            Ok(())
        } else {
            Err(OpenError::Replaced { path: self.path.clone() })
        }
    }
}
