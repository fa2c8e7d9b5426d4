//! A notification as one aligned line of text, from an archive or from JSON.
//!
//! ```text
//! 10:17:36.789012345  risk             P0  margin_call             user_01       RiskControl     current_margin=4200 ...
//! ```

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use bellwire::{FieldVisitor, MessageType, NotificationView, Priority};
use serde_json::Value;

use super::human;

/// Builds lines; the last one stays in it until the next.
pub(crate) struct Line {
    text: String,
    color: bool,
}

/// What a line begins with.
struct Head<'a> {
    timestamp: i64,
    /// The lane, or the stream and sequence.
    place: &'a str,
    priority: u64,
    message_type: &'a str,
    user_id: &'a str,
    source: &'a str,
}

impl Line {
    pub(crate) fn new(color: bool) -> Self {
        Self { text: String::new(), color }
    }

    /// The line of a notification that was read from shared memory.
    pub(crate) fn of_view(&mut self, place: &str, view: &NotificationView<'_>) -> &str {
        self.head(Head {
            timestamp: view.timestamp,
            place,
            priority: view.priority.index() as u64,
            message_type: view.message_type().name(),
            user_id: view.user_id(),
            source: view.source(),
        });
        view.payload.visit(&mut Fields(&mut self.text));
        &self.text
    }

    /// The line of a notification that came as JSON; what is missing there stays empty.
    pub(crate) fn of_json(&mut self, place: &str, data: &Value) -> &str {
        let text = |name: &str| data[name].as_str().unwrap_or_default();
        let message_type = text("message_type");
        self.head(Head {
            timestamp: data["timestamp"].as_i64().unwrap_or_default(),
            place,
            priority: data["priority"].as_u64().unwrap_or_default(),
            message_type,
            user_id: text("user_id"),
            source: text("source"),
        });
        let payload = &data["payload"];
        match MessageType::from_name(message_type) {
            // serde_json's map has lost the order; the table has it.
            Some(known) => known.field_names().iter().for_each(|name| self.json_field(name, &payload[name])),
            None => {
                let fields = payload.as_object().into_iter().flatten();
                fields.for_each(|(name, value)| self.json_field(name, value));
            }
        }
        &self.text
    }

    fn json_field(&mut self, name: &str, value: &Value) {
        match value {
            Value::Null => {}
            Value::String(text) => Fields(&mut self.text).text_field(name, text),
            // As from an archive: 4200 instead of 4200.0.
            Value::Number(number) if number.is_f64() => {
                let _ = write!(self.text, " {name}={}", number.as_f64().unwrap_or_default());
            }
            other => Fields(&mut self.text).text_field(name, &other.to_string()),
        }
    }

    fn head(&mut self, head: Head<'_>) {
        self.text.clear();
        // The day is the same on almost every line: only the time of day is shown, `--json` has it all.
        let clock = human::clock(head.timestamp);
        let style = if self.color { style(head.priority) } else { Style::new() };
        let (mut user, mut source) = (String::new(), String::new());
        quote(&mut user, head.user_id);
        quote(&mut source, head.source);
        // Writing to a String cannot fail.
        let _ = write!(
            self.text,
            "{clock:<18}  {:<16}  {style}P{}  {:<22}{style:#}  {user:<12}  {source:<15}",
            head.place, head.priority, head.message_type,
        );
    }
}

fn style(priority: u64) -> Style {
    match u8::try_from(priority).ok().and_then(Priority::from_number) {
        Some(Priority::P0) => Style::new().bold().fg_color(Some(AnsiColor::Red.into())),
        Some(Priority::P1) => Style::new().fg_color(Some(AnsiColor::Green.into())),
        Some(Priority::P2) => Style::new().fg_color(Some(AnsiColor::Cyan.into())),
        _ => Style::new().dimmed(),
    }
}

/// Writes `  name=value` for each field.
struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn text_field(&mut self, name: &str, value: &str) {
        self.0.extend([" ", name, "="]);
        quote(self.0, value);
    }
}

impl FieldVisitor for Fields<'_> {
    fn text(&mut self, name: &'static str, value: &str) {
        self.text_field(name, value);
    }

    fn number(&mut self, name: &'static str, value: f64) {
        let _ = write!(self.0, " {name}={value}");
    }

    fn time(&mut self, name: &'static str, value: i64) {
        let _ = write!(self.0, " {name}={value}");
    }

    fn code(&mut self, name: &'static str, value: u32) {
        let _ = write!(self.0, " {name}={value}");
    }

    fn word(&mut self, name: &'static str, value: &'static str) {
        let _ = write!(self.0, " {name}={value}");
    }
}

/// Text that somebody else chose, made safe for a terminal: bare if it is one plain word, else in quotes, with
/// everything that could move the cursor or turn the writing direction escaped.
pub(crate) fn quote(out: &mut String, text: &str) {
    let plain = |c: char| c.is_alphanumeric() || "_-.:/+*@#".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' => {
                out.extend(c.escape_unicode());
            }
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hostile_text_cannot_reach_the_terminal() {
        let mut out = String::new();
        quote(&mut out, "\u{1b}[2J\u{9b}\"\\\u{202e}\r\n é🔔");
        assert_eq!(out, "\"\\u{1b}[2J\\u{9b}\\\"\\\\\\u{202e}\\r\\n é🔔\"");
        out.clear();
        quote(&mut out, "IX2401");
        assert_eq!(out, "IX2401");
    }

    #[test]
    fn a_line_from_json_has_the_fields_in_the_table_s_order() {
        let data = json!({"message_type": "system_notice", "priority": 3, "user_id": "*", "source": "Ops",
            "timestamp": 1_728_123_456_789_012_345_i64,
            "payload": {"type": "system_notice", "content": "b c", "level": "INFO", "title": "a", "timestamp": 7}});
        assert_eq!(
            Line::new(false).of_json("all", &data),
            "10:17:36.789012345  all               P3  system_notice           *             Ops             \
             title=a content=\"b c\" level=INFO timestamp=7"
        );
    }
}
