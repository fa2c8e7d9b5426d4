//! What clients ask for.

use super::Shard;
use super::replay::Replay;
use super::session::{PendingSubscribe, State};
use super::table::Handle;
use super::work::tracked_of;
use crate::auth::ChannelSet;
use crate::clock::wall_ns;
use crate::protocol::inbound::{self, Op};
use crate::protocol::outbound::{Frame, Joined, Time, Why};
use crate::protocol::{Epoch, Id, Refusal, Request, ResumePoint, Stream};
use bellwire::Channel;

impl Shard {
    /// One text frame.
    pub(super) fn request(&mut self, handle: Handle, text: &str) {
        let Request { id, op } = match inbound::parse(text) {
            Ok(request) => request,
            Err(error) => return self.refuse(handle, error.id.as_ref(), &Refusal::BadRequest(error.why)),
        };
        let Some(session) = self.sessions.get_mut(handle) else { return };
        let is_open = session.state == State::Open;
        match op {
            Op::Ping => {
                self.say_text(handle, |out| {
                    Frame::Pong { id: id.as_ref(), time: Time(wall_ns()) }.write(out)
                });
            }
            Op::Auth { token } => self.authenticate(handle, id.as_ref(), &token),
            _ if !is_open => self.refuse(handle, id.as_ref(), &Refusal::NotAuthenticated),
            Op::List => {
                let channels = session.channels;
                self.say_text(handle, |out| Frame::Subscriptions { id: id.as_ref(), channels }.write(out));
            }
            Op::Unsubscribe { channels } => {
                let permitted = session.permitted;
                match named(channels.as_deref(), permitted) {
                    Ok(channels) => self.unsubscribe(handle, id.as_ref(), channels),
                    Err(refusal) => self.refuse(handle, id.as_ref(), &refusal),
                }
            }
            Op::Subscribe { channels, snapshot, resume } => {
                let permitted = session.permitted;
                let subscribed = named(channels.as_deref(), permitted)
                    .and_then(|channels| self.subscribe(handle, id.as_ref(), channels, snapshot, &resume));
                if let Err(refusal) = subscribed {
                    self.refuse(handle, id.as_ref(), &refusal);
                }
            }
        }
    }

    fn unsubscribe(&mut self, handle: Handle, id: Option<&Id<'_>>, channels: ChannelSet) {
        let Some(session) = self.sessions.get_mut(handle) else { return };
        session.channels = session.channels.without(channels);
        let channels = session.channels;
        if channels.is_empty() {
            session.deliver_nothing();
        }
        self.say_text(handle, |out| Frame::Unsubscribed { id, channels }.write(out));
    }

    /// Adds channels, and goes back to where the client left off if it says so. Nothing is changed if anything is wrong.
    fn subscribe(
        &mut self,
        handle: Handle,
        id: Option<&Id<'_>>,
        channels: ChannelSet,
        snapshot: bool,
        resume: &[Option<ResumePoint<'_>>; 2],
    ) -> Result<(), Refusal> {
        let Some(session) = self.sessions.get_mut(handle) else { return Ok(()) };
        let user = session.user.and_then(|index| self.users.get(index));
        let tracked = Stream::BOTH.map(|stream| tracked_of(stream, user, self.everybody));
        for stream in Stream::BOTH {
            let head = tracked[stream as usize].head;
            if let Some(point) = &resume[stream as usize]
                && is_same_epoch(point, tracked[stream as usize].epoch)
                && point.seq > head
            {
                return Err(Refusal::BadResume { stream: stream.name(), seq: point.seq, head });
            }
        }

        let is_fresh = session.channels.is_empty();
        session.channels = session.channels.union(channels);
        let mut work = session.work.take().unwrap_or_default();
        let mut resync = [None; 2];
        let joined = Stream::BOTH.map(|stream| {
            let index = stream as usize;
            let now = tracked[index];
            let mut joined = Joined { epoch: Epoch(now.epoch), recovered: None, seq: now.head, to: now.head };
            match &resume[index] {
                None if is_fresh => {
                    let cursor = &mut session.cursors[index];
                    (cursor.epoch, cursor.announced, cursor.live) = (now.epoch, now.head, true);
                }
                // A channel that is subscribed to later starts from now; the position stays.
                None => {
                    let cursor = &session.cursors[index];
                    joined.epoch = Epoch(cursor.epoch);
                    joined.seq = cursor.announced;
                    joined.to = work.replays[index].as_ref().map_or(cursor.announced, |replay| replay.to);
                }
                Some(point) => {
                    session.backlog.forget(stream);
                    work.replays[index] = None;
                    if is_same_epoch(point, now.epoch) {
                        let cursor = &mut session.cursors[index];
                        (cursor.epoch, cursor.announced, cursor.live) = (now.epoch, point.seq, false);
                        joined.recovered = Some(true);
                        joined.seq = point.seq;
                        work.replays[index] = Some(Replay::new(point.seq, now));
                    } else {
                        joined.recovered = Some(false);
                        resync[index] = Some(Why::EpochChanged);
                    }
                }
            }
            joined
        });
        work.subscribe = Some(PendingSubscribe { id: id.cloned().map(owned), joined, resync, snapshot });
        session.work = Some(work);
        // Until `subscribed` is written, neither notifications nor further requests.
        session.held = true;
        session.paused = true;
        self.list_for_work(handle);
        Ok(())
    }
}

/// An id that outlives the frame it came in.
pub(super) fn owned(id: Id<'_>) -> Id<'static> {
    match id {
        Id::Number(number) => Id::Number(number),
        Id::Text(text) => Id::Text(text.into_owned().into()),
    }
}

fn is_same_epoch(point: &ResumePoint<'_>, epoch: u32) -> bool {
    u32::from_str_radix(&point.epoch, 16) == Ok(epoch)
}

/// The channels of a list; without one, all that the token permits.
fn named<S: AsRef<str>>(names: Option<&[S]>, permitted: ChannelSet) -> Result<ChannelSet, Refusal> {
    let Some(names) = names else { return Ok(permitted) };
    let mut channels = ChannelSet::NONE;
    for name in names {
        let name = name.as_ref();
        let shown = || name.chars().take(64).collect::<String>();
        let channel = Channel::from_name(name).ok_or_else(|| Refusal::UnknownChannel(shown()))?;
        if !permitted.contains(channel) {
            return Err(Refusal::ForbiddenChannel(shown()));
        }
        channels.insert(channel);
    }
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_one_bad_name_is_refused_as_a_whole() {
        let mut permitted = ChannelSet::NONE;
        permitted.insert(Channel::Trade);
        permitted.insert(Channel::Risk);
        assert_eq!(named::<&str>(None, permitted), Ok(permitted));
        assert_eq!(
            named(Some(&["trade"]), permitted).map(|set| set.iter().collect()),
            Ok(vec![Channel::Trade])
        );
        assert_eq!(named::<&str>(Some(&[]), permitted), Ok(ChannelSet::NONE));
        assert_eq!(
            named(Some(&["trade", "trades"]), permitted),
            Err(Refusal::UnknownChannel("trades".into()))
        );
        assert_eq!(
            named(Some(&["trade", "system"]), permitted),
            Err(Refusal::ForbiddenChannel("system".into()))
        );
    }
}
