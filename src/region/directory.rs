//! Noticing that segments came or went, for the price of one `stat` of /dev/shm.
//!
//! A listing that fails (a process that has no file descriptor left cannot list a directory) is no empty listing: whoever
//! took it for one would let go of lanes and consumers that are there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bus::{SHM_DIR, SegmentKind, parse_segment_file};

/// Coarse file system clocks tick every few milliseconds: a change within this time after the last listing may have
/// left the directory's time as it was, so everybody who asks so soon, and the first who asks later, lists once more.
const TICK: Duration = Duration::from_millis(25);

/// Remembers when the directory was last seen to change.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    changed_at: Option<(i64, i64)>,
    settled: bool,
    listed: Option<Instant>,
}

impl Directory {
    /// The names of the segments of that kind on a bus, sorted, if they may have changed since they were last told.
    ///
    /// # Errors
    /// They cannot be listed. The next call tries again.
    pub(crate) fn changed_names(&mut self, bus: &str, kind: SegmentKind) -> io::Result<Option<Vec<String>>> {
        if !self.has_changed() {
            return Ok(None);
        }
        names(bus, kind).map(Some).inspect_err(|_| self.forget())
    }

    /// The next call tells the names, whether they changed or not.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether the directory may have changed since this last said so. True at first.
    fn has_changed(&mut self) -> bool {
        // Unreadable: assume a change; the listing will say what is wrong.
        let changed_at = fs::metadata(SHM_DIR).map(|meta| (meta.mtime(), meta.mtime_nsec())).ok();
        if changed_at.is_none() || changed_at != self.changed_at {
            self.changed_at = changed_at;
            self.settled = false;
            self.listed = Some(Instant::now());
            return true;
        }
        if !self.settled {
            self.settled = self.listed.is_none_or(|listed| listed.elapsed() > TICK);
            return true;
        }
        false
    }
}

/// Names of the segments of that kind on a bus, sorted.
///
/// # Errors
/// The directory cannot be listed as a whole.
pub(crate) fn names(bus: &str, kind: SegmentKind) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = files()?
        .iter()
        .filter_map(|file| match parse_segment_file(file) {
            Some((b, k, name)) if b == bus && k == kind => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// The file names in /dev/shm that are text.
///
/// # Errors
/// The directory cannot be listed as a whole.
pub(crate) fn files() -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(SHM_DIR)? {
        files.extend(entry?.file_name().into_string().ok());
    }
    Ok(files)
}

/// Whether the file at `path` is another one than that with this inode, or is gone. If it cannot be looked at, it is taken
/// to be the same.
pub(crate) fn was_replaced(path: &Path, inode: u64) -> bool {
    match fs::metadata(path) {
        Ok(named) => named.ino() != inode,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}
