//! The matching engine: checks orders, matches them in the books, and says what happened in the order in which it did.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use bellwire::{Direction, FillType, Offset, OrderType};

use super::book::{Book, BookError};
use super::flow::MarketView;
use super::market::{INSTRUMENTS, Instrument, ORDER_LOTS_MAX};
use super::{OrderNumber, User};

/// A trade this far from the price at the window's start halts the instrument, in per mille.
const HALT_PERMILLE: u64 = 12;

/// How many steps a window of the circuit breaker lasts, and how many a halt.
const HALT_WINDOW: u64 = 4_000;
const HALT_STEPS: u64 = 600;

/// What a trader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Place(NewOrder),
    Cancel { user: User, order: OrderNumber },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NewOrder {
    pub(crate) user: User,
    /// Index of the instrument; one that does not exist is refused.
    pub(crate) instrument: usize,
    pub(crate) direction: Direction,
    pub(crate) offset: Offset,
    pub(crate) pricing: Pricing,
    pub(crate) lots: u64,
    /// After so many steps what rests expires.
    pub(crate) lifetime: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pricing {
    Limit { ticks: u64 },
    Market,
}

impl Pricing {
    pub(crate) fn order_type(self) -> OrderType {
        match self {
            Self::Limit { .. } => OrderType::Limit,
            Self::Market => OrderType::Market,
        }
    }
}

/// What happened to one order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) user: User,
    pub(crate) order: OrderNumber,
    pub(crate) instrument: usize,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    Accepted { placed: NewOrder, frozen_cents: i64 },
    Rejected(Rejection),
    PartiallyFilled { filled: u64, remaining: u64, average_ticks: f64 },
    Filled { filled: u64, average_ticks: f64 },
    Canceled { reason: &'static str },
    Expired { unfilled: u64, reason: &'static str },
    Traded(Trade),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trade {
    pub(crate) number: u64,
    pub(crate) direction: Direction,
    pub(crate) offset: Offset,
    pub(crate) ticks: u64,
    pub(crate) lots: u64,
    pub(crate) commission_cents: i64,
    pub(crate) fill_type: FillType,
}

/// Why an order was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    Instrument,
    Volume,
    Price,
    Halted,
    Position,
    PositionLimit,
    OrderGone,
    Liquidity,
}

impl Rejection {
    pub(crate) fn code(self) -> u32 {
        1001 + self as u32
    }

    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Instrument => "no such instrument",
            Self::Volume => "volume is not between 1 and 100 lots",
            Self::Price => "price is outside the daily limits",
            Self::Halted => "trading in this instrument is halted",
            Self::Position => "not enough position to close",
            Self::PositionLimit => "would exceed the position limit",
            Self::OrderGone => "no such order, or it is finished",
            Self::Liquidity => "nobody on the other side",
        }
    }
}

/// What concerns everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Halted { instrument: usize, resumes_in: u64 },
    Resumed { instrument: usize },
}

/// An order that rests in a book.
struct Resting {
    placed: NewOrder,
    filled: u64,
    /// Sum of ticks times lots over its fills.
    filled_ticks: u64,
}

/// What one trader holds of one instrument.
#[derive(Clone, Copy, Debug, Default)]
struct Holding {
    long: u64,
    short: u64,
    /// Lots that open orders are about to close.
    long_closing: u64,
    short_closing: u64,
}

impl Holding {
    fn closing(&mut self, direction: Direction) -> (&mut u64, &mut u64) {
        match direction {
            Direction::Sell => (&mut self.long, &mut self.long_closing),
            Direction::Buy => (&mut self.short, &mut self.short_closing),
        }
    }
}

/// One instrument's books and breakers.
struct Floor {
    book: Book,
    last: u64,
    /// The price at the start of the breaker's window.
    anchor: u64,
    halted_until: Option<u64>,
}

