//! A bus in a file: taken, looked at later, and files that are none.

mod common;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use bellwire::{Budget, Producer, ReaderOptions};
use common::{Bus, Ran, ctl, margin_call, meet, notice, small};

/// A bus with a lane of one who lives, one of one who does not, and a consumer that has read nothing.
fn snapshot_of_trouble(file: &Path) -> Bus {
    let bus = Bus::new();
    let mut risk = small().open(&bus.0, "risk").unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    let mut gone = small().open(&bus.0, "gone").unwrap();
    meet(&mut risk, &mut reader);
    risk.publish(&margin_call("anna", "pay")).unwrap();
    gone.publish(&notice("hello")).unwrap();
    drop(gone);
    let ran = bus.ctl(&["snapshot", file.to_str().unwrap()]);
    assert!(ran.exits(0).contains("3 segments"), "{ran:#?}");
    bus
}

#[test]
fn a_snapshot_shows_the_bus_as_it_was_when_all_of_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.tar.gz");
    let file = path.to_str().unwrap();
    let bus = snapshot_of_trouble(&path);
    let name = bus.0.clone();
    drop(bus); // and with it everything in shared memory
    let metadata = path.metadata().unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(metadata.len() < 100_000, "rings that are empty take no room: {}", metadata.len());

    // The bus need not be named: there is only one.
    let ran = ctl(&["inspect", file, "--json"]);
    ran.says("snapshot of bus").exits(0);
    let objects = ran.json();
    let lane = |name: &str| objects.iter().find(|object| object["lane"] == name).unwrap().clone();
    assert_eq!((&lane("risk")["state"], &lane("gone")["state"]), (&"live".into(), &"dead".into()));
    assert_eq!(lane("risk")["bus"], *name);
    assert_eq!(lane("risk")["rings"][0]["published"], 1);
    assert!(lane("risk")["rings"][0]["oldest_unread_at"].is_i64());
    assert_eq!(lane("risk")["consumers"][0]["gating"], true);

    let ran = ctl(&["ls", "--copy", file, "--json"]);
    let states: Vec<_> =
        ran.json().iter().map(|object| object["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["dead", "live", "live"], "gone, risk, and the consumer");
    let ran = ctl(&["consumers", "--copy", file]);
    assert!(ran.exits(0).contains("gateway"), "{ran:#?}");
    let ran = ctl(&["tail", "--all", "--copy", file, "--json"]);
    ran.exits(0);
    let users: Vec<_> =
        ran.json().iter().map(|object| object["user_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(users.len(), 2);
    assert!(users.contains(&"anna".to_owned()), "{users:?}");
    let ran = ctl(&["tail", "risk", "--copy", file, "--user", "bert"]);
    assert_eq!(ran.exits(0), "");

    // What others unpack, or copied by hand, is looked at as well; then nobody is known to live.
    let unpacked = dir.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("tar").args(["xzf", file, "-C"]).arg(&unpacked).status().unwrap();
    assert!(tar.success());
    let ran = ctl(&["inspect", unpacked.to_str().unwrap()]);
    assert!(ran.says("nobody holds a copy").exits(0).contains("lane risk: dead"), "{ran:#?}");
    let leftovers = |dir: &Path| {
        fs::read_dir(dir)
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("bellwire-snapshot-"))
            .count()
    };
    // Nothing stays behind where it was unpacked.
    let tmp = dir.path().join("tmp");
    fs::create_dir(&tmp).unwrap();
    let ran = common::command(&["inspect", file]).env("TMPDIR", &tmp).output().unwrap();
    assert!(ran.status.success());
    assert_eq!(leftovers(&tmp), 0);
}

#[test]
fn a_file_that_is_there_stays_and_a_bus_that_is_not_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.tar.gz");
    let file = path.to_str().unwrap();
    let bus = Bus::new();
    bus.ctl(&["snapshot", file]).says("nothing on bus").exits(3);
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    fs::write(&path, "precious").unwrap();
    bus.ctl(&["snapshot", file]).says("--force").exits(1);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    bus.ctl(&["snapshot", "--force", file]).exits(0);
    ctl(&["ls", "--copy", file]).exits(0);
    bus.ctl(&["snapshot", dir.path().join("no/where").to_str().unwrap()]).exits(3);
    // A FIFO among the segments is left out, and said; the rest is there.
    nix::unistd::mkfifo(&bus.path("lane", "pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let ran = bus.ctl(&["snapshot", "--force", "--json", file]);
    ran.says("not a regular file").exits(1);
    assert_eq!(
        (&ran.json()[0]["missing"], ran.json()[0]["segments"].as_array().unwrap().len()),
        (&1.into(), 1)
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no unfinished file stays");
}

#[test]
fn what_is_no_snapshot_or_not_a_whole_one_is_said_and_nothing_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("main.tar.gz");
    let _bus = snapshot_of_trouble(&path);
    let whole = fs::read(&path).unwrap();
    let unzipped = |bytes: &[u8]| {
        let mut contents = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut contents).map(|_| contents)
    };
    let contents = unzipped(&whole).unwrap();
    let other = dir.path().join("other.tar.gz");
    let look = |bytes: &[u8]| -> Ran {
        fs::write(&other, bytes).unwrap();
        ctl(&["inspect", other.to_str().unwrap()])
    };
    assert!(look(b"").says("snapshot").code == Some(6));
    look(b"no archive at all, and longer than a header of gzip").says("snapshot").exits(6);
    let lengths = (0..whole.len()).step_by(whole.len() / 40 + 1);
    // The last bytes are what gzip checks the rest with.
    for len in lengths.chain(whole.len() - 16..whole.len()) {
        look(&whole[..len]).says("whole").exits(6);
    }
    for at in (0..whole.len()).step_by(whole.len() / 60 + 1).chain(whole.len() - 8..whole.len()) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        let ran = look(&bytes);
        // Some bits mean nothing, as those for when it was compressed, or which of all the zeros before are copied.
        let is_the_same = unzipped(&bytes).is_ok_and(|bytes| bytes == contents);
        assert_eq!(ran.code, Some(if is_the_same { 0 } else { 6 }), "byte {at}: {ran:#?}");
        assert!(!ran.err.contains("panicked"), "byte {at}: {ran:#?}");
    }
    ctl(&["inspect", "/nowhere/main.tar.gz"]).exits(3);
    ctl(&["inspect", "/dev/null"]).says("neither a file nor a directory").exits(2);
    ctl(&["inspect", dir.path().to_str().unwrap()]).says("no segments are there").exits(3);
    ctl(&["publish", "risk", "--copy", path.to_str().unwrap()]).exits(2);
    ctl(&["doctor", "--copy", path.to_str().unwrap()]).says("not at a copy").exits(2);
    // The control.
    look(&whole).exits(0);
}

/// An archive with these members, its contents saying so.
fn archive(contents: &serde_json::Value, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder =
        tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let text = contents.to_string();
    for (name, bytes) in [("snapshot.json", text.as_bytes())].iter().chain(members) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        // As it stands, also if it leads elsewhere.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

#[test]
fn an_archive_that_somebody_made_to_harm_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evil.tar.gz");
    let contents = |file: &str, bytes: u64| {
        serde_json::json!({"schema": 1, "bus": "main", "taken_at": 1, "host": "h", "version": "1",
            "segments": [{"file": file, "bytes": bytes, "held": true}]})
    };
    let look = |bytes: Vec<u8>| -> Ran {
        fs::write(&path, bytes).unwrap();
        ctl(&["inspect", path.to_str().unwrap()])
    };
    for name in ["../bellwire.main.lane.x", "/tmp/bellwire.main.lane.x", "bellwire.main.lane.x/../../y"] {
        look(archive(&contents(name, 4), &[(name, b"evil")])).says("no segment's name").exits(6);
    }
    // A name that its contents do not say; too little; more than there is room for.
    let name = "bellwire.main.lane.x";
    look(archive(&contents(name, 4), &[("bellwire.main.lane.y", b"evil")])).says("is missing").exits(6);
    look(archive(&contents(name, 5000), &[(name, b"evil")])).exits(6);
    look(archive(&contents(name, u64::MAX), &[(name, b"evil")])).exits(6);
    // It can be unpacked, and is no segment.
    look(archive(&contents(name, 4), &[(name, b"evil")])).exits(6);
    let many: Vec<_> = (0..5000).map(|_| contents(name, 1)["segments"][0].clone()).collect();
    let mut too_many = contents(name, 1);
    too_many["segments"] = many.into();
    look(archive(&too_many, &[])).says("5000 segments").exits(6);
}

#[test]
fn tail_counts_in_place_of_showing_and_inspect_tells_how_far_behind_it_was_meanwhile() {
    let bus = Bus::new();
    let mut producer = Producer::open(&bus.0, "risk").unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut reader);
    for _ in 0..30 {
        producer.publish(&margin_call("anna", "pay")).unwrap();
    }
    for _ in 0..12 {
        producer.publish(&notice("hello")).unwrap();
    }
    let ran = bus.ctl(&["tail", "risk", "--from", "oldest", "--seconds", "0", "--rates"]);
    let out = ran.exits(0);
    assert!(out.lines().count() == 1 && out.contains("margin_call") && out.contains("  P0 "), "{out}");
    let ran = bus.ctl(&[
        "tail",
        "risk",
        "--from",
        "oldest",
        "--seconds",
        "0",
        "--rates",
        "--json",
        "--priority",
        "0",
    ]);
    let line = &ran.json()[0];
    let count = line["types"]["margin_call"].as_f64().unwrap() * line["seconds"].as_f64().unwrap();
    assert!((29.0..31.0).contains(&count) && line["types"]["system_notice"].is_null(), "{line}");

    let ran = bus.ctl(&["inspect", "risk", "--interval", "300ms", "--json"]);
    let lag = &ran.json()[0]["rings"][0]["lag"];
    assert!(lag["samples"].as_u64().unwrap() > 10, "{lag}");
    assert!(lag["age_ns_p50"].as_u64().unwrap() <= lag["age_ns_max"].as_u64().unwrap());
    assert!(lag["unread_p99"].as_u64().unwrap() > 0 && lag["age_ns_p50"].as_u64().unwrap() > 0, "{lag}");
    let text = bus.ctl(&["inspect", "risk", "--interval", "50ms"]);
    assert!(text.exits(0).contains("AGE P50"), "{text:#?}");
    // The control: who has read everything is not behind.
    while reader.round(Budget::default(), |_, _| ()) > 0 {}
    reader.commit(0);
    let ran = bus.ctl(&["inspect", "risk", "--interval", "100ms", "--json"]);
    assert_eq!(ran.json()[0]["rings"][0]["lag"]["unread_max"], 0);
}
