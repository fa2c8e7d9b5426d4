//! One session: a socket, and how far it is in two streams.

use std::task::Waker;

use super::backlog::Backlog;
use super::flush::Queued;
use super::limits::{AddressPermit, UserPermit};
use super::replay::Replay;
use super::users::UserIndex;
use crate::auth::{ChannelSet, Identity, TokenMark};
use crate::protocol::Id;
use crate::protocol::outbound::Joined;
use crate::socket::handshake::Flavour;
use crate::socket::{Out, Transport};

/// What a session holds while it is idle should stay well under 400 bytes; what it needs only now and then is boxed.
pub(super) struct Session {
    pub(super) transport: Transport,
    pub(super) waker: Waker,
    pub(super) state: State,
    pub(super) flavour: Flavour,
    /// Nothing more is read from the client until the answer that it waits for is there.
    pub(super) paused: bool,
    /// Nothing is written but answers until `subscribed` has been.
    pub(super) held: bool,
    /// It stands in the shard's list of replays and snapshots to go on with.
    pub(super) listed: bool,
    /// Engines were told that it is there.
    pub(super) told: bool,
    /// `auth_expiring` was sent for this token.
    pub(super) warned: bool,
    pub(super) queued: Queued,
    /// What the token permits.
    pub(super) permitted: ChannelSet,
    /// What is delivered.
    pub(super) channels: ChannelSet,
    /// Set from the moment at which the token was accepted.
    pub(super) user: Option<UserIndex>,
    pub(super) cursors: [Cursor; 2],
    /// What is to be delivered.
    pub(super) backlog: Backlog,
    /// Bytes that the kernel has not taken yet.
    pub(super) out: Option<Box<Out>>,
    /// An incomplete frame or message of the client.
    pub(super) input: Option<Box<Input>>,
    /// What goes on over several turns.
    pub(super) work: Option<Box<Work>>,
    /// Counts the shard's sessions.
    pub(super) number: u64,
    /// In seconds since the shard's start.
    pub(super) opened_s: u32,
    /// Times in milliseconds since the shard's start.
    pub(super) last_heard: u64,
    pub(super) next_ping: u64,
    pub(super) next_heartbeat: u64,
    /// End of the time to authenticate, or of the time to close.
    pub(super) deadline: u64,
    /// End of the token, in seconds since the Unix epoch.
    pub(super) expires: u64,
    /// By what the token is found when it is revoked.
    pub(super) token: TokenMark,
    pub(super) allowance: Allowance,
    pub(super) user_permit: Option<UserPermit>,
    pub(super) _address_permit: AddressPermit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The client has not said who it is.
    Anonymous,
    /// The token is good; the broker was asked how far the streams are.
    Asking,
    Open,
    /// The close frame is under way or was sent; what still comes is thrown away.
    Closing {
        /// The client has said good-bye too: nothing is waited for but the last byte.
        agreed: bool,
    },
}

/// How far a session is in one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    /// The position last announced to the client: `prev` of the next frame.
    pub(super) announced: u64,
    pub(super) epoch: u32,
    /// New records are delivered as they come. Not so during a replay, which reaches them by itself.
    pub(super) live: bool,
}

/// What the client sent of a frame or a message so far. Bounded by limits.frame_bytes_max, or by the read buffer while
/// the session is paused.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) bytes: Vec<u8>,
    pub(super) fragments: Option<Vec<u8>>,
}

/// What a session is in the middle of.
#[derive(Default)]
pub(super) struct Work {
    pub(super) auth: Option<PendingAuth>,
    pub(super) subscribe: Option<PendingSubscribe>,
    pub(super) replays: [Option<Replay>; 2],
    pub(super) snapshot: Option<PendingSnapshot>,
}

impl Work {
    pub(super) fn is_done(&self) -> bool {
        self.auth.is_none()
            && self.subscribe.is_none()
            && self.snapshot.is_none()
            && self.replays.iter().all(Option::is_none)
    }
}

pub(super) struct PendingAuth {
    pub(super) id: Option<Id<'static>>,
    pub(super) identity: Identity,
}

