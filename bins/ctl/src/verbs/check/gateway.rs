//! What the gateway says of itself, through its control socket or its admin listener.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::outcome::{Figure, Outcome, State};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::verbs::control::SocketArgs;

/// Longest answer that is read, in bytes: 64 lanes have some hundred each.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// From this part of its open files on, in percent, a gateway will soon refuse sessions.
const MANY_FILES: u64 = 90;

pub(super) fn through_socket(path: &Path, timeout: Duration, outcome: &mut Outcome) {
    let asked = SocketArgs::at(path)
        .connect_within(timeout)
        .and_then(|mut gateway| gateway.ask(&json!({"op": "status"})));
    match asked {
        Ok(status) => {
            if status["draining"] == true {
                let next = "it ends in order; if nobody wanted that, start it again".to_owned();
                outcome.trouble(State::Warning, "the gateway is draining", Some(next));
            }
            if let Some(sessions) = status["sessions"].as_u64() {
                outcome.figure(Figure::new("sessions", sessions as f64, ""));
            }
            overview(&status, outcome);
        }
        Err(failure) => unreachable(failure, outcome),
    }
}

pub(super) fn through_admin(address: &str, timeout: Duration, outcome: &mut Outcome) {
    let asked = get(address, "/api/v1/overview", timeout);
    let asked = asked.and_then(|status| Ok((status, get(address, "/api/v1/lanes", timeout)?)));
    match asked {
        Ok((status, answer)) => {
            overview(&status, outcome);
            lanes(&answer, outcome);
        }
        Err(failure) => unreachable(failure, outcome),
    }
}

/// A gateway that does not answer serves nobody; one that we may not ask may be well.
fn unreachable(failure: Failure, outcome: &mut Outcome) {
    let state = match failure.exit {
        Exit::Refused | Exit::Usage => State::Unknown,
        _ => State::Critical,
    };
    outcome.failed(state, failure);
}

fn overview(status: &Value, outcome: &mut Outcome) {
    for fault in status["faults"].as_array().into_iter().flatten() {
        // The drain has been said already, or will be over soon.
        if fault["check"] == "draining" {
            continue;
        }
        let what = format!("gateway: {}", fault["fault"].as_str().unwrap_or("not ready"));
        outcome.trouble(State::Critical, what, Some("its log says more".to_owned()));
    }
    if status["journal"]["disk_tight"] == true && status["journal"]["disk_full"] != true {
        let next = "make room on the journal's disk, or lower journal.retain_bytes".to_owned();
        outcome.trouble(State::Warning, "gateway: the journal's disk is nearly full", Some(next));
    }
    let process = &status["process"];
    if let (Some(open), Some(max)) = (process["open_fds"].as_u64(), process["max_fds"].as_u64()) {
        outcome.figure(Figure { max: Some(max as f64), ..Figure::new("gateway files", open as f64, "") });
        if open.saturating_mul(100) >= max.saturating_mul(MANY_FILES) {
            let next = "raise LimitNOFILE= in its unit, or lower limits.sessions_total".to_owned();
            outcome.trouble(State::Warning, format!("gateway: {open} of {max} files open"), Some(next));
        }
    }
    if let Some(name) = status["gateway"].as_str() {
        outcome.saw(format!("gateway {name} is ready"));
    }
}

fn lanes(answer: &Value, outcome: &mut Outcome) {
    let attached = answer["lanes"].as_array().into_iter().flatten().filter(|lane| lane["attached"] == true);
    let mut quarantined = 0;
    for lane in attached.filter(|lane| lane["quarantined"] == true) {
        quarantined += 1;
        let name = lane["name"].as_str().unwrap_or("?");
        let next = format!(
            "the gateway's log says which rule it broke; end its producer, remove the file of lane {name}, start it again"
        );
        outcome.trouble(State::Critical, format!("lane {name} is quarantined by the gateway"), Some(next));
    }
    outcome.figure(Figure { critical: Some(0.0), ..Figure::new("quarantined", f64::from(quarantined), "") });
}

/// The JSON at that path of an admin listener.
fn get(address: &str, path: &str, timeout: Duration) -> Result<Value, Failure> {
    let failed = |error: &io::Error| {
        let exit = match error.kind() {
            io::ErrorKind::InvalidInput => Exit::Usage,
            _ => Exit::Nothing,
        };
        Failure::new(exit, format!("the gateway's admin listener at {address}: {error}"))
            .next("is that admin.address of its configuration, and does it run?")
    };
    let answer = request(address, path, timeout).map_err(|error| failed(&error))?;
    let head_and_body = answer.split_once("\r\n\r\n");
    let Some((head, body)) = head_and_body.filter(|(head, _)| head.starts_with("HTTP/1.")) else {
        return Err(Failure::new(
            Exit::Wrong,
            format!("{address} is no admin listener: it does not speak HTTP"),
        ));
    };
    let status = head.split(' ').nth(1).unwrap_or("?");
    if status != "200" {
        return Err(Failure::new(Exit::Wrong, format!("{address}{path}: status {status}"))
            .next("is that the admin listener, and not the one for clients?"));
    }
    serde_json::from_str(body).map_err(|error| Failure::new(Exit::Wrong, format!("{address}{path}: {error}")))
}

fn request(address: &str, path: &str, timeout: Duration) -> io::Result<String> {
    // A time of zero would be none at all.
    let timeout = timeout.max(Duration::from_millis(1));
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no such address");
    for place in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&place, timeout) {
            Ok(mut stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                // 1.0: the answer ends with the connection. The listener wants to be called by its address.
                write!(stream, "GET {path} HTTP/1.0\r\nHost: {place}\r\n\r\n")?;
                let mut answer = String::new();
                stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
                return Ok(answer);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
