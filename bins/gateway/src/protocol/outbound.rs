//! What the gateway says. Frames around notifications are written by hand, since they are the hot path; all the others
//! by serde, field by field in the order of the protocol page.

use serde::Serialize;

use super::{Close, Epoch, Id, Refusal, Stream};
use crate::auth::ChannelSet;

/// Every frame without a notification in it. Times are strings of nanoseconds: they are beyond what JavaScript's numbers
/// hold.
#[derive(Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Frame<'a> {
    Hello {
        v: u8,
        conn: &'a str,
        gateway: &'a str,
        version: &'a str,
        time: Time,
        auth_within_ms: u64,
        heartbeat_ms: u64,
        idle_ms: u64,
        max_frame: usize,
    },
    AuthOk {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id<'a>>,
        user_id: &'a str,
        expires: u64,
        channels: ChannelSet,
        streams: PerStream<StreamRange>,
    },
    Subscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id<'a>>,
        channels: ChannelSet,
        streams: PerStream<Joined>,
    },
    Unsubscribed {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id<'a>>,
        channels: ChannelSet,
    },
    Subscriptions {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id<'a>>,
        channels: ChannelSet,
    },
    ReplayEnd {
        stream: Stream,
        epoch: Epoch,
        prev: u64,
        seq: u64,
    },
    Heartbeat {
        time: Time,
        streams: PerStream<Position>,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id<'a>>,
        time: Time,
    },
    AuthExpiring {
        expires: u64,
        in_ms: u64,
    },
    Error {
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Id<'a>>,
        code: u16,
        reason: &'static str,
        msg: &'a str,
        retryable: bool,
    },
    Resync {
        stream: Stream,
        epoch: Epoch,
        head: u64,
        why: Why,
    },
    Goodbye {
        code: u16,
        reason: &'static str,
        reconnect_after_ms: u64,
    },
}

/// One value for each stream.
#[derive(Serialize)]
pub struct PerStream<T> {
    pub user: T,
    pub all: T,
}

/// What there is of a stream.
#[derive(Clone, Copy, Serialize)]
pub struct StreamRange {
    pub epoch: Epoch,
    /// The last sequence number; 0 if there was none yet.
    pub head: u64,
    /// The first that a resume can still begin with.
    pub oldest: u64,
}

/// How a subscription stands in a stream: the client's position is `seq`; up to `to` it will be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Joined {
    pub epoch: Epoch,
    /// Whether a resume succeeded; absent if none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    pub seq: u64,
    pub to: u64,
}

/// A move of a session's position.
#[derive(Clone, Copy, Serialize)]
pub struct Position {
    pub epoch: Epoch,
    pub prev: u64,
    pub seq: u64,
}

/// Why a client has to start afresh in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    EpochChanged,
    TooOld,
}

/// Nanoseconds since the Unix epoch, as a string.
#[derive(Clone, Copy)]
pub struct Time(pub i64);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl Frame<'_> {
    /// Appends the frame's JSON.
    pub fn write(&self, out: &mut Vec<u8>) {
        json(self, out);
    }
}

/// The error frame of a refusal.
pub fn error(refusal: &Refusal, id: Option<&Id<'_>>, out: &mut Vec<u8>) {
    let msg = refusal.to_string();
    let (code, reason, retryable) = (refusal.code(), refusal.reason(), refusal.retryable());
    Frame::Error { id, code, reason, msg: &msg, retryable }.write(out);
}

/// The last words before a drain.
pub fn goodbye(close: Close, reconnect_after_ms: u64, out: &mut Vec<u8>) {
    Frame::Goodbye { code: close.code(), reason: close.reason(), reconnect_after_ms }.write(out);
}

/// Appends a `notification` frame around what `data` appends: the notification's JSON.
pub fn notification(
    stream: Stream,
    position: Position,
    conflated: u32,
    out: &mut Vec<u8>,
    data: impl FnOnce(&mut Vec<u8>),
) {
    head(out, b"{\"op\":\"notification\",\"stream\":\"", stream, position.epoch);
    out.extend_from_slice(b",\"prev\":");
    json(&position.prev, out);
    out.extend_from_slice(b",\"seq\":");
    json(&position.seq, out);
    if conflated > 0 {
        out.extend_from_slice(b",\"conflated\":");
        json(&conflated, out);
    }
    out.extend_from_slice(b",\"data\":");
    data(out);
    out.push(b'}');
}

/// A `batch` frame of a replay, written item by item. Its `seq` stands before its items and is known after them, so the
/// place is held by blanks, which JSON ignores.
pub struct Batch {
    seq_at: usize,
    items: u32,
}

/// Width of the longest u64.
const SEQ_WIDTH: usize = 20;

impl Batch {
    pub fn begin(stream: Stream, epoch: Epoch, prev: u64, out: &mut Vec<u8>) -> Self {
        head(out, b"{\"op\":\"batch\",\"stream\":\"", stream, epoch);
        out.extend_from_slice(b",\"prev\":");
        json(&prev, out);
        out.extend_from_slice(b",\"seq\":");
        let seq_at = out.len();
        out.extend_from_slice(&[b' '; SEQ_WIDTH]);
        out.extend_from_slice(b",\"replay\":true,\"items\":[");
        Self { seq_at, items: 0 }
    }

    /// Appends what `data` appends as the next item.
    pub fn item(&mut self, seq: u64, out: &mut Vec<u8>, data: impl FnOnce(&mut Vec<u8>)) {
        if self.items > 0 {
            out.push(b',');
        }
        self.items += 1;
        out.extend_from_slice(b"{\"seq\":");
        json(&seq, out);
        out.extend_from_slice(b",\"data\":");
        data(out);
        out.push(b'}');
    }

