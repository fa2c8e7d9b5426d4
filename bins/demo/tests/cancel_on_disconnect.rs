//! The example engine beside a real gateway and real clients: orders go with a user's last session, and with no other.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEY: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(30);

/// Binaries of other packages: those that the environment names, or built now.
fn binary(name: &str, package: &str, variable: &str) -> PathBuf {
    if let Some(built) = std::env::var_os(variable) {
        return built.into();
    }
    let built = Command::new(env!("CARGO")).args(["build", "--package", package, "--bin", name]).status();
    assert!(built.unwrap().success());
    PathBuf::from(env!("CARGO_BIN_EXE_cancel-on-disconnect")).with_file_name(name)
}

/// A process that goes with the test, and what it says.
struct Process {
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let streams: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                BufReader::new(stream)
                    .lines()
                    .map_while(Result::ok)
                    .for_each(|line| said.lock().unwrap().push(line));
            });
        }
        Self { child, said }
    }

    fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    #[track_caller]
    fn until(&self, text: &str, times: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.said();
            if said.iter().filter(|line| line.contains(text)).count() >= times {
                return said;
            }
            assert!(Instant::now() < deadline, "no {text:?} ({times} times) in {said:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Site {
    bus: String,
    dir: PathBuf,
    address: String,
}

impl Site {
    fn new(name: &str) -> Self {
        let bus = format!("cod-{}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(&bus);
        std::fs::create_dir_all(&dir).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        Self { bus, dir, address }
    }

    fn gateway(&self) -> Process {
        let gateway = Process::start(
            Command::new(binary("bellwire-gateway", "bellwire-gateway", "BELLWIRE_GATEWAY"))
                .env("BELLWIRE_BUS_NAME", &self.bus)
                .env("BELLWIRE_PRESENCE_BUS", format!("{}-sessions", self.bus))
                .env("BELLWIRE_PRESENCE_RESET_S", "1")
                .env("BELLWIRE_LISTEN_ADDRESS", &self.address)
                .env("BELLWIRE_LISTEN_SHARDS", "2")
                .env("BELLWIRE_JOURNAL_DIR", self.dir.join("journal"))
                .env("BELLWIRE_JOURNAL_SEGMENT_BYTES", (1 << 20).to_string())
                .env("BELLWIRE_TOKEN_KEY", KEY),
        );
        gateway.until("listening ", 1);
        gateway
    }

    fn engine(&self) -> Process {
        Process::start(Command::new(env!("CARGO_BIN_EXE_cancel-on-disconnect")).args([
            "--bus",
            &self.bus,
            "--presence-bus",
            &format!("{}-sessions", self.bus),
            "--grace",
            "700",
            "--gateway-grace",
            "1500",
        ]))
    }

    fn client(&self, user: &str) -> Process {
        let client =
            Process::start(Command::new(binary("bellwirectl", "bellwire-ctl", "BELLWIRE_CTL")).args([
                "listen",
                &format!("ws://{}", self.address),
                "--user",
                user,
                "--key",
                KEY,
                "--reconnect",
            ]));
        client.until("listening as", 1);
        client
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for bus in [self.bus.clone(), format!("{}-sessions", self.bus)] {
            for segment in bellwire::inspect::segments(&bus).unwrap() {
                let _ = std::fs::remove_file(segment.path);
            }
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn orders_go_with_the_last_session_and_with_no_other() {
    let site = Site::new("last");
    let _gateway = site.gateway();
    let engine = site.engine();
    let (first, second) = (site.client("anna"), site.client("anna"));
    let other = site.client("berta");
    engine.until("anna: 3 orders in the book", 1);
    engine.until("berta: 3 orders in the book", 1);
    // The control: a session goes, but not the last; and one that comes back in time.
    drop(first);
    std::thread::sleep(Duration::from_millis(1_200));
    drop(other);
    std::thread::sleep(Duration::from_millis(200));
    let other = site.client("berta");
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(!engine.said().iter().any(|line| line.contains("canceled")), "{:#?}", engine.said());
    drop(second);
    let said = engine.until("anna: 3 orders canceled", 1);
    assert!(!said.iter().any(|line| line.contains("berta: 3 orders canceled")), "{said:#?}");
    // He finds it when he is back.
    let back = site.client("anna");
    engine.until("anna: 3 orders in the book", 2);
    drop((back, other));
    engine.until("berta: 3 orders canceled", 1);
}

#[test]
fn a_restarted_gateway_cancels_nothing_and_a_dead_one_everything() {
    let site = Site::new("dead");
    let mut gateway = site.gateway();
    let engine = site.engine();
    let client = site.client("anna");
    engine.until("anna: 3 orders in the book", 1);
    gateway.child.kill().unwrap();
    gateway.child.wait().unwrap();
    let gateway = site.gateway();
    // The client comes back by itself, within the grace time.
    client.until("listening as", 2);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!engine.said().iter().any(|line| line.contains("canceled")), "{:#?}", engine.said());
    drop(gateway);
    engine.until("anna: 3 orders canceled", 1);
}

/// An engine that comes late, or again, learns who is connected by the next reset; one that was away while a user went, too.
#[test]
fn an_engine_that_was_away_knows_who_is_there_and_who_has_gone() {
    let site = Site::new("late");
    let _gateway = site.gateway();
    let anna = site.client("anna");
    let berta = site.client("berta");
    let engine = site.engine();
    engine.until("anna: 3 orders in the book", 1);
    engine.until("berta: 3 orders in the book", 1);
    drop(engine);
    drop(anna);
    std::thread::sleep(Duration::from_millis(300));
    let engine = site.engine();
    engine.until("berta: 3 orders in the book", 1);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(!engine.said().iter().any(|line| line.contains("anna")), "{:#?}", engine.said());
    drop(berta);
}
