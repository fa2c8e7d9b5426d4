//! What happens because time passes: heartbeats, pings, and ends.
//!
//! There is no timer for a session. One coarse tick a shard looks at a part of the table, so that each session is looked
//! at once in every round of the table and the work is spread evenly. A shard without sessions does not tick at all.

use std::time::Duration;

use super::Shard;
use super::render;
use super::session::State;
use super::settings::Settings;
use super::table::Handle;
use crate::clock::wall_ns;
use crate::protocol::outbound::{Frame, PerStream, Position, Time, Why};
use crate::protocol::{Close, Epoch, Stream};

/// Ticks in which the whole table is looked at once.
const TICKS_PER_ROUND: u64 = 10;

/// Longest round: how late anything here may be, in milliseconds.
const ROUND_MS_MAX: u64 = 1_000;

/// A client is told so long before its token ends, in milliseconds.
const EXPIRING_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Clockwork {
    tick_ns: u64,
    next_ns: u64,
    /// The slot at which the next tick begins.
    slot: usize,
}

impl Clockwork {
    pub(super) fn new(settings: &Settings) -> Self {
        let shortest = settings.auth_within_ms.min(settings.idle_ms).min(settings.heartbeat_ms);
        let round_ms = (shortest / 4).clamp(TICKS_PER_ROUND, ROUND_MS_MAX);
        Self { tick_ns: round_ms * 1_000_000 / TICKS_PER_ROUND, next_ns: 0, slot: 0 }
    }

    pub(super) fn wait(&self, now_ns: u64) -> Duration {
        Duration::from_nanos(self.next_ns.saturating_sub(now_ns))
    }
}

impl Shard {
    /// Looks at the next part of the table if it is time.
    pub(super) fn run_clockwork(&mut self) {
        let now_ns = self.now_ns();
        if now_ns < self.clockwork.next_ns {
            return;
        }
        self.clockwork.next_ns = now_ns + self.clockwork.tick_ns;
        let slots = self.sessions.slots();
        let part = slots.div_ceil(TICKS_PER_ROUND as usize);
        let (now, wall) = (now_ns / 1_000_000, wall_ns());
        for _ in 0..part {
            let slot = self.clockwork.slot % slots;
            self.clockwork.slot = slot + 1;
            if let Some((handle, _)) = self.sessions.at(slot as u32) {
                self.look_after(handle, now, wall);
            }
        }
    }

    fn look_after(&mut self, handle: Handle, now: u64, wall: i64) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        match session.state {
            State::Anonymous if now >= session.deadline => return self.close(handle, Close::AuthTimeout),
            State::Closing { .. } if now >= session.deadline => return self.drop_session(handle),
            State::Anonymous | State::Closing { .. } => return,
            State::Asking | State::Open => {}
        }
        let silent = now.saturating_sub(session.last_heard);
        // A client that waits for our answer is not to blame for its silence.
        if silent >= self.settings.idle_ms && !session.paused {
            return self.close(handle, Close::HeartbeatTimeout);
        }
        let wall_ms = u64::try_from(wall / 1_000_000).unwrap_or_default();
        let ends_in_ms = session.expires.saturating_mul(1000).saturating_sub(wall_ms);
        if ends_in_ms == 0 {
            let late_ms = wall_ms.saturating_sub(session.expires.saturating_mul(1000));
            if late_ms >= self.settings.leeway_s * 1000 {
                return self.close(handle, Close::TokenExpired);
            }
        }
        let session = match self.sessions.get_mut(handle) {
            Some(session) if session.state == State::Open => session,
            _ => return,
        };
        let mut wrote = false;
        if session.is_v1() && !session.warned && ends_in_ms <= EXPIRING_MS {
            session.warned = true;
            let expires = session.expires;
            self.say_text(handle, |out| Frame::AuthExpiring { expires, in_ms: ends_in_ms }.write(out));
            wrote = true;
        }
        let Some(session) = self.sessions.get_mut(handle) else { return };
        if silent >= self.settings.ping_after_ms && now >= session.next_ping {
            session.next_ping = now + self.settings.ping_after_ms;
            self.say(handle, |out, _| out.ping());
            wrote = true;
        }
        let Some(session) = self.sessions.get_mut(handle) else { return };
        if now >= session.next_heartbeat && !session.held {
            session.next_heartbeat = now + self.settings.heartbeat_ms;
            self.heartbeat(handle, wall);
            wrote = true;
        }
        if wrote {
            self.write(handle);
        }
    }

    /// Tells the client how far its streams are, so that it notices if the last notification was lost.
    fn heartbeat(&mut self, handle: Handle, wall: i64) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let user = session.user.and_then(|index| self.users.get(index));
        let mut begun_anew = [None; 2];
        let positions = Stream::BOTH.map(|stream| {
            let tracked = super::work::tracked_of(stream, user, self.everybody);
            let has_pending = session.backlog.has(stream);
            let cursor = &mut session.cursors[stream as usize];
            let mut prev = cursor.announced;
            // What waits is still to be announced; what was passed over (other channels) is announced here.
            if cursor.live && !has_pending {
                if cursor.epoch != tracked.epoch {
                    begun_anew[stream as usize] = Some(tracked);
                    cursor.epoch = tracked.epoch;
                    prev = tracked.head;
                }
                cursor.announced = tracked.head;
            }
            Position { epoch: Epoch(cursor.epoch), prev, seq: cursor.announced }
        });
        self.say(handle, |out, _| {
            for stream in Stream::BOTH {
                if let Some(tracked) = begun_anew[stream as usize] {
                    render::resync(stream, tracked.epoch, tracked.head, Why::EpochChanged, out);
                }
            }
            out.text(|out| {
                let [user, all] = positions;
                Frame::Heartbeat { time: Time(wall), streams: PerStream { user, all } }.write(out);
                Some(())
            });
        });
    }
}
