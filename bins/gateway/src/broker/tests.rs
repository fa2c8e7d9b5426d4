//! What the broker promises, as claims, without shared memory.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bellwire::{LaneFault, MessageId, Notification, Priority, RecordError, RecordHeader};
use proptest::prelude::*;

use super::counters::BrokerCounters;
use super::intake::Intake;
use super::rebuild::{Highest, Rebuild};
use super::retention::Retention;
use super::rounds::{Lane, Rounds};
use super::source::{Source, Unread};
use super::streams::Known;
use super::{ShardSignal, order};
use bellwire_journal::testing::{Record, account_update, config, order_accepted, position_update};
use bellwire_journal::{Journal, JournalConfig, SEGMENT_BYTES_MIN};

/// Lanes made of lists. A position is an index.
#[derive(Default)]
struct Lists {
    lanes: Vec<List>,
    /// Commits are forgotten, as if the process were killed just before each.
    dead: bool,
    marks: Vec<u64>,
    /// At the first commit a P0 record of this user appears.
    urgent: Option<&'static str>,
}

#[derive(Default)]
struct List {
    rings: [Vec<Record>; 4],
    at: [usize; 4],
    committed: [usize; 4],
    sequence: u64,
    quarantined: Option<LaneFault>,
    /// The records at this ring's cursor were overwritten: `scan` fails until `peek` has gone on behind them.
    overrun: Option<Priority>,
    /// `peek` fails there.
    broken: Option<(Priority, usize)>,
}

struct Shown<'a> {
    record: &'a Record,
    position: usize,
}

impl Unread for Shown<'_> {
    fn header(&self) -> &RecordHeader {
        &self.record.header
    }
    fn position(&self) -> u64 {
        self.position as u64
    }
    fn copy_archive(&self, dst: &mut [u8]) -> Result<(), LaneFault> {
        dst.copy_from_slice(&self.record.archive);
        Ok(())
    }
}

impl Source for Lists {
    type Unread<'a> = Shown<'a>;
    type Scout = usize;

    fn peek(&mut self, lane: usize, priority: Priority) -> Result<Option<Shown<'_>>, LaneFault> {
        let lane = &mut self.lanes[lane];
        if lane.overrun == Some(priority) {
            lane.overrun = None;
            lane.at[priority.index()] += 1;
        }
        let position = lane.at[priority.index()];
        if lane.quarantined.is_some() {
            return Ok(None);
        }
        if lane.broken == Some((priority, position)) {
            return Err(LaneFault::Length { len: 3, at: position as u64, position: 0 });
        }
        Ok(lane.rings[priority.index()].get(position).map(|record| Shown { record, position }))
    }

    fn advance(&mut self, lane: usize, priority: Priority) {
        self.lanes[lane].at[priority.index()] += 1;
    }

    fn snapshot_end(&self, lane: usize, priority: Priority) -> u64 {
        self.lanes[lane].rings[priority.index()].len() as u64
    }

    fn scan(
        &self,
        lane: usize,
        priority: Priority,
        scout: &mut usize,
        mut f: impl FnMut(&RecordHeader) -> ControlFlow<()>,
    ) -> Result<(), LaneFault> {
        let lane = &self.lanes[lane];
        if lane.overrun == Some(priority) {
            return Err(LaneFault::Position { position: 9, cursor: 0, capacity: 1 });
        }
        *scout = (*scout).max(lane.at[priority.index()]);
        while let Some(record) = lane.rings[priority.index()].get(*scout) {
            if f(&record.header).is_break() {
                break;
            }
            *scout += 1;
        }
        Ok(())
    }

    fn quarantine(&mut self, lane: usize, why: LaneFault) {
        self.lanes[lane].quarantined = Some(why);
    }

    fn commit(&mut self, mark: u64) {
        if let Some(user) = self.urgent.take() {
            self.lanes[0].publish(user, Kind::Account, Priority::P0, None);
        }
        if !self.dead {
            self.marks.push(mark);
            for lane in &mut self.lanes {
                lane.committed = lane.at;
            }
        }
    }
}

/// What kind of notification: of the order rule's channel or not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Trade,
    Account,
    Position(u8),
}

