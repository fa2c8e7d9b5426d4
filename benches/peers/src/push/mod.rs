//! The push half: a notification to one of many WebSocket sessions, by a bare epoll loop, by fastwebsockets, and by our gateway.
//!
//! All three serve the same clients: this process, which holds every session in one epoll loop, and feeds the server. The two
//! others are handed ready-made frames over one TCP connection; the gateway reads archives from shared memory, journals, numbers
//! and writes JSON. A message is about [`LEN`] bytes of JSON to a random session. Latency counts from when it should have been sent.

mod bare;
mod clients;
mod fast;
mod feed;
mod gateway;
mod handshake;
mod load;
mod server;

use std::time::Duration;

use clients::Clients;
use feed::Feed;
use server::Server;

/// The first argument of a server's process.
pub const ARGUMENT: &str = "--push-server";
/// Length of a message as it is on the wire, but for the frame's header of 4 bytes; the gateway's differ by a few digits.
pub const LEN: usize = 400;
/// Messages on their way at most, when it goes flat out.
const WINDOW: u64 = 20_000;

/// The servers, the one that others are compared with first.
pub const NAMES: [&str; 3] = ["bare epoll", "fastwebsockets", "bellwire"];

/// What the command line asks for.
#[derive(Clone, Debug)]
struct Wish {
    sessions: usize,
    rates: Vec<Option<u64>>,
    messages: u64,
    rounds: usize,
    only: Vec<String>,
    gateway: Option<String>,
}

/// What one server did in one round.
#[derive(Clone, Debug, Default)]
struct Round {
    connects_per_s: f64,
    bytes_per_session: f64,
    broadcast_ms: f64,
    /// Of a message on the wire.
    len: f64,
    /// By rate.
    loads: Vec<Load>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Load {
    per_s: f64,
    p50_us: f64,
    p99_us: f64,
    /// Of the server's processes, for each message.
    cpu_us: f64,
}

/// The process of a server that is not the gateway.
pub fn serve(arguments: &[String]) {
    match arguments[0].as_str() {
        "bare" => bare::serve(),
        "fast" => fast::serve(),
        other => panic!("no server {other}"),
    }
}

/// # Errors
/// What the command line or a server did not let it do.
pub fn run(arguments: &[String]) -> Result<(), String> {
    let wish = parse(arguments)?;
    load::raise_descriptors(wish.sessions)?;
    let names: Vec<_> = NAMES
        .iter()
        .filter(|name| wish.only.is_empty() || wish.only.iter().any(|only| only == *name))
        .collect();
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); names.len()];
    for round in 0..wish.rounds {
        for (name, rounds) in names.iter().zip(&mut rounds) {
            eprint!("\r{:<60}", format!("push {}/{}: {name}", round + 1, wish.rounds));
            rounds.push(measure(name, &wish)?);
        }
    }
    eprint!("\r{:<60}\r", "");
    print(&names, &rounds, &wish);
    Ok(())
}

fn measure(name: &str, wish: &Wish) -> Result<Round, String> {
    let mut server = Server::start(name, wish.sessions, wish.gateway.as_deref())?;
    let before = server.usage();
    let (mut clients, took) = Clients::connect(&server, wish.sessions)?;
    let mut feed = Feed::open(&server)?;
    clients.settle(Duration::from_millis(500))?;
    let mut round = Round {
        connects_per_s: wish.sessions as f64 / took.as_secs_f64(),
        bytes_per_session: server.usage().resident.saturating_sub(before.resident) as f64
            / wish.sessions as f64,
        ..Round::default()
    };
    round.broadcast_ms = load::broadcast(&mut clients, &mut feed)?.as_secs_f64() * 1e3;
    for rate in &wish.rates {
        let cpu = server.usage().cpu_ns;
        let load = load::run(&mut clients, &mut feed, *rate, wish.messages)?;
        let cpu_ns = server.usage().cpu_ns - cpu;
        round.loads.push(Load { cpu_us: cpu_ns as f64 / 1e3 / wish.messages as f64, ..load });
    }
    round.len = clients.bytes as f64 / clients.received as f64;
    server.end();
    Ok(round)
}

