//! What a client sends once it is connected: frames or a fault, the same however the bytes come in, within the limits; and
//! each message a request or an error frame that is JSON.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use bellwire_fuzz::{arbitrary, fuzz_target};
use bellwire_gateway::protocol::inbound::{self, ID_BYTES_MAX, Op};
use bellwire_gateway::protocol::outbound::{self, Frame, Time};
use bellwire_gateway::protocol::{Refusal, Request};
use bellwire_gateway::socket::frames::{Decoded, Event, Fault, HEADER_LEN_MAX, decode};
use serde_json::Value;

/// Longest message here, so that an input holds more than one. The configuration allows from 512 on.
const MESSAGE_MAX: usize = 200;

/// A frame as a client may write it, right or wrong.
#[derive(Arbitrary, Debug)]
struct Wire<'a> {
    first: u8,
    /// Which form the length has: as short as can be, or one of the longer ones.
    form: u8,
    is_masked: bool,
    mask: [u8; 4],
    payload: &'a [u8],
}

impl Wire<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let (len, bit) = (self.payload.len(), u8::from(self.is_masked) << 7);
        out.push(self.first);
        match (self.form % 4, len) {
            (0 | 1, 0..126) => out.push(bit | len as u8),
            (0..=2, 0..65536) => {
                out.push(bit | 126);
                out.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                out.push(bit | 127);
                out.extend_from_slice(&(len as u64).to_be_bytes());
            }
        }
        let mask = if self.is_masked { self.mask } else { [0; 4] };
        if self.is_masked {
            out.extend_from_slice(&mask);
        }
        out.extend(self.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    }
}

/// An event that has left the buffer.
#[derive(Debug, PartialEq)]
enum Seen {
    Text(String),
    Fragment,
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

fuzz_target!(|bytes: &[u8]| {
    if bytes.starts_with(b"{") {
        // A seed, or what the fuzzer has made of one.
        if let Ok(text) = std::str::from_utf8(bytes) {
            request(text);
        }
    } else {
        let _ = run(&mut Unstructured::new(bytes));
    }
});

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut wire = Vec::new();
    if bytes.ratio(1, 4)? {
        wire.extend_from_slice(bytes.arbitrary()?);
    } else {
        for _ in 0..bytes.int_in_range(1..=5)? {
            let mut frame: Wire<'_> = bytes.arbitrary()?;
            if bytes.ratio(7, 8)? {
                // Mostly what a client may send, or nothing comes of what follows.
                (frame.is_masked, frame.first) = (true, frame.first & 0x8f);
            }
            frame.write(&mut wire);
        }
    }
    let whole = read(&wire, || wire.len());
    let mut cuts = bytes.bytes(bytes.len())?.iter().cycle();
    let in_parts = read(&wire, || usize::from(*cuts.next().unwrap_or(&7)) % 64 + 1);
    assert_eq!(whole, in_parts, "the same bytes, in other parts");
    for seen in &whole.0 {
        if let Seen::Text(text) = seen {
            request(text);
        }
    }
    Ok(())
}

/// Reads as a shard does: `part` says how many bytes come at once.
fn read(wire: &[u8], mut part: impl FnMut() -> usize) -> (Vec<Seen>, Option<Fault>) {
    let (mut seen, mut kept, mut fragments, mut come) = (Vec::new(), Vec::new(), None, 0);
    while come < wire.len() {
        let more = part().clamp(1, wire.len() - come);
        kept.extend_from_slice(&wire[come..come + more]);
        come += more;
        loop {
            let before = kept.clone();
            let len = match decode(&mut kept, &mut fragments, MESSAGE_MAX) {
                Ok(Decoded::Incomplete) => {
                    assert_eq!(kept, before, "an incomplete frame is left as it was");
                    break;
                }
                Ok(Decoded::Frame { len, event }) => {
                    seen.push(match event {
                        Event::Text(text) => Seen::Text(text.into_owned()),
                        Event::Fragment => Seen::Fragment,
                        Event::Ping(payload) => Seen::Ping(payload.to_vec()),
                        Event::Pong => Seen::Pong,
                        Event::Close(code) => Seen::Close(code),
                    });
                    len
                }
                Err(fault) => {
                    assert!((1002..=1009).contains(&fault.close().code()));
                    return (seen, Some(fault));
                }
            };
            assert!(0 < len && len <= kept.len() && len <= HEADER_LEN_MAX + MESSAGE_MAX);
            match seen.last() {
                Some(Seen::Text(text)) => assert!(text.len() <= MESSAGE_MAX, "a message beyond the limit"),
                Some(Seen::Ping(payload)) => assert!(payload.len() <= 125),
                Some(Seen::Close(Some(code))) => assert!((1000..5000).contains(code)),
                _ => {}
            }
            assert!(
                fragments.as_ref().is_none_or(|parts| parts.len() <= MESSAGE_MAX),
                "fragments beyond the limit"
            );
            kept.drain(..len);
        }
        // What a session keeps between two reads is bounded.
        assert!(kept.len() < HEADER_LEN_MAX + MESSAGE_MAX, "an incomplete frame beyond the limit");
    }
    (seen, None)
}

/// A message, and what is answered to it.
fn request(text: &str) {
    let mut answer = Vec::new();
    let id = match inbound::parse(text) {
        Ok(Request { id, op }) => {
            let asked: Value = serde_json::from_str(text).expect("a request is JSON");
            let name = match &op {
                Op::Auth { token } => {
                    assert_eq!(asked["token"], **token);
                    "auth"
                }
                Op::Subscribe { .. } => "subscribe",
                Op::Unsubscribe { .. } => "unsubscribe",
                Op::List => "list",
                Op::Ping => "ping",
            };
            assert_eq!(asked["op"], name);
            Frame::Pong { id: id.as_ref(), time: Time(0) }.write(&mut answer);
            id
        }
        Err(error) => {
            assert!(!error.why.is_empty());
            outbound::error(&Refusal::BadRequest(error.why), error.id.as_ref(), &mut answer);
            error.id
        }
    };
    // An answer is not much longer than the question: nobody is to be flooded by his own frames.
    assert!(answer.len() <= 512 + 8 * text.len().min(ID_BYTES_MAX + MESSAGE_MAX), "{} bytes", answer.len());
    let answer: Value = serde_json::from_slice(&answer).expect("an answer is JSON");
    let echo = id.map_or(Value::Null, |id| serde_json::to_value(&id).expect("a number or a text"));
    assert!(answer["id"] == echo && echo.as_str().is_none_or(|id| id.len() <= ID_BYTES_MAX));
}