impl List {
    fn publish(&mut self, user: &str, kind: Kind, priority: Priority, id: Option<u64>) {
        self.sequence += 1;
        let instrument = format!("IX{}", if let Kind::Position(number) = kind { number } else { 0 });
        let payload = match kind {
            Kind::Trade => order_accepted("order-1"),
            Kind::Account => account_update(user),
            Kind::Position(_) => position_update(user, &instrument),
        };
        let mut notification = Notification::new(user, "test", payload).with_priority(priority);
        notification.message_id = id.map(|id| MessageId::compose(7, id, 1));
        // The key of the lane is not in a composed id here, so lanes differ in their sequences' high bits.
        let mut record = Record::new(&notification, self.sequence);
        if id.is_none() {
            let unique = (std::ptr::from_ref(self) as u64) << 20 | self.sequence;
            record.header.message_id = MessageId::compose(unique as u32, unique, 1);
        }
        self.rings[priority.index()].push(record);
    }
}

#[derive(Default)]
struct Signals(AtomicUsize);

impl ShardSignal for Signals {
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

const WINDOW: usize = 50;

fn begin(lists: Lists, config: JournalConfig, shards: Vec<Arc<dyn ShardSignal>>) -> Rounds<Lists> {
    let mut rebuild = Rebuild::new(WINDOW);
    let (journal, recovered) = Journal::open_with(config, 1, &mut rebuild).unwrap();
    let (streams, dedup, highest) = rebuild.finish(journal.generation(), recovered.streams_are_over);
    let intake = Intake { journal, streams, dedup, now: 1 };
    let mut rounds = Rounds::new(lists, intake, Arc::default(), shards, || 1);
    attach(&mut rounds, &highest);
    rounds
}

fn attach(rounds: &mut Rounds<Lists>, highest: &Highest) {
    let counters: Arc<BrokerCounters> = Arc::clone(&rounds.counters);
    for number in 0..rounds.source.lanes.len() {
        let key = number as u64 + 100;
        let highest = highest.get(&key).copied().unwrap_or_default();
        let lane = Lane::new(key, counters.attach(&format!("lane-{number}"), key), highest);
        rounds.set_lane(number, Some(lane));
    }
}

fn lists(count: usize) -> Lists {
    Lists { lanes: (0..count).map(|_| List::default()).collect(), ..Lists::default() }
}

/// One journalled record, in short.
#[derive(Clone, Debug, PartialEq)]
struct Line {
    lane: u64,
    priority: u8,
    lane_sequence: u64,
    user: String,
    seq: u64,
    is_trade: bool,
    id: MessageId,
}

fn journalled(journal: &Journal) -> Vec<Line> {
    let mut reader = journal.reader();
    let mut lines = Vec::new();
    let mut at = reader.start();
    while let Some(entry) = reader.entry(at) {
        let view = entry.view().unwrap();
        lines.push(Line {
            lane: entry.lane,
            priority: entry.header.priority,
            lane_sequence: entry.header.lane_sequence,
            user: view.user_id().to_owned(),
            seq: entry.seq,
            is_trade: order::concerns(&entry.header),
            id: entry.header.message_id,
        });
        at = entry.next;
    }
    lines
}

/// The promises about order and numbering that hold for every journal.
fn check_promises(lines: &[Line]) -> Result<(), TestCaseError> {
    let mut by_ring: HashMap<(u64, u8), u64> = HashMap::new();
    let mut trades: HashMap<(u64, &str), u64> = HashMap::new();
    let mut streams: HashMap<&str, u64> = HashMap::new();
    for line in lines {
        let last = by_ring.insert((line.lane, line.priority), line.lane_sequence).unwrap_or(0);
        prop_assert!(last < line.lane_sequence, "a ring was reordered at {:?}", line);
        if line.is_trade {
            let last = trades.insert((line.lane, &line.user), line.lane_sequence).unwrap_or(0);
            prop_assert!(last < line.lane_sequence, "{:?} came after lane sequence {}", line, last);
        }
        let head = streams.entry(&line.user).or_default();
        *head += 1;
        prop_assert_eq!(*head, line.seq);
    }
    Ok(())
}

fn sequences(rounds: &Rounds<Lists>) -> Vec<(u8, u64)> {
    journalled(&rounds.intake.journal).iter().map(|line| (line.priority, line.lane_sequence)).collect()
}

#[test]
fn a_rejection_does_not_overtake_the_acceptance_of_the_same_user() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(1);
    let lane = &mut lists.lanes[0];
    lane.publish("other", Kind::Trade, Priority::P1, None); // 1: before it in its ring, so it goes first as well
    lane.publish("user", Kind::Trade, Priority::P1, None); // 2
    lane.publish("other", Kind::Trade, Priority::P1, None); // 3
    lane.publish("user", Kind::Account, Priority::P2, None); // 4: not an order's event
    lane.publish("user", Kind::Trade, Priority::P0, None); // 5
    lane.publish("third", Kind::Trade, Priority::P0, None); // 6
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    assert_eq!(rounds.round().unwrap(), 4);
    assert_eq!(sequences(&rounds), [(1, 1), (1, 2), (0, 5), (0, 6), (1, 3), (2, 4)]);
    assert_eq!(rounds.counters.drawn_forward.get(), 2);
}

