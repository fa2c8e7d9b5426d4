//! The verbs: one file each, with what only that verb needs beneath it.

mod bench;
pub(crate) mod check;
mod completions;
mod config;
mod consumers;
mod control;
mod doctor;
mod gc;
mod inspect;
mod journal;
mod listen;
mod ls;
mod man;
mod publish;
mod snapshot;
mod tail;
mod token;
mod top;

use std::process::ExitCode;

use clap::Subcommand;

use crate::cli::Cli;
use crate::copies::Copies;
use crate::exit::Exit;
use crate::failure::Failure;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Consumers(consumers::Consumers),
    Snapshot(snapshot::Snapshot),
    Gc(gc::Gc),
    Doctor(doctor::Doctor),
    Check(Box<check::Check>),
    Top(top::Top),
    Tail(tail::Tail),
    Publish(publish::Publish),
    Listen(Box<listen::Listen>),
    Bench(Box<bench::Bench>),
    /// Read a gateway's journal: list, verify, watch, export, count
    ///
    /// Example:
    ///   bellwirectl journal verify --dir /var/lib/bellwire/journal
    #[command(subcommand, verbatim_doc_comment)]
    Journal(journal::Journal),
    Status(control::status::Status),
    Sessions(control::sessions::Sessions),
    Kick(control::kick::Kick),
    Revoke(control::revoke::Revoke),
    LogLevel(control::log_level::LogLevel),
    Reload(control::reload::Reload),
    Drain(control::drain::Drain),
    #[command(hide = true)]
    BenchProducer(bench::producer::BenchProducer),
    /// Make a token, or say why one is refused
    ///
    /// Example:
    ///   bellwirectl token new --sub user_01 --key-file /etc/bellwire/jwt.key
    #[command(subcommand, verbatim_doc_comment)]
    Token(token::Token),
    /// A gateway's configuration: a first one, what is wrong with one, what holds and why
    ///
    /// Example:
    ///   bellwirectl config check /etc/bellwire/gateway.toml
    #[command(subcommand, verbatim_doc_comment)]
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Verb {
    /// Whether it can look at copies of segments.
    fn takes_copies(&self) -> bool {
        matches!(self, Self::Ls(_) | Self::Inspect(_) | Self::Consumers(_) | Self::Tail(_))
    }
}

/// Does what the command line asks.
pub(crate) fn run(cli: &mut Cli) -> Result<ExitCode, Failure> {
    if let Verb::Inspect(args) = &mut cli.verb
        && let Some(path) = args.take_path()
    {
        cli.global.copy.get_or_insert(path);
    }
    if let Some(path) = &cli.global.copy {
        if !cli.verb.takes_copies() {
            return Err(Failure::new(Exit::Usage, "this verb looks at the machine itself, not at a copy")
                .next("ls, inspect, consumers and tail look at copies"));
        }
        cli.global.copies = Some(Copies::open(path)?);
    }
    let exit: Result<Exit, Failure> = match &cli.verb {
        // Its codes are those of Nagios.
        Verb::Check(args) => return Ok(check::run(&cli.global, args).into()),
        Verb::Ls(args) => ls::run(&cli.global, args),
        Verb::Inspect(args) => inspect::run(&cli.global, args),
        Verb::Consumers(args) => consumers::run(&cli.global, args),
        Verb::Snapshot(args) => snapshot::run(&cli.global, args),
        Verb::Gc(args) => gc::run(&cli.global, args),
        Verb::Doctor(args) => doctor::run(&cli.global, args),
        Verb::Top(args) => top::run(&cli.global, args),
        Verb::Tail(args) => tail::run(&cli.global, args),
        Verb::Publish(args) => publish::run(&cli.global, args),
        Verb::Listen(args) => listen::run(&cli.global, args),
        Verb::Bench(args) => bench::run(&cli.global, args),
        Verb::BenchProducer(args) => bench::producer::run(&cli.global, args),
        Verb::Journal(journal) => journal::run(&cli.global, journal),
        Verb::Status(args) => control::status::run(&cli.global, args),
        Verb::Sessions(args) => control::sessions::run(&cli.global, args),
        Verb::Kick(args) => control::kick::run(&cli.global, args),
        Verb::Revoke(args) => control::revoke::run(&cli.global, args),
        Verb::LogLevel(args) => control::log_level::run(&cli.global, args),
        Verb::Reload(args) => control::reload::run(&cli.global, args),
        Verb::Drain(args) => control::drain::run(&cli.global, args),
        Verb::Token(token) => token::run(&cli.global, token),
        Verb::Config(config) => config::run(&cli.global, config),
        Verb::Completions(args) => completions::run(args),
        Verb::Man(args) => man::run(args),
    };
    exit.map(ExitCode::from)
}
