//! The other processes of a run: the gateway and the producers.
//!
//! All of them die with this one, even if it is killed: producers ask the kernel for that themselves, the gateway is
//! started through [`guard`], which asks and then becomes the gateway. They have process groups of their own, so that
//! Ctrl-C reaches this process alone and the end is an orderly one.

use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::instance::Instance;
use super::tally::Shared;
use super::token::Key;
use crate::audit::{ENTRY_LEN, Entry};
use crate::exchange::User;
use crate::producers::{self, ProducerError};

const GATEWAY: &str = "bellwire-gateway";

/// A gateway needs less than a second.
const START_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ProcessError {
    #[error("no {GATEWAY} beside {}: build it with `cargo build --release -p {GATEWAY}`, or use scripts/demo", .0.display())]
    NoGateway(PathBuf),
    #[error("cannot start {what}: {error}")]
    Start { what: String, error: io::Error },
    #[error("{what} is not up after {} s{log}", START_WITHIN.as_secs())]
    Slow { what: String, log: String },
    #[error("{what} ended: {status}{log}")]
    Ended { what: String, status: ExitStatus, log: String },
    #[error("{what}: {error}")]
    Wait { what: String, error: io::Error },
    #[error("{what} does not end; it was killed")]
    Hangs { what: String },
}

impl ProcessError {
    /// In half a line.
    pub(crate) fn in_short(&self) -> String {
        match self {
            Self::Ended { status, .. } => status.to_string(),
            other => other.to_string(),
        }
    }
}

/// The gateway's settings that matter here; the others are its defaults.
#[derive(Serialize)]
struct GatewayConfig<'a> {
    bus: BusSection<'a>,
    listen: ListenSection,
    journal: JournalSection<'a>,
    token: TokenSection<'a>,
    limits: LimitsSection,
    log: LogSection,
}

#[derive(Serialize)]
struct BusSection<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct ListenSection {
    address: SocketAddr,
}

#[derive(Serialize)]
struct JournalSection<'a> {
    dir: &'a Path,
    segment_bytes: u64,
    retain_bytes: u64,
}

#[derive(Serialize)]
struct TokenSection<'a> {
    algorithm: &'static str,
    key: &'a str,
}

#[derive(Serialize)]
struct LimitsSection {
    sessions_per_address: u32,
}

#[derive(Serialize)]
struct LogSection {
    level: &'static str,
}

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts the gateway that was built beside this program on that port of the loopback interface; 0 is a free one.
    pub(crate) async fn start(instance: &Instance, key: &Key, port: u16) -> Result<Self, ProcessError> {
        let fail = |error| ProcessError::Start { what: GATEWAY.to_owned(), error };
        let demo = std::env::current_exe().map_err(fail)?;
        let path = demo.with_file_name(GATEWAY);
        if !path.exists() {
            return Err(ProcessError::NoGateway(demo));
        }
        let config = GatewayConfig {
            bus: BusSection { name: instance.bus() },
            listen: ListenSection { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) },
            journal: JournalSection {
                dir: &instance.dir().join("journal"),
                segment_bytes: 16 << 20,
                retain_bytes: 256 << 20,
            },
            token: TokenSection { algorithm: "HS256", key: key.as_str() },
            limits: LimitsSection { sessions_per_address: 0 },
            log: LogSection { level: "info" },
        };
        let config = toml::to_string(&config).map_err(|error| fail(io::Error::other(error)))?;
        let (file, log) = (instance.dir().join("gateway.toml"), instance.dir().join("gateway.log"));
        // The directory is this user's alone; the file holds the key.
        std::fs::write(&file, config).map_err(fail)?;
        let stderr = OpenOptions::new().create(true).append(true).open(&log).map_err(fail)?;
        let mut command = Command::new(&demo);
        // Settings in the environment are meant for other gateways.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"BELLWIRE_"))
        {
            command.env_remove(name);
        }
        let mut child = command
            .args(["guard", "--parent", &std::process::id().to_string(), "--"])
            .arg(&path)
            .arg("--config")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        let stdout = child.stdout.take().ok_or_else(|| fail(io::Error::other("no standard output")))?;
        let mut gateway = Self { address: SocketAddr::from(([0; 4], 0)), child, log };
        match tokio::time::timeout(START_WITHIN, listening(stdout)).await {
            Ok(Some(address)) => {
                gateway.address = address;
                Ok(gateway)
            }
            Ok(None) => Err(gateway.ended().await),
            Err(_) => Err(ProcessError::Slow { what: GATEWAY.to_owned(), log: tail(&gateway.log) }),
        }
    }

    /// Its process id; `None` once it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Kills it on the spot, as a crash would.
    pub(crate) fn kill(&self) {
        signal(&self.child, Signal::SIGKILL);
    }

    /// Waits until it ends, which it should not.
    pub(crate) async fn ended(&mut self) -> ProcessError {
        let what = GATEWAY.to_owned();
        match self.child.wait().await {
            Ok(status) => ProcessError::Ended { what, status, log: tail(&self.log) },
            Err(error) => ProcessError::Wait { what, error },
        }
    }

    /// Asks it to end, and waits until it has. Anything but a clean end is an error.
    pub(crate) async fn stop(mut self, within: Duration) -> Result<(), ProcessError> {
        signal(&self.child, Signal::SIGTERM);
        let what = GATEWAY.to_owned();
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(ProcessError::Ended { what, status, log: tail(&self.log) }),
            Ok(Err(error)) => Err(ProcessError::Wait { what, error }),
            Err(_) => Err(ProcessError::Hangs { what }),
        }
    }
}

