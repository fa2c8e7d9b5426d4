//! What a shard has done. Written by whoever has its state, its thread or for a moment the broker's (see [`super::desk`]), and
//! read by anybody.
//!
//! `delivered` counts notifications of which the kernel has accepted every byte. A notification whose bytes are still in
//! an out buffer is not delivered, and if the connection breaks it never was; the client that resumes gets it again.

pub use crate::counts::{Count, Histogram};
use crate::protocol::Close;

/// Counts of one shard.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions now: WebSockets that are open, also before they authenticate.
    pub sessions: Count,
    /// Sessions ever.
    pub opened: Count,
    /// Handshakes that came to nothing.
    pub handshakes_failed: Count,
    /// Notifications of which the kernel has every byte, replayed ones among them.
    pub delivered: Count,
    /// Writes by which they went out.
    pub writes: Count,
    /// Notifications that were rendered for a replay.
    pub replayed: Count,
    /// Notifications that were left out for a newer one of the same key.
    pub conflated: Count,
    /// Records that were not the session's on the send path. Anything but 0 is a bug; the session was aborted.
    pub user_mismatch: Count,
    /// Records that could not be read back from the journal.
    pub unreadable: Count,
    /// Sessions closed by the gateway, by the place of the code in [`Close::ALL`].
    pub closes: [Count; Close::ALL.len()],
    /// From publishing to the kernel's acceptance, by priority.
    pub latency: [Histogram; 4],
}
