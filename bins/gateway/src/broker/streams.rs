//! The table of streams: every user's numbering, 1, 2, 3, … over all channels. `*` is a user like any other here.
//!
//! A user is in the table as long as the journal keeps a record of his, so the table is bounded by what the journal
//! retains. When his last record leaves the journal he is dropped, and if he comes back his numbering starts anew under
//! another *epoch*. The epoch of a new stream is the journal's current *generation*, and the generation moves on before
//! anybody is dropped: so a user who comes back never gets an epoch that he had before.
//!
//! # A user of whom there is no record
//!
//! Asking for his state does not make him one, but what he is told must come true: his epoch is *promised*, and kept when
//! the generation moves on before his first record comes. The promises are bounded; at the bound the oldest is forgotten,
//! and that user's session sees a change of epoch of a stream that was empty.

use std::collections::VecDeque;

use bellwire::{NotificationView, PayloadView};
use hashbrown::HashMap;

use super::summary::Row;
use bellwire_journal::Entry;

/// Promises that are remembered: several times as many as a gateway has sessions. At the bound the oldest is forgotten.
const PROMISES_MAX: usize = 65_536;
/// The highest sequence that every client can hold: JavaScript counts no further. A stream that gets one of these a
/// microsecond lasts for 285 years.
const SEQ_MAX: u64 = (1 << 53) - 1;
/// A slot number this far beyond the table's end is damage: slots are given densely.
const SLOT_GAP_MAX: usize = 1 << 20;

/// One user's stream.
struct Stream {
    user: Box<str>,
    epoch: u32,
    /// Sequence of the newest record.
    head: u64,
    /// Sequence of the oldest record that the journal keeps.
    oldest: u64,
    /// Offset of the newest record.
    last: u64,
    /// Offset of the newest account_update; 0: none.
    account: u64,
    /// Offset of the newest position_update of each instrument.
    positions: Option<Box<HashMap<Box<str>, u64>>>,
}

/// Where a record goes in its user's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) slot: u32,
    pub(super) seq: u64,
    pub(super) prev: u64,
    pub(super) epoch: u32,
}

/// What the table knows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) epoch: u32,
    pub(super) head: u64,
    pub(super) oldest: u64,
    pub(super) last: u64,
}

