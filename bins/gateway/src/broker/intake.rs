//! What happens to one record: copied into the journal's free bytes, checked there, told from duplicates, numbered,
//! appended.
//!
//! In that order, and the ring's cursor moves only after the journal's end: a crash between any two steps repeats work,
//! and the repeat is recognised. By its lane sequence, exactly: what was journalled of one ring of a lane has growing
//! sequences, so whatever is not beyond the highest one was dealt with. And by its message id, within the window.

use bellwire::{Channel, LaneFault, RecordError, RecordHeader};

use super::dedup::Dedup;
use super::source::Unread;
use super::streams::Streams;
use bellwire_journal::{Facts, Journal, JournalError};

/// What became of a record.
#[derive(Debug)]
pub(super) enum Taken {
    /// It will be visible with the next publishing of the journal.
    Journalled,
    /// It was there already.
    Duplicate,
    /// It is not a record that a producer of this build writes.
    Rejected(RecordError),
    /// The lane broke its promise while the record was copied.
    Fault(LaneFault),
}

/// Everything that the records go through.
pub(super) struct Intake {
    pub(super) journal: Journal,
    pub(super) streams: Streams,
    pub(super) dedup: Dedup,
    /// The time of the records that are being taken, ns since the Unix epoch.
    pub(super) now: i64,
}

impl Intake {
    /// Takes one record in. `lane_key` is its lane's, `highest` the highest lane sequence that was journalled of its ring.
    ///
    /// # Errors
    /// The journal has no room: the record is to stay where it is.
    #[inline]
    pub(super) fn take(
        &mut self,
        unread: &impl Unread,
        lane_key: u64,
        highest: &mut u64,
    ) -> Result<Taken, JournalError> {
        let header: RecordHeader = *unread.header();
        if header.lane_sequence <= *highest {
            return Ok(Taken::Duplicate);
        }
        // The lengths are taken from our copy of the header alone, which the reader has checked; this is the last line.
        if let Err(error) = header.check() {
            return Ok(Taken::Rejected(error));
        }
        let room = self.journal.room(header.archive_len as usize, self.now)?;
        if let Err(fault) = unread.copy_archive(room.archive) {
            return Ok(Taken::Fault(fault));
        }
        let view = match header.view(room.archive) {
            Ok(view) => view,
            Err(error) => return Ok(Taken::Rejected(error)),
        };
        // They are for engines, on a bus of their own: a producer that publishes them here has the wrong bus.
        if view.message_type().channel() == Channel::Session {
            return Ok(Taken::Rejected(RecordError::Type(header.type_code)));
        }
        if self.dedup.contains(header.message_id) {
            return Ok(Taken::Duplicate);
        }
        let placed = self.streams.place(&view, room.offset);
        let facts = Facts {
            seq: placed.seq,
            prev: placed.prev,
            epoch: placed.epoch,
            slot: placed.slot,
            lane: lane_key,
            journalled_at: self.now,
        };
        self.journal.append(&header, &facts);
        // Not before: an id that is remembered must be in the journal.
        self.dedup.remember(header.message_id);
        *highest = header.lane_sequence;
        Ok(Taken::Journalled)
    }
}
