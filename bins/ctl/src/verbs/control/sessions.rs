//! `bellwirectl sessions`: who is connected to a gateway.

use std::cmp::Reverse;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::SocketArgs;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::Table;
use crate::output::{Out, human};

/// List the sessions of a gateway: whose, since when, how far, what waits for them
///
/// CONN is what the session's `hello` called it, and what `kick` takes. SILENT is the time since the
/// client was last heard, WAITING the notifications that wait for it, UNSENT the bytes that its socket
/// has not taken, USER SEQ and ALL SEQ its positions in the two streams. PEER is the other end of the
/// socket: a proxy, perhaps. The list is not of one instant; who comes or goes meanwhile may be missing.
///
/// Examples:
///   bellwirectl sessions --sort waiting --limit 20
///   bellwirectl sessions --user user_01
///   bellwirectl sessions --json | jq -r 'select(.unsent_bytes > 0) | .conn'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Sessions {
    #[command(flatten)]
    socket: SocketArgs,
    /// Only those of this user
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// What comes first: most waiting, most unsent, longest silent, oldest
    #[arg(long, value_enum, value_name = "BY")]
    sort: Option<Sort>,
    /// At most so many, after sorting
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Sort {
    Waiting,
    Unsent,
    Silent,
    Age,
}

pub(crate) fn run(global: &Global, args: &Sessions) -> Result<Exit, Failure> {
    let mut gateway = args.socket.connect()?;
    let mut sessions = Vec::new();
    let mut from = Value::Null;
    loop {
        let mut answer = gateway.ask(&json!({"op": "sessions", "user": args.user, "from": from}))?;
        if let Value::Array(page) = answer["sessions"].take() {
            sessions.extend(page);
        }
        from = answer["next"].take();
        // Unsorted, as many as are wanted are enough.
        let enough = args.sort.is_none() && args.limit.is_some_and(|limit| sessions.len() >= limit);
        if from.is_null() || enough {
            break;
        }
    }
    if let Some(sort) = args.sort {
        let key = match sort {
            Sort::Waiting => "waiting",
            Sort::Unsent => "unsent_bytes",
            Sort::Silent => "silent_ms",
            Sort::Age => "age_ms",
        };
        sessions.sort_by_key(|session| Reverse(session[key].as_u64()));
    }
    sessions.truncate(args.limit.unwrap_or(usize::MAX));
    let mut out = Out::new(global);
    if global.json {
        sessions.iter().try_for_each(|session| out.json(session))?;
    } else {
        print(&mut out, &sessions)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn print(out: &mut Out, sessions: &[Value]) -> Result<(), Failure> {
    let mut table = Table::new(&[
        "CONN",
        "USER",
        "STATE",
        ">AGE",
        ">SILENT",
        ">WAITING",
        ">UNSENT",
        ">USER SEQ",
        ">ALL SEQ",
        "PEER",
    ]);
    for session in sessions {
        let text = |key: &str| session[key].as_str().unwrap_or("-").to_owned();
        let time =
            |key: &str| human::duration(Duration::from_millis(session[key].as_u64().unwrap_or_default()));
        let seq = |stream: &str| session["streams"][stream]["seq"].to_string();
        let state = if session["replaying"] == true { "replaying".to_owned() } else { text("state") };
        table.row([
            text("conn"),
            text("user"),
            state,
            time("age_ms"),
            time("silent_ms"),
            session["waiting"].to_string(),
            human::bytes(session["unsent_bytes"].as_u64().unwrap_or_default()),
            seq("user"),
            seq("all"),
            text("peer"),
        ]);
    }
    table.print(out)
}
