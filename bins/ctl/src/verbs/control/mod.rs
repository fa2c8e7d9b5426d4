//! The verbs that speak to a gateway through its control socket: one file each, and here what they share.

pub(super) mod drain;
pub(super) mod kick;
pub(super) mod log_level;
pub(super) mod reload;
pub(super) mod revoke;
pub(super) mod sessions;
pub(super) mod status;

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;

/// Longest answer that is read, in bytes: a page of 512 sessions has less than 1 KiB each.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// A gateway that lives answers at once; only a reload may wait for its disk.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Which gateway.
#[derive(Args, Debug)]
pub(crate) struct SocketArgs {
    /// The gateway's control socket (`control.socket` in its configuration)
    #[arg(
        long,
        value_name = "PATH",
        env = "BELLWIRE_CONTROL_SOCKET",
        default_value = "/run/bellwire/gateway.sock"
    )]
    socket: PathBuf,
}

/// A conversation with a gateway.
pub(in crate::verbs) struct Gateway {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    /// Longest wait for an answer.
    time: Duration,
}

impl SocketArgs {
    /// That one.
    pub(in crate::verbs) fn at(path: &Path) -> Self {
        Self { socket: path.to_owned() }
    }

    pub(super) fn connect(&self) -> Result<Gateway, Failure> {
        self.connect_within(ANSWER_TIME)
    }

    /// Likewise; no answer is waited for longer than that.
    pub(in crate::verbs) fn connect_within(&self, time: Duration) -> Result<Gateway, Failure> {
        // A time of zero would be none at all.
        let time = time.max(Duration::from_millis(1));
        let connect = || {
            let stream = UnixStream::connect(&self.socket)?;
            stream.set_read_timeout(Some(time))?;
            stream.set_write_timeout(Some(time))?;
            Ok(stream)
        };
        match connect() {
            Ok(stream) => Ok(Gateway { stream: BufReader::new(stream), path: self.socket.clone(), time }),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let path = self.socket.display();
        let (exit, what, next) = match error.kind() {
            io::ErrorKind::NotFound => (
                Exit::Nothing,
                format!("no control socket at {path}"),
                "a gateway has one if its configuration names it (control.socket); say where with --socket or \
                 BELLWIRE_CONTROL_SOCKET. `systemctl status bellwire-gateway` shows whether one runs",
            ),
            io::ErrorKind::ConnectionRefused => (
                Exit::Nothing,
                format!("nobody listens at {path}: the gateway that made it is dead"),
                "start it again; it takes the socket over",
            ),
            io::ErrorKind::PermissionDenied => (
                Exit::Refused,
                format!("{path}: permission denied"),
                "join the group that control.group names, or run as root or as the gateway's user",
            ),
            _ => (Exit::Wrong, format!("{path}: {error}"), "is that a gateway's control socket?"),
        };
        Failure::new(exit, what).next(next)
    }
}

impl Gateway {
    /// What the gateway says to that.
    pub(in crate::verbs) fn ask(&mut self, request: &Value) -> Result<Value, Failure> {
        let stream = self.stream.get_mut();
        stream.write_all(format!("{request}\n").as_bytes()).map_err(|error| self.broken(&error))?;
        let mut line = Vec::new();
        let read = (&mut self.stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| self.broken(&error))?;
        if line.is_empty() {
            return Err(self.broken(&io::ErrorKind::UnexpectedEof.into()));
        }
        let answer: Value = serde_json::from_slice(&line).map_err(|error| self.broken(&error.into()))?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(refused(error)),
        }
    }

    /// Waits until the gateway closes; `false`: the time was not enough.
    pub(super) fn until_closed(&mut self, time: Duration) -> bool {
        let _ = self.stream.get_mut().set_read_timeout(Some(time.max(Duration::from_millis(1))));
        match self.stream.read(&mut [0; 64]) {
            Ok(0) => true,
            // Killed in the middle of it: that is an end too.
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
            Ok(_) => false,
        }
    }

    fn broken(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::new(
                Exit::Busy,
                format!("the gateway at {path} has not answered for {}", human::duration(self.time)),
            )
            .next("it stands still, or eight others are asking it just now"),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                Failure::new(Exit::Nothing, format!("the gateway at {path} ended before it answered"))
            }
            _ => Failure::new(Exit::Wrong, format!("{path}: {error}"))
                .next("is that a gateway's control socket?"),
        }
    }
}

fn refused(error: &Value) -> Failure {
    let message = error["message"].as_str().unwrap_or("refused without a reason");
    let exit = match error["code"].as_str() {
        Some("bad_request" | "too_long") => Exit::Usage,
        Some("not_found") => Exit::Nothing,
        Some("forbidden") => Exit::Refused,
        _ => Exit::Wrong,
    };
    Failure::new(exit, message)
}

/// Prints the answer as it is, without what only the conversation needs.
pub(super) fn print_json(global: &Global, mut answer: Value) -> Result<(), Failure> {
    if let Some(fields) = answer.as_object_mut() {
        fields.remove("ok");
        // Ours comes first; the gateway counts the versions of its fields by itself.
        if let Some(schema) = fields.remove("schema") {
            fields.insert("gateway_schema".to_owned(), schema);
        }
    }
    let mut out = crate::output::Out::new(global);
    out.json(&answer)?;
    out.flush()
}
