//! The writing end of a ring: reserve, write, commit.

#![allow(unsafe_code)]

use super::bytes::OwnBytes;
use super::{Place, stride};
use crate::layout::{LANDMARKS, RingHeader};
use crate::record::{RECORD_HEADER_LEN, RecordHeader, TYPE_AT, TYPE_PADDING};
use crate::sync::{Ordering, compiler_fence, fence};

/// Nobody gates: the writer may go on for ever.
pub(crate) const NOBODY: u64 = u64::MAX;

/// The one writer of a ring. The pointers stay valid as long as the segment they point into; the owner of both sees to
/// that.
pub(crate) struct RingWriter {
    header: *const RingHeader,
    bytes: OwnBytes,
    capacity: u64,
    /// Where the next record goes; ahead of the committed position within a batch.
    at: Place,
    /// `at.position % capacity`.
    offset: u64,
    /// Records that end here or before need no slow path: the least of the landmark's stretch, the lap and the gate.
    limit: u64,
    committed: Place,
    /// The newest landmark before the committed position: what stays intact while more is written.
    anchor: Place,
    /// The two landmarks that were set last, older first; they may lie ahead of what is committed.
    marked: [Place; 2],
    /// The same as of the last commit.
    marked_committed: [Place; 2],
    /// The slowest gating cursor as of the last look; [`NOBODY`] if there is none.
    slowest: u64,
}

/// No room: the record would overwrite what a gating consumer has not read, or (a batch as long as the ring) the anchor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoRoom {
    pub(crate) unread: u64,
}

impl RingWriter {
    /// Takes over the ring where the last writer's last commit left it.
    ///
    /// # Safety
    /// `header` and `data` (for `capacity` bytes, page-aligned) are valid as long as this lives, and nobody else writes
    /// to them. `committed` is the ring's committed position, where a record begins, and `anchor` the newest landmark
    /// before it.
    pub(crate) unsafe fn new(
        header: *const RingHeader,
        data: *mut u8,
        capacity: u64,
        committed: Place,
        anchor: Place,
    ) -> Self {
        let offset = committed.position % capacity;
        // SAFETY: valid by the contract; made of atomics.
        let ring = unsafe { &*header };
        // The last writer may have marked the place of the next record already.
        let is_marked = ring.places(committed.position, committed.position).next().is_some();
        let marked = [anchor, if is_marked { committed } else { anchor }];
        Self {
            header,
            bytes: OwnBytes::new(data),
            capacity,
            at: committed,
            offset,
            limit: 0,
            committed,
            anchor,
            marked,
            marked_committed: marked,
            slowest: NOBODY,
        }
    }

    fn header(&self) -> &RingHeader {
        // SAFETY: valid as long as `self`, by the contract of `new`; made of atomics.
        unsafe { &*self.header }
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn committed(&self) -> Place {
        self.committed
    }

    pub(crate) fn slowest(&self) -> u64 {
        self.slowest
    }

    /// Bytes that the slowest gating consumer has not read, as of the last look, and those not committed yet.
    pub(crate) fn unread(&self) -> u64 {
        self.at.position.saturating_sub(self.slowest.min(self.committed.position))
    }

    /// Tells where the slowest gating cursor stands now.
    pub(crate) fn set_slowest(&mut self, slowest: u64) {
        if slowest < self.slowest {
            // A consumer joined behind the others: what was thought to be free may not be.
            self.limit = 0;
        }
        self.slowest = slowest;
    }

    /// Nothing before this is intact.
    pub(crate) fn floor(&self) -> u64 {
        // Relaxed: written by ourselves.
        self.header().reservation.reserved.load(Ordering::Relaxed).saturating_sub(self.capacity)
    }

    /// Whether a record of that length goes at the current place without further ado.
    #[inline]
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.at.position + len as u64 <= self.limit
    }

