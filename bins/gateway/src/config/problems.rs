//! What is wrong with a configuration that could be read.

use std::path::Path;

use bellwire_journal::ChainKey;

use super::{Algorithm, Config, HS256_KEY_LEN_MIN};
use crate::broker::DEDUP_WINDOW_MAX;
use crate::doors::{self, Doors};

/// Least that is sensible for a client's frame: a token must fit.
const FRAME_BYTES_MIN: usize = 512;

/// Longest key file that is read, in bytes.
const KEY_FILE_BYTES_MAX: u64 = 64 * 1024;

impl Config {
    /// Everything that is wrong, one sentence each; empty if the configuration is sound.
    ///
    /// It looks at files (keys, certificates, revocations, the journal's directory) but changes nothing.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        check(
            (1..=DEDUP_WINDOW_MAX).contains(&self.bus.dedup_window),
            &format!("bus.dedup_window: must be between 1 and {DEDUP_WINDOW_MAX}"),
        );
        check(self.bus.core >= -1, "bus.core: must be a core's number, or -1");
        check(
            self.journal.segment_bytes >= 1 << 20 && self.journal.segment_bytes.is_multiple_of(4096),
            "journal.segment_bytes: must be a multiple of 4096 and at least 1048576",
        );
        check(
            self.journal.retain_bytes >= 2 * self.journal.segment_bytes,
            "journal.retain_bytes: must be at least twice journal.segment_bytes",
        );
        check(self.journal.sync_interval_ms > 0, "journal.sync_interval_ms: must be at least 1");
        check(self.limits.sessions_per_user > 0, "limits.sessions_per_user: must be at least 1");
        check(self.limits.sessions_total > 0, "limits.sessions_total: must be at least 1");
        check(self.limits.auth_within_ms > 0, "limits.auth_within_ms: must be at least 1");
        check(self.limits.handshake_ms > 0, "limits.handshake_ms: must be at least 1");
        check(
            (FRAME_BYTES_MIN..=1 << 20).contains(&self.limits.frame_bytes_max),
            "limits.frame_bytes_max: must be between 512 and 1048576",
        );
        check(self.limits.frames_per_second > 0, "limits.frames_per_second: must be at least 1");
        check(self.limits.frames_burst > 0, "limits.frames_burst: must be at least 1");
        check(
            (100..=1_000_000).contains(&self.limits.pending_max),
            "limits.pending_max: must be between 100 and 1000000",
        );
        check(self.session.heartbeat_ms >= 100, "session.heartbeat_ms: must be at least 100");
        check(self.session.idle_ms >= 100, "session.idle_ms: must be at least 100");
        check(
            !self.admin.enabled || self.admin.beyond_loopback || self.admin.address.ip().is_loopback(),
            "admin.address: must be a loopback address, since nobody is asked for a token there; with \
             admin.beyond_loopback = true it may be another, on a network that only operators reach",
        );
        check(self.presence.reset_s > 0, "presence.reset_s: must be at least 1");
        check(self.listen.shards <= 256, "listen.shards: must be at most 256");
        check(
            !self.listen.name.is_empty() && self.listen.name.len() <= 64,
            "listen.name: must be of 1 to 64 bytes",
        );
        for (what, name) in [("bus", &self.bus.name), ("consumer", &self.bus.consumer)] {
            if let Err(error) = bellwire::check_name(what, name) {
                problems.push(error.to_string());
            }
        }
        if let Some(bus) = &self.presence.bus {
            if let Err(error) = bellwire::check_name("bus", bus) {
                problems.push(format!("presence.bus: {error}"));
            }
            if *bus == self.bus.name {
                problems.push(format!(
                    "presence.bus: {bus:?} is bus.name too; the gateway would number its own events: name another one"
                ));
            }
        }
        for origin in &self.listen.origins {
            if let Err(problem) = doors::check_origin(origin) {
                problems.push(format!("listen.origins: {origin:?} {problem}"));
            }
        }
        if let Err(error) = Doors::open(self) {
            problems.push(error.to_string());
        }
        problems.extend(self.journal_dir_problem());
        problems.extend(self.journal.chain_key().err());
        problems.extend(self.control_problem());
        problems
    }

    fn control_problem(&self) -> Option<String> {
        let group = self.control.group.as_deref()?;
        match nix::unistd::Group::from_name(group) {
            Ok(Some(_)) => None,
            Ok(None) => Some(format!("control.group: there is no group {group:?} on this machine")),
            Err(error) => Some(format!("control.group: cannot look up {group:?}: {}", error.desc())),
        }
    }

    /// The directory is made by the gateway; what exists of its path must let that happen.
    fn journal_dir_problem(&self) -> Option<String> {
        let dir = &self.journal.dir;
        let existing = dir.ancestors().find(|path| path.exists())?;
        let path = existing.display();
        if !existing.is_dir() {
            return Some(format!("journal.dir: {path} is not a directory"));
        }
        nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK)
            .err()
            .map(|error| format!("journal.dir: {path} cannot be written to: {}", error.desc()))
    }
}