    pub fn items(&self) -> u32 {
        self.items
    }

    /// Ends the frame; the client's position is `seq` from here on.
    pub fn end(self, seq: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(b"]}");
        let mut digits = &mut out[self.seq_at..self.seq_at + SEQ_WIDTH];
        // A u64 has at most as many digits as there are blanks.
        let _ = std::io::Write::write_fmt(&mut digits, format_args!("{seq:>SEQ_WIDTH$}"));
    }
}

/// A `snapshot` frame, written item by item.
pub struct Snapshot {
    items: u32,
}

impl Snapshot {
    pub fn begin(stream: Stream, epoch: Epoch, as_of: u64, out: &mut Vec<u8>) -> Self {
        head(out, b"{\"op\":\"snapshot\",\"stream\":\"", stream, epoch);
        out.extend_from_slice(b",\"as_of\":");
        json(&as_of, out);
        out.extend_from_slice(b",\"items\":[");
        Self { items: 0 }
    }

    /// Appends what `data` appends as the state of `key`.
    pub fn item(&mut self, key: &str, seq: u64, out: &mut Vec<u8>, data: impl FnOnce(&mut Vec<u8>)) {
        if self.items > 0 {
            out.push(b',');
        }
        self.items += 1;
        out.extend_from_slice(b"{\"key\":");
        json(key, out);
        out.extend_from_slice(b",\"seq\":");
        json(&seq, out);
        out.extend_from_slice(b",\"data\":");
        data(out);
        out.push(b'}');
    }

    /// Ends the frame; `last` says that no further one follows.
    pub fn end(self, last: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"],\"last\":");
        json(&last, out);
        out.push(b'}');
    }
}

/// Everything up to and including the epoch. An epoch is hexadecimal: nothing to escape.
fn head(out: &mut Vec<u8>, op: &[u8], stream: Stream, epoch: Epoch) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(op);
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"epoch\":\"");
    for nibble in (0..8).rev() {
        out.push(HEX[(epoch.0 >> (4 * nibble) & 15) as usize]);
    }
    out.push(b'"');
}

/// Appends one value. Writing texts, integers and truth values to memory cannot fail.
fn json<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).unwrap_or_else(|error| unreachable!("JSON to memory: {error}"));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn frames_look_as_on_the_protocol_page() {
        let id = Id::Number(2);
        let joined = |recovered, seq, to| Joined { epoch: Epoch(0xe9c1), recovered, seq, to };
        let frame = Frame::Subscribed {
            id: Some(&id),
            channels: ChannelSet::ALL,
            streams: PerStream { user: joined(Some(true), 41, 57), all: joined(None, 4, 4) },
        };
        assert_eq!(
            text(|out| frame.write(out)),
            concat!(
                r#"{"op":"subscribed","id":2,"channels":["trade","account","position","risk","system"],"#,
                r#""streams":{"user":{"epoch":"0000e9c1","recovered":true,"seq":41,"to":57},"#,
                r#""all":{"epoch":"0000e9c1","seq":4,"to":4}}}"#
            )
        );
        assert_eq!(
            text(|out| Frame::Pong { id: None, time: Time(1_728_123_456_789_000_000) }.write(out)),
            r#"{"op":"pong","time":"1728123456789000000"}"#
        );
        assert_eq!(
            text(|out| error(&Refusal::UnknownChannel("trades".into()), Some(&id), out)),
            concat!(
                r#"{"op":"error","id":2,"code":4510,"reason":"unknown_channel","#,
                r#""msg":"channel 'trades'","retryable":false}"#
            )
        );
        let position = Position { epoch: Epoch(7), prev: 57, seq: 58 };
        assert_eq!(
            text(|out| notification(Stream::User, position, 0, out, |out| out.extend_from_slice(b"{}"))),
            r#"{"op":"notification","stream":"user","epoch":"00000007","prev":57,"seq":58,"data":{}}"#
        );
        assert!(
            text(|out| notification(Stream::All, position, 3, out, |out| out.push(b'1')))
                .ends_with(r#""seq":58,"conflated":3,"data":1}"#)
        );
        let resync = Frame::Resync { stream: Stream::User, epoch: Epoch(1), head: 3, why: Why::EpochChanged };
        assert!(text(|out| resync.write(out)).ends_with(r#""head":3,"why":"epoch_changed"}"#));
    }

    #[test]
    fn a_batch_and_a_snapshot_are_json_whatever_their_numbers() {
        for seq in [45, u64::MAX] {
            let batch = text(|out| {
                let mut batch = Batch::begin(Stream::User, Epoch(1), 41, out);
                batch.item(42, out, |out| out.extend_from_slice(b"{\"a\":1}"));
                batch.item(seq, out, |out| out.extend_from_slice(b"{}"));
                assert_eq!(batch.items(), 2);
                batch.end(seq, out);
            });
            let value: Value = serde_json::from_str(&batch).unwrap();
            assert_eq!(value["seq"], json!(seq));
            assert_eq!(value["prev"], 41);
            assert_eq!(value["items"], json!([{"seq": 42, "data": {"a": 1}}, {"seq": seq, "data": {}}]));
        }
        let snapshot = text(|out| {
            let mut snapshot = Snapshot::begin(Stream::User, Epoch(1), 57, out);
            snapshot.item("position:\"x\"", 49, out, |out| out.extend_from_slice(b"{}"));
            snapshot.end(true, out);
        });
        let value: Value = serde_json::from_str(&snapshot).unwrap();
        assert_eq!(value["items"][0]["key"], "position:\"x\"");
        assert_eq!(value["last"], true);
    }
}
