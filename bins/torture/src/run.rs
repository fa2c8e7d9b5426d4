//! A run: chaos for so many seconds, then calm, then the verdict.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bellwire::{OpenError, Producer};
use bellwire_journal::ChainKey;
use bellwire_journal::inspect::{Listing, VerifyError, verify};
use clap::Args;

use crate::Result;
use crate::chaos::{self, Event, Setting, Target};
use crate::fleet::{Fleet, Lanes};
use crate::gateway::Gateway;
use crate::oracle::{Fault, Oracle, Sabotage};
use crate::plan::{LANES_MAX, Plan};
use crate::report::grouped;
use crate::world::{Ballast, World};

/// How often processes are looked after.
const TICK: Duration = Duration::from_millis(4);

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Without progress for so long nobody is waited for any more.
const PATIENCE: Duration = Duration::from_secs(30);

/// /dev/shm of a run as root.
const SHM_BYTES: u64 = 48 << 20;

/// A journal that keeps everything may become so big.
const JOURNAL_MAX: u64 = 4 << 30;

/// What one notification takes of the journal at most, on average.
const JOURNAL_BYTES_EACH: u64 = 640;

/// A gateway that takes more than this and a share for each session and remembered id is not bounded.
const GATEWAY_KIB: u64 = 96 << 10;
const GATEWAY_KIB_PER_SESSION: u64 = 160;
const GATEWAY_BYTES_PER_ID: u64 = 96;

/// Files of a gateway that are not sessions: lanes, journal, event loops.
const GATEWAY_DESCRIPTORS: u64 = 256;

#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// How long chaos reigns
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What everything is drawn from; without it, another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// Sessions of clients
    #[arg(long, default_value_t = 60)]
    clients: u32,
    /// Users; by default two sessions in five have one of their own
    #[arg(long)]
    users: Option<u32>,
    /// Notifications a second, over all producers
    #[arg(long, default_value_t = 2_000)]
    rate: u32,
    /// Producer processes, each with its lane
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=i64::from(LANES_MAX)))]
    producers: u8,
    /// Client processes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    processes: u8,
    /// Keep only so many MiB in the journal, so that it passes clients that are away: they must be told so
    #[arg(long, value_name = "MIB")]
    retain: Option<u64>,
    /// Blows a minute
    #[arg(long, default_value_t = 150)]
    events: u32,
    /// Longest stop of a process, in seconds; only long runs have such long ones
    #[arg(long, default_value_t = 30)]
    stop_max: u64,
    /// Spoil one delivery, to show that it would be noticed
    #[arg(long)]
    sabotage: Option<Sabotage>,
    /// The figures as JSON on standard output
    #[arg(long)]
    json: bool,
    /// Print the schedule and end
    #[arg(long)]
    schedule: bool,
    /// Keep logs and journal also of a clean run
    #[arg(long)]
    keep: bool,
}

impl RunArgs {
    fn user_count(&self) -> u32 {
        self.users.unwrap_or(self.clients * 2 / 5).clamp(2, self.clients.max(2))
    }

    fn setting(&self) -> Setting {
        // Ids are remembered as long as the journal keeps them; a producer that sleeps longer doubles what it repeats.
        let stop_max = if self.retain.is_some() { self.stop_max.min(2) } else { self.stop_max };
        Setting {
            seconds: self.seconds,
            producers: self.producers,
            client_processes: self.processes,
            stop_max: Duration::from_secs(stop_max),
            events_per_minute: self.events,
        }
    }

    /// The command that repeats the run.
    fn replay(&self, seed: u64) -> String {
        let mut command = format!(
            "scripts/torture --seed {seed} --seconds {} --clients {} --users {} --rate {} --producers {} --processes {} \
             --events {} --stop-max {}",
            self.seconds,
            self.clients,
            self.user_count(),
            self.rate,
            self.producers,
            self.processes,
            self.events,
            self.stop_max
        );
        if let Some(retain) = self.retain {
            command.push_str(&format!(" --retain {retain}"));
        }
        if let Some(sabotage) = self.sabotage {
            command.push_str(&format!(" --sabotage {sabotage:?}").to_lowercase());
        }
        command
    }

    fn journal_bytes(&self) -> Result<u64> {
        let all = (u64::from(self.rate) * self.seconds * JOURNAL_BYTES_EACH).max(128 << 20);
        match self.retain {
            Some(mib) => Ok(mib << 20),
            None if all <= JOURNAL_MAX => Ok(all),
            None => {
                Err("the journal of such a run does not fit into memory: give --retain, or make several runs"
                    .into())
            }
        }
    }

