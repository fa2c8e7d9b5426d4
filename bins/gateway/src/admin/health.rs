//! Whether the gateway lives, and whether it should be given clients.

use super::watched::Watched;

/// One reason for or against.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// What is wrong, if it is.
    pub(super) fault: Option<&'static str>,
}

/// A gateway that fails one of these will not come back by itself: restart it.
pub(super) fn live(watched: &Watched) -> Vec<Check> {
    vec![
        check("broker", watched.broker.has_failed(), "the broker has ended with an error; see the log"),
        check("progress", watched.is_broker_stuck(), "the broker has not gone on for 3 s"),
    ]
}

/// A gateway that fails one of these should get no new clients now.
pub(super) fn ready(watched: &Watched) -> Vec<Check> {
    let mut checks = live(watched);
    checks.push(check(
        "journal",
        watched.broker.is_disk_full(),
        "there is no room for the journal: nothing is read until there is",
    ));
    checks.push(check("draining", watched.is_draining(), "the gateway is being stopped"));
    checks
}

fn check(name: &'static str, fails: bool, fault: &'static str) -> Check {
    Check { name, fault: fails.then_some(fault) }
}

/// One line a check, and whether all are well.
pub(super) fn report(checks: &[Check]) -> (bool, String) {
    let lines = checks.iter().map(|check| match check.fault {
        None => format!("{}: ok\n", check.name),
        Some(fault) => format!("{}: {fault}\n", check.name),
    });
    (checks.iter().all(|check| check.fault.is_none()), lines.collect())
}
