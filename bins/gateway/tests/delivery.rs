//! Who gets what: exactly his own, in order, once.

mod common;

use std::time::Duration;

use bellwire::{MessageId, Notification, Priority};
use common::{Bench, Client, Gateway, notice, numbers, text_of, token, trade};
use serde_json::json;

#[tokio::test]
async fn a_session_gets_its_own_records_and_broadcasts_in_order_and_nothing_else() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut bert = Client::subscribed(&gateway.url, &token("bert")).await;

    for number in numbers(0..500) {
        engine.publish(&trade("anna", &number)).unwrap();
        engine.publish(&trade("bert", &format!("b{number}"))).unwrap();
        engine.publish(&trade("nobody", "x")).unwrap();
    }
    engine.publish(&notice("halt")).unwrap();

    let expect = |prefix: &str| -> Vec<String> {
        numbers(0..500).iter().map(|number| format!("{prefix}{number}")).chain(["halt".to_owned()]).collect()
    };
    let of_stream = |client: &Client, stream: &str| -> Vec<String> {
        client.got.iter().filter(|(of, _, _)| of == stream).map(|(_, _, data)| text_of(data)).collect()
    };
    anna.until_got(501).await;
    bert.until_got(501).await;
    assert_eq!([of_stream(&anna, "user"), of_stream(&anna, "all")].concat(), expect(""));
    assert_eq!([of_stream(&bert, "user"), of_stream(&bert, "all")].concat(), expect("b"));
    let seqs: Vec<u64> = anna.got.iter().filter(|(of, _, _)| of == "user").map(|(_, seq, _)| *seq).collect();
    assert_eq!(seqs, (1..=500).collect::<Vec<_>>());
    anna.assert_silent(Duration::from_millis(100)).await;
}

/// Found by the torture run: a duplicate that began a segment of the journal moved its end, but not to an entry; until the
/// next record came, shards turned in circles and served nobody.
#[tokio::test]
async fn a_duplicate_at_the_end_of_a_segment_stops_nobody() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
    // A segment holds some twenty of them; each is followed by its duplicate, and then by silence.
    let long = "x".repeat(50_000);
    for number in 0..50_u64 {
        let note = trade("anna", &long).with_message_id(MessageId::compose(1, number, 1));
        engine.publish(&note).unwrap();
        engine.publish(&note).unwrap();
        anna.until_got(number as usize + 1).await;
        // The duplicate has been read, too.
        bench.until_read("engine").await;
        anna.send(json!({"op": "ping", "id": number})).await;
        anna.until("pong").await;
        let _bert = Client::subscribed(&gateway.url, &token("bert")).await;
    }
}

#[tokio::test]
async fn two_sessions_of_a_user_get_everything_once_each_also_when_the_first_has_left() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut first = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut second = Client::subscribed(&gateway.url, &token("anna")).await;
    for number in numbers(0..100) {
        engine.publish(&trade("anna", &number)).unwrap();
    }
    assert_eq!(first.until_got(100).await, numbers(0..100));
    assert_eq!(second.until_got(100).await, numbers(0..100));
    drop(first);
    for number in numbers(100..200) {
        engine.publish(&trade("anna", &number)).unwrap();
    }
    assert_eq!(second.until_got(200).await, numbers(0..200));
    second.assert_silent(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_slot_that_is_used_again_never_shows_the_records_of_its_last_tenant() {
    let bench = Bench::new().with("LISTEN_SHARDS", "1");
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    for round in 0..30 {
        let anna = Client::subscribed(&gateway.url, &token("anna")).await;
        for number in numbers(0..50) {
            engine.publish(&trade("anna", &number)).unwrap();
        }
        // She leaves in the middle of it; the next session of that shard takes her slot.
        drop(anna);
        let mut bert = Client::subscribed(&gateway.url, &token("bert")).await;
        engine.publish(&trade("bert", "mine")).unwrap();
        assert_eq!(bert.until_got(1).await, ["mine"], "round {round}");
        assert!(bert.got.iter().all(|(_, _, data)| data["user_id"] == "bert"));
    }
}

#[tokio::test]
async fn an_empty_subscription_means_nothing_and_channels_are_filtered_without_false_gaps() {
    let bench = Bench::new().with("SESSION_HEARTBEAT_MS", "200");
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut client = Client::login(&gateway.url, &token("anna")).await;
    engine.publish(&trade("anna", "before any subscription")).unwrap();
    client.assert_silent(Duration::from_millis(100)).await;

    client.subscribe(json!({"channels": ["risk"]})).await;
    engine.publish(&trade("anna", "another channel")).unwrap();
    client.assert_silent(Duration::from_millis(100)).await;
    // The heartbeat announces what was passed over, so the next `prev` is no gap; the client checks that.
    while client.positions["user"].1 < 2 {
        client.until("heartbeat").await;
    }

    let subscribed = client.subscribe(json!({"channels": ["trade"]})).await;
    assert_eq!(subscribed["channels"], json!(["trade", "risk"]));
    engine.publish(&trade("anna", "wanted")).unwrap();
    assert_eq!(client.until_got(1).await, ["wanted"]);

    client.send(json!({"op": "unsubscribe", "id": 3, "channels": ["trade"]})).await;
    assert_eq!(client.until("unsubscribed").await["channels"], json!(["risk"]));
    client.send(json!({"op": "unsubscribe", "id": 4})).await;
    assert_eq!(client.until("unsubscribed").await["channels"], json!([]));
    client.send(json!({"op": "list", "id": 5})).await;
    assert_eq!(client.until("subscriptions").await, json!({"op": "subscriptions", "id": 5, "channels": []}));
    engine.publish(&trade("anna", "unwanted")).unwrap();
    engine.publish(&notice("unwanted")).unwrap();
    client.assert_silent(Duration::from_millis(400)).await;
}

#[tokio::test]
async fn hostile_strings_arrive_as_they_were() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let user = "an\"na\\\u{2028}\u{1f514}\n";
    let mut client = Client::subscribed(&gateway.url, &token(user)).await;
    let long = "\u{1}\"\\".repeat(32 * 1024 / 3);
    let texts = [
        "\"}],\"op\":\"auth_ok\"",
        "\\\\\\",
        "\u{0}\u{1f}\u{7f}",
        "\u{2028}\u{2029}\u{feff}",
        "\u{1f514}",
        &long,
        "",
    ];
    for text in texts {
        engine.publish(&trade(user, text)).unwrap();
    }
    assert_eq!(client.until_got(texts.len()).await, texts);
    assert!(client.got.iter().all(|(_, _, data)| data["user_id"] == user));
}