#[test]
fn a_ring_that_was_overrun_is_no_fault_and_what_is_left_of_it_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(1);
    let lane = &mut lists.lanes[0];
    lane.publish("user", Kind::Trade, Priority::P1, None); // 1: lost
    lane.publish("user", Kind::Trade, Priority::P1, None); // 2
    lane.publish("user", Kind::Trade, Priority::P0, None); // 3
    lane.overrun = Some(Priority::P1);
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    rounds.round().unwrap();
    assert_eq!(sequences(&rounds), [(1, 2), (0, 3)]);
    assert!(rounds.source.lanes[0].quarantined.is_none());
}

#[test]
fn what_is_drawn_forward_draws_its_own_past_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(1);
    let lane = &mut lists.lanes[0];
    lane.publish("b", Kind::Trade, Priority::P1, None); // 1
    lane.publish("b", Kind::Trade, Priority::P3, None); // 2: drained for a's 3, and needs 1 first
    lane.publish("a", Kind::Trade, Priority::P3, None); // 3
    lane.publish("a", Kind::Trade, Priority::P0, None); // 4
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    rounds.round().unwrap();
    assert_eq!(sequences(&rounds), [(1, 1), (3, 2), (3, 3), (0, 4)]);
}

#[test]
fn the_order_holds_also_behind_more_than_a_scout_remembers() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(1);
    let lane = &mut lists.lanes[0];
    for _ in 0..=order::REMEMBERED_MAX {
        lane.publish("other", Kind::Trade, Priority::P1, None);
    }
    lane.publish("user", Kind::Trade, Priority::P1, None);
    lane.publish("user", Kind::Trade, Priority::P0, None);
    let last = lane.sequence;
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    rounds.round().unwrap();
    let sequences = sequences(&rounds);
    assert_eq!(sequences.len() as u64, last, "each once");
    assert_eq!(sequences[sequences.len() - 2..], [(1, last - 1), (0, last)]);
}

#[test]
fn a_round_takes_all_of_p0_and_p1_and_a_budget_of_the_others_over_all_lanes() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(2);
    for lane in &mut lists.lanes {
        for priority in Priority::ALL {
            for _ in 0..150 {
                lane.publish("user", Kind::Account, priority, None);
            }
        }
    }
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    assert_eq!(rounds.round().unwrap(), 300 + 300 + 100 + 50);
    assert_eq!(rounds.source.lanes[0].at, [150, 150, 64, 50]);
    assert_eq!(rounds.source.lanes[1].at, [150, 150, 36, 0]);
    // The next round begins with the other lane.
    assert_eq!(rounds.round().unwrap(), 150);
    assert_eq!(rounds.source.lanes[0].at, [150, 150, 100, 50]);
    assert_eq!(rounds.source.lanes[1].at, [150, 150, 100, 50]);
}

#[test]
fn p0_is_looked_for_between_the_chunks_of_a_flood() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(1);
    for _ in 0..1000 {
        lists.lanes[0].publish("flooded", Kind::Account, Priority::P1, None);
    }
    lists.urgent = Some("user");
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    rounds.round().unwrap();
    let place = journalled(&rounds.intake.journal).iter().position(|line| line.priority == 0);
    assert_eq!(place, Some(64), "right behind the chunk during which it was published");
}

