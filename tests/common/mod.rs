//! What the tests of the library share: buses that clean up after themselves, notes to publish, child processes.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod everything;

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bellwire::{
    Level, MarginCall, Notification, NotificationView, PayloadView, Priority, ProducerOptions, SystemNotice,
};

/// A bus of its own for one test; its segments go when it does.
pub struct Bus(String);

impl Bus {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        Self(format!("t-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    /// The bus of the process that spawned this one.
    pub fn inherited() -> Option<String> {
        std::env::var("BELLWIRE_TEST_BUS").ok()
    }

    /// Removes the files of all segments; whoever has them mapped keeps his mapping.
    pub fn remove_segments(&self) {
        for segment in bellwire::inspect::segments(&self.0).unwrap_or_default() {
            let _ = std::fs::remove_file(segment.path);
        }
    }
}

impl std::ops::Deref for Bus {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.remove_segments();
    }
}

/// A notice with a number in its title, so that a reader can tell which one it is.
pub fn note<'a>(user: &'a str, title: &'a str, content: &'a str) -> Notification<'a> {
    Notification::new(user, "Test", SystemNotice { title, content, level: Level::Info, timestamp: 7 })
        .with_priority(Priority::P1)
}

pub fn margin_call<'a>(user: &'a str, message: &'a str) -> Notification<'a> {
    Notification::new(
        user,
        "Risk",
        MarginCall {
            user_id: user,
            current_margin: 1.0,
            required_margin: 2.0,
            deadline: 3,
            message,
            timestamp: 4,
        },
    )
}

/// The title of a [`note`].
pub fn title(view: &NotificationView<'_>) -> String {
    match view.payload {
        PayloadView::SystemNotice(notice) => notice.title().to_owned(),
        _ => panic!("a notice"),
    }
}

/// Rings of the least size, for tests that fill them.
pub fn small() -> ProducerOptions {
    sized(4096)
}

pub fn sized(bytes: usize) -> ProducerOptions {
    Priority::ALL
        .into_iter()
        .fold(ProducerOptions::new(), |options, priority| options.capacity(priority, bytes))
}

/// Runs the test `name` of this test binary in a process of its own, on the same bus. There it sees
/// [`Bus::inherited`]; in the parent, where it does not, it does nothing.
pub fn spawn(name: &str, bus: &str) -> Child {
    spawn_with(name, bus, &[])
}

pub fn spawn_with(name: &str, bus: &str, env: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env("BELLWIRE_TEST_BUS", bus)
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Waits until `condition` holds; panics with `what` after 30 seconds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A test that cannot be had on this machine says so; where a proof is run (`BELLWIRE_PROOF`), it has to be had.
pub fn skip(why: &str) {
    assert!(std::env::var_os("BELLWIRE_PROOF").is_none(), "{why}");
    println!("skipped: {why}");
}
