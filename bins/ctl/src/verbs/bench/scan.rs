//! What a load tool needs of a frame, found without building anything: it shares the machine with what it measures.
//!
//! A gateway writes its frames always in the same way, and this reads them in that way. A frame that is written
//! otherwise (the protocol allows it) is no fault: it is left to the JSON parser, see [`super::frame`].

/// A notification frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notification<'a> {
    pub(super) stream: Stream,
    pub(super) epoch: &'a [u8],
    pub(super) prev: u64,
    pub(super) seq: u64,
    pub(super) conflated: u64,
    pub(super) data: Data<'a>,
}

/// What is checked and measured of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data<'a> {
    /// The lane's part of the message id, and the lane sequence in it.
    pub(super) lane: u32,
    pub(super) lane_sequence: u64,
    pub(super) user_id: &'a [u8],
    pub(super) priority: u8,
    /// When it was published, in nanoseconds since the Unix epoch.
    pub(super) published_at: i64,
    /// When it was meant to be published: the payload's own time.
    pub(super) intended_at: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    User,
    All,
}

/// Reads on in a frame.
struct Scanner<'a> {
    rest: &'a [u8],
}

impl<'a> Scanner<'a> {
    fn skip(&mut self, literal: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(literal)?;
        Some(())
    }

    fn number(&mut self) -> Option<u64> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        digits_to_number(number)
    }

    /// Up to the next quote. A text with an escape in it is not read here.
    fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix(b"\"")?;
        Some(text)
    }
}

fn digits_to_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    Some(digits.iter().fold(0, |number, digit| 10 * number + u64::from(digit - b'0')))
}

/// Reads a `notification` frame, if it is one and written in the usual way.
pub(super) fn notification(frame: &[u8]) -> Option<Notification<'_>> {
    let mut scanner = Scanner { rest: frame };
    scanner.skip(b"{\"op\":\"notification\",\"stream\":\"")?;
    let stream = match scanner.text()? {
        b"user" => Stream::User,
        b"all" => Stream::All,
        _ => return None,
    };
    scanner.skip(b",\"epoch\":\"")?;
    let epoch = scanner.text()?;
    scanner.skip(b",\"prev\":")?;
    let prev = scanner.number()?;
    scanner.skip(b",\"seq\":")?;
    let seq = scanner.number()?;
    let conflated = match scanner.skip(b",\"conflated\":") {
        Some(()) => scanner.number()?,
        None => 0,
    };
    scanner.skip(b",\"data\":")?;
    let data = data(scanner.rest.strip_suffix(b"}")?)?;
    Some(Notification { stream, epoch, prev, seq, conflated, data })
}

/// Reads a notification object.
pub(super) fn data(object: &[u8]) -> Option<Data<'_>> {
    let mut scanner = Scanner { rest: object };
    scanner.skip(b"{\"message_id\":\"")?;
    let (lane, lane_sequence) = message_id(scanner.text()?)?;
    scanner.skip(b",\"message_type\":\"")?;
    scanner.text()?;
    scanner.skip(b",\"user_id\":\"")?;
    let user_id = scanner.text()?;
    scanner.skip(b",\"priority\":")?;
    let priority = scanner.number()?.try_into().ok().filter(|&priority| priority < 4)?;
    scanner.skip(b",\"timestamp\":")?;
    let published_at = scanner.number()?.try_into().ok()?;
    // The payload's time is its last field.
    let payload = object.strip_suffix(b"}}")?;
    let start = payload.iter().rposition(|byte| !byte.is_ascii_digit())? + 1;
    let (before, digits) = payload.split_at(start);
    before.strip_suffix(b"\"timestamp\":")?;
    let intended_at = digits_to_number(digits)?.try_into().ok()?;
    Some(Data { lane, lane_sequence, user_id, priority, published_at, intended_at })
}

/// Lane and lane sequence of a composed message id: its second half, as the library lays it out.
pub(super) fn message_id(text: &[u8]) -> Option<(u32, u64)> {
    // xxxxxxxx-xxxx-xxxx-LLLL-LLSSSSSSSSSS; the two highest bits of the half are the variant.
    if text.len() != 36 {
        return None;
    }
    let hex = |digits: &[u8]| {
        digits
            .iter()
            .try_fold(0_u64, |number, &digit| Some(number << 4 | u64::from(char::from(digit).to_digit(16)?)))
    };
    let low = hex(&text[19..23])? << 48 | hex(&text[24..36])?;
    Some(((low >> 40) as u32 & 0x3f_ffff, low & 0xff_ffff_ffff))
}

#[cfg(test)]
mod tests {
    use bellwire::MessageId;

    use super::*;

    fn frame(head: &str, user_id: &str) -> String {
        let id = MessageId::compose(77, 4_711, 1_728_123_456_000_000_000);
        format!(
            "{{\"op\":\"notification\",{head}\"data\":{{\"message_id\":\"{id}\",\"message_type\":\"margin_call\",\
             \"user_id\":\"{user_id}\",\"priority\":0,\"timestamp\":1728123456000000009,\"source\":\"s\",\"payload\":\
             {{\"type\":\"margin_call\",\"message\":\"m\",\"timestamp\":1728123456000000001}}}}}}"
        )
    }

    #[test]
    fn a_frame_in_the_usual_form_is_read() {
        let text =
            frame("\"stream\":\"all\",\"epoch\":\"0000e9c1\",\"prev\":7,\"seq\":9,\"conflated\":1,", "*");
        let found = notification(text.as_bytes()).unwrap();
        assert_eq!((found.stream, found.epoch), (Stream::All, &b"0000e9c1"[..]));
        assert_eq!((found.prev, found.seq, found.conflated), (7, 9, 1));
        let data = found.data;
        assert_eq!((data.lane, data.lane_sequence, data.user_id, data.priority), (77, 4_711, &b"*"[..], 0));
        assert_eq!(
            (data.published_at, data.intended_at),
            (1_728_123_456_000_000_009, 1_728_123_456_000_000_001)
        );
    }

    #[test]
    fn what_is_written_otherwise_is_left_to_the_parser() {
        let usual = "\"stream\":\"user\",\"epoch\":\"1\",\"prev\":0,\"seq\":1,";
        assert!(notification(frame(usual, "u").as_bytes()).is_some());
        for text in
            [frame(&usual.replace(':', ": "), "u"), frame(usual, "a\\u0062"), String::new(), "{}".into()]
        {
            assert_eq!(notification(text.as_bytes()), None, "{text}");
        }
        let whole = frame(usual, "u");
        for len in 0..whole.len() {
            assert_eq!(notification(&whole.as_bytes()[..len]), None);
        }
    }
}
