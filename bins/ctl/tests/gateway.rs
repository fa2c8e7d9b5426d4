//! The whole way with the real gateway: `publish` on one side, `listen` on the other.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use bellwire::Producer;
use common::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// The gateway's binary: the one that BELLWIRE_GATEWAY names, or built now. It is another package's, so cargo does not
/// do it for us.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(built) = std::env::var_os("BELLWIRE_GATEWAY") {
            return built.into();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--package", "bellwire-gateway", "--bin", "bellwire-gateway"]);
        // The profile that we were built with ourselves.
        let ours = Path::new(env!("CARGO_BIN_EXE_bellwirectl"));
        if ours.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        ours.with_file_name("bellwire-gateway")
    })
}

/// A gateway on a bus, with a journal and an address that outlive it.
struct Gateway {
    process: Child,
    url: String,
}

/// What stays when a gateway is killed.
struct Site {
    bus: Bus,
    dir: PathBuf,
    address: String,
}

impl Site {
    fn new() -> Self {
        let bus = Bus::new();
        let dir = std::env::temp_dir().join(format!("bellwirectl-gateway-{}", bus.0));
        fs::create_dir_all(&dir).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { bus, dir, address }
    }

    fn start(&self) -> Gateway {
        let mut process = Command::new(binary())
            .arg("--dev")
            .env_clear()
            .env("BELLWIRE_BUS_NAME", &self.bus.0)
            .env("BELLWIRE_JOURNAL_DIR", self.dir.join("journal"))
            .env("BELLWIRE_JOURNAL_SEGMENT_BYTES", (4 << 20).to_string())
            .env("BELLWIRE_LISTEN_ADDRESS", &self.address)
            .env("BELLWIRE_TOKEN_KEY", SECRET)
            .env("TMPDIR", &self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url =
            lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("listening ")?.to_owned()));
        let url = url.unwrap_or_else(|| panic!("{}", fs::read_to_string(self.dir.join("log")).unwrap()));
        Gateway { process, url }
    }

    fn publish(&self, user: &str, orders: std::ops::Range<u32>) {
        let lines: String = orders.map(|order| format!("{}\n", canceled_line(user, order))).collect();
        self.bus.ctl_with(&["publish", "--producer", "engine", "--from", "-"], &lines).exits(0);
    }

    fn listen(&self, gateway: &Gateway, user: &str, arguments: &[&str]) -> Child {
        let who = ["listen", &gateway.url, "--user", user, "--key", SECRET];
        command(&[&who[..], arguments].concat()).spawn().unwrap()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
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
    let first = subscribed(site.listen(&gateway, "user_01", &["--data", "--count", "4"]));
    let second = subscribed(site.listen(&gateway, "user_02", &["--data", "--count", "1"]));
    site.publish("user_01", 0..3);
    site.publish("*", 9..10);
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
    let listener = subscribed(site.listen(&gateway, "user_01", &arguments));
    site.publish("user_01", 0..5);
    let ran = finish(listener);
    ran.exits(0);
    assert_eq!(orders(&ran), ["o0", "o1", "o2", "o3", "o4"]);
    site.publish("user_01", 5..10);
    let ran = finish(site.listen(&gateway, "user_01", &arguments));
    ran.exits(0);
    assert_eq!(orders(&ran), ["o5", "o6", "o7", "o8", "o9"]);
    ran.says("stream user: resumed from 5, replay up to 10");
}

#[test]
fn a_listener_with_reconnect_misses_nothing_when_the_gateway_is_killed() {
    let site = Site::new();
    let gateway = site.start();
    let listener = subscribed(site.listen(&gateway, "user_01", &["--reconnect", "--data", "--count", "60"]));
    site.publish("user_01", 0..20);
    signal(&gateway.process, Signal::SIGKILL);
    drop(gateway);
    site.publish("user_01", 20..40);
    let gateway = site.start();
    site.publish("user_01", 40..60);
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
    let listener = subscribed(site.listen(&gateway, "user_01", &arguments));
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
    let mut listener = site.listen(&gateway, "user_01", &[]);
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