/// All streams that the journal keeps a record of.
pub(super) struct Streams {
    by_user: HashMap<Box<str>, u32>,
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
    generation: u32,
    promised: HashMap<Box<str>, u32>,
    promises: VecDeque<Box<str>>,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            by_user: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            generation: 0,
            promised: HashMap::new(),
            promises: VecDeque::new(),
        }
    }

    /// The epoch that new streams get from now on.
    pub(super) fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// How many streams there are.
    pub(super) fn len(&self) -> usize {
        self.by_user.len()
    }

    /// Numbers a record that is about to be journalled at `offset`.
    #[inline]
    pub(super) fn place(&mut self, view: &NotificationView<'_>, offset: u64) -> Placed {
        let user = view.user_id();
        let slot = match self.by_user.get(user) {
            Some(slot) => *slot,
            None => self.begin(user),
        };
        let Some(stream) = self.slots[slot as usize].as_mut() else {
            unreachable!("a user's slot holds his stream")
        };
        let placed = Placed { slot, seq: stream.head + 1, prev: stream.last, epoch: stream.epoch };
        stream.note(&view.payload, placed.seq, offset);
        placed
    }

    /// Makes the stream of a user who has none.
    #[cold]
    fn begin(&mut self, user: &str) -> u32 {
        let epoch = self.promised.remove(user).unwrap_or(self.generation);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() as u32 - 1
        });
        self.insert(slot, Stream::new(user, epoch));
        slot
    }

    fn insert(&mut self, slot: u32, stream: Stream) {
        self.by_user.insert(stream.user.clone(), slot);
        self.slots[slot as usize] = Some(stream);
    }

    fn drop_slot(&mut self, slot: u32) {
        if let Some(stream) = self.slots[slot as usize].take() {
            self.by_user.remove(&stream.user);
            self.free.push(slot);
        }
    }

    /// What is known of that user's stream.
    pub(super) fn known(&self, user: &str) -> Option<Known> {
        let stream = self.slots[*self.by_user.get(user)? as usize].as_ref()?;
        Some(Known { epoch: stream.epoch, head: stream.head, oldest: stream.oldest, last: stream.last })
    }

    /// The epoch that the stream of a user will have who has none yet; from now on it stays that.
    pub(super) fn promise(&mut self, user: &str) -> u32 {
        if let Some(epoch) = self.promised.get(user) {
            return *epoch;
        }
        if self.promises.len() == PROMISES_MAX
            && let Some(oldest) = self.promises.pop_front()
        {
            self.promised.remove(&oldest);
        }
        self.promises.push_back(user.into());
        self.promised.insert(user.into(), self.generation);
        self.generation
    }

    /// Offsets of the newest account_update and of each instrument's newest position_update, ascending.
    pub(super) fn snapshot(&self, user: &str) -> Vec<u64> {
        let stream = self.by_user.get(user).and_then(|slot| self.slots[*slot as usize].as_ref());
        let Some(stream) = stream else { return Vec::new() };
        let positions = stream.positions.iter().flat_map(|positions| positions.values().copied());
        let mut offsets: Vec<u64> =
            positions.chain((stream.account != 0).then_some(stream.account)).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Whether this entry is the last of its stream, so that letting it go drops the user.
    pub(super) fn is_last_of_its_stream(&self, entry: &Entry<'_>) -> bool {
        self.slots
            .get(entry.slot as usize)
            .and_then(Option::as_ref)
            .is_some_and(|stream| stream.last == entry.offset)
    }

    /// Takes note that an entry leaves the journal; entries leave in order.
    pub(super) fn expire(&mut self, entry: &Entry<'_>) {
        let Some(stream) = self.slots.get_mut(entry.slot as usize).and_then(Option::as_mut) else { return };
        if stream.epoch != entry.epoch || entry.seq < stream.oldest || entry.seq > stream.head {
            return; // the slot passed to another stream; that happens only when a kill left an expired segment behind
        }
        if stream.last == entry.offset {
            self.drop_slot(entry.slot);
            return;
        }
        stream.oldest = entry.seq + 1;
        if stream.account == entry.offset {
            stream.account = 0;
        }
        if let Some(positions) = &mut stream.positions
            && let Some(PayloadView::PositionUpdate(update)) = position_update(entry)
            && positions.get(update.instrument_id()) == Some(&entry.offset)
        {
            positions.remove(update.instrument_id());
            if positions.is_empty() {
                stream.positions = None;
            }
        }
    }

    /// Puts an entry back that the journal kept; `start` is the offset of the oldest one. Entries come in order.
    ///
    /// # Errors
    /// What does not fit: the journal is damaged.
    pub(super) fn replay(&mut self, entry: &Entry<'_>, start: u64) -> Result<(), String> {
        if entry.seq == 0 || (entry.seq == 1) != (entry.prev == 0) || entry.prev >= entry.offset {
            return Err(format!("sequence {} with a back-link to {}", entry.seq, entry.prev));
        }
        if entry.seq > SEQ_MAX {
            return Err(format!("sequence {}, beyond {SEQ_MAX}", entry.seq));
        }
        self.grow_to(entry.slot)?;
        if entry.prev < start {
            let view = entry.view().ok_or("a record that is not sound")?;
            self.replay_first(view.user_id(), entry.slot, (entry.epoch, entry.seq, entry.prev));
        }
        let stream = self.replayed(entry.slot, (entry.epoch, entry.seq, entry.prev))?;
        match entry.header.type_code {
            code if code == bellwire::MessageType::AccountUpdate as u8 => stream.account = entry.offset,
            code if code == bellwire::MessageType::PositionUpdate as u8 => {
                let view = entry.view().ok_or("a record that is not sound")?;
                stream.note_payload(&view.payload, entry.offset);
            }
            _ => {}
        }
        stream.head = entry.seq;
        stream.last = entry.offset;
        Ok(())
    }

    /// The same for all entries that a segment has of a stream, by its summary.
    ///
    /// # Errors
    /// As with [`replay`](Self::replay).
    pub(super) fn replay_row(&mut self, row: Row, start: u64) -> Result<(), String> {
        let Row { slot, epoch, user, first, prev, head, last, account, positions } = row;
        if first == 0 || (first == 1) != (prev == 0) || prev >= last || head < first || head > SEQ_MAX {
            return Err(format!("sequences {first} to {head} with a back-link to {prev}"));
        }
        self.grow_to(slot)?;
        if prev < start {
            self.replay_first(&user, slot, (epoch, first, prev));
        }
        let stream = self.replayed(slot, (epoch, first, prev))?;
        if *stream.user != *user {
            return Err(format!("stream slot {slot} passes to another user, with an earlier entry"));
        }
        (stream.head, stream.last) = (head, last);
        if account != 0 {
            stream.account = account;
        }
        if !positions.is_empty() {
            let known = stream.positions.get_or_insert_default();
            known.extend(positions.into_iter().map(|(instrument, offset)| (instrument.into(), offset)));
        }
        Ok(())
    }

    fn grow_to(&mut self, slot: u32) -> Result<(), String> {
        let slot = slot as usize;
        if slot > self.slots.len() + SLOT_GAP_MAX {
            return Err(format!("stream slot {slot} in a table of {}", self.slots.len()));
        }
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        Ok(())
    }

    /// The first entry that the journal keeps of a stream.
    fn replay_first(&mut self, user: &str, slot: u32, (epoch, seq, prev): (u32, u64, u64)) {
        // A kill can leave a segment behind that had expired, with streams that were dropped and whose user or slot has
        // begun anew since.
        if let Some(former) = self.by_user.get(user).copied() {
            self.drop_slot(former);
        }
        self.drop_slot(slot);
        let mut stream = Stream::new(user, epoch);
        stream.head = seq - 1;
        stream.oldest = seq;
        stream.last = prev;
        self.insert(slot, stream);
    }

    /// The stream in that slot, if an entry of that epoch, sequence and back-link goes on with it.
    fn replayed(&mut self, slot: u32, (epoch, seq, prev): (u32, u64, u64)) -> Result<&mut Stream, String> {
        let Some(stream) = self.slots[slot as usize].as_mut() else {
            return Err(format!("sequence {seq} of a stream that has no earlier entry"));
        };
        if seq != stream.head + 1 || prev != stream.last || epoch != stream.epoch {
            return Err(format!(
                "sequence {seq}, back-link {prev}, epoch {epoch} in a stream at sequence {}, offset {}, epoch {}",
                stream.head, stream.last, stream.epoch
            ));
        }
        Ok(stream)
    }

    /// All that is known, for comparisons.
    #[cfg(test)]
    pub(super) fn dump(&self) -> Vec<String> {
        let stream = |(slot, stream): (usize, &Option<Stream>)| {
            let stream = stream.as_ref()?;
            assert_eq!(self.by_user.get(&stream.user), Some(&(slot as u32)));
            let Stream { user, epoch, head, oldest, last, account, .. } = stream;
            let positions: std::collections::BTreeMap<_, _> =
                stream.positions.iter().flat_map(|all| all.iter()).collect();
            Some(format!("{slot} {user} {epoch} {oldest} to {head}, {last}, {account}, {positions:?}"))
        };
        let mut all: Vec<_> = self.slots.iter().enumerate().filter_map(stream).collect();
        assert_eq!(all.len(), self.by_user.len());
        all.push(format!("free {:?}", self.free));
        all
    }

    /// To be called when everything was put back.
    pub(super) fn finish_replay(&mut self) {
        self.free =
            (0..self.slots.len() as u32).rev().filter(|slot| self.slots[*slot as usize].is_none()).collect();
    }
}

