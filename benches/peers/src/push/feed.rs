//! What is pushed, on its way to the server: frames over one connection, or notifications through shared memory.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use bellwire::{Level, Notification, Producer, PublishError, SystemNotice};

use super::server::Server;
use super::{LEN, handshake};

/// Whom a message is for.
#[derive(Clone, Copy)]
pub enum To {
    One(usize),
    All,
}

/// Stands for all sessions in the feed of the peers.
pub const ALL: u32 = u32::MAX;

/// A message's head in that feed: the session, the payload's length.
pub const HEAD_LEN: usize = 8;

pub struct Feed {
    way: Way,
    /// How many each session was sent.
    counts: Vec<u64>,
    content: String,
}

enum Way {
    Frames { socket: TcpStream, unsent: Vec<u8> },
    Bus { producer: Box<Producer>, users: Vec<String> },
}

impl Feed {
    pub fn open(server: &Server) -> Result<Self, String> {
        let way = match &server.bus {
            Some(bus) => {
                let producer = Producer::open(bus, "peers").map_err(|error| error.to_string())?;
                Way::Bus {
                    producer: Box::new(producer),
                    users: (0..server.sessions).map(handshake::user).collect(),
                }
            }
            None => {
                let socket = TcpStream::connect(server.feed).map_err(|error| format!("feed: {error}"))?;
                socket.set_nodelay(true).map_err(|error| error.to_string())?;
                Way::Frames { socket, unsent: Vec::new() }
            }
        };
        Ok(Self { way, counts: vec![0; server.sessions], content: String::new() })
    }

    /// A message that should have been sent at `intended`. With a broadcast all sessions must have got as many as each other.
    pub fn push(&mut self, to: To, intended: u64) -> Result<(), String> {
        let number = match to {
            To::One(session) => {
                self.counts[session] += 1;
                self.counts[session]
            }
            To::All => {
                self.counts.iter_mut().for_each(|count| *count += 1);
                self.counts[0]
            }
        };
        use std::fmt::Write as _;
        self.content.clear();
        let _ = write!(self.content, "@{intended:019}#{number:010}"); // a String takes everything
        match &mut self.way {
            Way::Frames { unsent, .. } => {
                const BEFORE: &str = r#"{"message_type":"system_notice","payload":{"content":""#;
                const BEHIND: &str = r#""}}"#;
                let index = match to {
                    To::One(session) => session as u32,
                    To::All => ALL,
                };
                unsent.extend_from_slice(&index.to_le_bytes());
                unsent.extend_from_slice(&(LEN as u32).to_le_bytes());
                let filling = LEN - BEFORE.len() - BEHIND.len() - self.content.len();
                unsent.extend_from_slice(BEFORE.as_bytes());
                unsent.extend_from_slice(self.content.as_bytes());
                unsent.resize(unsent.len() + filling, b'.');
                unsent.extend_from_slice(BEHIND.as_bytes());
            }
            Way::Bus { producer, users } => {
                // What the gateway's JSON adds to it gives about the same length.
                const FILLING: &str = "..............................................";
                self.content.push_str(FILLING);
                let notice =
                    SystemNotice { title: "peers", content: &self.content, level: Level::Info, timestamp: 0 };
                let notification = match to {
                    To::One(session) => Notification::new(&users[session], "peers", notice),
                    To::All => Notification::to_all("peers", notice),
                };
                loop {
                    match producer.publish(&notification) {
                        Ok(_) => break,
                        Err(PublishError::Full { .. }) => std::thread::sleep(Duration::from_micros(50)),
                        Err(error) => return Err(error.to_string()),
                    }
                }
            }
        }
        Ok(())
    }

    /// What was pushed is on its way.
    pub fn flush(&mut self) -> Result<(), String> {
        if let Way::Frames { socket, unsent } = &mut self.way {
            socket.write_all(unsent).map_err(|error| format!("feed: {error}"))?;
            unsent.clear();
        }
        Ok(())
    }
}
