//! A Unix socket that keeps messages apart (SOCK_SEQPACKET).

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::message::{Bytes, Check, LEN, Message};
use crate::peer::{Peer, Receiver, Sender};

pub struct Socket;

/// An abstract address: nothing is left behind.
fn address(link: &str) -> (libc::sockaddr_un, libc::socklen_t) {
    // SAFETY: all zeros is a valid address.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (byte, letter) in address.sun_path[1..].iter_mut().zip(link.bytes()) {
        *byte = letter as libc::c_char;
    }
    (address, (size_of::<libc::sa_family_t>() + 1 + link.len()) as libc::socklen_t)
}

fn socket() -> OwnedFd {
    // SAFETY: no pointers; the result is checked and owned from here on.
    unsafe {
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    }
}

impl Peer for Socket {
    const NAME: &'static str = "unix-seqpacket";
    const PARKS: bool = true;
    const BURST: u64 = 100;
    type Sender = SocketSender;
    type Receiver = SocketReceiver;

    fn receiver(link: &str, _: usize, _: usize) -> Self::Receiver {
        let (socket, (address, len)) = (socket(), address(link));
        // SAFETY: a valid address of that length.
        let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
        // SAFETY: no pointers.
        let listens = unsafe { libc::listen(socket.as_raw_fd(), 1) };
        assert_eq!((bound, listens), (0, 0));
        SocketReceiver { listener: socket, socket: None }
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        let (socket, (address, len)) = (socket(), address(link));
        let room: libc::c_int = 4 << 20;
        // SAFETY: a valid option value and a valid address.
        let connected = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUF,
                (&raw const room).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            );
            libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len)
        };
        assert_eq!(connected, 0);
        SocketSender(socket)
    }
}

pub struct SocketSender(OwnedFd);

impl Sender for SocketSender {
    fn send(&mut self, message: &Message) -> bool {
        let bytes = message.to_bytes();
        // SAFETY: that many bytes are there.
        let sent = unsafe {
            libc::send(
                self.0.as_raw_fd(),
                bytes.as_ptr().cast(),
                LEN,
                libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            )
        };
        sent == LEN as isize
    }
}

pub struct SocketReceiver {
    listener: OwnedFd,
    socket: Option<OwnedFd>,
}

impl SocketReceiver {
    fn read(&mut self, flags: libc::c_int) -> Option<Bytes> {
        let listener = self.listener.as_raw_fd();
        let socket = self.socket.get_or_insert_with(|| {
            // SAFETY: null pointers mean that the address is not asked for; the result is checked.
            unsafe {
                let fd =
                    libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC);
                assert!(fd >= 0);
                OwnedFd::from_raw_fd(fd)
            }
        });
        let mut bytes = [0; LEN];
        // SAFETY: room for that many bytes.
        let read = unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), LEN, flags) };
        (read == LEN as isize).then_some(bytes)
    }
}

impl Receiver for SocketReceiver {
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        match self.read(libc::MSG_DONTWAIT) {
            Some(bytes) => {
                stamp(check.bytes(&bytes));
                1
            }
            None => 0,
        }
    }

    fn park(&mut self, timeout: Duration) {
        let Some(socket) = &self.socket else { return };
        super::pipe::wait_readable(socket, timeout);
    }
}
