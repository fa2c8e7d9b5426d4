//! `ls`, `inspect` and `tail`: what they say of buses in good order and in trouble.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use bellwire::{Budget, Priority, Producer, ProducerOptions, ReaderOptions, Tap, TapStart};
use common::*;
use nix::sys::signal::Signal;
use serde_json::json;

#[test]
fn ls_tells_living_owners_from_dead_ones() {
    let bus = Bus::new();
    let _live = Producer::open(&bus.0, "live-one").unwrap();
    drop(Producer::open(&bus.0, "dead-one").unwrap());
    let _reader = ReaderOptions::new().open(&bus.0, "monitor").unwrap();

    let ran = bus.ctl(&["ls"]);
    let lines: Vec<Vec<&str>> = ran.exits(0).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["BUS", "KIND", "NAME", "STATE", "PID", "OWNER", "MODE", "SIZE"]);
    assert_eq!(lines[1][..4], [&bus.0, "lane", "dead-one", "dead"]);
    assert_eq!(lines[2][..4], [&bus.0, "lane", "live-one", "live"]);
    assert_eq!(lines[3][..4], [&bus.0, "consumer", "monitor", "live"]);
    assert_eq!(lines[2][4], std::process::id().to_string());
    assert_eq!(ran.err, "");
    assert!(!ran.out.contains('\u{1b}'), "no colours into a pipe");

    let json = bus.ctl(&["ls", "--json"]).json();
    assert_eq!(json[1]["name"], "live-one");
    assert_eq!(json[1]["mode"], "0600");
    assert_eq!(json[1]["pid"], std::process::id());
}

#[test]
fn a_bus_that_is_not_there_is_exit_3_and_says_what_is() {
    let bus = Bus::new();
    let other = Bus::new();
    let _producer = Producer::open(&other.0, "risk").unwrap();
    for verb in [&["ls"][..], &["inspect"]] {
        let ran = bus.ctl(verb);
        assert_eq!(ran.exits(3), "");
        ran.says(&format!("nothing on bus {}", bus.0)).says(&other.0).says("--bus");
    }
    let ran = other.ctl(&["inspect", "rsik"]);
    assert_eq!(ran.exits(3), "");
    ran.says("no such segment").says("did you mean risk?");
    other.ctl(&["tail", "nothing-like-it"]).says("lanes on bus").exits(3);
    other.ctl(&["tail", "../etc"]).says("use 1 to 48 characters").exits(2);
    // No lane has such a name: a copy is meant.
    other.ctl(&["inspect", "../etc"]).says("No such file").exits(3);
    Bus("Not A Name".into()).ctl(&["ls"]).says("bus name").exits(2);
}

#[test]
fn inspect_shows_rings_and_who_has_read_how_far() {
    let bus = Bus::new();
    let mut producer = ProducerOptions::new()
        .capacity(Priority::P0, 4096)
        .capacity(Priority::P1, 4096)
        .capacity(Priority::P2, 4096)
        .capacity(Priority::P3, 4096)
        .open(&bus.0, "risk")
        .unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    reader.refresh();
    producer.look();
    for n in 0..3 {
        producer.publish(&margin_call("user_01", &n.to_string())).unwrap();
    }
    assert_eq!(reader.round(Budget::default(), |_, _| {}), 3);
    reader.commit(0);
    producer.publish(&margin_call("user_01", "unread")).unwrap();
    while producer.publish(&notice("fill")).is_ok() {}

    let ran = bus.ctl(&["inspect", "risk"]);
    let text = ran.exits(0);
    assert!(text.starts_with("lane risk: live, pid "), "{text}");
    let row = |name: &str| -> Vec<&str> {
        text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect()
    };
    assert_eq!(row("P0 ")[..3], ["P0", "4.0", "KiB"]);
    assert_eq!(row("P3 ").iter().filter(|cell| cell.ends_with('%')).count(), 1);
    let consumer = row("gateway");
    assert_eq!(consumer[..4], ["gateway", "live", "yes", "1"]);

    let json = bus.ctl(&["inspect", "--json"]).json();
    let lane = &json[0];
    assert_eq!((&lane["lane"], &lane["state"]), (&json!("risk"), &json!("live")));
    assert_eq!(lane["rings"][0]["published"], 4);
    assert_eq!(lane["rings"][3]["refused"], 1);
    assert!(lane["rings"][3]["unread"].as_u64() > Some(3500));
    assert_eq!(lane["consumers"][0]["rings"][0]["unread"], 1);
    assert_eq!(lane["consumers"][0]["gating"], true);
    assert_eq!(json[1]["consumer"], "gateway");
    assert_eq!(json[1]["lanes"], json!(["risk"]));

    drop(reader);
    let ran = bus.ctl(&["inspect"]);
    assert!(
        ran.exits(0).lines().any(|line| line.starts_with("gateway") && line.contains("dead")),
        "{ran:#?}"
    );
}