/// Many lanes, each with a full ring of what must go before its P0s.
#[test]
fn what_is_drawn_forward_is_published_in_chunks_and_lanes_take_turns() {
    const EACH: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(8);
    for lane in &mut lists.lanes {
        for index in 1..=EACH {
            lane.publish("user", Kind::Trade, Priority::P1, None);
            if index % 250 == 0 {
                lane.publish("user", Kind::Trade, Priority::P0, None);
            }
        }
    }
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    rounds.round().unwrap();
    let lines = journalled(&rounds.intake.journal);
    check_promises(&lines).unwrap();
    assert_eq!(lines.len(), 8 * (EACH + 4));
    let commits = rounds.source.marks.len();
    assert!(commits >= lines.len() / (super::rounds::CHUNK + 1), "{commits} commits");
    // The first of each lane before the second of any.
    let urgent: Vec<u64> = lines.iter().filter(|line| line.priority == 0).map(|line| line.lane).collect();
    let lanes: Vec<u64> = (100..108).collect();
    assert_eq!(urgent, lanes.repeat(4));
}

#[test]
fn the_check_of_the_order_finds_a_rejection_before_the_acceptance() {
    let line = |lane_sequence, priority, seq| Line {
        lane: 1,
        priority,
        lane_sequence,
        user: "user".to_owned(),
        seq,
        is_trade: true,
        id: MessageId::compose(1, lane_sequence, 1),
    };
    check_promises(&[line(1, 1, 1), line(2, 0, 2)]).unwrap();
    check_promises(&[line(2, 0, 1), line(1, 1, 2)]).unwrap_err();
    check_promises(&[line(1, 1, 1), line(2, 1, 3)]).unwrap_err();
}

#[test]
fn sleeping_shards_are_woken_once_a_batch_and_the_mark_is_the_journals_end() {
    let dir = tempfile::tempdir().unwrap();
    let signals = Arc::new(Signals::default());
    let mut lists = lists(1);
    lists.lanes[0].publish("user", Kind::Account, Priority::P0, None);
    lists.lanes[0].publish("user", Kind::Account, Priority::P2, None);
    let mut rounds = begin(lists, config(dir.path()), vec![signals.clone() as Arc<dyn ShardSignal>]);
    rounds.round().unwrap();
    assert_eq!(signals.0.load(Ordering::Relaxed), 2, "P0 at once, the rest at the end");
    assert_eq!(rounds.source.marks.last(), Some(&rounds.intake.journal.end()));
    rounds.round().unwrap();
    assert_eq!(signals.0.load(Ordering::Relaxed), 2, "nothing new, nobody is woken");
}

#[test]
fn a_record_that_is_not_sound_costs_its_lane_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(3);
    for lane in &mut lists.lanes {
        for _ in 0..3 {
            lane.publish("user", Kind::Trade, Priority::P1, None);
        }
    }
    lists.lanes[0].rings[1][1].header.user_hash.0 ^= 1;
    lists.lanes[1].broken = Some((Priority::P1, 2));
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    rounds.round().unwrap();
    rounds.round().unwrap();
    let counted: Vec<_> = rounds
        .counters
        .lanes()
        .iter()
        .map(|lane| {
            let [read, journalled, duplicate, rejected] =
                [&lane.read, &lane.journalled, &lane.duplicate, &lane.rejected].map(|counts| counts[1].get());
            assert_eq!(read, journalled + duplicate + rejected);
            (journalled, rejected, lane.is_quarantined())
        })
        .collect();
    assert_eq!(counted, [(1, 1, true), (2, 0, true), (3, 0, false)]);
    assert!(matches!(
        rounds.source.lanes[0].quarantined,
        Some(LaneFault::Record { at: 1, error: RecordError::UserHash { .. } })
    ));
}

