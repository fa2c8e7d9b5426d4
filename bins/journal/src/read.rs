//! Reading the journal in place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwire::{NotificationView, RECORD_HEADER_LEN, RecordHeader};
use crossbeam_utils::CachePadded;

use super::error::JournalError;
use super::layout::{
    ENTRY_ALIGN, ENTRY_HEADER_LEN, ENTRY_LEN_MAX, EntryHeader, SEGMENT_HEADER_LEN, entry_crc,
};
use super::segment::Segment;

/// What the appending thread and the readers share.
pub(super) struct Shared {
    pub(super) journal_id: u64,
    /// Everything before this may be read.
    end: CachePadded<AtomicU64>,
    /// The oldest entry that is kept.
    start: AtomicU64,
    /// Oldest first, never empty; bounded by the retention. Locked for a few instructions, by readers only when they cross
    /// from one segment into another.
    segments: Mutex<VecDeque<Arc<Segment>>>,
    /// The next segment could not be allocated ahead: the disk will be full soon.
    pub(super) tight: AtomicBool,
    /// What the housekeeper found damaged, until somebody asks.
    damage: Mutex<Option<JournalError>>,
}

impl Shared {
    pub(super) fn new(journal_id: u64, segments: VecDeque<Arc<Segment>>, end: u64) -> Self {
        let start = segments.front().map_or(end, |oldest| oldest.first_entry());
        Self {
            journal_id,
            end: CachePadded::new(AtomicU64::new(end)),
            start: AtomicU64::new(start),
            segments: Mutex::new(segments),
            tight: AtomicBool::new(false),
            damage: Mutex::default(),
        }
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner) // a reader's panic leaves the list whole
    }

    pub(super) fn set_damage(&self, error: JournalError) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(error); // an option is always whole
    }

    pub(super) fn take_damage(&self) -> Option<JournalError> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner).take() // as above
    }

    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire) // pairs with the Release in `publish`
    }

    #[inline]
    pub(super) fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire) // pairs with the Release in `retire_before`
    }

    pub(super) fn publish(&self, end: u64) {
        self.end.store(end, Ordering::Release); // pairs with the Acquire in `end`
    }

    pub(super) fn retire_before(&self, start: u64) {
        self.start.store(start, Ordering::Release); // pairs with the Acquire in `start`
    }

    fn find(&self, offset: u64) -> Option<Arc<Segment>> {
        let segments = self.segments();
        let index = segments.partition_point(|segment| segment.end() <= offset);
        segments.get(index).filter(|segment| segment.contains(offset)).cloned()
    }
}

/// Reads entries in place. Cheap to clone; one for each thread.
///
/// It keeps the segment of its last entry mapped, even when retention has deleted the file, and takes a lock only to find
/// another one.
#[derive(Clone)]
pub struct JournalReader {
    shared: Arc<Shared>,
    segment: Option<Arc<Segment>>,
}

impl JournalReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, segment: None }
    }

    /// Everything before this offset may be read.
    #[inline]
    pub fn end(&self) -> u64 {
        self.shared.end()
    }

    /// Offset of the oldest entry that is kept.
    #[inline]
    pub fn start(&self) -> u64 {
        self.shared.start()
    }

    /// The entry at that offset; at the end of a segment, the first of the next one.
    ///
    /// `None` if it left the journal (before [`start`](Self::start)), is not published yet (at or behind
    /// [`end`](Self::end)), or no entry begins there.
    #[inline]
    pub fn entry(&mut self, offset: u64) -> Option<Entry<'_>> {
        let end = self.shared.end();
        if offset < self.shared.start() || offset >= end {
            return None;
        }
        let at = self.locate(offset).filter(|at| *at < end)?;
        let segment = self.segment.as_ref()?;
        let place = (at - segment.base()) as usize;
        let (readable, is_final) = segment.extent();
        let mut entry = Entry::decode(segment.bytes(place, readable.checked_sub(place)?)?, at)?;
        // Also if it is not final yet: behind the last byte of the file nothing of this segment can stand.
        if entry.next == segment.end() || (place + entry.len() == readable && is_final) {
            entry.next = segment.end() + SEGMENT_HEADER_LEN as u64;
        }
        Some(entry)
    }

    /// Base of the segment in which the entry at that offset stands; `None` as with [`entry`](Self::entry).
    pub(super) fn segment_of(&mut self, offset: u64) -> Option<u64> {
        let end = self.shared.end();
        if offset < self.shared.start() || offset >= end {
            return None;
        }
        self.locate(offset).filter(|at| *at < end)?;
        self.segment.as_ref().map(|segment| segment.base())
    }

    /// Makes `self.segment` the one in which the entry at `offset` stands, and tells the entry's true offset.
    #[inline]
    fn locate(&mut self, offset: u64) -> Option<u64> {
        let mut at = offset;
        // Twice: in the segment of `offset`, and if its entries end there, in the next one.
        for _ in 0..2 {
            if !self.segment.as_ref().is_some_and(|segment| segment.contains(at)) {
                self.segment = self.shared.find(at);
            }
            let segment = self.segment.as_ref()?;
            // The end of a segment that is full to the last byte is where the next one begins, with its header.
            at = if at == segment.base() { segment.first_entry() } else { at };
            let place = (at - segment.base()) as usize;
            let (readable, is_final) = segment.extent();
            if !is_final || place < readable {
                return Some(at);
            }
            at = segment.end() + SEGMENT_HEADER_LEN as u64;
        }
        None
    }
}

