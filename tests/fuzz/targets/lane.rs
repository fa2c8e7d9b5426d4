//! A lane and a consumer's cursors with whatever bytes: before they are opened, and while they are read. Whoever reads them
//! gets what was published, an error, or what was written there by the edits themselves; and never looks outside of a ring.
#![no_main]

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use bellwire::{
    Level, Notification, Priority, Producer, ProducerOptions, RECORD_ALIGN, Reader, RecordHeader, Scout,
    SystemNotice, Tap, TapPoll, TapStart, inspect,
};
use bellwire_fuzz::edits::{Edit, Edited, Original};
use bellwire_fuzz::fields::Fields;
use bellwire_fuzz::{arbitrary, fuzz_target, place};

const CAPACITY: usize = 4096;

/// More steps than a ring can have records: whoever needs more goes round in circles.
const STEPS_MAX: usize = CAPACITY;

/// A lane and cursors of an orderly past.
struct Template {
    bus: String,
    /// As a reader finds it that the producer knows, and one that it does not know yet.
    lanes: [Original; 2],
    cursors: Original,
    /// By lane sequence.
    published: HashMap<u64, (RecordHeader, Vec<u8>)>,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    bellwire::guard_mappings().expect("a handler for SIGBUS");
    let bus = place::name();
    let [lane, cursors] = ["lane.engine", "cursors.storage"]
        .map(|name| PathBuf::from(format!("/dev/shm/bellwire.{bus}.{name}")));
    let mut producer = open(&bus).expect("a new lane");
    let mut reader = Reader::open(&bus, "storage").expect("a new consumer");
    let mut tap = Tap::open(&bus, "engine", TapStart::Oldest).expect("a lane");
    let mut published = HashMap::new();
    for index in 0..100 {
        let priority = Priority::ALL[index % 4];
        let content = "content ".repeat(index * 7 % 23);
        producer.publish(&notice(&content).with_priority(priority)).expect("room");
        let Ok(TapPoll::Record(record)) = tap.poll(priority) else { panic!("what was published") };
        published.insert(record.header.lane_sequence, (record.header, record.archive.to_vec()));
        if index % 3 == 0 {
            reader.round(bellwire::Budget::default(), |_, _| ());
            reader.commit(0);
        }
    }
    drop(reader);
    let original = |path: &PathBuf| {
        let original = Original::of(path);
        let is_record = |at: &usize| {
            let header = original.bytes()[*at..].first_chunk().map(RecordHeader::from_bytes);
            header.is_some_and(|header| published.get(&header.lane_sequence).is_some_and(|it| it.0 == header))
        };
        let places: Vec<_> = (0..original.bytes().len()).step_by(RECORD_ALIGN).filter(is_record).collect();
        original.marked(places)
    };
    let stranger = original(&lane);
    let cursors = Original::of(cursors);
    // What the producer promises now, it promises to the one that opens these cursors next.
    let _next = Reader::open(&bus, "storage").expect("the consumer once more");
    producer.look();
    Template { lanes: [original(&lane), stranger], cursors, published, bus }
});

fn open(bus: &str) -> std::result::Result<Producer, bellwire::OpenError> {
    Priority::ALL
        .into_iter()
        .fold(ProducerOptions::new(), |it, priority| it.capacity(priority, CAPACITY))
        .open(bus, "engine")
}

fn notice(content: &str) -> Notification<'_> {
    Notification::new(
        "user",
        "Test",
        SystemNotice { title: "title", content, level: Level::Info, timestamp: 7 },
    )
}

/// What is done to the files, and when.
#[derive(Arbitrary, Debug)]
enum Act {
    Lane(Edit),
    Cursors(Edit),
    TruncateLane(u16),
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    let template = &*TEMPLATE;
    let lane = template.lanes[usize::from(bytes.arbitrary::<bool>()?)].restore();
    let mut hostile = Hostile { template, lane, cursors: template.cursors.restore(), bytes };
    hostile.act_several()?;

    hostile.tap()?;
    for kind in ["lane", "cursors"] {
        let shown = match kind {
            "lane" => {
                inspect::LaneStatus::read(&template.bus, "engine", None).map(|status| format!("{status:?}"))
            }
            _ => inspect::CursorsStatus::read(&template.bus, "storage", None)
                .map(|status| format!("{status:?}")),
        };
        assert!(!shown.unwrap_or_else(|error| error.to_string()).is_empty());
    }
    hostile.read()?;
    adopt(&template.bus);
    Ok(())
}

struct Hostile<'a, 'b> {
    template: &'a Template,
    lane: Edited<'a>,
    cursors: Edited<'a>,
    bytes: &'a mut Unstructured<'b>,
}

