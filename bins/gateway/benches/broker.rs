//! What a record costs in the journal and in the broker, and how long a start with a full journal takes.
//!
//! `cargo bench -p bellwire-gateway --bench broker`; an argument gives the journal's size for the start, in MiB,
//! `BENCH_PARTS=append,bus,start` chooses, `BENCH_DIR` says where (the directory is deleted in the end).

use std::path::Path;
use std::time::{Duration, Instant};

use bellwire::{
    AccountUpdate, Direction, FillType, Notification, Offset, Payload, PositionUpdate, Priority, Producer,
    RECORD_HEADER_LEN, RecordHeader, TradeExecuted,
};
use bellwire_gateway::broker::{BrokerConfig, start};
use bellwire_journal::{Facts, Journal, JournalConfig, SyncPolicy};

const USERS: usize = 10_000;

fn main() {
    let mib = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(1024);
    let dir = tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned()))
        .expect("a directory");
    let parts = std::env::var("BENCH_PARTS").unwrap_or_else(|_| "append bus start".to_owned());
    if parts.contains("append") {
        append(&dir.path().join("append"));
    }
    if parts.contains("bus") {
        through_the_bus(&dir.path().join("bus"));
    }
    if parts.contains("start") {
        cold_start(&dir.path().join("start"), mib);
    }
}

fn config(dir: &Path) -> JournalConfig {
    JournalConfig { retain_bytes: 1 << 40, sync: SyncPolicy::None, ..JournalConfig::new(dir) }
}

fn trade(user: &str) -> Notification<'_> {
    let trade = TradeExecuted {
        trade_id: "T-2024-000001",
        order_id: "O-2024-000001",
        exchange_order_id: "X-000001",
        instrument_id: "IX2401",
        direction: Direction::Buy,
        offset: Offset::Open,
        price: 3250.5,
        volume: 2.0,
        commission: 1.2,
        fill_type: FillType::Full,
        timestamp: 1_728_123_456_000_000_000,
    };
    Notification::new(user, "MatchingEngine", trade)
}

/// Two trades, an account update, a position update, and so on.
fn mixed(number: usize, user: &str) -> Notification<'_> {
    const INSTRUMENTS: [&str; 4] = ["IX2401", "IX2402", "IX2403", "IX2404"];
    match number % 4 {
        0 | 1 => trade(user),
        2 => Notification::new(
            user,
            "AccountSystem",
            AccountUpdate {
                user_id: user,
                balance: 1.0,
                available: 1.0,
                frozen: 1.0,
                margin: 1.0,
                position_profit: 1.0,
                close_profit: 1.0,
                risk_ratio: 0.5,
                timestamp: 1,
            },
        ),
        _ => Notification::new(
            user,
            "PositionTracker",
            Payload::PositionUpdate(PositionUpdate {
                user_id: user,
                instrument_id: INSTRUMENTS[number / 4 % 4],
                volume_long: 1.0,
                volume_short: 1.0,
                cost_long: 1.0,
                cost_short: 1.0,
                profit_long: 1.0,
                profit_short: 1.0,
                timestamp: 1,
            }),
        ),
    }
}

/// The journal alone: room, copy, check, append; published every 64 records.
fn append(dir: &Path) {
    let record = bellwire::to_record(&trade("user_00001"), 1, 1, 1).expect("a record");
    let header = RecordHeader::from_bytes(record.first_chunk().expect("a header"));
    let archive = &record[RECORD_HEADER_LEN..][..header.archive_len as usize];
    let mut journal = Journal::open(config(dir), 1, &mut |_, _| Ok(())).expect("a journal").0;
    let mut prev = 0;
    let mut one = |journal: &mut Journal, seq: u64| {
        let room = journal.room(archive.len(), 1).expect("room");
        room.archive.copy_from_slice(archive);
        header.view(room.archive).expect("a sound record");
        let facts = Facts { seq, prev, epoch: 1, slot: 0, lane: 1, journalled_at: 1 };
        prev = journal.append(&header, &facts);
        if seq.is_multiple_of(64) {
            journal.publish().expect("published");
        }
    };
    let count = 1_000_000u64;
    let begun = Instant::now();
    for seq in 1..=count {
        one(&mut journal, seq);
    }
    let each = begun.elapsed().as_nanos() / u128::from(count);
    // Once more, each looked at: what a P0 record may have to wait for.
    let mut longest = Duration::ZERO;
    let mut slow = 0;
    for seq in count + 1..=2 * count {
        let begun = Instant::now();
        one(&mut journal, seq);
        longest = longest.max(begun.elapsed());
        slow += u32::from(begun.elapsed() > Duration::from_micros(100));
    }
    println!(
        "journal: {each} ns a record of {} bytes (copied, checked, crc); of {count}, {slow} took more than 100 µs, the \
         longest {longest:?}",
        record.len()
    );
}