pub(crate) struct Matching {
    floors: Vec<Floor>,
    resting: HashMap<OrderNumber, Resting>,
    /// Each trader's resting orders, oldest first.
    open: Vec<Vec<OrderNumber>>,
    holdings: Vec<[Holding; INSTRUMENTS.len()]>,
    expiries: BinaryHeap<Reverse<(u64, OrderNumber)>>,
    step: u64,
    last_order: OrderNumber,
    last_trade: u64,
}

impl Matching {
    pub(crate) fn new(users: User) -> Self {
        let floor = |instrument: &Instrument| Floor {
            book: Book::new(instrument.id),
            last: instrument.reference,
            anchor: instrument.reference,
            halted_until: None,
        };
        Self {
            floors: INSTRUMENTS.iter().map(floor).collect(),
            resting: HashMap::new(),
            open: vec![Vec::new(); users as usize],
            holdings: vec![Default::default(); users as usize],
            expiries: BinaryHeap::new(),
            step: 0,
            last_order: 0,
            last_trade: 0,
        }
    }

    /// Moves time on by one step: orders whose time is over expire, halts end.
    pub(crate) fn tick(
        &mut self,
        events: &mut Vec<Event>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), BookError> {
        self.step += 1;
        while let Some(&Reverse((due, order))) = self.expiries.peek() {
            if due > self.step {
                break;
            }
            self.expiries.pop();
            self.expire(order, "good till time is over", events)?;
        }
        for (instrument, floor) in self.floors.iter_mut().enumerate() {
            if floor.halted_until.is_some_and(|until| until <= self.step) {
                floor.halted_until = None;
                notices.push(Notice::Resumed { instrument });
            }
            if self.step.is_multiple_of(HALT_WINDOW) {
                floor.anchor = floor.last;
            }
        }
        Ok(())
    }

    /// Carries out one command. The events of one call belong together.
    pub(crate) fn execute(
        &mut self,
        command: Command,
        events: &mut Vec<Event>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), BookError> {
        match command {
            Command::Place(placed) => self.place(placed, events, notices),
            Command::Cancel { user, order } => self.cancel(user, order, events),
        }
    }

    /// The trading session is over: what rests expires.
    pub(crate) fn close_session(&mut self, events: &mut Vec<Event>) -> Result<(), BookError> {
        let mut orders: Vec<OrderNumber> = self.resting.keys().copied().collect();
        orders.sort_unstable();
        self.expiries.clear();
        orders.into_iter().try_for_each(|order| self.expire(order, "end of the trading session", events))
    }

    /// The last price of each instrument, in ticks.
    pub(crate) fn last_prices(&self) -> impl Iterator<Item = u64> {
        self.floors.iter().map(|floor| floor.last)
    }

    /// How many orders rest in the books.
    pub(crate) fn resting(&self) -> usize {
        self.resting.len()
    }

    fn place(
        &mut self,
        placed: NewOrder,
        events: &mut Vec<Event>,
        notices: &mut Vec<Notice>,
    ) -> Result<(), BookError> {
        self.last_order += 1;
        let (order, NewOrder { user, instrument, direction, lots, .. }) = (self.last_order, placed);
        let event = |what| Event { user, order, instrument, what };
        if let Err(rejection) = self.check(&placed) {
            events.push(event(What::Rejected(rejection)));
            return Ok(());
        }
        let terms = &INSTRUMENTS[instrument];
        let frozen_cents = match (placed.offset, placed.pricing) {
            (Offset::Open, Pricing::Limit { ticks }) => terms.margin_cents(ticks, lots),
            // A market order is over at once, and closing needs no margin.
            _ => 0,
        };
        events.push(event(What::Accepted { placed, frozen_cents }));
        if placed.offset == Offset::Close {
            *self.holdings[user as usize][instrument].closing(direction).1 += lots;
        }
        self.resting.insert(order, Resting { placed, filled: 0, filled_ticks: 0 });
        self.open[user as usize].push(order);
        self.expiries.push(Reverse((self.step + placed.lifetime, order)));

        let book = &mut self.floors[instrument].book;
        let fills = match placed.pricing {
            Pricing::Limit { ticks } => book.limit(order, direction, ticks, lots)?,
            Pricing::Market => book.market(order, direction, lots)?,
        };
        for fill in &fills {
            self.last_trade += 1;
            for number in [fill.maker, order] {
                self.fill(number, fill.ticks, fill.lots, events);
            }
        }
        if let Some(fill) = fills.last() {
            self.watch(instrument, fill.ticks, notices);
        }
        if placed.pricing == Pricing::Market
            && let Some(rest) = self.remove(order)
        {
            events.push(event(match rest.filled {
                0 => What::Rejected(Rejection::Liquidity),
                _ => What::Canceled { reason: "the other side is used up" },
            }));
        }
        Ok(())
    }

