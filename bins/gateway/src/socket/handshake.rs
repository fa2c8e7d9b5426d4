//! From an accepted TCP connection to a WebSocket, by tokio-tungstenite.
//!
//! What is taken from the request: the sub-protocols and the token. The path and the query string are not looked at, so
//! a token there is never believed (it would stand in every proxy's log).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};
use tungstenite::protocol::WebSocketConfig;

use crate::auth::{Identity, TokenError, Verifier};
use crate::protocol::{BARE, BEARER_PREFIX, V1};

/// tungstenite reads the request through a buffer of its own; these belong to the WebSocket that is thrown away.
const BUFFER_LEN: usize = 64;

/// What the frames of a session look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    V1,
    Bare,
}

/// A WebSocket, and what the request said.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    /// The answer to the request. It has not been sent: it goes out together with the first frames.
    pub answer: Vec<u8>,
    pub flavour: Flavour,
    /// What came of the token in the request; `None` if there was none.
    pub identity: Option<Result<Identity, TokenError>>,
}

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("refused with HTTP {0}")]
    Refused(u16),
    #[error("{0}")]
    Failed(Box<tungstenite::Error>),
}

/// Whether a client may come in at all; asked before its request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Admitted,
    /// As many sessions of that address as are allowed.
    TooManyOfAddress,
    /// The gateway is full.
    Full,
}

/// A connection during the handshake: an answer that accepts is kept back, any other goes out.
struct Corked {
    stream: TcpStream,
    kept: Vec<u8>,
}

/// How an answer begins that accepts.
const ACCEPTED: &[u8] = b"HTTP/1.1 101 ";

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.kept.is_empty() && !bytes.starts_with(ACCEPTED) {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        self.kept.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Reads the request and makes the answer; sends it if it is a refusal.
///
/// # Errors
/// The request is not one for a WebSocket, or not one that is served here; the client was told so.
// The error type is tungstenite's.
#[allow(clippy::result_large_err)]
pub async fn accept(
    stream: TcpStream,
    admission: Admission,
    verifier: &Verifier,
) -> Result<Accepted, HandshakeError> {
    let mut offer = None;
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_LEN).write_buffer_size(0);
    let answer = |request: &Request, mut response: Response| {
        match admission {
            Admission::Admitted => {}
            Admission::TooManyOfAddress => {
                return Err(refusal(StatusCode::TOO_MANY_REQUESTS, "too many sessions from this address"));
            }
            Admission::Full => {
                return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "no more sessions here"));
            }
        }
        let asked = read_offer(request.headers())?;
        let identity = asked.token.map(|token| verifier.verify(token));
        if asked.flavour == Flavour::Bare {
            match &identity {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(refusal(StatusCode::UNAUTHORIZED, &error.to_string())),
                None => {
                    let words = "bellwire.bare.json wants its token in the Authorization header";
                    return Err(refusal(StatusCode::UNAUTHORIZED, words));
                }
            }
        }
        if let Some(protocol) = asked.protocol {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        offer = Some((asked.flavour, identity));
        Ok(response)
    };
    let stream = Corked { stream, kept: Vec::new() };
    let socket = match tokio_tungstenite::accept_hdr_async_with_config(stream, answer, Some(config)).await {
        Ok(socket) => socket,
        Err(tungstenite::Error::Http(response)) => {
            return Err(HandshakeError::Refused(response.status().as_u16()));
        }
        Err(error) => return Err(HandshakeError::Failed(Box::new(error))),
    };
    // The callback has run if the handshake succeeded.
    let (flavour, identity) = offer.unwrap_or((Flavour::V1, None));
    let Corked { stream, kept } = socket.into_inner();
    Ok(Accepted { stream, answer: kept, flavour, identity })
}

/// What a request asks for.
struct Offer<'a> {
    flavour: Flavour,
    /// To be confirmed; `None` if the client named none.
    protocol: Option<&'static str>,
    token: Option<&'a str>,
}

#[allow(clippy::result_large_err)]
fn read_offer(headers: &HeaderMap) -> Result<Offer<'_>, ErrorResponse> {
    let mut protocol = None;
    let mut unsupported = false;
    let mut token = None;
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let Ok(value) = value.to_str() else {
            unsupported = true;
            continue;
        };
        for name in value.split(',').map(str::trim) {
            match name {
                "" => {}
                V1 => protocol = protocol.or(Some((V1, Flavour::V1))),
                BARE => protocol = protocol.or(Some((BARE, Flavour::Bare))),
                _ => match name.strip_prefix(BEARER_PREFIX) {
                    Some(bearer) => token = Some(bearer),
                    None => unsupported = true,
                },
            }
        }
    }
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let bearer = value.to_str().ok().and_then(|value| value.split_once(' '));
        match bearer {
            Some((scheme, bearer)) if scheme.eq_ignore_ascii_case("bearer") => token = Some(bearer.trim()),
            _ => return Err(refusal(StatusCode::UNAUTHORIZED, "Authorization: only Bearer is understood")),
        }
    }
    match protocol {
        Some((name, flavour)) => Ok(Offer { flavour, protocol: Some(name), token }),
        None if unsupported => Err(refusal(
            StatusCode::BAD_REQUEST,
            "none of the offered sub-protocols is spoken here; offer bellwire.v1.json or bellwire.bare.json",
        )),
        None => Ok(Offer { flavour: Flavour::V1, protocol: None, token }),
    }
}

fn refusal(status: StatusCode, words: &str) -> ErrorResponse {
    let body = format!("{words}\n");
    let mut response = ErrorResponse::new(None);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    *response.body_mut() = Some(body);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(protocols: &[&'static str], authorization: Option<&'static str>) -> Result<String, u16> {
        let mut headers = HeaderMap::new();
        for protocol in protocols {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
        }
        read_offer(&headers)
            .map(|offer| format!("{:?} {:?} {:?}", offer.flavour, offer.protocol, offer.token))
            .map_err(|response| response.status().as_u16())
    }

    #[test]
    fn the_sub_protocol_and_the_token_are_found_in_every_form() {
        assert_eq!(offer(&[], None).unwrap(), "V1 None None");
        assert_eq!(
            offer(&["bellwire.v1.json, bearer.a.b.c"], None).unwrap(),
            "V1 Some(\"bellwire.v1.json\") Some(\"a.b.c\")"
        );
        assert_eq!(
            offer(&["mqtt", "bellwire.bare.json"], Some("bearer x.y.z")).unwrap(),
            "Bare Some(\"bellwire.bare.json\") Some(\"x.y.z\")"
        );
        // The client's order is its preference.
        assert!(offer(&["bellwire.bare.json,bellwire.v1.json"], None).unwrap().starts_with("Bare"));
        assert_eq!(offer(&["bearer.a.b.c"], None).unwrap(), "V1 None Some(\"a.b.c\")");
    }

    #[test]
    fn only_unsupported_sub_protocols_are_a_bad_request() {
        assert_eq!(offer(&["mqtt"], None), Err(400));
        assert_eq!(offer(&["mqtt, bearer.a.b.c"], None), Err(400));
        assert_eq!(offer(&[], Some("Basic eDp5")), Err(401));
    }
}
