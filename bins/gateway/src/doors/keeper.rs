//! Looks after files that may change, and takes a new configuration.
//!
//! A thread of its own, so that a slow disk never holds up connections. Files are looked at by their metadata a few times
//! a second: that sees every way of replacing one (a rename, a symbolic link that is switched, a write in place) and costs
//! next to nothing. Whatever cannot be read or used leaves the last good state in place, and is said in the log.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::{Doors, DoorsError};
use crate::config::{Config, Token};

/// How often files are looked at. Together with the shards' tick and sweep, a revocation is effective within a second.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Looks between two clean-ups of what has ended.
const LOOKS_PER_CLEANUP: u32 = 240;

/// New configurations that wait: a second one replaces nothing, it comes after the first.
const WAITING_MAX: usize = 4;

/// Keeps doors as their files say, until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    configs: SyncSender<Change>,
}

/// A configuration to take over, and where to say whether all of its files could be used.
type Change = (Box<Config>, SyncSender<bool>);

impl Keeper {
    /// Starts the thread. `config` is what the doors were opened with.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(doors: Arc<Doors>, config: &Config) -> std::io::Result<Self> {
        let (configs, receiver) = sync_channel(WAITING_MAX);
        let keeping = Keeping { watched: Watched::all(config), doors, config: config.clone() };
        std::thread::Builder::new().name("doors".to_owned()).spawn(move || keeping.run(&receiver))?;
        Ok(Self { configs })
    }

    /// Takes over what the configuration says of doors; all files are read anew. Waits for that. Whether every file could be
    /// used; what could not is in the log, and what was there before stays.
    pub fn reload(&self, config: Config) -> bool {
        let (reply, answer) = sync_channel(1);
        self.configs.send((Box::new(config), reply)).is_ok() && answer.recv().unwrap_or(false)
    }
}

struct Keeping {
    doors: Arc<Doors>,
    /// As it is in effect.
    config: Config,
    watched: Vec<Watched>,
}

/// What is to be read again when a file changes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Keys,
    Revocations,
    Certificate,
}

impl Keeping {
    fn run(mut self, configs: &Receiver<Change>) {
        let mut looks = 0;
        loop {
            match configs.recv_timeout(LOOK_EVERY) {
                Ok((config, reply)) => {
                    let complete = self.take_over(*config);
                    let _ = reply.send(complete);
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            looks += 1;
            if looks >= LOOKS_PER_CLEANUP {
                looks = 0;
                self.doors.verifier.revocations().forget_ended();
            }
        }
    }

    fn look(&mut self) {
        for part in [Part::Keys, Part::Revocations, Part::Certificate] {
            // All of them are looked at, so that a certificate and its key that change together are read once.
            let changed = self.watched.iter_mut().filter(|watched| watched.part == part);
            if changed.fold(false, |any, watched| watched.has_changed() | any) {
                self.read(part);
            }
        }
    }

    fn take_over(&mut self, config: Config) -> bool {
        self.config = config;
        self.watched = Watched::all(&self.config);
        self.doors.reload_policy(&self.config);
        [Part::Keys, Part::Revocations, Part::Certificate].map(|part| self.read(part)) == [true; 3]
    }

    /// Whether it could be used.
    fn read(&self, part: Part) -> bool {
        let (doors, config) = (&self.doors, &self.config);
        let outcome: Result<(), DoorsError> = match part {
            Part::Keys => doors.verifier.reload(&config.token).map_err(Into::into),
            Part::Revocations => doors.reload_revocations(config).map(drop),
            Part::Certificate => match &doors.tls {
                Some(tls) => tls.reload(&config.listen).map_err(Into::into),
                None => Ok(()),
            },
        };
        match (&outcome, part) {
            (Err(error), _) => tracing::error!(%error, "cannot be used; what was there before stays"),
            (Ok(()), Part::Keys) => tracing::info!(keys = doors.verifier.key_count(), "token keys read"),
            (Ok(()), Part::Revocations) => {
                tracing::info!(entries = doors.verifier.revocations().len(), "revocations read");
            }
            (Ok(()), Part::Certificate) if doors.tls.is_some() => tracing::info!("certificate read"),
            (Ok(()), Part::Certificate) => {}
        }
        outcome.is_ok()
    }
}

/// A file, and how it was when it was last looked at.
struct Watched {
    path: PathBuf,
    part: Part,
    seen: Option<Stamp>,
    /// It has just changed. A write that goes on in the same tick of the file system's clock would not show: look again.
    again: bool,
}

/// Device, inode, length, and the times of the last changes of content and inode.
type Stamp = (u64, u64, u64, [i64; 4]);

impl Watched {
    fn all(config: &Config) -> Vec<Self> {
        let Token { key_file, jwks_file, revocation_file, .. } = &config.token;
        let files = [
            (key_file, Part::Keys),
            (jwks_file, Part::Keys),
            (revocation_file, Part::Revocations),
            (&config.listen.tls_cert, Part::Certificate),
            (&config.listen.tls_key, Part::Certificate),
        ];
        let watched = files.into_iter().filter_map(|(path, part)| {
            let path = path.clone()?;
            // It was read just now, but whether before or after its last change nobody knows.
            Some(Self { seen: stamp(&path), path, part, again: true })
        });
        watched.collect()
    }

    fn has_changed(&mut self) -> bool {
        let now = stamp(&self.path);
        let has_changed = now != self.seen;
        self.seen = now;
        std::mem::replace(&mut self.again, has_changed) | has_changed
    }
}

/// `None` if there is nothing there.
fn stamp(path: &std::path::Path) -> Option<Stamp> {
    let of = std::fs::metadata(path).ok()?;
    Some((of.dev(), of.ino(), of.len(), [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()]))
}
