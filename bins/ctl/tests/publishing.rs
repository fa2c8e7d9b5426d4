//! `publish`: from flags and from lines, with the lane in every state.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::time::{Duration, Instant};

use bellwire::{Budget, Priority, Producer, ProducerOptions, Reader, ReaderOptions};
use common::*;
use serde_json::{Value, json};

const NOTICE: [&str; 14] = [
    "publish",
    "--producer",
    "ops",
    "--type",
    "system_notice",
    "--user",
    "*",
    "--field",
    "title=Hello",
    "--field",
    "content=a=b c",
    "--field",
    "level=INFO",
    "--json",
];

fn published(bus: &Bus) -> Vec<Value> {
    bus.ctl(&["tail", "--all", "--from", "oldest", "--seconds", "0", "--json"]).json()
}

/// A lane whose rings are one page, and a gating reader that has read nothing of it.
fn full_lane(bus: &Bus) -> Reader {
    let mut producer = Priority::ALL
        .into_iter()
        .fold(ProducerOptions::new(), |options, priority| options.capacity(priority, 4096))
        .open(&bus.0, "ops")
        .unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    reader.refresh();
    producer.look();
    while producer.publish(&notice("fill")).is_ok() {}
    reader
}

#[test]
fn one_notification_from_flags_keeps_its_lane_and_sequence() {
    let bus = Bus::new();
    let first = bus.ctl(&NOTICE);
    first.exits(0);
    first.says("nobody consumes this bus now");
    let second = bus.ctl(&NOTICE);
    assert_eq!(first.json()[0]["lane_sequence"], 1);
    assert_eq!(second.json()[0]["lane_sequence"], 2);
    let seen = published(&bus);
    assert_eq!(seen[0]["message_id"], first.json()[0]["message_id"]);
    assert_eq!(seen[0]["payload"]["content"], "a=b c");
    assert_eq!(seen[0]["priority"], 3);
    assert!(seen[0]["payload"]["timestamp"].as_i64() > Some(1_700_000_000_000_000_000));

    let id = "01234567-89ab-7def-8123-456789abcdef";
    let mut arguments = NOTICE[..13].to_vec();
    arguments.extend(["--id", id, "--priority", "0", "--source", "Ops"]);
    let text = bus.ctl(&arguments);
    assert_eq!(text.exits(0), format!("{id}\n"));
    let seen = published(&bus);
    assert_eq!(
        (&seen[2]["message_id"], &seen[2]["priority"], &seen[2]["source"]),
        (&json!(id), &json!(0), &json!("Ops"))
    );
}

#[test]
fn what_is_wrong_with_the_flags_is_said_at_once() {
    let bus = Bus::new();
    let wrong = |arguments: &[&str], words: &str| {
        let ran = bus.ctl(&[&["publish", "--producer", "ops"], arguments].concat());
        assert_eq!(ran.exits(2), "");
        ran.says(words);
    };
    wrong(
        &["--type", "system_notice", "--user", "*"],
        "needs --field title=TEXT --field content=TEXT --field level=INFO|",
    );
    wrong(&["--type", "sistem_notice", "--user", "*"], "did you mean system_notice?");
    wrong(&["--type", "system_notice"], "--user");
    wrong(&["--type", "system_notice", "--user", "*", "-f", "titel=x"], "did you mean title?");
    wrong(&["--type", "position_profit", "--user", "u", "-f", "float_profit=x"], "expected a number");
    wrong(&["--type", "system_notice", "--user", "u", "--id", "x"], "36 characters");
    wrong(&["--type", "system_notice", "--user", "u", "--priority", "4"], "expected 0, 1, 2 or 3");
    wrong(&["--from", "x", "--user", "u"], "cannot be used with");
    wrong(&[], "--type");
    assert_eq!(bus.ctl(&["ls"]).code, Some(3), "nothing was made for a wrong command line");
    let mut upper = NOTICE.to_vec();
    upper[2] = "Ops";
    bus.ctl(&upper).says("producer name").exits(2);
    let mut nobody = NOTICE.to_vec();
    nobody[6] = "";
    bus.ctl(&nobody).says("user_id is empty").exits(1);
    let infinite = [
        "--type",
        "position_profit",
        "--user",
        "u",
        "-f",
        "instrument_id=i",
        "-f",
        "float_profit=inf",
        "-f",
        "close_profit=0",
        "-f",
        "settle_price=0",
    ];
    bus.ctl(&[&["publish", "--producer", "ops"], &infinite[..]].concat()).says("float_profit").exits(1);
}

#[test]
fn bad_lines_are_reported_by_number_and_the_rest_goes_on() {
    let bus = Bus::new();
    let good = |title: &str| {
        json!({"user_id": "*", "payload": {"type": "system_notice", "title": title, "content": "", "level": "INFO",
            "timestamp": 1}})
        .to_string()
    };
    let lines = [
        good("one"),
        "{\"user_id\":".to_owned(),
        String::new(),
        good("four").replace("INFO", "info"),
        good("five").replace("\"user_id\":\"*\"", "\"user_id\":\"\""),
        format!("\"{}\"", "x".repeat(600 << 10)),
        good("seven"),
        "[1]".to_owned(),
    ];
    let ran = bus.ctl_with(&["publish", "--producer", "ops", "--from", "-"], &lines.join("\n"));
    assert!(ran.exits(1).starts_with("published 2, bad 5, refused 0 in "), "{ran:#?}");
    ran.says("line 2: not JSON")
        .says("line 4: payload.level: expected INFO or")
        .says("line 5: user_id is empty");
    ran.says("line 6: longer than 512.0 KiB").says("line 8: expected a JSON object");
    let titles: Vec<_> = published(&bus).iter().map(|n| n["payload"]["title"].clone()).collect();
    assert_eq!(titles, ["one", "seven"]);

    let file = std::env::temp_dir().join(format!("{}.jsonl", bus.0));
    fs::write(&file, lines[0].clone() + "\n" + &lines[6]).unwrap();
    let ran = bus.ctl(&["publish", "--producer", "ops", "--from", file.to_str().unwrap(), "--json"]);
    fs::remove_file(&file).unwrap();
    ran.exits(0);
    let receipts = ran.json();
    assert_eq!((&receipts[0]["line"], &receipts[1]["line"]), (&json!(1), &json!(2)));
    assert_eq!(receipts[1]["message_id"], published(&bus)[3]["message_id"]);
    ran.says("published 2, bad 0, refused 0");
    bus.ctl(&["publish", "--producer", "ops", "--from", "/nowhere/x"]).says("/nowhere/x").exits(3);
}

