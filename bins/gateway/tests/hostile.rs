//! Hostile memory against a real gateway under load: lanes that are truncated, scribbled over, given away, replaced. The
//! gateway lives, the other lanes lose nothing, no session ends, nobody sees what is not his; the lane is quarantined with
//! a reason, and comes back when its file was removed and its producer started anew.
//!
//! `BELLWIRE_HOSTILE_SECONDS` says how long the scribbler is at work (3); `BELLWIRE_HOSTILE_SEED` where it begins.

mod common;

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellwire::{Notification, Priority, Producer, ProducerOptions, PublishError};
use common::{Bench, Client, Gateway, PATIENCE, text_of, token, trade};

/// Capacity of each ring of a hostile lane.
const RING: u64 = 64 << 10;
/// Length of a lane's header, and of such a lane.
const HEADER: u64 = 8192;
const LANE_LEN: u64 = HEADER + 4 * RING;

#[tokio::test]
async fn a_lane_truncated_under_load_is_quarantined_and_nobody_else_notices() {
    let place = Place::new();
    let mut gateway = place.gateway();
    let (mut others, mut vera) =
        (Others::start(&place, &gateway).await, Watched::new(&gateway, "vera").await);
    let mut cuts = 0;
    // Nothing left; half a page of the P0 ring; the middle; all but the last byte but one page.
    for cut in [0, HEADER + 2048, LANE_LEN / 2, LANE_LEN - 4097] {
        cuts += 1;
        let mut victim = place.spawn("publisher", &format!("v{cuts}-"));
        vera.until(|texts| texts.iter().filter(|text| text.starts_with(&format!("v{cuts}-"))).count() > 200)
            .await;
        File::options().write(true).open(place.lane("hostile")).unwrap().set_len(cut).unwrap();
        let reason = format!("truncated while in use: its file has {cut} bytes, {LANE_LEN} were mapped");
        place.until_logged(&[&reason, "lane=hostile", "lane is read no further"]).await;
        // Its producer, which is under the guard too, is told the same and ends.
        let status = place.ends(&mut victim).await;
        let mut words = String::new();
        victim.stdout.take().unwrap().read_to_string(&mut words).unwrap();
        assert!(status.success() && words.contains(&reason), "{status}: {words}");
        // To get it back: the producer has ended, remove the file, start it.
        std::fs::remove_file(place.lane("hostile")).unwrap();
        let mut anew = place.spawn("publisher", &format!("w{cuts}-"));
        vera.until(|texts| texts.iter().filter(|text| text.starts_with(&format!("w{cuts}-"))).count() > 50)
            .await;
        drop(anew.stdin.take());
        assert!(place.ends(&mut anew).await.success());
    }
    // Each run of hers without a gap or a doubling, as far as it came.
    let mut runs: BTreeMap<String, u64> = BTreeMap::new();
    for text in vera.texts() {
        let (run, number) = text.split_once('-').unwrap();
        let next = runs.entry(run.to_owned()).or_default();
        assert_eq!(number, next.to_string(), "in run {run}");
        *next += 1;
    }
    assert_eq!(runs.len(), 2 * cuts);
    let delivered = others.finish().await;
    vera.is_open();
    gateway.terminate();
    assert!(gateway.wait().success());
    println!(
        "truncated: {cuts} cuts under load, {delivered} notifications of the other lanes, 0 lost, 0 sessions closed"
    );
}

#[tokio::test]
async fn without_the_guard_a_truncated_lane_ends_the_gateway() {
    let place = Place::new();
    // The same gateway, started by something else than its `main`, which is what installs the guard.
    let mut gateway = Gateway::start(place.bench.child("unguarded gateway"));
    let mut vera = Watched::new(&gateway, "vera").await;
    let mut victim = place.spawn("publisher", "v-");
    vera.until(|texts| texts.len() > 50).await;
    File::options().write(true).open(place.lane("hostile")).unwrap().set_len(0).unwrap();
    assert_eq!(gateway.wait().signal(), Some(nix::libc::SIGBUS));
    place.ends(&mut victim).await;
}

