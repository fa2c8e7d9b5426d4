//! The layout of lanes and cursor segments: the ABI between processes.
//!
//! A *lane* is written by its producer alone:
//!
//! ```text
//!  0            identity   magic, version, byte order, ABI fingerprint, length, key, capacities, name
//!  128          owner      pid, opened at, membarrier, clock offset
//!  256          doorbell   the word that parked readers sleep on
//!  384          rings      4 x { commit line, reservation line, 64 landmarks }
//!  ...          acks       16 x { which consumer's cursors the producer respects }
//!  DATA         P0 | P1 | P2 | P3 records, each capacity a multiple of 4096
//! ```
//!
//! A *cursor segment* is written by its consumer alone:
//!
//! ```text
//!  0            identity   as above (no capacities)
//!  128          owner      pid, attachment
//!  256          parked     a counter: how often this consumer went to sleep
//!  384          mark       what the consumer had durably done when it last committed
//!  512          slots      64 x { lane key and name, 4 cursors }
//! ```
//!
//! Everything in a header is an atomic, so a reference to it is sound whatever another process does to the memory. A
//! number that comes out of one is a claim until it has been checked.

use crossbeam_utils::CachePadded;

use crate::bus::{CONSUMERS_MAX, LANES_MAX, NAME_LEN_MAX};
use crate::codec::form::{FINGERPRINT_SEED, mix};
use crate::notification::payload::SCHEMA_FINGERPRINT;
use crate::record::RECORD_HEADER_LEN;
use crate::sync::{AtomicI64, AtomicU32, AtomicU64, Ordering, fence};

/// "BELLLANE", little-endian.
pub(crate) const LANE_MAGIC: u64 = u64::from_le_bytes(*b"BELLLANE");
/// "BELLCURS", little-endian.
pub(crate) const CURSORS_MAGIC: u64 = u64::from_le_bytes(*b"BELLCURS");
/// Changes whenever anything in this file or in a record's header changes its meaning.
pub const LAYOUT_VERSION: u32 = 1;
/// Reads as another number on a machine of the other byte order.
const BYTE_ORDER: u32 = 0x0102_0304;

/// Capacities and the length of the header are multiples of this, the page size.
pub(crate) const PAGE: usize = if cfg!(bellwire_loom) { 16 } else { 4096 };
/// A ring keeps this many landmarks a lap: places where a record is known to begin.
pub(crate) const LANDMARKS: usize = if cfg!(bellwire_loom) { 4 } else { 64 };
/// A landmark that is not set.
pub(crate) const NOWHERE: u64 = u64::MAX;

/// A number that two builds share only if they lay out archives in the same way.
///
/// It covers the schema, the size and alignment of every archived payload (which rkyv's cargo features change), and the
/// record header. Lanes and journals carry it; a mismatch is refused by name.
pub const fn abi_fingerprint() -> u64 {
    mix(mix(FINGERPRINT_SEED, SCHEMA_FINGERPRINT), RECORD_HEADER_LEN as u64)
}

/// Who made this segment, and for which build. Written once, before the file gets its name.
#[repr(C, align(128))]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct Identity {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) byte_order: AtomicU32,
    pub(crate) fingerprint: AtomicU64,
    pub(crate) len: AtomicU64,
    /// Tells this segment from any other that had or will have the same name. Never 0.
    pub(crate) key: AtomicU64,
    pub(crate) created_at: AtomicI64,
    pub(crate) capacities: [AtomicU64; 4],
    pub(crate) name: NameField,
}

/// A name, padded with zeros.
#[repr(C)]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct NameField([AtomicU64; NAME_LEN_MAX / 8]);

/// A name as its field holds it.
pub(crate) type NameWords = [u64; NAME_LEN_MAX / 8];

/// The words of a name that is not too long.
pub(crate) fn name_words(name: &str) -> NameWords {
    let mut bytes = [0; NAME_LEN_MAX];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(words[index]))
}

impl NameField {
    pub(crate) fn store(&self, name: &str) {
        for (field, word) in self.0.iter().zip(name_words(name)) {
            // Relaxed: a name is published by the store of the key beside it, or by the file's getting its name.
            field.store(word, Ordering::Relaxed);
        }
    }

    /// Whether it is this name.
    pub(crate) fn is(&self, words: &NameWords) -> bool {
        self.0.iter().zip(words).all(|(field, word)| field.load(Ordering::Relaxed) == *word) // see `store`
    }

