//! Bytes on their way to a client.

use std::io;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::Transport;

/// Room for the header of a frame of 126 to 65535 bytes: what most frames are.
const HEADER_GAP: usize = 4;

/// Longest header of a frame that goes to a client (no mask).
const HEADER_LEN_MAX: usize = 10;

/// Longest reason in a close frame, in bytes.
const CLOSE_REASON_LEN_MAX: usize = 123;

/// Frames that are to be written, or of which the kernel has taken a part. A session has one only while it has something
/// to say.
#[derive(Debug, Default)]
pub struct Out {
    bytes: Vec<u8>,
    /// How many of them the kernel has.
    taken: usize,
    /// The notifications among them, to be counted when the kernel has all of it and not before.
    notifications: Vec<Written>,
}

/// A notification that was rendered.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// When it was published, in nanoseconds since the Unix epoch; `None` if nobody knows.
    pub published_at: Option<i64>,
    /// The number of its priority.
    pub priority: u8,
}

/// What came of an attempt to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has every byte.
    All,
    /// The socket is full; some bytes are left.
    Blocked,
}

impl Out {
    /// Bytes that the kernel has not taken yet.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Notifications among the bytes.
    pub fn notifications(&self) -> &[Written] {
        &self.notifications
    }

    /// Notes that a notification was rendered.
    pub fn note(&mut self, written: Written) {
        self.notifications.push(written);
    }

    /// Appends bytes that are no frame: the answer to the handshake.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a text frame with what `write` appends. `None` takes the frame back.
    pub fn text<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Option<R>) -> Option<R> {
        self.frame(OpCode::Data(Data::Text), write)
    }

    pub fn ping(&mut self) {
        self.frame(OpCode::Control(Control::Ping), |_| Some(()));
    }

    pub fn pong(&mut self, payload: &[u8]) {
        self.frame(OpCode::Control(Control::Pong), |out| {
            out.extend_from_slice(payload);
            Some(())
        });
    }

    /// Appends a close frame; without a code it is empty.
    pub fn close(&mut self, code: Option<u16>, reason: &str) {
        self.frame(OpCode::Control(Control::Close), |out| {
            if let Some(code) = code {
                out.extend_from_slice(&code.to_be_bytes());
                let mut end = reason.len().min(CLOSE_REASON_LEN_MAX);
                while !reason.is_char_boundary(end) {
                    end -= 1;
                }
                out.extend_from_slice(&reason.as_bytes()[..end]);
            }
            Some(())
        });
    }

    fn frame<R>(&mut self, opcode: OpCode, write: impl FnOnce(&mut Vec<u8>) -> Option<R>) -> Option<R> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER_GAP]);
        let Some(result) = write(&mut self.bytes) else {
            self.bytes.truncate(start);
            return None;
        };
        let payload_at = start + HEADER_GAP;
        let payload_len = self.bytes.len() - payload_at;
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        let mut formatted = [0; HEADER_LEN_MAX];
        let mut rest = &mut formatted[..];
        // Ten bytes hold any header without a mask.
        let _ = header.format(payload_len as u64, &mut rest);
        let header_len = HEADER_LEN_MAX - rest.len();
        if header_len != HEADER_GAP {
            // A short control frame or a very long one: its payload moves.
            if header_len > HEADER_GAP {
                self.bytes.resize(start + header_len + payload_len, 0);
            }
            self.bytes.copy_within(payload_at..payload_at + payload_len, start + header_len);
            self.bytes.truncate(start + header_len + payload_len);
        }
        self.bytes[start..start + header_len].copy_from_slice(&formatted[..header_len]);
        Some(result)
    }

    /// Hands the kernel as much as it takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, transport: &mut Transport) -> io::Result<Sent> {
        while self.taken < self.bytes.len() {
            match transport.try_write(&self.bytes[self.taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => self.taken += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Sent::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match transport.try_flush() {
            Ok(()) => Ok(Sent::All),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Sent::Blocked),
            Err(error) => Err(error),
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Empty buffers of one thread, to be used again.
#[derive(Debug, Default)]
pub struct Pool {
    // Bounded by POOL_LEN_MAX buffers of at most BUFFER_KEEP bytes; beyond that they are freed.
    #[allow(clippy::vec_box, reason = "they go into sessions as boxes, and come back as such")]
    free: Vec<Box<Out>>,
}

const POOL_LEN_MAX: usize = 64;
const BUFFER_KEEP: usize = 80 * 1024;

impl Pool {
    pub fn take(&mut self) -> Box<Out> {
        self.free.pop().unwrap_or_default()
    }

    pub fn put_back(&mut self, mut out: Box<Out>) {
        if self.free.len() < POOL_LEN_MAX && out.bytes.capacity() <= BUFFER_KEEP {
            out.bytes.clear();
            out.taken = 0;
            out.notifications.clear();
            self.free.push(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_fit_payloads_of_every_size() {
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 200_000] {
            let mut out = Out::default();
            out.text(|bytes| {
                bytes.extend((0..len).map(|index| index as u8));
                Some(())
            });
            let mut cursor = io::Cursor::new(out.bytes());
            let (header, payload_len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((header.opcode, header.is_final), (OpCode::Data(Data::Text), true));
            assert_eq!(payload_len, len);
            let payload = &out.bytes()[cursor.position() as usize..];
            assert!(payload.iter().enumerate().all(|(index, &byte)| byte == index as u8));
            assert_eq!(payload.len() as u64, len);
        }
    }

    #[test]
    fn a_frame_that_is_taken_back_leaves_nothing() {
        let mut out = Out::default();
        out.ping();
        let before = out.bytes().to_vec();
        assert_eq!(before, [0x89, 0]);
        out.text(|bytes| {
            bytes.push(1);
            None::<()>
        });
        assert_eq!(out.bytes(), before);
        out.close(Some(4001), "drain");
        assert_eq!(out.bytes()[2..], [0x88, 7, 0x0f, 0xa1, b'd', b'r', b'a', b'i', b'n']);
    }
}
