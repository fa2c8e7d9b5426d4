//! Segments that are looked at elsewhere than where they live: a snapshot file, or a directory that somebody copied them to.
//!
//! A snapshot is a tar archive, compressed with gzip: `tar xzf` takes it apart as well. Its first member, `snapshot.json`, says
//! when and where it was made and which segments were held; the others are the segments' files.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bellwire::inspect::Place;
use flate2::read::GzDecoder;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::output::human;

/// Name of the first member.
pub(crate) const CONTENTS: &str = "snapshot.json";
/// The longest list of contents: a bus has at most some hundred segments.
const CONTENTS_LEN_MAX: u64 = 1 << 20;
/// More segments than a bus can have are no snapshot of one.
const SEGMENTS_MAX: usize = 4096;
/// More behind the last member than any tar fills up its last block with is no snapshot.
const REST_MAX: u64 = 1 << 20;
/// What is written at once; a block of zeros is left out.
const BLOCK: usize = 64 << 10;

/// What a snapshot says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) schema: u32,
    pub(crate) bus: String,
    /// When it was begun, ns since the Unix epoch.
    pub(crate) taken_at: i64,
    pub(crate) host: String,
    /// The version of the bellwirectl that made it.
    pub(crate) version: String,
    pub(crate) segments: Vec<Member>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) file: String,
    pub(crate) bytes: u64,
    /// Whether its owner lived; none if that could not be told.
    pub(crate) held: Option<bool>,
}

/// Where the copies are.
#[derive(Debug)]
pub(crate) struct Copies {
    dir: PathBuf,
    /// The only bus that there is, if there is one only.
    bus: Option<String>,
    /// Removed in the end; none of a directory that is not ours.
    _unpacked: Option<tempfile::TempDir>,
    /// For the owners that lived when the snapshot was made: what they held is held, by us.
    _held: Vec<File>,
}

