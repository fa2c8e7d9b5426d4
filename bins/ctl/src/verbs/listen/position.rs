//! Where the client stands in each stream, and the one rule: `prev` must be where we stand, then we stand at `seq`.
//!
//! Pure: no socket and no clock.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::frame::Step;

/// The two streams of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StreamName {
    /// The user's own notifications.
    User,
    /// Those for everybody.
    All,
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::All => "all",
        })
    }
}

/// A place in a stream: everything up to and including `seq` was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Position {
    pub(crate) epoch: String,
    pub(crate) seq: u64,
}

/// The places in both streams, as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Positions {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) user: Option<Position>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) all: Option<Position>,
}

/// A step that does not follow from where we stand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Gap {
    #[error("gap in stream {stream}: we stand at {position}, the frame goes from {prev} to {seq}")]
    Missing { stream: StreamName, position: u64, prev: u64, seq: u64 },
    #[error("stream {stream}: the frame goes backwards, from {prev} to {seq}")]
    Backwards { stream: StreamName, prev: u64, seq: u64 },
    #[error("stream {stream}: epoch {found} without a resync; we stand in {expected}")]
    Epoch { stream: StreamName, expected: String, found: String },
    #[error("stream {stream}: a frame before the gateway announced where the stream begins")]
    Unannounced { stream: StreamName },
}

impl Positions {
    pub(crate) fn get(&self, stream: StreamName) -> Option<&Position> {
        match stream {
            StreamName::User => self.user.as_ref(),
            StreamName::All => self.all.as_ref(),
        }
    }

    pub(crate) fn set(&mut self, stream: StreamName, position: Position) {
        match stream {
            StreamName::User => self.user = Some(position),
            StreamName::All => self.all = Some(position),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.user.is_none() && self.all.is_none()
    }

    /// Checks a step against the rule. The position stays: the caller moves it item by item.
    pub(crate) fn check(&self, step: &Step) -> Result<(), Gap> {
        let Step { stream, ref epoch, prev, seq } = *step;
        let position = self.get(stream).ok_or(Gap::Unannounced { stream })?;
        if position.epoch != *epoch {
            let expected = position.epoch.clone();
            return Err(Gap::Epoch { stream, expected, found: epoch.clone() });
        }
        if prev != position.seq {
            return Err(Gap::Missing { stream, position: position.seq, prev, seq });
        }
        if seq < prev {
            return Err(Gap::Backwards { stream, prev, seq });
        }
        Ok(())
    }

    /// Moves on to `seq`, which lies in a step that was checked.
    pub(crate) fn advance(&mut self, stream: StreamName, seq: u64) {
        let position = match stream {
            StreamName::User => self.user.as_mut(),
            StreamName::All => self.all.as_mut(),
        };
        if let Some(position) = position {
            position.seq = seq;
        }
    }
}

/// `user=EPOCH:SEQ,all=EPOCH:SEQ`, either part alone too.
impl FromStr for Positions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut positions = Self::default();
        for part in text.split(',') {
            let wrong =
                || format!("{part:?}: expected user=EPOCH:SEQ or all=EPOCH:SEQ, for example user=e9c1:41");
            let (name, place) = part.split_once('=').ok_or_else(wrong)?;
            let (epoch, seq) = place.rsplit_once(':').ok_or_else(wrong)?;
            let stream = match name {
                "user" => StreamName::User,
                "all" => StreamName::All,
                _ => return Err(wrong()),
            };
            if epoch.is_empty() || positions.get(stream).is_some() {
                return Err(wrong());
            }
            let seq = seq.parse().map_err(|_| wrong())?;
            positions.set(stream, Position { epoch: epoch.to_owned(), seq });
        }
        Ok(positions)
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut comma = "";
        for stream in [StreamName::User, StreamName::All] {
            if let Some(Position { epoch, seq }) = self.get(stream) {
                write!(f, "{comma}{stream}={epoch}:{seq}")?;
                comma = ",";
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(prev: u64, seq: u64) -> Step {
        Step { stream: StreamName::User, epoch: "e".to_owned(), prev, seq }
    }

    #[test]
    fn only_a_step_from_where_we_stand_is_taken() {
        let mut positions: Positions = "user=e:41".parse().unwrap();
        assert_eq!(positions.check(&step(41, 45)), Ok(()));
        positions.advance(StreamName::User, 45);
        assert_eq!(positions.check(&step(45, 45)), Ok(()));
        let gap = Gap::Missing { stream: StreamName::User, position: 45, prev: 46, seq: 47 };
        assert_eq!(positions.check(&step(46, 47)), Err(gap));
        assert!(matches!(positions.check(&step(44, 47)), Err(Gap::Missing { .. })));
        assert!(matches!(positions.check(&step(45, 44)), Err(Gap::Backwards { .. })));
        let other = Step { epoch: "f".to_owned(), ..step(45, 46) };
        assert!(matches!(positions.check(&other), Err(Gap::Epoch { .. })));
        let all = Step { stream: StreamName::All, ..step(0, 1) };
        assert_eq!(positions.check(&all), Err(Gap::Unannounced { stream: StreamName::All }));
    }

    #[test]
    fn positions_are_written_as_they_are_read() {
        let text = "user=e9c1:41,all=b002:4";
        assert_eq!(text.parse::<Positions>().unwrap().to_string(), text);
        for bad in ["", "user", "user=41", "user=:41", "user=e:-1", "me=e:1", "user=e:1,user=e:2"] {
            assert!(bad.parse::<Positions>().is_err(), "{bad}");
        }
    }
}
