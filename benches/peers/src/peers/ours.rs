//! Bellwire: a lane for each sender, named consumers; twice.
//!
//! `bellwire`: the message is a notification with a text of that length: id, clock, encoding, header and validation
//! included, which the others do not have. `bellwire-ready`: it was encoded ahead of time and is passed on as it is, which
//! is what the others do; id, clock, header and its checks are still there.

use std::time::Duration;

use bellwire::{
    Encoded, LaneId, Level, Notification, PayloadView, Priority, Producer, ProducerOptions, PublishError,
    Reader, ReaderOptions, Slot, SystemNotice,
};

use crate::message::{BODY_LEN, Check, Message};
use crate::peer::{Peer, Receiver, Sender};

const CAPACITY: usize = 4 << 20;

fn consumer(link: &str, index: usize) -> OurReceiver {
    let options = ReaderOptions::new().spin(Duration::ZERO);
    let reader = options.open(link, &format!("consumer-{index}")).expect("a consumer");
    OurReceiver { reader, lane: None }
}

fn producer(link: &str) -> Producer {
    let options = ProducerOptions::new().capacity(Priority::P1, CAPACITY);
    let mut producer = options.open(link, "engine").expect("a lane");
    producer.look();
    producer
}

fn clean(link: &str) {
    let _ = bellwire::inspect::remove_unheld(link);
}

fn notification<'a>(message: &'a Message, timestamp: i64) -> Notification<'a> {
    let content = std::str::from_utf8(&message.body).expect("ASCII");
    let notice = SystemNotice { title: "", content, level: Level::Info, timestamp };
    Notification::new("u", "", notice).with_priority(Priority::P1).with_timestamp(message.stamp as i64)
}

fn is_sent(outcome: Result<bellwire::Published, PublishError>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(PublishError::Full { .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

pub struct Ours;

impl Peer for Ours {
    const NAME: &'static str = "bellwire";
    const PARKS: bool = true;
    const BROADCASTS: bool = true;
    type Sender = Producer;
    type Receiver = OurReceiver;

    fn receiver(link: &str, index: usize, _: usize) -> Self::Receiver {
        consumer(link, index)
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        producer(link)
    }

    fn clean(link: &str) {
        clean(link);
    }
}

impl Sender for Producer {
    #[inline]
    fn send(&mut self, message: &Message) -> bool {
        is_sent(self.publish(&notification(message, message.sequence as i64)))
    }
}

pub struct OurReceiver {
    reader: Reader,
    lane: Option<LaneId>,
}

impl OurReceiver {
    #[inline]
    fn receive_with(&mut self, mut f: impl FnMut(Slot<'_>)) -> usize {
        let Some(lane) = self.lane else {
            self.reader.refresh();
            self.lane = self.reader.lanes().next();
            return 0;
        };
        let mut count = 0;
        while count < 256 {
            let Some(slot) = self.reader.peek(lane, Priority::P1).expect("a sound lane") else { break };
            f(slot);
            self.reader.advance(lane, Priority::P1);
            count += 1;
        }
        if count > 0 {
            self.reader.commit(0);
        }
        count
    }
}

impl Receiver for OurReceiver {
    #[inline]
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        self.receive_with(|slot| {
            let view = slot.view().expect("a sound record");
            let PayloadView::SystemNotice(notice) = view.payload else { panic!("a notice") };
            check.parts(notice.timestamp() as u64, notice.content().as_bytes());
            stamp(view.timestamp as u64);
        })
    }

    fn park(&mut self, timeout: Duration) {
        self.reader.wait(timeout);
    }
}

pub struct Ready;

impl Peer for Ready {
    const NAME: &'static str = "bellwire-ready";
    const PARKS: bool = true;
    const BROADCASTS: bool = true;
    type Sender = ReadySender;
    type Receiver = ReadyReceiver;

    fn receiver(link: &str, index: usize, _: usize) -> Self::Receiver {
        ReadyReceiver(consumer(link, index))
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        let encode = |sequence| Encoded::new(&notification(&Message::new(sequence, 0), 0)).expect("a notice");
        ReadySender { producer: producer(link), encoded: (15..31).map(encode).collect() }
    }

    fn clean(link: &str) {
        clean(link);
    }
}

pub struct ReadySender {
    producer: Producer,
    /// Every body that there is, by the low bits of its first byte.
    encoded: Vec<Encoded>,
}

impl Sender for ReadySender {
    #[inline]
    fn send(&mut self, message: &Message) -> bool {
        // What the others are given is made here too.
        let message = std::hint::black_box(message);
        let encoded = &mut self.encoded[usize::from(message.body[0] & 15)];
        encoded.set_timestamp(message.stamp as i64);
        is_sent(self.producer.publish(encoded))
    }
}

pub struct ReadyReceiver(OurReceiver);

impl Receiver for ReadyReceiver {
    #[inline]
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        self.0.receive_with(|slot| {
            let (header, archive) = (slot.header(), slot.archive());
            // Behind the user id, of one byte, the archive begins with the text.
            check.parts(header.lane_sequence - 1, &archive[1..=BODY_LEN]);
            stamp(header.timestamp as u64);
        })
    }

    fn park(&mut self, timeout: Duration) {
        self.0.park(timeout);
    }
}
