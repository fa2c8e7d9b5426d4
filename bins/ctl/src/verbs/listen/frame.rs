//! The frames a gateway sends, as far as a client needs them. Unknown fields are ignored, as the protocol says.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::position::{Position, StreamName};

/// One frame.
#[derive(Debug)]
pub(crate) enum Frame<'a> {
    Hello(Hello),
    AuthOk(AuthOk),
    Subscribed(Subscribed),
    /// `notification` and `batch`: what moves a position and carries notifications.
    Moves(Moves<'a>),
    Snapshot(Snapshot<'a>),
    Heartbeat(Heartbeat),
    Resync(Resync),
    AuthExpiring {
        in_ms: u64,
    },
    Goodbye(Goodbye),
    Error(ErrorFrame),
    /// Nothing that this client asks for.
    Other,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Hello {
    #[serde(default)]
    pub(crate) conn: String,
    #[serde(default)]
    pub(crate) gateway: String,
    #[serde(default)]
    pub(crate) heartbeat_ms: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AuthOk {
    pub(crate) user_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Subscribed {
    #[serde(default)]
    pub(crate) channels: Vec<String>,
    #[serde(default)]
    pub(crate) streams: Streams<SubscribedStream>,
}

/// Something for each stream; a stream may be left out.
#[derive(Debug, Deserialize)]
pub(crate) struct Streams<T> {
    pub(crate) user: Option<T>,
    pub(crate) all: Option<T>,
}

impl<T> Default for Streams<T> {
    fn default() -> Self {
        Self { user: None, all: None }
    }
}

impl<T> Streams<T> {
    pub(crate) fn into_each(self) -> impl Iterator<Item = (StreamName, T)> {
        let user = self.user.map(|stream| (StreamName::User, stream));
        user.into_iter().chain(self.all.map(|stream| (StreamName::All, stream)))
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct SubscribedStream {
    pub(crate) epoch: String,
    /// Said only when a resume was asked for.
    pub(crate) recovered: Option<bool>,
    /// Where this session's position begins.
    pub(crate) seq: u64,
    /// The replay ends here.
    pub(crate) to: Option<u64>,
}

/// A step of a stream, with the notifications that lie in it.
#[derive(Debug)]
pub(crate) struct Moves<'a> {
    pub(crate) step: Step,
    pub(crate) replay: bool,
    pub(crate) conflated: u64,
    pub(crate) items: Vec<Item<'a>>,
}

/// What the client's one rule is about.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Step {
    pub(crate) stream: StreamName,
    pub(crate) epoch: String,
    pub(crate) prev: u64,
    pub(crate) seq: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Item<'a> {
    pub(crate) seq: u64,
    #[serde(borrow)]
    pub(crate) data: &'a RawValue,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Snapshot<'a> {
    pub(crate) stream: StreamName,
    #[serde(borrow, default)]
    pub(crate) items: Vec<Item<'a>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Heartbeat {
    #[serde(default)]
    pub(crate) streams: Streams<HeartbeatStream>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct HeartbeatStream {
    pub(crate) epoch: String,
    pub(crate) prev: u64,
    pub(crate) seq: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Resync {
    pub(crate) stream: StreamName,
    pub(crate) epoch: String,
    pub(crate) head: u64,
    #[serde(default)]
    pub(crate) why: String,
}

impl Resync {
    pub(crate) fn position(&self) -> Position {
        Position { epoch: self.epoch.clone(), seq: self.head }
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Goodbye {
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) reason: String,
    pub(crate) reconnect_after_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ErrorFrame {
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) msg: String,
    #[serde(default)]
    pub(crate) retryable: bool,
}

/// What is looked at of a notification itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Facts<'a> {
    #[serde(borrow)]
    pub(crate) message_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) message_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) user_id: Cow<'a, str>,
    pub(crate) priority: u8,
    pub(crate) timestamp: i64,
}

impl<'a> Frame<'a> {
    /// Reads one text frame.
    pub(crate) fn parse(text: &'a str) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Op<'a> {
            #[serde(borrow)]
            op: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct One<'a> {
            #[serde(borrow)]
            data: &'a RawValue,
            #[serde(default)]
            replay: bool,
            #[serde(default)]
            conflated: u64,
        }
        #[derive(Deserialize)]
        struct Many<'a> {
            #[serde(borrow)]
            items: Vec<Item<'a>>,
            #[serde(default)]
            replay: bool,
            #[serde(default)]
            conflated: u64,
        }
        #[derive(Deserialize)]
        struct Expiring {
            #[serde(default)]
            in_ms: u64,
        }
        // The fields are read in a second pass: a tagged enum would buffer them and lose the raw notifications.
        let Op { op } = serde_json::from_str(text)?;
        Ok(match &*op {
            "hello" => Self::Hello(serde_json::from_str(text)?),
            "auth_ok" => Self::AuthOk(serde_json::from_str(text)?),
            "subscribed" => Self::Subscribed(serde_json::from_str(text)?),
            "notification" => {
                let step: Step = serde_json::from_str(text)?;
                let One { data, replay, conflated } = serde_json::from_str(text)?;
                let items = vec![Item { seq: step.seq, data }];
                Self::Moves(Moves { step, replay, conflated, items })
            }
            "batch" => {
                let step = serde_json::from_str(text)?;
                let Many { items, replay, conflated } = serde_json::from_str(text)?;
                Self::Moves(Moves { step, replay, conflated, items })
            }
            "replay_end" => {
                let step = serde_json::from_str(text)?;
                Self::Moves(Moves { step, replay: true, conflated: 0, items: Vec::new() })
            }
            "snapshot" => Self::Snapshot(serde_json::from_str(text)?),
            "heartbeat" => Self::Heartbeat(serde_json::from_str(text)?),
            "resync" => Self::Resync(serde_json::from_str(text)?),
            "auth_expiring" => {
                let Expiring { in_ms } = serde_json::from_str(text)?;
                Self::AuthExpiring { in_ms }
            }
            "goodbye" => Self::Goodbye(serde_json::from_str(text)?),
            "error" => Self::Error(serde_json::from_str(text)?),
            _ => Self::Other,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_keeps_the_notifications_as_they_were_sent() {
        let text = r#"{"op":"batch","stream":"user","epoch":"e9c1","prev":41,"seq":45,"replay":true,"new":0,
            "items":[{"seq":42,"data":{"b":1.50,"a":2}},{"seq":45,"data":{}}]}"#;
        let Frame::Moves(batch) = Frame::parse(text).unwrap() else { panic!("not a batch") };
        assert_eq!((batch.step.prev, batch.step.seq, batch.replay), (41, 45, true));
        assert_eq!(batch.items[0].data.get(), r#"{"b":1.50,"a":2}"#);
    }

    #[test]
    fn an_unknown_op_is_no_fault_and_a_broken_frame_is_one() {
        assert!(matches!(Frame::parse(r#"{"op":"later","x":1}"#), Ok(Frame::Other)));
        for broken in ["", "[]", r#"{"op":"batch","stream":"user"}"#, r#"{"op":"resync","stream":"x"}"#] {
            assert!(Frame::parse(broken).is_err(), "{broken}");
        }
    }
}
