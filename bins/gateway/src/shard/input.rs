//! What clients send: bytes, frames, and the signs of life that they are.

use std::io::ErrorKind;
use std::task::{Context, Poll};

use super::Shard;
use super::session::{Allowed, State};
use super::table::Handle;
use crate::protocol::{Close, Refusal, outbound};
use crate::socket::frames::{self, Decoded, Event};

/// Sockets that are looked at before something else has its turn.
const SLICE: usize = 256;

/// Reads from one socket before the next has its turn.
const READS: usize = 4;

/// What came of reading.
enum Read {
    Bytes(usize),
    Later,
    Ended,
}

impl Shard {
    /// Looks at the sockets on which something may be done; `true` if some are left.
    pub(super) fn look_at_sockets(&mut self) -> bool {
        self.ready.take(&mut self.at_hand);
        let count = self.at_hand.len().min(SLICE);
        let mut rest = self.at_hand.split_off(count);
        std::mem::swap(&mut rest, &mut self.at_hand);
        for slot in rest {
            self.sessions.unlist(slot);
            if let Some((handle, session)) = self.sessions.at(slot) {
                // What a session that waits for the broker has to say goes out with `auth_ok`.
                let waits = session.state == State::Asking && session.is_v1();
                if session.out.is_some() && !waits {
                    self.write(handle);
                }
                self.read(handle);
            }
        }
        !self.at_hand.is_empty()
    }

    /// Reads what the client has sent, until there is no more, or it has had its turn, or it must wait for an answer.
    pub(super) fn read(&mut self, handle: Handle) {
        // The one read buffer of the thread; nothing in here reads another socket meanwhile.
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..READS {
            if !self.take_frames(handle, &mut buffer, 0) {
                self.buffer = buffer;
                return;
            }
            match self.read_some(handle, &mut buffer) {
                Read::Bytes(len) => {
                    if !self.take_frames(handle, &mut buffer, len) {
                        self.buffer = buffer;
                        return;
                    }
                }
                Read::Later => {
                    self.buffer = buffer;
                    return;
                }
                Read::Ended => {
                    self.buffer = buffer;
                    return self.drop_session(handle);
                }
            }
        }
        self.buffer = buffer;
        self.at_hand.push(handle.slot);
    }

    /// Bytes behind those that the session has kept. `Later`: the waker is set.
    fn read_some(&mut self, handle: Handle, buffer: &mut [u8]) -> Read {
        let Some(session) = self.sessions.get_mut(handle) else { return Read::Later };
        let kept = session.input.as_ref().map_or(0, |input| input.bytes.len());
        let Some(room) = buffer.get_mut(kept..).filter(|room| !room.is_empty()) else { return Read::Ended };
        loop {
            match session.transport.try_read(room) {
                Ok(0) => return Read::Ended,
                Ok(len) => return Read::Bytes(len),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut context = Context::from_waker(&session.waker);
                    match session.transport.poll_readable(&mut context) {
                        Poll::Pending => return Read::Later,
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Read::Ended,
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Read::Ended,
            }
        }
    }

    /// Takes the frames out of what was kept and the `len` bytes that were read behind it. `false`: nothing more is to be
    /// read now (the session is gone, or waits for an answer).
    fn take_frames(&mut self, handle: Handle, buffer: &mut [u8], len: usize) -> bool {
        let Some(session) = self.sessions.get_mut(handle) else { return false };
        if len == 0 && (session.paused || session.input.as_ref().is_none_or(|input| input.bytes.is_empty())) {
            return !session.paused;
        }
        let mut fragments = None;
        let mut end = len;
        if let Some(input) = session.input.take() {
            buffer[..input.bytes.len()].copy_from_slice(&input.bytes);
            end += input.bytes.len();
            fragments = input.fragments;
        }
        let mut start = 0;
        let goes_on = loop {
            let Some(session) = self.sessions.get_mut(handle) else { return false };
            if session.paused {
                break false;
            }
            match frames::decode(&mut buffer[start..end], &mut fragments, self.settings.frame_bytes_max) {
                Ok(Decoded::Incomplete) => break true,
                Ok(Decoded::Frame { len, event }) => {
                    start += len;
                    self.event(handle, event);
                }
                Err(fault) => {
                    tracing::debug!(shard = self.index, slot = handle.slot, %fault, "closing");
                    if session.is_closing() {
                        self.drop_session(handle);
                        return false;
                    }
                    self.close(handle, fault.close());
                    // What follows a broken frame is no frame.
                    (start, fragments) = (end, None);
                    break true;
                }
            }
        };
        if let Some(session) = self.sessions.get_mut(handle)
            && (start < end || fragments.is_some())
        {
            let input = session.input.get_or_insert_default();
            input.bytes = buffer[start..end].to_vec();
            input.fragments = fragments;
        }
        // Answers to everything that came in one read go out in one write.
        self.write(handle);
        goes_on && self.sessions.get_mut(handle).is_some()
    }

    /// One frame of the client: whatever it is, the client lives.
    fn event(&mut self, handle: Handle, event: Event<'_>) {
        let now = self.now_ms();
        let Some(session) = self.sessions.get_mut(handle) else { return };
        if session.is_closing() {
            if let Event::Close(_) = event {
                session.state = State::Closing { agreed: true };
                if session.out.is_none() {
                    self.drop_session(handle);
                }
            }
            return;
        }
        session.last_heard = now;
        let (per_second, burst) = (self.settings.frames_per_second, self.settings.frames_burst);
        match session.allowance.frame(per_second, burst, now) {
            Allowed::Yes => {}
            Allowed::Warn => {
                if session.is_v1() {
                    self.refuse(handle, None, &Refusal::RateLimited);
                }
                return;
            }
            Allowed::No => return self.close(handle, Close::RateLimited),
        }
        match event {
            Event::Text(text) => {
                if session.is_v1() {
                    self.request(handle, &text);
                }
                // A bare session has nothing to ask for; its frames are signs of life.
            }
            Event::Ping(payload) => self.say(handle, |out, _| out.pong(payload)),
            Event::Pong | Event::Fragment => {}
            Event::Close(code) => self.agree_to_close(handle, code),
        }
    }

    /// Says no to a request; the session goes on.
    pub(super) fn refuse(&mut self, handle: Handle, id: Option<&crate::protocol::Id<'_>>, refusal: &Refusal) {
        self.say_text(handle, |out| outbound::error(refusal, id, out));
    }
}
