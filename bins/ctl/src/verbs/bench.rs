//! `bellwirectl bench`: loads a gateway with real producer processes and thousands of sessions, and measures it.

mod client;
mod fleet;
mod frame;
mod plan;
pub(super) mod producer;
mod producers;
mod report;
mod scan;
mod subject;
mod tally;

use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use self::client::{Client, Door};
use self::fleet::Fleet;
use self::plan::{Done, Mix, Order, Rate};
use self::producers::Producers;
use self::report::{Broadcast, Connect, Idle, Load, Replay, Report, Verdict};
use self::subject::{Subject, Usage};
use super::listen::Target;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, words};
use crate::jwt::{self, Claims, Key, KeyArgs};
use crate::names;
use crate::output::{Out, human};

/// Nothing that is under way may take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// After a load, what is under way must arrive; if nothing moves for so long, it will not.
const SETTLE: Duration = Duration::from_secs(10);

/// How long the idle gateway is watched.
const IDLE: Duration = Duration::from_secs(3);

/// Broadcasts that are measured one after the other.
const BROADCASTS: usize = 5;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(2);

/// Load a gateway with real producers and many sessions, and measure it
///
/// Without URL, a gateway is started for the run (`bellwire-gateway` beside this program, or
/// BELLWIRE_GATEWAY), with a bus and a journal of its own, and everything is cleaned away behind it.
/// With URL, that gateway is used: give the bus that it reads (--bus) and the key of its tokens; the
/// users bench_00000 and so on, and lanes bench-0 and so on, are then left behind on that bus.
///
/// The phases: `connect` (all sessions, token verified and subscribed), `idle` (memory and CPU),
/// `load` (each --rate for --seconds; several rates after one another), `broadcast` (one notification
/// to all) and `replay` (all sessions go away, miss --missed notifications each, and come back at once).
///
/// Latency counts from the moment at which a notification was meant to be published: a stall of
/// anybody, this tool included, shows in it and delays nothing else. Every notification is checked:
/// order, completeness, whose it is. The clients share the machine with the gateway unless it is
/// elsewhere. Exit code 1 if anything was lost, doubled, reordered or somebody else's.
///
/// Examples:
///   bellwirectl bench
///   bellwirectl bench --sessions 10000 --rate 5k,20k,max --seconds 10
///   bellwirectl bench ws://127.0.0.1:8640/ --bus main --key-file /etc/bellwire/jwt.key --rate 2k --json
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Bench {
    /// A gateway that runs [default: one is started]
    #[arg(value_name = "URL")]
    url: Option<String>,
    #[command(flatten, next_help_heading = "The gateway")]
    key: KeyArgs,
    /// The gateway's process, to measure it [default: the one that reads the bus]
    #[arg(long, value_name = "PID", requires = "url", help_heading = "The gateway")]
    pid: Option<u32>,

    /// Sessions, each of another user
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=200_000), help_heading = "The load")]
    sessions: u32,
    /// Notifications a second, over all producers: 5000, 20k, or max for as fast as they are taken
    #[arg(
        long,
        value_name = "RATE,...",
        default_value = "5k,20k,max",
        value_delimiter = ',',
        help_heading = "The load"
    )]
    rate: Vec<Rate>,
    /// How long each rate is kept up
    #[arg(long, value_name = "TIME", default_value = "5", value_parser = names::duration, help_heading = "The load")]
    seconds: Duration,
    /// realistic (1 % P0, 48 % P1, 50 % P2, 1 % P3), one class (P1), or shares (P0=1,P2=99)
    #[arg(long, value_name = "MIX", default_value = "realistic", help_heading = "The load")]
    mix: Mix,
    /// Producer processes, each with a lane of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=32), help_heading = "The load")]
    producers: u32,
    /// Notifications that each session misses before `replay`
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=9_000), help_heading = "The load")]
    missed: u32,
    /// Only these phases, and what they need [default: all]
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "The load")]
    phase: Vec<Phase>,
    /// The same seed draws the same users and classes
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "The load")]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Phase {
    Connect,
    Idle,
    Load,
    Broadcast,
    Replay,
}

