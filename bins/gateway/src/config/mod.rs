//! The configuration: one TOML file, then the environment on top of it.
//!
//! Every key has a default but the token's key. A key that nobody knows is an error that names line and column, so that
//! a typing error is never a silent default. `BELLWIRE_<SECTION>_<KEY>` overrides a key (see [`environment`]).
//! [`Config::problems`] lists everything that is wrong, not only the first thing.

mod dev;
mod environment;
mod files;
mod live;
mod origin;
mod problems;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use dev::{Development, DevelopmentError};
pub use files::read_bounded;
pub use origin::{Origin, Setting};

/// Shortest HS256 secret, in bytes: as long as the hash, as RFC 7518 demands.
pub(crate) const HS256_KEY_LEN_MIN: usize = 32;

/// What the gateway is told. Section by section as in the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub bus: Bus,
    pub listen: Listen,
    pub journal: Journal,
    pub token: Token,
    pub limits: Limits,
    pub session: Session,
    pub log: Log,
    pub admin: Admin,
    pub control: Control,
    pub presence: Presence,
}

/// `[bus]`: what is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bus {
    /// Name of the bus.
    pub name: String,
    /// Name of this gateway as a consumer of the bus: two gateways on one bus need two names.
    pub consumer: String,
    /// The group that owns the producers' lanes. Without one the bus is private to this user.
    pub group: Option<String>,
    /// How many message ids are remembered to recognise duplicates.
    pub dedup_window: usize,
    /// How long the reader spins at most before it sleeps, in microseconds; where that does not pay, it seldom does.
    pub spin_us: u64,
    /// Never sleep: lower latency for one whole core.
    pub busy_poll: bool,
    /// The core that the reader is bound to; -1 is any.
    pub core: i64,
}

/// `[listen]`: who is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// Address and port; port 0 takes a free one and prints it.
    pub address: SocketAddr,
    /// Name of this gateway in its `hello` frames.
    pub name: String,
    /// Threads that serve sessions; 0 is one less than there are cores, at least one.
    pub shards: usize,
    /// The certificate chain, PEM, the gateway's own first; with it and `tls_key` the gateway speaks `wss://`. Both files are
    /// read again when they change.
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// The web pages that may connect, as browsers name them (`https://trade.example.com`). Empty: every page may, and needs
    /// a token like everybody else. Clients that are no browsers name none and are not asked.
    pub origins: Vec<String>,
    /// Networks of proxies that are believed when they say who the client is.
    pub trusted_proxies: Vec<IpNet>,
    /// The header by which they say it. They must overwrite or append to this one; the other is ignored.
    pub forwarded_header: ForwardedHeader,
}

/// Where a proxy says who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedHeader {
    #[serde(rename = "x-forwarded-for")]
    XForwardedFor,
    /// RFC 7239.
    #[serde(rename = "forwarded")]
    Forwarded,
}

/// `[journal]`: what is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    pub dir: PathBuf,
    /// Length of one segment file, in bytes.
    pub segment_bytes: u64,
    /// How much is kept, in bytes.
    pub retain_bytes: u64,
    /// How long it is kept, in seconds; 0 is for as long as the bytes allow. Setting the wall clock while the gateway runs
    /// changes nothing; at a start, a journal's age is what the wall clock makes of it.
    pub retain_age_s: u64,
    /// What a loss of power may take along. The death of a process takes nothing in any case.
    pub sync: Sync,
    /// With `sync = "interval"`: how often, in milliseconds.
    pub sync_interval_ms: u64,
    /// Whether a chain of hashes is kept beside it, 32 bytes for each record, by which `bellwirectl journal verify` finds what
    /// was altered, removed or exchanged.
    pub chain: bool,
    /// A file with the chain's secret, at least 32 bytes; a line end at its end does not count. Without one, who may write
    /// the journal can make the chain anew, and only what was noted elsewhere shows it (the log has a link a segment).
    pub chain_key_file: Option<PathBuf>,
}

/// When the journal is written through to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sync {
    /// When the kernel likes.
    None,
    /// Every `sync_interval_ms`.
    Interval,
    /// Before any notification goes out.
    Every,
}

/// `[admin]`: what operators and their tools look at. Nobody is asked for a token there, and nothing can be changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Whether there is such a listener.
    pub enabled: bool,
    /// Where it listens; a port of 0 is a free one, which is printed at start.
    pub address: SocketAddr,
    /// Whether the address may be one that other machines reach.
    pub beyond_loopback: bool,
}

