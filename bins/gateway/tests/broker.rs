//! The broker with real shared memory, a real journal and real kills.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bellwire::inspect::LaneStatus;
use bellwire::{
    AccountUpdate, Channel, MarginCall, MessageId, Notification, OrderRejected, Priority, Producer,
    ProducerOptions, PublishError,
};
use bellwire_gateway::broker::{BrokerConfig, BrokerRunning, ShardSignal, StopError, start};
use bellwire_journal::{Journal, JournalConfig, SEGMENT_BYTES_MIN, SyncPolicy};

const BUS: &str = "BELLWIRE_TEST_BUS";
const DIR: &str = "BELLWIRE_TEST_DIR";
const WINDOW: &str = "BELLWIRE_TEST_WINDOW";

/// A bus and a journal of one test; both go when it does.
struct Place {
    bus: String,
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self { bus: format!("t-broker-{}-{number}", std::process::id()), dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> BrokerConfig {
        config(&self.bus, &self.dir.path().join("journal"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for segment in bellwire::inspect::segments(&self.bus).unwrap_or_default() {
            let _ = std::fs::remove_file(segment.path);
        }
    }
}

fn config(bus: &str, dir: &Path) -> BrokerConfig {
    let journal = JournalConfig {
        segment_bytes: 8 * SEGMENT_BYTES_MIN,
        sync: SyncPolicy::None,
        chain: None,
        ..JournalConfig::new(dir)
    };
    BrokerConfig::new(bus, journal)
}

fn sized(bytes: usize) -> ProducerOptions {
    Priority::ALL
        .into_iter()
        .fold(ProducerOptions::new(), |options, priority| options.capacity(priority, bytes))
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether the producer has promised not to overtake the broker; what it published before may have been overwritten.
fn is_acknowledged(bus: &str, producer: &str) -> bool {
    LaneStatus::read(bus, producer, None).is_ok_and(|lane| {
        lane.consumers.iter().any(|consumer| consumer.name == "gateway" && consumer.attachment != 0)
    })
}

fn account<'a>(user: &'a str) -> Notification<'a> {
    let update = AccountUpdate {
        user_id: user,
        balance: 1.0,
        available: 1.0,
        frozen: 0.0,
        margin: 0.0,
        position_profit: 0.0,
        close_profit: 0.0,
        risk_ratio: 0.0,
        timestamp: 1,
    };
    Notification::new(user, "AccountSystem", update)
}

fn rejected<'a>(user: &'a str, order_id: &'a str) -> Notification<'a> {
    let rejected =
        OrderRejected { order_id, instrument_id: "IX2401", reason: "margin", error_code: 7, timestamp: 1 };
    Notification::new(user, "MatchingEngine", rejected)
}

fn publish(producer: &mut Producer, notification: &Notification<'_>) -> bellwire::Published {
    loop {
        match producer.publish(notification) {
            Ok(published) => return published,
            Err(PublishError::Full { .. }) => std::thread::sleep(Duration::from_micros(200)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// The broker of a child process: runs until it is killed, or stops in order when its standard input ends. In the parent,
/// which has no such environment, it does nothing.
#[test]
fn child() {
    let Ok(bus) = std::env::var(BUS) else { return };
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    let dedup_window = std::env::var(WINDOW).unwrap().parse().unwrap();
    let running = start(BrokerConfig { dedup_window, ..config(&bus, &dir) }, Vec::new()).expect("a broker");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    running.stop(Duration::from_secs(10)).expect("an orderly end");
}

fn spawn(place: &Place, dedup_window: usize) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(BUS, &place.bus)
        .env(DIR, place.dir.path().join("journal"))
        .env(WINDOW, dedup_window.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// One journal entry, in short.
struct Line {
    lane: u64,
    priority: u8,
    lane_sequence: u64,
    user: String,
    seq: u64,
    epoch: u32,
    is_trade: bool,
    id: MessageId,
}

fn journalled(config: BrokerConfig) -> Vec<Line> {
    let (journal, _) = Journal::open(config.journal, 1, &mut |_, _| Ok(())).unwrap();
    let mut reader = journal.reader();
    let mut lines = Vec::new();
    let mut at = reader.start();
    while let Some(entry) = reader.entry(at) {
        let view = entry.view().expect("a sound record");
        lines.push(Line {
            lane: entry.lane,
            priority: entry.header.priority,
            lane_sequence: entry.header.lane_sequence,
            user: view.user_id().to_owned(),
            seq: entry.seq,
            epoch: entry.epoch,
            is_trade: view.message_type().channel() == Channel::Trade,
            id: view.message_id,
        });
        at = entry.next;
    }
    lines
}

/// The first promise that the journal breaks.
fn broken_promise(lines: &[Line]) -> Option<String> {
    let mut rings: HashMap<(u64, u8), u64> = HashMap::new();
    let mut trades: HashMap<(u64, &str), u64> = HashMap::new();
    let mut streams: HashMap<&str, (u64, u32)> = HashMap::new();
    for line in lines {
        let last = rings.insert((line.lane, line.priority), line.lane_sequence).unwrap_or(0);
        if last >= line.lane_sequence {
            return Some(format!("P{}: {} after {last}", line.priority, line.lane_sequence));
        }
        if line.is_trade {
            let last = trades.insert((line.lane, &line.user), line.lane_sequence).unwrap_or(0);
            if last >= line.lane_sequence {
                return Some(format!("{}: trade record {} after {last}", line.user, line.lane_sequence));
            }
        }
        let (head, epoch) = streams.entry(&line.user).or_insert((0, line.epoch));
        *head += 1;
        if (*head, *epoch) != (line.seq, line.epoch) {
            return Some(format!("{}: seq {} epoch {} at {head}", line.user, line.seq, line.epoch));
        }
    }
    None
}

/// A producer's work: all priorities, many users, some ids twice if asked. Gives the ids that the journal must have.
fn produce(bus: &str, name: &str, until: Instant, seed: u64, resend: bool) -> (Vec<MessageId>, usize) {
    let mut producer = sized(32 << 10).open(bus, name).unwrap();
    let mut ids = Vec::new();
    let mut twice = 0;
    wait_until("acknowledged", || {
        ids.push(publish(&mut producer, &account("first")).message_id);
        std::thread::sleep(Duration::from_millis(20));
        is_acknowledged(bus, name)
    });
    let mut random = seed;
    while Instant::now() < until {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let draw = (random >> 33) as usize;
        let user = format!("user_{}", draw % 20);
        let priority = [Priority::P0, Priority::P1, Priority::P1, Priority::P2, Priority::P3][draw / 20 % 5];
        let notification = if draw.is_multiple_of(3) { account(&user) } else { rejected(&user, "order-77") };
        let notification = notification.with_priority(priority);
        let published = publish(&mut producer, &notification);
        ids.push(published.message_id);
        if resend && draw.is_multiple_of(50) {
            // As a producer does who replays its own log.
            publish(&mut producer, &notification.with_message_id(published.message_id));
            twice += 1;
        }
    }
    (ids, twice)
}

#[test]
fn a_broker_killed_again_and_again_journals_everything_once_and_in_order() {
    // Far fewer ids than are read again after a kill: they are recognised by their lane sequence alone.
    kill_again_and_again(8, false);
}

#[test]
fn a_broker_killed_again_and_again_still_knows_ids_that_are_sent_twice() {
    kill_again_and_again(10_000, true);
}

fn kill_again_and_again(dedup_window: usize, resend: bool) {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let place = Place::new();
    let until = Instant::now() + Duration::from_secs(3);
    let mut broker = spawn(&place, dedup_window);
    let (expected, twice, kills) = std::thread::scope(|scope| {
        let names = ["matching-engine", "risk", "account"];
        let threads: Vec<_> = names
            .into_iter()
            .zip(seed..)
            .map(|(name, seed)| {
                let bus = &place.bus;
                scope.spawn(move || produce(bus, name, until, seed, resend))
            })
            .collect();
        let mut kills = 0;
        let mut pause = seed;
        while Instant::now() < until {
            pause = pause.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis(60 + (pause >> 40) % 150));
            broker.kill().unwrap();
            broker.wait().unwrap();
            broker = spawn(&place, dedup_window);
            kills += 1;
        }
        let mut expected = Vec::new();
        let mut twice = 0;
        for thread in threads {
            let (ids, again) = thread.join().unwrap();
            expected.extend(ids);
            twice += again;
        }
        (expected, twice, kills)
    });
    drop(broker.stdin.take());
    assert!(broker.wait().unwrap().success(), "the last broker drains and ends in order");

    let lines = journalled(place.config());
    println!("{} records, {twice} of them twice, {kills} kills", expected.len());
    assert!(kills >= 10 && expected.len() > 1000, "{kills} kills, {} records", expected.len());
    if let Some(promise) = broken_promise(&lines) {
        panic!("{promise} (seed {seed})");
    }
    let mut found: HashMap<MessageId, usize> = HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        if let Some(before) = found.insert(line.id, index) {
            // A producer that did not run for long enough sent it again when the window had forgotten it.
            let between = index - before - 1;
            assert!(resend && between >= dedup_window, "an id again after {between} others (seed {seed})");
        }
    }
    let missing = expected.iter().filter(|id| !found.contains_key(*id)).count();
    assert_eq!((missing, found.len()), (0, expected.len()), "records are missing (seed {seed})");
}

#[test]
fn the_check_of_the_promises_finds_what_breaks_them() {
    let line = |lane_sequence, priority, seq, epoch| Line {
        lane: 1,
        priority,
        lane_sequence,
        user: "user".to_owned(),
        seq,
        epoch,
        is_trade: true,
        id: MessageId::compose(1, lane_sequence, 1),
    };
    assert_eq!(broken_promise(&[line(1, 1, 1, 5), line(2, 0, 2, 5)]), None);
    for wrong in [
        [line(2, 1, 1, 5), line(1, 1, 2, 5)],
        [line(2, 0, 1, 5), line(1, 1, 2, 5)],
        [line(1, 1, 1, 5), line(2, 1, 3, 5)],
        [line(1, 1, 1, 5), line(2, 1, 2, 6)],
    ] {
        assert!(broken_promise(&wrong).is_some());
    }
}

/// A shard that counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl ShardSignal for Bell {
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn ask<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn start_with(place: &Place) -> (BrokerRunning, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    (start(place.config(), vec![Arc::clone(&bell) as Arc<dyn ShardSignal>]).unwrap(), bell)
}

#[test]
fn what_is_published_is_numbered_read_in_place_and_known_to_queries() {
    let place = Place::new();
    let (running, bell) = start_with(&place);
    let queries = running.queries();
    let unknown = ask(queries.stream("user")).unwrap();
    assert_eq!((unknown.head, unknown.oldest, unknown.last_offset), (0, 1, 0));
    let mut producer = Producer::open(&place.bus, "engine").unwrap();
    producer.publish(&account("user")).unwrap();
    producer.publish(&rejected("user", "order-1")).unwrap();
    wait_until("journalled", || ask(queries.stream("user")).unwrap().head == 2);
    assert!(bell.0.load(Ordering::Relaxed) > 0);
    let (state, snapshot) = ask(queries.snapshot("user")).unwrap();
    assert_eq!((state.epoch, state.oldest), (unknown.epoch, 1), "what was told before came true");
    let mut reader = running.reader();
    assert_eq!((reader.end(), snapshot.len()), (state.journal_end, 1));
    assert_eq!(reader.entry(snapshot[0]).unwrap().view().unwrap().message_type().name(), "account_update");
    assert_eq!(reader.entry(state.last_offset).unwrap().seq, 2);
    let lanes = running.counters().lanes();
    let sum =
        |counts: &[bellwire_gateway::broker::Count; 4]| counts.iter().map(|count| count.get()).sum::<u64>();
    assert_eq!((lanes[0].name.as_str(), sum(&lanes[0].read), sum(&lanes[0].journalled)), ("engine", 2, 2));
    running.stop(Duration::from_secs(5)).unwrap();
    assert!(ask(queries.stream("user")).is_err(), "nobody answers any more");
}

#[test]
fn stopping_drains_what_is_in_the_lanes_and_a_start_goes_on_behind_it() {
    let place = Place::new();
    let mut producer = Producer::open(&place.bus, "engine").unwrap();
    for _ in 0..2000 {
        producer.publish(&account("user")).unwrap();
    }
    start_with(&place).0.stop(Duration::from_secs(5)).unwrap();
    assert_eq!(journalled(place.config()).len(), 2000);
    producer.publish(&account("user")).unwrap();
    let (running, _) = start_with(&place);
    wait_until("journalled", || ask(running.queries().stream("user")).unwrap().head == 2001);
    assert_eq!(running.counters().lanes()[0].read[2].get(), 1, "only the new one was read");
    running.stop(Duration::from_secs(5)).unwrap();
}

#[test]
fn cursors_that_are_lost_bring_nothing_twice() {
    let place = Place::new();
    let mut producer = Producer::open(&place.bus, "engine").unwrap();
    for _ in 0..500 {
        producer.publish(&account("user")).unwrap();
    }
    start_with(&place).0.stop(Duration::from_secs(5)).unwrap();
    std::fs::remove_file(format!("/dev/shm/bellwire.{}.cursors.gateway", place.bus)).unwrap();
    let (running, _) = start_with(&place);
    wait_until("read again", || {
        running.counters().lanes().first().is_some_and(|lane| lane.read[2].get() == 500)
    });
    assert_eq!(running.counters().lanes()[0].duplicate[2].get(), 500);
    running.stop(Duration::from_secs(5)).unwrap();
    assert_eq!(journalled(place.config()).len(), 500);
}

#[test]
fn p0_is_not_kept_waiting_by_a_flood_of_the_others() {
    let place = Place::new();
    let (running, _) = start_with(&place);
    let stop = AtomicBool::new(false);
    let mut waits = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut producer = Producer::open(&place.bus, "flood").unwrap();
            while !stop.load(Ordering::Relaxed) {
                for priority in [Priority::P2, Priority::P3] {
                    let _ = producer.publish(&account("flooded").with_priority(priority)); // full is what is wanted
                }
            }
        });
        let mut producer = Producer::open(&place.bus, "risk").unwrap();
        let reader = running.reader();
        for _ in 0..200 {
            std::thread::sleep(Duration::from_millis(2));
            let call = MarginCall {
                user_id: "user",
                current_margin: 1.0,
                required_margin: 2.0,
                deadline: 3,
                message: "",
                timestamp: 4,
            };
            let begun = Instant::now();
            let published = producer.publish(&Notification::new("user", "risk", call)).unwrap();
            let mut at = reader.end();
            let mut own = reader.clone();
            loop {
                match own.entry(at) {
                    Some(entry) if entry.header.message_id == published.message_id => break,
                    Some(entry) => at = entry.next,
                    None => std::thread::yield_now(),
                }
                // It may have been journalled before we looked where the end is.
                if begun.elapsed() > Duration::from_secs(5)
                    || entry_count(&running, "risk") == published.lane_sequence
                {
                    break;
                }
            }
            waits.push(begun.elapsed());
        }
        stop.store(true, Ordering::Relaxed);
    });
    waits.sort();
    println!("P0 in the journal: half within {:?}, 99 % within {:?}", waits[100], waits[198]);
    assert_eq!(entry_count(&running, "risk"), 200);
    let _ = running.stop(Duration::from_secs(5));
}

fn entry_count(running: &BrokerRunning, lane: &str) -> u64 {
    let lanes = running.counters().lanes();
    lanes.iter().find(|counters| counters.name == lane).map_or(0, |lane| lane.journalled[0].get())
}

/// A file system of its own, small enough to fill. Needs the right to mount.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_stops_the_reading_loses_nothing_and_is_over_when_there_is_room() {
    let Some(disk) = SmallDisk::new(5 * SEGMENT_BYTES_MIN) else {
        println!("skipped: no right to mount a small file system");
        return;
    };
    let place = Place::new();
    let ballast = disk.0.path().join("ballast");
    std::fs::write(&ballast, vec![1; 2 * SEGMENT_BYTES_MIN as usize]).unwrap();
    let journal =
        JournalConfig { segment_bytes: SEGMENT_BYTES_MIN, retain_bytes: 1 << 30, ..place.config().journal };
    let journal = JournalConfig { dir: disk.0.path().join("journal"), ..journal };
    let config = BrokerConfig { journal, ..place.config() };
    let running = start(config.clone(), Vec::new()).unwrap();
    let mut producer = sized(16 << 10).open(&place.bus, "engine").unwrap();
    let queries = running.queries();
    let mut sent = 0;
    wait_until("acknowledged", || {
        producer.publish(&account("user")).unwrap();
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
        is_acknowledged(&place.bus, "engine")
    });
    // Until nobody takes anything any more.
    wait_until("full", || match producer.publish(&account("user")) {
        Ok(_) => {
            sent += 1;
            false
        }
        Err(PublishError::Full { .. }) => running.counters().is_disk_full(),
        Err(error) => panic!("{error}"),
    });
    let before = ask(queries.stream("user")).unwrap();
    assert!(before.head < sent, "questions are answered while nothing is read");
    assert_eq!(running.counters().disk_full_total.get(), 1);
    // The next segment fits when the ballast is gone.
    std::fs::remove_file(&ballast).unwrap();
    wait_until("read on", || ask(queries.stream("user")).unwrap().head == sent);
    assert!(!running.counters().is_disk_full());

    // And it may be full when the gateway is told to stop: that is said.
    wait_until("full again", || match producer.publish(&account("user")) {
        Ok(_) => {
            sent += 1;
            false
        }
        Err(PublishError::Full { .. }) => running.counters().is_disk_full(),
        Err(error) => panic!("{error}"),
    });
    assert!(matches!(running.stop(Duration::from_secs(5)), Err(StopError::Undrained { disk_full: true })));
    let lines = journalled(config);
    assert_eq!(broken_promise(&lines), None);
    assert!((lines.len() as u64) < sent);
}
