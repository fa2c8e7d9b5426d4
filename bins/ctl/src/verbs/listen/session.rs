//! One session with a gateway: from the hello to the end of the connection, and the rule in between.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::frame::{ErrorFrame, Facts, Frame, Item, Moves, Resync, Subscribed};
use super::link::{Link, OPENING, Received, Target};
use super::lost::Lost;
use super::position::{Position, Positions, StreamName};
use super::printer::{How, Printer};
use super::resume_file::ResumeFile;
use super::summary::Summary;
use super::token_source::TokenSource;
use super::{codes, lost, resume_file};
use crate::failure::{Failure, words};
use crate::output::human;

/// A connection without any sign of life for this many heartbeats, and a bit, is dead.
const HEARTBEATS_MISSED: u32 = 2;

/// How a run ends well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// As many notifications as were asked for.
    Count,
}

/// What a listener wants.
pub(crate) struct Wish {
    pub(crate) target: Target,
    pub(crate) auth_frame: bool,
    pub(crate) channels: Vec<bellwire::Channel>,
    pub(crate) snapshot: bool,
    pub(crate) count: Option<u64>,
}

/// A listener: what lives on from one connection to the next.
pub(crate) struct Listener {
    pub(crate) wish: Wish,
    pub(crate) tokens: TokenSource,
    pub(crate) positions: Positions,
    pub(crate) resume_file: Option<ResumeFile>,
    pub(crate) printer: Printer,
    pub(crate) summary: Summary,
    /// Kept here, so that it can be closed in order however the run ends.
    pub(crate) link: Option<Link>,
    pub(crate) user_id: String,
    /// Whether this connection got as far as a subscription.
    pub(crate) subscribed: bool,
    subscriptions: u64,
    next_id: u64,
    patience: Duration,
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
enum Request<'a> {
    Auth {
        id: u64,
        token: &'a str,
    },
    Subscribe {
        id: u64,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        channels: Vec<&'static str>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        snapshot: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        resume: Option<&'a Positions>,
    },
}

impl Listener {
    pub(crate) fn new(
        wish: Wish,
        tokens: TokenSource,
        positions: Positions,
        resume_file: Option<ResumeFile>,
        printer: Printer,
    ) -> Self {
        Self {
            wish,
            tokens,
            positions,
            resume_file,
            printer,
            summary: Summary::default(),
            link: None,
            user_id: String::new(),
            subscribed: false,
            subscriptions: 0,
            next_id: 0,
            patience: OPENING,
        }
    }

    /// Connects and listens until enough has come or the connection is lost.
    pub(crate) async fn listen(&mut self) -> Result<Done, Lost> {
        self.subscribed = false;
        self.patience = OPENING;
        let token = self.tokens.token()?;
        let bearer = (!self.wish.auth_frame).then_some(token.as_str());
        self.link = Some(Link::open(&self.wish.target, bearer).await?);
        if self.wish.auth_frame {
            self.authenticate(&token).await?;
        }
        loop {
            // What was taken is shown and remembered before we wait for more.
            self.settle(false)?;
            let Some(link) = &mut self.link else { return Err(Lost::retry("not connected".to_owned())) };
            let is_behind = self.resume_file.as_ref().is_some_and(|file| file.is_behind(&self.positions));
            let received = if is_behind {
                // Saved a moment ago: the rest is saved when nothing comes for a while. Giving up the wait loses
                // nothing, the socket's stream keeps what it has read.
                match tokio::time::timeout(resume_file::EVERY, link.receive(self.patience)).await {
                    Ok(received) => received,
                    Err(_) => {
                        self.settle(true)?;
                        continue;
                    }
                }
            } else {
                link.receive(self.patience).await
            };
            match received? {
                Received::Alive => {}
                Received::Closed { code, reason } => return Err(closed(code, &reason)),
                Received::Text(text) => {
                    self.summary.frames += 1;
                    self.printer.frame(&text)?;
                    let frame = Frame::parse(&text).map_err(|error| unreadable(&text, &error))?;
                    if let Some(done) = self.take(frame).await? {
                        return Ok(done);
                    }
                }
            }
        }
    }

