//! The WebSocket on a bare TCP stream.
//!
//! tokio-tungstenite does the handshake ([`handshake`]); then the shard owns the socket. Frame headers are parsed and
//! written by tungstenite's `FrameHeader`, so the bits of the protocol stay the library's; the rules around them
//! (masking, fragments, control frames, limits) stand in [`frames`]. Reading goes through one buffer a thread, so a
//! session that is silent holds none; writing goes through [`Out`], which a session holds only while its socket is busy.
//!
//! [`Transport`] is all that the rest of the gateway knows of a socket. TLS would be a second kind of transport: the
//! same four methods over a rustls connection, which decrypts and encrypts between them.

pub mod frames;
pub mod handshake;
mod out;
mod transport;

pub use out::{Out, Pool, Sent, Written};
pub use transport::Transport;