    fn check(&self, placed: &NewOrder) -> Result<(), Rejection> {
        let NewOrder { user, instrument, direction, lots, .. } = *placed;
        let (terms, floor) =
            INSTRUMENTS.get(instrument).zip(self.floors.get(instrument)).ok_or(Rejection::Instrument)?;
        if !(1..=ORDER_LOTS_MAX).contains(&lots) {
            return Err(Rejection::Volume);
        }
        let (low, high) = terms.band();
        if let Pricing::Limit { ticks } = placed.pricing
            && !(low..=high).contains(&ticks)
        {
            return Err(Rejection::Price);
        }
        if floor.halted_until.is_some() {
            return Err(Rejection::Halted);
        }
        let mut holding = self.holdings[user as usize][instrument];
        match placed.offset {
            Offset::Close => {
                let (held, closing) = holding.closing(direction);
                if *held - *closing < lots {
                    return Err(Rejection::Position);
                }
            }
            Offset::Open => {
                let held = match direction {
                    Direction::Buy => holding.long,
                    Direction::Sell => holding.short,
                };
                // The risk desk complains at the limit; a quarter beyond it nothing goes any more.
                if held + lots > super::ledger::position_limit(user, instrument) * 5 / 4 {
                    return Err(Rejection::PositionLimit);
                }
            }
        }
        Ok(())
    }

    fn fill(&mut self, order: OrderNumber, ticks: u64, lots: u64, events: &mut Vec<Event>) {
        let Some(resting) = self.resting.get_mut(&order) else { return };
        resting.filled += lots;
        resting.filled_ticks += ticks * lots;
        let NewOrder { user, instrument, direction, offset, .. } = resting.placed;
        let (filled, remaining) = (resting.filled, resting.placed.lots - resting.filled);
        let average_ticks = resting.filled_ticks as f64 / filled as f64;

        let holding = &mut self.holdings[user as usize][instrument];
        match offset {
            Offset::Open => match direction {
                Direction::Buy => holding.long += lots,
                Direction::Sell => holding.short += lots,
            },
            Offset::Close => {
                let (held, closing) = holding.closing(direction);
                *held -= lots;
                *closing -= lots;
            }
        }
        let event = |what| Event { user, order, instrument, what };
        events.push(event(What::Traded(Trade {
            number: self.last_trade,
            direction,
            offset,
            ticks,
            lots,
            commission_cents: INSTRUMENTS[instrument].commission_cents * lots as i64,
            fill_type: if remaining == 0 { FillType::Full } else { FillType::Partial },
        })));
        if remaining == 0 {
            self.remove(order);
            events.push(event(What::Filled { filled, average_ticks }));
        } else {
            events.push(event(What::PartiallyFilled { filled, remaining, average_ticks }));
        }
    }

    fn cancel(&mut self, user: User, order: OrderNumber, events: &mut Vec<Event>) -> Result<(), BookError> {
        let theirs = self.resting.get(&order).filter(|resting| resting.placed.user == user);
        let Some(instrument) = theirs.map(|resting| resting.placed.instrument) else {
            // The instrument of an order that is gone is nobody's business any more.
            let instrument = INSTRUMENTS.len();
            events.push(Event { user, order, instrument, what: What::Rejected(Rejection::OrderGone) });
            return Ok(());
        };
        self.floors[instrument].book.cancel(order)?;
        self.remove(order);
        events.push(Event {
            user,
            order,
            instrument,
            what: What::Canceled { reason: "canceled by the trader" },
        });
        Ok(())
    }