impl super::Token {
    /// The plain key, from the configuration or its file; `None` if there are only those of a JWKS.
    ///
    /// # Errors
    /// One sentence: no key, two keys, a file that cannot be read, or a secret that is too short.
    pub(crate) fn key_bytes(&self) -> Result<Option<Vec<u8>>, String> {
        let key = match (&self.key, &self.key_file) {
            (None, None) if self.jwks_file.is_some() => return Ok(None),
            (None, None) => {
                return Err("token: a key is missing; give token.key, token.key_file or token.jwks_file \
                            (or start with --dev to have one made)"
                    .to_owned());
            }
            (Some(_), Some(_)) => {
                return Err("token: token.key and token.key_file are both given; keep one".to_owned());
            }
            (Some(key), None) => key.clone().into_bytes(),
            (None, Some(path)) => read_key(path)
                .map_err(|error| format!("token.key_file: cannot read {}: {error}", path.display()))?,
        };
        if self.algorithm == Algorithm::HS256 && key.len() < HS256_KEY_LEN_MIN {
            return Err(format!(
                "token: the HS256 key has {} bytes; at least {HS256_KEY_LEN_MIN} are needed",
                key.len()
            ));
        }
        Ok(Some(key))
    }
}

impl super::Journal {
    /// What the chain is made with; `None` if there is to be none.
    ///
    /// # Errors
    /// One sentence: the file cannot be read, or its secret is too short.
    pub(crate) fn chain_key(&self) -> Result<Option<ChainKey>, String> {
        let Some(path) = self.chain_key_file.as_deref().filter(|_| self.chain) else {
            return Ok(self.chain.then(ChainKey::public));
        };
        let problem = |why: String| format!("journal.chain_key_file: {}: {why}", path.display());
        let key = read_key(path).map_err(|error| problem(error.to_string()))?;
        ChainKey::secret(&key).map(Some).map_err(|error| problem(error.to_string()))
    }
}

/// What is in a key's file, but for line ends at its end.
fn read_key(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut key = super::read_bounded(path, KEY_FILE_BYTES_MAX)?;
    while key.last().is_some_and(|last| matches!(last, b'\n' | b'\r')) {
        key.pop();
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_key_is_read_from_its_file_and_must_be_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.key");
        let mut journal = crate::config::Journal { chain_key_file: Some(path.clone()), ..Default::default() };
        assert!(journal.chain_key().unwrap_err().contains("chain.key"));
        std::fs::write(&path, format!("{}\n", "k".repeat(31))).unwrap();
        assert!(journal.chain_key().unwrap_err().contains("31 bytes"));
        std::fs::write(&path, format!("{}\n", "k".repeat(32))).unwrap();
        assert!(journal.chain_key().unwrap().is_some());
        journal.chain = false;
        assert!(journal.chain_key().unwrap().is_none());
    }

    #[test]
    fn all_problems_are_listed_and_a_sound_configuration_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.journal.dir = dir.path().join("deep/down");
        config.token.key = Some("k".repeat(32));
        assert_eq!(config.problems(), Vec::<String>::new());

        config.token.key = Some("short".to_owned());
        config.bus.name = "Main".to_owned();
        config.limits.pending_max = 1;
        let problems = config.problems().join("\n");
        assert!(problems.contains("has 5 bytes"), "{problems}");
        assert!(problems.contains("bus name \"Main\""), "{problems}");
        assert!(problems.contains("limits.pending_max"), "{problems}");
    }

    #[test]
    fn a_missing_key_says_what_to_do() {
        assert!(Config::default().problems().iter().any(|problem| problem.contains("token.key_file")));
    }
}
