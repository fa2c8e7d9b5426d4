//! Where segments are looked at: on this machine's buses, or in a directory with copies of them.

use std::path::{Path, PathBuf};

use crate::bus::{NameError, SHM_DIR, SegmentKind, check_name, parse_segment_file, segment_file};
use crate::region::foreign::ForeignSegment;
use crate::region::{OpenError, Trust};

use super::Segment;

/// Where to look, and whose segments are believed there.
///
/// Most functions that take one take a group as well, or `None`: then it is this machine.
///
/// A copy is a segment's file that somebody put elsewhere, under its name: from another machine, from an incident. Nobody
/// holds a copy, so its owner counts as dead, and what is in it may be torn: it was copied while it was written.
///
/// ```
/// use bellwire::inspect::{LaneStatus, Place};
/// use bellwire::Producer;
///
/// # let bus = format!("doc-{}-place", std::process::id());
/// # let dir = std::env::temp_dir().join(&bus);
/// # std::fs::create_dir(&dir)?;
/// let producer = Producer::open(&bus, "matching-engine")?;
/// let lane = LaneStatus::read(&bus, "matching-engine", None)?;
/// assert!(lane.held);
///
/// std::fs::copy(&lane.path, dir.join(lane.path.file_name().unwrap()))?;
/// let copy = LaneStatus::read(&bus, "matching-engine", Place::copies(&dir))?;
/// assert_eq!((copy.pid, copy.held), (lane.pid, false));
/// # drop(producer);
/// # std::fs::remove_dir_all(&dir)?;
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    dir: &'a Path,
    who: Who<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Who<'a> {
    /// This user, and the members of that group.
    Ours(Option<&'a str>),
    Anybody,
}

impl<'a> From<Option<&'a str>> for Place<'a> {
    fn from(group: Option<&'a str>) -> Self {
        Self { dir: Path::new(SHM_DIR), who: Who::Ours(group) }
    }
}

impl<'a> Place<'a> {
    /// The segments that were copied into that directory, whoever did it.
    pub fn copies(dir: &'a Path) -> Self {
        Self { dir, who: Who::Anybody }
    }

    /// The names of all buses there, sorted.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn buses(&self) -> std::io::Result<Vec<String>> {
        let buses = |file: &String| parse_segment_file(file).map(|(bus, ..)| bus.to_owned());
        let mut buses: Vec<_> = self.files()?.iter().filter_map(buses).collect();
        buses.sort_unstable();
        buses.dedup();
        Ok(buses)
    }

    /// The segments of a bus there, lanes first, by name. Also those that this user may not open. A directory that cannot
    /// be listed has none.
    ///
    /// # Errors
    /// [`NameError`]: no bus can have that name.
    pub fn segments(&self, bus: &str) -> Result<Vec<Segment>, NameError> {
        check_name("bus", bus)?;
        let mut segments: Vec<_> = self
            .files()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|file| match parse_segment_file(&file) {
                Some((of, kind, name)) if of == bus => self.segment(&file, bus, kind, name),
                _ => None,
            })
            .collect();
        segments.sort_unstable_by(|a, b| (a.kind, &a.name).cmp(&(b.kind, &b.name)));
        Ok(segments)
    }

    fn segment(&self, file: &str, bus: &str, kind: SegmentKind, name: &str) -> Option<Segment> {
        let path = self.dir.join(file);
        let stat = nix::sys::stat::lstat(&path).ok()?;
        let trust = match self.who {
            // To say whether it is held, it need not be ours.
            Who::Ours(_) => Trust::owner_of(&stat),
            Who::Anybody => Trust::ANYBODY,
        };
        let held = match ForeignSegment::open_at(path.clone(), &trust, 0) {
            Ok(segment) => Some(segment.owner_lives()),
            Err(_) => None,
        };
        Some(Segment {
            path,
            bus: bus.to_owned(),
            kind,
            name: name.to_owned(),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            len: stat.st_size as u64,
            inode: stat.st_ino,
            held,
        })
    }

    /// The file names there that are text.
    fn files(&self) -> std::io::Result<Vec<String>> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.dir)? {
            files.extend(entry?.file_name().into_string().ok());
        }
        Ok(files)
    }

    /// The path of a segment's file.
    pub(crate) fn path(&self, bus: &str, kind: SegmentKind, name: &str) -> Result<PathBuf, NameError> {
        segment_file(bus, kind, name).map(|file| self.dir.join(file))
    }

    pub(crate) fn trust(&self) -> Result<Trust, OpenError> {
        match self.who {
            Who::Ours(group) => Trust::with_group(group),
            Who::Anybody => Ok(Trust::ANYBODY),
        }
    }
}
