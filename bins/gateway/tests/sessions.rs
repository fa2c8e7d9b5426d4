//! How sessions begin and end: tokens, limits, signs of life, close codes, the drain.

mod common;

use std::time::{Duration, Instant};

use common::{Bench, Client, Ended, in_seconds, numbers, token, token_with, trade};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

async fn http_status(url: &str, protocols: &str, authorization: &str) -> u16 {
    match Client::try_connect(url, protocols, authorization).await {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn the_token_comes_by_header_sub_protocol_or_frame_and_never_by_the_query_string() {
    let bench = Bench::new().with("LIMITS_AUTH_WITHIN_MS", "300");
    let gateway = bench.gateway();
    let token = token("anna");

    let bearer = format!("Bearer {token}");
    let mut client = Client::try_connect(&gateway.url, "", &bearer).await.unwrap();
    assert_eq!(client.until("auth_ok").await["user_id"], "anna");

    let protocols = format!("bellwire.v1.json, bearer.{token}");
    let mut client = Client::try_connect(&gateway.url, &protocols, "").await.unwrap();
    let ok = client.until("auth_ok").await;
    assert_eq!(ok["channels"], json!(["trade", "account", "position", "risk", "system"]));
    assert_eq!(ok["streams"]["user"]["head"], 0);

    let url = format!("{}/?token={token}&access_token={token}&user_id=anna", gateway.url);
    let mut client = Client::connect(&url).await;
    assert_eq!(client.until_end().await, Ended::Close(4501));
    assert!(client.frames.iter().all(|frame| frame["op"] != "auth_ok"), "{:?}", client.frames);
}

#[tokio::test]
async fn what_is_not_spoken_here_is_refused_by_http() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let bearer = format!("Bearer {}", token("anna"));
    assert_eq!(http_status(&gateway.url, "mqtt, wamp", "").await, 400);
    assert_eq!(http_status(&gateway.url, "bellwire.bare.json", "").await, 401);
    assert_eq!(http_status(&gateway.url, "bellwire.bare.json", "Bearer nonsense").await, 401);
    assert_eq!(http_status(&gateway.url, "bellwire.bare.json", &bearer).await, 101);
}

#[tokio::test]
async fn a_bad_token_is_told_and_closed_and_nothing_works_without_one() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut client = Client::connect(&gateway.url).await;
    client.send(json!({"op": "subscribe", "id": 1})).await;
    assert_eq!(client.until("error").await["code"], 4513);
    client.send(json!({"op": "ping", "id": "p"})).await;
    assert_eq!(client.until("pong").await["id"], "p");
    let expired = token_with(json!({"sub": "anna", "exp": in_seconds(-60)}));
    for (token, code) in [("nonsense".to_owned(), 4502), (expired, 4503)] {
        let mut client = Client::connect(&gateway.url).await;
        client.send(json!({"op": "auth", "id": 2, "token": token})).await;
        let error = client.until("error").await;
        assert_eq!((&error["code"], &error["id"]), (&json!(code), &json!(2)));
        assert_eq!(client.until_end().await, Ended::Close(code));
    }
}

