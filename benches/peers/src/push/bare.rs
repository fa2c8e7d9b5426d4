//! The limit: one thread, one epoll loop, frames that are ready, and one send for each session that has something, after all
//! that is there has been read.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use super::feed::{ALL, HEAD_LEN};
use super::handshake;
use super::load::{Epoll, raise_descriptors};

const LISTENER: u64 = u64::MAX;
const FEEDER: u64 = u64::MAX - 1;
const FEED: u64 = u64::MAX - 2;

/// Connections that the kernel completes before they are accepted.
pub const BACKLOG: i32 = 4096;

#[derive(Default)]
struct Session {
    socket: Option<TcpStream>,
    out: Vec<u8>,
    is_dirty: bool,
}

pub fn serve() {
    raise_descriptors(1000).expect("open files");
    let (listener, feeder) = (listen(), listen());
    println!(
        "listening {} {}",
        listener.local_addr().expect("an address"),
        feeder.local_addr().expect("an address")
    );
    let mut epoll = Epoll::new().expect("an epoll");
    epoll.add(listener.as_raw_fd(), LISTENER).expect("the listener");
    epoll.add(feeder.as_raw_fd(), FEEDER).expect("the feed's listener");
    let mut strangers: Vec<Option<TcpStream>> = Vec::new();
    let mut sessions: Vec<Session> = Vec::new();
    let mut feed: Option<TcpStream> = None;
    let (mut unread, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let mut dirty = Vec::new();
    loop {
        let late = !dirty.is_empty();
        for number in epoll.wait(Duration::from_millis(if late { 1 } else { 1000 })).expect("events") {
            match number {
                LISTENER => {
                    while let Ok((socket, _)) = listener.accept() {
                        socket.set_nonblocking(true).expect("a flag");
                        socket.set_nodelay(true).expect("a flag");
                        epoll.add(socket.as_raw_fd(), strangers.len() as u64).expect("a client");
                        strangers.push(Some(socket));
                    }
                }
                FEEDER => {
                    let (socket, _) = feeder.accept().expect("the feed");
                    socket.set_nonblocking(true).expect("a flag");
                    epoll.add(socket.as_raw_fd(), FEED).expect("the feed");
                    feed = Some(socket);
                }
                FEED => {
                    let socket = feed.as_mut().expect("a feed");
                    match socket.read(&mut buffer) {
                        Ok(0) => return,
                        Ok(len) => unread.extend_from_slice(&buffer[..len]),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => return,
                    }
                }
                number => {
                    let Some(mut socket) = strangers[number as usize].take() else { continue };
                    let len = socket.read(&mut buffer).unwrap_or_default();
                    let request = String::from_utf8_lossy(&buffer[..len]).into_owned();
                    let Some((index, answer)) = handshake::answer(&request) else { continue };
                    socket.write_all(answer.as_bytes()).expect("an answer");
                    if index >= sessions.len() {
                        sessions.resize_with(index + 1, Session::default);
                    }
                    sessions[index].socket = Some(socket);
                }
            }
        }
        let mut at = 0;
        while let Some(head) = unread.get(at..at + HEAD_LEN) {
            let index = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let Some(payload) = unread.get(at + HEAD_LEN..at + HEAD_LEN + len) else { break };
            let range = if index == ALL { 0..sessions.len() } else { index as usize..index as usize + 1 };
            for index in range {
                let session = &mut sessions[index];
                session.out.extend_from_slice(&handshake::server_header(len));
                session.out.extend_from_slice(payload);
                if !std::mem::replace(&mut session.is_dirty, true) {
                    dirty.push(index);
                }
            }
            at += HEAD_LEN + len;
        }
        unread.drain(..at);
        dirty.retain(|index| {
            let session = &mut sessions[*index];
            let sent = session
                .socket
                .as_mut()
                .map_or(session.out.len(), |socket| socket.write(&session.out).unwrap_or_default());
            session.out.drain(..sent);
            session.is_dirty = !session.out.is_empty();
            session.is_dirty
        });
    }
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a flag");
    // As many as the gateway lets wait; the standard library has 128.
    // SAFETY: the descriptor is open, and listening once more only changes that number.
    let listening = unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) };
    assert_eq!(listening, 0, "{}", std::io::Error::last_os_error());
    listener
}