impl Copies {
    /// Opens a snapshot, or a directory with segments, and says on standard error what it is.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let metadata = std::fs::metadata(path).map_err(|error| Failure::file(path, &error))?;
        let copies = if metadata.is_dir() { Self::of_dir(path) } else { Self::unpack(path) }?;
        Ok(copies)
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place::copies(&self.dir)
    }

    pub(crate) fn bus(&self) -> Option<&str> {
        self.bus.as_deref()
    }

    fn of_dir(dir: &Path) -> Result<Self, Failure> {
        let buses = Place::copies(dir).buses().map_err(|error| Failure::file(dir, &error))?;
        if buses.is_empty() {
            return Err(Failure::new(Exit::Nothing, format!("{}: no segments are there", dir.display()))
                .next("copy them under their names: `cp /dev/shm/bellwire.* DIR`"));
        }
        words(format_args!(
            "copies in {}: nobody holds a copy, so every owner is shown as dead; ages are as of now",
            dir.display()
        ));
        Ok(Self { dir: dir.to_owned(), bus: only(buses), _unpacked: None, _held: Vec::new() })
    }

    fn unpack(path: &Path) -> Result<Self, Failure> {
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(|error| Failure::file(path, &error))?;
        let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
        if !is_file {
            return Err(Failure::new(
                Exit::Usage,
                format!("{}: neither a file nor a directory", path.display()),
            ));
        }
        let bad = |what: String| {
            Failure::new(Exit::Unusable, format!("{}: {what}", path.display()))
                .next("`bellwirectl snapshot FILE` makes one; was it copied whole?")
        };
        let unpacked = tempfile::Builder::new().prefix("bellwire-snapshot-").tempdir();
        let unpacked = unpacked.map_err(|error| Failure::file(&std::env::temp_dir(), &error))?;
        let mut archive = tar::Archive::new(GzDecoder::new(io::BufReader::new(file)));
        let mut members = archive.entries().map_err(|error| bad(format!("no snapshot: {error}")))?;
        let mut next =
            || members.next().transpose().map_err(|error| bad(format!("no snapshot, or not whole: {error}")));
        let first = next()?.filter(|member| member.path_bytes() == CONTENTS.as_bytes());
        let first =
            first.ok_or_else(|| bad(format!("no snapshot of ours: it does not begin with {CONTENTS}")))?;
        let mut text = Vec::new();
        first.take(CONTENTS_LEN_MAX).read_to_end(&mut text).map_err(|error| bad(error.to_string()))?;
        let contents: Contents =
            serde_json::from_slice(&text).map_err(|error| bad(format!("{CONTENTS}: {error}")))?;
        if contents.segments.len() > SEGMENTS_MAX {
            return Err(bad(format!(
                "{} segments; a bus has at most {SEGMENTS_MAX}",
                contents.segments.len()
            )));
        }
        let mut held = Vec::new();
        for member in &contents.segments {
            // Nothing but what it says, under names that can be no path.
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
            if !member.file.starts_with("bellwire.") || !member.file.as_bytes().iter().all(is_name) {
                return Err(bad(format!("{:?} is no segment's name", member.file)));
            }
            let found = next()?.filter(|found| {
                found.path_bytes() == member.file.as_bytes() && found.header().entry_type().is_file()
            });
            let mut found = found.ok_or_else(|| bad(format!("not whole: {} is missing", member.file)))?;
            let room = room_in(unpacked.path());
            let file = write(&mut found, &unpacked.path().join(&member.file), member.bytes, room)
                .map_err(|error| bad(format!("{}: {error}", member.file)))?;
            if member.held == Some(true) && hold(&file).is_ok() {
                held.push(file);
            }
        }
        // The checksum of all stands at the very end.
        if next()?.is_some() {
            return Err(bad("no snapshot of ours: it has more members than it says".to_owned()));
        }
        let mut rest = archive.into_inner().take(REST_MAX);
        io::copy(&mut rest, &mut io::sink()).map_err(|error| bad(format!("not whole: {error}")))?;
        if rest.limit() == 0 {
            return Err(bad("no snapshot of ours: it goes on behind its end".to_owned()));
        }
        words(format_args!(
            "snapshot of bus {} on {}, {} ({} ago); states and ages are those of then",
            contents.bus,
            contents.host,
            human::time(contents.taken_at),
            human::age(contents.taken_at).map_or_else(|| "?".to_owned(), human::duration)
        ));
        human::set_now(contents.taken_at);
        let dir = unpacked.path().to_owned();
        Ok(Self { dir, bus: Some(contents.bus), _unpacked: Some(unpacked), _held: held })
    }
}

fn only(buses: Vec<String>) -> Option<String> {
    let mut buses = buses.into_iter();
    buses.next().filter(|_| buses.next().is_none())
}

/// As many bytes as there is room for where snapshots are unpacked.
fn room_in(dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).map_or(u64::MAX, |stat| stat.blocks_available() * stat.fragment_size())
}

/// Writes exactly so many bytes into a new file, and no block that is all zeros: rings are mostly empty.
fn write(from: &mut impl Read, path: &Path, bytes: u64, room: u64) -> io::Result<File> {
    let mut file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file.set_len(bytes)?;
    let mut block = vec![0; BLOCK];
    let (mut left, mut written) = (bytes, 0);
    while left > 0 {
        let part = &mut block[..left.min(BLOCK as u64) as usize];
        from.read_exact(part)?;
        left -= part.len() as u64;
        if part.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Current(part.len() as i64))?;
            continue;
        }
        written += part.len() as u64;
        if written > room {
            let what = format!(
                "more than the {} that are free in the directory for temporary files (TMPDIR)",
                human::bytes(room)
            );
            return Err(io::Error::new(io::ErrorKind::StorageFull, what));
        }
        file.write_all(part)?;
    }
    Ok(file)
}

/// Takes the lock that an owner has.
fn hold(file: &File) -> nix::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
}