impl Hostile<'_, '_> {
    fn act_several(&mut self) -> Result<()> {
        for _ in 0..self.bytes.int_in_range(0..=4)? {
            match self.bytes.arbitrary()? {
                Act::Lane(edit) => self.lane.apply(&edit),
                Act::Cursors(edit) => self.cursors.apply(&edit),
                Act::TruncateLane(len) => self.lane.truncate(u64::from(len)),
            }
        }
        Ok(())
    }

    /// Between two steps of a reader, while the input lasts.
    fn act_meanwhile(&mut self) -> Result<()> {
        if !self.bytes.is_empty() && self.bytes.ratio(1, 8)? { self.act_several() } else { Ok(()) }
    }

    /// Where the records of a ring begin. The rings are what a lane ends with.
    fn ring_at(&self, ring: usize) -> usize {
        self.template.lanes[0].len() as usize - (4 - ring) * CAPACITY
    }

    /// A record that passed all checks.
    fn is_sound(&self, header: &RecordHeader, archive: &[u8], is_untouched: bool) {
        let view = header.view(archive).expect("a view is what it was found to be");
        assert!(Fields::of(&view).are_finite());
        if is_untouched {
            let (published, its_archive) =
                self.template.published.get(&header.lane_sequence).expect("a record that was published");
            assert!(
                header == published && archive == its_archive,
                "a record that nobody published: {header:?}"
            );
        }
    }

    fn tap(&mut self) -> Result<()> {
        for start in [TapStart::Now, TapStart::Oldest] {
            let Ok(mut tap) = Tap::open(&self.template.bus, "engine", start) else { continue };
            for (ring, priority) in Priority::ALL.into_iter().enumerate() {
                let begin = self.ring_at(ring);
                let is_over = |steps| assert!(steps < STEPS_MAX, "a tap goes round in circles");
                for steps in 0.. {
                    is_over(steps);
                    match tap.poll(priority) {
                        Ok(TapPoll::Record(record)) => {
                            assert!(record.header.priority == ring as u8);
                            let is_untouched = !self.lane.is_touched(begin..begin + CAPACITY);
                            if record.view().is_ok() {
                                self.is_sound(&record.header, record.archive, is_untouched);
                            }
                        }
                        Ok(TapPoll::Lost { .. }) => {}
                        Ok(TapPoll::Empty) => break,
                        Err(fault) => {
                            assert!(!fault.to_string().is_empty());
                            break;
                        }
                    }
                    self.act_meanwhile()?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        let Ok(mut reader) = Reader::open(&self.template.bus, "storage") else { return Ok(()) };
        for lane in reader.lanes() {
            for (ring, priority) in Priority::ALL.into_iter().enumerate() {
                let _ = reader.scan(lane, priority, &mut Scout::default(), |_| ControlFlow::Continue(()));
                let is_over = |steps| assert!(steps < STEPS_MAX, "a reader goes round in circles");
                for steps in 0.. {
                    is_over(steps);
                    let slot = match reader.peek(lane, priority) {
                        Ok(Some(slot)) => slot,
                        Ok(None) => break,
                        Err(fault) => {
                            reader.quarantine(lane, fault);
                            break;
                        }
                    };
                    let header = *slot.header();
                    // What was shown must stay within what was shown, whatever becomes of the lane.
                    self.act_meanwhile()?;
                    let mut copy = vec![0; header.archive_len as usize];
                    let at = self.ring_at(ring) + (slot.position() % CAPACITY as u64) as usize;
                    assert!(
                        at + header.record_len as usize <= self.ring_at(ring) + CAPACITY,
                        "outside of its ring"
                    );
                    if slot.copy_archive(&mut copy).is_ok() && header.view(&copy).is_ok() {
                        let is_untouched = !self.lane.is_touched(at..at + header.record_len as usize);
                        self.is_sound(&header, &copy, is_untouched);
                    }
                    if let Ok(view) = slot.view() {
                        let _ = Fields::of(&view);
                    }
                    reader.advance(lane, priority);
                }
            }
            let _ = reader.lane(lane).quarantined().map(ToString::to_string);
        }
        reader.round(bellwire::Budget::default(), |_, view| drop(Fields::of(&view)));
        reader.commit(1);
        let _ = reader.verify();
        Ok(())
    }
}

/// A lane that the next producer takes over is as good as new: what he publishes is there.
fn adopt(bus: &str) {
    let mut producer = match open(bus) {
        Ok(producer) => producer,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut tap = Tap::open(bus, "engine", TapStart::Now).expect("an adopted lane is sound");
    for index in 0..40 {
        let priority = Priority::ALL[index % 4];
        let Ok(published) = producer.publish(&notice("content").with_priority(priority)) else { continue };
        match tap.poll(priority) {
            Ok(TapPoll::Record(record)) => assert_eq!(record.header.lane_sequence, published.lane_sequence),
            other => panic!("what was published is not there: {other:?}"),
        }
    }
}
