//! One segment file in memory: the only place where the journal touches mapped bytes.
//!
//! # Why a reader never sees bytes that change
//!
//! A segment's bytes before [`Segment::readable`] are never written again, except the header, which nobody is given a
//! reference to. Only the [`SegmentWriter`] moves that limit, it writes only behind it, and there is one writer for a
//! segment: it is made from the segment itself, not from a shared one. Other processes are kept out by the directory's
//! lock and its mode.
//!
//! # Why a full disk is an error and not a SIGBUS
//!
//! The file's space is allocated before it is mapped, and the file never shrinks.
//!
//! Unless somebody else truncates it, or the disk fails: then zeros stand in for its memory (`bellwire::guard_mappings`,
//! which the gateway's `main` calls), [`Segment::fault`] says so, and nothing more is published. A reader finds no entry
//! in zeros.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};

use bellwire::{Access, Guarded};
use memmap2::{Advice, MmapOptions, MmapRaw};

use super::error::JournalError;
use super::layout::*;

/// A segment that readers share.
pub(super) struct Segment {
    // Dropped before the mapping.
    guarded: Guarded,
    map: MmapRaw,
    file: File,
    path: PathBuf,
    base: u64,
    /// Bytes of the file before this are written once and for all.
    readable: AtomicUsize,
    /// Nothing will be appended any more.
    sealed: AtomicBool,
    /// When the last entry was journalled, ns; for retention by age.
    newest_at: AtomicI64,
}

/// A file with its space allocated, mapped, not yet a segment of the journal.
pub(super) struct Blank {
    map: MmapRaw,
    file: File,
    path: PathBuf,
}

/// Makes a new file of `len` bytes with all its space allocated, and maps it. A file of that name is an error: somebody may
/// have it mapped.
///
/// On failure nothing stays behind: an allocation that fails leaves the file grown, and that room belongs to others.
pub(super) fn allocate(path: &Path, len: u64) -> Result<Blank, JournalError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(JournalError::io(path, "create"))?;
    let made = reserve_space(&file, len)
        .map_err(JournalError::io(path, "allocate the segment's space"))
        .and_then(|()| map(&file, path, len));
    match made {
        Ok(map) => Ok(Blank { map, file, path: path.to_owned() }),
        Err(error) => {
            let _ = std::fs::remove_file(path); // the first error is the one to report
            Err(error)
        }
    }
}

fn reserve_space(file: &File, len: u64) -> io::Result<()> {
    let len = i64::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    loop {
        match nix::fcntl::posix_fallocate(file, 0, len) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map_err(io::Error::from),
        }
    }
}

fn map(file: &File, path: &Path, len: u64) -> Result<MmapRaw, JournalError> {
    let len = usize::try_from(len).map_err(|_| JournalError::Config {
        what: "segment length",
        found: len,
        min: 0,
        max: usize::MAX as u64,
    })?;
    MmapOptions::new().len(len).map_raw(file).map_err(JournalError::io(path, "map"))
}

impl Blank {
    pub(super) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the header, magic last, and gives the file its name: from here on it is the journal's last segment.
    pub(super) fn activate(
        self,
        header: SegmentHeader,
        generation: u32,
        fresh_from: u64,
        name: &Path,
    ) -> Result<SegmentWriter, JournalError> {
        let segment = Segment::new(self.map, self.file, name, header.base);
        let mut writer = SegmentWriter { written: SEGMENT_HEADER_LEN, segment: Arc::new(segment) };
        writer.fill(0, &header.to_bytes());
        writer.segment.store_word(GENERATION_AT, generation_word(generation));
        writer.segment.store_word(FRESH_AT, fresh_from);
        writer.segment.store_word(0, MAGIC);
        if let Err(error) = std::fs::rename(&self.path, name) {
            let _ = std::fs::remove_file(&self.path); // the first error is the one to report
            return Err(JournalError::io(name, "name the segment")(error));
        }
        Ok(writer)
    }
}

impl Segment {
    fn new(map: MmapRaw, file: File, path: &Path, base: u64) -> Self {
        // SAFETY: the mapping is kept as long as the guard. Zeros are no entry to readers; what a writer stores goes nowhere,
        // and before it is published the guard is asked.
        let guarded = unsafe { Guarded::new(map.as_ptr(), map.len(), Access::Write) };
        Self {
            guarded,
            map,
            file,
            path: path.to_owned(),
            base,
            readable: AtomicUsize::new(SEGMENT_HEADER_LEN),
            sealed: AtomicBool::new(false),
            newest_at: AtomicI64::new(i64::MIN),
        }
    }

