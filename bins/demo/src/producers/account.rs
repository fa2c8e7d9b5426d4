//! The account system's process: reads the matching engine's lane in place, keeps the books, and publishes accounts and
//! positions on a lane of its own.
//!
//! What changed is remembered as a set, not as a queue: when the own lane is full, newer states simply replace older
//! ones that were not published yet.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bellwire::{
    AccountOpen, AccountUpdate, Budget, LaneInfo, Notification, NotificationView, PayloadView,
    PositionProfit, PositionUpdate, PublishError, Reader,
};

use super::publisher::{Publisher, Pusher};
use super::{ACCOUNT, ENGINE, Lifeline, ProducerArgs, ProducerError, now_ns};
use crate::exchange::ledger::{Execution, Ledger, account_type, starting_cash_cents};
use crate::exchange::market::{INSTRUMENTS, Instrument, money};
use crate::exchange::{User, order_number, user_id, user_number};

const SOURCE: &str = "AccountSystem";
const POSITIONS: &str = "PositionTracker";

/// All positions are valued anew within so many slices, one slice a time.
const SLICES: u32 = 20;
const SLICE_EVERY: Duration = Duration::from_millis(100);

/// An account that is not covered gets money from its owner after this time.
const OWNER_PAYS_AFTER: Duration = Duration::from_secs(4);

/// The most changes of one batch.
const BATCH_MAX: usize = 64;

/// Everything that is there, all priorities.
pub(super) const EVERYTHING: Budget = Budget { records_max: [usize::MAX; 4] };

pub(crate) fn run(args: &ProducerArgs) -> Result<(), ProducerError> {
    let mut reader = Reader::open(&args.bus, ACCOUNT)?;
    let lifeline = Lifeline::tie(args.parent, Some(reader.waker()))?;
    let mut publisher = Publisher::open(&args.bus, ACCOUNT)?;
    publisher.wait_for_consumers(args.consumers, Some(&mut reader))?;
    let mut books = Books::new(args.users);
    books.open_accounts(&mut publisher)?;
    publisher.flush()?;

    let (mut slice, mut next_slice) = (0, Instant::now());
    loop {
        reader.wait(SLICE_EVERY);
        let read = reader.round(EVERYTHING, |lane, notification| books.take_in(lane, &notification));
        reader.commit(0);
        check_lost(&reader)?;
        let now = Instant::now();
        if now >= next_slice && !lifeline.is_cut() {
            next_slice = now + SLICE_EVERY;
            slice = (slice + 1) % SLICES;
            books.revalue(slice, now);
        }
        books.publish(&mut publisher, &mut reader)?;
        publisher.flush()?;
        // The engine was told to end before us: when nothing is left to read, nothing will come.
        if lifeline.is_cut() && read == 0 && is_drained(&mut reader) {
            break;
        }
    }
    publisher.end()
}

/// Whether nothing is left to read but what this process writes itself.
pub(super) fn is_drained(reader: &mut Reader) -> bool {
    reader.refresh();
    let lanes = reader.lanes();
    lanes.clone().all(|lane| {
        bellwire::Priority::ALL.into_iter().all(|priority| matches!(reader.peek(lane, priority), Ok(None)))
    })
}

/// A reader that gates loses nothing; if it did, the demo must not go on as if it had not.
pub(super) fn check_lost(reader: &Reader) -> Result<(), ProducerError> {
    for lane in reader.lanes() {
        let info = reader.lane(lane);
        let lost = info.lost().iter().sum();
        if lost > 0 {
            return Err(ProducerError::Lost { lane: info.name().to_owned(), lost });
        }
    }
    Ok(())
}

struct Books {
    ledger: Ledger,
    users: Vec<String>,
    /// Accounts and positions whose state changed since it was published. Bounded by what exists.
    accounts: BTreeSet<User>,
    positions: BTreeSet<(User, usize)>,
    valued: BTreeSet<(User, usize)>,
    /// Since when an account is not covered.
    uncovered: Vec<Option<Instant>>,
}

