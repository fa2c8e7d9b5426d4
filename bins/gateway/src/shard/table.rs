//! The sessions of one shard: dense slots that are used again, with a generation that tells their tenants apart.

use std::sync::Arc;
use std::task::Waker;

use super::bell::{ReadyList, SlotWaker};
use super::session::Session;

/// A session, for as long as it is that one: what refers to its slot later finds nothing of a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Handle {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

#[derive(Default)]
pub(super) struct Table {
    // Bounded by limits.sessions_total.
    slots: Vec<Slot>,
    free: Vec<u32>,
    len: usize,
}

struct Slot {
    generation: u32,
    waker: Arc<SlotWaker>,
    session: Option<Session>,
}

impl Table {
    /// Puts a session into a free slot. `make` is given what it must know of it.
    pub(super) fn insert(
        &mut self,
        ready: &Arc<ReadyList>,
        make: impl FnOnce(Handle, Waker) -> Session,
    ) -> Handle {
        let slot = self.free.pop().unwrap_or_else(|| {
            let slot = self.slots.len() as u32;
            self.slots.push(Slot {
                generation: 0,
                waker: Arc::new(SlotWaker::new(slot, ready)),
                session: None,
            });
            slot
        });
        let entry = &mut self.slots[slot as usize];
        let handle = Handle { slot, generation: entry.generation };
        entry.session = Some(make(handle, Waker::from(Arc::clone(&entry.waker))));
        self.len += 1;
        handle
    }

    /// Takes the session out; every handle to it is void from here on.
    pub(super) fn remove(&mut self, handle: Handle) -> Option<Session> {
        let entry = self.slots.get_mut(handle.slot as usize).filter(|e| e.generation == handle.generation)?;
        let session = entry.session.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(handle.slot);
        self.len -= 1;
        Some(session)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, handle: Handle) -> Option<&mut Session> {
        self.slots
            .get_mut(handle.slot as usize)
            .filter(|entry| entry.generation == handle.generation)?
            .session
            .as_mut()
    }

    /// The session that stands in that slot now.
    pub(super) fn at(&mut self, slot: u32) -> Option<(Handle, &mut Session)> {
        let entry = self.slots.get_mut(slot as usize)?;
        let handle = Handle { slot, generation: entry.generation };
        Some((handle, entry.session.as_mut()?))
    }

    /// The socket of that slot is about to be looked at.
    pub(super) fn unlist(&self, slot: u32) {
        if let Some(entry) = self.slots.get(slot as usize) {
            entry.waker.unlist();
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Handle, &mut Session)> {
        self.slots.iter_mut().enumerate().filter_map(|(slot, entry)| {
            let handle = Handle { slot: slot as u32, generation: entry.generation };
            Some((handle, entry.session.as_mut()?))
        })
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many slots there are, used and free.
    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }
}
