//! `doctor`: each trouble is named, with what to do next; a bus in good order has none.

mod common;

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::{Command, Stdio};

use bellwire::{Budget, ReaderOptions};
use common::*;
use nix::sys::signal::Signal;
use serde_json::Value;

/// The finding of that check on that segment (or on the bus).
#[track_caller]
fn finding(bus: &Bus, ran: &Ran, check: &str, name: Option<&str>) -> Value {
    let subject = name.map_or(bus.0.clone(), |name| format!("{}/{name}", bus.0));
    let found = ran.json().into_iter().find(|one| one["check"] == check && one["subject"] == *subject);
    found.unwrap_or_else(|| panic!("no finding {check} of {subject}: {ran:#?}"))
}

/// That trouble is found, and something to do about it named.
#[track_caller]
fn is_found(bus: &Bus, ran: &Ran, severity: &str, check: &str, name: Option<&str>, says: &[&str]) {
    let found = finding(bus, ran, check, name);
    assert_eq!(found["severity"], severity, "{found}");
    assert_eq!(severity == "ok", found["next"].is_null(), "{found}");
    let words = format!("{} {}", found["what"], found["next"]);
    for part in says {
        assert!(words.contains(part), "{part:?} is not in {words}");
    }
}

#[test]
fn a_bus_in_good_order_has_nothing_to_complain_about() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let mut gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut gateway);
    producer.publish(&notice("one")).unwrap();
    gateway.round(Budget::default(), |_, _| {});
    gateway.commit(0);
    let ran = bus.ctl(&["doctor", "--json"]);
    // The machine that tests run on may have troubles of its own.
    let code = i32::from(ran.json().iter().any(|one| one["severity"] == "bad"));
    ran.exits(code);
    let of_the_bus = |one: &&Value| one["subject"].as_str().unwrap().starts_with(&*bus.0);
    for one in ran.json().iter().filter(of_the_bus) {
        assert_eq!(one["severity"], "ok", "{one}");
    }
    is_found(&bus, &ran, "ok", "build", Some("risk"), &["layout 1, fingerprint 0x"]);
    let text = bus.ctl(&["doctor"]);
    assert!(text.exits(code).lines().any(|line| line.starts_with("ok    producer     ")), "{text:#?}");
    let problems = bus.ctl(&["doctor", "--problems"]);
    assert!(!problems.exits(code).contains("\nok ") && !problems.out.contains(&bus.0), "{problems:#?}");
}

#[test]
fn nothing_there_at_all_is_said_and_what_to_do() {
    let bus = Bus::new();
    let ran = bus.ctl(&["doctor"]);
    assert!(
        matches!(ran.code, Some(1 | 3)) && ran.out.contains(&format!("nothing on bus {}", bus.0)),
        "{ran:#?}"
    );
    assert!(ran.out.contains("-> "), "{ran:#?}");
    Bus("Not A Name".into()).ctl(&["doctor"]).says("bus name").exits(2);
}

#[test]
fn dead_ones_and_whom_they_hold_up_are_told() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let mut gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut gateway);
    // What a killed process leaves: its pid, and no lock.
    let path = bus.path("cursors", "gateway");
    drop(gateway);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(&4_000_000_u32.to_le_bytes(), 128)
        .unwrap();
    let dead = bus.ctl(&["doctor", "--json"]);
    dead.says("1 bad").exits(1);
    is_found(
        &bus,
        &dead,
        "bad",
        "consumer",
        Some("gateway"),
        &["pid 4000000", "risk", "start it again", "consumers forget gateway"],
    );

    while producer.publish(&notice("fill")).is_ok() {}
    let full = bus.ctl(&["doctor", "--json"]);
    full.exits(1);
    is_found(
        &bus,
        &full,
        "bad",
        "fill",
        Some("risk"),
        &["ring P3", "gateway has not read", "1 refused", "start gateway again"],
    );
    is_found(&bus, &full, "ok", "producer", Some("risk"), &["publishes refused since the lane was made: 1"]);

    drop(producer);
    let both = bus.ctl(&["doctor", "--json"]);
    is_found(
        &bus,
        &both,
        "warn",
        "producer",
        Some("risk"),
        &["ended in order", "gateway have not read", "adopts the lane"],
    );

    bus.ctl(&["consumers", "forget", "gateway", "--yes"]).exits(0);
    is_found(
        &bus,
        &bus.ctl(&["doctor", "--json"]),
        "warn",
        "consumer",
        None,
        &["no consumer", "start the gateway"],
    );
}

#[test]
fn a_reader_that_lives_and_does_not_read_is_another_trouble_than_a_dead_one() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let mut gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut gateway);
    while producer.publish(&notice("fill")).is_ok() {}
    let ran = bus.ctl(&["doctor", "--json"]);
    ran.exits(1);
    is_found(&bus, &ran, "bad", "fill", Some("risk"), &["does not keep up", "Full", "the oldest unread is"]);
    is_found(&bus, &ran, "ok", "consumer", Some("gateway"), &["lives"]);
}

