//! What the user is told when a verb cannot do its work: what went wrong, and what to do next.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use bellwire::OpenError;
use bellwire::inspect;

use crate::exit::Exit;
use crate::names;

/// The end of a run that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Empty: end without a word (the reader of our output went away).
    what: String,
    next: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl fmt::Display) -> Self {
        Self { exit, what: what.to_string(), next: None }
    }

    /// The same with a hint on what to do next.
    pub(crate) fn next(self, hint: impl Into<String>) -> Self {
        Self { next: Some(hint.into()), ..self }
    }

    /// The same with another exit code.
    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    /// A fault of writing to standard output.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { exit: Exit::Ok, what: String::new(), next: None };
        }
        Self::new(Exit::Wrong, format!("standard output: {error}"))
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, error: &io::Error) -> Self {
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::Nothing,
            io::ErrorKind::PermissionDenied => Exit::Refused,
            _ => Exit::Wrong,
        };
        Self::new(exit, format!("{}: {error}", path.display()))
    }

    /// A lane that cannot be opened; one that is not there is answered with those that are.
    pub(crate) fn lane(bus: &str, lane: &str, error: OpenError) -> Self {
        let is_missing = matches!(error, OpenError::NotFound { .. });
        let failure = Self::from(error);
        if !is_missing {
            return failure;
        }
        let segments = inspect::segments(bus).unwrap_or_default();
        let lanes: Vec<_> = segments
            .iter()
            .filter(|segment| segment.kind == bellwire::SegmentKind::Lane)
            .map(|segment| segment.name.as_str())
            .collect();
        match (names::nearest(lane, &lanes), lanes.as_slice()) {
            (Some(near), _) => {
                failure.next(format!("did you mean {near}? lanes on bus {bus}: {}", lanes.join(", ")))
            }
            (None, []) => failure.next(no_lanes(bus)),
            (None, _) => failure.next(format!("lanes on bus {bus}: {}", lanes.join(", "))),
        }
    }

    /// What went wrong, and what to do next.
    pub(crate) fn into_words(self) -> (String, Option<String>) {
        (self.what, self.next)
    }

    pub(crate) fn print(&self) {
        if self.what.is_empty() {
            return;
        }
        words(&self.what);
        if let Some(next) = &self.next {
            for line in next.lines() {
                let _ = writeln!(io::stderr(), "  {line}");
            }
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::from(&error)
    }
}

impl From<&OpenError> for Failure {
    fn from(error: &OpenError) -> Self {
        use io::ErrorKind::{NotFound, PermissionDenied};
        let (exit, next) = match error {
            OpenError::Name(_) | OpenError::Capacity { .. } | OpenError::Capacities { .. } => {
                (Exit::Usage, None)
            }
            OpenError::NoSuchGroup { .. } => (Exit::Usage, Some("`getent group` lists the groups")),
            OpenError::NotFound { .. } => (Exit::Nothing, Some("`bellwirectl ls` shows what is there")),
            OpenError::InUse { .. } => (
                Exit::Busy,
                Some("end that process, or publish under another name: a producer has its lane for itself"),
            ),
            OpenError::ForeignOwner { .. } => (
                Exit::Refused,
                Some(
                    "if that group is the one your producers use, name it with --group or BELLWIRE_GROUP; else run as that user",
                ),
            ),
            OpenError::Io { source, .. } if source.kind() == PermissionDenied => (
                Exit::Refused,
                Some("join the segment's group (`bellwirectl ls` shows it), or run as its user"),
            ),
            OpenError::Io { source, .. } if source.kind() == NotFound => (Exit::Nothing, None),
            OpenError::NotAFile { .. } | OpenError::Writable { .. } => (
                Exit::Unusable,
                Some("no Bellwire process makes such a segment: find out who did, then remove it"),
            ),
            OpenError::Identity { .. } | OpenError::Corrupt { .. } => (
                Exit::Unusable,
                Some(
                    "use the bellwirectl of the build that made it; if that is no longer in use, remove the file",
                ),
            ),
            OpenError::Replaced { .. } | OpenError::NoTurn { .. } => (Exit::Busy, None),
            OpenError::NoSpace { .. } | OpenError::TooManyConsumers { .. } => (Exit::Busy, None),
            _ => (Exit::Wrong, None),
        };
        let failure = Self::new(exit, error);
        match next {
            Some(hint) => failure.next(hint),
            None => failure,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

/// Says something on standard error. Nobody listening there is no reason to fail.
pub(crate) fn words(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "bellwirectl: {text}");
}

/// What to say of a bus without lanes.
pub(crate) fn no_lanes(bus: &str) -> String {
    let others: Vec<_> = inspect::buses().into_iter().filter(|other| other != bus).collect();
    if others.is_empty() {
        "no bus is on this machine: it comes with its first producer or gateway".to_owned()
    } else {
        format!("bus {bus} has no lanes; other buses here: {} (choose one with --bus)", others.join(", "))
    }
}
