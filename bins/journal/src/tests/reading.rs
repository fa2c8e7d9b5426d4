//! What a reader is given, and what not, between two segments and where the journal begins.

use super::*;

#[test]
fn an_entry_says_where_the_next_one_stands_also_at_the_end_of_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path())).unwrap();
    let mut writer = Writer::new();
    writer.fill_segments(&mut journal, 4);
    let (mut reader, mut at, mut count) = (journal.reader(), journal.start(), 0);
    while let Some(entry) = reader.entry(at) {
        assert_eq!(entry.offset, at);
        (at, count) = (entry.next, count + 1);
    }
    assert_eq!((at, count), (journal.end(), writer.count));
}

#[test]
fn what_left_the_journal_is_not_given_though_its_segment_is_held() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    writer.fill_segments(&mut journal, 3);
    let (mut reader, start) = (journal.reader(), journal.start());
    assert!(reader.entry(start).is_some());
    assert_eq!(reader.segment_of(start), Some(segment_base(&config, 0)));
    journal.retire_oldest();
    assert!(reader.entry(start).is_none() && reader.segment_of(start).is_none());
}
