//! Everything that can be done with a lane and a consumer's cursors, for tests that have changed their bytes before.

use bellwire::{Priority, Reader, Tap, TapPoll, TapStart, inspect};

use super::{note, small};

/// More steps than a ring of 4096 bytes can have records: whoever needs more goes round in circles.
const STEPS_MAX: usize = 4096;

/// Opens and reads a bus in every way there is, adopts its lane and publishes; counts sound records, faults, refusals and
/// adoptions. Never panics, never goes round in circles.
pub fn read_everything(bus: &str, outcomes: &mut [u64; 4]) {
    if let Ok(mut tap) = Tap::open(bus, "engine", TapStart::Oldest) {
        for priority in Priority::ALL {
            let mut steps = 0;
            loop {
                steps += 1;
                assert!(steps < STEPS_MAX, "a tap goes round in circles");
                match tap.poll(priority) {
                    Ok(TapPoll::Record(record)) => {
                        outcomes[0] += u64::from(record.view().is_ok());
                    }
                    Ok(TapPoll::Lost { .. }) => {}
                    Ok(TapPoll::Empty) => break,
                    Err(_) => {
                        outcomes[1] += 1;
                        break;
                    }
                }
            }
        }
        let _ = Tap::open(bus, "engine", TapStart::Now);
    } else {
        outcomes[2] += 1;
    }
    let _ = inspect::LaneStatus::read(bus, "engine", None);
    let _ = inspect::CursorsStatus::read(bus, "storage", None);
    if let Ok(mut reader) = Reader::open(bus, "storage") {
        for lane in reader.lanes() {
            for priority in Priority::ALL {
                let mut scout = bellwire::Scout::default();
                let _ = reader.scan(lane, priority, &mut scout, |_| std::ops::ControlFlow::Continue(()));
                let mut steps = 0;
                loop {
                    steps += 1;
                    assert!(steps < STEPS_MAX, "a reader goes round in circles");
                    match reader.peek(lane, priority) {
                        Ok(Some(slot)) => {
                            let mut copy = vec![0; slot.header().archive_len as usize];
                            let copied = slot.copy_archive(&mut copy);
                            let sound = copied.is_ok() && slot.header().view(&copy).is_ok();
                            assert_eq!(sound, slot.view().is_ok(), "in place and copied are judged alike");
                        }
                        Ok(None) => break,
                        Err(fault) => {
                            reader.quarantine(lane, fault);
                            break;
                        }
                    }
                    reader.advance(lane, priority);
                }
            }
        }
        reader.commit(1);
    } else {
        outcomes[2] += 1;
    }
    match small().open(bus, "engine") {
        Ok(mut producer) => {
            for index in 0..100 {
                let note = note("user", "title", "content").with_priority(Priority::ALL[index % 4]);
                let _ = producer.publish(&note);
            }
            outcomes[3] += 1;
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A lane with 100 records in all rings and cursors in the middle of them, and their bytes.
pub fn prepared(bus: &str) -> [(String, Vec<u8>); 2] {
    {
        let mut producer = small().open(bus, "engine").unwrap();
        let mut reader = Reader::open(bus, "storage").unwrap();
        for index in 0..100 {
            let note = note("user", "title", "content").with_priority(Priority::ALL[index % 4]);
            producer.publish(&note).unwrap();
            if index % 3 == 0 {
                reader.round(bellwire::Budget::default(), |_, _| ());
                reader.commit(0);
            }
        }
    }
    ["lane.engine", "cursors.storage"].map(|name| {
        let path = format!("/dev/shm/bellwire.{bus}.{name}");
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    })
}
