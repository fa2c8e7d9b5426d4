//! Close codes and error codes.
//!
//! 4000 to 4499: come back, with jittered back-off, and resume. 4500 to 4999: do not come back unchanged.

/// Why a session is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Close {
    Normal = 1000,
    ProtocolError = 1002,
    Unsupported = 1003,
    BadText = 1007,
    TooBig = 1009,
    Internal = 1011,
    Drain = 4001,
    SlowConsumer = 4002,
    HeartbeatTimeout = 4003,
    RateLimited = 4005,
    BusUnavailable = 4006,
    BadRequest = 4500,
    AuthTimeout = 4501,
    AuthFailed = 4502,
    TokenExpired = 4503,
    TokenRevoked = 4504,
    Kicked = 4505,
    SessionLimit = 4506,
    UserMismatch = 4507,
}

impl Close {
    /// Every code that this gateway sends.
    pub const ALL: [Close; 19] = [
        Self::Normal,
        Self::ProtocolError,
        Self::Unsupported,
        Self::BadText,
        Self::TooBig,
        Self::Internal,
        Self::Drain,
        Self::SlowConsumer,
        Self::HeartbeatTimeout,
        Self::RateLimited,
        Self::BusUnavailable,
        Self::BadRequest,
        Self::AuthTimeout,
        Self::AuthFailed,
        Self::TokenExpired,
        Self::TokenRevoked,
        Self::Kicked,
        Self::SessionLimit,
        Self::UserMismatch,
    ];

    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The word for people and logs; it is the reason in the close frame.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ProtocolError => "protocol_error",
            Self::Unsupported => "unsupported_data",
            Self::BadText => "bad_text",
            Self::TooBig => "message_too_big",
            Self::Internal => "internal_error",
            Self::Drain => "drain",
            Self::SlowConsumer => "slow_consumer",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::RateLimited => "rate_limited",
            Self::BusUnavailable => "bus_unavailable",
            Self::BadRequest => "bad_request",
            Self::AuthTimeout => "auth_timeout",
            Self::AuthFailed => "auth_failed",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::Kicked => "kicked",
            Self::SessionLimit => "session_limit",
            Self::UserMismatch => "user_mismatch",
        }
    }

    /// The place of this code in [`Close::ALL`], for counters.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|&other| other == self).unwrap_or_default()
    }
}

/// Why a request was refused: an `error` frame. The session goes on unless a close follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    BadRequest(String),
    #[error("{0}")]
    AuthFailed(String),
    #[error("the token has expired")]
    TokenExpired,
    #[error("the token was revoked")]
    TokenRevoked,
    #[error("more frames than allowed; slow down, the next time the session is closed")]
    RateLimited,
    #[error("user has {limit} sessions, as many as allowed")]
    SessionLimit { limit: u32 },
    #[error("the new token is for another user")]
    UserMismatch,
    #[error("the bus is not available")]
    BusUnavailable,
    #[error("channel '{0}'")]
    UnknownChannel(String),
    #[error("stream {stream}: seq {seq} is beyond the head {head}")]
    BadResume { stream: &'static str, seq: u64, head: u64 },
    #[error("channel '{0}' is not in the token")]
    ForbiddenChannel(String),
    #[error("send auth first")]
    NotAuthenticated,
}

impl Refusal {
    pub const fn code(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 4500,
            Self::AuthFailed(_) => 4502,
            Self::TokenExpired => 4503,
            Self::TokenRevoked => 4504,
            Self::RateLimited => 4005,
            Self::SessionLimit { .. } => 4506,
            Self::UserMismatch => 4507,
            Self::BusUnavailable => 4006,
            Self::UnknownChannel(_) => 4510,
            Self::BadResume { .. } => 4511,
            Self::ForbiddenChannel(_) => 4512,
            Self::NotAuthenticated => 4513,
        }
    }

    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::AuthFailed(_) => "auth_failed",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::RateLimited => "rate_limited",
            Self::SessionLimit { .. } => "session_limit",
            Self::UserMismatch => "user_mismatch",
            Self::BusUnavailable => "bus_unavailable",
            Self::UnknownChannel(_) => "unknown_channel",
            Self::BadResume { .. } => "bad_resume",
            Self::ForbiddenChannel(_) => "forbidden_channel",
            Self::NotAuthenticated => "not_authenticated",
        }
    }

    /// Whether the same request may succeed later.
    pub const fn retryable(&self) -> bool {
        self.code() < 4500
    }
}