#[tokio::test]
async fn a_newer_token_goes_on_and_one_of_another_user_closes() {
    let bench = Bench::new().with("TOKEN_LEEWAY_S", "0").with("SESSION_HEARTBEAT_MS", "200");
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let short = token_with(json!({"sub": "anna", "exp": in_seconds(3), "channels": ["trade"]}));
    let mut client = Client::subscribed(&gateway.url, &short).await;
    // It may come at any time after `auth_ok`, also before `subscribed`.
    if !client.frames.iter().any(|frame| frame["op"] == "auth_expiring") {
        client.until("auth_expiring").await;
    }
    client.send(json!({"op": "subscribe", "id": 3, "channels": ["risk"]})).await;
    assert_eq!(client.until("error").await["code"], 4512);
    client.send(json!({"op": "auth", "id": 4, "token": token("anna")})).await;
    assert_eq!(client.until("auth_ok").await["id"], 4);
    client.send(json!({"op": "auth", "id": 5, "token": "nonsense"})).await;
    assert_eq!(client.until("error").await["code"], 4502);
    // The streams go on, beyond the first token's end.
    let end = Instant::now() + Duration::from_millis(3500);
    while Instant::now() < end {
        client.until("heartbeat").await;
    }
    engine.publish(&trade("anna", "still here")).unwrap();
    assert_eq!(client.until_got(1).await, ["still here"]);
    client.send(json!({"op": "auth", "id": 6, "token": token("bert")})).await;
    assert_eq!(client.until("error").await["code"], 4507);
    assert_eq!(client.until_end().await, Ended::Close(4507));

    let short = token_with(json!({"sub": "anna", "exp": in_seconds(2)}));
    let mut client = Client::subscribed(&gateway.url, &short).await;
    assert_eq!(client.until_end().await, Ended::Close(4503));
}

#[tokio::test]
async fn unknown_and_forbidden_channels_change_nothing() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let limited = token_with(json!({"sub": "anna", "exp": in_seconds(60), "channels": ["trade", "risk"]}));
    let mut client = Client::login(&gateway.url, &limited).await;
    for (channels, code) in [(json!(["trade", "trades"]), 4510), (json!(["trade", "system"]), 4512)] {
        client.send(json!({"op": "subscribe", "id": 7, "channels": channels})).await;
        assert_eq!(client.until("error").await["code"], code);
    }
    client.send(json!({"op": "list"})).await;
    assert_eq!(client.until("subscriptions").await["channels"], json!([]));
    assert_eq!(client.subscribe(json!({})).await["channels"], json!(["trade", "risk"]));
    for bad in [json!({"op": "dance"}), json!([]), json!({"op": "subscribe", "channels": "trade"})] {
        client.send(bad).await;
        assert_eq!(client.until("error").await["code"], 4500);
    }
    client.send(json!({"op": "ping"})).await;
    client.until("pong").await;
}

#[tokio::test]
async fn frames_that_break_the_rules_close_with_the_standard_codes() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let frame = |opcode, payload: Vec<u8>| Message::Frame(Frame::message(payload, opcode, true));
    let cases = [
        (Message::binary(vec![1, 2, 3]), 1003),
        (Message::text("x".repeat(4097)), 1009),
        (frame(OpCode::Data(Data::Text), vec![0xff]), 1007),
        (frame(OpCode::Data(Data::Continue), vec![b'x']), 1002),
    ];
    for (message, code) in cases {
        let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
        client.socket.send(message).await.unwrap();
        assert_eq!(client.until_end().await, Ended::Close(code));
    }
    // Fragments and a ping between them are fine.
    let mut client = Client::connect(&gateway.url).await;
    let part =
        |text: &str, opcode, last| Message::Frame(Frame::message(text.as_bytes().to_vec(), opcode, last));
    client.socket.send(part("{\"op\":", OpCode::Data(Data::Text), false)).await.unwrap();
    client.socket.send(Message::Ping("hi".into())).await.unwrap();
    client.socket.send(part("\"ping\"}", OpCode::Data(Data::Continue), true)).await.unwrap();
    let pong = client.socket.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("hi".into()));
    client.until("pong").await;
    // And a close is answered with the same code.
    client.socket.close(None).await.unwrap();
    assert!(matches!(client.until_end().await, Ended::Broken | Ended::Close(1005)));
}