    /// Ids that the gateway remembers: of so long as the longest stop, and then some.
    fn dedup_window(&self) -> usize {
        (self.rate as usize * 90).clamp(10_000, 4_000_000)
    }
}

/// Runs; `true` if everything was as it should be.
pub(crate) fn run(args: &RunArgs) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let events = chaos::schedule(seed, &args.setting());
    if args.schedule {
        events.iter().for_each(|(at, event)| println!("{:>9.3} s  {event}", at.as_secs_f64()));
        return Ok(true);
    }
    let journal_bytes = args.journal_bytes()?;
    let world = World::create(SHM_BYTES, journal_bytes + (64 << 20))?;
    eprintln!("seed {seed}, {} events; again with:\n  {}", events.len(), args.replay(seed));
    if !world.is_private {
        eprintln!(
            "no mount namespace of its own (not root?): neither /dev/shm nor the journal's disk will be full"
        );
    }
    let schedule: String =
        events.iter().map(|(at, event)| format!("{:>9.3} {event}\n", at.as_secs_f64())).collect();
    std::fs::write(world.dir.join("schedule"), schedule)?;
    let plan = Plan { seed, users: args.user_count() };
    let gateway = Gateway::configure(&world, journal_bytes, args.dedup_window())?;
    let lanes = Lanes {
        count: args.producers,
        rate: f64::from(args.rate) / f64::from(args.producers),
        capacities: capacities(seed, args.producers),
    };
    let oracle = Oracle::new(plan, args.retain.is_some(), args.sabotage);
    let mut run = Run {
        fleet: Fleet::new(world, plan, gateway, lanes, oracle),
        begun: Instant::now(),
        told_at: Instant::now(),
        disk: None,
        shm: None,
    };
    let outcome = run.whole(args, &events);
    run.report(args, seed, outcome)
}

/// Ring capacities, from such that fill in a moment to such that hold seconds.
fn capacities(seed: u64, lanes: u8) -> Vec<[usize; 4]> {
    let mut rng = fastrand::Rng::with_seed(!seed);
    let mut capacity = || 4096 * *rng.choice(&[4, 5, 8, 16, 32, 64]).unwrap_or(&8);
    (0..lanes).map(|_| std::array::from_fn(|_| capacity())).collect()
}

/// A file system that is full until then.
type Full = Option<(Ballast, Instant)>;

struct Run {
    fleet: Fleet,
    begun: Instant,
    told_at: Instant,
    disk: Full,
    shm: Full,
}

impl Run {
    fn whole(&mut self, args: &RunArgs, events: &[(Duration, Event)]) -> Result<()> {
        self.fleet.add(Target::Gateway);
        self.fleet.add(Target::Storage);
        (0..args.producers).for_each(|lane| self.fleet.add(Target::Producer(lane)));
        let processes = u32::from(args.processes);
        for process in 0..processes {
            self.fleet
                .add_clients(args.clients / processes + u32::from(process < args.clients % processes))?;
        }
        self.chaos(args, events)?;
        self.calm()?;
        if !self.is_clean() {
            return Ok(());
        }
        self.conclude()
    }

    fn is_clean(&self) -> bool {
        self.fleet.oracle().is_clean()
    }

