//! `ls`, `inspect` and `tail` on segments that are truncated or scribbled over, also while they are looked at: words and an
//! exit code, never a signal.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use bellwire::{Priority, Producer, ProducerOptions, ReaderOptions};
use common::*;

fn small(bus: &str, name: &str) -> Producer {
    let options = Priority::ALL.into_iter().fold(ProducerOptions::new(), |o, p| o.capacity(p, 4096));
    options.open(bus, name).unwrap()
}

fn writable(bus: &Bus, kind: &str, name: &str) -> File {
    File::options().write(true).open(bus.path(kind, name)).unwrap()
}

#[test]
fn a_lane_that_is_truncated_under_tail_ends_that_lane_and_not_tail() {
    // Publishes into lanes of which one is cut.
    bellwire::guard_mappings().unwrap();
    let bus = Bus::new();
    let (mut victim, mut other) = (small(&bus.0, "victim"), small(&bus.0, "other"));
    let mut tail = bus.start(&["tail", "--all", "--from", "oldest", "--count", "3"]);
    let mut out = BufReader::new(tail.stdout.take().unwrap()).lines();
    victim.publish(&notice("one")).unwrap();
    assert!(out.next().unwrap().unwrap().contains("title=one"));
    writable(&bus, "lane", "victim").set_len(0).unwrap();
    other.publish(&notice("two")).unwrap();
    assert!(out.next().unwrap().unwrap().contains("title=two"));
    // Made anew, it is watched again.
    drop(victim);
    std::fs::remove_file(bus.path("lane", "victim")).unwrap();
    let mut victim = small(&bus.0, "victim");
    victim.publish(&notice("three")).unwrap();
    assert!(out.next().unwrap().unwrap().contains("title=three"));
    let ran = finish(tail);
    assert!(ran.err.contains("truncated while in use: its file has 0 bytes, 24576 were mapped"), "{ran:#?}");
    assert!(ran.err.contains("lane victim was removed and made anew"), "{ran:#?}");
}

#[test]
fn without_the_guard_it_would_have_been_the_end() {
    // The control: a process that looks and has no guard, which is what a plain copy of the mapping does.
    let bus = Bus::new();
    let _victim = small(&bus.0, "victim");
    let script = "import mmap, os, sys; f = os.open(sys.argv[1], os.O_RDWR); m = mmap.mmap(f, 24576); \
                  os.ftruncate(f, 0); m[0]";
    let Ok(status) = Command::new("python3").args(["-c", script]).arg(bus.path("lane", "victim")).status()
    else {
        eprintln!("no python3: not tried");
        return;
    };
    assert_eq!(status.signal(), Some(nix::libc::SIGBUS));
}

#[test]
fn scribbled_segments_are_words_and_an_exit_code() {
    let bus = Bus::new();
    let mut producer = small(&bus.0, "engine");
    let _reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    for number in 0..40 {
        producer.publish(&notice(&number.to_string())).unwrap();
    }
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut codes = [0; 7];
    let files = [("lane", "engine"), ("cursors", "gateway")];
    let whole = files.map(|(kind, name)| std::fs::read(bus.path(kind, name)).unwrap());
    for round in 0..60 {
        for ((kind, name), bytes) in files.iter().zip(&whole) {
            let file = writable(&bus, kind, name);
            file.write_all_at(bytes, 0).unwrap();
            for _ in 0..4 {
                // The header, where the numbers are; every other time anything.
                let span = if round % 2 == 0 { 1024 } else { bytes.len() as u64 - 8 };
                file.write_all_at(&random().to_le_bytes(), (random() % span) & !7).unwrap();
            }
        }
        for verb in [
            &["ls"][..],
            &["ls", "--json"],
            &["inspect"],
            &["inspect", "--json"],
            &["tail", "--all", "--from", "oldest", "--seconds", "0"],
        ] {
            let ran = bus.ctl(verb);
            let code =
                ran.code.unwrap_or_else(|| panic!("round {round}, {verb:?}: ended by a signal: {ran:#?}"));
            assert!(!ran.err.contains("panicked"), "{ran:#?}");
            codes[code as usize] += 1;
        }
    }
    println!("ctl: 300 looks at scribbled segments, exit codes {codes:?}");
    assert!(codes[0] > 0 && codes[6] > 0, "{codes:?}");
}
