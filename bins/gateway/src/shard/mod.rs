//! Shards: threads that each own a part of the sessions and tail the journal for them.
//!
//! A shard is one thread with one single-threaded event loop. It knows nothing of lanes: the journal and the questions to
//! the broker are all that it sees of the other half of the gateway. It shares nothing with the other shards but the
//! counts in [`limits`]. While it sleeps the broker may push a little for it, see [`desk`]: there is one owner of a shard's
//! state at any time.
//!
//! One *turn* of the loop, in this order: what the journal has got (each record is offered to the sessions of its user:
//! its offset goes onto their lists), what is due to be written ([`flush`]), what sockets have to say, what was asked of
//! the broker, a bit of every replay, and a part of the clockwork. Each step is bounded, so that none starves another,
//! and between any two writes the journal is looked at again, so that a P0 never waits for more than one write.
//!
//! # Why a session gets everything once
//!
//! `tail` is the shard's place in the journal. Whatever the shard knows of a stream (`Tracked`) is as of `tail`: an answer
//! of the broker, which is as of the journal's end when it was given, is looked at only once `tail` has got there. So at
//! any moment there is one number that parts a stream: up to `tracked.head` it is the past, and a replay finds it by the
//! back-links; everything after it will come by and be offered. A session that becomes live at that moment misses
//! nothing and gets nothing twice. A user's records are noted from before the broker is asked, so there is no gap between
//! the answer and the first record that comes by.

mod admit;
mod backlog;
mod bell;
mod clockwork;
mod closing;
mod conflate;
pub mod counters;
mod desk;
mod flush;
mod input;
pub mod limits;
mod orders;
mod render;
mod replay;
mod requests;
mod session;
mod settings;
mod sweep;
mod table;
mod tail;
mod users;
mod work;
mod write;

