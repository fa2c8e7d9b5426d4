//! Clients that mean harm. Beside each of them somebody is served.

use std::time::Duration;

use futures_util::SinkExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::{Bench, Ended, address, answer, handshake, token_of};
use crate::common::{Client, token, trade};

/// One byte now and then: never idle, never done.
#[tokio::test]
async fn a_slow_loris_is_cut_off_and_half_open_floods_lock_nobody_out() {
    let bench = Bench::new().with("LIMITS_HANDSHAKE_MS", "1000").with("LIMITS_AUTH_WITHIN_MS", "1000");
    let gateway = bench.gateway();
    let mut loris = TcpStream::connect(address(&gateway)).await.unwrap();
    let slowly = async {
        for byte in handshake(&[("x", &"x".repeat(200))]).bytes() {
            if loris.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut rest = Vec::new();
        let _ = loris.read_to_end(&mut rest).await;
        rest
    };
    let flood = async {
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(TcpStream::connect(address(&gateway)).await.unwrap());
        }
        let mut anonymous = Vec::new();
        for _ in 0..50 {
            anonymous.push(Client::connect(&gateway.url).await);
        }
        // Among them somebody is served as ever.
        let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
        let mut producer = bench.producer("engine");
        producer.publish(&trade("anna", "in the flood")).unwrap();
        assert_eq!(client.until_got(1).await, ["in the flood"]);
        for mut stream in silent {
            assert_eq!(answer(&mut stream).await, "", "whoever says nothing gets no answer");
        }
        for mut client in anonymous {
            assert_eq!(client.until_end().await, Ended::Close(4501));
        }
    };
    let (rest, ()) = tokio::join!(slowly, flood);
    assert!(rest.is_empty(), "the loris was served: {}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn frames_that_mean_harm_close_their_own_session_only() {
    let bench = Bench::new().with("LIMITS_FRAMES_PER_SECOND", "20").with("LIMITS_FRAMES_BURST", "50");
    let gateway = bench.gateway();
    let mut good = Client::subscribed(&gateway.url, &token("anna")).await;
    let fragment = |opcode, is_final, payload: Vec<u8>| {
        let header = FrameHeader { is_final, opcode: OpCode::Data(opcode), ..FrameHeader::default() };
        Message::Frame(Frame::from_payload(header, Bytes::from(payload)))
    };

    let mut oversize = Client::login(&gateway.url, &token("eve")).await;
    let _ = oversize.socket.send(Message::text("x".repeat(1 << 20))).await;
    assert!(matches!(oversize.until_end().await, Ended::Close(1009) | Ended::Broken));

    let mut bad_text = Client::login(&gateway.url, &token("eve")).await;
    bad_text.socket.send(fragment(Data::Text, true, vec![0xff, 0xfe, 0xc0, 0x80])).await.unwrap();
    assert_eq!(bad_text.until_end().await, Ended::Close(1007));

    // Many small fragments: bounded by length together, and by their number over time.
    let mut fragments = Client::login(&gateway.url, &token("eve")).await;
    fragments.socket.feed(fragment(Data::Text, false, b"{".to_vec())).await.unwrap();
    for _ in 0..200 {
        if fragments.socket.feed(fragment(Data::Continue, false, Vec::new())).await.is_err() {
            break;
        }
    }
    let _ = fragments.socket.flush().await;
    let ended = loop {
        match fragments.next().await {
            Ok(frame) => assert!(frame["op"] != "error" || frame["code"] == 4005, "{frame}"),
            Err(ended) => break ended,
        }
    };
    assert_eq!(ended, Ended::Close(4005));

    good.send(json!({"op": "list"})).await;
    good.until("subscriptions").await;
}

/// Whatever clients say of themselves, a line of the log is one that the gateway wrote.
#[tokio::test]
async fn nothing_that_a_client_says_makes_a_line_or_an_escape_in_the_log() {
    const FORGED: &str = "x\n2026-01-01T00:00:00Z  INFO forged line\r\n\u{1b}[31mred";
    for format in ["text", "json"] {
        let bench = Bench::new().with("LOG_LEVEL", "trace").with("LOG_FORMAT", format);
        let (gateway, log) = bench.gateway_with_log(|_| ());
        // As a user's name, as a channel, as an id, as a request.
        let mut client = Client::login(&gateway.url, &token(FORGED)).await;
        client.send(json!({"op": "subscribe", "id": FORGED, "channels": [FORGED]})).await;
        client.until("error").await;
        client.send(json!({"op": FORGED})).await;
        client.until("error").await;
        assert_eq!(
            super::refused(&gateway, &token_of(json!({"sub": "u", "channels": [FORGED]}))).await,
            4502
        );
        // As a path, an origin and a broken request.
        for request in [
            "GET /forged\x1b[31mred HTTP/1.1\r\n\r\n".to_owned(),
            handshake(&[("Origin", "forged\x1b[31m"), ("User-Agent", "forged line")]),
            handshake(&[("Sec-WebSocket-Protocol", "forged")]),
            "forged\x1b[31m\n\n\r\n\r\n".to_owned(),
        ] {
            let mut stream = TcpStream::connect(address(&gateway)).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let _ = stream.read(&mut [0; 64]).await;
        }
        super::until_says(&log, "refused with HTTP 400").await;
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(!log.contains('\u{1b}'), "an escape in {log}");
        assert!(!log.lines().any(|line| line.contains("forged line") && !line.starts_with('{')), "{log}");
        assert!(!log.contains(crate::common::KEY), "the key in {log}");
        assert!(!log.contains("eyJ"), "a token in {log}");
    }
}