/// The notification of an entry, if it is a position_update.
fn position_update<'a>(entry: &Entry<'a>) -> Option<PayloadView<'a>> {
    if entry.header.type_code != bellwire::MessageType::PositionUpdate as u8 {
        return None;
    }
    entry.view().map(|view| view.payload)
}

impl Stream {
    fn new(user: &str, epoch: u32) -> Self {
        Self { user: user.into(), epoch, head: 0, oldest: 1, last: 0, account: 0, positions: None }
    }

    #[inline]
    fn note(&mut self, payload: &PayloadView<'_>, seq: u64, offset: u64) {
        self.head = seq;
        self.last = offset;
        self.note_payload(payload, offset);
    }

    #[inline]
    fn note_payload(&mut self, payload: &PayloadView<'_>, offset: u64) {
        match payload {
            PayloadView::AccountUpdate(_) => self.account = offset,
            PayloadView::PositionUpdate(update) => {
                let positions = self.positions.get_or_insert_default();
                match positions.get_mut(update.instrument_id()) {
                    Some(newest) => *newest = offset,
                    None => {
                        positions.insert(update.instrument_id().into(), offset);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use bellwire::{Notification, Payload, Priority};

    use super::*;
    use bellwire_journal::testing::{Record, account_update, order_record, position_update};

    /// Sequence, back-link, epoch and slot of an entry.
    type Numbers = (u64, u64, u32, u32);

    /// Where the first entry of these tests stands.
    const START: u64 = 1024;

    fn record(user: &str, payload: Payload<'_>) -> Record {
        Record::new(&Notification::new(user, "Test", payload), 1)
    }

    fn order(user: &str) -> Record {
        order_record(user, "order-1", Priority::P1, 1)
    }

    fn entry(record: &Record, offset: u64, (seq, prev, epoch, slot): Numbers) -> Entry<'_> {
        let (header, archive) = (record.header, &record.archive[..]);
        Entry {
            offset,
            next: offset + 512,
            seq,
            prev,
            epoch,
            slot,
            lane: 1,
            journalled_at: 0,
            header,
            archive,
            body: &[],
        }
    }

    /// Numbers a record that goes to that offset, and gives its entry.
    fn place<'a>(streams: &mut Streams, record: &'a Record, offset: u64) -> Entry<'a> {
        let Placed { slot, seq, prev, epoch } =
            streams.place(&record.header.view(&record.archive).unwrap(), offset);
        entry(record, offset, (seq, prev, epoch, slot))
    }

    #[test]
    fn streams_are_counted_and_show_the_newest_of_each_key() {
        let mut streams = Streams::new();
        streams.set_generation(7);
        let records = [
            record("anna", account_update("anna")),
            record("anna", position_update("anna", "IX2401")),
            record("anna", account_update("anna")),
            record("bert", position_update("bert", "IX2401")),
            record("anna", position_update("anna", "IX2402")),
        ];
        let entries: Vec<_> =
            records.iter().zip(1..).map(|(record, at)| place(&mut streams, record, at * START)).collect();
        assert_eq!(streams.len(), 2);
        assert_eq!(streams.snapshot("anna"), [2 * START, 3 * START, 5 * START]);
        assert_eq!(streams.snapshot("bert"), [4 * START]);
        // What leaves the journal leaves the state: only if it is the one that the state shows.
        streams.expire(&entries[0]);
        assert_eq!(streams.snapshot("anna"), [2 * START, 3 * START, 5 * START]);
        streams.expire(&entries[1]);
        streams.expire(&entries[2]);
        assert_eq!(streams.snapshot("anna"), [5 * START]);
        assert_eq!(streams.known("anna").map(|known| (known.oldest, known.head)), Some((4, 4)));
        assert!(streams.is_last_of_its_stream(&entries[3]) && !streams.is_last_of_its_stream(&entries[2]));
        streams.expire(&entries[3]);
        assert_eq!(streams.len(), 1);
    }

    #[test]
    fn an_entry_of_a_slots_former_stream_takes_nothing_from_the_present_one() {
        let (anna, bert) = (order("anna"), order("bert"));
        let mut streams = Streams::new();
        streams.set_generation(7);
        let former = place(&mut streams, &anna, START);
        streams.expire(&former);
        streams.set_generation(8);
        let present: Vec<_> = (2..6).map(|at| place(&mut streams, &bert, at * START)).collect();
        assert_eq!(present[0].slot, former.slot);
        let known = streams.known("bert");
        streams.expire(&former);
        // Nor does one that has left already, or that is yet to come, of the stream itself.
        streams.expire(&entry(&bert, 9 * START, (5, 5 * START, 8, former.slot)));
        assert_eq!(streams.known("bert"), known);
        streams.expire(&present[0]);
        let known = streams.known("bert");
        assert_eq!(known.unwrap().oldest, 2);
        streams.expire(&present[1]);
        let known = streams.known("bert");
        streams.expire(&present[0]);
        assert_eq!(streams.known("bert"), known);
    }

    #[test]
    fn slots_that_nobody_has_after_a_replay_are_given_again() {
        let records = ["anna", "bert", "carl", "dora"].map(order);
        let mut streams = Streams::new();
        streams.set_generation(8);
        streams.replay(&entry(&records[0], START, (1, 0, 7, 2)), START).unwrap();
        streams.finish_replay();
        let slots: Vec<_> =
            (1..4).map(|at| place(&mut streams, &records[at], START * (at as u64 + 1)).slot).collect();
        assert_eq!(slots, [0, 1, 3], "no table that grows with each start");
    }

    #[test]
    fn entries_that_do_not_fit_to_those_before_are_damage() {
        let record = order("anna");
        let replayed = |entries: &[(u64, Numbers)]| {
            let mut streams = Streams::new();
            let mut replay = |&(at, numbers)| streams.replay(&entry(&record, at * START, numbers), START);
            entries.iter().try_for_each(&mut replay).map(|()| streams.known("anna").map(|known| known.head))
        };
        let first = (1, (1, 0, 7, 0));
        assert_eq!(SEQ_MAX, 9_007_199_254_740_991, "Number.MAX_SAFE_INTEGER");
        assert_eq!(replayed(&[first, (2, (2, START, 7, 0)), (3, (3, 2 * START, 7, 0))]), Ok(Some(3)));
        // The first one that is kept may be any but the first of all, and stand in any slot within reason.
        assert_eq!(replayed(&[(2, (5, START / 2, 7, 3))]), Ok(Some(5)));
        assert_eq!(replayed(&[(2, (SEQ_MAX, START / 2, 7, 0))]), Ok(Some(SEQ_MAX)));
        assert_eq!(replayed(&[(1, (1, 0, 7, SLOT_GAP_MAX as u32))]), Ok(Some(1)));
        for (wrong, numbers) in [
            ("no sequence", (0, 0, 7, 0)),
            ("the first of all with a back-link", (1, START / 2, 7, 0)),
            ("a later one without", (2, 0, 7, 0)),
            ("a back-link to itself", (2, START, 7, 0)),
            ("a sequence that no client can hold", (SEQ_MAX + 1, START / 2, 7, 0)),
            ("a slot far beyond the table", (1, 0, 7, SLOT_GAP_MAX as u32 + 1)),
        ] {
            assert!(replayed(&[(1, numbers)]).is_err(), "{wrong}");
        }
        for (wrong, numbers) in [
            ("a gap", (3, START, 7, 0)),
            ("a back-link to no entry of the stream", (2, START + 16, 7, 0)),
            ("another epoch", (2, START, 8, 0)),
            ("a stream without a first entry", (2, START, 7, 1)),
        ] {
            assert!(replayed(&[first, (2, numbers)]).is_err(), "{wrong}");
        }
    }
}
