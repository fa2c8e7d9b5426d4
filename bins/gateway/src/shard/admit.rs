//! From a connection to an open session: handshake, `hello`, token, the broker's answer, `auth_ok`.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::backlog::Backlog;
use super::orders::Conn;
use super::session::{Allowance, Cursor, PendingAuth, PendingSnapshot, Session, State, Work};
use super::table::Handle;
use super::users::Tracked;
use super::{Connection, Shard};
use crate::auth::{ChannelSet, Identity, TokenError, TokenMark};
use crate::broker::{BrokerGone, StreamState};
use crate::clock::wall_ns;
use crate::protocol::outbound::{Frame, PerStream, StreamRange, Time};
use crate::protocol::{Close, Epoch, Id, Refusal, Stream};
use crate::shard::limits::AddressPermit;
use crate::socket::handshake::{self, Accepted, Admission, Flavour};
use crate::version::VERSION;

/// Handshakes at once. At the bound further connections wait in the channel.
const HANDSHAKES_MAX: usize = 1024;

/// Arrivals before something else has its turn.
const SLICE: usize = 64;

/// A WebSocket whose handshake is done.
pub(super) struct Arrived {
    accepted: Accepted,
    permit: AddressPermit,
}

/// What the broker said.
pub(super) enum Answer {
    Streams { handle: Handle, states: Result<[StreamState; 2], BrokerGone> },
    Snapshot { handle: Handle, snapshot: Result<(StreamState, Vec<u64>), BrokerGone> },
}

impl Answer {
    /// The place in the journal that the answer is as of.
    fn journal_end(&self) -> u64 {
        match self {
            Self::Streams { states: Ok([user, all]), .. } => user.journal_end.max(all.journal_end),
            Self::Snapshot { snapshot: Ok((state, _)), .. } => state.journal_end,
            _ => 0,
        }
    }
}

impl Shard {
    /// Starts handshakes; `true` if connections are left.
    pub(super) fn take_connections(&mut self) -> bool {
        // Relaxed throughout: a number of this thread.
        while self.inbox.handshakes.load(Ordering::Relaxed) < HANDSHAKES_MAX {
            let Ok(Connection { stream, peer, mut place }) = self.asked.connections.try_recv() else {
                return false;
            };
            let Ok(stream) = tokio::net::TcpStream::from_std(stream) else {
                self.counters.handshakes_failed.add(1);
                continue;
            };
            let (inbox, doors) = (Arc::clone(&self.inbox), Arc::clone(&self.doors));
            let (bell, counters) = (self.bell.clone(), self.counters.clone());
            let time = self.settings.handshake;
            inbox.handshakes.fetch_add(1, Ordering::Relaxed);
            tokio::task::spawn_local(async move {
                let admit = |client: Option<IpAddr>| {
                    let counted = match (&mut place, client) {
                        (Ok(permit), Some(address)) => permit.count_address(address),
                        (Ok(_), None) => Ok(()),
                        (Err(admission), _) => Err(*admission),
                    };
                    counted.err().unwrap_or(Admission::Admitted)
                };
                let shaken = tokio::time::timeout(time, handshake::accept(stream, peer, &doors, admit)).await;
                match (shaken, place) {
                    (Ok(Ok(accepted)), Ok(permit)) => {
                        inbox.arrived().push_back(Arrived { accepted, permit });
                    }
                    (outcome, _) => {
                        counters.handshakes_failed.add(1);
                        match outcome {
                            Ok(Err(error)) => tracing::debug!(%error, "handshake"),
                            _ => tracing::debug!("handshake took too long"),
                        }
                    }
                }
                inbox.handshakes.fetch_sub(1, Ordering::Relaxed);
                bell.ring();
            });
        }
        false
    }

    /// Makes sessions of those who have arrived; `true` if some are left.
    pub(super) fn take_arrived(&mut self) -> bool {
        for _ in 0..SLICE {
            let Some(arrived) = self.inbox.arrived().pop_front() else { return false };
            self.open(arrived);
        }
        !self.inbox.arrived().is_empty()
    }

