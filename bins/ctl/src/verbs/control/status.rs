//! `bellwirectl status`: how a gateway is.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{SocketArgs, print_json};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::output::{Out, human};

/// Show how a gateway is: version, sessions, journal, what is wrong
///
/// Exit code 0 if it is ready for clients, 1 if something is wrong with it, 3 if there is none.
///
/// Example:
///   bellwirectl status
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Status {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(crate) fn run(global: &Global, args: &Status) -> Result<Exit, Failure> {
    let status = args.socket.connect()?.ask(&json!({"op": "status"}))?;
    let faults: Vec<String> = status["faults"].as_array().into_iter().flatten().map(fault).collect();
    if global.json {
        print_json(global, status)?;
    } else {
        print(global, &status)?;
    }
    for fault in &faults {
        words(fault);
    }
    Ok(if faults.is_empty() { Exit::Ok } else { Exit::Wrong })
}

fn fault(fault: &Value) -> String {
    let text = |key: &str| fault[key].as_str().unwrap_or("?").to_owned();
    format!("{}: {}", text("check"), text("fault"))
}

fn print(global: &Global, status: &Value) -> Result<(), Failure> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let bytes = |value: &Value| value.as_u64().map_or_else(|| "?".to_owned(), human::bytes);
    let uptime = human::duration(Duration::from_millis(status["uptime_ms"].as_u64().unwrap_or_default()));
    let (process, journal) = (&status["process"], &status["journal"]);
    let state = match (status["draining"].as_bool(), status["ready"].as_bool()) {
        (Some(true), _) => "draining",
        (_, Some(true)) => "ready",
        _ => "not ready",
    };
    let mut out = Out::new(global);
    for (name, value) in [
        (
            "gateway",
            format!(
                "{} (pid {}, version {}, build {})",
                text(&status["gateway"]),
                status["pid"],
                text(&status["version"]),
                text(&status["build"])
            ),
        ),
        ("state", format!("{state}, up {uptime}")),
        ("bus", text(&status["bus"])),
        ("sessions", status["sessions"].to_string()),
        (
            "journal",
            format!(
                "{} kept, {} written since the start",
                bytes(&journal["retained_bytes"]),
                bytes(&journal["written_bytes"])
            ),
        ),
        (
            "process",
            format!(
                "{:.1} s of CPU, {} resident, {} of {} files open",
                process["cpu_seconds"].as_f64().unwrap_or_default(),
                bytes(&process["resident_bytes"]),
                process["open_fds"],
                process["max_fds"]
            ),
        ),
        ("log level", text(&status["log_level"])),
        ("revocations", status["revocations"].to_string()),
    ] {
        out.line(format!("{name:<12} {value}"))?;
    }
    out.flush()
}
