//! The JSON form of a notification, written from an archive and read from a line. Feature `json`.
//!
//! Keys and their order are those of the owner's table: `message_id`, `message_type`, `user_id`, `priority`,
//! `timestamp`, `source`, `payload`; the payload begins with `type`. Times are integers of nanoseconds, beyond 2^53: a
//! JavaScript client that needs every digit reads them as BigInt.

mod read;
mod write;

pub use read::{JsonError, parse};
pub use write::write;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::notification::*;
    use crate::record::{RECORD_HEADER_LEN, RecordHeader, to_record};

    fn to_json(notification: &Notification<'_>) -> String {
        let record = to_record(notification, 5, 0, 1_728_123_456_000_000_001).unwrap();
        let header = RecordHeader::from_bytes(record[..RECORD_HEADER_LEN].try_into().unwrap());
        let archive = &record[RECORD_HEADER_LEN..RECORD_HEADER_LEN + header.archive_len as usize];
        let mut line = Vec::new();
        write(&header.view(archive).unwrap(), &mut line);
        String::from_utf8(line).unwrap()
    }

    /// Words for every field of every type, by the kind that the source is asked for.
    struct Sample;

    impl FieldSource<'static> for Sample {
        type Error = std::convert::Infallible;
        fn text(&mut self, name: &'static str) -> Result<&'static str, Self::Error> {
            Ok(if name == "reason" { "\"quoted\" \\ \u{1}\u{2028}\u{1f514}" } else { name })
        }
        fn number(&mut self, name: &'static str) -> Result<f64, Self::Error> {
            Ok(name.len() as f64 + 0.25)
        }
        fn time(&mut self, _: &'static str) -> Result<i64, Self::Error> {
            Ok(1_728_123_456_789_012_345)
        }
        fn code(&mut self, _: &'static str) -> Result<u32, Self::Error> {
            Ok(u32::MAX)
        }
        fn word<W: Word>(&mut self, _: &'static str) -> Result<W, Self::Error> {
            Ok(*W::ALL.last().unwrap())
        }
    }

    #[test]
    fn every_type_goes_through_an_archive_to_json_and_back_unchanged() {
        for &message_type in MessageType::ALL {
            let Ok(payload) = Payload::build(message_type, &mut Sample);
            let id = MessageId::compose(1, 2, 3);
            let given = Notification::new("user_01", "Test", payload).with_message_id(id).with_timestamp(42);
            let line = to_json(&given);
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(parse(&value), Ok(given), "{line}");
            let keys: Vec<_> = line_keys(&line);
            assert_eq!(
                keys[..7],
                ["message_id", "message_type", "user_id", "priority", "timestamp", "source", "payload"]
            );
            assert_eq!(keys[7], "type");
            assert_eq!(keys[8..], *message_type.field_names());
        }
    }

    /// The keys in the order in which they stand in the text (serde_json's map would sort them).
    fn line_keys(line: &str) -> Vec<String> {
        let mut keys = Vec::new();
        let mut rest = line;
        while let Some(at) = rest.find("\":") {
            let start = rest[..at].rfind('"').unwrap() + 1;
            keys.push(rest[start..at].to_owned());
            rest = &rest[at + 2..];
        }
        keys
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_by_field() {
        let good = json!({"user_id": "u", "payload": {"type": "system_notice", "title": "t", "content": "c",
            "level": "INFO", "timestamp": 1}});
        assert!(parse(&good).is_ok());
        let with = |pointer: &str, value: Value| {
            let mut changed = good.clone();
            match pointer.strip_prefix("payload.") {
                Some(field) => changed["payload"][field] = value,
                None => changed[pointer] = value,
            }
            parse(&changed).unwrap_err().to_string()
        };
        assert_eq!(with("priority", json!(4)), "priority: expected 0, 1, 2 or 3, found 4");
        assert_eq!(
            with("payload.level", json!("info")),
            "payload.level: expected INFO or WARNING or ERROR, found \"info\""
        );
        assert_eq!(with("payload.title", json!(7)), "payload.title: expected a string, found 7");
        assert!(
            with("payload.titel", json!("x"))
                .starts_with("payload.titel: no such field; known here: type, title")
        );
        assert!(with("message_type", json!("market_halt")).contains("payload.type is \"system_notice\""));
        assert!(with("message_id", json!("abc")).starts_with("message_id: expected 36 characters"));
        assert_eq!(parse(&json!([1])).unwrap_err().to_string(), "expected a JSON object, found an array");
    }
}
