//! What operators want of a shard: to look at its sessions, to end one, other limits.
//!
//! An order is one bounded step between two turns of the loop; whoever wants more asks again. So however much is asked
//! here, a push waits for one step at most.

use std::net::SocketAddr;
use std::sync::Arc;

use bellwire::UserHash;
use tokio::sync::{mpsc, oneshot};

use super::session::{Session, State};
use super::table::Handle;
use super::{Desk, Settings, Shard};
use crate::auth::ChannelSet;
use crate::protocol::{Close, Stream};

/// Orders that wait. At the bound whoever asks waits.
const WAITING_MAX: usize = 16;

/// Orders before something else has its turn.
const SLICE: usize = 4;

/// Slots of the table that one order looks at.
const PAGE_SLOTS: usize = 512;

/// The place where a shard is told what is wanted of it.
#[derive(Clone, Debug)]
pub struct Orders {
    sender: mpsc::Sender<Order>,
    desk: Arc<Desk>,
}

pub(super) enum Order {
    Page { from: usize, whose: Option<Box<str>>, reply: oneshot::Sender<Page> },
    Kick { place: Place, reply: oneshot::Sender<bool> },
    Settings(Arc<Settings>),
}

/// The shard has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has ended")]
pub struct ShardGone;

/// Some of the sessions of a shard.
#[derive(Debug, Default)]
pub struct Page {
    pub sessions: Vec<Seen>,
    /// Where to go on; `None`: that was all.
    pub next: Option<usize>,
}

/// A session as it was when it was looked at.
#[derive(Debug)]
pub struct Seen {
    pub place: Place,
    /// What its `hello` called it.
    pub conn: Conn,
    /// `None`: it has not said yet.
    pub user: Option<Box<str>>,
    pub state: &'static str,
    /// Whether it speaks `bellwire.v1`; else it is given bare notifications.
    pub is_v1: bool,
    pub is_tls: bool,
    /// The other end of the socket: a proxy, perhaps.
    pub peer: Option<SocketAddr>,
    pub age_ms: u64,
    /// Since the client was last heard.
    pub silent_ms: u64,
    /// End of the token, in seconds since the Unix epoch; `None` before there is one.
    pub expires: Option<u64>,
    pub channels: ChannelSet,
    /// Notifications that wait for it.
    pub waiting: usize,
    /// Bytes that its socket has not taken.
    pub unsent_bytes: usize,
    /// It is being given what it missed.
    pub is_replaying: bool,
    /// Epoch and position of the streams `user` and `all`.
    pub positions: [(u32, u64); 2],
}

/// Where a session stands, and that it is still that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(Handle);

/// The name of a session for people: `c-0-1f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    pub shard: usize,
    /// Counts the sessions of that shard, from 1.
    pub number: u64,
}

impl Orders {
    pub(super) fn new(desk: Arc<Desk>) -> (Self, mpsc::Receiver<Order>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self { sender, desk }, receiver)
    }

    /// Looks at a part of the sessions, or at all of one user (then there is one page).
    ///
    /// # Errors
    /// [`ShardGone`].
    pub async fn page(&self, from: usize, whose: Option<&str>) -> Result<Page, ShardGone> {
        let whose = whose.map(Into::into);
        self.ask(|reply| Order::Page { from, whose, reply }).await
    }

    /// Ends a session; `false`: it has ended already.
    ///
    /// # Errors
    /// [`ShardGone`].
    pub async fn kick(&self, place: Place) -> Result<bool, ShardGone> {
        self.ask(|reply| Order::Kick { place, reply }).await
    }

    /// Other settings, from the next turn on.
    ///
    /// # Errors
    /// [`ShardGone`].
    pub async fn settings(&self, settings: Arc<Settings>) -> Result<(), ShardGone> {
        self.send(Order::Settings(settings)).await
    }

    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, ShardGone> {
        let (reply, answer) = oneshot::channel();
        self.send(order(reply)).await?;
        answer.await.map_err(|_| ShardGone)
    }

    async fn send(&self, order: Order) -> Result<(), ShardGone> {
        self.sender.send(order).await.map_err(|_| ShardGone)?;
        self.desk.bell().ring();
        Ok(())
    }
}

