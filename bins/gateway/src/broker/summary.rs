//! What the broker would know of a journal segment after reading it: see [`bellwire_journal::Tables`].
//!
//! A segment has at most one stream of a user and one in a slot: a slot passes to another user only when the former stream has
//! no record left, and a user's numbering begins anew only then, or in a new segment. So a stream's records in a segment are a
//! row, and of a row its ends and its newest account and positions are all that the tables keep.

use bellwire::{MessageType, PayloadView};
use bellwire_journal::{Entry, Summariser};
use hashbrown::HashMap;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use super::rebuild::Highest;

/// Changes whenever what stands below changes its meaning.
const VERSION: u32 = 1;

/// All of it.
#[derive(Archive, Serialize, Deserialize, Debug, PartialEq)]
pub(super) struct Summary {
    /// By slot.
    pub(super) streams: Vec<Row>,
    /// Highest lane sequence of each ring, by lane key.
    pub(super) lanes: Vec<(u64, [u64; 4])>,
}

/// The records of one stream.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) slot: u32,
    pub(super) epoch: u32,
    pub(super) user: String,
    /// Sequence of the first.
    pub(super) first: u64,
    /// Offset of the record before it; 0: none.
    pub(super) prev: u64,
    /// Sequence of the last.
    pub(super) head: u64,
    /// Offset of the last.
    pub(super) last: u64,
    /// Offset of the newest account_update; 0: none.
    pub(super) account: u64,
    /// Offset of the newest position_update of each instrument, by instrument.
    pub(super) positions: Vec<(String, u64)>,
}

impl Summary {
    /// # Errors
    /// These bytes are no summary.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Self, rkyv::rancor::Error>(&aligned).map_err(|error| error.to_string())
    }
}

/// Makes one.
#[derive(Default)]
pub(super) struct BySegment {
    streams: HashMap<u32, Open>,
    lanes: Highest,
}

/// A row that may go on.
struct Open {
    row: Row,
    positions: HashMap<String, u64>,
}

