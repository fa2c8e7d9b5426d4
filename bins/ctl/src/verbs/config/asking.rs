//! The gateway's binary: where it is, and what it says.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::exit::Exit;
use crate::failure::Failure;

const NAME: &str = "bellwire-gateway";

/// What its lines on standard error begin with.
const PREFIX: &str = "bellwire-gateway: ";

/// Which binary.
#[derive(Args, Debug)]
pub(super) struct GatewayArgs {
    /// The gateway's binary [default: the one beside bellwirectl, or in PATH]
    #[arg(long, value_name = "PATH", env = "BELLWIRE_GATEWAY")]
    gateway: Option<PathBuf>,
}

/// What it said.
pub(super) struct Answer {
    pub(super) is_good: bool,
    pub(super) output: String,
    /// One text each, with its further lines.
    pub(super) problems: Vec<String>,
}

impl GatewayArgs {
    pub(super) fn path(&self) -> PathBuf {
        let beside = || {
            let path = std::env::current_exe().ok()?.with_file_name(NAME);
            path.is_file().then_some(path)
        };
        self.gateway.clone().or_else(beside).unwrap_or_else(|| PathBuf::from(NAME))
    }

    pub(super) fn ask(&self, file: Option<&Path>, question: &str) -> Result<Answer, Failure> {
        let path = self.path();
        let mut command = Command::new(&path);
        if let Some(file) = file {
            command.arg("--config").arg(file);
        }
        let run = command.arg(question).stdin(Stdio::null()).output();
        let output = run.map_err(|error| {
            let exit = match error.kind() {
                io::ErrorKind::NotFound => Exit::Nothing,
                io::ErrorKind::PermissionDenied => Exit::Refused,
                _ => Exit::Wrong,
            };
            Failure::new(exit, format!("{}: {error}", path.display()))
                .next("only the gateway knows its configuration; say where its binary is with --gateway")
        })?;
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains(&format!("unexpected argument '{question}'")) {
            return Err(Failure::new(Exit::Unusable, format!("{} does not know {question}", path.display()))
                .next("it is of another build; say with --gateway where the one of this build is"));
        }
        Ok(Answer {
            is_good: output.status.success(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            problems: problems(&errors),
        })
    }
}

/// One text for each line that begins with the gateway's name, together with the lines behind it.
fn problems(errors: &str) -> Vec<String> {
    let mut problems: Vec<String> = Vec::new();
    for line in errors.lines() {
        match (line.strip_prefix(PREFIX), problems.last_mut()) {
            (Some(begins), _) => problems.push(begins.to_owned()),
            (None, Some(last)) => last.extend(["\n", line]),
            (None, None) => problems.push(line.to_owned()),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_the_lines_that_show_its_place() {
        let text = "bellwire-gateway: a.toml: line 1\n  |\n1 | x\nbellwire-gateway: two\n";
        assert_eq!(problems(text), ["a.toml: line 1\n  |\n1 | x", "two"]);
        assert!(problems("").is_empty());
    }
}
