//! The verbs that read a journal: of a gateway that runs, of one that is dead, and of one that somebody altered.

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::site::{Gateway, Site};
use common::*;

fn journal(site: &Site, arguments: &[&str]) -> Ran {
    let dir = site.dir.join("journal");
    ctl(&[&["journal"], arguments, &["--dir", dir.to_str().unwrap()]].concat())
}

/// Publishes so many notices for each of two users.
fn publish(site: &Site, count: usize) {
    let lines: String = (0..count)
        .flat_map(|number| ["user_01", "user_02"].map(|user| (number, user)))
        .map(|(number, user)| {
            format!(
                r#"{{"message_type":"system_notice","user_id":"{user}","source":"Ops","payload":{{"type":"system_notice","title":"n-{number:06}","content":"text","level":"INFO","timestamp":1}}}}"#
            ) + "\n"
        })
        .collect();
    site.bus.ctl_with(&["publish", "--from", "-", "--producer", "ops"], &lines).exits(0);
}

/// Until the journal has so many records, all of them linked.
fn wait_for(site: &Site, records: u64) {
    let until = Instant::now() + PATIENCE;
    loop {
        let verified = journal(site, &["verify", "--json"]);
        if verified.code == Some(0) && verified.json()[0]["linked"] == records {
            return;
        }
        assert!(Instant::now() < until, "{verified:#?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(records: usize) -> (Site, Gateway) {
    let site = Site::new();
    let gateway = site.start();
    publish(&site, records / 2);
    wait_for(&site, records as u64);
    (site, gateway)
}

#[test]
fn a_living_journal_is_listed_verified_counted_and_exported() {
    let (site, _gateway) = start(200);
    let listed = journal(&site, &["ls"]);
    listed.exits(0);
    assert!(listed.out.starts_with("SEGMENT "), "{}", listed.out);
    assert!(listed.out.lines().nth(1).unwrap().ends_with(" open"), "{}", listed.out);
    assert_eq!(journal(&site, &["ls", "--json"]).json()[0]["state"], "open");

    let verified = journal(&site, &["verify"]);
    assert!(verified.exits(0).starts_with("whole: 200 records, "), "{}", verified.out);

    let counted = journal(&site, &["stats"]);
    counted.exits(0);
    assert!(counted.out.contains("system_notice") && counted.out.contains("50.0 %"), "{}", counted.out);
    let json = &journal(&site, &["stats", "--user", "user_02", "--json"]).json()[0];
    assert_eq!((&json["records"], &json["users"]), (&100.into(), &1.into()));

    let exported = journal(&site, &["export", "--user", "user_02"]).json();
    assert_eq!(exported.len(), 100);
    for (index, line) in exported.iter().enumerate() {
        assert_eq!(line["seq"], index as u64 + 1);
        assert_eq!(line["data"]["payload"]["title"], format!("n-{index:06}"));
        assert_eq!((&line["data"]["user_id"], &line["stream"]), (&"user_02".into(), &"user".into()));
    }
    assert_eq!(journal(&site, &["export", "--type", "margin_call"]).exits(0), "");
    assert_eq!(journal(&site, &["export", "--since", "1h"]).json().len(), 200);
    assert_eq!(journal(&site, &["export", "--until", "1h"]).exits(0), "");

    // What it writes can be published again, here on another bus.
    let bare = journal(&site, &["export", "--bare"]);
    let other = Bus::new();
    other.ctl_with(&["publish", "--from", "-", "--producer", "again"], bare.exits(0)).exits(0);
}

#[test]
fn a_tail_shows_what_comes_and_what_was_and_ends_when_told() {
    let (site, _gateway) = start(20);
    let dir = site.dir.join("journal");
    let tail = ["journal", "tail", "--dir", dir.to_str().unwrap(), "--count", "10", "--seconds", "20"];
    let child = command(&tail).spawn().unwrap();
    // It begins with what comes: give it the time to begin.
    std::thread::sleep(Duration::from_millis(300));
    publish(&site, 5);
    let tailed = finish(child);
    assert_eq!(tailed.exits(0).lines().count(), 10);
    assert!(tailed.out.contains("#11 ") && !tailed.out.contains("#10 "), "{}", tailed.out);
    let all = journal(&site, &["tail", "--since", "1h", "--seconds", "0", "--json"]);
    assert_eq!(all.json().len(), 30);
    journal(&site, &["tail", "--count", "1", "--seconds", "0.1"]).exits(1);
}

#[test]
fn an_altered_journal_is_named_and_an_anchor_finds_one_whose_chain_was_made_anew() {
    let (site, gateway) = start(200);
    drop(gateway);
    let verified = journal(&site, &["verify", "--json"]).json();
    let anchor = verified[0]["newest_link"].as_str().unwrap().to_owned();
    assert!(journal(&site, &["verify", "--anchor", &anchor]).exits(0).contains("anchors: 1 hold"));
    let segment: PathBuf = journal(&site, &["ls", "--json"]).json()[0]["path"].as_str().unwrap().into();
    let bytes = std::fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|text| text == b"n-000050").unwrap();
    let file = OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(b"n-900050", at as u64).unwrap();
    let altered = journal(&site, &["verify"]);
    altered.exits(1);
    altered.says("behind record 100").says("checksum");
    assert!(altered.out.starts_with("NOT WHOLE; read: 100 records"), "{}", altered.out);
    journal(&site, &["export"]).exits(6);
    journal(&site, &["verify", "--anchor", "nonsense"]).exits(2);
    file.write_all_at(b"n-000050", at as u64).unwrap();

    // The last link cut off: the chain alone cannot tell that from one that was not made yet.
    let chain = segment.with_extension("chain");
    let links = OpenOptions::new().write(true).open(&chain).unwrap();
    links.set_len(96 + 199 * 32).unwrap();
    journal(&site, &["verify"]).exits(0);
    let cut = journal(&site, &["verify", "--anchor", &anchor]);
    cut.exits(1);
    cut.says("no link for it");
}

#[test]
fn a_key_is_asked_for_and_another_one_is_refused() {
    let (site, gateway) = start(2);
    drop(gateway);
    let key = site.dir.join("chain.key");
    std::fs::write(&key, "k".repeat(40)).unwrap();
    let refused = journal(&site, &["verify", "--key-file", key.to_str().unwrap()]);
    refused.exits(4);
    refused.says("made without a key");
    std::fs::write(&key, "short").unwrap();
    journal(&site, &["verify", "--key-file", key.to_str().unwrap()]).exits(2);
    journal(&site, &["verify", "--key-file", "/nowhere"]).exits(3);
}

#[test]
fn no_journal_and_none_that_may_be_read_are_told_with_what_to_do() {
    let nothing = ctl(&["journal", "ls", "--dir", "/nowhere"]);
    nothing.exits(3);
    nothing.says("journal.dir");
    let empty = std::env::temp_dir().join(format!("bellwirectl-empty-{}", std::process::id()));
    std::fs::create_dir_all(&empty).unwrap();
    let ran = ctl(&["journal", "stats", "--dir", empty.to_str().unwrap()]);
    std::fs::write(empty.join("0000000000000010.journal"), [7; 300]).unwrap();
    let foreign = ctl(&["journal", "verify", "--dir", empty.to_str().unwrap()]);
    std::fs::remove_dir_all(&empty).unwrap();
    ran.exits(3);
    foreign.exits(6);
    foreign.says("not a journal segment");
}
