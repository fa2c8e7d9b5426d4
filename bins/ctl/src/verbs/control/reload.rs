//! `bellwirectl reload`: has a gateway read its configuration again.

use clap::Args;
use serde_json::{Value, json};

use super::{SocketArgs, print_json};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};

/// Have a gateway read its configuration again, and say what has changed
///
/// As SIGHUP, but with an answer. If anything in the configuration is wrong, nothing of it is taken over
/// and the exit code is 1; so too if a key, the revocations or a certificate cannot be read: of that, what
/// was there before stays, and the gateway's log says why.
///
/// Example:
///   bellwirectl reload
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Reload {
    #[command(flatten)]
    socket: SocketArgs,
}

pub(crate) fn run(global: &Global, args: &Reload) -> Result<Exit, Failure> {
    let answer = args.socket.connect()?.ask(&json!({"op": "reload"}))?;
    let complete = answer["complete"] == true;
    let names = |key: &str| -> Vec<String> {
        answer[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (changed, at_restart) = (names("changed"), names("at_restart"));
    if global.json {
        print_json(global, answer)?;
    } else {
        match changed.as_slice() {
            [] => words("no setting that can change while it runs has changed; files were read again"),
            changed => words(format!("in effect now: {}", changed.join(", "))),
        }
        if !at_restart.is_empty() {
            words(format!("at the next start: {}", at_restart.join(", ")));
        }
        if !complete {
            words(
                "a key, the revocations or a certificate cannot be read; what was there before stays (see the gateway's log)",
            );
        }
    }
    Ok(if complete { Exit::Ok } else { Exit::Wrong })
}
