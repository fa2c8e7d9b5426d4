//! What the bytes of a `.summary` file mean.
//!
//! ```text
//!  0        | magic                | version      | version of the content |
//!  16       | journal id           | base of the segment                   |
//!  32       | created at, of the segment | used: where its entries end     |
//!  48       | entries              | newest entry journalled at, ns        |
//!  64       | fingerprint of the archives | length of the content          |
//!  80       | zero                 | crc of 0..88 | crc of the content     |
//!  96       | the content                                                  |
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bellwire::abi_fingerprint;

use crate::layout::{u32_at, u64_at};

/// "BELLSUMM", little-endian.
const MAGIC: u64 = u64::from_le_bytes(*b"BELLSUMM");
/// Changes whenever anything in this file changes its meaning.
const VERSION: u32 = 1;
const HEADER_LEN: usize = 96;
const HEADER_CRC_AT: usize = 88;
const CONTENT_CRC_AT: usize = 92;

/// Which segment a summary is of, and what the journal itself would know after reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SummaryFacts {
    pub(crate) content_version: u32,
    pub(crate) journal_id: u64,
    pub(crate) base: u64,
    /// When the segment was begun: after a loss of power another one can have its base.
    pub(crate) created_at: i64,
    pub(crate) used: u64,
    pub(crate) entries: u64,
    /// Of the newest entry; if there is none, when the segment was begun.
    pub(crate) newest_at: i64,
}

impl SummaryFacts {
    /// Whether both are of one segment, in one state.
    pub(crate) fn is_of_same(&self, other: &Self) -> bool {
        let identity = |facts: &Self| {
            (facts.content_version, facts.journal_id, facts.base, facts.created_at, facts.used)
        };
        identity(self) == identity(other)
    }

    fn to_bytes(self, content: &[u8]) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut put = |at: usize, value: u64| bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(0, MAGIC);
        put(8, u64::from(VERSION) | u64::from(self.content_version) << 32);
        put(16, self.journal_id);
        put(24, self.base);
        put(32, self.created_at as u64);
        put(40, self.used);
        put(48, self.entries);
        put(56, self.newest_at as u64);
        put(64, abi_fingerprint());
        put(72, content.len() as u64);
        let header_crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..CONTENT_CRC_AT].copy_from_slice(&header_crc.to_le_bytes());
        bytes[CONTENT_CRC_AT..].copy_from_slice(&crc32c::crc32c(content).to_le_bytes());
        bytes
    }

    /// With the length of the content and its crc.
    fn from_bytes(bytes: &[u8; HEADER_LEN]) -> Option<(Self, u64, u32)> {
        let is_whole = u64_at(bytes, 0) == MAGIC
            && u32_at(bytes, 8) == VERSION
            && u32_at(bytes, HEADER_CRC_AT) == crc32c::crc32c(&bytes[..HEADER_CRC_AT])
            && u64_at(bytes, 64) == abi_fingerprint();
        let facts = Self {
            content_version: u32_at(bytes, 12),
            journal_id: u64_at(bytes, 16),
            base: u64_at(bytes, 24),
            created_at: u64_at(bytes, 32) as i64,
            used: u64_at(bytes, 40),
            entries: u64_at(bytes, 48),
            newest_at: u64_at(bytes, 56) as i64,
        };
        is_whole.then(|| (facts, u64_at(bytes, 72), u32_at(bytes, CONTENT_CRC_AT)))
    }
}

/// The summary of the segment in that file.
fn summary_path(segment: &Path) -> PathBuf {
    segment.with_extension("summary")
}

