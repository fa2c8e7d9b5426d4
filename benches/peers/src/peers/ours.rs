//! Bellwire: a lane for each sender, named consumers. The message is a notification with a text of that length: id, clock,
//! encoding, header and validation included, which the others do not have.

use std::time::Duration;

use bellwire::{
    LaneId, Level, Notification, PayloadView, Priority, Producer, ProducerOptions, PublishError, Reader,
    ReaderOptions, SystemNotice,
};

use crate::message::{Check, Message};
use crate::peer::{Peer, Receiver, Sender};

const CAPACITY: usize = 4 << 20;

pub struct Ours;

impl Peer for Ours {
    const NAME: &'static str = "bellwire";
    const PARKS: bool = true;
    const BROADCASTS: bool = true;
    type Sender = Producer;
    type Receiver = OurReceiver;

    fn receiver(link: &str, index: usize, _: usize) -> Self::Receiver {
        let reader = ReaderOptions::new()
            .spin(Duration::ZERO)
            .open(link, &format!("consumer-{index}"))
            .expect("a consumer");
        OurReceiver { reader, lane: None }
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        let mut producer =
            ProducerOptions::new().capacity(Priority::P1, CAPACITY).open(link, "engine").expect("a lane");
        producer.look();
        producer
    }

    fn clean(link: &str) {
        let _ = bellwire::inspect::remove_unheld(link);
    }
}

impl Sender for Producer {
    #[inline]
    fn send(&mut self, message: &Message) -> bool {
        let content = std::str::from_utf8(&message.body).expect("ASCII");
        let (title, level, timestamp) = ("", Level::Info, message.sequence as i64);
        let notice = SystemNotice { title, content, level, timestamp };
        let notification = Notification::new("u", "", notice)
            .with_priority(Priority::P1)
            .with_timestamp(message.stamp as i64);
        match self.publish(&notification) {
            Ok(_) => true,
            Err(PublishError::Full { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

pub struct OurReceiver {
    reader: Reader,
    lane: Option<LaneId>,
}

impl Receiver for OurReceiver {
    #[inline]
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        let Some(lane) = self.lane else {
            self.reader.refresh();
            self.lane = self.reader.lanes().next();
            return 0;
        };
        let mut count = 0;
        while count < 256 {
            let Some(slot) = self.reader.peek(lane, Priority::P1).expect("a sound lane") else { break };
            let view = slot.view().expect("a sound record");
            let PayloadView::SystemNotice(notice) = view.payload else { panic!("a notice") };
            check.parts(notice.timestamp() as u64, notice.content().as_bytes());
            stamp(view.timestamp as u64);
            self.reader.advance(lane, Priority::P1);
            count += 1;
        }
        if count > 0 {
            self.reader.commit(0);
        }
        count
    }

    fn park(&mut self, timeout: Duration) {
        self.reader.wait(timeout);
    }
}
