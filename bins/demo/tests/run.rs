//! The demo as somebody who has just cloned sees it: whole runs, with real processes, mappings and sockets.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bellwire::{Level, Notification, Producer, SystemNotice};

/// The demo starts the gateway that lies beside it; `cargo test` of the demo alone does not build it. Whoever sets
/// BELLWIRE_GATEWAY has.
fn build_gateway() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("BELLWIRE_GATEWAY").is_some() {
            return;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--package", "bellwire-gateway"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the gateway does not build");
    });
}

/// A temporary directory for the runs of one test, so that it sees what they leave behind.
struct Temp(PathBuf);

impl Temp {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bellwire-demo-test-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn is_empty(&self) -> bool {
        std::fs::read_dir(&self.0).unwrap().next().is_none()
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Run {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
}

impl Run {
    fn start(temp: &Path, more: &[&str]) -> Self {
        build_gateway();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bellwire-demo"))
            .args(["--users", "20", "--rate", "150"])
            .args(more)
            .env("TMPDIR", temp)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, said: String::new() }
    }

    fn bus(&self) -> String {
        format!("demo-{}", self.child.id())
    }

    /// Reads on until a line that holds `words`.
    fn until(&mut self, words: &str) {
        while !self.said.lines().last().is_some_and(|line| line.contains(words)) {
            let read = self.stdout.read_line(&mut self.said).unwrap();
            assert!(read > 0, "it ended before {words:?}:\n{}", self.said);
        }
    }

    /// Waits for the end: its exit code, and what it said.
    fn end(mut self) -> (Option<i32>, String) {
        self.stdout.read_to_string(&mut self.said).unwrap();
        (self.child.wait().unwrap().code(), self.said)
    }

    /// The processes that it started: their command lines name the bus, or its directory.
    fn children(&self) -> Vec<i32> {
        let me = self.child.id().to_string();
        let names = [format!("demo-{me}\0"), format!("demo-{me}/")];
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            names.iter().any(|name| line.contains(name))
        })
        .collect()
    }
}

fn segments(bus: &str) -> usize {
    bellwire::inspect::segments(bus).unwrap().len()
}

fn is_held(bus: &str) -> bool {
    bellwire::inspect::segments(bus).unwrap().iter().any(|segment| segment.held != Some(false))
}

#[track_caller]
fn assert_clean((code, said): (Option<i32>, String)) {
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Every notification arrived exactly once and in order."), "{said}");
}

#[test]
fn a_run_delivers_everything_and_leaves_nothing_behind() {
    let temp = Temp::new("whole");
    let run = Run::start(&temp.0, &["--seconds", "3"]);
    let bus = run.bus();
    assert_clean(run.end());
    assert_eq!(segments(&bus), 0);
    assert!(temp.is_empty());
}

#[test]
fn two_runs_at_once_do_not_disturb_each_other() {
    let temp = Temp::new("two");
    let runs = [1, 2].map(|seed| Run::start(&temp.0, &["--seconds", "3", "--seed", &seed.to_string()]));
    for run in runs {
        assert_clean(run.end());
    }
    assert!(temp.is_empty());
}

#[test]
fn what_a_killed_run_leaves_the_next_one_removes() {
    let temp = Temp::new("killed");
    let mut run = Run::start(&temp.0, &[]);
    run.until(" 1 s  published");
    let bus = run.bus();
    assert_eq!(run.children().len(), 4, "gateway and three producers");
    run.child.kill().unwrap();
    run.child.wait().unwrap();
    let since = Instant::now();
    // A process that dies has no command line any more when it lets go of its segments, a moment later.
    while !run.children().is_empty() || is_held(&bus) {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "they live on without their parent: {:?}",
            run.children()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(segments(&bus) > 0 && !temp.is_empty(), "a killed process cannot clean up");
    assert_clean(Run::start(&temp.0, &["--seconds", "1"]).end());
    assert_eq!(segments(&bus), 0);
    assert!(temp.is_empty());
}

#[test]
fn a_gateway_that_is_killed_under_load_costs_nothing() {
    let temp = Temp::new("crash");
    let mut run = Run::start(&temp.0, &["--seconds", "5"]);
    for second in [" 1 s  published", " 3 s  published"] {
        run.until(second);
        let gateway = run.children().into_iter().find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap_or_default()
                .starts_with("bellwire-gatewa")
        });
        let killed = Command::new("kill").args(["-9", &gateway.unwrap().to_string()]).status().unwrap();
        assert!(killed.success());
    }
    let (code, said) = run.end();
    assert!(said.contains("gateway killed and started again: 2"), "{said}");
    assert_clean((code, said));
}

#[test]
fn ctrl_c_ends_a_run_in_order() {
    let temp = Temp::new("interrupt");
    let mut run = Run::start(&temp.0, &[]);
    run.until(" 1 s  published");
    assert!(Command::new("kill").args(["-INT", &run.child.id().to_string()]).status().unwrap().success());
    assert_clean(run.end());
    assert!(temp.is_empty());
}

/// The oracle must be able to fail.
#[test]
fn a_notification_that_no_audit_knows_fails_the_run() {
    let temp = Temp::new("intruder");
    let mut run = Run::start(&temp.0, &["--seconds", "3"]);
    run.until(" 1 s  published");
    let mut intruder = Producer::open(&run.bus(), "intruder").unwrap();
    let notice = SystemNotice { title: "Boo", content: "", level: Level::Info, timestamp: 0 };
    intruder.publish(&Notification::new("user_003", "Intruder", notice)).unwrap();
    let (code, said) = run.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.lines().any(|line| line.split_whitespace().eq(["unknown", "1"])), "{said}");
    assert!(said.contains("FAILED"), "{said}");
}

#[test]
fn words_that_nobody_understands_are_refused() {
    for words in [&["--users", "0"][..], &["--seconds", "0"], &["--rate", "x"], &["--nonsense"]] {
        let status = Command::new(env!("CARGO_BIN_EXE_bellwire-demo"))
            .args(words)
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.code(), Some(2), "{words:?}");
    }
}