#[test]
fn a_lane_that_numbers_as_it_likes_ends_the_round_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(1);
    for number in 0..200u64 {
        let priority = Priority::from_number((number % 4) as u8).unwrap();
        lists.lanes[0].publish("user", Kind::Trade, priority, None);
        let record = lists.lanes[0].rings[priority.index()].last_mut().unwrap();
        record.header.lane_sequence = (number * 7919) % 97 + 1;
    }
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    while rounds.round().unwrap() > 0 {}
    assert_eq!(rounds.source.lanes[0].at, [50; 4]);
    check_promises(
        &journalled(&rounds.intake.journal)
            .into_iter()
            .map(|line| Line { is_trade: false, ..line })
            .collect::<Vec<_>>(),
    )
    .unwrap();
}

#[test]
fn an_id_is_a_duplicate_within_the_window_from_any_lane_and_not_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut lists = lists(2);
    lists.lanes[0].publish("user", Kind::Account, Priority::P0, Some(1));
    lists.lanes[1].publish("user", Kind::Account, Priority::P1, Some(1));
    let mut rounds = begin(lists, config(dir.path()), Vec::new());
    rounds.round().unwrap();
    let counters = rounds.counters.lanes();
    assert_eq!((counters[0].journalled[0].get(), counters[1].duplicate[1].get()), (1, 1));
    for id in 2..=WINDOW as u64 + 1 {
        rounds.source.lanes[0].publish("user", Kind::Account, Priority::P0, Some(id));
    }
    rounds.round().unwrap();
    rounds.source.lanes[1].publish("user", Kind::Account, Priority::P1, Some(1));
    rounds.round().unwrap();
    assert_eq!(counters[1].journalled[1].get(), 1, "51 ids later it is not known any more");
}

#[test]
fn a_user_whose_records_all_left_the_journal_begins_anew_under_another_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { retain_bytes: 2 * SEGMENT_BYTES_MIN, ..config(dir.path()) };
    let mut rounds = begin(lists(1), config.clone(), Vec::new());
    let mut retention = Retention::new(rounds.intake.journal.reader());
    rounds.source.lanes[0].publish("gone", Kind::Account, Priority::P0, None);
    rounds.round().unwrap();
    let before = rounds.intake.streams.known("gone").unwrap();
    let promised = rounds.intake.streams.promise("not-yet");
    while rounds.intake.journal.expired(1).is_none() {
        rounds.source.lanes[0].publish("busy", Kind::Position(1), Priority::P0, None);
        rounds.round().unwrap();
    }
    let busy = rounds.intake.streams.known("busy").unwrap();
    let slow = rounds.intake.journal.reader();
    while retention.step(&mut rounds.intake) {}
    assert_eq!(rounds.intake.journal.expired(1), None);
    assert_eq!(rounds.intake.streams.known("gone"), None);
    let after = rounds.intake.streams.known("busy").unwrap();
    assert_eq!((after.head, after.epoch, after.last), (busy.head, busy.epoch, busy.last));
    let first = slow.clone().entry(slow.start()).map(|entry| entry.seq);
    assert_eq!(Some(after.oldest), first);
    let new_epoch = rounds.intake.streams.promise("gone");
    assert_ne!(new_epoch, before.epoch);
    rounds.source.lanes[0].publish("gone", Kind::Account, Priority::P0, None);
    rounds.source.lanes[0].publish("not-yet", Kind::Account, Priority::P0, None);
    rounds.round().unwrap();
    let again = rounds.intake.streams.known("gone").unwrap();
    assert_eq!((again.head, again.epoch), (1, new_epoch));
    assert_eq!(rounds.intake.streams.known("not-yet").unwrap().epoch, promised, "what he was told came true");

    // And all of that after a start.
    let users = ["gone", "busy", "not-yet"];
    let known = users.map(|user| rounds.intake.streams.known(user));
    let snapshots = users.map(|user| rounds.intake.streams.snapshot(user));
    let lists = std::mem::take(&mut rounds.source);
    drop(rounds);
    let rounds = begin(lists, config, Vec::new());
    assert_eq!(users.map(|user| rounds.intake.streams.known(user)), known);
    assert_eq!(users.map(|user| rounds.intake.streams.snapshot(user)), snapshots);
}

#[derive(Clone, Debug)]
enum Act {
    Publish {
        lane: usize,
        user: u8,
        kind: Kind,
        priority: u8,
        id: Option<u64>,
    },
    Round,
    /// The process is killed before the cursors of its last round are committed, and started again.
    Kill,
}

