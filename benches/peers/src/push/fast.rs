//! fastwebsockets as its users write a push server: tokio, a task and a bounded channel for each session.

use std::sync::Arc;

use fastwebsockets::{Frame, Payload, Role, WebSocket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};

use super::bare::BACKLOG;
use super::feed::{ALL, HEAD_LEN};
use super::handshake;
use super::load::raise_descriptors;

/// Messages that wait for a session.
const CHANNEL: usize = 1024;

type Sessions = Arc<Mutex<Vec<Option<mpsc::Sender<Arc<[u8]>>>>>>;

pub fn serve() {
    raise_descriptors(1000).expect("open files");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener = socket.listen(BACKLOG as u32).expect("a port");
        let feeder = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!(
            "listening {} {}",
            listener.local_addr().expect("an address"),
            feeder.local_addr().expect("an address")
        );
        let sessions = Sessions::default();
        let accepted = Arc::clone(&sessions);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(session(socket, Arc::clone(&accepted)));
            }
        });
        let (socket, _) = feeder.accept().await.expect("the feed");
        feed(socket, sessions).await;
    });
}

async fn session(mut socket: TcpStream, sessions: Sessions) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut buffer = [0; 2048];
    let len = socket.read(&mut buffer).await.ok()?;
    let (index, answer) = handshake::answer(&String::from_utf8_lossy(&buffer[..len]))?;
    let (sender, mut messages) = mpsc::channel::<Arc<[u8]>>(CHANNEL);
    {
        let mut sessions = sessions.lock().await;
        if index >= sessions.len() {
            sessions.resize(index + 1, None);
        }
        sessions[index] = Some(sender);
    }
    socket.write_all(answer.as_bytes()).await.ok()?;
    let mut socket = WebSocket::after_handshake(socket, Role::Server);
    socket.set_auto_pong(true);
    while let Some(message) = messages.recv().await {
        socket.write_frame(Frame::text(Payload::Borrowed(&message))).await.ok()?;
    }
    Some(())
}

async fn feed(mut socket: TcpStream, sessions: Sessions) {
    let (mut unread, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(len @ 1..) = socket.read(&mut buffer).await {
        unread.extend_from_slice(&buffer[..len]);
        let sessions = sessions.lock().await;
        let mut at = 0;
        while let Some(head) = unread.get(at..at + HEAD_LEN) {
            let index = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let Some(payload) = unread.get(at + HEAD_LEN..at + HEAD_LEN + len) else { break };
            let message: Arc<[u8]> = payload.into();
            let range = if index == ALL { 0..sessions.len() } else { index as usize..index as usize + 1 };
            for session in sessions[range].iter().flatten() {
                // Waits for one that is slow, as nothing may be lost here.
                let _ = session.send(Arc::clone(&message)).await;
            }
            at += HEAD_LEN + len;
        }
        unread.drain(..at);
    }
}
