//! A consumer that writes whatever it likes into its cursors, truncates them, removes them or makes them anew, beside one
//! that behaves: the producer goes on or says that a ring is full, and the other consumer loses nothing.
#![no_main]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use bellwire::{
    Level, Notification, Priority, Producer, ProducerOptions, PublishError, Reader, SystemNotice, inspect,
};
use bellwire_fuzz::edits::{At, Edit, Original};
use bellwire_fuzz::{arbitrary, fuzz_target, place};

const CAPACITY: usize = 4096;

struct Template {
    bus: String,
    lane: Original,
    honest: Original,
    hostile: Original,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    bellwire::guard_mappings().expect("a handler for SIGBUS");
    let bus = place::name();
    let file = |name: &str| PathBuf::from(format!("/dev/shm/bellwire.{bus}.{name}"));
    {
        let mut readers = ["honest", "hostile"].map(|name| Reader::open(&bus, name).expect("a new consumer"));
        let mut producer = open(&bus, Duration::ZERO);
        for index in 0..60 {
            publish(&mut producer, Priority::ALL[index % 4], index).expect("room");
            for reader in &mut readers {
                reader.refresh();
                reader.round(bellwire::Budget::default(), |_, _| ());
                reader.commit(0);
            }
        }
        producer.look();
    }
    Template {
        lane: Original::of(file("lane.engine")),
        honest: Original::of(file("cursors.honest")),
        hostile: Original::of(file("cursors.hostile")),
        bus,
    }
});

fn open(bus: &str, grace: Duration) -> Producer {
    let options = Priority::ALL
        .into_iter()
        .fold(ProducerOptions::new(), |it, priority| it.capacity(priority, CAPACITY));
    options.grace(grace).open(bus, "engine").expect("a lane that nobody has touched")
}

fn publish(
    producer: &mut Producer,
    priority: Priority,
    len: usize,
) -> std::result::Result<u64, PublishError> {
    static CONTENT: [u8; 800] = [b'x'; 800];
    let content = std::str::from_utf8(&CONTENT[..len % 800]).unwrap_or_default();
    let notice = SystemNotice { title: "title", content, level: Level::Info, timestamp: 7 };
    let note = Notification::new("user", "Test", notice).with_priority(priority);
    producer.publish(&note).map(|published| published.lane_sequence)
}

#[derive(Arbitrary, Debug)]
enum Act {
    Publish {
        priority: u8,
        len: u16,
        count: u8,
    },
    Look,
    HonestReads,
    HostileReads,
    Edit(Edit),
    /// It says of itself what the other says.
    Mimic(At, u8),
    Truncate(u16),
    /// Its cursors go; what was there stays mapped.
    Remove,
    /// Its cursors are there again, as they once were, in another file.
    MakeAnew,
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    let template = &*TEMPLATE;
    template.lane.restore();
    template.honest.restore();
    let _ = std::fs::remove_file(template.hostile.path());
    let mut hostile = template.hostile.restore();
    // Before anybody has seen it.
    for _ in 0..bytes.int_in_range(0..=3)? {
        if bytes.arbitrary()? {
            hostile.apply(&bytes.arbitrary()?);
        } else {
            hostile.mimic(&template.honest, bytes.arbitrary()?, bytes.arbitrary()?);
        }
    }
    let mut honest = Honest {
        reader: Reader::open(&template.bus, "honest").expect("cursors that nobody has touched"),
        expected: Default::default(),
    };
    // A hostile process that lives, or one that is dead.
    let mut other = if bytes.arbitrary()? { Reader::open(&template.bus, "hostile").ok() } else { None };
    let grace = if bytes.arbitrary()? { Duration::ZERO } else { Duration::from_secs(30) };
    let mut producer = open(&template.bus, grace);

    while !bytes.is_empty() {
        match bytes.arbitrary()? {
            Act::Publish { priority, len, count } => {
                let priority = Priority::ALL[usize::from(priority % 4)];
                for _ in 0..count % 16 + 1 {
                    match publish(&mut producer, priority, usize::from(len)) {
                        Ok(sequence) => honest.expected[priority.index()].push_back(sequence),
                        Err(PublishError::Full { .. }) => break,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            Act::Look => producer.look(),
            Act::HonestReads => honest.read(),
            Act::HostileReads => {
                if let Some(reader) = &mut other {
                    reader.round(bellwire::Budget::default(), |_, _| ());
                    reader.commit(7);
                    let _ = reader.verify();
                }
            }
            Act::Edit(edit) => hostile.apply(&edit),
            Act::Mimic(at, len) => hostile.mimic(&template.honest, at, len),
            Act::Truncate(len) => hostile.truncate(u64::from(len)),
            Act::Remove => {
                let _ = std::fs::remove_file(template.hostile.path()); // it may be gone already
            }
            Act::MakeAnew => {
                let _ = std::fs::remove_file(template.hostile.path()); // it may be gone already
                hostile = template.hostile.restore();
            }
        }
    }
    honest.read();
    assert!(honest.expected.iter().all(VecDeque::is_empty), "lost: {:?}", honest.expected);
    let _ = inspect::CursorsStatus::read(&template.bus, "hostile", None);
    Ok(())
}

struct Honest {
    reader: Reader,
    expected: [VecDeque<u64>; 4],
}

impl Honest {
    /// Everything that is there, which must be what was published and was not read yet.
    fn read(&mut self) {
        for lane in self.reader.lanes() {
            for priority in Priority::ALL {
                while let Some(slot) =
                    self.reader.peek(lane, priority).expect("a lane that nobody has touched")
                {
                    let found = slot.view().map(|_| slot.header().lane_sequence).expect("a sound record");
                    assert_eq!(self.expected[priority.index()].pop_front(), Some(found));
                    self.reader.advance(lane, priority);
                }
            }
            assert_eq!(self.reader.lane(lane).lost(), [0; 4]);
        }
        self.reader.commit(1);
    }
}
