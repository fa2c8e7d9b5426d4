//! Whole runs, with real processes: a short one is clean, and each kind of fault that is put into one is noticed and named.

use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// The run starts the gateway that lies beside it; `cargo test` of this package alone does not build it. Whoever sets
/// BELLWIRE_GATEWAY has.
fn build_gateway() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        if std::env::var_os("BELLWIRE_GATEWAY").is_some() {
            return;
        }
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--package", "bellwire-gateway"]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the gateway does not build");
    });
}

/// One run at a time: each takes a whole machine.
fn torture(arguments: &[&str]) -> (Output, serde_json::Value) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    build_gateway();
    let output = Command::new(env!("CARGO_BIN_EXE_bellwire-torture"))
        .args(["--json", "--clients", "24", "--rate", "1500"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output, report)
}

#[test]
fn a_short_run_with_kills_is_clean() {
    let (output, report) = torture(&["--seconds", "6", "--seed", "5", "--events", "240"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report["clean"], true);
    let kills: u64 = report["kills"].as_object().unwrap().values().filter_map(|count| count.as_u64()).sum();
    assert!(kills >= 5, "{report}");
    assert!(report["counts"]["delivered"].as_u64().unwrap() > 3_000, "{report}");
    assert!(report["counts"]["resumes"].as_u64().unwrap() > 10, "{report}");
}

#[test]
fn a_fault_of_each_kind_is_noticed_and_named() {
    for (sabotage, fault) in
        [("lose", "lost"), ("double", "doubled"), ("reorder", "reordered"), ("foreign", "foreign")]
    {
        let (output, report) = torture(&["--seconds", "4", "--seed", "6", "--sabotage", sabotage]);
        assert_eq!(output.status.code(), Some(1), "{sabotage}: {report}");
        assert_eq!(report["faults"], serde_json::json!({ fault: 1 }), "{sabotage}");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            words.contains("Seed 6; again with:") && words.contains("scripts/torture --seed 6"),
            "{words}"
        );
    }
}