    /// The name, or what can be read of it if somebody scribbled over it.
    pub(crate) fn load(&self) -> String {
        let mut bytes = Vec::with_capacity(NAME_LEN_MAX);
        for word in &self.0 {
            // Relaxed: see `store`.
            bytes.extend_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }
}

/// Why the identity of a segment is not the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each number")]
pub enum IdentityError {
    #[error("not a segment of this kind: magic {found:#018x}, expected {expected:#018x}")]
    Magic { found: u64, expected: u64 },
    #[error("byte order word {found:#010x}, expected {expected:#010x}")]
    ByteOrder { found: u32, expected: u32 },
    #[error("layout {found}, this build reads {expected}")]
    Version { found: u32, expected: u32 },
    #[error(
        "archive layout {found:#018x}, this build has {expected:#018x}: built from another schema or with other rkyv features"
    )]
    Fingerprint { found: u64, expected: u64 },
    #[error("the header says {claimed} bytes, the file has {actual}")]
    Length { claimed: u64, actual: u64 },
    #[error("the {what} in the header is impossible: {found}")]
    Impossible { what: &'static str, found: u64 },
}

impl Identity {
    fn fill(&self, magic: u64, name: &str, len: usize, key: u64, created_at: i64) {
        // Relaxed throughout: nobody else can see the memory before the file gets its name.
        self.version.store(LAYOUT_VERSION, Ordering::Relaxed);
        self.byte_order.store(BYTE_ORDER, Ordering::Relaxed);
        self.fingerprint.store(abi_fingerprint(), Ordering::Relaxed);
        self.len.store(len as u64, Ordering::Relaxed);
        self.key.store(key.max(1), Ordering::Relaxed);
        self.created_at.store(created_at, Ordering::Relaxed);
        self.name.store(name);
        self.magic.store(magic, Ordering::Relaxed);
    }

    /// Checks all that a reader relies on, each word loaded once.
    pub(crate) fn check(&self, magic: u64, file_len: u64) -> Result<(), IdentityError> {
        // Relaxed throughout: written before the file got the name by which it was found.
        let found = self.magic.load(Ordering::Relaxed);
        if found != magic {
            return Err(IdentityError::Magic { found, expected: magic });
        }
        let found = self.byte_order.load(Ordering::Relaxed);
        if found != BYTE_ORDER {
            return Err(IdentityError::ByteOrder { found, expected: BYTE_ORDER });
        }
        let found = self.version.load(Ordering::Relaxed);
        if found != LAYOUT_VERSION {
            return Err(IdentityError::Version { found, expected: LAYOUT_VERSION });
        }
        let found = self.fingerprint.load(Ordering::Relaxed);
        if found != abi_fingerprint() {
            return Err(IdentityError::Fingerprint { found, expected: abi_fingerprint() });
        }
        let claimed = self.len.load(Ordering::Relaxed);
        if claimed != file_len {
            return Err(IdentityError::Length { claimed, actual: file_len });
        }
        if self.key.load(Ordering::Relaxed) == 0 {
            return Err(IdentityError::Impossible { what: "key", found: 0 });
        }
        Ok(())
    }
}

/// Who owns a segment now. Changes when the next process adopts it.
#[repr(C, align(128))]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct Owner {
    /// For people; liveness is the lock on the file.
    pub(crate) pid: AtomicU32,
    /// Lanes: 1 if the producer is registered for membarrier, so that readers need not fence it otherwise.
    pub(crate) membarrier: AtomicU32,
    pub(crate) opened_at: AtomicI64,
    /// Lanes: wall clock minus monotonic clock in ns, as of the last slow path.
    pub(crate) wall_minus_monotonic: AtomicI64,
    /// Cursor segments: how often the segment was opened; see `Ack::attachment`.
    pub(crate) attachment: AtomicU64,
}

/// The words of one ring that its producer writes and everybody else reads.
#[repr(C)]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct RingHeader {
    pub(crate) commit: CachePadded<Commit>,
    pub(crate) reservation: CachePadded<Reservation>,
    pub(crate) landmarks: [Landmark; LANDMARKS],
}

/// The line that readers poll.
#[repr(C)]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct Commit {
    /// Every byte before this position is part of a committed record. The only commit point.
    pub(crate) position: AtomicU64,
    /// How many records were committed. Written just before `position`: one ahead at most, if the producer was killed.
    pub(crate) records: AtomicU64,
}