    fn open(&mut self, Arrived { accepted, permit }: Arrived) {
        let now = self.now_ms();
        let Accepted { transport, answer, flavour, identity } = accepted;
        self.opened += 1;
        let number = self.opened;
        let handle = self.sessions.insert(&self.ready, |_, waker| Session {
            transport,
            waker,
            state: State::Anonymous,
            flavour,
            paused: false,
            held: false,
            listed: false,
            told: false,
            warned: false,
            queued: Default::default(),
            permitted: ChannelSet::NONE,
            channels: ChannelSet::NONE,
            user: None,
            cursors: [Cursor::default(); 2],
            backlog: Backlog::default(),
            out: None,
            input: None,
            work: None,
            number,
            opened_s: u32::try_from(now / 1000).unwrap_or(u32::MAX),
            last_heard: now,
            next_ping: now + self.settings.ping_after_ms,
            next_heartbeat: u64::MAX,
            deadline: now + self.settings.auth_within_ms,
            expires: u64::MAX,
            token: TokenMark::default(),
            allowance: Allowance::new(self.settings.frames_burst, now),
            user_permit: None,
            _address_permit: permit,
        });
        self.counters.opened.add(1);
        self.counters.sessions.set(self.sessions.len() as u64);
        self.say(handle, |out, _| out.raw(&answer));
        if flavour == Flavour::V1 {
            let conn = Conn { shard: self.index, number }.to_string();
            let settings = std::sync::Arc::clone(&self.settings);
            self.say_text(handle, |out| {
                Frame::Hello {
                    v: 1,
                    conn: &conn,
                    gateway: &settings.gateway,
                    version: VERSION,
                    time: Time(wall_ns()),
                    auth_within_ms: settings.auth_within_ms,
                    heartbeat_ms: settings.heartbeat_ms,
                    idle_ms: settings.idle_ms,
                    max_frame: settings.frame_bytes_max,
                }
                .write(out);
            });
        }
        // The broker's answer is there in a moment, and `auth_ok` with it: one write for all of that.
        let goes_with_auth_ok = flavour == Flavour::V1 && matches!(identity, Some(Ok(_)));
        if let Some(verified) = identity {
            self.identified(handle, None, verified);
        }
        if !goes_with_auth_ok {
            self.write(handle);
        }
        // Sets the waker, and reads what a hasty client has sent already.
        self.at_hand.push(handle.slot);
    }

    /// An `auth` frame.
    pub(super) fn authenticate(&mut self, handle: Handle, id: Option<&Id<'_>>, token: &str) {
        let verified = self.doors.verifier().verify(token);
        self.identified(handle, id, verified);
    }

    /// A token was looked at: the session's first, or a newer one.
    fn identified(&mut self, handle: Handle, id: Option<&Id<'_>>, verified: Result<Identity, TokenError>) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let is_refresh = session.state == State::Open;
        let identity = match verified {
            Ok(identity) => identity,
            Err(error) => {
                // A client that sees 4503 knows that a newer token is all that it needs.
                let (refusal, close) = match error {
                    TokenError::Expired => (Refusal::TokenExpired, Close::TokenExpired),
                    TokenError::Revoked => (Refusal::TokenRevoked, Close::TokenRevoked),
                    other => (Refusal::AuthFailed(other.to_string()), Close::AuthFailed),
                };
                self.refuse(handle, id, &refusal);
                // A session goes on with the token that it has.
                if !is_refresh {
                    self.close(handle, close);
                }
                return;
            }
        };
        if is_refresh {
            let is_same = session
                .user
                .and_then(|index| self.users.get(index))
                .is_some_and(|user| *user.id == *identity.user_id);
            if !is_same {
                self.refuse(handle, id, &Refusal::UserMismatch);
                return self.close(handle, Close::UserMismatch);
            }
        } else {
            let Some(permit) = self.limits.enter_user(&identity.user_id) else {
                let limit = self.limits.per_user_max();
                self.refuse(handle, id, &Refusal::SessionLimit { limit });
                return self.close(handle, Close::SessionLimit);
            };
            session.user_permit = Some(permit);
            session.token = identity.mark;
            // Before the broker is asked: what comes by from now on is noted.
            session.user = Some(self.users.attach(&identity.user_id, handle.slot));
            session.state = State::Asking;
        }
        session.paused = true;
        let user_id = identity.user_id.clone();
        let work = session.work.get_or_insert_with(Box::<Work>::default);
        work.auth = Some(PendingAuth { id: id.cloned().map(super::requests::owned), identity });
        let (queries, inbox, bell) = (self.queries.clone(), Arc::clone(&self.inbox), self.bell.clone());
        tokio::task::spawn_local(async move {
            let states = queries.streams(&user_id).await;
            inbox.answers().push_back(Answer::Streams { handle, states });
            bell.ring();
        });
    }

    pub(super) fn ask_for_snapshot(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let Some(user) = session.user.and_then(|index| self.users.get(index)) else { return };
        session.paused = true;
        let user_id = user.id.clone();
        let (queries, inbox, bell) = (self.queries.clone(), Arc::clone(&self.inbox), self.bell.clone());
        tokio::task::spawn_local(async move {
            let snapshot = queries.snapshot(&user_id).await;
            inbox.answers().push_back(Answer::Snapshot { handle, snapshot });
            bell.ring();
        });
    }

