//! The verbs that change something at a real gateway, and what they say when there is none.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::process::Child;
use std::time::{Duration, Instant};

use common::site::{Gateway, Site};
use common::*;
use serde_json::json;

fn operate(site: &Site, arguments: &[&str]) -> Ran {
    let socket = site.control();
    ctl(&[arguments, &["--socket", socket.to_str().unwrap()]].concat())
}

/// A listener that is subscribed when this returns.
fn listener(gateway: &Gateway, user: &str) -> Child {
    let mut child = command(&["listen", &gateway.url, "--user", user, "--key", SECRET]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening as")), "never subscribed");
    std::thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn who_is_there_is_listed_and_can_be_sent_away() {
    let site = Site::new();
    let gateway = site.start();
    let mut first = listener(&gateway, "user_01");
    let mut second = listener(&gateway, "user_02");
    let listed = operate(&site, &["sessions"]);
    listed.exits(0);
    let lines: Vec<_> = listed.out.lines().collect();
    assert!(lines[0].starts_with("CONN "), "{}", listed.out);
    assert_eq!(lines.len(), 3, "{}", listed.out);
    assert!(listed.out.contains("user_01") && listed.out.contains(" open "));

    let of_one = operate(&site, &["sessions", "--user", "user_02", "--json"]);
    assert_eq!(of_one.json().len(), 1);
    assert_eq!(operate(&site, &["sessions", "--sort", "age", "--limit", "1", "--json"]).json().len(), 1);
    let status = operate(&site, &["status"]);
    status.exits(0);
    assert!(status.out.contains("ready, up ") && status.out.contains("sessions     2"), "{}", status.out);
    assert_eq!(operate(&site, &["status", "--json"]).json()[0]["sessions"], 2);

    let kicked = operate(&site, &["kick", "--user", "user_01"]);
    kicked.exits(0);
    assert!(kicked.err.contains("1 session ended"), "{}", kicked.err);
    first.wait().unwrap();
    let conn = of_one.json()[0]["conn"].as_str().unwrap().to_owned();
    operate(&site, &["kick", &conn]).exits(0);
    second.wait().unwrap();
    let again = operate(&site, &["kick", &conn]);
    again.exits(3);
    assert!(again.err.contains(&conn), "{}", again.err);
    operate(&site, &["kick"]).exits(2);
    operate(&site, &["kick", "nonsense"]).exits(2);
}

#[test]
fn a_revoked_user_is_sent_away_and_stays_out() {
    let site = Site::new();
    let gateway = site.start();
    let mut leaves = listener(&gateway, "user_01");
    let mut stays = listener(&gateway, "user_02");
    let revoked = operate(&site, &["revoke", "--user", "user_01", "--for", "1h"]);
    revoked.exits(0);
    assert!(revoked.err.contains("revoked until 2"), "{}", revoked.err);
    leaves.wait().unwrap();
    let refused = ctl(&["listen", &gateway.url, "--user", "user_01", "--key", SECRET]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.err.contains("revoked"), "{}", refused.err);
    assert!(stays.try_wait().unwrap().is_none(), "the other one stays");
    stays.kill().unwrap();
    stays.wait().unwrap();
    operate(&site, &["revoke", "--all"]).exits(2);
    operate(&site, &["revoke", "--jti", "a", "--issued-before", "now"]).exits(2);
    operate(&site, &["revoke", "--all", "--issued-before", "2020-01-01T00:00:00Z"]).exits(0);
}

#[test]
fn log_level_and_reload_say_what_they_did() {
    let site = Site::new();
    let _gateway = site.start();
    let set = operate(&site, &["log-level", "debug", "--for", "10m"]);
    set.exits(0);
    assert!(set.err.contains("log level debug for 10m 0s (was info)"), "{}", set.err);
    assert!(operate(&site, &["status"]).out.contains("log level    debug"));
    let reloaded = operate(&site, &["reload"]);
    reloaded.exits(0);
    assert!(reloaded.err.contains("files were read again"), "{}", reloaded.err);
    assert!(operate(&site, &["status"]).out.contains("log level    info"));
    operate(&site, &["log-level", "loud"]).exits(2);
}

#[test]
fn a_drain_waits_for_the_end() {
    let site = Site::new();
    let mut gateway = site.start();
    let mut listening = listener(&gateway, "user_01");
    let begun = Instant::now();
    let drained = operate(&site, &["drain", "--within", "5s"]);
    drained.exits(0);
    assert!(drained.err.contains("draining 1 session"), "{}", drained.err);
    assert!(drained.err.contains("the gateway ended after"), "{}", drained.err);
    assert!(gateway.process.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(10));
    let _ = listening.kill();
    listening.wait().unwrap();
}

#[test]
fn without_a_gateway_it_is_said_what_is_missing() {
    let site = Site::new();
    let none = operate(&site, &["status"]);
    none.exits(3);
    assert!(none.err.contains("no control socket") && none.err.contains("--socket"), "{}", none.err);
    // What a killed gateway leaves.
    drop(UnixListener::bind(site.control()).unwrap());
    let dead = operate(&site, &["sessions"]);
    dead.exits(3);
    assert!(dead.err.contains("dead"), "{}", dead.err);
    let _gateway = site.start();
    operate(&site, &["status"]).exits(0);
    // What is no gateway.
    let other = site.dir.join("other");
    let listener = UnixListener::bind(&other).unwrap();
    let answers = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(format!("{}\n", json!("hello")).as_bytes()).unwrap();
        stream.write_all(b"220 mail ready\n").unwrap();
    });
    let foreign = ctl(&["kick", "c-0-1", "--socket", other.to_str().unwrap()]);
    assert_ne!(foreign.code, Some(101), "{}", foreign.err);
    answers.join().unwrap();
}