#[test]
fn numbers_are_published_to_the_last_bit() {
    let bus = Bus::new();
    // Numbers that a quick reader of decimals takes for their neighbours.
    let numbers =
        ["123456789.12345679", "2.2250738585072014e-308", "1.7976931348623157e+308", "7.038531e-26", "-0.0"];
    let lines: String = numbers
        .iter()
        .map(|number| {
            format!(
                r#"{{"user_id":"u","payload":{{"type":"position_profit","user_id":"u","instrument_id":"i","float_profit":{number},"close_profit":0,"settle_price":0,"timestamp":1}}}}"#
            ) + "\n"
        })
        .collect();
    bus.ctl_with(&["publish", "--producer", "ops", "--from", "-"], &lines).exits(0);
    let seen = bus.ctl(&["tail", "--all", "--from", "oldest", "--seconds", "0", "--json"]);
    for number in numbers {
        assert!(seen.out.contains(&format!(r#""float_profit":{number},"#)), "{number}: {}", seen.out);
    }
}

#[test]
fn lines_are_published_as_they_come_and_not_at_the_end_of_input() {
    let bus = Bus::new();
    let mut child = bus.start(&["publish", "--producer", "ops", "--from", "-", "--json"]);
    let mut input = child.stdin.take().unwrap();
    let line = json!({"user_id": "*", "payload": {"type": "system_notice", "title": "t", "content": "", "level": "INFO",
        "timestamp": 1}});
    writeln!(input, "{line}").unwrap();
    let mut receipt = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut receipt).unwrap();
    assert!(receipt.contains("\"lane_sequence\":1"), "{receipt}");
    // The reader of our receipts is gone now: publishing goes on all the same.
    for _ in 0..3 {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    assert_eq!(finish(child).code, Some(0));
    assert_eq!(published(&bus).len(), 4);
}

#[test]
fn a_lane_in_use_is_a_clear_error() {
    let bus = Bus::new();
    let producer = Producer::open(&bus.0, "ops").unwrap();
    let ran = bus.ctl(&NOTICE);
    assert_eq!(ran.exits(5), "");
    ran.says(&format!("in use by process {}", std::process::id())).says("another name");
    drop(producer);
    bus.ctl(&NOTICE).exits(0);
}

#[test]
fn a_full_ring_is_reported_or_waited_for_as_asked() {
    let bus = Bus::new();
    let mut reader = full_lane(&bus);
    let before = published(&bus).len();

    let report = bus.ctl(&[&NOTICE[..], &["--when-full", "report"]].concat());
    assert_eq!(report.exits(5), "");
    report.says("ring P3 is full").says("inspect");
    let started = Instant::now();
    bus.ctl(&[&NOTICE[..], &["--timeout", "300ms"]].concat()).says("ring P3 is full").exits(5);
    assert!(started.elapsed() >= Duration::from_millis(300));

    let lines = format!("{}\n{}\n", notice_line(3), notice_line(0));
    let from = ["publish", "--producer", "ops", "--from", "-", "--when-full"];
    let ran = bus.ctl_with(&[&from[..], &["report"]].concat(), &lines);
    assert!(ran.exits(1).starts_with("published 1, bad 0, refused 1 "), "the other ring has room: {ran:#?}");
    ran.says("line 1: ring P3 is full");
    let ran = bus.ctl_with(&[&from[..], &["wait", "--timeout", "50ms"]].concat(), &lines);
    assert!(ran.exits(5).starts_with("published 0, bad 0, refused 1 "), "order is kept: {ran:#?}");
    ran.says("line 1").says("ended there");

    let waiting = bus.start(&[&NOTICE[..], &["--timeout", "25s"]].concat());
    std::thread::sleep(Duration::from_millis(100));
    let mut read = 0;
    until("everything was read", || {
        read += reader.round(Budget::default(), |_, _| {});
        reader.commit(0);
        read > before
    });
    finish(waiting).exits(0);
    until("the one that waited came too", || {
        read += reader.round(Budget::default(), |_, _| {});
        reader.commit(0);
        read == before + 2
    });
}

fn notice_line(priority: u8) -> Value {
    json!({"user_id": "*", "priority": priority, "payload": {"type": "system_notice", "title": "t", "content": "",
        "level": "INFO", "timestamp": 1}})
}

#[test]
fn a_rate_is_kept() {
    let bus = Bus::new();
    let lines: String = (0..20).map(|_| format!("{}\n", notice_line(3))).collect();
    let started = Instant::now();
    bus.ctl_with(&["publish", "--producer", "ops", "--from", "-", "--rate", "100"], &lines).exits(0);
    assert!(started.elapsed() >= Duration::from_millis(180), "{:?}", started.elapsed());
    assert_eq!(published(&bus).len(), 20);
}
