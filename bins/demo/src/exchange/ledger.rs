//! Accounts and positions: what executions and prices make of them. To the cent.

use std::collections::HashMap;

use bellwire::{AccountType, Direction, Offset};

use super::market::INSTRUMENTS;
use super::{OrderNumber, User};

/// What kind of trader somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    MarketMaker,
    Gambler,
    Retail,
}

/// In every twenty users two are market makers and four are gamblers. The first user is an ordinary one.
pub(crate) fn kind(user: User) -> Kind {
    match user % 20 {
        4 | 14 => Kind::MarketMaker,
        2 | 7 | 11 | 17 => Kind::Gambler,
        _ => Kind::Retail,
    }
}

pub(crate) fn account_type(user: User) -> AccountType {
    match kind(user) {
        Kind::MarketMaker => AccountType::Institution,
        _ => AccountType::Person,
    }
}

/// What is in the account before the first trade, in cents.
pub(crate) fn starting_cash_cents(user: User) -> i64 {
    let spread = i64::from(user % 7);
    match kind(user) {
        Kind::MarketMaker => 500_000_000_000,
        Kind::Gambler => (1_000_000 + 100_000 * spread) * 100,
        Kind::Retail => (2_000_000 + 400_000 * spread) * 100,
    }
}

/// How many lots the trader may hold on one side: what his cash would cover, or, with gamblers, would not quite.
pub(crate) fn position_limit(user: User, instrument: usize) -> u64 {
    let terms = &INSTRUMENTS[instrument];
    let share = match kind(user) {
        Kind::MarketMaker => return 100_000,
        Kind::Gambler => 40,
        Kind::Retail => 10,
    };
    let covered = starting_cash_cents(user) * share / 100 / terms.margin_cents(terms.reference, 1).max(1);
    (covered as u64).max(5)
}

/// One side of a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) lots: u64,
    /// What the lots cost when they were opened, in cents.
    pub(crate) cost_cents: i64,
}

impl Side {
    /// Takes lots out and returns what they had cost, on average; the rounding stays with the rest.
    fn take(&mut self, lots: u64) -> i64 {
        let lots = lots.min(self.lots);
        if lots == 0 {
            return 0;
        }
        let cost = (i128::from(self.cost_cents) * i128::from(lots) / i128::from(self.lots)) as i64;
        self.lots -= lots;
        self.cost_cents -= cost;
        cost
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) long: Side,
    pub(crate) short: Side,
    pub(crate) close_profit_cents: i64,
}

impl Position {
    /// What the position would bring, over its cost: long and short, in cents.
    pub(crate) fn profit_cents(&self, instrument: usize, ticks: u64) -> (i64, i64) {
        let terms = &INSTRUMENTS[instrument];
        (
            terms.value_cents(ticks, self.long.lots) - self.long.cost_cents,
            self.short.cost_cents - terms.value_cents(ticks, self.short.lots),
        )
    }
}

/// An account's state, in cents.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Statement {
    /// Cash with all that was realised.
    pub(crate) balance: i64,
    pub(crate) available: i64,
    pub(crate) frozen: i64,
    pub(crate) margin: i64,
    pub(crate) position_profit: i64,
    pub(crate) close_profit: i64,
    /// Margin over equity; above 1 the positions are not covered.
    pub(crate) risk_ratio: f64,
}

struct Account {
    balance: i64,
    close_profit: i64,
    frozen: i64,
    positions: [Position; INSTRUMENTS.len()],
}

/// Margin that an open order holds.
struct Frozen {
    user: User,
    cents: i64,
    lots: u64,
}

/// One side of a trade, as the account system sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Execution {
    pub(crate) user: User,
    pub(crate) order: OrderNumber,
    pub(crate) instrument: usize,
    pub(crate) direction: Direction,
    pub(crate) offset: Offset,
    pub(crate) ticks: u64,
    pub(crate) lots: u64,
    pub(crate) commission_cents: i64,
}

pub(crate) struct Ledger {
    accounts: Vec<Account>,
    frozen: HashMap<OrderNumber, Frozen>,
    last: [u64; INSTRUMENTS.len()],
}

impl Ledger {
    pub(crate) fn new(users: User) -> Self {
        let account = |user| Account {
            balance: starting_cash_cents(user),
            close_profit: 0,
            frozen: 0,
            positions: Default::default(),
        };
        Self {
            accounts: (0..users).map(account).collect(),
            frozen: HashMap::new(),
            last: INSTRUMENTS.map(|instrument| instrument.reference),
        }
    }

    pub(crate) fn knows(&self, user: User) -> bool {
        (user as usize) < self.accounts.len()
    }

    /// An order was accepted that holds margin.
    pub(crate) fn freeze(&mut self, user: User, order: OrderNumber, cents: i64, lots: u64) {
        if cents > 0 && lots > 0 {
            self.accounts[user as usize].frozen += cents;
            self.frozen.insert(order, Frozen { user, cents, lots });
        }
    }

    /// An order is over.
    pub(crate) fn release(&mut self, order: OrderNumber) {
        if let Some(frozen) = self.frozen.remove(&order) {
            self.accounts[frozen.user as usize].frozen -= frozen.cents;
        }
    }

