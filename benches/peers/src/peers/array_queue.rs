//! crossbeam's ArrayQueue: any number of producers and consumers, between threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crossbeam_queue::ArrayQueue;

use crate::message::{Bytes, Check, Message};
use crate::peer::{Peer, Receiver, Sender};

const SLOTS: usize = 16_384;

static QUEUES: Mutex<Option<HashMap<String, Arc<ArrayQueue<Bytes>>>>> = Mutex::new(None);

pub struct Queue;

pub struct End(Arc<ArrayQueue<Bytes>>);

impl Peer for Queue {
    const NAME: &'static str = "ArrayQueue (threads)";
    const THREADS: bool = true;
    type Sender = End;
    type Receiver = End;

    fn receiver(link: &str, _: usize, _: usize) -> Self::Receiver {
        let queue = Arc::new(ArrayQueue::new(SLOTS));
        QUEUES.lock().expect("no panic").get_or_insert_default().insert(link.to_owned(), Arc::clone(&queue));
        End(queue)
    }

    fn sender(link: &str, _: usize) -> Self::Sender {
        let queue = QUEUES.lock().expect("no panic").get_or_insert_default().remove(link);
        End(queue.expect("the receiver was made first"))
    }
}

impl Sender for End {
    #[inline]
    fn send(&mut self, message: &Message) -> bool {
        self.0.push(message.to_bytes()).is_ok()
    }
}

impl Receiver for End {
    #[inline]
    fn receive(&mut self, check: &mut Check, mut stamp: impl FnMut(u64)) -> usize {
        let mut count = 0;
        while count < 256 {
            let Some(bytes) = self.0.pop() else { break };
            stamp(check.bytes(&bytes));
            count += 1;
        }
        count
    }
}
