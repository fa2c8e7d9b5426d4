//! Notifications made of the fuzzer's bytes, and their fields one by one.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use bellwire::{
    FieldSource, FieldVisitor, MessageId, MessageType, Notification, NotificationView, Payload, Priority,
    RECORD_HEADER_LEN, RecordHeader, Word,
};
use libfuzzer_sys::arbitrary;

/// The value of a field, so that two are equal only if nobody can tell them apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Text(String),
    /// Its bits.
    Number(u64),
    Time(i64),
    Code(u32),
    Word(String),
}

/// A payload's fields in the order of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(pub Vec<(&'static str, Value)>);

impl Fields {
    /// Every field of a view, each of which was touched.
    pub fn of(view: &NotificationView<'_>) -> Self {
        let mut fields = Self::default();
        view.payload.visit(&mut fields);
        fields
    }

    /// Whether every number is finite.
    pub fn are_finite(&self) -> bool {
        self.0.iter().all(|(_, value)| match value {
            Value::Number(bits) => f64::from_bits(*bits).is_finite(),
            _ => true,
        })
    }

    /// Length of all texts, in bytes.
    pub fn text_len(&self) -> usize {
        let len = |(_, value): &(_, Value)| if let Value::Text(text) = value { text.len() } else { 0 };
        self.0.iter().map(len).sum()
    }

    /// The payload that has these fields.
    pub fn payload(&self, message_type: MessageType) -> Payload<'_> {
        let Ok(payload) = Payload::build(message_type, &mut Replay(self.0.iter()));
        payload
    }
}

impl FieldVisitor for Fields {
    fn text(&mut self, name: &'static str, value: &str) {
        self.0.push((name, Value::Text(value.to_owned())));
    }
    fn number(&mut self, name: &'static str, value: f64) {
        self.0.push((name, Value::Number(value.to_bits())));
    }
    fn time(&mut self, name: &'static str, value: i64) {
        self.0.push((name, Value::Time(value)));
    }
    fn code(&mut self, name: &'static str, value: u32) {
        self.0.push((name, Value::Code(value)));
    }
    fn word(&mut self, name: &'static str, value: &'static str) {
        self.0.push((name, Value::Word(value.to_owned())));
    }
}

/// Gives the fields of [`Fields`] once more.
struct Replay<'a>(std::slice::Iter<'a, (&'static str, Value)>);

impl<'a> Replay<'a> {
    fn next(&mut self, name: &str) -> &'a Value {
        let (found, value) = self.0.next().expect("as many fields as the type has");
        assert_eq!(*found, name, "fields in the order of the table");
        value
    }
}

impl<'a> FieldSource<'a> for Replay<'a> {
    type Error = std::convert::Infallible;

    fn text(&mut self, name: &'static str) -> std::result::Result<&'a str, Self::Error> {
        let Value::Text(text) = self.next(name) else { panic!("{name} is a text") };
        Ok(text)
    }
    fn number(&mut self, name: &'static str) -> std::result::Result<f64, Self::Error> {
        let Value::Number(bits) = self.next(name) else { panic!("{name} is a number") };
        Ok(f64::from_bits(*bits))
    }
    fn time(&mut self, name: &'static str) -> std::result::Result<i64, Self::Error> {
        let Value::Time(time) = self.next(name) else { panic!("{name} is a time") };
        Ok(*time)
    }
    fn code(&mut self, name: &'static str) -> std::result::Result<u32, Self::Error> {
        let Value::Code(code) = self.next(name) else { panic!("{name} is a code") };
        Ok(*code)
    }
    fn word<W: Word>(&mut self, name: &'static str) -> std::result::Result<W, Self::Error> {
        let word = match self.next(name) {
            Value::Word(word) => word.clone(),
            Value::Code(code) => code.to_string(),
            _ => panic!("{name} is a word"),
        };
        Ok(W::from_word(&word).expect("a word that was written"))
    }
}

/// A notification, and what was put into it.
#[derive(Debug)]
pub struct Given<'a> {
    pub notification: Notification<'a>,
    pub fields: Fields,
}

