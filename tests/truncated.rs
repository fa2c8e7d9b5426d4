//! Segments that are truncated while they are mapped: with the guard an error of that one segment, without it the end of
//! the process.

mod common;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use bellwire::inspect::LaneStatus;
use bellwire::{
    LaneFault, OpenError, Priority, PublishError, Reader, SegmentFault, Tap, TapPoll, TapStart, Wake,
};
use common::{Bus, eventually, note, sized, small, spawn, title};

/// Length of a lane of [`small`] rings: a header of two pages, four rings of one page.
const LANE_LEN: u64 = 6 * 4096;

fn path(bus: &str, kind: &str, name: &str) -> String {
    format!("/dev/shm/bellwire.{bus}.{kind}.{name}")
}

fn truncate(path: &str, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn guarded() {
    bellwire::guard_mappings().unwrap();
}

/// Everything that a reader gives until there is nothing or a fault.
fn read_on(reader: &mut Reader) -> (Vec<String>, Option<LaneFault>) {
    let mut titles = Vec::new();
    reader.round(bellwire::Budget::default(), |_, view| titles.push(title(&view)));
    let lane = reader.lanes().next().expect("a lane");
    (titles, reader.lane(lane).quarantined().copied())
}

#[test]
fn a_lane_truncated_to_any_length_is_quarantined_by_name_and_the_other_goes_on() {
    guarded();
    // Nothing, less than a page, the header's edges, each ring's, the last byte.
    let lengths = [0, 1, 100, 2048, 4095, 4096, 6000, 8191, 8192, 8193, 10_000, 12_288, 20_480, LANE_LEN - 1];
    for len in lengths {
        for has_read_before in [false, true] {
            let bus = Bus::new();
            let mut victim = small().open(&bus, "a-victim").unwrap();
            let mut other = small().open(&bus, "other").unwrap();
            let mut reader = Reader::open(&bus, "storage").unwrap();
            if has_read_before {
                victim.publish(&note("user", "before", "")).unwrap();
                assert_eq!(read_on(&mut reader).0, ["before"]);
            }
            truncate(&path(&bus, "lane", "a-victim"), len);
            // Found out by what is missing, or by a look at the file, also if nobody reads anything.
            let begun = Instant::now();
            let fault = loop {
                let wake = reader.wait(Duration::from_secs(10));
                assert_eq!(wake, Wake::Ready, "length {len}");
                if let (_, Some(fault)) = read_on(&mut reader) {
                    break fault;
                }
                assert!(begun.elapsed() < Duration::from_secs(10), "length {len}: never found out");
            };
            let expected = SegmentFault::Truncated { found: len, expected: LANE_LEN };
            assert_eq!(fault, LaneFault::Segment(expected));
            assert!(fault.to_string().contains(&format!("its file has {len} bytes, 24576 were mapped")));
            other.publish(&note("user", "of the other", "")).unwrap();
            eventually("the other lane is read", || read_on(&mut reader).0 == ["of the other"]);
            // A quarantined lane keeps nobody awake, although its doorbell cannot be slept on any more.
            let begun = Instant::now();
            assert_eq!(reader.wait(Duration::from_millis(50)), Wake::TimedOut);
            assert!(begun.elapsed() >= Duration::from_millis(50));
        }
    }
}

#[test]
fn a_lane_truncated_and_made_as_long_again_is_found_out_too() {
    guarded();
    let bus = Bus::new();
    let mut victim = small().open(&bus, "victim").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    victim.publish(&note("user", "before", "")).unwrap();
    assert_eq!(read_on(&mut reader).0, ["before"]);
    truncate(&path(&bus, "lane", "victim"), 0);
    truncate(&path(&bus, "lane", "victim"), LANE_LEN);
    let (titles, fault) = read_on(&mut reader);
    assert!(titles.is_empty() && matches!(fault, Some(LaneFault::Position { position: 0, .. })), "{fault:?}");
}

#[test]
fn a_record_in_hand_is_not_given_out_when_its_memory_goes() {
    guarded();
    let bus = Bus::new();
    let mut victim = small().open(&bus, "victim").unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let lane = reader.lanes().next().unwrap();
    victim.look();
    for _ in 0..5 {
        victim.publish(&note("user", "title", &"x".repeat(600))).unwrap();
    }
    let fault = loop {
        let slot = reader.peek(lane, Priority::P1).unwrap().expect("a record");
        let mut copy = vec![0; slot.header().archive_len as usize];
        if slot.position() > 2000 {
            truncate(&path(&bus, "lane", "victim"), 8192);
            break slot.copy_archive(&mut copy).unwrap_err();
        }
        slot.copy_archive(&mut copy).unwrap();
        assert!(slot.header().view(&copy).is_ok());
        reader.advance(lane, Priority::P1);
    };
    assert_eq!(fault, LaneFault::Segment(SegmentFault::Truncated { found: 8192, expected: LANE_LEN }));
    assert!(reader.peek(lane, Priority::P0).is_err(), "also the rings that nobody has touched");
}

#[test]
fn taps_and_inspection_say_what_happened() {
    guarded();
    for len in [0, 4096, 8192, 20_000] {
        let bus = Bus::new();
        let mut victim = small().open(&bus, "victim").unwrap();
        victim.publish(&note("user", "title", "").with_priority(Priority::P3)).unwrap();
        let mut tap = Tap::open(&bus, "victim", TapStart::Oldest).unwrap();
        assert!(matches!(tap.poll(Priority::P3), Ok(TapPoll::Record(_))));
        truncate(&path(&bus, "lane", "victim"), len);
        let outcomes = [Priority::P0, Priority::P3].map(|priority| tap.poll(priority).map(|_| ()));
        if len == 0 {
            let expected = LaneFault::Segment(SegmentFault::Truncated { found: 0, expected: LANE_LEN });
            assert_eq!(outcomes, [Err(expected); 2]);
            assert!(tap.wait(Duration::from_secs(10)), "a tap is told at once that there is an error");
        }
        for error in [
            Tap::open(&bus, "victim", TapStart::Now).map(|_| ()).unwrap_err(),
            LaneStatus::read(&bus, "victim", None).map(|_| ()).unwrap_err(),
        ] {
            assert!(matches!(error, OpenError::Corrupt { .. } | OpenError::Identity { .. }), "{error}");
        }
    }
}

#[test]
fn a_producer_whose_own_lane_is_truncated_is_told_so_and_can_begin_anew() {
    guarded();
    for len in [0, 4096, 8192, 12_288, 24_000] {
        let bus = Bus::new();
        let mut reader = Reader::open(&bus, "storage").unwrap();
        let mut producer = small().open(&bus, "engine").unwrap();
        producer.publish(&note("user", "before", "")).unwrap();
        truncate(&path(&bus, "lane", "engine"), len);
        let mut accepted = 0;
        let begun = Instant::now();
        let error = loop {
            match producer.publish(&note("user", "after", "")) {
                // Into the part that is left, at most until the producer's next look at the file.
                Ok(_) | Err(PublishError::Full { .. }) => accepted += 1,
                Err(error) => break error,
            }
            std::thread::sleep(Duration::from_millis(1));
            assert!(begun.elapsed() < Duration::from_secs(10), "{accepted} publishes after the cut at {len}");
        };
        assert_eq!(error, PublishError::Segment(SegmentFault::Truncated { found: len, expected: LANE_LEN }));
        assert!(producer.publish(&note("user", "again", "")).is_err(), "and so it stays");
        let mut batch = producer.batch();
        assert!(batch.push(&note("user", "again", "")).is_err());
        assert_eq!(batch.commit(), 0);
        // As it stands it cannot be adopted, and nothing is done to it unasked.
        drop(producer);
        assert!(matches!(
            small().open(&bus, "engine"),
            Err(OpenError::Corrupt { .. } | OpenError::Identity { .. })
        ));
        std::fs::remove_file(path(&bus, "lane", "engine")).unwrap();
        let mut anew = small().open(&bus, "engine").unwrap();
        anew.publish(&note("user", "anew", "")).unwrap();
        let mut titles = Vec::new();
        eventually("the new lane is read", || {
            reader.wait(Duration::from_millis(10));
            reader.round(bellwire::Budget::default(), |_, view| titles.push(title(&view)));
            titles.last().is_some_and(|title| title == "anew")
        });
    }
}

#[test]
fn a_batch_into_a_lane_that_goes_is_not_reported_as_published() {
    guarded();
    let bus = Bus::new();
    let mut producer = sized(64 << 10).open(&bus, "engine").unwrap();
    let mut batch = producer.batch();
    batch.push(&note("user", "one", "")).unwrap();
    truncate(&path(&bus, "lane", "engine"), 0);
    assert_eq!(batch.commit(), 0);
    assert!(matches!(producer.publish(&note("user", "two", "")), Err(PublishError::Segment(_))));
}

#[test]
fn an_engine_survives_that_a_consumers_cursors_are_truncated() {
    guarded();
    for len in [0, 100, 4096, 20_000] {
        let bus = Bus::new();
        let mut reader = Reader::open(&bus, "storage").unwrap();
        let mut producer = small().grace(Duration::ZERO).open(&bus, "engine").unwrap();
        for _ in 0..100 {
            producer.publish(&note("user", "title", "")).unwrap();
            producer.look();
            reader.round(bellwire::Budget::default(), |_, _| ());
            reader.commit(0);
        }
        truncate(&path(&bus, "cursors", "storage"), len);
        reader.commit(1);
        let error = reader.verify().unwrap_err();
        assert!(error.to_string().contains("truncated while in use"), "{error}");
        // It cannot tell how far the consumer has come, and lets it go once it has been absent for the grace time.
        let mut published = 0;
        eventually("the engine goes on", || {
            published += u32::from(producer.publish(&note("user", "title", "")).is_ok());
            published > 200
        });
        assert!(reader.verify().is_err(), "and so it stays");
        drop(reader);
        std::fs::remove_file(path(&bus, "cursors", "storage")).unwrap();
        assert!(Reader::open(&bus, "storage").unwrap().verify().is_ok());
    }
}

#[test]
fn other_bus_errors_go_where_they_went_before() {
    // One that is sent, and one of a file that nobody has entered: both end the process, guard or not.
    for child in ["child_is_sent_sigbus", "child_maps_a_file_of_its_own"] {
        let status = spawn(child, "none").wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGBUS), "{child}: {status}");
    }
    let status = spawn("child_has_a_handler_of_its_own", "none").wait().unwrap();
    assert_eq!(status.code(), Some(77));
}

