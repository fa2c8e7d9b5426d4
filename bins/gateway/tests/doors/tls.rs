//! `wss://`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::{Bench, Gateway, address, replace, until_says};
use crate::common::{PATIENCE, notice, token};

/// Makes a certificate for `localhost`, and writes it and its key.
fn certify(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    replace(&dir.join("key.pem"), &made.signing_key.serialize_pem());
    replace(&dir.join("cert.pem"), &made.cert.pem());
    made.cert.der().clone()
}

fn bench() -> (Bench, CertificateDer<'static>) {
    let mut bench = Bench::new();
    let certificate = certify(bench.dir.path());
    for (key, file) in [("LISTEN_TLS_CERT", "cert.pem"), ("LISTEN_TLS_KEY", "key.pem")] {
        let path = bench.dir.path().join(file);
        bench.set(key, path.to_str().unwrap());
    }
    (bench, certificate)
}

async fn connect(
    gateway: &Gateway,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address(gateway)).await?;
    let name = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

struct Session(WebSocketStream<TlsStream<TcpStream>>);

impl Session {
    async fn subscribed(gateway: &Gateway, trusted: &CertificateDer<'static>) -> Self {
        let stream = connect(gateway, trusted).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async("wss://localhost/", stream).await.unwrap();
        let mut session = Self(socket);
        session.send(json!({"op": "auth", "token": token("anna")})).await;
        session.until("auth_ok").await;
        session.send(json!({"op": "subscribe"})).await;
        session.until("subscribed").await;
        session
    }

    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn until(&mut self, op: &str) -> Value {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await.unwrap().unwrap().unwrap();
            if let Message::Text(text) = message {
                let frame: Value = serde_json::from_str(&text).unwrap();
                if frame["op"] == op {
                    return frame;
                }
            }
        }
    }
}

#[tokio::test]
async fn everything_comes_through_tls_in_order_also_to_a_client_that_reads_late() {
    const COUNT: usize = 3_000;
    let (bench, certificate) = bench();
    let gateway = bench.gateway();
    assert!(gateway.url.starts_with("wss://"));
    let mut session = Session::subscribed(&gateway, &certificate).await;
    let mut producer = bench.producer("engine");
    let filler = "x".repeat(2_000);
    for number in 0..COUNT {
        let text = format!("{number} {filler}");
        while producer.publish(&notice(&text)).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // The socket is full by now, in the middle of a record of TLS.
    tokio::time::sleep(Duration::from_millis(300)).await;
    for number in 0..COUNT {
        let frame = session.until("notification").await;
        let title = frame["data"]["payload"]["title"].as_str().unwrap();
        assert_eq!(title.split(' ').next(), Some(&*number.to_string()));
    }
    session.0.close(None).await.unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_for_those_who_come_and_drops_nobody() {
    let (bench, old) = bench();
    let (gateway, log) = bench.gateway_with_log(|_| ());
    let mut session = Session::subscribed(&gateway, &old).await;
    // A key without its certificate changes nothing.
    let key = std::fs::read_to_string(bench.dir.path().join("key.pem")).unwrap();
    replace(&bench.dir.path().join("key.pem"), "-----BEGIN NOTHING-----\n");
    until_says(&log, "what was there before stays").await;
    connect(&gateway, &old).await.unwrap();
    let new = certify(bench.dir.path());
    until_says(&log, "certificate read").await;
    let end = std::time::Instant::now() + PATIENCE;
    while connect(&gateway, &new).await.is_err() {
        assert!(std::time::Instant::now() < end, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(connect(&gateway, &old).await.is_err(), "the old one is not shown any more");
    session.send(json!({"op": "list"})).await;
    session.until("subscriptions").await;
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains(key.lines().nth(1).unwrap()), "the private key in the log");
}

#[tokio::test]
async fn who_stalls_in_the_tls_handshake_is_cut_off_and_who_speaks_plainly_is_turned_away() {
    let (bench, certificate) = bench();
    let gateway = bench.with("LIMITS_HANDSHAKE_MS", "1000").gateway();
    let ended = |mut stream: TcpStream| async move {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        let _ = read.expect("the connection stays open");
        rest
    };
    let silent = TcpStream::connect(address(&gateway)).await.unwrap();
    let mut half = TcpStream::connect(address(&gateway)).await.unwrap();
    half.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await.unwrap();
    let mut plain = TcpStream::connect(address(&gateway)).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // After TLS, before HTTP.
    let mut after = connect(&gateway, &certificate).await.unwrap();
    after.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    Session::subscribed(&gateway, &certificate).await;
    assert!(ended(silent).await.is_empty());
    assert!(ended(half).await.is_empty());
    assert!(!ended(plain).await.starts_with(b"HTTP/1.1 101"));
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, after.read_to_end(&mut rest)).await.expect("stays open");
    assert!(rest.is_empty());
}

/// The figure is printed; what is claimed is that a session's TLS is bounded, whatever it has done before.
#[tokio::test]
async fn a_tls_session_that_is_silent_holds_a_bounded_amount() {
    const SESSIONS: u64 = 200;
    const BYTES_MAX: u64 = 64 * 1024;
    let (bench, certificate) = bench();
    let gateway = bench.with("LIMITS_SESSIONS_PER_USER", "1000").gateway();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    let _warm = Session::subscribed(&gateway, &certificate).await;
    let before = resident();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(Session::subscribed(&gateway, &certificate).await);
    }
    let each = resident().saturating_sub(before) / SESSIONS;
    println!("a TLS session holds about {each} bytes");
    assert!(each < BYTES_MAX, "{each}");
}
