//! Leaving out what a lagging session need not see: of account and position updates the newest of each key is enough.
//! Trades, risk and system notifications are never left out.

use std::collections::{HashMap, VecDeque};

use bellwire::{MessageType, NotificationView, PayloadView};

use super::session::{Pending, Session};
use crate::journal::JournalReader;
use crate::protocol::Stream;

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

/// Leaves out of `session.pending` every update that a newer one replaces, and tells how many. The newer one remembers
/// how many it stands for.
pub(super) fn conflate(session: &mut Session, journal: &mut JournalReader) -> u64 {
    let mut kept_for: HashMap<Key, u64> = HashMap::new(); // bounded by limits.pending_max
    let mut counts = session.conflated.take().unwrap_or_default();
    let mut kept = VecDeque::new();
    let mut left_out = 0;
    // From the newest on, so that the first of a key is the one that stays.
    for &pending in session.pending.iter().rev() {
        let offset = pending.offset();
        if let Some(newer) = replacing(journal, pending, &mut kept_for) {
            let older = counts.remove(&offset).unwrap_or_default();
            *counts.entry(newer).or_default() += older + 1;
            left_out += 1;
        } else {
            kept.push_front(pending);
        }
    }
    session.pending = kept;
    session.conflated = (!counts.is_empty()).then_some(counts);
    left_out
}

/// The newer record that makes this one unnecessary. Otherwise, this one is from now on the newer one of its key.
fn replacing(journal: &mut JournalReader, pending: Pending, kept_for: &mut HashMap<Key, u64>) -> Option<u64> {
    let entry = journal.entry(pending.offset())?;
    // The header's type first: most records need no look at their archive.
    let kind = MessageType::from_code(entry.header.type_code)?;
    if !matches!(kind, MessageType::AccountUpdate | MessageType::PositionUpdate) {
        return None;
    }
    let key = key(&entry.view()?, pending.stream())?;
    match kept_for.entry(key) {
        std::collections::hash_map::Entry::Occupied(newer) => Some(*newer.get()),
        std::collections::hash_map::Entry::Vacant(place) => {
            place.insert(pending.offset());
            None
        }
    }
}
