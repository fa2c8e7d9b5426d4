//! The matching engine's process: draws orders, matches them, and publishes what happened, one batch an order.

use std::time::{Duration, Instant};

use bellwire::{Level, Notification, SystemNotice, TradingSessionEnd, TradingSessionStart};
use clap::Args;

use super::publisher::Publisher;
use super::render::{self, Renderer};
use super::{ENGINE, Lifeline, ProducerArgs, ProducerError, now_ns};
use crate::exchange::flow::Flow;
use crate::exchange::market::INSTRUMENTS;
use crate::exchange::matching::{Event, Matching, Notice};

/// How long a trading session lasts.
const SESSION: Duration = Duration::from_secs(60);

/// How often there is something to say to everybody.
const NEWS: Duration = Duration::from_secs(4);

/// The end of a session is published in pieces of this many events.
const BATCH_MAX: usize = 100;

#[derive(Args, Clone, Debug)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    pub(crate) common: ProducerArgs,
    #[arg(long)]
    pub(crate) seed: u64,
    /// Orders a second.
    #[arg(long)]
    pub(crate) rate: u32,
}

pub(crate) fn run(args: &EngineArgs) -> Result<(), ProducerError> {
    let lifeline = Lifeline::tie(args.common.parent, None)?;
    let mut publisher = Publisher::open(&args.common.bus, ENGINE)?;
    publisher.wait_for_consumers(args.common.consumers, None)?;
    let mut engine = Engine {
        publisher,
        renderer: Renderer::new(args.common.users),
        matching: Matching::new(args.common.users),
        flow: Flow::new(args.seed, args.common.users),
        step_ns: 1_000_000_000 / i64::from(args.rate.max(1)),
        sessions: 0,
        events: Vec::new(),
        notices: Vec::new(),
    };
    engine.open_session()?;
    engine.trade(&lifeline)?;
    engine.close_session()?;
    engine.publisher.end()
}

struct Engine {
    publisher: Publisher,
    renderer: Renderer,
    matching: Matching,
    flow: Flow,
    /// Time between two orders, in nanoseconds.
    step_ns: i64,
    sessions: u32,
    events: Vec<Event>,
    notices: Vec<Notice>,
}

impl Engine {
    /// Until the lifeline is cut. Steps that are due are taken; a machine that cannot keep up falls behind instead of
    /// piling them up.
    fn trade(&mut self, lifeline: &Lifeline) -> Result<(), ProducerError> {
        const BEHIND_MAX: Duration = Duration::from_millis(100);
        let step = Duration::from_nanos(self.step_ns as u64);
        let mut due = Instant::now();
        let (mut session, mut news) = (due + SESSION, due + NEWS);
        while !lifeline.is_cut() {
            let now = Instant::now();
            while due <= now {
                self.step()?;
                due += step;
            }
            if now > session {
                session = now + SESSION;
                self.close_session()?;
                self.open_session()?;
            }
            if now > news {
                news = now + NEWS;
                self.tell_news()?;
            }
            self.publisher.flush()?;
            let now = Instant::now();
            due = due.max(now.checked_sub(BEHIND_MAX).unwrap_or(now));
            std::thread::sleep(due.saturating_duration_since(now).min(Duration::from_millis(20)));
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), ProducerError> {
        self.matching.tick(&mut self.events, &mut self.notices)?;
        self.publish()?;
        let command = self.flow.next(&self.matching);
        self.matching.execute(command, &mut self.events, &mut self.notices)?;
        self.publish()
    }

    /// Publishes and forgets what has happened.
    fn publish(&mut self) -> Result<(), ProducerError> {
        let Self { publisher, renderer, events, notices, step_ns, .. } = self;
        for piece in events.chunks(BATCH_MAX) {
            let now = now_ns();
            publisher.batch(|batch| {
                piece.iter().try_for_each(|event| batch.push(Some(event.user), &renderer.event(event, now)))
            })?;
        }
        if !notices.is_empty() {
            let now = now_ns();
            publisher.batch(|batch| {
                notices.iter().try_for_each(|notice| batch.push(None, &render::notice(notice, *step_ns, now)))
            })?;
        }
        events.clear();
        notices.clear();
        Ok(())
    }

    fn tell_all(&mut self, notification: &Notification<'_>) -> Result<(), ProducerError> {
        self.publisher.batch(|batch| batch.push(None, notification))
    }

    fn open_session(&mut self) -> Result<(), ProducerError> {
        self.sessions += 1;
        let session_id = format!("S-{:03}", self.sessions);
        let name = format!("Session {}", self.sessions);
        let day = trading_day();
        let (session_id, trading_day, name, timestamp) = (&*session_id, &*day, &*name, now_ns());
        self.tell_all(&Notification::to_all(
            "MatchingEngine",
            TradingSessionStart { session_id, trading_day, name, timestamp },
        ))
    }

    /// What rests in the books expires, then everybody hears that the session is over.
    fn close_session(&mut self) -> Result<(), ProducerError> {
        self.matching.close_session(&mut self.events)?;
        self.publish()?;
        let session_id = format!("S-{:03}", self.sessions);
        let name = format!("Session {}", self.sessions);
        let day = trading_day();
        let (session_id, trading_day, name, timestamp) = (&*session_id, &*day, &*name, now_ns());
        self.tell_all(&Notification::to_all(
            "MatchingEngine",
            TradingSessionEnd { session_id, trading_day, name, timestamp },
        ))
    }

    fn tell_news(&mut self) -> Result<(), ProducerError> {
        let prices: Vec<String> = INSTRUMENTS
            .iter()
            .zip(self.matching.last_prices())
            .map(|(instrument, ticks)| format!("{} {:.2}", instrument.title, instrument.price(ticks)))
            .collect();
        let content = format!("{}; {} orders rest in the books", prices.join(", "), self.matching.resting());
        let notice =
            SystemNotice { title: "Market", content: &content, level: Level::Info, timestamp: now_ns() };
        self.tell_all(&Notification::to_all("MatchingEngine", notice))
    }
}

/// Today, in UTC, as `2026-01-31`.
fn trading_day() -> String {
    // Days to a civil date, by the rule of the 400-year cycle that begins on a first of March.
    let days = now_ns() / 86_400_000_000_000 + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + i64::from(month <= 2))
}
