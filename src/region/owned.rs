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
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::Mode;
use shared_memory::{Shmem, ShmemConf};

use super::guard::{Access, Guarded};
use super::lock::LockedFile;
use super::{OpenError, SegmentFault, Trust, not_a_file};
use crate::bus::{SHM_DIR, segment_path};
use crate::layout::{CURSORS_MAGIC, LANE_MAGIC, LAYOUT_VERSION};

/// How often opening starts anew when the name is unlinked or linked by others meanwhile.
const ATTEMPTS: usize = 100;

/// A segment mapped with write access, and the lock on it. Dropping it keeps the segment.
pub(crate) struct OwnedSegment {
    path: PathBuf,
    base: *mut u8,
    len: usize,
    // Dropped in this order: nobody else may own the segment while it is mapped.
    guarded: Guarded,
    _map: Shmem,
    locked: LockedFile,
}

// SAFETY: the mapping belongs to no thread. `Shmem` is a descriptor, a pointer and a name.
unsafe impl Send for OwnedSegment {}

impl Drop for OwnedSegment {
    fn drop(&mut self) {
        if self.locked.is_in_child() {
            return;
        }
        // SAFETY: a word of the header, which `open` found the segment to be long enough for; aligned, as the header is.
        let pid = unsafe { AtomicU32::from_ptr(self.base.wrapping_add(OWNER_AT).cast()) };
        // Only our own: a segment that was refused when it was opened belongs to somebody else or to another build.
        // Relaxed: for people, and for who finds the segment locked.
        let _ = pid.compare_exchange(std::process::id(), 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

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
                    let found = locked.file().metadata();
                    let found = found.map_err(|error| OpenError::io(&path, "fstat", error))?.len();
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

    fn map(path: PathBuf, file: &str, locked: LockedFile) -> Result<Self, OpenError> {
        let stat = locked.file().metadata().map_err(|error| OpenError::io(&path, "fstat", error))?;
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
        // SAFETY: the mapping made above, kept as long as the guard. What is written is shown to others only by what is
        // written later, and before a success is reported the guard is asked.
        let guarded = unsafe { Guarded::new(base, len, Access::Write) };
        Ok(Self { base, len, guarded, _map: map, locked, path })
    }

    /// Gives the segment all its memory, once its header was checked: not before, or a file of a terabyte of holes under
    /// this name would take all that the machine has.
    pub(crate) fn populate(&self) -> Result<(), OpenError> {
        let file = self.locked.file();
        let stat = file.metadata().map_err(|error| OpenError::io(&self.path, "fstat", error))?;
        // One that was left with holes would otherwise be SIGBUS at a store once /dev/shm is full.
        if stat.blocks() * 512 < self.len as u64 {
            allocate(file, &self.path, self.len)?;
        }
        // Fault every page in now rather than in a publish. Older kernels do not know this advice: no matter.
        //
        // SAFETY: exactly the pages of our mapping, which stays mapped as long as `self`.
        unsafe { libc::madvise(self.base.cast(), self.len, libc::MADV_POPULATE_WRITE) };
        Ok(())
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

    /// What is wrong with the memory behind the mapping, if the guard has found it gone: then nobody sees what we write.
    /// Next to nothing as long as it has not.
    #[inline]
    pub(crate) fn fault(&self) -> Option<SegmentFault> {
        self.guarded.fault(self.locked.file())
    }

    /// The same, found by looking at the file: a system call.
    pub(crate) fn look(&self) -> Option<SegmentFault> {
        // A forked child's descriptor leads elsewhere, and the segment is its parent's.
        if self.locked.is_in_child() { None } else { self.guarded.look(self.locked.file()) }
    }
}

/// Opens and locks the existing file; `None` if there is none (any more).
fn adopt(path: &Path, trust: &Trust) -> Result<Option<LockedFile>, OpenError> {
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
    let locked = match lock(file).map_err(|error| OpenError::io(path, "lock", error))? {
        Ok(locked) => locked,
        Err(pid) => return Err(OpenError::InUse { path: path.to_owned(), pid }),
    };
    match std::fs::symlink_metadata(path) {
        Ok(named) if named.ino() == stat.st_ino && named.dev() == stat.st_dev => Ok(Some(locked)),
        _ => Ok(None),
    }
}

/// Makes a complete, locked segment and names it; `None` if the name was taken meanwhile.
fn create(path: &Path, len: usize, header: &[u8], trust: &Trust) -> Result<Option<LockedFile>, OpenError> {
    let io = |operation| move |error: Errno| OpenError::io(path, operation, error);
    let _turn = Turn::wait(path);
    if std::fs::symlink_metadata(path).is_ok() {
        return Ok(None);
    }
    let mut options = File::options();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE | libc::O_CLOEXEC);
    let file = options.open(SHM_DIR).map_err(|error| OpenError::io(path, "create", error))?;
    // Allocated now, a full /dev/shm is an error here and never a SIGBUS at a later store.
    allocate(&file, path, len)?;
    file.write_all_at(header, 0).map_err(|error| OpenError::io(path, "write", error))?;
    if let Some(gid) = trust.gid {
        nix::unistd::fchown(&file, None, Some(gid.into())).map_err(io("give to the group"))?;
    }
    let mode = if trust.gid.is_some() { 0o640 } else { 0o600 };
    nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode)).map_err(io("set the mode"))?;
    // Nobody else has the file yet.
    let Ok(locked) = LockedFile::lock(file).map_err(io("lock"))? else { return Ok(None) };
    let unnamed = format!("/proc/self/fd/{}", locked.file().as_raw_fd());
    match nix::unistd::linkat(AT_FDCWD, unnamed.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW) {
        Ok(()) => Ok(Some(locked)),
        Err(Errno::EEXIST) => Ok(None),
        Err(error) => Err(io("name")(error)),
    }
}