/// `[control]`: where operators change something.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// The Unix socket for `bellwirectl`'s `status`, `sessions`, `kick`, `revoke`, `log-level`, `reload` and `drain`. Without
    /// one there is none; signals and the revocation file remain.
    pub socket: Option<PathBuf>,
    /// The group whose members may use it. Root and the gateway's own user always may.
    pub group: Option<String>,
}

/// `[presence]`: who is connected, told to the engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Presence {
    /// The bus on which session events are published, on a lane named like `bus.consumer`. It must be another one than
    /// `bus.name`. Without it there are none.
    pub bus: Option<String>,
    /// How often everybody who is connected is told of, in seconds.
    pub reset_s: u64,
}

/// `[token]`: whom the gateway believes.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Token {
    /// The one algorithm that `key` or `key_file` is for, whatever a token says of itself.
    pub algorithm: Algorithm,
    /// HS256: the secret, as text. The others: the public key, PEM.
    pub key: Option<String>,
    /// The same in a file; a line end at its end does not count. Read again when it changes.
    pub key_file: Option<PathBuf>,
    /// A JWKS: any number of keys, of which a token's `kid` names one. Read again when it changes. A key that was taken out
    /// lets nobody in any more; sessions that it let in stay until their token ends or is revoked.
    pub jwks_file: Option<PathBuf>,
    /// Tokens that are no longer believed, one JSON object a line (see "Tokens that are taken back" in PROTOCOL.md). Read
    /// again when it changes; it must be there, and may be empty.
    pub revocation_file: Option<PathBuf>,
    /// If set, the `aud` that a token must have.
    pub audience: Option<String>,
    /// If set, the `iss` that a token must have.
    pub issuer: Option<String>,
    /// How far clocks may differ, in seconds.
    pub leeway_s: u64,
}

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256: whoever can check a token can make one.
    HS256,
    /// Ed25519: the gateway holds the public key only, as with those below.
    EdDSA,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// RSA (PKCS #1 v1.5) of at least 2048 bits with SHA-256.
    RS256,
}

/// `[limits]`: what one client may take from the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub sessions_per_user: u32,
    /// 0 is no limit: behind a proxy everybody has its address.
    pub sessions_per_address: u32,
    /// All sessions and handshakes together.
    pub sessions_total: u32,
    /// Time for TLS and the HTTP request together, in milliseconds.
    pub handshake_ms: u64,
    /// Time from `hello` to a valid token, in milliseconds.
    pub auth_within_ms: u64,
    /// Longest message that a client may send, in bytes.
    pub frame_bytes_max: usize,
    /// Frames that a client may send each second, over time.
    pub frames_per_second: u32,
    /// Frames that it may send at once.
    pub frames_burst: u32,
    /// Notifications that may wait for a slow client before it is closed resumably.
    pub pending_max: usize,
}

/// `[session]`: the times of a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// Time between two heartbeat frames, in milliseconds.
    pub heartbeat_ms: u64,
    /// A client that gives no sign of life for so long is closed, in milliseconds.
    pub idle_ms: u64,
    /// Time for an orderly end after SIGTERM, in milliseconds.
    pub drain_ms: u64,
}

/// `[log]`: words on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Default for Admin {
    fn default() -> Self {
        Self { enabled: true, address: SocketAddr::from(([127, 0, 0, 1], 0)), beyond_loopback: false }
    }
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            name: "main".to_owned(),
            consumer: "gateway".to_owned(),
            group: None,
            dedup_window: 10_000,
            spin_us: 10,
            busy_poll: false,
            core: -1,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8640)),
            name: "gw-1".to_owned(),
            shards: 0,
            tls_cert: None,
            tls_key: None,
            origins: Vec::new(),
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwardedFor,
        }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/bellwire/journal"),
            segment_bytes: 64 << 20,
            retain_bytes: 4 << 30,
            retain_age_s: 0,
            sync: Sync::None,
            sync_interval_ms: 100,
            chain: true,
            chain_key_file: None,
        }
    }
}

impl Default for Presence {
    fn default() -> Self {
        Self { bus: None, reset_s: 10 }
    }
}

impl Default for Token {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::HS256,
            key: None,
            key_file: None,
            jwks_file: None,
            revocation_file: None,
            audience: None,
            issuer: None,
            leeway_s: 5,
        }
    }
}