    /// Maps an existing segment file whose length was checked against its header. Nothing of it is readable yet.
    pub(super) fn open(file: File, path: &Path, base: u64, len: u64) -> Result<Self, JournalError> {
        let map = map(&file, path, len)?;
        Ok(Self::new(map, file, path, base))
    }

    /// The whole file is about to be read.
    pub(super) fn will_be_read(&self) {
        let _ = self.map.advise(Advice::WillNeed); // only a hint
    }

    /// Allocates the space of a file that was truncated, with zeros.
    pub(super) fn restore_length(file: &File, path: &Path, len: u64) -> Result<(), JournalError> {
        reserve_space(file, len).map_err(JournalError::io(path, "allocate the segment's space"))
    }

    /// The whole file, while no writer exists: `&mut` says that nobody else has this segment.
    pub(super) fn contents(&mut self) -> &[u8] {
        // SAFETY: the mapping is `map.len()` bytes long and lives as long as `self`. Nobody writes meanwhile: a writer is
        // made from the segment by value, and it is borrowed here.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr(), self.map.len()) }
    }

    /// The bytes `at..at + len` of the file, if all of them are readable.
    #[inline]
    pub(super) fn bytes(&self, at: usize, len: usize) -> Option<&[u8]> {
        let end = at.checked_add(len)?;
        if at < SEGMENT_HEADER_LEN || end > self.readable() {
            return None;
        }
        // SAFETY: `at < end <= readable <= map.len()` (checked above; `SegmentWriter` keeps the last), so it lies in the
        // mapping.
        let start = unsafe { self.map.as_ptr().add(at) };
        // SAFETY: these bytes lie in the mapping (above) before `readable`, where nobody writes any more, and the Acquire in
        // `readable` makes them visible as they were written. The mapping lives as long as `self`.
        Some(unsafe { std::slice::from_raw_parts(start, len) })
    }

    /// Place in the file up to which entries may be read, and whether that is final, because nothing will be appended any
    /// more.
    ///
    /// The seal is looked at first. The other way round, entries could be appended and the segment sealed between the two
    /// looks, and whoever stood at the old place would take it for the end and pass over them.
    #[inline]
    pub(super) fn extent(&self) -> (usize, bool) {
        let is_final = self.sealed.load(Ordering::Acquire); // pairs with the Release in `seal`: `readable` is final
        (self.readable(), is_final)
    }

    #[inline]
    fn readable(&self) -> usize {
        self.readable.load(Ordering::Acquire) // pairs with the Release in `SegmentWriter::publish`
    }

    pub(super) fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Where the next segment's file begins.
    pub(super) fn end(&self) -> u64 {
        self.base + self.len()
    }

    /// Offset of the first entry.
    pub(super) fn first_entry(&self) -> u64 {
        self.base + SEGMENT_HEADER_LEN as u64
    }