#[test]
fn inspect_shows_rates_between_two_looks_and_how_old_the_oldest_unread_is() {
    let bus = Bus::new();
    let mut producer = Producer::open(&bus.0, "risk").unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    reader.refresh();
    producer.look();
    let at = producer.publish(&margin_call("user_01", "unread")).unwrap().timestamp;
    let once = bus.ctl(&["inspect", "risk", "--json"]).json().remove(0);
    assert_eq!(once["rings"][0]["oldest_unread_at"], at);
    assert!(once["rings"][1]["oldest_unread_at"].is_null() && once["rings"][0]["published_per_s"].is_null());
    assert!(bus.ctl(&["inspect", "risk"]).exits(0).contains(" AGE "));

    let looking = bus.start(&["inspect", "risk", "--interval", "1s", "--json"]);
    let looking = std::thread::spawn(move || finish(looking));
    while !looking.is_finished() {
        producer.publish(&notice("on")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let rated = looking.join().unwrap().json().remove(0);
    let rate = |ring: usize, name: &str| rated["rings"][ring][name].as_f64().unwrap();
    assert!(rate(3, "published_per_s") > 1.0 && rate(3, "bytes_per_s") > 64.0, "{rated}");
    assert_eq!((rate(0, "published_per_s"), rate(3, "refused_per_s")), (0.0, 0.0));

    let mut watching = bus.start(&["inspect", "risk", "--watch", "--interval", "50ms"]);
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines().map_while(Result::ok);
    for _ in 0..2 {
        assert!(lines.any(|line| line.starts_with("at 2")), "never shown again");
        assert!(lines.any(|line| line.starts_with("RING ") && line.contains("RECORDS/S")));
    }
    signal(&watching, Signal::SIGINT);
    drop(lines);
    assert_eq!(finish(watching).code, Some(0));
}

#[test]
fn looking_changes_no_byte_of_any_segment() {
    let bus = Bus::new();
    let mut producer = Producer::open(&bus.0, "risk").unwrap();
    let reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    producer.publish(&notice("one")).unwrap();
    let files = [bus.path("lane", "risk"), bus.path("cursors", "gateway")];
    let bytes = || files.each_ref().map(|file| fs::read(file).unwrap());
    let before = bytes();
    bus.ctl(&["ls"]).exits(0);
    bus.ctl(&["inspect"]).exits(0);
    bus.ctl(&["consumers"]).exits(0);
    bus.ctl(&["consumers", "forget", "gateway"]).exits(5);
    bus.ctl(&["gc"]).exits(0);
    bus.ctl(&["doctor"]);
    bus.ctl(&["check", "--sample", "0"]);
    bus.ctl(&["tail", "--all", "--from", "oldest", "--seconds", "0"]).exits(0);
    assert!(before == bytes());
    drop(reader);
}

#[test]
fn tail_merges_the_rings_of_a_lane_in_the_order_published() {
    let bus = Bus::new();
    let mut producer = Producer::open(&bus.0, "engine").unwrap();
    let users: Vec<String> = (0..30).map(|n| format!("user_{n:02}")).collect();
    for (n, user) in users.iter().enumerate() {
        match n % 3 {
            0 => producer.publish(&margin_call(user, "m")).unwrap(),
            1 => producer.publish(&canceled(user, "o")).unwrap(),
            _ => producer.publish(&notice(user)).unwrap(),
        };
    }
    let ran = bus.ctl(&["tail", "engine", "--from", "oldest", "--seconds", "0"]);
    let lines: Vec<_> = ran.exits(0).lines().collect();
    assert_eq!(lines.len(), 30);
    for (line, user) in lines.iter().zip(&users) {
        assert!(line.contains(user.as_str()), "{user}: {line}");
    }
    assert_eq!(lines[0].split_whitespace().nth(1), Some("engine"));
    let from_now = bus.ctl(&["tail", "engine", "--seconds", "0"]);
    assert_eq!(from_now.exits(0), "");
}

#[test]
fn tail_json_is_what_clients_get_and_can_be_published_again() {
    let bus = Bus::new();
    let mut producer = Producer::open(&bus.0, "risk").unwrap();
    let hostile = "\"\\\u{1}\u{1b}[2J\u{2028}\u{1f514}";
    producer.publish(&margin_call("user_01", hostile)).unwrap();
    let arguments = ["tail", "risk", "--from", "oldest", "--seconds", "0", "--json"];
    let first = bus.ctl(&arguments);
    assert_eq!(first.json()[0]["payload"]["message"], hostile);

    let other = Bus::new();
    other.ctl_with(&["publish", "--producer", "risk", "--from", "-"], &first.out).exits(0);
    assert_eq!(other.ctl(&arguments).out, first.out);

    let text = bus.ctl(&arguments[..6]);
    assert!(
        !text.exits(0).contains(['\u{1b}', '\u{1}', '\u{2028}']),
        "a terminal must not be driven: {text:?}"
    );
}

#[test]
fn filters_of_one_kind_add_up_and_different_kinds_must_all_fit() {
    let bus = Bus::new();
    let mut producer = Producer::open(&bus.0, "engine").unwrap();
    for user in ["a", "b", "c"] {
        producer.publish(&margin_call(user, "m")).unwrap();
        producer.publish(&canceled(user, "o")).unwrap();
    }
    producer.publish(&notice("n")).unwrap();
    let seen = |filters: &[&str]| -> Vec<String> {
        let mut arguments = vec!["tail", "--all", "--from", "oldest", "--seconds", "0", "--json"];
        arguments.extend(filters);
        let ran = bus.ctl(&arguments);
        ran.exits(0);
        let short = |v: &serde_json::Value| format!("{}{}", v["user_id"].as_str().unwrap(), v["priority"]);
        ran.json().iter().map(short).collect()
    };
    assert_eq!(seen(&["--user", "a", "--user", "b"]), ["a0", "a1", "b0", "b1"]);
    assert_eq!(seen(&["--user", "a", "--channel", "risk"]), ["a0"]);
    assert_eq!(seen(&["--priority", "P1,3"]), ["a1", "b1", "c1", "*3"]);
    assert_eq!(seen(&["--type", "margin_call", "--type", "system_notice"]), ["a0", "b0", "c0", "*3"]);
    assert_eq!(seen(&["--user", "*"]), ["*3"]);
    assert_eq!(seen(&["--count", "2"]), ["a0", "a1"]);
    bus.ctl(&["tail", "--all", "--type", "margin_cal"]).says("did you mean margin_call?").exits(2);
    bus.ctl(&["tail", "--all", "--seconds", "0", "--count", "3"]).says("0 of 3").exits(1);
    bus.ctl(&["tail"]).says("required").exits(2);
}

#[test]
fn a_tap_that_is_overrun_says_how_many_it_lost() {
    let bus = Bus::new();
    let mut producer = ProducerOptions::new().capacity(Priority::P3, 4096).open(&bus.0, "flood").unwrap();
    let tail = bus.start(&["tail", "flood", "--from", "oldest", "--json", "--count", "1", "--seconds", "20"]);
    // It lives once it has mapped the lane; from then on we are always a lap ahead of it.
    let mut published = 0_u64;
    let tap = Tap::open(&bus.0, "flood", TapStart::Now).unwrap();
    let maps = format!("/proc/{}/maps", tail.id());
    let lane = bus.path("lane", "flood");
    until("tail has mapped the lane", || {
        fs::read_to_string(&maps).unwrap_or_default().contains(lane.to_str().unwrap())
    });
    signal(&tail, Signal::SIGSTOP);
    for _ in 0..1_000 {
        producer.publish(&notice("flood")).unwrap();
        published += 1;
    }
    signal(&tail, Signal::SIGCONT);
    let ran = finish(tail);
    assert_eq!(ran.exits(0).lines().count(), 1);
    let lost: u64 =
        ran.err.split(" records overwritten").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    let kept = ran.json()[0]["message_id"].as_str().unwrap().to_owned();
    assert!(lost > 900 && lost < published, "{ran:#?}");
    // The sequence stands in the last 40 bits of the id: what was kept follows directly on what was lost.
    let sequence = u64::from_str_radix(&kept.replace('-', "")[22..], 16).unwrap();
    assert_eq!(sequence, lost + 1, "{ran:#?}");
    drop(tap);
}

#[test]
fn tail_all_waits_for_lanes_that_come_later_and_ends_on_ctrl_c() {
    let bus = Bus::new();
    let mut tail = bus.start(&["tail", "--all"]);
    let mut words = BufReader::new(tail.stderr.take().unwrap());
    let mut line = String::new();
    words.read_line(&mut line).unwrap();
    assert!(line.contains("waiting for one"), "{line}");
    let mut producer = Producer::open(&bus.0, "late").unwrap();
    producer.publish(&notice("hello")).unwrap();
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    line.clear();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("title=hello"), "{line}");
    signal(&tail, Signal::SIGINT);
    assert_eq!(finish(tail).code, Some(0));
}

#[test]
fn a_reader_that_goes_away_ends_us_quietly() {
    let bus = Bus::new();
    let mut producer = Producer::open(&bus.0, "risk").unwrap();
    for _ in 0..2_000 {
        producer.publish(&notice("many")).unwrap();
    }
    let mut tail = bus.start(&["tail", "risk", "--from", "oldest"]);
    let mut line = String::new();
    BufReader::new(tail.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ran = finish(tail);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
}

#[test]
fn foreign_damaged_and_squatted_segments_are_told_apart() {
    let bus = Bus::new();
    let _good = Producer::open(&bus.0, "good").unwrap();
    let make = |name: &str, bytes: &[u8]| {
        let path = bus.path("lane", name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    make("empty", b"");
    make("garbage", &[0xa5; 65_536]);
    fs::set_permissions(make("writable", &[0; 65_536]), fs::Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bus.path("lane", "link")).unwrap();
    bus.ctl(&["inspect", "empty"]).says("0 bytes, shorter than its header").exits(6);
    bus.ctl(&["inspect", "garbage"]).says("magic").says("build").exits(6);
    bus.ctl(&["inspect", "writable"]).says("0666").exits(6);
    bus.ctl(&["tail", "link"]).says("expected a regular file").exits(6);
    let all = bus.ctl(&["inspect"]);
    assert!(all.exits(6).contains("lane good: live"), "the sound one is still shown: {all:#?}");
    let ls = bus.ctl(&["ls"]);
    assert_eq!(ls.exits(0).lines().count(), 6);
    ls.says("garbage").says("writable");
    bus.ctl(&["publish", "--producer", "garbage", "--from", "/dev/null"]).says("magic").exits(6);

    if nix::unistd::geteuid().is_root() {
        let path = bus.path("lane", "theirs");
        drop(Producer::open(&bus.0, "theirs").unwrap());
        nix::unistd::chown(&path, Some(12_345.into()), Some(12_345.into())).unwrap();
        bus.ctl(&["inspect", "theirs"]).says("owned by uid 12345").says("--group").exits(4);
    }
    bus.ctl(&["inspect", "good", "--group", "no-such-group-here"]).says("no such group").exits(2);
}

#[test]
fn nobody_s_segments_cannot_be_read_by_nobody() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to become somebody else");
        return;
    }
    let bus = Bus::new();
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    // Somebody else may not be able to walk to the target directory.
    let copy = std::env::temp_dir().join(format!("bellwirectl-{}", bus.0));
    fs::copy(env!("CARGO_BIN_EXE_bellwirectl"), &copy).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy).args(arguments);
        Ran::of(command.args(["--bus", &bus.0]).stdin(Stdio::null()).output().unwrap())
    };
    let ls = run(&["ls"]);
    let inspect = run(&["inspect", "risk"]);
    let tail = run(&["tail", "--all"]);
    fs::remove_file(&copy).unwrap();
    assert!(ls.exits(0).contains("risk"), "{ls:#?}");
    assert!(ls.out.contains(" ? "), "{ls:#?}");
    inspect.says("--group").exits(4);
    tail.says("no lane").says("--group").exits(4);
}

#[test]
fn a_tail_since_shows_what_was_published_since_as_far_as_the_rings_have_it() {
    let bus = Bus::new();
    let publish = |title: &str| {
        let line = format!(
            r#"{{"user_id":"*","source":"Ops","payload":{{"type":"system_notice","title":"{title}","content":"","level":"INFO","timestamp":1}}}}"#
        );
        bus.ctl_with(&["publish", "--producer", "ops", "--from", "-"], &(line + "\n")).exits(0);
    };
    publish("before");
    std::thread::sleep(std::time::Duration::from_millis(50));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    publish("after");
    let since = |time: &str| {
        let ran = bus.ctl(&["tail", "--all", "--since", time, "--seconds", "0", "--json"]);
        ran.exits(0);
        ran.json()
            .iter()
            .map(|line| line["payload"]["title"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(since(&now.to_string()), ["after"]);
    assert_eq!(since("1h"), ["before", "after"]);
    bus.ctl(&["tail", "--all", "--since", "1h", "--from", "oldest"]).exits(2);
}
