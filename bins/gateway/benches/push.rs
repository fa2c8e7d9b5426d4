//! The gateway under load, from outside: a real process, a real producer, thousands of real sockets.
//!
//! `cargo bench -p bellwire-gateway --bench push -- [sessions] [seconds]` prints connects a second, memory of an idle
//! session, idle CPU, and for each rate what was delivered, CPU of the gateway for each notification, and the time from
//! publishing to the client's read. The clients share the machine with the gateway: compare within one run.

#![allow(unreachable_pub)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bellwire::{Direction, FillType, Notification, Offset, PublishError, TradeExecuted};
use common::{Bench, Gateway, notice, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RATES: [Option<u64>; 3] = [Some(5_000), Some(20_000), None];

/// What all clients have seen.
#[derive(Default)]
struct Seen {
    ready: AtomicUsize,
    notifications: AtomicU64,
    /// Microseconds from publishing to reading, in a histogram of whole microseconds; the last one is "or more".
    latencies: Box<[AtomicU64]>,
}

fn main() {
    let arguments: Vec<u64> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let sessions = arguments.first().copied().unwrap_or(2_000) as usize;
    let seconds = arguments.get(1).copied().unwrap_or(3);
    let _ = nix::sys::resource::setrlimit(
        nix::sys::resource::Resource::RLIMIT_NOFILE,
        sessions as u64 + 200,
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)
            .map_or(1024, |limits| limits.1),
    );

    let bench = Bench::new()
        .with("LOG_LEVEL", "warn")
        .with("JOURNAL_SEGMENT_BYTES", &(64 << 20).to_string())
        .with("JOURNAL_RETAIN_BYTES", &(1 << 30).to_string());
    let gateway = bench.gateway();
    let seen =
        Arc::new(Seen { latencies: (0..100_001).map(|_| AtomicU64::new(0)).collect(), ..Seen::default() });
    let before_kb = resident_kb(&gateway);

    let users: Vec<String> = (0..sessions).map(|index| format!("user_{index:05}")).collect();
    let tokens: Vec<String> = users.iter().map(|user| token(user)).collect();
    let started = Instant::now();
    let cpu = cpu_seconds(&gateway);
    std::thread::spawn({
        let (seen, url) = (Arc::clone(&seen), gateway.url.clone());
        move || run_clients(&url, tokens, &seen)
    });
    wait_until(|| seen.ready.load(Ordering::Relaxed) == sessions);
    println!(
        "{sessions} sessions connected, authenticated and subscribed: {:.0}/s, {:.1} µs gateway CPU each",
        sessions as f64 / started.elapsed().as_secs_f64(),
        (cpu_seconds(&gateway) - cpu) * 1e6 / sessions as f64,
    );
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "{:.0} bytes resident for each idle session",
        (resident_kb(&gateway) - before_kb) * 1024.0 / sessions as f64
    );
    let cpu = cpu_seconds(&gateway);
    std::thread::sleep(Duration::from_secs(5));
    println!("{:.2} % of a core while idle", (cpu_seconds(&gateway) - cpu) * 100.0 / 5.0);

    let mut engine = bench.producer("engine");
    engine.publish(&notice("so that the lane is found")).unwrap();
    wait_until(|| seen.notifications.load(Ordering::Relaxed) == sessions as u64);
    for rate in RATES {
        for latency in &seen.latencies {
            latency.store(0, Ordering::Relaxed);
        }
        let delivered = seen.notifications.load(Ordering::Relaxed);
        let (cpu, started) = (cpu_seconds(&gateway), Instant::now());
        let published = publish(&mut engine, &users, rate, Duration::from_secs(seconds));
        wait_until(|| seen.notifications.load(Ordering::Relaxed) - delivered == published);
        let took = started.elapsed().as_secs_f64();
        println!(
            "{:>9}: {:>7.0}/s delivered, {:.1} µs gateway CPU each, p50 {} p99 {} µs",
            rate.map_or("flat out".to_owned(), |rate| format!("{rate}/s")),
            published as f64 / took,
            (cpu_seconds(&gateway) - cpu) * 1e6 / published as f64,
            quantile(&seen, 0.5),
            quantile(&seen, 0.99),
        );
    }
    let delivered = seen.notifications.load(Ordering::Relaxed);
    let started = Instant::now();
    engine.publish(&notice("to all")).unwrap();
    wait_until(|| seen.notifications.load(Ordering::Relaxed) - delivered == sessions as u64);
    println!("broadcast to {sessions}: {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    println!(
        "{:.0} bytes resident for each session after all that",
        (resident_kb(&gateway) - before_kb) * 1024.0 / sessions as f64
    );
}