    /// Writes out what was printed, then remembers how far it went.
    pub(crate) fn settle(&mut self, last: bool) -> Result<(), Failure> {
        self.printer.out.flush()?;
        match &mut self.resume_file {
            Some(file) if !self.positions.is_empty() && !self.user_id.is_empty() => {
                file.save(&self.user_id, &self.positions, last)
            }
            _ => Ok(()),
        }
    }

    async fn take(&mut self, frame: Frame<'_>) -> Result<Option<Done>, Lost> {
        match frame {
            Frame::Hello(hello) => {
                if hello.heartbeat_ms > 0 {
                    let heartbeat = Duration::from_millis(hello.heartbeat_ms.min(3_600_000));
                    self.patience = heartbeat * HEARTBEATS_MISSED + Duration::from_secs(5);
                }
                words(format_args!("connected to {} as {}", hello.gateway, hello.conn));
            }
            Frame::AuthOk(auth) => {
                // Also the answer to a renewed token, when we are subscribed already.
                if !self.subscribed {
                    if let Some(file) = &self.resume_file {
                        file.check_user(&auth.user_id)?;
                    }
                    self.user_id = auth.user_id;
                    self.subscribe().await?;
                }
            }
            Frame::Subscribed(subscribed) => self.begin(subscribed),
            Frame::Moves(moves) => return self.step(moves),
            Frame::Snapshot(snapshot) => {
                for Item { seq, data } in snapshot.items {
                    self.printer.notification(snapshot.stream, seq, How::Snapshot, data)?;
                }
            }
            Frame::Heartbeat(heartbeat) => {
                for (stream, at) in heartbeat.streams.into_each() {
                    let step = super::frame::Step { stream, epoch: at.epoch, prev: at.prev, seq: at.seq };
                    self.positions.check(&step).map_err(|gap| self.gap(&gap))?;
                    self.positions.advance(stream, step.seq);
                }
            }
            Frame::Resync(resync) => self.resync(&resync),
            Frame::AuthExpiring { in_ms } => self.renew(in_ms).await?,
            Frame::Goodbye(bye) => {
                let code = codes::explain(bye.code);
                let after = bye.reconnect_after_ms.map(Duration::from_millis);
                return Err(lost::by_code(bye.code, &bye.reason, code).after(after));
            }
            Frame::Error(error) => self.error(&error)?,
            Frame::Other => {}
        }
        Ok(None)
    }

    async fn authenticate(&mut self, token: &str) -> Result<(), Lost> {
        self.next_id += 1;
        let request = Request::Auth { id: self.next_id, token };
        match &mut self.link {
            Some(link) => link.send(&request).await,
            None => Ok(()),
        }
    }

    async fn subscribe(&mut self) -> Result<(), Lost> {
        self.next_id += 1;
        let request = Request::Subscribe {
            id: self.next_id,
            channels: self.wish.channels.iter().map(|channel| channel.name()).collect(),
            snapshot: self.wish.snapshot,
            resume: (!self.positions.is_empty()).then_some(&self.positions),
        };
        match &mut self.link {
            Some(link) => link.send(&request).await,
            None => Ok(()),
        }
    }

    fn begin(&mut self, subscribed: Subscribed) {
        self.subscribed = true;
        self.summary.reconnects = self.subscriptions;
        self.subscriptions += 1;
        for (stream, at) in subscribed.streams.into_each() {
            if at.recovered == Some(true) {
                let to = at.to.unwrap_or(at.seq);
                words(format_args!("stream {stream}: resumed from {}, replay up to {to}", at.seq));
            }
            // Where we asked to resume, our own position stands until the gateway says otherwise in a resync: a replay
            // that begins anywhere else must show as a gap.
            if self.positions.get(stream).is_none() {
                self.positions.set(stream, Position { epoch: at.epoch, seq: at.seq });
            }
        }
        words(format_args!("listening as {} to {}", self.user_id, subscribed.channels.join(", ")));
    }

