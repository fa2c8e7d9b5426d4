//! What is published: a pure function of the seed, the lane and a number.
//!
//! So producers need not tell what they published but only how far they have come, a successor publishes exactly what its
//! predecessor would have, and whoever receives a notification knows every byte that it must have.
//!
//! The numbers of a lane come in blocks of eight. A block tells of two orders of two users, A and B, whose events are
//! interleaved and go through different rings:
//!
//! ```text
//!  0  order_accepted   A  P1        4  account_update   A  P2
//!  1  order_accepted   B  P1        5  B's end: rejected P0, canceled P1 or expired P3
//!  2  trade_executed   A  P1        6  risk P0 for A, or now and then P3 for everybody
//!  3  position_update  A  P2        7  A's end: filled P1, rejected P0 or expired P3
//! ```

use std::sync::LazyLock;

use bellwire::{
    AccountUpdate, AlertType, Direction, EVERYBODY, FillType, Level, MarginCall, MarketHalt, MessageId,
    MessageType, Notification, Offset, OrderAccepted, OrderCanceled, OrderExpired, OrderFilled,
    OrderRejected, OrderType, PositionUpdate, Priority, RECORD_HEADER_LEN, RecordHeader, RiskAlert, Severity,
    SystemNotice, TradeExecuted, json, to_record,
};

/// Most lanes of a run.
pub(crate) const LANES_MAX: u8 = 16;

/// Numbers in a block.
const BLOCK: u64 = 8;

/// Longest text that makes records differ in length: a few times the usual record.
const FILL_MAX: usize = 1500;

/// 2026-11-01 in nanoseconds. Notifications have times that the plan gives, so that every byte is known.
const TIME_BASE: i64 = 1_793_491_200_000_000_000;

/// Bits of a record's code that are its number.
const NUMBER_BITS: u32 = 40;

/// A record of the plan: a lane and a number in it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Record {
    pub(crate) lane: u8,
    pub(crate) number: u64,
}

impl Record {
    /// Both in one word; never 0.
    pub(crate) fn code(self) -> u64 {
        (u64::from(self.lane) + 1) << NUMBER_BITS | self.number
    }

    pub(crate) fn from_code(code: u64) -> Option<Self> {
        let lane = (code >> NUMBER_BITS).checked_sub(1).filter(|lane| *lane < u64::from(LANES_MAX))?;
        Some(Self { lane: lane as u8, number: code & ((1 << NUMBER_BITS) - 1) })
    }

    pub(crate) fn message_id(self) -> MessageId {
        MessageId::compose(u32::from(self.lane) + 1, self.number, self.timestamp())
    }

    /// The record that has this id, if it has one of the plan.
    pub(crate) fn of(id: MessageId) -> Option<Self> {
        let bytes = id.to_bytes();
        let low = u64::from_be_bytes(std::array::from_fn(|index| bytes[8 + index]));
        // Below the two bits of the UUID's variant stand the lane's tag and the number, as in `code`.
        Self::from_code(low & !(0b11 << 62)).filter(|record| record.message_id() == id)
    }

    fn timestamp(self) -> i64 {
        TIME_BASE + self.number as i64 * 1000 + i64::from(self.lane)
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", lane_name(self.lane), self.number)
    }
}

/// What a lagging session may be spared for a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Account,
    Position(u8),
}

/// What matters of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// No user: it is for everybody.
    pub(crate) user: Option<u32>,
    pub(crate) message_type: MessageType,
    /// The order that it is an event of, unique within the lane.
    pub(crate) order: Option<u64>,
    pub(crate) key: Option<Key>,
}

impl Facts {
    pub(crate) fn priority(&self) -> Priority {
        self.message_type.default_priority()
    }
}

pub(crate) fn lane_name(lane: u8) -> String {
    format!("engine-{lane}")
}

pub(crate) fn user_id(user: u32) -> String {
    format!("user-{user:04}")
}

/// The plan of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) users: u32,
}

/// What is drawn for a block.
struct Block {
    users: [u32; 2],
    ends: [u8; 2],
    other: u8,
    fill: [usize; BLOCK as usize],
    instrument: u8,
}

