//! One WebSocket connection to a gateway.

use std::io;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::http::{StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::{
    CloseFrame, Message, WebSocketConfig, frame::coding::CloseCode,
};

use super::lost::Lost;
use crate::exit::Exit;
use crate::failure::Failure;

const SUB_PROTOCOL: &str = "bellwire.v1.json";

/// Longest wait for the TCP connection and the handshake together, and for the hello after it.
pub(crate) const OPENING: Duration = Duration::from_secs(10);

/// Longest frame taken: one notification of 64 KiB whose every character is escaped, and its envelope, several times.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// Where a gateway listens.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    uri: Uri,
    host: String,
    port: u16,
}

impl Target {
    /// `ws://HOST[:PORT][/PATH]`.
    pub(crate) fn parse(url: &str) -> Result<Self, Failure> {
        let wrong = |why: &str| Failure::new(Exit::Usage, format!("{url}: {why}"));
        let uri: Uri = url.parse().map_err(|_| wrong("not a URL; for example ws://127.0.0.1:8640/"))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some("wss") => {
                return Err(wrong("this client speaks plain WebSocket only").next(
                    "reach the gateway's own port, or let a tunnel (stunnel, ssh -L) take care of TLS",
                ));
            }
            _ => return Err(wrong("expected ws://HOST:PORT/, for example ws://127.0.0.1:8640/")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(80);
        Ok(Self { uri, host, port })
    }

    /// Host and port.
    pub(crate) fn address(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}

/// A connection that is open. One frame at a time; the library answers pings.
pub(crate) struct Link {
    socket: WebSocketStream<TcpStream>,
}

/// What came.
pub(crate) enum Received {
    Text(tokio_tungstenite::tungstenite::Utf8Bytes),
    Closed {
        code: u16,
        reason: String,
    },
    /// A ping or pong: a sign of life, nothing to do.
    Alive,
}

impl Link {
    /// Connects and shakes hands; with `bearer` in the Authorization header if there is one.
    pub(crate) async fn open(target: &Target, bearer: Option<&str>) -> Result<Self, Lost> {
        match tokio::time::timeout(OPENING, Self::shake_hands(target, bearer)).await {
            Ok(opened) => opened,
            Err(_) => Err(Lost::retry(format!(
                "{}: no WebSocket handshake within {} s",
                target.uri,
                OPENING.as_secs()
            ))),
        }
    }

    async fn shake_hands(target: &Target, bearer: Option<&str>) -> Result<Self, Lost> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|error| {
            let lost = Lost::retry(format!("no connection to {}:{}: {error}", target.host, target.port));
            match error.kind() {
                io::ErrorKind::PermissionDenied => lost.exit(Exit::Refused),
                _ => lost.exit(Exit::Nothing).next(
                    "is the gateway running there? `bellwire-gateway --dev` starts one for trying out; \
                     --reconnect waits for it",
                ),
            }
        })?;
        // A client that waits for acknowledgements must not wait for Nagle too. It works without.
        let _ = stream.set_nodelay(true);
        let mut request = ClientRequestBuilder::new(target.uri.clone()).with_sub_protocol(SUB_PROTOCOL);
        if let Some(token) = bearer {
            request = request.with_header("Authorization", format!("Bearer {token}"));
        }
        let config = WebSocketConfig::default()
            .read_buffer_size(64 << 10)
            .write_buffer_size(0)
            .max_write_buffer_size(1 << 20)
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = opened.map_err(|error| Self::refused(target, &error))?;
        Ok(Self { socket })
    }

    fn refused(target: &Target, error: &Error) -> Lost {
        let uri = &target.uri;
        match error {
            Error::Http(response) => {
                let status = response.status();
                let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                let mut said: String = body.trim().chars().filter(|c| !c.is_control()).take(200).collect();
                if !said.is_empty() {
                    said.insert_str(0, ": ");
                }
                let lost = Lost::retry(format!("{uri}: the gateway answered HTTP {status}{said}"));
                match status {
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => lost
                        .for_good()
                        .exit(Exit::Refused)
                        .next("`bellwirectl token check` says what is wrong with it"),
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => lost.exit(Exit::Busy),
                    StatusCode::NOT_FOUND => lost.for_good().exit(Exit::Nothing).next("check the URL's path"),
                    _ if status.is_server_error() => lost,
                    _ => lost.for_good(),
                }
            }
            Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => Lost::retry(format!(
                "{uri}: does not speak {SUB_PROTOCOL}: not a Bellwire gateway, or a newer one"
            ))
            .for_good(),
            Error::HttpFormat(error) => Lost::retry(format!("the token or the URL cannot be sent: {error}"))
                .for_good()
                .exit(Exit::Usage),
            other => Lost::retry(format!("{uri}: handshake failed: {other}")),
        }
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, frame: &impl Serialize) -> Result<(), Lost> {
        let text = serde_json::to_string(frame).map_err(|error| Lost::retry(error.to_string()).for_good())?;
        let sent = self.socket.send(Message::text(text)).await;
        sent.map_err(|error| Lost::retry(format!("connection broken while sending: {error}")))
    }

    /// The next frame; waits at most `patience`.
    pub(crate) async fn receive(&mut self, patience: Duration) -> Result<Received, Lost> {
        let next = tokio::time::timeout(patience, self.socket.next()).await;
        let Ok(next) = next else {
            return Err(Lost::retry(format!(
                "nothing came from the gateway for {:.0} s, not even a heartbeat",
                patience.as_secs_f64()
            )));
        };
        match next {
            Some(Ok(Message::Text(text))) => Ok(Received::Text(text)),
            Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => {
                Ok(Received::Closed { code: code.into(), reason: reason.to_string() })
            }
            Some(Ok(Message::Close(None))) => Ok(Received::Closed { code: 1005, reason: String::new() }),
            Some(Ok(Message::Binary(data))) => Err(Lost::retry(format!(
                "the gateway sent a binary frame of {} bytes, which the protocol does not know",
                data.len()
            ))),
            Some(Ok(_)) => Ok(Received::Alive),
            Some(Err(error)) => Err(Lost::retry(format!("connection broken: {error}"))),
            None => Err(Lost::retry("the gateway ended the connection without a word".to_owned())),
        }
    }

    /// Says goodbye; the other side's answer is not worth waiting long for.
    pub(crate) async fn close(mut self) {
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let _ = tokio::time::timeout(Duration::from_millis(500), async {
            let _ = self.socket.close(Some(frame)).await;
            while let Some(Ok(_)) = self.socket.next().await {}
        })
        .await;
    }
}