impl<'a> Given<'a> {
    /// Any notification, also one that cannot be published.
    pub fn take(bytes: &mut Unstructured<'a>) -> Result<Self> {
        let message_type = *bytes.choose(MessageType::ALL)?;
        let mut source = Source { bytes, fields: Fields::default() };
        let payload = Payload::build(message_type, &mut source)?;
        let fields = source.fields;
        let mut notification = Notification::new(text(bytes)?, text(bytes)?, payload);
        notification.priority = *bytes.choose(&Priority::ALL)?;
        notification.message_id = bytes.arbitrary::<Option<[u8; 16]>>()?.map(MessageId::from_bytes);
        notification.timestamp = bytes.arbitrary()?;
        Ok(Self { notification, fields })
    }

    /// Whether the rules of a notification let it be published.
    pub fn is_allowed(&self) -> bool {
        (1..=bellwire::USER_ID_BYTES_MAX).contains(&self.notification.user_id.len())
            && self.fields.are_finite()
    }

    /// Length of all texts, in bytes.
    pub fn text_len(&self) -> usize {
        self.fields.text_len() + self.notification.user_id.len() + self.notification.source.len()
    }
}

/// Makes fields of the fuzzer's bytes and notes what it gave.
struct Source<'u, 'a> {
    bytes: &'u mut Unstructured<'a>,
    fields: Fields,
}

impl<'a> FieldSource<'a> for Source<'_, 'a> {
    type Error = arbitrary::Error;

    fn text(&mut self, name: &'static str) -> Result<&'a str> {
        let text = text(self.bytes)?;
        self.fields.text(name, text);
        Ok(text)
    }
    fn number(&mut self, name: &'static str) -> Result<f64> {
        let number = self.bytes.arbitrary()?;
        self.fields.number(name, number);
        Ok(number)
    }
    fn time(&mut self, name: &'static str) -> Result<i64> {
        let time = self.bytes.arbitrary()?;
        self.fields.time(name, time);
        Ok(time)
    }
    fn code(&mut self, name: &'static str) -> Result<u32> {
        let code = self.bytes.arbitrary()?;
        self.fields.code(name, code);
        Ok(code)
    }
    fn word<W: Word>(&mut self, name: &'static str) -> Result<W> {
        let word = *self.bytes.choose(W::ALL)?;
        // The one word that is a number in JSON is a code to visitors.
        match word.as_str().parse() {
            Ok(code) => self.fields.code(name, code),
            Err(_) => self.fields.word(name, word.as_str()),
        }
        Ok(word)
    }
}

/// A text of the fuzzer's, or (seldom) a long one, since it would take for ever to write one itself.
fn text<'a>(bytes: &mut Unstructured<'a>) -> Result<&'a str> {
    static LONG: LazyLock<String> = LazyLock::new(|| "\u{1f514}x\u{e9}\"".repeat(1 << 14));
    if bytes.ratio(1, 16)? {
        let len = usize::from(bytes.arbitrary::<u16>()?);
        return Ok(&LONG[..LONG.floor_char_boundary(len)]);
    }
    bytes.arbitrary()
}

/// Header and archive of a record, the archive aligned as in a ring.
pub struct Record {
    pub header: RecordHeader,
    bytes: Vec<u8>,
    start: usize,
}

impl Record {
    /// Any bytes.
    pub fn new(record: &[u8]) -> Self {
        let (head, archive) = record.split_at(record.len().min(RECORD_HEADER_LEN));
        let mut header = [0; RECORD_HEADER_LEN];
        header[..head.len()].copy_from_slice(head);
        let mut bytes = vec![0; archive.len() + 15];
        let start = bytes.as_ptr().align_offset(16);
        bytes[start..start + archive.len()].copy_from_slice(archive);
        bytes.truncate(start + archive.len());
        Self { header: RecordHeader::from_bytes(&header), bytes, start }
    }

    /// As many bytes of the archive as the header says, if there are so many.
    pub fn archive(&self) -> &[u8] {
        let archive = &self.bytes[self.start..];
        &archive[..archive.len().min(self.header.archive_len as usize)]
    }
}
