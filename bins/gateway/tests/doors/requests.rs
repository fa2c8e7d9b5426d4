//! HTTP at the WebSocket's port.

use super::{Bench, exchange, handshake, status};
use crate::common::{Client, token};

#[tokio::test]
async fn whoever_wants_something_else_gets_a_short_answer() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(10_000));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "426"),
        ("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "405"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "405"),
        ("GET / HTTP/1.0\r\n\r\n", "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
        ("hello\r\n\r\n", "400"),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\u{7c}\x03\x03", "400"),
        (&long, "431"),
        (&handshake(&[]).replace("Version: 13", "Version: 8"), "426"),
        (&handshake(&[]).replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), "400"),
        (&(handshake(&[]) + "and more"), "400"),
    ] {
        let answer = exchange(&gateway, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{request:.40}: {answer}");
        assert!(answer.len() < 512 && answer.contains("\r\n\r\n"), "{answer}");
    }
    assert_eq!(status(&gateway, &[]).await, 101);
}

#[tokio::test]
async fn pages_that_are_not_listed_may_not_connect() {
    let bench = Bench::new().with("LISTEN_ORIGINS", "https://trade.example.com,http://localhost:8080");
    let gateway = bench.gateway();
    for (origin, expected) in [
        ("https://trade.example.com", 101),
        ("http://localhost:8080", 101),
        ("https://evil.example.com", 403),
        ("https://trade.example.com.evil.org", 403),
        ("null", 403),
    ] {
        assert_eq!(status(&gateway, &[("Origin", origin)]).await, expected, "{origin}");
    }
    assert_eq!(status(&gateway, &[]).await, 101, "no browser");
    let _client = Client::login(&gateway.url, &token("anna")).await;
}

#[tokio::test]
async fn a_client_is_counted_by_its_own_address_behind_a_proxy_and_cannot_choose_it() {
    async fn held(gateway: &crate::common::Gateway, said: &str) -> (u16, tokio::net::TcpStream) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(super::address(gateway)).await.unwrap();
        stream.write_all(handshake(&[("X-Forwarded-For", said)]).as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        (std::str::from_utf8(&head[9..]).unwrap().parse().unwrap(), stream)
    }
    let bench =
        Bench::new().with("LIMITS_SESSIONS_PER_ADDRESS", "1").with("LISTEN_TRUSTED_PROXIES", "127.0.0.0/8");
    let gateway = bench.gateway();
    let mut streams = Vec::new();
    for (said, expected) in [
        ("192.0.2.1", 101),
        ("192.0.2.1", 429),
        ("192.0.2.2", 101),
        ("203.0.113.9, 192.0.2.2", 429),
        ("2001:db8::1", 101),
        ("2001:db8::2", 429),
        ("2001:db8:0:1::2", 101),
    ] {
        let (status, stream) = held(&gateway, said).await;
        assert_eq!(status, expected, "{said}");
        streams.push(stream);
    }
    drop(gateway);
    // Who is not listed is who he is, whatever he says.
    let gateway = bench.with("LISTEN_TRUSTED_PROXIES", "10.0.0.0/8").gateway();
    let (status, _stays) = held(&gateway, "192.0.2.1").await;
    assert_eq!(status, 101);
    assert_eq!(held(&gateway, "192.0.2.2").await.0, 429);
}
