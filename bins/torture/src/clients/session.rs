//! One session: a real WebSocket, protocol v1, that comes back whenever its connection ends.

use std::net::SocketAddr;
use std::time::Duration;

use bellwire::MessageId;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::frame::{Frame, Streams};
use super::manners::Manners;
use super::wire::{self, Entry, Event, Mover, Stream, Why};
use super::{Report, SessionStart};
use crate::Result;
use crate::life::Wish;
use crate::plan::{Plan, Record};

/// A gateway that does not complete a handshake by then is stopped or gone.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Longest frame of a gateway, as the protocol says.
const FRAME_MAX: usize = 512 << 10;

/// Receive buffer of those that shall fall behind.
const SMALL_WINDOW: u32 = 4096;

/// What all sessions of a process share.
#[derive(Clone, Copy)]
pub(super) struct Link {
    pub(super) gateway: SocketAddr,
    pub(super) patience_ms: u64,
    pub(super) plan: Plan,
}

/// How a connection ended.
enum End {
    /// By a close frame, or (0) without one.
    Closed { code: u64, after_ms: u64 },
    /// Because we wanted so; to be back after that time.
    Ours { away: Duration },
}

struct Session {
    start: SessionStart,
    link: Link,
    report: Report,
    wishes: watch::Receiver<Wish>,
    rng: fastrand::Rng,
    /// Whether this connection has had its `subscribed`.
    has_joined: bool,
    /// Room for what a notification should be.
    expected: Vec<u8>,
}

