//! What a service manager sees of a gateway, and what it hands over: driven here by hand; scripts/proofs/systemd has a real one.

mod common;

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, Gateway, PATIENCE};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

/// The manager's end.
struct Manager {
    socket: UnixDatagram,
    path: std::path::PathBuf,
    lines: VecDeque<String>,
}

impl Manager {
    fn new(bench: &Bench) -> Self {
        let path = bench.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        Self { socket, path, lines: VecDeque::new() }
    }

    /// The next line, if one comes within that time.
    fn line_within(&mut self, time: Duration) -> Option<String> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let mut message = [0; 4096];
            match self.socket.recv(&mut message) {
                Ok(len) => {
                    let text = String::from_utf8(message[..len].to_vec()).unwrap();
                    self.lines.extend(text.lines().map(str::to_owned));
                }
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => {}
            }
        }
    }

    #[track_caller]
    fn until(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let Some(line) = self.line_within(Duration::from_millis(100)) else { continue };
            if line.starts_with(wanted) {
                return line;
            }
            seen.push(line);
        }
        panic!("no {wanted:?} among {seen:?}");
    }

    /// How often that comes within that time.
    fn count(&mut self, wanted: &str, time: Duration) -> usize {
        let deadline = Instant::now() + time;
        let mut count = 0;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            count += usize::from(self.line_within(left).is_some_and(|line| line == wanted));
        }
        count
    }
}

const WATCHDOG: Duration = Duration::from_millis(900);

#[test]
fn readiness_reloads_and_the_end_are_told_and_the_watchdog_is_fed_while_nothing_happens() {
    let bench = Bench::new();
    let mut manager = Manager::new(&bench);
    let (mut gateway, _) = bench.gateway_with_log(|command| {
        command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    });
    manager.until("READY=1");
    assert!(manager.until("STATUS=").contains("serving ws://"));
    // Idle: nothing is published, nobody is connected. Three meals in the watchdog's time, on a machine that may be busy.
    assert!(manager.count("WATCHDOG=1", WATCHDOG * 4) >= 5);
    assert_eq!(manager.until("STATUS="), "STATUS=0 sessions");
    kill(pid(&gateway), Signal::SIGHUP).unwrap();
    manager.until("RELOADING=1");
    manager.until("MONOTONIC_USEC=");
    manager.until("READY=1");
    gateway.terminate();
    manager.until("STOPPING=1");
    assert!(gateway.wait().success());
}

/// A broker that hangs while everything else goes on: one thread is stopped by ptrace, nothing in the gateway knows of it.
#[test]
fn a_broker_that_hangs_is_not_hidden_by_threads_that_go_on() {
    let bench = Bench::new();
    let mut manager = Manager::new(&bench);
    let (gateway, log) = bench.gateway_with_log(|command| {
        command.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    });
    manager.until("WATCHDOG=1");
    // A shard begins with a question to the broker: it must have begun.
    let address = gateway.url.trim_start_matches("ws://");
    let mut answer = [0; 12];
    greet(address).read_exact(&mut answer).unwrap();
    let broker = Stopped::new(thread_named(pid(&gateway), "broker"));
    // One meal may have been due already.
    manager.count("WATCHDOG=1", WATCHDOG / 2);
    assert_eq!(manager.count("WATCHDOG=1", WATCHDOG * 3), 0);
    assert!(std::fs::read_to_string(log).unwrap().contains("the broker makes no progress"));
    // The rest lives: a connection is greeted.
    greet(address).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    // The control: it goes on, and so does the feeding.
    drop(broker);
    manager.until("WATCHDOG=1");
}

/// A thread that stands still until this is dropped. It is let go also when a test fails: while a thread is traced, nobody can wait
/// for the end of its process.
struct Stopped(Pid);

impl Stopped {
    fn new(thread: Pid) -> Self {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        let stopped = Self(thread);
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}

fn pid(gateway: &Gateway) -> Pid {
    Pid::from_raw(gateway.pid() as i32)
}

/// A thread has its name, and takes it, only once it runs: waited for. Another one may end meanwhile.
fn thread_named(pid: Pid, name: &str) -> Pid {
    let is_wanted = |task: &std::path::PathBuf| {
        std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        if let Some(task) = tasks.map(|task| task.unwrap().path()).find(is_wanted) {
            return Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no thread {name}");
}

/// The gateway with these sockets from descriptor 3 on, as systemd starts it. A shell puts its own pid into the environment, which
/// stays the gateway's.
fn activated(bench: &Bench, sockets: &[i32], count: usize) -> Command {
    let plain = bench.command();
    let mut command = Command::new("sh");
    command.args(["-c", "export LISTEN_PID=$$; exec \"$0\""]).arg(plain.get_program()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("LISTEN_FDS", count.to_string());
    let sockets = sockets.to_vec();
    let place = move || {
        for (index, socket) in sockets.iter().enumerate() {
            // SAFETY: dup2 is async-signal-safe; both are numbers, of which the first is open in the test.
            if unsafe { nix::libc::dup2(*socket, 3 + index as i32) } < 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec nothing but dup2 is called.
    unsafe { command.pre_exec(place) };
    command
}

/// A request for a WebSocket, as the protocol's page has it.
fn greet(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: bellwire.v1.json\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn with_a_socket_of_the_manager_a_client_that_comes_between_two_gateways_waits_and_is_served() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // High enough not to be in the way of descriptor 3.
    let socket = nix::fcntl::fcntl(&listener, nix::fcntl::FcntlArg::F_DUPFD(100)).unwrap();
    let gateway = Gateway::start(activated(&bench, &[socket], 1));
    assert_eq!(gateway.url, format!("ws://{address}"));
    let mut answer = [0; 12];
    greet(&address).read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    gateway.kill();
    let mut waiting = greet(&address);
    std::thread::sleep(Duration::from_millis(200));
    let gateway = Gateway::start(activated(&bench, &[socket], 1));
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    gateway.kill();

    // The control: a gateway with a socket of its own takes it along.
    let gateway = bench.gateway();
    let address = gateway.url.trim_start_matches("ws://").to_owned();
    drop(greet(&address));
    gateway.kill();
    assert_eq!(TcpStream::connect(&address).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let _ = nix::unistd::close(socket);
}

#[test]
fn what_is_no_listening_socket_and_more_than_one_are_clear_errors() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let local = std::os::unix::net::UnixListener::bind(bench.dir.path().join("local")).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let cases = [
        (vec![listener.as_raw_fd(), listener.as_raw_fd()], 2, "2 sockets were handed over"),
        (vec![connected.as_raw_fd()], 1, "does not listen"),
        (vec![local.as_raw_fd()], 1, "another family"),
        (vec![file.as_raw_fd()], 1, "no socket"),
    ];
    for (sockets, count, words) in cases {
        let high: Vec<i32> = sockets
            .iter()
            // SAFETY: the descriptor is open for as long as this loop runs.
            .map(|socket| unsafe { std::os::fd::BorrowedFd::borrow_raw(*socket) })
            .map(|socket| nix::fcntl::fcntl(socket, nix::fcntl::FcntlArg::F_DUPFD(100)).unwrap())
            .collect();
        let output = activated(&bench, &high, count).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(words), "{said}");
        high.into_iter().for_each(|socket| assert!(nix::unistd::close(socket).is_ok()));
    }
}