#[tokio::test]
async fn a_process_that_scribbles_over_its_lane_harms_nobody_but_itself() {
    let seconds = number_from("BELLWIRE_HOSTILE_SECONDS", 3);
    let first = number_from("BELLWIRE_HOSTILE_SEED", 1);
    let place = Place::new();
    let mut gateway = place.gateway();
    let mut others = Others::start(&place, &gateway).await;
    let mut mallory = Watched::new(&gateway, "mallory").await;
    let begun = Instant::now();
    let (mut attacks, mut writes) = (0, 0);
    // Every area at least once, however slow the machine.
    while attacks < AREAS.len() as u64 + 1 || begun.elapsed() < Duration::from_secs(seconds) {
        let seed = first + attacks;
        let name = format!("s{seed}-");
        let mut scribbler = place.spawn("scribbler", &name);
        // It begins as a producer like others; whatever was done to the lane before, it is back.
        mallory.until(|texts| texts.iter().any(|text| text.starts_with(&name))).await;
        scribbler.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        let quarantined = place.quarantines();
        let patience = Instant::now() + Duration::from_millis(300);
        while place.quarantines() == quarantined && Instant::now() < patience {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(scribbler.stdin.take());
        place.ends(&mut scribbler).await;
        let mut words = String::new();
        scribbler.stdout.take().unwrap().read_to_string(&mut words).unwrap();
        let count = words.lines().find_map(|line| line.strip_prefix("scribbles "));
        writes += count.unwrap_or_else(|| panic!("seed {seed}: {words}")).parse::<u64>().unwrap();
        if attacks % 3 == 2 {
            place.misplace(attacks / 3).await;
        }
        std::fs::remove_file(place.lane("hostile")).unwrap();
        attacks += 1;
    }
    let delivered = others.finish().await;
    mallory.is_open();
    gateway.terminate();
    assert!(gateway.wait().success(), "{}", place.log());
    let reasons = place.reasons();
    assert!(reasons.values().sum::<u64>() >= attacks / 3 && reasons.len() >= 3, "{reasons:?}");
    println!("scribbler: {attacks} attacks, {writes} writes, quarantined for {reasons:?}");
    println!("scribbler: {delivered} notifications of the other lanes, 0 lost, 0 foreign, 0 sessions closed");
}

#[tokio::test]
async fn a_journal_or_cursors_that_are_truncated_are_an_orderly_end_with_a_reason() {
    // The engine below has the gateway's cursors mapped.
    bellwire::guard_mappings().unwrap();
    for target in ["journal", "cursors"] {
        let mut place = Place::new();
        place.bench.set("SESSION_DRAIN_MS", "1000");
        let mut gateway = place.gateway();
        let mut anna = Watched::new(&gateway, "anna").await;
        let mut engine = place.bench.producer("engine");
        for number in 0..100 {
            engine.publish(&trade("anna", &number.to_string())).unwrap();
        }
        anna.until(|texts| texts.len() == 100).await;
        let path = match target {
            "journal" => place.journal_segment(),
            _ => place.segment("cursors.gateway"),
        };
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        let _ = engine.publish(&trade("anna", "goes nowhere"));
        let status = gateway.wait();
        assert_eq!((status.code(), status.signal()), (Some(1), None), "{}", place.log());
        let log = place.log();
        assert!(log.contains(path.to_str().unwrap()) && log.contains("its file has 0 bytes"), "{log}");
        // The next start names the file as well; without it the gateway is up again, and nothing is shown twice.
        let output = place.bench.command().stdin(Stdio::null()).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && words.contains(path.to_str().unwrap()), "{words}");
        std::fs::remove_file(&path).unwrap();
        let gateway = place.gateway();
        let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
        // What was not read before is still in its lane.
        engine.publish(&trade("anna", "after")).unwrap();
        while anna.texts().last().is_none_or(|text| text != "after") {
            anna.next().await.unwrap();
        }
        assert!(
            anna.texts().iter().all(|text| ["goes nowhere", "after"].contains(&&**text)),
            "{:?}",
            anna.texts()
        );
    }
}

