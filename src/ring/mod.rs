//! One ring: a single writer, any number of readers, records of variable length.
//!
//! Positions are counts of bytes since the ring was made; they only grow. Position `p` stands at offset
//! `p % capacity`. A record is contiguous: what is left of a lap that is too short for the next record is *padding*.
//!
//! ```text
//!              reserved - capacity      slowest cursor         position   reserved
//!   overwritten  |   retained, read         |   unread             |  being   |
//!   or about to  |   (taps, latecomers)     |                      |  written |
//! ---------------+--------------------------+----------------------+----------+-------->
//! ```
//!
//! # Why a torn record is never returned
//!
//! *Committed:* a record's bytes are written before the one store of `position` that makes it visible (Release), and
//! read after the load that shows it (Acquire). A writer killed before that store has shown nothing; its successor
//! writes over it.
//!
//! *Gated* reading in place: the writer never passes `slowest cursor + capacity`, and the cursor stands at or before the
//! record while somebody looks at it.
//!
//! *Ungated* reading (taps, and consumers that the producer has not acknowledged yet): before the writer touches bytes up
//! to `reserved`, it stores `reserved`, then a Release fence. The reader copies the bytes out, then an Acquire fence,
//! then loads `reserved`. If any byte of the copy came from after the store, so does that load (fence to fence), and
//! `position < reserved - capacity` shows that the record was overtaken: the copy is thrown away.
//!
//! `scripts/proofs/loom` runs these files in models (`src/loom/models`): gated readers, in place and copying, and taps that
//! are lapped or open while the ring wraps, beside a writer of single records and batches. Each ordering here, weakened, makes
//! one of them fail. The handshake by which a reader becomes gated (`Ack`) is not in them.
//!
//! # Landmarks
//!
//! Records cannot be found from the middle of a ring, so the writer keeps, for each 64th of it, the place of the first
//! record that begins there and how many records come before. Who was overtaken goes on at the oldest landmark that is
//! intact and knows exactly how many records he lost; who adopts a lane finds the last record from the newest.
//!
//! The *anchor*, the newest landmark before the committed position, stays intact whatever is being written: no record
//! or batch reaches into its stretch of the next lap, where it would overwrite the record or take the landmark's entry.
//! So there is always a place to go on from, also after the writer was killed in the middle of a batch. A record takes
//! at most a quarter of the ring, so that this never keeps a record out of a ring that has been read: padding, record,
//! last record and two stretches are less than the whole.

#[cfg(not(bellwire_loom))]
mod bytes;
pub(crate) mod reader;
#[cfg(all(test, not(bellwire_loom)))]
mod stress;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(all(test, not(bellwire_loom)))]
mod tests;
pub(crate) mod writer;

use crate::layout::{LANDMARKS, RingHeader};
#[cfg(bellwire_loom)]
use crate::loom::bytes;
use crate::sync::Ordering;

/// A writer takes over no ring that is further than this, nor a lane whose sequence is: what lies between it and the end of
/// the numbers is more than any process writes, so nothing that counts ever wraps. At 10 GB a second a ring gets here
/// after fourteen years; its lane is then to be made anew.
pub(crate) const COUNT_MAX: u64 = 1 << 62;

/// Where a record begins, and how many records of the ring come before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) ordinal: u64,
}

impl RingHeader {
    /// The landmarks between two positions, the second one included, in no order.
    fn places(&self, from: u64, to: u64) -> impl Iterator<Item = Place> {
        let set = self.landmarks.iter().filter_map(|landmark| landmark.get());
        set.map(|(position, ordinal)| Place { position, ordinal })
            .filter(move |place| (from..=to).contains(&place.position))
    }

    /// The oldest place from which records are retained.
    pub(crate) fn oldest(&self, capacity: u64) -> Option<Place> {
        let position = self.commit.position.load(Ordering::Acquire); // pairs with the writer's commit: landmarks before it are set
        let reserved = self.reservation.reserved.load(Ordering::Relaxed); // a hint: whoever reads on checks it again
        self.places(reserved.saturating_sub(capacity), position).min_by_key(|place| place.position)
    }

    /// The newest landmark before `position`, from which records are retained up to there.
    pub(crate) fn newest_before(&self, position: u64, capacity: u64) -> Option<Place> {
        let oldest = position.saturating_sub(capacity);
        self.places(oldest, position.saturating_sub(1)).max_by_key(|place| place.position)
    }
}

/// Length of the stretch that has one landmark.
const fn stride(capacity: usize) -> u64 {
    (capacity / LANDMARKS) as u64
}

/// Longest record that a ring takes: one that fits, padding and all, whenever everything has been read.
pub(crate) const fn record_len_max(capacity: usize) -> usize {
    let quarter = capacity / 4;
    if quarter < crate::record::RECORD_LEN_MAX { quarter } else { crate::record::RECORD_LEN_MAX }
}