impl Shard {
    /// Does what is wanted; `true` if there is more.
    pub(super) fn take_orders(&mut self) -> bool {
        for _ in 0..SLICE {
            let Ok(order) = self.asked.orders.try_recv() else { return false };
            // Whoever asked may have gone meanwhile.
            match order {
                Order::Page { from, whose: None, reply } => drop(reply.send(self.page(from))),
                Order::Page { whose: Some(user_id), reply, .. } => drop(reply.send(self.page_of(&user_id))),
                Order::Kick { place: Place(handle), reply } => {
                    let is_there = self.sessions.get_mut(handle).is_some_and(|session| !session.is_closing());
                    self.close(handle, Close::Kicked);
                    let _ = reply.send(is_there);
                }
                Order::Settings(settings) => self.settings = settings,
            }
        }
        !self.asked.orders.is_empty()
    }

    fn page(&mut self, from: usize) -> Page {
        let end = self.sessions.slots().min(from.saturating_add(PAGE_SLOTS));
        let sessions = (from..end).filter_map(|slot| self.see(slot as u32)).collect();
        Page { sessions, next: (end < self.sessions.slots()).then_some(end) }
    }

    fn page_of(&mut self, user_id: &str) -> Page {
        let user = self.users.find(UserHash::of(user_id), || Some(user_id));
        let slots = user.and_then(|user| self.users.get(user)).map(|user| user.slots.clone());
        let sessions = slots.unwrap_or_default().into_iter().filter_map(|slot| self.see(slot)).collect();
        Page { sessions, next: None }
    }

    fn see(&mut self, slot: u32) -> Option<Seen> {
        let (now, shard) = (self.now_ms(), self.index);
        let (handle, session) = self.sessions.at(slot)?;
        let Session { cursors, work, .. } = &*session;
        Some(Seen {
            place: Place(handle),
            conn: Conn { shard, number: session.number },
            user: session.user.and_then(|user| self.users.get(user)).map(|user| user.id.clone()),
            state: match session.state {
                State::Anonymous => "anonymous",
                State::Asking => "authenticating",
                State::Open => "open",
                State::Closing { .. } => "closing",
            },
            is_v1: session.is_v1(),
            is_tls: session.transport.is_tls(),
            peer: session.transport.peer(),
            age_ms: now.saturating_sub(u64::from(session.opened_s) * 1000),
            silent_ms: now.saturating_sub(session.last_heard),
            expires: Some(session.expires).filter(|&expires| expires < u64::MAX),
            channels: session.channels,
            waiting: session.backlog.len(),
            unsent_bytes: session.out.as_ref().map_or(0, |out| out.len()),
            is_replaying: work.as_ref().is_some_and(|work| work.replays.iter().any(Option::is_some)),
            positions: Stream::BOTH
                .map(|stream| (cursors[stream as usize].epoch, cursors[stream as usize].announced)),
        })
    }
}

impl std::fmt::Display for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c-{:x}-{:x}", self.shard, self.number)
    }
}

impl std::str::FromStr for Conn {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (shard, number) = text.strip_prefix("c-").and_then(|rest| rest.split_once('-')).ok_or(())?;
        let conn = Self {
            shard: usize::from_str_radix(shard, 16).map_err(drop)?,
            number: u64::from_str_radix(number, 16).map_err(drop)?,
        };
        // One name each: no plus sign, no leading zeros, no capitals.
        (conn.to_string() == text).then_some(conn).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_one_name_that_can_be_read_back() {
        let conn = Conn { shard: 10, number: 0x1f };
        assert_eq!(conn.to_string(), "c-a-1f");
        assert_eq!("c-a-1f".parse(), Ok(conn));
        for other in ["", "c-", "c-a", "c-a-", "c-A-1f", "c-a-01f", "c-+a-1f", "a-1f", "c-a-1f "] {
            assert_eq!(other.parse::<Conn>(), Err(()), "{other:?}");
        }
    }
}
