//! The lanes that a reader is attached to.

#![allow(unsafe_code)]

use crate::sync::{Ordering, fence};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{LaneFault, Slot};
use crate::bus::{LANES_MAX, SegmentKind, segment_file};
use crate::clock::Instant;
use crate::layout::{CursorSlot, CursorsHeader, LaneHeader, NameWords, name_words};
use crate::producer::data_offsets;
use crate::region::directory::{self, Directory};
use crate::region::foreign::ForeignLane;
use crate::region::{OpenError, SegmentFault, Trust};
use crate::ring::Place;
use crate::ring::reader::{Next, RingReader};

/// How often lanes that were refused are tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is looked whether the lanes' files are as long as they were.
const LOOK: Duration = Duration::from_millis(100);

/// As long as a producer has not acknowledged us for this long after our attaching or after its last publish, it may
/// publish without waking us. Twice its interval of looking, and some.
const UNNOTICED: Duration = Duration::from_millis(250);

/// A lane that the reader is attached to. Valid until a refresh reports the lane as detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(u16);

impl LaneId {
    /// A small number, less than 64, that no other attached lane has.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// What a reader knows of a lane.
#[derive(Clone, Debug)]
pub struct LaneInfo {
    name: String,
    path: PathBuf,
    key: u64,
    pub(crate) lost: [u64; 4],
    missed: [u64; 4],
    pub(crate) quarantined: Option<LaneFault>,
}

impl LaneInfo {
    /// The producer's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The segment's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells this lane from any other that had or will have the same name.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// Records of each ring that were overwritten before this consumer read them, since this process attached.
    pub fn lost(&self) -> [u64; 4] {
        self.lost
    }

    /// Records of each ring that were gone already when this consumer attached to the lane for the first time.
    pub fn missed(&self) -> [u64; 4] {
        self.missed
    }

    /// Why the lane is read no further, if it is not.
    pub fn quarantined(&self) -> Option<&LaneFault> {
        self.quarantined.as_ref()
    }
}

/// What a refresh found.
#[derive(Debug, Default)]
pub struct Refresh {
    /// Lanes that are attached now.
    pub attached: Vec<LaneId>,
    /// Names of lanes whose file is gone and whose last record was read.
    pub detached: Vec<String>,
    /// Lanes that cannot be attached, and why. They are tried again every second and whenever /dev/shm changes.
    pub refused: Vec<(String, OpenError)>,
}

impl Refresh {
    /// Adds what was found later. Of each list the newest are kept, as many as a bus has lanes.
    fn add(&mut self, later: Refresh) {
        self.attached.retain(|id| !later.attached.contains(id));
        self.attached.extend(later.attached);
        self.detached.extend(later.detached);
        self.refused.retain(|(name, _)| !later.refused.iter().any(|(again, _)| again == name));
        self.refused.extend(later.refused);
        self.attached.drain(..self.attached.len().saturating_sub(LANES_MAX));
        self.detached.drain(..self.detached.len().saturating_sub(LANES_MAX));
        self.refused.drain(..self.refused.len().saturating_sub(LANES_MAX));
    }
}

/// A record was found; whether the producer respects the cursor there.
#[derive(Clone, Copy)]
pub(crate) struct Found {
    gated: bool,
}

/// One attached lane.
pub(crate) struct Lane {
    // Declared before the mapping that they point into.
    pub(crate) rings: [RingReader; 4],
    pub(crate) info: LaneInfo,
    /// Our slot for it in the cursor segment.
    slot: usize,
    committed: [u64; 4],
    turns: [bool; 4],
    /// Our name.
    consumer: NameWords,
    /// Our entry among its acks, once there is one.
    ack: std::cell::Cell<Option<usize>>,
    /// Whether the file is gone or has another lane in it now.
    gone: bool,
    /// The file is shorter than it was.
    short: Option<SegmentFault>,
    /// When we attached or last saw a record: see [`UNNOTICED`].
    stirred_at: Instant,
    stirred: bool,
    mapping: ForeignLane,
}

impl Lane {
    pub(crate) fn header(&self) -> &LaneHeader {
        self.mapping.header()
    }

