//! Somebody else's segment, mapped read-only.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use super::guard::{Access, Guarded};
use super::{OpenError, SegmentFault, Trust, lock, not_a_file};
use crate::bus::{parse_segment_file, segment_path};
use crate::layout::{CURSORS_MAGIC, CursorsHeader, Identity, LANE_MAGIC, LaneHeader, lane_capacities};

/// A read-only mapping. The kernel stops every write through it.
pub(crate) struct ForeignSegment {
    path: PathBuf,
    // Dropped before the mapping.
    guarded: Guarded,
    map: MmapRaw,
    file: File,
    inode: u64,
}

impl ForeignSegment {
    /// Maps the segment's file, after checking that it is a regular file of somebody we trust, and long enough for a
    /// header of `header_len` bytes.
    pub(crate) fn open_at(path: PathBuf, trust: &Trust, header_len: usize) -> Result<Self, OpenError> {
        let mut options = File::options();
        // NONBLOCK: a FIFO under this name must not make us wait for its other end.
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = match options.open(&path) {
            Ok(file) => file,
            Err(error) => {
                if let Ok(stat) = nix::sys::stat::lstat(&path) {
                    if let Some(found) = not_a_file(&stat) {
                        return Err(OpenError::NotAFile { path, found });
                    }
                    trust.check(&path, &stat)?;
                }
                return Err(OpenError::io(&path, "open", error));
            }
        };
        let stat = nix::sys::stat::fstat(&file).map_err(|error| OpenError::io(&path, "fstat", error))?;
        if let Some(found) = not_a_file(&stat) {
            return Err(OpenError::NotAFile { path, found });
        }
        trust.check(&path, &stat)?;
        let len = stat.st_size as u64;
        if len < header_len as u64 {
            let what = format!("{len} bytes, shorter than its header of {header_len}");
            return Err(OpenError::Corrupt { path, what });
        }
        let map = MmapOptions::new()
            .len(len as usize)
            .map_raw_read_only(&file)
            .map_err(|error| OpenError::io(&path, "map", error))?;
        // SAFETY: the mapping made above, kept as long as the guard. Its users check every number that they find in it, and
        // treat texts as bytes that may change.
        let guarded = unsafe { Guarded::new(map.as_ptr(), map.len(), Access::Read) };
        Ok(Self { path, guarded, map, file, inode: stat.st_ino })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn inode(&self) -> u64 {
        self.inode
    }

    /// The first byte. Valid for reads of [`Self::len`] bytes as long as `self` lives; aligned to a page.
    pub(crate) fn base(&self) -> *const u8 {
        self.map.as_ptr()
    }

    /// Whether the process that owns the segment lives.
    pub(crate) fn owner_lives(&self) -> bool {
        // An error leaves it undecided: then the owner is taken to live, since nothing is lost by waiting for him.
        lock::is_held(&self.file).unwrap_or(true)
    }

    /// What is wrong with the memory behind the mapping, if it is gone. One load and a look at the guard's mark as long as
    /// it is not.
    ///
    /// # Why nothing that was read before this call was cut by a truncation
    /// Pages behind a file's new end can be accessed no more, and that shows by itself. But in the page in which the file
    /// now ends, what is behind the end becomes zeros, in silence: a record there can lose its last bytes and still look
    /// like one. The kernel first takes away the later pages and then writes those zeros, so whoever has read a zero of
    /// them finds the later pages gone: this loads the mapping's last word, behind everything that was read before. What
    /// is left is a cut within the very last page.
    #[inline]
    pub(crate) fn fault(&self) -> Option<SegmentFault> {
        fence(Ordering::Acquire); // the loads before this one come before it
        if self.len() >= 8 {
            let last = self.base().wrapping_add((self.len() & !7) - 8);
            // SAFETY: within the mapping and aligned to 8, since its beginning is aligned to a page; read as an atomic only.
            let last = unsafe { AtomicU64::from_ptr(last.cast::<u64>().cast_mut()) };
            let _ = last.load(Ordering::Acquire); // before the look at the mark; and it is not optimised away
        }
        self.guarded.fault(&self.file)
    }

    /// The same, found by looking at the file: a system call.
    pub(crate) fn look(&self) -> Option<SegmentFault> {
        self.guarded.look(&self.file)
    }

    /// An error if the memory went while it was looked at.
    pub(crate) fn still_whole(&self) -> Result<(), OpenError> {
        match self.fault() {
            None => Ok(()),
            Some(fault) => Err(OpenError::Corrupt { path: self.path.clone(), what: fault.to_string() }),
        }
    }

    fn identity(&self, magic: u64, name: &str) -> Result<(), OpenError> {
        // SAFETY: `open` mapped at least a whole header, page-aligned; the header is made of atomics, for which any
        // bytes and any concurrent stores are fine.
        let identity = unsafe { &*self.base().cast::<Identity>() };
        let checked = identity.check(magic, self.len() as u64);
        self.still_whole()?;
        checked.map_err(|reason| OpenError::identity(&self.path, reason))?;
        OpenError::unless_named(&self.path, &identity.name.load(), name)
    }
}

/// The producer's or consumer's name in a segment's file name.
fn owner_of(path: &Path) -> &str {
    let file = path.file_name().and_then(|name| name.to_str());
    file.and_then(parse_segment_file).map_or("", |(_, _, name)| name)
}

/// A lane that somebody else writes, its header checked.
pub(crate) struct ForeignLane {
    segment: ForeignSegment,
    capacities: [usize; 4],
}

impl ForeignLane {
    pub(crate) fn open(file_name: &str, trust: &Trust) -> Result<Self, OpenError> {
        Self::open_at(segment_path(file_name), trust)
    }

    pub(crate) fn open_at(path: PathBuf, trust: &Trust) -> Result<Self, OpenError> {
        let segment = ForeignSegment::open_at(path, trust, size_of::<LaneHeader>())?;
        segment.identity(LANE_MAGIC, owner_of(&segment.path))?;
        let mut lane = Self { segment, capacities: [0; 4] };
        lane.capacities = lane_capacities(lane.header(), lane.segment.len() as u64)
            .map_err(|reason| OpenError::identity(lane.segment.path(), reason))?;
        Ok(lane)
    }

    pub(crate) fn header(&self) -> &LaneHeader {
        // SAFETY: `open` mapped at least a whole header, page-aligned; the header is made of atomics.
        unsafe { &*self.segment.base().cast::<LaneHeader>() }
    }

    pub(crate) fn segment(&self) -> &ForeignSegment {
        &self.segment
    }

    pub(crate) fn capacities(&self) -> [usize; 4] {
        self.capacities
    }
}

/// A consumer's cursors, seen by somebody else.
pub(crate) struct ForeignCursors {
    segment: ForeignSegment,
}

impl ForeignCursors {
    pub(crate) fn open(file_name: &str, trust: &Trust) -> Result<Self, OpenError> {
        Self::open_at(segment_path(file_name), trust)
    }

    pub(crate) fn open_at(path: PathBuf, trust: &Trust) -> Result<Self, OpenError> {
        let segment = ForeignSegment::open_at(path, trust, size_of::<CursorsHeader>())?;
        segment.identity(CURSORS_MAGIC, owner_of(&segment.path))?;
        Ok(Self { segment })
    }

    pub(crate) fn header(&self) -> &CursorsHeader {
        // SAFETY: `open` mapped at least a whole header, page-aligned; the header is made of atomics.
        unsafe { &*self.segment.base().cast::<CursorsHeader>() }
    }

    pub(crate) fn segment(&self) -> &ForeignSegment {
        &self.segment
    }
}
