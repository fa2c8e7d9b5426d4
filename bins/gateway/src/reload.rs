//! Takes over a configuration while the gateway runs: if all of it is sound, and nothing of it otherwise.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::config::{Config, ConfigError};
use crate::doors::Keeper;
use crate::log::Level;
use crate::service;

/// Where the configuration is read from.
pub type Load = Box<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Reads the configuration again when it is told to, by a signal or by an operator.
pub struct Reloader {
    load: Load,
    keeper: Keeper,
    log: Level,
    in_effect: Mutex<watch::Sender<Arc<Config>>>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that are different from now on.
    pub changed: Vec<String>,
    /// Keys that have changed and take effect at the next start.
    pub at_restart: Vec<String>,
    /// Whether keys, revocations and certificate could all be read; if not, what could not is in the log, and of that what
    /// was there before stays.
    pub complete: bool,
}

/// Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the configuration cannot be read: {0}")]
    Load(#[from] ConfigError),
    /// One sentence each.
    #[error("{}", .0.join("; "))]
    Problems(Vec<String>),
}

impl Reloader {
    /// `config` is what is in effect at the start.
    pub fn new(config: &Config, load: Load, keeper: Keeper, log: Level) -> Self {
        let (in_effect, _) = watch::channel(Arc::new(config.clone()));
        Self { load, keeper, log, in_effect: Mutex::new(in_effect) }
    }

    /// The configuration that is in effect, now and whenever it changes.
    pub fn in_effect(&self) -> watch::Receiver<Arc<Config>> {
        self.in_effect.lock().unwrap_or_else(PoisonError::into_inner).subscribe()
    }

    /// How loud the log is.
    pub fn log(&self) -> &Level {
        &self.log
    }

    /// Reads everything anew and takes over what can change. Waits for the disk.
    ///
    /// # Errors
    /// The configuration cannot be read or is not sound; then nothing has changed.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        let _reloading = service::reloading();
        let outcome = self.take_over();
        match &outcome {
            Ok(Reloaded { changed, at_restart, complete }) => {
                for key in at_restart {
                    tracing::warn!(%key, "reload: changed, and takes effect at the next start");
                }
                tracing::info!(
                    complete,
                    changed = changed.join(" "),
                    at_restart = at_restart.len(),
                    "reloaded"
                );
            }
            Err(ReloadError::Load(error)) => {
                tracing::error!(%error, "reload: the configuration cannot be read; nothing changes");
            }
            Err(ReloadError::Problems(problems)) => {
                for problem in problems {
                    tracing::error!("reload: {problem}; nothing changes");
                }
            }
        }
        outcome
    }

    fn take_over(&self) -> Result<Reloaded, ReloadError> {
        // Held throughout: of two reloads, the later one's file is what is in effect afterwards.
        let in_effect = self.in_effect.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (self.load)()?;
        let problems = new.problems();
        if !problems.is_empty() {
            return Err(ReloadError::Problems(problems));
        }
        let old = Arc::clone(&in_effect.borrow());
        let (merged, at_restart) = old.with_live_keys_of(&new);
        let changed = old.differences(&merged);
        let complete = self.keeper.reload(merged.clone());
        self.log.set(merged.log.level);
        in_effect.send_replace(Arc::new(merged));
        Ok(Reloaded { changed, at_restart, complete })
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}
