//! Kills, stops and restarts everything around a bus at random, and holds what arrived against what was published.
//!
//! - [`plan`]: what is published, as a function of the seed.
//! - [`producer`], [`store`], [`clients`]: the processes, each this same program; the gateway is its real binary.
//! - [`chaos`]: what happens to them, and when. [`process`] does it, [`fleet`] keeps count, in a [`world`] of its own.
//! - [`oracle`]: judges every frame, and everything at the end.
//! - [`run`]: a run as a whole. [`report`]: its figures.
//!
//! Exit code: 0 if nothing was lost, doubled, reordered or misdirected, 1 if anything was, 2 if there was no run.
#![forbid(unsafe_code)]

mod chaos;
mod clients;
mod fleet;
mod gateway;
mod life;
mod log;
mod oracle;
mod plan;
mod process;
mod producer;
mod report;
mod run;
mod store;
mod world;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A tool's error: words for its user.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Kills, stops and restarts producers, gateway, storage and clients at random, and proves that every notification whose
/// publish returned Ok arrived exactly once and in order.
///
/// As root everything takes place in a mount namespace with a /dev/shm and a journal disk of its own, which are filled now
/// and then; otherwise nothing is filled. The schedule is drawn from the seed; when exactly it strikes a process depends on
/// the machine, so a replay repeats the blows, not the instructions that they hit.
#[derive(Parser, Debug)]
#[command(name = "bellwire-torture", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    run: run::RunArgs,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Processes of a run, started by the run itself.
#[derive(Subcommand, Debug)]
enum Part {
    #[command(hide = true)]
    Producer(producer::ProducerArgs),
    #[command(hide = true)]
    Store(store::StoreArgs),
    #[command(hide = true)]
    Clients(clients::ClientsArgs),
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
    let outcome = match &arguments.part {
        None => run::run(&arguments.run),
        Some(Part::Producer(args)) => producer::run(args).map(|()| true),
        Some(Part::Store(args)) => store::run(args).map(|()| true),
        Some(Part::Clients(args)) => clients::run(args).map(|()| true),
        Some(Part::Guard { parent, program }) => life::guard(*parent, program).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bellwire-torture: {error}");
            ExitCode::from(2)
        }
    }
}
