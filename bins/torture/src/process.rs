//! A process of the run: started, struck, and started again.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;
use crate::chaos::{Blow, Target};
use crate::life;

/// An orderly end that takes longer is a fault.
const END_WITHIN: Duration = Duration::from_secs(30);

/// The line of a log with which a process begins.
const STARTED: &str = "---- started";

enum State {
    Up,
    Stopped {
        until: Instant,
    },
    /// Killed; to be reaped.
    Killed {
        down: Duration,
    },
    /// Asked for an orderly end.
    Ending {
        since: Instant,
        down: Duration,
    },
    Down {
        until: Instant,
    },
}

/// What became of a process since it was last looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing that matters.
    None,
    /// It is dead, as was wished.
    Died,
    /// Its time to be down is over.
    Due,
    /// It ended although nobody wished it, or not as it should.
    Unasked(String),
}

pub(crate) struct Process {
    pub(crate) target: Target,
    child: Option<Child>,
    stdin: Option<ChildStdin>,
    state: State,
    log: PathBuf,
}

impl Process {
    /// One that is not running yet.
    pub(crate) fn new(target: Target, dir: &Path) -> Self {
        let state = State::Down { until: Instant::now() };
        Self { target, child: None, stdin: None, state, log: dir.join(format!("{target}.log")) }
    }

    /// Starts it; its words go to its log. Its standard output is given back if it is `piped`.
    pub(crate) fn start(&mut self, mut command: Command, piped: bool) -> Result<Option<ChildStdout>> {
        let mut log = OpenOptions::new().create(true).append(true).open(&self.log)?;
        writeln!(log, "{STARTED}")?;
        let stdout = if piped { Stdio::piped() } else { log.try_clone()?.into() };
        // Ctrl-C reaches the run alone, which then ends in order.
        command.stdin(Stdio::piped()).stdout(stdout).stderr(log).process_group(0);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.target))?;
        self.stdin = child.stdin.take();
        let stdout = child.stdout.take();
        self.child = Some(child);
        self.state = State::Up;
        Ok(stdout)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            // Not reaped yet, so the number is still its own.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Strikes it; `false` if it is in no state for that.
    pub(crate) fn strike(&mut self, blow: Blow) -> bool {
        match (&self.state, blow) {
            (State::Up | State::Stopped { .. }, Blow::Kill { down }) => {
                self.signal(Signal::SIGKILL);
                self.state = State::Killed { down };
            }
            (State::Up, Blow::Stop { during }) => {
                self.signal(Signal::SIGSTOP);
                self.state = State::Stopped { until: Instant::now() + during };
            }
            (State::Up, Blow::Restart { down }) => self.end(down),
            _ => return false,
        }
        true
    }

    /// Asks for an orderly end.
    pub(crate) fn end(&mut self, down: Duration) {
        match self.target {
            Target::Gateway => self.signal(Signal::SIGTERM),
            _ => self.stdin = None,
        }
        self.state = State::Ending { since: Instant::now(), down };
    }

    /// Tells a client process to do without antics.
    pub(crate) fn settle(&mut self) {
        if let Some(stdin) = &mut self.stdin {
            // It may be dying.
            let _ = stdin.write_all(life::SETTLE);
        }
    }

    /// Lets a stopped process go on now.
    pub(crate) fn go_on(&mut self) {
        if matches!(self.state, State::Stopped { .. }) {
            self.signal(Signal::SIGCONT);
            self.state = State::Up;
        }
    }

    /// Looks after it; to be called often.
    pub(crate) fn tick(&mut self) -> Result<Turn> {
        if let State::Stopped { until } = self.state
            && Instant::now() >= until
        {
            self.go_on();
        }
        if let State::Down { until } = self.state {
            return Ok(if Instant::now() >= until { Turn::Due } else { Turn::None });
        }
        let status = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        let Some(status) = status else {
            return Ok(match self.state {
                State::Ending { since, .. } if since.elapsed() > END_WITHIN => {
                    Turn::Unasked(format!("does not end within {} s", END_WITHIN.as_secs()))
                }
                _ => Turn::None,
            });
        };
        self.child = None;
        self.stdin = None;
        let target = self.target;
        let (was_wished, down) = match self.state {
            State::Killed { down } => (was_killed(status) || status.success(), down),
            // A gateway that has not got so far as to say anything does not know of SIGTERM yet.
            State::Ending { down, .. } => {
                (status.success() || (target == Target::Gateway && self.has_said_nothing()), down)
            }
            _ => (false, Duration::from_millis(100)),
        };
        self.state = State::Down { until: Instant::now() + down };
        Ok(if was_wished {
            Turn::Died
        } else {
            Turn::Unasked(format!("{status}; its log ends:{}", self.log_tail()))
        })
    }

    fn has_said_nothing(&self) -> bool {
        std::fs::read_to_string(&self.log).is_ok_and(|log| log.trim_end().ends_with(STARTED))
    }

    /// The last lines of its log.
    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(6);
        lines[from..].iter().map(|line| format!("\n      {line}")).collect()
    }
}

fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::SIGKILL as i32)
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
