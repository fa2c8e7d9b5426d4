//! What a peer must do to be measured.

use std::time::Duration;

use crate::message::{Check, Message};

/// A way to get messages from one sender to one receiver.
pub trait Peer: 'static {
    const NAME: &'static str;
    /// Whether both ends are in one process: not a rival for processes, but a measure of what is possible.
    const THREADS: bool = false;
    /// Whether a receiver can sleep until something comes.
    const PARKS: bool = false;
    /// Whether several receivers can each have everything.
    const BROADCASTS: bool = false;
    /// Messages that surely fit without anybody receiving.
    const BURST: u64 = 1_000;
    type Sender: Sender;
    type Receiver: Receiver;

    /// The receiving end of the link of that name; `index` tells several receivers apart. It is made before the sender.
    fn receiver(link: &str, index: usize, receivers: usize) -> Self::Receiver;
    /// The sending end.
    fn sender(link: &str, receivers: usize) -> Self::Sender;
    /// Cleans up what outlives both.
    fn clean(_link: &str) {}
}

pub trait Sender {
    /// Sends it; `false`: there is no room now.
    fn send(&mut self, message: &Message) -> bool;
}

pub trait Receiver {
    /// Takes what is there, at most some hundred; gives the stamp of each to `stamp`; tells how many there were.
    fn receive(&mut self, check: &mut Check, stamp: impl FnMut(u64)) -> usize;
    /// Sleeps until there is something, or the time is over.
    fn park(&mut self, _timeout: Duration) {}
}
