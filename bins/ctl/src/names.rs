//! Small parsers of what people type: priorities, channels, types, durations.

use std::time::Duration;

use bellwire::{Channel, MessageType, Priority};

use crate::output::human;

/// `0` to `3`, or `P0` to `P3`.
pub(crate) fn priority(text: &str) -> Result<Priority, String> {
    let digits = text.strip_prefix(['P', 'p']).unwrap_or(text);
    digits
        .parse()
        .ok()
        .and_then(Priority::from_number)
        .ok_or_else(|| "expected 0, 1, 2 or 3 (0 is the most urgent)".to_owned())
}

/// One of the five channels.
pub(crate) fn channel(text: &str) -> Result<Channel, String> {
    Channel::from_name(text).ok_or_else(|| {
        let names = Channel::ALL.map(Channel::name);
        format!("no such channel; there are {}", names.join(", "))
    })
}

/// One of the nineteen types; a near miss is answered with the name that was probably meant.
pub(crate) fn message_type(text: &str) -> Result<MessageType, String> {
    MessageType::from_name(text).ok_or_else(|| {
        let names: Vec<_> = MessageType::ALL.iter().map(|kind| kind.name()).collect();
        match nearest(text, &names) {
            Some(name) => format!("no such type; did you mean {name}?"),
            None => format!("no such type; there are {}", names.join(", ")),
        }
    })
}

/// `500ms`, `30s`, `1h 30m`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; examples: 500ms, 30s, 1h 30m"))
}

/// `5m` (ago), `now`, a time in RFC 3339, or nanoseconds since the Unix epoch.
pub(crate) fn instant(text: &str) -> Result<i64, String> {
    if text == "now" {
        return Ok(human::now_ns());
    }
    if let Ok(ns) = text.parse() {
        return Ok(ns);
    }
    if let Ok(ago) = humantime::parse_duration(text) {
        let ago = i64::try_from(ago.as_nanos()).map_err(|_| "too long ago".to_owned())?;
        return Ok(human::now_ns().saturating_sub(ago));
    }
    let instant = humantime::parse_rfc3339_weak(text)
        .map_err(|_| "expected a time; examples: 5m (ago), now, 2026-11-26T19:00:00Z".to_owned())?;
    let since = instant.duration_since(std::time::UNIX_EPOCH).map_err(|_| "before 1970".to_owned())?;
    i64::try_from(since.as_nanos()).map_err(|_| "beyond 2262".to_owned())
}

/// The known name that a misspelt one is closest to, if one is close enough to be worth asking.
pub(crate) fn nearest<'a>(text: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|name| (distance(text, name), *name));
    let (edits, name) = scored.min_by_key(|(edits, _)| *edits)?;
    // Two letters turned around are two edits.
    (edits <= (name.len() / 3).max(2) && edits < name.len()).then_some(name)
}

/// Levenshtein distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_names_what_was_meant() {
        assert_eq!(message_type("margin_cal"), Err("no such type; did you mean margin_call?".to_owned()));
        assert!(message_type("zzz").unwrap_err().contains("order_accepted, order_rejected"));
        assert_eq!(message_type("order_filled"), Ok(MessageType::OrderFilled));
    }

    #[test]
    fn instants_are_ago_or_absolute() {
        assert_eq!(instant("1728123456000000000"), Ok(1_728_123_456_000_000_000));
        assert_eq!(instant("2024-10-05T10:17:36Z"), Ok(1_728_123_456_000_000_000));
        let then = instant("5m").unwrap();
        let ago = human::now_ns() - then;
        assert!((300_000_000_000..310_000_000_000).contains(&ago), "{ago}");
        for wrong in ["", "yesterday", "5 parsecs", "1969-01-01T00:00:00Z"] {
            assert!(instant(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_take_units_and_bare_seconds() {
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert!(duration("-1").is_err() && duration("soon").is_err());
    }
}
