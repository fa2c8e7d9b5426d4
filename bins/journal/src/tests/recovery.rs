//! What a start makes of what it finds: after a kill, a loss of power, a truncation, and of files that are not the journal's.

use super::*;

/// A new journal with so many entries, and them.
fn written(config: &JournalConfig, count: usize) -> (Journal, Vec<Kept>) {
    let mut journal = open(config.clone()).unwrap();
    let all = Writer::new().fill(&mut journal, count);
    (journal, all)
}

#[test]
fn a_segment_that_was_begun_for_nothing_does_not_move_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path())).unwrap();
    let mut reader = journal.reader();
    let mut writer = Writer::new();
    let first = writer.append(&mut journal, 1, 10);
    let end = journal.publish().unwrap();
    // A reader comes to the end while the segment is still open.
    assert_eq!(reader.entry(first.offset).unwrap().next, end);
    let mut at = end;
    let before = journal.shared.segments().len();
    for (lap, segments) in (before..before + 3).enumerate() {
        // Records that find their room, and then turn out to be duplicates, or not to be records at all.
        while journal.shared.segments().len() == segments {
            journal.room(60_000, 1).unwrap();
            if journal.shared.segments().len() == segments {
                writer.append(&mut journal, 1, 60_000);
                journal.publish().unwrap();
                at = reader.entry(at).unwrap().next;
            }
        }
        assert_eq!(journal.publish().unwrap(), at, "lap {lap}");
        assert!(reader.entry(at).is_none() && reader.end() <= at);
        let next = writer.append(&mut journal, 1, 10);
        journal.publish().unwrap();
        let entry = reader.entry(at).unwrap();
        assert_eq!(kept(&entry), next);
        at = entry.next;
        assert_eq!(at, reader.end());
    }
}

#[test]
fn an_entry_that_was_not_published_when_the_process_died_is_there_after_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut writer = Writer::new();
    let mut journal = open(config.clone()).unwrap();
    let mut all = writer.fill(&mut journal, 3);
    all.push(writer.append(&mut journal, 1, 10));
    drop(journal);
    assert_eq!(reopen(&config).unwrap().1, all);
}

#[test]
fn a_crash_between_two_segments_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (journal, all) = written(&config, 1500);
    drop(journal);
    let files = segment_files(&config);
    assert!(files.len() > 2);
    // The next segment had its name before the one before it was sealed.
    let before_last = OpenOptions::new().write(true).open(&files[files.len() - 2]).unwrap();
    before_last.write_all_at(&[0; 8], layout::USED_AT as u64).unwrap();
    let (journal, found, recovered) = reopen(&config).unwrap();
    assert_eq!((found.len(), recovered.cut), (all.len(), None));
    assert_eq!(found, all);
    drop(journal);
    // The last one was sealed and the next did not exist yet.
    let (mut journal, _, _) = reopen(&config).unwrap();
    let used = journal.end() % SEGMENT_BYTES_MIN;
    journal.publish().unwrap();
    drop(journal);
    let last = OpenOptions::new().write(true).open(files.last().unwrap()).unwrap();
    last.write_all_at(&used.to_le_bytes(), layout::USED_AT as u64).unwrap();
    let (journal, found, _) = reopen(&config).unwrap();
    assert_eq!(found, all);
    assert_eq!(segment_files(&config).len(), files.len() + 1);
    assert_eq!(read_all(&mut journal.reader()), all);
}

#[test]
fn what_the_caller_finds_wrong_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (journal, _) = written(&config, 900);
    drop(journal);
    let mut count = 0;
    let result = Journal::open(config, 1, &mut |_, _| {
        count += 1;
        if count == 20 { Err("a gap".to_owned()) } else { Ok(()) }
    });
    assert!(matches!(result.err(), Some(JournalError::Damaged { what, .. }) if what == "a gap"));
}

#[test]
fn a_last_segment_truncated_anywhere_gives_the_whole_entries_before() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let mut journal = open(config.clone()).unwrap();
    let mut writer = Writer::new();
    let all = writer.fill(&mut journal, 4);
    let used = journal.end() % SEGMENT_BYTES_MIN;
    drop(journal);
    let path = segment_files(&config).remove(0);
    let whole = std::fs::read(&path).unwrap();
    // Every length within the last two entries, and the lengths around them.
    let from = all[2].offset % SEGMENT_BYTES_MIN;
    for len in from - 1..=used + 1 {
        // What a truncated journal goes on in is a new segment.
        for later in segment_files(&config).into_iter().skip(1) {
            std::fs::remove_file(later).unwrap();
        }
        std::fs::write(&path, &whole[..len as usize]).unwrap();
        let (mut journal, found, recovered) = reopen(&config).unwrap();
        let expected = all.iter().filter(|kept| {
            let place = kept.offset % SEGMENT_BYTES_MIN + ENTRY_HEADER_LEN as u64 + 48;
            // Zeros stand for what was truncated, and an entry may end in zeros of its own.
            place + kept.record.archive.len() as u64 <= len
        });
        let whole_entries = expected.count();
        assert!(found.len() >= whole_entries && found[..] == all[..found.len()], "length {len}");
        assert_eq!(
            recovered.cut.is_some(),
            all.get(found.len()).is_some_and(|missing| missing.offset % SEGMENT_BYTES_MIN < len),
            "length {len}"
        );
        // And the journal goes on there.
        let mut again = Writer::new();
        again.count = 100;
        let next = again.fill(&mut journal, 1);
        drop(journal);
        let (_, after, recovered) = reopen(&config).unwrap();
        assert_eq!(after.len(), found.len() + 1);
        assert_eq!((after.last(), recovered.cut), (next.last(), None), "length {len}");
    }
}

