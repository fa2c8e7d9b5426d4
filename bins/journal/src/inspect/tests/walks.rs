//! A walk gives every record once and in order, whatever a gateway does to the files meanwhile, and names what it cannot read.

use std::os::unix::fs::symlink;

use super::*;
use crate::layout::USED_AT;

/// The times of the records up to the end, and whether anything but records came between.
fn rest(walk: &mut Walk) -> (Vec<i64>, bool) {
    let mut times = Vec::new();
    loop {
        match walk.step().unwrap() {
            Step::Entry(found) => {
                assert_eq!(found.entry.offset, found.base + found.at);
                times.push(found.entry.journalled_at);
            }
            Step::End => return (times, true),
            _ => return (times, false),
        }
    }
}

fn times(range: std::ops::Range<u64>) -> Vec<i64> {
    range.map(|number| 1_000 + number as i64).collect()
}

/// How many records each segment has.
fn counts(dir: &Path) -> Vec<u64> {
    let count = Listing::read(dir).unwrap().segments.len();
    (0..count).map(|segment| entries(dir, segment).len() as u64).collect()
}

/// A journal of five records, a walk that has read them and knew no more, and then three thousand others.
fn walk_that_is_behind(config: JournalConfig) -> (Writer, Walk) {
    let path = config.dir.clone();
    let mut writer = Writer::new(config);
    writer.write(5);
    let mut walk = Walk::new(Listing::read(&path).unwrap());
    assert_eq!(rest(&mut walk), (times(0..5), true));
    assert_eq!(rest(&mut walk), (vec![], true));
    writer.write(3_000);
    assert!(counts(&path).len() >= 4);
    (writer, walk)
}

#[test]
fn a_walk_since_a_time_begins_with_the_segment_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 2_000);
    let segments = Listing::read(&path).unwrap().segments;
    assert!(segments.len() >= 3);
    for (index, segment) in segments.iter().enumerate() {
        let begins = |at| Walk::since(Listing::read(&path).unwrap(), at).segment().unwrap().base;
        assert_eq!(begins(segment.created_at), segment.base);
        assert_eq!(begins(segment.created_at - 1), segments[index.saturating_sub(1)].base);
    }
}

#[test]
fn a_walk_that_was_at_the_end_goes_on_through_all_that_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let (_writer, mut walk) = walk_that_is_behind(chained(dir.path()));
    assert_eq!(rest(&mut walk), (times(5..3_005), true));
}

#[test]
fn segments_that_leave_while_a_walk_is_under_way_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let config = chained(dir.path());
    let path = config.dir.clone();
    let (_writer, mut behind) = walk_that_is_behind(config);
    let (counts, segments) = (counts(&path), Listing::read(&path).unwrap().segments);
    let mut ahead = Walk::new(Listing::read(&path).unwrap());
    for number in 0..counts[0] {
        let Step::Entry(found) = ahead.step().unwrap() else { panic!("record {number}") };
        assert_eq!(found.index, number);
    }
    // It has the first one open and reads its rest, also if it is gone.
    let in_first: Vec<i64> = times(5..counts[0]);
    for segment in &segments[..2] {
        std::fs::remove_file(&segment.path).unwrap();
    }
    assert_eq!(rest(&mut ahead), (times(counts[0] + counts[1]..3_005), true));
    let mut left = in_first;
    left.extend(times(counts[0] + counts[1]..3_005));
    assert_eq!(rest(&mut behind), (left, true));
}

#[test]
fn what_is_no_file_any_more_is_an_error_and_not_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 2_000);
    let listing = Listing::read(&path).unwrap();
    let (first, second) = (entries(&path, 0).len(), listing.segments[1].path.clone());
    std::fs::remove_file(&second).unwrap();
    symlink(&second, &second).unwrap();
    let mut walk = Walk::new(listing);
    for _ in 0..first {
        assert!(matches!(walk.step(), Ok(Step::Entry(_))));
    }
    assert!(matches!(walk.step(), Err(JournalError::Io { .. })));
    assert!(matches!(Listing::read(&path), Err(JournalError::Io { .. })));
    // One that can be opened, and not read.
    std::fs::remove_file(&second).unwrap();
    std::fs::create_dir(&second).unwrap();
    assert!(matches!(walk.step(), Err(JournalError::Io { .. })));
}

/// As a gateway leaves it that was killed between beginning the next segment and ending the one before.
#[test]
fn a_segment_that_was_not_ended_and_has_a_successor_is_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 2_000);
    Forger::new(&path, 0).file.write_all_at(&[0; 8], USED_AT as u64).unwrap();
    assert_eq!(Listing::read(&path).unwrap().segments[0].used, None);
    assert_eq!(rest(&mut Walk::new(Listing::read(&path).unwrap())), (times(0..2_000), true));
    assert_eq!(look(&path).finding, None);
}

/// A name without a file, which is what a listing meets while retention deletes.
#[test]
fn a_listing_leaves_out_what_goes_while_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 300);
    let count = Listing::read(&path).unwrap().segments.len();
    symlink(path.join("nothing"), path.join("0000000000000001.journal")).unwrap();
    assert_eq!(Listing::read(&path).unwrap().segments.len(), count);
}

#[test]
fn a_full_segment_that_ends_too_early_or_too_late_is_damaged_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = journal(chained(dir.path()), 2_000);
    let base = Listing::read(&path).unwrap().segments[0].base;
    let (places, forger) = (entries(&path, 0), Forger::new(&path, 0));
    let (at, len) = *places.last().unwrap();
    let used = at + len as u64;
    let damage = |records: usize| {
        let mut walk = Walk::new(Listing::read(&path).unwrap());
        for _ in 0..records {
            assert!(matches!(walk.step(), Ok(Step::Entry(_))));
        }
        match walk.step().unwrap() {
            Step::Bad { at, offset, why, .. } => (at, offset, why),
            other => panic!("{other:?}"),
        }
    };
    let set_used = |used: u64| forger.file.write_all_at(&used.to_le_bytes(), USED_AT as u64).unwrap();

    set_used(used - 16);
    let (found, offset, why) = damage(places.len() - 1);
    assert_eq!((found, offset), (at, base + at));
    assert!(why.contains(&format!("beyond their end at byte {}", used - 16)), "{why}");
    set_used(used);
    let last = forger.read((at, len));
    forger.file.write_all_at(&vec![0; len], at).unwrap();
    let (found, offset, why) = damage(places.len() - 1);
    assert_eq!((found, offset), (at, base + at));
    assert!(why.contains(&format!("no entry, and the entries end at byte {used}")), "{why}");
    // The control.
    forger.file.write_all_at(&last, at).unwrap();
    assert_eq!(rest(&mut Walk::new(Listing::read(&path).unwrap())), (times(0..2_000), true));
}
