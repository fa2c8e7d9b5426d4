//! The producer's view of the consumers: whom it must not overtake, and whom it wakes.
//!
//! All of this is the slow path: ten times a second at most, and when a ring is full.

use std::path::Path;
use std::time::Duration;

use crate::bus::{SHM_DIR, SegmentKind, segment_file};
use crate::clock::Instant;
use crate::doorbell;
use crate::layout::{Ack, CursorSlot, LaneHeader, name_words};
use crate::region::directory::{self, Directory};
use crate::region::foreign::ForeignCursors;
use crate::region::{OpenError, Trust};
use crate::ring::writer::{NOBODY, RingWriter};
use crate::sync::{AtomicU32, Ordering};

/// All consumers of the bus that this producer knows.
pub(crate) struct Consumers {
    bus: String,
    lane_key: u64,
    trust: Trust,
    grace: Duration,
    directory: Directory,
    known: Vec<Consumer>,
    rings: u64,
    released: u64,
}

struct Consumer {
    name: String,
    cursors: ForeignCursors,
    /// Its slot for our lane, once it has one.
    slot: Option<usize>,
    /// Its entry among the lane's acks.
    ack: Option<usize>,
    /// Whether it is waited for: from when it is first seen until it is given up.
    gates: bool,
    /// What is behind these positions is kept for it.
    gating_from: [u64; 4],
    /// The attachment that was told so; 0: none.
    acknowledged: u64,
    /// Since when it is known to be dead, or to live and not to attach to this lane.
    absent_since: Option<Instant>,
    /// The parked count for which the doorbell was rung.
    rung_for: u32,
}

impl Consumers {
    pub(crate) fn new(bus: &str, lane_key: u64, trust: Trust, grace: Duration) -> Self {
        Self {
            bus: bus.to_owned(),
            lane_key,
            trust,
            grace,
            directory: Directory::default(),
            known: Vec::new(),
            rings: 0,
            released: 0,
        }
    }

    pub(crate) fn rings(&self) -> u64 {
        self.rings
    }

    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    pub(crate) fn gating(&self) -> usize {
        self.known.iter().filter(|consumer| consumer.acknowledged != 0 && consumer.gates).count()
    }

    /// Rings the doorbell if a consumer went to sleep since it was last rung. Called after a commit.
    #[inline]
    pub(crate) fn wake(&mut self, bell: &AtomicU32) {
        for consumer in &mut self.known {
            let parked = &consumer.cursors.header().parked;
            if doorbell::ring_if_parked(bell, parked, &mut consumer.rung_for) {
                self.rings += 1;
            }
        }
    }

    /// Looks for new, moved, returned and dead consumers.
    ///
    /// A consumer of the bus is waited for from the moment it is seen, also before it has attached to this lane: what is
    /// published between the opening of a lane and a gateway's noticing it is kept for the gateway.
    ///
    /// # Errors
    /// Who is there could not be found out as a whole, for want of a file descriptor for example. Those that are known stay
    /// known, and the next look tries again.
    pub(crate) fn look(&mut self, lane: &LaneHeader, rings: &mut [RingWriter; 4]) -> Result<(), OpenError> {
        let floors = rings.each_ref().map(RingWriter::floor);
        let listed = self.list(lane, floors);
        if listed.is_err() {
            self.directory.forget();
        }
        for consumer in &mut self.known {
            consumer.find_slot(self.lane_key);
            let segment = consumer.cursors.segment();
            // One whose segment was truncated cannot tell any more how far it has come.
            let is_here = consumer.slot.is_some() && segment.owner_lives() && segment.look().is_none();
            if !is_here {
                consumer.absent_since.get_or_insert_with(Instant::now);
                continue;
            }
            consumer.absent_since = None;
            consumer.acknowledged = consumer.attachment();
            if !consumer.gates {
                consumer.gates = true;
                consumer.gating_from = floors;
            }
        }
        // First respect their cursors, then tell them so.
        self.update_slowest(rings);
        for consumer in &self.known {
            if let Some(ack) = consumer.ack
                && consumer.gates
                && consumer.acknowledged != 0
            {
                tell(&lane.acks[ack], consumer);
            }
        }
        listed
    }

    /// Takes the cursors as they stand now.
    pub(crate) fn update_slowest(&self, rings: &mut [RingWriter; 4]) {
        for (index, ring) in rings.iter_mut().enumerate() {
            let positions = self.known.iter().filter_map(|consumer| consumer.position(index));
            ring.set_slowest(positions.min().unwrap_or(NOBODY));
        }
    }

    /// Stops waiting for those that hold up this ring and are absent for longer than the grace time.
    pub(crate) fn release_absent(&mut self, lane: &LaneHeader, rings: &mut [RingWriter; 4], index: usize) {
        let slowest = rings[index].slowest();
        for consumer in &mut self.known {
            let absent_for_too_long =
                consumer.absent_since.is_some_and(|since| since.elapsed() >= self.grace);
            if absent_for_too_long && consumer.position(index).is_some_and(|position| position <= slowest) {
                consumer.gates = false;
                consumer.acknowledged = 0;
                self.released += 1;
                if let Some(ack) = consumer.ack {
                    let ack = &lane.acks[ack];
                    withdraw(ack);
                    ack.released.store(ack.released.load(Ordering::Relaxed) + 1, Ordering::Relaxed); // a statistic
                }
            }
        }
        self.update_slowest(rings);
    }