/// Makes the journal look as if it had been written before the machine's last start.
fn pretend_a_restart_of_the_machine(config: &JournalConfig) {
    for path in segment_files(config) {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut header = [0; 72];
        file.read_exact_at(&mut header, 0).unwrap();
        header[56] = header[56].wrapping_add(1); // the boot id
        file.write_all_at(&header, 0).unwrap();
        file.write_all_at(&crc32c::crc32c(&header[8..]).to_le_bytes(), 72).unwrap();
    }
}

/// Opens the journal; whether each entry's stream goes on, and the rest.
fn reopen_streams(config: &JournalConfig) -> (Journal, Vec<bool>, Recovered) {
    let mut all = Vec::new();
    let opened = Journal::open(config.clone(), 1, &mut |_, stream_goes_on| {
        all.push(stream_goes_on);
        Ok(())
    });
    let (journal, recovered) = opened.unwrap();
    (journal, all, recovered)
}

#[test]
fn after_a_loss_of_power_the_streams_are_over_once_and_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (journal, _) = written(&config, 20);
    let first = journal.generation();
    drop(journal); // killed: nothing says that it was synced
    pretend_a_restart_of_the_machine(&config);

    let (mut journal, _, recovered) = reopen_streams(&config);
    assert!(recovered.streams_are_over && recovered.entries == 20);
    assert_eq!(journal.generation(), first + 1);
    Writer::new().fill(&mut journal, 5);
    drop(journal);
    // The next start of the process knows which entries belong to the past, and changes nothing more.
    let (journal, goes_on, recovered) = reopen_streams(&config);
    assert!(!recovered.streams_are_over);
    assert_eq!(goes_on, [[false; 20].as_slice(), &[true; 5]].concat());
    assert_eq!(journal.generation(), first + 1);
}

#[test]
fn after_an_orderly_end_or_with_every_record_synced_a_restart_of_the_machine_changes_nothing() {
    for sync in [SyncPolicy::None, SyncPolicy::Every] {
        let dir = tempfile::tempdir().unwrap();
        let config = JournalConfig { sync, ..config(dir.path()) };
        let (mut journal, _) = written(&config, 20);
        let first = journal.generation();
        if sync == SyncPolicy::None {
            journal.close().unwrap();
        }
        drop(journal);
        pretend_a_restart_of_the_machine(&config);
        let (journal, goes_on, recovered) = reopen_streams(&config);
        assert!(!recovered.streams_are_over);
        assert_eq!((goes_on, journal.generation()), (vec![true; 20], first));
        // Killed in the same start of the machine: nothing is lost by that.
        drop(journal);
        let (journal, _, recovered) = reopen_streams(&config);
        assert!(!recovered.streams_are_over);
        if sync == SyncPolicy::None {
            // Opened again it is not closed any more: a second restart is one too many.
            drop(journal);
            pretend_a_restart_of_the_machine(&config);
            assert!(reopen_streams(&config).2.streams_are_over);
        }
    }
}

