//! The whole gateway: broker, shards, acceptor; start, run, stop.
//!
//! The order of the end is what makes it lossless: no new sessions; the broker takes what is in the lanes into the journal
//! and commits; the shards write what the journal has, say good-bye and close; then the process ends. Whoever was too slow
//! for that resumes at the next start.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

use crate::admin::{Admin, AdminError, Watched};
use crate::broker::{self, BrokerConfig, BrokerRunning, ShardSignal};
use crate::config::{Config, Sync};
use crate::control::{self, Control, ControlError, Stop};
use crate::doors::Doors;
use crate::presence::Presence;
use crate::protocol::Close;
use crate::reload::Reloader;
use crate::service;
use crate::shard::counters::Counters;
use crate::shard::limits::Limits;
use crate::shard::{Connection, Desk, Settings, ShardHandle, ShardParts};
use bellwire_journal::{JournalConfig, SyncPolicy};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: u32 = 4096;

/// How often it is looked whether broker and shards are still there.
const HEALTH_EVERY: Duration = Duration::from_millis(250);

/// What is waited when there are no more file descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Why the gateway could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("cannot listen on {address}: {error}{}", hint(.error))]
    Listen { address: SocketAddr, error: io::Error },
    #[error(transparent)]
    Broker(#[from] broker::StartError),
    #[error("cannot start shard {index}: {error}")]
    Shard { index: usize, error: io::Error },
    #[error("the listening socket failed: {0}")]
    Accept(io::Error),
    #[error("{0}")]
    ChainKey(String),
    #[error("session events: {0}")]
    Presence(#[from] bellwire::OpenError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("{0}")]
    Stopped(broker::StopError),
    #[error("shard {0} has ended by itself")]
    ShardEnded(usize),
    #[error("{0} shards had not ended when the time was over")]
    Deadline(usize),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another process listens there (a port of 0 takes a free one)",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => "",
    }
}

/// A listening socket for [`run`]. Another process on the same port is an error, never a share of its clients.
///
/// # Errors
/// [`RunError::Listen`].
pub fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        // Clients of a predecessor in TIME_WAIT do not hold the port; a listener does.
        socket.set_reuseaddr(true)?;
        // What is accepted inherits it.
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    bound().map_err(|error| RunError::Listen { address, error })
}

/// Runs a gateway on that socket until `shutdown` or an operator says when it shall end, and ends it in order. `started` is
/// called once it serves.
///
/// # Errors
/// It could not start, something of it failed, or it did not end in time.
pub async fn run(
    reloader: &Arc<Reloader>,
    doors: &Arc<Doors>,
    listener: TcpListener,
    shutdown: impl Future<Output = Stop>,
    started: impl FnOnce(),
) -> Result<(), RunError> {
    let mut configs = reloader.in_effect();
    let config = &*Arc::clone(&configs.borrow_and_update());
    let limits = Limits::new(&limits_of(config));
    let settings = Arc::new(Settings::from(config));
    let desks: Vec<Arc<Desk>> = (0..config.shard_count()).map(|_| Arc::default()).collect();
    let signals = desks.iter().map(|desk| Arc::clone(desk) as Arc<dyn ShardSignal>).collect();
    let broker = broker::start(broker_config(config)?, signals)?;
    let presence = Presence::open(config)?;
    let mut shards = Vec::with_capacity(desks.len());
    for (index, desk) in desks.into_iter().enumerate() {
        let parts = ShardParts {
            settings: Arc::clone(&settings),
            doors: Arc::clone(doors),
            limits: Arc::clone(&limits),
            journal: broker.reader(),
            queries: broker.queries(),
            presence: presence.clone(),
        };
        shards
            .push(ShardHandle::start(index, desk, parts).map_err(|error| RunError::Shard { index, error })?);
    }
    let counters = shards.iter().map(|shard| Arc::clone(shard.counters())).collect();
    let watched = Watched::new(config, broker.counters(), counters);
    // To the very end: draining is to be seen too.
    let _admin = Admin::start(&config.admin, Arc::clone(&watched))?;
    let (stops, mut stopped) = mpsc::channel(1);
    let control = control::Parts {
        watched: Arc::clone(&watched),
        shards: shards.iter().map(|shard| shard.orders().clone()).collect(),
        doors: Arc::clone(doors),
        reloader: Arc::clone(reloader),
        stops,
    };
    // Kept to the very end too: whoever asked for the drain sees by it when it is over.
    let _control = Control::start(&config.control, control)?;
    started();

    let mut stop_by = Stop::default();
    let outcome = tokio::select! {
        outcome = accept(listener, doors, &shards, &limits) => outcome,
        outcome = health(&broker, &shards) => outcome,
        () = follow(&mut configs, &shards, &limits) => Ok(()),
        () = tell(presence.as_deref()) => Ok(()),
        () = service::feed_watchdog(|| watched.progress(), || format!("{} sessions", limits.total())) => Ok(()),
        stop = shutdown => { stop_by = stop; Ok(()) }
        Some(stop) = stopped.recv() => { stop_by = stop; Ok(()) }
    };
    if let Err(error) = &outcome {
        tracing::error!(%error, "stopping");
    } else {
        tracing::info!(sessions = limits.total(), "stopping: no new sessions, draining");
    }
    watched.set_draining();
    service::stopping();
    // The listener is closed by now.
    let within = stop_by.within.unwrap_or_else(|| configs.borrow().drain_deadline());
    let ended = stop(broker, shards, within).await;
    outcome.and(ended)
}

