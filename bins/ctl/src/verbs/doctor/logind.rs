//! Whether systemd-logind would remove segments when their user logs out.
//!
//! With `RemoveIPC=yes`, which is its default, it removes whatever a user that is none of the system's has in /dev/shm once
//! the last of that user's sessions is over, whoever is using it.

use std::fs;
use std::path::Path;

use super::finding::{Finding, Severity};
use crate::bus::Picture;

/// The least uid of people; below are the system's users, whom logind spares. 1000 on every distribution that we know.
const UID_OF_PEOPLE: u32 = 1000;

/// Where its configuration stands, the most important last.
const PLACES: [&str; 4] = ["usr/lib/systemd", "usr/local/lib/systemd", "run/systemd", "etc/systemd"];

pub(super) fn examine(pictures: &[Picture], findings: &mut Vec<Finding>) {
    let root = Path::new("/");
    if !is_running(root) {
        findings.push(Finding::ok("remove-ipc", "machine", "no systemd-logind runs here"));
        return;
    }
    if !removes(root) {
        findings.push(Finding::ok("remove-ipc", "machine", "systemd-logind leaves segments alone"));
        return;
    }
    let segments = pictures.iter().flat_map(|picture| &picture.segments);
    let mut users: Vec<u32> =
        segments.map(|segment| segment.uid).filter(|uid| is_at_risk(root, *uid)).collect();
    users.sort_unstable();
    users.dedup();
    if users.is_empty() {
        let what = "RemoveIPC=yes, but all segments are of users that systemd-logind spares";
        findings.push(Finding::ok("remove-ipc", "machine", what));
    }
    for uid in users {
        let what = format!(
            "RemoveIPC=yes: once uid {uid} has logged out everywhere, systemd-logind removes its segments, in use or not"
        );
        findings.push(Finding::new(Severity::Bad, "remove-ipc", format!("uid {uid}"), what).next(format!(
            "RemoveIPC=no in /etc/systemd/logind.conf, `loginctl enable-linger` for that user, or run producers and \
             gateway as a system user (uid below {UID_OF_PEOPLE})"
        )));
    }
}

fn is_running(root: &Path) -> bool {
    // It makes both when it starts.
    root.join("run/systemd/users").is_dir() && root.join("run/systemd/seats").is_dir()
}

fn is_at_risk(root: &Path, uid: u32) -> bool {
    if uid < UID_OF_PEOPLE {
        return false;
    }
    // One who lingers is never logged out.
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    !user.is_some_and(|user| root.join("var/lib/systemd/linger").join(user.name).exists())
}

/// What the configuration says: the last word of the main file and of the fragments, in the order of their names.
fn removes(root: &Path) -> bool {
    let mut removes = true;
    let main = PLACES.iter().rev().map(|place| root.join(place).join("logind.conf"));
    if let Some(text) = main.into_iter().find_map(|path| fs::read_to_string(path).ok()) {
        removes = said(&text).unwrap_or(removes);
    }
    // Of fragments with one name, that of the more important place counts.
    let mut fragments = std::collections::BTreeMap::new();
    for place in PLACES {
        for entry in fs::read_dir(root.join(place).join("logind.conf.d")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "conf") {
                fragments.insert(entry.file_name(), entry.path());
            }
        }
    }
    for path in fragments.values() {
        removes = fs::read_to_string(path).ok().and_then(|text| said(&text)).unwrap_or(removes);
    }
    removes
}

/// The last value of RemoveIPC= in a file, if there is one.
fn said(text: &str) -> Option<bool> {
    let values = text.lines().filter_map(|line| line.trim().strip_prefix("RemoveIPC"));
    let mut values = values.filter_map(|rest| rest.trim_start().strip_prefix('='));
    values.next_back().map(|value| !matches!(value.trim(), "no" | "n" | "false" | "f" | "off" | "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_of_logind_s_configuration_counts() {
        let root = std::env::temp_dir().join(format!("bellwirectl-logind-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        fs::create_dir_all(&root).unwrap();
        assert!(!is_running(&root));
        assert!(removes(&root), "the default");
        write("etc/systemd/logind.conf", "[Login]\n#RemoveIPC=no\n");
        assert!(removes(&root), "a comment");
        write("etc/systemd/logind.conf", "[Login]\nRemoveIPC = no\n");
        assert!(!removes(&root));
        write("usr/lib/systemd/logind.conf.d/10-ipc.conf", "[Login]\nRemoveIPC=yes\n");
        assert!(removes(&root), "a fragment stands above the main file");
        write("etc/systemd/logind.conf.d/10-ipc.conf", "[Login]\nRemoveIPC=off\n");
        assert!(!removes(&root), "the same fragment in /etc");
        assert!(!is_at_risk(&root, 0) && !is_at_risk(&root, 998) && is_at_risk(&root, 1000));
        fs::remove_dir_all(&root).unwrap();
    }
}
