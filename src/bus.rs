//! Names: a bus, its lanes and its consumers, and the files that hold their segments.
//!
//! A segment is a file `/dev/shm/bellwire.<bus>.lane.<producer>` or `/dev/shm/bellwire.<bus>.cursors.<consumer>`.

use std::path::{Path, PathBuf};

/// The bus that is meant when nobody names one.
pub const DEFAULT_BUS: &str = "main";

/// Longest name of a bus, a producer or a consumer, in bytes.
pub const NAME_LEN_MAX: usize = 48;

/// Most lanes that a reader attaches to on one bus.
pub const LANES_MAX: usize = if cfg!(bellwire_loom) { 2 } else { 64 };

/// Most consumers that one bus has.
pub const CONSUMERS_MAX: usize = if cfg!(bellwire_loom) { 2 } else { 16 };

/// Where POSIX shared memory lives on Linux.
pub(crate) const SHM_DIR: &str = "/dev/shm";

/// A name that cannot be part of a segment's file name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} name {name:?}: use 1 to {max} characters of a-z, 0-9, - and _", max = NAME_LEN_MAX)]
pub struct NameError {
    /// `bus`, `producer` or `consumer`.
    pub what: &'static str,
    /// The name.
    pub name: String,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SegmentKind {
    /// A producer's rings.
    Lane,
    /// A consumer's cursors.
    Cursors,
}

impl SegmentKind {
    /// The word in the file name.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lane => "lane",
            Self::Cursors => "cursors",
        }
    }

    /// Who owns a segment of that kind.
    pub(crate) const fn owner(self) -> &'static str {
        match self {
            Self::Lane => "producer",
            Self::Cursors => "consumer",
        }
    }
}

/// Checks a name.
///
/// # Errors
/// [`NameError`] says what is allowed.
pub fn check_name(what: &'static str, name: &str) -> Result<(), NameError> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
    if (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(NameError { what, name: name.to_owned() })
    }
}

/// The file name of a segment.
pub(crate) fn segment_file(bus: &str, kind: SegmentKind, name: &str) -> Result<String, NameError> {
    check_name("bus", bus)?;
    check_name(kind.owner(), name)?;
    Ok(format!("bellwire.{bus}.{}.{name}", kind.word()))
}

/// The path of a segment's file.
pub(crate) fn segment_path(file: &str) -> PathBuf {
    Path::new(SHM_DIR).join(file)
}

/// Takes a file name apart: bus, kind, name. `None` if it is not a segment's.
pub(crate) fn parse_segment_file(file: &str) -> Option<(&str, SegmentKind, &str)> {
    let mut parts = file.strip_prefix("bellwire.")?.split('.');
    let (bus, word, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = match word {
        "lane" => SegmentKind::Lane,
        "cursors" => SegmentKind::Cursors,
        _ => return None,
    };
    let is_name = |name| check_name("", name).is_ok();
    (parts.next().is_none() && is_name(bus) && is_name(name)).then_some((bus, kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_file_name_says_bus_kind_and_name_and_nothing_else_is_one() {
        let file = segment_file("main", SegmentKind::Lane, "matching-engine").unwrap();
        assert_eq!(file, "bellwire.main.lane.matching-engine");
        assert_eq!(parse_segment_file(&file), Some(("main", SegmentKind::Lane, "matching-engine")));
        for other in ["bellwire.main.lane", "bellwire.main.lane.a.b", "bellwire.main.lane.A", "x.main.lane.a"]
        {
            assert_eq!(parse_segment_file(other), None, "{other}");
        }
        for bad in ["", "a/b", "..", "Ünï", &"x".repeat(49)] {
            assert!(segment_file("main", SegmentKind::Cursors, bad).is_err(), "{bad}");
        }
    }
}
