//! `check`: the states and figures that Nagios gets, of a bus and of a real gateway, in good order and in trouble.

mod common;

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use bellwire::{Budget, ReaderOptions};
use common::site::Site;
use common::*;
use nix::sys::signal::Signal;

const OK: i32 = 0;
const WARNING: i32 = 1;
const CRITICAL: i32 = 2;
const UNKNOWN: i32 = 3;

fn check(bus: &Bus, arguments: &[&str]) -> Ran {
    bus.ctl(&[&["check", "--sample", "0"], arguments].concat())
}

/// The first line, and that what is wrong has a line with what to do.
#[track_caller]
fn is_state(ran: &Ran, code: i32, says: &[&str]) {
    let word = ["OK", "WARNING", "CRITICAL", "UNKNOWN"][code as usize];
    let text = ran.exits(code);
    let first = text.lines().next().unwrap();
    assert!(first.starts_with(&format!("BELLWIRE {word} - bus ")), "{first}");
    for part in says {
        assert!(first.contains(part), "{part:?} is not in {first}");
    }
    let lines: Vec<_> = text.lines().skip(1).collect();
    assert_eq!(code == OK, lines.is_empty(), "{text}");
    assert!(lines.iter().all(|line| line.contains(" -> ")), "{text}");
}

#[test]
fn a_bus_in_good_order_is_ok_with_figures() {
    let bus = Bus::new();
    is_state(&check(&bus, &[]), UNKNOWN, &["nothing on bus"]);
    is_state(&check(&bus, &["--producer", "risk"]), CRITICAL, &["producer risk has never been on this bus"]);
    let mut producer = small().open(&bus.0, "risk").unwrap();
    is_state(&check(&bus, &[]), WARNING, &["no consumer reads the bus"]);
    let mut gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut gateway);
    producer.publish(&notice("one")).unwrap();
    gateway.round(Budget::default(), |_, _| {});
    gateway.commit(0);
    let well = check(&bus, &["--producer", "risk", "--consumer", "gateway", "--max-lag", "1h"]);
    is_state(
        &well,
        OK,
        &[
            "1 lane, 1 consumer | ",
            "'risk fill'=0%;70;90;0;100",
            "'risk published'=1c",
            "'gateway lag'=0s;;3600;0",
        ],
    );
    let json = bus.ctl(&["check", "--sample", "0", "--json"]);
    json.exits(OK);
    assert_eq!((&json.json()[0]["schema"], &json.json()[0]["state"]), (&1.into(), &"OK".into()));
    bus.ctl(&["check", "--max-lag", "soon"]).exits(UNKNOWN);
    bus.ctl(&["check", "--help"]).exits(0);
}

#[test]
fn fill_lag_refusals_and_the_dead_have_their_states() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let mut gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut gateway);
    for _ in 0..10 {
        producer.publish(&notice("some")).unwrap();
    }
    let filled = ["--warning-fill", "20", "--critical-fill", "80"];
    is_state(&check(&bus, &filled), WARNING, &["ring P3 is ", "gateway has not read", ";20;80;0;100"]);
    is_state(&check(&bus, &["--warning-fill", "1", "--critical-fill", "5"]), CRITICAL, &["ring P3"]);
    is_state(&check(&bus, &["--max-lag", "1ms"]), CRITICAL, &["has not read for"]);
    is_state(&check(&bus, &["--max-lag", "1h"]), OK, &[]);

    while producer.publish(&notice("fill")).is_ok() {}
    is_state(&check(&bus, &[]), CRITICAL, &["% full"]);
    // Refused before we looked is history, refused while we look is not.
    let lax = ["check", "--warning-fill", "100", "--critical-fill", "100", "--sample"];
    is_state(&bus.ctl(&[&lax[..], &["0"]].concat()), OK, &["'risk refused'=1c"]);
    let watching = bus.start(&[&lax[..], &["2s"]].concat());
    let ran = std::thread::spawn(move || finish(watching));
    while !ran.is_finished() {
        let _ = producer.publish(&notice("refused"));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    is_state(&ran.join().unwrap(), CRITICAL, &["publishes refused just now"]);

    while gateway.round(Budget::default(), |_, _| {}) > 0 {}
    gateway.commit(0);
    drop(gateway);
    is_state(&check(&bus, &[]), CRITICAL, &["consumer gateway is dead, and rings are kept for it by risk"]);
    bus.ctl(&["consumers", "forget", "gateway", "--yes"]).exits(0);
    let _gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    // Ended in order is nobody's trouble, unless it is to live; killed is.
    drop(producer);
    is_state(&check(&bus, &[]), OK, &[]);
    is_state(&check(&bus, &["--producer", "risk"]), CRITICAL, &["producer risk has ended"]);
    let mut child = bus.start(&["publish", "--producer", "engine", "--from", "-"]);
    until("it has its lane", || bus.path("lane", "engine").exists());
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    is_state(&check(&bus, &[]), WARNING, &["producer engine is dead (it was pid "]);
    is_state(&check(&bus, &["--producer", "engine"]), CRITICAL, &["producer engine is dead"]);
}

