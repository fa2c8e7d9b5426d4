//! TLS after its handshake: rustls between the socket and the frames.
//!
//! A silent session holds about 9 KiB more than a plain one (`tests/doors/tls.rs` prints it); one whose client does not read
//! up to a record more.

use std::io::{self, ErrorKind, Read, Write};

use rustls::ServerConnection;
use tokio::net::TcpStream;

/// Encrypted bytes that may wait for the kernel. One more write is taken only when they have gone.
const WAITING_MAX: usize = 64 * 1024;

/// What is encrypted at once: one TLS record.
const RECORD_LEN: usize = 16 * 1024;

/// The state of one TLS connection.
#[derive(Debug)]
pub(super) struct Encrypted(ServerConnection);

/// A socket as rustls wants it.
struct Raw<'a>(&'a TcpStream);

impl Read for Raw<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Raw<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Encrypted {
    pub(super) fn new(mut connection: ServerConnection) -> Self {
        connection.set_buffer_limit(Some(WAITING_MAX));
        Self(connection)
    }

    pub(super) fn try_read(&mut self, stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Also a connection that was cut without TLS's good-bye: what came of it is whole frames or nothing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            self.0.read_tls(&mut Raw(stream))?;
            if let Err(error) = self.0.process_new_packets() {
                // The client is told by an alert, if it can be.
                let _ = self.try_flush(stream);
                return Err(io::Error::new(ErrorKind::InvalidData, error));
            }
            // Answers of TLS itself. If the socket is full, they go with the next write.
            match self.try_flush(stream) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => other?,
            }
        }
    }

    pub(super) fn try_write(&mut self, stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.try_flush(stream)?;
        let len = self.0.writer().write(&bytes[..bytes.len().min(RECORD_LEN)])?;
        match self.try_flush(stream) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(len),
            Err(error) => Err(error),
            Ok(()) => Ok(len),
        }
    }

    pub(super) fn try_flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(&mut Raw(stream))?;
        }
        Ok(())
    }
}