    /// Attaches to consumers that are new, and lets go of those whose segment is gone or was made anew.
    fn list(&mut self, lane: &LaneHeader, floors: [u64; 4]) -> Result<(), OpenError> {
        let changed = self.directory.changed_names(&self.bus, SegmentKind::Cursors);
        let changed = changed.map_err(|error| OpenError::io(Path::new(SHM_DIR), "list", error))?;
        let Some(names) = changed else { return Ok(()) };
        let mut missed = Ok(());
        self.known.retain(|consumer| {
            let stays = names.contains(&consumer.name) && !consumer.was_replaced();
            if let (false, Some(ack)) = (stays, consumer.ack) {
                withdraw(&lane.acks[ack]);
                lane.acks[ack].key.store(0, Ordering::Relaxed); // free for the next one
            }
            stays
        });
        for name in names {
            if self.known.iter().any(|consumer| consumer.name == name) {
                continue;
            }
            let Ok(file) = segment_file(&self.bus, SegmentKind::Cursors, &name) else { continue };
            match ForeignCursors::open(&file, &self.trust) {
                Ok(cursors) => {
                    let taken = |index| self.known.iter().any(|consumer| consumer.ack == Some(index));
                    let consumer = Consumer::new(name, cursors, lane, floors, taken);
                    self.known.push(consumer);
                }
                Err(error) if error.is_shortage() => missed = Err(error),
                // A segment that is foreign or of another build does not gate us; its owner is told so when he opens it.
                Err(_) => {}
            }
        }
        missed?; // some of the entries below may be those of consumers that could not be opened
        // Entries that an earlier owner of this lane left for consumers that are gone.
        for (index, ack) in lane.acks.iter().enumerate() {
            if !self.known.iter().any(|consumer| consumer.ack == Some(index)) {
                withdraw(ack);
                ack.key.store(0, Ordering::Relaxed); // written and read by producers only, but for people
            }
        }
        Ok(())
    }
}

impl Consumer {
    /// `taken` says which of the lane's entries belong to consumers that are known.
    fn new(
        name: String,
        cursors: ForeignCursors,
        lane: &LaneHeader,
        floors: [u64; 4],
        taken: impl Fn(usize) -> bool,
    ) -> Self {
        let key = cursors.header().identity.key.load(Ordering::Relaxed); // written once, before the file had a name
        let words = name_words(&name);
        let mine = |ack: &Ack| ack.is_of(key, &words);
        let free = |ack: &Ack| ack.key.load(Ordering::Relaxed) == 0; // written by this lane's producers only
        let find = |wanted: &dyn Fn(&Ack) -> bool| {
            (0..lane.acks.len()).find(|index| wanted(&lane.acks[*index]) && !taken(*index))
        };
        let ack = find(&mine).or_else(|| find(&free));
        let mut consumer = Self {
            name,
            slot: None,
            ack,
            gates: true,
            gating_from: floors,
            acknowledged: 0,
            absent_since: None,
            rung_for: cursors.header().parked.load(Ordering::Relaxed).wrapping_sub(1), // rings at the first commit
            cursors,
        };
        if let Some(ack) = ack.map(|index| &lane.acks[index]) {
            if mine(ack) {
                // What an earlier owner of this lane promised holds, and whom he gave up stays given up.
                consumer.acknowledged = ack.attachment.load(Ordering::Relaxed); // written by producers only
                consumer.gates = consumer.acknowledged != 0 || ack.released.load(Ordering::Relaxed) == 0;
                for (from, promised) in consumer.gating_from.iter_mut().zip(&ack.gating_from) {
                    *from = promised.load(Ordering::Relaxed).max(*from); // likewise
                }
            } else {
                ack.released.store(0, Ordering::Relaxed); // a statistic
                ack.name.store(&consumer.name);
                ack.key.store(key, Ordering::Relaxed); // see above
            }
        }
        consumer
    }

    fn attachment(&self) -> u64 {
        // Relaxed: a number to be told back. How far the consumer has come is ordered by the slot's key and the cursors.
        self.cursors.header().owner.attachment.load(Ordering::Relaxed)
    }

    fn slot(&self) -> Option<&CursorSlot> {
        self.slot.map(|slot| &self.cursors.header().slots[slot])
    }

    fn find_slot(&mut self, lane_key: u64) {
        let is_ours = |slot: &CursorSlot| slot.lane_key.load(Ordering::Acquire) == lane_key; // pairs with the Release in `claim_slot`
        if !self.slot().is_some_and(is_ours) {
            self.slot = self.cursors.header().slots.iter().position(is_ours);
        }
    }

    /// Its position in that ring, if we wait for it. As long as it has no cursor there, that is where we began to wait.
    fn position(&self, ring: usize) -> Option<u64> {
        let cursor = self.slot().map_or(0, |slot| slot.cursors[ring].position());
        self.gates.then(|| cursor.max(self.gating_from[ring]))
    }

    /// Whether the file of that name is not the one that we have mapped.
    fn was_replaced(&self) -> bool {
        let segment = self.cursors.segment();
        directory::was_replaced(segment.path(), segment.inode())
    }
}

/// Takes a promise back.
fn withdraw(ack: &Ack) {
    // Relaxed: the Release fence of `RingWriter::make_room` stands between this and the bytes that may be overwritten now; it
    // pairs with the Acquire fence of a reader that looks whether the promise still holds, `is_gated_no_more`.
    ack.attachment.store(0, Ordering::Relaxed);
}

/// Promises a consumer not to overtake it.
fn tell(ack: &Ack, consumer: &Consumer) {
    if ack.attachment.load(Ordering::Relaxed) == consumer.acknowledged {
        return; // Relaxed: written by ourselves
    }
    for (promised, from) in ack.gating_from.iter().zip(consumer.gating_from) {
        promised.store(from, Ordering::Relaxed); // published by the next store
    }
    ack.attachment.store(consumer.acknowledged, Ordering::Release); // pairs with the Acquire in `is_gated`
}
