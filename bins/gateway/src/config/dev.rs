//! `--dev`: a gateway for a developer's machine, without a configuration.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::{Algorithm, Config};

/// What `--dev` made. Dropping it removes the directory.
#[derive(Debug)]
pub struct Development {
    dir: PathBuf,
    key: String,
}

/// Why `--dev` could not prepare itself.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    #[error("no random bytes from the kernel: {0}")]
    Random(String),
    #[error("cannot make {}: {error}", path.display())]
    Dir { path: PathBuf, error: std::io::Error },
}

impl Development {
    /// Fills in what a developer does not want to think about: loopback and a free port, a journal that goes away, and
    /// a key if there is none. What the file or the environment set to something else than the default stays.
    ///
    /// # Errors
    /// No random bytes, or no place for the directory.
    pub fn prepare(config: &mut Config) -> Result<Self, DevelopmentError> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| DevelopmentError::Random(error.to_string()))?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();

        let dir = std::env::temp_dir().join(format!("bellwire-dev-{}-{}", std::process::id(), &hex[..8]));
        let fail = |error| DevelopmentError::Dir { path: dir.clone(), error };
        DirBuilder::new().mode(0o700).create(&dir).map_err(fail)?;

        let defaults = Config::default();
        if config.listen.address == defaults.listen.address {
            config.listen.address.set_port(0);
        }
        if config.journal.dir == defaults.journal.dir {
            config.journal.dir = dir.join("journal");
            config.journal.retain_bytes = config.journal.retain_bytes.min(1 << 30);
        }
        let key = match &config.token.key {
            Some(key) => key.clone(),
            None if config.token.key_file.is_none() => {
                config.token.algorithm = Algorithm::HS256;
                config.token.key = Some(hex.clone());
                hex
            }
            None => String::new(),
        };
        if config.limits.sessions_per_address == defaults.limits.sessions_per_address {
            // Every client of a developer has one address.
            config.limits.sessions_per_address = 0;
        }
        Ok(Self { dir, key })
    }

    /// The secret that signs tokens; empty if it stands in a file.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Drop for Development {
    fn drop(&mut self) {
        // A leftover in the temporary directory hinders nobody.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
