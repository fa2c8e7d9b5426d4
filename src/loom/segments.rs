//! Segments and /dev/shm in a model: the same interface as `region/foreign.rs` and `region/directory.rs`, over memory of
//! the model's.
//!
//! The directory is a list behind a lock, as it is in the kernel: who finds a name there finds everything that was done
//! before the file got it. So it is with the lock that says whether an owner lives: who finds it
//! free comes behind everything that the dead one did. No memory is ever cut.

#![cfg_attr(not(test), allow(dead_code, reason = "segments are made by the models alone"))]

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;

use ::loom::sync::Mutex;
use ::loom::sync::atomic::AtomicBool;

use crate::bus::{SegmentKind, parse_segment_file, segment_path};
use crate::layout::{CursorsHeader, DATA_START, LaneHeader};
use crate::region::{OpenError, SegmentFault, Trust};

thread_local! {
    // The threads of a model run in one thread of the process, one execution after the other.
    static SHM: RefCell<Arc<Mutex<Shm>>> = RefCell::default();
}

/// /dev/shm.
#[derive(Default)]
struct Shm {
    files: Vec<Segment>,
    /// How often a file came or went.
    changes: u64,
}

/// A file and its memory.
#[derive(Clone)]
pub(crate) struct Segment {
    file: String,
    memory: Memory,
    /// Whether its owner has the lock on it.
    held: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Memory {
    /// A header; where the first ring's bytes begin; the capacities.
    Lane(Arc<LaneHeader>, *mut u8, [usize; 4]),
    Cursors(Arc<CursorsHeader>),
}

/// Begins an execution.
#[cfg(test)]
pub(super) fn clear() {
    SHM.take();
}

fn shm<R>(f: impl FnOnce(&mut Shm) -> R) -> R {
    let shm = SHM.with_borrow(Arc::clone);
    let mut shm = shm.lock().expect("no panic before");
    f(&mut shm)
}

impl Segment {
    /// A lane whose owner lives. It has no name yet.
    pub(crate) fn lane(file: &str, header: Arc<LaneHeader>, data: *mut u8, capacities: [usize; 4]) -> Self {
        Self::new(file, Memory::Lane(header, data, capacities))
    }

    /// A consumer's segment.
    pub(crate) fn cursors(file: &str, header: Arc<CursorsHeader>) -> Self {
        Self::new(file, Memory::Cursors(header))
    }

    fn new(file: &str, memory: Memory) -> Self {
        Self { file: file.to_owned(), memory, held: Arc::new(AtomicBool::new(true)) }
    }

    /// From here on everybody finds it.
    pub(crate) fn link(&self) {
        shm(|shm| {
            shm.files.push(self.clone());
            shm.changes += 1;
        });
    }

    /// Removes the name. Who has the file mapped keeps it.
    pub(crate) fn unlink(&self) {
        shm(|shm| {
            shm.files.retain(|file| file.inode() != self.inode());
            shm.changes += 1;
        });
    }

    /// Its owner comes or goes.
    pub(crate) fn set_held(&self, held: bool) {
        self.held.swap(held, AcqRel);
    }