pub(crate) fn run(global: &Global, args: &Bench) -> Result<Exit, Failure> {
    if args.seconds < Duration::from_millis(100) {
        return Err(Failure::new(Exit::Usage, "--seconds: a tenth of a second is the least"));
    }
    raise_descriptor_limit(args.sessions)?;
    let subject = match &args.url {
        Some(url) => Subject::running(url, global.bus(), global.group.as_deref(), args.pid),
        None => Subject::start(args.sessions)?,
    };
    let key = match subject.key() {
        Some(own) => Key::secret(own),
        None => args.key.read()?,
    };
    let mut run = Run::new(args, subject, &key, global)?;
    let outcome = run.phases();
    let mut report = run.report;
    report.verdict.complaint = run.fleet.complaint.take();
    report.verdict.broken = run.fleet.broken;
    // What was measured before something went wrong is still worth reading.
    let mut out = Out::new(global);
    if global.json {
        out.json(&report)?
    } else {
        report.print(&mut out)?
    };
    out.flush()?;
    if let Some(complaint) = &report.verdict.complaint {
        words(complaint);
    }
    outcome?;
    Ok(if report.verdict.is_clean() { Exit::Ok } else { Exit::Wrong })
}

struct Run<'a> {
    args: &'a Bench,
    fleet: Fleet,
    producers: Producers,
    report: Report,
    /// What every user should have got so far.
    expected: Vec<u64>,
    expected_of_all: u64,
    // Last: the gateway ends after the producers.
    subject: Subject,
}

/// What a producer published that did not come to its end is not known.
const UNFINISHED: &str = "the run did not come to its end: what is lost was not counted, and doubled is only what a session got twice";

impl<'a> Run<'a> {
    fn new(args: &'a Bench, subject: Subject, key: &Key, global: &Global) -> Result<Self, Failure> {
        let target = Target::parse(&subject.url)?;
        let (host, port) = target.address();
        let unknown = |why: String| Failure::new(Exit::Nothing, format!("{host}: {why}"));
        let mut addresses = (host, port).to_socket_addrs().map_err(|error| unknown(error.to_string()))?;
        let address = addresses.next().ok_or_else(|| unknown("no such host".to_owned()))?;
        let ttl = Duration::from_secs(24 * 3600);
        let clients = (0..args.sessions as usize).map(|index| {
            let user = producer::user_id(index);
            let token = jwt::sign(&Claims::from_now(&user, ttl, &[]), key)?;
            Ok(Client::new(index, user, token))
        });
        let clients: Vec<Client> = clients.collect::<Result<_, Failure>>()?;
        let door = Door { address, host: format!("{host}:{port}") };
        let fleet = Fleet::new(door, clients).map_err(|error| event_loop(&error))?;
        let producers = Producers::start(args.producers, args.sessions, &subject.bus, global)?;
        let gateway = match (subject.is_own(), subject.pid) {
            (true, Some(pid)) => format!("process {pid}, started for this run, at {}", subject.url),
            (_, Some(pid)) => format!("process {pid}, at {}, bus {}", subject.url, subject.bus),
            (_, None) => format!("at {}, bus {} (its process is not known)", subject.url, subject.bus),
        };
        let report = Report::new(gateway, args.sessions, args.producers, args.mix.to_string());
        let expected = vec![0; args.sessions as usize];
        Ok(Self { args, fleet, producers, report, expected, expected_of_all: 0, subject })
    }

    fn wants(&self, phase: Phase) -> bool {
        self.args.phase.is_empty() || self.args.phase.contains(&phase)
    }

    fn phases(&mut self) -> Result<(), Failure> {
        let outcome = self.measure();
        self.judge(outcome.is_ok());
        if outcome.is_err() {
            self.fleet.complaint.get_or_insert_with(|| UNFINISHED.to_owned());
        }
        outcome
    }

    fn measure(&mut self) -> Result<(), Failure> {
        let before = self.subject.usage();
        self.connect(before)?;
        if self.wants(Phase::Idle) {
            self.idle(before)?;
        }
        if self.wants(Phase::Load) {
            for rate in self.args.rate.clone() {
                self.load(rate)?;
            }
        }
        if self.wants(Phase::Broadcast) {
            self.broadcast()?;
        }
        if self.wants(Phase::Replay) {
            self.replay()?;
        }
        Ok(())
    }

    fn connect(&mut self, before: Option<Usage>) -> Result<(), Failure> {
        words(format_args!("connecting {} sessions", self.args.sessions));
        let begun = Instant::now();
        self.fleet.connect();
        let all = self.fleet.clients.len();
        self.until(PATIENCE, |fleet| fleet.ready == all, "not all sessions could be opened")?;
        let seconds = begun.elapsed().as_secs_f64();
        if self.wants(Phase::Connect) {
            self.report.connect = Some(Connect {
                seconds,
                per_second: all as f64 / seconds,
                gateway_cpu_us: self.cpu_us_each(before, all as u64),
            });
        }
        Ok(())
    }