#[test]
fn without_the_guard_a_truncated_lane_ends_the_process() {
    let bus = Bus::new();
    let _victim = small().open(&bus, "victim").unwrap();
    for child in ["child_reads_unguarded", "child_reads_guarded"] {
        let mut child_process = spawn(child, &bus);
        let cursors = path(&bus, "cursors", child);
        eventually("the child is attached", || std::fs::metadata(&cursors).is_ok_and(|meta| meta.len() > 0));
        eventually("the child waits", || {
            LaneStatus::read(&bus, "victim", None).is_ok()
                && bellwire::inspect::CursorsStatus::read(&bus, child, None)
                    .is_ok_and(|it| !it.lanes.is_empty())
        });
        truncate(&path(&bus, "lane", "victim"), 0);
        let status = child_process.wait().unwrap();
        match child {
            "child_reads_guarded" => assert_eq!(status.code(), Some(0), "{status}"),
            _ => assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}"),
        }
        std::fs::remove_file(path(&bus, "lane", "victim")).unwrap();
        std::mem::forget(small().open(&bus, "victim").unwrap());
    }
}

fn read_until_fault(name: &str) {
    let Some(bus) = Bus::inherited() else { return };
    let mut reader = Reader::open(&bus, name).unwrap();
    loop {
        reader.wait(Duration::from_millis(100));
        if read_on(&mut reader).1.is_some() {
            return;
        }
    }
}

