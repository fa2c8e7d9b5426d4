//! One session: a bare socket, the upgrade, the subscription, and the protocol's one rule on every frame.

use std::io::{self, Cursor, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data as DataCode, OpCode};

use super::frame::{self, Frame, State, Streams};
use super::scan::{self, Data, Stream};
use super::tally::Tally;

/// A load tool needs no secret nonces.
const NONCE: &str = "YmVsbHdpcmUgYmVuY2ggIQ==";

/// Longest answer to the upgrade that is waited for.
const UPGRADE_LEN_MAX: usize = 8 << 10;

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Upgrading,
    /// Waits for `auth_ok`, then `subscribed`.
    Opening,
    Ready,
    Closed,
}

#[derive(Clone, Debug, Default)]
struct Position {
    epoch: String,
    seq: u64,
}

/// What a session is told of how it comes to be.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) host: String,
}

pub(super) struct Client {
    pub(super) index: usize,
    socket: Option<TcpStream>,
    pub(super) stage: Stage,
    user_id: String,
    token: String,
    /// An incomplete frame; empty most of the time.
    partial: Vec<u8>,
    /// What the socket has not taken yet; empty most of the time.
    unsent: Vec<u8>,
    positions: [Position; 2],
    /// Whether the user's stream is live: not while a replay is under way.
    pub(super) live: bool,
    /// Notifications of the user's stream, and of `all`.
    pub(super) received: [u64; 2],
    pub(super) conflated: u64,
}

/// Why a session ended.
pub(super) type Ended = String;

impl Client {
    pub(super) fn new(index: usize, user_id: String, token: String) -> Self {
        Self {
            index,
            socket: None,
            stage: Stage::Closed,
            user_id,
            token,
            partial: Vec::new(),
            unsent: Vec::new(),
            positions: Default::default(),
            live: false,
            received: [0; 2],
            conflated: 0,
        }
    }

    /// Begins to connect, without waiting.
    pub(super) fn connect(&mut self, door: &Door) -> io::Result<&TcpStream> {
        let family = if door.address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket::socket(family, SockType::Stream, flags, None)?;
        socket::setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
        use std::os::fd::AsRawFd;
        match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(door.address)) {
            Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.partial.clear();
        self.unsent.clear();
        self.live = false;
        self.stage = Stage::Connecting;
        Ok(self.socket.insert(TcpStream::from(socket)))
    }

    /// Goes away without a word, as a client does whose network breaks.
    pub(super) fn drop_connection(&mut self) {
        self.socket = None;
        self.stage = Stage::Closed;
        self.partial = Vec::new();
        self.unsent = Vec::new();
        self.live = false;
    }

    /// The socket can be written to, for the first time: it is connected.
    pub(super) fn connected(&mut self, door: &Door) -> Result<(), Ended> {
        if self.stage != Stage::Connecting {
            return self.flush();
        }
        if let Some(error) = self.socket.as_ref().and_then(|socket| socket.take_error().ok().flatten()) {
            return Err(format!("connect: {error}"));
        }
        self.stage = Stage::Upgrading;
        let (host, token) = (&door.host, &self.token);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {NONCE}\r\nSec-WebSocket-Protocol: bellwire.v1.json\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        self.send(request.as_bytes())
    }

    /// Reads once, and takes in what came; tells whether there may be more.
    pub(super) fn readable(&mut self, buffer: &mut [u8], tally: &mut Tally) -> Result<bool, Ended> {
        let Some(socket) = &mut self.socket else { return Ok(false) };
        // A broken-off frame goes before what is read now.
        let kept = self.partial.len();
        let len = match socket.read(&mut buffer[kept..]) {
            Ok(0) => return Err("closed by the gateway".to_owned()),
            Ok(len) => kept + len,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(format!("read: {error}")),
        };
        tally.arrived();
        buffer[..kept].copy_from_slice(&self.partial);
        let taken = self.take(&buffer[..len], tally)?;
        self.partial.clear();
        self.partial.extend_from_slice(&buffer[taken..len]);
        if self.partial.is_empty() {
            self.partial.shrink_to(1024);
        } else if self.partial.len() * 2 > buffer.len() {
            return Err(format!("a frame of more than {} bytes", self.partial.len()));
        }
        Ok(len == buffer.len())
    }