    fn expire(
        &mut self,
        order: OrderNumber,
        reason: &'static str,
        events: &mut Vec<Event>,
    ) -> Result<(), BookError> {
        let Some(resting) = self.remove(order) else { return Ok(()) };
        let NewOrder { user, instrument, lots, .. } = resting.placed;
        self.floors[instrument].book.cancel(order)?;
        let what = What::Expired { unfilled: lots - resting.filled, reason };
        events.push(Event { user, order, instrument, what });
        Ok(())
    }

    /// Forgets an order that is over, and what it had reserved.
    fn remove(&mut self, order: OrderNumber) -> Option<Resting> {
        let resting = self.resting.remove(&order)?;
        let NewOrder { user, instrument, direction, offset, lots, .. } = resting.placed;
        self.open[user as usize].retain(|&open| open != order);
        if offset == Offset::Close {
            *self.holdings[user as usize][instrument].closing(direction).1 -= lots - resting.filled;
        }
        Some(resting)
    }

    /// The circuit breaker: a price that ran too far halts the instrument.
    fn watch(&mut self, instrument: usize, ticks: u64, notices: &mut Vec<Notice>) {
        let floor = &mut self.floors[instrument];
        floor.last = ticks;
        if ticks.abs_diff(floor.anchor) * 1000 > floor.anchor * HALT_PERMILLE {
            floor.anchor = ticks;
            floor.halted_until = Some(self.step + HALT_STEPS);
            notices.push(Notice::Halted { instrument, resumes_in: HALT_STEPS });
        }
    }
}

impl MarketView for Matching {
    fn best(&self, instrument: usize) -> (Option<u64>, Option<u64>) {
        self.floors[instrument].book.best()
    }

    fn is_halted(&self, instrument: usize) -> bool {
        self.floors[instrument].halted_until.is_some()
    }

    fn closable(&self, user: User, instrument: usize, direction: Direction) -> u64 {
        let mut holding = self.holdings[user as usize][instrument];
        let (held, closing) = holding.closing(direction);
        *held - *closing
    }

    fn open_orders(&self, user: User) -> &[OrderNumber] {
        &self.open[user as usize]
    }

