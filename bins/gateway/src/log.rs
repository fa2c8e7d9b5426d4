//! What the gateway says to people, and how loudly; the level can change while it runs.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt, reload};

use crate::admin::RecentErrors;
use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging to standard error. Once a process.
pub fn start(config: &Log) -> Level {
    let (filter, handle) = reload::Layer::new(filter(config.level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_target(false);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).with(RecentErrors).init();
    Level(Some(handle))
}

/// Sets the level. What is not logged at a level costs nothing but a comparison, as before.
#[derive(Clone)]
pub struct Level(Option<reload::Handle<LevelFilter, Registry>>);

impl Level {
    /// Sets nothing: of a process that logs in a way of its own.
    pub const fn fixed() -> Self {
        Self(None)
    }

    pub fn set(&self, level: LogLevel) {
        if let Some(handle) = &self.0 {
            // It fails only if the subscriber is gone, and then nobody hears anything.
            let _ = handle.reload(filter(level));
        }
    }
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Level")
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}
