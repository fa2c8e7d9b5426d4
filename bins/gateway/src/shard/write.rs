//! Writing: one direct write for each session and turn, and what follows from its outcome.

use std::task::{Context, Poll};

use super::Shard;
use super::flush::FULL;
use super::render::{self, Unfit};
use super::session::{Session, State};
use super::table::Handle;
use crate::clock::wall_ns;
use crate::protocol::Close;
use crate::socket::{Out, Sent};

/// Writes before something else has its turn.
const SLICE: usize = 64;

/// Answers and heartbeats that may wait for a client that does not read, in bytes.
const ANSWERS_MAX: usize = 256 * 1024;

/// An out buffer may be taken for live notifications as well as for answers; both are counted when the kernel has them.
impl Shard {
    /// Writes to the sessions whose time has come; `true` if there is more to do.
    pub(super) fn write_what_is_due(&mut self) -> bool {
        let mut caught_up = self.read_on();
        for _ in 0..SLICE {
            // Between any two writes: something more urgent may have come.
            if !caught_up || self.journal.end() != self.tail {
                caught_up = self.read_on();
            }
            let Some(pick) = self.flush.next(self.now_ns(), caught_up) else { break };
            let Some(session) = self.sessions.get_mut(pick.handle) else { continue };
            session.queued.picked(pick);
            self.write_pending(pick.handle);
        }
        !caught_up || !self.flush.is_empty()
    }

    /// What the broker does for a shard that sleeps; `true` if nothing is left to do. It touches nothing of the event loop.
    pub(super) fn push_a_little(&mut self, bytes_max: u64, writes_max: usize) -> bool {
        if self.journal.end().saturating_sub(self.tail) > bytes_max || !self.read_on_for_few() {
            return false;
        }
        for _ in 0..writes_max {
            let Some(pick) = self.flush.next(self.now_ns(), true) else { break };
            let Some(session) = self.sessions.get_mut(pick.handle) else { continue };
            session.queued.picked(pick);
            self.write_pending(pick.handle);
        }
        !self.has_more_to_do()
    }

    /// Renders what waits for the session and writes it, unless its socket is busy.
    pub(super) fn write_pending(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        if session.state != State::Open || session.held || session.out.is_some() || session.backlog.is_empty()
        {
            return;
        }
        let mut out = self.pool.take();
        let rendered = render::pending(session, &self.users, &mut self.journal, &mut self.renderer, &mut out);
        if out.is_empty() {
            self.pool.put_back(out);
        } else {
            session.out = Some(out);
        }
        match rendered {
            Ok(()) => self.write(handle),
            Err(unfit) => self.unfit(handle, unfit),
        }
    }

    /// A record on the session's list cannot go out.
    pub(super) fn unfit(&mut self, handle: Handle, unfit: Unfit) {
        match unfit {
            // The client resumes; if the journal does not reach back so far, it is told.
            Unfit::Gone => self.close(handle, Close::SlowConsumer),
            Unfit::Foreign => {
                self.counters.user_mismatch.add(1);
                tracing::error!(shard = self.index, slot = handle.slot, "a foreign record on the send path");
                self.close(handle, Close::Internal);
            }
            Unfit::Unreadable => {
                self.counters.unreadable.add(1);
                tracing::error!(
                    shard = self.index,
                    slot = handle.slot,
                    "a journal entry that cannot be read"
                );
                self.close(handle, Close::Internal);
            }
        }
    }

    /// Appends to the session's out buffer. The caller has it written by [`Shard::write`].
    pub(super) fn say(&mut self, handle: Handle, append: impl FnOnce(&mut Out, &Session)) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let mut out = session.out.take().unwrap_or_else(|| self.pool.take());
        append(&mut out, session);
        let is_too_much = out.len() > ANSWERS_MAX;
        session.out = Some(out);
        if is_too_much && !session.is_closing() {
            self.close(handle, Close::SlowConsumer);
        }
    }

    /// Appends one text frame. See [`Shard::say`].
    pub(super) fn say_text(&mut self, handle: Handle, write: impl FnOnce(&mut Vec<u8>)) {
        self.say(handle, |out, _| {
            out.text(|out| {
                write(out);
                Some(())
            });
        });
    }

    /// Hands the kernel what is in the session's out buffer, as far as it takes it.
    pub(super) fn write(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let Some(out) = &mut session.out else { return };
        loop {
            match out.send(&mut session.transport) {
                Ok(Sent::All) => break,
                Ok(Sent::Blocked) => {
                    let mut context = Context::from_waker(&session.waker);
                    match session.transport.poll_writable(&mut context) {
                        Poll::Pending => return,
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return self.drop_session(handle),
                    }
                }
                Err(error) => {
                    tracing::debug!(shard = self.index, slot = handle.slot, %error, "write failed");
                    return self.drop_session(handle);
                }
            }
        }
        let Some(out) = session.out.take() else { return };
        count(&self.counters, &out);
        self.pool.put_back(out);
        self.after_write(handle);
    }

    /// The socket has taken everything: what waited for that goes on.
    fn after_write(&mut self, handle: Handle) {
        let now = self.now_ns();
        let Some(session) = self.sessions.get_mut(handle) else { return };
        match session.state {
            State::Closing { agreed: true } => self.drop_session(handle),
            State::Open => {
                if !session.backlog.is_empty() && !session.held {
                    self.flush.mark(&mut session.queued, handle, FULL, now);
                }
                if session.work.is_some() {
                    self.list_for_work(handle);
                }
            }
            _ => {}
        }
    }
}

/// The kernel has every byte of these.
fn count(counters: &super::counters::Counters, out: &Out) {
    counters.writes.add(1);
    let notifications = out.notifications();
    if notifications.is_empty() {
        return;
    }
    counters.delivered.add(notifications.len() as u64);
    let now = wall_ns();
    for written in notifications {
        // A clock that was set back, or a record of yesterday that is replayed, says nothing about latency.
        let latency = written
            .published_at
            .map(|at| now.saturating_sub(at))
            .filter(|ns| (0..LATENCY_MAX_NS).contains(ns));
        if let (Some(ns), Some(class)) = (latency, counters.latency.get(usize::from(written.priority))) {
            class.record_ns(ns as u64);
        }
    }
}

/// Longer is not a latency but a replay, in nanoseconds.
const LATENCY_MAX_NS: i64 = 60_000_000_000;
