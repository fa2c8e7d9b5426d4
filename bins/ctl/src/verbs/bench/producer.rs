//! The load's other end: a process with a lane of its own, which publishes as it is told on standard input.

use std::io::{BufRead, Write};
use std::time::{Duration, Instant};

use super::plan::{Done, Mix, Order, Rate};
use super::tally::histogram;
use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human::now_ns;
use bellwire::{
    AccountUpdate, Direction, FillType, Level, MarginCall, Notification, Offset, OrderExpired, OrderRejected,
    PositionUpdate, Producer, ProducerOptions, PublishError, SystemNotice, TradeExecuted,
};
use clap::Args;

/// How long it waits for room in a full ring before it tries again.
const FULL: Duration = Duration::from_micros(500);

/// A ring that stays full for so long means that nobody reads.
const GIVE_UP: Duration = Duration::from_secs(20);

/// Part of `bellwirectl bench`: publishes as it is told on standard input
///
/// Example:
///   echo '{"each":{"count":1}}' | bellwirectl --bus main bench-producer --name bench-0 --users 10
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchProducer {
    #[arg(long, value_name = "LANE")]
    name: String,
    #[arg(long, value_name = "N")]
    users: u32,
}

/// The name of a user of the bench.
pub(super) fn user_id(number: usize) -> String {
    format!("bench_{number:05}")
}

pub(crate) fn run(global: &Global, args: &BenchProducer) -> Result<Exit, Failure> {
    let mut options = ProducerOptions::new();
    if let Some(group) = &global.group {
        options = options.group(group);
    }
    let mut publisher = Publisher {
        lane: options.open(global.bus(), &args.name)?,
        users: (0..args.users as usize).map(user_id).collect(),
        number: String::new(),
        count: 0,
        done: Done::default(),
    };
    let stdin = std::io::stdin().lock();
    for line in stdin.lines() {
        let line = line.map_err(|error| Failure::new(Exit::Wrong, format!("standard input: {error}")))?;
        let order = serde_json::from_str(&line)
            .map_err(|error| Failure::new(Exit::Usage, format!("not an order: {error}")))?;
        let done = publisher.carry_out(&order)?;
        let answer = serde_json::to_string(&done).unwrap_or_else(|error| unreachable!("{error}"));
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{answer}")
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::output(&error))?;
    }
    Ok(Exit::Ok)
}

/// The kernel wakes a sleeper up to 50 µs late, to wake several at once: here that would make pairs of what is meant to come
/// one by one.
fn wake_on_time() {
    // A nanosecond; 0 would stand for the 50 µs. If it is refused, the lateness that is reported tells.
    let _ = nix::sys::prctl::set_timerslack(1);
}

struct Publisher {
    lane: Producer,
    users: Vec<String>,
    /// Scratch: an order's number as text.
    number: String,
    count: u64,
    done: Done,
}

impl Publisher {
    fn carry_out(&mut self, order: &Order) -> Result<Done, Failure> {
        let count = if matches!(order, Order::Broadcast) { 0 } else { self.users.len() };
        self.done = Done { by_user: vec![0; count], ..Done::default() };
        let begun = Instant::now();
        match *order {
            Order::Load { rate, ms, mix, seed } => self.load(rate, Duration::from_millis(ms), mix, seed)?,
            Order::Each { count } => {
                for _ in 0..count {
                    (0..self.users.len()).try_for_each(|user| self.publish(user, 1, now_ns()))?;
                }
            }
            Order::Broadcast => {
                let timestamp = now_ns();
                let notice = SystemNotice { title: "bench", content: "", level: Level::Info, timestamp };
                publish(&mut self.lane, &Notification::to_all("Bench", notice), &mut self.done)?;
            }
        }
        self.done.took_ns = begun.elapsed().as_nanos() as u64;
        Ok(std::mem::take(&mut self.done))
    }

