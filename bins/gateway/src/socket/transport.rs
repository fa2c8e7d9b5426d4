//! Bytes in and out, never blocking.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use rustls::ServerConnection;
use tokio::net::TcpStream;

use super::tls::Encrypted;

/// A connected socket. Nothing here ever waits; "not now" is [`io::ErrorKind::WouldBlock`].
///
/// An enum and no trait object: what a plain socket pays for there being TLS is one branch that is always predicted.
#[derive(Debug)]
pub struct Transport {
    stream: TcpStream,
    /// Boxed, since a TLS connection takes over a kilobyte and a plain one nothing.
    encrypted: Option<Box<Encrypted>>,
}

impl Transport {
    pub fn plain(stream: TcpStream) -> Self {
        Self { stream, encrypted: None }
    }

    /// After TLS's own handshake.
    pub fn tls(stream: TcpStream, connection: ServerConnection) -> Self {
        Self { stream, encrypted: Some(Box::new(Encrypted::new(connection))) }
    }

    pub fn is_tls(&self) -> bool {
        self.encrypted.is_some()
    }

    /// The other end's address; `None` if the connection is gone.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.stream.peer_addr().ok()
    }

    /// Reads what is there; 0 bytes: the client has closed its side.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is broken.
    pub fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.encrypted {
            None => self.stream.try_read(buffer),
            Some(encrypted) => encrypted.try_read(&self.stream, buffer),
        }
    }

    /// Writes as much as is taken now. Under TLS it is not with the kernel until [`Transport::try_flush`] says so.
    ///
    /// # Errors
    /// `WouldBlock`, or the connection is broken.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.encrypted {
            None => self.stream.try_write(bytes),
            Some(encrypted) => encrypted.try_write(&self.stream, bytes),
        }
    }

    /// Hands the kernel what was written but not taken by it.
    ///
    /// # Errors
    /// `WouldBlock` as long as something is left, or the connection is broken.
    pub fn try_flush(&mut self) -> io::Result<()> {
        match &mut self.encrypted {
            None => Ok(()),
            Some(encrypted) => encrypted.try_flush(&self.stream),
        }
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