/// Deletes the summary of a segment, if there is one.
pub(crate) fn remove(segment: &Path) -> io::Result<()> {
    match std::fs::remove_file(summary_path(segment)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes the summary of that segment: it is there as a whole or not at all.
pub(crate) fn write(segment: &Path, facts: &SummaryFacts, content: &[u8], sync: bool) -> io::Result<()> {
    let path = summary_path(segment);
    // What a killed process leaves of it, the next start deletes.
    let unfinished = path.with_extension("summary.prep");
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(&facts.to_bytes(content))?;
        file.write_all(content)?;
        if sync {
            file.sync_data()?;
        }
        std::fs::rename(&unfinished, &path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&unfinished); // the first error is the one to report
    }
    written
}

/// What the summary of that segment says of itself; `None`: there is none that can be used.
pub(crate) fn read_facts(segment: &Path) -> Option<SummaryFacts> {
    open(segment).map(|(_, facts, ..)| facts)
}

/// The content of the summary of that segment, and its crc; `None`: it is damaged.
pub(crate) fn read_content(segment: &Path) -> Option<(Vec<u8>, u32)> {
    let (mut file, _, len, crc) = open(segment)?;
    let mut content = Vec::new();
    content.try_reserve_exact(usize::try_from(len).ok()?).ok()?;
    file.read_to_end(&mut content).ok()?;
    (crc32c::crc32c(&content) == crc).then_some((content, crc))
}

/// The file, at its content, which is as long as it says.
fn open(segment: &Path) -> Option<(File, SummaryFacts, u64, u32)> {
    let mut file = File::open(summary_path(segment)).ok()?;
    let mut header = [0; HEADER_LEN];
    file.read_exact(&mut header).ok()?;
    let (facts, len, crc) = SummaryFacts::from_bytes(&header)?;
    let is_whole = file.metadata().ok()?.len() == (HEADER_LEN as u64).checked_add(len)?;
    is_whole.then_some((file, facts, len, crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: SummaryFacts = SummaryFacts {
        content_version: 7,
        journal_id: 1,
        base: 2,
        created_at: -3,
        used: 4,
        entries: 5,
        newest_at: 6,
    };

    #[test]
    fn a_header_reads_back_and_one_of_another_kind_version_or_build_is_refused() {
        let bytes = FACTS.to_bytes(b"content");
        let crc = crc32c::crc32c(b"content");
        assert_eq!(SummaryFacts::from_bytes(&bytes), Some((FACTS, 7, crc)));
        // With the right crc: magic, version, the fingerprint of the archives.
        for at in [0, 8, 64] {
            let mut other = bytes;
            other[at] ^= 1;
            let header_crc = crc32c::crc32c(&other[..HEADER_CRC_AT]);
            other[HEADER_CRC_AT..CONTENT_CRC_AT].copy_from_slice(&header_crc.to_le_bytes());
            assert_eq!(SummaryFacts::from_bytes(&other), None, "byte {at}");
        }
        // With the old one: anything.
        for at in 0..CONTENT_CRC_AT {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(SummaryFacts::from_bytes(&other), None, "byte {at}");
        }
    }

    #[test]
    fn summaries_are_of_the_same_segment_if_all_but_their_counts_is_equal() {
        let others = [
            SummaryFacts { content_version: 0, ..FACTS },
            SummaryFacts { journal_id: 0, ..FACTS },
            SummaryFacts { base: 0, ..FACTS },
            SummaryFacts { created_at: 0, ..FACTS },
            SummaryFacts { used: 0, ..FACTS },
        ];
        assert!(others.iter().all(|other| !FACTS.is_of_same(other)));
        assert!(FACTS.is_of_same(&SummaryFacts { entries: 0, newest_at: 0, ..FACTS }));
    }

    #[test]
    fn a_summary_that_cannot_be_removed_is_an_error_and_one_that_is_not_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let segment = dir.path().join("1.journal");
        remove(&segment).unwrap();
        write(&segment, &FACTS, b"content", false).unwrap();
        assert_eq!(read_facts(&segment), Some(FACTS));
        remove(&segment).unwrap();
        assert_eq!(read_facts(&segment), None);
        std::fs::create_dir(summary_path(&segment)).unwrap();
        assert!(remove(&segment).is_err());
    }
}