/// Hands on what changes of the configuration. Ends only if nobody is left who could change it.
async fn follow(configs: &mut watch::Receiver<Arc<Config>>, shards: &[ShardHandle], limits: &Limits) {
    while configs.changed().await.is_ok() {
        let config = Arc::clone(&configs.borrow_and_update());
        limits.change(&limits_of(&config));
        let settings = Arc::new(Settings::from(&*config));
        for shard in shards {
            // Of a shard that has ended, `health` tells.
            let _ = shard.orders().settings(Arc::clone(&settings)).await;
        }
    }
}

/// Tells the engines who is connected, if they are to be told. Never returns.
async fn tell(presence: Option<&Presence>) {
    match presence {
        Some(presence) => presence.keep_telling().await,
        None => std::future::pending().await,
    }
}

/// Accepts connections and deals them out. Never returns but with an error.
///
/// The sockets are not made known to this event loop: each goes on to a shard, which has one of its own.
async fn accept(
    listener: TcpListener,
    doors: &Doors,
    shards: &[ShardHandle],
    limits: &Arc<Limits>,
) -> Result<(), RunError> {
    listener.set_nonblocking(true).map_err(RunError::Accept)?;
    // SAFETY: the listener owns its descriptor, and nobody takes it out of the `AsyncFd`.
    #[allow(unsafe_code)]
    let listener = unsafe { AsyncFd::register_with_interest(listener, Interest::READABLE) };
    let listener = listener.map_err(|error| RunError::Accept(error.into()))?;
    let mut next = 0;
    loop {
        let mut ready = listener.readable().await.map_err(RunError::Accept)?;
        let (stream, peer) = match ready.try_io(|listener| listener.get_ref().accept()) {
            Err(_would_block) => continue,
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) if is_of_the_connection(&error) => continue,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                continue;
            }
        };
        // A connection that is gone already fails here, and later anyway.
        let Ok(()) = stream.set_nonblocking(true) else { continue };
        let peer = peer.ip();
        // Who is behind a proxy that is believed, its request will say.
        let is_proxy = doors.policy().proxies().trusts(peer);
        let place = limits.enter((!is_proxy).then_some(peer));
        let shard = next % shards.len();
        next = shard + 1;
        if !shards[shard].hand_over(Connection { stream, peer, place }).await {
            return Err(RunError::ShardEnded(shard));
        }
    }
}

/// Errors that `accept` reports of a connection that has gone meanwhile.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Returns when something of the gateway has ended by itself.
async fn health(broker: &BrokerRunning, shards: &[ShardHandle]) -> Result<(), RunError> {
    loop {
        tokio::time::sleep(HEALTH_EVERY).await;
        if !broker.is_running() {
            // Why, `stop` will tell.
            return Ok(());
        }
        if let Some(index) = shards.iter().position(ShardHandle::has_ended) {
            return Err(RunError::ShardEnded(index));
        }
    }
}

