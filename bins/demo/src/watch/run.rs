//! One run, from the first process to the verdict.

use std::cell::RefCell;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::client::Client;
use super::instance::{Instance, InstanceError};
use super::oracle::Verdict;
use super::page_server::{self, Site};
use super::processes::{Gateway, ProcessError, ProducerProcess, read_audit};
use super::tally::{Looker, Shared, Tally};
use super::terminal::Terminal;
use super::token::Key;
use crate::exchange::{User, user_id};
use crate::producers::{ACCOUNT, ENGINE, RISK};

/// The gateway, the account system and risk control: each lane must wait for all of them.
const CONSUMERS: usize = 3;

/// All clients must have subscribed within this time.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// A producer must have finished within this time, and so must the gateway.
const FINISH_WITHIN: Duration = Duration::from_secs(30);

/// What is under way at the end must arrive; if nothing moves for this long, it will not.
const SETTLE_WITHIN: Duration = Duration::from_secs(8);

/// A gateway that ends by itself again and again is not what a demo should hide.
const RESTARTS_MAX: u32 = 20;

/// So many handshakes at a time.
const HANDSHAKES: usize = 32;

/// What the demo can be told. All of it has a default.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// End after so many seconds; without it, Ctrl-C ends the run
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Traders, each with a WebSocket client
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=2000))]
    users: User,
    /// Orders a second; each makes five notifications or so
    #[arg(long, value_name = "N", default_value_t = 700, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    rate: u32,
    /// The order flow's seed: the same seed makes the same orders
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Port of the page; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    port: u16,
}

/// Why there was no run, or why it had to end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Instance(#[from] InstanceError),
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("no random bytes for a key: {0}")]
    Key(std::io::Error),
    #[error("cannot listen on 127.0.0.1:{port}: {error}")]
    Listen { port: u16, error: std::io::Error },
    #[error("cannot watch for signals: {0}")]
    Signals(std::io::Error),
    #[error("{connected} of {users} clients are connected after {} s{}", CONNECT_WITHIN.as_secs(), complaint(.why))]
    Connect { connected: u32, users: User, why: Option<String> },
    #[error("{0}")]
    Audit(String),
    #[error("interrupted")]
    Interrupted,
}

fn complaint(why: &Option<String>) -> String {
    why.as_ref().map(|why| format!("; {why}")).unwrap_or_default()
}

/// Runs the demo; tells whether every notification arrived exactly once and in order.
pub(crate) async fn run(args: &RunArgs) -> Result<bool, RunError> {
    let started = Instant::now();
    let mut terminal = Terminal::new();
    let mut interrupts = Interrupts::new()?;
    let instance = Instance::create()?;
    let key = Key::random().map_err(RunError::Key)?;
    let tally: Shared = Rc::new(RefCell::new(Tally::new(args.users)));

    let mut gateway = Gateway::start(&instance, &key, 0).await?;
    let (listener, address) = listen(args.port).await?;
    let site = Site {
        key,
        users: args.users,
        gateway: gateway.address,
        look: RefCell::new(None),
        kill: Notify::new(),
    };
    let site = Rc::new(site);
    spawn_local(page_server::serve(listener, address, Rc::clone(&site)));
    let banner = format!(
        "Bellwire demo: bus {}, gateway ws://{} (process {}), {} traders, {} orders/s, seed {}\n\nWatch it:  http://{address}/\n",
        instance.bus(),
        gateway.address,
        gateway.pid().unwrap_or_default(),
        args.users,
        args.rate,
        args.seed
    );
    terminal.say(&banner);

    tokio::select! {
        connected = connect(args.users, &site, &tally) => connected?,
        error = gateway.ended() => return Err(error.into()),
        () = interrupts.next() => return Err(RunError::Interrupted),
    }
    let mut producers = Producers::start(&instance, args, &tally)?;
    let mut looker = Looker::new(args.users);
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let end = async {
        match args.seconds {
            Some(seconds) => sleep(Duration::from_secs(seconds)).await,
            None => pending().await,
        }
    };
    tokio::pin!(end);
    let (mut first, mut restarts) = (None, 0);
    let broken = loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = &mut end => break None,
            () = interrupts.next() => break None,
            () = site.kill.notified() => {
                gateway.kill();
                continue;
            }
            error = gateway.ended() => {
                restarts += 1;
                if restarts > RESTARTS_MAX {
                    break Some(RunError::from(error));
                }
                // The journal and the cursors are still there: nothing is lost, and clients resume.
                match Gateway::start(&instance, &site.key, site.gateway.port()).await {
                    Ok(again) => gateway = again,
                    Err(error) => break Some(RunError::from(error)),
                }
                tally.borrow_mut().gateway_restarts = restarts;
                let pid = gateway.pid().unwrap_or_default();
                let why = error.in_short();
                terminal.say(&format!("The gateway ended ({why}); process {pid} goes on, and the clients resume."));
                continue;
            }
            error = producers.ended() => break Some(error),
        }
        let look = looker.look(&mut tally.borrow_mut());
        if first.is_none()
            && let Some(at) = tally.borrow().first_arrival
        {
            let after = at.duration_since(started).as_secs_f64();
            terminal.say(&format!("First live notification {after:.2} s after the start."));
            first = Some(at);
        }
        terminal.show(&look);
        *site.look.borrow_mut() = Some(look);
    };
    let problem = match broken {
        Some(error) => Some(error),
        None => tokio::select! {
            outcome = finish(&mut producers, &tally) => outcome.err(),
            error = gateway.ended() => Some(error.into()),
            () = interrupts.next() => return Err(RunError::Interrupted),
        },
    };
    let verdict: Verdict = tally.borrow().oracle.verdict();
    let look = looker.look(&mut tally.borrow_mut());
    tally.borrow_mut().ending = true;
    drop(producers);
    let stopped = if matches!(problem, Some(RunError::Process(_))) {
        Ok(())
    } else {
        gateway.stop(FINISH_WITHIN).await
    };
    let problem = problem.or(stopped.err().map(RunError::from)).map(|error| error.to_string());
    terminal.summary(&look, &tally.borrow(), &verdict, problem.as_deref());
    Ok(verdict.is_clean() && problem.is_none())
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), RunError> {
    let fail = |error| RunError::Listen { port, error };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    Ok((listener, address))
}