    #[inline]
    pub(super) fn contains(&self, offset: u64) -> bool {
        offset >= self.base && offset - self.base < self.len()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// When it was begun, ns since the Unix epoch.
    pub(super) fn created_at(&self) -> i64 {
        self.header_word(CREATED_AT).load(Ordering::Relaxed) as i64 // never changes once the segment has its name
    }

    pub(super) fn newest_at(&self) -> i64 {
        self.newest_at.load(Ordering::Relaxed) // written by the thread that asks
    }

    pub(super) fn set_newest_at(&self, at: i64) {
        self.newest_at.store(at, Ordering::Relaxed); // see `newest_at`
    }

    /// Stores one of the header's words.
    pub(super) fn store_word(&self, at: usize, value: u64) {
        self.header_word(at).store(value, Ordering::Release); // only a later process reads it: whatever was written before comes first
    }

    /// Sets a word to zero; whether it was anything else.
    pub(super) fn clear_word(&self, at: usize) -> bool {
        self.header_word(at).swap(0, Ordering::AcqRel) != 0 // one process has the journal: ordered by its program alone
    }

    fn header_word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= SEGMENT_HEADER_LEN, "no word of the header at {at}");
        // SAFETY: `at + 8 <= SEGMENT_HEADER_LEN <= map.len()` (asserted above; segments are longer than their header).
        let word = unsafe { self.map.as_mut_ptr().add(at) };
        // SAFETY: it lies in the mapping (above), is aligned (the mapping to a page, `at` to 8), and lives as long as `self`.
        // No `&[u8]` covers it while it is written: `bytes` begins behind the header, `contents` borrows mutably.
        unsafe { AtomicU64::from_ptr(word.cast()) }
    }

    /// An error if the memory is gone, as far as is known. Next to nothing as long as it is not.
    #[inline]
    pub(super) fn fault(&self) -> Result<(), JournalError> {
        match self.guarded.fault(&self.file) {
            None => Ok(()),
            Some(fault) => Err(JournalError::Gone { path: self.path.clone(), fault }),
        }
    }

    /// The same, found by looking at the file.
    pub(super) fn look(&self) -> Result<(), JournalError> {
        match self.guarded.look(&self.file) {
            None => Ok(()),
            Some(fault) => Err(JournalError::Gone { path: self.path.clone(), fault }),
        }
    }

    /// Writes to disk all that was written so far.
    pub(super) fn sync(&self) -> Result<(), JournalError> {
        self.file.sync_data().map_err(JournalError::io(&self.path, "sync"))
    }

    /// Nothing will be appended any more; `readable` is final.
    fn seal(&self) {
        self.store_word(USED_AT, self.readable() as u64);
        self.sealed.store(true, Ordering::Release); // pairs with the Acquire in `extent`
    }

    /// A sealed segment of an earlier process, read up to `used`.
    pub(super) fn into_sealed(self, used: usize) -> Arc<Self> {
        assert!(used as u64 <= self.len(), "more used than there is");
        self.readable.store(used, Ordering::Release); // pairs with the Acquire in `readable`
        self.seal();
        Arc::new(self)
    }

    /// The last segment of an earlier process, to go on at `used`.
    pub(super) fn into_writer(self, used: usize) -> SegmentWriter {
        assert!(used as u64 <= self.len(), "more used than there is");
        self.readable.store(used, Ordering::Release); // pairs with the Acquire in `readable`
        SegmentWriter { segment: Arc::new(self), written: used }
    }
}

/// The one who appends to a segment.
pub(super) struct SegmentWriter {
    segment: Arc<Segment>,
    /// Place in the file of the next entry; what lies between `readable` and this is not published yet.
    written: usize,
}

impl SegmentWriter {
    pub(super) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Offset of the next entry.
    pub(super) fn offset(&self) -> u64 {
        self.segment.base + self.written as u64
    }

    /// Bytes that are left.
    pub(super) fn room(&self) -> usize {
        self.segment.map.len() - self.written
    }

    /// The next `len` free bytes, which hold anything; `None` if there are not so many.
    #[inline]
    pub(super) fn free(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.room() {
            return None;
        }
        // SAFETY: `written + len <= map.len()` (checked above).
        let start = unsafe { self.segment.map.as_mut_ptr().add(self.written) };
        // SAFETY: it lies in the mapping (above) behind `readable` (`written` is never before it), so no reader has a
        // reference to it; and this borrow of the only writer keeps it the only reference.
        Some(unsafe { std::slice::from_raw_parts_mut(start, len) })
    }

    /// Takes `len` bytes of the free room as written.
    #[inline]
    pub(super) fn advance(&mut self, len: usize) {
        assert!(len <= self.room() && len.is_multiple_of(ENTRY_ALIGN), "entry of {len} bytes");
        self.written += len;
    }

    /// Makes all that was written readable.
    #[inline]
    pub(super) fn publish(&self) {
        self.segment.readable.store(self.written, Ordering::Release); // pairs with the Acquire in `Segment::readable`
    }

    /// Publishes and closes the segment.
    pub(super) fn seal(&self) {
        self.publish();
        self.segment.seal();
    }

    /// Clears the rest of the file.
    pub(super) fn clear_rest(&mut self) {
        let room = self.room();
        if let Some(rest) = self.free(room) {
            rest.fill(0);
        }
    }

    /// Writes into the header, before anybody else knows of the segment.
    fn fill(&mut self, at: usize, bytes: &[u8; SEGMENT_HEADER_LEN]) {
        for (index, word) in bytes.as_chunks::<8>().0.iter().enumerate() {
            self.segment.store_word(at + index * 8, u64::from_le_bytes(*word));
        }
    }
}
