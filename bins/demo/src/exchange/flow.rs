//! The order flow: who does what next. Reproducible: everything is drawn from one seeded generator and from the market
//! as the generator's own orders made it.
//!
//! Three kinds of traders make a market. Market makers quote both sides around the fair value and take their quotes
//! back. Retail traders come and go. Gamblers follow the last move with too much money, so that a turn of the price
//! brings them margin calls.

use bellwire::{Direction, Offset};
use fastrand::Rng;

use super::ledger::{Kind, kind, position_limit, starting_cash_cents};
use super::market::{INSTRUMENTS, ORDER_LOTS_MAX};
use super::matching::{Command, NewOrder, Pricing};
use super::{OrderNumber, User};

/// A trader with more open orders than this takes one back before he places another.
const OPEN_ORDERS_MAX: usize = 40;

/// What a trader sees of the market.
pub(crate) trait MarketView {
    /// Best bid and best ask, in ticks.
    fn best(&self, instrument: usize) -> (Option<u64>, Option<u64>);
    fn is_halted(&self, instrument: usize) -> bool;
    /// How many lots an order of that direction could close.
    fn closable(&self, user: User, instrument: usize, direction: Direction) -> u64;
    /// The trader's resting orders, oldest first.
    fn open_orders(&self, user: User) -> &[OrderNumber];
    /// The newest order of all.
    fn last_order(&self) -> OrderNumber;
}

/// Where the price of an instrument is drawn to.
struct Fair {
    /// In 1/1024 of a tick.
    ticks: i64,
    /// In 1/1024 of a tick, for each step.
    drift: i64,
}

pub(crate) struct Flow {
    random: Rng,
    users: User,
    fair: [Fair; INSTRUMENTS.len()],
}

impl Flow {
    pub(crate) fn new(seed: u64, users: User) -> Self {
        let fair =
            INSTRUMENTS.map(|instrument| Fair { ticks: (instrument.reference as i64) << 10, drift: 0 });
        Self { random: Rng::with_seed(seed), users: users.max(1), fair }
    }

    /// The next command. There is always one.
    pub(crate) fn next(&mut self, market: &impl MarketView) -> Command {
        self.move_prices();
        let user = self.trader();
        match self.random.u32(0..1000) {
            0..25 => self.nonsense(user, market),
            _ => match kind(user) {
                Kind::MarketMaker => self.quote(user, market),
                Kind::Gambler => self.gamble(user, market),
                Kind::Retail => self.trade(user, market),
            },
        }
    }

    /// A random walk that has moods, and now and then a shock; it turns back well inside the daily limits.
    fn move_prices(&mut self) {
        for (fair, instrument) in self.fair.iter_mut().zip(&INSTRUMENTS) {
            let reference = (instrument.reference as i64) << 10;
            let noise = self.random.i64(-600..=600) * instrument.reference as i64 / 12_000;
            match self.random.u32(0..25_000) {
                0 => fair.ticks += reference / 1000 * self.random.i64(-22..=22),
                1..10 => fair.drift = self.random.i64(-45..=45) * instrument.reference as i64 / 12_000,
                _ => {}
            }
            fair.ticks += noise + fair.drift;
            let away = fair.ticks - reference;
            if away.abs() > reference * 7 / 100 {
                fair.ticks = reference + away.signum() * reference * 7 / 100;
                fair.drift = -away.signum() * instrument.reference as i64 / 400;
            }
        }
    }

    /// Market makers are few and busy.
    fn trader(&mut self) -> User {
        let wanted = match self.random.u8(0..100) {
            0..30 => Kind::MarketMaker,
            30..50 => Kind::Gambler,
            _ => Kind::Retail,
        };
        // With few users a kind may be missing; then anybody will do.
        let mut user = self.random.u32(0..self.users);
        for _ in 0..16 {
            if kind(user) == wanted {
                break;
            }
            user = self.random.u32(0..self.users);
        }
        user
    }

    /// Orders that no exchange accepts, as they come from people and from programs.
    fn nonsense(&mut self, user: User, market: &impl MarketView) -> Command {
        let instrument = self.instrument();
        let direction = self.direction();
        let fair = self.fair(instrument);
        let place = |instrument, offset, ticks, lots| {
            let pricing = Pricing::Limit { ticks };
            Command::Place(NewOrder { user, instrument, direction, offset, pricing, lots, lifetime: 1_000 })
        };
        match self.random.u8(0..6) {
            0 => place(INSTRUMENTS.len(), Offset::Open, fair, 1),
            1 => {
                place(instrument, Offset::Open, fair, if self.random.bool() { 0 } else { ORDER_LOTS_MAX + 1 })
            }
            2 => place(instrument, Offset::Open, fair * 13 / 10, 1),
            3 => {
                let lots = market.closable(user, instrument, direction) + 1;
                place(instrument, Offset::Close, fair, lots.min(ORDER_LOTS_MAX))
            }
            // Somebody else's order, or one that is finished.
            _ => Command::Cancel { user, order: self.random.u64(0..=market.last_order()) },
        }
    }

