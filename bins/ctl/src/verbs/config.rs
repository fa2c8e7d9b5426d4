//! `bellwirectl config`: a gateway's configuration: a first one, what is wrong with one, and what holds and why.
//!
//! What a configuration means only the gateway knows, so its binary is asked: whatever it would refuse is refused here, in
//! the same words, and no second reader of the same file can come to another opinion.

mod asking;

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::asking::GatewayArgs;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::output::table::Table;
use crate::output::{Out, human};

/// Every key with its default and what it is for. A test of the gateway's sees to that.
const TEMPLATE: &str = include_str!("../../../gateway/gateway.toml");

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Config {
    Init(Init),
    Check(Check),
    Show(Show),
}

/// Print a first configuration: every key, commented, with its default
///
/// It goes to standard output, or to FILE, which must not be there yet and which others may not read.
///
/// Examples:
///   bellwirectl config init
///   bellwirectl config init /etc/bellwire/gateway.toml
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Init {
    /// Where to write it
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Say everything that is wrong with a gateway's configuration
///
/// The gateway's own binary is asked, which also looks at the files that it names, as this user; the
/// environment (BELLWIRE_SECTION_KEY) counts as it does for the gateway. Nothing is changed.
///
/// Exit code 0 if it is sound, 1 if not, 3 if there is no such file or no gateway's binary.
///
/// Examples:
///   bellwirectl config check /etc/bellwire/gateway.toml
///   bellwirectl config check gateway.toml --gateway target/release/bellwire-gateway
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Check {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// Show every key that holds, and with --origin where its value is from
///
/// From the defaults, FILE and the environment (BELLWIRE_SECTION_KEY), each above the one before.
/// It shows what a gateway would read that started now; what one that runs has taken up of it, its log
/// and `bellwirectl reload` say. The token's key is not shown.
///
/// Exit code 1 if it cannot be read, 3 if there is no such file or no gateway's binary.
///
/// Examples:
///   bellwirectl config show /etc/bellwire/gateway.toml --origin
///   bellwirectl config show --json | jq -r 'select(.origin == "environment") | .key'
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Show {
    /// The configuration [default: none, so the defaults and the environment]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where each value is from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    gateway: GatewayArgs,
}

/// A key, as the gateway says it.
#[derive(Serialize, Deserialize)]
struct Setting {
    section: String,
    key: String,
    value: Value,
    origin: String,
}

pub(crate) fn run(global: &Global, config: &Config) -> Result<Exit, Failure> {
    match config {
        Config::Init(args) => init(global, args),
        Config::Check(args) => check(global, args),
        Config::Show(args) => show(global, args),
    }
}

fn init(global: &Global, args: &Init) -> Result<Exit, Failure> {
    let Some(path) = &args.file else {
        let mut out = Out::new(global);
        out.bytes_line(TEMPLATE.trim_end().as_bytes())?;
        out.flush()?;
        return Ok(Exit::Ok);
    };
    // It will hold a key, or the way to one.
    let file = File::options().write(true).create_new(true).mode(0o640).open(path);
    let written = file.and_then(|mut file| file.write_all(TEMPLATE.as_bytes()));
    match written {
        Ok(()) => {
            words(format!("written to {}; what has to be given stands at its beginning", path.display()));
            Ok(Exit::Ok)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(Failure::new(Exit::Busy, format!("{} is there already", path.display()))
                .next("choose another name, or see with `bellwirectl config check` whether it is sound"))
        }
        Err(error) => Err(Failure::file(path, &error)),
    }
}

fn check(global: &Global, args: &Check) -> Result<Exit, Failure> {
    readable(&args.file)?;
    let answer = args.gateway.ask(Some(&args.file), "--check")?;
    let mut out = Out::new(global);
    if global.json {
        out.json(&json!({
            "file": args.file.display().to_string(),
            "sound": answer.is_good,
            "problems": answer.problems,
        }))?;
    } else {
        answer.problems.iter().try_for_each(|problem| out.line(problem))?;
    }
    out.flush()?;
    if answer.is_good {
        words(format!("{} is sound", args.file.display()));
        return Ok(Exit::Ok);
    }
    let number = human::count(answer.problems.len() as u64, "problem");
    Err(Failure::new(Exit::Wrong, format!("{}: {number}", args.file.display()))
        .next("a gateway would not start with it; `bellwirectl config init` shows every key"))
}

fn show(global: &Global, args: &Show) -> Result<Exit, Failure> {
    if let Some(path) = &args.file {
        readable(path)?;
    }
    let answer = args.gateway.ask(args.file.as_deref(), "--show")?;
    if !answer.is_good {
        return Err(Failure::new(Exit::Wrong, answer.problems.join("\n")));
    }
    let settings: Result<Vec<Setting>, _> = answer.output.lines().map(serde_json::from_str).collect();
    let settings = settings.map_err(|error| {
        Failure::new(Exit::Wrong, format!("{}: {error}", args.gateway.path().display()))
            .next("is that a gateway, and of this build?")
    })?;
    let mut out = Out::new(global);
    if global.json {
        settings.iter().try_for_each(|setting| out.json(setting))?;
    } else {
        let mut table = Table::new(if args.origin { &["KEY", "VALUE", "ORIGIN"] } else { &["KEY", "VALUE"] });
        for setting in &settings {
            let value = if setting.value.is_null() { "-".to_owned() } else { setting.value.to_string() };
            let mut cells = vec![format!("{}.{}", setting.section, setting.key), value];
            if args.origin {
                cells.push(origin(setting, args.file.as_deref()));
            }
            table.row_of(cells);
        }
        table.print(&mut out)?;
    }
    out.flush()?;
    Ok(Exit::Ok)
}

/// The file or the variable by its name.
fn origin(setting: &Setting, file: Option<&Path>) -> String {
    match (&*setting.origin, file) {
        ("file", Some(path)) => path.display().to_string(),
        ("environment", _) => format!("BELLWIRE_{}_{}", setting.section, setting.key).to_ascii_uppercase(),
        (other, _) => other.to_owned(),
    }
}

/// The gateway would say so as well, but with one exit code for everything.
fn readable(path: &Path) -> Result<(), Failure> {
    File::open(path).map(drop).map_err(|error| Failure::file(path, &error))
}