    fn last_order(&self) -> OrderNumber {
        self.last_order
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::flow::Flow;
    use super::*;

    fn run(seed: u64, users: User, steps: u64) -> (Vec<Event>, Vec<Notice>, Matching) {
        let (mut matching, mut flow) = (Matching::new(users), Flow::new(seed, users));
        let (mut events, mut notices) = (Vec::new(), Vec::new());
        for _ in 0..steps {
            matching.tick(&mut events, &mut notices).unwrap();
            let command = flow.next(&matching);
            matching.execute(command, &mut events, &mut notices).unwrap();
        }
        matching.close_session(&mut events).unwrap();
        (events, notices, matching)
    }

    #[test]
    fn the_same_seed_gives_the_same_events_and_another_seed_others() {
        assert_eq!(run(1, 50, 5_000).0, run(1, 50, 5_000).0);
        assert_ne!(run(1, 50, 5_000).0, run(2, 50, 5_000).0);
    }

    #[test]
    fn every_trade_has_a_buyer_and_a_seller_of_the_same_volume_at_the_same_price() {
        let mut trades: HashMap<u64, Vec<Trade>> = HashMap::new();
        let (events, ..) = run(3, 100, 20_000);
        for event in &events {
            if let What::Traded(trade) = event.what {
                trades.entry(trade.number).or_default().push(trade);
            }
        }
        assert!(trades.len() > 5_000, "hardly any trades: {}", trades.len());
        for (number, sides) in trades {
            let [maker, taker] = sides.as_slice() else { panic!("trade {number} has {} sides", sides.len()) };
            assert_eq!((maker.lots, maker.ticks), (taker.lots, taker.ticks), "trade {number}");
            assert_ne!(maker.direction, taker.direction, "trade {number}");
        }
    }

    #[test]
    fn an_order_is_accepted_first_and_finished_once_and_its_fills_add_up() {
        #[derive(Default)]
        struct Life {
            lots: u64,
            traded: u64,
            accepted: bool,
            finished: bool,
        }
        let mut lives: HashMap<OrderNumber, Life> = HashMap::new();
        let (events, ..) = run(4, 100, 20_000);
        for event in &events {
            let life = lives.entry(event.order).or_default();
            let gone = event.what == What::Rejected(Rejection::OrderGone);
            assert!(gone || !life.finished, "after its end: {event:?}");
            match event.what {
                What::Accepted { placed, .. } => {
                    assert!(!life.accepted);
                    (life.accepted, life.lots) = (true, placed.lots);
                }
                What::Traded(trade) => life.traded += trade.lots,
                What::PartiallyFilled { filled, remaining, .. } => {
                    assert_eq!((filled, filled + remaining), (life.traded, life.lots));
                }
                What::Filled { filled, .. } => {
                    assert_eq!((filled, filled), (life.traded, life.lots));
                    life.finished = true;
                }
                What::Expired { unfilled, .. } => {
                    assert_eq!(unfilled + life.traded, life.lots);
                    life.finished = true;
                }
                What::Canceled { .. } => life.finished = true,
                What::Rejected(_) if gone => {}
                What::Rejected(Rejection::Liquidity) => {
                    assert!(life.accepted && life.traded == 0);
                    life.finished = true;
                }
                What::Rejected(_) => {
                    assert!(!life.accepted, "refused after it was accepted: {event:?}");
                    life.finished = true;
                }
            }
        }
        assert!(lives.values().all(|life| life.finished || life.lots == 0), "an order without an end");
    }

    #[test]
    fn nobody_closes_what_he_does_not_hold_and_nothing_is_left_reserved() {
        // A holding below zero would panic in a test build: these are unsigned numbers.
        let (_, _, matching) = run(5, 60, 20_000);
        assert_eq!(matching.resting(), 0);
        for (user, holdings) in matching.holdings.iter().enumerate() {
            for holding in holdings {
                assert_eq!((holding.long_closing, holding.short_closing), (0, 0), "user {user}");
            }
        }
        for instrument in 0..INSTRUMENTS.len() {
            let sum = |side: fn(&Holding) -> u64| {
                matching.holdings.iter().map(|holdings| side(&holdings[instrument])).sum::<u64>()
            };
            assert_eq!(sum(|holding| holding.long), sum(|holding| holding.short), "instrument {instrument}");
        }
    }

    #[test]
    fn everything_that_can_happen_does() {
        let (events, notices, _) = run(6, 200, 60_000);
        let count = |is: fn(&What) -> bool| events.iter().filter(|event| is(&event.what)).count();
        let rejected = |why| events.iter().filter(|event| event.what == What::Rejected(why)).count();
        assert!(count(|what| matches!(what, What::PartiallyFilled { .. })) > 1_000);
        assert!(count(|what| matches!(what, What::Filled { .. })) > 1_000);
        assert!(count(|what| matches!(what, What::Canceled { .. })) > 1_000);
        assert!(count(|what| matches!(what, What::Expired { .. })) > 100);
        for why in [
            Rejection::Instrument,
            Rejection::Volume,
            Rejection::Price,
            Rejection::Halted,
            Rejection::Position,
            Rejection::OrderGone,
        ] {
            assert!(rejected(why) > 10, "{why:?}: {}", rejected(why));
        }
        assert!(notices.iter().any(|notice| matches!(notice, Notice::Halted { .. })));
        assert!(notices.iter().any(|notice| matches!(notice, Notice::Resumed { .. })));
    }
}
