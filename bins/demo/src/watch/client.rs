//! One user's client: a real WebSocket, protocol v1, and the client's one rule (`prev` must be the position).

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use bellwire::{MessageId, Priority};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::oracle::{Arrival, Stream};
use super::tally::Shared;
use crate::exchange::{User, order_number, user_id};
use crate::producers::now_ns;

/// Between two tries to connect; a goodbye may ask for more.
const RECONNECT_MS: u64 = 200;

/// What comes in one read; two hundred clients should not take two hundred big buffers.
const READ_BUFFER: usize = 8 << 10;

/// The longest frame of a gateway: a batch of replayed notifications.
const FRAME_MAX: usize = 4 << 20;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum ClientError {
    #[error("{0}")]
    Socket(Box<tungstenite::Error>),
    #[error("{0}")]
    Connect(#[from] std::io::Error),
    #[error("frame that is not of the protocol: {why}: {frame}")]
    Frame { why: String, frame: String },
    #[error("{stream}: prev is {prev}, the position is {position}")]
    Gap { stream: &'static str, prev: u64, position: u64 },
    #[error("refused: {code} {reason} {msg}")]
    Refused { code: u16, reason: String, msg: String },
    #[error("closed by the gateway{}", .after_ms.map(|ms| format!(", come back after {ms} ms")).unwrap_or_default())]
    Closed { after_ms: Option<u64> },
}

impl From<tungstenite::Error> for ClientError {
    fn from(error: tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}

#[derive(Deserialize)]
struct Frame<'a> {
    op: &'a str,
    #[serde(default)]
    stream: Option<&'a str>,
    #[serde(default)]
    prev: u64,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    replay: bool,
    #[serde(default)]
    conflated: u64,
    #[serde(borrow, default)]
    data: Option<Data<'a>>,
    #[serde(borrow, default)]
    items: Vec<Item<'a>>,
    #[serde(borrow, default)]
    streams: Option<Streams<'a>>,
    #[serde(default)]
    code: u16,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
    #[serde(borrow, default)]
    msg: Cow<'a, str>,
    #[serde(default)]
    reconnect_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Item<'a> {
    seq: u64,
    #[serde(borrow)]
    data: Data<'a>,
}

/// A notification, as far as it matters here.
#[derive(Deserialize)]
struct Data<'a> {
    message_id: &'a str,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    priority: u8,
    timestamp: i64,
    #[serde(borrow)]
    payload: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    order_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Streams<'a> {
    #[serde(borrow)]
    user: StreamState<'a>,
    #[serde(borrow)]
    all: StreamState<'a>,
}

#[derive(Deserialize)]
struct StreamState<'a> {
    epoch: &'a str,
    #[serde(default)]
    prev: u64,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    recovered: Option<bool>,
}

/// How far a client is in one stream.
#[derive(Default)]
struct Position {
    epoch: String,
    seq: u64,
}

pub(crate) struct Client {
    user: User,
    user_id: String,
    gateway: SocketAddr,
    token: String,
    shared: Shared,
    /// The user's stream and the broadcasts.
    positions: [Position; 2],
}

impl Client {
    pub(crate) fn new(user: User, gateway: SocketAddr, token: String, shared: Shared) -> Self {
        Self { user, user_id: user_id(user), gateway, token, shared, positions: Default::default() }
    }