#[tokio::test]
async fn limits_hold_and_are_told() {
    let bench = Bench::new()
        .with("LIMITS_SESSIONS_PER_USER", "2")
        .with("LIMITS_SESSIONS_PER_ADDRESS", "3")
        .with("LIMITS_FRAMES_PER_SECOND", "1")
        .with("LIMITS_FRAMES_BURST", "5");
    let gateway = bench.gateway();
    let first = Client::subscribed(&gateway.url, &token("anna")).await;
    let _second = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut third = Client::connect(&gateway.url).await;
    assert_eq!(http_status(&gateway.url, "", "").await, 429);
    third.send(json!({"op": "auth", "token": token("anna")})).await;
    assert_eq!(third.until("error").await["code"], 4506);
    assert_eq!(third.until_end().await, Ended::Close(4506));
    drop((first, third));
    // Places are free again when the gateway has noticed.
    let mut fourth = loop {
        match Client::try_connect(&gateway.url, "", "").await {
            Ok(client) => break client,
            Err(Error::Http(response)) => assert_eq!(response.status().as_u16(), 429),
            Err(error) => panic!("{error}"),
        }
    };
    fourth.until("hello").await;
    fourth.send(json!({"op": "auth", "token": token("anna")})).await;
    fourth.until("auth_ok").await;
    // A frame is gone; five more are one too many: a warning, then the rest of a new allowance, then the end.
    for _ in 0..11 {
        fourth.send(json!({"op": "ping"})).await;
    }
    assert_eq!(fourth.until("error").await["code"], 4005);
    assert_eq!(fourth.until_end().await, Ended::Close(4005));
}

#[tokio::test]
async fn a_silent_client_goes_and_one_that_answers_pings_stays() {
    let bench = Bench::new().with("SESSION_IDLE_MS", "1200").with("SESSION_HEARTBEAT_MS", "200");
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut alive = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut silent = Client::subscribed(&gateway.url, &token("bert")).await;
    let started = Instant::now();
    // Reading is what makes this client answer pings; the other one's socket is left alone. What the gateway sends to it
    // all the while is no sign of its life.
    while started.elapsed() < Duration::from_millis(3000) {
        alive.until("heartbeat").await;
        engine.publish(&trade("bert", "you there?")).unwrap();
    }
    assert_eq!(silent.until_end().await, Ended::Close(4003));
    engine.publish(&trade("anna", "alive")).unwrap();
    assert_eq!(alive.until_got(1).await, ["alive"]);
}

#[tokio::test]
async fn sigterm_drains_with_nothing_lost_and_ends_with_zero() {
    let bench = Bench::new();
    let mut gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut bare =
        Client::try_connect(&gateway.url, "bellwire.bare.json", &format!("Bearer {}", token("bert")))
            .await
            .unwrap();
    for number in numbers(0..2000) {
        engine.publish(&trade("anna", &number)).unwrap();
    }
    // At once: most of them are still on their way.
    gateway.terminate();
    assert_eq!(client.until_end().await, Ended::Close(4001));
    assert_eq!(client.texts(), numbers(0..2000));
    let goodbye = client.frames.last().unwrap();
    assert_eq!(
        (&goodbye["op"], &goodbye["code"], &goodbye["reason"]),
        (&json!("goodbye"), &json!(4001), &json!("drain"))
    );
    assert!(goodbye["reconnect_after_ms"].as_u64().is_some_and(|ms| ms > 0));
    assert_eq!(bare.until_end().await, Ended::Close(4001));
    drop((client, bare));
    assert_eq!(gateway.wait().code(), Some(0));

    // The next one goes on where this one ended.
    let gateway = bench.gateway();
    let mut client = Client::login(&gateway.url, &token("anna")).await;
    let ok = client.frames.last().unwrap().clone();
    assert_eq!(ok["streams"]["user"]["head"], 2000);
    client.subscribe(json!({})).await;
    engine.publish(&trade("anna", "next")).unwrap();
    assert_eq!(client.until_got(1).await, ["next"]);
}

#[tokio::test]
async fn a_second_gateway_on_the_same_port_is_an_error_and_so_is_a_bad_configuration() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let address = gateway.url.strip_prefix("ws://").unwrap();
    let other = Bench::new().with("LISTEN_ADDRESS", address);
    let output = other.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains(address) && words.contains("another process listens there"), "{words}");

    let output = Bench::new().with("TOKEN_KEY", "short").command().arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the HS256 key has 5 bytes"));
    let output = Bench::new().command().arg("--check").output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(0), &b"the configuration is sound\n"[..]));
}