impl Plan {
    fn block(&self, record: Record) -> Block {
        let index = record.number / BLOCK;
        let mut rng = fastrand::Rng::with_seed(self.seed ^ (u64::from(record.lane) << 56) ^ (index << 8));
        // Half of everything is for a few users: their sessions are the ones that fall behind.
        let hot = self.hot_users();
        let mut user = || if rng.bool() { rng.u32(..hot) } else { rng.u32(..self.users) };
        Block {
            users: [user(), user()],
            ends: [rng.u8(..8), rng.u8(..8)],
            other: rng.u8(..12),
            fill: std::array::from_fn(|_| match rng.u8(..20) {
                0 => rng.usize(..FILL_MAX),
                1..5 => rng.usize(..200),
                _ => rng.usize(..24),
            }),
            instrument: rng.u8(..4),
        }
    }

    /// The first so many users get half of everything.
    pub(crate) fn hot_users(&self) -> u32 {
        (self.users / 16).max(1)
    }

    /// What matters of that record.
    pub(crate) fn facts(&self, record: Record) -> Facts {
        let block = self.block(record);
        let (index, slot) = (record.number / BLOCK, record.number % BLOCK);
        let b_is_meant = matches!(slot, 1 | 5);
        let order = index * 2 + u64::from(b_is_meant);
        let user = Some(block.users[usize::from(b_is_meant)]);
        let of_order = |message_type| Facts { user, message_type, order: Some(order), key: None };
        let other = |message_type, key| Facts { user, message_type, order: None, key };
        match slot {
            0 | 1 => of_order(MessageType::OrderAccepted),
            2 => of_order(MessageType::TradeExecuted),
            3 => other(MessageType::PositionUpdate, Some(Key::Position(block.instrument))),
            4 => other(MessageType::AccountUpdate, Some(Key::Account)),
            5 => of_order(match block.ends[1] {
                0..3 => MessageType::OrderRejected,
                3 => MessageType::OrderExpired,
                _ => MessageType::OrderCanceled,
            }),
            6 => match block.other {
                0 => Facts { user: None, ..other(MessageType::SystemNotice, None) },
                1 => Facts { user: None, ..other(MessageType::MarketHalt, None) },
                2..7 => other(MessageType::MarginCall, None),
                _ => other(MessageType::RiskAlert, None),
            },
            _ => of_order(match block.ends[0] {
                0 | 1 => MessageType::OrderRejected,
                2 => MessageType::OrderExpired,
                _ => MessageType::OrderFilled,
            }),
        }
    }

    /// Hands over the record's notification.
    pub(crate) fn notification<R>(&self, record: Record, f: impl FnOnce(&Notification<'_>) -> R) -> R {
        let facts = self.facts(record);
        let block = self.block(record);
        let user = facts.user.map_or_else(|| EVERYBODY.to_owned(), user_id);
        let source = lane_name(record.lane);
        let order = facts.order.unwrap_or_default();
        let order_id = format!("order-{}-{order}", record.lane);
        let exchange_order_id = format!("X{order:x}");
        let instrument = format!("IX24{:02}", block.instrument);
        let fill = filling(record, block.fill[(record.number % BLOCK) as usize]);
        let amount = (record.number % 100_000) as f64 * 0.25;
        let timestamp = record.timestamp();
        let note = |payload: bellwire::Payload<'_>| {
            let note = Notification::new(&user, &source, payload);
            f(&note.with_message_id(record.message_id()).with_timestamp(timestamp))
        };
        let (order_id, exchange_order_id, instrument_id) = (&*order_id, &*exchange_order_id, &*instrument);
        match facts.message_type {
            MessageType::OrderAccepted => note(
                OrderAccepted {
                    order_id,
                    exchange_order_id,
                    instrument_id,
                    direction: Direction::Buy,
                    offset: Offset::Open,
                    price: amount,
                    volume: 2.0,
                    order_type: OrderType::Limit,
                    frozen_margin: amount / 10.0,
                    timestamp,
                }
                .into(),
            ),
            MessageType::TradeExecuted => note(
                TradeExecuted {
                    trade_id: fill,
                    order_id,
                    exchange_order_id,
                    instrument_id,
                    direction: Direction::Buy,
                    offset: Offset::Open,
                    price: amount,
                    volume: 1.0,
                    commission: 0.5,
                    fill_type: FillType::Partial,
                    timestamp,
                }
                .into(),
            ),
            MessageType::PositionUpdate => note(
                PositionUpdate {
                    user_id: &user,
                    instrument_id,
                    volume_long: amount,
                    volume_short: 0.0,
                    cost_long: 1.0,
                    cost_short: 0.0,
                    profit_long: -amount,
                    profit_short: 0.0,
                    timestamp,
                }
                .into(),
            ),
            MessageType::AccountUpdate => note(
                AccountUpdate {
                    user_id: &user,
                    balance: amount,
                    available: amount / 2.0,
                    frozen: 0.0,
                    margin: 1.0,
                    position_profit: 0.0,
                    close_profit: 0.0,
                    risk_ratio: 0.5,
                    timestamp,
                }
                .into(),
            ),
            MessageType::OrderRejected => note(
                OrderRejected {
                    order_id,
                    instrument_id,
                    reason: fill,
                    error_code: record.number as u32,
                    timestamp,
                }
                .into(),
            ),
            MessageType::OrderExpired => note(
                OrderExpired {
                    order_id,
                    exchange_order_id,
                    instrument_id,
                    unfilled_volume: amount,
                    reason: fill,
                    timestamp,
                }
                .into(),
            ),
            MessageType::OrderCanceled => note(
                OrderCanceled { order_id, exchange_order_id, instrument_id, reason: fill, timestamp }.into(),
            ),
            MessageType::OrderFilled => note(
                OrderFilled {
                    order_id,
                    exchange_order_id,
                    instrument_id,
                    filled_volume: 2.0,
                    average_price: amount,
                    timestamp,
                }
                .into(),
            ),
            MessageType::MarginCall => note(
                MarginCall {
                    user_id: &user,
                    current_margin: amount,
                    required_margin: amount + 1.0,
                    deadline: timestamp,
                    message: fill,
                    timestamp,
                }
                .into(),
            ),
            MessageType::MarketHalt => {
                note(MarketHalt { instrument_id, reason: fill, resume_at: 0, timestamp }.into())
            }
            MessageType::SystemNotice => {
                note(SystemNotice { title: "torture", content: fill, level: Level::Info, timestamp }.into())
            }
            _ => note(
                RiskAlert {
                    user_id: &user,
                    alert_type: AlertType::MarginInsufficient,
                    severity: Severity::Warning,
                    message: fill,
                    risk_ratio: 0.9,
                    suggestion: "",
                    timestamp,
                }
                .into(),
            ),
        }
    }

