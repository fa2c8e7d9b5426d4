//! Frames of a client, out of the bytes that were read. Pure.
//!
//! Clients must mask; control frames are whole and short; a message may come in fragments with control frames between
//! them; its whole length is bounded. Whatever breaks a rule is a [`Fault`] with the standard's close code.

use std::borrow::Cow;
use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::protocol::Close;

/// Longest frame header, in bytes (a client's, with its mask).
pub const HEADER_LEN_MAX: usize = 14;

/// Longest payload of a control frame, in bytes.
const CONTROL_LEN_MAX: u64 = 125;

/// What one frame brought.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(Cow<'a, str>),
    /// A part of a message; the rest is to come.
    Fragment,
    /// To be answered by a pong with the same bytes.
    Ping(&'a [u8]),
    Pong,
    /// The client says good-bye. It is to be answered by a close frame with the same code, if it gave one.
    Close(Option<u16>),
}

/// The outcome of looking at the bytes so far.
#[derive(Debug, PartialEq)]
pub enum Decoded<'a> {
    /// No whole frame yet: read on.
    Incomplete,
    /// A frame of `len` bytes.
    Frame { len: usize, event: Event<'a> },
}

/// A client that breaks the rules, and how to close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("{0}")]
    Protocol(&'static str),
    #[error("binary frames are not understood here")]
    Binary,
    #[error("text that is not UTF-8")]
    BadText,
    #[error("a message of {len} bytes or more, at most {max} are allowed")]
    TooBig { len: u64, max: usize },
}

impl Fault {
    pub const fn close(self) -> Close {
        match self {
            Self::Protocol(_) => Close::ProtocolError,
            Self::Binary => Close::Unsupported,
            Self::BadText => Close::BadText,
            Self::TooBig { .. } => Close::TooBig,
        }
    }
}

/// Takes the first frame out of `bytes`, unmasking it in place. `fragments` holds a message's parts so far (`None`
/// between messages); a message never grows beyond `message_len_max`.
///
/// # Errors
/// The [`Fault`] of the first broken rule. A frame that will be too long is refused on sight of its header.
pub fn decode<'a>(
    bytes: &'a mut [u8],
    fragments: &mut Option<Vec<u8>>,
    message_len_max: usize,
) -> Result<Decoded<'a>, Fault> {
    let mut cursor = Cursor::new(&*bytes);
    let (header, payload_len) = match FrameHeader::parse(&mut cursor) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(Decoded::Incomplete),
        Err(_) => return Err(Fault::Protocol("reserved opcode")),
    };
    let header_len = cursor.position() as usize;
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(Fault::Protocol("reserved bit set and no extension agreed"));
    }
    let Some(mask) = header.mask else {
        return Err(Fault::Protocol("frame without a mask"));
    };
    match header.opcode {
        OpCode::Control(_) if payload_len > CONTROL_LEN_MAX => {
            return Err(Fault::Protocol("control frame longer than 125 bytes"));
        }
        OpCode::Control(_) if !header.is_final => {
            return Err(Fault::Protocol("control frame in fragments"));
        }
        OpCode::Data(Data::Binary) => return Err(Fault::Binary),
        OpCode::Data(Data::Continue) if fragments.is_none() => {
            return Err(Fault::Protocol("continuation of nothing"));
        }
        OpCode::Data(Data::Text) if fragments.is_some() => {
            return Err(Fault::Protocol("new message within a message"));
        }
        _ => {}
    }
    let before = fragments.as_ref().map_or(0, Vec::len) as u64;
    if payload_len.saturating_add(before) > message_len_max as u64
        && !matches!(header.opcode, OpCode::Control(_))
    {
        return Err(Fault::TooBig { len: payload_len.saturating_add(before), max: message_len_max });
    }
    // Both terms are small by now.
    let len = header_len + payload_len as usize;
    if bytes.len() < len {
        return Ok(Decoded::Incomplete);
    }
    let payload = &mut bytes[header_len..len];
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    let payload = &*payload;
    let event = match header.opcode {
        OpCode::Control(Control::Ping) => Event::Ping(payload),
        OpCode::Control(Control::Pong) => Event::Pong,
        OpCode::Control(_) => Event::Close(close_code(payload)?),
        OpCode::Data(_) => match (fragments.take(), header.is_final) {
            (None, true) => Event::Text(Cow::Borrowed(text(payload)?)),
            (Some(mut parts), true) => {
                parts.extend_from_slice(payload);
                Event::Text(Cow::Owned(String::from_utf8(parts).map_err(|_| Fault::BadText)?))
            }
            (parts, false) => {
                let mut parts = parts.unwrap_or_default();
                parts.extend_from_slice(payload);
                *fragments = Some(parts);
                Event::Fragment
            }
        },
    };
    Ok(Decoded::Frame { len, event })
}