/// Creators take turns: sixty-four rivals that each allocate a segment before one of them gets the name would fill
/// /dev/shm, and then none of them gets it.
///
/// It is a courtesy and nothing depends on it: anybody may lock /dev/shm, so nobody waits for long.
pub(super) struct Turn(Option<File>);

impl Turn {
    /// A turn of its own within `patience`, whatever has the name; none if others do not let it have one.
    #[cfg(not(bellwire_loom))]
    pub(super) fn take(patience: Duration) -> Option<Self> {
        let until = Instant::now() + patience;
        let dir = File::open(SHM_DIR).ok()?;
        while dir.try_lock().is_err() {
            if Instant::now() >= until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Some(Self(Some(dir)))
    }

    /// Waits for its turn, until the name is taken, or until it has waited long enough.
    fn wait(path: &Path) -> Self {
        const LONG_ENOUGH: Duration = Duration::from_secs(2);
        let until = Instant::now() + LONG_ENOUGH;
        let Ok(dir) = File::open(SHM_DIR) else { return Self(None) };
        while dir.try_lock().is_err() {
            if Instant::now() >= until || std::fs::symlink_metadata(path).is_ok() {
                return Self(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Self(Some(dir))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // By name: a child that was forked meanwhile has the open file, too.
        let _ = self.0.take().map(|dir| dir.unlock());
    }
}

/// Takes the memory for the whole file.
fn allocate(file: &File, path: &Path, len: usize) -> Result<(), OpenError> {
    match nix::fcntl::posix_fallocate(file, 0, len as i64) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC | Errno::ENOMEM | Errno::EFBIG) => {
            let available = nix::sys::statvfs::statvfs(SHM_DIR)
                .map_or(0, |fs| fs.blocks_available() * fs.fragment_size());
            Err(OpenError::NoSpace { path: path.to_owned(), needed: len as u64, available })
        }
        Err(error) => Err(OpenError::io(path, "allocate", error)),
    }
}

/// Says whose a file is that we may not open, where that is the reason.
pub(super) fn refused(path: &Path, trust: &Trust, error: std::io::Error) -> OpenError {
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

/// Takes the lock, or tells whose it is.
///
/// An owner takes the lock and at once writes its pid, and takes its pid away before it gives up the lock. As long as no
/// running process is named, the lock is changing hands: then it is tried again for a moment.
fn lock(mut file: File) -> nix::Result<Result<LockedFile, u32>> {
    const MOMENT: Duration = Duration::from_secs(1);
    let until = Instant::now() + MOMENT;
    loop {
        file = match LockedFile::lock(file)? {
            Ok(locked) => {
                name_owner(locked.file());
                return Ok(Ok(locked));
            }
            Err(file) => file,
        };
        let pid = owner_pid(&file);
        if is_running(pid) || Instant::now() >= until {
            return Ok(Err(pid));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes our pid into a segment that we have just locked, if it is one of ours by its first words. Best effort: it is for
/// people, and everything else about the segment is checked later.
fn name_owner(file: &File) {
    let mut start = [0; 12];
    if file.read_exact_at(&mut start, 0).is_err() {
        return;
    }
    let [magic @ .., v0, v1, v2, v3] = start;
    let is_ours = [LANE_MAGIC, CURSORS_MAGIC].contains(&u64::from_le_bytes(magic))
        && u32::from_le_bytes([v0, v1, v2, v3]) == LAYOUT_VERSION;
    if is_ours {
        let _ = file.write_all_at(&std::process::id().to_le_bytes(), OWNER_AT as u64);
    }
}

/// The pid that a segment names as its owner's; 0 if none.
pub(super) fn owner_pid(file: &File) -> u32 {
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, OWNER_AT as u64).map_or(0, |()| u32::from_le_bytes(bytes))
}

/// Whether a process has that pid and has not ended, as far as this process can see.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // "pid (name) state ...", and a name may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Where a segment of either kind has its owner's pid.
const OWNER_AT: usize = std::mem::offset_of!(crate::layout::LaneHeader, owner.pid);

const _: () = assert!(OWNER_AT == std::mem::offset_of!(crate::layout::CursorsHeader, owner.pid));
