//! What a shard may ask the broker: the state of a stream. Answered between rounds.

use bellwire::Waker;
use tokio::sync::{mpsc, oneshot};

use super::streams::Streams;

/// Questions that wait for the end of a round. At the bound the asking session waits.
const QUERIES_MAX: usize = 1024;

/// A stream as it was when the broker answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamState {
    /// Changes when the numbering starts anew.
    pub epoch: u32,
    /// Sequence of the newest record; 0: there was none yet.
    pub head: u64,
    /// Sequence of the oldest record that the journal keeps; `head + 1` if it keeps none.
    pub oldest: u64,
    /// Offset of the newest record in the journal; 0: there was none yet.
    pub last_offset: u64,
    /// Everything before this offset was published: what comes later is not counted here.
    pub journal_end: u64,
}

/// The broker has stopped or failed: nobody will answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker has stopped")]
pub struct BrokerGone;

/// A stream's state, and the offsets of the newest account_update and of each instrument's newest position_update.
pub type Snapshot = (StreamState, Vec<u64>);

enum Query {
    Streams { user: Box<str>, answer: oneshot::Sender<[StreamState; 2]> },
    Snapshot { user: Box<str>, answer: oneshot::Sender<Snapshot> },
}

/// Asks the broker. Cheap to clone.
#[derive(Clone)]
pub struct StreamQueries {
    queries: mpsc::Sender<Query>,
    waker: Waker,
}

/// The broker's end.
pub(super) struct Answers {
    queries: mpsc::Receiver<Query>,
}

pub(super) fn channel(waker: Waker) -> (StreamQueries, Answers) {
    let (sender, receiver) = mpsc::channel(QUERIES_MAX);
    (StreamQueries { queries: sender, waker }, Answers { queries: receiver })
}

impl StreamQueries {
    /// The state of a user's stream, and of the stream for everybody at the same moment. Asking makes no stream.
    ///
    /// # Errors
    /// [`BrokerGone`].
    pub async fn streams(&self, user_id: &str) -> Result<[StreamState; 2], BrokerGone> {
        self.ask(|answer| Query::Streams { user: user_id.into(), answer }).await
    }

    /// The state of one stream; `*` is the stream for everybody.
    ///
    /// # Errors
    /// [`BrokerGone`].
    pub async fn stream(&self, user_id: &str) -> Result<StreamState, BrokerGone> {
        Ok(self.streams(user_id).await?[0])
    }

    /// The state of a user's stream and where his newest account and positions stand in the journal, ascending.
    ///
    /// # Errors
    /// [`BrokerGone`].
    pub async fn snapshot(&self, user_id: &str) -> Result<Snapshot, BrokerGone> {
        self.ask(|answer| Query::Snapshot { user: user_id.into(), answer }).await
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, BrokerGone> {
        let (sender, answer) = oneshot::channel();
        self.queries.send(query(sender)).await.map_err(|_| BrokerGone)?;
        self.waker.wake();
        answer.await.map_err(|_| BrokerGone)
    }
}

impl Answers {
    /// Answers what was asked so far; tells how many that were. All that was numbered must be published.
    pub(super) fn answer(&mut self, streams: &mut Streams, journal_start: u64, journal_end: u64) -> u64 {
        let mut count = 0;
        // At most one channel's worth: a round comes in between however much is asked.
        while count < QUERIES_MAX as u64
            && let Ok(query) = self.queries.try_recv()
        {
            // Whoever no longer wants the answer has gone: that is no error.
            match query {
                Query::Streams { user, answer } => {
                    let both = [&user, bellwire::EVERYBODY].map(|user| state(streams, user, journal_end));
                    let _ = answer.send(both);
                }
                Query::Snapshot { user, answer } => {
                    let mut offsets = streams.snapshot(&user);
                    offsets.retain(|offset| *offset >= journal_start);
                    let _ = answer.send((state(streams, &user, journal_end), offsets));
                }
            }
            count += 1;
        }
        count
    }
}

fn state(streams: &mut Streams, user: &str, journal_end: u64) -> StreamState {
    match streams.known(user) {
        Some(known) => StreamState {
            epoch: known.epoch,
            head: known.head,
            oldest: known.oldest,
            last_offset: known.last,
            journal_end,
        },
        None => StreamState { epoch: streams.promise(user), head: 0, oldest: 1, last_offset: 0, journal_end },
    }
}
