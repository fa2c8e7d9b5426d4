//! The segment that this process writes.
//!
//! # Why nobody ever sees half a segment, and why there is one owner
//!
//! A new segment begins as an unnamed file (`O_TMPFILE`): space allocated, header written, lock taken. Only then `linkat`
//! gives it its name, which fails if the name exists. A process killed before leaves nothing behind; a process killed
//! after leaves a complete segment. Whoever finds the name taken opens that file and tries its lock: the kernel gives it
//! to one. Between opening and locking, the file may have been unlinked and made anew, so its inode is compared with
//! the name's afterwards.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::Mode;
use shared_memory::{Shmem, ShmemConf};

use super::fork::LockGuard;
use super::{OpenError, Trust, lock, not_a_file};
use crate::bus::{SHM_DIR, segment_path};

/// How often opening starts anew when the name is unlinked or linked by others meanwhile.
const ATTEMPTS: usize = 100;

/// A segment mapped with write access, and the lock on it. Dropping it keeps the segment.
pub(crate) struct OwnedSegment {
    path: PathBuf,
    base: *mut u8,
    len: usize,
    // Dropped in this order: first the children are told, then the mapping goes, then the lock.
    _guard: LockGuard,
    _map: Shmem,
    _file: File,
}

// SAFETY: the mapping belongs to no thread. `Shmem` is a descriptor, a pointer and a name.
unsafe impl Send for OwnedSegment {}

/// How the segment came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Created,
    Adopted,
}

impl OwnedSegment {
    /// Creates the segment, or adopts the one that a dead process left, which is at least as long as a header.
    /// `header` is what a new one begins with; the rest is zeros.
    pub(crate) fn open(
        file: &str,
        len: usize,
        header: &[u8],
        trust: &Trust,
    ) -> Result<(Self, Origin), OpenError> {
        let path = segment_path(file);
        for _ in 0..ATTEMPTS {
            match adopt(&path, trust)? {
                Some(locked) => {
                    let found =
                        locked.metadata().map_err(|error| OpenError::io(&path, "fstat", error))?.len();
                    if found < header.len() as u64 {
                        let what = format!("{found} bytes, shorter than its header of {}", header.len());
                        return Err(OpenError::Corrupt { path, what });
                    }
                    return Ok((Self::map(path, file, locked)?, Origin::Adopted));
                }
                None => match create(&path, len, header, trust)? {
                    Some(locked) => return Ok((Self::map(path, file, locked)?, Origin::Created)),
                    None => continue,
                },
            }
        }
        Err(OpenError::io(&path, "open", Errno::EBUSY))
    }

    fn map(path: PathBuf, file: &str, locked: File) -> Result<Self, OpenError> {
        let stat = locked.metadata().map_err(|error| OpenError::io(&path, "fstat", error))?;
        // POSIX wants the slash; the name cannot be another file now, since we hold its lock and /dev/shm is sticky.
        let mut map = ShmemConf::new()
            .os_id(format!("/{file}"))
            .open()
            .map_err(|error| OpenError::io(&path, "map", std::io::Error::other(error)))?;
        map.set_owner(false);
        let named = std::fs::metadata(&path).map_err(|error| OpenError::io(&path, "stat", error))?;
        if map.len() as u64 != stat.len() || named.ino() != stat.ino() {
            return Err(OpenError::Corrupt {
                path,
                what: "the name changed hands while it was opened".into(),
            });
        }
        let (base, len) = (map.as_ptr(), map.len());
        // Fault every page in now rather than in a publish. Older kernels do not know this advice: no matter.
        //
        // SAFETY: exactly the pages of the mapping made above, which stays mapped as long as `map`.
        unsafe { libc::madvise(base.cast(), len, libc::MADV_POPULATE_WRITE) };
        Ok(Self { base, len, _guard: LockGuard::new(&locked), _map: map, _file: locked, path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The first byte. Valid for reads and writes of [`Self::len`] bytes as long as `self` lives; aligned to a page.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

/// Opens and locks the existing file; `None` if there is none (any more).
fn adopt(path: &Path, trust: &Trust) -> Result<Option<File>, OpenError> {
    let mut options = File::options();
    // NONBLOCK: a FIFO under our name must not make us wait for its other end.
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = match options.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(path, trust, error)),
    };
    let stat = nix::sys::stat::fstat(&file).map_err(|error| OpenError::io(path, "fstat", error))?;
    if let Some(found) = not_a_file(&stat) {
        return Err(OpenError::NotAFile { path: path.to_owned(), found });
    }
    trust.check(path, &stat)?;
    if !lock::take(&file).map_err(|error| OpenError::io(path, "lock", error))? {
        return Err(OpenError::InUse { path: path.to_owned(), pid: owner_pid(&file) });
    }
    match std::fs::symlink_metadata(path) {
        Ok(named) if named.ino() == stat.st_ino && named.dev() == stat.st_dev => Ok(Some(file)),
        _ => Ok(None),
    }
}

/// Makes a complete, locked segment and names it; `None` if the name was taken meanwhile.
fn create(path: &Path, len: usize, header: &[u8], trust: &Trust) -> Result<Option<File>, OpenError> {
    let io = |operation| move |error: Errno| OpenError::io(path, operation, error);
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC);
    let file = options.open(SHM_DIR).map_err(|error| OpenError::io(path, "create", error))?;
    // Allocated now, a full /dev/shm is an error here and never a SIGBUS at a later store.
    match nix::fcntl::posix_fallocate(&file, 0, len as i64) {
        Ok(()) => {}
        Err(Errno::ENOSPC | Errno::ENOMEM | Errno::EFBIG) => {
            let available = nix::sys::statvfs::statvfs(SHM_DIR)
                .map_or(0, |fs| fs.blocks_available() * fs.fragment_size());
            return Err(OpenError::NoSpace { path: path.to_owned(), needed: len as u64, available });
        }
        Err(error) => return Err(io("allocate")(error)),
    }
    file.write_all_at(header, 0).map_err(|error| OpenError::io(path, "write", error))?;
    if let Some(gid) = trust.gid {
        nix::unistd::fchown(&file, None, Some(gid.into())).map_err(io("give to the group"))?;
    }
    let mode = if trust.gid.is_some() { 0o640 } else { 0o600 };
    nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode)).map_err(io("set the mode"))?;
    lock::take(&file).map_err(io("lock"))?;
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    match nix::unistd::linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::EEXIST) => Ok(None),
        Err(error) => Err(io("name")(error)),
    }
}

/// Says whose a file is that we may not open, where that is the reason.
fn refused(path: &Path, trust: &Trust, error: std::io::Error) -> OpenError {
    if let Ok(stat) = nix::sys::stat::lstat(path) {
        if let Some(found) = not_a_file(&stat) {
            return OpenError::NotAFile { path: path.to_owned(), found };
        }
        if let Err(refusal) = trust.check(path, &stat) {
            return refusal;
        }
    }
    OpenError::io(path, "open", error)
}

/// The pid in the header of a file that somebody else has locked; 0 if it cannot be told.
fn owner_pid(file: &File) -> u32 {
    let mut bytes = [0; 4];
    let at = std::mem::offset_of!(crate::layout::LaneHeader, owner) as u64;
    file.read_exact_at(&mut bytes, at).map_or(0, |()| u32::from_le_bytes(bytes))
}

const _: () = assert!(
    std::mem::offset_of!(crate::layout::LaneHeader, owner)
        == std::mem::offset_of!(crate::layout::CursorsHeader, owner)
);
