//! A payload from `--field name=value` flags. The payload's own table decides which fields there are and of what kind.

use bellwire::{FieldSource, MessageType, Payload, Word};

use crate::names;
use crate::output::human;

/// Why flags are not a payload.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum FieldError {
    #[error("--field {0:?}: expected NAME=VALUE")]
    Shape(String),
    #[error("--field {0}: given twice")]
    Twice(String),
    #[error("--field {name}: {message_type} has no such field{}; it has {known}", match .near {
        Some(near) => format!(", did you mean {near}?"),
        None => String::new(),
    })]
    Unknown { name: String, message_type: &'static str, near: Option<&'static str>, known: String },
    #[error("{message_type} also needs {}", .missing.join(" "))]
    Missing { message_type: &'static str, missing: Vec<String> },
    #[error("--field {name}: expected {expected}, found {found:?}")]
    Wrong { name: &'static str, expected: String, found: String },
}

/// The fields as given.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    given: Vec<(&'a str, &'a str)>,
    user_id: &'a str,
    /// What is asked for and not there, with an idea of what it looks like.
    missing: Vec<String>,
}

impl<'a> Fields<'a> {
    /// Takes the flags apart. `user_id` fills a payload's field of that name unless it is given.
    pub(crate) fn new(flags: &'a [String], user_id: &'a str) -> Result<Self, FieldError> {
        let mut given: Vec<(&str, &str)> = Vec::new();
        for flag in flags {
            let (name, value) = flag.split_once('=').ok_or_else(|| FieldError::Shape(flag.clone()))?;
            if given.iter().any(|(earlier, _)| *earlier == name) {
                return Err(FieldError::Twice(name.to_owned()));
            }
            given.push((name, value));
        }
        Ok(Self { given, user_id, missing: Vec::new() })
    }

    /// Builds the payload. All missing fields are named at once.
    pub(crate) fn payload(mut self, message_type: MessageType) -> Result<Payload<'a>, FieldError> {
        let known = message_type.field_names();
        if let Some((name, _)) = self.given.iter().find(|(name, _)| !known.contains(name)) {
            return Err(FieldError::Unknown {
                name: (*name).to_owned(),
                message_type: message_type.name(),
                near: names::nearest(name, known).and_then(|near| known.iter().copied().find(|k| *k == near)),
                known: known.join(", "),
            });
        }
        let payload = Payload::build(message_type, &mut self)?;
        if !self.missing.is_empty() {
            return Err(FieldError::Missing { message_type: message_type.name(), missing: self.missing });
        }
        Ok(payload)
    }

    fn get(&mut self, name: &'static str, looks_like: &str) -> Option<&'a str> {
        let value = self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| *value);
        if value.is_none() {
            self.missing.push(format!("--field {name}={looks_like}"));
        }
        value
    }
}

fn wrong(name: &'static str, expected: impl Into<String>, found: &str) -> FieldError {
    FieldError::Wrong { name, expected: expected.into(), found: found.to_owned() }
}

/// What is missing is noted and stood in for, so that one run finds all of it; [`Fields::payload`] then refuses.
impl<'a> FieldSource<'a> for Fields<'a> {
    type Error = FieldError;

    fn text(&mut self, name: &'static str) -> Result<&'a str, FieldError> {
        if name == "user_id" && !self.given.iter().any(|(given, _)| *given == name) {
            return Ok(self.user_id);
        }
        Ok(self.get(name, "TEXT").unwrap_or_default())
    }

    fn number(&mut self, name: &'static str) -> Result<f64, FieldError> {
        match self.get(name, "NUMBER") {
            None => Ok(0.0),
            Some(text) => text.parse().map_err(|_| wrong(name, "a number", text)),
        }
    }

    fn time(&mut self, name: &'static str) -> Result<i64, FieldError> {
        let is_given = self.given.iter().any(|(given, _)| *given == name);
        if name == "timestamp" && !is_given {
            return Ok(human::now_ns());
        }
        match self.get(name, "TIME") {
            None => Ok(0),
            Some(text) => time(text).ok_or_else(|| {
                wrong(name, "nanoseconds since 1970, 2024-10-05T10:17:36Z, now, or from now +30m", text)
            }),
        }
    }

    fn code(&mut self, name: &'static str) -> Result<u32, FieldError> {
        match self.get(name, "NUMBER") {
            None => Ok(0),
            Some(text) => text.parse().map_err(|_| wrong(name, "an integer from 0 to 4294967295", text)),
        }
    }

    fn word<W: Word>(&mut self, name: &'static str) -> Result<W, FieldError> {
        let words: Vec<_> = W::ALL.iter().map(|word| word.as_str()).collect();
        match self.get(name, &words.join("|")) {
            // Stands in for what is missing; every word type has a first value.
            None => W::ALL.first().copied().ok_or_else(|| wrong(name, "a word", "")),
            Some(text) => W::from_word(text).ok_or_else(|| wrong(name, words.join(" or "), text)),
        }
    }
}

/// Nanoseconds, an instant in RFC 3339, `now`, or `+` and a duration from now.
pub(crate) fn time(text: &str) -> Option<i64> {
    if let Some(later) = text.strip_prefix('+') {
        let later = names::duration(later).ok()?;
        return human::now_ns().checked_add(i64::try_from(later.as_nanos()).ok()?);
    }
    if text == "now" {
        return Some(human::now_ns());
    }
    text.parse().ok().or_else(|| {
        let instant = humantime::parse_rfc3339_weak(text).ok()?;
        i64::try_from(instant.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos()).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(message_type: MessageType, flags: &[&str]) -> Result<(), String> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let fields = Fields::new(&flags, "user_01").map_err(|error| error.to_string())?;
        fields.payload(message_type).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        assert_eq!(
            build(MessageType::MarginCall, &["current_margin=1"]).unwrap_err(),
            "margin_call also needs --field required_margin=NUMBER --field deadline=TIME --field message=TEXT"
        );
        let missing = build(MessageType::SystemNotice, &["title=a", "content=b"]).unwrap_err();
        assert_eq!(missing, "system_notice also needs --field level=INFO|WARNING|ERROR");
    }

    #[test]
    fn a_misspelt_or_wrong_field_is_named() {
        let unknown = build(MessageType::MarginCall, &["current_margn=1"]).unwrap_err();
        assert!(unknown.contains("did you mean current_margin?"), "{unknown}");
        let wrong = build(MessageType::SystemNotice, &["title=a", "content=b", "level=info"]).unwrap_err();
        assert_eq!(wrong, "--field level: expected INFO or WARNING or ERROR, found \"info\"");
        assert!(build(MessageType::SystemNotice, &["title"]).unwrap_err().contains("NAME=VALUE"));
        assert!(build(MessageType::SystemNotice, &["title=a", "title=b"]).unwrap_err().contains("twice"));
    }

    #[test]
    fn a_payload_takes_the_user_and_the_time_from_around_it() {
        let flags = ["instrument_id=IX2401", "float_profit=-1.5", "close_profit=0", "settle_price=9"];
        assert_eq!(build(MessageType::PositionProfit, &flags), Ok(()));
        assert_eq!(time("2024-10-05T10:17:36.789012345Z"), Some(1_728_123_456_789_012_345));
        assert!(time("+30m").unwrap() > human::now_ns() && time("soon").is_none());
    }
}
