//! From what happened to what is published: numbers become prices, ids and words.

use std::fmt::Write;

use bellwire::*;

use crate::exchange::market::{INSTRUMENTS, money};
use crate::exchange::matching::{Event, Notice, Pricing, Trade, What};
use crate::exchange::{User, user_id};

const ENGINE: &str = "MatchingEngine";

/// Texts that are made anew for each notification, in buffers that are not.
pub(super) struct Renderer {
    users: Vec<String>,
    order: String,
    exchange_order: String,
    trade: String,
}

impl Renderer {
    pub(super) fn new(users: User) -> Self {
        let users = (0..users).map(user_id).collect();
        Self { users, order: String::new(), exchange_order: String::new(), trade: String::new() }
    }

    /// The notification of one event, at `timestamp` (ns since the Unix epoch).
    pub(super) fn event(&mut self, event: &Event, timestamp: i64) -> Notification<'_> {
        let Event { user, order, instrument, what } = *event;
        let terms = INSTRUMENTS.get(instrument);
        let instrument_id = terms.map_or("", |terms| terms.id);
        let price = |ticks: f64| terms.map_or(0.0, |terms| rounded(ticks * money(terms.tick_cents)));
        // Writing to a string cannot fail.
        self.order.clear();
        let _ = write!(self.order, "O-{order:08}");
        self.exchange_order.clear();
        let _ = write!(self.exchange_order, "{instrument_id}-{order:010}");
        let (order_id, exchange_order_id) = (self.order.as_str(), self.exchange_order.as_str());
        let payload: Payload<'_> = match what {
            What::Accepted { placed, frozen_cents } => OrderAccepted {
                order_id,
                exchange_order_id,
                instrument_id,
                direction: placed.direction,
                offset: placed.offset,
                price: match placed.pricing {
                    Pricing::Limit { ticks } => price(ticks as f64),
                    Pricing::Market => 0.0,
                },
                volume: placed.lots as f64,
                order_type: placed.pricing.order_type(),
                frozen_margin: money(frozen_cents),
                timestamp,
            }
            .into(),
            What::Rejected(why) => {
                let (reason, error_code) = (why.reason(), why.code());
                OrderRejected { order_id, instrument_id, reason, error_code, timestamp }.into()
            }
            What::PartiallyFilled { filled, remaining, average_ticks } => OrderPartiallyFilled {
                order_id,
                exchange_order_id,
                instrument_id,
                filled_volume: filled as f64,
                remaining_volume: remaining as f64,
                average_price: price(average_ticks),
                timestamp,
            }
            .into(),
            What::Filled { filled, average_ticks } => OrderFilled {
                order_id,
                exchange_order_id,
                instrument_id,
                filled_volume: filled as f64,
                average_price: price(average_ticks),
                timestamp,
            }
            .into(),
            What::Canceled { reason } => {
                OrderCanceled { order_id, exchange_order_id, instrument_id, reason, timestamp }.into()
            }
            What::Expired { unfilled, reason } => OrderExpired {
                order_id,
                exchange_order_id,
                instrument_id,
                unfilled_volume: unfilled as f64,
                reason,
                timestamp,
            }
            .into(),
            What::Traded(Trade { number, direction, offset, ticks, lots, commission_cents, fill_type }) => {
                self.trade.clear();
                let _ = write!(self.trade, "T-{number:08}");
                TradeExecuted {
                    trade_id: &self.trade,
                    order_id,
                    exchange_order_id,
                    instrument_id,
                    direction,
                    offset,
                    price: price(ticks as f64),
                    volume: lots as f64,
                    commission: money(commission_cents),
                    fill_type,
                    timestamp,
                }
                .into()
            }
        };
        Notification::new(&self.users[user as usize], ENGINE, payload)
    }
}

/// To the hundredth of a cent: averages have no end.
fn rounded(price: f64) -> f64 {
    (price * 1e4).round() / 1e4
}

/// A halt, or its end, for everybody.
pub(super) fn notice(notice: &Notice, step_ns: i64, timestamp: i64) -> Notification<'static> {
    match *notice {
        Notice::Halted { instrument, resumes_in } => Notification::to_all(
            ENGINE,
            MarketHalt {
                instrument_id: INSTRUMENTS[instrument].id,
                reason: "the price moved too far too fast",
                resume_at: timestamp + resumes_in as i64 * step_ns,
                timestamp,
            },
        ),
        Notice::Resumed { instrument } => Notification::to_all(
            ENGINE,
            SystemNotice {
                title: "Trading resumes",
                content: INSTRUMENTS[instrument].id,
                level: Level::Info,
                timestamp,
            },
        ),
    }
}