    fn idle(&mut self, before: Option<Usage>) -> Result<(), Failure> {
        // Whatever connecting left behind is through.
        self.pause(Duration::from_secs(1))?;
        let settled = self.subject.usage();
        self.pause(IDLE)?;
        let after = self.subject.usage();
        let sessions = f64::from(self.args.sessions);
        self.report.idle = Some(Idle {
            bytes_per_session: before
                .zip(after)
                .map(|(before, after)| after.resident.saturating_sub(before.resident) as f64 / sessions),
            cpu_percent: settled
                .zip(after)
                .map(|(from, to)| (to.cpu_ns - from.cpu_ns) as f64 * 100.0 / IDLE.as_nanos() as f64),
        });
        Ok(())
    }

    fn load(&mut self, rate: Rate) -> Result<(), Failure> {
        let count = self.producers.count() as u32;
        words(format_args!("{rate} for {}", human::duration(self.args.seconds)));
        let (ms, mix, seed) = (self.args.seconds.as_millis() as u64, self.args.mix, self.args.seed);
        let share = |index: usize| match rate {
            Rate::PerSecond(rate) => {
                Rate::PerSecond((rate / count + u32::from((index as u32) < rate % count)).max(1))
            }
            Rate::Max => Rate::Max,
        };
        self.fleet.tally.begin();
        let (received, conflated) = (self.fleet.tally.received, self.fleet.tally.conflated);
        let (usage, begun) = (self.subject.usage(), Instant::now());
        let order = |index| Order::Load { rate: share(index), ms, mix, seed: seed + index as u64 };
        let done = self.carry_out(|index| Some(order(index)), true)?;
        let took = begun.elapsed().as_secs_f64();
        let delivered = self.fleet.tally.received - received;
        self.report.loads.push(Load {
            rate: rate.to_string(),
            published: done.published,
            delivered,
            delivered_per_second: delivered as f64 / took,
            conflated: self.fleet.tally.conflated - conflated,
            refused: done.refused,
            gateway_cpu_us: self.cpu_us_each(usage, delivered),
            producer_late_p99_us: done.late_p99_ns as f64 / 1e3,
            from_intended: self.fleet.tally.all().map(Into::into),
            from_publish: self.fleet.tally.since_publish().map(Into::into),
            by_class: self.fleet.tally.by_class().map(|found| found.map(Into::into)),
        });
        Ok(())
    }

    fn broadcast(&mut self) -> Result<(), Failure> {
        words(format_args!("{BROADCASTS} broadcasts"));
        let mut times = Vec::new();
        for _ in 0..BROADCASTS {
            self.fleet.tally.begin();
            self.carry_out(|index| (index == 0).then_some(Order::Broadcast), true)?;
            // From the moment at which it was published to its last arrival.
            times.extend(self.fleet.tally.since_publish().map(|found| found.max.as_secs_f64() * 1e3));
            self.pause(Duration::from_millis(100))?;
        }
        times.sort_by(f64::total_cmp);
        if let Some(&ms) = times.get(times.len() / 2) {
            self.report.broadcast = Some(Broadcast { ms, times: times.len() });
        }
        Ok(())
    }

    fn replay(&mut self) -> Result<(), Failure> {
        let each = self.args.missed;
        words(format_args!("all sessions go away, miss {each} each, and come back"));
        self.fleet.disconnect();
        self.carry_out(|index| (index == 0).then_some(Order::Each { count: each }), false)?;
        // The gateway must have read all of it, else a part of it is live and not replayed.
        self.pause(Duration::from_secs(1))?;
        let (received, usage, begun) = (self.fleet.tally.received, self.subject.usage(), Instant::now());
        self.fleet.connect();
        let expected = received + u64::from(each) * u64::from(self.args.sessions);
        let has_all = |fleet: &Fleet| {
            fleet.tally.received >= expected && fleet.clients.iter().all(|client| client.live)
        };
        self.until(PATIENCE, has_all, "not everything that was missed came")?;
        let seconds = begun.elapsed().as_secs_f64();
        let replayed = self.fleet.tally.received - received;
        self.report.replay = Some(Replay {
            each,
            seconds,
            notifications_per_second: replayed as f64 / seconds,
            gateway_cpu_us: self.cpu_us_each(usage, replayed),
        });
        Ok(())
    }