/// Reads the gateway's standard output up to the line that tells its address, and the rest in the background.
async fn listening(stdout: ChildStdout) -> Option<SocketAddr> {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let address = line.strip_prefix("listening ws://").map(|rest| rest.trim_end_matches('/').parse());
        if let Some(Ok(address)) = address {
            // A pipe that nobody reads would stop the writer one day.
            tokio::task::spawn_local(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some(address);
        }
    }
    None
}

fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // It may have ended already.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The last lines of a log, for an error message.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(12);
    if lines.is_empty() { String::new() } else { format!("; it said:\n  {}", lines[from..].join("\n  ")) }
}

/// A producer process.
pub(crate) struct ProducerProcess {
    name: &'static str,
    child: Child,
    /// Its lifeline.
    stdin: Option<ChildStdin>,
}

impl ProducerProcess {
    /// Starts this program again as a producer. `more` are arguments of that producer alone.
    pub(crate) fn start(
        name: &'static str,
        instance: &Instance,
        users: User,
        consumers: usize,
        more: &[(&str, u64)],
    ) -> Result<(Self, ChildStdout), ProcessError> {
        let fail = |error| ProcessError::Start { what: name.to_owned(), error };
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.arg(name).args(["--bus", instance.bus()]);
        let parent = u64::from(std::process::id());
        for (key, value) in [("users", u64::from(users)), ("consumers", consumers as u64), ("parent", parent)]
            .iter()
            .chain(more)
        {
            command.arg(format!("--{key}")).arg(value.to_string());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(fail)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| fail(io::Error::other("no standard output")))?;
        Ok((Self { name, child, stdin }, stdout))
    }

    /// Waits until it ends, which it should not unless it was told to.
    pub(crate) async fn ended(&mut self) -> ProcessError {
        let what = self.name.to_owned();
        match self.child.wait().await {
            Ok(status) => ProcessError::Ended { what, status, log: String::new() },
            Err(error) => ProcessError::Wait { what, error },
        }
    }

    /// Cuts its lifeline, and waits until it has finished what it had.
    pub(crate) async fn finish(&mut self, within: Duration) -> Result<(), ProcessError> {
        self.stdin = None;
        let what = self.name.to_owned();
        match tokio::time::timeout(within, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(ProcessError::Ended { what, status, log: String::new() }),
            Ok(Err(error)) => Err(ProcessError::Wait { what, error }),
            Err(_) => Err(ProcessError::Hangs { what }),
        }
    }
}

/// Reads a producer's audit into the oracle until it ends. `Err` says what is wrong with it.
pub(crate) async fn read_audit(
    name: &'static str,
    stdout: ChildStdout,
    shared: Shared,
) -> Result<(), String> {
    let mut stdout = BufReader::with_capacity(64 << 10, stdout);
    let (mut entry, mut count) = ([0; ENTRY_LEN], 0);
    loop {
        if let Err(error) = stdout.read_exact(&mut entry).await {
            return Err(format!("audit of {name}: ends without an end: {error}"));
        }
        let entry = Entry::from_bytes(&entry).map_err(|error| format!("audit of {name}: {error}"))?;
        let mut tally = shared.borrow_mut();
        match entry {
            Entry::Ready => {}
            Entry::Published { user, priority, message_id, .. } => {
                count += 1;
                tally.oracle.published(user, priority, message_id).map_err(|error| error.to_string())?;
            }
            Entry::Refused(refused) => tally.refused += refused,
            Entry::End(published) if published == count => {
                tally.claimed += published;
                return Ok(());
            }
            Entry::End(published) => {
                return Err(format!("audit of {name}: {count} entries, but {published} notifications"));
            }
        }
    }
}

/// Becomes another program that dies with its parent.
pub(crate) fn guard(parent: u32, program: &[std::ffi::OsString]) -> Result<(), ProducerError> {
    producers::die_with(parent)?;
    let Some((program, arguments)) = program.split_first() else { return Ok(()) };
    let error = std::process::Command::new(program).args(arguments).exec();
    Err(ProducerError::Exec { program: program.to_string_lossy().into_owned(), error })
}
