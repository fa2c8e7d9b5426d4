//! Revocations reach sessions that are open.
//!
//! When something was revoked, the shard looks through all of its sessions, a part in each turn, so that a push never waits
//! for the whole table. A shard that sleeps is woken by the clockwork's tick, which it has as long as it has sessions. A token that
//! was verified before and becomes a session's only later is looked at when it does (see `authenticated`).

use super::Shard;
use super::table::Handle;
use crate::auth::TokenMark;
use crate::doors::Doors;
use crate::protocol::{Close, Refusal};

/// Sessions that are looked at before something else has its turn.
const SLICE: usize = 512;

#[derive(Debug)]
pub(super) struct Sweep {
    /// Of the revocations that every session was measured by, or is being measured by.
    generation: u64,
    /// The slot to go on with.
    next: Option<usize>,
}

impl Sweep {
    pub(super) fn new(doors: &Doors) -> Self {
        Self { generation: doors.verifier().revocations().generation(), next: None }
    }
}

impl Shard {
    /// Closes a part of the sessions whose token was revoked; `true` if there is more to look at.
    pub(super) fn look_for_revoked(&mut self) -> bool {
        let generation = self.doors.verifier().revocations().generation();
        if generation != self.sweep.generation {
            self.sweep.generation = generation;
            self.sweep.next = Some(0);
        }
        let Some(from) = self.sweep.next else { return false };
        let end = self.sessions.slots().min(from + SLICE);
        for slot in from..end {
            let Some((handle, session)) = self.sessions.at(slot as u32) else { continue };
            let Some(user) = session.user.and_then(|index| self.users.get(index)) else { continue };
            if self.doors.verifier().revocations().is_revoked(&user.id, session.token) {
                self.take_back(handle);
            }
        }
        self.sweep.next = (end < self.sessions.slots()).then_some(end);
        self.sweep.next.is_some()
    }

    /// Whether a token that was verified a moment ago has been revoked since.
    pub(super) fn is_revoked_by_now(&self, user_id: &str, token: TokenMark) -> bool {
        self.doors.verifier().revocations().is_revoked(user_id, token)
    }

    /// Ends a session whose token was revoked.
    pub(super) fn take_back(&mut self, handle: Handle) {
        if self.sessions.get_mut(handle).is_some_and(|session| session.is_v1()) {
            self.refuse(handle, None, &Refusal::TokenRevoked);
        }
        self.close(handle, Close::TokenRevoked);
    }
}