impl Summariser for BySegment {
    fn entry(&mut self, entry: &Entry<'_>) -> Result<(), String> {
        let ring = usize::from(entry.header.priority) & 3; // `Entry` has checked that it is a priority
        let highest = &mut self.lanes.entry(entry.lane).or_default()[ring];
        *highest = (*highest).max(entry.header.lane_sequence);
        let open = match self.streams.get_mut(&entry.slot) {
            Some(open) => open,
            None => {
                let user = entry.view().ok_or("a record that is not sound")?.user_id().to_owned();
                let row = Row {
                    slot: entry.slot,
                    epoch: entry.epoch,
                    user,
                    first: entry.seq,
                    prev: entry.prev,
                    head: entry.seq.checked_sub(1).ok_or("a sequence of 0")?,
                    last: entry.prev,
                    account: 0,
                    positions: Vec::new(),
                };
                self.streams.entry(entry.slot).or_insert(Open { row, positions: HashMap::new() })
            }
        };
        let row = &mut open.row;
        if entry.seq != row.head + 1 || entry.prev != row.last || entry.epoch != row.epoch {
            return Err(format!(
                "sequence {}, back-link {}, epoch {} in a stream at sequence {}, offset {}, epoch {}",
                entry.seq, entry.prev, entry.epoch, row.head, row.last, row.epoch
            ));
        }
        (row.head, row.last) = (entry.seq, entry.offset);
        if entry.header.type_code == MessageType::AccountUpdate as u8 {
            row.account = entry.offset;
        } else if entry.header.type_code == MessageType::PositionUpdate as u8 {
            let view = entry.view().ok_or("a record that is not sound")?;
            if let PayloadView::PositionUpdate(update) = view.payload {
                match open.positions.get_mut(update.instrument_id()) {
                    Some(newest) => *newest = entry.offset,
                    None => {
                        open.positions.insert(update.instrument_id().to_owned(), entry.offset);
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<u8> {
        let close = |Open { mut row, positions }| {
            row.positions = positions.into_iter().collect();
            row.positions.sort_unstable();
            row
        };
        // By slot and so on: the same bytes for the same entries.
        let mut streams: Vec<Row> = self.streams.drain().map(|(_, open)| close(open)).collect();
        streams.sort_unstable_by_key(|row| row.slot);
        let mut lanes: Vec<_> = self.lanes.drain().collect();
        lanes.sort_unstable();
        // An archive of this fails only for want of memory, which does not come back as an error.
        rkyv::to_bytes::<rkyv::rancor::Error>(&Summary { streams, lanes })
            .map(AlignedVec::into_vec)
            .unwrap_or_default()
    }

    fn version(&self) -> u32 {
        VERSION
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    use bellwire::{Notification, Priority};
    use bellwire_journal::testing::{
        Record, account_update, append, config, order_accepted, position_update,
    };
    use bellwire_journal::{Facts, Journal, JournalConfig, Recovered, Tables as _};
    use proptest::prelude::*;

    use super::super::rebuild::Rebuild;
    use super::super::streams::Streams;

    /// Entries that are wanted one by one.
    const WINDOW: usize = 3;

    #[derive(Clone, Copy, Debug)]
    enum Kind {
        /// So long that a few fill a segment.
        Order,
        Account,
        Position(u8),
    }

    #[derive(Clone, Copy, Debug)]
    struct Act {
        user: u8,
        kind: Kind,
        lane: u64,
        /// What was published is lost: the streams begin anew.
        is_loss: bool,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let kind = prop_oneof![Just(Kind::Order), Just(Kind::Account), (0u8..3).prop_map(Kind::Position)];
        let act = (0u8..6, kind, 1u64..4, prop::bool::weighted(0.01))
            .prop_map(|(user, kind, lane, is_loss)| Act { user, kind, lane, is_loss });
        prop::collection::vec(act, 1..120)
    }

    /// A journal of a broker that did these things, and kept a few segments of it.
    fn journal(acts: &[Act], config: &JournalConfig) {
        let mut journal = bellwire_journal::testing::open(config.clone()).unwrap();
        let mut streams = Streams::new();
        streams.set_generation(journal.generation());
        for (act, sequence) in acts.iter().zip(1..) {
            if act.is_loss {
                journal.begin_streams_anew(1).unwrap();
                streams = Streams::new();
                streams.set_generation(journal.generation());
            }
            let user = format!("user_{}", act.user);
            let (instrument, order) = (format!("IX{}", act.lane), "o".repeat(40_000));
            let payload = match act.kind {
                Kind::Order => order_accepted(&order),
                Kind::Account => account_update(&user),
                Kind::Position(number) => position_update(&user, &instrument[..usize::from(number) + 1]),
            };
            let priority = Priority::from_number((sequence % 4) as u8).unwrap();
            let record =
                Record::new(&Notification::new(&user, "test", payload).with_priority(priority), sequence);
            let offset = journal.room(record.archive.len(), 1).unwrap().offset;
            let placed = streams.place(&record.header.view(&record.archive).unwrap(), offset);
            let facts = Facts {
                seq: placed.seq,
                prev: placed.prev,
                epoch: placed.epoch,
                slot: placed.slot,
                lane: act.lane,
                journalled_at: sequence as i64,
            };
            assert_eq!(append(&mut journal, &record, &facts), offset);
            journal.publish().unwrap();
            while let Some((mut at, end)) = journal.expired(1) {
                streams.set_generation(journal.next_generation());
                let mut reader = journal.reader();
                while at < end
                    && let Some(entry) = reader.entry(at)
                {
                    streams.expire(&entry);
                    at = entry.next;
                }
                journal.retire_oldest();
            }
        }
    }

    /// Everything that a start knows, and how.
    fn start(config: &JournalConfig, by_summaries: bool) -> (Vec<String>, Recovered, Journal) {
        let mut rebuild = Rebuild::new(WINDOW);
        let (journal, recovered) = if by_summaries {
            Journal::open_with(config.clone(), 1, &mut rebuild)
        } else {
            Journal::open(config.clone(), 1, &mut |entry, goes_on| rebuild.entry(entry, goes_on))
        }
        .unwrap();
        let (streams, dedup, highest) = rebuild.finish(journal.generation(), recovered.streams_are_over);
        let mut all = streams.dump();
        let lanes: std::collections::BTreeMap<_, _> = highest.into_iter().collect();
        all.push(format!("lanes {lanes:?}"));
        let mut reader = journal.reader();
        let mut at = reader.start();
        while let Some(entry) = reader.entry(at) {
            let is_known = dedup.contains(entry.header.message_id);
            all.push(format!("{at} {is_known}"));
            at = entry.next;
        }
        (all, recovered, journal)
    }

    fn count(dir: &Path, extension: &str) -> usize {
        let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).count()
    }

    /// Starts, and waits until each full segment has its summary.
    fn summarise(config: &JournalConfig) {
        let (_, _, journal) = start(config, true);
        let deadline = Instant::now() + Duration::from_secs(20);
        while count(&config.dir, "summary") + 1 < count(&config.dir, "journal") {
            assert!(Instant::now() < deadline, "no summaries");
            std::thread::sleep(Duration::from_millis(1));
        }
        journal.verify().unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn a_start_by_summaries_knows_what_a_start_by_entries_knows(acts in acts()) {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            let mut config = config(dir.path());
            config.retain_bytes = 8 * config.segment_bytes;
            journal(&acts, &config);
            summarise(&config);
            let (by_summaries, recovered, opened) = start(&config, true);
            drop(opened);
            let segments = count(&config.dir, "journal");
            prop_assert!(recovered.summarised >= segments.saturating_sub(1 + WINDOW), "{recovered:?}");
            prop_assert_eq!(recovered.segments, segments);
            let (by_entries, walked, _) = start(&config, false);
            prop_assert_eq!(walked.summarised, 0);
            prop_assert_eq!(walked.entries, recovered.entries);
            prop_assert_eq!(by_summaries, by_entries);
        }
    }

    #[test]
    fn a_summary_that_does_not_fit_makes_a_start_read_everything() {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let config = config(dir.path());
        let act = |user| Act { user, kind: Kind::Order, lane: 1, is_loss: false };
        journal(&(0..20).map(|number| act(number % 2)).collect::<Vec<_>>(), &config);
        summarise(&config);
        let expected = start(&config, false).0;
        let right = start(&config, true).1.summarised;
        assert!(right >= 3, "{right}");
        let mut paths: Vec<_> = std::fs::read_dir(&config.dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "summary"))
            .collect();
        paths.sort();
        let whole: Vec<_> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        // Any byte of one, and any length of it: here every seventh.
        for at in (0..whole[1].len()).step_by(7) {
            let mut bytes = whole[1].clone();
            bytes[at] ^= 0x10;
            std::fs::write(&paths[1], &bytes).unwrap();
            let (all, recovered, journal) = start(&config, true);
            assert_eq!(all, expected, "byte {at}");
            assert!(recovered.summarised < right, "byte {at}: {recovered:?}");
            drop(journal);
            std::fs::write(&paths[1], &whole[1][..at]).unwrap();
            let (all, recovered, journal) = start(&config, true);
            assert_eq!(all, expected, "length {at}");
            assert!(recovered.summarised < right, "length {at}: {recovered:?}");
            drop(journal);
        }
        // Of another segment.
        for (path, bytes) in paths.iter().zip(&whole) {
            std::fs::write(path, bytes).unwrap();
        }
        std::fs::copy(&paths[0], &paths[1]).unwrap();
        let (all, recovered, journal) = start(&config, true);
        assert_eq!((all, recovered.summarised), (expected.clone(), 1));
        drop(journal);
        // The control: one that is missing is made again, and all are taken.
        std::fs::remove_file(&paths[1]).unwrap();
        summarise(&config);
        let (all, recovered, _) = start(&config, true);
        assert_eq!((all, recovered.summarised), (expected, right));
    }
}