#[tokio::test]
async fn a_published_record_that_the_journal_lost_ends_the_streams_and_clients_are_told() {
    let place = Place::new();
    let gateway = place.gateway();
    let mut engine = place.bench.producer("engine");
    let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
    for number in 0..10 {
        engine.publish(&trade("anna", &number.to_string())).unwrap();
    }
    anna.until_got(10).await;
    // Killed before that, it would read the last record from the lane again, and nothing would be lost.
    place.bench.until_read("engine").await;
    gateway.kill();
    // One bit of the last entry: to the journal alone it looks torn by the kill, but the cursors know that it was whole.
    let path = place.journal_segment();
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let gateway = place.gateway();
    let mut again = Client::resumed(&gateway.url, &token("anna"), &anna.positions).await;
    again.until("resync").await;
    engine.publish(&trade("anna", "10")).unwrap();
    assert_eq!(again.until_got(1).await, ["10"]);
    assert_ne!(again.positions["user"].0, anna.positions["user"].0, "another epoch");
    assert!(place.log().contains("all_streams_begin_anew=true"), "{}", place.log());
    // Once and for all: the next start changes nothing.
    gateway.kill();
    let gateway = place.gateway();
    let mut back = Client::resumed(&gateway.url, &token("anna"), &again.positions).await;
    engine.publish(&trade("anna", "11")).unwrap();
    assert_eq!(back.until_got(1).await, ["11"]);
    assert_eq!(back.positions["user"].0, again.positions["user"].0);
}

/// A bus, a gateway's log, and what is done to lanes.
struct Place {
    bench: Bench,
    log: PathBuf,
}

impl Place {
    fn new() -> Self {
        let bench = Bench::new().with("SESSION_HEARTBEAT_MS", "1000");
        let log = bench.dir.path().join("log");
        Self { bench, log }
    }

    fn gateway(&self) -> Gateway {
        let mut command = self.bench.command();
        command.stderr(File::options().create(true).append(true).open(&self.log).unwrap());
        Gateway::start(command)
    }

    fn segment(&self, name: &str) -> PathBuf {
        Path::new("/dev/shm").join(format!("bellwire.{}.{name}", self.bench.bus))
    }

    fn lane(&self, name: &str) -> PathBuf {
        self.segment(&format!("lane.{name}"))
    }

    fn journal_segment(&self) -> PathBuf {
        let dir = std::fs::read_dir(self.bench.dir.path().join("journal")).unwrap();
        let mut paths = dir.map(|entry| entry.unwrap().path());
        paths.find(|path| path.extension().is_some_and(|extension| extension == "journal")).unwrap()
    }

    fn spawn(&self, role: &str, prefix: &str) -> Child {
        let mut command = self.bench.child(role);
        command.env("TEST_BUS", &self.bench.bus).env("TEST_PREFIX", prefix);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    async fn ends(&self, child: &mut Child) -> std::process::ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "a child does not end");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    async fn until_logged(&self, words: &[&str]) {
        let end = Instant::now() + PATIENCE;
        while !self.log().lines().any(|line| words.iter().all(|word| line.contains(word))) {
            assert!(Instant::now() < end, "never logged: {words:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn quarantines(&self) -> usize {
        self.log().matches("lane is read no further").count()
    }

    /// Why lanes were quarantined, in the first words of each reason.
    fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = BTreeMap::new();
        for line in self.log().lines().filter(|line| line.contains("lane is read no further")) {
            assert!(line.contains("lane=hostile"), "only that one: {line}");
            let fault = line.split_once("fault=").expect("a reason").1;
            let words = fault.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
            *reasons.entry(words.take(4).collect::<Vec<_>>().join(" ")).or_default() += 1;
        }
        reasons
    }

    /// Gives the lane another mode or owner, or puts something else in its place, while the gateway has it mapped.
    async fn misplace(&self, which: u64) {
        let path = self.lane("hostile");
        let moment = || tokio::time::sleep(Duration::from_millis(120));
        match which % 5 {
            0 => std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap(),
            1 if nix::unistd::geteuid().is_root() => {
                std::os::unix::fs::chown(&path, Some(4711), Some(4711)).unwrap();
            }
            2 => {
                std::fs::remove_file(&path).unwrap();
                nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
                self.until_logged(&["lane=hostile", "a FIFO"]).await;
            }
            3 => {
                std::fs::remove_file(&path).unwrap();
                std::os::unix::fs::symlink(self.lane("engine"), &path).unwrap();
                self.until_logged(&["lane=hostile", "a symbolic link"]).await;
            }
            _ => {
                std::fs::remove_file(&path).unwrap();
                File::create(&path).unwrap().set_len(1 << 40).unwrap();
                self.until_logged(&["lane=hostile", "not a segment of this kind"]).await;
            }
        }
        moment().await;
    }
}

/// Two good producers under load, each for two users, whose sessions must get all of it.
struct Others {
    stop: Arc<AtomicBool>,
    producers: Vec<std::thread::JoinHandle<usize>>,
    clients: Vec<Watched>,
}

impl Others {
    const NAMES: [&str; 2] = ["engine", "risk"];

