//! `consumers` and `gc`: who reads, who holds things up, and taking away what nobody needs, and nothing else.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bellwire::{Budget, OpenError, Reader, ReaderOptions};
use common::*;
use serde_json::{Value, json};

fn read_all(reader: &mut Reader) {
    while reader.round(Budget::default(), |_, _| {}) > 0 {}
    reader.commit(0);
}

fn verdicts(ran: &Ran) -> Vec<(String, String)> {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    ran.json().iter().map(|entry| (text(entry, "name"), text(entry, "action"))).collect()
}

#[test]
fn consumers_are_listed_with_what_they_have_not_read() {
    let bus = Bus::new();
    bus.ctl(&["consumers"]).says("nothing on bus").exits(3);
    let mut producer = small().open(&bus.0, "risk").unwrap();
    bus.ctl(&["consumers"]).says("has no consumer").exits(0);
    let mut gateway = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    let mut dead = ReaderOptions::new().open(&bus.0, "old-monitor").unwrap();
    meet(&mut producer, &mut gateway);
    meet(&mut producer, &mut dead);
    for n in 0..3 {
        producer.publish(&margin_call("user_01", &n.to_string())).unwrap();
    }
    read_all(&mut gateway);
    drop(dead);
    let ran = bus.ctl(&["consumers"]);
    let rows: Vec<Vec<&str>> = ran.exits(0).lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..6], ["CONSUMER", "STATE", "PID", "LANE", "GATING", "P0"]);
    assert_eq!((rows[1][0], rows[1][1], &rows[1][3..6]), ("gateway", "live", &["risk", "yes", "0"][..]));
    assert_eq!((rows[2][0], rows[2][1], &rows[2][3..6]), ("old-monitor", "dead", &["risk", "yes", "3"][..]));
    let json = bus.ctl(&["consumers", "--json"]).json();
    let lane = &json[1]["lanes"][0];
    assert_eq!((&lane["gating"], &lane["rings"][0]["unread"]), (&json!("yes"), &json!(3)));
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
        - lane["oldest_unread_at"].as_i64().unwrap();
    assert!((0..PATIENCE.as_nanos() as i64).contains(&age), "{lane}");
    assert_eq!(json[0]["lanes"][0]["oldest_unread_at"], Value::Null);
}

#[test]
fn a_ring_that_is_full_to_the_last_byte_has_lost_nothing() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut reader);
    let mut published = 0;
    // Records of 128 bytes fill 4096 evenly: the landmark at the cursor gives way to the one a lap behind it.
    while producer.publish(&margin_call("user_01", "0")).is_ok() {
        published += 1;
    }
    let inspect = bus.ctl(&["inspect", "risk", "--json"]).json().remove(0);
    assert!(inspect["rings"][0]["oldest"].as_u64() > Some(0), "{inspect}");
    let lane = bus.ctl(&["consumers", "--json"]).json()[0]["lanes"][0].clone();
    assert_eq!(lane["rings"][0]["unread_bytes"], 4096, "{lane}");
    assert_eq!(
        (&lane["rings"][0]["overtaken"], &lane["rings"][0]["unread"]),
        (&json!(false), &json!(published))
    );
    assert!(lane["oldest_unread_at"].is_i64(), "{lane}");
    read_all(&mut reader);
    assert_eq!(reader.lane(reader.lanes().next().unwrap()).lost(), [0; 4]);
}

#[test]
fn a_dead_consumer_that_fills_a_ring_can_be_forgotten_and_a_live_one_cannot() {
    let bus = Bus::new();
    let mut producer = small().open(&bus.0, "risk").unwrap();
    let mut live = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    let mut dead = ReaderOptions::new().open(&bus.0, "old").unwrap();
    meet(&mut producer, &mut live);
    meet(&mut producer, &mut dead);
    drop(dead);
    while producer.publish(&notice("fill")).is_ok() {}
    read_all(&mut live);
    let path = bus.path("cursors", "old");
    let before = fs::read(&path).unwrap();

    bus.ctl(&["consumers", "forget", "gateway", "--yes"]).says("lives").says("end it first").exits(5);
    bus.ctl(&["consumers", "forget", "odl", "--yes"]).says("did you mean old?").exits(3);
    let dry = bus.ctl(&["consumers", "forget", "old"]);
    dry.says("nothing was changed: --yes does it");
    assert!(dry.exits(0).starts_with("would remove consumer old"), "{dry:#?}");
    assert!(dry.out.contains("lane risk:") && dry.out.contains("its producer waits for it"), "{dry:#?}");
    assert!(fs::read(&path).unwrap() == before, "a dry run changes no byte");
    assert!(producer.publish(&notice("still full")).is_err());

    let did = bus.ctl(&["consumers", "forget", "old", "--yes"]);
    assert!(did.exits(0).starts_with("removed consumer old"), "{did:#?}");
    assert!(!path.exists() && bus.path("cursors", "gateway").exists());
    producer.look();
    producer.publish(&notice("there is room")).unwrap();
}

