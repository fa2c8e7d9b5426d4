//! Bytes as a record: refused with a reason, or sound through and through; and what a producer puts in comes out.
#![no_main]

use arbitrary::{Result, Unstructured};
use bellwire::{Notification, USER_ID_BYTES_MAX, UserHash, to_record};
use bellwire_fuzz::fields::{Fields, Given, Record};
use bellwire_fuzz::{arbitrary, fuzz_target};

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    if bytes.ratio(1, 4)? {
        look_at(&Record::new(bytes.bytes(bytes.len())?));
        return Ok(());
    }
    let given = Given::take(bytes)?;
    let record =
        match to_record(&given.notification, bytes.arbitrary()?, bytes.arbitrary()?, bytes.arbitrary()?) {
            Ok(record) => record,
            Err(error) => {
                assert!(!given.is_allowed() || given.text_len() > 60_000, "refused without need: {error}");
                return Ok(());
            }
        };
    assert!(given.is_allowed(), "a notification that breaks a rule was taken: {:?}", given.notification);
    let found = Record::new(&record);
    let view = found.header.view(found.archive()).expect("what was encoded is sound");
    assert_eq!(view.message_type(), given.notification.message_type());
    assert_eq!(view.user_id(), given.notification.user_id);
    assert_eq!(view.source(), given.notification.source);
    assert_eq!(view.priority, given.notification.priority);
    assert!(given.notification.message_id.is_none_or(|id| id == view.message_id));
    assert!(given.notification.timestamp.is_none_or(|timestamp| timestamp == view.timestamp));
    assert_eq!(Fields::of(&view), given.fields, "what was put in comes out");

    let mut changed = record;
    while !bytes.is_empty() {
        let len = changed.len();
        let at = bytes.int_in_range(0..=len - 1)?;
        // The root with its marks and its pointer stands at the end.
        let at = if bytes.arbitrary()? { at } else { len - 1 - at % len.min(64) };
        match bytes.arbitrary()? {
            Some(byte) => changed[at] = byte,
            None => changed[at] ^= 1 << bytes.int_in_range(0..=7)?,
        }
        look_at(&Record::new(&changed));
    }
    Ok(())
}

fn look_at(record: &Record) {
    let Ok(view) = record.header.view(record.archive()) else { return };
    let fields = Fields::of(&view);
    assert!((1..=USER_ID_BYTES_MAX).contains(&view.user_id().len()), "a user id of an allowed length");
    assert_eq!(record.header.user_hash, UserHash::of(view.user_id()));
    assert!(fields.are_finite(), "a number that is not finite was let through");
    // Nothing passes that no producer could have published.
    let payload = fields.payload(view.message_type());
    let again = Notification::new(view.user_id(), view.source(), payload)
        .with_priority(view.priority)
        .with_message_id(view.message_id)
        .with_timestamp(view.timestamp);
    let again =
        Record::new(&to_record(&again, record.header.lane_sequence, 0, 0).expect("it can be published"));
    let again = again.header.view(again.archive()).map(|view| Fields::of(&view));
    assert_eq!(again, Ok(fields), "and it says the same once more");
}
