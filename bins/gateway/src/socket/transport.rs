//! Bytes in and out, never blocking.

use std::io;
use std::task::{Context, Poll};

use tokio::net::TcpStream;

/// A connected socket. Nothing here ever waits; "not now" is [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
}

impl Transport {
    pub fn plain(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Reads what is there; 0 bytes: the client has closed its side.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is broken.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(buffer)
    }

    /// Writes as much as the kernel takes now.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is broken.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    /// Whether reading is worth while; if not, the waker is called when it is.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(context)
    }

    /// Whether writing is worth while; if not, the waker is called when it is.
    pub fn poll_writable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_write_ready(context)
    }
}
