//! The gateway at the edges: a shard that retention has passed, a journal that was tampered with, clocks that jump, clients
//! that take every file descriptor.

mod common;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bellwire::{MessageId, Notification, Producer, PublishError, UserHash};
use bellwire_journal::ChainKey;
use bellwire_journal::inspect::{Anchor, Listing, Step, Walk, verify};
use common::{
    Bench, Client, Ended, PATIENCE, in_seconds, notice, numbers, text_of, token, token_with, trade,
};
use serde_json::json;

const SEGMENT: u64 = 1 << 20;

/// A bench with a journal of small segments, of which it keeps that many, and one shard.
fn bench(segments: u64) -> Bench {
    Bench::new()
        .with("JOURNAL_SEGMENT_BYTES", &SEGMENT.to_string())
        .with("JOURNAL_RETAIN_BYTES", &(segments * SEGMENT).to_string())
        .with("LISTEN_SHARDS", "1")
}

fn publish(engine: &mut Producer, notification: &Notification<'_>) {
    let end = Instant::now() + PATIENCE;
    while let Err(error) = engine.publish(notification) {
        assert!(matches!(error, PublishError::Full { .. }) && Instant::now() < end, "{error}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Segment files of the journal, oldest first.
fn segments(bench: &Bench) -> Vec<PathBuf> {
    let files = std::fs::read_dir(bench.dir.path().join("journal")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "journal")).collect();
    paths.sort();
    paths
}

/// Somebody else's records, until every present segment has left the journal.
fn push_out(bench: &Bench, engine: &mut Producer) {
    let filler = "x".repeat(20_000);
    let before = segments(bench);
    let end = Instant::now() + PATIENCE;
    while segments(bench).iter().any(|path| before.contains(path)) {
        assert!(Instant::now() < end, "retention does not happen");
        for _ in 0..20 {
            publish(engine, &trade("filler", &filler));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stops one thread of a process, so that the others go on without it.
struct StoppedThread(nix::unistd::Pid);

impl StoppedThread {
    fn new(pid: u32, name: &str) -> Self {
        use nix::sys::wait::{WaitPidFlag, waitpid};
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
        let is_it = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name;
        let task = tasks.into_iter().find(is_it).unwrap_or_else(|| panic!("no thread {name}"));
        let tid = nix::unistd::Pid::from_raw(task.file_name().unwrap().to_str().unwrap().parse().unwrap());
        nix::sys::ptrace::seize(tid, nix::sys::ptrace::Options::empty()).unwrap();
        nix::sys::ptrace::interrupt(tid).unwrap();
        waitpid(tid, Some(WaitPidFlag::__WALL)).unwrap();
        Self(tid)
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        nix::sys::ptrace::detach(self.0, None).unwrap();
    }
}

#[tokio::test]
async fn a_shard_that_retention_has_passed_closes_its_sessions_and_nobody_resumes_in_part() {
    let bench = bench(2);
    let (gateway, log) = bench.gateway_with_log(|_| ());
    let mut engine = bench.producer("engine");
    let token = token("anna");
    let mut client = Client::subscribed(&gateway.url, &token).await;
    publish(&mut engine, &trade("anna", "0"));
    publish(&mut engine, &notice("1"));
    client.until_got(2).await;

    // The shard stands still; the broker goes on.
    let stopped = StoppedThread::new(gateway.pid(), "shard-0");
    for number in 2..6 {
        publish(&mut engine, &trade("anna", &number.to_string()));
        publish(&mut engine, &notice(&number.to_string()));
    }
    push_out(&bench, &mut engine);
    push_out(&bench, &mut engine);
    drop(stopped);
    assert_eq!(client.until_end().await, Ended::Close(4002));
    // If the shard slept just then, the broker may have pushed some of it; but nothing out of turn.
    for (stream, published) in [("user", ["0", "2", "3", "4", "5"]), ("all", ["1", "2", "3", "4", "5"])] {
        let got = client.got.iter().filter(|(name, _, _)| name == stream).map(|(_, _, data)| text_of(data));
        let got: Vec<_> = got.collect();
        assert!(!got.is_empty() && published.map(str::to_owned).starts_with(&got), "{stream}: {got:?}");
    }
    assert!(std::fs::read_to_string(&log).unwrap().contains("overrun by retention"));

    // Of both streams something is gone for good. It has to be said, although nothing new has come in either.
    let mut back = Client::login(&gateway.url, &token).await;
    let point = |name: &str| json!({"epoch": client.positions[name].0, "seq": client.positions[name].1});
    let joined = back.subscribe(json!({"resume": {"user": point("user"), "all": point("all")}})).await;
    for stream in ["user", "all"] {
        assert_eq!(joined["streams"][stream]["recovered"], false, "{stream}: {joined}");
    }
    for _ in 0..2 {
        let resync = back.until("resync").await;
        assert!(resync["why"] == "epoch_changed" || resync["why"] == "too_old", "{resync}");
    }
    publish(&mut engine, &trade("anna", "6"));
    publish(&mut engine, &notice("7"));
    let mut got = back.until_got(2).await;
    got.sort_unstable();
    assert_eq!(got, ["6", "7"]);
}

/// Makes a record of `from` in a closed segment one of `to`, both of the same length, under the gateway's eyes: what a fault
/// of its own could do. At the next start the crc would find it.
fn tamper(segment: &Path, text: &str, from: &str, to: &str) {
    let file = OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut bytes = Vec::new();
    (&file).read_to_end(&mut bytes).unwrap();
    let mut at = 128;
    loop {
        let len = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert!(len > 0, "no such entry");
        let find = |what: &str| bytes[at..at + len].windows(what.len()).position(|w| w == what.as_bytes());
        if let (Some(_), Some(user)) = (find(text), find(from)) {
            file.write_all_at(to.as_bytes(), (at + user) as u64).unwrap();
            // In the record's header, which stands behind the entry's.
            file.write_all_at(&UserHash::of(to).0.to_le_bytes(), at as u64 + 48 + 12).unwrap();
            return;
        }
        at += len;
    }
}

#[tokio::test]
async fn a_foreign_record_in_a_stream_ends_the_session_before_it_is_shown() {
    let bench = bench(64);
    let (mut gateway, log) = bench.gateway_with_log(|_| ());
    let mut engine = bench.producer("engine");
    let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
    for number in 0..5 {
        publish(&mut engine, &trade("anna", &format!("of-anna-{number}")));
    }
    client.until_got(5).await;
    let epoch = client.positions["user"].0.clone();
    push_out_of_the_last_segment(&bench, &mut engine);
    drop(client);
    tamper(&segments(&bench)[0], "of-anna-2", "anna", "bert");

    let mut anna = Client::login(&gateway.url, &token("anna")).await;
    anna.send(json!({"op": "subscribe", "id": 2, "resume": {"user": {"epoch": epoch, "seq": 0}}})).await;
    assert_eq!(anna.until_end().await, Ended::Close(1011));
    assert!(anna.got.iter().all(|(_, _, data)| data["user_id"] == "anna"), "{:?}", anna.got);
    assert!(anna.got.len() < 3, "nothing behind it either");
    // Whom it names has it in no stream of his.
    let mut bert = Client::subscribed(&gateway.url, &token("bert")).await;
    bert.assert_silent(Duration::from_millis(200)).await;
    // And the gateway goes on for everybody.
    publish(&mut engine, &trade("bert", "on"));
    assert_eq!(bert.until_got(1).await, ["on"]);
    drop((anna, bert));
    gateway.terminate();
    assert!(gateway.wait().success());
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("a foreign record on the send path") && log.contains("user_mismatch=1"), "{log}");
}

/// Whoever keeps the log elsewhere has what finds a journal that was altered together with its chain.
#[tokio::test]
async fn the_log_says_what_vouches_for_the_journal_and_what_has_gone_from_it() {
    let bench = bench(64);
    let (mut gateway, log) = bench.gateway_with_log(|_| ());
    let mut engine = bench.producer("engine");
    let text = "x".repeat(1_000);
    for _ in 0..1_500 {
        publish(&mut engine, &trade("anna", &text));
    }
    bench.until_read("engine").await;
    gateway.terminate();
    assert!(gateway.wait().success());

    // A line for each segment that is full, and one for the last at the end.
    let said = std::fs::read_to_string(&log).unwrap();
    let field = |line: &str, name: &str| {
        let value = line.split(&format!("{name}=")).nth(1).unwrap().split_whitespace().next().unwrap();
        value.trim_matches('"').to_owned()
    };
    let anchors: Vec<Anchor> = said
        .lines()
        .filter(|line| line.contains("journal chain"))
        .map(|line| ["segment", "records", "link"].map(|name| field(line, name)).join(":").parse().unwrap())
        .collect();
    let journal = bench.dir.path().join("journal");
    assert!(anchors.len() >= 2 && anchors.len() == segments(&bench).len(), "{said}");
    let verdict = |anchors: &[Anchor]| {
        let listing = Listing::read(&journal).unwrap();
        verify(listing, &ChainKey::public(), anchors, &mut |_| ()).unwrap()
    };
    assert_eq!((verdict(&anchors).finding, verdict(&anchors).anchors_held), (None, anchors.len()));
    let last = *anchors.last().unwrap();

    // A start that finds all of them says nothing of the kind.
    let (mut gateway, log) = bench.gateway_with_log(|_| ());
    gateway.terminate();
    assert!(gateway.wait().success());
    assert!(!std::fs::read_to_string(&log).unwrap().contains("chain are gone"));

    // Three records are taken from the end, and the crcs do not tell.
    let path = segments(&bench).pop().unwrap();
    let mut walk = Walk::new(Listing::read(&journal).unwrap());
    let mut places = Vec::new();
    while let Step::Entry(found) = walk.step().unwrap() {
        if found.base == last.base {
            places.push(found.at);
        }
    }
    assert_eq!(places.len() as u64, last.records);
    let file = OpenOptions::new().write(true).open(path).unwrap();
    // All are of one length.
    let len = (places[1] - places[0]) as usize;
    file.write_all_at(&vec![0; 3 * len], places[places.len() - 3]).unwrap();
    let (mut gateway, log) = bench.gateway_with_log(|_| ());
    gateway.terminate();
    assert!(gateway.wait().success());
    let said = std::fs::read_to_string(&log).unwrap();
    let gone = said.lines().find(|line| line.contains("in the journal's chain are gone"));
    let gone = gone.unwrap_or_else(|| panic!("not said:\n{said}"));
    assert_eq!((field(gone, "missing"), field(gone, "last")), ("3".to_owned(), last.link.to_string()));
    assert!(verdict(&[last]).finding.is_some(), "the anchor holds no longer");
}

#[tokio::test]
async fn a_chain_that_cannot_be_written_is_said_once_and_stops_nothing() {
    let bench = bench(64);
    drop(bench.gateway());
    let chain = segments(&bench)[0].with_extension("chain");
    let _ = std::fs::remove_file(&chain);
    std::fs::create_dir(&chain).unwrap();
    let (gateway, log) = bench.gateway_with_log(|_| ());
    let said = |words: &str| std::fs::read_to_string(&log).unwrap().matches(words).count();
    let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut engine = bench.producer("engine");
    // Long enough for many attempts.
    for number in 0..10 {
        publish(&mut engine, &trade("anna", &number.to_string()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(client.until_got(10).await, numbers(0..10));
    assert_eq!((said("chain cannot be written"), said("chain is written again")), (1, 0));
    std::fs::remove_dir(&chain).unwrap();
    let end = Instant::now() + PATIENCE;
    while said("chain is written again") == 0 {
        assert!(Instant::now() < end, "it is not tried again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(said("chain cannot be written"), 1);
}

fn push_out_of_the_last_segment(bench: &Bench, engine: &mut Producer) {
    let filler = "x".repeat(20_000);
    let last = segments(bench).pop();
    while segments(bench).last() == last.as_ref() {
        publish(engine, &trade("filler", &filler));
    }
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const DAYS: i64 = 3 * 24 * 3600;

#[tokio::test]
async fn a_wall_clock_that_jumps_by_days_loses_doubles_and_deletes_nothing() {
    if !Path::new(FAKETIME).exists() {
        assert!(std::env::var_os("BELLWIRE_PROOF").is_none(), "libfaketime is not installed");
        println!("skipped: libfaketime is not installed");
        return;
    }
    const EACH: usize = 300;
    let bench = bench(64).with("JOURNAL_RETAIN_AGE_S", "3600").with("SESSION_HEARTBEAT_MS", "1000");
    let clock = bench.dir.path().join("clock");
    // Renamed into place: it is read while it is written.
    let set_clock = |seconds: i64| {
        std::fs::write(clock.with_extension("new"), format!("{seconds:+}\n")).unwrap();
        std::fs::rename(clock.with_extension("new"), &clock).unwrap();
    };
    set_clock(0);
    let on_that_clock = |command: &mut std::process::Command| {
        command
            .env("LD_PRELOAD", FAKETIME)
            .env("FAKETIME_TIMESTAMP_FILE", &clock)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    };
    let (mut gateway, log) = bench.gateway_with_log(on_that_clock);
    let mut engine = bench.producer("engine");
    let long = token_with(json!({"sub": "anna", "exp": in_seconds(2 * DAYS)}));
    let mut client = Client::subscribed(&gateway.url, &long).await;
    let mut short = Client::subscribed(&gateway.url, &token("bert")).await;
    let padding = "x".repeat(4000);
    let id = |number: usize| MessageId::compose(1, number as u64, 1);
    let text = |number: usize| format!("{number} {padding}");
    let expected = |count: usize| (0..count).map(text).collect::<Vec<_>>();
    let mut published = 0;
    for offset in [0, DAYS, -DAYS, 0] {
        set_clock(offset);
        tokio::time::sleep(Duration::from_millis(200)).await;
        if offset == DAYS {
            // A token ends when the gateway's wall clock says so: the one of an hour now, the one of six days not.
            assert_eq!(short.until_end().await, Ended::Close(4503));
        }
        if offset == DAYS {
            // The token that the client has is still good for three days of the jumped clock.
            let fresh = token_with(json!({"sub": "anna", "exp": in_seconds(2 * DAYS)}));
            client.send(json!({"op": "auth", "id": 9, "token": fresh})).await;
        }
        for _ in 0..EACH {
            publish(&mut engine, &trade("anna", &text(published)).with_message_id(id(published)));
            published += 1;
            // What was sent before the jump is still known after it.
            let again = published.saturating_sub(EACH / 2);
            publish(&mut engine, &trade("anna", &text(again)).with_message_id(id(again)));
        }
        assert_eq!(client.until_got(published).await, expected(published), "at {offset:+} s");
        // Retention by age had its chance; everything from the first record on can still be had.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut late = Client::login(&gateway.url, &long).await;
        let epoch = client.positions["user"].0.clone();
        late.subscribe(json!({"resume": {"user": {"epoch": epoch, "seq": 0}}})).await;
        assert_eq!(
            late.until_got(published).await,
            expected(published),
            "from the beginning, at {offset:+} s"
        );
    }
    assert!(segments(&bench).len() > 3, "there were segments to delete");
    drop(client);
    gateway.terminate();
    assert!(gateway.wait().success());
    // A latency is recorded only where both clocks were the same.
    let log = std::fs::read_to_string(log).unwrap();
    let line = log.lines().find(|line| line.contains("publish to kernel") && line.contains("class=1"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    let count = line.split("count=").nth(1).unwrap().split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!((EACH..=8 * EACH).contains(&count), "{line}");
    println!("edges: wall clock by 3 days forth and back: {published} published, each once, nothing deleted");
}

/// Time that the process has spent on processors, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn clients_that_take_every_descriptor_stop_neither_the_flow_nor_those_who_are_there() {
    let bench = bench(64).with("LIMITS_HANDSHAKE_MS", "4000");
    let (gateway, log) = bench.gateway_with_log(|command| {
        // SAFETY: setrlimit is async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                use nix::sys::resource::{Resource, setrlimit};
                setrlimit(Resource::RLIMIT_NOFILE, 100, 100).map_err(std::io::Error::from)
            })
        };
    });
    let mut engine = bench.producer("engine");
    let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
    publish(&mut engine, &trade("anna", "0"));
    client.until_got(1).await;
    let address = gateway.url.trim_start_matches("ws://").to_owned();
    // They connect and say nothing.
    let crowd: Vec<_> = (0..300).map_while(|_| std::net::TcpStream::connect(&address).ok()).collect();
    assert_eq!(crowd.len(), 300, "the backlog takes them");
    let open_files = || std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
    let end = Instant::now() + PATIENCE;
    while open_files() < 100 {
        assert!(Instant::now() < end, "{} files are open", open_files());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Nothing spins.
    let before = ticks(gateway.pid());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spent = ticks(gateway.pid()) - before;
    assert!(spent < 30, "{spent} ticks of 10 ms in a second");
    // The journal needs new files meanwhile.
    let filler = "x".repeat(20_000);
    let count = 600;
    for number in 1..count {
        publish(&mut engine, &trade("anna", &number.to_string()));
        publish(&mut engine, &trade("filler", &filler));
    }
    assert_eq!(client.until_got(count).await, numbers(0..count));
    assert!(segments(&bench).len() > 5);
    assert!(std::fs::read_to_string(&log).unwrap().contains("cannot accept"));
    // And when they have gone, there is room again.
    drop(crowd);
    let end = Instant::now() + PATIENCE;
    while Client::try_connect(&gateway.url, "", "").await.is_err() {
        assert!(Instant::now() < end, "there is no room again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut next = Client::subscribed(&gateway.url, &token("bert")).await;
    publish(&mut engine, &trade("bert", "on"));
    assert_eq!(next.until_got(1).await, ["on"]);
}

#[tokio::test]
async fn a_position_beyond_every_number_is_refused_and_so_is_a_sequence_that_no_client_can_hold() {
    let bench = bench(64);
    let mut gateway = bench.gateway();
    let mut engine = bench.producer("engine");
    let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
    for number in 0..3 {
        publish(&mut engine, &trade("anna", &number.to_string()));
    }
    client.until_got(3).await;
    let epoch = client.positions["user"].0.clone();
    for seq in [4, (1 << 53) + 1, u64::MAX - 1, u64::MAX] {
        client
            .send(json!({"op": "subscribe", "id": 3, "resume": {"user": {"epoch": epoch, "seq": seq}}}))
            .await;
        assert_eq!(client.until("error").await["code"], 4511, "{seq}");
    }
    push_out_of_the_last_segment(&bench, &mut engine);
    drop(client);
    gateway.terminate();
    assert!(gateway.wait().success());

    // The stream's entries get numbers of the end of time.
    let file = OpenOptions::new().read(true).write(true).open(&segments(&bench)[0]).unwrap();
    let shift = |file: &File, at: u64, by: u64| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, at).unwrap();
        file.write_all_at(&(u64::from_le_bytes(word).wrapping_add(by)).to_le_bytes(), at).unwrap();
    };
    shift(&file, 128 + 8, u64::MAX - 4);
    let output = bench.command().stderr(Stdio::piped()).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("damaged at byte 128"), "{words}");
}
