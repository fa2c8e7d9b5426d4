//! Looking at a journal from outside: of a gateway that runs, of one that is dead, or a copy from another machine.
//!
//! Nothing is mapped, locked or written: files are read, so neither the gateway nor whoever looks can be disturbed by a file
//! that grows, is truncated or goes. A segment that leaves the journal meanwhile is passed over.

#[cfg(test)]
mod tests;
mod verify;
mod walk;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use verify::{Anchor, Finding, NoAnchor, Place, Verdict, VerifyError, WrongKey, verify};
pub use walk::{Found, Step, Walk};

use crate::error::JournalError;
use crate::layout::*;

/// The segments of a journal, oldest first, as its directory lists them.
#[derive(Debug)]
pub struct Listing {
    pub dir: PathBuf,
    pub segments: Vec<SegmentFile>,
}

/// One segment file, as its header has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    pub path: PathBuf,
    /// Offset at which it begins.
    pub base: u64,
    /// Length that the header gives, in bytes.
    pub len: u64,
    /// Length of the file, in bytes.
    pub file_len: u64,
    pub journal_id: u64,
    /// When it was begun, ns since the Unix epoch.
    pub created_at: i64,
    /// What new streams got as their epoch; `None`: the word is damaged.
    pub generation: Option<u32>,
    /// Place in the file where its entries end; `None`: it is the last one, or was when its gateway died.
    pub used: Option<u64>,
    /// All of it is on disk.
    pub is_durable: bool,
    /// Streams of entries before this offset are over; 0: none is.
    pub fresh_from: u64,
    /// Length of its chain's file, in bytes; `None`: it has none.
    pub chain_len: Option<u64>,
}

impl SegmentFile {
    /// Reads a header.
    ///
    /// # Errors
    /// [`JournalError::Io`], [`JournalError::Header`], or [`JournalError::Mismatch`] for a file that is too short.
    pub fn read(path: &Path) -> Result<Self, JournalError> {
        let file = File::open(path).map_err(JournalError::io(path, "open"))?;
        let file_len = file.metadata().map_err(JournalError::io(path, "look at"))?.len();
        let mismatch =
            |what, found, expected| JournalError::Mismatch { path: path.to_owned(), what, found, expected };
        if file_len < SEGMENT_HEADER_LEN as u64 {
            return Err(mismatch("file length", file_len, SEGMENT_HEADER_LEN as u64));
        }
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        file.read_exact_at(&mut bytes, 0).map_err(JournalError::io(path, "read"))?;
        let header = SegmentHeader::from_bytes(&bytes)
            .map_err(|source| JournalError::Header { path: path.to_owned(), source })?;
        // A walk divides the row of segments by these.
        if !(crate::SEGMENT_BYTES_MIN..=crate::SEGMENT_BYTES_MAX).contains(&header.len) {
            return Err(mismatch("segment length", header.len, crate::SEGMENT_BYTES_MIN));
        }
        if header.base == 0 || header.base > u64::MAX >> 1 || !header.base.is_multiple_of(ENTRY_ALIGN as u64)
        {
            return Err(mismatch("base", header.base, ENTRY_ALIGN as u64));
        }
        let used = u64_at(&bytes, USED_AT);
        if used != 0 && !(SEGMENT_HEADER_LEN as u64..=header.len).contains(&used) {
            return Err(mismatch("used length", used, header.len));
        }
        Ok(Self {
            path: path.to_owned(),
            base: header.base,
            len: header.len,
            file_len,
            journal_id: header.journal_id,
            created_at: header.created_at,
            generation: generation_of(u64_at(&bytes, GENERATION_AT)),
            used: (used != 0).then_some(used),
            is_durable: u64_at(&bytes, DURABLE_AT) == 1,
            fresh_from: u64_at(&bytes, FRESH_AT),
            chain_len: std::fs::metadata(crate::chain::chain_path(path)).ok().map(|chain| chain.len()),
        })
    }

    /// Offset behind it.
    pub fn end(&self) -> u64 {
        self.base + self.len
    }
}

impl Listing {
    /// Lists a journal's directory. Segments that go while it is read are left out.
    ///
    /// # Errors
    /// The directory cannot be read; a segment's header is none, see [`SegmentFile::read`]; or [`JournalError::NoJournal`].
    pub fn read(dir: &Path) -> Result<Self, JournalError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(JournalError::io(dir, "list"))? {
            let path = entry.map_err(JournalError::io(dir, "list"))?.path();
            if path.extension().is_some_and(|extension| extension == "journal") {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            return Err(JournalError::NoJournal { path: dir.to_owned() });
        }
        // The names are numbers of one length.
        paths.sort();
        let mut segments = Vec::with_capacity(paths.len());
        for path in &paths {
            match SegmentFile::read(path) {
                Ok(segment) => segments.push(segment),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { dir: dir.to_owned(), segments })
    }

    /// Looks at the directory again; what was there before and still is stays.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn refresh(&mut self) -> Result<(), JournalError> {
        *self = Self::read(&self.dir)?;
        Ok(())
    }
}

fn is_gone(error: &JournalError) -> bool {
    matches!(error, JournalError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
