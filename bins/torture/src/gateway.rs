//! The real gateway: its configuration, the tokens that it believes, and what it takes of the machine.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use bellwire_gateway::config::{Config, LogLevel};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;

use crate::Result;
use crate::world::World;

const GATEWAY: &str = "bellwire-gateway";

/// The bus and the machine are the run's own; so is the secret.
const KEY: &str = "torture-torture-torture-torture-torture";

/// In milliseconds. Short, so that ends of streams are announced soon and silent clients are noticed.
pub(crate) const HEARTBEAT_MS: u64 = 1_000;
const IDLE_MS: u64 = 5_000;
const DRAIN_MS: u64 = 8_000;

/// Small, so that slow clients are closed now and then.
const PENDING_MAX: usize = 2_000;

/// One segment of the journal, in bytes: the least there is, so that rolling is frequent.
const SEGMENT_BYTES: u64 = 1 << 20;

/// The gateway of a run.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    binary: PathBuf,
    file: PathBuf,
}

impl Gateway {
    /// Writes its configuration file. `retain_bytes` is what the journal keeps, `dedup_window` how many ids it remembers.
    pub(crate) fn configure(world: &World, retain_bytes: u64, dedup_window: usize) -> Result<Self> {
        let this = std::env::current_exe()?;
        let binary =
            std::env::var_os("BELLWIRE_GATEWAY").map_or_else(|| this.with_file_name(GATEWAY), PathBuf::from);
        if !binary.exists() {
            return Err(format!("no {}: cargo build --release -p {GATEWAY}", binary.display()).into());
        }
        let address = free_address()?;
        let mut config = Config::default();
        config.bus.name = world.bus.clone();
        config.bus.dedup_window = dedup_window;
        config.listen.address = address;
        config.listen.shards = 2;
        config.journal.dir = world.journal();
        config.journal.segment_bytes = SEGMENT_BYTES;
        config.journal.retain_bytes = retain_bytes;
        config.token.key = Some(KEY.to_owned());
        config.limits.sessions_per_address = 0;
        config.limits.sessions_per_user = 1_000;
        config.limits.pending_max = PENDING_MAX;
        config.session.heartbeat_ms = HEARTBEAT_MS;
        config.session.idle_ms = IDLE_MS;
        config.session.drain_ms = DRAIN_MS;
        config.log.level = LogLevel::Info;
        let file = world.dir.join("gateway.toml");
        std::fs::write(&file, toml::to_string(&config)?)?;
        Ok(Self { address, binary, file })
    }

    /// How it is started: by this program, so that it dies with the run.
    pub(crate) fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        // Settings in the environment are meant for other gateways.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"BELLWIRE_"))
        {
            command.env_remove(name);
        }
        command.args(["guard", "--parent", &std::process::id().to_string(), "--"]);
        command.arg(&self.binary).arg("--config").arg(&self.file);
        Ok(command)
    }
}

/// A loopback address whose port no outgoing connection takes while the gateway is down.
fn free_address() -> Result<SocketAddr> {
    let ports = 20_000..30_000;
    for _ in 0..100 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, fastrand::u16(ports.clone())));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(format!("no free port in {ports:?}").into())
}

/// A token for that user, good until long after the run.
pub(crate) fn token(user_id: &str) -> Result<String> {
    bellwire_jwt::install();
    let claims = json!({ "sub": user_id, "exp": u32::MAX });
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(KEY.as_bytes()))?)
}

/// The most that a process was seen to have.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Maxima {
    /// Memory that is its own: without the journal and the lanes, which are files.
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
}

impl Maxima {
    /// Looks at the process; one that is gone has nothing.
    pub(crate) fn look(&mut self, pid: u32) {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(proc.join("status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        self.anonymous_kib = self.anonymous_kib.max(field("RssAnon:"));
        self.threads = self.threads.max(field("Threads:"));
        self.descriptors = self.descriptors.max(descriptors(&proc));
    }
}

fn descriptors(proc: &Path) -> u64 {
    std::fs::read_dir(proc.join("fd")).map_or(0, |entries| entries.count() as u64)
}
