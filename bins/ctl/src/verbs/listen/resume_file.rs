//! A file that remembers where a listener stood, so that the next one goes on from there.
//!
//! It is written after the notifications were printed, by renaming a finished file over the old one: a listener that
//! is killed in between prints some notifications a second time, and never skips one.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::position::Positions;
use crate::exit::Exit;
use crate::failure::Failure;

/// Saved at most this often while notifications arrive.
pub(crate) const EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    user_id: String,
    streams: Positions,
}

/// The file and what it holds.
#[derive(Debug)]
pub(crate) struct ResumeFile {
    path: PathBuf,
    /// Whose positions were loaded.
    user_id: Option<String>,
    saved: Positions,
    saved_at: Option<Instant>,
}

impl ResumeFile {
    /// Loads the file; none there is the normal start.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let saved: Option<Saved> = match fs::read_to_string(path) {
            Ok(text) => Some(serde_json::from_str(&text).map_err(|error| {
                Failure::new(Exit::Wrong, format!("{}: not a resume file: {error}", path.display()))
                    .next("delete it to start with what is new")
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(Failure::file(path, &error)),
        };
        let (user_id, saved) = match saved {
            Some(Saved { user_id, streams }) => (Some(user_id), streams),
            None => (None, Positions::default()),
        };
        Ok(Self { path: path.to_owned(), user_id, saved, saved_at: None })
    }

    pub(crate) fn positions(&self) -> &Positions {
        &self.saved
    }

    /// Whether the file is behind these positions.
    pub(crate) fn is_behind(&self, positions: &Positions) -> bool {
        self.saved != *positions
    }

    /// Another user's positions would make no sense.
    pub(crate) fn check_user(&self, user_id: &str) -> Result<(), Failure> {
        match &self.user_id {
            Some(owner) if owner != user_id => Err(Failure::new(
                Exit::Wrong,
                format!("{}: holds positions of {owner:?}, the token is {user_id:?}'s", self.path.display()),
            )
            .next("use one resume file a user")),
            _ => Ok(()),
        }
    }

    /// Saves the positions if they changed and the last time is long enough ago, or if it is the `last` chance.
    pub(crate) fn save(&mut self, user_id: &str, positions: &Positions, last: bool) -> Result<(), Failure> {
        if !self.is_behind(positions) || (!last && self.saved_at.is_some_and(|at| at.elapsed() < EVERY)) {
            return Ok(());
        }
        self.write(user_id, positions).map_err(|error| Failure::file(&self.path, &error))?;
        self.saved = positions.clone();
        self.saved_at = Some(Instant::now());
        self.user_id = Some(user_id.to_owned());
        Ok(())
    }

    fn write(&self, user_id: &str, positions: &Positions) -> io::Result<()> {
        let saved = Saved { user_id: user_id.to_owned(), streams: positions.clone() };
        let mut text = serde_json::to_vec(&saved)?;
        text.push(b'\n');
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", std::process::id()));
        let finished = self.path.with_file_name(name);
        fs::write(&finished, text)?;
        fs::rename(&finished, &self.path)
    }
}