    async fn start(place: &Place, gateway: &Gateway) -> Self {
        let clients = vec![Watched::new(gateway, "anna").await, Watched::new(gateway, "bert").await];
        let stop = Arc::new(AtomicBool::new(false));
        let producers = Self::NAMES.map(|name| {
            let (mut producer, stop) = (place.bench.producer(name), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    for user in ["anna", "bert"] {
                        let text = format!("{name}-{count}");
                        producer.publish(&trade(user, &text)).unwrap();
                    }
                    count += 1;
                    std::thread::sleep(Duration::from_micros(500));
                }
                count
            })
        });
        Self { stop, producers: producers.into(), clients }
    }

    /// Checks that each client got everything of both, in order, once; tells how much that was.
    async fn finish(&mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let counts: Vec<usize> = self.producers.drain(..).map(|thread| thread.join().unwrap()).collect();
        let total: usize = counts.iter().sum();
        for client in &mut self.clients {
            client.until(|texts| texts.len() >= total).await;
            let texts = client.texts();
            for (name, count) in Self::NAMES.iter().zip(&counts) {
                let of_this: Vec<_> = texts.iter().filter(|text| text.starts_with(name)).collect();
                assert_eq!(of_this.len(), *count, "{}: of {name}", client.user);
                let ordered = of_this.iter().enumerate().all(|(at, text)| **text == format!("{name}-{at}"));
                assert!(ordered, "{}: {name} out of order", client.user);
            }
            assert_eq!(texts.len(), total, "{}: something of nobody", client.user);
            client.is_open();
        }
        2 * total
    }
}

/// A session that is read all the time; it may get nothing that is not its user's.
struct Watched {
    user: String,
    texts: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<String>,
}

impl Watched {
    async fn new(gateway: &Gateway, user: &str) -> Self {
        let mut client = Client::subscribed(&gateway.url, &token(user)).await;
        let texts = Arc::new(Mutex::new(Vec::new()));
        let (shared, name) = (Arc::clone(&texts), user.to_owned());
        let task = tokio::spawn(async move {
            loop {
                if let Err(ended) = client.next().await {
                    return format!("{ended:?}");
                }
                for (_, _, data) in client.got.drain(..) {
                    assert_eq!(data["user_id"], *name, "foreign: {data}");
                    shared.lock().unwrap().push(text_of(&data));
                }
            }
        });
        Self { user: user.to_owned(), texts, task }
    }

    fn texts(&self) -> Vec<String> {
        self.texts.lock().unwrap().clone()
    }

