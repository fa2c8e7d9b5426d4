//! Lanes and cursors with bytes changed at random: whoever opens or reads them gets records, errors or nothing, but
//! never panics, never runs away, and never looks outside.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use common::Bus;
use common::everything::{prepared, read_everything};
use proptest::prelude::*;

/// Every single bit of the lane's header that is not always zero or has a neighbour that is not, of the first records and
/// of the cursors in use; with BELLWIRE_HOSTILE_FULL of the whole header, of all records, and of the whole cursors.
#[test]
fn any_bit_of_a_segment_may_be_flipped() {
    let is_full = std::env::var_os("BELLWIRE_HOSTILE_FULL").is_some();
    let bus = Bus::new();
    let files = prepared(&bus);
    let restore = || files.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    let (mut outcomes, mut flips) = ([0; 4], 0_u64);
    for (number, (path, bytes)) in files.iter().enumerate() {
        let in_use = |at: usize| bytes[at & !7..(at & !7) + 8].iter().any(|byte| *byte != 0);
        let wanted = |at: &usize| match number {
            _ if is_full => true,
            0 => *at < 1024 || (8192..8192 + 320).contains(at),
            _ => *at < 640,
        };
        for at in (0..bytes.len()).filter(wanted).filter(|at| is_full && *at < 8192 || in_use(*at)) {
            for bit in 0..8 {
                restore();
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(&[bytes[at] ^ 1 << bit], at as u64).unwrap();
                read_everything(&bus, &mut outcomes);
                flips += 1;
            }
        }
    }
    restore();
    read_everything(&bus, &mut outcomes);
    let [sound, faults, refused, adopted] = outcomes;
    println!(
        "segments with a bit flipped: {flips} flips; {sound} sound records, {faults} faults, {refused} refused, {adopted} adopted"
    );
    assert!(flips > 3000 && faults > 200 && refused > 500 && adopted > 500, "{flips} {outcomes:?}");
}

#[test]
fn scribbled_segments_never_make_anybody_panic() {
    let bus = Bus::new();
    let [(lane, lane_bytes), (cursors, cursors_bytes)] = prepared(&bus);
    let whole = (lane_bytes, cursors_bytes);
    let restore = || {
        std::fs::write(&lane, &whole.0).unwrap();
        std::fs::write(&cursors, &whole.1).unwrap();
    };
    // Words that do harm: limits, neighbours of what is there, and anything.
    let word = prop_oneof![
        2 => any::<u64>(),
        1 => Just(u64::MAX),
        1 => (0..64u64).prop_map(|back| u64::MAX - back),
        2 => 0..20_000u64,
        2 => (0..2_000u64).prop_map(|sixteenths| sixteenths * 16),
        1 => (0..64u32).prop_map(|bit| 1 << bit),
    ];
    // Where it hurts: identity, commit and reservation lines, landmarks and acks, record headers, cursors; and anywhere.
    let ring =
        |from: u64, len: u64| (0..4u64, 0..len).prop_map(move |(ring, at)| 384 + ring * 1280 + from + at);
    let at = prop_oneof![
        1 => 0..128u64,
        4 => ring(0, 16),
        4 => ring(128, 16),
        2 => ring(256, 1024),
        1 => 5504..7552u64,
        4 => (0..4u64, 0..20u64, 0..48u64).prop_map(|(ring, record, at)| 8192 + ring * 4096 + record * 160 + at),
        2 => 512..1024u64,
        1 => 0..24_576u64,
    ];
    let change = (prop::bool::weighted(0.2), at, word, 1..9usize);
    let mut outcomes = [0; 4];
    let cell = std::cell::RefCell::new(&mut outcomes);
    let config = ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let result = runner.run(&prop::collection::vec(change, 1..4), |changes| {
        restore();
        for (in_cursors, at, word, len) in changes {
            let path = if in_cursors { &cursors } else { &lane };
            let at = at.min(std::fs::metadata(path).unwrap().len() - 8);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .write_all_at(&word.to_le_bytes()[..len.min(8)], at)
                .unwrap();
        }
        read_everything(&bus, &mut cell.borrow_mut());
        Ok(())
    });
    restore();
    read_everything(&bus, &mut outcomes);
    result.unwrap();
    let [sound, faults, refused, adopted] = outcomes;
    assert!(sound > 100_000 && faults > 2000 && refused > 50 && adopted > 2000, "{outcomes:?}");
}
