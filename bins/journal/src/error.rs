//! What can go wrong with a journal.

use std::io;
use std::path::PathBuf;

use bellwire::SegmentFault;
use nix::libc::{EMFILE, ENFILE, ENOMEM};

use super::layout::HeaderError;

/// Why a journal cannot be opened or written. Every one names the file.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The configuration asks for something that cannot work.
    #[error("journal configuration: {what} is {found}, allowed is {min} to {max}")]
    Config { what: &'static str, found: u64, min: u64, max: u64 },
    /// The system refused an operation.
    #[error("{path}: cannot {operation}: {source}", path = .path.display())]
    Io { path: PathBuf, operation: &'static str, source: io::Error },
    /// Another process owns the directory; its pid, 0 if it cannot be told.
    #[error(
        "{path}: process {pid}, another gateway, owns this journal; stop it, or give this one another directory",
        path = .path.display()
    )]
    Owned { path: PathBuf, pid: u32 },
    /// Others than its owner may write to the directory: they could give the gateway any journal they like.
    #[error("{path}: mode {mode:04o} lets others than the owner write; expected 0700", path = .path.display())]
    Writable { path: PathBuf, mode: u32 },
    /// A file of the right name is not a segment of this journal.
    #[error("{path}: {source}", path = .path.display())]
    Header { path: PathBuf, source: HeaderError },
    /// There is no segment in the directory.
    #[error("{path}: no journal is there: no file ends in .journal", path = .path.display())]
    NoJournal { path: PathBuf },
    /// The header's numbers contradict the file or its neighbours.
    #[error("{path}: {what} is {found:#x}, expected {expected:#x}", path = .path.display())]
    Mismatch { path: PathBuf, what: &'static str, found: u64, expected: u64 },
    /// A segment's memory is gone: what was appended since may be, too.
    #[error("{path}: {fault}; the gateway ends, and the next start finds out what is left", path = .path.display())]
    Gone { path: PathBuf, fault: SegmentFault },
    /// An entry is damaged and nothing but damage explains it.
    #[error(
        "{path}: damaged at byte {at}: {what}; restore the file, or move it and the later ones away to go on without them",
        path = .path.display()
    )]
    Damaged { path: PathBuf, at: u64, what: String },
}

impl JournalError {
    pub(super) fn io(path: &std::path::Path, operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, operation, source }
    }

    /// Whether the cause is that there is no room: waiting and trying again can help.
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_no_room(source))
    }
}

/// No room on the device, no more of it for this user, or no file descriptor or memory to get it with.
fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || matches!(error.raw_os_error(), Some(EMFILE | ENFILE | ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_helps_when_there_is_no_room_and_only_then() {
        let path = std::path::Path::new("/journal");
        let io = |code| JournalError::io(path, "allocate")(io::Error::from_raw_os_error(code));
        for code in [nix::libc::ENOSPC, nix::libc::EDQUOT, EMFILE, ENFILE, ENOMEM] {
            assert!(io(code).is_no_room(), "{:?}", io(code));
        }
        for code in [nix::libc::EACCES, nix::libc::EIO, nix::libc::ENOENT] {
            assert!(!io(code).is_no_room(), "{:?}", io(code));
        }
        assert!(!JournalError::NoJournal { path: path.to_owned() }.is_no_room());
    }
}