/// A `subscribe` whose resumes are still being checked.
pub(super) struct PendingSubscribe {
    pub(super) id: Option<Id<'static>>,
    pub(super) joined: [Joined; 2],
    /// The client has to start afresh in these.
    pub(super) resync: [Option<crate::protocol::outbound::Why>; 2],
    pub(super) snapshot: bool,
}

/// A snapshot that goes out page by page.
pub(super) struct PendingSnapshot {
    pub(super) epoch: u32,
    pub(super) as_of: u64,
    /// Bounded by what the broker keeps: one for each instrument, and one.
    pub(super) offsets: Vec<u64>,
    pub(super) next: usize,
}

/// A token bucket for what a client sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    frames: u32,
    /// The thousandth of frames that have grown again.
    thousandths: u32,
    as_of: u64,
    /// Until then a breach is a repeated one.
    on_probation_until: u64,
}

/// The outcome of one more frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    Yes,
    /// The first breach: say so, and forget it.
    Warn,
    No,
}

/// After so long without a breach, the next one is a first one again, in milliseconds.
const FORGIVEN_AFTER_MS: u64 = 60_000;

impl Allowance {
    pub(super) fn new(burst: u32, now: u64) -> Self {
        Self { frames: burst, thousandths: 0, as_of: now, on_probation_until: 0 }
    }

    /// One more frame at `now` (milliseconds).
    pub(super) fn frame(&mut self, per_second: u32, burst: u32, now: u64) -> Allowed {
        let elapsed = now.saturating_sub(self.as_of);
        self.as_of = now;
        let grown = elapsed.saturating_mul(u64::from(per_second)) + u64::from(self.thousandths);
        let frames = u64::from(self.frames) + grown / 1000;
        if frames >= u64::from(burst) {
            (self.frames, self.thousandths) = (burst, 0);
        } else {
            (self.frames, self.thousandths) = (frames as u32, (grown % 1000) as u32);
        }
        if self.frames > 0 {
            self.frames -= 1;
            return Allowed::Yes;
        }
        if now < self.on_probation_until {
            return Allowed::No;
        }
        // A client that is told must be able to react before it is closed.
        self.on_probation_until = now + FORGIVEN_AFTER_MS;
        self.frames = burst;
        Allowed::Warn
    }
}

impl Session {
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    pub(super) fn is_v1(&self) -> bool {
        self.flavour == Flavour::V1
    }

    /// Nothing is subscribed to any more: nothing is delivered, also of what waits already and of a replay.
    pub(super) fn deliver_nothing(&mut self) {
        self.backlog.clear();
        self.work = None;
        for cursor in &mut self.cursors {
            cursor.live = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        assert!(size_of::<Session>() <= 320, "{}", size_of::<Session>());
    }

    #[test]
    fn a_breach_is_forgiven_after_a_minute_although_the_client_never_fell_silent() {
        let mut allowance = Allowance::new(1, 0);
        assert_eq!([0, 0].map(|now| allowance.frame(1, 1, now)), [Allowed::Yes, Allowed::Warn]);
        for now in (1_000..60_000).step_by(1_000) {
            assert_eq!(allowance.frame(1, 1, now), Allowed::Yes);
        }
        assert_eq!([60_000, 60_000].map(|now| allowance.frame(1, 1, now)), [Allowed::Yes, Allowed::Warn]);
    }

    #[test]
    fn the_first_breach_is_a_warning_and_a_repeat_is_not() {
        let mut allowance = Allowance::new(3, 0);
        let mut frame = |now| allowance.frame(10, 3, now);
        assert_eq!(
            [frame(0), frame(0), frame(0), frame(0)],
            [Allowed::Yes, Allowed::Yes, Allowed::Yes, Allowed::Warn]
        );
        assert_eq!(
            [frame(0), frame(0), frame(0), frame(0)],
            [Allowed::Yes, Allowed::Yes, Allowed::Yes, Allowed::No]
        );
        assert_eq!(frame(99), Allowed::No, "a frame grows in 100 ms");
        assert_eq!(frame(101), Allowed::Yes);
        for now in 0..4 {
            assert_eq!(frame(61_000 + now), if now < 3 { Allowed::Yes } else { Allowed::Warn });
        }
    }
}