#[test]
fn a_ring_that_is_kept_for_a_consumer_that_never_attached_is_seen_to_be_full() {
    let bus = Bus::new();
    let gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    // As if it had been stopped before the lane came.
    let mut producer = small().open(&bus.0, "risk").unwrap();
    while producer.publish(&notice("fill")).is_ok() {}
    let full = bus.ctl(&["doctor", "--json"]);
    full.exits(1);
    is_found(&bus, &full, "bad", "fill", Some("risk"), &["ring P3", "gateway has not read"]);
    let check = bus.ctl(&["check", "--sample", "0"]);
    assert!(check.exits(2).contains("ring P3 is "), "{check:#?}");
    let consumers = bus.ctl(&["consumers"]);
    assert!(consumers.exits(0).contains(" unmet "), "{consumers:#?}");
    let inspect = bus.ctl(&["inspect", "risk", "--json"]).json().remove(0);
    assert!(inspect["rings"][3]["unread"].as_u64() > Some(3500), "{inspect}");
    assert_eq!(inspect["consumers"][0]["gating"], true);
    // The next producer of the lane keeps it, too; and so does gc.
    drop(producer);
    assert!(bus.ctl(&["check", "--sample", "0"]).exits(2).contains("ring P3 is "));
    drop(gateway);
    let gc = bus.ctl(&["gc"]);
    assert!(gc.exits(0).contains("not read to its end by gateway"), "{gc:#?}");
    assert!(gc.out.contains("waited for by risk"), "{gc:#?}");
    let mut producer = small().open(&bus.0, "risk").unwrap();
    assert!(producer.publish(&notice("full")).is_err());
}

#[test]
fn a_stopped_producer_is_told_from_a_live_one() {
    let bus = Bus::new();
    let mut child = bus.start(&["publish", "--producer", "engine", "--from", "-"]);
    until("it has its lane", || bus.path("lane", "engine").exists());
    signal(&child, Signal::SIGSTOP);
    until("it is found", || {
        let ran = bus.ctl(&["doctor", "--json"]);
        ran.out.contains("is stopped") && ran.out.contains(&format!("kill -CONT {}", child.id()))
    });
    signal(&child, Signal::SIGCONT);
    drop(child.stdin.take());
    finish(child).exits(0);
}

#[test]
fn leftovers_and_segments_of_others_are_told_apart() {
    let bus = Bus::new();
    let _gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    drop(small().open(&bus.0, "never-used").unwrap());
    let make = |name: &str, mode: u32, bytes: &[u8]| {
        fs::write(bus.path("lane", name), bytes).unwrap();
        fs::set_permissions(bus.path("lane", name), fs::Permissions::from_mode(mode)).unwrap();
    };
    make("blank", 0o600, &[0; 65_536]);
    make("garbage", 0o600, &[0xa5; 65_536]);
    make("writable", 0o666, &[0; 65_536]);
    drop(small().open(&bus.0, "older").unwrap());
    let older = fs::File::options().write(true).open(bus.path("lane", "older")).unwrap();
    older.write_all_at(&7_u32.to_le_bytes(), 8).unwrap();
    drop(small().open(&bus.0, "short").unwrap());
    fs::File::options().write(true).open(bus.path("lane", "short")).unwrap().set_len(6000).unwrap();

    let ran = bus.ctl(&["doctor", "--json"]);
    ran.exits(1);
    is_found(&bus, &ran, "warn", "stale", None, &["never-used", "bellwirectl gc --bus"]);
    is_found(&bus, &ran, "warn", "build", Some("blank"), &["blank", "gc"]);
    is_found(&bus, &ran, "bad", "build", Some("garbage"), &["no Bellwire process made", "remove /dev/shm/"]);
    is_found(
        &bus,
        &ran,
        "bad",
        "build",
        Some("older"),
        &["layout 7", "this bellwirectl has layout 1", "one build"],
    );
    is_found(&bus, &ran, "bad", "permissions", Some("writable"), &["0666", "find out who did"]);
    is_found(&bus, &ran, "bad", "damage", Some("short"), &["6000 bytes"]);
    if nix::unistd::geteuid().is_root() {
        drop(small().open(&bus.0, "theirs").unwrap());
        nix::unistd::chown(&bus.path("lane", "theirs"), Some(12_345.into()), Some(12_345.into())).unwrap();
        let ran = bus.ctl(&["doctor", "--json"]);
        is_found(&bus, &ran, "warn", "permissions", Some("theirs"), &["owned by uid 12345", "--group"]);
        is_found(
            &bus,
            &ran,
            "bad",
            "ownership",
            None,
            &["no readable group in common", "theirs (12345:12345)", "bus.group"],
        );
    }
}

