//! `bellwirectl token`: makes tokens, and says why one is refused.

use std::path::PathBuf;
use std::time::Duration;

use bellwire::Channel;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::jwt::{self, Claims, KeyArgs};
use crate::names;
use crate::output::Out;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Token {
    New(New),
    Check(Check),
}

/// Make a token for a user
///
/// The token goes to standard output and nothing else does.
///
/// Examples:
///   bellwirectl token new --sub user_01 --key-file /etc/bellwire/jwt.key
///   bellwirectl token new --sub user_01 --key-file ed25519.pem --ttl 8h --channels trade,risk
///   TOKEN=$(bellwirectl token new --sub user_01 --key "$KEY")
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct New {
    /// The user it is for
    #[arg(long, value_name = "USER")]
    sub: String,
    #[command(flatten)]
    key: KeyArgs,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = names::duration)]
    ttl: Duration,
    /// The channels it permits [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', value_parser = names::channel)]
    channels: Vec<Channel>,
    /// For gateways that are configured to want an audience
    #[arg(long, value_name = "AUD")]
    audience: Option<String>,
    /// For gateways that are configured to want an issuer
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,
}

/// Show what a token says, and why a gateway with that key would refuse it
///
/// Exit code 0 if it is good, 1 if it would be refused. The claims are shown either way. Gateways may
/// allow a few seconds for clocks that differ (5 by default); here the end is the end.
///
/// Examples:
///   bellwirectl token check "$TOKEN" --key-file /etc/bellwire/jwt.key
///   bellwirectl token check --token-file token.txt --key-file ed25519.pub.pem
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Check {
    /// The token
    #[arg(value_name = "TOKEN", required_unless_present = "token_file")]
    token: Option<String>,
    /// A file with the token; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run(global: &Global, token: &Token) -> Result<Exit, Failure> {
    match token {
        Token::New(args) => new(global, args),
        Token::Check(args) => check(global, args),
    }
}

fn new(global: &Global, args: &New) -> Result<Exit, Failure> {
    if !(1..=bellwire::USER_ID_BYTES_MAX).contains(&args.sub.len()) || args.sub == bellwire::EVERYBODY {
        let what = format!("--sub {:?}: a token is for one user, whose id has 1 to 128 bytes", args.sub);
        return Err(Failure::new(Exit::Usage, what));
    }
    if args.ttl < Duration::from_secs(1) {
        return Err(Failure::new(Exit::Usage, "--ttl: a token is good for at least one second"));
    }
    let mut claims = Claims::from_now(&args.sub, args.ttl, &args.channels);
    (claims.aud, claims.iss) = (args.audience.as_deref(), args.issuer.as_deref());
    let token = jwt::sign(&claims, &args.key.read()?)?;
    let mut out = Out::new(global);
    if global.json {
        out.json(&json!({"token": token, "claims": claims}))?;
    } else {
        out.line(token)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

fn check(global: &Global, args: &Check) -> Result<Exit, Failure> {
    let token = match (&args.token, &args.token_file) {
        (Some(token), _) => token.trim().to_owned(),
        (None, Some(path)) => jwt::read_secret(path)?.trim().to_owned(),
        (None, None) => return Err(Failure::new(Exit::Usage, "no token")),
    };
    let checked = jwt::check(&token, &args.key.read()?)?;
    let mut out = Out::new(global);
    if global.json {
        out.json(&json!({
            "good": checked.refusal.is_none(),
            "refused": checked.refusal.as_ref().map(ToString::to_string),
            "alg": checked.algorithm,
            "claims": checked.claims,
        }))?;
    } else {
        if let Some(algorithm) = &checked.algorithm {
            out.line(format!("{:<10} {algorithm}", "alg"))?;
        }
        for (name, value) in checked.claims.iter().filter_map(Value::as_object).flatten() {
            out.line(format!("{name:<10} {}", shown(name, value)))?;
        }
    }
    out.flush()?;
    Ok(match checked.refusal {
        None => {
            words("the token is good");
            Exit::Ok
        }
        Some(refusal) => {
            words(format!("the token is refused: {refusal}"));
            Exit::Wrong
        }
    })
}

/// Times as people read them, the rest as it stands.
fn shown(name: &str, value: &Value) -> String {
    match value.as_i64() {
        Some(at) if matches!(name, "exp" | "iat" | "nbf") => format!("{value} ({})", jwt::seconds(at)),
        _ => value.to_string(),
    }
}