impl Books {
    fn new(users: User) -> Self {
        Self {
            ledger: Ledger::new(users),
            users: (0..users).map(user_id).collect(),
            accounts: BTreeSet::new(),
            positions: BTreeSet::new(),
            valued: BTreeSet::new(),
            uncovered: vec![None; users as usize],
        }
    }

    fn open_accounts(&mut self, publisher: &mut Publisher) -> Result<(), ProducerError> {
        let timestamp = now_ns();
        for (user, user_id) in self.users.iter().enumerate() {
            let user = user as User;
            let (account_id, account_name) = (format!("A-{user:06}"), format!("Trader {user}"));
            let opened = AccountOpen {
                account_id: &account_id,
                user_id,
                account_name: &account_name,
                init_cash: money(starting_cash_cents(user)),
                account_type: account_type(user),
                timestamp,
            };
            let notification = Notification::new(user_id, SOURCE, opened);
            publisher.batch(|batch| batch.push(Some(user), &notification))?;
        }
        self.accounts.extend(0..self.users.len() as User);
        Ok(())
    }

    /// One notification of the bus, read in place. Only the matching engine's concern us.
    fn take_in(&mut self, lane: &LaneInfo, notification: &NotificationView<'_>) {
        if lane.name() != ENGINE {
            return;
        }
        let Some(user) = user_number(notification.user_id()).filter(|&user| self.ledger.knows(user)) else {
            return;
        };
        match notification.payload {
            PayloadView::OrderAccepted(accepted) => {
                if let Some(order) = order_number(accepted.order_id()) {
                    let cents = (accepted.frozen_margin() * 100.0).round() as i64;
                    self.ledger.freeze(user, order, cents, accepted.volume() as u64);
                }
            }
            PayloadView::TradeExecuted(trade) => {
                let order = order_number(trade.order_id());
                let Some((order, instrument)) = order.zip(Instrument::index_of(trade.instrument_id())) else {
                    return;
                };
                self.ledger.execute(&Execution {
                    user,
                    order,
                    instrument,
                    direction: trade.direction(),
                    offset: trade.offset(),
                    ticks: INSTRUMENTS[instrument].ticks(trade.price()),
                    lots: trade.volume() as u64,
                    commission_cents: (trade.commission() * 100.0).round() as i64,
                });
                self.positions.insert((user, instrument));
            }
            PayloadView::OrderFilled(filled) => self.release(filled.order_id()),
            PayloadView::OrderCanceled(canceled) => self.release(canceled.order_id()),
            PayloadView::OrderExpired(expired) => self.release(expired.order_id()),
            // A partial fill comes with its trade; a rejected order holds no margin.
            _ => return,
        }
        self.accounts.insert(user);
    }

    fn release(&mut self, order_id: &str) {
        if let Some(order) = order_number(order_id) {
            self.ledger.release(order);
        }
    }

    /// Values one slice of the positions at the last prices, and lets owners of uncovered accounts pay.
    fn revalue(&mut self, slice: u32, now: Instant) {
        for user in (slice..self.users.len() as User).step_by(SLICES as usize) {
            for instrument in 0..INSTRUMENTS.len() {
                let position = self.ledger.position(user, instrument);
                if position.long.lots + position.short.lots > 0 {
                    self.valued.insert((user, instrument));
                    self.accounts.insert(user);
                }
            }
            let statement = self.ledger.statement(user);
            let uncovered = &mut self.uncovered[user as usize];
            if statement.risk_ratio < 1.0 {
                *uncovered = None;
            } else if now.duration_since(*uncovered.get_or_insert(now)) > OWNER_PAYS_AFTER {
                let equity = statement.balance + statement.position_profit;
                self.ledger.deposit(user, statement.margin * 2 - equity);
                self.accounts.insert(user);
                *uncovered = None;
            }
        }
    }

