//! For tests: journals in temporary directories, filled with records that a producer could have published.

use std::path::Path;

use bellwire::{
    AccountUpdate, Direction, Notification, Offset, OrderAccepted, OrderType, Payload, PositionUpdate,
    Priority, RECORD_HEADER_LEN, RecordHeader,
};

use super::{Facts, Journal, JournalConfig, JournalError, SyncPolicy};

/// A record outside of any ring.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub header: RecordHeader,
    pub archive: Vec<u8>,
}

impl Record {
    pub fn new(notification: &Notification<'_>, lane_sequence: u64) -> Self {
        let bytes = bellwire::to_record(notification, lane_sequence, 1, 1_728_123_456_000_000_000).unwrap();
        let header = RecordHeader::from_bytes(bytes.first_chunk().unwrap());
        let archive = bytes[RECORD_HEADER_LEN..][..header.archive_len as usize].to_vec();
        Self { header, archive }
    }
}

pub fn order_accepted(order_id: &str) -> Payload<'_> {
    Payload::OrderAccepted(OrderAccepted {
        order_id,
        exchange_order_id: "X-1",
        instrument_id: "IX2401",
        direction: Direction::Buy,
        offset: Offset::Open,
        price: 3250.5,
        volume: 2.0,
        order_type: OrderType::Limit,
        frozen_margin: 100.0,
        timestamp: 1,
    })
}

pub fn account_update(user_id: &str) -> Payload<'_> {
    Payload::AccountUpdate(AccountUpdate {
        user_id,
        balance: 1.0,
        available: 1.0,
        frozen: 0.0,
        margin: 0.0,
        position_profit: 0.0,
        close_profit: 0.0,
        risk_ratio: 0.0,
        timestamp: 1,
    })
}

pub fn position_update<'a>(user_id: &'a str, instrument_id: &'a str) -> Payload<'a> {
    Payload::PositionUpdate(PositionUpdate {
        user_id,
        instrument_id,
        volume_long: 1.0,
        volume_short: 0.0,
        cost_long: 1.0,
        cost_short: 0.0,
        profit_long: 0.0,
        profit_short: 0.0,
        timestamp: 1,
    })
}

/// An acceptance of an order for that user, with that priority.
pub fn order_record(user_id: &str, order_id: &str, priority: Priority, lane_sequence: u64) -> Record {
    let notification = Notification::new(user_id, "MatchingEngine", order_accepted(order_id));
    Record::new(&notification.with_priority(priority), lane_sequence)
}

pub fn config(dir: &Path) -> JournalConfig {
    JournalConfig {
        dir: dir.join("journal"),
        segment_bytes: super::SEGMENT_BYTES_MIN,
        retain_bytes: 1 << 40,
        retain_age: None,
        sync: SyncPolicy::None,
        chain: None,
    }
}

/// Opens a journal whose entries are of no interest.
pub fn open(config: JournalConfig) -> Result<Journal, JournalError> {
    Ok(Journal::open(config, 1, &mut |_, _| Ok(()))?.0)
}

/// Appends without publishing.
pub fn append(journal: &mut Journal, record: &Record, facts: &Facts) -> u64 {
    journal.room(record.archive.len(), facts.journalled_at).unwrap().archive.copy_from_slice(&record.archive);
    journal.append(&record.header, facts)
}
