//! `bellwirectl revoke`: takes tokens back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use super::{SocketArgs, print_json};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::names;

/// Take tokens back, in sessions that are open too
///
/// It is effective within a second. It lasts for the time given with --for (the life of the longest token
/// that it is about), but not beyond the gateway's end: what is to outlast that goes into the file that
/// `token.revocation_file` names too. Other gateways know nothing of it.
///
/// Examples:
///   bellwirectl revoke --jti 7f1c --for 1h
///   bellwirectl revoke --user user_01 --issued-before now
///   bellwirectl revoke --all --issued-before 2026-11-26T19:00:00Z
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
#[group(id = "what", required = true, multiple = false, args = ["jti", "user", "all"])]
pub(crate) struct Revoke {
    /// The token of this id (its claim `jti`)
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// The tokens of this user; without --issued-before also those that he is given from now on
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Everybody's tokens
    #[arg(long, requires = "issued_before")]
    all: bool,
    /// Only what was issued before: `now`, a time (2026-11-26T19:00:00Z), or seconds since the Unix epoch
    #[arg(long, value_name = "TIME", value_parser = instant, conflicts_with = "jti")]
    issued_before: Option<u64>,
    /// How long it lasts
    #[arg(long = "for", value_name = "TIME", default_value = "24h", value_parser = names::duration)]
    time: Duration,
    #[command(flatten)]
    socket: SocketArgs,
}

pub(crate) fn run(global: &Global, args: &Revoke) -> Result<Exit, Failure> {
    let until = now().saturating_add(args.time.as_secs().max(1));
    let answer = args.socket.connect()?.ask(&json!({
        "op": "revoke",
        "jti": args.jti,
        "user": args.user,
        "all": args.all,
        "issued_before": args.issued_before,
        "until": until,
    }))?;
    let until = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(until));
    if global.json {
        print_json(global, answer)?;
    } else {
        words(format!("revoked until {until}, or until the gateway ends"));
    }
    Ok(Exit::Ok)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Seconds since the Unix epoch.
fn instant(text: &str) -> Result<u64, String> {
    if text == "now" {
        return Ok(now());
    }
    if let Ok(seconds) = text.parse() {
        return Ok(seconds);
    }
    let instant = humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; examples: now, 2026-11-26T19:00:00Z, 1790000000"))?;
    Ok(instant.duration_since(UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?.as_secs())
}