    fn step(&mut self, moves: Moves<'_>) -> Result<Option<Done>, Lost> {
        let Moves { step, replay, conflated, items } = moves;
        self.positions.check(&step).map_err(|gap| self.gap(&gap))?;
        self.summary.conflated += conflated;
        let arrived = human::now_ns();
        let mut last = step.prev;
        for Item { seq, data } in items {
            if seq <= last || seq > step.seq {
                let why = format!("stream {}: item {seq} does not lie in {last}..={}", step.stream, step.seq);
                self.summary.gaps += 1;
                return Err(Lost::retry(why));
            }
            last = seq;
            self.notification(step.stream, seq, replay, data.get(), data, arrived)?;
            self.positions.advance(step.stream, seq);
            if self.wish.count.is_some_and(|count| self.summary.notifications >= count) {
                return Ok(Some(Done::Count));
            }
        }
        self.positions.advance(step.stream, step.seq);
        Ok(None)
    }

    fn notification(
        &mut self,
        stream: StreamName,
        seq: u64,
        replay: bool,
        text: &str,
        data: &serde_json::value::RawValue,
        arrived: i64,
    ) -> Result<(), Lost> {
        let facts: Facts<'_> = serde_json::from_str(text).map_err(|error| unreadable(text, &error))?;
        if self.summary.is_duplicate(&facts.message_id) {
            words(format_args!(
                "duplicate: {stream}:{seq} has the id {} of an earlier one",
                facts.message_id
            ));
        }
        let expected = match stream {
            StreamName::User => self.user_id.as_str(),
            StreamName::All => bellwire::EVERYBODY,
        };
        if facts.user_id != expected {
            self.summary.foreign += 1;
            words(format_args!("{stream}:{seq} is for {:?}, not for {expected:?}", facts.user_id));
        }
        self.summary.count(&facts, arrived, !replay);
        let how = if replay { How::Replay } else { How::Live };
        self.printer.notification(stream, seq, how, data)?;
        Ok(())
    }

    fn gap(&mut self, gap: &super::position::Gap) -> Lost {
        self.summary.gaps += 1;
        Lost::retry(gap.to_string()).next("--reconnect resumes from where we stood and gets what is missing")
    }

    fn resync(&mut self, resync: &Resync) {
        self.summary.resyncs += 1;
        let why = match resync.why.as_str() {
            "too_old" => "what was missed is no longer retained",
            "epoch_changed" => "the stream was begun anew, its journal is another one",
            other => other,
        };
        let was = match self.positions.get(resync.stream) {
            Some(position) => format!("{}:{}", position.epoch, position.seq),
            None => "nowhere".to_owned(),
        };
        words(format_args!(
            "stream {}: cannot be resumed from {was}: {why}. Going on at {}:{}; what lay between is lost to us, \
             --snapshot shows the present state",
            resync.stream, resync.epoch, resync.head
        ));
        self.positions.set(resync.stream, resync.position());
    }

    async fn renew(&mut self, in_ms: u64) -> Result<(), Lost> {
        let left = human::duration(Duration::from_millis(in_ms));
        match self.tokens.renewed()? {
            Some(token) => {
                words(format_args!("the token expires in {left}: sending a newer one"));
                self.authenticate(&token).await
            }
            None => {
                words(format_args!("the token expires in {left}; then the session ends"));
                Ok(())
            }
        }
    }

    /// Before we are subscribed every error is the end: nothing would ever come.
    fn error(&mut self, error: &ErrorFrame) -> Result<(), Lost> {
        let code = codes::explain(error.code);
        let said = if error.msg.is_empty() { &error.reason } else { &error.msg };
        if self.subscribed {
            words(format_args!("error {} ({said}): {}", error.code, code.words));
            return Ok(());
        }
        let lost = lost::by_code(error.code, said, code);
        Err(if error.retryable { lost } else { lost.for_good() })
    }

    /// Waits before connecting again, but not beyond the end of the run.
    pub(crate) async fn pause(wait: Duration) {
        tokio::time::sleep_until(Instant::now() + wait).await;
    }
}

fn closed(code: u16, reason: &str) -> Lost {
    match code {
        1005 => Lost::retry("the gateway closed the session without a code".to_owned()),
        code => lost::by_code(code, reason, codes::explain(code)),
    }
}

fn unreadable(text: &str, error: &serde_json::Error) -> Lost {
    let start: String = text.chars().filter(|c| !c.is_control()).take(120).collect();
    Lost::retry(format!("a frame that is not of this protocol: {error}: {start}")).for_good()
}
