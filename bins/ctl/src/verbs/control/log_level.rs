//! `bellwirectl log-level`: how much a gateway says.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{SocketArgs, print_json};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::names;
use crate::output::human;

/// Set the log level of a gateway
///
/// With --for it is the configured one again after that time, so that nobody forgets a debug level that
/// fills a disk. Without, it stays until it is set again, or until the gateway reloads or restarts.
///
/// Example:
///   bellwirectl log-level debug --for 10m
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct LogLevel {
    #[arg(value_enum, value_name = "LEVEL")]
    level: Level,
    /// For so long
    #[arg(long = "for", value_name = "TIME", value_parser = names::duration)]
    time: Option<Duration>,
    #[command(flatten)]
    socket: SocketArgs,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

pub(crate) fn run(global: &Global, args: &LogLevel) -> Result<Exit, Failure> {
    let level = args.level.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let for_s = args.time.map(|time| time.as_secs().max(1));
    let answer = args.socket.connect()?.ask(&json!({"op": "log-level", "level": level, "for_s": for_s}))?;
    if global.json {
        print_json(global, answer)?;
    } else {
        let was = answer["was"].as_str().unwrap_or("?");
        let how_long = for_s
            .map(|seconds| format!(" for {}", human::duration(Duration::from_secs(seconds))))
            .unwrap_or_default();
        words(format!("log level {level}{how_long} (was {was})"));
    }
    Ok(Exit::Ok)
}