#[test]
fn a_clock_that_was_set_is_seen() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let _gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    producer.look();
    is_found(&bus, &bus.ctl(&["doctor", "--json"]), "ok", "clock", None, &[]);
    // As if the wall clock had been an hour behind when the producer looked: layout of `Owner`.
    let lane = fs::File::options().read(true).write(true).open(bus.path("lane", "risk")).unwrap();
    let mut offset = [0; 8];
    lane.read_exact_at(&mut offset, 144).unwrap();
    let offset = i64::from_le_bytes(offset) - 3_600_000_000_000;
    lane.write_all_at(&offset.to_le_bytes(), 144).unwrap();
    let ran = bus.ctl(&["doctor", "--json"]);
    is_found(&bus, &ran, "warn", "clock", Some("risk"), &["forward by", "chrony"]);
    bus.ctl(&["doctor", "--strict"]).exits(1);
}

/// `doctor` behind some lines of shell, as JSON.
fn behind(shell: &str, bus: &Bus) -> Ran {
    let line = format!("{shell}; exec {} doctor --json --bus {}", env!("CARGO_BIN_EXE_bellwirectl"), bus.0);
    Ran::of(Command::new("sh").args(["-c", &line]).stdin(Stdio::null()).output().unwrap())
}

#[track_caller]
fn of_the_machine<'a>(findings: &'a [Value], check: &str, says: &str) -> &'a Value {
    let found = findings.iter().find(|one| one["check"] == check && one["what"].to_string().contains(says));
    found.unwrap_or_else(|| panic!("no {check} that says {says:?}: {findings:#?}"))
}

#[test]
fn a_process_that_may_open_few_files_is_told_so() {
    let bus = Bus::new();
    let ran = behind("ulimit -n 100", &bus);
    let findings = ran.json();
    let found = of_the_machine(&findings, "limits", "at most 100 open files");
    assert_eq!(found["severity"], "warn");
    assert!(found["next"].as_str().unwrap().contains("LimitNOFILE"), "{found}");
}

#[test]
fn shared_memory_that_is_small_full_or_open_to_all_is_found() {
    let bus = Bus::new();
    // A /dev/shm of its own, which nobody else sees.
    let own = |options: &str, then: &str| {
        let mount = format!("mount -t tmpfs -o {options} tmpfs /dev/shm && {then}");
        let line = format!("{mount} {} doctor --json --bus {}", env!("CARGO_BIN_EXE_bellwirectl"), bus.0);
        Ran::of(
            Command::new("unshare").args(["-m", "sh", "-c", &line]).stdin(Stdio::null()).output().unwrap(),
        )
    };
    let small = own("size=1m,mode=1777", "");
    if !nix::unistd::geteuid().is_root() || !small.out.contains("severity") {
        eprintln!("needs root and mount namespaces");
        return;
    }
    let findings = small.json();
    let found = of_the_machine(&findings, "space", "another lane of 51.3 MiB does not fit");
    assert_eq!(found["severity"], "warn");
    assert!(found["next"].as_str().unwrap().contains("remount,size="), "{found}");
    let file = format!("truncate -s 10G /dev/shm/bellwire.{}.lane.big &&", bus.0);
    let findings = own("size=1m,mode=1777", &file).json();
    assert_eq!(of_the_machine(&findings, "space", "segments lack 10.0 GiB")["severity"], "bad");
    let findings = own("size=100m,mode=0777", "").json();
    let found = of_the_machine(&findings, "permissions", "no sticky bit");
    assert_eq!((&found["severity"], &found["next"]), (&"bad".into(), &"chmod 1777 /dev/shm".into()));
}

#[test]
fn without_permission_it_says_whose_it_is() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to become somebody else");
        return;
    }
    let bus = Bus::new();
    let _producer = small().open(&bus.0, "risk").unwrap();
    let copy = std::env::temp_dir().join(format!("bellwirectl-{}", bus.0));
    fs::copy(env!("CARGO_BIN_EXE_bellwirectl"), &copy).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(&copy).args(arguments);
        Ran::of(command.args(["--bus", &bus.0]).stdin(Stdio::null()).output().unwrap())
    };
    let doctor = run(&["doctor", "--json"]);
    let (gc, consumers) = (run(&["gc", "--yes"]), run(&["consumers"]));
    fs::remove_file(&copy).unwrap();
    is_found(&bus, &doctor, "warn", "permissions", Some("risk"), &["owned by uid 0", "--group"]);
    let of_it = doctor.json().into_iter().filter(|one| one["subject"] == format!("{}/risk", bus.0));
    assert_eq!(of_it.count(), 1, "said once: {doctor:#?}");
    assert!(gc.exits(0).contains("owned by uid 0"), "{gc:#?}");
    consumers.says("owned by uid 0");
    assert!(bus.path("lane", "risk").exists());
}