    /// A trade happened.
    pub(crate) fn execute(&mut self, execution: &Execution) {
        let Execution { user, order, instrument, direction, offset, ticks, lots, commission_cents } =
            *execution;
        self.last[instrument] = ticks;
        let account = &mut self.accounts[user as usize];
        account.balance -= commission_cents;
        let value = INSTRUMENTS[instrument].value_cents(ticks, lots);
        let position = &mut account.positions[instrument];
        match (offset, direction) {
            (Offset::Open, Direction::Buy) => {
                position.long.lots += lots;
                position.long.cost_cents += value;
            }
            (Offset::Open, Direction::Sell) => {
                position.short.lots += lots;
                position.short.cost_cents += value;
            }
            (Offset::Close, _) => {
                let profit = match direction {
                    Direction::Sell => value - position.long.take(lots),
                    Direction::Buy => position.short.take(lots) - value,
                };
                position.close_profit_cents += profit;
                account.close_profit += profit;
                account.balance += profit;
            }
        }
        if let Some(frozen) = self.frozen.get_mut(&order) {
            let part = frozen.cents * lots.min(frozen.lots) as i64 / frozen.lots.max(1) as i64;
            frozen.cents -= part;
            frozen.lots -= lots.min(frozen.lots);
            account.frozen -= part;
        }
    }

    /// The owner puts money in.
    pub(crate) fn deposit(&mut self, user: User, cents: i64) {
        self.accounts[user as usize].balance += cents;
    }

    pub(crate) fn position(&self, user: User, instrument: usize) -> Position {
        self.accounts[user as usize].positions[instrument]
    }

    /// The last price of an instrument, in ticks.
    pub(crate) fn last(&self, instrument: usize) -> u64 {
        self.last[instrument]
    }

    pub(crate) fn statement(&self, user: User) -> Statement {
        let account = &self.accounts[user as usize];
        let (mut profit, mut margin) = (0, 0);
        for (instrument, position) in account.positions.iter().enumerate() {
            let (long, short) = position.profit_cents(instrument, self.last[instrument]);
            profit += long + short;
            let lots = position.long.lots + position.short.lots;
            margin += INSTRUMENTS[instrument].margin_cents(self.last[instrument], lots);
        }
        let equity = account.balance + profit;
        Statement {
            balance: account.balance,
            available: equity - margin - account.frozen,
            frozen: account.frozen,
            margin,
            position_profit: profit,
            close_profit: account.close_profit,
            // A ruined account has no ratio; ten is as bad as it gets, and JSON can say it.
            risk_ratio: if margin == 0 { 0.0 } else { (margin as f64 / equity.max(1) as f64).min(10.0) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flow::Flow;
    use super::super::matching::{Matching, What};
    use super::*;

    #[test]
    fn what_one_side_loses_the_other_wins_to_the_cent() {
        const USERS: User = 80;
        let (mut matching, mut flow, mut ledger) =
            (Matching::new(USERS), Flow::new(11, USERS), Ledger::new(USERS));
        let (mut events, mut notices, mut commissions) = (Vec::new(), Vec::new(), 0);
        for _ in 0..30_000 {
            matching.tick(&mut events, &mut notices).unwrap();
            let command = flow.next(&matching);
            matching.execute(command, &mut events, &mut notices).unwrap();
        }
        matching.close_session(&mut events).unwrap();
        for event in &events {
            match event.what {
                What::Accepted { placed, frozen_cents } => {
                    ledger.freeze(event.user, event.order, frozen_cents, placed.lots);
                }
                What::Traded(trade) => {
                    commissions += trade.commission_cents;
                    ledger.execute(&Execution {
                        user: event.user,
                        order: event.order,
                        instrument: event.instrument,
                        direction: trade.direction,
                        offset: trade.offset,
                        ticks: trade.ticks,
                        lots: trade.lots,
                        commission_cents: trade.commission_cents,
                    });
                }
                What::Filled { .. } | What::Canceled { .. } | What::Expired { .. } => {
                    ledger.release(event.order)
                }
                _ => {}
            }
        }
        let started: i64 = (0..USERS).map(starting_cash_cents).sum();
        let statements: Vec<Statement> = (0..USERS).map(|user| ledger.statement(user)).collect();
        let equity: i64 =
            statements.iter().map(|statement| statement.balance + statement.position_profit).sum();
        assert!(commissions > 0);
        assert_eq!(equity + commissions, started);
        assert!(statements.iter().all(|statement| statement.frozen == 0), "margin is still frozen");
        assert!(statements.iter().any(|statement| statement.risk_ratio > 0.5), "nobody took any risk");
    }

    #[test]
    fn closing_half_of_a_position_realises_half_of_its_profit() {
        let mut ledger = Ledger::new(1);
        let execution = |direction, offset, ticks, lots| Execution {
            user: 0,
            order: 1,
            instrument: 3,
            direction,
            offset,
            ticks,
            lots,
            commission_cents: 0,
        };
        ledger.execute(&execution(Direction::Buy, Offset::Open, 4_000, 10));
        ledger.execute(&execution(Direction::Sell, Offset::Close, 4_010, 5));
        // 10 ticks of 1.00, 10 t a lot, 5 lots.
        assert_eq!(ledger.statement(0).close_profit, 50_000);
        assert_eq!(ledger.statement(0).position_profit, 50_000);
        assert_eq!(ledger.position(0, 3).long.lots, 5);
    }
}