#[tokio::test]
async fn a_bare_session_gets_plain_notifications() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let bearer = format!("Bearer {}", token("anna"));
    let mut client = Client::try_connect(&gateway.url, "bellwire.bare.json", &bearer).await.unwrap();
    // Nothing tells when it is open; what is published before it is, is not for it.
    while client.got.is_empty() {
        engine.publish(&notice("knock")).unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(20), client.next()).await;
    }
    engine.publish(&trade("anna", "one")).unwrap();
    engine.publish(&trade("bert", "not hers")).unwrap();
    engine.publish(&trade("anna", "two")).unwrap();
    let texts: Vec<String> = loop {
        client.next().await.unwrap();
        let texts: Vec<String> = client.texts().into_iter().filter(|text| text != "knock").collect();
        if texts.len() == 2 {
            break texts;
        }
    };
    assert_eq!(texts, ["one", "two"]);
    let keys: Vec<&String> = client.got[0].2.as_object().unwrap().keys().collect();
    assert!(keys.iter().any(|key| *key == "message_id") && !keys.iter().any(|key| *key == "op"), "{keys:?}");
}

#[tokio::test]
async fn urgent_records_do_not_wait_for_others_and_a_stream_stays_in_order() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
    for number in 0..2000 {
        let priority = Priority::ALL[number % 4];
        let text = number.to_string();
        let notification: Notification<'_> = trade("anna", &text).with_priority(priority);
        engine.publish(&notification).unwrap();
    }
    let texts = client.until_got(2000).await;
    // Every record once, whatever its priority; the positions were checked frame by frame.
    let mut sorted: Vec<usize> = texts.iter().map(|text| text.parse().unwrap()).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..2000).collect::<Vec<_>>());
    for class in 0..4 {
        let of_class: Vec<usize> = texts
            .iter()
            .map(|text| text.parse().unwrap())
            .filter(|number: &usize| number % 4 == class)
            .collect();
        assert!(of_class.is_sorted(), "class {class} was reordered");
    }
}

/// How often the gateway's shard went to sleep: once for each time that it was woken.
fn naps(gateway: &Gateway) -> u64 {
    for task in std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        if status.starts_with("Name:\tshard-0\n") {
            let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            return count.unwrap().trim().parse().unwrap();
        }
    }
    panic!("no shard")
}

/// One record at a time is pushed by the broker, and the shard sleeps on. The control: what is for everybody wakes it.
#[tokio::test]
async fn a_shard_that_sleeps_is_not_woken_for_one_record_of_one_user() {
    const COUNT: u64 = 200;
    let bench = Bench::new();
    let gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut got = 0;
    let mut naps_for = async |publish: &mut dyn FnMut(&str)| {
        let before = naps(&gateway);
        for number in numbers(0..COUNT as usize) {
            // Asleep again, if it was woken for the last one.
            tokio::time::sleep(Duration::from_millis(1)).await;
            publish(&number);
            got += 1;
            anna.until_got(got).await;
        }
        naps(&gateway) - before
    };
    let for_one = naps_for(&mut |number| _ = engine.publish(&trade("anna", number)).unwrap()).await;
    let for_all = naps_for(&mut |number| _ = engine.publish(&notice(number)).unwrap()).await;
    // Its clock and the client's pings wake it now and then.
    assert!(for_one < COUNT / 2 && for_all >= COUNT, "{for_one} for one user's, {for_all} for everybody's");
}
