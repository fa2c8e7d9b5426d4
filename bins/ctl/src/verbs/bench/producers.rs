//! The producer processes of a run, as the run sees them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::plan::{Done, Order};
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;

pub(super) struct Producers(Vec<Process>);

struct Process {
    child: Child,
    stdin: ChildStdin,
    /// Lines of its standard output, read by a thread so that nobody waits for them.
    answers: Receiver<String>,
    busy: bool,
}

impl Producers {
    pub(super) fn start(count: u32, users: u32, bus: &str, global: &Global) -> Result<Self, Failure> {
        let fail = |error: std::io::Error| Failure::new(Exit::Wrong, format!("no producer process: {error}"));
        let us = std::env::current_exe().map_err(fail)?;
        let start = |index| {
            let mut command = Command::new(&us);
            command.args(["--bus", bus]);
            if let Some(group) = &global.group {
                command.args(["--group", group]);
            }
            command.args([
                "bench-producer",
                "--name",
                &format!("bench-{index}"),
                "--users",
                &users.to_string(),
            ]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(fail)?;
            let pipes = child.stdin.take().zip(child.stdout.take());
            let (stdin, stdout) = pipes.unwrap_or_else(|| unreachable!("both are piped"));
            let (send, answers) = channel();
            std::thread::spawn(move || {
                let lines = BufReader::new(stdout).lines().map_while(Result::ok);
                lines.map(|line| send.send(line)).all(|sent| sent.is_ok())
            });
            Ok(Process { child, stdin, answers, busy: false })
        };
        (0..count).map(start).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Tells each what to do; the first gets what `order(0)` makes.
    pub(super) fn order(&mut self, order: impl Fn(usize) -> Option<Order>) -> Result<(), Failure> {
        for (index, process) in self.0.iter_mut().enumerate() {
            let Some(order) = order(index) else { continue };
            let line = serde_json::to_string(&order).unwrap_or_else(|error| unreachable!("{error}"));
            writeln!(process.stdin, "{line}").map_err(|_| ended())?;
            process.busy = true;
        }
        Ok(())
    }

    /// Adds what those have done that are through since the last look; `true` if nobody is busy any more.
    pub(super) fn look(&mut self, sum: &mut Done) -> Result<bool, Failure> {
        for process in self.0.iter_mut().filter(|process| process.busy) {
            let line = match process.answers.try_recv() {
                Ok(line) => line,
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Disconnected) => return Err(ended()),
            };
            let done: Done = serde_json::from_str(&line)
                .map_err(|error| Failure::new(Exit::Wrong, format!("a producer's answer: {error}")))?;
            process.busy = false;
            sum.published += done.published;
            sum.refused += done.refused;
            sum.late_p99_ns = sum.late_p99_ns.max(done.late_p99_ns);
            sum.took_ns = sum.took_ns.max(done.took_ns);
            sum.by_user.resize(sum.by_user.len().max(done.by_user.len()), 0);
            sum.by_user.iter_mut().zip(&done.by_user).for_each(|(sum, count)| *sum += count);
        }
        Ok(self.0.iter().all(|process| !process.busy))
    }
}

fn ended() -> Failure {
    Failure::new(Exit::Wrong, "a producer process ended; it has said why")
}

impl Drop for Producers {
    fn drop(&mut self) {
        for Process { child, .. } in &mut self.0 {
            // Nothing that it has published is lost by that, and it may be stuck at a full ring.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
