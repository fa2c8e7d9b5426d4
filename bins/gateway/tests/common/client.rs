//! A WebSocket client that checks the protocol's one rule on every frame: `prev` is where it is.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::{PATIENCE, text_of};

pub struct Client {
    pub socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Epoch and position of each stream.
    pub positions: HashMap<String, (String, u64)>,
    /// What was delivered: stream, seq, notification.
    pub got: Vec<(String, u64, Value)>,
    /// Every other frame, in order.
    pub frames: Vec<Value>,
}

/// How a connection ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    Close(u16),
    Broken,
}

impl Client {
    pub async fn try_connect(
        url: &str,
        protocols: &str,
        authorization: &str,
    ) -> Result<Self, tungstenite::Error> {
        let mut request = url.into_client_request()?;
        if !protocols.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
        }
        if !authorization.is_empty() {
            request.headers_mut().insert("authorization", authorization.parse().unwrap());
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        Ok(Self { socket, positions: HashMap::new(), got: Vec::new(), frames: Vec::new() })
    }

    /// Connected, `hello` read, nothing else.
    pub async fn connect(url: &str) -> Self {
        let mut client = Self::try_connect(url, "", "").await.unwrap();
        client.until("hello").await;
        client
    }

    /// Connected and authenticated.
    pub async fn login(url: &str, token: &str) -> Self {
        let mut client = Self::connect(url).await;
        client.send(json!({"op": "auth", "id": 1, "token": token})).await;
        client.until("auth_ok").await;
        client
    }

    /// Subscribed to everything that is permitted, from now on.
    pub async fn subscribed(url: &str, token: &str) -> Self {
        let mut client = Self::login(url, token).await;
        client.subscribe(json!({})).await;
        client
    }

    /// Back where `positions` left off.
    pub async fn resumed(url: &str, token: &str, positions: &HashMap<String, (String, u64)>) -> Self {
        let mut client = Self::login(url, token).await;
        client.positions = positions.clone();
        let point = |stream: &str| json!({"epoch": positions[stream].0, "seq": positions[stream].1});
        client.subscribe(json!({"resume": {"user": point("user"), "all": point("all")}})).await;
        client
    }

    /// Sends `subscribe` with these fields and waits for the answer, which it gives.
    pub async fn subscribe(&mut self, fields: Value) -> Value {
        let mut request = json!({"op": "subscribe", "id": 2});
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.send(request).await;
        self.until("subscribed").await
    }

    pub async fn send(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// Reads until a frame of that op came, and gives it.
    pub async fn until(&mut self, op: &str) -> Value {
        // Heartbeats keep coming, whatever does not.
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(end, self.next()).await {
                Ok(Ok(frame)) if frame["op"] == op => return frame,
                Ok(Ok(frame)) => assert!(frame["op"] != "error" || op == "error", "{frame}"),
                Ok(Err(ended)) => panic!("waiting for {op}: {ended:?}"),
                Err(_) => panic!("no {op}; {:?} {:?}", self.positions, self.frames.last()),
            }
        }
    }

    /// Reads until so many notifications were delivered in all, and gives their texts.
    pub async fn until_got(&mut self, count: usize) -> Vec<String> {
        let end = tokio::time::Instant::now() + PATIENCE;
        while self.got.len() < count {
            match tokio::time::timeout_at(end, self.next()).await {
                Ok(Ok(_)) => {}
                Ok(Err(ended)) => panic!("{ended:?} after {} of {count}", self.got.len()),
                Err(_) => {
                    panic!("{} of {count}; {:?} {:?}", self.got.len(), self.positions, self.frames.last())
                }
            }
        }
        self.texts()
    }

    pub fn texts(&self) -> Vec<String> {
        self.got.iter().map(|(_, _, data)| text_of(data)).collect()
    }

    /// Reads until the connection ends.
    pub async fn until_end(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.next().await {
                return ended;
            }
        }
    }

    /// Nothing is delivered for a while.
    pub async fn assert_silent(&mut self, time: Duration) {
        let before = self.got.len();
        let end = tokio::time::Instant::now() + time;
        while let Ok(frame) = tokio::time::timeout_at(end, self.next()).await {
            frame.unwrap();
        }
        assert_eq!(self.got.len(), before, "{:?}", self.got.last());
    }

    /// One text frame; the rule is checked and what it delivers is noted.
    pub async fn next(&mut self) -> Result<Value, Ended> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("nothing comes");
            match message {
                Some(Ok(Message::Text(text))) => {
                    let frame: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
                    self.note(&frame);
                    return Ok(frame);
                }
                Some(Ok(Message::Close(Some(close)))) => return Err(Ended::Close(close.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(Ended::Broken),
            }
        }
    }

    fn note(&mut self, frame: &Value) {
        let stream = || frame["stream"].as_str().unwrap().to_owned();
        match frame["op"].as_str() {
            Some("notification") => {
                self.advance(&stream(), frame);
                self.got.push((stream(), frame["seq"].as_u64().unwrap(), frame["data"].clone()));
            }
            Some("batch") => {
                self.advance(&stream(), frame);
                assert_eq!(frame["replay"], true);
                for item in frame["items"].as_array().unwrap() {
                    self.got.push((stream(), item["seq"].as_u64().unwrap(), item["data"].clone()));
                }
            }
            Some("replay_end") => self.advance(&stream(), frame),
            Some("heartbeat") => {
                for name in ["user", "all"] {
                    if self.positions.contains_key(name) {
                        self.advance(name, &frame["streams"][name]);
                    }
                }
            }
            Some("subscribed") => {
                for name in ["user", "all"] {
                    let joined = &frame["streams"][name];
                    let epoch = joined["epoch"].as_str().unwrap().to_owned();
                    self.positions.insert(name.to_owned(), (epoch, joined["seq"].as_u64().unwrap()));
                }
            }
            Some("resync") => {
                let epoch = frame["epoch"].as_str().unwrap().to_owned();
                self.positions.insert(stream(), (epoch, frame["head"].as_u64().unwrap()));
            }
            // The bare sub-protocol.
            None => self.got.push((String::new(), 0, frame.clone())),
            _ => {}
        }
        if !matches!(frame["op"].as_str(), Some("notification" | "batch") | None) {
            self.frames.push(frame.clone());
        }
    }

    fn advance(&mut self, stream: &str, frame: &Value) {
        let (epoch, position) = self.positions.get_mut(stream).expect("a frame before `subscribed`");
        assert_eq!(frame["epoch"], *epoch, "{frame}");
        assert_eq!(frame["prev"], *position, "a gap in {stream}: {frame}");
        *position = frame["seq"].as_u64().unwrap();
    }
}
