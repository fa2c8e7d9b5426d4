//! How a session behaves.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Manners {
    /// Reads what comes.
    Steady,
    /// Takes its time after each frame, and has a small window.
    Slow,
    /// Breaks the connection now and then, and is back at once.
    Flaky,
    /// Stops reading for a while, without a word; then breaks the connection or reads on.
    HalfOpen,
    /// Goes away for a while, and comes back.
    Sleeper,
}

impl Manners {
    /// Of twenty sessions nine are steady, three slow, three flaky, three half-open now and then, two sleepers.
    pub(crate) fn of(session: u32) -> Self {
        match session.wrapping_mul(7) % 20 {
            0..9 => Self::Steady,
            9..12 => Self::Slow,
            12..15 => Self::Flaky,
            15..18 => Self::HalfOpen,
            _ => Self::Sleeper,
        }
    }

    /// Whether the kernel's buffers for it are to be small, so that the gateway notices soon.
    pub(crate) fn has_small_window(self) -> bool {
        matches!(self, Self::Slow | Self::HalfOpen)
    }
}
