//! What comes from the internet, and where it ends: every attack beside a client that gets in.

#[path = "../common/mod.rs"]
mod common;

mod attacks;
mod keys;
mod reload;
mod requests;
mod revoked;
mod tls;

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Bench, Client, Ended, Gateway};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The address behind a gateway's URL.
fn address(gateway: &Gateway) -> &str {
    gateway.url.split_once("://").unwrap().1
}

/// Replaces a file as a whole, as one should.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// Waits until the file says it.
async fn until_says(path: &Path, text: &str) {
    let end = std::time::Instant::now() + common::PATIENCE;
    loop {
        let all = std::fs::read_to_string(path).unwrap();
        if all.contains(text) {
            return;
        }
        assert!(std::time::Instant::now() < end, "no {text:?} in {all}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// The code by which a token is refused; 0 if it is good.
async fn refused(gateway: &Gateway, token: &str) -> u64 {
    let mut client = Client::connect(&gateway.url).await;
    client.send(json!({"op": "auth", "token": token})).await;
    loop {
        match client.next().await {
            Ok(frame) if frame["op"] == "auth_ok" => return 0,
            Ok(frame) if frame["op"] == "error" => {
                let code = frame["code"].as_u64().unwrap();
                assert_eq!(client.until_end().await, Ended::Close(code as u16));
                return code;
            }
            Ok(_) => {}
            Err(ended) => panic!("{ended:?}"),
        }
    }
}

/// Sends these bytes and gives the whole answer.
async fn exchange(gateway: &Gateway, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(address(gateway)).await.unwrap();
    stream.write_all(request.as_ref()).await.unwrap();
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(common::PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status of a WebSocket handshake with these headers; of one that succeeds the stream is closed at once.
async fn status(gateway: &Gateway, headers: &[(&str, &str)]) -> u16 {
    let mut stream = TcpStream::connect(address(gateway)).await.unwrap();
    stream.write_all(handshake(headers).as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

fn handshake(headers: &[(&str, &str)]) -> String {
    let mut text = "GET / HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        .to_owned();
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}

/// A token of the plain key, good for ten minutes.
fn token_of(mut claims: Value) -> String {
    claims["exp"] = json!(common::in_seconds(600));
    common::token_with(claims)
}

fn claims(user: &str) -> Value {
    json!({"sub": user, "exp": common::in_seconds(600), "iat": common::in_seconds(-10)})
}