/// Checks the payload of a close frame.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    match payload {
        [] => Ok(None),
        [_] => Err(Fault::Protocol("close frame with half a code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !CloseCode::from(code).is_allowed() {
                return Err(Fault::Protocol("close code that must not be sent"));
            }
            text(reason)?;
            Ok(Some(code))
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|_| Fault::BadText)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(0x80 | len as u8),
            len @ 126..=65535 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            len => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// Everything that comes out of these bytes, as words.
    fn events(mut bytes: &mut [u8], max: usize) -> Result<Vec<String>, Fault> {
        let (mut events, mut fragments) = (Vec::new(), None);
        loop {
            let len = match decode(bytes, &mut fragments, max)? {
                Decoded::Incomplete => return Ok(events),
                Decoded::Frame { len, event } => {
                    events.push(match event {
                        Event::Text(text) => format!("text {text}"),
                        Event::Ping(payload) => format!("ping {}", payload.len()),
                        other => format!("{other:?}"),
                    });
                    len
                }
            };
            bytes = &mut bytes[len..];
        }
    }

    fn fault(bytes: &[u8]) -> Fault {
        events(&mut bytes.to_vec(), 4096).unwrap_err()
    }

    #[test]
    fn messages_come_whole_or_in_fragments_with_control_frames_between() {
        let mut bytes = frame(0x81, b"one");
        bytes.extend(frame(0x01, "t\u{1f514}".as_bytes().split_at(3).0));
        bytes.extend(frame(0x89, b"??"));
        bytes.extend(frame(0x00, b""));
        bytes.extend(frame(0x80, "t\u{1f514}".as_bytes().split_at(3).1));
        bytes.extend(frame(0x8a, b""));
        bytes.extend(frame(0x88, &[0x03, 0xe8, b'x']));
        let expected =
            ["text one", "Fragment", "ping 2", "Fragment", "text t\u{1f514}", "Pong", "Close(Some(1000))"];
        assert_eq!(events(&mut bytes, 4096).unwrap(), expected);
    }

    #[test]
    fn a_frame_may_be_cut_anywhere() {
        for payload in [b"".to_vec(), b"hello".to_vec(), vec![b'x'; 126], vec![b'y'; 4096]] {
            let whole = frame(0x81, &payload);
            for len in 0..whole.len() {
                let mut cut = whole[..len].to_vec();
                assert_eq!(decode(&mut cut, &mut None, 4096), Ok(Decoded::Incomplete), "{len}");
                assert_eq!(cut, whole[..len], "an incomplete frame is left as it was");
            }
            assert_eq!(events(&mut whole.clone(), 4096).unwrap().len(), 1);
        }
    }

    #[test]
    fn every_broken_rule_has_its_standard_close_code() {
        assert_eq!(fault(&frame(0x82, b"x")).close(), Close::Unsupported);
        assert_eq!(fault(&frame(0x81, b"\xff")).close(), Close::BadText);
        assert_eq!(fault(&frame(0x81, &[b'x'; 4097])).close(), Close::TooBig);
        // On sight of the header, before the bytes are there; no length is too great to be refused.
        assert_eq!(fault(&frame(0x81, &[b'x'; 4097])[..8]).close(), Close::TooBig);
        let mut huge = vec![0x81, 0xff];
        huge.extend_from_slice(&[0xff; 8]);
        huge.extend_from_slice(&MASK);
        assert_eq!(fault(&huge).close(), Close::TooBig);

        let mut parts = frame(0x01, &[b'x'; 4000]);
        parts.extend(frame(0x80, &[b'x'; 97]));
        assert_eq!(fault(&parts).close(), Close::TooBig);

        let protocol: [&[u8]; 10] = [
            &[0x81, 0x01, b'x'], // no mask
            &frame(0xc1, b"x"),  // reserved bit
            &frame(0x83, b""),   // reserved opcode
            &frame(0x8b, b""),   // reserved control opcode
            &frame(0x80, b""),   // continuation of nothing
            &[frame(0x01, b"a"), frame(0x81, b"b")].concat(),
            &frame(0x09, b""),           // control frame in fragments
            &frame(0x89, &[0; 126]),     // control frame too long
            &frame(0x88, &[3]),          // half a close code
            &frame(0x88, &[0x03, 0xed]), // 1005 must not be sent
        ];
        for bytes in protocol {
            assert_eq!(fault(bytes).close(), Close::ProtocolError, "{bytes:?}");
        }
        assert_eq!(fault(&frame(0x88, &[0x03, 0xe8, 0xff])).close(), Close::BadText);
    }

    proptest! {
        #[test]
        fn any_bytes_are_frames_or_a_fault_and_never_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = events(&mut bytes, 200);
        }
    }
}
