//! A lane against a naive model: random publishes, batches, roll-backs, adoptions, reads and commits on tiny rings.
//!
//! The law, per ring: what a gated reader reads is exactly what was published, in order; what a tap reads plus what it
//! says it lost is everything, in order.

mod common;

use std::collections::VecDeque;

use bellwire::{Priority, PublishError, Reader, Tap, TapPoll, TapStart};
use common::{Bus, note, sized, small, title};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Publish { ring: usize, len: usize },
    Batch { notes: Vec<(usize, usize)>, commit: bool },
    Reopen,
    Read { ring: usize, count: usize },
    Commit,
    ReopenReader,
    Tap { ring: usize, count: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..200usize, 0..1000usize];
    prop_oneof![
        6 => (0..4usize, len.clone()).prop_map(|(ring, len)| Step::Publish { ring, len }),
        3 => (prop::collection::vec((0..4usize, len), 0..6), any::<bool>())
            .prop_map(|(notes, commit)| Step::Batch { notes, commit }),
        1 => Just(Step::Reopen),
        6 => (0..4usize, 1..8usize).prop_map(|(ring, count)| Step::Read { ring, count }),
        3 => Just(Step::Commit),
        1 => Just(Step::ReopenReader),
        3 => (0..4usize, 1..8usize).prop_map(|(ring, count)| Step::Tap { ring, count }),
    ]
}

/// What a run came upon, so that a run that tests nothing is noticed.
#[derive(Default)]
struct Seen {
    full: u64,
    lost: u64,
    read: u64,
}

