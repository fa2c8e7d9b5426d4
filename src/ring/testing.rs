//! A lane in the memory of a test, a writer and readers of its first ring, and records that show if they are torn.

#![allow(unsafe_code)]
#![cfg_attr(not(bellwire_loom), allow(dead_code, reason = "the models use more of it than the threads"))]

use std::sync::Arc;

use crate::layout::{Cursor, LaneHeader, init_lane};
use crate::notification::{MessageId, UserHash};
use crate::record::{RECORD_HEADER_LEN, RecordHeader, record_len};
use crate::ring::Place;
use crate::ring::reader::{Next, RingReader};
use crate::ring::writer::{NoRoom, RingWriter};

/// Length of the archive of the shortest record that is used, and of that record.
pub(crate) const ARCHIVE: usize = 16;
pub(crate) const RECORD: usize = record_len(ARCHIVE);

/// A lane whose first ring is in use.
pub(crate) struct LaneMemory {
    pub(crate) header: Box<LaneHeader>,
    data: *mut u8,
    capacity: usize,
}

// SAFETY: the pointer leads to memory that is made to be shared by one writer and readers.
unsafe impl Send for LaneMemory {}
// SAFETY: likewise.
unsafe impl Sync for LaneMemory {}

impl LaneMemory {
    /// An empty lane; a model sees the ring's bytes in pieces of `grain`.
    pub(crate) fn new(capacity: usize, grain: usize) -> Arc<Self> {
        let (header, data) = ground(capacity, grain);
        init_lane(&header, "lane", [capacity; 4], 1, 0);
        Arc::new(Self { header, data, capacity })
    }

    /// Writes over the ring's bytes, as only a hostile producer does.
    #[cfg(not(bellwire_loom))]
    pub(crate) fn scribble(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.capacity);
        // SAFETY: within the ring.
        let place = unsafe { self.data.add(offset) };
        // SAFETY: likewise, and only tests of one thread use this.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len()) };
    }

    pub(crate) fn writer(self: &Arc<Self>) -> Writer {
        // SAFETY: a model has one writer, which keeps the lane.
        let ring = unsafe {
            let (ring, start) = (&raw const self.header.rings[0], Place::default());
            RingWriter::new(ring, self.data, self.capacity as u64, start, start)
        };
        Writer { ring, sequence: 0, lane: Arc::clone(self) }
    }

    pub(crate) fn reader(self: &Arc<Self>) -> Reader {
        let ring = &raw const self.header.rings[0];
        // SAFETY: the reader keeps the lane.
        let ring = unsafe { RingReader::new(ring, self.data, self.capacity as u64, 0, Place::default()) };
        Reader { ring, scratch: Vec::new(), _lane: Arc::clone(self) }
    }
}

#[cfg(bellwire_loom)]
fn ground(capacity: usize, grain: usize) -> (Box<LaneHeader>, *mut u8) {
    (Box::default(), crate::loom::bytes::Arena::zeros(capacity, grain))
}

/// Zeros, as in a new segment; never given back.
#[cfg(not(bellwire_loom))]
fn ground(capacity: usize, _: usize) -> (Box<LaneHeader>, *mut u8) {
    // SAFETY: the header is made of atomic integers, for which zeros are values.
    let header = unsafe { Box::<LaneHeader>::new_zeroed().assume_init() };
    (header, vec![0u128; capacity / 16].leak().as_mut_ptr().cast())
}

/// The one writer of the ring, as `Producer` uses it.
pub(crate) struct Writer {
    pub(crate) ring: RingWriter,
    /// Of the last record written.
    pub(crate) sequence: u64,
    pub(crate) lane: Arc<LaneMemory>,
}

// SAFETY: as for `Producer`: its pointers lead into what it keeps.
unsafe impl Send for Writer {}

impl Writer {
    /// Writes the next record, with an archive of that length, without showing it.
    pub(crate) fn write(&mut self, archive_len: usize) -> Result<(), NoRoom> {
        let header = header(self.sequence + 1, archive_len);
        if !self.ring.fits(header.record_len as usize) {
            self.ring.make_room(header.record_len as usize)?;
        }
        let fill = |archive: &mut [u8]| {
            archive.fill((self.sequence + 1) as u8);
            Ok::<_, NoRoom>(())
        };
        self.ring.write(&header, fill)?;
        self.sequence += 1;
        Ok(())
    }

    /// Writes and shows a record.
    pub(crate) fn publish(&mut self) -> Result<(), NoRoom> {
        self.write(ARCHIVE)?;
        self.ring.commit();
        Ok(())
    }
}

/// A reader of the ring.
pub(crate) struct Reader {
    pub(crate) ring: RingReader,
    pub(crate) scratch: Vec<u8>,
    _lane: Arc<LaneMemory>,
}

