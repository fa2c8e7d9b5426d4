//! A named pipe.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::message::{Check, LEN, Message};
use crate::peer::{Peer, Receiver, Sender};

/// As much as an ordinary user may have.
const ROOM: libc::c_int = 1 << 20;

pub struct Pipe;

fn path(link: &str) -> PathBuf {
    std::env::temp_dir().join(link)
}

impl Peer for Pipe {
    const NAME: &'static str = "pipe";
    const PARKS: bool = true;
    type Sender = PipeSender;
    type Receiver = PipeReceiver;

    fn receiver(link: &str, _: usize, _: usize) -> Self::Receiver {
        let path = path(link);
        let name = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("a path");
        // SAFETY: a string that ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        // Open for both, so that it does not end before the sender has come.
        let pipe = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .expect("the pipe");
        // SAFETY: no pointers.
        unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, ROOM) };
        PipeReceiver { pipe, buffer: vec![0; 64 * LEN], len: 0 }
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        let pipe =
            OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path(link)).expect("the pipe");
        PipeSender(pipe)
    }

    fn clean(link: &str) {
        let _ = std::fs::remove_file(path(link));
    }
}

pub struct PipeSender(File);

impl Sender for PipeSender {
    fn send(&mut self, message: &Message) -> bool {
        // Shorter than PIPE_BUF: whole or not at all.
        self.0.write(&message.to_bytes()).is_ok_and(|len| len == LEN)
    }
}

pub struct PipeReceiver {
    pipe: File,
    buffer: Vec<u8>,
    len: usize,
}

impl Receiver for PipeReceiver {
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        let Ok(read) = self.pipe.read(&mut self.buffer[self.len..]) else { return 0 };
        self.len += read;
        let whole = self.len / LEN;
        for bytes in self.buffer[..self.len].chunks_exact(LEN) {
            stamp(check.bytes(bytes));
        }
        self.buffer.copy_within(whole * LEN..self.len, 0);
        self.len -= whole * LEN;
        whole
    }

    fn park(&mut self, timeout: Duration) {
        wait_readable(&self.pipe, timeout);
    }
}

/// Sleeps until there is something to read, or the time is over.
pub fn wait_readable(end: &impl AsFd, timeout: Duration) {
    let mut poll = libc::pollfd { fd: end.as_fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut poll, 1, timeout.as_millis() as libc::c_int) };
}
