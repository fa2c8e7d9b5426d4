//! The least of RFC 6455 that both ends need.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

const NONCE: &str = "YmVsbHdpcmUgYmVuY2ggIQ==";

/// What a client asks. The peers know a session by its path, the gateway by its token.
pub fn request(index: usize, key: Option<&str>) -> String {
    let token = key.map(|key| {
        format!(
            "Sec-WebSocket-Protocol: bellwire.v1.json\r\nAuthorization: Bearer {}\r\n",
            token(&user(index), key)
        )
    });
    format!(
        "GET /{index} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {NONCE}\r\n{}\r\n",
        token.unwrap_or_default()
    )
}

/// The user that a session belongs to.
pub fn user(index: usize) -> String {
    format!("user_{index:05}")
}

/// The answer to a request, and which session it is of.
pub fn answer(request: &str) -> Option<(usize, String)> {
    let index = request.strip_prefix("GET /")?.split(' ').next()?.parse().ok()?;
    let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))?;
    let accept = STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")));
    Some((
        index,
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        ),
    ))
}

/// A text as a client sends it; a mask of zeros is one as good as any here.
pub fn client_text(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    assert!(text.len() < 126, "a short text");
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// The header of a text as a server sends it.
pub fn server_header(len: usize) -> [u8; 4] {
    let len = (len as u16).to_be_bytes();
    [0x81, 126, len[0], len[1]]
}

fn token(user: &str, key: &str) -> String {
    let end =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
            + 7200;
    let text = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"{user}","exp":{end}}}"#))
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length is a key");
    mac.update(text.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
