//! A JSON object to a notification that borrows from it.

use serde_json::{Map, Value};

use crate::notification::{
    FieldSource, MessageId, MessageType, Notification, ParseMessageIdError, Payload, Priority, Word,
};

/// Why a JSON object is not a notification.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the message names each number")]
pub enum JsonError {
    #[error("expected a JSON object, found {found}")]
    NotAnObject { found: &'static str },
    #[error("{field}: missing")]
    Missing { field: String },
    #[error("{field}: expected {expected}, found {found}")]
    Wrong { field: String, expected: String, found: String },
    #[error("{field}: no such field{}", suggest(.known))]
    Unknown { field: String, known: Vec<&'static str> },
    #[error("message_type: no such type {found:?}; one of {}", names())]
    MessageType { found: String },
    #[error("payload.type is {payload:?} but message_type is {envelope:?}")]
    TypesDiffer { envelope: String, payload: String },
    #[error("message_id: {0}")]
    MessageId(#[from] ParseMessageIdError),
}

/// The notification in a JSON object of the form that [`write`](super::write) writes.
///
/// `message_type` may be left out if `payload.type` is there, and the other way round; `message_id`, `priority` and
/// `timestamp` may be left out (made, or the type's default); `source` may be left out (empty). Unknown fields are
/// errors: a misspelt name shall not be lost silently.
///
/// # Errors
/// [`JsonError`] names the field.
pub fn parse(value: &Value) -> Result<Notification<'_>, JsonError> {
    const KNOWN: &[&str] =
        &["message_id", "message_type", "user_id", "priority", "timestamp", "source", "payload"];
    let object = value.as_object().ok_or(JsonError::NotAnObject { found: kind(value) })?;
    refuse_unknown(object, KNOWN, "")?;
    let payload = object.get("payload").ok_or_else(|| missing("payload"))?;
    let payload = payload.as_object().ok_or_else(|| wrong("payload".into(), "an object", payload))?;

    let mut envelope = Fields { object, prefix: "" };
    let mut inner = Fields { object: payload, prefix: "payload." };
    let (outer_type, inner_type) = (envelope.optional_text("message_type")?, inner.optional_text("type")?);
    let name = match (outer_type, inner_type) {
        (Some(envelope), Some(payload)) if envelope != payload => {
            return Err(JsonError::TypesDiffer { envelope: envelope.into(), payload: payload.into() });
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => return Err(missing("message_type")),
    };
    let message_type =
        MessageType::from_name(name).ok_or_else(|| JsonError::MessageType { found: name.into() })?;
    let known: Vec<_> = ["type"].into_iter().chain(message_type.field_names().iter().copied()).collect();
    refuse_unknown(payload, &known, "payload.")?;

    let user_id = envelope.text("user_id")?;
    let source = envelope.optional_text("source")?.unwrap_or("");
    let mut notification = Notification::new(user_id, source, Payload::build(message_type, &mut inner)?);
    if let Some(priority) = object.get("priority").filter(|value| !value.is_null()) {
        notification.priority = priority
            .as_u64()
            .and_then(|number| u8::try_from(number).ok())
            .and_then(Priority::from_number)
            .ok_or_else(|| wrong("priority".into(), "0, 1, 2 or 3", priority))?;
    }
    if let Some(id) = envelope.optional_text("message_id")? {
        notification.message_id = Some(id.parse::<MessageId>()?);
    }
    if object.get("timestamp").is_some_and(|value| !value.is_null()) {
        notification.timestamp = Some(envelope.time("timestamp")?);
    }
    Ok(notification)
}

struct Fields<'a> {
    object: &'a Map<String, Value>,
    prefix: &'static str,
}

impl<'a> Fields<'a> {
    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn get(&self, name: &str) -> Result<&'a Value, JsonError> {
        self.object.get(name).ok_or_else(|| JsonError::Missing { field: self.path(name) })
    }

    fn optional_text(&self, name: &str) -> Result<Option<&'a str>, JsonError> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(self.path(name), "a string", other)),
        }
    }
}

impl<'a> FieldSource<'a> for Fields<'a> {
    type Error = JsonError;

    fn text(&mut self, name: &'static str) -> Result<&'a str, JsonError> {
        let value = self.get(name)?;
        value.as_str().ok_or_else(|| wrong(self.path(name), "a string", value))
    }

    fn number(&mut self, name: &'static str) -> Result<f64, JsonError> {
        let value = self.get(name)?;
        value.as_f64().ok_or_else(|| wrong(self.path(name), "a number", value))
    }

    fn time(&mut self, name: &'static str) -> Result<i64, JsonError> {
        let value = self.get(name)?;
        value.as_i64().ok_or_else(|| wrong(self.path(name), "an integer of nanoseconds", value))
    }

    fn code(&mut self, name: &'static str) -> Result<u32, JsonError> {
        let value = self.get(name)?;
        let code = value.as_u64().and_then(|code| u32::try_from(code).ok());
        code.ok_or_else(|| wrong(self.path(name), "an integer from 0 to 4294967295", value))
    }

    fn word<W: Word>(&mut self, name: &'static str) -> Result<W, JsonError> {
        let value = self.get(name)?;
        // The one word that is a number in JSON is the account type.
        let found = match value {
            Value::String(word) => W::from_word(word),
            Value::Number(number) => W::from_word(&number.to_string()),
            _ => None,
        };
        found.ok_or_else(|| {
            let words: Vec<_> = W::ALL.iter().map(|word| word.as_str()).collect();
            wrong(self.path(name), &words.join(" or "), value)
        })
    }
}

fn refuse_unknown(
    object: &Map<String, Value>,
    known: &[&'static str],
    prefix: &str,
) -> Result<(), JsonError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(JsonError::Unknown { field: format!("{prefix}{key}"), known: known.to_vec() }),
    }
}

fn missing(field: &str) -> JsonError {
    JsonError::Missing { field: field.into() }
}

fn wrong(field: String, expected: &str, found: &Value) -> JsonError {
    let mut found = match found {
        Value::Array(_) | Value::Object(_) => kind(found).to_owned(),
        scalar => scalar.to_string(),
    };
    if found.chars().count() > 60 {
        found = found.chars().take(60).chain(['…']).collect();
    }
    JsonError::Wrong { field, expected: expected.into(), found }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn suggest(known: &[&str]) -> String {
    format!("; known here: {}", known.join(", "))
}

fn names() -> String {
    MessageType::ALL.iter().map(|message_type| message_type.name()).collect::<Vec<_>>().join(", ")
}
