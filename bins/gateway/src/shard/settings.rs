//! What shards need of the configuration, in the units in which they count.

use std::time::Duration;

use crate::config::Config;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the gateway in `hello`.
    pub gateway: Box<str>,
    pub handshake: Duration,
    pub auth_within_ms: u64,
    pub heartbeat_ms: u64,
    pub idle_ms: u64,
    /// A client that has been silent for so long is pinged.
    pub ping_after_ms: u64,
    pub frame_bytes_max: usize,
    pub frames_per_second: u32,
    pub frames_burst: u32,
    pub pending_max: usize,
    pub leeway_s: u64,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let (limits, session) = (&config.limits, &config.session);
        Self {
            gateway: config.listen.name.as_str().into(),
            handshake: Duration::from_millis(limits.handshake_ms),
            auth_within_ms: limits.auth_within_ms,
            heartbeat_ms: session.heartbeat_ms,
            idle_ms: session.idle_ms,
            // Two pings can be lost before the time is over.
            ping_after_ms: session.idle_ms / 3,
            frame_bytes_max: limits.frame_bytes_max,
            frames_per_second: limits.frames_per_second,
            frames_burst: limits.frames_burst,
            pending_max: limits.pending_max,
            leeway_s: config.token.leeway_s,
        }
    }
}
