//! A producer killed at every instruction: everybody goes on, and sees a record wholly or not at all. While it opens its
//! lane or is refused, which takes longer: at each instruction that changes the lane, at each system call, and at one in
//! some of the rest.

mod common;

use std::time::{Duration, Instant};

use bellwire::{Notification, Priority, Producer, PublishError, Published, Reader, ReaderOptions};
use bellwire_stepper::{Board, Scenario, Victim};
use common::{
    ALL, Bus, CHANGES_OF_A_CALL, CHANGES_OF_AN_OPENING, CONSUMER, LANE, PLAIN, Script, contents, contiguous,
    ensure, sized, walk,
};

const RING: usize = 4096;
/// What the victim notes: the last record whose publishing returned.
const RETURNED: usize = 0;
/// And that a publish was refused because the ring was full.
const REFUSED: usize = 1;
/// And the record that it published before the region.
const FIRST: usize = 2;

/// Two in one ring, one in another, two in a third, one in the first again: four runs.
const MIXED: Script = Script {
    priority: |number| {
        use Priority::{P0, P1, P3};
        [P1, P1, P0, P3, P3, P1][((number - 1) % 6) as usize]
    },
    ..PLAIN
};

/// How many records of a script fit into a ring.
fn ring_full() -> u64 {
    (RING / PLAIN.record(1).len()) as u64
}

/// A producer that does something with a lane while a gated reader watches.
struct Publishing {
    board: &'static Board,
    script: Script,
    /// Records before the region; of these the reader has read the first so many.
    before: u64,
    read: u64,
    /// Prepares, pauses at the beginning of the region, and does what is to be done.
    act: fn(Script, &mut Producer, &'static Board),
    /// How many records may be there beyond those before.
    may_add: &'static [u64],
    must_refuse: bool,
    /// Whether the consumer is dead, and given up as soon as it is in the way.
    consumer_is_dead: bool,
    place: Option<(Bus, Option<Reader>)>,
}

impl Publishing {
    fn new(before: u64, read: u64, act: fn(Script, &mut Producer, &'static Board)) -> Self {
        Self {
            board: Board::new(),
            script: PLAIN,
            before,
            read,
            act,
            may_add: &[0, 1],
            must_refuse: false,
            consumer_is_dead: false,
            place: None,
        }
    }
}

/// The region: one publish.
fn publish_one(script: Script, producer: &mut Producer, board: &'static Board) {
    let number = producer.last_sequence() + 1;
    script.with(number, |notification| {
        board.pause();
        note(board, producer.publish(notification));
    });
}

fn note(board: &Board, published: Result<Published, PublishError>) {
    match published {
        Ok(published) => board.note(RETURNED, published.lane_sequence),
        Err(PublishError::Full { .. }) => board.note(REFUSED, 1),
        Err(error) => panic!("{error}"),
    }
}

/// The region: a batch of six.
fn publish_batch(script: Script, producer: &mut Producer, board: &'static Board) {
    let before = producer.last_sequence();
    script.with_many(before + 1, |notifications: [&Notification<'_>; 6]| {
        board.pause();
        let mut batch = producer.batch();
        for notification in notifications {
            batch.push(notification).expect("room");
        }
        board.note(RETURNED, before + batch.commit() as u64);
    });
}

impl Scenario for Publishing {
    fn begin(&mut self) -> Victim {
        self.place = None;
        self.board.wipe();
        let bus = Bus::new();
        let mut reader = Reader::open(&bus, CONSUMER).expect("a reader");
        let (board, script, act, before, read) = (self.board, self.script, self.act, self.before, self.read);
        let grace = if self.consumer_is_dead { Duration::ZERO } else { Duration::from_secs(30) };
        let victim = Victim::fork(|| {
            let mut producer = sized(RING).grace(grace).open(&bus, LANE).expect("a lane");
            for _ in 0..read {
                script.publish(&mut producer);
            }
            board.pause();
            producer.look();
            for _ in read..before {
                script.publish(&mut producer);
            }
            // So that a full ring looks for consumers anew, as it does once in a millisecond.
            std::thread::sleep(Duration::from_millis(2));
            act(script, &mut producer, board);
            board.end();
        });
        victim.wait_for_pause();
        let numbers = script.read(&mut reader).expect("sound records");
        assert_eq!(numbers.len() as u64, read);
        reader.commit(0);
        victim.run_to_pause();
        self.place = Some((bus, (!self.consumer_is_dead).then_some(reader)));
        victim
    }

