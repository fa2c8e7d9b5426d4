//! The reading end of a ring: where the next record is, whether it is sound, and what was lost.

#![allow(unsafe_code)]

use super::bytes::SharedBytes;
use super::{Place, record_len_max};
use crate::layout::RingHeader;
use crate::record::{RECORD_ALIGN, RECORD_HEADER_LEN, RecordError, RecordHeader, TYPE_PADDING};
use crate::sync::{Ordering, fence};

/// A rule that a ring broke. Its producer never does that: the memory was damaged, or it is hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each number")]
pub enum RingFault {
    /// The committed position went backwards or further than the ring is long.
    #[error("committed position {position} with a cursor at {cursor} in a ring of {capacity} bytes")]
    Position { position: u64, cursor: u64, capacity: u64 },
    /// A record's length does not lie within what was committed.
    #[error("record of {len} bytes at position {at}, committed up to {position}")]
    Length { len: u32, at: u64, position: u64 },
    /// The record breaks a rule of records.
    #[error("record at position {at}: {error}")]
    Record { at: u64, error: RecordError },
    /// The producer went on over a record that was being read, although it had acknowledged the consumer.
    #[error("overtaken at position {at} while the record was read")]
    Overtaken { at: u64 },
    /// No landmark leads back to intact records.
    #[error("overtaken at position {at}, and no landmark leads on")]
    Lost { at: u64 },
    /// Nothing is wrong with the ring: this process is a forked child of the one that opened the consumer.
    #[error("this process is a forked child: the cursors belong to its parent; open another consumer")]
    Forked,
    /// The memory of the lane is gone.
    #[error(transparent)]
    Segment(#[from] crate::region::SegmentFault),
}

/// What is next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Nothing was committed behind the cursor.
    Empty,
    /// A record at the cursor, its header checked: [`RingReader::found`].
    Record,
    /// The cursor was overtaken and stands at the oldest intact record now.
    Overrun { lost: u64 },
}

/// A cursor over a ring that somebody else writes. The pointers stay valid as long as the mapping; the owner of both
/// sees to that.
pub(crate) struct RingReader {
    header: *const RingHeader,
    bytes: SharedBytes,
    capacity: u64,
    priority: u8,
    /// The next record.
    at: Place,
    /// `at.position % capacity`.
    offset: u64,
    /// The committed position as last seen.
    committed: u64,
    /// The header of the record at the cursor, if its length is not 0. It is kept here and lent from here: handed along by
    /// value through every layer it would be copied at each.
    found: RecordHeader,
}

impl RingReader {
    /// # Safety
    /// `header`, and `data` for `capacity` bytes, aligned to a page, are valid for reads as long as this lives.
    pub(crate) unsafe fn new(
        header: *const RingHeader,
        data: *const u8,
        capacity: u64,
        priority: u8,
        at: Place,
    ) -> Self {
        let bytes = SharedBytes::new(data);
        Self {
            header,
            bytes,
            capacity,
            priority,
            at,
            offset: at.position % capacity,
            committed: at.position,
            found: RecordHeader::from_words([0; RECORD_HEADER_LEN / 8]),
        }
    }

    pub(crate) fn header(&self) -> &RingHeader {
        // SAFETY: valid as long as `self`, by the contract of `new`; made of atomics.
        unsafe { &*self.header }
    }

