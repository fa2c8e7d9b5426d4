//! Coming back: everything that was missed, once and in order, or the plain word that it is not to be had.

mod common;

use std::time::Duration;

use bellwire::{AccountUpdate, Notification, PositionUpdate, Producer, PublishError};
use common::{Bench, Client, Ended, notice, numbers, text_of, token, trade};
use serde_json::{Value, json};

fn publish_all(engine: &mut Producer, user: &str, range: std::ops::Range<usize>) {
    for text in numbers(range) {
        publish(engine, &trade(user, &text));
    }
}

/// Waits out a full ring.
fn publish(engine: &mut Producer, notification: &Notification<'_>) {
    loop {
        match engine.publish(notification) {
            Ok(_) => return,
            Err(PublishError::Full { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The seqs of a stream, in the order of arrival.
fn seqs(client: &Client, stream: &str) -> Vec<u64> {
    client.got.iter().filter(|(of, _, _)| of == stream).map(|(_, seq, _)| *seq).collect()
}

#[tokio::test]
async fn a_client_that_comes_back_gets_exactly_what_it_missed_and_then_goes_on_live() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let token = token("anna");
    let mut before = Client::subscribed(&gateway.url, &token).await;
    publish_all(&mut engine, "anna", 0..100);
    before.until_got(100).await;
    let positions = before.positions.clone();
    drop(before);

    // More than one page of the replay, and other users' records between.
    for number in 100..10_000 {
        publish(&mut engine, &trade("anna", &number.to_string()));
        publish(&mut engine, &trade("bert", "x"));
    }
    publish(&mut engine, &notice("halt"));
    let mut after = Client::resumed(&gateway.url, &token, &positions).await;
    // While it replays, more comes.
    publish_all(&mut engine, "anna", 10_000..10_100);
    after.until_got(10_001).await;
    assert_eq!(seqs(&after, "user"), (101..=10_100).collect::<Vec<_>>());
    assert_eq!(seqs(&after, "all"), [1]);
    after.assert_silent(Duration::from_millis(100)).await;
    let replayed = after.frames.iter().filter(|frame| frame["op"] == "replay_end").count();
    assert_eq!(replayed, 2, "one end for each stream");
}

#[tokio::test]
async fn a_killed_gateway_loses_nothing_and_keeps_the_epoch() {
    let bench = Bench::new();
    let mut gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let token = token("anna");
    let mut client = Client::subscribed(&gateway.url, &token).await;
    let mut texts = Vec::new();
    let mut epochs = std::collections::HashSet::new();
    for round in 0..5 {
        let range = round * 400..(round + 1) * 400;
        publish_all(&mut engine, "anna", range.start..range.start + 200);
        // It has some of them, and dies with whatever was under way.
        client.until_got(50).await;
        gateway.kill();
        publish_all(&mut engine, "anna", range.start + 200..range.end);
        while client.next().await.is_ok() {}
        texts.extend(client.texts());
        epochs.insert(client.positions["user"].0.clone());
        gateway = bench.gateway();
        let positions = client.positions.clone();
        client = Client::resumed(&gateway.url, &token, &positions).await;
        let missing = range.end - texts.len();
        client.until_got(missing).await;
        texts.extend(std::mem::take(&mut client.got).iter().map(|(_, _, data)| text_of(data)));
    }
    assert_eq!(texts, numbers(0..2000));
    assert_eq!(epochs.len(), 1, "{epochs:?}");
}

#[tokio::test]
async fn a_resume_is_never_partial() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let token = token("anna");
    let mut client = Client::subscribed(&gateway.url, &token).await;
    publish_all(&mut engine, "anna", 0..10);
    client.until_got(10).await;
    let (epoch, _) = client.positions["user"].clone();

    // Another epoch: start afresh, and be told so.
    let mut other = Client::login(&gateway.url, &token).await;
    let joined = other.subscribe(json!({"resume": {"user": {"epoch": "1", "seq": 3}}})).await;
    assert_eq!(joined["streams"]["user"]["recovered"], false);
    let resync = other.until("resync").await;
    assert_eq!(
        (&resync["why"], &resync["head"], &resync["epoch"]),
        (&json!("epoch_changed"), &json!(10), &json!(epoch))
    );
    assert_eq!(joined["streams"]["all"].get("recovered"), None);

    // Beyond the head: an error, and nothing is subscribed.
    let mut beyond = Client::login(&gateway.url, &token).await;
    beyond.send(json!({"op": "subscribe", "id": 9, "resume": {"user": {"epoch": epoch, "seq": 11}}})).await;
    let error = beyond.until("error").await;
    assert_eq!((&error["code"], &error["id"]), (&json!(4511), &json!(9)));
    beyond.send(json!({"op": "list"})).await;
    assert_eq!(beyond.until("subscriptions").await["channels"], json!([]));

    // At the head: nothing to replay, and then live.
    let mut head = Client::login(&gateway.url, &token).await;
    let joined = head.subscribe(json!({"resume": {"user": {"epoch": epoch, "seq": 10}}})).await;
    assert_eq!(joined["streams"]["user"], json!({"epoch": epoch, "recovered": true, "seq": 10, "to": 10}));
    head.until("replay_end").await;
    publish_all(&mut engine, "anna", 10..11);
    assert_eq!(head.until_got(1).await, ["10"]);

    // A session that is live may go back, too.
    head.got.clear();
    head.subscribe(json!({"resume": {"user": {"epoch": epoch, "seq": 5}}})).await;
    publish_all(&mut engine, "anna", 11..12);
    assert_eq!(head.until_got(7).await, numbers(5..12));

    // From the very beginning, one channel only.
    let mut all = Client::login(&gateway.url, &token).await;
    all.subscribe(json!({"channels": ["risk"], "resume": {"user": {"epoch": epoch, "seq": 0}}})).await;
    let end = all.until("replay_end").await;
    assert_eq!((&end["prev"], &end["seq"]), (&json!(0), &json!(12)));
    assert!(all.got.is_empty());
}

/// Several megabytes of somebody else's, so that retention moves on.
fn fill(engine: &mut Producer, mut between: impl FnMut(&mut Producer)) {
    let filler = "x".repeat(4000);
    for _ in 0..25 {
        for _ in 0..100 {
            publish(engine, &trade("bert", &filler));
        }
        between(engine);
    }
}

#[tokio::test]
async fn what_has_left_the_journal_is_a_resync() {
    let bench = Bench::new().with("JOURNAL_RETAIN_BYTES", &(2 << 20).to_string());
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let token = token("anna");
    let mut client = Client::subscribed(&gateway.url, &token).await;
    publish_all(&mut engine, "anna", 0..5);
    // From here on the gateway gates the lane: until it has found it, a full ring is overwritten.
    client.until_got(5).await;
    fill(&mut engine, |engine| publish_all(engine, "anna", 5..6));
    client.until_got(30).await;
    let epoch = client.positions["user"].0.clone();
    assert_eq!(seqs(&client, "user"), (1..=30).collect::<Vec<_>>(), "the stream has lived on");

    let mut late = Client::login(&gateway.url, &token).await;
    let oldest = |late: &Client| late.frames.last().unwrap()["streams"]["user"]["oldest"].as_u64().unwrap();
    // Retention is a background job.
    for _ in 0..200 {
        if oldest(&late) > 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        late.send(json!({"op": "auth", "token": token})).await;
        late.until("auth_ok").await;
    }
    assert!(oldest(&late) > 3, "retention did not happen");
    let joined = late.subscribe(json!({"resume": {"user": {"epoch": epoch, "seq": 2}}})).await;
    assert_eq!(joined["streams"]["user"], json!({"epoch": epoch, "recovered": false, "seq": 30, "to": 30}));
    let resync = late.until("resync").await;
    assert_eq!((&resync["why"], &resync["head"]), (&json!("too_old"), &json!(30)));
    publish_all(&mut engine, "anna", 6..7);
    assert_eq!(late.until_got(1).await, ["6"]);
}

#[tokio::test]
async fn a_stream_that_begins_anew_is_told_to_a_session_that_is_live() {
    let bench = Bench::new().with("JOURNAL_RETAIN_BYTES", &(2 << 20).to_string());
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let token = token("anna");
    let mut client = Client::subscribed(&gateway.url, &token).await;
    publish_all(&mut engine, "anna", 0..5);
    client.until_got(5).await;
    let before = client.positions["user"].clone();
    fill(&mut engine, |_| ());
    // All of hers is gone; what comes now has a new epoch and begins at 1.
    let mut late = Client::login(&gateway.url, &token).await;
    for _ in 0..200 {
        if late.frames.last().unwrap()["streams"]["user"]["head"] == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        late.send(json!({"op": "auth", "token": token})).await;
        late.until("auth_ok").await;
    }
    publish_all(&mut engine, "anna", 5..6);
    assert_eq!(client.until_got(6).await, numbers(0..6));
    assert_eq!(client.got.last().unwrap().1, 1);
    let resync = client.frames.iter().find(|frame| frame["op"] == "resync").unwrap();
    assert_eq!((&resync["why"], &resync["head"]), (&json!("epoch_changed"), &json!(0)));
    assert_ne!(client.positions["user"].0, before.0);
}

#[tokio::test]
async fn a_slow_client_is_closed_resumably_and_loses_nothing() {
    let bench = Bench::new().with("LIMITS_PENDING_MAX", "500");
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let (slow_token, fast_token) = (token("anna"), token("anna"));
    let mut slow = Client::subscribed(&gateway.url, &slow_token).await;
    let mut fast = Client::subscribed(&gateway.url, &fast_token).await;
    // More than the kernel's buffers hold, while nobody reads on one side.
    let filler = "x".repeat(4000);
    let count = 6000;
    for number in 0..count {
        publish(&mut engine, &trade("anna", &format!("{number} {filler}")));
        if number % 100 == 99 {
            fast.until_got(number).await;
        }
    }
    fast.until_got(count).await;
    assert_eq!(slow.until_end().await, Ended::Close(4002));
    let had = slow.got.len();
    assert!(had < count, "it was not slow");
    let mut again = Client::resumed(&gateway.url, &slow_token, &slow.positions).await;
    again.until_got(count - had).await;
    assert_eq!([seqs(&slow, "user"), seqs(&again, "user")].concat(), (1..=count as u64).collect::<Vec<_>>());
}

fn account(user: &str, balance: f64) -> Notification<'_> {
    let update = AccountUpdate {
        user_id: user,
        balance,
        available: 0.0,
        frozen: 0.0,
        margin: 0.0,
        position_profit: 0.0,
        close_profit: 0.0,
        risk_ratio: 0.0,
        timestamp: 7,
    };
    Notification::new(user, "AccountSystem", update)
}

fn position<'a>(user: &'a str, instrument_id: &'a str, volume: f64) -> Notification<'a> {
    let update = PositionUpdate {
        user_id: user,
        instrument_id,
        volume_long: volume,
        volume_short: 0.0,
        cost_long: 0.0,
        cost_short: 0.0,
        profit_long: 0.0,
        profit_short: 0.0,
        timestamp: 7,
    };
    Notification::new(user, "PositionTracker", update)
}

#[tokio::test]
async fn a_lagging_session_gets_the_newest_state_and_every_trade() {
    let bench = Bench::new();
    let (mut gateway, log) = bench.gateway_with_log(|_| ());
    let mut engine = bench.producer("engine");
    let token = token("anna");
    let mut client = Client::subscribed(&gateway.url, &token).await;
    // From here on the gateway gates the lane.
    publish(&mut engine, &trade("anna", "begin"));
    client.until_got(1).await;
    // Fill the kernel's buffers, so that what follows waits in the gateway.
    let filler = "x".repeat(8000);
    for _ in 0..1200 {
        publish(&mut engine, &trade("anna", &filler));
    }
    for number in 0..5000 {
        publish(&mut engine, &account("anna", f64::from(number)));
        publish(&mut engine, &position("anna", ["A", "B"][number as usize % 2], f64::from(number)));
        if number % 100 == 0 {
            publish(&mut engine, &trade("anna", &number.to_string()));
        }
    }
    publish(&mut engine, &trade("anna", "end"));
    let newest = |client: &Client, what: &str, instrument: Option<&str>| -> Option<Value> {
        let of = |data: &Value| {
            data["message_type"] == what
                && instrument.is_none_or(|instrument| data["payload"]["instrument_id"] == instrument)
        };
        client.got.iter().rev().find(|(_, _, data)| of(data)).map(|(_, _, data)| data["payload"].clone())
    };
    let (mut left_out, mut trades) = ([0, 0], Vec::new());
    loop {
        let frame = client.next().await.unwrap();
        let of = usize::from(frame["data"]["message_type"] == "position_update");
        left_out[of] += frame["conflated"].as_u64().unwrap_or_default();
        if frame["data"]["message_type"] == "trade_canceled" {
            let text = text_of(&frame["data"]);
            if text.len() < 100 {
                trades.push(text);
            }
        } else {
            assert!(frame.get("data").is_none() || frame["data"]["message_type"] != "trade_canceled");
        }
        let is_newest = |value: Option<Value>, field: &str, number: f64| {
            value.is_some_and(|payload| payload[field].as_f64() == Some(number))
        };
        if trades.last().is_some_and(|text| text == "end")
            && is_newest(newest(&client, "account_update", None), "balance", 4999.0)
            && is_newest(newest(&client, "position_update", Some("A")), "volume_long", 4998.0)
            && is_newest(newest(&client, "position_update", Some("B")), "volume_long", 4999.0)
        {
            break;
        }
    }
    let expected: Vec<String> =
        (0..5000).step_by(100).map(|number| number.to_string()).chain(["end".to_owned()]).collect();
    assert_eq!(trades, expected, "trades are never left out");
    assert!(left_out.iter().all(|count| *count > 500), "only {left_out:?} of accounts and positions");
    for (what, left_out) in ["account_update", "position_update"].into_iter().zip(left_out) {
        let shown = client.got.iter().filter(|(_, _, data)| data["message_type"] == what).count();
        assert_eq!(shown as u64 + left_out, 5_000, "each {what} was shown or counted");
    }

    // And the state can be asked for.
    let mut fresh = Client::login(&gateway.url, &token).await;
    fresh.subscribe(json!({"snapshot": true})).await;
    let snapshot = fresh.until("snapshot").await;
    assert_eq!(snapshot["last"], true);
    let items: Vec<(String, f64)> = snapshot["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let payload = &item["data"]["payload"];
            let value = payload["balance"].as_f64().or(payload["volume_long"].as_f64());
            (item["key"].as_str().unwrap().to_owned(), value.unwrap())
        })
        .collect();
    let mut items = items;
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("account", 4999.0), ("position:A", 4998.0), ("position:B", 4999.0)];
    assert_eq!(items, expected.map(|(key, value)| (key.to_owned(), value)));

    // And the gateway's own count agrees with what it told the client.
    drop((client, fresh));
    gateway.terminate();
    gateway.wait();
    let log = std::fs::read_to_string(log).unwrap();
    let counts = log.split_whitespace().filter_map(|word| word.strip_prefix("conflated="));
    assert_eq!(counts.map(|count| count.parse::<u64>().unwrap()).sum::<u64>(), left_out.iter().sum::<u64>());
}
