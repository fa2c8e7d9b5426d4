//! How a consumer is opened.

use std::path::Path;
use std::time::Duration;

use super::lanes::Lanes;
use super::waiting::Bedside;
use super::{Reader, cursors_header};
use crate::bus::{CONSUMERS_MAX, SHM_DIR, SegmentKind, segment_file};
use crate::clock;
use crate::codec::form::{FINGERPRINT_SEED, mix, mix_text};
use crate::layout::{CURSORS_LEN, CURSORS_MAGIC, CursorsHeader, init_cursors};
use crate::region::directory;
use crate::region::owned::{Origin, OwnedSegment};
use crate::region::{OpenError, Trust, fork};
use crate::sync::Ordering;

/// How a consumer opens its cursors.
///
/// ```
/// use std::time::Duration;
///
/// # let bus = format!("doc-{}-e", std::process::id());
/// let reader = bellwire::ReaderOptions::new().spin(Duration::from_micros(50)).open(&bus, "storage")?;
/// assert_eq!(reader.mark(), 0);
/// # drop(reader);
/// # bellwire::inspect::remove_unheld(&bus)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    group: Option<String>,
    spin: Duration,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { group: None, spin: Duration::from_micros(10) }
    }
}

impl ReaderOptions {
    /// The defaults: private to this user, spinning for 10 µs before it sleeps.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the members of this group read the cursors (mode 0640), which producers must, and trusts lanes that belong
    /// to it. Without a group only lanes of this user are read.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// How long [`Reader::wait`] spins at most before it sleeps. Where that has not paid of late, it sleeps at once, and
    /// spins only now and then to see whether it would pay again. [`Duration::MAX`]: it never sleeps, for a reader with a
    /// core of its own.
    #[must_use]
    pub fn spin(mut self, spin: Duration) -> Self {
        self.spin = spin;
        self
    }

    /// Opens the cursors, new or where the last process of this consumer left them, and attaches to all lanes.
    ///
    /// # Errors
    /// [`OpenError`]; among others: a live process is this consumer ([`OpenError::InUse`]); the bus has sixteen others
    /// ([`OpenError::TooManyConsumers`]); the segment is of another build ([`OpenError::Identity`]). Lanes that cannot be
    /// attached are no error here: [`Reader::refresh`] tells of them.
    pub fn open(self, bus: &str, consumer: &str) -> Result<Reader, OpenError> {
        let file = segment_file(bus, SegmentKind::Cursors, consumer)?;
        let trust = Trust::with_group(self.group.as_deref())?;
        let others = consumers(bus)?;
        if others.len() >= CONSUMERS_MAX && !others.iter().any(|name| name == consumer) {
            return Err(OpenError::TooManyConsumers { bus: bus.to_owned(), count: others.len() });
        }
        let now = clock::wall_ns();
        let key = mix(mix(mix_text(FINGERPRINT_SEED, &file), now as u64), u64::from(std::process::id()));
        let header = new_header(consumer, key, now);
        let (segment, origin) = OwnedSegment::open(&file, CURSORS_LEN, &header, &trust)?;
        let path = segment.path();
        // Several may have come at once, and each found room. Then each of them that finds too many withdraws.
        if origin == Origin::Created {
            let count = consumers(bus)?.len();
            if count > CONSUMERS_MAX {
                std::fs::remove_file(path).map_err(|error| OpenError::io(path, "remove", error))?;
                return Err(OpenError::TooManyConsumers { bus: bus.to_owned(), count: count - 1 });
            }
        }
        let header = cursors_header(&segment);
        header
            .identity
            .check(CURSORS_MAGIC, segment.len() as u64)
            .map_err(|reason| OpenError::identity(path, reason))?;
        OpenError::unless_named(path, &header.identity.name.load(), consumer)?;
        segment.populate()?;

        header.owner.opened_at.store(now, Ordering::Relaxed); // for people
        let mut reader = Reader {
            lanes: Lanes::new(bus, consumer, trust, header),
            bedside: Bedside::new(self.spin),
            scratch: Vec::new(),
            name: consumer.to_owned(),
            generation: fork::generation(),
            segment,
        };
        reader.lanes.refresh(cursors_header(&reader.segment));
        Ok(reader)
    }
}

fn consumers(bus: &str) -> Result<Vec<String>, OpenError> {
    directory::names(bus, SegmentKind::Cursors)
        .map_err(|error| OpenError::io(Path::new(SHM_DIR), "list", error))
}

/// The bytes of a new cursor segment's header.
#[allow(unsafe_code)]
fn new_header(name: &str, key: u64, created_at: i64) -> Vec<u8> {
    // SAFETY: the header is made of atomic integers, for which zeros are values.
    let header: Box<CursorsHeader> = unsafe { Box::<CursorsHeader>::new_zeroed().assume_init() };
    init_cursors(&header, name, key, created_at);
    header.owner.pid.store(std::process::id(), Ordering::Relaxed); // nobody else knows the header yet
    // SAFETY: as many initialised bytes as the header has (zeroed as a whole, padding too); nobody else knows it.
    unsafe { std::slice::from_raw_parts((&raw const *header).cast::<u8>(), size_of::<CursorsHeader>()) }
        .to_vec()
}
