//! The HTTP/1.1 around a handshake: one request head in, one short answer out. Parsing and the WebSocket's own rules are
//! tungstenite's.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{self, ErrorResponse, Request, Response};
use tungstenite::http::{HeaderValue, StatusCode, header};

/// Longest request head, in bytes: a token of the longest kind and what browsers add to it.
pub(super) const HEAD_LEN_MAX: usize = 8 * 1024;

/// What is read of it at once, and held at first.
const READ_LEN: usize = 1024;

const HEAD_END: &[u8] = b"\r\n\r\n";

/// Reads until the empty line. A client that says more before it was answered breaks the protocol.
///
/// # Errors
/// [`Unread`].
pub(super) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Unread> {
    let mut head = Vec::with_capacity(READ_LEN);
    loop {
        let before = head.len();
        let room = (HEAD_LEN_MAX - before).min(READ_LEN) as u64;
        if room == 0 {
            let words = "the request is longer than 8192 bytes";
            return Err(Unread::Refused(refusal(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, words)));
        }
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return Err(Unread::Gone(io::ErrorKind::UnexpectedEof.into()));
        }
        if !may_be_http(&head) {
            return Err(Unread::Refused(refusal(StatusCode::BAD_REQUEST, "this is not HTTP/1.1")));
        }
        // The end may have begun in what was there before.
        let searched = before.saturating_sub(HEAD_END.len() - 1);
        if head[searched..].windows(HEAD_END.len()).any(|window| window == HEAD_END) {
            return match Request::try_parse(&head) {
                Ok(Some((len, request))) if len == head.len() => Ok(request),
                Err(error) => Err(Unread::Refused(unfit(&error))),
                _ => {
                    let words = "this is not one HTTP/1.1 request";
                    Err(Unread::Refused(refusal(StatusCode::BAD_REQUEST, words)))
                }
            };
        }
    }
}

/// No request.
pub(super) enum Unread {
    Gone(io::Error),
    Refused(ErrorResponse),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

/// A method is of capital letters; whoever begins otherwise (a TLS client, a scanner) need not be waited for.
fn may_be_http(head: &[u8]) -> bool {
    const METHOD_LEN_MAX: usize = 16;
    let method = head.split(|&byte| byte == b' ').next().unwrap_or_default();
    method.len() <= METHOD_LEN_MAX && method.iter().all(u8::is_ascii_uppercase)
}

/// The answer that makes a WebSocket of it, or what to tell a client that wants something else.
// The error type is tungstenite's.
#[allow(clippy::result_large_err)]
pub(super) fn upgrade(request: &Request) -> Result<Response, ErrorResponse> {
    server::create_response(request).map_err(|error| unfit(&error))
}

/// What to tell a client whose request is not one for a WebSocket. Nothing of the request is repeated.
fn unfit(error: &tungstenite::Error) -> ErrorResponse {
    use ProtocolError as P;
    let (status, words) = match error {
        tungstenite::Error::Protocol(P::WrongHttpMethod) => {
            (StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is asked for by GET")
        }
        tungstenite::Error::Protocol(
            P::MissingConnectionUpgradeHeader | P::MissingUpgradeWebSocketHeader,
        ) => (StatusCode::UPGRADE_REQUIRED, "only WebSockets are served here"),
        tungstenite::Error::Protocol(P::MissingSecWebSocketVersionHeader) => {
            (StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13")
        }
        _ => (StatusCode::BAD_REQUEST, "this is not a WebSocket handshake of HTTP/1.1"),
    };
    refusal(status, words)
}

/// What is sent to who is refused.
pub(super) fn refusal(status: StatusCode, words: &str) -> ErrorResponse {
    let body = format!("{words}\n");
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        StatusCode::UPGRADE_REQUIRED => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade, close"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        _ => {}
    }
    *response.body_mut() = Some(body);
    response
}

/// The bytes of an answer.
pub(super) fn to_bytes<T>(response: &tungstenite::http::Response<T>, body: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    // Writing to memory does not fail, and every header of ours is text.
    let _ = server::write_response(&mut bytes, response);
    bytes.extend_from_slice(body.as_bytes());
    bytes
}

/// Sends it and says that nothing will follow.
pub(super) async fn refuse(stream: &mut (impl AsyncWrite + Unpin), response: &ErrorResponse) {
    let body = response.body().as_deref().unwrap_or_default();
    // A client that has gone is not told.
    let _ = stream.write_all(&to_bytes(response, body)).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut bytes: &[u8]) -> Result<String, u16> {
        match read_request(&mut bytes).await {
            Ok(request) => Ok(request.uri().to_string()),
            Err(Unread::Refused(response)) => Err(response.status().as_u16()),
            Err(Unread::Gone(_)) => Err(0),
        }
    }

    #[tokio::test]
    async fn one_head_is_read_and_nothing_else_is() {
        assert_eq!(read(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").await, Ok("/x".to_owned()));
        assert_eq!(read(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\nmore").await, Err(400));
        assert_eq!(read(b"GET /x HTTP/1.1\r\nhost").await, Err(0), "gone, and not worth an answer");
        assert_eq!(read(b"\x16\x03\x01\x02\x00\x01").await, Err(400), "TLS on a plain port");
        let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(HEAD_LEN_MAX));
        assert_eq!(read(long.as_bytes()).await, Err(431));
    }
}
