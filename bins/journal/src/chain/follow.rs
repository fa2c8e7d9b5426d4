//! Making the chain, behind the appending thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::file::{ChainHeaderError, LINK_LEN, chain_path, link_at, read_header, read_link};
use super::{ChainHeader, ChainKey, Link};
use crate::append::segment_name;
use crate::layout::SEGMENT_HEADER_LEN;
use crate::read::JournalReader;

/// How much of the journal is linked before other housekeeping gets its turn, in bytes: a few milliseconds.
const STEP_BYTES: usize = 4 << 20;

/// Makes the chain of a journal, from where an earlier one ended.
pub(crate) struct Follower {
    reader: JournalReader,
    dir: PathBuf,
    journal_id: u64,
    key: ChainKey,
    /// The chain of the segment that is followed; none before the first entry.
    file: Option<Open>,
    /// Offset of the entry that is linked next.
    at: u64,
    /// The link before it.
    link: Link,
    /// Made and not written yet: at most those of one step.
    pending: Vec<u8>,
    /// Where to go on must be found on the disk: at first, and after it failed.
    is_lost: bool,
    /// The last step failed, and that was said.
    is_failing: bool,
}

struct Open {
    file: File,
    base: u64,
    /// Links that are written.
    count: u64,
}

impl Follower {
    pub(crate) fn new(reader: JournalReader, dir: &Path, journal_id: u64, key: ChainKey) -> Self {
        Self {
            reader,
            dir: dir.to_owned(),
            journal_id,
            key,
            file: None,
            at: 0,
            link: Link::NONE,
            pending: Vec::new(),
            is_lost: true,
            is_failing: false,
        }
    }

    /// Links what was published since the last step, or the first part of it. Whether there may be more.
    pub(crate) fn step(&mut self) -> bool {
        match self.find_and_follow() {
            Ok(more) => {
                if std::mem::take(&mut self.is_failing) {
                    tracing::info!("the journal's chain is written again");
                }
                more
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(%error, "the journal's chain cannot be written: what is journalled now is not covered");
                }
                self.pending.clear();
                self.is_lost = true;
                false
            }
        }
    }

    /// Writes the newest link into the log, where it is an anchor.
    pub(crate) fn log_head(&self) {
        if let Some(open) = self.file.as_ref().filter(|open| open.count > 0) {
            tracing::info!(segment = segment_name(open.base), records = open.count, link = %self.link, "journal chain");
        }
    }

    fn find_and_follow(&mut self) -> io::Result<bool> {
        if self.is_lost {
            self.find()?;
            self.is_lost = false;
        }
        if self.at < self.reader.start() {
            tracing::warn!(at = self.at, "the retention has passed the journal's chain: it begins anew");
            self.begin_at(self.reader.start());
        }
        self.follow()
    }

    fn follow(&mut self) -> io::Result<bool> {
        let mut linked_bytes = 0;
        while linked_bytes < STEP_BYTES {
            let Some(base) = self.reader.segment_of(self.at) else { break };
            if self.file.as_ref().is_none_or(|open| open.base != base) {
                self.begin_segment(base)?;
            }
            let Some(entry) = self.reader.entry(self.at) else { break };
            self.link = self.key.link(&self.link, entry.body);
            self.pending.extend_from_slice(&self.link.0);
            linked_bytes += entry.len();
            self.at = entry.next;
        }
        self.write()?;
        Ok(linked_bytes >= STEP_BYTES)
    }

    /// Opens the chain of the segment that begins at `base`. It goes on from that of the segment before, if that was followed.
    fn begin_segment(&mut self, base: u64) -> io::Result<()> {
        self.write()?;
        self.log_head();
        let before = if self.file.is_some() { self.link } else { Link::NONE };
        let header = ChainHeader { journal_id: self.journal_id, base, before, key_mark: self.key.mark() };
        let path = self.path(base);
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all_at(&header.to_bytes(), 0)?;
        self.link = self.key.start(&header);
        self.file = Some(Open { file, base, count: 0 });
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if let Some(open) = &mut self.file
            && !self.pending.is_empty()
        {
            open.file.write_all_at(&self.pending, link_at(open.count))?;
            open.count += (self.pending.len() / LINK_LEN) as u64;
            self.pending.clear();
        }
        Ok(())
    }

    fn begin_at(&mut self, at: u64) {
        (self.at, self.link, self.file) = (at, Link::NONE, None);
    }

    fn path(&self, base: u64) -> PathBuf {
        chain_path(&self.dir.join(segment_name(base)))
    }

    /// Where the newest chain on the disk ends; without one, the journal's beginning.
    fn find(&mut self) -> io::Result<()> {
        for path in self.chains()? {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            match read_header(&file)? {
                // Begun when the process was killed or the disk was full.
                Err(ChainHeaderError::Length { .. }) => std::fs::remove_file(&path)?,
                Ok((header, count)) if self.is_ours(&header, &path) => {
                    return self.go_on(file, &header, count);
                }
                found => {
                    let path = path.display();
                    tracing::warn!(%path, ?found, "a chain of another journal or key: it begins anew with this segment");
                    let base =
                        found.ok().map(|(header, _)| header.base).filter(|base| *base >= self.reader.start());
                    self.begin_at(base.map_or(self.reader.start(), |base| base + SEGMENT_HEADER_LEN as u64));
                    return Ok(());
                }
            }
        }
        self.begin_at(self.reader.start());
        Ok(())
    }

    fn is_ours(&self, header: &ChainHeader, path: &Path) -> bool {
        header.journal_id == self.journal_id
            && header.key_mark == self.key.mark()
            && self.path(header.base) == path
    }

    fn go_on(&mut self, file: File, header: &ChainHeader, count: u64) -> io::Result<()> {
        let mut at = header.base + SEGMENT_HEADER_LEN as u64;
        let mut found = 0;
        while found < count && self.reader.segment_of(at) == Some(header.base) {
            let Some(entry) = self.reader.entry(at) else { break };
            at = entry.next;
            found += 1;
        }
        if found < count {
            let segment = segment_name(header.base);
            let last = read_link(&file, count - 1)?;
            tracing::warn!(segment, missing = count - found, %last,
                "records that were in the journal's chain are gone: a loss of power, or somebody removed them");
        }
        // Also what was written of a link in part.
        file.set_len(link_at(found))?;
        self.link = if found == 0 { self.key.start(header) } else { read_link(&file, found - 1)? };
        self.at = at;
        self.file = Some(Open { file, base: header.base, count: found });
        Ok(())
    }

    /// The chains in the directory whose segment is there, newest first. Those whose segment is gone go, too.
    fn chains(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "chain") {
                continue;
            }
            if path.with_extension("journal").exists() {
                paths.push(path);
            } else {
                tracing::info!(path = %path.display(), "the chain of a segment that is gone is deleted");
                std::fs::remove_file(&path)?;
            }
        }
        // The names are numbers of one length.
        paths.sort();
        paths.reverse();
        Ok(paths)
    }
}
