//! What takes a session more than one turn: resuming, and the snapshot.
//!
//! The stages of a resume: *walk* (find out whether the journal reaches back; meanwhile the client's further frames wait),
//! then `subscribed`, then `batch` by `batch` as fast as the socket takes them, then `replay_end` and live.

use super::Shard;
use super::conflate;
use super::render::{self, BYTES_MAX, RECORDS_MAX, Renderer, Unfit, fetch};
use super::replay::{Replay, Step, Walk};
use super::session::{PendingSnapshot, PendingSubscribe, Session, State};
use super::table::Handle;
use super::users::{Tracked, User};
use crate::protocol::outbound::{self, Batch, Frame, PerStream, Why};
use crate::protocol::{Epoch, Stream};
use crate::socket::Out;
use bellwire_journal::JournalReader;

/// Steps of all sessions before something else has its turn.
const SLICE: usize = 32;

/// What came of one batch.
enum Paged {
    /// The replay goes on: another walk, or another batch.
    More,
    /// Everything up to the replay's end is written.
    End,
    /// The journal no longer has what comes next.
    TooOld,
}

impl Shard {
    /// Goes on with replays and snapshots; `true` if there is more to do.
    pub(super) fn go_on_working(&mut self) -> bool {
        for _ in 0..SLICE {
            let Some(handle) = self.working.pop_front() else { return false };
            if let Some(session) = self.sessions.get_mut(handle) {
                session.listed = false;
                self.step(handle);
            }
        }
        !self.working.is_empty()
    }

    /// Puts the session on the list of those to go on with.
    pub(super) fn list_for_work(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        if !session.listed {
            session.listed = true;
            self.working.push_back(handle);
        }
    }

    /// One step: a walk, a batch, or a page of the snapshot.
    fn step(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let Some(work) = &mut session.work else { return };
        if session.state != State::Open {
            return;
        }
        // Every resume is checked before the subscription is confirmed.
        if work.subscribe.is_some() {
            for stream in Stream::BOTH {
                let index = stream as usize;
                let Some(replay) = &mut work.replays[index] else { continue };
                match replay.walk(&mut self.journal, session.channels) {
                    Walk::Arrived => {}
                    Walk::Walking => return self.list_for_work(handle),
                    Walk::TooOld => {
                        work.replays[index] = None;
                        if let Some(subscribe) = &mut work.subscribe {
                            subscribe.joined[index].recovered = Some(false);
                            subscribe.resync[index] = Some(Why::TooOld);
                        }
                    }
                }
            }
            return self.confirm(handle);
        }
        // While the socket is busy nothing is rendered; it will say when it is free.
        if session.out.is_some() {
            return;
        }
        for stream in Stream::BOTH {
            if work.replays[stream as usize].is_some() {
                return self.replay(handle, stream);
            }
        }
        self.show_snapshot(handle);
    }

    /// Sends `subscribed`: from here on the session is delivered to.
    pub(super) fn confirm(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let Some(work) = &mut session.work else { return };
        let Some(subscribe) = work.subscribe.take() else { return };
        let user = session.user.and_then(|index| self.users.get(index));
        let PendingSubscribe { id, mut joined, resync, snapshot } = subscribe;
        for stream in Stream::BOTH {
            let index = stream as usize;
            let Some(_) = resync[index] else { continue };
            // It starts afresh where the stream is now.
            let tracked = tracked_of(stream, user, self.everybody);
            let cursor = &mut session.cursors[index];
            (cursor.epoch, cursor.announced, cursor.live) = (tracked.epoch, tracked.head, true);
            joined[index].epoch = Epoch(tracked.epoch);
            (joined[index].seq, joined[index].to) = (tracked.head, tracked.head);
        }
        session.held = false;
        session.paused = false;
        let channels = session.channels;
        let cursors = session.cursors;
        let mut out = session.out.take().unwrap_or_else(|| self.pool.take());
        out.text(|out| {
            let [user, all] = joined;
            Frame::Subscribed { id: id.as_ref(), channels, streams: PerStream { user, all } }.write(out);
            Some(())
        });
        for stream in Stream::BOTH {
            if let Some(why) = resync[stream as usize] {
                let cursor = cursors[stream as usize];
                render::resync(stream, cursor.epoch, cursor.announced, why, &mut out);
            }
        }
        session.out = Some(out);
        if snapshot {
            self.ask_for_snapshot(handle);
        }
        // What follows (replays, live records, further requests) goes on when this is written.
        self.write(handle);
        self.at_hand.push(handle.slot);
        self.finish_work(handle);
    }

