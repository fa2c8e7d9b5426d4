//! What is not ours, not whole or not of this build is refused with an error that says what was found.

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use bellwire::inspect::{LaneStatus, Place};
use bellwire::{IdentityError, OpenError, Priority, ProducerOptions, Reader, Tap, TapStart};
use common::{Bus, note, small};

fn lane_path(bus: &str) -> PathBuf {
    format!("/dev/shm/bellwire.{bus}.lane.engine").into()
}

/// Opens a lane in the three ways there are.
fn open_in_every_way(bus: &str) -> [OpenError; 3] {
    let mut reader = Reader::open(bus, "storage").unwrap();
    // Opening has tried already; a change of the directory makes it try again.
    File::create(format!("/dev/shm/bellwire.{bus}.lane.x")).unwrap();
    let mut refused = reader.refresh().refused;
    fs::remove_file(format!("/dev/shm/bellwire.{bus}.lane.x")).unwrap();
    refused.retain(|(name, _)| name == "engine");
    [
        refused.pop().expect("the reader refuses the lane").1,
        Tap::open(bus, "engine", TapStart::Oldest).expect_err("a tap refuses it"),
        small().open(bus, "engine").expect_err("a producer refuses to adopt it"),
    ]
}

fn prepared() -> Bus {
    let bus = Bus::new();
    let mut producer = small().open(&bus, "engine").unwrap();
    for _ in 0..10 {
        producer.publish(&note("user", "title", "content")).unwrap();
    }
    bus
}

#[test]
fn a_truncated_lane_is_an_error_at_every_length() {
    let bus = prepared();
    let path = lane_path(&bus);
    let whole = fs::read(&path).unwrap();
    // From the longest, so that a system call does it. Each length with BELLWIRE_HOSTILE_FULL, else a twentieth of them.
    let step = if std::env::var_os("BELLWIRE_HOSTILE_FULL").is_some() { 1 } else { 19 };
    let edges = |len: u64| [0, 1, 127, 128, 8191, 8192].contains(&len) || len == whole.len() as u64 - 1;
    let file = File::options().write(true).open(&path).unwrap();
    let mut count = 0;
    for len in (0..whole.len() as u64).rev().filter(|len| len % step == 0 || edges(*len)) {
        count += 1;
        file.set_len(len).unwrap();
        for error in open_in_every_way(&bus) {
            assert!(
                matches!(error, OpenError::Corrupt { .. } | OpenError::Identity { .. }),
                "length {len}: {error}"
            );
        }
    }
    println!("lane cut at {count} lengths: refused in three ways each");
    fs::write(&path, &whole).unwrap();
    assert_eq!(small().open(&bus, "engine").unwrap().last_sequence(), 10, "the control: whole it is fine");
}

#[test]
fn truncated_cursors_are_an_error_at_every_length_and_hold_no_producer_up() {
    let bus = Bus::new();
    let mut producer = small().grace(std::time::Duration::ZERO).open(&bus, "engine").unwrap();
    drop(Reader::open(&bus, "storage").unwrap());
    let path = PathBuf::from(format!("/dev/shm/bellwire.{}.cursors.storage", &*bus));
    let whole = fs::read(&path).unwrap();
    let step = if std::env::var_os("BELLWIRE_HOSTILE_FULL").is_some() { 1 } else { 19 };
    let file = File::options().write(true).open(&path).unwrap();
    let mut count = 0;
    for len in (0..whole.len() as u64).rev().filter(|len| len % step == 0 || *len < 3) {
        count += 1;
        file.set_len(len).unwrap();
        for error in [
            Reader::open(&bus, "storage").map(|_| ()).unwrap_err(),
            bellwire::inspect::CursorsStatus::read(&bus, "storage", None).map(|_| ()).unwrap_err(),
        ] {
            assert!(
                matches!(error, OpenError::Corrupt { .. } | OpenError::Identity { .. }),
                "{len}: {error}"
            );
        }
        producer.look();
    }
    println!("cursors cut at {count} lengths");
    bellwire::inspect::remove_unheld(&bus).unwrap();
    for _ in 0..200 {
        producer.publish(&note("user", "title", "content")).unwrap();
        producer.look();
    }
}