#[test]
fn damage_is_critical_and_what_is_not_ours_unknown() {
    let bus = Bus::new();
    let _gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    fs::write(bus.path("lane", "bad"), [0xa5; 65_536]).unwrap();
    fs::set_permissions(bus.path("lane", "bad"), fs::Permissions::from_mode(0o600)).unwrap();
    is_state(&check(&bus, &[]), CRITICAL, &["bad: ", "magic"]);
    fs::remove_file(bus.path("lane", "bad")).unwrap();
    if nix::unistd::geteuid().is_root() {
        drop(small().open(&bus.0, "theirs").unwrap());
        nix::unistd::chown(&bus.path("lane", "theirs"), Some(12_345.into()), Some(12_345.into())).unwrap();
        is_state(&check(&bus, &[]), UNKNOWN, &["theirs: ", "owned by uid 12345"]);
    }
}

#[test]
fn a_gateway_is_asked_through_its_socket_and_its_admin_listener() {
    let site = Site::new();
    let socket = site.control();
    let arguments = ["--socket", socket.to_str().unwrap(), "--admin", &site.admin];
    is_state(&check(&site.bus, &arguments), CRITICAL, &["no control socket at", "admin listener at"]);
    let gateway = site.start();
    let mut producer = small().open(&site.bus.0, "risk").unwrap();
    producer.publish(&notice("one")).unwrap();
    until("it has been read", || check(&site.bus, &arguments).code == Some(OK));
    let well = check(&site.bus, &arguments);
    is_state(&well, OK, &["gateway gw-1 is ready", "'quarantined'=0", "'sessions'=0", "'gateway files'="]);

    assert_eq!(well.out.matches("gateway files").count(), 1, "asked twice, said once: {well:#?}");

    // A ring whose next record says that it is longer than all that was committed.
    let lane = fs::File::options().read(true).write(true).open(bus_lane(&site)).unwrap();
    let data = 8192 + 3 * 4096;
    lane.write_all_at(&[0xff; 4096], data).unwrap();
    let _ = producer.publish(&notice("two"));
    lane.write_all_at(&[0xff; 4096], data).unwrap();
    until("the lane is quarantined", || {
        let _ = producer.publish(&notice("three"));
        lane.write_all_at(&[0xff; 4096], data).unwrap();
        check(&site.bus, &arguments).code == Some(CRITICAL)
    });
    is_state(&check(&site.bus, &arguments), CRITICAL, &["lane risk is quarantined by the gateway"]);

    drop(gateway);
    let dead = check(&site.bus, &arguments);
    is_state(&dead, CRITICAL, &["nobody listens at", "consumer gateway is dead"]);
}

fn bus_lane(site: &Site) -> std::path::PathBuf {
    site.bus.path("lane", "risk")
}

#[test]
fn what_is_no_gateway_or_does_not_answer_is_no_crash() {
    let site = Site::new();
    let _gateway = ReaderOptions::new().open(&site.bus.0, "gateway").unwrap();
    let mail = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mail.local_addr().unwrap().to_string();
    let greets = std::thread::spawn(move || {
        let (mut stream, _) = mail.accept().unwrap();
        stream.write_all(b"220 mail ready\r\n").unwrap();
    });
    is_state(&check(&site.bus, &["--admin", &address]), CRITICAL, &[&address]);
    greets.join().unwrap();
    is_state(&check(&site.bus, &["--admin", "no address"]), UNKNOWN, &["no address"]);
    let silent = UnixListener::bind(site.control()).unwrap();
    let path = site.control();
    let ran = check(&site.bus, &["--socket", path.to_str().unwrap(), "--timeout", "100ms"]);
    is_state(&ran, CRITICAL, &["has not answered for 100.0 ms"]);
    drop(silent);
}