    fn is_over(&self) -> bool {
        self.board.is_over()
    }

    fn visible(&self) -> u64 {
        let (bus, _) = self.place.as_ref().expect("a stage");
        contents(&[bus.file("lane", LANE).into()])
    }

    fn strike(&mut self, victim: Victim, _: usize) -> Result<(), String> {
        victim.kill();
        let (bus, reader) = self.place.take().expect("a stage");
        ensure(!self.board.is_over() || !self.must_refuse || self.board.noted(REFUSED) == 1, || {
            "the ring was to be full, and was not".to_owned()
        })?;
        let returned = self.board.noted(RETURNED).max(self.before);
        let visible = match reader {
            Some(mut reader) => {
                let visible = contiguous(&self.script.read(&mut reader)?, self.read + 1)?;
                reader.commit(0);
                go_on(&bus, self.script, &mut reader, visible)?;
                visible
            }
            None => {
                // The consumer comes back, and learns exactly how many are gone.
                let mut reader = Reader::open(&bus, CONSUMER).map_err(|error| error.to_string())?;
                let numbers = self.script.read(&mut reader)?;
                let lane = reader.lanes().next().ok_or("the reader has no lane")?;
                let lost: u64 = reader.lane(lane).lost().iter().sum();
                let visible = contiguous(&numbers, self.read + lost + 1)?;
                reader.commit(0);
                go_on(&bus, self.script, &mut reader, visible)?;
                visible
            }
        };
        ensure(visible >= returned, || format!("publishing {returned} returned, and {visible} is the last"))?;
        let added = visible - self.before;
        ensure(self.may_add.contains(&added), || format!("{added} records of the call are there"))
    }
}

/// Taps see whole records up to the last; the next owner adopts the lane, continues its sequence, and the ring goes on for
/// two laps with the reader reading along.
fn go_on(bus: &str, script: Script, reader: &mut Reader, visible: u64) -> Result<(), String> {
    let tapped = script.tap(bus)?;
    let newest = tapped.last().copied().unwrap_or(0);
    ensure(newest == visible, || format!("a tap ends at {newest}, the reader at {visible}"))?;
    let mut producer = sized(RING).open(bus, LANE).map_err(|error| format!("the next owner: {error}"))?;
    let last = producer.last_sequence();
    ensure(producer.adopted() && last == visible, || {
        format!("the next owner goes on behind {last}, {visible} is the last that is visible")
    })?;
    producer.look();
    let mut read = visible;
    for _ in 0..4 * ring_full() {
        let number = script.publish(&mut producer);
        let numbers = script.read(reader)?;
        read = contiguous(&numbers, read + 1)?;
        ensure(read == number, || format!("record {number} was published, the reader is at {read}"))?;
        reader.commit(0);
    }
    let newest = script.tap(bus)?.last().copied();
    ensure(newest == Some(read), || format!("a tap ends at {newest:?}, the reader at {read}"))
}

fn plain() -> usize {
    walk("publish", 300, ALL, &mut Publishing::new(3, 1, publish_one))
}

fn wrapping() -> usize {
    let full = ring_full();
    assert_ne!(RING % PLAIN.record(1).len(), 0, "the lap is to end in padding");
    walk("publish, wrapping", 300, ALL, &mut Publishing::new(full, full, publish_one))
}

/// The last record that has room.
fn nearly_full() -> usize {
    let mut publishing = Publishing::new(ring_full() - 1, 0, publish_one);
    walk("publish into a nearly full ring", 300, ALL, &mut publishing)
}

/// The first that has none: the producer looks for consumers that moved, are new, or dead.
fn refused() -> usize {
    let mut publishing =
        Publishing { must_refuse: true, may_add: &[0], ..Publishing::new(ring_full(), 0, publish_one) };
    walk("publish into a full ring, refused", 1000, CHANGES_OF_A_CALL, &mut publishing)
}

fn giving_up() -> usize {
    let mut publishing =
        Publishing { consumer_is_dead: true, ..Publishing::new(ring_full(), 3, publish_one) };
    walk("publish over what a consumer that is given up has not read", 700, ALL, &mut publishing)
}

fn batch() -> usize {
    let mut publishing =
        Publishing { script: MIXED, may_add: &[0, 2, 3, 5, 6], ..Publishing::new(6, 6, publish_batch) };
    walk("batch of three priorities", 1000, ALL, &mut publishing)
}

fn batch_wrapping() -> usize {
    // The ring of P1 takes three of six.
    let before = ring_full() / 3 * 6;
    let mut publishing = Publishing {
        script: MIXED,
        may_add: &[0, 2, 3, 5, 6],
        ..Publishing::new(before, before, publish_batch)
    };
    walk("batch of three priorities, wrapping", 1000, ALL, &mut publishing)
}

/// A producer that opens its lane, new or adopted.
struct Opening {
    board: &'static Board,
    /// Records that the last owner left; `None`: there is no lane.
    left: Option<u64>,
    place: Option<(Bus, Reader)>,
}

impl Scenario for Opening {
    fn begin(&mut self) -> Victim {
        self.place = None;
        self.board.wipe();
        let bus = Bus::new();
        let mut reader = Reader::open(&bus, CONSUMER).expect("a reader");
        if let Some(left) = self.left {
            let mut producer = sized(RING).open(&bus, LANE).expect("a lane");
            for number in 1..=left {
                producer.look(); // else it knows too late where the reader is
                PLAIN.publish(&mut producer);
                if number < left {
                    PLAIN.read(&mut reader).expect("sound records");
                    reader.commit(0);
                }
            }
        }
        let board = self.board;
        let victim = Victim::fork(|| {
            board.pause();
            let _producer = sized(RING).open(&bus, LANE).expect("a lane");
            board.end();
        });
        victim.wait_for_pause();
        self.place = Some((bus, reader));
        victim
    }