#[test]
fn a_lane_of_another_layout_or_build_is_refused_by_name() {
    let bus = prepared();
    let path = lane_path(&bus);
    let file = File::options().write(true).open(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        file.write_all_at(bytes, at as u64).unwrap();
        let errors = open_in_every_way(&bus);
        file.write_all_at(&whole[at..at + bytes.len()], at as u64).unwrap();
        errors.map(|error| match error {
            OpenError::Identity { reason, .. } => reason,
            other => panic!("{other}"),
        })
    };
    for reason in with(0, b"NOTALANE") {
        assert!(matches!(reason, IdentityError::Magic { .. }), "{reason}");
    }
    for reason in with(8, &9u32.to_le_bytes()) {
        assert_eq!(reason, IdentityError::Version { found: 9, expected: 1 });
        assert_eq!(reason.to_string(), "layout 9, this build reads 1");
    }
    for reason in with(12, &0x0102_0304u32.to_be_bytes()) {
        assert!(matches!(reason, IdentityError::ByteOrder { .. }), "{reason}");
    }
    for reason in with(16, &1u64.to_le_bytes()) {
        assert_eq!(reason, IdentityError::Fingerprint { found: 1, expected: bellwire::abi_fingerprint() });
    }
    for reason in with(48, &4097u64.to_le_bytes()) {
        assert_eq!(reason, IdentityError::Impossible { what: "capacity", found: 4097 });
    }
}

#[test]
fn a_name_taken_by_something_else_is_refused_without_hanging() {
    let bus = Bus::new();
    let path = lane_path(&bus);
    let expect = |found: &str| {
        for error in open_in_every_way(&bus) {
            assert!(error.to_string().contains(found), "{error}");
            assert!(matches!(error, OpenError::NotAFile { .. }), "{error:?}");
        }
    };
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    expect("a FIFO");
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    expect("a symbolic link");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    expect("a directory");
    fs::remove_dir(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    expect("a socket");
    fs::remove_file(&path).unwrap();
    if nix::unistd::geteuid().is_root() {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        if mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 5)).is_ok() {
            expect("a device");
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_lane_under_another_name_is_refused_because_it_has_the_other_ones_key() {
    let bus = prepared();
    let path = lane_path(&bus);
    let other = PathBuf::from(format!("/dev/shm/bellwire.{}.lane.other", &*bus));
    let refused = |error: OpenError| {
        let text = error.to_string();
        assert!(text.contains("its header says that it is \"engine\", not \"other\""), "{text}");
    };
    for make in [fs::hard_link, |from: &PathBuf, to: &PathBuf| fs::copy(from, to).map(|_| ())] {
        make(&path, &other).unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        refused(Tap::open(&bus, "other", TapStart::Oldest).unwrap_err());
        refused(small().open(&bus, "other").unwrap_err());
        let mut reader = Reader::open(&bus, "storage").unwrap();
        assert_eq!(reader.lanes().count(), 1);
        refused(reader.refresh().refused.pop().unwrap().1);
        // And the lane itself is read once, as if the other were not there.
        drop(reader);
        fs::remove_file(&other).unwrap();
    }
    let cursors = |name: &str| PathBuf::from(format!("/dev/shm/bellwire.{}.cursors.{name}", &*bus));
    drop(Reader::open(&bus, "engine").unwrap());
    fs::copy(cursors("engine"), cursors("other")).unwrap();
    fs::set_permissions(cursors("other"), Permissions::from_mode(0o600)).unwrap();
    refused(Reader::open(&bus, "other").unwrap_err());
    refused(bellwire::inspect::CursorsStatus::read(&bus, "other", None).unwrap_err());
    // A key that was made up: the second lane that has it is not read, the first one goes on.
    drop(small().open(&bus, "twin").unwrap());
    let mut key = [0; 8];
    File::open(&path).unwrap().read_exact_at(&mut key, 32).unwrap();
    let twin = PathBuf::from(format!("/dev/shm/bellwire.{}.lane.twin", &*bus));
    File::options().write(true).open(&twin).unwrap().write_all_at(&key, 32).unwrap();
    let mut reader = Reader::open(&bus, "storage").unwrap();
    let (name, error) = reader.refresh().refused.pop().unwrap();
    assert!(name == "twin" && error.to_string().contains("it has the key of lane engine"), "{name}: {error}");
    let mut count = 0;
    reader.round(bellwire::Budget::default(), |_, _| count += 1);
    assert_eq!(count, 10);
}

#[test]
fn a_lane_with_holes_gets_its_memory_when_it_is_adopted() {
    let bus = Bus::new();
    drop(small().open(&bus, "engine").unwrap());
    let path = lane_path(&bus);
    let whole = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let file = File::create_new(&path).unwrap();
    file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    file.set_len(whole.len() as u64).unwrap();
    file.write_all_at(&whole[..4096], 0).unwrap();
    drop(small().open(&bus, "engine").unwrap());
    assert!(file.metadata().unwrap().blocks() * 512 >= whole.len() as u64, "a store could be SIGBUS");
}

#[test]
fn a_huge_sparse_file_is_refused_without_being_read() {
    let bus = Bus::new();
    let path = lane_path(&bus);
    let file = File::create(&path).unwrap();
    file.set_permissions(Permissions::from_mode(0o600)).unwrap();
    for len in [1 << 30, 1 << 42] {
        file.set_len(len).unwrap();
        for error in open_in_every_way(&bus) {
            // A producer that would adopt it maps it as a whole; what the system does not give is an error, too.
            assert!(matches!(error, OpenError::Identity { .. } | OpenError::Io { .. }), "{error}");
        }
        assert!(file.metadata().unwrap().blocks() < 1024, "it was filled");
    }
}

#[test]
fn a_lane_of_somebody_else_or_open_to_others_is_refused() {
    let bus = prepared();
    let path = lane_path(&bus);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    for error in open_in_every_way(&bus) {
        assert!(matches!(error, OpenError::Writable { mode: 0o666, .. }), "{error}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: giving the lane to another user is not tested");
        return;
    }
    let ours = fs::metadata(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(4711), Some(4712)).unwrap();
    for error in open_in_every_way(&bus) {
        let text = error.to_string();
        assert!(text.contains("owned by uid 4711, gid 4712; expected uid 0"), "{text}");
        assert!(matches!(error, OpenError::ForeignOwner { uid: 4711, gid: 4712, .. }));
    }
    std::os::unix::fs::chown(&path, Some(ours.uid()), Some(ours.gid())).unwrap();
    assert!(small().open(&bus, "engine").is_ok());
}

#[test]
fn a_group_may_read_and_nobody_else_may() {
    let bus = Bus::new();
    // Some group that every system has and this process may give files to.
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid()).unwrap().unwrap();
    let producer = small().group(&group.name).open(&bus, "engine").unwrap();
    let meta = fs::metadata(lane_path(&bus)).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.gid()), (0o640, group.gid.as_raw()));
    drop(producer);
    let private = Bus::new();
    drop(small().open(&private, "engine").unwrap());
    assert_eq!(fs::metadata(lane_path(&private)).unwrap().mode() & 0o7777, 0o600);
    let error = ProducerOptions::new().group("no-such-group").open(&bus, "other").unwrap_err();
    assert_eq!(error.to_string(), "group \"no-such-group\": no such group");
}

