//! rtrb: one producer, one consumer, between threads.

use std::collections::HashMap;
use std::sync::Mutex;

use rtrb::{Consumer, Producer, RingBuffer as Rtrb};

use crate::message::{Bytes, Check, Message};
use crate::peer::{Peer, Receiver, Sender};

const SLOTS: usize = 16_384;

/// Sending ends that wait to be taken by their thread.
static ENDS: Mutex<Option<HashMap<String, Producer<Bytes>>>> = Mutex::new(None);

pub struct RingBuffer;

impl Peer for RingBuffer {
    const NAME: &'static str = "rtrb (threads)";
    const THREADS: bool = true;
    type Sender = Producer<Bytes>;
    type Receiver = Consumer<Bytes>;

    fn receiver(link: &str, _: usize, _: usize) -> Self::Receiver {
        let (producer, consumer) = Rtrb::new(SLOTS);
        ENDS.lock().expect("no panic").get_or_insert_default().insert(link.to_owned(), producer);
        consumer
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        let producer = ENDS.lock().expect("no panic").get_or_insert_default().remove(link);
        producer.expect("the receiver was made first")
    }
}

impl Sender for Producer<Bytes> {
    #[inline]
    fn send(&mut self, message: &Message) -> bool {
        self.push(message.to_bytes()).is_ok()
    }
}

impl Receiver for Consumer<Bytes> {
    #[inline]
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        let count = self.slots().min(256);
        if let Ok(chunk) = self.read_chunk(count) {
            let (first, second) = chunk.as_slices();
            first.iter().chain(second).for_each(|bytes| stamp(check.bytes(bytes)));
            chunk.commit_all();
        }
        count
    }
}
