//! A producer process: publishes the plan of its lane, as fast as it is told and as room permits.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bellwire::{Priority, Producer, ProducerOptions, PublishError};
use clap::Args;

use crate::Result;
use crate::life::{self, Wish};
use crate::log::{Account, Entry, Log};
use crate::plan::{Plan, Record, lane_name};

/// Between two tries at a full ring.
const RETRY: Duration = Duration::from_micros(500);

/// Longest batch.
const BATCH_MAX: u64 = 12;

/// How many confirmed records a successor publishes again at most.
const REPEATED_MAX: u64 = 64;

/// What was not published in so much time is not caught up with.
const DEBT_MAX: Duration = Duration::from_millis(500);

#[derive(Args, Clone, Debug)]
pub(crate) struct ProducerArgs {
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    bus: String,
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    lane: u8,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    users: u32,
    /// Notifications a second.
    #[arg(long)]
    rate: f64,
    /// Capacity of the four rings, in bytes.
    #[arg(long, value_delimiter = ',')]
    capacities: Vec<usize>,
    /// Consumers that must gate a new lane before the first publish.
    #[arg(long)]
    consumers: usize,
}

/// What a successor does about the records that its predecessor may or may not have published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takeover {
    /// Publishes them again, under the same ids.
    Repeat,
    /// Likewise, and some more that were confirmed.
    RepeatMore,
    /// Goes on behind them.
    Abandon,
}

pub(crate) fn run(args: &ProducerArgs) -> Result<()> {
    life::die_with(args.parent)?;
    let wishes = life::follow();
    let account = Account::read(&args.log)?;
    let mut log = Log::open(&args.log)?;
    let mut producer = open(args)?;
    let left = producer.last_sequence();
    if left < account.lane_sequence {
        let confirmed = account.lane_sequence;
        return Err(format!("the lane ends at {left}, but {confirmed} was confirmed").into());
    }
    if account.entries == 0 {
        wait_for_consumers(&mut producer, args.consumers)?;
    }
    let plan = Plan { seed: args.seed, users: args.users };
    let mut next = take_over(&account, &mut log)?;
    let mut rng = fastrand::Rng::new();
    let mut pace = Pace::new(args.rate);
    while *wishes.borrow() != Wish::End {
        let end = next + if rng.bool() { 1 } else { rng.u64(1..=BATCH_MAX) };
        log.write(&Entry::Intent(next..end))?;
        let lane_sequence = publish(&mut producer, plan, args.lane, next, end)?;
        log.write(&Entry::Confirmed { end, lane_sequence })?;
        pace.wait(end - next, &mut rng);
        next = end;
    }
    Ok(log.write(&Entry::Ended)?)
}

fn open(args: &ProducerArgs) -> Result<Producer> {
    let capacities = Priority::ALL.into_iter().zip(&args.capacities);
    let options = capacities
        .fold(ProducerOptions::new(), |options, (priority, bytes)| options.capacity(priority, *bytes));
    Ok(options.open(&args.bus, &lane_name(args.lane))?)
}

/// A first-time consumer begins at the oldest record that is left; nothing may be gone by then.
fn wait_for_consumers(producer: &mut Producer, consumers: usize) -> Result<()> {
    for _ in 0..4000 {
        producer.look();
        if producer.counters().gating >= consumers {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("{} of {consumers} consumers came", producer.counters().gating).into())
}

/// The number to go on with.
fn take_over(account: &Account, log: &mut Log) -> Result<u64> {
    let confirmed = account.confirmed;
    let takeover = match fastrand::u8(..10) {
        0..3 => Takeover::Abandon,
        3..6 => Takeover::Repeat,
        _ => Takeover::RepeatMore,
    };
    match takeover {
        Takeover::Repeat => Ok(confirmed),
        Takeover::Abandon => {
            if account.intended > confirmed {
                log.write(&Entry::Abandoned(confirmed..account.intended))?;
            }
            Ok(account.intended.max(confirmed))
        }
        Takeover::RepeatMore => {
            // What was abandoned must not come after what was published behind it.
            let least = account.abandoned.last().map_or(0, |range| range.end);
            let first = confirmed.saturating_sub(fastrand::u64(..=REPEATED_MAX)).max(least);
            if first < confirmed {
                log.write(&Entry::Repeated(first..confirmed))?;
            }
            Ok(first)
        }
    }
}

/// Publishes these numbers, however long the rings are full; gives the lane sequence of the last.
fn publish(producer: &mut Producer, plan: Plan, lane: u8, first: u64, end: u64) -> Result<u64> {
    let mut next = first;
    if end - first > 1 {
        let mut batch = producer.batch();
        let pushed: std::result::Result<(), PublishError> = (first..end).try_for_each(|number| {
            plan.notification(Record { lane, number }, |note| batch.push(note).map(|_| ()))
        });
        match pushed {
            Ok(()) => {
                batch.commit();
                next = end;
            }
            // Dropped, nothing of it is published. One by one there is room sooner.
            Err(PublishError::Full { .. }) => drop(batch),
            Err(error) => return Err(error.into()),
        }
    }
    while next < end {
        match plan.notification(Record { lane, number: next }, |note| producer.publish(note)) {
            Ok(_) => next += 1,
            Err(PublishError::Full { .. }) => std::thread::sleep(RETRY),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(producer.last_sequence())
}

/// Keeps to a rate that changes every second, from lulls to bursts.
struct Pace {
    rate: f64,
    factor: f64,
    since: Instant,
    due: Instant,
}

impl Pace {
    fn new(rate: f64) -> Self {
        let now = Instant::now();
        Self { rate, factor: 1.0, since: now, due: now }
    }

    fn wait(&mut self, published: u64, rng: &mut fastrand::Rng) {
        let now = Instant::now();
        if now - self.since > Duration::from_secs(1) {
            self.since = now;
            self.factor = *rng.choice(&[0.1, 0.5, 1.0, 1.0, 1.0, 2.4]).unwrap_or(&1.0);
        }
        self.due += Duration::from_secs_f64(published as f64 / (self.rate * self.factor));
        self.due = self.due.max(now.checked_sub(DEBT_MAX).unwrap_or(now));
        if let Some(time) = self.due.checked_duration_since(now) {
            std::thread::sleep(time);
        }
    }
}