#[test]
fn bad_capacities_and_names_are_refused_before_anything_is_made() {
    let bus = Bus::new();
    for bytes in [0, 1, 4097, usize::MAX] {
        let error = ProducerOptions::new().capacity(Priority::P2, bytes).open(&bus, "engine").unwrap_err();
        assert!(matches!(error, OpenError::Capacity { priority: Priority::P2, .. }), "{error}");
    }
    assert!(matches!(small().open(&bus, "../engine"), Err(OpenError::Name(_))));
    assert!(matches!(small().open("", "engine"), Err(OpenError::Name(_))));
    // More than /dev/shm can hold, and than the machine has.
    let error = ProducerOptions::new().capacity(Priority::P2, 1 << 39).open(&bus, "engine").unwrap_err();
    assert!(matches!(error, OpenError::NoSpace { needed, .. } if needed > 1 << 39), "{error}");
    assert!(bellwire::inspect::segments(&bus).unwrap().is_empty(), "nothing was left behind");

    drop(small().open(&bus, "engine").unwrap());
    let error = small().capacity(Priority::P0, 8192).open(&bus, "engine").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("exists with capacities [4096, 4096, 4096, 4096] bytes, asked for [8192, 4096"),
        "{text}"
    );
}

#[test]
fn a_bus_has_at_most_sixteen_consumers() {
    let bus = Bus::new();
    let readers: Vec<_> = (0..16).map(|index| Reader::open(&bus, &format!("c{index}")).unwrap()).collect();
    assert!(matches!(Reader::open(&bus, "c16"), Err(OpenError::TooManyConsumers { count: 16, .. })));
    drop(readers);
    assert!(Reader::open(&bus, "c3").is_ok(), "one that exists may come back");
    let error = {
        let _live = Reader::open(&bus, "c4").unwrap();
        Reader::open(&bus, "c4").unwrap_err()
    };
    assert!(matches!(error, OpenError::InUse { pid, .. } if pid == std::process::id()), "{error}");
}

