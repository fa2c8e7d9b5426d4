//! A server under test: a process of its own, with what it has used.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{ARGUMENT, gateway};

pub struct Server {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the peers are fed; without meaning for the gateway.
    pub feed: SocketAddr,
    pub sessions: usize,
    /// The gateway's key and bus.
    pub key: Option<String>,
    pub bus: Option<String>,
    scratch: Option<PathBuf>,
}

/// What a server has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    /// Memory of its own, in bytes.
    pub resident: u64,
}

impl Server {
    pub fn start(name: &str, sessions: usize, gateway: Option<&str>) -> Result<Self, String> {
        if name == "bellwire" {
            let own = gateway::start(sessions, gateway)?;
            let mut child = own.child;
            let line = first_line(&mut child, "listening ws://")?;
            let address = line.parse().map_err(|_| format!("no address: {line}"))?;
            let (key, bus) = (Some(own.key), Some(own.bus));
            return Ok(Self {
                child,
                address,
                feed: address,
                sessions,
                key,
                bus,
                scratch: Some(own.scratch),
            });
        }
        let kind = if name == "bare epoll" { "bare" } else { "fast" };
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args([ARGUMENT, kind]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let line = first_line(&mut child, "listening ")?;
        let mut addresses = line.split(' ').map(str::parse);
        let (Some(Ok(address)), Some(Ok(feed))) = (addresses.next(), addresses.next()) else {
            return Err(format!("no addresses: {line}"));
        };
        Ok(Self { child, address, feed, sessions, key: None, bus: None, scratch: None })
    }

    pub fn usage(&self) -> Usage {
        let pid = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let cpu_ns = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = resident.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Usage { cpu_ns: cpu_ns.sum(), resident: kib.unwrap_or_default() * 1024 }
    }

    /// Ends it, and cleans up behind it; also done when it is dropped.
    pub fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(bus) = &self.bus {
            let _ = bellwire::inspect::remove_unheld(bus);
        }
        if let Some(scratch) = self.scratch.take() {
            let _ = std::fs::remove_dir_all(scratch);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// What stands behind those words in the first line that has them.
fn first_line(child: &mut Child, words: &str) -> Result<String, String> {
    let lines = child
        .stdout
        .take()
        .into_iter()
        .flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok));
    let found = lines.filter_map(|line| line.strip_prefix(words).map(str::to_owned)).next();
    found.ok_or_else(|| {
        let _ = child.kill();
        "the server ended before it listened".to_owned()
    })
}