/// One entry, in place.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it stands.
    pub offset: u64,
    /// Where the next one stands or will stand.
    pub next: u64,
    /// Its number in the user's stream, from 1.
    pub seq: u64,
    /// Offset of the same stream's previous entry; 0 if there was none.
    pub prev: u64,
    /// The stream's epoch.
    pub epoch: u32,
    /// Number of the stream in the broker's table.
    pub slot: u32,
    /// Key of the lane that it came through.
    pub lane: u64,
    /// When it was journalled, ns since the Unix epoch.
    pub journalled_at: i64,
    /// The record's header. Its numbers were checked.
    pub header: RecordHeader,
    /// The record's archive.
    pub archive: &'a [u8],
    /// The entry but for its length and its crc: what its link vouches for.
    pub body: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The notification. `None` only if the file was damaged after it was written.
    #[inline]
    pub fn view(&self) -> Option<NotificationView<'a>> {
        self.header.view(self.archive).ok()
    }

    /// Length of the entry in the file, in bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        ENTRY_HEADER_LEN + self.header.record_len as usize
    }

    /// The entry at the beginning of `bytes`, if it is whole, or what is wrong with it.
    pub(super) fn checked(bytes: &'a [u8], offset: u64, journal_id: u64) -> Result<Self, String> {
        let Some(entry) = Self::decode(bytes, offset) else {
            return Err("an entry whose lengths, type or priority are impossible".to_owned());
        };
        let header = bytes.first_chunk().map(EntryHeader::from_bytes).unwrap_or_default();
        let computed = entry_crc(journal_id, offset, header.len, entry.body);
        if header.crc != computed {
            return Err(format!("an entry with checksum {:#010x}, computed {computed:#010x}", header.crc));
        }
        Ok(entry)
    }

    /// The entry at the beginning of `bytes`, if its numbers fit together. The crc is not looked at.
    #[inline]
    pub(super) fn decode(bytes: &'a [u8], offset: u64) -> Option<Self> {
        let header = EntryHeader::from_bytes(bytes.first_chunk()?);
        let len = header.len as usize;
        if len > ENTRY_LEN_MAX || !len.is_multiple_of(ENTRY_ALIGN) {
            return None;
        }
        let record = bytes.get(ENTRY_HEADER_LEN..len)?;
        let record_header = RecordHeader::from_bytes(record.first_chunk()?);
        record_header.check().ok()?;
        if record_header.record_len as usize != record.len() {
            return None;
        }
        Some(Self {
            offset,
            next: offset + len as u64,
            seq: header.seq,
            prev: header.prev,
            epoch: header.epoch,
            slot: header.slot,
            lane: header.lane,
            journalled_at: header.journalled_at,
            header: record_header,
            body: bytes.get(8..len)?,
            archive: record.get(RECORD_HEADER_LEN..RECORD_HEADER_LEN + record_header.archive_len as usize)?,
        })
    }
}
