//! `bellwirectl kick`: ends sessions.

use clap::Args;
use serde_json::json;

use super::{SocketArgs, print_json};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::output::human;

/// End sessions of a gateway
///
/// They are closed with 4505, which tells clients not to come back by themselves. The user's token stays
/// good: to keep somebody out, `revoke` it. Exit code 3 if there is no such session.
///
/// Examples:
///   bellwirectl kick c-0-1f
///   bellwirectl kick --user user_01
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
#[group(id = "whom", required = true, multiple = false, args = ["conn", "user"])]
pub(crate) struct Kick {
    /// One session, by the name that `sessions` and its `hello` give it
    #[arg(value_name = "CONN")]
    conn: Option<String>,
    /// All sessions of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(crate) fn run(global: &Global, args: &Kick) -> Result<Exit, Failure> {
    let request = match (&args.conn, &args.user) {
        (Some(conn), _) => json!({"op": "kick", "conn": conn}),
        (None, user) => json!({"op": "kick", "user": user}),
    };
    let answer = args.socket.connect()?.ask(&request)?;
    let count = answer["kicked"].as_array().map_or(0, Vec::len) as u64;
    if global.json {
        print_json(global, answer)?;
    } else {
        words(format!("{} ended", human::count(count, "session")));
    }
    Ok(Exit::Ok)
}
