//! What every process of a run does first: it ties its life to the one that started it.
//!
//! If that one is killed, the kernel kills this one too. Standard input is the lifeline: lines on it are wishes, its end
//! asks for an orderly end.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::Result;

/// What the one that started this process wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// Go on as you like.
    GoOn,
    /// No more antics: catch up.
    Settle,
    /// Come to an end.
    End,
}

/// The line that asks a process to settle.
pub(crate) const SETTLE: &[u8] = b"settle\n";

/// Lets the kernel kill this process when its parent dies, however that dies.
pub(crate) fn die_with(parent: u32) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before we asked.
    if nix::unistd::getppid().as_raw() as u32 != parent {
        return Err("the parent is gone".into());
    }
    Ok(())
}

/// Follows the parent's wishes on standard input.
pub(crate) fn follow() -> watch::Receiver<Wish> {
    let (tell, wishes) = watch::channel(Wish::GoOn);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if line.is_ok_and(|line| line.as_bytes() == SETTLE.trim_ascii_end()) {
                tell.send_replace(Wish::Settle);
            }
        }
        tell.send_replace(Wish::End);
    });
    wishes
}

/// Becomes another program that dies with its parent.
pub(crate) fn guard(parent: u32, program: &[OsString]) -> Result<()> {
    die_with(parent)?;
    let (program, arguments) = program.split_first().ok_or("guard: no program")?;
    Err(format!("{}: {}", program.display(), Command::new(program).args(arguments).exec()).into())
}
