//! What a client may say: one JSON object a text frame. Unknown fields are ignored.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Stream;

/// Longest textual request id, in bytes: it is echoed.
pub const ID_BYTES_MAX: usize = 64;

/// A request with its id, which comes back in the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Request<'a> {
    pub id: Option<Id<'a>>,
    pub op: Op<'a>,
}

/// A client's own name for a request: a number or a short text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id<'a> {
    Number(i64),
    Text(#[serde(borrow)] Cow<'a, str>),
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Op<'a> {
    /// Say who you are, or bring a newer token of the same user.
    Auth {
        token: Cow<'a, str>,
    },
    /// Deliver these channels; `None` is all that the token permits.
    Subscribe {
        channels: Option<Vec<Cow<'a, str>>>,
        snapshot: bool,
        resume: [Option<ResumePoint<'a>>; 2],
    },
    /// Stop delivering these channels; `None` is all.
    Unsubscribe {
        channels: Option<Vec<Cow<'a, str>>>,
    },
    List,
    Ping,
}

/// Where a client left off, in one stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResumePoint<'a> {
    #[serde(borrow)]
    pub epoch: Cow<'a, str>,
    pub seq: u64,
}

/// A frame that is no request. If the id could be read, the answer carries it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParseError<'a> {
    pub id: Option<Id<'a>>,
    pub why: String,
}

/// The union of all requests: telling them apart by `op` afterwards gives better errors than a tagged enum, and the
/// id even of a request that is not known.
#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow)]
    op: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Id<'a>>,
    #[serde(borrow, default)]
    token: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    channels: Option<Vec<Cow<'a, str>>>,
    #[serde(default)]
    snapshot: Option<bool>,
    #[serde(borrow, default)]
    resume: Option<Resume<'a>>,
}

#[derive(Default, Deserialize)]
struct Resume<'a> {
    #[serde(borrow, default)]
    user: Option<ResumePoint<'a>>,
    #[serde(borrow, default)]
    all: Option<ResumePoint<'a>>,
}

/// Reads one frame.
///
/// # Errors
/// The text is not a JSON object of the protocol; the sentence goes to the client.
pub fn parse(text: &str) -> Result<Request<'_>, ParseError<'_>> {
    let raw: Raw<'_> =
        serde_json::from_str(text).map_err(|error| ParseError { id: None, why: error.to_string() })?;
    let id = raw.id;
    if let Some(Id::Text(text)) = &id
        && text.len() > ID_BYTES_MAX
    {
        return Err(ParseError { id: None, why: format!("id is longer than {ID_BYTES_MAX} bytes") });
    }
    let op = match &*raw.op {
        "auth" => match raw.token {
            Some(token) => Op::Auth { token },
            None => return Err(ParseError { id, why: "auth: `token` is missing".to_owned() }),
        },
        "subscribe" => {
            let resume = raw.resume.unwrap_or_default();
            let mut points = [const { None }; 2];
            points[Stream::User as usize] = resume.user;
            points[Stream::All as usize] = resume.all;
            Op::Subscribe {
                channels: raw.channels,
                snapshot: raw.snapshot.unwrap_or_default(),
                resume: points,
            }
        }
        "unsubscribe" => Op::Unsubscribe { channels: raw.channels },
        "list" => Op::List,
        "ping" => Op::Ping,
        other => {
            let shown: String = other.chars().take(32).collect();
            return Err(ParseError {
                id,
                why: format!("unknown op {shown:?}; known: auth, subscribe, unsubscribe, list, ping"),
            });
        }
    };
    Ok(Request { id, op })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_requests_of_the_protocol_are_understood() {
        let id = |number| Some(Id::Number(number));
        assert_eq!(
            parse(r#"{"op":"auth","id":1,"token":"a.b.c"}"#).unwrap(),
            Request { id: id(1), op: Op::Auth { token: "a.b.c".into() } }
        );
        let text = r#"{"op":"subscribe","id":2,"channels":["trade","risk"],"snapshot":true,
            "resume":{"user":{"epoch":"e9c1","seq":41}},"colour":"red"}"#;
        let resume = [Some(ResumePoint { epoch: "e9c1".into(), seq: 41 }), None];
        assert_eq!(
            parse(text).unwrap(),
            Request {
                id: id(2),
                op: Op::Subscribe {
                    channels: Some(vec!["trade".into(), "risk".into()]),
                    snapshot: true,
                    resume
                }
            }
        );
        assert_eq!(parse(r#"{"op":"ping","id":"x-1"}"#).unwrap().id, Some(Id::Text("x-1".into())));
        assert_eq!(parse(r#"{"op":"list"}"#).unwrap(), Request { id: None, op: Op::List });
        assert_eq!(parse(r#"{"op":"unsubscribe"}"#).unwrap().op, Op::Unsubscribe { channels: None });
        // A null is a field that is not there.
        assert_eq!(
            parse(r#"{"op":"subscribe","id":null,"channels":null,"resume":null}"#).unwrap().op,
            Op::Subscribe { channels: None, snapshot: false, resume: [None, None] }
        );
    }

    #[test]
    fn what_is_no_request_says_why_and_keeps_the_id() {
        let error = parse(r#"{"op":"dance","id":7}"#).unwrap_err();
        assert_eq!(error.id, Some(Id::Number(7)));
        assert!(error.why.contains("unknown op \"dance\""), "{}", error.why);
        assert_eq!(parse(r#"{"op":"auth","id":3}"#).unwrap_err().id, Some(Id::Number(3)));
        for bad in [
            "",
            "[]",
            "7",
            "{}",
            "nonsense",
            r#"{"op":7}"#,
            r#"{"op":"ping","id":[1]}"#,
            r#"{"op":"subscribe","resume":{"user":{"epoch":"e","seq":-1}}}"#,
            r#"{"op":"subscribe","channels":"trade"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!(r#"{{"op":"ping","id":"{}"}}"#, "x".repeat(65))).is_err());
    }
}