    /// Connects, and comes back whenever the connection ends, until the run does.
    pub(crate) async fn run(mut self) {
        loop {
            let mut subscribed = false;
            let error = match self.session(&mut subscribed).await {
                Ok(()) => ClientError::Closed { after_ms: None },
                Err(error) => error,
            };
            let mut wait_ms = RECONNECT_MS;
            {
                let mut tally = self.shared.borrow_mut();
                tally.sessions -= u32::from(subscribed);
                if tally.ending {
                    return;
                }
                if let ClientError::Gap { .. } = error {
                    tally.gaps += 1;
                }
                if let ClientError::Closed { after_ms: Some(ms) } = error {
                    wait_ms = ms;
                }
                tally.reconnects += 1;
                tally.complain(&self.user_id, error);
            }
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    async fn session(&mut self, subscribed: &mut bool) -> Result<(), ClientError> {
        let mut socket = self.connect().await?;
        while let Some(message) = socket.next().await {
            match message? {
                Message::Text(text) => {
                    let received_at = now_ns();
                    let answer = self.frame(text.as_str(), received_at, subscribed)?;
                    if let Some(answer) = answer {
                        socket.send(Message::text(answer)).await?;
                    }
                }
                Message::Close(_) => break,
                // tungstenite answers pings by itself.
                _ => {}
            }
        }
        Err(ClientError::Closed { after_ms: None })
    }

    async fn connect(&self) -> Result<WebSocketStream<TcpStream>, ClientError> {
        let stream = TcpStream::connect(self.gateway).await?;
        stream.set_nodelay(true)?;
        let mut request = format!("ws://{}/", self.gateway).into_client_request()?;
        let headers = request.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("bellwire.v1.json"));
        let bearer =
            HeaderValue::from_str(&format!("Bearer {}", self.token)).map_err(tungstenite::Error::from)?;
        headers.insert(header::AUTHORIZATION, bearer);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .max_message_size(Some(FRAME_MAX))
            .max_frame_size(Some(FRAME_MAX));
        Ok(client_async_with_config(request, stream, Some(config)).await?.0)
    }

    /// Takes one frame in; gives the answer, if it wants one.
    fn frame(
        &mut self,
        text: &str,
        received_at: i64,
        subscribed: &mut bool,
    ) -> Result<Option<String>, ClientError> {
        let wrong = |why: String| ClientError::Frame { why, frame: text.chars().take(200).collect() };
        let frame: Frame<'_> = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        match frame.op {
            "notification" => {
                let stream = self.step(&frame)?;
                let data = frame.data.as_ref().ok_or_else(|| wrong("no data".to_owned()))?;
                self.take(stream, data, (!frame.replay).then_some(received_at)).map_err(wrong)?;
                self.shared.borrow_mut().conflated += frame.conflated;
            }
            "batch" => {
                let mut last = frame.prev;
                for item in &frame.items {
                    if item.seq <= last || item.seq > frame.seq {
                        return Err(wrong(format!(
                            "item {} after {last} in a batch up to {}",
                            item.seq, frame.seq
                        )));
                    }
                    last = item.seq;
                }
                let stream = self.step(&frame)?;
                for item in &frame.items {
                    self.take(stream, &item.data, (!frame.replay).then_some(received_at)).map_err(wrong)?;
                }
                self.shared.borrow_mut().conflated += frame.conflated;
            }
            "replay_end" => {
                self.step(&frame)?;
            }
            "heartbeat" => {
                let streams = frame.streams.ok_or_else(|| wrong("no streams".to_owned()))?;
                for (stream, state) in [(Stream::User, streams.user), (Stream::All, streams.all)] {
                    // This client has all channels: whatever moves its position must have been delivered.
                    self.expect(stream, state.prev)?;
                    self.expect(stream, state.seq)?;
                }
            }
            "auth_ok" => {
                let streams = frame.streams.ok_or_else(|| wrong("no streams".to_owned()))?;
                for (position, state) in self.positions.iter_mut().zip([streams.user, streams.all]) {
                    // The first time: from the beginning of the stream.
                    if position.epoch.is_empty() {
                        state.epoch.clone_into(&mut position.epoch);
                    }
                }
                let resume = |stream: Stream| {
                    let Position { epoch, seq } = &self.positions[stream as usize];
                    serde_json::json!({ "epoch": epoch, "seq": seq })
                };
                let resume = serde_json::json!({ "user": resume(Stream::User), "all": resume(Stream::All) });
                return Ok(Some(
                    serde_json::json!({ "op": "subscribe", "id": 1, "resume": resume }).to_string(),
                ));
            }
            "subscribed" => {
                let streams = frame.streams.ok_or_else(|| wrong("no streams".to_owned()))?;
                let mut tally = self.shared.borrow_mut();
                tally.sessions += u32::from(!*subscribed);
                *subscribed = true;
                for (position, state) in self.positions.iter_mut().zip([streams.user, streams.all]) {
                    if state.recovered == Some(false) {
                        tally.resyncs += 1;
                        tally.complain(&self.user_id, "a stream could not be resumed");
                        *position = Position { epoch: state.epoch.to_owned(), seq: state.seq };
                    }
                }
            }
            "error" => {
                let (reason, msg) = (frame.reason.into_owned(), frame.msg.into_owned());
                return Err(ClientError::Refused { code: frame.code, reason, msg });
            }
            "goodbye" => return Err(ClientError::Closed { after_ms: frame.reconnect_after_ms }),
            // Fields and operations that a later gateway may add.
            _ => {}
        }
        Ok(None)
    }

    /// The client's one rule.
    fn step(&mut self, frame: &Frame<'_>) -> Result<Stream, ClientError> {
        let stream = match frame.stream {
            Some("user") => Stream::User,
            Some("all") => Stream::All,
            other => {
                let why = format!("stream {other:?}");
                return Err(ClientError::Frame { why, frame: frame.op.to_owned() });
            }
        };
        self.expect(stream, frame.prev)?;
        self.positions[stream as usize].seq = frame.seq;
        Ok(stream)
    }

    fn expect(&self, stream: Stream, prev: u64) -> Result<(), ClientError> {
        let position = self.positions[stream as usize].seq;
        if prev == position {
            return Ok(());
        }
        let stream = if stream == Stream::User { "user" } else { "all" };
        Err(ClientError::Gap { stream, prev, position })
    }

    /// Reports one notification.
    fn take(&self, stream: Stream, data: &Data<'_>, received_at: Option<i64>) -> Result<(), String> {
        let message_id: MessageId =
            data.message_id.parse().map_err(|error| format!("message_id: {error}"))?;
        let priority =
            Priority::from_number(data.priority).ok_or_else(|| format!("priority {}", data.priority))?;
        let mut tally = self.shared.borrow_mut();
        let mine = match stream {
            Stream::User => data.user_id == self.user_id,
            Stream::All => data.user_id == bellwire::EVERYBODY,
        };
        if !mine {
            tally.oracle.foreign();
            tally.complain(&self.user_id, format!("got a notification of {}", data.user_id));
            return Ok(());
        }
        let order = data.payload.order_id.as_deref().and_then(order_number);
        tally.delivered(priority.index(), received_at.map(|at| at - data.timestamp));
        tally.oracle.arrived(self.user, &Arrival { message_id, priority, stream, order });
        Ok(())
    }
}