/// The line of the slow path.
#[repr(C)]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct Reservation {
    /// The producer may be writing anywhere before this position, so nothing before `reserved - capacity` is intact.
    pub(crate) reserved: AtomicU64,
    /// Publishes refused because the ring was full.
    pub(crate) refused: AtomicU64,
    /// Most bytes that were unread at a look of the producer.
    pub(crate) high_water: AtomicU64,
}

/// A place where a record begins: the first one at or behind a 64th of the ring.
#[repr(C)]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct Landmark {
    position: AtomicU64,
    /// How many records of the ring come before it.
    ordinal: AtomicU64,
}

impl Landmark {
    /// Sets both words so that no reader takes one from before and one from after. Published by a later commit.
    pub(crate) fn set(&self, position: u64, ordinal: u64) {
        self.position.store(NOWHERE, Ordering::Relaxed); // ordered before the next store by the fence
        fence(Ordering::Release); // pairs with the Acquire fence in `get`
        self.ordinal.store(ordinal, Ordering::Relaxed); // published, both, by the commit that reaches the position
        self.position.store(position, Ordering::Relaxed);
    }

    /// Position and ordinal, if they belong together. True of positions up to a commit that the caller has seen (Acquire);
    /// of one behind it neither need be.
    pub(crate) fn get(&self) -> Option<(u64, u64)> {
        let position = self.position.load(Ordering::Relaxed); // up to that commit: as old as the commit, or newer
        let ordinal = self.ordinal.load(Ordering::Relaxed); // checked by the second look below
        fence(Ordering::Acquire); // pairs with the Release fence in `set`
        let again = self.position.load(Ordering::Relaxed); // ordered behind the ordinal by the fence
        (position != NOWHERE && position == again).then_some((position, ordinal))
    }
}

/// One consumer as the producer sees it.
#[repr(C, align(128))]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct Ack {
    /// Key of the consumer's cursor segment; 0: this entry is free.
    pub(crate) key: AtomicU64,
    /// The attachment (see [`Owner`]) that the producer promises not to overtake. Another number: not this process,
    /// and not yet.
    pub(crate) attachment: AtomicU64,
    /// Nothing at or behind these positions is overwritten before the consumer's cursor has passed it.
    pub(crate) gating_from: [AtomicU64; 4],
    /// How often the producer stopped waiting for this consumer because it was dead for too long.
    pub(crate) released: AtomicU64,
    pub(crate) name: NameField,
}

impl Ack {
    /// Whether this is the entry of the consumer with that name and key. Not of the key alone: a consumer writes its key
    /// itself, and may write that of another one. The files of two have different names.
    pub(crate) fn is_of(&self, key: u64, name: &NameWords) -> bool {
        self.key.load(Ordering::Relaxed) == key && self.name.is(name) // a hint to readers, who look at the attachment then
    }
}

/// The header of a lane.
#[repr(C)]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct LaneHeader {
    pub(crate) identity: Identity,
    pub(crate) owner: Owner,
    pub(crate) doorbell: CachePadded<AtomicU32>,
    pub(crate) rings: [RingHeader; 4],
    pub(crate) acks: [Ack; CONSUMERS_MAX],
}

/// Where the records of the first ring begin.
pub(crate) const DATA_START: usize = size_of::<LaneHeader>().next_multiple_of(PAGE);

/// One consumer's cursors over one lane.
#[repr(C, align(128))]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct CursorSlot {
    /// Key of the lane; 0: this slot is free.
    pub(crate) lane_key: AtomicU64,
    pub(crate) lane_name: NameField,
    pub(crate) cursors: [Cursor; 4],
}

/// How far the consumer has come in one ring.
#[repr(C)]
#[derive(Default)]
pub(crate) struct Cursor {
    /// Everything before this position may be overwritten.
    pub(crate) position: AtomicU64,
    /// Pairs of position and ordinal, written in turn: the one whose position equals the cursor's tells how many
    /// records were consumed, also after a kill between any two stores.
    counts: [[AtomicU64; 2]; 2],
}