    /// Takes in every whole frame; tells how many bytes that were.
    fn take(&mut self, bytes: &[u8], tally: &mut Tally) -> Result<usize, Ended> {
        let mut at = 0;
        if self.stage == Stage::Upgrading {
            let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
                return if bytes.len() > UPGRADE_LEN_MAX {
                    Err("no end of the handshake".to_owned())
                } else {
                    Ok(0)
                };
            };
            check_upgrade(&bytes[..end])?;
            self.stage = Stage::Opening;
            at = end + 4;
        }
        while at < bytes.len() {
            let mut cursor = Cursor::new(&bytes[at..]);
            let header = FrameHeader::parse(&mut cursor).map_err(|error| format!("no frame: {error}"))?;
            let Some((header, len)) = header else { break };
            let start = at + cursor.position() as usize;
            let Some(payload) = start.checked_add(len as usize).and_then(|end| bytes.get(start..end)) else {
                break;
            };
            match header.opcode {
                OpCode::Data(DataCode::Text) if header.is_final => self.text(payload, tally)?,
                OpCode::Control(Control::Ping) => self.send_frame(OpCode::Control(Control::Pong), payload)?,
                OpCode::Control(Control::Close) => {
                    let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                    return Err(format!("closed by the gateway with {code}"));
                }
                OpCode::Control(Control::Pong) => {}
                other => return Err(format!("a frame that the protocol does not have: {other:?}")),
            }
            at = start + payload.len();
        }
        Ok(at)
    }

    fn text(&mut self, payload: &[u8], tally: &mut Tally) -> Result<(), Ended> {
        if let Some(found) = scan::notification(payload) {
            self.step(found.stream, found.epoch, found.prev, found.seq)?;
            self.note_conflated(found.conflated, tally);
            return self.notification(found.stream, &found.data, true, tally);
        }
        let text = std::str::from_utf8(payload).map_err(|_| "a text that is not UTF-8".to_owned())?;
        let frame: Frame<'_> =
            serde_json::from_str(text).map_err(|error| format!("not a frame ({error}): {text:.200}"))?;
        let no_stream = || format!("no stream: {text:.200}");
        match frame.op {
            "notification" => {
                let stream = frame.stream().ok_or_else(no_stream)?;
                self.step(stream, frame.epoch.as_bytes(), frame.prev, frame.seq)?;
                self.note_conflated(frame.conflated, tally);
                let object = frame.data.ok_or_else(no_stream)?;
                frame::data(object.get(), |data| self.notification(stream, data, true, tally))
                    .ok_or_else(|| format!("not a notification: {text:.200}"))?
            }
            "batch" => {
                let stream = frame.stream().ok_or_else(no_stream)?;
                let mut last = frame.prev;
                for item in &frame.items {
                    if item.seq <= last || item.seq > frame.seq {
                        return Err(format!("item {} after {last} in a batch up to {}", item.seq, frame.seq));
                    }
                    last = item.seq;
                    frame::data(item.data.get(), |data| self.notification(stream, data, false, tally))
                        .ok_or_else(|| format!("not a notification: {:.200}", item.data.get()))??;
                }
                self.step(stream, frame.epoch.as_bytes(), frame.prev, frame.seq)
            }
            "replay_end" => {
                let stream = frame.stream().ok_or_else(no_stream)?;
                self.live |= stream == Stream::User;
                self.step(stream, frame.epoch.as_bytes(), frame.prev, frame.seq)
            }
            "heartbeat" if self.stage == Stage::Ready => {
                let Streams { user, all } = frame.streams.ok_or_else(no_stream)?;
                self.step(Stream::User, user.epoch.as_bytes(), user.prev, user.seq)?;
                self.step(Stream::All, all.epoch.as_bytes(), all.prev, all.seq)
            }
            "auth_ok" => self.subscribe(),
            "subscribed" => {
                let Streams { user, all } = frame.streams.ok_or_else(no_stream)?;
                let resumed = !self.positions[0].epoch.is_empty();
                for (position, State { epoch, seq, .. }) in self.positions.iter_mut().zip([user, all]) {
                    *position = Position { epoch: epoch.into_owned(), seq };
                }
                // A resume always ends with `replay_end`.
                self.live = !resumed;
                self.stage = Stage::Ready;
                Ok(())
            }
            "resync" => {
                let stream = frame.stream().ok_or_else(no_stream)?;
                tally.resyncs += 1;
                self.live |= stream == Stream::User;
                self.positions[stream as usize] =
                    Position { epoch: frame.epoch.into_owned(), seq: frame.head };
                Ok(())
            }
            "error" => Err(format!("error {}: {}", frame.code, frame.msg)),
            "goodbye" => Err("the gateway says good-bye".to_owned()),
            _ => Ok(()),
        }
    }

    fn subscribe(&mut self) -> Result<(), Ended> {
        let [user, all] = &self.positions;
        let subscribe = if user.epoch.is_empty() {
            r#"{"op":"subscribe"}"#.to_owned()
        } else {
            let position =
                |Position { epoch, seq }: &Position| serde_json::json!({"epoch": epoch, "seq": seq});
            serde_json::json!({"op": "subscribe", "resume": {"user": position(user), "all": position(all)}})
                .to_string()
        };
        self.send_frame(OpCode::Data(DataCode::Text), subscribe.as_bytes())
    }

    /// The client's one rule.
    fn step(&mut self, stream: Stream, epoch: &[u8], prev: u64, seq: u64) -> Result<(), Ended> {
        let position = &mut self.positions[stream as usize];
        if position.epoch.as_bytes() != epoch || position.seq != prev {
            let epoch = String::from_utf8_lossy(epoch);
            return Err(format!(
                "gap in {stream:?}: prev is {epoch}:{prev}, the position is {}:{}",
                position.epoch, position.seq
            ));
        }
        position.seq = seq;
        Ok(())
    }

    fn note_conflated(&mut self, count: u64, tally: &mut Tally) {
        self.conflated += count;
        tally.conflated += count;
    }

    fn notification(
        &mut self,
        stream: Stream,
        data: &Data<'_>,
        is_live: bool,
        tally: &mut Tally,
    ) -> Result<(), Ended> {
        let is_mine = match stream {
            Stream::User => data.user_id == self.user_id.as_bytes(),
            Stream::All => data.user_id == bellwire::EVERYBODY.as_bytes(),
        };
        if !is_mine {
            tally.foreign += 1;
            return Err(format!("a notification of {}", String::from_utf8_lossy(data.user_id)));
        }
        self.received[stream as usize] += 1;
        tally.notification(self.index, data, is_live);
        Ok(())
    }

    fn send_frame(&mut self, opcode: OpCode, payload: &[u8]) -> Result<(), Ended> {
        // A mask of zeros hides nothing and costs nothing.
        let header = FrameHeader { opcode, mask: Some([0; 4]), ..FrameHeader::default() };
        let mut frame = Vec::with_capacity(payload.len() + 8);
        header.format(payload.len() as u64, &mut frame).map_err(|error| error.to_string())?;
        frame.extend_from_slice(payload);
        self.send(&frame)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Ended> {
        let Some(socket) = &mut self.socket else { return Ok(()) };
        while !self.unsent.is_empty() {
            match socket.write(&self.unsent) {
                Ok(len) => drop(self.unsent.drain(..len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("write: {error}")),
            }
        }
        self.unsent = Vec::new();
        Ok(())
    }
}

fn check_upgrade(head: &[u8]) -> Result<(), Ended> {
    static ACCEPT: LazyLock<String> = LazyLock::new(|| derive_accept_key(NONCE.as_bytes()));
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101 ") {
        return Err(format!("refused: {status}"));
    }
    let accept = lines.filter_map(|line| line.split_once(": "));
    let mut accept = accept.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-accept"));
    if accept.next().is_some_and(|(_, value)| value == *ACCEPT) {
        Ok(())
    } else {
        Err("the answer is not to our handshake".to_owned())
    }
}