    /// One batch of a replay, or its next walk, or its end.
    fn replay(&mut self, handle: Handle, stream: Stream) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let user = session.user.and_then(|index| self.users.get(index));
        let tracked = tracked_of(stream, user, self.everybody);
        let Some(mut replay) = session.work.as_mut().and_then(|work| work.replays[stream as usize].take())
        else {
            return;
        };
        let mut out = self.pool.take();
        let paged = match batch(
            session,
            user,
            stream,
            &mut replay,
            &mut self.journal,
            &mut self.renderer,
            &mut out,
        ) {
            Ok(paged) => paged,
            Err(unfit) => {
                self.pool.put_back(out);
                return self.unfit(handle, unfit);
            }
        };
        self.counters.replayed.add(out.notifications().len() as u64);
        let cursor = &mut session.cursors[stream as usize];
        let goes_on = match paged {
            Paged::More => true,
            // Something was published meanwhile: that belongs to the replay too.
            Paged::End if replay.extend(tracked) => true,
            Paged::End if replay.epoch() == tracked.epoch => {
                let (epoch, prev, seq) = (Epoch(cursor.epoch), cursor.announced, replay.to);
                out.text(|out| {
                    Frame::ReplayEnd { stream, epoch, prev, seq }.write(out);
                    Some(())
                });
                (cursor.announced, cursor.live) = (seq, true);
                false
            }
            lost @ (Paged::End | Paged::TooOld) => {
                let why = if matches!(lost, Paged::TooOld) { Why::TooOld } else { Why::EpochChanged };
                (cursor.epoch, cursor.announced, cursor.live) = (tracked.epoch, tracked.head, true);
                render::resync(stream, tracked.epoch, tracked.head, why, &mut out);
                false
            }
        };
        if goes_on && let Some(work) = &mut session.work {
            work.replays[stream as usize] = Some(replay);
        }
        if out.is_empty() {
            self.pool.put_back(out);
        } else {
            session.out = Some(out);
            self.write(handle);
        }
        self.finish_work(handle);
    }

    /// One page of the snapshot.
    fn show_snapshot(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let user = session.user.and_then(|index| self.users.get(index));
        let Some(mut snapshot) = session.work.as_mut().and_then(|work| work.snapshot.take()) else { return };
        let mut out = self.pool.take();
        let channels = session.channels;
        let page = page(&mut snapshot, user, &mut self.journal, &mut out, |view| {
            channels.contains(view.message_type().channel())
        });
        match page {
            Ok(true) => {}
            Ok(false) => {
                if let Some(work) = &mut session.work {
                    work.snapshot = Some(snapshot);
                }
            }
            Err(unfit) => {
                self.pool.put_back(out);
                return self.unfit(handle, unfit);
            }
        }
        session.out = Some(out);
        self.write(handle);
        self.finish_work(handle);
    }

    /// Lists the session again if it is not through.
    fn finish_work(&mut self, handle: Handle) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        match &session.work {
            Some(work) if work.is_done() => session.work = None,
            // A busy socket lists it when it is free.
            Some(_) if session.out.is_none() => self.list_for_work(handle),
            _ => {}
        }
    }
}

pub(super) fn tracked_of(stream: Stream, user: Option<&User>, everybody: Tracked) -> Tracked {
    match stream {
        Stream::All => everybody,
        // An open session's user is known and tracked.
        Stream::User => {
            user.and_then(|user| user.tracked).unwrap_or(Tracked { epoch: 0, head: 0, last_offset: 0 })
        }
    }
}

/// Renders one `batch` frame, or walks.
fn batch(
    session: &mut Session,
    user: Option<&User>,
    stream: Stream,
    replay: &mut Replay,
    journal: &mut JournalReader,
    renderer: &mut Renderer,
    out: &mut Out,
) -> Result<Paged, Unfit> {
    match replay.step() {
        Step::Page => {}
        Step::Walk => {
            return Ok(match replay.walk(journal, session.channels) {
                Walk::Walking | Walk::Arrived => Paged::More,
                Walk::TooOld => Paged::TooOld,
            });
        }
        Step::End => return Ok(Paged::End),
    }
    let channels = session.channels;
    let cursor = &mut session.cursors[stream as usize];
    let mut written = Vec::with_capacity(RECORDS_MAX);
    let mut unfit = None;
    out.text(|out| {
        let start = out.len();
        let mut frame = Batch::begin(stream, Epoch(replay.epoch()), cursor.announced, out);
        let mut last = cursor.announced;
        while (frame.items() as usize) < RECORDS_MAX && out.len() - start < BYTES_MAX {
            let Some(offset) = replay.next_record() else { break };
            match fetch(journal, offset, stream, user) {
                Ok((entry, view)) => {
                    replay.done(entry.seq);
                    // An unsubscribe may have come since the walk.
                    if channels.contains(view.message_type().channel()) {
                        frame.item(entry.seq, out, |out| renderer.json(&entry, &view, stream, out));
                        written.push(render::written(&entry));
                        last = entry.seq;
                    }
                }
                Err(why) => {
                    unfit = Some(why);
                    break;
                }
            }
        }
        if frame.items() == 0 {
            return None;
        }
        cursor.announced = last;
        frame.end(last, out);
        Some(())
    });
    for written in written {
        out.note(written);
    }
    match unfit {
        None => Ok(Paged::More),
        Some(Unfit::Gone) => Ok(Paged::TooOld),
        Some(unfit) => Err(unfit),
    }
}

/// Renders one page of a snapshot; `true` if it was the last.
fn page(
    snapshot: &mut PendingSnapshot,
    user: Option<&User>,
    journal: &mut JournalReader,
    out: &mut Out,
    is_wanted: impl Fn(&bellwire::NotificationView<'_>) -> bool,
) -> Result<bool, Unfit> {
    let rendered = out.text(|out| {
        let start = out.len();
        let mut frame = outbound::Snapshot::begin(Stream::User, Epoch(snapshot.epoch), snapshot.as_of, out);
        let mut items = 0;
        while let Some(&offset) = snapshot.offsets.get(snapshot.next) {
            if items == RECORDS_MAX || out.len() - start >= BYTES_MAX {
                break;
            }
            snapshot.next += 1;
            match fetch(journal, offset, Stream::User, user) {
                Ok((entry, view)) => {
                    if let Some(key) = conflate::subject(&view).filter(|_| is_wanted(&view)) {
                        frame.item(&key, entry.seq, out, |out| bellwire::json::write(&view, out));
                        items += 1;
                    }
                }
                // What retention took since the answer is no longer part of it.
                Err(Unfit::Gone) => {}
                Err(unfit) => return Some(Err(unfit)),
            }
        }
        let is_last = snapshot.next >= snapshot.offsets.len();
        frame.end(is_last, out);
        Some(Ok(is_last))
    });
    rendered.unwrap_or(Ok(true))
}
