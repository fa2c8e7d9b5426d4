//! The WebSocket on a bare TCP stream, or one under TLS.
//!
//! [`handshake`] takes a request and answers it, by tungstenite's rules; then the shard owns the socket. Frame headers are parsed and
//! written by tungstenite's `FrameHeader`, so the bits of the protocol stay the library's; the rules around them
//! (masking, fragments, control frames, limits) stand in [`frames`]. Reading goes through one buffer a thread, so a
//! session that is silent holds none; writing goes through [`Out`], which a session holds only while its socket is busy.
//!
//! [`Transport`] is all that the rest of the gateway knows of a socket: a plain one is a system call, one under TLS encrypts
//! and decrypts before and after it.

pub mod frames;
pub mod handshake;
mod http;
mod out;
mod tls;
mod transport;

pub use out::{Out, Pool, Sent, Written};
pub use transport::Transport;
