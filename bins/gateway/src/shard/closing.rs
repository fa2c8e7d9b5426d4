//! How sessions end.

use std::time::Duration;

use super::Shard;
use super::orders::Conn;
use super::session::State;
use super::table::Handle;
use crate::protocol::{Close, outbound};

/// How long a client may take to read the rest and to answer the close frame, in milliseconds.
const LINGER_MS: u64 = 5_000;

/// So long before its time is over a shard ends with sessions that have not, in milliseconds: those who wait for it are to see
/// an end in order.
const LAST_MS: u64 = 100;

/// Clients are sent away at once and should not come back at once: each is given a time of its own up to this, in
/// milliseconds.
const RECONNECT_SPREAD_MS: u64 = 2_000;

/// What a close without a code, and an end without a close, are called by the WebSocket standard.
const NO_STATUS: u16 = 1005;
const ABNORMAL: u16 = 1006;

/// The earliest time at which coming back makes sense, in milliseconds.
const RECONNECT_MIN_MS: u64 = 250;

impl Shard {
    /// Closes the session: what is in its out buffer goes out, then a close frame. Nothing more is delivered.
    pub(super) fn close(&mut self, handle: Handle, close: Close) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        if session.is_closing() {
            return;
        }
        self.counters.closes[close.index()].add(1);
        tracing::debug!(shard = self.index, slot = handle.slot, code = close.code(), "{}", close.reason());
        self.begin_closing(handle, false, (close.code(), close.reason()));
        self.say(handle, |out, _| out.close(Some(close.code()), close.reason()));
        self.write(handle);
    }

    /// The client said good-bye: it gets the same back, and that was it.
    pub(super) fn agree_to_close(&mut self, handle: Handle, code: Option<u16>) {
        self.begin_closing(handle, true, (code.unwrap_or(NO_STATUS), ""));
        self.say(handle, |out, _| out.close(code, ""));
        self.write(handle);
    }

    fn begin_closing(&mut self, handle: Handle, agreed: bool, why: (u16, &str)) {
        self.tell_of_end(handle, why);
        let deadline = self.now_ms() + LINGER_MS;
        let Some(session) = self.sessions.get_mut(handle) else { return };
        session.state = State::Closing { agreed };
        session.deadline = deadline;
        session.backlog.clear();
        session.work = None;
        session.paused = false;
        // Its place among the user's sessions is free for the one that takes over.
        session.user_permit = None;
        if let Some(user) = session.user.take() {
            self.users.detach(user, handle.slot);
        }
    }

    /// Tells the engines, if they were told of its beginning. Before its user is taken from it.
    fn tell_of_end(&mut self, handle: Handle, (code, reason): (u16, &str)) {
        let (Some(presence), Some(session)) = (&self.presence, self.sessions.get_mut(handle)) else { return };
        if std::mem::take(&mut session.told)
            && let Some(user) = session.user.and_then(|index| self.users.get(index))
        {
            let conn = Conn { shard: self.index, number: session.number };
            presence.closed(&user.id, &conn.to_string(), code, reason);
        }
    }

    /// Takes the session out of the table; the socket is closed.
    pub(super) fn drop_session(&mut self, handle: Handle) {
        self.tell_of_end(handle, (ABNORMAL, "connection_lost"));
        let Some(mut session) = self.sessions.remove(handle) else { return };
        if let Some(user) = session.user.take() {
            self.users.detach(user, handle.slot);
        }
        self.counters.sessions.set(self.sessions.len() as u64);
    }

    /// The shard ends: every session gets what the journal has for it, a good-bye and a close.
    pub(super) fn say_good_bye(&mut self, time: Duration) {
        let time_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.ends_at = Some(self.now_ms() + LINGER_MS.min(time_ms.saturating_sub(LAST_MS)));
        let handles: Vec<Handle> = self.sessions.iter_mut().map(|(handle, _)| handle).collect();
        let count = handles.len() as u64;
        for (index, handle) in handles.into_iter().enumerate() {
            // Evenly over the spread, in an order that has nothing to do with who came first.
            let place = (index as u64).wrapping_mul(0x9e37_79b9) % count.max(1);
            let reconnect_after_ms = RECONNECT_MIN_MS + place * RECONNECT_SPREAD_MS / count.max(1);
            if self.sessions.get_mut(handle).is_some_and(|session| session.is_v1() && !session.is_closing()) {
                self.say_text(handle, |out| outbound::goodbye(Close::Drain, reconnect_after_ms, out));
            }
            self.close(handle, Close::Drain);
        }
    }
}
