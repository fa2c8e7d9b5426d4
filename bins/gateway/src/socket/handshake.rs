//! From an accepted TCP connection to a WebSocket: TLS if it is configured, one HTTP request, one answer.
//!
//! What is taken from the request: the origin, the sub-protocols, the token, and from proxies that are believed the client's
//! address. The path and the query string are not looked at, so a token there is never believed (it would stand in every
//! proxy's log). Nothing of a request is ever logged.

use std::io;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::Transport;
use super::http::{self, Unread, refusal};
use crate::auth::{Identity, TokenError};
use crate::doors::Doors;
use crate::protocol::{BARE, BEARER_PREFIX, V1};

/// What the frames of a session look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    V1,
    Bare,
}

/// A WebSocket, and what the request said.
#[derive(Debug)]
pub struct Accepted {
    pub transport: Transport,
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
    Gone(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
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

/// Reads the request and makes the answer; sends it if it is a refusal. `admit` is told who the client is, if it is behind
/// a proxy that is believed, and says whether there is room for it.
///
/// # Errors
/// The request is not one for a WebSocket, or not one that is served here; the client was told so.
pub async fn accept(
    stream: TcpStream,
    peer: IpAddr,
    doors: &Doors,
    admit: impl FnOnce(Option<IpAddr>) -> Admission,
) -> Result<Accepted, HandshakeError> {
    let Some(tls) = doors.tls() else {
        let mut stream = stream;
        let Offered { answer, flavour, identity } = negotiate(&mut stream, peer, doors, admit).await?;
        return Ok(Accepted { transport: Transport::plain(stream), answer, flavour, identity });
    };
    let mut stream = tls.acceptor().accept(stream).await.map_err(HandshakeError::Tls)?;
    let Offered { answer, flavour, identity } = negotiate(&mut stream, peer, doors, admit).await?;
    let (stream, connection) = stream.into_inner();
    Ok(Accepted { transport: Transport::tls(stream, connection), answer, flavour, identity })
}

struct Offered {
    answer: Vec<u8>,
    flavour: Flavour,
    identity: Option<Result<Identity, TokenError>>,
}

async fn negotiate(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    peer: IpAddr,
    doors: &Doors,
    admit: impl FnOnce(Option<IpAddr>) -> Admission,
) -> Result<Offered, HandshakeError> {
    let answered = match http::read_request(stream).await {
        Ok(request) => answer(&request, peer, doors, admit),
        Err(Unread::Refused(response)) => Err(response),
        Err(Unread::Gone(error)) => return Err(HandshakeError::Gone(error)),
    };
    match answered {
        Ok(offered) => Ok(offered),
        Err(response) => {
            http::refuse(stream, &response).await;
            Err(HandshakeError::Refused(response.status().as_u16()))
        }
    }
}

// The error type is tungstenite's.
#[allow(clippy::result_large_err)]
fn answer(
    request: &Request,
    peer: IpAddr,
    doors: &Doors,
    admit: impl FnOnce(Option<IpAddr>) -> Admission,
) -> Result<Offered, ErrorResponse> {
    let (policy, headers) = (doors.policy(), request.headers());
    let mut response: Response = http::upgrade(request)?;
    if !policy.origins().admit(headers) {
        return Err(refusal(StatusCode::FORBIDDEN, "pages of this origin may not connect"));
    }
    match admit(policy.client_behind(peer, headers)) {
        Admission::Admitted => {}
        Admission::TooManyOfAddress => {
            return Err(refusal(StatusCode::TOO_MANY_REQUESTS, "too many sessions from this address"));
        }
        Admission::Full => return Err(refusal(StatusCode::SERVICE_UNAVAILABLE, "no more sessions here")),
    }
    let asked = read_offer(headers)?;
    let identity = asked.token.map(|token| doors.verifier().verify(token));
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
    Ok(Offered { answer: http::to_bytes(&response, ""), flavour: asked.flavour, identity })
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
