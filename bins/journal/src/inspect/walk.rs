//! From entry to entry, through files that somebody else may be writing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::{Listing, SegmentFile, is_gone};
use crate::error::JournalError;
use crate::layout::*;
use crate::read::Entry;

/// How much is read at once, in bytes. Longer than the longest entry.
const WINDOW: usize = 1 << 20;
const _: () = assert!(WINDOW > 2 * ENTRY_LEN_MAX);

/// What a walk came upon.
#[derive(Debug)]
pub enum Step<'a> {
    /// An entry, whole: its crc was checked.
    Entry(Box<Found<'a>>),
    /// Between two segments, one or more are missing: so many bytes before that file. The walk goes on behind them.
    Gap { path: PathBuf, missing: u64 },
    /// There is nothing behind it yet. Asking again later may give more.
    End,
    /// Something that is no entry stands where one must; the walk cannot go on.
    Bad { path: PathBuf, at: u64, offset: u64, why: String },
}

/// An entry and where it was found.
#[derive(Debug)]
pub struct Found<'a> {
    pub entry: Entry<'a>,
    /// Base of the segment in which it stands.
    pub base: u64,
    /// Which entry of that segment it is, from 0.
    pub index: u64,
    /// Place in the file.
    pub at: u64,
}

/// A walk through the segments of a [`Listing`], oldest entry first.
#[derive(Debug)]
pub struct Walk {
    listing: Listing,
    /// Which segment is being read.
    segment: usize,
    file: Option<File>,
    /// Place in its file of the next entry.
    place: usize,
    /// Which entry of the segment that is.
    index: u64,
    /// What was read of the file, and from where on.
    /// The window is the first `window_len` bytes of it.
    buffer: Box<[u8]>,
    window_len: usize,
    window_at: usize,
    /// Not told yet.
    gap: Option<(PathBuf, u64)>,
}

impl Walk {
    /// From the oldest entry on.
    pub fn new(listing: Listing) -> Self {
        Self::from_segment(listing, 0)
    }

    /// From the segment on in which entries of that time are: they may begin before it.
    pub fn since(listing: Listing, at: i64) -> Self {
        let later = listing.segments.partition_point(|segment| segment.created_at <= at);
        Self::from_segment(listing, later.saturating_sub(1))
    }

    fn from_segment(listing: Listing, segment: usize) -> Self {
        let (buffer, place) = (vec![0; WINDOW].into_boxed_slice(), SEGMENT_HEADER_LEN);
        Self { listing, segment, file: None, place, index: 0, buffer, window_len: 0, window_at: 0, gap: None }
    }

    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The segment that is being read.
    pub fn segment(&self) -> Option<&SegmentFile> {
        self.listing.segments.get(self.segment)
    }