    /// Random users, at moments that are fixed beforehand: what is late does not make the rest later.
    fn load(&mut self, rate: Rate, time: Duration, mix: Mix, seed: u64) -> Result<(), Failure> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut late = histogram();
        let (begun, begun_at) = (Instant::now(), now_ns());
        let Rate::PerSecond(rate) = rate else {
            while begun.elapsed() < time {
                for _ in 0..64 {
                    let (user, class) = (random.usize(0..self.users.len()), mix.class(random.u32(..)));
                    self.publish(user, class, now_ns())?;
                }
            }
            return Ok(());
        };
        wake_on_time();
        let total = (f64::from(rate) * time.as_secs_f64()) as u64;
        let interval_ns = 1e9 / f64::from(rate);
        for index in 0..total {
            let intended = (index as f64 * interval_ns) as u64;
            loop {
                let elapsed = begun.elapsed().as_nanos() as u64;
                if elapsed >= intended {
                    late.saturating_record(elapsed - intended);
                    break;
                }
                std::thread::sleep(Duration::from_nanos(intended - elapsed));
            }
            let (user, class) = (random.usize(0..self.users.len()), mix.class(random.u32(..)));
            self.publish(user, class, begun_at + intended as i64)?;
        }
        self.done.late_p99_ns = late.value_at_quantile(0.99);
        Ok(())
    }

    fn publish(&mut self, user: usize, class: usize, timestamp: i64) -> Result<(), Failure> {
        self.count += 1;
        self.number.clear();
        let _ = std::fmt::Write::write_fmt(&mut self.number, format_args!("O-{:08}", self.count));
        let (user_id, order_id) = (self.users[user].as_str(), self.number.as_str());
        let (exchange_order_id, instrument_id) = ("IX2401-0000012345", "IX2401");
        let is_odd = self.count % 2 == 1;
        let notification = match class {
            0 if is_odd => Notification::new(
                user_id,
                "Bench",
                OrderRejected {
                    order_id,
                    instrument_id,
                    reason: "insufficient margin",
                    error_code: 31,
                    timestamp,
                },
            ),
            0 => Notification::new(
                user_id,
                "Bench",
                MarginCall {
                    user_id,
                    current_margin: 4_200.5,
                    required_margin: 5_000.0,
                    deadline: timestamp,
                    message: "add margin",
                    timestamp,
                },
            ),
            1 => Notification::new(
                user_id,
                "Bench",
                TradeExecuted {
                    trade_id: order_id,
                    order_id,
                    exchange_order_id,
                    instrument_id,
                    direction: Direction::Buy,
                    offset: Offset::Open,
                    price: 3_500.5,
                    volume: 2.0,
                    commission: 1.25,
                    fill_type: FillType::Full,
                    timestamp,
                },
            ),
            2 if is_odd => Notification::new(
                user_id,
                "Bench",
                AccountUpdate {
                    user_id,
                    balance: 1_000_250.75,
                    available: 800_100.5,
                    frozen: 1_050.0,
                    margin: 199_100.25,
                    position_profit: -350.5,
                    close_profit: 1_200.0,
                    risk_ratio: 0.199,
                    timestamp,
                },
            ),
            2 => Notification::new(
                user_id,
                "Bench",
                PositionUpdate {
                    user_id,
                    instrument_id,
                    volume_long: 5.0,
                    volume_short: 0.0,
                    cost_long: 17_502.5,
                    cost_short: 0.0,
                    profit_long: -350.5,
                    profit_short: 0.0,
                    timestamp,
                },
            ),
            _ => Notification::new(
                user_id,
                "Bench",
                OrderExpired {
                    order_id,
                    exchange_order_id,
                    instrument_id,
                    unfilled_volume: 3.0,
                    reason: "end of day",
                    timestamp,
                },
            ),
        };
        publish(&mut self.lane, &notification, &mut self.done)?;
        self.done.by_user[user] += 1;
        Ok(())
    }
}

/// Publishes, waiting for room if there is none.
fn publish(lane: &mut Producer, notification: &Notification<'_>, done: &mut Done) -> Result<(), Failure> {
    let mut full_since: Option<Instant> = None;
    loop {
        match lane.publish(notification) {
            Ok(_) => {
                done.published += 1;
                return Ok(());
            }
            Err(error @ PublishError::Full { .. }) => {
                done.refused += 1;
                if full_since.get_or_insert_with(Instant::now).elapsed() > GIVE_UP {
                    return Err(Failure::new(Exit::Busy, format!("nobody reads: {error}")));
                }
                std::thread::sleep(FULL);
            }
            Err(error) => return Err(Failure::new(Exit::Wrong, error)),
        }
    }
}