    /// Makes room for a record of `len` bytes: pads the lap's end if need be, sets landmarks, extends the reservation.
    ///
    /// # Errors
    /// [`NoRoom`]: the slowest gating cursor, as last told, does not allow it. Nothing has changed.
    pub(crate) fn make_room(&mut self, len: usize) -> Result<(), NoRoom> {
        let len = len as u64;
        let left = self.capacity - self.offset;
        let padding = if left < len { left } else { 0 };
        let start = self.at.position + padding;
        let end = start + len;
        let stride = stride(self.capacity as usize);
        // Neither the anchor's record nor its landmark: a place in the same stretch a lap later would take its entry.
        let anchor_gate =
            self.anchor.position / stride * stride + self.capacity - crate::record::RECORD_ALIGN as u64;
        let gate = self.slowest.saturating_add(self.capacity).min(anchor_gate);
        if end > gate {
            return Err(NoRoom { unread: self.unread() });
        }
        // One that ends at the very end of its stretch takes this path too: the next one begins the next stretch.
        let limit = ((end / stride + 1) * stride - crate::record::RECORD_ALIGN as u64).min(gate);
        // Announce before writing: see the proof in the module's head.
        let reserved = &self.header().reservation.reserved;
        // Relaxed: written by ourselves; a rolled-back batch may have reserved further already.
        if reserved.load(Ordering::Relaxed) < limit {
            reserved.store(limit, Ordering::Relaxed); // ordered before the record's bytes by the fence
        }
        fence(Ordering::Release); // pairs with the Acquire fence of an ungated reader
        if padding > 0 {
            self.pad(padding);
        }
        // The next record's place is known already; readers believe it once `position` has come there.
        debug_assert_eq!(self.at.position, start);
        self.mark(end, self.at.ordinal + 1);
        self.limit = limit;
        Ok(())
    }

    /// Fills the lap's end and moves to the next lap's beginning.
    fn pad(&mut self, len: u64) {
        let header = RecordHeader::padding(len as u32).to_bytes();
        let len_written = header.len().min(len as usize);
        let write = |room: &mut [u8]| room.copy_from_slice(&header[..len_written]);
        // SAFETY: `offset + len == capacity`, and `make_room` reserved these bytes; a shorter padding than a header gets
        // the header's beginning, which is all that anybody reads of it.
        unsafe { self.bytes.write(self.offset as usize, len_written, write) };
        let next = self.at.position + len;
        self.mark(next, self.at.ordinal);
        self.at.position = next;
        self.offset = 0;
    }

    /// Sets the landmark of every stretch that begins behind the current place and up to `position`, where the next
    /// record will begin.
    fn mark(&mut self, position: u64, ordinal: u64) {
        let stride = stride(self.capacity as usize);
        let stretches = self.at.position / stride + 1..=position / stride;
        if !stretches.is_empty() {
            self.marked = [self.marked[1], Place { position, ordinal }];
        }
        for stretch in stretches {
            self.header().landmarks[(stretch % LANDMARKS as u64) as usize].set(position, ordinal);
        }
    }

    /// Writes a record at the current place and moves behind it. Nobody sees it before [`Self::commit`].
    ///
    /// `write_archive` gets exactly the archive's bytes, aligned to 16.
    ///
    /// The caller has made sure with [`Self::fits`] or [`Self::make_room`] that `header.record_len` fits.
    #[inline]
    pub(crate) fn write<E>(
        &mut self,
        header: &RecordHeader,
        write_archive: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let len = header.record_len as usize;
        debug_assert!(self.fits(len) && self.offset + len as u64 <= self.capacity);
        let write = |record: &mut [u8]| {
            // The last words first: what the archive does not cover of them stays zero.
            if let Some(last) = record.last_chunk_mut::<16>() {
                *last = [0; 16];
            }
            record[..RECORD_HEADER_LEN].copy_from_slice(&header.to_bytes());
            write_archive(&mut record[RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.archive_len as usize])
        };
        // SAFETY: `fits` says that `len` bytes from `offset` lie within the lap and within the reservation: no gated
        // reader looks at them, and ungated ones read by atomics and discard what they got. The segment outlives us.
        unsafe { self.bytes.write(self.offset as usize, len, write) }?;
        self.at.position += len as u64;
        self.at.ordinal += 1;
        self.offset += len as u64;
        if self.offset == self.capacity {
            self.offset = 0;
        }
        Ok(())
    }

