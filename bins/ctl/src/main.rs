//! `bellwirectl`: looks at a bus, publishes to it, and listens to its gateway.
//!
//! A guest with manners: whatever only looks, maps shared memory read-only and is invisible to producers and
//! consumers. Data goes to standard output, words to standard error, and every failure has its exit code
//! ([`exit::Exit`]). One verb, one file, in [`verbs`].

mod bus;
mod cli;
mod copies;
mod exit;
mod failure;
mod filter;
mod jwt;
mod names;
mod output;
mod process;
mod stop;
mod verbs;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

fn main() -> ExitCode {
    // A segment that somebody truncates while we look at it is an error like others.
    if let Err(error) = bellwire::guard_mappings() {
        failure::words(format_args!("cannot handle SIGBUS: {error}"));
        return exit::Exit::Wrong.into();
    }
    let mut cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Prints help and versions to standard output and faults to standard error; a closed pipe is no fault.
            let _ = error.print();
            return match error.use_stderr() {
                false => exit::Exit::Ok.into(),
                // What calls plugins takes 2 for CRITICAL.
                true if is_check() => verbs::check::State::Unknown.into(),
                true => exit::Exit::Usage.into(),
            };
        }
    };
    match verbs::run(&mut cli) {
        Ok(exit) => exit,
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

/// Whether it was `check` that was called, with arguments that make no sense.
fn is_check() -> bool {
    let verbs = cli::Cli::command();
    let is_verb = |word: &String| verbs.get_subcommands().any(|verb| verb.get_name() == word);
    std::env::args().skip(1).find(is_verb).is_some_and(|verb| verb == "check")
}