async fn stop(broker: BrokerRunning, shards: Vec<ShardHandle>, time: Duration) -> Result<(), RunError> {
    let deadline = Instant::now() + time;
    // Half of the time is for the lanes, the rest for the clients.
    let stopped = broker.stop(time / 2).map_err(RunError::Stopped);
    for shard in &shards {
        shard.drain(deadline);
    }
    while Instant::now() < deadline && !shards.iter().all(ShardHandle::has_ended) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (index, shard) in shards.iter().enumerate() {
        log_counters(index, shard.counters());
    }
    let late = shards.iter().filter(|shard| !shard.has_ended()).count();
    if late > 0 {
        // Why the broker stopped says more.
        return stopped.and(Err(RunError::Deadline(late)));
    }
    let mut outcome = stopped;
    for (index, shard) in shards.into_iter().enumerate() {
        if !shard.join() {
            outcome = outcome.and(Err(RunError::ShardEnded(index)));
        }
    }
    outcome
}

fn log_counters(shard: usize, counters: &Counters) {
    let closes: Vec<String> = Close::ALL
        .iter()
        .zip(&counters.closes)
        .filter(|(_, count)| count.get() > 0)
        .map(|(close, count)| format!("{} {}: {}", close.code(), close.reason(), count.get()))
        .collect();
    tracing::info!(
        shard,
        opened = counters.opened.get(),
        delivered = counters.delivered.get(),
        writes = counters.writes.get(),
        replayed = counters.replayed.get(),
        conflated = counters.conflated.get(),
        user_mismatch = counters.user_mismatch.get(),
        closes = closes.join(", "),
        "served"
    );
    for (class, latency) in counters.latency.iter().enumerate() {
        if let (Some(p50_us), Some(p99_us)) = (latency.quantile_us(0.5), latency.quantile_us(0.99)) {
            tracing::info!(shard, class, count = latency.count(), p50_us, p99_us, "publish to kernel");
        }
    }
}

fn broker_config(config: &Config) -> Result<BrokerConfig, RunError> {
    let journal = &config.journal;
    Ok(BrokerConfig {
        bus: config.bus.name.clone(),
        consumer: config.bus.consumer.clone(),
        group: config.bus.group.clone(),
        dedup_window: config.bus.dedup_window,
        journal: JournalConfig {
            dir: journal.dir.clone(),
            segment_bytes: journal.segment_bytes,
            retain_bytes: journal.retain_bytes,
            retain_age: (journal.retain_age_s > 0).then(|| Duration::from_secs(journal.retain_age_s)),
            sync: match journal.sync {
                Sync::None => SyncPolicy::None,
                Sync::Interval => SyncPolicy::Interval(Duration::from_millis(journal.sync_interval_ms)),
                Sync::Every => SyncPolicy::Every,
            },
            chain: journal.chain_key().map_err(RunError::ChainKey)?,
        },
        spin: if config.bus.busy_poll { Duration::MAX } else { Duration::from_micros(config.bus.spin_us) },
        core: usize::try_from(config.bus.core).ok(),
    })
}

/// The configured ones, but for no more sessions than there is room for.
fn limits_of(config: &Config) -> crate::config::Limits {
    crate::config::Limits { sessions_total: descriptors_for(config), ..config.limits.clone() }
}

/// Makes room for as many sessions as are configured, each of which is a file descriptor (the soft limit is often 1024 for
/// no reason but history), and tells how many there is room for. What the journal and the lanes need is kept free: clients
/// that take every descriptor must not stop the flow.
fn descriptors_for(config: &Config) -> u32 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    // Lanes, event loops, logs, handshakes that are refused.
    const OTHERS: u64 = 512;
    let sessions = config.limits.sessions_total;
    let others = OTHERS + config.journal.retain_bytes / config.journal.segment_bytes.max(1);
    let wanted = u64::from(sessions) + others;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return sessions };
    if soft >= wanted {
        return sessions;
    }
    let raised = wanted.min(hard).max(soft);
    let allowed = if setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok() { raised } else { soft };
    if allowed >= wanted {
        return sessions;
    }
    let room = allowed.saturating_sub(others).max(allowed / 2);
    let room = u32::try_from(room).unwrap_or(u32::MAX).min(sessions);
    tracing::warn!(
        allowed,
        wanted,
        sessions,
        room,
        "too few open files are allowed: there is room for fewer sessions"
    );
    room
}