    /// Whether the producer has promised not to overtake our cursor, and the cursor stands where the promise holds.
    #[inline]
    pub(crate) fn is_gated(&self, attachment: (u64, u64), ring: usize) -> bool {
        let (key, number) = attachment;
        let header = self.header();
        let index = match self.ack.get() {
            Some(index) => index,
            None => {
                let mine = header.acks.iter().position(|ack| ack.is_of(key, &self.consumer)); // a hint, checked below
                let Some(index) = mine else { return false };
                self.ack.set(Some(index));
                index
            }
        };
        let ack = &header.acks[index];
        // Acquire: pairs with the producer's Release stores in `consumers`.
        if ack.attachment.load(Ordering::Acquire) != number || ack.key.load(Ordering::Relaxed) != key {
            self.ack.set(None);
            return false;
        }
        // Relaxed: published by the store of the attachment.
        self.rings[ring].at().position >= ack.gating_from[ring].load(Ordering::Relaxed)
    }

    /// Whether a promise that held does not hold now, if anything that was read before this call was overwritten.
    #[cold]
    fn is_gated_no_more(&self, attachment: (u64, u64), ring: usize) -> bool {
        // Pairs with the Release fence in `RingWriter::make_room`, which stands between withdrawing and overwriting.
        fence(Ordering::Acquire);
        !self.is_gated(attachment, ring)
    }

