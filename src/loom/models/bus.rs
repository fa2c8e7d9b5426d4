//! A bus in a model: producers and consumers as `Producer` and `Reader` have them, on segments of the model's.
//!
//! Only the first ring of a lane is used, so that the how-many-th record of the ring is that of the lane.

#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use crate::bus::{SegmentKind, segment_file};
use crate::layout::{CursorsHeader, LaneHeader, init_cursors, init_lane};
use crate::loom::bytes::Arena;
use crate::loom::segments::Segment;
use crate::producer::consumers::Consumers;
use crate::producer::data_offsets;
use crate::reader::lanes::{LaneId, Lanes};
use crate::reader::waiting::{self, Bedside};
use crate::reader::{LaneFault, Wake, Waker};
use crate::region::Trust;
use crate::ring::Place;
use crate::ring::testing::{ARCHIVE, RECORD, header, sequence_of};
use crate::ring::writer::{NoRoom, RingWriter};
use crate::sync::Ordering;

const BUS: &str = "b";
const TRUST: Trust = Trust { uid: 0, gid: None, anybody: false };

/// A producer. Its lane has no name yet.
pub(super) struct Engine {
    pub(super) lane: Arc<LaneHeader>,
    pub(super) segment: Segment,
    rings: [RingWriter; 4],
    pub(super) consumers: Consumers,
    /// Of the last record published.
    pub(super) sequence: u64,
    data: *mut u8,
}

fn writer(
    lane: &LaneHeader,
    index: usize,
    data: *mut u8,
    capacity: usize,
    [at, anchor]: [Place; 2],
) -> RingWriter {
    let ring = &raw const lane.rings[index];
    // SAFETY: the lane has one engine, which keeps the header; the bytes stay until the next execution.
    unsafe { RingWriter::new(ring, data, capacity as u64, at, anchor) }
}

impl Engine {
    /// On a new lane of that name, whose first ring holds so many records.
    pub(super) fn new(name: &str, records: usize) -> Self {
        let capacities = [records * RECORD, RECORD, RECORD, RECORD];
        let lane = Arc::<LaneHeader>::default();
        let key = u64::from(name.as_bytes()[0]);
        init_lane(&lane, name, capacities, key, 0);
        let data = Arena::zeros(capacities.iter().sum(), RECORD / 2);
        let file = segment_file(BUS, SegmentKind::Lane, name).expect("a name");
        let segment = Segment::lane(&file, Arc::clone(&lane), data, capacities);
        let offsets = data_offsets(capacities);
        let start = [Place::default(); 2];
        let rings = std::array::from_fn(|index| {
            let data = data.wrapping_add(offsets[index] - offsets[0]);
            writer(&lane, index, data, capacities[index], start)
        });
        let consumers = Consumers::new(BUS, key, TRUST, Duration::ZERO);
        Self { lane, segment, rings, consumers, sequence: 0, data }
    }

    /// The next process that owns the lane, as `Producer::open` makes it. It has not looked yet.
    pub(super) fn succeed(self) -> Self {
        let [committed, ..] = self.rings.each_ref().map(RingWriter::committed);
        let capacity = self.rings[0].capacity();
        let anchor = self.lane.rings[0].newest_before(committed.position, capacity).expect("a landmark");
        let mut rings = self.rings;
        rings[0] = writer(&self.lane, 0, self.data, capacity as usize, [committed, anchor]);
        let key = self.lane.identity.key.load(Ordering::Relaxed);
        Self { consumers: Consumers::new(BUS, key, TRUST, Duration::ZERO), rings, ..self }
    }

    /// As `Producer::look`.
    pub(super) fn look(&mut self) {
        self.consumers.look(&self.lane, &mut self.rings).expect("nothing is short");
    }

    /// As `Producer::publish`. Who is dead is given up at once if `releases`, and otherwise not at all.
    pub(super) fn publish(&mut self, releases: bool) -> Result<(), NoRoom> {
        self.publish_with(ARCHIVE, releases)
    }