// SAFETY: as for `Tap`: its pointers lead into what it keeps.
unsafe impl Send for Reader {}

/// The header of the record with that sequence number.
pub(crate) fn header(sequence: u64, archive_len: usize) -> RecordHeader {
    RecordHeader {
        record_len: record_len(archive_len) as u32,
        archive_len: archive_len as u32,
        type_code: 1,
        priority: 0,
        flags: 0,
        user_hash: UserHash(sequence as u32),
        lane_sequence: sequence,
        timestamp: sequence as i64,
        message_id: MessageId::from_bytes([sequence as u8; 16]),
    }
}

/// Panics if header and archive are not wholly of one record; tells which.
pub(crate) fn sequence_of(found: &RecordHeader, archive: &[u8]) -> u64 {
    let sequence = found.lane_sequence;
    assert_eq!(*found, header(sequence, found.archive_len as usize), "a torn header");
    assert!(archive.iter().all(|byte| *byte == sequence as u8), "a torn record {sequence}: {archive:?}");
    sequence
}

/// The same of a record that was copied out.
pub(crate) fn sequence_of_copy(found: &RecordHeader, record: &[u8]) -> u64 {
    let copied = RecordHeader::from_bytes(record[..RECORD_HEADER_LEN].try_into().expect("a header"));
    assert_eq!(copied, *found, "the header was looked at and copied in one piece");
    sequence_of(found, &record[RECORD_HEADER_LEN..RECORD_HEADER_LEN + found.archive_len as usize])
}

/// A gated reader with its cursor.
pub(crate) struct Gated {
    reader: Reader,
    pub(crate) cursor: Arc<Cursor>,
    pub(crate) received: u64,
    copies: bool,
}

impl Gated {
    /// At the ring's beginning; reads in place or copies.
    pub(crate) fn new(lane: &Arc<LaneMemory>, copies: bool) -> Self {
        Self { reader: lane.reader(), cursor: Arc::default(), received: 0, copies }
    }

    /// One look, and a commit if there was something.
    pub(crate) fn look(&mut self) -> bool {
        let ring = &mut self.reader.ring;
        let header = match ring.next_gated() {
            Ok(Next::Record) => *ring.found(),
            Ok(Next::Empty) => return false,
            other => panic!("{other:?}"),
        };
        let sequence = if self.copies {
            let mut archive = vec![0; header.archive_len as usize];
            ring.copy_archive(&mut archive);
            assert!(ring.intact(ring.at().position), "overtaken although gating");
            sequence_of(&header, &archive)
        } else {
            // SAFETY: the header was just shown and the writer respects the cursor, which the model checks.
            sequence_of(&header, unsafe { ring.archive() })
        };
        self.received += 1;
        assert_eq!(sequence, self.received, "every record once and in order");
        ring.advance();
        let at = ring.at();
        self.cursor.commit(at.position, at.ordinal, self.received.is_multiple_of(2));
        true
    }

    /// Commits a record and then looks at it: what must not be done.
    #[cfg(not(bellwire_loom))]
    pub(crate) fn look_hastily(&mut self) -> bool {
        let ring = &mut self.reader.ring;
        let Ok(Next::Record) = ring.next_gated() else { return false };
        // SAFETY: none. This is the control of the tool that watches for exactly this; bytes of any value are numbers.
        let archive = unsafe { ring.archive() };
        ring.advance();
        let at = ring.at();
        self.received += 1;
        self.cursor.commit(at.position, at.ordinal, self.received.is_multiple_of(2));
        std::hint::black_box(archive.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        true
    }
}

/// Counts what a tap finds, and checks that it is what comes next.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) lost: u64,
    /// The record with this sequence number is shown together with the next.
    pub(crate) with_next: Option<u64>,
}

impl Tally {
    /// One look; whether there was something.
    pub(crate) fn look(&mut self, reader: &mut Reader) -> bool {
        match reader.ring.next_ungated(&mut reader.scratch) {
            Ok(Next::Empty) => return false,
            Ok(Next::Overrun { lost }) => self.lost += lost,
            Ok(Next::Record) => {
                let sequence = sequence_of_copy(reader.ring.found(), &reader.scratch);
                self.received += 1;
                assert_eq!(sequence, self.received + self.lost, "received + lost = published so far");
                reader.ring.advance();
                assert!(self.with_next != Some(sequence) || reader.ring.has_more(), "half a batch");
            }
            Err(fault) => panic!("{fault}"),
        }
        true
    }

    /// Reads to the end, once the writer has stopped.
    pub(crate) fn finish(mut self, reader: &mut Reader, published: u64) -> Self {
        while self.look(reader) {}
        assert_eq!(self.received + self.lost, published, "received + lost = published");
        self
    }
}