/// From a lane into the journal, while the producer publishes.
fn through_the_bus(dir: &Path) {
    let bus = format!("bench-broker-{}", std::process::id());
    let users: Vec<_> = (0..USERS).map(|user| format!("user_{user:05}")).collect();
    let mut producer = Producer::open(&bus, "engine").expect("a lane");
    let running = start(BrokerConfig::new(&bus, config(dir)), Vec::new()).expect("a broker");
    let counters = running.counters();
    let journalled = || counters.lanes().first().map_or(0, |lane| lane.journalled[1].get());
    let mut publish = |number: usize| {
        let notification = mixed(number, &users[number * 7919 % USERS]).with_priority(Priority::P1);
        while producer.publish(&notification).is_err() {
            std::thread::yield_now();
        }
    };
    // Until the producer respects the broker's cursor and the tables have their size.
    for number in 0..50 {
        publish(number);
        std::thread::sleep(Duration::from_millis(5));
    }
    for number in 50..50_000 {
        publish(number);
    }
    let wait = |count: usize| {
        while journalled() < count as u64 {
            std::thread::sleep(Duration::from_micros(100));
        }
    };
    wait(50_000);
    let (begun, cpu) = (Instant::now(), broker_cpu());
    let count = 1_000_000;
    for number in 0..count {
        publish(number);
    }
    wait(50_000 + count);
    let (each, cpu) = (begun.elapsed().as_nanos() / count as u128, (broker_cpu() - cpu) / count as u64);
    println!(
        "broker: {cpu} ns of its thread's time a record, lane to journal, {USERS} users; {} records a second beside \
         the producer",
        1_000_000_000 / each
    );
    running.stop(Duration::from_secs(5)).expect("an orderly end");
    drop(producer);
    let _ = bellwire::inspect::remove_unheld(&bus);
}

/// What the broker's thread has used so far, ns.
fn broker_cpu() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a list of threads");
    let is_broker =
        |path: &Path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "broker");
    let task =
        tasks.flatten().map(|task| task.path()).find(|path| is_broker(path)).expect("the broker's thread");
    let used = std::fs::read_to_string(task.join("schedstat")).expect("its time");
    used.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn is_summary(file: &std::fs::DirEntry) -> bool {
    file.path().extension().is_some_and(|extension| extension == "summary")
}

/// A start with a journal of that many MiB: in the page cache, as after a restart of the gateway.
fn cold_start(dir: &Path, mib: u64) {
    let users: Vec<_> = (0..USERS).map(|user| format!("user_{user:05}")).collect();
    let mut journal = Journal::open(config(dir), 1, &mut |_, _| Ok(())).expect("a journal").0;
    let mut heads = vec![(0, 0); USERS];
    let mut count = 0;
    while journal.retained_bytes() <= mib << 20 {
        let user = count * 7919 % USERS;
        let record =
            bellwire::to_record(&mixed(count, &users[user]), count as u64 + 1, 1, 1).expect("a record");
        let header = RecordHeader::from_bytes(record.first_chunk().expect("a header"));
        let room = journal.room(header.archive_len as usize, 1).expect("room");
        room.archive.copy_from_slice(&record[RECORD_HEADER_LEN..][..header.archive_len as usize]);
        let (seq, prev) = heads[user];
        let facts = Facts { seq: seq + 1, prev, epoch: 1, slot: user as u32, lane: 1, journalled_at: 1 };
        heads[user] = (seq + 1, journal.append(&header, &facts));
        count += 1;
    }
    drop(journal);
    let bus = format!("bench-start-{}", std::process::id());
    let full = || std::fs::read_dir(dir).map_or(0, |files| files.flatten().filter(is_summary).count());
    for turn in 1..=3 {
        let summaries = full();
        let begun = Instant::now();
        let running = start(BrokerConfig::new(&bus, config(dir)), Vec::new()).expect("a broker");
        println!(
            "start {turn}: {:?} for {mib} MiB, {count} records, {USERS} users, all tables, {summaries} summaries",
            begun.elapsed()
        );
        // Made behind the start, slowly.
        let segments = (mib << 20) / bellwire_journal::SEGMENT_BYTES_DEFAULT;
        let patience = Instant::now() + Duration::from_secs(120);
        while full() + 1 < segments as usize && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(100));
        }
        running.stop(Duration::from_secs(5)).expect("an orderly end");
    }
    let begun = Instant::now();
    drop(Journal::open(config(dir), 1, &mut |_, _| Ok(())).expect("a journal"));
    println!("start, walking alone: {:?}", begun.elapsed());
    let _ = bellwire::inspect::remove_unheld(&bus);
}
