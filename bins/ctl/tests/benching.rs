//! `bellwirectl bench` against the real gateway, and through a relay that is not honest.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use common::site::{Site, binary};
use common::*;

#[test]
fn a_run_measures_every_phase_and_leaves_nothing_behind() {
    let arguments = ["bench", "--sessions", "30", "--seconds", "0.5", "--rate", "400,max", "--missed", "20"];
    let mut bench = command(&[&arguments[..], &["--producers", "2", "--json"]].concat());
    bench.env("BELLWIRE_GATEWAY", binary()).env("TMPDIR", std::env::temp_dir()).stdin(Stdio::null());
    let child = bench.spawn().unwrap();
    let bus = format!("bellwire.bench-{}.", child.id());
    let ran = finish(child);
    ran.exits(0);
    let report = &ran.json()[0];
    assert_eq!(report["sessions"], 30);
    assert!(report["connect"]["per_second"].as_f64().unwrap() > 0.0);
    assert!(report["idle"]["bytes_per_session"].as_f64().is_some());
    let load = &report["loads"][0];
    assert_eq!((&load["published"], &load["delivered"]), (&200.into(), &200.into()));
    assert!(load["gateway_cpu_us"].as_f64().unwrap() > 0.0);
    assert_eq!(load["from_intended"]["count"], 200);
    let by_class = load["by_class"].as_array().unwrap().iter();
    let by_class: u64 = by_class.filter_map(|class| class["count"].as_u64()).sum();
    assert_eq!(by_class, 200);
    assert!(report["loads"][1]["delivered"].as_u64().unwrap() > 1_000);
    assert_eq!(report["broadcast"]["times"], 5);
    assert_eq!(report["replay"]["each"], 20);
    let verdict = &report["verdict"];
    for fault in ["lost", "doubled", "reordered", "foreign", "resyncs", "broken"] {
        assert_eq!(verdict[fault], 0, "{report:#}");
    }
    let left: Vec<_> =
        std::fs::read_dir("/dev/shm").unwrap().flatten().map(|file| file.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&bus)), "{left:?}");
}

/// A relay between a client and the gateway that drops or doubles the notification frame with that number. A gateway
/// that does so must be caught.
fn relay(gateway: &str, number: usize, doubles: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let gateway = gateway.strip_prefix("ws://").unwrap().trim_end_matches('/').to_owned();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(gateway).unwrap();
        let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
        tamper(server, client, number, doubles)
    });
    format!("ws://{address}/")
}

fn tamper(mut server: TcpStream, mut client: TcpStream, number: usize, doubles: bool) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        server.read_exact(&mut byte).ok()?;
        head.extend_from_slice(&byte);
    }
    client.write_all(&head).ok()?;
    let mut seen = 0;
    loop {
        let mut frame = vec![0; 2];
        server.read_exact(&mut frame).ok()?;
        let mut len = usize::from(frame[1]);
        if len == 126 {
            let mut longer = [0; 2];
            server.read_exact(&mut longer).ok()?;
            frame.extend_from_slice(&longer);
            len = usize::from(u16::from_be_bytes(longer));
        }
        let header = frame.len();
        frame.resize(header + len, 0);
        server.read_exact(&mut frame[header..]).ok()?;
        let is_it = frame[header..].starts_with(b"{\"op\":\"notification\"") && {
            seen += 1;
            seen == number
        };
        let times = if !is_it { 1 } else { 2 * usize::from(doubles) };
        for _ in 0..times {
            client.write_all(&frame).ok()?;
        }
    }
}

#[test]
fn a_gateway_that_drops_or_doubles_one_notification_is_caught() {
    let site = Site::new();
    let gateway = site.start();
    for (doubles, verdict) in [(false, "gap in User"), (true, "gap in User")] {
        let url = relay(&gateway.url, 25, doubles);
        let ran = site.bus.ctl(&[
            "bench",
            &url,
            "--key",
            SECRET,
            "--sessions",
            "1",
            "--seconds",
            "1",
            "--rate",
            "100",
            "--phase",
            "load",
        ]);
        ran.exits(1);
        ran.says(verdict);
        assert!(ran.out.contains("broken sessions 1"), "{}", ran.out);
    }
    let ran = site.bus.ctl(&[
        "bench",
        &gateway.url,
        "--key",
        SECRET,
        "--sessions",
        "1",
        "--seconds",
        "1",
        "--rate",
        "100",
        "--phase",
        "load",
    ]);
    ran.exits(0);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_started() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{nobody}/");
    ctl(&["bench", &url, "--key", SECRET, "--sessions", "3"]).exits(1);
    ctl(&["bench", &url]).says("no key").exits(2);
    ctl(&["bench", "--rate", "quickly"]).says("as 5000, 20k or max").exits(2);
    ctl(&["bench", "--mix", "P9"]).says("realistic").exits(2);
    let mut bench = command(&["bench"]);
    bench.env("BELLWIRE_GATEWAY", "/nowhere/bellwire-gateway").stdin(Stdio::null());
    Ran::of(bench.output().unwrap()).says("/nowhere/bellwire-gateway").exits(3);
}
