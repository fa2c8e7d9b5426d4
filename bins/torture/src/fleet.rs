//! All processes of a run: how each is started, what has happened to it, and that it comes back.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bellwire::Channel;
use bellwire::inspect::{CursorsStatus, LaneStatus};

use crate::Result;
use crate::chaos::{Blow, Target};
use crate::clients::{Manners, SessionStart, Start, wire};
use crate::gateway::{self, Gateway, HEARTBEAT_MS};
use crate::log::Account;
use crate::oracle::{Fault, Oracle};
use crate::plan::{Plan, lane_name, user_id};
use crate::process::{Process, Turn};
use crate::report::Report;
use crate::store::{STORE, Stored};
use crate::world::World;

/// So long after a disk was full a gateway may end because of it.
const DISK_FULL_ECHO: Duration = Duration::from_secs(5);

/// A gateway's name as a consumer, by default.
const GATEWAY: &str = "gateway";

/// How producers are started.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    pub(crate) count: u8,
    /// Notifications a second of each.
    pub(crate) rate: f64,
    /// Capacities of the rings of each lane.
    pub(crate) capacities: Vec<[usize; 4]>,
}

/// A client process's sessions, and the thread that hears them.
#[derive(Default)]
struct Group {
    sessions: Vec<SessionStart>,
    hearer: Option<JoinHandle<io::Result<()>>>,
}

pub(crate) struct Fleet {
    pub(crate) world: World,
    plan: Plan,
    gateway: Gateway,
    lanes: Lanes,
    oracle: Arc<Mutex<Oracle>>,
    processes: Vec<(Process, Wanted)>,
    groups: Vec<Group>,
    /// Until when a gateway may end because its disk is or was full.
    pub(crate) disk_full_until: Option<Instant>,
    pub(crate) report: Report,
}

/// Whether a process that is down comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Yes,
    No,
}

impl Fleet {
    pub(crate) fn new(world: World, plan: Plan, gateway: Gateway, lanes: Lanes, oracle: Oracle) -> Self {
        Self {
            world,
            plan,
            gateway,
            lanes,
            oracle: Arc::new(Mutex::new(oracle)),
            processes: Vec::new(),
            groups: Vec::new(),
            disk_full_until: None,
            report: Report::default(),
        }
    }

    pub(crate) fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a process part of the run; it starts with the next tick.
    pub(crate) fn add(&mut self, target: Target) {
        self.processes.push((Process::new(target, &self.world.dir), Wanted::Yes));
    }

    /// Makes a client process with that many sessions part of the run. Users take turns, so that each has several; every
    /// fourth is of one of the few users who get the most, whose slow sessions are the ones that are too slow.
    pub(crate) fn add_clients(&mut self, sessions: u32) -> Result<()> {
        let plan = self.plan;
        let mut rng = fastrand::Rng::with_seed(plan.seed ^ self.groups.len() as u64);
        let session = |index: u32| {
            let user =
                if index.is_multiple_of(4) { index / 4 % plan.hot_users() } else { index % plan.users };
            let manners = Manners::of(index.wrapping_add(rng.u32(..4)));
            // A third has some channels, the others all.
            let mut channels = Channel::ALL.to_vec();
            if rng.u8(..3) == 0 {
                rng.shuffle(&mut channels);
                channels.truncate(rng.usize(1..5));
            }
            (user, manners, channels)
        };
        self.add_group((0..sessions).map(session).collect())
    }

    /// Adds steady sessions, one for each user, that read everything from the oldest that there is.
    pub(crate) fn add_witnesses(&mut self) -> Result<()> {
        let session = |user| (user, Manners::Steady, Channel::ALL.to_vec());
        self.add_group((0..self.plan.users).map(session).collect())
    }

    fn add_group(&mut self, sessions: Vec<(u32, Manners, Vec<Channel>)>) -> Result<()> {
        let mut group = Group::default();
        for (user, manners, channels) in sessions {
            let names = if channels.len() == Channel::ALL.len() {
                Vec::new()
            } else {
                channels.iter().map(|channel| channel.name().to_owned()).collect()
            };
            let session = self.oracle().add_session(user, channels);
            let token = gateway::token(&user_id(user))?;
            let positions = [None, None];
            group.sessions.push(SessionStart { session, user, token, channels: names, manners, positions });
        }
        self.groups.push(group);
        self.add(Target::Clients(self.groups.len() as u8 - 1));
        Ok(())
    }