    /// Finds the next record of a ring; copies it to `scratch` if the producer does not respect our cursor.
    #[inline]
    pub(crate) fn next(
        &mut self,
        attachment: (u64, u64),
        ring: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Found>, LaneFault> {
        if self.info.quarantined.is_some() {
            return Ok(None);
        }
        loop {
            let gated = self.is_gated(attachment, ring);
            let reader = &mut self.rings[ring];
            let next = if gated { reader.next_gated() } else { reader.next_ungated(scratch) };
            // Whatever was read of memory that is gone is nothing, also if it looks like something.
            if let Some(fault) = self.fault() {
                self.rings[ring].forget();
                return Err(fault.into());
            }
            match next {
                Ok(Next::Empty) => return Ok(None),
                Ok(Next::Overrun { lost }) => {
                    self.info.lost[ring] = self.info.lost[ring].saturating_add(lost); // a claim of the lane's
                }
                Ok(Next::Record) => {
                    self.stirred = true;
                    return Ok(Some(Found { gated }));
                }
                // A promise that was withdrawn meanwhile explains anything; without it, look again.
                Err(_) if gated && self.is_gated_no_more(attachment, ring) => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// What [`Self::next`] just found.
    #[inline]
    pub(crate) fn slot<'a>(&'a self, ring: usize, found: Found, scratch: &'a [u8]) -> Slot<'a> {
        let copied = (!found.gated).then_some(scratch);
        Slot::new(&self.rings[ring], self.mapping.segment(), copied)
    }

    /// Moves behind what [`Self::next`] just found.
    #[inline]
    pub(crate) fn advance(&mut self, ring: usize) {
        self.rings[ring].advance();
    }

    pub(crate) fn has_more(&self) -> bool {
        // A lane whose memory is gone has that to tell.
        self.info.quarantined.is_none()
            && (self.rings.iter().any(RingReader::has_more) || self.fault().is_some())
    }

    /// What is wrong with the lane's memory, if that is known.
    #[inline]
    pub(crate) fn fault(&self) -> Option<SegmentFault> {
        self.short.or_else(|| self.mapping.segment().fault())
    }

    /// Whether the producer may publish without knowing that we sleep.
    pub(crate) fn may_not_know_us(&mut self, attachment: (u64, u64), now: Instant) -> bool {
        if std::mem::take(&mut self.stirred) {
            self.stirred_at = now;
        }
        now.duration_since(self.stirred_at) < UNNOTICED && !self.is_acknowledged(attachment)
    }

    fn is_acknowledged(&self, (key, number): (u64, u64)) -> bool {
        self.header().acks.iter().any(|ack| {
            // Relaxed: the producer knows us from before that store on. What it published before that, and may not have rung
            // for, is seen when we look once more behind the barrier, see the doorbell.
            ack.attachment.load(Ordering::Relaxed) == number && ack.is_of(key, &self.consumer)
        })
    }
}

/// All attached lanes.
pub(crate) struct Lanes {
    slots: Vec<Option<Lane>>,
    bus: String,
    consumer: NameWords,
    trust: Trust,
    directory: Directory,
    retry_at: Option<Instant>,
    looked_at: Instant,
    /// What was found and not told yet.
    untold: Refresh,
    /// Key of our cursor segment, and how often it was opened.
    attachment: (u64, u64),
}

impl Lanes {
    /// Of a process that owns these cursors from now on, under that name. It is attached to no lane yet.
    pub(crate) fn new(bus: &str, consumer: &str, trust: Trust, header: &CursorsHeader) -> Self {
        // Another number than the last, and never 0, which says that nobody is attached: damage may have put any number there.
        let number = header.owner.attachment.load(Ordering::Relaxed).wrapping_add(1).max(1); // written by ourselves
        header.owner.attachment.store(number, Ordering::Relaxed); // see the producer's `Consumer::attachment`
        Self {
            slots: Vec::new(),
            bus: bus.to_owned(),
            consumer: name_words(consumer),
            trust,
            directory: Directory::default(),
            retry_at: None,
            looked_at: Instant::now(),
            untold: Refresh::default(),
            attachment: (header.identity.key.load(Ordering::Relaxed), number), // our own
        }
    }

    pub(crate) fn attachment(&self) -> (u64, u64) {
        self.attachment
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = LaneId> + Clone + use<> {
        let attached = |(index, lane): (usize, &Option<Lane>)| u64::from(lane.is_some()) << index;
        let mask = self.slots.iter().enumerate().map(attached).fold(0, |mask, bit| mask | bit);
        (0..LANES_MAX as u16).filter(move |index| mask >> index & 1 == 1).map(LaneId)
    }

    #[inline]
    pub(crate) fn get(&self, id: LaneId) -> &Lane {
        self.slots[id.index()].as_ref().expect("a lane id since the last refresh")
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: LaneId) -> &mut Lane {
        self.slots[id.index()].as_mut().expect("a lane id since the last refresh")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.slots.iter().flatten()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.slots.iter_mut().flatten()
    }

    pub(crate) fn has_more(&self) -> bool {
        self.iter().any(Lane::has_more)
    }

    /// Publishes the cursors that moved.
    pub(crate) fn commit(&mut self, header: &CursorsHeader) {
        for lane in self.iter_mut() {
            let slot = &header.slots[lane.slot];
            for index in 0..4 {
                let at = lane.rings[index].at();
                if at.position != lane.committed[index] {
                    slot.cursors[index].commit(at.position, at.ordinal, lane.turns[index]);
                    lane.turns[index] = !lane.turns[index];
                    lane.committed[index] = at.position;
                }
            }
        }
    }

    /// Tells what [`Self::refresh`] found since it was last told. Ids of lanes that have gone meanwhile are left out.
    pub(crate) fn tell(&mut self) -> Refresh {
        let mut refresh = std::mem::take(&mut self.untold);
        refresh.attached.retain(|id| self.slots.get(id.index()).is_some_and(Option::is_some));
        refresh
    }

    /// Looks for lanes that are new or gone, and remembers what it found.
    pub(crate) fn refresh(&mut self, header: &CursorsHeader) {
        let mut refresh = Refresh::default();
        if self.looked_at.elapsed() >= LOOK {
            self.looked_at = Instant::now();
            for lane in self.iter_mut().filter(|lane| lane.info.quarantined.is_none()) {
                lane.short = lane.mapping.segment().look();
            }
        }
        if self.retry_at.is_some_and(|at| Instant::now() >= at) {
            self.retry_at = None;
            self.directory.forget();
        }
        if let Ok(Some(names)) = self.directory.changed_names(&self.bus, SegmentKind::Lane) {
            for lane in self.slots.iter_mut().flatten() {
                let segment = lane.mapping.segment();
                lane.gone = !names.contains(&lane.info.name)
                    || directory::was_replaced(segment.path(), segment.inode());
            }
            for name in &names {
                if !self.iter().any(|lane| !lane.gone && lane.info.name == *name) {
                    match self.attach(header, name, &names) {
                        Ok(id) => refresh.attached.push(id),
                        Err(error) => {
                            self.retry_at = Some(Instant::now() + RETRY);
                            refresh.refused.push((name.clone(), error));
                        }
                    }
                }
            }
        }
        for slot in &mut self.slots {
            // What a lane still holds is read before it goes; a quarantined one has nothing more to give.
            if slot.as_ref().is_some_and(|lane| lane.gone && !lane.has_more())
                && let Some(lane) = slot.take()
            {
                // Relaxed: free. Nobody needs the cursors of a lane that is gone.
                header.slots[lane.slot].lane_key.store(0, Ordering::Relaxed);
                refresh.detached.push(lane.info.name);
            }
        }
        self.untold.add(refresh);
    }

    /// Attaches to the lane of that name; `names` are those of all lanes that there are.
    fn attach(&mut self, header: &CursorsHeader, name: &str, names: &[String]) -> Result<LaneId, OpenError> {
        let file = segment_file(&self.bus, SegmentKind::Lane, name)?;
        let mapping = ForeignLane::open(&file, &self.trust)?;
        let path = mapping.segment().path().to_owned();
        let corrupt = |what: String| OpenError::Corrupt { path: path.clone(), what };
        let place = match self.slots.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.slots.len() < LANES_MAX => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return Err(corrupt(format!("the bus has more than {LANES_MAX} lanes"))),
        };
        let key = mapping.header().identity.key.load(Ordering::Relaxed); // written once, before the file had a name
        // The names differ and are those in the headers, so one of the two made its key up.
        if let Some(other) = self.iter().find(|lane| lane.info.key == key && lane.info.name != name) {
            return Err(corrupt(format!("it has the key of lane {}", other.info.name)));
        }
        let claimed = self.claim(header, key, name, names);
        let (slot, known) = claimed.ok_or_else(|| corrupt("no free cursor slot".into()))?;
        let cursors = &header.slots[slot];

        let offsets = data_offsets(mapping.capacities());
        let mut places = [Place { position: 0, ordinal: 0 }; 4];
        let mut missed = [0; 4];
        for index in 0..4 {
            let ring = &mapping.header().rings[index];
            let capacity = mapping.capacities()[index] as u64;
            places[index] = if known {
                // Without a count (which only damage takes away) losses are counted from zero.
                let cursor = &cursors.cursors[index];
                Place { position: cursor.position(), ordinal: cursor.ordinal().unwrap_or(0) }
            } else {
                let oldest = ring.oldest(capacity);
                let place = oldest.ok_or_else(|| corrupt(format!("ring P{index} has no landmark")))?;
                missed[index] = place.ordinal;
                place
            };
            if places[index].position % crate::record::RECORD_ALIGN as u64 != 0 {
                return Err(corrupt(format!("ring P{index}: cursor at {}", places[index].position)));
            }
        }
        if !known {
            claim_slot(cursors, key, name, &places);
        }
        let rings = std::array::from_fn(|index| {
            let header = &raw const mapping.header().rings[index];
            let data = mapping.segment().base().wrapping_add(offsets[index]);
            let capacity = mapping.capacities()[index] as u64;
            // SAFETY: the capacities were checked against the file's length, and the lane keeps the mapping as long as
            // the readers.
            unsafe { RingReader::new(header, data, capacity, index as u8, places[index]) }
        });
        let turns = std::array::from_fn(|index| cursors.cursors[index].next_turn());
        self.slots[place] = Some(Lane {
            rings,
            info: LaneInfo { name: name.to_owned(), path, key, lost: [0; 4], missed, quarantined: None },
            slot,
            committed: places.map(|place| place.position),
            turns,
            consumer: self.consumer,
            ack: std::cell::Cell::new(None),
            gone: false,
            short: None,
            stirred_at: Instant::now(),
            stirred: false,
            mapping,
        });
        Ok(LaneId(place as u16))
    }

    /// Our slot for that lane, and whether it has cursors already.
    ///
    /// A lane that is there keeps its slot, also while it is refused or before its turn to be attached comes: without it,
    /// it would be read again from its oldest record, and its producer would wait for a cursor that is another lane's.
    fn claim(&self, header: &CursorsHeader, key: u64, name: &str, names: &[String]) -> Option<(usize, bool)> {
        // Relaxed throughout: our own segment.
        let key_of = |slot: &CursorSlot| slot.lane_key.load(Ordering::Relaxed);
        if let Some(known) = header.slots.iter().position(|slot| key_of(slot) == key) {
            return Some((known, true));
        }
        let is_over = |slot: &CursorSlot| {
            let lane = slot.lane_name.load();
            let is_attached = self.iter().any(|lane| lane.info.key == key_of(slot));
            // A name is one lane's: what had ours before is gone.
            !is_attached && (lane == name || !names.contains(&lane))
        };
        let free = header.slots.iter().position(|slot| key_of(slot) == 0);
        free.or_else(|| header.slots.iter().position(is_over)).map(|slot| (slot, false))
    }
}

/// Puts a lane into a slot; its producer finds it by the key, which is stored last.
fn claim_slot(slot: &CursorSlot, key: u64, name: &str, places: &[Place; 4]) {
    // Relaxed: the lane that was here is read no more, so its producer may take the new cursors for its own.
    slot.lane_key.store(0, Ordering::Relaxed);
    slot.lane_name.store(name);
    for (cursor, place) in slot.cursors.iter().zip(places) {
        cursor.commit(place.position, place.ordinal, false);
    }
    slot.lane_key.store(key, Ordering::Release); // pairs with the Acquire in the producer's `find_slot`
}
