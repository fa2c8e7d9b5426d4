//! An example engine: it cancels a user's open orders when his last session goes.
//!
//! A gateway tells who is connected (`[presence]` in its configuration); [`Presence`] makes sense of it; what is left for
//! an engine is to give users a moment to come back, and to cancel. For everybody who connects and has no open orders this
//! one puts some into its book, so that there is something to see:
//!
//! ```text
//! BELLWIRE_PRESENCE_BUS=main-sessions bellwire-gateway --dev     # it prints a key
//! cargo run -p bellwire-demo --bin cancel-on-disconnect
//! bellwirectl listen ws://127.0.0.1:8640 --user user_01 --key …  # end it, and watch `bellwirectl tail --all`
//! ```
//!
//! # What an engine must decide
//!
//! - *How long a user has to come back* (`--grace`). A gateway that is restarted closes all its sessions; clients are back within
//!   a second or two. A network that breaks without a word is noticed when the gateway has heard nothing for `session.idle_ms`.
//! - *What a dead gateway means* (`--gateway-grace`). Killed, it says nothing. Its lane is not held any more then, and if
//!   no gateway takes it up in time, its users count as gone.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellwire::{
    Budget, Direction, Notification, Offset, OrderAccepted, OrderCanceled, OrderType, Presence, Producer,
    ProducerOptions, PublishError, Reader, ReaderOptions, inspect,
};
use clap::Parser;

/// How often it is looked whether gateways live and whether somebody's time is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An example engine: cancels a user's open orders when his last session goes
#[derive(Parser, Debug)]
struct Args {
    /// The bus on which it publishes
    #[arg(long, default_value = bellwire::DEFAULT_BUS)]
    bus: String,
    /// The bus on which gateways tell who is connected (`presence.bus` in their configuration)
    #[arg(long, default_value = "main-sessions")]
    presence_bus: String,
    /// The group that owns the segments
    #[arg(long)]
    group: Option<String>,
    /// How long a user has to come back, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    grace: u64,
    /// How long a gateway has to come back, in milliseconds
    #[arg(long, default_value_t = 5_000)]
    gateway_grace: u64,
    /// How many orders it puts into its book for each user
    #[arg(long, default_value_t = 3)]
    orders: u64,
    /// End after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
}

/// A resting order.
struct Order {
    id: String,
}