#[test]
fn foreign_and_contradictory_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (journal, _) = written(&config, 2000);
    drop(journal);
    let files = segment_files(&config);
    assert!(files.len() > 2);
    let whole: Vec<_> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    let attempt = |change: &dyn Fn()| {
        change();
        let error = open(config.clone()).err().expect("an error");
        for path in segment_files(&config) {
            std::fs::remove_file(path).unwrap();
        }
        for (path, bytes) in files.iter().zip(&whole) {
            std::fs::write(path, bytes).unwrap();
        }
        (error.to_string(), error)
    };

    let (text, error) = attempt(&|| std::fs::write(&files[1], b"hello").unwrap());
    assert!(matches!(error, JournalError::Mismatch { what: "file length", found: 5, .. }), "{text}");
    let (text, error) = attempt(&|| std::fs::write(&files[1], vec![7; 131072]).unwrap());
    assert!(matches!(error, JournalError::Header { source: HeaderError::Magic { .. }, .. }), "{text}");
    assert!(text.contains(files[1].to_str().unwrap()), "{text}");
    let (text, error) = attempt(&|| std::fs::remove_file(&files[1]).unwrap());
    assert!(
        matches!(error, JournalError::Mismatch { what: "base (is a segment missing before it?)", .. }),
        "{text}"
    );
    let (text, error) = attempt(&|| std::fs::rename(&files[0], config.dir.join("1.journal")).unwrap());
    assert!(matches!(error, JournalError::Mismatch { .. }), "{text}");
    let shorten = || File::options().write(true).open(&files[0]).unwrap().set_len(100_000).unwrap();
    let (text, error) = attempt(&shorten);
    assert!(matches!(error, JournalError::Mismatch { what: "file length", found: 100_000, .. }), "{text}");
    // The length of an entry in a closed segment.
    let (text, error) = attempt(&|| flip(&files[0], SEGMENT_HEADER_LEN as u64));
    assert!(matches!(error, JournalError::Damaged { at: 128, .. }), "{text}");
    reopen(&config).unwrap();
}

#[test]
fn a_second_owner_is_refused_while_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(config(dir.path())).unwrap();
    assert!(
        matches!(open(config(dir.path())), Err(JournalError::Owned { pid, .. }) if pid == std::process::id())
    );
    drop(journal);
    open(config(dir.path())).unwrap();
}

#[test]
fn a_journal_that_was_closed_and_opened_again_is_not_closed_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (mut journal, _) = written(&config, 20);
    journal.close().unwrap();
    drop(journal);
    // In the same start of the machine it goes on in the same segment.
    let mut journal = open(config.clone()).unwrap();
    assert_eq!(segment_files(&config).len(), 1);
    Writer::new().fill(&mut journal, 5);
    drop(journal);
    pretend_a_restart_of_the_machine(&config);
    assert!(reopen_streams(&config).2.streams_are_over);
}

#[test]
fn what_a_loss_of_power_damaged_is_cut_off_with_all_that_follows() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (journal, all) = written(&config, 2000);
    let first = journal.generation();
    drop(journal);
    pretend_a_restart_of_the_machine(&config);
    let files = segment_files(&config);
    assert!(files.len() > 3);
    let at = all[5].offset % SEGMENT_BYTES_MIN;
    flip(&files[0], at + 40);

    let (journal, goes_on, recovered) = reopen_streams(&config);
    assert_eq!((goes_on.len(), recovered.entries), (5, 5), "the entries before the damage");
    assert!(recovered.streams_are_over && !recovered.was_truncated);
    let cut = recovered.cut.expect("a cut");
    assert_eq!((&cut.path, cut.at, cut.later_segments), (&files[0], at, files.len() - 1));
    assert_eq!(journal.generation(), first + 1);
    assert_eq!(
        segment_files(&config)[..],
        [&files[0], &files[1]].map(PathBuf::clone),
        "it goes on behind the cut one"
    );
    assert_eq!(read_all(&mut journal.reader()), all[..5]);
    drop(journal);
    // The next start knows that they belong to the past, and changes nothing more.
    let (_, goes_on, recovered) = reopen_streams(&config);
    assert_eq!((goes_on, recovered.streams_are_over, recovered.cut), (vec![false; 5], false, None));
}

#[test]
fn a_damaged_last_entry_is_torn_only_where_entries_could_still_be_appended() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let (journal, all) = written(&config, 1000);
    let end = journal.end() % SEGMENT_BYTES_MIN;
    drop(journal);
    let files = segment_files(&config);
    let (before_last, last) = (files.len() - 2, files.len() - 1);
    let last_entry_of = |index: usize| {
        let base = segment_base(&config, index);
        let inside = base..base + SEGMENT_BYTES_MIN;
        all.iter().rfind(|kept| inside.contains(&kept.offset)).unwrap().offset - base
    };
    let says_used = |index: usize, used: u64| {
        let file = OpenOptions::new().write(true).open(&files[index]).unwrap();
        file.write_all_at(&used.to_le_bytes(), layout::USED_AT as u64).unwrap();
    };
    let used_before_last = layout::u64_at(
        std::fs::read(&files[before_last]).unwrap().first_chunk::<SEGMENT_HEADER_LEN>().unwrap(),
        layout::USED_AT,
    );

    // The header of the one before the last does not say that it is closed: it is, there is another one.
    let at = last_entry_of(before_last);
    says_used(before_last, 0);
    flip(&files[before_last], at + 40);
    let error = open(config.clone()).err().expect("an error");
    assert!(matches!(error, JournalError::Damaged { at: found, .. } if found == at), "{error}");
    flip(&files[before_last], at + 40);
    says_used(before_last, used_before_last);

    // The last one is closed: all that it has was whole once.
    let at = last_entry_of(last);
    says_used(last, end);
    flip(&files[last], at + 40);
    let error = open(config.clone()).err().expect("an error");
    assert!(matches!(error, JournalError::Damaged { at: found, .. } if found == at), "{error}");

    // It is not: a process was killed while it wrote that entry.
    says_used(last, 0);
    let (_, found, recovered) = reopen(&config).unwrap();
    assert_eq!(found, all[..all.len() - 1]);
    assert!(!recovered.was_truncated && !recovered.streams_are_over);
    let cut = recovered.cut.expect("a cut");
    assert_eq!((&cut.path, cut.at, cut.later_segments), (&files[last], at, 0));
}

