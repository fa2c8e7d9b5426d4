//! Where a target's files stand: in memory, under names that the program that runs the targets can remove.

use std::path::PathBuf;

/// A name that no other process has: `BELLWIRE_FUZZ_RUN`, if set, and the pid.
pub fn name() -> String {
    let run = std::env::var("BELLWIRE_FUZZ_RUN").unwrap_or_else(|_| "0".to_owned());
    format!("fuzz-{run}-{}", std::process::id())
}

/// An empty directory of this process.
pub fn dir() -> PathBuf {
    let dir = PathBuf::from("/dev/shm").join(name());
    let _ = std::fs::remove_dir_all(&dir); // of a process before us that had our pid
    std::fs::create_dir(&dir).expect("a directory in /dev/shm");
    dir
}
