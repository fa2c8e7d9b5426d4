//! Leaving out what a lagging session need not see: of account and position updates the newest of each key is enough.
//! Trades, risk and system notifications are never left out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bellwire::{MessageType, NotificationView, PayloadView};

use super::backlog::Pending;
use crate::protocol::Stream;
use bellwire_journal::JournalReader;

/// What an update replaces: the older one with the same key.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    Account(Stream, Box<str>),
    Position(Stream, Box<str>),
}

/// The name of what an update is about, as snapshots show it; `None` if it is no update.
pub(super) fn subject(view: &NotificationView<'_>) -> Option<String> {
    match view.payload {
        PayloadView::AccountUpdate(_) => Some("account".to_owned()),
        PayloadView::PositionUpdate(update) => Some(format!("position:{}", update.instrument_id())),
        _ => None,
    }
}

fn key(view: &NotificationView<'_>, stream: Stream) -> Option<Key> {
    match view.payload {
        PayloadView::AccountUpdate(update) => Some(Key::Account(stream, update.user_id().into())),
        PayloadView::PositionUpdate(update) => Some(Key::Position(stream, update.instrument_id().into())),
        _ => None,
    }
}

/// The newest update of each key, found by going through a list from its end.
#[derive(Debug, Default)]
pub(super) struct Newest(HashMap<Key, u64>); // bounded by the list that it goes through

impl Newest {
    /// The newer record that makes this one unnecessary. Otherwise, this one is from now on the newest of its key.
    pub(super) fn that_replaces(&mut self, journal: &mut JournalReader, pending: Pending) -> Option<u64> {
        let entry = journal.entry(pending.offset())?;
        // The header's type first: most records need no look at their archive.
        let kind = MessageType::from_code(entry.header.type_code)?;
        if !matches!(kind, MessageType::AccountUpdate | MessageType::PositionUpdate) {
            return None;
        }
        let key = key(&entry.view()?, pending.stream())?;
        match self.0.entry(key) {
            Entry::Occupied(newer) => Some(*newer.get()),
            Entry::Vacant(place) => {
                place.insert(pending.offset());
                None
            }
        }
    }
}