#[test]
fn a_truncated_segment_that_still_shows_its_end_has_lost_nothing() {
    for (behind_end, lost) in [(7, true), (8, false), (9, false), (1000, false)] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let (journal, _) = written(&config, 20);
        let end = journal.end() % SEGMENT_BYTES_MIN;
        drop(journal);
        let file = OpenOptions::new().write(true).open(&segment_files(&config)[0]).unwrap();
        file.set_len(end + behind_end).unwrap();
        let (_, found, recovered) = reopen(&config).unwrap();
        assert_eq!((found.len(), recovered.cut), (20, None));
        assert_eq!((recovered.was_truncated, recovered.streams_are_over), (lost, lost), "{behind_end} bytes");
    }
}

#[test]
fn a_segment_belongs_to_this_start_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    drop(open(config.clone()).unwrap());
    let bytes = std::fs::read(&segment_files(&config)[0]).unwrap();
    let header = layout::SegmentHeader::from_bytes(bytes.first_chunk().unwrap()).unwrap();
    let shown = header.boot_id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let expected = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(shown, expected.trim().replace('-', ""));
}

#[test]
fn a_segment_beyond_the_offsets_that_there_can_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    drop(open(config.clone()).unwrap());
    let path = segment_files(&config).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    let base = (u64::MAX >> 1) + 1;
    let header = layout::SegmentHeader::from_bytes(bytes.first_chunk().unwrap()).unwrap();
    let forged = layout::SegmentHeader { base, ..header }.to_bytes();
    bytes[8..layout::USED_AT].copy_from_slice(&forged[8..layout::USED_AT]);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(path.with_file_name(format!("{base:016x}.journal")), bytes).unwrap();
    let error = open(config).err().expect("an error");
    assert!(matches!(error, JournalError::Mismatch { what: "base", found, .. } if found == base), "{error}");
}

#[test]
fn what_a_killed_process_had_allocated_ahead_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    drop(open(config.clone()).unwrap());
    let ahead = config.dir.join("left.prep");
    std::fs::write(&ahead, [0; 100]).unwrap();
    let _journal = open(config).unwrap();
    assert!(!ahead.exists());
}

#[test]
fn the_owner_is_told_also_if_another_process_stood_there_a_moment_ago() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let _journal = open(config.clone()).unwrap();
    let lock = config.dir.join("lock");
    // No process has that number: it is beyond what the kernel gives.
    std::fs::write(&lock, "1000000000\n").unwrap();
    let writes = std::thread::spawn({
        let lock = lock.clone();
        move || {
            std::thread::sleep(Duration::from_millis(100));
            std::fs::write(lock, format!("{:>10}\n", std::process::id())).unwrap();
        }
    });
    let error = open(config.clone()).err().expect("an error");
    assert!(matches!(error, JournalError::Owned { pid, .. } if pid == std::process::id()), "{error}");
    writes.join().unwrap();
    // Who never says its number keeps nobody waiting for ever.
    std::fs::write(&lock, "1000000000\n").unwrap();
    let error = open(config).err().expect("an error");
    assert!(matches!(error, JournalError::Owned { pid: 1_000_000_000, .. }), "{error}");
}

#[test]
fn a_segment_gives_what_is_readable_and_of_its_own_offsets() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(config(dir.path())).unwrap();
    Writer::new().fill(&mut journal, 3);
    let segment = &journal.shared.segments()[0];
    let (readable, is_final) = segment.extent();
    assert!(!is_final);
    let entries = readable - SEGMENT_HEADER_LEN;
    assert_eq!(segment.bytes(SEGMENT_HEADER_LEN, entries).unwrap().len(), entries);
    assert_eq!(segment.bytes(readable, 0), Some([].as_slice()));
    for (at, len) in [
        (SEGMENT_HEADER_LEN, entries + 1),
        (0, readable),
        (SEGMENT_HEADER_LEN - 1, 8),
        (readable, 1),
        (usize::MAX, 2),
    ] {
        assert_eq!(segment.bytes(at, len), None, "{len} bytes at {at}");
    }
    assert!(segment.contains(segment.base()) && segment.contains(segment.end() - 1));
    assert!(!segment.contains(segment.base() - 1) && !segment.contains(segment.end()));
}
