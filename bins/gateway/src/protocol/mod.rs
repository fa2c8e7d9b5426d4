//! The client protocol, version 1: what the frames say. Pure: no socket, no clock, no state.
//!
//! [`inbound`] parses what a client may say, [`outbound`] writes what the gateway says, [`codes`] names the ways in
//! which a session or a request ends. The rule of `prev` and `seq`: every frame that carries both moves the client's
//! position from `prev` to `seq`, and `prev` is the position that was last announced to that very session, so neither a
//! channel filter nor conflation ever looks like a loss.

pub mod codes;
pub mod inbound;
pub mod outbound;

pub use codes::{Close, Refusal};
pub use inbound::{Id, Op, ParseError, Request, ResumePoint};

/// The sub-protocol of this page.
pub const V1: &str = "bellwire.v1.json";

/// The sub-protocol in which every frame is one notification and nothing else.
pub const BARE: &str = "bellwire.bare.json";

/// A second sub-protocol entry that carries the token, for browsers, which cannot set headers.
pub const BEARER_PREFIX: &str = "bearer.";

/// Which of a session's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Stream {
    /// The user's own.
    User = 0,
    /// Everybody's.
    All = 1,
}

impl Stream {
    pub const BOTH: [Stream; 2] = [Stream::User, Stream::All];

    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::All => "all",
        }
    }
}

/// A stream's incarnation as clients see it: a few hexadecimal digits, to be compared and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epoch(pub u32);

impl std::fmt::Display for Epoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl serde::Serialize for Epoch {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
