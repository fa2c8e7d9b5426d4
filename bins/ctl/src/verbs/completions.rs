//! `bellwirectl completions`: what a shell needs to complete our arguments.

use std::io::{self, Write as _};

use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::failure::Failure;

/// Print the completions for a shell: verbs, options, and the values that they take
///
/// Made from the same definitions as --help. The shell reads them once, when it starts.
///
/// Examples:
///   bellwirectl completions bash > /usr/share/bash-completion/completions/bellwirectl
///   bellwirectl completions zsh > /usr/local/share/zsh/site-functions/_bellwirectl
///   bellwirectl completions fish > ~/.config/fish/completions/bellwirectl.fish
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: For,
}

/// The shells that we have tried.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum For {
    Bash,
    Zsh,
    Fish,
}

pub(crate) fn run(args: &Completions) -> Result<Exit, Failure> {
    let shell = match args.shell {
        For::Bash => Shell::Bash,
        For::Zsh => Shell::Zsh,
        For::Fish => Shell::Fish,
    };
    // Into memory first: the generator knows no output that goes away (`| head`).
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bellwirectl", &mut script);
    let mut out = io::stdout().lock();
    out.write_all(&script).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))?;
    Ok(Exit::Ok)
}