    /// The next entry. One that a gateway is writing at this moment is not there yet.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn step(&mut self) -> Result<Step<'_>, JournalError> {
        loop {
            if let Some((path, missing)) = self.gap.take() {
                return Ok(Step::Gap { path, missing });
            }
            let Some(segment) = self.listing.segments.get(self.segment) else { return Ok(Step::End) };
            let (path, base, is_sealed) = (segment.path.clone(), segment.base, segment.used.is_some());
            let limit = segment.used.unwrap_or(segment.len) as usize;
            if self.file.is_none() {
                match File::open(&path).map_err(JournalError::io(&path, "open")) {
                    Ok(file) => self.file = Some(file),
                    Err(error) if is_gone(&error) => {
                        self.next_segment();
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            let read = |error| JournalError::io(&path, "read")(error);
            if self.place < limit {
                match self.look(base).map_err(read)? {
                    Look::Entry { len } if self.place + len <= limit => {
                        let (at, index, from) = (self.place, self.index, self.place - self.window_at);
                        self.place += len;
                        self.index += 1;
                        let entry = Entry::decode(&self.buffer[from..from + len], base + at as u64);
                        let Some(entry) = entry else { unreachable!("it was decoded a moment ago") };
                        return Ok(Step::Entry(Box::new(Found { entry, base, index, at: at as u64 })));
                    }
                    Look::Entry { .. } => {
                        return Ok(self.bad(
                            path,
                            base,
                            format!("an entry that goes beyond their end at byte {limit}"),
                        ));
                    }
                    Look::Bad(why) => return Ok(self.bad(path, base, why)),
                    Look::Nothing if is_sealed => {
                        return Ok(self.bad(
                            path,
                            base,
                            format!("no entry, and the entries end at byte {limit}"),
                        ));
                    }
                    Look::Nothing => {}
                }
            }
            if !self.go_on()? {
                return Ok(Step::End);
            }
        }
    }

    fn bad(&self, path: PathBuf, base: u64, why: String) -> Step<'_> {
        Step::Bad { path, at: self.place as u64, offset: base + self.place as u64, why }
    }

    /// At the end of what a segment has: whether there is more now, in it or in the next one.
    fn go_on(&mut self) -> Result<bool, JournalError> {
        let segment = &self.listing.segments[self.segment];
        if segment.used.is_some() && self.segment + 1 < self.listing.segments.len() {
            self.next_segment();
            return Ok(true);
        }
        // It was the last one, as far as was known.
        let base = segment.base;
        self.listing.refresh()?;
        let Some(index) = self.listing.segments.iter().position(|segment| segment.base == base) else {
            // It left the journal while it was read.
            self.segment = self.listing.segments.partition_point(|segment| segment.base < base);
            self.begin();
            return Ok(self.segment < self.listing.segments.len());
        };
        self.segment = index;
        self.window_len = 0;
        let used = self.listing.segments[index].used.map(|used| used as usize);
        let has_next = index + 1 < self.listing.segments.len();
        let is_over = match used {
            Some(used) if used > self.place => return Ok(true),
            Some(_) => has_next,
            // There is a next one, and this one is not sealed: its gateway was killed between the two, or does it at this
            // moment. Nothing is appended to it any more.
            None => has_next && self.is_at_end(base)?,
        };
        if is_over {
            self.next_segment();
        }
        Ok(is_over)
    }

    fn is_at_end(&mut self, base: u64) -> Result<bool, JournalError> {
        let path = self.listing.segments[self.segment].path.clone();
        let look = self.look(base).map_err(JournalError::io(&path, "read"))?;
        Ok(matches!(look, Look::Nothing))
    }

    fn next_segment(&mut self) {
        if let [this, next, ..] = &self.listing.segments[self.segment..] {
            let missing = next.base.saturating_sub(this.end());
            self.gap = (missing > 0).then(|| (next.path.clone(), missing));
        }
        self.segment += 1;
        self.begin();
    }

    fn begin(&mut self) {
        (self.file, self.place, self.index) = (None, SEGMENT_HEADER_LEN, 0);
        (self.window_at, self.window_len) = (0, 0);
    }

    /// What stands at `self.place`; if it is an entry, all of it is in the window then.
    fn look(&mut self, base: u64) -> io::Result<Look> {
        // Twice: what looks bad may have been read while it was written.
        for is_last_try in [false, true] {
            let held = self.window_len.saturating_sub(self.place - self.window_at);
            if held < ENTRY_LEN_MAX || is_last_try {
                self.fill()?;
            }
            let look = self.judge(base);
            if is_last_try || matches!(look, Look::Entry { .. }) {
                return Ok(look);
            }
        }
        Ok(Look::Nothing)
    }

    fn judge(&self, base: u64) -> Look {
        let from = self.place - self.window_at;
        let rest = self.buffer.get(from..self.window_len).unwrap_or_default();
        if rest.first_chunk::<8>().is_none_or(|lead| *lead == [0; 8]) {
            return Look::Nothing;
        }
        let offset = base + self.place as u64;
        let Some(entry) = Entry::decode(rest, offset) else {
            return Look::Bad("an entry whose lengths, type or priority are impossible".to_owned());
        };
        let header = rest.first_chunk().map(EntryHeader::from_bytes).unwrap_or_default();
        let journal_id = self.segment().map_or(0, |segment| segment.journal_id);
        let computed = entry_crc(journal_id, offset, header.len, entry.body);
        if header.crc != computed {
            return Look::Bad(format!(
                "an entry with checksum {:#010x}, computed {computed:#010x}",
                header.crc
            ));
        }
        Look::Entry { len: entry.len() }
    }

    fn fill(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        (self.window_at, self.window_len) = (self.place, 0);
        let mut have = 0;
        while have < WINDOW {
            match file.read_at(&mut self.buffer[have..], (self.place + have) as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.window_len = have;
        Ok(())
    }
}

enum Look {
    Entry { len: usize },
    Nothing,
    Bad(String),
}
