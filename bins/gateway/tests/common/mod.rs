//! A real gateway process, real producers in shared memory, real WebSocket clients.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

mod client;

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bellwire::inspect::{CursorsStatus, LaneStatus};
use bellwire::{Notification, Producer, ProducerOptions, SystemNotice, TradeCanceled};
use serde_json::{Value, json};

#[allow(unused_imports, reason = "the bench brings its own clients")]
pub use client::{Client, Ended};

pub const KEY: &str = "a key for tests, thirty-two bytes";

/// Long enough for a busy machine; nothing is proved by it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A bus of its own, its lanes and its gateway. Dropping it removes everything.
pub struct Bench {
    pub bus: String,
    pub dir: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Bench {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let bus = format!("t-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Self { bus, dir, environment: Vec::new() };
        bench.set("BUS_NAME", &bench.bus.clone());
        bench.set("LISTEN_ADDRESS", "127.0.0.1:0");
        bench.set("JOURNAL_DIR", bench.dir.path().join("journal").to_str().unwrap());
        bench.set("JOURNAL_SEGMENT_BYTES", &(1 << 20).to_string());
        bench.set("JOURNAL_RETAIN_BYTES", &(64 << 20).to_string());
        bench.set("TOKEN_KEY", KEY);
        bench.set("LIMITS_SESSIONS_PER_ADDRESS", "0");
        bench.set("LOG_LEVEL", "debug");
        bench
    }

    /// A key of the configuration, as its environment variable without the prefix.
    pub fn set(&mut self, key: &str, value: &str) {
        let name = format!("BELLWIRE_{key}");
        self.environment.retain(|(other, _)| *other != name);
        self.environment.push((name, value.to_owned()));
    }

    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.set(key, value);
        self
    }

    /// Waits until the gateway has read everything that lane has and has said so: what a client got may not be committed yet.
    pub async fn until_read(&self, lane: &str) {
        let end = Instant::now() + PATIENCE;
        let positions = LaneStatus::read(&self.bus, lane, None).unwrap().rings.map(|ring| ring.position);
        loop {
            let cursors = CursorsStatus::read(&self.bus, "gateway", None).unwrap();
            let read = cursors.lanes.iter().find(|read| read.lane_name == lane).map(|read| read.positions);
            if read == Some(positions) {
                return;
            }
            assert!(Instant::now() < end, "{read:?} of {positions:?} of {lane} are read");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn gateway(&self) -> Gateway {
        Gateway::start(self.command())
    }

    /// A gateway whose words for people go into a file, which is given too.
    pub fn gateway_with_log(&self, prepare: impl FnOnce(&mut Command)) -> (Gateway, PathBuf) {
        let log = self.dir.path().join("log");
        let mut command = self.command();
        command.stderr(OpenOptions::new().create(true).append(true).open(&log).unwrap());
        prepare(&mut command);
        (Gateway::start(command), log)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellwire-gateway"));
        command.env_clear().envs(self.environment.iter().cloned());
        command
    }

    /// The test `child` of this test binary as a process of its own, in this environment, to play that role.
    pub fn child(&self, role: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env_clear();
        command.envs(self.environment.iter().cloned()).env("TEST_ROLE", role);
        command
    }

    pub fn producer(&self, name: &str) -> Producer {
        ProducerOptions::new()
            .capacity(bellwire::Priority::P0, 1 << 20)
            .capacity(bellwire::Priority::P1, 4 << 20)
            .capacity(bellwire::Priority::P2, 4 << 20)
            .capacity(bellwire::Priority::P3, 4 << 20)
            .open(&self.bus, name)
            .unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let prefix = format!("bellwire.{}.", self.bus);
        for file in std::fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = std::fs::remove_file(file.path());
            }
        }
    }
}

pub struct Gateway {
    child: Child,
    pub url: String,
    /// Where the admin listener is: an address and a port.
    pub admin: Option<String>,
}

impl Gateway {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut admin = None;
        let url = loop {
            let line = lines.next().expect("the gateway ended before it listened").unwrap();
            if let Some(address) = line.strip_prefix("admin http://") {
                admin = Some(address.to_owned());
            }
            if let Some(url) = line.strip_prefix("listening ") {
                break url.to_owned();
            }
        };
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url, admin }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: nothing of it gets to say anything.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the gateway does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A token of that user, good for an hour.
pub fn token(user_id: &str) -> String {
    token_with(json!({"sub": user_id, "exp": in_seconds(3600)}))
}

pub fn in_seconds(seconds: i64) -> i64 {
    jsonwebtoken::get_current_timestamp() as i64 + seconds
}

pub fn token_with(claims: Value) -> String {
    // Makes the signatures known to jsonwebtoken.
    let config = bellwire_gateway::config::Token { key: Some(KEY.to_owned()), ..Default::default() };
    bellwire_gateway::auth::Verifier::new(&config).unwrap();
    let key = jsonwebtoken::EncodingKey::from_secret(KEY.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

/// A trade notification (P1) whose `trade_id` is the text that the test looks for.
pub fn trade<'a>(user_id: &'a str, text: &'a str) -> Notification<'a> {
    Notification::new(
        user_id,
        "MatchingEngine",
        TradeCanceled {
            trade_id: text,
            order_id: "o",
            exchange_order_id: "e",
            instrument_id: "IX2401",
            price: 1.5,
            volume: 2.0,
            reason: "test",
            timestamp: 7,
        },
    )
}

/// A notice for everybody (P3).
pub fn notice(text: &str) -> Notification<'_> {
    let notice = SystemNotice { title: text, content: "", level: bellwire::Level::Info, timestamp: 7 };
    Notification::to_all("Exchange", notice)
}

/// The text that [`trade`] or [`notice`] was given.
pub fn text_of(data: &Value) -> String {
    let payload = &data["payload"];
    payload["trade_id"].as_str().or(payload["title"].as_str()).unwrap_or_else(|| panic!("{data}")).to_owned()
}

/// `0..count` as texts.
pub fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