    /// Everything that has to be done again and again.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.disk.is_some() {
            self.fleet.disk_is_full();
        }
        // Dropped, they make room.
        self.disk.take_if(|(_, until)| now >= *until);
        self.shm.take_if(|(_, until)| now >= *until);
        self.fleet.tick()?;
        if now - self.told_at >= TELL_EVERY {
            self.told_at = now;
            self.tell();
        }
        std::thread::sleep(TICK);
        Ok(())
    }

    fn tell(&self) {
        let (oracle, report) = (self.fleet.oracle(), &self.fleet.report);
        let (behind, sessions) = oracle.behind();
        eprintln!(
            "{:>5} s  delivered {:>11}  sessions {:>4}/{}  {sessions} of them {behind} behind  kills {}  stops {}  restarts {}  full {}",
            self.begun.elapsed().as_secs(),
            grouped(oracle.counts.delivered),
            oracle.connected(),
            oracle.session_count(),
            report.kill_count(),
            report.stops.values().sum::<u64>(),
            report.restarts.values().sum::<u64>(),
            report.disk_full + report.shm_full,
        );
    }

    fn chaos(&mut self, args: &RunArgs, events: &[(Duration, Event)]) -> Result<()> {
        let mut events = events.iter().peekable();
        let end = Duration::from_secs(args.seconds);
        // What comes after the first fault is often its consequence.
        while self.begun.elapsed() < end && self.is_clean() {
            while let Some((_, event)) = events.next_if(|(at, _)| *at <= self.begun.elapsed()) {
                self.happen(event)?;
            }
            self.tick()?;
        }
        Ok(())
    }

    fn happen(&mut self, event: &Event) -> Result<()> {
        match event {
            Event::Blows(blows) => {
                let struck = blows.iter().filter(|(target, blow)| self.fleet.strike(*target, *blow)).count();
                self.fleet.report.at_once += u64::from(struck > 1);
            }
            Event::DiskFull(_) | Event::ShmFull(_) if !self.fleet.world.is_private => {}
            Event::DiskFull(during) => {
                self.disk = Some((self.fleet.world.fill_journal()?, Instant::now() + *during));
                self.fleet.report.disk_full += 1;
            }
            Event::ShmFull(during) => {
                self.shm = Some((self.fleet.world.fill_shm()?, Instant::now() + *during));
                self.fleet.report.shm_full += 1;
                self.try_new_lane();
            }
        }
        Ok(())
    }

    /// A new lane in a full /dev/shm: a clear error, and nothing left behind.
    fn try_new_lane(&mut self) {
        let outcome = Producer::open(&self.fleet.world.bus, "one-too-many");
        let left = bellwire::inspect::segments(&self.fleet.world.bus).unwrap_or_default();
        let is_left = left.iter().any(|segment| segment.name == "one-too-many");
        match outcome {
            Err(OpenError::NoSpace { .. }) if !is_left => self.fleet.report.shm_refusals += 1,
            other => self.fleet.oracle().fault(Fault::Process, || {
                let outcome = other.map(|_| "opened").map_err(|error| error.to_string());
                format!("a new lane in a full /dev/shm: {outcome:?}, left behind: {is_left}")
            }),
        }
    }

    /// Lets everything that was published arrive.
    fn calm(&mut self) -> Result<()> {
        (self.disk, self.shm) = (None, None);
        if !self.is_clean() {
            return Ok(());
        }
        self.fleet.disk_is_full();
        self.fleet.calm();
        self.wait("all processes to be up", |run| Ok(run.fleet.all_up()))?;
        let is_producer = |target| matches!(target, Target::Producer(_));
        self.fleet.end(is_producer);
        self.wait("the producers' end", |run| Ok(run.fleet.ended(is_producer)))?;
        self.fleet.settle();
        self.wait("the consumers to read everything", |run| run.fleet.is_drained())?;
        self.fleet.add_witnesses()?;
        self.fleet.settle();
        let sessions = self.fleet.oracle().session_count();
        self.wait("the sessions to be at the end", |run| {
            let oracle = run.fleet.oracle();
            Ok(oracle.connected() == sessions && oracle.behind().0 == 0)
        })?;
        // What comes twice comes late: leave it a moment.
        let late = Instant::now() + Duration::from_millis(1_500);
        self.wait("what is late", |_| Ok(Instant::now() >= late))?;
        self.fleet.end(|target| target != Target::Gateway);
        self.wait("the clients' end", |run| Ok(run.fleet.ended(|target| target != Target::Gateway)))?;
        self.fleet.end(|_| true);
        self.wait("the gateway's end", |run| Ok(run.fleet.ended(|_| true)))
    }

    /// Waits as long as there is progress. Who is not there by then is a fault, or will be found to be one.
    fn wait(&mut self, what: &str, mut is_there: impl FnMut(&Self) -> Result<bool>) -> Result<()> {
        let mut progress = (Instant::now(), (0, 0));
        while self.is_clean() && !is_there(self)? {
            self.tick()?;
            let now = {
                let oracle = self.fleet.oracle();
                (oracle.counts.delivered, oracle.behind().0)
            };
            if now != progress.1 {
                progress = (Instant::now(), now);
            }
            if progress.0.elapsed() > PATIENCE {
                self.fleet.note_threads()?;
                let (numbers, sessions) = self.fleet.oracle().behind();
                let words = format!(
                    "waited {} s in vain for {what}; {sessions} sessions are {numbers} behind: {}",
                    PATIENCE.as_secs(),
                    self.fleet.oracle().behind_names()
                );
                self.fleet.oracle().fault(Fault::Process, || words);
            }
        }
        Ok(())
    }

    fn conclude(&mut self) -> Result<()> {
        let accounts = self.fleet.accounts()?;
        for (lane, account) in accounts.iter().enumerate().filter(|(_, account)| !account.has_ended) {
            self.fleet.oracle().fault(Fault::Process, || format!("producer {lane} did not end: {account:?}"));
        }
        let totals = self.fleet.oracle().conclude(&accounts);
        self.fleet.report.totals = totals;
        self.fleet.conclude_bus(&accounts)?;
        self.verify_journal();
        if self.fleet.report.released > 0 {
            let released = self.fleet.report.released;
            self.fleet.oracle().fault(Fault::Process, || format!("{released} times a consumer was given up"));
        }
        Ok(())
    }

    /// After all the kills and full disks: every record whole, in its stream's order, and linked in the chain.
    fn verify_journal(&mut self) {
        // A gateway that did not end in order may still be writing; that it did not is a fault already.
        if !self.is_clean() {
            return;
        }
        let listing = Listing::read(&self.fleet.world.journal()).map_err(VerifyError::from);
        let verdict = listing.and_then(|listing| verify(listing, &ChainKey::public(), &[], &mut |_| ()));
        let words = match verdict {
            Ok(verdict) => {
                self.fleet.report.journal_linked = verdict.linked;
                match verdict.finding {
                    Some(finding) => finding.to_string(),
                    None if verdict.linked == verdict.records && verdict.begins.is_empty() => return,
                    None => format!("not all of it is linked: {verdict:?}"),
                }
            }
            Err(error) => error.to_string(),
        };
        self.fleet.oracle().fault(Fault::Corrupt, || format!("the journal: {words}"));
    }

    fn report(mut self, args: &RunArgs, seed: u64, outcome: Result<()>) -> Result<bool> {
        if let Err(error) = outcome {
            self.fleet.oracle().fault(Fault::Process, || error.to_string());
        }
        self.check_bounds(args);
        let mut report = std::mem::take(&mut self.fleet.report);
        let (clean, told, was_sabotaged) = {
            let oracle = self.fleet.oracle();
            (report.counts, report.faults) = (oracle.counts.clone(), oracle.faults().clone());
            report.sessions = oracle.session_count();
            (oracle.is_clean(), oracle.told().to_vec(), oracle.was_sabotaged())
        };
        (report.seed, report.users, report.clean) = (seed, args.user_count(), clean);
        report.seconds = self.begun.elapsed().as_secs_f64();
        if args.sabotage.is_some() {
            eprintln!("sabotaged: {was_sabotaged}");
        }
        if args.json {
            println!("{}", serde_json::to_string(&report)?);
        } else {
            print!("{}", report.table());
        }
        self.leave(args, seed, clean, &told)?;
        Ok(clean)
    }

    /// Tells what was wrong and keeps what shows it, or cleans up.
    fn leave(self, args: &RunArgs, seed: u64, clean: bool, told: &[String]) -> Result<()> {
        let Self { fleet, .. } = self;
        let dir: PathBuf = fleet.world.dir.clone();
        if !clean {
            eprintln!(
                "\nNOT CLEAN. Seed {seed}; again with:\n  {}\nThe first of what was wrong:",
                args.replay(seed)
            );
            told.iter().for_each(|words| eprintln!("  - {words}"));
        }
        let world = fleet.disband();
        if clean && !args.keep {
            world.remove();
        } else {
            // A sabotaged run shows nothing that is worth its room.
            if args.sabotage.is_some() {
                world.remove();
            } else {
                world.keep_journal()?;
                eprintln!("logs, journal and schedule: {}", dir.display());
            }
        }
        Ok(())
    }

    /// What the gateway takes has bounds that do not depend on how long a run was.
    fn check_bounds(&mut self, args: &RunArgs) {
        let seen = self.fleet.report.gateway;
        let sessions = self.fleet.oracle().session_count() as u64;
        let ids_kib = args.dedup_window() as u64 * GATEWAY_BYTES_PER_ID / 1024;
        let kib_max = GATEWAY_KIB + sessions * GATEWAY_KIB_PER_SESSION + ids_kib;
        let segments = args.journal_bytes().unwrap_or_default() >> 20;
        // A session that is closing may be there beside the one that takes over.
        let descriptors_max = 2 * sessions + segments + GATEWAY_DESCRIPTORS;
        if seen.anonymous_kib > kib_max || seen.descriptors > descriptors_max {
            let words = format!(
                "the gateway had {seen:?}; at most {kib_max} KiB, {descriptors_max} descriptors are right"
            );
            self.fleet.oracle().fault(Fault::Process, || words);
        }
    }
}
