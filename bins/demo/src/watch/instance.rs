//! What one run of the demo has on the machine, and what killed runs left there.
//!
//! A run has a directory `bellwire-demo-PID` in the temporary directory, with a file in it that it keeps locked, and the
//! bus `demo-PID`. The kernel releases the lock however the run ends, so whoever gets the lock of a directory knows that
//! its run is dead.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PREFIX: &str = "bellwire-demo-";
const BUS_PREFIX: &str = "demo-";
const LOCK: &str = "lock";

/// A directory without a lock file is one that is just being made, or one that is very old.
const YOUNG: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
#[error("cannot prepare {}: {error}", path.display())]
pub(crate) struct InstanceError {
    path: PathBuf,
    error: io::Error,
}

/// This run. Dropping it removes what the run has on the machine; its processes must have ended before.
pub(crate) struct Instance {
    dir: PathBuf,
    bus: String,
    /// Locked until this process ends.
    _lock: File,
}

impl Instance {
    /// Cleans up after dead runs and makes room for this one.
    pub(crate) fn create() -> Result<Self, InstanceError> {
        let temp = std::env::temp_dir();
        clean(&temp);
        let pid = std::process::id();
        let bus = format!("{BUS_PREFIX}{pid}");
        let dir = temp.join(format!("{PREFIX}{pid}"));
        let fail = |error| InstanceError { path: dir.clone(), error };
        // A cleaner that looks between two of our steps may take the directory away; then it is made once more.
        for _ in 0..10 {
            match DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => remove_if_dead(&dir),
                Err(error) => return Err(fail(error)),
                Ok(()) => {}
            }
            let lock = match open_lock(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(fail)?,
            };
            if lock.try_lock().is_ok() && is_still_there(&dir, &lock) {
                return Ok(Self { dir, bus, _lock: lock });
            }
        }
        Err(fail(io::Error::other("it belongs to somebody who will not let go")))
    }

    pub(crate) fn bus(&self) -> &str {
        &self.bus
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Processes that were killed a moment ago let go of their segments when the kernel gets to it. What cannot be
        // removed now, the next run removes.
        for _ in 0..50 {
            let _ = bellwire::inspect::remove_unheld(&self.bus);
            if bellwire::inspect::segments(&self.bus).is_ok_and(|left| left.is_empty()) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn open_lock(dir: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join(LOCK))
}

/// Whether the file that we locked is the one that has the name.
fn is_still_there(dir: &Path, lock: &File) -> bool {
    let named = fs::metadata(dir.join(LOCK)).map(|named| (named.dev(), named.ino()));
    let held = lock.metadata().map(|held| (held.dev(), held.ino()));
    matches!((named, held), (Ok(named), Ok(held)) if named == held)
}

/// Removes what runs left that were killed: their directories, then segments of buses that nobody holds at all.
fn clean(temp: &Path) {
    let Ok(entries) = fs::read_dir(temp) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) {
            remove_if_dead(&entry.path());
        }
    }
    for bus in bellwire::inspect::buses() {
        if bus.strip_prefix(BUS_PREFIX).is_some_and(|pid| pid.bytes().all(|byte| byte.is_ascii_digit())) {
            remove_bus_if_dead(&bus);
        }
    }
}

/// A run that lives holds at least its gateway's segment, from before its first lane until after its last.
fn remove_bus_if_dead(bus: &str) {
    let Ok(segments) = bellwire::inspect::segments(bus) else { return };
    if segments.iter().all(|segment| segment.held == Some(false)) {
        let _ = bellwire::inspect::remove_unheld(bus);
    }
}

fn remove_if_dead(dir: &Path) {
    let dead = match OpenOptions::new().write(true).open(dir.join(LOCK)) {
        // Kept open, and locked, until the directory is gone.
        Ok(lock) => match lock.try_lock() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return,
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_young(dir) => None,
        // Just being made, or another user's.
        Err(_) => return,
    };
    let _ = fs::remove_dir_all(dir);
    drop(dead);
}

fn is_young(dir: &Path) -> bool {
    let age = fs::metadata(dir).and_then(|metadata| metadata.modified()).map(|made| made.elapsed());
    !matches!(age, Ok(Ok(age)) if age > YOUNG)
}
