//! Bellwire beside its peers: the same messages, the same checks, alternating, in one run; ratios, not records.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml -- [--rounds N] [--ms N] [--only NAME,...] [--work NAME,...]
//! ```
//!
//! With `push` as its first argument it measures the other half: see [`push`].
//!
//! A message is 200 bytes and a stamp. The sender makes every byte of it and the receiver reads every byte and checks
//! the sequence. Both are processes of their own, except for the queues that work between threads only. Two processes
//! that spin need two cores that nobody else uses; what a noisy machine does to one peer it does to all, so compare
//! within one run.

mod isolated;
mod message;
mod other_end;
mod peer;
mod peers;
mod push;
mod table;
mod work;

use std::process::ExitCode;

use isolated::Outcome;
use peer::Peer;
use table::Table;
use work::{Setting, Work};

const USAGE: &str = "\
Bellwire beside its peers: the same messages, the same checks, alternating, in one run.

bellwire-peers [--rounds N] [--ms N] [--only PEER,...] [--work WORK,...]
    Shared memory: a table of ratios to a bare ring for each work; N milliseconds of each, N rounds. A peer that hangs or dies
    is named, and the others go on; the exit status is 1 if that peer was Bellwire.

bellwire-peers push [--sessions N] [--rate N|max,...] [--messages N] [--rounds N] [--only SERVER,...] [--gateway PATH]
    The push half: the gateway beside other servers. The gateway's binary is also taken from BELLWIRE_GATEWAY.
";

/// What the command line asks for.
struct Wish {
    rounds: usize,
    setting: Setting,
    only: Vec<String>,
    works: Vec<Work>,
}

fn main() -> ExitCode {
    // iceoryx2 says a lot at its default level.
    iceoryx2_log::set_log_level(iceoryx2_log::LogLevel::Error);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == other_end::ARGUMENT) {
        peers::for_name(&arguments[1], &mut AtOtherEnd(&arguments[2..]));
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|first| first == isolated::ARGUMENT) {
        isolated::run(&arguments[1..]);
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|first| first == push::ARGUMENT) {
        push::serve(&arguments[1..]);
        return ExitCode::SUCCESS;
    }
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        let [peers, works] = [peers::NAMES.join(", "), Work::ALL.map(Work::name).join(", ")];
        println!("{USAGE}\nPeers: {peers}.\nWorks: {works}.\nServers: {}.", push::NAMES.join(", "));
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|first| first == "push") {
        return match push::run(&arguments[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("\nbellwire-peers: {why}");
                ExitCode::from(1)
            }
        };
    }
    let wish = match parse(&arguments) {
        Ok(wish) => wish,
        Err(why) => {
            eprintln!("bellwire-peers: {why}");
            return ExitCode::from(2);
        }
    };
    let mut ours_failed = false;
    for work in &wish.works {
        let mut table = Table::new(*work);
        for round in 0..wish.rounds {
            for name in peers::NAMES
                .iter()
                .filter(|name| wish.only.is_empty() || wish.only.iter().any(|only| only == *name))
            {
                eprint!("\r{:<60}", format!("{} {}/{}: {name}", work.name(), round + 1, wish.rounds));
                match isolated::measure(name, *work, wish.setting) {
                    Outcome::Figures(figures) => table.add(name, figures),
                    Outcome::Cannot => {}
                    Outcome::Failed(why) => {
                        eprintln!("\rbellwire-peers: {name}, {}: {why}", work.name());
                        table.add_failed(name);
                        ours_failed |= peers::OURS.contains(name);
                    }
                }
            }
        }
        eprint!("\r{:<60}\r", "");
        table.print();
    }
    if ours_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Does something with the peer of a name.
trait ForPeer {
    fn with<P: Peer>(&mut self);
}

struct AtOtherEnd<'a>(&'a [String]);

impl ForPeer for AtOtherEnd<'_> {
    fn with<P: Peer>(&mut self) {
        other_end::run::<P>(self.0);
    }
}

fn parse(arguments: &[String]) -> Result<Wish, String> {
    let mut wish =
        Wish { rounds: 3, setting: Setting { ms: 600 }, only: Vec::new(), works: Work::ALL.to_vec() };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--rounds" => wish.rounds = value()?.parse().map_err(|_| "--rounds: a number".to_owned())?,
            "--ms" => wish.setting.ms = value()?.parse().map_err(|_| "--ms: milliseconds".to_owned())?,
            "--only" => {
                wish.only = value()?.split(',').map(str::to_owned).collect();
                if let Some(unknown) = wish.only.iter().find(|name| !peers::NAMES.contains(&name.as_str())) {
                    return Err(format!("no peer {unknown}; there are {}", peers::NAMES.join(", ")));
                }
            }
            "--work" => {
                let find = |name: &str| Work::ALL.into_iter().find(|work| work.name() == name);
                let works =
                    value()?.split(',').map(|name| find(name).ok_or_else(|| format!("no work {name}")));
                wish.works = works.collect::<Result<_, _>>()?;
            }
            _ => return Err(format!("{argument}? --rounds N, --ms N, --only NAME,..., --work NAME,...")),
        }
    }
    Ok(wish)
}