    async fn until(&mut self, is_so: impl Fn(&[String]) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so(&self.texts.lock().unwrap()) {
            assert!(Instant::now() < end, "{}: {} came, then nothing", self.user, self.texts().len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn is_open(&self) {
        assert!(!self.task.is_finished(), "the session of {} has ended", self.user);
    }
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// What this binary does as a child of its tests. In the parent, which has no such environment, nothing.
#[test]
fn child() {
    let Ok(role) = std::env::var("TEST_ROLE") else { return };
    match &*role {
        "publisher" => publisher(),
        "scribbler" => scribbler(),
        "unguarded gateway" => unguarded_gateway(),
        other => panic!("no role {other}"),
    }
}

fn hostile_lane() -> (Producer, String) {
    let options = Priority::ALL.into_iter().fold(ProducerOptions::new(), |o, p| o.capacity(p, RING as usize));
    let bus = std::env::var("TEST_BUS").unwrap();
    (options.open(&bus, "hostile").unwrap(), std::env::var("TEST_PREFIX").unwrap())
}

/// Whether the parent has closed our standard input or written to it.
fn parent_has_spoken() -> Arc<AtomicBool> {
    let spoken = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&spoken);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        shared.store(true, Ordering::Relaxed);
    });
    spoken
}

/// Publishes for vera as fast as the ring allows, until the parent closes our input or the lane is gone.
fn publisher() {
    bellwire::guard_mappings().unwrap();
    let (mut producer, prefix) = hostile_lane();
    let stop = parent_has_spoken();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        match producer.publish(&trade("vera", &format!("{prefix}{number}"))) {
            Ok(_) => number += 1,
            Err(PublishError::Full { .. }) => {}
            Err(error) => return println!("\n{error}"),
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Where it hurts: identity, doorbell, commit and reservation lines, landmarks, acks, records, anywhere.
const AREAS: [(u64, u64); 8] = [
    (0, 256),
    (256, 384),
    (384, 400),
    (512, 540),
    (640, 640 + 1024),
    (384 + 4 * 1280, HEADER),
    (HEADER, HEADER + RING),
    (0, LANE_LEN),
];

/// A producer that publishes for mallory in good order until it is told to go, and then scribbles over its own lane while
/// it publishes on.
fn scribbler() {
    let (mut producer, prefix) = hostile_lane();
    let seed = prefix.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap();
    let lane = File::options()
        .write(true)
        .open(format!("/dev/shm/bellwire.{}.lane.hostile", std::env::var("TEST_BUS").unwrap()));
    let lane = lane.unwrap();
    let mut publish = |number: u64| {
        let text = format!("{prefix}{number}");
        let note: Notification<'_> = trade("mallory", &text);
        let _ = producer.publish(&note.with_priority(Priority::ALL[number as usize % 4]));
    };
    let go = parent_has_spoken();
    let mut number = 0;
    while !go.load(Ordering::Relaxed) {
        publish(number);
        number += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    let stop = parent_has_spoken_again();
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (from, to) = AREAS[seed as usize % AREAS.len()];
    let (mut scribbles, mut publishes) = (0_u64, true);
    while !stop.load(Ordering::Relaxed) {
        // Everything is tried in its own ring, too: the same line of each.
        let ring = if (384..1664).contains(&from) { 1280 * (random.next() % 4) } else { 0 };
        let at = from + ring + random.next() % (to - from);
        let word = match random.next() % 6 {
            0 => u64::MAX - random.next() % 64,
            1 => random.next() % 100_000,
            2 => 16 * (random.next() % 10_000),
            3 => 1 << (random.next() % 64),
            4 => 0,
            _ => random.next(),
        };
        let len = 1 + random.next() as usize % 8;
        let at = (at & !(7 * (random.next() % 2))).min(LANE_LEN - 8);
        lane.write_all_at(&word.to_le_bytes()[..len], at).unwrap();
        scribbles += 1;
        if scribbles % 16 == 0 && publishes {
            // A producer trusts its own lane: over a scribbled one it may panic, in a debug build.
            publishes = catch_unwind(AssertUnwindSafe(|| publish(number))).is_ok();
            number += 1;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    println!("\nscribbles {scribbles}");
}

fn parent_has_spoken_again() -> Arc<AtomicBool> {
    let closed = Arc::new(AtomicBool::new(false));
    let shared = Arc::clone(&closed);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        shared.store(true, Ordering::Relaxed);
    });
    closed
}

/// xorshift64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Everything that the gateway's `main` does but the guard.
fn unguarded_gateway() {
    let environment = std::env::vars().filter(|(name, _)| name.starts_with("BELLWIRE_"));
    let config = bellwire_gateway::config::Config::load(None, environment).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let entered = runtime.enter();
    let listener = bellwire_gateway::gateway::listen(config.listen.address).unwrap();
    let address = listener.local_addr().unwrap();
    drop(entered);
    let doors = bellwire_gateway::doors::Doors::open(&config).unwrap();
    let keeper = bellwire_gateway::doors::Keeper::start(Arc::clone(&doors), &config).unwrap();
    let load = Box::new({
        let config = config.clone();
        move || Ok(config.clone())
    });
    let level = bellwire_gateway::log::Level::fixed();
    let reloader = Arc::new(bellwire_gateway::reload::Reloader::new(&config, load, keeper, level));
    let started = || println!("\nlistening ws://{address}");
    let pending = std::future::pending();
    runtime.block_on(bellwire_gateway::gateway::run(&reloader, &doors, listener, pending, started)).unwrap();
}