    /// The bytes that a client must get of that record.
    pub(crate) fn json(&self, record: Record, out: &mut Vec<u8>) -> Result<(), String> {
        out.clear();
        self.notification(record, |note| {
            let bytes = to_record(note, 0, 0, 0).map_err(|error| error.to_string())?;
            let header: &[u8; RECORD_HEADER_LEN] = bytes.first_chunk().ok_or("a record without a header")?;
            let header = RecordHeader::from_bytes(header);
            let archive = &bytes[RECORD_HEADER_LEN..][..header.archive_len as usize];
            let view = header.view(archive).map_err(|error| error.to_string())?;
            json::write(&view, out);
            Ok(())
        })
    }
}

/// A text of that length; another one for almost every record.
fn filling(record: Record, len: usize) -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut rng = fastrand::Rng::with_seed(1);
        (0..FILL_MAX + 257).map(|_| rng.alphanumeric()).collect()
    });
    &TEXT[(record.number % 257) as usize..][..len]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_known_by_its_message_id() {
        for record in [Record { lane: 0, number: 0 }, Record { lane: 7, number: 123_456_789 }] {
            assert_eq!(Record::of(record.message_id()), Some(record));
            assert_eq!(Record::from_code(record.code()), Some(record));
        }
        assert_eq!(Record::of(MessageId::compose(1, 2, 3)), None);
        assert_eq!(Record::of(MessageId::from_bytes([0; 16])), None);
    }

    #[test]
    fn the_facts_are_those_of_the_notification_and_every_priority_and_broadcasts_occur() {
        let plan = Plan { seed: 3, users: 20 };
        let (mut priorities, mut broadcasts) = ([0; 4], 0);
        for number in 0..4000 {
            let record = Record { lane: 2, number };
            let facts = plan.facts(record);
            plan.notification(record, |note| {
                assert_eq!(note.message_type(), facts.message_type);
                assert_eq!(note.user_id, facts.user.map_or_else(|| "*".to_owned(), user_id));
                assert_eq!(note.priority, facts.priority());
            });
            priorities[facts.priority().index()] += 1;
            broadcasts += u32::from(facts.user.is_none());
        }
        assert!(priorities.iter().all(|count| *count > 100), "{priorities:?}");
        assert!(broadcasts > 20, "{broadcasts}");
    }
}
