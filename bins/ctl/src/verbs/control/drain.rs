//! `bellwirectl drain`: has a gateway end in order.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{SocketArgs, print_json};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::names;
use crate::output::human;

/// Beyond the gateway's own time, for its last words.
const GRACE: Duration = Duration::from_secs(5);

/// Have a gateway end in order: take what the lanes hold, write it to everybody, say good-bye, end
///
/// As SIGTERM, with a time of its own. It waits for the end, unless told otherwise. Clients come back and
/// resume where they were, with the next gateway or another one on the same journal. A service manager
/// does not start it again by itself: it ended as it should.
///
/// Exit code 0 once the gateway has ended, 5 if it has not within its time and 5 s.
///
/// Examples:
///   bellwirectl drain
///   bellwirectl drain --within 3s --no-wait
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Drain {
    /// Time for all of it [default: session.drain_ms of its configuration]
    #[arg(long, value_name = "TIME", value_parser = names::duration)]
    within: Option<Duration>,
    /// Do not wait for the end
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(crate) fn run(global: &Global, args: &Drain) -> Result<Exit, Failure> {
    let mut gateway = args.socket.connect()?;
    let begun = Instant::now();
    let within_ms = args.within.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let answer = gateway.ask(&json!({"op": "drain", "within_ms": within_ms}))?;
    let sessions = answer["sessions"].as_u64().unwrap_or_default();
    let time = answer["within_ms"].as_u64().map_or(super::ANSWER_TIME, Duration::from_millis);
    if global.json {
        print_json(global, answer)?;
    } else {
        words(format!("draining {}", human::count(sessions, "session")));
    }
    if args.no_wait {
        return Ok(Exit::Ok);
    }
    if !gateway.until_closed(time.saturating_add(GRACE)) {
        let late = human::duration(begun.elapsed());
        return Err(Failure::new(Exit::Busy, format!("the gateway has not ended after {late}"))
            .next("its log says what it waits for; clients lose nothing if it is killed: they resume"));
    }
    words(format!("the gateway ended after {}", human::duration(begun.elapsed())));
    Ok(Exit::Ok)
}