/// Connects a client for each user, and waits until all of them have subscribed.
async fn connect(users: User, site: &Site, tally: &Shared) -> Result<(), RunError> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let all = async {
        for user in 0..users {
            let token = site.key.token(&user_id(user), now_s);
            spawn_local(Client::new(user, site.gateway, token, Rc::clone(tally)).run());
            while (user as usize).saturating_sub(tally.borrow().sessions as usize) >= HANDSHAKES {
                sleep(Duration::from_millis(2)).await;
            }
        }
        while tally.borrow().sessions < users {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(CONNECT_WITHIN, all).await.map_err(|_| {
        let tally = tally.borrow();
        RunError::Connect { connected: tally.sessions, users, why: tally.complaint.clone() }
    })
}

/// The producers end one after the other, each when the one before it has; then what is under way arrives.
async fn finish(producers: &mut Producers, tally: &Shared) -> Result<(), RunError> {
    producers.finish().await?;
    let mut last = (Instant::now(), usize::MAX);
    loop {
        let pending = tally.borrow().oracle.pending();
        if tally.borrow().oracle.is_settled() || last.0.elapsed() > SETTLE_WITHIN {
            // What comes twice comes late: leave it a moment.
            sleep(Duration::from_millis(300)).await;
            return Ok(());
        }
        if pending != last.1 {
            last = (Instant::now(), pending);
        }
        sleep(Duration::from_millis(10)).await;
    }
}

struct Producers {
    engine: ProducerProcess,
    account: ProducerProcess,
    risk: ProducerProcess,
    audits: JoinSet<Result<(), String>>,
}

impl Producers {
    fn start(instance: &Instance, args: &RunArgs, tally: &Shared) -> Result<Self, RunError> {
        let mut audits = JoinSet::new();
        let mut start = |name, more: &[(&str, u64)]| -> Result<ProducerProcess, RunError> {
            let (process, audit) = ProducerProcess::start(name, instance, args.users, CONSUMERS, more)?;
            audits.spawn_local(read_audit(name, audit, Rc::clone(tally)));
            Ok(process)
        };
        let (account, risk) = (start(ACCOUNT, &[])?, start(RISK, &[])?);
        let engine = start(ENGINE, &[("seed", args.seed), ("rate", u64::from(args.rate))])?;
        Ok(Self { engine, account, risk, audits })
    }

    /// Waits until one of them ends although nobody asked it to.
    async fn ended(&mut self) -> RunError {
        tokio::select! {
            error = self.engine.ended() => error.into(),
            error = self.account.ended() => error.into(),
            error = self.risk.ended() => error.into(),
            Some(Ok(Err(why))) = self.audits.join_next() => RunError::Audit(why),
        }
    }

    async fn finish(&mut self) -> Result<(), RunError> {
        for process in [&mut self.engine, &mut self.account, &mut self.risk] {
            process.finish(FINISH_WITHIN).await?;
        }
        while let Some(read) = self.audits.join_next().await {
            read.map_err(|error| RunError::Audit(error.to_string()))?.map_err(RunError::Audit)?;
        }
        Ok(())
    }
}

/// Ctrl-C, and what a service manager sends.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self, RunError> {
        let watch = |kind| signal(kind).map_err(RunError::Signals);
        Ok(Self { interrupt: watch(SignalKind::interrupt())?, terminate: watch(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