#[test]
fn gc_removes_what_nobody_needs_and_says_of_the_rest_why_it_stays() {
    let bus = Bus::new();
    bus.ctl(&["gc"]).says("nothing on bus").exits(3);
    let mut reader = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    let mut lanes: Vec<_> =
        ["live", "read", "unread"].map(|name| small().open(&bus.0, name).unwrap()).into_iter().collect();
    reader.refresh();
    for lane in &mut lanes {
        lane.look();
        lane.publish(&notice("one")).unwrap();
    }
    read_all(&mut reader);
    lanes[2].publish(&notice("two")).unwrap();
    drop(small().open(&bus.0, "never-used").unwrap());
    drop(lanes.split_off(1));
    let blank = bus.path("lane", "blank");
    let make_blank = |age: u64| {
        let file = fs::File::create(&blank).unwrap();
        file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
        file.set_len(65_536).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
    };
    make_blank(1);
    fs::write(bus.path("lane", "garbage"), [0xa5; 65_536]).unwrap();
    fs::set_permissions(bus.path("lane", "garbage"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", bus.path("lane", "link")).unwrap();

    let dry = bus.ctl(&["gc", "--json"]);
    dry.says("nothing was changed: --yes would remove 2 segments").exits(0);
    let expected = |blank: &str| {
        [
            ("blank", blank),
            ("garbage", "keep"),
            ("link", "keep"),
            ("live", "keep"),
            ("never-used", "remove"),
            ("read", "remove"),
            ("unread", "keep"),
            ("gateway", "keep"),
        ]
        .map(|(name, action)| (name.to_owned(), action.to_owned()))
    };
    assert_eq!(verdicts(&dry), expected("keep"), "{dry:#?}");
    make_blank(3600);
    assert_eq!(verdicts(&bus.ctl(&["gc", "--json"])), expected("remove"));
    assert_eq!(
        fs::read_dir("/dev/shm")
            .unwrap()
            .flatten()
            .filter(|f| f.file_name().to_string_lossy().contains(&format!(".{}.", bus.0)))
            .count(),
        8
    );

    let did = bus.ctl(&["gc", "--yes"]);
    did.says("removed 3 segments").exits(0);
    for (reason, name) in [
        ("its owner lives", "live"),
        ("not read to its end by gateway", "unread"),
        ("no segment of ours", "garbage"),
        ("symbolic link", "link"),
    ] {
        let line = did.out.lines().find(|line| line.contains(&format!(" {name} "))).unwrap();
        assert!(line.contains(reason) && line.starts_with("keep"), "{line}");
    }
    for (kind, name, stays) in [
        ("lane", "blank", false),
        ("lane", "never-used", false),
        ("lane", "read", false),
        ("lane", "unread", true),
        ("lane", "live", true),
        ("lane", "garbage", true),
        ("cursors", "gateway", true),
    ] {
        assert_eq!(bus.path(kind, name).exists(), stays, "{name}");
    }
    // The owner that lives and its reader have noticed nothing.
    lanes[0].publish(&notice("on")).unwrap();
    reader.refresh();
    assert!(reader.round(Budget::default(), |_, _| {}) >= 1);
    bus.ctl(&["gc"]).says("there is nothing to remove").exits(0);
}

#[test]
fn gc_keeps_a_dead_consumer_until_its_producers_have_given_it_up() {
    let bus = Bus::new();
    let mut producer = small().grace(Duration::from_millis(50)).open(&bus.0, "risk").unwrap();
    let mut dead = ReaderOptions::new().open(&bus.0, "gateway").unwrap();
    meet(&mut producer, &mut dead);
    drop(dead);
    let kept = bus.ctl(&["gc", "--yes"]);
    assert!(kept.exits(0).contains("waited for by risk: start it again"), "{kept:#?}");
    assert!(bus.path("cursors", "gateway").exists());
    // Full, and then past the grace time.
    until("the producer gives it up", || {
        let _ = producer.publish(&notice("fill"));
        producer.counters().released > 0
    });
    let gone = bus.ctl(&["gc", "--yes"]);
    assert!(gone.exits(0).contains("every producer has given it up"), "{gone:#?}");
    assert!(!bus.path("cursors", "gateway").exists());
    // The lane has an owner, and no reader any more.
    drop(producer);
    let unread = bus.ctl(&["gc", "--yes"]);
    assert!(unread.exits(0).contains("no consumer is there"), "{unread:#?}");
}

#[test]
fn what_has_been_adopted_or_made_anew_since_the_look_is_not_removed() {
    let bus = Bus::new();
    drop(small().open(&bus.0, "risk").unwrap());
    let path = bus.path("lane", "risk");
    let looked_at = bellwire::inspect::segments(&bus.0).unwrap().remove(0);
    let owner = small().open(&bus.0, "risk").unwrap();
    let refused = looked_at.seize(None).unwrap_err();
    assert!(
        matches!(refused, bellwire::OpenError::InUse { pid, .. } if pid == std::process::id()),
        "{refused}"
    );
    drop(owner);
    // Seized, nobody becomes its owner; a rival waits, finds the name gone and makes a new one.
    let seized = looked_at.seize(None).unwrap();
    let rival = std::thread::spawn({
        let bus = bus.0.clone();
        move || small().open(&bus, "risk")
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!rival.is_finished());
    seized.remove().unwrap();
    let rival = rival.join().unwrap().unwrap();
    assert!(!rival.adopted());
    assert_ne!(fs::metadata(&path).unwrap().ino(), looked_at.inode);
    // The same name, another file, whose owner is dead, too.
    drop(rival);
    let refused = looked_at.seize(None).unwrap_err();
    assert!(matches!(refused, bellwire::OpenError::Replaced { .. }), "{refused}");
    assert!(path.exists());
    // Replaced by hand while it is seized.
    let looked_at = bellwire::inspect::segments(&bus.0).unwrap().remove(0);
    let seized = looked_at.seize(None).unwrap();
    fs::remove_file(&path).unwrap();
    let _owner = small().open(&bus.0, "risk").unwrap();
    assert!(seized.remove().is_err());
    assert!(path.exists(), "the live owner's segment stays");
}

#[test]
fn no_live_owner_ever_loses_its_segment_to_gc() {
    /// Least that a run is worth, and what it ends with in any case.
    const REMOVALS: u64 = 200;
    const ROUNDS: u64 = 5_000;
    let bus = Bus::new();
    let running = AtomicBool::new(true);
    let removed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let owners: Vec<_> = (0..4)
            .map(|number| {
                let (bus, removed) = (&bus, &removed);
                // Two rivals for each of two names.
                let name = ["even", "odd"][number % 2];
                scope.spawn(move || {
                    let path = bus.path("lane", name);
                    let mut owned = 0;
                    while owned < ROUNDS && removed.load(Ordering::Relaxed) < REMOVALS {
                        let mut lane = match small().open(&bus.0, name) {
                            Ok(lane) => lane,
                            Err(OpenError::InUse { .. }) => {
                                std::thread::sleep(Duration::from_millis(5));
                                continue;
                            }
                            Err(error) => panic!("{error}"),
                        };
                        owned += 1;
                        let inode = fs::metadata(&path).unwrap().ino();
                        for _ in 0..3 {
                            std::thread::sleep(Duration::from_millis(1));
                            assert_eq!(
                                fs::metadata(&path).unwrap().ino(),
                                inode,
                                "{name}: not ours any more"
                            );
                        }
                        // Half of them are left and of use to nobody. The others hold something unread, and are removed by
                        // hand while they are ours: names change hands as quickly as they can.
                        if owned % 2 == 0 {
                            lane.publish(&notice("unread")).unwrap();
                            fs::remove_file(&path).unwrap();
                        }
                        drop(lane);
                        std::thread::sleep(Duration::from_millis(owned % 8));
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while running.load(Ordering::Relaxed) {
                    let ran = bus.ctl(&["gc", "--yes", "--json"]);
                    assert!(matches!(ran.code, Some(0 | 3)), "{ran:#?}");
                    let gone = ran.json().iter().filter(|entry| entry["removed"] == true).count();
                    removed.fetch_add(gone as u64, Ordering::Relaxed);
                }
            });
        }
        let ended: Vec<_> = owners.into_iter().map(|owner| owner.join()).collect();
        running.store(false, Ordering::Relaxed);
        ended.into_iter().for_each(|ended| ended.unwrap());
    });
    assert!(removed.into_inner() >= REMOVALS, "gc seldom came in between");
}

#[test]
fn somebody_else_s_segments_are_not_ours_to_remove() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("needs root to give a segment away");
        return;
    }
    let bus = Bus::new();
    drop(small().open(&bus.0, "theirs").unwrap());
    let path = bus.path("lane", "theirs");
    nix::unistd::chown(&path, Some(12_345.into()), Some(12_345.into())).unwrap();
    let ran = bus.ctl(&["gc", "--yes"]);
    assert!(ran.exits(0).contains("owned by uid 12345"), "{ran:#?}");
    assert!(path.exists());
}
