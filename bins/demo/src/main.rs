//! An exchange in small around a Bellwire bus, to see it work.
//!
//! - [`exchange`]: order flow, matching, accounts and risk, as pure logic over real order books.
//! - [`producers`]: the matching engine's, the account system's and risk control's processes, each with its lane.
//! - [`audit`]: what they published, told to the parent.
//! - [`watch`]: the rest: gateway, clients, page, terminal, and the oracle that holds what arrived against the audit.
//!
//! Exit code: 0 if every notification that was published arrived exactly once and in order at every client that should
//! get it, 1 if not, 2 if there was no run.
#![forbid(unsafe_code)]

mod audit;
mod exchange;
mod producers;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use producers::engine::EngineArgs;
use producers::{ProducerArgs, ProducerError};
use watch::run::RunArgs;

/// An exchange in small: a matching engine, accounts and risk control publish to a Bellwire bus; a real gateway pushes
/// to real WebSocket clients; a page in the browser shows one trader's notifications as they come.
#[derive(Parser, Debug)]
#[command(name = "bellwire-demo", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Processes of a run, started by the run itself.
#[derive(Subcommand, Debug)]
enum Part {
    #[command(hide = true, name = producers::ENGINE)]
    Engine(EngineArgs),
    #[command(hide = true)]
    Account(ProducerArgs),
    #[command(hide = true)]
    Risk(ProducerArgs),
    #[command(hide = true)]
    Guard {
        #[arg(long)]
        parent: u32,
        #[arg(last = true)]
        program: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An engine is not to end because somebody truncates the cursors of a consumer.
    if let Err(error) = bellwire::guard_mappings() {
        eprintln!("bellwire-demo: cannot handle SIGBUS: {error}");
        return ExitCode::from(2);
    }
    match arguments.part {
        None => run(&arguments.run),
        Some(Part::Engine(args)) => part(producers::ENGINE, producers::engine::run(&args)),
        Some(Part::Account(args)) => part(producers::ACCOUNT, producers::account::run(&args)),
        Some(Part::Risk(args)) => part(producers::RISK, producers::risk::run(&args)),
        Some(Part::Guard { parent, program }) => part("guard", watch::processes::guard(parent, &program)),
    }
}

fn run(args: &RunArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bellwire-demo: cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    let tasks = tokio::task::LocalSet::new();
    match tasks.block_on(&runtime, watch::run::run(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bellwire-demo: {error}");
            ExitCode::from(2)
        }
    }
}

fn part(name: &str, outcome: Result<(), ProducerError>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bellwire-demo {name}: {error}");
            ExitCode::FAILURE
        }
    }
}