#[test]
fn child_reads_unguarded() {
    read_until_fault("child_reads_unguarded");
}

#[test]
fn child_reads_guarded() {
    if Bus::inherited().is_some() {
        guarded();
        read_until_fault("child_reads_guarded");
    }
}

#[test]
fn child_is_sent_sigbus() {
    if Bus::inherited().is_some() {
        guarded();
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
        std::thread::sleep(Duration::from_secs(60));
    }
}

#[test]
fn child_maps_a_file_of_its_own() {
    if Bus::inherited().is_some() {
        guarded();
        touch_a_truncated_file();
    }
}

/// A handler that was there before the guard still gets what is not the guard's.
#[test]
fn child_has_a_handler_of_its_own() {
    extern "C" fn ends_with_77(_: libc::c_int) {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(77) }
    }
    if Bus::inherited().is_some() {
        let handler = nix::sys::signal::SigHandler::Handler(ends_with_77);
        // SAFETY: the handler does nothing but end the process.
        unsafe { nix::sys::signal::signal(nix::sys::signal::Signal::SIGBUS, handler) }.unwrap();
        guarded();
        touch_a_truncated_file();
    }
}

fn touch_a_truncated_file() {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_TMPFILE)
        .open(std::env::temp_dir())
        .unwrap();
    file.set_len(4096).unwrap();
    let map = memmap2::MmapRaw::map_raw(&file).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: a valid, aligned address of the mapping; that it is SIGBUS is the point.
    let byte = unsafe { map.as_ptr().read_volatile() };
    panic!("read {byte} from a file of no bytes");
}
