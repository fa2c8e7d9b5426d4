//! Bellwire: a shared-memory notification bus for exchanges.
//!
//! Producers (a matching engine, risk control, ...) write notifications into lock-free rings in shared memory;
//! consumers read them there. This crate is both ends: it links into the engine, so it has few dependencies, no threads,
//! no async runtime, and its publish path neither allocates nor locks nor makes a system call.
//!
//! | word | meaning |
//! | --- | --- |
//! | bus | a name that lanes and consumers share; default `main` |
//! | lane | one producer's segment on a bus: four rings, one per priority |
//! | ring | a single-writer ring buffer of records |
//! | record | a header of 48 bytes and an archived notification |
//! | position | a count of bytes since the ring was made; only grows |
//! | lane sequence | a count of records over the four rings of a lane: the order of publishing |
//! | lap | once around a ring |
//! | commit | the store that makes records visible, or that lets a producer overwrite them |
//! | cursor | how far a consumer has come in a ring |
//! | gating | a consumer that producers do not overtake |
//! | overrun | what happens to a reader that is not gating and too slow |
//! | tap | a reader that never gates |
//! | doorbell | the word that sleeping readers sleep on |
//!
//! One notification's way through the code: [`Notification`] → `codec` → [`Producer::publish`] → `ring::writer` → shared
//! memory → `ring::reader` → [`Reader::peek`] → [`NotificationView`].
//!
//! # One writer per segment
//!
//! A lane is written by its producer alone and a consumer's cursors by that consumer alone; everybody else maps them
//! read-only, and the kernel sees to it. So there is no compare-and-swap on any path, a killed process leaves nothing
//! half-done that anybody sees, and a consumer that faces the internet cannot scribble on the engine's memory.
//!
//! # Trust
//!
//! A reader in place ([`Slot::view`]) trusts the producer not to rewrite what it has published. A reader that trusts
//! nobody copies ([`Slot::copy_archive`]) and validates its copy. No reader indexes by an unchecked number from shared
//! memory, and a segment of somebody else than the configured user or group is refused.
//!
//! Whoever may write a segment may also truncate it, and a mapping of it is then SIGBUS for everybody.
//! [`guard_mappings`] makes that an error of this one segment; programs call it at their start. Bytes that are gone read
//! as zeros, and no record that was cut is given out: what is behind a copy is looked at before the copy counts. (One
//! exception is left: a file that is cut within its very last page, in the middle of a record that stands there.)
//!
//! # Getting a damaged lane back
//!
//! A lane that broke a rule or lost its memory is quarantined by its readers for as long as its file stays: end the
//! producer, remove the file, start the producer. It makes a new lane of that name, and readers attach to it at once and
//! let go of the old one. What they had not read of the old one is lost.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod bus;
mod clock;
mod codec;
mod doorbell;
mod encoded;
pub mod inspect;
#[cfg(feature = "json")]
pub mod json;
mod layout;
#[cfg(bellwire_loom)]
#[allow(unsafe_code)]
mod loom;
pub mod notification;
mod presence;
mod producer;
mod reader;
mod record;
mod region;
mod ring;
mod sync;
mod tap;

pub use bus::{CONSUMERS_MAX, DEFAULT_BUS, LANES_MAX, NAME_LEN_MAX, NameError, SegmentKind, check_name};
pub use codec::EncodeError;
pub use encoded::{Encoded, Publishable};
pub use layout::{IdentityError, LAYOUT_VERSION, abi_fingerprint};
pub use notification::*;
pub use presence::Presence;
pub use producer::{Batch, Counters, Producer, ProducerOptions, PublishError, Published};
pub use reader::{
    Budget, LaneFault, LaneId, LaneInfo, Reader, ReaderOptions, Refresh, Scout, Slot, Wake, Waker,
};
pub use record::{RECORD_ALIGN, RECORD_HEADER_LEN, RECORD_LEN_MAX, RecordError, RecordHeader, to_record};
pub use region::guard::{Access, Guarded, guard_mappings};
pub use region::{OpenError, SegmentFault};
pub use ring::reader::RingFault;
pub use tap::{Tap, TapPoll, TapRecord, TapStart};

/// The README's producer compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
