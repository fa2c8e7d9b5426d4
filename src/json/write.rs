//! Archive to JSON, without an intermediate form: strings are escaped and numbers formatted by serde_json.

use serde::Serialize;

use crate::notification::{FieldVisitor, NotificationView};

/// Appends the notification to `out` as one JSON object, without a line end.
///
/// It allocates only what `out` needs to grow.
///
/// ```
/// use bellwire::{MessageId, Notification, RecordHeader, TradingSessionStart, json, to_record};
///
/// let start = TradingSessionStart { session_id: "day", trading_day: "20261123", name: "Day", timestamp: 7 };
/// let note = Notification::to_all("MatchingEngine", start).with_message_id(MessageId::from_bytes([1; 16]));
/// let record = to_record(&note, 1, 0, 9)?;
/// let header = RecordHeader::from_bytes(record[..48].try_into()?);
/// let view = header.view(&record[48..48 + header.archive_len as usize])?;
///
/// let mut line = Vec::new();
/// json::write(&view, &mut line);
/// assert_eq!(String::from_utf8(line)?, concat!(
///     r#"{"message_id":"01010101-0101-0101-0101-010101010101","message_type":"trading_session_start","user_id":"*","#,
///     r#""priority":3,"timestamp":9,"source":"MatchingEngine","payload":{"type":"trading_session_start","#,
///     r#""session_id":"day","trading_day":"20261123","name":"Day","timestamp":7}}"#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write(notification: &NotificationView<'_>, out: &mut Vec<u8>) {
    let message_type = notification.message_type().name().as_bytes();
    out.extend_from_slice(b"{\"message_id\":\"");
    out.extend_from_slice(notification.message_id.encode(&mut [0; 36]).as_bytes());
    out.extend_from_slice(b"\",\"message_type\":\"");
    out.extend_from_slice(message_type);
    out.extend_from_slice(b"\",\"user_id\":");
    value(out, notification.user_id());
    out.extend_from_slice(b",\"priority\":");
    out.push(b'0' + notification.priority as u8);
    out.extend_from_slice(b",\"timestamp\":");
    value(out, &notification.timestamp);
    out.extend_from_slice(b",\"source\":");
    value(out, notification.source());
    out.extend_from_slice(b",\"payload\":{\"type\":\"");
    out.extend_from_slice(message_type);
    out.push(b'"');
    notification.payload.visit(&mut Fields(out));
    out.extend_from_slice(b"}}");
}

/// Appends one value. Writing a string, a finite number or an integer to memory cannot fail.
fn value<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).unwrap_or_else(|error| unreachable!("JSON to memory: {error}"));
}

struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    /// Names are those of the table: plain letters, nothing to escape.
    #[inline]
    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

impl FieldVisitor for Fields<'_> {
    #[inline]
    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        value(self.0, text);
    }

    #[inline]
    fn number(&mut self, name: &'static str, number: f64) {
        self.name(name);
        value(self.0, &number);
    }

    #[inline]
    fn time(&mut self, name: &'static str, time: i64) {
        self.name(name);
        value(self.0, &time);
    }

    #[inline]
    fn code(&mut self, name: &'static str, code: u32) {
        self.name(name);
        value(self.0, &code);
    }

    #[inline]
    fn word(&mut self, name: &'static str, word: &'static str) {
        self.name(name);
        self.0.push(b'"');
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(b'"');
    }
}
