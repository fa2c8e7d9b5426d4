//! All sessions in one epoll loop: they count, and check that each session's messages come in order.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use super::handshake;
use super::load::{Epoll, now_ns};
use super::server::Server;

/// Handshakes at once.
const OPENING_MAX: usize = 256;
/// A server that says nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a message's stamp begins: `@`, 19 digits of nanoseconds, `#`, 10 digits of its number in the session.
const STAMP: u8 = b'@';

pub struct Clients {
    sessions: Vec<Session>,
    epoll: Epoll,
    buffer: Vec<u8>,
    /// Messages that came, in all.
    pub received: u64,
    /// Their bytes, without the frames' headers.
    pub bytes: u64,
    /// From when it should have been sent until it came, in ns, of each.
    pub latencies: Vec<u64>,
}

struct Session {
    socket: TcpStream,
    stage: Stage,
    partial: Vec<u8>,
    /// Number of the last message.
    last: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Upgrading,
    Subscribing,
    Ready,
}

impl Clients {
    /// Opens all sessions; tells how long that took.
    pub fn connect(server: &Server, count: usize) -> Result<(Self, Duration), String> {
        let epoll = Epoll::new()?;
        let mut clients = Self {
            sessions: Vec::with_capacity(count),
            epoll,
            buffer: vec![0; 256 << 10],
            received: 0,
            bytes: 0,
            latencies: Vec::new(),
        };
        let begun = Instant::now();
        let mut ready = 0;
        while ready < count {
            while clients.sessions.len() < count && clients.sessions.len() - ready < OPENING_MAX {
                clients.open(server.address, server.key.as_deref())?;
            }
            ready += clients.turn(PATIENCE)?.opened;
        }
        Ok((clients, begun.elapsed()))
    }

    fn open(&mut self, address: SocketAddr, key: Option<&str>) -> Result<(), String> {
        let index = self.sessions.len();
        let mut socket = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
        socket.write_all(handshake::request(index, key).as_bytes()).map_err(|error| error.to_string())?;
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        self.epoll.add(socket.as_raw_fd(), index as u64)?;
        self.sessions.push(Session { socket, stage: Stage::Upgrading, partial: Vec::new(), last: 0 });
        Ok(())
    }

    /// Waits until nothing has come for so long.
    pub fn settle(&mut self, time: Duration) -> Result<(), String> {
        while self.turn(time)?.events > 0 {}
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Takes in what has come, or what comes within that time.
    pub fn turn(&mut self, time: Duration) -> Result<Turn, String> {
        let ready = self.epoll.wait(time)?;
        let mut turn = Turn { events: ready.len(), opened: 0 };
        for index in ready {
            turn.opened += usize::from(self.read(index as usize)?);
        }
        if turn.events == 0 && time == PATIENCE {
            return Err("the server says nothing".to_owned());
        }
        Ok(turn)
    }

    /// Whether the session became ready by it.
    fn read(&mut self, index: usize) -> Result<bool, String> {
        let Self { sessions, buffer, received, bytes, latencies, .. } = self;
        let session = &mut sessions[index];
        let kept = session.partial.len();
        buffer[..kept].copy_from_slice(&session.partial);
        let len = match session.socket.read(&mut buffer[kept..]) {
            Ok(0) => return Err(format!("session {index} was closed")),
            Ok(len) => kept + len,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("session {index}: {error}")),
        };
        let now = now_ns();
        let was_ready = session.stage == Stage::Ready;
        let mut rest = &buffer[..len];
        if session.stage == Stage::Upgrading
            && let Some(end) = rest.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let answer = String::from_utf8_lossy(&rest[..end]).into_owned();
            if !answer.starts_with("HTTP/1.1 101") {
                return Err(format!("session {index}: {answer}"));
            }
            rest = &rest[end + 4..];
            let is_ours = answer.contains("bellwire.v1.json");
            session.stage = if is_ours { Stage::Subscribing } else { Stage::Ready };
            if is_ours {
                let subscribe = handshake::client_text(r#"{"op":"subscribe","id":1}"#);
                session.socket.write_all(&subscribe).map_err(|error| error.to_string())?;
            }
        }
        while session.stage != Stage::Upgrading
            && let Some((payload, behind)) = frame(rest)
        {
            rest = behind;
            match stamp(payload) {
                Some((sent, number)) => {
                    if number != session.last + 1 {
                        return Err(format!("session {index} got {number} behind {}", session.last));
                    }
                    session.last = number;
                    *received += 1;
                    *bytes += payload.len() as u64;
                    latencies.push(now.saturating_sub(sent));
                }
                None if payload.windows(12).any(|window| window == b"\"subscribed\"") => {
                    session.stage = Stage::Ready
                }
                None => {}
            }
        }
        session.partial = rest.to_vec();
        Ok(!was_ready && session.stage == Stage::Ready)
    }
}

/// What a turn did.
pub struct Turn {
    pub events: usize,
    pub opened: usize,
}

/// The first frame's payload, and what is behind it, if it is whole.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (start, len) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        len => (2, usize::from(len)),
    };
    bytes.get(start..).filter(|rest| rest.len() >= len).map(|rest| rest.split_at(len))
}

fn stamp(payload: &[u8]) -> Option<(u64, u64)> {
    let at = payload.iter().position(|byte| *byte == STAMP)?;
    let digits = |range: std::ops::Range<usize>| {
        payload.get(range)?.iter().try_fold(0u64, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + u64::from(byte - b'0'))
        })
    };
    Some((digits(at + 1..at + 20)?, digits(at + 21..at + 31)?))
}