    /// Looks at the answers for which the tail has come far enough; `true` if any was looked at.
    pub(super) fn take_answers(&mut self) -> bool {
        let mut answers = std::mem::take(&mut self.early);
        answers.append(&mut self.inbox.answers());
        if answers.is_empty() {
            return false;
        }
        let caught_up = self.read_on();
        let mut taken = false;
        for answer in answers {
            // The end of a full segment is a place where no entry will ever stand: having read everything is enough.
            if self.tail < answer.journal_end() && !caught_up {
                self.early.push_back(answer);
                continue;
            }
            taken = true;
            match answer {
                Answer::Streams { handle, states: Ok(states) } => self.authenticated(handle, states),
                Answer::Snapshot { handle, snapshot: Ok((state, offsets)) } => {
                    let Some(session) = self.sessions.get_mut(handle) else { continue };
                    if session.state != State::Open {
                        continue;
                    }
                    session.paused = false;
                    let work = session.work.get_or_insert_with(Box::<Work>::default);
                    work.snapshot =
                        Some(PendingSnapshot { epoch: state.epoch, as_of: state.head, offsets, next: 0 });
                    self.list_for_work(handle);
                    self.at_hand.push(handle.slot);
                }
                Answer::Streams { handle, states: Err(_) }
                | Answer::Snapshot { handle, snapshot: Err(_) } => {
                    if self.sessions.get_mut(handle).is_some_and(|session| session.is_v1()) {
                        self.refuse(handle, None, &Refusal::BusUnavailable);
                    }
                    self.close(handle, Close::BusUnavailable);
                }
            }
        }
        taken || !self.early.is_empty()
    }

    /// The broker has answered: the session is open.
    fn authenticated(&mut self, handle: Handle, [of_user, of_all]: [StreamState; 2]) {
        let now = self.now_ms();
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let Some(work) = &mut session.work else { return };
        let Some(PendingAuth { id, identity }) = work.auth.take() else { return };
        // It was not the session's yet when the others were looked through.
        if self.is_revoked_by_now(&identity.user_id, identity.mark) {
            return self.take_back(handle);
        }
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let Some(work) = &mut session.work else { return };
        if work.is_done() {
            session.work = None;
        }
        let Some(user) = session.user.and_then(|index| self.users.get_mut(index)) else { return };
        // What came by since the answer is newer than it. Of the broadcasts all came by, unless retention was faster.
        let tracked = newer(user.tracked, &of_user);
        user.tracked = Some(tracked);
        self.everybody = newer(Some(self.everybody), &of_all);
        let is_refresh = session.state == State::Open;
        session.paused = false;
        session.expires = identity.expires;
        session.token = identity.mark;
        session.warned = false;
        session.permitted = identity.channels;
        session.channels = session.channels.intersection(identity.channels);
        if is_refresh && session.channels.is_empty() {
            session.deliver_nothing();
        }
        if !is_refresh {
            session.state = State::Open;
            if let Some(presence) = &self.presence {
                session.told = true;
                let conn = Conn { shard: self.index, number: session.number };
                presence.opened(&identity.user_id, &conn.to_string());
            }
            let spread = u64::from(handle.slot).wrapping_mul(0x9e37_79b9) % self.settings.heartbeat_ms;
            session.next_heartbeat = match session.flavour {
                Flavour::V1 => now + self.settings.heartbeat_ms / 2 + spread / 2,
                Flavour::Bare => u64::MAX,
            };
            for (stream, now) in [(Stream::User, tracked), (Stream::All, self.everybody)] {
                session.cursors[stream as usize] =
                    Cursor { epoch: now.epoch, announced: now.head, live: session.flavour == Flavour::Bare };
            }
            if session.flavour == Flavour::Bare {
                session.channels = identity.channels;
            }
        }
        if session.is_v1() {
            let range =
                |now: Tracked, oldest| StreamRange { epoch: Epoch(now.epoch), head: now.head, oldest };
            let streams =
                PerStream { user: range(tracked, of_user.oldest), all: range(self.everybody, of_all.oldest) };
            self.say_text(handle, |out| {
                Frame::AuthOk {
                    id: id.as_ref(),
                    user_id: &identity.user_id,
                    expires: identity.expires,
                    channels: identity.channels,
                    streams,
                }
                .write(out);
            });
            self.write(handle);
        }
        // What the client sent meanwhile.
        self.at_hand.push(handle.slot);
    }
}

/// How far a stream is: what came by, if that was after the broker's answer.
fn newer(tracked: Option<Tracked>, answer: &StreamState) -> Tracked {
    match tracked {
        Some(tracked) if tracked.last_offset >= answer.journal_end => tracked,
        _ => Tracked { epoch: answer.epoch, head: answer.head, last_offset: answer.last_offset },
    }
}