fn print(names: &[&&str], rounds: &[Vec<Round>], wish: &Wish) {
    let median = |of: &dyn Fn(&Round) -> f64, rounds: &[Round]| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!(
        "push: {} messages of about {LEN} bytes to one of {} sessions, medians of {} rounds",
        wish.messages, wish.sessions, wish.rounds
    );
    println!(
        "  {:<16}{:>12}{:>16}{:>14}{:>15}",
        "", "connects/s", "bytes/session", "broadcast ms", "bytes/message"
    );
    for (name, rounds) in names.iter().zip(rounds) {
        println!(
            "  {name:<16}{:>12.0}{:>16.0}{:>14.1}{:>15.0}",
            median(&|round| round.connects_per_s, rounds),
            median(&|round| round.bytes_per_session, rounds),
            median(&|round| round.broadcast_ms, rounds),
            median(&|round| round.len, rounds)
        );
    }
    for (index, rate) in wish.rates.iter().enumerate() {
        let title = rate.map_or_else(|| "flat out".to_owned(), |rate| format!("{rate}/s"));
        println!(
            "  {title:<16}{:>12}{:>10}{:>10}{:>16}{:>20}",
            "messages/s", "p50 µs", "p99 µs", "server CPU µs", "to fastwebsockets"
        );
        let rate_of = |rounds: &[Round]| median(&|round| round.loads[index].per_s, rounds);
        let fast = names.iter().position(|name| **name == "fastwebsockets").map(|at| rate_of(&rounds[at]));
        for (name, rounds) in names.iter().zip(rounds) {
            print!(
                "  {name:<16}{:>12.0}{:>10.0}{:>10.0}{:>16.2}",
                rate_of(rounds),
                median(&|round| round.loads[index].p50_us, rounds),
                median(&|round| round.loads[index].p99_us, rounds),
                median(&|round| round.loads[index].cpu_us, rounds)
            );
            match fast {
                Some(fast) => println!("{:>20.2}", rate_of(rounds) / fast),
                None => println!("{:>20}", "-"),
            }
        }
    }
}

fn parse(arguments: &[String]) -> Result<Wish, String> {
    let mut wish = Wish {
        sessions: 10_000,
        rates: vec![Some(5_000), Some(20_000), None],
        messages: 100_000,
        rounds: 3,
        only: Vec::new(),
        gateway: std::env::var("BELLWIRE_GATEWAY").ok(),
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{argument} wants a value"))?;
        let number = || {
            value
                .parse::<u64>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| format!("{argument}: a number above 0"))
        };
        match argument.as_str() {
            "--sessions" => wish.sessions = number()? as usize,
            "--messages" => wish.messages = number()?,
            "--rounds" => wish.rounds = number()? as usize,
            "--gateway" => wish.gateway = Some(value.clone()),
            "--rate" => {
                let rate = |text: &str| match text {
                    "max" => Ok(None),
                    text => text
                        .parse()
                        .map(Some)
                        .map_err(|_| format!("--rate: {text} is neither a number nor max")),
                };
                wish.rates = value.split(',').map(rate).collect::<Result<_, _>>()?;
            }
            "--only" => {
                wish.only = value.split(',').map(str::to_owned).collect();
                if let Some(unknown) = wish.only.iter().find(|name| !NAMES.contains(&name.as_str())) {
                    return Err(format!("no server {unknown}; there are {}", NAMES.join(", ")));
                }
            }
            _ => {
                return Err(format!(
                    "{argument}? --sessions N, --rate N|max,..., --messages N, --rounds N, --only NAME,..., --gateway PATH"
                ));
            }
        }
    }
    Ok(wish)
}