    /// The same with an archive of that length.
    pub(super) fn publish_with(&mut self, archive_len: usize, releases: bool) -> Result<(), NoRoom> {
        let header = header(self.sequence + 1, archive_len);
        let len = header.record_len as usize;
        if !self.rings[0].fits(len) && self.rings[0].make_room(len).is_err() {
            self.consumers.update_slowest(&mut self.rings);
            if self.rings[0].make_room(len).is_err() {
                if releases {
                    self.look();
                    self.consumers.release_absent(&self.lane, &mut self.rings, 0);
                }
                self.rings[0].make_room(len)?;
            }
        }
        let fill = |archive: &mut [u8]| {
            archive.fill((self.sequence + 1) as u8);
            Ok::<_, NoRoom>(())
        };
        self.rings[0].write(&header, fill)?;
        self.sequence += 1;
        self.rings[0].commit();
        self.consumers.wake(&self.lane.doorbell);
        Ok(())
    }
}

/// The cursors of a consumer. They have no name yet.
#[derive(Clone)]
pub(super) struct Cursors {
    pub(super) header: Arc<CursorsHeader>,
    pub(super) segment: Segment,
}

impl Cursors {
    pub(super) fn new(name: &str) -> Self {
        let header = Arc::<CursorsHeader>::default();
        init_cursors(&header, name, u64::from(name.as_bytes()[0]), 0);
        let file = segment_file(BUS, SegmentKind::Cursors, name).expect("a name");
        Self { segment: Segment::cursors(&file, Arc::clone(&header)), header }
    }
}

/// A process that is a consumer.
pub(super) struct Process {
    pub(super) lanes: Lanes,
    cursors: Cursors,
    bedside: Bedside,
    scratch: Vec<u8>,
    /// Records read by this process.
    pub(super) received: u64,
}

impl Process {
    /// As `Reader::open`.
    pub(super) fn open(cursors: &Cursors) -> Self {
        let name = cursors.header.identity.name.load();
        let mut lanes = Lanes::new(BUS, &name, TRUST, &cursors.header);
        lanes.refresh(&cursors.header);
        let bedside = Bedside::new(Duration::ZERO);
        Self { lanes, cursors: cursors.clone(), bedside, scratch: Vec::new(), received: 0 }
    }

    pub(super) fn refresh(&mut self) {
        self.lanes.refresh(&self.cursors.header);
    }

    /// The only lane.
    pub(super) fn lane(&self) -> LaneId {
        self.lanes.ids().next().expect("attached")
    }

    /// As `Reader::peek`, `Slot::view` or `Slot::copy_archive`, and `Reader::advance`: reads one record and checks that it
    /// is whole and the one that comes next. Whether there was one.
    pub(super) fn read(&mut self, id: LaneId, copies: bool) -> Result<bool, LaneFault> {
        let attachment = self.lanes.attachment();
        let lane = self.lanes.get_mut(id);
        let Some(found) = lane.next(attachment, 0, &mut self.scratch)? else { return Ok(false) };
        let slot = lane.slot(0, found, &self.scratch);
        let sequence = if copies {
            let mut archive = vec![0; slot.header().archive_len as usize];
            slot.copy_archive(&mut archive)?;
            sequence_of(slot.header(), &archive)
        } else {
            sequence_of(slot.header(), slot.archive())
        };
        assert_eq!(sequence, lane.rings[0].at().ordinal + 1, "every record once and in order");
        lane.advance(0);
        self.received += 1;
        Ok(true)
    }

    /// As `Reader::waker`.
    pub(super) fn waker(&self) -> Waker {
        self.bedside.waker()
    }

    /// As `Reader::wait`, for however long it takes and without spinning.
    pub(super) fn wait(&mut self) -> Wake {
        waiting::wait(&mut self.lanes, &mut self.bedside, &self.cursors.header, Duration::MAX)
    }

    /// As `Reader::commit`.
    pub(super) fn commit(&mut self) {
        self.lanes.commit(&self.cursors.header);
    }

    /// Records of the lane that this process was told it lost, and those that were gone when it came.
    pub(super) fn lost_and_missed(&self, id: LaneId) -> (u64, u64) {
        let info = &self.lanes.get(id).info;
        (info.lost()[0], info.missed()[0])
    }
}