fn acts(ids: bool) -> impl Strategy<Value = Vec<Act>> {
    let kind =
        prop_oneof![3 => Just(Kind::Trade), 1 => Just(Kind::Account), 1 => (0u8..3).prop_map(Kind::Position)];
    let id = if ids {
        prop_oneof![4 => Just(None), 1 => (1u64..30).prop_map(Some)].boxed()
    } else {
        Just(None).boxed()
    };
    let publish = (0usize..2, 0u8..4, kind, 0u8..4, id)
        .prop_map(|(lane, user, kind, priority, id)| Act::Publish { lane, user, kind, priority, id });
    prop::collection::vec(prop_oneof![12 => publish, 1 => Just(Act::Round), 1 => Just(Act::Kill)], 1..250)
}

fn restart(mut rounds: Rounds<Lists>, dir: &Path) -> Rounds<Lists> {
    let mut lists = std::mem::take(&mut rounds.source);
    drop(rounds); // else the journal has an owner
    for lane in &mut lists.lanes {
        lane.at = lane.committed;
    }
    lists.dead = false;
    begin(lists, config(dir), Vec::new())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn everything_published_is_journalled_once_and_in_order_through_kills(acts in acts(false)) {
        let dir = tempfile::tempdir().unwrap();
        let mut rounds = begin(lists(2), config(dir.path()), Vec::new());
        for act in acts {
            match act {
                Act::Publish { lane, user, kind, priority, id } => {
                    let priority = Priority::from_number(priority).unwrap();
                    rounds.source.lanes[lane].publish(&format!("user_{user}"), kind, priority, id);
                }
                Act::Round => { rounds.round().unwrap(); }
                Act::Kill => {
                    rounds.source.dead = true;
                    rounds.round().unwrap();
                    rounds = restart(rounds, dir.path());
                }
            }
        }
        while rounds.round().unwrap() > 0 {}
        let lines = journalled(&rounds.intake.journal);
        check_promises(&lines)?;
        let unique: HashSet<_> = lines.iter().map(|line| (line.lane, line.lane_sequence)).collect();
        let published: usize = rounds.source.lanes.iter().map(|lane| lane.sequence as usize).sum();
        prop_assert_eq!((lines.len(), unique.len()), (published, published));
    }

    #[test]
    fn a_start_gives_the_tables_as_they_were(acts in acts(true)) {
        let dir = tempfile::tempdir().unwrap();
        let mut rounds = begin(lists(2), config(dir.path()), Vec::new());
        for act in acts {
            match act {
                Act::Publish { lane, user, kind, priority, id } => {
                    let priority = Priority::from_number(priority).unwrap();
                    rounds.source.lanes[lane].publish(&format!("user_{user}"), kind, priority, id);
                }
                Act::Round | Act::Kill => { rounds.round().unwrap(); }
            }
        }
        rounds.round().unwrap();
        let lines = journalled(&rounds.intake.journal);
        check_promises(&lines)?;
        let look = |rounds: &Rounds<Lists>| -> Vec<(Option<Known>, Vec<u64>)> {
            (0..4).map(|user| format!("user_{user}"))
                .map(|user| (rounds.intake.streams.known(&user), rounds.intake.streams.snapshot(&user)))
                .collect()
        };
        let before = look(&rounds);
        for (user, (known, snapshot)) in before.iter().enumerate() {
            let own: Vec<_> = lines.iter().filter(|line| line.user == format!("user_{user}")).collect();
            prop_assert_eq!(known.map_or(0, |known| known.head), own.len() as u64);
            let mut reader = rounds.intake.journal.reader();
            for offset in snapshot {
                let entry = reader.entry(*offset).expect("an offset of the snapshot");
                let view = entry.view().expect("a sound record");
                prop_assert_eq!(view.user_id(), format!("user_{user}"));
            }
        }
        rounds = restart(rounds, dir.path());
        prop_assert_eq!(look(&rounds), before);
        for (index, line) in lines.iter().rev().enumerate() {
            let is_last = lines.iter().rev().position(|other| other.id == line.id) == Some(index);
            prop_assert!(!is_last || rounds.intake.dedup.contains(line.id) == (index < WINDOW), "id {} from the end", index);
        }
    }
}
