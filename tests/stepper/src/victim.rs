//! The traced process.

#![allow(unsafe_code)]

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Longest time for a stop that must come: far more than it ever takes.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// The instruction `syscall`, as a number.
const SYSCALL: u16 = u16::from_le_bytes([0x0f, 0x05]);

/// A forked child of which one thread is, or will be, traced. Dropped, it is killed.
pub struct Victim {
    pid: Pid,
    /// The traced thread, once there is one.
    tid: Option<Pid>,
    is_dead: bool,
}

/// Why a traced thread stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// After a step, or at a breakpoint.
    Trap,
    /// It stopped by itself, or was told to.
    Stop,
    /// It does not: it still ran when the time was over.
    Runs,
}

impl Victim {
    /// Forks a child that does `f` with its main thread traced from the beginning. It ends when `f` does.
    pub fn fork(f: impl FnOnce()) -> Self {
        let mut victim = Self::fork_free(|| {
            ptrace::traceme().expect("to be traced");
            f();
        });
        victim.tid = Some(victim.pid);
        victim
    }

    /// Forks a child that does `f`, traced by nobody yet.
    ///
    /// The caller's process has one thread, so the child may do what it likes.
    pub fn fork_free(f: impl FnOnce()) -> Self {
        assert!(is_single_threaded(), "forks need a process of one thread");
        // SAFETY: this process has one thread, as was just seen.
        match unsafe { fork() }.expect("a child") {
            ForkResult::Parent { child } => Self { pid: child, tid: None, is_dead: false },
            ForkResult::Child => {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("to end with the stepper");
                let end = std::panic::catch_unwind(AssertUnwindSafe(f));
                // SAFETY: ends the child without running the parent's destructors.
                unsafe { libc::_exit(if end.is_ok() { 0 } else { 101 }) }
            }
        }
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Stops and traces the thread of that name.
    pub fn attach_to(&mut self, thread: &str) {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("the victim lives");
        let named = tasks.map_while(Result::ok).find(|task| {
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim_end() == thread)
        });
        let name = named.expect("a thread of that name").file_name();
        let tid = Pid::from_raw(name.to_string_lossy().parse().expect("a thread id"));
        ptrace::attach(tid).expect("to trace it");
        self.tid = Some(tid);
        assert_eq!(self.wait(STOP_WAIT), Stopped::Stop);
    }

    /// Lets it go, untraced.
    pub fn detach(&mut self) {
        ptrace::detach(self.tid(), None).expect("to let it go");
        self.tid = None;
    }

    fn tid(&self) -> Pid {
        self.tid.expect("a traced victim")
    }

    /// Waits for the next stop, which must be one that it makes by itself.
    pub fn wait_for_pause(&self) {
        assert_eq!(self.wait(STOP_WAIT), Stopped::Stop, "the victim did not come to its pause");
    }

    /// Lets it go on to the next pause.
    pub fn run_to_pause(&self) {
        ptrace::cont(self.tid(), None).expect("it stands still");
        self.wait_for_pause();
    }

    /// One instruction; a system call counts as one.
    pub fn step(&self) -> Stopped {
        ptrace::step(self.tid(), None).expect("it stands still");
        // It does nothing that takes long, unless it is a call that sleeps: then this waits until that is over.
        self.status(WaitPidFlag::__WALL)
    }

    /// Runs until it has come to the instruction at `address` for the `passes`-th time from here on; `false` if it stops
    /// elsewhere, or takes longer than `limit` from one time to the next. It must be killed then.
    pub fn run_to(&self, address: u64, passes: usize, limit: Duration) -> bool {
        self.set_breakpoint(Some(address));
        for _ in 0..passes {
            // The kernel sees to it that the instruction at which it stands does not trap again.
            ptrace::cont(self.tid(), None).expect("it stands still");
            if self.wait(limit) != Stopped::Trap {
                return false;
            }
        }
        self.set_breakpoint(None);
        true
    }

    /// The address of its next instruction.
    pub fn address(&self) -> u64 {
        let at = std::mem::offset_of!(libc::user, regs) + std::mem::offset_of!(libc::user_regs_struct, rip);
        ptrace::read_user(self.tid(), at as ptrace::AddressType).expect("it stands still") as u64
    }

    /// Whether its next instruction is a system call.
    pub fn is_at_call(&self) -> bool {
        // The vsyscall page cannot be read, and nobody calls it any more.
        let code = ptrace::read(self.tid(), self.address() as ptrace::AddressType).unwrap_or(0);
        code as u16 == SYSCALL
    }

    fn set_breakpoint(&self, address: Option<u64>) {
        let register = |number: usize| {
            (std::mem::offset_of!(libc::user, u_debugreg) + 8 * number) as ptrace::AddressType
        };
        if let Some(address) = address {
            ptrace::write_user(self.tid(), register(0), address as libc::c_long)
                .expect("a hardware breakpoint");
        }
        // Bit 0 of debug register 7 switches the first breakpoint on; the rest says: one byte, when executed.
        let control = libc::c_long::from(address.is_some());
        ptrace::write_user(self.tid(), register(7), control).expect("a hardware breakpoint");
    }

    /// Waits for a stop for as long as `limit`.
    fn wait(&self, limit: Duration) -> Stopped {
        let begun = Instant::now();
        loop {
            let stopped = self.status(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG);
            if stopped != Stopped::Runs || begun.elapsed() >= limit {
                return stopped;
            }
            // Briefly: most stops come within microseconds.
            if begun.elapsed() < Duration::from_millis(1) {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    fn status(&self, flags: WaitPidFlag) -> Stopped {
        match waitpid(self.tid(), Some(flags)).expect("a child") {
            WaitStatus::StillAlive => Stopped::Runs,
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Stopped::Trap,
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Stopped::Stop,
            other => panic!("the victim ended or stopped by itself: {other:?}"),
        }
    }

    /// Kills it with SIGKILL and waits until nothing of it is left.
    pub fn kill(mut self) {
        self.end();
    }

    /// Whether it has ended by itself. For one that is not traced now.
    pub fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.pid), flags), Ok(WaitStatus::StillAlive))
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.is_dead, true) {
            return;
        }
        let _ = kill(self.pid, Signal::SIGKILL); // fails only if it is dead already
        // A traced thread is reaped by its tracer, before the process that it belongs to.
        for id in self.tid.filter(|tid| *tid != self.pid).into_iter().chain([self.pid]) {
            loop {
                match waitpid(id, Some(WaitPidFlag::__WALL)) {
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => break,
                    Err(Errno::ECHILD) => break,
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => panic!("waiting for a victim: {error}"),
                }
            }
        }
    }
}

/// Whether this process has one thread. One that was joined may still be listed for a moment.
fn is_single_threaded() -> bool {
    let begun = Instant::now();
    loop {
        if std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1) {
            return true;
        }
        if begun.elapsed() > Duration::from_secs(1) {
            return false;
        }
        std::thread::yield_now();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.end();
    }
}