    /// Publishes every change, positions first.
    fn publish(&mut self, publisher: &mut Publisher, reader: &mut Reader) -> Result<(), ProducerError> {
        loop {
            let positions: Vec<_> = self.positions.iter().copied().take(BATCH_MAX).collect();
            let valued: Vec<_> = self.valued.iter().copied().take(BATCH_MAX - positions.len()).collect();
            let left = BATCH_MAX - positions.len() - valued.len();
            let accounts: Vec<_> = self.accounts.iter().copied().take(left).collect();
            if positions.is_empty() && valued.is_empty() && accounts.is_empty() {
                return Ok(());
            }
            let done = publisher.try_batch(|batch| {
                let timestamp = now_ns();
                positions
                    .iter()
                    .try_for_each(|&(user, at)| self.push_position(batch, user, at, timestamp))?;
                valued.iter().try_for_each(|&(user, at)| self.push_profit(batch, user, at, timestamp))?;
                accounts.iter().try_for_each(|&user| self.push_account(batch, user, timestamp))
            })?;
            if done {
                positions.iter().for_each(|changed| _ = self.positions.remove(changed));
                valued.iter().for_each(|changed| _ = self.valued.remove(changed));
                accounts.iter().for_each(|changed| _ = self.accounts.remove(changed));
            } else {
                // The own lane waits for this process, too: read on, or it stays full.
                reader.round(EVERYTHING, |lane, notification| self.take_in(lane, &notification));
                reader.commit(0);
            }
        }
    }

    fn push_position(
        &self,
        batch: &mut Pusher<'_, '_>,
        user: User,
        instrument: usize,
        timestamp: i64,
    ) -> Result<(), PublishError> {
        let (user_id, terms) = (&*self.users[user as usize], &INSTRUMENTS[instrument]);
        let position = self.ledger.position(user, instrument);
        let (profit_long, profit_short) = position.profit_cents(instrument, self.ledger.last(instrument));
        let update = PositionUpdate {
            user_id,
            instrument_id: terms.id,
            volume_long: position.long.lots as f64,
            volume_short: position.short.lots as f64,
            cost_long: money(position.long.cost_cents),
            cost_short: money(position.short.cost_cents),
            profit_long: money(profit_long),
            profit_short: money(profit_short),
            timestamp,
        };
        batch.push(Some(user), &Notification::new(user_id, POSITIONS, update))
    }

    fn push_profit(
        &self,
        batch: &mut Pusher<'_, '_>,
        user: User,
        instrument: usize,
        timestamp: i64,
    ) -> Result<(), PublishError> {
        let (user_id, terms) = (&*self.users[user as usize], &INSTRUMENTS[instrument]);
        let (position, last) = (self.ledger.position(user, instrument), self.ledger.last(instrument));
        let (profit_long, profit_short) = position.profit_cents(instrument, last);
        let profit = PositionProfit {
            user_id,
            instrument_id: terms.id,
            float_profit: money(profit_long + profit_short),
            close_profit: money(position.close_profit_cents),
            settle_price: terms.price(last),
            timestamp,
        };
        batch.push(Some(user), &Notification::new(user_id, POSITIONS, profit))
    }

    fn push_account(
        &self,
        batch: &mut Pusher<'_, '_>,
        user: User,
        timestamp: i64,
    ) -> Result<(), PublishError> {
        let user_id = &*self.users[user as usize];
        let statement = self.ledger.statement(user);
        let update = AccountUpdate {
            user_id,
            balance: money(statement.balance),
            available: money(statement.available),
            frozen: money(statement.frozen),
            margin: money(statement.margin),
            position_profit: money(statement.position_profit),
            close_profit: money(statement.close_profit),
            risk_ratio: statement.risk_ratio,
            timestamp,
        };
        batch.push(Some(user), &Notification::new(user_id, SOURCE, update))
    }
}