    fn is_over(&self) -> bool {
        self.board.is_over()
    }

    fn visible(&self) -> u64 {
        let (bus, _) = self.place.as_ref().expect("a stage");
        contents(&[bus.file("lane", LANE).into()])
    }

    fn strike(&mut self, victim: Victim, _: usize) -> Result<(), String> {
        victim.kill();
        let (bus, mut reader) = self.place.take().expect("a stage");
        let left = self.left.unwrap_or(0);
        // Whatever has a name is whole: it can be attached to, tapped and adopted.
        let lanes = bellwire::inspect::segments(&bus).map_err(|error| error.to_string())?;
        let is_there = lanes.iter().any(|segment| segment.name == LANE);
        ensure(is_there || self.left.is_none(), || "the lane is gone".to_owned())?;
        let refused = reader.refresh().refused;
        ensure(refused.is_empty(), || format!("the reader cannot attach: {refused:?}"))?;
        let numbers = PLAIN.read(&mut reader)?;
        // All but the last were read before.
        let visible = contiguous(&numbers, left.max(1))?;
        ensure(visible == left, || format!("{visible} is the last of {left}"))?;
        reader.commit(0);
        if is_there {
            return go_on(&bus, PLAIN, &mut reader, visible);
        }
        let mut producer =
            sized(RING).open(&bus, LANE).map_err(|error| format!("the next owner: {error}"))?;
        ensure(!producer.adopted(), || "a lane was adopted that was not there".to_owned())?;
        let number = PLAIN.publish(&mut producer);
        ensure(PLAIN.read(&mut reader)? == [number], || "the first record is not there".to_owned())
    }
}

fn creating() -> usize {
    walk(
        "open a new lane",
        300,
        CHANGES_OF_AN_OPENING,
        &mut Opening { board: Board::new(), left: None, place: None },
    )
}

fn adopting() -> usize {
    // More than a lap, so that the end is found from a landmark.
    let left = Some(ring_full() * 3 / 2);
    walk("adopt a lane", 300, CHANGES_OF_AN_OPENING, &mut Opening { board: Board::new(), left, place: None })
}

/// A producer that publishes while a reader, a process of its own, sleeps on its doorbell.
struct Waking {
    board: &'static Board,
    /// What the reader notes: the last record that it has read.
    bedside: &'static Board,
    sleeper: Option<Victim>,
    bus: Bus,
    published: u64,
    /// Points at which the record was there and the reader slept on.
    unwoken: usize,
}

impl Waking {
    fn new() -> Self {
        let bus = Bus::new();
        drop(sized(256 << 10).open(&bus, LANE).expect("a lane"));
        let bedside = Board::new();
        let sleeper = Victim::fork_free(|| {
            let mut reader =
                ReaderOptions::new().spin(Duration::ZERO).open(&bus, CONSUMER).expect("a reader");
            loop {
                reader.wait(Duration::from_secs(3600));
                if let Some(last) = PLAIN.read(&mut reader).expect("sound records").last() {
                    reader.commit(0);
                    bedside.note(RETURNED, *last);
                }
            }
        });
        Self { board: Board::new(), bedside, sleeper: Some(sleeper), bus, published: 0, unwoken: 0 }
    }