    fn quote(&mut self, user: User, market: &impl MarketView) -> Command {
        let open = market.open_orders(user);
        if open.len() > OPEN_ORDERS_MAX || (open.len() > 8 && self.random.u8(0..100) < 40) {
            return Command::Cancel { user, order: open[0] };
        }
        let (instrument, direction) = (self.instrument(), self.direction());
        let away = self.random.u64(1..=6);
        let fair = self.fair(instrument);
        let ticks = match direction {
            Direction::Buy => fair - away,
            Direction::Sell => fair + away,
        };
        let lots = self.lots(user, instrument).max(2);
        self.place(user, instrument, direction, Pricing::Limit { ticks }, lots, market)
    }

    fn gamble(&mut self, user: User, market: &impl MarketView) -> Command {
        let instrument = self.instrument();
        // Each has his favourite belief, and the last move to follow.
        let direction = match (self.fair[instrument].drift, self.random.u8(0..10)) {
            (drift, 0..7) if drift > 0 => Direction::Buy,
            (drift, 0..7) if drift < 0 => Direction::Sell,
            _ => self.direction(),
        };
        let lots = self.lots(user, instrument);
        let pricing = match self.random.u8(0..10) {
            0..4 => Pricing::Market,
            _ => self.crossing(instrument, direction, market),
        };
        self.place(user, instrument, direction, pricing, lots, market)
    }

    fn trade(&mut self, user: User, market: &impl MarketView) -> Command {
        let open = market.open_orders(user);
        if open.len() > OPEN_ORDERS_MAX || (!open.is_empty() && self.random.u8(0..100) < 22) {
            return Command::Cancel { user, order: open[self.random.usize(0..open.len())] };
        }
        let (instrument, direction) = (self.instrument(), self.direction());
        let lots = self.lots(user, instrument);
        let pricing = match self.random.u8(0..100) {
            0..12 => Pricing::Market,
            12..50 => self.crossing(instrument, direction, market),
            _ => {
                let (fair, away) = (self.fair(instrument), self.random.u64(0..12));
                let ticks = match direction {
                    Direction::Buy => fair - away,
                    Direction::Sell => fair + away,
                };
                Pricing::Limit { ticks }
            }
        };
        self.place(user, instrument, direction, pricing, lots, market)
    }

    /// A limit that trades at once if anybody is there.
    fn crossing(&mut self, instrument: usize, direction: Direction, market: &impl MarketView) -> Pricing {
        let (bid, ask) = market.best(instrument);
        let fair = self.fair(instrument);
        let ticks = match direction {
            Direction::Buy => ask.unwrap_or(fair).min(fair + 8) + 1,
            Direction::Sell => bid.unwrap_or(fair).max(fair - 8) - 1,
        };
        Pricing::Limit { ticks }
    }

    /// Closes what the trader holds, if he has a mind to; else opens.
    fn place(
        &mut self,
        user: User,
        instrument: usize,
        direction: Direction,
        pricing: Pricing,
        lots: u64,
        market: &impl MarketView,
    ) -> Command {
        // A halt is in the news: most traders look elsewhere.
        let instrument = match market.is_halted(instrument) && self.random.u8(0..100) < 90 {
            true => (0..INSTRUMENTS.len()).find(|&other| !market.is_halted(other)).unwrap_or(instrument),
            false => instrument,
        };
        let (pricing, lots) = match pricing {
            Pricing::Limit { ticks } => {
                // The instrument may have changed: stay inside its limits.
                let (low, high) = INSTRUMENTS[instrument].band();
                let ticks = if (low..=high).contains(&ticks) { ticks } else { self.fair(instrument) };
                (Pricing::Limit { ticks }, lots)
            }
            Pricing::Market => (Pricing::Market, lots),
        };
        // Who is at his limit mostly takes the other side instead.
        let held = market.closable(user, instrument, opposite(direction));
        let at_limit = held + lots > position_limit(user, instrument) && held > 0;
        let (direction, pricing) = match at_limit && self.random.u8(0..100) < 85 {
            true => {
                let direction = opposite(direction);
                (direction, self.crossing(instrument, direction, market))
            }
            false => (direction, pricing),
        };
        let closable = market.closable(user, instrument, direction);
        let close = closable > 0 && self.random.u8(0..100) < 70;
        let (offset, lots) = if close { (Offset::Close, lots.min(closable)) } else { (Offset::Open, lots) };
        let lifetime = match self.random.u8(0..10) {
            0..3 => self.random.u64(200..2_000),
            _ => self.random.u64(5_000..20_000),
        };
        Command::Place(NewOrder { user, instrument, direction, offset, pricing, lots, lifetime })
    }

    fn instrument(&mut self) -> usize {
        match self.random.u8(0..10) {
            0..4 => 0,
            4..6 => 1,
            6..8 => 2,
            _ => 3,
        }
    }

    fn direction(&mut self) -> Direction {
        if self.random.bool() { Direction::Buy } else { Direction::Sell }
    }

    /// As many lots as this trader can afford at once, more or less.
    fn lots(&mut self, user: User, instrument: usize) -> u64 {
        let terms = &INSTRUMENTS[instrument];
        let share = match kind(user) {
            Kind::MarketMaker => 10_000,
            Kind::Gambler => 14,
            Kind::Retail => 70,
        };
        let most = starting_cash_cents(user) / share / terms.margin_cents(terms.reference, 1).max(1);
        self.random.u64(1..=(most.max(1) as u64).min(20))
    }

    /// The fair value, in ticks.
    fn fair(&self, instrument: usize) -> u64 {
        (self.fair[instrument].ticks >> 10).max(100) as u64
    }
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Buy => Direction::Sell,
        Direction::Sell => Direction::Buy,
    }
}