struct Engine {
    lane: Producer,
    /// Open orders of each user.
    book: HashMap<String, Vec<Order>>,
    next_order: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    // An engine is not to end because somebody truncates a gateway's lane.
    match bellwire::guard_mappings().map_err(Into::into).and_then(|()| run(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cancel-on-disconnect: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let (mut producer, mut consumer) = (ProducerOptions::new(), ReaderOptions::new());
    if let Some(group) = &args.group {
        (producer, consumer) = (producer.group(group), consumer.group(group));
    }
    let lane = producer.open(&args.bus, "cancel-on-disconnect")?;
    let mut events = consumer.open(&args.presence_bus, "cancel-on-disconnect")?;
    let mut engine = Engine { lane, book: HashMap::new(), next_order: 1 };
    let mut presence = Presence::default();
    let mut leaving = Leaving { grace: Duration::from_millis(args.grace), since: HashMap::new() };
    let mut gateways = Gateways::new(args);
    let started = Instant::now();
    println!("watching {}", args.presence_bus);
    while args.seconds.is_none_or(|seconds| started.elapsed() < Duration::from_secs(seconds)) {
        events.wait(LOOK_EVERY);
        events.round(Budget::default(), |lane, event| {
            presence.observe(lane.key(), &event, |user| leaving.begin(user));
        });
        // Only now: what was observed and not committed would be observed again after a crash.
        events.commit(events.mark());
        for (lane, was_lost) in gateways.look(&events)? {
            match was_lost {
                true => presence.lost(lane),
                false => presence.gateway_gone(lane, |user| leaving.begin(user)),
            }
        }
        for user in leaving.over(&presence) {
            engine.cancel_all(&user)?;
        }
        for user in presence.users() {
            engine.welcome(user, args.orders)?;
        }
    }
    Ok(())
}

/// Users without a session, and since when.
struct Leaving {
    grace: Duration,
    since: HashMap<String, Instant>,
}

impl Leaving {
    fn begin(&mut self, user: &str) {
        self.since.entry(user.to_owned()).or_insert_with(Instant::now);
    }

    /// Those whose time is over. Who is back has left the list.
    fn over(&mut self, presence: &Presence) -> Vec<String> {
        self.since.retain(|user, _| !presence.is_connected(user));
        let over = self.since.extract_if(|_, since| since.elapsed() >= self.grace);
        over.map(|(user, _)| user).collect()
    }
}

/// Which gateways live, and of which records were lost.
struct Gateways {
    bus: String,
    grace: Duration,
    dead_since: HashMap<u64, Instant>,
    lost: HashMap<u64, u64>,
}

impl Gateways {
    fn new(args: &Args) -> Self {
        let grace = Duration::from_millis(args.gateway_grace);
        Self { bus: args.presence_bus.clone(), grace, dead_since: HashMap::new(), lost: HashMap::new() }
    }

    /// Keys of lanes, with `true` if records of it were lost, `false` if its gateway has been dead for too long.
    fn look(&mut self, events: &Reader) -> Result<Vec<(u64, bool)>, bellwire::NameError> {
        let segments = inspect::segments(&self.bus)?;
        let mut found = Vec::new();
        for lane in events.lanes() {
            let lane = events.lane(lane);
            let lost: u64 = lane.lost().iter().sum();
            if self.lost.insert(lane.key(), lost).is_some_and(|before| before < lost) {
                found.push((lane.key(), true));
            }
            let is_held =
                segments.iter().any(|segment| segment.path == lane.path() && segment.held != Some(false));
            if is_held {
                self.dead_since.remove(&lane.key());
            } else if self.dead_since.entry(lane.key()).or_insert_with(Instant::now).elapsed() >= self.grace {
                found.push((lane.key(), false));
            }
        }
        Ok(found)
    }
}

impl Engine {
    /// Puts orders into the book for a user who has none.
    fn welcome(&mut self, user: &str, orders: u64) -> Result<(), PublishError> {
        if self.book.contains_key(user) {
            return Ok(());
        }
        let mut placed = Vec::new();
        for _ in 0..orders {
            let id = format!("order-{}", self.next_order);
            self.next_order += 1;
            let accepted = OrderAccepted {
                order_id: &id,
                exchange_order_id: &id,
                instrument_id: "IX2401",
                direction: Direction::Buy,
                offset: Offset::Open,
                price: 3_500.0,
                volume: 1.0,
                order_type: OrderType::Limit,
                frozen_margin: 350.0,
                timestamp: now_ns(),
            };
            self.lane.publish(&Notification::new(user, "MatchingEngine", accepted))?;
            placed.push(Order { id });
        }
        println!("{user}: {orders} orders in the book");
        self.book.insert(user.to_owned(), placed);
        Ok(())
    }

    /// Takes all of a user's orders out of the book. He finds the notifications when he comes back.
    fn cancel_all(&mut self, user: &str) -> Result<(), PublishError> {
        let orders = self.book.remove(user).unwrap_or_default();
        for order in &orders {
            let canceled = OrderCanceled {
                order_id: &order.id,
                exchange_order_id: &order.id,
                instrument_id: "IX2401",
                reason: "DISCONNECTED",
                timestamp: now_ns(),
            };
            self.lane.publish(&Notification::new(user, "MatchingEngine", canceled))?;
        }
        if !orders.is_empty() {
            println!("{user}: {} orders canceled", orders.len());
        }
        Ok(())
    }
}

fn now_ns() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