    fn has_read(&self, number: u64, within: Duration) -> bool {
        let begun = Instant::now();
        while self.bedside.noted(RETURNED) < number {
            if begun.elapsed() > within {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        true
    }

    /// Waits until the reader sleeps.
    fn wait_for_sleep(&self) {
        let sleeper = self.sleeper.as_ref().expect("a reader");
        let stat = format!("/proc/{}/stat", sleeper.pid());
        let is_asleep = || std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S "));
        while !is_asleep() {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

impl Scenario for Waking {
    fn begin(&mut self) -> Victim {
        self.board.wipe();
        let (board, bus) = (self.board, &self.bus);
        let victim = Victim::fork(|| {
            let mut producer = Producer::open(bus, LANE).expect("the lane");
            // It knows the reader, and the reader that it is known.
            board.note(FIRST, PLAIN.publish(&mut producer));
            board.pause();
            producer.look();
            publish_one(PLAIN, &mut producer, board);
            board.end();
        });
        victim.wait_for_pause();
        self.published = self.board.noted(FIRST);
        assert!(self.has_read(self.published, Duration::from_secs(10)), "the reader reads");
        victim.run_to_pause();
        self.wait_for_sleep();
        victim
    }

    fn is_over(&self) -> bool {
        self.board.is_over()
    }

    fn strike(&mut self, victim: Victim, _: usize) -> Result<(), String> {
        victim.kill();
        let visible = PLAIN.tap(&self.bus)?.last().copied().unwrap_or(0);
        ensure((self.published..=self.published + 1).contains(&visible), || format!("{visible} is visible"))?;
        ensure(visible >= self.board.noted(RETURNED), || format!("{visible} is the last that is visible"))?;
        self.published = visible;
        // Killed between the commit and the bell, the producer rings no more. The reader looks by itself ten times a second.
        if !self.has_read(visible, Duration::from_millis(50)) {
            self.unwoken += 1;
            ensure(self.has_read(visible, Duration::from_secs(10)), || {
                format!("the reader sleeps on, and record {visible} is there")
            })?;
        }
        // The next owner's record reaches the reader, too.
        let mut producer = Producer::open(&self.bus, LANE).map_err(|error| error.to_string())?;
        ensure(producer.last_sequence() == visible, || format!("the next owner goes on behind {visible}"))?;
        self.published = PLAIN.publish(&mut producer);
        ensure(self.has_read(self.published, Duration::from_secs(10)), || {
            format!("the reader sleeps on, and record {} of the next owner is there", self.published)
        })
    }
}

fn parked_reader() -> usize {
    let mut waking = Waking::new();
    let points = walk("publish with a parked reader", 300, ALL, &mut waking);
    println!("the reader was not rung and looked by itself at {} points", waking.unwoken);
    drop(waking.sleeper.take());
    points
}

fn main() {
    common::main(
        "producer killed",
        &[
            ("plain", plain),
            ("wrapping", wrapping),
            ("nearly_full", nearly_full),
            ("refused", refused),
            ("giving_up", giving_up),
            ("batch", batch),
            ("batch_wrapping", batch_wrapping),
            ("creating", creating),
            ("adopting", adopting),
            ("parked_reader", parked_reader),
        ],
    );
}