    /// Kills whoever is left, and gives back the place.
    pub(crate) fn disband(self) -> World {
        // Dropped processes are killed and reaped.
        drop(self.processes);
        self.world
    }

    /// Writes down what every thread of every process is at: who waits for something in vain wants to know.
    pub(crate) fn note_threads(&self) -> Result<()> {
        let mut notes = String::new();
        for (process, _) in &self.processes {
            let Some(pid) = process.pid() else { continue };
            notes.push_str(&format!("{} {pid}\n", process.target));
            for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let thread = thread?.path();
                for file in ["comm", "wchan", "syscall", "stat"] {
                    let text = std::fs::read_to_string(thread.join(file)).unwrap_or_default();
                    notes.push_str(&format!("  {file} {}\n", text.trim_end()));
                }
            }
        }
        Ok(std::fs::write(self.world.dir.join("threads"), notes)?)
    }

    /// Looks after all processes; to be called often.
    pub(crate) fn tick(&mut self) -> Result<()> {
        for index in 0..self.processes.len() {
            let (process, wanted) = &mut self.processes[index];
            let target = process.target;
            match process.tick()? {
                Turn::None => {}
                Turn::Due if *wanted == Wanted::Yes => self.start(index)?,
                Turn::Due => {}
                Turn::Died => self.buried(target)?,
                Turn::Unasked(words) => {
                    let is_full = self.disk_full_until.is_some_and(|until| Instant::now() < until);
                    if target == Target::Gateway && is_full && words.contains("full") {
                        self.report.disk_full_ends += 1;
                    } else {
                        self.oracle().fault(Fault::Process, || format!("{target}: {words}"));
                    }
                    self.buried(target)?;
                }
            }
        }
        if let Some(pid) = self.process(Target::Gateway).and_then(Process::pid) {
            self.report.gateway.look(pid);
        }
        Ok(())
    }

    /// The disk is full, or was just now.
    pub(crate) fn disk_is_full(&mut self) {
        self.disk_full_until = Some(Instant::now() + DISK_FULL_ECHO);
    }

    /// Strikes a process, and counts it.
    pub(crate) fn strike(&mut self, target: Target, blow: Blow) -> bool {
        let Some((process, _)) = self.processes.iter_mut().find(|(process, _)| process.target == target)
        else {
            return false;
        };
        if !process.strike(blow) {
            return false;
        }
        let counts = match blow {
            Blow::Kill { .. } => &mut self.report.kills,
            Blow::Stop { .. } => &mut self.report.stops,
            Blow::Restart { .. } => &mut self.report.restarts,
        };
        *counts.entry(target.kind()).or_default() += 1;
        true
    }

    /// Ends the chaos: who is stopped goes on, and clients settle.
    pub(crate) fn calm(&mut self) {
        for (process, _) in &mut self.processes {
            process.go_on();
        }
    }

    pub(crate) fn settle(&mut self) {
        for (process, _) in &mut self.processes {
            if matches!(process.target, Target::Clients(_)) {
                process.settle();
            }
        }
    }

    /// Asks processes for an orderly end; they do not come back.
    pub(crate) fn end(&mut self, which: impl Fn(Target) -> bool) {
        for (process, wanted) in self.processes.iter_mut().filter(|(process, _)| which(process.target)) {
            *wanted = Wanted::No;
            if process.is_up() {
                process.end(Duration::ZERO);
            }
        }
    }

    pub(crate) fn all_up(&self) -> bool {
        self.processes.iter().all(|(process, wanted)| *wanted == Wanted::No || process.is_up())
    }

    pub(crate) fn ended(&self, which: impl Fn(Target) -> bool) -> bool {
        self.processes
            .iter()
            .filter(|(process, _)| which(process.target))
            .all(|(process, _)| process.pid().is_none())
    }

    fn process(&self, target: Target) -> Option<&Process> {
        self.processes.iter().map(|(process, _)| process).find(|process| process.target == target)
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let target = self.processes[index].0.target;
        let mut command = Command::new(std::env::current_exe()?);
        let parent = std::process::id().to_string();
        match target {
            Target::Gateway => command = self.gateway.command()?,
            Target::Storage => {
                command.args(["store", "--parent", &parent, "--bus", &self.world.bus, "--file"]);
                command.arg(self.world.dir.join("storage.records"));
            }
            Target::Producer(lane) => {
                let capacities =
                    self.lanes.capacities[usize::from(lane)].map(|bytes| bytes.to_string()).join(",");
                command.args(["producer", "--parent", &parent, "--bus", &self.world.bus, "--log"]);
                command.arg(self.log(lane));
                for (name, value) in [
                    ("--lane", lane.to_string()),
                    ("--seed", self.plan.seed.to_string()),
                    ("--users", self.plan.users.to_string()),
                    ("--rate", self.lanes.rate.to_string()),
                    ("--capacities", capacities),
                    ("--consumers", "2".to_owned()),
                ] {
                    command.arg(name).arg(value);
                }
            }
            Target::Clients(group) => {
                let file = self.world.dir.join(format!("{target}.start"));
                std::fs::write(&file, serde_json::to_vec(&self.client_start(usize::from(group)))?)?;
                command.args(["clients", "--parent", &parent, "--start"]).arg(file);
            }
        }
        let is_heard = matches!(target, Target::Clients(_));
        let stdout = self.processes[index].0.start(command, is_heard)?;
        if let (Target::Clients(group), Some(stdout)) = (target, stdout) {
            let oracle = Arc::clone(&self.oracle);
            let hear = move || {
                wire::read_all(stdout, |entries| {
                    let mut oracle = oracle.lock().unwrap_or_else(PoisonError::into_inner);
                    entries.iter().for_each(|entry| oracle.take(*entry));
                })
            };
            self.groups[usize::from(group)].hearer = Some(std::thread::spawn(hear));
        }
        Ok(())
    }

    /// Where the sessions of a client process go on: from what the oracle has of them.
    fn client_start(&self, group: usize) -> Start {
        let oracle = self.oracle();
        let sessions = self.groups[group].sessions.iter().map(|session| {
            let positions = oracle.positions(session.session);
            SessionStart { positions, ..session.clone() }
        });
        Start {
            gateway: self.gateway.address,
            seed: self.plan.seed,
            users: self.plan.users,
            heartbeat_ms: HEARTBEAT_MS,
            sessions: sessions.collect(),
        }
    }

    /// A process is dead: what it had said is heard to the end.
    fn buried(&mut self, target: Target) -> Result<()> {
        let Target::Clients(group) = target else { return Ok(()) };
        let group = &mut self.groups[usize::from(group)];
        if let Some(hearer) = group.hearer.take() {
            hearer.join().map_err(|_| "the oracle panicked")??;
        }
        let sessions: Vec<u32> = group.sessions.iter().map(|session| session.session).collect();
        self.oracle().process_died(&sessions);
        Ok(())
    }

    fn log(&self, lane: u8) -> std::path::PathBuf {
        self.world.dir.join(format!("{}.numbers", lane_name(lane)))
    }

    /// What the producers' logs say, by lane.
    pub(crate) fn accounts(&self) -> Result<Vec<Account>> {
        (0..self.lanes.count).map(|lane| Ok(Account::read(&self.log(lane))?)).collect()
    }

    /// Whether both consumers have read and committed all that was published.
    pub(crate) fn is_drained(&self) -> Result<bool> {
        for consumer in [GATEWAY, STORE] {
            let cursors = CursorsStatus::read(&self.world.bus, consumer, None)?;
            for lane in 0..self.lanes.count {
                let lane = LaneStatus::read(&self.world.bus, &lane_name(lane), None)?;
                let read = cursors.lanes.iter().find(|cursor| cursor.lane_key == lane.key);
                let is_read = |read: &bellwire::inspect::CursorStatus| {
                    lane.rings.iter().zip(read.positions).all(|(ring, position)| ring.position == position)
                };
                if !read.is_some_and(is_read) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Checks the storage writer's file, and takes over what only the lanes know.
    pub(crate) fn conclude_bus(&mut self, accounts: &[Account]) -> Result<()> {
        let mut stored = Stored::read(&self.world.dir.join("storage.records"))?;
        for (lane, account) in (0..).zip(accounts) {
            let status = LaneStatus::read(&self.world.bus, &lane_name(lane), None)?;
            let published: u64 = status.rings.iter().map(|ring| ring.published).sum();
            self.report.refused += status.rings.iter().map(|ring| ring.refused).sum::<u64>();
            self.report.released += status.consumers.iter().map(|consumer| consumer.released).sum::<u64>();
            self.report.repeated += account.repeated;
            let is_certain = |number: u64| !account.abandoned.iter().any(|range| range.contains(&number));
            stored.check(lane, published, is_certain, account);
        }
        (self.report.stored, self.report.stored_again) = (stored.records, stored.repeated);
        for problem in stored.problems {
            self.oracle().fault(Fault::Storage, || problem);
        }
        Ok(())
    }
}
