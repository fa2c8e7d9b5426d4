//! The whole way with the real gateway: `publish` on one side, `listen` on the other.

mod common;

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::Duration;

use bellwire::Producer;
use common::site::{Gateway, Site};
use common::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Publishes one notification for each of the orders.
fn publish(site: &Site, user: &str, orders: std::ops::Range<u32>) {
    let lines: String = orders.map(|order| format!("{}\n", canceled_line(user, order))).collect();
    site.bus.ctl_with(&["publish", "--producer", "engine", "--from", "-"], &lines).exits(0);
}

fn listen(gateway: &Gateway, user: &str, arguments: &[&str]) -> Child {
    let who = ["listen", &gateway.url, "--user", user, "--key", SECRET];
    command(&[&who[..], arguments].concat()).spawn().unwrap()
}

fn canceled_line(user: &str, order: u32) -> Value {
    json!({"user_id": user, "source": "Test", "payload": {"type": "order_canceled", "order_id": format!("o{order}"),
        "exchange_order_id": "x", "instrument_id": "IX2401", "reason": "test", "timestamp": 1}})
}

fn orders(ran: &Ran) -> Vec<String> {
    ran.json().iter().map(|data| data["payload"]["order_id"].as_str().unwrap().to_owned()).collect()
}

/// A listener that is subscribed when this returns; its words go on into the void.
fn subscribed(mut child: Child) -> Child {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening as")), "never subscribed");
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn what_is_published_arrives_at_its_user_alone_and_broadcasts_at_all() {
    let site = Site::new();
    let gateway = site.start();
    let first = subscribed(listen(&gateway, "user_01", &["--data", "--count", "4"]));
    let second = subscribed(listen(&gateway, "user_02", &["--data", "--count", "1"]));
    publish(&site, "user_01", 0..3);
    publish(&site, "*", 9..10);
    let (first, second) = (finish(first), finish(second));
    first.exits(0);
    second.exits(0);
    let mut seen = orders(&first);
    seen.sort();
    assert_eq!(seen, ["o0", "o1", "o2", "o9"]);
    assert_eq!(orders(&second), ["o9"]);

    let inspect = site.bus.ctl(&["inspect", "engine", "--json"]).json();
    let consumer = &inspect[0]["consumers"][0];
    assert_eq!((&consumer["consumer"], &consumer["state"]), (&json!("gateway"), &json!("live")));
    until("the gateway has read everything", || {
        let lane = &site.bus.ctl(&["inspect", "engine", "--json"]).json()[0];
        lane["consumers"][0]["rings"].as_array().unwrap().iter().all(|ring| ring["unread"] == 0)
    });
}

#[test]
fn a_resume_file_brings_what_came_in_between() {
    let site = Site::new();
    let gateway = site.start();
    let file = site.dir.join("user_01.pos");
    let arguments = ["--resume-file", file.to_str().unwrap(), "--data", "--count", "5"];
    let listener = subscribed(listen(&gateway, "user_01", &arguments));
    publish(&site, "user_01", 0..5);
    let ran = finish(listener);
    ran.exits(0);
    assert_eq!(orders(&ran), ["o0", "o1", "o2", "o3", "o4"]);
    publish(&site, "user_01", 5..10);
    let ran = finish(listen(&gateway, "user_01", &arguments));
    ran.exits(0);
    assert_eq!(orders(&ran), ["o5", "o6", "o7", "o8", "o9"]);
    ran.says("stream user: resumed from 5, replay up to 10");
}

#[test]
fn a_listener_with_reconnect_misses_nothing_when_the_gateway_is_killed() {
    let site = Site::new();
    let gateway = site.start();
    let listener = subscribed(listen(&gateway, "user_01", &["--reconnect", "--data", "--count", "60"]));
    publish(&site, "user_01", 0..20);
    signal(&gateway.process, Signal::SIGKILL);
    drop(gateway);
    publish(&site, "user_01", 20..40);
    let gateway = site.start();
    publish(&site, "user_01", 40..60);
    let ran = finish(listener);
    ran.exits(0);
    assert_eq!(orders(&ran), (0..60).map(|order| format!("o{order}")).collect::<Vec<_>>());
    drop(gateway);
}

#[test]
fn a_summary_has_latencies_of_what_came_live() {
    let site = Site::new();
    let gateway = site.start();
    let arguments = ["--summary", "--json", "--count", "120", "--seconds", "20"];
    let listener = subscribed(listen(&gateway, "user_01", &arguments));
    let mut producer = Producer::open(&site.bus.0, "risk").unwrap();
    for _ in 0..60 {
        producer.publish(&margin_call("user_01", "m")).unwrap();
        producer.publish(&canceled("user_01", "o")).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let ran = finish(listener);
    ran.exits(0);
    let summary = &ran.json()[0];
    assert_eq!(summary["by_type"], json!({"margin_call": 60, "order_canceled": 60}));
    assert_eq!(
        (&summary["gaps"], &summary["duplicates"], &summary["foreign"]),
        (&json!(0), &json!(0), &json!(0))
    );
    for class in summary["by_priority"].as_array().unwrap() {
        assert!(class["latency_us"]["p50"].as_f64() > Some(0.0), "{class}");
    }
}

#[test]
fn what_the_gateway_refuses_is_explained() {
    let site = Site::new();
    let gateway = site.start();
    let other_key = SECRET.replace('0', "f");
    let listen = |arguments: &[&str]| {
        finish(command(&[&["listen", &gateway.url], arguments].concat()).spawn().unwrap())
    };
    listen(&["--user", "user_01", "--key", &other_key]).exits(4);
    listen(&["--user", "user_01", "--key", &other_key, "--auth-frame"]).exits(4);
    let risk_only = ctl(&["token", "new", "--sub", "user_01", "--key", SECRET, "--channels", "risk"]);
    let token = risk_only.exits(0).trim();
    listen(&["--token", token, "--channels", "trade"]).says("does not permit this channel").exits(4);
    let ahead =
        listen(&["--user", "user_01", "--key", SECRET, "--resume", "user=ffffffff:7", "--seconds", "1"]);
    ahead.says("cannot be resumed from ffffffff:7").exits(1);
    assert_eq!(ctl(&["token", "check", token, "--key", SECRET]).code, Some(0));
}

#[test]
fn a_gateway_that_is_shut_down_says_goodbye() {
    let site = Site::new();
    let gateway = site.start();
    let mut listener = listen(&gateway, "user_01", &[]);
    let mut words = BufReader::new(listener.stderr.take().unwrap());
    let mut said = String::new();
    until("subscribed", || {
        words.read_line(&mut said).unwrap();
        said.contains("listening as")
    });
    signal(&gateway.process, Signal::SIGTERM);
    std::io::Read::read_to_string(&mut words, &mut said).unwrap();
    assert_eq!(finish(listener).code, Some(1));
    assert!(said.contains("4001 drain: the gateway is shutting down"), "{said}");
}
