//! What is not ours, not whole or not of this build is refused with an error that says what was found.

mod common;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

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
    let lengths =
        (0..whole.len() as u64).step_by(509).chain([1, 127, 128, 8191, 8192, whole.len() as u64 - 1]);
    for len in lengths {
        fs::write(&path, &whole[..len as usize]).unwrap();
        for error in open_in_every_way(&bus) {
            assert!(
                matches!(error, OpenError::Corrupt { .. } | OpenError::Identity { .. }),
                "length {len}: {error}"
            );
        }
    }
    fs::write(&path, &whole).unwrap();
    assert_eq!(small().open(&bus, "engine").unwrap().last_sequence(), 10, "the control: whole it is fine");
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
