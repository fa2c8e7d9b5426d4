//! Publishing with an audit: what the bus took is told to the parent; what a full ring refused is tried again.

use std::io::{BufWriter, StdoutLock, Write};
use std::time::{Duration, Instant};

use bellwire::{MessageType, Notification, Priority, Producer, ProducerOptions, PublishError, Reader};

use super::ProducerError;
use crate::audit::Entry;
use crate::exchange::User;

/// Rings of an exchange in small: a second and more of everything, and three lanes fit into the 64 MB of /dev/shm that
/// a container has.
const CAPACITIES: [(Priority, usize); 4] =
    [(Priority::P0, 512 << 10), (Priority::P1, 2 << 20), (Priority::P2, 2 << 20), (Priority::P3, 1 << 20)];

/// So long we wait for the consumers, and so long a ring may be full.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two tries at a full ring.
const RETRY: Duration = Duration::from_micros(300);

pub(super) struct Publisher {
    producer: Producer,
    audit: BufWriter<StdoutLock<'static>>,
    /// Pushed to the batch that is open, not committed yet.
    pushed: Vec<Entry>,
    published: u64,
    refused: u64,
    full_since: Option<Instant>,
}

impl Publisher {
    pub(super) fn open(bus: &str, lane: &str) -> Result<Self, ProducerError> {
        let options = CAPACITIES
            .into_iter()
            .fold(ProducerOptions::new(), |options, (priority, bytes)| options.capacity(priority, bytes));
        Ok(Self {
            producer: options.open(bus, lane)?,
            audit: BufWriter::with_capacity(64 << 10, std::io::stdout().lock()),
            pushed: Vec::new(),
            published: 0,
            refused: 0,
            full_since: None,
        })
    }

    /// Waits until that many consumers gate the lane, so that not even the first record can be missed.
    pub(super) fn wait_for_consumers(
        &mut self,
        consumers: usize,
        mut own: Option<&mut Reader>,
    ) -> Result<(), ProducerError> {
        let since = Instant::now();
        loop {
            // One of the consumers may be ourselves.
            if let Some(reader) = own.as_deref_mut() {
                reader.refresh();
            }
            self.producer.look();
            let found = self.producer.counters().gating;
            if found >= consumers {
                break;
            }
            if since.elapsed() > PATIENCE {
                let (lane, seconds) = (self.producer.name().to_owned(), PATIENCE.as_secs());
                return Err(ProducerError::Consumers { lane, found, expected: consumers, seconds });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.audit.write_all(&Entry::Ready.to_bytes())?;
        Ok(self.audit.flush()?)
    }

    /// Publishes as one batch whatever `fill` pushes; waits while a ring is full.
    pub(super) fn batch(
        &mut self,
        mut fill: impl FnMut(&mut Pusher<'_, '_>) -> Result<(), PublishError>,
    ) -> Result<(), ProducerError> {
        while !self.try_batch(&mut fill)? {}
        Ok(())
    }

    /// Publishes as one batch whatever `fill` pushes. `Ok(false)`: a ring is full, nothing of it was published, and a
    /// moment has passed; try again, after reading on if this process gates its own lane.
    pub(super) fn try_batch(
        &mut self,
        fill: impl FnOnce(&mut Pusher<'_, '_>) -> Result<(), PublishError>,
    ) -> Result<bool, ProducerError> {
        self.pushed.clear();
        let mut pusher = Pusher {
            batch: self.producer.batch(),
            pushed: &mut self.pushed,
            last: MessageType::SystemNotice,
        };
        match fill(&mut pusher) {
            Ok(()) => {
                pusher.batch.commit();
            }
            Err(PublishError::Full { .. }) => {
                drop(pusher);
                self.refused += 1;
                if self.full_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    let (lane, seconds) = (self.producer.name().to_owned(), PATIENCE.as_secs());
                    return Err(ProducerError::Stuck { lane, seconds });
                }
                std::thread::sleep(RETRY);
                return Ok(false);
            }
            Err(error) => return Err(ProducerError::Publish { what: pusher.last, error }),
        }
        self.full_since = None;
        self.published += self.pushed.len() as u64;
        for entry in &self.pushed {
            self.audit.write_all(&entry.to_bytes())?;
        }
        Ok(true)
    }

    /// Sends the audit on its way.
    pub(super) fn flush(&mut self) -> Result<(), ProducerError> {
        if self.refused > 0 {
            self.audit.write_all(&Entry::Refused(std::mem::take(&mut self.refused)).to_bytes())?;
        }
        Ok(self.audit.flush()?)
    }

    /// The last entry.
    pub(super) fn end(mut self) -> Result<(), ProducerError> {
        self.flush()?;
        self.audit.write_all(&Entry::End(self.published).to_bytes())?;
        Ok(self.audit.flush()?)
    }
}

/// Takes notifications into the batch that is open.
pub(super) struct Pusher<'a, 'p> {
    batch: bellwire::Batch<'a>,
    pushed: &'p mut Vec<Entry>,
    last: MessageType,
}

impl Pusher<'_, '_> {
    pub(super) fn push(
        &mut self,
        user: Option<User>,
        notification: &Notification<'_>,
    ) -> Result<(), PublishError> {
        self.last = notification.message_type();
        let published = self.batch.push(notification)?;
        self.pushed.push(Entry::published(user, notification.priority, &published));
        Ok(())
    }
}