    /// Shows everything written so far.
    #[inline]
    pub(crate) fn commit(&mut self) {
        self.committed = self.at;
        // The last landmark may be the place of the next record; then the one before it is the newest with a record.
        let newest = usize::from(self.marked[1].position < self.at.position);
        self.anchor = self.marked[newest];
        self.marked_committed = self.marked;
        self.show(self.at);
    }

    /// The commit point.
    #[inline]
    fn show(&self, place: Place) {
        let commit = &self.header().commit;
        commit.records.store(place.ordinal, Ordering::Relaxed); // a statistic; exact counts come from landmarks
        commit.position.store(place.position, Ordering::Release); // pairs with the Acquire of every reader
        // The parked words are looked at after this store: see `doorbell`.
        compiler_fence(Ordering::SeqCst);
    }

    /// Lane sequence of the first record that is written and not shown yet.
    pub(crate) fn next_sequence(&self) -> Option<u64> {
        self.is_ahead().then(|| self.at_hidden(self.skip_padding(self.committed)).lane_sequence)
    }

    /// Shows the records whose lane sequence is less than `until`. The last of them is shown by [`Self::commit`].
    pub(crate) fn show_until(&mut self, until: u64) {
        let mut place = self.committed;
        // Not `!=`: if the memory is gone (see `region::guard`), the zeros in its place lead past the end.
        while place.position < self.at.position {
            let start = self.skip_padding(place);
            let header = self.at_hidden(start);
            if header.lane_sequence >= until {
                break;
            }
            place =
                Place { position: start.position + u64::from(header.record_len), ordinal: start.ordinal + 1 };
        }
        if place.position >= self.at.position {
            return self.commit();
        }
        // The anchor stays: nothing more is written before the rest is shown.
        self.committed = place;
        self.show(place);
    }

    /// The header of a record that was written and not shown yet.
    fn at_hidden(&self, place: Place) -> RecordHeader {
        // SAFETY: between `committed` and `at` records stand that this writer wrote whole.
        let bytes = unsafe { self.bytes.read((place.position % self.capacity) as usize) };
        RecordHeader::from_bytes(&bytes)
    }

    /// The place of the next record: this one, or the next lap's beginning if padding stands here.
    fn skip_padding(&self, place: Place) -> Place {
        let offset = place.position % self.capacity;
        // SAFETY: at least the sixteen bytes of a padding's header stand here, written by this writer.
        let [kind] = unsafe { self.bytes.read(offset as usize + TYPE_AT) };
        if kind == TYPE_PADDING {
            Place { position: place.position + self.capacity - offset, ..place }
        } else {
            place
        }
    }

    /// Whether something was written since the last commit.
    #[inline]
    pub(crate) fn is_ahead(&self) -> bool {
        self.at != self.committed
    }

    /// Forgets everything written since the last commit.
    pub(crate) fn roll_back(&mut self) {
        self.at = self.committed;
        self.offset = self.at.position % self.capacity;
        // Landmarks were set for places that are none now; the slow path sets them anew before a commit passes them.
        self.marked = self.marked_committed;
        self.limit = 0;
    }

    /// Counts a refusal.
    #[cold]
    pub(crate) fn count_refusal(&self) {
        let refused = &self.header().reservation.refused;
        // Relaxed: a statistic with one writer.
        refused.store(refused.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Notes how full the ring is.
    pub(crate) fn note_high_water(&self) {
        let high_water = &self.header().reservation.high_water;
        // Relaxed: a statistic with one writer.
        if self.unread() > high_water.load(Ordering::Relaxed) {
            high_water.store(self.unread(), Ordering::Relaxed);
        }
    }
}

impl RecordHeader {
    /// The first sixteen bytes of a lap's padding.
    pub(super) fn padding(len: u32) -> Self {
        Self {
            record_len: len,
            archive_len: 0,
            type_code: TYPE_PADDING,
            priority: 0,
            flags: 0,
            user_hash: crate::notification::UserHash(0),
            lane_sequence: 0,
            timestamp: 0,
            message_id: crate::notification::MessageId::from_bytes([0; 16]),
        }
    }
}