/// Found by the fuzzer: two consumers with one key shared what the producer promised, and when the one went, the other's entry
/// was free for anybody.
#[test]
fn a_consumer_that_takes_the_key_of_another_takes_nothing_else_from_it() {
    const KEY: u64 = 32; // as in `src/layout.rs`
    let bus = Bus::new();
    let path = |name: &str| format!("/dev/shm/bellwire.{}.cursors.{name}", &*bus);
    let mut honest = Reader::open(&bus, "m-honest").unwrap();
    let mut key = [0; 8];
    File::open(path("m-honest")).unwrap().read_exact_at(&mut key, KEY).unwrap();
    // One that the producer comes to first, and one that it comes to later.
    for name in ["a-thief", "z-thief"] {
        drop(Reader::open(&bus, name).unwrap());
        File::options().write(true).open(path(name)).unwrap().write_all_at(&key, KEY).unwrap();
    }
    let mut producer = small().open(&bus, "engine").unwrap();
    honest.refresh();
    let acknowledged = |bus: &str| {
        let status = LaneStatus::read(bus, "engine", None).unwrap();
        let of = |name| status.consumers.iter().find(|ack| ack.name == name).map(|ack| ack.attachment);
        (of("m-honest"), status.consumers.len())
    };
    producer.look();
    assert_eq!(acknowledged(&bus), (Some(1), 3), "each has an entry of its own");
    for name in ["a-thief", "z-thief"] {
        fs::remove_file(path(name)).unwrap();
    }
    producer.look();
    assert_eq!(acknowledged(&bus), (Some(1), 1));
    for _ in 0..10 {
        producer.publish(&note("user", "title", "")).unwrap();
    }
    assert_eq!(honest.round(bellwire::Budget::default(), |_, _| ()), 10);
}

#[test]
fn a_copy_is_read_whoever_made_it_and_what_is_wrong_with_it_is_said() {
    let bus = prepared();
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join(lane_path(&bus).file_name().unwrap());
    fs::copy(lane_path(&bus), &copy).unwrap();
    // As somebody with another umask and another uid would have it.
    fs::set_permissions(&copy, Permissions::from_mode(0o666)).unwrap();
    std::os::unix::fs::chown(&copy, Some(12345), Some(12345)).unwrap();
    let place = Place::copies(dir.path());
    assert_eq!(place.buses().unwrap(), [bus.to_string()]);
    assert_eq!(place.segments(&bus).unwrap()[0].held, Some(false));
    let status = LaneStatus::read(&bus, "engine", place).unwrap();
    assert_eq!(status.rings.iter().map(|ring| ring.published).sum::<u64>(), 10);
    let mut tap = Tap::open_in(&bus, "engine", TapStart::Oldest, place).unwrap();
    let mut count = 0;
    for priority in Priority::ALL {
        while let bellwire::TapPoll::Record(record) = tap.poll(priority).unwrap() {
            assert_eq!(record.view().unwrap().user_id(), "user");
            count += 1;
        }
    }
    assert_eq!(count, 10);
    // A copy that is not whole, or not of this name, is refused as a segment is.
    File::options().write(true).open(&copy).unwrap().set_len(5000).unwrap();
    assert!(LaneStatus::read(&bus, "engine", place).is_err());
    fs::copy(lane_path(&bus), dir.path().join(format!("bellwire.{}.lane.other", &*bus))).unwrap();
    assert!(matches!(LaneStatus::read(&bus, "other", place), Err(OpenError::Corrupt { .. })));
    // The control: as a segment of this machine that file would not be trusted.
    fs::set_permissions(lane_path(&bus), Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(LaneStatus::read(&bus, "engine", None), Err(OpenError::Writable { .. })));
}
