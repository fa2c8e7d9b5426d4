//! Noticing that segments came or went, for the price of one `stat` of /dev/shm.

use std::fs;
use std::os::unix::fs::MetadataExt;
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
    /// Whether the directory may have changed since this last said so. True at first.
    pub(crate) fn has_changed(&mut self) -> bool {
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
pub(crate) fn names(bus: &str, kind: SegmentKind) -> Vec<String> {
    let mut names: Vec<String> = files()
        .filter_map(|file| match parse_segment_file(&file) {
            Some((b, k, name)) if b == bus && k == kind => Some(name.to_owned()),
            _ => None,
        })
        .collect();
    names.sort_unstable();
    names
}

/// The file names in /dev/shm that are text.
pub(crate) fn files() -> impl Iterator<Item = String> {
    let entries = fs::read_dir(SHM_DIR).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}
