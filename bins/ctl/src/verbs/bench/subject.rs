//! The gateway under test: one that runs, or one that is started for the run and cleaned away behind it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bellwire::SegmentKind;
use bellwire::inspect::{self, CursorsStatus};

use crate::exit::Exit;
use crate::failure::{Failure, words};

/// A gateway that was told to end has so long to do it.
const END_WITHIN: Duration = Duration::from_secs(15);

/// What a run needs to know of its gateway.
pub(super) struct Subject {
    pub(super) url: String,
    pub(super) bus: String,
    /// Whose CPU and memory is measured; `None` if it is not on this machine or nobody knows.
    pub(super) pid: Option<u32>,
    own: Option<Own>,
}

/// A gateway of our own, with its bus and its journal.
struct Own {
    child: Child,
    bus: String,
    scratch: PathBuf,
    key: String,
}

/// What a gateway has used so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    pub(super) cpu_ns: u64,
    /// Memory of its own, without the mapped journal and rings.
    pub(super) resident: u64,
}

impl Subject {
    /// A gateway that runs already.
    pub(super) fn running(url: &str, bus: &str, group: Option<&str>, pid: Option<u32>) -> Self {
        let pid = pid.or_else(|| gateway_on(bus, group));
        Self { url: url.to_owned(), bus: bus.to_owned(), pid, own: None }
    }

    /// Starts one, on a bus and with a journal of its own.
    pub(super) fn start(sessions: u32) -> Result<Self, Failure> {
        let program = program()?;
        let bus = format!("bench-{}", std::process::id());
        let scratch = std::env::temp_dir().join(format!("bellwire-{bus}"));
        std::fs::create_dir(&scratch).map_err(|error| Failure::file(&scratch, &error))?;
        let key: String = std::iter::repeat_with(fastrand::alphanumeric).take(48).collect();
        let journal = scratch.join("journal");
        let mut command = Command::new(&program);
        let settings = [
            ("BUS_NAME", bus.as_str()),
            ("LISTEN_ADDRESS", "127.0.0.1:0"),
            ("TOKEN_KEY", &key),
            ("LIMITS_SESSIONS_PER_ADDRESS", "0"),
            ("LIMITS_SESSIONS_TOTAL", &(sessions + 100).to_string()),
            ("LOG_LEVEL", "warn"),
        ];
        command.env("BELLWIRE_JOURNAL_DIR", &journal).stdin(Stdio::null()).stdout(Stdio::piped());
        for (name, value) in settings {
            // Unless whoever runs the bench wants something else of these.
            let name = format!("BELLWIRE_{name}");
            if std::env::var_os(&name).is_none() || name.ends_with("BUS_NAME") || name.ends_with("TOKEN_KEY")
            {
                command.env(name, value);
            }
        }
        let child = command.spawn().map_err(|error| Failure::file(&program, &error))?;
        let mut own = Own { child, bus: bus.clone(), scratch, key };
        let url = own.address()?;
        Ok(Self { url, bus, pid: Some(own.child.id()), own: Some(own) })
    }

    /// The key of a gateway that was started here.
    pub(super) fn key(&self) -> Option<&str> {
        self.own.as_ref().map(|own| own.key.as_str())
    }

    pub(super) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        let pid = self.pid?;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        // Nanoseconds, where `stat` has hundredths of a second.
        let cpu_ns = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        let cpu_ns = cpu_ns.sum();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        let resident = resident.split_whitespace().next()?.parse::<u64>().ok()? * 1024;
        Some(Usage { cpu_ns, resident })
    }
}

impl Own {
    /// Waits until it says where it listens.
    fn address(&mut self) -> Result<String, Failure> {
        let stdout = self.child.stdout.take();
        for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok))
        {
            if let Some(url) = line.strip_prefix("listening ") {
                return Ok(url.to_owned());
            }
        }
        Err(Failure::new(Exit::Wrong, "the gateway ended before it listened; it has said why"))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let end = Instant::now() + END_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= end {
                words("the gateway does not end; it is killed");
                let _ = self.child.kill();
                let _ = self.child.wait();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = inspect::remove_unheld(&self.bus);
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// The gateway's program: as the environment says, beside this one, or on the path.
fn program() -> Result<PathBuf, Failure> {
    const NAME: &str = "bellwire-gateway";
    if let Some(path) = std::env::var_os("BELLWIRE_GATEWAY") {
        return Ok(path.into());
    }
    let beside = std::env::current_exe().ok().and_then(|us| Some(us.parent()?.join(NAME)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join(NAME));
    beside.into_iter().chain(on_path).find(|path| Path::is_file(path)).ok_or_else(|| {
        Failure::new(Exit::Nothing, "no bellwire-gateway beside this program or on the path")
            .next("name a running gateway: bellwirectl bench ws://HOST:PORT/ --key-file FILE --bus BUS")
    })
}

/// The process of the one consumer that lives on the bus.
fn gateway_on(bus: &str, group: Option<&str>) -> Option<u32> {
    let segments = inspect::segments(bus).ok()?;
    let mut live = segments
        .into_iter()
        .filter(|segment| segment.kind == SegmentKind::Cursors && segment.held == Some(true))
        .filter_map(|segment| CursorsStatus::read(bus, &segment.name, group).ok());
    let first = live.next()?;
    live.next().is_none().then_some(first.pid)
}