    pub(crate) fn at(&self) -> Place {
        self.at
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The committed position now.
    #[inline]
    pub(crate) fn committed(&self) -> u64 {
        self.header().commit.position.load(Ordering::Acquire) // pairs with the Release in `RingWriter::commit`
    }

    /// Whether something was committed behind the cursor.
    #[inline]
    pub(crate) fn has_more(&self) -> bool {
        self.committed() != self.at.position
    }

    /// Goes to another place.
    pub(crate) fn seek(&mut self, at: Place) {
        self.at = at;
        self.offset = at.position % self.capacity;
        self.committed = at.position;
        self.forget();
    }

    /// The header of the record that `next_*` showed last.
    #[inline]
    pub(crate) fn found(&self) -> &RecordHeader {
        &self.found
    }

    /// As if nothing had been shown: [`Self::advance`] stays here.
    pub(crate) fn forget(&mut self) {
        self.found.record_len = 0;
    }

    /// Looks at the next record in place; the producer respects the cursor.
    #[inline]
    pub(crate) fn next_gated(&mut self) -> Result<Next, RingFault> {
        loop {
            if self.at.position == self.committed && !self.look()? {
                return Ok(Next::Empty);
            }
            match self.header_at(self.at.position, self.offset, self.committed)? {
                Some(header) => {
                    self.found = header;
                    return Ok(Next::Record);
                }
                None => self.skip_padding(),
            }
        }
    }

    /// Copies the next record, header and all, to `record`; the producer does not know the cursor and may overtake it.
    pub(crate) fn next_ungated(&mut self, record: &mut Vec<u8>) -> Result<Next, RingFault> {
        loop {
            let committed = self.committed();
            if self.at.position == committed {
                return Ok(Next::Empty);
            }
            if committed < self.at.position {
                return Err(self.impossible(committed));
            }
            if !self.intact(self.at.position) {
                match self.catch_up()? {
                    0 => continue, // the cursor stood before padding: nothing but that was overwritten
                    lost => return Ok(Next::Overrun { lost }),
                }
            }
            if committed - self.at.position > self.capacity {
                return Err(self.impossible(committed));
            }
            self.committed = committed;
            let header = self.header_at(self.at.position, self.offset, committed);
            if let Ok(Some(header)) = header {
                record.resize(header.record_len as usize, 0);
                // SAFETY: `header_at` checked that the record lies within the ring; offsets are multiples of 16.
                unsafe { self.bytes.copy_out(self.offset as usize, record) };
            }
            // Whatever was read, faults included, counts only if it was not overwritten meanwhile.
            if !self.intact(self.at.position) {
                match self.catch_up()? {
                    0 => continue, // the cursor stood before padding: nothing but that was overwritten
                    lost => return Ok(Next::Overrun { lost }),
                }
            }
            match header? {
                Some(header) => {
                    self.found = header;
                    return Ok(Next::Record);
                }
                None => self.skip_padding(),
            }
        }
    }

    /// Moves behind the record that `next_*` showed; stays if there was none since the cursor moved.
    #[inline]
    pub(crate) fn advance(&mut self) {
        let len = u64::from(std::mem::take(&mut self.found.record_len));
        if len == 0 {
            return;
        }
        self.at.position += len;
        self.at.ordinal = self.at.ordinal.wrapping_add(1); // it began as a claim of the lane's
        self.offset += len;
        if self.offset == self.capacity {
            self.offset = 0;
        }
    }

    /// The archive of the record at the cursor, in place.
    ///
    /// # Safety
    /// [`Self::next_gated`] just showed that record, the producer respects the cursor, and it is trusted not to rewrite
    /// what it has published.
    #[inline]
    pub(crate) unsafe fn archive<'a>(&self) -> &'a [u8] {
        let len = self.found.archive_len as usize;
        // SAFETY: `next_gated` checked that the record lies within the ring and that the archive lies within the
        // record; the rest is the caller's promise.
        unsafe { self.bytes.in_place(self.offset as usize + RECORD_HEADER_LEN, len) }
    }

    /// Copies the archive of the record at the cursor, which `next_gated` just showed.
    #[inline]
    pub(crate) fn copy_archive(&self, dst: &mut [u8]) {
        assert!(dst.len() == self.found.archive_len as usize, "room for the archive exactly");
        // SAFETY: `next_gated` checked that the record lies within the ring and the archive within the record, whose
        // length is a multiple of 16, so that whole words may be read.
        unsafe { self.bytes.copy_out(self.offset as usize + RECORD_HEADER_LEN, dst) };
    }

    /// Hands over the headers of unread records behind `from` (or behind the cursor, if it has come further), without
    /// moving the cursor. Returns where to go on. If the producer does not respect the cursor (`gated` false), it ends
    /// where the records are no longer intact.
    pub(crate) fn scan(
        &self,
        from: Place,
        gated: bool,
        mut f: impl FnMut(Place, &RecordHeader) -> std::ops::ControlFlow<()>,
    ) -> Result<Place, RingFault> {
        let mut at = if from.position < self.at.position { self.at } else { from };
        let committed = self.committed();
        if !gated && !self.intact(at.position) {
            return Ok(at);
        }
        if committed < at.position || committed - self.at.position > self.capacity {
            return Err(self.impossible(committed));
        }
        while at.position < committed {
            let offset = at.position % self.capacity;
            let header = self.header_at(at.position, offset, committed);
            if !gated && !self.intact(at.position) {
                break;
            }
            match header? {
                Some(header) => {
                    if f(at, &header).is_break() {
                        break;
                    }
                    at = Place {
                        position: at.position + u64::from(header.record_len),
                        ordinal: at.ordinal.wrapping_add(1),
                    };
                }
                None => at.position += self.capacity - offset,
            }
        }
        Ok(at)
    }

    /// Whether nothing at or behind `position` has been overwritten, up to what was read before this call.
    #[inline]
    pub(crate) fn intact(&self, position: u64) -> bool {
        fence(Ordering::Acquire); // pairs with the Release fence in `RingWriter::make_room`
        // Relaxed: ordered behind the reads by the fence.
        let reserved = self.header().reservation.reserved.load(Ordering::Relaxed);
        position >= reserved.saturating_sub(self.capacity)
    }

    /// Loads the committed position anew; whether there is more.
    fn look(&mut self) -> Result<bool, RingFault> {
        let committed = self.committed();
        if committed < self.at.position || committed - self.at.position > self.capacity {
            return Err(self.impossible(committed));
        }
        self.committed = committed;
        Ok(committed != self.at.position)
    }

    #[cold]
    fn impossible(&self, position: u64) -> RingFault {
        RingFault::Position { position, cursor: self.at.position, capacity: self.capacity }
    }

    /// The header of the record there, each word loaded once and checked; `None`: padding up to the lap's end.
    #[inline]
    fn header_at(&self, at: u64, offset: u64, committed: u64) -> Result<Option<RecordHeader>, RingFault> {
        let left = self.capacity - offset;
        let words = if left >= RECORD_HEADER_LEN as u64 {
            // SAFETY: that many bytes are left of the ring.
            unsafe { self.bytes.load_words(offset as usize) }
        } else {
            // Too little for a record: padding, whose header has two words.
            // SAFETY: `offset < capacity` and both are multiples of 16.
            let [lengths, kind] = unsafe { self.bytes.load_words(offset as usize) };
            [lengths, kind, 0, 0, 0, 0]
        };
        let header = RecordHeader::from_words(words);
        let record_len = u64::from(header.record_len);
        let bad_len = || RingFault::Length { len: header.record_len, at, position: committed };
        if header.type_code == TYPE_PADDING {
            // A lap's padding and what follows it are committed together, so it never is all that is there.
            return if record_len == left && record_len < committed - at { Ok(None) } else { Err(bad_len()) };
        }
        if record_len > left
            || record_len > committed - at
            || record_len as usize > record_len_max(self.capacity as usize)
            || !record_len.is_multiple_of(RECORD_ALIGN as u64)
        {
            return Err(bad_len());
        }
        let wrong = |error| RingFault::Record { at, error };
        header.check().map_err(wrong)?;
        if header.priority != self.priority {
            return Err(wrong(RecordError::Priority(header.priority)));
        }
        Ok(Some(header))
    }

    fn skip_padding(&mut self) {
        self.at.position += self.capacity - self.offset;
        self.offset = 0;
    }

    /// Goes on at the oldest intact record; tells how many were passed over.
    #[cold]
    fn catch_up(&mut self) -> Result<u64, RingFault> {
        // Landmarks move while we look, and the oldest is the next to go: a few tries, then the newest part of the ring.
        for attempt in 0..64u64 {
            let slack = self.capacity * attempt / 128;
            let oldest = self.header().oldest(self.capacity.saturating_sub(slack));
            if let Some(place) = oldest.filter(|place| place.position > self.at.position)
                && self.intact(place.position)
            {
                let lost = place.ordinal.saturating_sub(self.at.ordinal);
                self.seek(place);
                return Ok(lost);
            }
        }
        Err(RingFault::Lost { at: self.at.position })
    }
}
