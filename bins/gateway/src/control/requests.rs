//! What can be asked, and how it is answered.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::revocation::Revocation;
use crate::config::LogLevel;

/// Grows when a field goes or changes its meaning; new fields do not count.
const SCHEMA: u32 = 1;

/// One line of a caller: `{"op": "kick", "user": "user_01"}`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Request {
    /// How the gateway is.
    Status {},
    /// A page of the sessions; the answer's `next` is the `from` of the following one.
    Sessions { user: Option<String>, from: Option<From> },
    /// Ends sessions with 4505.
    Kick(Who),
    /// Takes tokens back, in open sessions too.
    Revoke(Revocation),
    /// Another log level, for a while or until it is set again.
    LogLevel { level: LogLevel, for_s: Option<u64> },
    /// As SIGHUP.
    Reload {},
    /// As SIGTERM, with a time of its own.
    Drain { within_ms: Option<u64> },
}

/// Exactly one of both.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Who {
    pub(super) user: Option<String>,
    pub(super) conn: Option<String>,
}

/// Where to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct From {
    pub(super) shard: usize,
    pub(super) slot: usize,
}

/// Why something was not done: a word for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("not understood: {0}")]
    BadRequest(String),
    #[error("a request has at most {max} bytes")]
    TooLong { max: usize },
    #[error("uid {uid} may not: only root, the gateway's user and the members of control.group")]
    Forbidden { uid: u32 },
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Failed(String),
}

impl Request {
    pub(super) fn parse(line: &[u8]) -> Result<Self, Refused> {
        serde_json::from_slice(line).map_err(|error| Refused::BadRequest(error.to_string()))
    }

    /// Whether it changes anything: such requests stand in the log, with who asked.
    pub(super) const fn changes(&self) -> bool {
        !matches!(self, Self::Status {} | Self::Sessions { .. })
    }
}

impl Refused {
    const fn code(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::TooLong { .. } => "too_long",
            Self::Forbidden { .. } => "forbidden",
            Self::NotFound(_) => "not_found",
            Self::Failed(_) => "failed",
        }
    }
}

/// One line for the caller: what is in `value`, or why not.
pub(super) fn answer(outcome: Result<Value, Refused>) -> Vec<u8> {
    let mut answer = match outcome {
        Ok(value) => value,
        Err(refused) => json!({"error": {"code": refused.code(), "message": refused.to_string()}}),
    };
    answer["ok"] = Value::Bool(answer.get("error").is_none());
    answer["schema"] = SCHEMA.into();
    format!("{answer}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_exactly_what_they_are() {
        let parse = |text: &str| Request::parse(text.as_bytes());
        assert_eq!(parse(r#"{"op":"status"}"#), Ok(Request::Status {}));
        assert_eq!(
            parse(r#"{"op":"log-level","level":"debug","for_s":60}"#),
            Ok(Request::LogLevel { level: LogLevel::Debug, for_s: Some(60) })
        );
        let Ok(Request::Revoke(revocation)) = parse(r#"{"op":"revoke","jti":"a","until":7}"#) else {
            panic!("no revocation")
        };
        assert_eq!((revocation.jti.as_deref(), revocation.until), (Some("a"), Some(7)));
        for wrong in [
            "",
            "status",
            "{}",
            r#"{"op":"kill"}"#,
            r#"{"op":"kick","usr":"a"}"#,
            r#"{"op":"status","x":1}"#,
            r#"{"op":"revoke","user":"a","untill":7}"#,
            r#"{"op":"drain","within_ms":-1}"#,
        ] {
            assert!(matches!(parse(wrong), Err(Refused::BadRequest(_))), "{wrong}");
        }
    }
}
