//! What the tests that drive the real binary share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod site;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bellwire::{
    Level, MarginCall, Notification, OrderCanceled, Payload, Priority, Producer, ProducerOptions, Reader,
    SystemNotice,
};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Longest wait for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A bus of this test alone; its segments go when it is dropped.
pub(crate) struct Bus(pub(crate) String);

impl Bus {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(format!("t-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn path(&self, kind: &str, name: &str) -> PathBuf {
        Path::new("/dev/shm").join(format!("bellwire.{}.{kind}.{name}", self.0))
    }

    /// A run of bellwirectl on this bus.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Ran {
        self.ctl_with(arguments, "")
    }

    /// The same with something on standard input.
    pub(crate) fn ctl_with(&self, arguments: &[&str], input: &str) -> Ran {
        let mut child = self.start(arguments);
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Starts it and leaves it running.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        let mut arguments = arguments.to_vec();
        arguments.extend(["--bus", &self.0]);
        command(&arguments).spawn().unwrap()
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let prefix = format!("bellwire.{}.", self.0);
        for entry in fs::read_dir("/dev/shm").unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A lane that is soon full.
pub(crate) fn small() -> ProducerOptions {
    Priority::ALL
        .into_iter()
        .fold(ProducerOptions::new(), |options, priority| options.capacity(priority, 4096))
}

/// The consumer attaches, and the producer waits for it from then on.
pub(crate) fn meet(producer: &mut Producer, reader: &mut Reader) {
    reader.refresh();
    producer.look();
}

/// bellwirectl with nothing of our own environment, and pipes for everything.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwirectl"));
    command.args(arguments).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A run without any bus.
pub(crate) fn ctl(arguments: &[&str]) -> Ran {
    Ran::of(command(arguments).stdin(Stdio::null()).output().unwrap())
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Checks the exit code and gives the output.
    #[track_caller]
    pub(crate) fn exits(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:#?}");
        &self.out
    }

    #[track_caller]
    pub(crate) fn says(&self, words: &str) -> &Self {
        assert!(self.err.contains(words), "expected {words:?} in {self:#?}");
        self
    }

    /// Every line of the output as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// Waits for a child, and kills it if it takes too long.
#[track_caller]
pub(crate) fn finish(mut child: Child) -> Ran {
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("still running: {:#?}", Ran::of(child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ran::of(child.wait_with_output().unwrap())
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(child: &Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
}

/// P3.
pub(crate) fn notice(title: &str) -> Notification<'_> {
    Notification::to_all("Ops", SystemNotice { title, content: "", level: Level::Info, timestamp: 7 })
}

/// P0.
pub(crate) fn margin_call<'a>(user_id: &'a str, message: &'a str) -> Notification<'a> {
    let payload: Payload<'a> = MarginCall {
        user_id,
        current_margin: 4_200.0,
        required_margin: 5_000.0,
        deadline: 9,
        message,
        timestamp: 7,
    }
    .into();
    Notification::new(user_id, "RiskControl", payload)
}

/// P1.
pub(crate) fn canceled<'a>(user_id: &'a str, order_id: &'a str) -> Notification<'a> {
    let payload = OrderCanceled {
        order_id,
        exchange_order_id: "x",
        instrument_id: "IX2401",
        reason: "user",
        timestamp: 7,
    };
    Notification::new(user_id, "MatchingEngine", payload)
}