/// Written by hand so that a logged configuration never shows the secret.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("algorithm", &self.algorithm)
            .field("key", &self.key.as_ref().map(|_| "(hidden)"))
            .field("key_file", &self.key_file)
            .field("jwks_file", &self.jwks_file)
            .field("revocation_file", &self.revocation_file)
            .field("audience", &self.audience)
            .field("issuer", &self.issuer)
            .field("leeway_s", &self.leeway_s)
            .finish()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_user: 16,
            sessions_per_address: 64,
            sessions_total: 16_000,
            handshake_ms: 10_000,
            auth_within_ms: 5_000,
            frame_bytes_max: 4096,
            frames_per_second: 50,
            frames_burst: 100,
            pending_max: 10_000,
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self { heartbeat_ms: 15_000, idle_ms: 300_000, drain_ms: 10_000 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

/// A configuration that cannot even be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    /// The text says line and column and shows the place.
    #[error("{}: {error}", path.display())]
    Parse { path: PathBuf, error: Box<toml::de::Error> },
    #[error("environment variable {variable}: {why}")]
    Environment { variable: String, why: String },
}

impl Config {
    /// Reads the file (or takes the defaults) and puts the environment on top.
    ///
    /// # Errors
    /// The file cannot be read or is not a configuration, or a variable names no key or has no such value.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let config = match file {
            None => Self::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
                toml::from_str(&text)
                    .map_err(|error| ConfigError::Parse { path: path.to_owned(), error: Box::new(error) })?
            }
        };
        environment::apply(config, environment)
    }

    /// How many shards to start.
    pub fn shard_count(&self) -> usize {
        match self.listen.shards {
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get() - 1).max(1),
            count => count,
        }
    }

    /// Time for an orderly end.
    pub fn drain_deadline(&self) -> Duration {
        Duration::from_millis(self.session.drain_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        Config::load(Some(&path), environment).map_err(|error| error.to_string())
    }

    #[test]
    fn an_unknown_key_is_an_error_with_line_and_column() {
        let error = load("[limits]\nauth_within_ms = 5000\nsesions_per_user = 3\n", &[]).unwrap_err();
        assert!(error.contains("line 3, column 1"), "{error}");
        assert!(error.contains("sesions_per_user"), "{error}");
        let error = load("[listn]\n", &[]).unwrap_err();
        assert!(error.contains("line 1") && error.contains("listn"), "{error}");
    }

    #[test]
    fn the_environment_overrides_every_kind_of_key() {
        let config = load(
            "[bus]\nname = \"a\"\n",
            &[
                ("BELLWIRE_BUS_NAME", "b"),
                ("BELLWIRE_BUS_GROUP", "123"),
                ("BELLWIRE_BUS_BUSY_POLL", "true"),
                ("BELLWIRE_LISTEN_ADDRESS", "[::1]:0"),
                ("BELLWIRE_JOURNAL_SYNC", "every"),
                ("BELLWIRE_LIMITS_SESSIONS_PER_USER", "3"),
                ("BELLWIRE_LISTEN_TRUSTED_PROXIES", "10.0.0.0/8, ::1/128"),
                ("BELLWIRE_LISTEN_ORIGINS", ""),
                ("HOME", "/root"),
            ],
        )
        .unwrap();
        assert_eq!(config.bus.name, "b");
        assert_eq!(config.bus.group.as_deref(), Some("123"));
        assert!(config.bus.busy_poll);
        assert_eq!(config.listen.address, "[::1]:0".parse::<SocketAddr>().unwrap());
        assert_eq!(config.journal.sync, Sync::Every);
        assert_eq!(config.listen.trusted_proxies.len(), 2);
        assert!(config.listen.origins.is_empty());
        assert_eq!(config.limits.sessions_per_user, 3);
    }

    #[test]
    fn a_variable_that_names_no_key_or_has_no_such_value_is_an_error_that_names_it() {
        let error = load("", &[("BELLWIRE_LIMITS_SESIONS", "3")]).unwrap_err();
        assert!(error.starts_with("environment variable BELLWIRE_LIMITS_SESIONS: "), "{error}");
        assert!(error.contains("sessions_per_user"), "{error}");
        let error = load("", &[("BELLWIRE_LIMITS_SESSIONS_PER_USER", "many")]).unwrap_err();
        assert!(error.contains("expected a whole number, found \"many\""), "{error}");
        let error = load("", &[("BELLWIRE_JOURNAL_SYNC", "often")]).unwrap_err();
        assert!(error.starts_with("environment variable BELLWIRE_JOURNAL_SYNC: "), "{error}");
    }

    #[test]
    fn a_logged_configuration_does_not_show_the_secret() {
        let mut config = Config::default();
        config.token.key = Some("hush".to_owned());
        assert!(!format!("{config:?}").contains("hush"));
    }
}