fn run(steps: &[Step], with_reader: bool) -> Seen {
    let mut seen = Seen::default();
    let bus = Bus::new();
    let mut producer = small().open(&bus, "engine").unwrap();
    let mut reader = with_reader.then(|| Reader::open(&bus, "storage").unwrap());
    producer.look();
    let mut tap = Tap::open(&bus, "engine", TapStart::Oldest).unwrap();
    // Ordinals published to each ring; next to be read; committed; next for the tap.
    let mut published: [Vec<String>; 4] = Default::default();
    let (mut read, mut committed, mut tapped) = ([0; 4], [0; 4], [0u64; 4]);
    let mut sequence = 0;
    let filler = "x".repeat(2000);
    let mut number = 0;
    for step in steps {
        match step {
            Step::Publish { ring, len } => {
                number += 1;
                let name = number.to_string();
                let note = note("user", &name, &filler[..*len]).with_priority(Priority::ALL[*ring]);
                match producer.publish(&note) {
                    Ok(done) => {
                        sequence += 1;
                        assert_eq!(done.lane_sequence, sequence);
                        published[*ring].push(name);
                    }
                    Err(PublishError::Full { .. }) => {
                        assert!(with_reader, "nobody gates");
                        assert!(committed[*ring] < published[*ring].len(), "full, and everything is read");
                        seen.full += 1;
                    }
                    Err(PublishError::TooLarge { len, max: 1024 }) => assert!(len > 1024),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Batch { notes, commit } => {
                let mut pushed = Vec::new();
                let mut batch = producer.batch();
                for (ring, len) in notes {
                    number += 1;
                    let name = number.to_string();
                    let note = note("user", &name, &filler[..*len]).with_priority(Priority::ALL[*ring]);
                    if batch.push(&note).is_ok() {
                        pushed.push((*ring, name));
                    }
                }
                assert_eq!(batch.len(), pushed.len());
                if *commit {
                    assert_eq!(batch.commit(), pushed.len());
                    sequence += pushed.len() as u64;
                    for (ring, name) in pushed {
                        published[ring].push(name);
                    }
                }
            }
            Step::Reopen => {
                drop(producer);
                producer = bellwire::Producer::open(&bus, "engine").unwrap();
                assert!(producer.adopted());
                assert_eq!(producer.last_sequence(), sequence);
                assert_eq!(producer.counters().published, published.each_ref().map(|ring| ring.len() as u64));
            }
            Step::Read { ring, count } => {
                let Some(reader) = &mut reader else { continue };
                let lane = reader.lanes().next().unwrap();
                for _ in 0..*count {
                    match reader.peek(lane, Priority::ALL[*ring]).unwrap() {
                        Some(slot) => {
                            let mut copy = vec![0; slot.header().archive_len as usize];
                            slot.copy_archive(&mut copy).unwrap();
                            assert_eq!(
                                title(&slot.header().view(&copy).unwrap()),
                                published[*ring][read[*ring]]
                            );
                            assert_eq!(title(&slot.view().unwrap()), published[*ring][read[*ring]]);
                        }
                        None => {
                            assert_eq!(read[*ring], published[*ring].len());
                            break;
                        }
                    }
                    reader.advance(lane, Priority::ALL[*ring]);
                    read[*ring] += 1;
                    seen.read += 1;
                }
            }
            Step::Commit => {
                if let Some(reader) = &mut reader {
                    reader.commit(number);
                    committed = read;
                }
            }
            Step::ReopenReader => {
                if let Some(old) = reader.take() {
                    drop(old);
                    let new = Reader::open(&bus, "storage").unwrap();
                    read = committed;
                    let lane = new.lanes().next().unwrap();
                    assert_eq!(new.lane(lane).lost(), [0; 4]);
                    reader = Some(new);
                }
            }
            Step::Tap { ring, count } => {
                for _ in 0..*count {
                    match tap.poll(Priority::ALL[*ring]).unwrap() {
                        TapPoll::Record(record) => {
                            let expected = &published[*ring][tapped[*ring] as usize];
                            assert_eq!(&title(&record.view().unwrap()), expected);
                            tapped[*ring] += 1;
                        }
                        TapPoll::Lost { records } => {
                            assert!(records > 0);
                            tapped[*ring] += records;
                            seen.lost += records;
                        }
                        TapPoll::Empty => {
                            assert_eq!(tapped[*ring], published[*ring].len() as u64);
                            break;
                        }
                    }
                }
            }
        }
    }
    // Everybody reads to the end.
    for (ring, priority) in Priority::ALL.into_iter().enumerate() {
        loop {
            match tap.poll(priority).unwrap() {
                TapPoll::Record(_) => tapped[ring] += 1,
                TapPoll::Lost { records } => tapped[ring] += records,
                TapPoll::Empty => break,
            }
        }
        assert_eq!(tapped[ring], published[ring].len() as u64, "received + lost = published");
        if let Some(reader) = &mut reader {
            let lane = reader.lanes().next().unwrap();
            let mut rest: VecDeque<_> = published[ring][read[ring]..].iter().collect();
            while let Some(slot) = reader.peek(lane, priority).unwrap() {
                assert_eq!(Some(&title(&slot.view().unwrap())), rest.pop_front());
                reader.advance(lane, priority);
            }
            assert!(rest.is_empty(), "published and not read: {rest:?}");
        }
    }
    seen
}

/// Random runs of each kind. Who has to go through them for each of hundreds of builds takes fewer (scripts/proofs/mutants).
fn runs() -> u32 {
    std::env::var("BELLWIRE_MODEL_RUNS").map_or(2000, |runs| runs.parse().expect("a number"))
}

fn many(with_reader: bool) -> Seen {
    let mut all = Seen::default();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: runs(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let all_cell = std::cell::RefCell::new(&mut all);
    runner
        .run(&prop::collection::vec(step(), 1..250), |steps| {
            let seen = run(&steps, with_reader);
            let mut all = all_cell.borrow_mut();
            all.full += seen.full;
            all.lost += seen.lost;
            all.read += seen.read;
            Ok(())
        })
        .unwrap();
    all
}

#[test]
fn a_gated_reader_reads_exactly_what_was_published_in_order() {
    let (seen, runs) = (many(true), u64::from(runs()));
    assert!(seen.full > runs / 2 && seen.read > 10 * runs, "full {}, read {}", seen.full, seen.read);
}

#[test]
fn a_tap_reads_or_counts_every_record() {
    let (seen, runs) = (many(false), u64::from(runs()));
    assert!(seen.lost > runs, "lost {}", seen.lost);
}

#[test]
fn roll_backs_and_adoptions_do_not_let_the_anchor_fall_behind() {
    // Once found by the random runs: the anchor stayed at an old landmark, and an empty ring refused a record.
    let run_of = |between: &[Step]| {
        let publish = |len| Step::Publish { ring: 3, len };
        let roll_back = Step::Batch { notes: vec![(3, 0)], commit: false };
        let mut steps = vec![publish(632), publish(776)];
        steps.extend_from_slice(between);
        steps.extend([
            Step::Read { ring: 3, count: 2 },
            Step::Batch { notes: vec![(3, 872)], commit: true },
            roll_back.clone(),
            publish(168),
            roll_back,
            publish(152),
            Step::Read { ring: 3, count: 3 },
            Step::Commit,
            publish(888),
        ]);
        run(&steps, true)
    };
    assert_eq!(run_of(&[Step::Reopen]).full, 0);
    assert_eq!(run_of(&[]).full, 0);
}

#[test]
fn a_lane_can_be_adopted_after_a_batch_that_filled_its_ring_was_given_up() {
    let filler = "x".repeat(1000);
    for seed in 0..400usize {
        let bus = Bus::new();
        let mut producer = small().open(&bus, "engine").unwrap();
        for index in 0..seed % 37 {
            producer.publish(&note("user", "n", &filler[..(seed * 53 + index * 97) % 900])).unwrap();
        }
        let published = producer.last_sequence();
        let mut batch = producer.batch();
        while batch.push(&note("user", "n", &filler[..(seed * 31) % 700])).is_ok() {}
        assert!(batch.len() > 2);
        drop(batch);
        assert_eq!(producer.last_sequence(), published);
        drop(producer);
        let mut producer = bellwire::Producer::open(&bus, "engine").unwrap();
        assert_eq!(producer.last_sequence(), published, "seed {seed}");
        producer.publish(&note("user", "n", &filler[..900])).unwrap();
    }
}

/// Records of one size fill each 64th of a ring exactly, again and again: then a record begins at every boundary, and
/// none is ever crossed.
#[test]
fn records_that_fill_a_stretch_exactly_can_be_published_for_ever() {
    let bus = Bus::new();
    const CAPACITY: usize = 64 * 1024;
    let mut producer = sized(CAPACITY).open(&bus, "engine").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let mut tap = Tap::open(&bus, "engine", TapStart::Oldest).unwrap();
    producer.look();
    reader.refresh();
    let lane = reader.lanes().next().unwrap();
    let content = "x".repeat(2_000);
    let mut exact = 0;
    let (mut published, mut lost) = (0_u64, 0);
    for len in (0..2_000).step_by(16) {
        let mut record_len = 0;
        let mut laps = 0;
        while laps < 3 * CAPACITY {
            producer
                .publish(&note("user", "t", &content[..len]))
                .unwrap_or_else(|error| panic!("{len}: {error}"));
            published += 1;
            let slot = reader.peek(lane, Priority::P1).unwrap().unwrap();
            record_len = slot.header().record_len as usize;
            reader.advance(lane, Priority::P1);
            reader.commit(0);
            laps += record_len;
        }
        exact += usize::from((CAPACITY / 64).is_multiple_of(record_len));
    }
    assert!(exact >= 2, "sizes of which a whole number fills a stretch: {exact}");
    // The landmarks count the records right, all the same.
    let mut read = 0;
    loop {
        match tap.poll(Priority::P1).unwrap() {
            TapPoll::Record(_) => read += 1,
            TapPoll::Lost { records } => lost += records,
            TapPoll::Empty => break,
        }
    }
    assert_eq!(read + lost, published);
}
