//! One record, as [`Reader::peek`](super::Reader::peek) shows it.

#![allow(unsafe_code)]

use super::LaneFault;
use crate::notification::NotificationView;
use crate::record::{RECORD_HEADER_LEN, RecordHeader};
use crate::region::foreign::ForeignSegment;
use crate::ring::reader::RingReader;

/// A record at a reader's cursor. Its header was loaded once and checked; the archive was not looked at yet.
pub struct Slot<'a> {
    ring: &'a RingReader,
    segment: &'a ForeignSegment,
    /// The whole record, if the producer does not respect our cursor yet and the record was copied therefore.
    copied: Option<&'a [u8]>,
}

impl<'a> Slot<'a> {
    pub(super) fn new(ring: &'a RingReader, segment: &'a ForeignSegment, copied: Option<&'a [u8]>) -> Self {
        Self { ring, segment, copied }
    }

    /// The header.
    #[inline]
    pub fn header(&self) -> &'a RecordHeader {
        self.ring.found()
    }

    /// Where the record begins in its ring.
    #[inline]
    pub fn position(&self) -> u64 {
        self.ring.at().position
    }

    /// Copies the archive out, each word loaded once. `dst` has exactly [`RecordHeader::archive_len`] bytes.
    ///
    /// The copy is complete and was never half-overwritten, but it says what the producer says: validate it with
    /// [`RecordHeader::view`].
    ///
    /// # Errors
    /// [`LaneFault::Overtaken`]: the producer overwrote the record meanwhile, against its promise.
    /// [`LaneFault::Segment`]: the lane's memory went meanwhile.
    ///
    /// # Panics
    /// If `dst` has another length.
    #[inline]
    pub fn copy_archive(&self, dst: &mut [u8]) -> Result<(), LaneFault> {
        match self.copied {
            Some(record) => dst.copy_from_slice(archive_of(record, self.header())),
            None => {
                self.ring.copy_archive(dst);
                if !self.ring.intact(self.position()) {
                    return Err(LaneFault::Overtaken { at: self.position() });
                }
                if let Some(fault) = self.segment.fault() {
                    return Err(fault.into());
                }
            }
        }
        Ok(())
    }

    /// The notification in place, validated. It trusts the producer not to rewrite what it has published.
    ///
    /// # Errors
    /// [`LaneFault::Record`]: it is not a record that a producer of this build writes. [`LaneFault::Segment`]: the lane's
    /// memory is gone.
    #[inline]
    pub fn view(&self) -> Result<NotificationView<'a>, LaneFault> {
        let view = self.header().view(self.archive());
        if let Some(fault) = self.segment.fault() {
            return Err(fault.into());
        }
        view.map_err(|error| LaneFault::Record { at: self.position(), error })
    }

    /// The archive in place, not looked at: for those who only pass it on. It trusts the producer as [`Self::view`] does.
    ///
    /// Of a lane whose memory is gone it is zeros from then on; the next look at the reader says so.
    #[inline]
    pub fn archive(&self) -> &'a [u8] {
        match self.copied {
            Some(record) => archive_of(record, self.header()),
            // SAFETY: the header is what the ring showed, the producer respects the cursor (else the record would have
            // been copied), the cursor does not move while `self` borrows the reader; trusting the producer is what
            // `view` is documented to do.
            None => unsafe { self.ring.archive() },
        }
    }
}

fn archive_of<'a>(record: &'a [u8], header: &RecordHeader) -> &'a [u8] {
    &record[RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.archive_len as usize]
}
