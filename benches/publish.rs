//! What publishing and reading cost in one process, with nobody else on the machine's mind: medians of many short runs.
//!
//! `cargo bench --bench publish`; absolute times are this machine's, compare them within one run only.

use std::hint::black_box;
use std::time::Instant;

use bellwire::{
    Direction, Encoded, FieldVisitor, FillType, Notification, Offset, Priority, Producer, Reader,
    TradeExecuted,
};

const RECORDS: usize = 20_000;
const ROUNDS: usize = 41;

/// A trade as a matching engine says it: 200 bytes of record, about 400 of JSON.
fn trade(number: &str) -> Notification<'_> {
    Notification::new(
        "user_0001",
        "MatchingEngine",
        TradeExecuted {
            trade_id: number,
            order_id: "ord-00012345",
            exchange_order_id: "ex-987654321",
            instrument_id: "IX2401",
            direction: Direction::Buy,
            offset: Offset::Open,
            price: 4102.5,
            volume: 3.0,
            commission: 1.25,
            fill_type: FillType::Partial,
            timestamp: 1_728_123_456_000_000_000,
        },
    )
}

/// Looks at every field, so that none is optimised away.
struct Touch(u64);

impl FieldVisitor for Touch {
    fn text(&mut self, _: &'static str, value: &str) {
        self.0 += value.len() as u64 + u64::from(value.as_bytes().first().copied().unwrap_or(0));
    }
    fn number(&mut self, _: &'static str, value: f64) {
        self.0 ^= value.to_bits();
    }
    fn time(&mut self, _: &'static str, value: i64) {
        self.0 ^= value as u64;
    }
    fn code(&mut self, _: &'static str, value: u32) {
        self.0 ^= u64::from(value);
    }
    fn word(&mut self, _: &'static str, value: &'static str) {
        self.0 ^= value.len() as u64;
    }
}

fn median(name: &str, mut runs: Vec<f64>) {
    runs.sort_by(f64::total_cmp);
    println!("{name:<44} {:>8.1} ns   (best {:.1})", runs[runs.len() / 2], runs[0]);
}

fn ns_per_record(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64 / RECORDS as f64
}

fn main() {
    let bus = format!("bench-{}", std::process::id());
    let mut producer = Producer::open(&bus, "engine").expect("a lane");
    let mut reader = Reader::open(&bus, "bench").expect("a consumer");
    producer.look();
    let lane = reader.lanes().next().expect("the lane");

    let [mut publish, mut batch, mut ready, mut ready_batch, mut copy, mut view, mut header] =
        [const { Vec::new() }; 7];
    let mut touched = Touch(0);
    let note = trade("t-00000001");
    let encoded = Encoded::new(&note).expect("a trade");
    let mut room = vec![0; 1024];
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..RECORDS {
            black_box(producer.publish(black_box(&note))).expect("room");
        }
        publish.push(ns_per_record(start));
        let start = Instant::now();
        for _ in 0..RECORDS {
            let slot = reader.peek(lane, Priority::P1).expect("sound").expect("a record");
            slot.view().expect("sound").payload.visit(&mut touched);
            reader.advance(lane, Priority::P1);
        }
        view.push(ns_per_record(start));
        reader.commit(0);

        let start = Instant::now();
        for _ in 0..RECORDS / 10 {
            let mut records = producer.batch();
            for _ in 0..10 {
                black_box(records.push(black_box(&note))).expect("room");
            }
            records.commit();
        }
        batch.push(ns_per_record(start));
        let start = Instant::now();
        for _ in 0..RECORDS {
            let slot = reader.peek(lane, Priority::P1).expect("sound").expect("a record");
            let len = slot.header().archive_len as usize;
            slot.copy_archive(&mut room[..len]).expect("not overtaken");
            slot.header().view(&room[..len]).expect("sound").payload.visit(&mut touched);
            reader.advance(lane, Priority::P1);
        }
        copy.push(ns_per_record(start));
        reader.commit(0);

        let start = Instant::now();
        for _ in 0..RECORDS {
            black_box(producer.publish(black_box(&encoded))).expect("room");
        }
        ready.push(ns_per_record(start));
        let start = Instant::now();
        for _ in 0..RECORDS {
            let slot = reader.peek(lane, Priority::P1).expect("sound").expect("a record");
            black_box(slot.header());
            reader.advance(lane, Priority::P1);
        }
        header.push(ns_per_record(start));
        reader.commit(0);
        let start = Instant::now();
        for _ in 0..RECORDS / 10 {
            let mut records = producer.batch();
            for _ in 0..10 {
                black_box(records.push(black_box(&encoded))).expect("room");
            }
            records.commit();
        }
        ready_batch.push(ns_per_record(start));
        while reader.round(bellwire::Budget::default(), |_, _| ()) > 0 {}
        reader.commit(0);
    }
    median("publish one trade: id, clock, encode, commit", publish);
    median("publish one trade in a batch of ten", batch);
    median("publish it encoded ahead of time", ready);
    median("publish it encoded ahead, in a batch of ten", ready_batch);
    median("read its header in place", header);
    median("read in place: validate, every field", view);
    median("read by copying: validate, every field", copy);
    black_box(touched.0);
    drop((producer, reader));
    bellwire::inspect::remove_unheld(&bus).expect("a bus");
}