/// Keeps a session until the parent wants an end.
pub(super) async fn run(
    start: SessionStart,
    link: Link,
    report: Report,
    wishes: watch::Receiver<Wish>,
) -> Result<()> {
    let rng = fastrand::Rng::new();
    let mut session = Session { start, link, report, wishes, rng, has_joined: false, expected: Vec::new() };
    let spread = session.rng.u64(..500);
    session.rest(Duration::from_millis(spread), Wish::End).await;
    while session.wish() != Wish::End {
        let end = match session.connection().await {
            Ok(end) => end,
            Err(error) if error.is::<Error>() || error.is::<std::io::Error>() => {
                End::Closed { code: 0, after_ms: 0 }
            }
            Err(error) => {
                eprintln!("session {}: {error}", session.start.session);
                session.tell(Stream::User, Event::Wrong { code: 0 });
                End::Closed { code: 0, after_ms: 0 }
            }
        };
        let (code, ours, wait) = match end {
            End::Closed { code, after_ms } => {
                let jitter = session.rng.u64(50..400);
                (code, false, Duration::from_millis(after_ms + jitter))
            }
            End::Ours { away } => (0, true, away),
        };
        session.tell(Stream::User, Event::Closed { code, ours });
        session.report.flush()?;
        session.rest(wait, Wish::Settle).await;
        if !wait.is_zero() && session.wish() == Wish::Settle {
            // Not all at once, and not again and again while there is no gateway.
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}

impl Session {
    fn wish(&self) -> Wish {
        *self.wishes.borrow()
    }

    /// Waits so long, or until the parent wants at least that.
    async fn rest(&mut self, time: Duration, until: Wish) {
        let _ = timeout(time, self.wishes.wait_for(|wish| *wish >= until)).await;
    }

    fn tell(&self, stream: Stream, event: Event) {
        self.report.push(Entry { session: self.start.session, stream, event });
    }

    async fn connection(&mut self) -> Result<End> {
        let mut socket = match timeout(CONNECT_WITHIN, self.connect()).await {
            Ok(socket) => socket?,
            Err(_) => return Ok(End::Closed { code: 0, after_ms: 0 }),
        };
        self.has_joined = false;
        let mut antic = Instant::now() + self.until_next_antic();
        loop {
            let patience = Instant::now() + Duration::from_millis(self.link.patience_ms);
            // With nothing left to play the session is a steady one.
            let plays = self.wish() == Wish::GoOn;
            let deadline = if plays { patience.min(antic) } else { patience };
            let message = tokio::select! {
                message = timeout_at(deadline, socket.next()) => message,
                _ = self.wishes.wait_for(|wish| *wish == Wish::End) => {
                    let _ = timeout(Duration::from_millis(200), socket.close(None)).await;
                    return Ok(End::Ours { away: Duration::ZERO });
                }
            };
            match message {
                Ok(Some(message)) => match message? {
                    Message::Text(text) => {
                        let outcome = self.frame(text.as_str());
                        self.report.flush()?;
                        match outcome? {
                            Next::Read => {}
                            Next::Say(answer) => socket.send(Message::text(answer)).await?,
                            Next::Leave(end) => return Ok(end),
                        }
                        if self.start.manners == Manners::Slow && plays {
                            let pause = self.rng.u64(2..60);
                            self.rest(Duration::from_millis(pause), Wish::Settle).await;
                        }
                    }
                    Message::Close(frame) => {
                        let code = frame.map_or(0, |frame| u64::from(u16::from(frame.code)));
                        return Ok(End::Closed { code, after_ms: 0 });
                    }
                    // tungstenite answers pings by itself.
                    _ => {}
                },
                Ok(None) => return Ok(End::Closed { code: 0, after_ms: 0 }),
                // The protocol: for so long not even a heartbeat, the connection is dead.
                Err(_) if Instant::now() >= patience => {
                    return Ok(End::Ours { away: Duration::from_millis(50) });
                }
                Err(_) => {
                    if let Some(end) = self.antic().await {
                        return Ok(end);
                    }
                    antic = Instant::now() + self.until_next_antic();
                }
            }
        }
    }

    fn until_next_antic(&mut self) -> Duration {
        let ms = match self.start.manners {
            Manners::Steady | Manners::Slow => u64::from(u32::MAX),
            Manners::Flaky => self.rng.u64(200..6_000),
            Manners::HalfOpen => self.rng.u64(1_000..8_000),
            Manners::Sleeper => self.rng.u64(2_000..10_000),
        };
        Duration::from_millis(ms)
    }

    /// What this session does now and then; an end, if that is one.
    async fn antic(&mut self) -> Option<End> {
        match self.start.manners {
            Manners::Steady | Manners::Slow => None,
            Manners::Flaky => Some(End::Ours { away: Duration::from_millis(self.rng.u64(..300)) }),
            Manners::Sleeper => Some(End::Ours { away: Duration::from_millis(self.rng.u64(3_000..25_000)) }),
            Manners::HalfOpen => {
                let deaf = Duration::from_millis(self.rng.u64(500..15_000));
                self.rest(deaf, Wish::Settle).await;
                self.rng.bool().then_some(End::Ours { away: Duration::ZERO })
            }
        }
    }

    async fn connect(&self) -> Result<WebSocketStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        if self.start.manners.has_small_window() {
            socket.set_recv_buffer_size(SMALL_WINDOW)?;
        }
        let stream = socket.connect(self.link.gateway).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{}/", self.link.gateway).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("bellwire.v1.json"));
        headers
            .insert(header::AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", self.start.token))?);
        let config = WebSocketConfig::default()
            .read_buffer_size(8 << 10)
            .max_message_size(Some(FRAME_MAX))
            .max_frame_size(Some(FRAME_MAX));
        Ok(client_async_with_config(request, stream, Some(config)).await?.0)
    }

    /// Takes one frame in and reports it.
    fn frame(&mut self, text: &str) -> Result<Next> {
        let wrong = |why: &str| format!("{why}: {}", text.chars().take(300).collect::<String>());
        let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        let streams = || frame.streams.as_ref().ok_or_else(|| wrong("no streams"));
        match frame.op {
            "notification" => {
                let stream = stream_of(&frame).ok_or_else(|| wrong("no stream"))?;
                let data = frame.data.ok_or_else(|| wrong("no data"))?;
                self.item(stream, frame.seq, data, frame.conflated)?;
                self.step(stream, frame.epoch, (frame.prev, frame.seq), Mover::Notification)?;
            }
            "batch" | "replay_end" => {
                let stream = stream_of(&frame).ok_or_else(|| wrong("no stream"))?;
                for item in &frame.items {
                    self.item(stream, item.seq, item.data, 0)?;
                }
                let by = if frame.op == "batch" { Mover::Batch } else { Mover::ReplayEnd };
                self.step(stream, frame.epoch, (frame.prev, frame.seq), by)?;
            }
            "heartbeat" => {
                // Before the first `subscribed` it says nothing about a position.
                let has_joined = self.has_joined;
                for (stream, state) in both(streams()?).into_iter().filter(|_| has_joined) {
                    self.step(stream, state.epoch, (state.prev, state.seq), Mover::Heartbeat)?;
                }
            }
            "auth_ok" => return Ok(Next::Say(self.subscribe(streams()?)?)),
            "subscribed" => {
                self.has_joined = true;
                for (stream, state) in both(streams()?) {
                    let recovered = state.recovered != Some(false);
                    let epoch = wire::epoch(state.epoch).ok_or("a long epoch")?;
                    self.tell(stream, Event::Joined { seq: state.seq, recovered, epoch });
                    // Otherwise the `resync` that follows says so, and why; this connection may end before it comes.
                    if recovered {
                        self.start.positions[stream as usize] = Some((state.epoch.to_owned(), state.seq));
                    }
                }
            }
            "resync" => {
                let stream = stream_of(&frame).ok_or_else(|| wrong("no stream"))?;
                let why = match frame.why {
                    "too_old" => Why::TooOld,
                    "epoch_changed" => Why::EpochChanged,
                    _ => Why::Unknown,
                };
                let epoch = wire::epoch(frame.epoch).ok_or("a long epoch")?;
                self.tell(stream, Event::Resync { head: frame.head, why, epoch });
                self.start.positions[stream as usize] = Some((frame.epoch.to_owned(), frame.head));
                // The next `auth_ok` tells whether what it missed is really gone.
                return Ok(Next::Leave(End::Ours { away: Duration::from_millis(1) }));
            }
            // A close follows that says the same: come back.
            "error" if (4000..4500).contains(&frame.code) => {}
            "error" => {
                eprintln!("session {}: {}", self.start.session, wrong(&frame.reason));
                self.tell(Stream::User, Event::Wrong { code: frame.code });
            }
            "goodbye" => {
                return Ok(Next::Leave(End::Closed { code: frame.code, after_ms: frame.reconnect_after_ms }));
            }
            // Fields and operations that a later gateway may add.
            _ => {}
        }
        Ok(Next::Read)
    }

    /// Resumes from where the session is, the first time from the oldest that there is.
    fn subscribe(&mut self, streams: &Streams<'_>) -> Result<String> {
        let mut resume = serde_json::Map::new();
        for (stream, state) in both(streams) {
            let epoch = wire::epoch(state.epoch).ok_or("a long epoch")?;
            self.tell(stream, Event::Door { head: state.head, oldest: state.oldest, epoch });
            let position = &self.start.positions[stream as usize];
            let first = || (state.epoch.to_owned(), state.oldest.saturating_sub(1));
            let (epoch, seq) = position.clone().unwrap_or_else(first);
            resume.insert(stream.name().to_owned(), json!({ "epoch": epoch, "seq": seq }));
        }
        let mut request = json!({ "op": "subscribe", "id": 1, "resume": resume });
        if !self.start.channels.is_empty() {
            request["channels"] = json!(self.start.channels);
        }
        Ok(request.to_string())
    }

    /// Whether the position is right, the oracle judges.
    fn step(&mut self, stream: Stream, epoch: &str, (prev, seq): (u64, u64), by: Mover) -> Result<()> {
        let packed = wire::epoch(epoch).ok_or("a long epoch")?;
        self.tell(stream, Event::Move { prev, seq, epoch: packed, by });
        if let Some((known, at)) = &mut self.start.positions[stream as usize] {
            if known != epoch {
                epoch.clone_into(known);
            }
            *at = seq;
        }
        Ok(())
    }

    fn item(&mut self, stream: Stream, seq: u64, data: &RawValue, conflated: u64) -> Result<()> {
        let data = data.get();
        let record = message_id(data).and_then(Record::of);
        let mut sound = false;
        if let Some(record) = record {
            self.link.plan.json(record, &mut self.expected)?;
            sound = self.expected == data.as_bytes();
        }
        if !sound {
            let expected = String::from_utf8_lossy(&self.expected);
            eprintln!("session {}: seq {seq} is\n  {data}\nnot\n  {expected}", self.start.session);
        }
        self.tell(stream, Event::Item { seq, code: record.map_or(0, Record::code), conflated, sound });
        Ok(())
    }
}

/// What to do after a frame.
enum Next {
    Read,
    Say(String),
    Leave(End),
}

/// The id that a notification begins with.
fn message_id(data: &str) -> Option<MessageId> {
    data.strip_prefix("{\"message_id\":\"")?.get(..36)?.parse().ok()
}

fn stream_of(frame: &Frame<'_>) -> Option<Stream> {
    Stream::BOTH.into_iter().find(|stream| Some(stream.name()) == frame.stream)
}

fn both<'a, 'f>(streams: &'a Streams<'f>) -> [(Stream, &'a super::frame::State<'f>); 2] {
    [(Stream::User, &streams.user), (Stream::All, &streams.all)]
}
