//! Reading on in the journal, and offering each record to the sessions that it concerns.

use bellwire::{EVERYBODY, MessageType, UserHash};

use super::Shard;
use super::backlog::Pending;
use super::flush::{FULL, FlushQueue};
use super::session::{Session, State};
use super::table::Handle;
use super::users::Tracked;
use crate::protocol::{Close, Stream};

/// Records that are looked at before something else has its turn.
const SLICE: usize = 256;

/// What a session must know of a record to note it.
#[derive(Clone, Copy)]
struct Offer {
    pending: Pending,
    stream: Stream,
    archive_len: u32,
    kind: MessageType,
    priority: usize,
}

impl Shard {
    /// Reads on; `true` if the journal's end was reached.
    pub(super) fn read_on(&mut self) -> bool {
        self.read_records(true)
    }

    /// Reads on up to the end, or up to a record for everybody, which is no small matter; `true` if it was the end.
    pub(super) fn read_on_for_few(&mut self) -> bool {
        self.read_records(false)
    }

    fn read_records(&mut self, with_broadcasts: bool) -> bool {
        let now = self.now_ns();
        let everybody = UserHash::of(EVERYBODY);
        let mut caught_up = false;
        for _ in 0..SLICE {
            let Some(entry) = self.journal.entry(self.tail) else {
                caught_up = true;
                break;
            };
            if !with_broadcasts && entry.header.user_hash == everybody {
                break;
            }
            let (offset, seq, epoch) = (entry.offset, entry.seq, entry.epoch);
            self.tail = entry.next;
            let header = entry.header;
            // The archive is read only if the hash says that somebody here may be meant.
            let is_broadcast =
                header.user_hash == everybody && entry.view().is_some_and(|v| v.is_broadcast());
            let user = if is_broadcast {
                None
            } else {
                let view = || entry.view();
                match self.users.find(header.user_hash, || view().map(|view| view.user_id())) {
                    Some(user) => Some(user),
                    None => continue,
                }
            };
            let Some(kind) = MessageType::from_code(header.type_code) else { continue };
            let stream = if is_broadcast { Stream::All } else { Stream::User };
            let offer = Offer {
                pending: Pending::new(offset, stream),
                stream,
                archive_len: header.archive_len,
                kind,
                priority: usize::from(header.priority).min(3),
            };
            let tracked = Tracked { epoch, head: seq, last_offset: offset };
            match user.and_then(|index| self.users.get_mut(index)) {
                Some(user) => {
                    user.tracked = Some(tracked);
                    for &slot in &user.slots {
                        if let Some((handle, session)) = self.sessions.at(slot) {
                            note(session, handle, offer, &mut self.flush, &mut self.lagging, now);
                        }
                    }
                }
                None => {
                    self.everybody = tracked;
                    for (handle, session) in self.sessions.iter_mut() {
                        note(session, handle, offer, &mut self.flush, &mut self.lagging, now);
                    }
                }
            }
        }
        // A segment that was begun and has no entry yet may be all that is kept: who stands at the end has missed nothing.
        if caught_up && self.tail < self.journal.start().min(self.journal.end()) {
            self.overrun();
        }
        self.attend_to_the_lagging();
        caught_up
    }

    /// Retention has passed the shard itself: nobody can be told what he missed but by resuming.
    fn overrun(&mut self) {
        tracing::error!(
            shard = self.index,
            tail = self.tail,
            start = self.journal.start(),
            "overrun by retention"
        );
        self.tail = self.journal.start();
        let handles: Vec<Handle> = self.sessions.iter_mut().map(|(handle, _)| handle).collect();
        for handle in handles {
            self.close(handle, Close::SlowConsumer);
        }
    }

    /// Sessions for which a lot waits: something is left out, or they are closed.
    fn attend_to_the_lagging(&mut self) {
        while let Some(handle) = self.lagging.pop() {
            let Some(session) = self.sessions.get_mut(handle) else { continue };
            if !session.backlog.is_long() {
                continue;
            }
            let pending_max = self.settings.pending_max;
            let left_out = session.backlog.conflate(&mut self.journal, pending_max);
            self.counters.conflated.add(left_out);
            let waiting = session.backlog.len();
            if waiting >= pending_max {
                tracing::debug!(shard = self.index, slot = handle.slot, waiting, "slow consumer");
                self.close(handle, Close::SlowConsumer);
            }
        }
    }
}

/// Puts the record on the session's list if it is to be delivered.
#[inline]
fn note(
    session: &mut Session,
    handle: Handle,
    offer: Offer,
    flush: &mut FlushQueue,
    lagging: &mut Vec<Handle>,
    now: u64,
) {
    if session.state != State::Open
        || !session.cursors[offer.stream as usize].live
        || !session.channels.contains(offer.kind.channel())
    {
        return;
    }
    session.backlog.push(offer.pending, offer.archive_len);
    if session.backlog.is_long() {
        lagging.push(handle);
    }
    // A session whose socket is busy is written to when the socket says so.
    if session.out.is_none() && !session.held {
        flush.mark(&mut session.queued, handle, offer.priority, now);
        if session.backlog.is_batch() {
            flush.mark(&mut session.queued, handle, FULL, now);
        }
    }
}