    /// Has the producers do something; with `settle`, waits until all of it has arrived.
    fn carry_out(&mut self, order: impl Fn(usize) -> Option<Order>, settle: bool) -> Result<Done, Failure> {
        let broadcasts = (0..self.producers.count()).filter_map(&order);
        let broadcasts = broadcasts.filter(|order| matches!(order, Order::Broadcast)).count() as u64;
        self.producers.order(order)?;
        let (mut done, mut told) = (Done::default(), Instant::now());
        while !self.producers.look(&mut done)? {
            self.fleet.run(Duration::from_millis(2), |_| false).map_err(|error| event_loop(&error))?;
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                words(format_args!("{} received", self.fleet.tally.received));
            }
            if self.fleet.broken > 0 {
                break;
            }
        }
        for (expected, count) in self.expected.iter_mut().zip(&done.by_user) {
            *expected += u64::from(*count);
        }
        self.expected_of_all += broadcasts;
        if settle {
            self.settle()?;
        }
        Ok(done)
    }

    /// Waits until everything has arrived, or nothing moves any more.
    fn settle(&mut self) -> Result<(), Failure> {
        let sessions = self.fleet.clients.len() as u64;
        let expected = self.expected.iter().sum::<u64>() + self.expected_of_all * sessions;
        let mut last = (self.fleet.tally.received, Instant::now());
        loop {
            let through = |fleet: &Fleet| fleet.tally.received + fleet.tally.conflated >= expected;
            let slice = Duration::from_millis(100);
            let all = self.fleet.run(slice, through).map_err(|error| event_loop(&error))?;
            if all || self.fleet.broken > 0 || last.1.elapsed() > SETTLE {
                return Ok(());
            }
            if self.fleet.tally.received != last.0 {
                last = (self.fleet.tally.received, Instant::now());
            }
        }
    }

    /// What is missing or too much, user by user, if it is known what was published.
    fn judge(&mut self, is_known: bool) {
        let tally = &self.fleet.tally;
        let (mut lost, mut doubled) = (0, tally.doubled);
        let counted = self.fleet.clients.iter().zip(&self.expected).filter(|_| is_known);
        for (client, &expected) in counted {
            let found = client.received[0] + client.conflated;
            lost += expected.saturating_sub(found);
            // A broadcast from elsewhere may come in between; nothing else that is too much may.
            doubled = doubled.max(found.saturating_sub(expected));
            lost += self.expected_of_all.saturating_sub(client.received[1]);
        }
        self.report.verdict = Verdict {
            received: tally.received,
            conflated: tally.conflated,
            lost,
            doubled,
            reordered: tally.reordered,
            foreign: tally.foreign,
            resyncs: tally.resyncs,
            broken: self.fleet.broken,
            complaint: None,
        };
    }

    fn until(
        &mut self,
        time: Duration,
        condition: impl FnMut(&Fleet) -> bool,
        otherwise: &str,
    ) -> Result<(), Failure> {
        match self.fleet.run(time, condition) {
            Ok(true) => Ok(()),
            Ok(false) => {
                let why = self.fleet.complaint.clone().unwrap_or_else(|| "the time is over".to_owned());
                let failure = Failure::new(Exit::Wrong, format!("{otherwise}: {why}"));
                Err(if why.contains("HTTP/1.1 429") {
                    failure.next("the gateway limits sessions of an address: limits.sessions_per_address = 0 for a bench")
                } else {
                    failure
                })
            }
            Err(error) => Err(event_loop(&error)),
        }
    }

    fn pause(&mut self, time: Duration) -> Result<(), Failure> {
        self.fleet.run(time, |_| false).map(drop).map_err(|error| event_loop(&error))
    }

    fn cpu_us_each(&self, before: Option<Usage>, count: u64) -> Option<f64> {
        let used = self.subject.usage()?.cpu_ns.saturating_sub(before?.cpu_ns);
        (count > 0).then(|| used as f64 / 1e3 / count as f64)
    }
}

fn event_loop(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Wrong, format!("event loop: {error}"))
}

/// A session is a file descriptor.
fn raise_descriptor_limit(sessions: u32) -> Result<(), Failure> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let wanted = u64::from(sessions) + 64;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if soft >= wanted || setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Refused,
        format!("{sessions} sessions need {wanted} open files, {hard} are allowed"),
    )
    .next("raise the limit (ulimit -n), or take fewer --sessions"))
}