use std::collections::VecDeque;
use std::net::{IpAddr, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::broker::{BrokerGone, StreamQueries};
use crate::doors::Doors;
use crate::presence::Presence;
use crate::socket::Pool;
use crate::socket::handshake::Admission;
use admit::{Answer, Arrived};
use bell::{Bell, ReadyList};
use bellwire_journal::JournalReader;
use counters::Counters;
use flush::FlushQueue;
use limits::{AddressPermit, Limits};
use orders::Order;
use render::Renderer;
use table::{Handle, Table};
use users::{Tracked, Users};

pub use desk::Desk;
pub use orders::{Conn, Orders, Page, Place, Seen, ShardGone};
pub use settings::Settings;

/// Connections that wait for a shard. At the bound the acceptor waits, and the kernel's backlog grows.
const CONNECTIONS_MAX: usize = 1024;

/// Bytes that are read from a socket at once. One buffer a thread.
const READ_LEN: usize = 16 * 1024;

/// A connection on its way to a shard.
#[derive(Debug)]
pub struct Connection {
    pub stream: TcpStream,
    /// Who is at its other end; a proxy, perhaps.
    pub peer: IpAddr,
    /// Its place, or why it is to be refused.
    pub place: Result<AddressPermit, Admission>,
}

/// A shard as the rest of the gateway sees it.
#[derive(Debug)]
pub struct ShardHandle {
    connections: mpsc::Sender<Connection>,
    orders: Orders,
    desk: Arc<Desk>,
    counters: Arc<Counters>,
    drain_by: Arc<OnceLock<Instant>>,
    thread: JoinHandle<()>,
}

/// What a shard is given.
#[derive(Clone)]
pub struct ShardParts {
    pub settings: Arc<Settings>,
    pub doors: Arc<Doors>,
    pub limits: Arc<Limits>,
    pub journal: JournalReader,
    pub queries: StreamQueries,
    /// Where sessions are told of, if they are.
    pub presence: Option<Arc<Presence>>,
}

impl ShardHandle {
    /// Starts the thread. `desk` is the one that the broker was given.
    ///
    /// # Errors
    /// No thread or no event loop to be had.
    pub fn start(index: usize, desk: Arc<Desk>, parts: ShardParts) -> std::io::Result<Self> {
        let (connections, receiver) = mpsc::channel(CONNECTIONS_MAX);
        let counters = Arc::new(Counters::default());
        let (orders, ordered) = Orders::new(Arc::clone(&desk));
        let drain_by = Arc::new(OnceLock::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn({
            let (desk, counters, drain_by) =
                (Arc::clone(&desk), Arc::clone(&counters), Arc::clone(&drain_by));
            move || {
                let local = tokio::task::LocalSet::new();
                let running = async move {
                    let bell = Arc::clone(desk.bell());
                    match Shard::new(
                        index,
                        bell,
                        parts,
                        Asked { connections: receiver, orders: ordered },
                        counters,
                        drain_by,
                    )
                    .await
                    {
                        // tokio's budget would make a loop over thousands of ready sockets pause at every 128th.
                        Ok(shard) => tokio::task::unconstrained(run(Box::new(shard), &desk)).await,
                        Err(BrokerGone) => {
                            tracing::error!(shard = index, "the broker is gone before the start")
                        }
                    }
                };
                local.block_on(&runtime, running);
            }
        })?;
        Ok(Self { connections, orders, desk, counters, drain_by, thread })
    }

    /// Hands a connection over; waits while the shard has as many before it as it takes. `false`: the shard has ended.
    pub async fn hand_over(&self, connection: Connection) -> bool {
        let handed = self.connections.send(connection).await.is_ok();
        self.desk.bell().ring();
        handed
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Where the shard is told what is wanted of it.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    /// Tells it to write what the journal has, to say good-bye to every session and to end, all of it by then. The first
    /// time counts.
    pub fn drain(&self, by: Instant) {
        let _ = self.drain_by.set(by);
        self.desk.bell().ring();
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end. `false`: the thread panicked.
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

/// Everything that one shard's thread owns; while it sleeps, see [`desk`].
struct Shard {
    index: usize,
    settings: Arc<Settings>,
    limits: Arc<Limits>,
    doors: Arc<Doors>,
    journal: JournalReader,
    queries: StreamQueries,
    presence: Option<Arc<Presence>>,
    counters: Arc<Counters>,

    /// Everything before this offset was offered to the sessions.
    tail: u64,
    /// The stream `all`, as of `tail`.
    everybody: Tracked,
    users: Users,
    sessions: Table,
    flush: FlushQueue,
    /// Sessions whose list has grown so long that something should be left out. Emptied in the same turn.
    lagging: Vec<Handle>,
    /// Sessions with a replay or a snapshot to go on with. Each at most once.
    working: VecDeque<Handle>,

    asked: Asked,
    inbox: Arc<Inbox>,
    /// Answers that are as of a later place in the journal than `tail`. At most one a session.
    early: VecDeque<Answer>,
    ready: Arc<ReadyList>,
    /// Scratch: the slots that are being looked at.
    at_hand: Vec<u32>,
    bell: Arc<Bell>,
    pool: Pool,
    renderer: Renderer,
    buffer: Vec<u8>,

    started: Instant,
    /// Set when the end has begun: when it shall be over.
    drain_by: Arc<OnceLock<Instant>>,
    /// When the good-byes are said even if there is still something to write.
    patience: Option<Instant>,
    /// Set when the good-byes were said: what is left then has until here, in milliseconds.
    ends_at: Option<u64>,
    clockwork: clockwork::Clockwork,
    sweep: sweep::Sweep,
    opened: u64,
}

/// What comes from the rest of the gateway.
struct Asked {
    connections: mpsc::Receiver<Connection>,
    orders: mpsc::Receiver<Order>,
}

/// What tasks of this thread have finished. Nobody ever waits for these locks: the tasks run on the shard's thread.
#[derive(Default)]
struct Inbox {
    // Bounded by HANDSHAKES_MAX.
    arrived: Mutex<VecDeque<Arrived>>,
    // Bounded by the number of sessions.
    answers: Mutex<VecDeque<Answer>>,
    handshakes: AtomicUsize,
}

impl Inbox {
    fn arrived(&self) -> MutexGuard<'_, VecDeque<Arrived>> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answers(&self) -> MutexGuard<'_, VecDeque<Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    async fn new(
        index: usize,
        bell: Arc<Bell>,
        parts: ShardParts,
        asked: Asked,
        counters: Arc<Counters>,
        drain_by: Arc<OnceLock<Instant>>,
    ) -> Result<Self, BrokerGone> {
        let ShardParts { settings, doors, limits, journal, queries, presence } = parts;
        let state = queries.stream(bellwire::EVERYBODY).await?;
        let ready = ReadyList::new(Arc::clone(&bell));
        let buffer = vec![0; READ_LEN + settings.frame_bytes_max + crate::socket::frames::HEADER_LEN_MAX];
        Ok(Self {
            index,
            clockwork: clockwork::Clockwork::new(&settings),
            settings,
            sweep: sweep::Sweep::new(&doors),
            doors,
            journal,
            queries,
            presence,
            counters,
            tail: state.journal_end,
            everybody: Tracked { epoch: state.epoch, head: state.head, last_offset: state.last_offset },
            users: Users::default(),
            sessions: Table::default(),
            limits,
            flush: FlushQueue::default(),
            lagging: Vec::new(),
            working: VecDeque::new(),
            asked,
            inbox: Arc::default(),
            early: VecDeque::new(),
            ready,
            at_hand: Vec::new(),
            bell,
            pool: Pool::default(),
            renderer: Renderer::default(),
            buffer,
            started: Instant::now(),
            drain_by,
            patience: None,
            ends_at: None,
            opened: 0,
        })
    }

    /// One turn; `false` if there is nothing left to do but wait.
    fn turn(&mut self) -> bool {
        let mut busy = self.write_what_is_due();
        busy |= self.take_connections();
        busy |= self.take_orders();
        busy |= self.take_arrived();
        busy |= self.look_at_sockets();
        busy |= self.take_answers();
        busy |= self.go_on_working();
        self.run_clockwork();
        busy |= self.look_for_revoked();
        // Any of these may have made work for one of the others.
        busy |= self.has_more_to_do();
        if self.ends_at.is_none()
            && let Some(&by) = self.drain_by.get()
        {
            let now = Instant::now();
            let patience = *self.patience.get_or_insert(now + by.saturating_duration_since(now) / 2);
            if !busy || now >= patience {
                self.say_good_bye(by.saturating_duration_since(now));
            }
        }
        busy
    }

    /// Whether something waits for the next turn.
    fn has_more_to_do(&self) -> bool {
        !(self.at_hand.is_empty() && self.working.is_empty() && self.flush.is_empty())
    }

    /// Time since the shard's start: what deadlines are made of.
    fn now_ns(&self) -> u64 {
        // A process that runs for 584 years may restart its shards.
        self.started.elapsed().as_nanos() as u64
    }

    fn now_ms(&self) -> u64 {
        self.now_ns() / 1_000_000
    }

    /// How long until the clockwork moves; `None` if nobody needs it.
    fn next_tick(&self) -> Option<Duration> {
        (self.sessions.len() > 0 || self.ends_at.is_some()).then(|| self.clockwork.wait(self.now_ns()))
    }
}

async fn run(mut shard: Box<Shard>, desk: &Desk) {
    loop {
        let busy = shard.turn();
        if shard.ends_at.is_some_and(|end| shard.sessions.len() == 0 || shard.now_ms() >= end) {
            return;
        }
        if busy {
            // Sockets and handshakes have their turn.
            tokio::task::yield_now().await;
            continue;
        }
        desk.bell().falling_asleep();
        if shard.journal.end() <= shard.tail {
            let tick = shard.next_tick();
            desk.put(shard);
            sleep(desk.bell(), tick).await;
            let Some(woken) = desk.take() else { unreachable!("only this thread takes it") };
            shard = woken;
        } else {
            // However the journal moves, sockets and handshakes have their turn.
            tokio::task::yield_now().await;
        }
        desk.bell().awake();
    }
}

/// Waits until there is something to do. See [`bell`] for why no ring is lost.
async fn sleep(bell: &Bell, tick: Option<Duration>) {
    match tick {
        Some(tick) => {
            tokio::select! {
                () = bell.rung() => {}
                () = tokio::time::sleep(tick) => {}
            }
        }
        None => bell.rung().await,
    }
}
