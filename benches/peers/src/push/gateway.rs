//! Our gateway, as it is installed: a binary, a bus, a journal.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

pub struct Own {
    pub child: Child,
    pub bus: String,
    pub key: String,
    pub scratch: PathBuf,
}

pub fn start(sessions: usize, program: Option<&str>) -> Result<Own, String> {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/bellwire-gateway");
    let program = program.unwrap_or(built);
    let bus = format!("peers-push-{}", std::process::id());
    let scratch = std::env::temp_dir().join(format!("bellwire-{bus}"));
    std::fs::create_dir(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let key = "a key that only this benchmark uses, for an hour".to_owned();
    let settings = [
        ("BUS_NAME", bus.as_str()),
        ("LISTEN_ADDRESS", "127.0.0.1:0"),
        ("TOKEN_KEY", &key),
        ("LIMITS_SESSIONS_PER_ADDRESS", "0"),
        ("LIMITS_SESSIONS_TOTAL", &(sessions + 100).to_string()),
        ("LOG_LEVEL", "warn"),
    ];
    let mut command = Command::new(program);
    command.env("BELLWIRE_JOURNAL_DIR", scratch.join("journal")).stdin(Stdio::null()).stdout(Stdio::piped());
    command.envs(settings.map(|(name, value)| (format!("BELLWIRE_{name}"), value)));
    let child = command.spawn().map_err(|error| {
        format!("{program}: {error}; `cargo build --release -p bellwire-gateway` builds it, --gateway names another")
    })?;
    Ok(Own { child, bus, key, scratch })
}