    fn inode(&self) -> u64 {
        (match &self.memory {
            Memory::Lane(header, ..) => Arc::as_ptr(header).addr(),
            Memory::Cursors(header) => Arc::as_ptr(header).addr(),
        }) as u64
    }
}

/// As in production, but for what is behind it.
pub(crate) struct ForeignSegment {
    path: PathBuf,
    segment: Segment,
}

impl ForeignSegment {
    pub(crate) fn open_at(path: PathBuf, _: &Trust, _: usize) -> Result<Self, OpenError> {
        match shm(|shm| shm.files.iter().find(|segment| path.ends_with(&segment.file)).cloned()) {
            Some(segment) => Ok(Self { path, segment }),
            None => Err(OpenError::NotFound { path }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn inode(&self) -> u64 {
        self.segment.inode()
    }

    /// Such that the rings' bytes stand where they would in a lane.
    pub(crate) fn base(&self) -> *const u8 {
        match &self.segment.memory {
            Memory::Lane(_, data, _) => data.wrapping_sub(DATA_START),
            Memory::Cursors(header) => Arc::as_ptr(header).cast(),
        }
    }

    pub(crate) fn owner_lives(&self) -> bool {
        // Not a load, which could be old: the kernel looks under the lock of its own that the owner's coming and going takes.
        self.segment.held.fetch_or(false, AcqRel)
    }

    pub(crate) fn fault(&self) -> Option<SegmentFault> {
        None
    }

    pub(crate) fn look(&self) -> Option<SegmentFault> {
        None
    }

    pub(crate) fn still_whole(&self) -> Result<(), OpenError> {
        Ok(())
    }
}

pub(crate) struct ForeignLane(ForeignSegment);

impl ForeignLane {
    pub(crate) fn open(file: &str, trust: &Trust) -> Result<Self, OpenError> {
        Self::open_at(segment_path(file), trust)
    }

    pub(crate) fn open_at(path: PathBuf, trust: &Trust) -> Result<Self, OpenError> {
        ForeignSegment::open_at(path, trust, 0).map(Self)
    }

    pub(crate) fn header(&self) -> &LaneHeader {
        match &self.0.segment.memory {
            Memory::Lane(header, ..) => header,
            Memory::Cursors(_) => unreachable!("a lane"),
        }
    }

    pub(crate) fn segment(&self) -> &ForeignSegment {
        &self.0
    }

    pub(crate) fn capacities(&self) -> [usize; 4] {
        match self.0.segment.memory {
            Memory::Lane(_, _, capacities) => capacities,
            Memory::Cursors(_) => unreachable!("a lane"),
        }
    }
}

pub(crate) struct ForeignCursors(ForeignSegment);

impl ForeignCursors {
    pub(crate) fn open(file: &str, trust: &Trust) -> Result<Self, OpenError> {
        Self::open_at(segment_path(file), trust)
    }

    pub(crate) fn open_at(path: PathBuf, trust: &Trust) -> Result<Self, OpenError> {
        ForeignSegment::open_at(path, trust, 0).map(Self)
    }

    pub(crate) fn header(&self) -> &CursorsHeader {
        match &self.0.segment.memory {
            Memory::Cursors(header) => header,
            Memory::Lane(..) => unreachable!("cursors"),
        }
    }

    pub(crate) fn segment(&self) -> &ForeignSegment {
        &self.0
    }
}

/// As in production; a look at the directory never misses a change.
#[derive(Debug, Default)]
pub(crate) struct Directory(Option<u64>);

impl Directory {
    pub(crate) fn changed_names(&mut self, bus: &str, kind: SegmentKind) -> io::Result<Option<Vec<String>>> {
        let changes = shm(|shm| shm.changes);
        if self.0.replace(changes) == Some(changes) {
            return Ok(None);
        }
        names(bus, kind).map(Some)
    }

    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

pub(crate) fn names(bus: &str, kind: SegmentKind) -> io::Result<Vec<String>> {
    let files = files()?;
    let parsed = files.iter().filter_map(|file| parse_segment_file(file));
    let of_that_kind = parsed.filter(|(b, k, _)| *b == bus && *k == kind);
    let mut names: Vec<_> = of_that_kind.map(|(_, _, name)| name.to_owned()).collect();
    names.sort_unstable();
    Ok(names)
}

pub(crate) fn files() -> io::Result<Vec<String>> {
    Ok(shm(|shm| shm.files.iter().map(|segment| segment.file.clone()).collect()))
}

pub(crate) fn was_replaced(path: &Path, inode: u64) -> bool {
    shm(|shm| !shm.files.iter().any(|file| segment_path(&file.file) == path && file.inode() == inode))
}