/// A trade, 256 bytes or so as JSON, to a random user, at that rate.
fn publish(engine: &mut bellwire::Producer, users: &[String], rate: Option<u64>, time: Duration) -> u64 {
    let started = Instant::now();
    let (mut published, mut random) = (0, 0x2545_f491_4f6c_dd1d_u64);
    while started.elapsed() < time {
        let due = rate.map_or(u64::MAX, |rate| (started.elapsed().as_secs_f64() * rate as f64) as u64);
        while published < due && (rate.is_some() || !published.is_multiple_of(64) || started.elapsed() < time)
        {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let user = &users[(random % users.len() as u64) as usize];
            let trade = TradeExecuted {
                trade_id: "T1",
                order_id: "O12345",
                exchange_order_id: "E12345",
                instrument_id: "IX2401",
                direction: Direction::Buy,
                offset: Offset::Open,
                price: 3500.5,
                volume: 2.0,
                commission: 1.25,
                fill_type: FillType::Full,
                timestamp: 7,
            };
            match engine.publish(&Notification::new(user, "MatchingEngine", trade)) {
                Ok(_) => published += 1,
                Err(PublishError::Full { .. }) => std::thread::sleep(Duration::from_micros(200)),
                Err(error) => panic!("{error}"),
            }
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    published
}

fn run_clients(url: &str, tokens: Vec<String>, seen: &Arc<Seen>) {
    let address = url.strip_prefix("ws://").unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let connecting = Arc::new(tokio::sync::Semaphore::new(200));
        for token in tokens {
            let (address, seen, connecting) = (address.clone(), Arc::clone(seen), Arc::clone(&connecting));
            tokio::spawn(async move {
                let turn = connecting.acquire_owned().await.unwrap();
                client(&address, &token, &seen, turn).await;
            });
        }
        std::future::pending::<()>().await;
    });
}

/// One client, written by hand so that thousands of them cost little.
async fn client(address: &str, token: &str, seen: &Seen, turn: tokio::sync::OwnedSemaphorePermit) {
    let mut turn = Some(turn);
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = Vec::with_capacity(1024);
    while !buffer.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(socket.read_buf(&mut buffer).await.unwrap() > 0);
    }
    let end = buffer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    buffer.drain(..end + 4);
    let subscribe = br#"{"op":"subscribe"}"#;
    let mut frame = vec![0x81, 0x80 | subscribe.len() as u8, 0, 0, 0, 0];
    frame.extend_from_slice(subscribe);
    let mut asked = false;
    loop {
        let mut at = 0;
        while let Some((header, len)) = frame_at(&buffer[at..]) {
            let payload = &buffer[at + header..at + header + len];
            if payload.starts_with(br#"{"op":"notification""#) {
                seen.notifications.fetch_add(1, Ordering::Relaxed);
                note_latency(payload, seen);
            } else if payload.starts_with(br#"{"op":"subscribed""#) {
                seen.ready.fetch_add(1, Ordering::Relaxed);
                turn = None;
            } else if payload.starts_with(br#"{"op":"auth_ok""#) && !asked {
                asked = true;
                socket.write_all(&frame).await.unwrap();
            }
            at += header + len;
        }
        buffer.drain(..at);
        if buffer.is_empty() {
            // So that ten thousand clients fit into memory.
            buffer.shrink_to(1024);
        }
        if socket.read_buf(&mut buffer).await.unwrap() == 0 {
            break;
        }
    }
    drop(turn);
}

/// Lengths of header and payload of a whole frame.
fn frame_at(bytes: &[u8]) -> Option<(usize, usize)> {
    let (header, len) = match *bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => panic!("no frame of the bench is that long"),
        len => (2, usize::from(len)),
    };
    (bytes.len() >= header + len).then_some((header, len))
}

fn note_latency(payload: &[u8], seen: &Seen) {
    const KEY: &[u8] = b"\"timestamp\":";
    let Some(at) = payload.windows(KEY.len()).position(|window| window == KEY) else { return };
    let digits = payload[at + KEY.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    let published = digits.fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let us = (now.saturating_sub(published) / 1000).min(seen.latencies.len() as u64 - 1);
    seen.latencies[us as usize].fetch_add(1, Ordering::Relaxed);
}

fn quantile(seen: &Seen, quantile: f64) -> usize {
    let total: u64 = seen.latencies.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let mut rest = (total as f64 * quantile) as u64;
    seen.latencies
        .iter()
        .position(|count| {
            let count = count.load(Ordering::Relaxed);
            let found = count > rest;
            rest = rest.saturating_sub(count);
            found
        })
        .unwrap_or_default()
}

fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(120), "it does not happen");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn resident_kb(gateway: &Gateway) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    // Without the mapped journal and rings, which are files.
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu_seconds(gateway: &Gateway) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gateway.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}
