//! `bellwirectl`: looks at a bus, publishes to it, and listens to its gateway.
//!
//! A guest with manners: whatever only looks, maps shared memory read-only and is invisible to producers and
//! consumers. Data goes to standard output, words to standard error, and every failure has its exit code
//! ([`exit::Exit`]). One verb, one file, in [`verbs`].

mod bus;
mod cli;
mod exit;
mod failure;
mod jwt;
mod names;
mod output;
mod stop;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    // A segment that somebody truncates while we look at it is an error like others.
    if let Err(error) = bellwire::guard_mappings() {
        failure::words(format_args!("cannot handle SIGBUS: {error}"));
        return exit::Exit::Wrong.into();
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Prints help and versions to standard output and faults to standard error; a closed pipe is no fault.
            let _ = error.print();
            return if error.use_stderr() { exit::Exit::Usage } else { exit::Exit::Ok }.into();
        }
    };
    match verbs::run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}