impl Cursor {
    /// Moves the cursor; `turn` alternates.
    pub(crate) fn commit(&self, position: u64, ordinal: u64, turn: bool) {
        let pair = &self.counts[usize::from(turn)];
        pair[0].store(position, Ordering::Relaxed); // read by this consumer's next process only
        pair[1].store(ordinal, Ordering::Relaxed); // likewise
        self.position.store(position, Ordering::Release); // pairs with the Acquire in `position`
    }

    /// The committed position.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire) // pairs with the Release in `commit`: what was read was read before
    }

    /// Which of the two pairs may be written next: not the one that belongs to the committed position.
    pub(crate) fn next_turn(&self) -> bool {
        self.counts[0][0].load(Ordering::Relaxed) == self.position() // see `ordinal`
    }

    /// How many records come before the committed position.
    pub(crate) fn ordinal(&self) -> Option<u64> {
        let position = self.position();
        // Relaxed: written by this consumer's previous process, which is dead, or by ourselves.
        let pair = self.counts.iter().find(|pair| pair[0].load(Ordering::Relaxed) == position)?;
        Some(pair[1].load(Ordering::Relaxed))
    }
}

/// The header of a cursor segment, which has nothing but a header.
#[repr(C)]
#[cfg_attr(bellwire_loom, derive(Default))]
pub(crate) struct CursorsHeader {
    pub(crate) identity: Identity,
    pub(crate) owner: Owner,
    pub(crate) parked: CachePadded<AtomicU32>,
    pub(crate) mark: CachePadded<AtomicU64>,
    pub(crate) slots: [CursorSlot; LANES_MAX],
}

/// Length of a cursor segment, in bytes.
pub(crate) const CURSORS_LEN: usize = size_of::<CursorsHeader>().next_multiple_of(PAGE);

#[cfg(not(bellwire_loom))]
const _: () = {
    assert!(size_of::<Identity>() == 128 && size_of::<Owner>() == 128);
    assert!(std::mem::offset_of!(LaneHeader, doorbell) == 256);
    assert!(std::mem::offset_of!(LaneHeader, rings) == 384);
    assert!(size_of::<RingHeader>() == 256 + LANDMARKS * 16);
    assert!(size_of::<Ack>() == 128);
    assert!(std::mem::offset_of!(CursorsHeader, slots) == 512);
    assert!(size_of::<CursorSlot>() == 256);
    assert!(DATA_START == 8192 && CURSORS_LEN == 20480);
};

/// Fills the header of a new lane.
pub(crate) fn init_lane(header: &LaneHeader, name: &str, capacities: [usize; 4], key: u64, created_at: i64) {
    for (ring, capacity) in header.rings.iter().zip(capacities) {
        for landmark in &ring.landmarks {
            landmark.set(NOWHERE, 0);
        }
        ring.landmarks[0].set(0, 0);
        // Nothing is reserved beyond the empty ring.
        ring.reservation.reserved.store(0, Ordering::Relaxed);
        debug_assert!(capacity % PAGE == 0);
    }
    for (field, capacity) in header.identity.capacities.iter().zip(capacities) {
        field.store(capacity as u64, Ordering::Relaxed); // see `Identity::fill`
    }
    header.identity.fill(LANE_MAGIC, name, lane_len(capacities), key, created_at);
}

/// Fills the header of a new cursor segment.
pub(crate) fn init_cursors(header: &CursorsHeader, name: &str, key: u64, created_at: i64) {
    header.identity.fill(CURSORS_MAGIC, name, CURSORS_LEN, key, created_at);
}

/// Length of a lane with these capacities, in bytes.
pub(crate) fn lane_len(capacities: [usize; 4]) -> usize {
    DATA_START + capacities.iter().sum::<usize>()
}

/// The capacities of a lane whose identity was checked, checked in turn.
pub(crate) fn lane_capacities(header: &LaneHeader, file_len: u64) -> Result<[usize; 4], IdentityError> {
    let mut capacities = [0; 4];
    let mut total = DATA_START as u64;
    for (capacity, field) in capacities.iter_mut().zip(&header.identity.capacities) {
        let found = field.load(Ordering::Relaxed); // written once, before the file had a name
        if found == 0 || found % PAGE as u64 != 0 || found > file_len {
            return Err(IdentityError::Impossible { what: "capacity", found });
        }
        *capacity = found as usize;
        total += found;
    }
    if total == file_len {
        Ok(capacities)
    } else {
        Err(IdentityError::Length { claimed: total, actual: file_len })
    }
}
