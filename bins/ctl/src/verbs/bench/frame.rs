//! Frames that are not notifications in the usual form, read as JSON: few, or not on the clock.

use std::borrow::Cow;

use bellwire::MessageId;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::scan::{self, Stream};

#[derive(Debug, Deserialize)]
pub(super) struct Frame<'a> {
    pub(super) op: &'a str,
    #[serde(default)]
    stream: Option<&'a str>,
    #[serde(borrow, default)]
    pub(super) epoch: Cow<'a, str>,
    #[serde(default)]
    pub(super) prev: u64,
    #[serde(default)]
    pub(super) seq: u64,
    #[serde(default)]
    pub(super) head: u64,
    #[serde(default)]
    pub(super) conflated: u64,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) items: Vec<Item<'a>>,
    #[serde(borrow, default)]
    pub(super) streams: Option<Streams<'a>>,
    #[serde(default)]
    pub(super) code: u16,
    #[serde(borrow, default)]
    pub(super) msg: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Item<'a> {
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) data: &'a RawValue,
}

#[derive(Debug, Deserialize)]
pub(super) struct Streams<'a> {
    #[serde(borrow)]
    pub(super) user: State<'a>,
    #[serde(borrow)]
    pub(super) all: State<'a>,
}

/// How a stream stands, in `auth_ok`, `subscribed` and `heartbeat`.
#[derive(Debug, Deserialize)]
pub(super) struct State<'a> {
    #[serde(borrow)]
    pub(super) epoch: Cow<'a, str>,
    #[serde(default)]
    pub(super) prev: u64,
    #[serde(default)]
    pub(super) seq: u64,
}

impl Frame<'_> {
    pub(super) fn stream(&self) -> Option<Stream> {
        match self.stream? {
            "user" => Some(Stream::User),
            "all" => Some(Stream::All),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Data<'a> {
    message_id: &'a str,
    #[serde(borrow)]
    user_id: Cow<'a, str>,
    priority: u8,
    timestamp: i64,
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    timestamp: i64,
}

/// Hands over a notification object, in whatever way it is written. `None`: it is not one.
pub(super) fn data<R>(object: &str, take: impl FnOnce(&scan::Data<'_>) -> R) -> Option<R> {
    if let Some(data) = scan::data(object.as_bytes()) {
        return Some(take(&data));
    }
    let data: Data<'_> = serde_json::from_str(object).ok()?;
    let id: MessageId = data.message_id.parse().ok()?;
    let (lane, lane_sequence) = scan::message_id(id.to_string().as_bytes())?;
    Some(take(&scan::Data {
        lane,
        lane_sequence,
        user_id: data.user_id.as_bytes(),
        priority: data.priority.min(3),
        published_at: data.timestamp,
        intended_at: data.payload.timestamp,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_however_it_is_written() {
        let id = MessageId::compose(77, 4_711, 1_728_123_456_000_000_000);
        let loose = format!(
            "{{ \"user_id\": \"a\\u0062\", \"message_id\": \"{id}\", \"payload\": {{\"timestamp\": 5}}, \
             \"priority\": 2, \"timestamp\": 6}}"
        );
        let facts = data(&loose, |data| {
            (
                data.lane,
                data.lane_sequence,
                data.user_id.to_vec(),
                data.priority,
                data.published_at,
                data.intended_at,
            )
        });
        assert_eq!(facts, Some((77, 4_711, b"ab".to_vec(), 2, 6, 5)));
        assert_eq!(data("{}", |_| ()), None);
    }
}
