//! The JSON of any notification says what the notification says; and any JSON is a notification or an error.
#![no_main]

use arbitrary::{Result, Unstructured};
use bellwire::{json, to_record};
use bellwire_fuzz::fields::{Given, Record, Value};
use bellwire_fuzz::{arbitrary, fuzz_target};
use bellwire_gateway::protocol::outbound::{Batch, Position, notification};
use bellwire_gateway::protocol::{Epoch, Stream};

fuzz_target!(|bytes: &[u8]| {
    if let Some(text) = bytes.strip_prefix(b"{") {
        read([b"{", text].concat().as_slice());
    } else {
        let _ = write(&mut Unstructured::new(bytes));
    }
});

fn write(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut given = Given::take(bytes)?;
    let Ok(record) = to_record(&given.notification, bytes.arbitrary()?, 0, bytes.arbitrary()?) else {
        return Ok(());
    };
    let record = Record::new(&record);
    let view = record.header.view(record.archive()).expect("what was encoded is sound");
    given.notification.message_id = Some(view.message_id);
    given.notification.timestamp = Some(view.timestamp);

    let mut line = Vec::new();
    json::write(&view, &mut line);
    let value: serde_json::Value = serde_json::from_slice(&line).expect("what is written is JSON");
    // Field by field, and not only by the reader that belongs to the writer.
    for (name, expected) in &given.fields.0 {
        let found = &value["payload"][*name];
        let is_equal = match expected {
            Value::Text(text) | Value::Word(text) => found.as_str() == Some(text),
            Value::Number(bits) => found.as_f64().map(f64::to_bits) == Some(*bits),
            Value::Time(time) => found.as_i64() == Some(*time),
            Value::Code(code) => found.as_u64() == Some(u64::from(*code)),
        };
        assert!(is_equal, "{name}: {expected:?} was written as {found}");
    }
    assert_eq!(value["payload"].as_object().map(|payload| payload.len()), Some(given.fields.0.len() + 1));
    assert_eq!(value["user_id"], given.notification.user_id);
    assert_eq!(value["source"], given.notification.source, "the source was written as another one");
    assert_eq!(value["priority"], view.priority.index());
    assert_eq!(value["timestamp"], view.timestamp);
    assert_eq!(value["message_id"], view.message_id.to_string());
    assert_eq!(json::parse(&value).as_ref(), Ok(&given.notification));

    // As the frames carry it.
    let stream = if view.is_broadcast() { Stream::All } else { Stream::User };
    let position =
        Position { epoch: Epoch(bytes.arbitrary()?), prev: bytes.arbitrary()?, seq: bytes.arbitrary()? };
    let mut frame = Vec::new();
    notification(stream, position, bytes.arbitrary()?, &mut frame, |out| json::write(&view, out));
    let frame: serde_json::Value = serde_json::from_slice(&frame).expect("a frame is JSON");
    assert!(frame["data"] == value && frame["seq"] == position.seq && frame["prev"] == position.prev);
    let mut frame = Vec::new();
    let mut batch = Batch::begin(stream, position.epoch, position.prev, &mut frame);
    for _ in 0..2 {
        batch.item(position.seq, &mut frame, |out| json::write(&view, out));
    }
    batch.end(position.seq, &mut frame);
    let frame: serde_json::Value = serde_json::from_slice(&frame).expect("a batch is JSON");
    assert!(frame["items"][1]["data"] == value && frame["seq"] == position.seq);
    Ok(())
}

fn read(text: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) else { return };
    match json::parse(&value) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(mut given) => {
            let Ok(record) = to_record(&given, 1, 0, 0) else { return };
            let record = Record::new(&record);
            let view = record.header.view(record.archive()).expect("what was encoded is sound");
            given.message_id = Some(view.message_id);
            given.timestamp = Some(view.timestamp);
            let mut line = Vec::new();
            json::write(&view, &mut line);
            let value: serde_json::Value = serde_json::from_slice(&line).expect("what is written is JSON");
            assert_eq!(json::parse(&value), Ok(given));
        }
    }
}
