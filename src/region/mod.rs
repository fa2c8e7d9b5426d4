//! Segments: files in /dev/shm, mapped. Ours with write access, everybody else's without.
//!
//! - [`owned`]: create or adopt the one segment this process writes, and hold its lock.
//! - [`removal`]: take away one that nobody owns.
//! - [`foreign`]: map somebody else's read-only, after checking whose it is.
//! - [`guard`]: surviving that somebody truncates what is mapped.
//! - [`lock`]: the lock that says "the owner lives".
//! - [`fork`]: a forked child must neither write our segments nor keep our locks.
//! - [`directory`]: notice new and gone segments for one `stat`.

#[cfg(not(bellwire_loom))]
pub(crate) mod directory;
#[cfg(not(bellwire_loom))]
pub(crate) mod foreign;
pub(crate) mod fork;
pub(crate) mod guard;
pub(crate) mod lock;
pub(crate) mod owned;
#[cfg(not(bellwire_loom))]
pub(crate) mod removal;

#[cfg(bellwire_loom)]
pub(crate) use crate::loom::segments::{self as directory, self as foreign};

use std::io;
use std::path::{Path, PathBuf};

use crate::bus::NameError;
use crate::layout::IdentityError;
pub use guard::SegmentFault;

/// Why a segment could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each number")]
#[non_exhaustive]
pub enum OpenError {
    /// A name that is not allowed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// There is no such segment.
    #[error("{}: no such segment; has its owner ever run on this machine?", path.display())]
    NotFound { path: PathBuf },
    /// A live process owns it.
    #[error("{}: in use by process {pid}; a segment has one owner at a time", path.display())]
    InUse { path: PathBuf, pid: u32 },
    /// The name is taken by something that is not a regular file.
    #[error("{}: {found}, expected a regular file; remove it", path.display())]
    NotAFile { path: PathBuf, found: &'static str },
    /// It belongs to somebody whom we have no reason to trust.
    #[error(
        "{}: owned by uid {uid}, gid {gid}; expected uid {expected_uid}{}", path.display(),
        match .expected_gid { Some(gid) => format!(" or gid {gid}"), None => " (no group is configured)".into() }
    )]
    ForeignOwner { path: PathBuf, uid: u32, gid: u32, expected_uid: u32, expected_gid: Option<u32> },
    /// Another file has its name now.
    #[error("{}: another segment has this name since it was looked at; look again", path.display())]
    Replaced { path: PathBuf },
    /// Processes that make segments do not let others have their turn.
    #[error("{}: not removed, since segments are being made at this moment; try again", path.display())]
    NoTurn { path: PathBuf },
    /// Others than its owner may write to it.
    #[error("{}: mode {mode:04o} lets others than the owner write; expected 0600 or 0640", path.display())]
    Writable { path: PathBuf, mode: u32 },
    /// It is not a segment of this kind, layout or build.
    #[error("{}: {reason}", path.display())]
    Identity { path: PathBuf, reason: IdentityError },
    /// Its contents contradict each other.
    #[error("{}: corrupt: {what}", path.display())]
    Corrupt { path: PathBuf, what: String },
    /// It exists with other capacities than those asked for.
    #[error(
        "{}: exists with capacities {found:?} bytes, asked for {asked:?}; when its consumers have read everything, remove it and open again", path.display()
    )]
    Capacities { path: PathBuf, found: [usize; 4], asked: [usize; 4] },
    /// A capacity that a ring cannot have.
    #[error("capacity of {priority}: {bytes} bytes; use a multiple of 4096, from 4096 to 2^40")]
    Capacity { priority: crate::Priority, bytes: usize },
    /// /dev/shm has no room for it.
    #[error("{}: needs {needed} bytes, /dev/shm has {available} free; enlarge it or choose smaller capacities", path.display())]
    NoSpace { path: PathBuf, needed: u64, available: u64 },
    /// No such group on this machine.
    #[error("group {name:?}: no such group")]
    NoSuchGroup { name: String },
    /// Too many consumers on this bus.
    #[error("bus {bus:?} has {count} consumers already, the most allowed; remove a forgotten cursor segment")]
    TooManyConsumers { bus: String, count: usize },
    /// The operating system refused something.
    #[error("{}: {operation}: {source}", path.display())]
    Io { path: PathBuf, operation: &'static str, source: io::Error },
}

impl OpenError {
    pub(crate) fn io(path: &Path, operation: &'static str, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), operation, source },
        }
    }

    /// Whether this process or the machine has run out of something, so that the same may succeed later.
    pub(crate) fn is_shortage(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
    }

    /// A segment that lies under another name than its header says: then it has the key of another segment, whose cursors
    /// and counts it would be taken for.
    pub(crate) fn unless_named(path: &Path, found: &str, expected: &str) -> Result<(), Self> {
        if found == expected {
            return Ok(());
        }
        let what =
            format!("its header says that it is {found:?}, not {expected:?}: it was copied or renamed");
        Err(Self::Corrupt { path: path.to_owned(), what })
    }

    pub(crate) fn identity(path: &Path, reason: IdentityError) -> Self {
        Self::Identity { path: path.to_owned(), reason }
    }
}

/// Whom we trust: ourselves, and the members of one group if there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust {
    pub(crate) uid: u32,
    pub(crate) gid: Option<u32>,
    /// Of a copy it does not matter who made it, nor who can change it.
    pub(crate) anybody: bool,
}

impl Trust {
    pub(crate) const ANYBODY: Self = Self { uid: 0, gid: None, anybody: true };

    /// The owner of that file.
    pub(crate) fn owner_of(stat: &nix::sys::stat::FileStat) -> Self {
        Self { uid: stat.st_uid, gid: None, anybody: false }
    }

    /// Ourselves and that group.
    pub(crate) fn with_group(group: Option<&str>) -> Result<Self, OpenError> {
        let uid = nix::unistd::geteuid().as_raw();
        let gid = match group {
            None => None,
            Some(name) => match nix::unistd::Group::from_name(name) {
                Ok(Some(group)) => Some(group.gid.as_raw()),
                _ => return Err(OpenError::NoSuchGroup { name: name.to_owned() }),
            },
        };
        Ok(Self { uid, gid, anybody: false })
    }

    /// Refuses a file that somebody else owns or may write.
    pub(crate) fn check(&self, path: &Path, stat: &nix::sys::stat::FileStat) -> Result<(), OpenError> {
        if self.anybody {
            return Ok(());
        }
        if stat.st_uid != self.uid && Some(stat.st_gid) != self.gid {
            return Err(OpenError::ForeignOwner {
                path: path.to_owned(),
                uid: stat.st_uid,
                gid: stat.st_gid,
                expected_uid: self.uid,
                expected_gid: self.gid,
            });
        }
        let mode = stat.st_mode & 0o7777;
        if mode & 0o022 != 0 {
            return Err(OpenError::Writable { path: path.to_owned(), mode });
        }
        Ok(())
    }
}

/// What the file is, if it is not a regular one.
pub(crate) fn not_a_file(stat: &nix::sys::stat::FileStat) -> Option<&'static str> {
    use nix::sys::stat::SFlag;
    match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => None,
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFIFO => Some("a FIFO"),
        SFlag::S_IFSOCK => Some("a socket"),
        SFlag::S_IFLNK => Some("a symbolic link"),
        _ => Some("a device"),
    }
}
