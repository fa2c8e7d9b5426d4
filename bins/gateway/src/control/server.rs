//! Connections and lines: at most so many, each with a bound and a time.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Parts;
use super::caller::{Caller, Permitted};
use super::operations::Operations;
use super::requests::{Refused, Request, answer};
use super::socket::Bound;

/// Connections at once. At the bound the next ones wait in the kernel's backlog until one ends.
const CONNECTIONS_MAX: usize = 8;

/// Longest request, in bytes: a user id of 128 bytes may be written with six for each.
const REQUEST_BYTES_MAX: usize = 4096;

/// Time for the next request, and for the reading of an answer. Whoever waits for the end of a drain says nothing meanwhile.
const REQUEST_TIME: Duration = Duration::from_secs(300);
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// What is waited when there are no more file descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub(super) async fn serve(bound: Bound, permitted: Permitted, parts: Parts) {
    let listener = match bound.listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the control socket cannot be served"),
    };
    let places = Rc::new(Semaphore::new(CONNECTIONS_MAX));
    let operations = Rc::new(Operations::new(parts));
    loop {
        let Ok(_) = places.acquire().await.map(|place| place.forget()) else { return };
        let Ok((stream, _)) = listener.accept().await else {
            places.add_permits(1);
            tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            continue;
        };
        let (places, operations) = (Rc::clone(&places), Rc::clone(&operations));
        tokio::task::spawn_local(async move {
            converse(stream, permitted, &operations).await;
            places.add_permits(1);
        });
    }
}

async fn converse(stream: UnixStream, permitted: Permitted, operations: &Rc<Operations>) {
    let Some(caller) = Caller::of(&stream) else { return };
    let mut stream = BufReader::new(stream);
    if !permitted.permits(caller) {
        let uid = caller.uid.as_raw();
        tracing::warn!(uid, pid = caller.pid, "control: refused");
        say(&mut stream, answer(Err(Refused::Forbidden { uid }))).await;
        return;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut stream).take(REQUEST_BYTES_MAX as u64 + 1);
        let read = timeout(REQUEST_TIME, limited.read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        if line.len() > REQUEST_BYTES_MAX {
            say(&mut stream, answer(Err(Refused::TooLong { max: REQUEST_BYTES_MAX }))).await;
            return;
        }
        let outcome = match Request::parse(&line) {
            Ok(request) => {
                let change = request.changes().then(|| format!("{request:?}"));
                let outcome = operations.carry_out(request).await;
                if let Some(change) = change {
                    let (uid, pid) = (caller.uid.as_raw(), caller.pid);
                    let outcome = outcome.as_ref().map_or_else(ToString::to_string, ToString::to_string);
                    tracing::info!(uid, pid, change, outcome, "control");
                }
                outcome
            }
            Err(refused) => Err(refused),
        };
        if !say(&mut stream, answer(outcome)).await {
            return;
        }
    }
}

/// Whether it was taken.
async fn say(stream: &mut BufReader<UnixStream>, answer: Vec<u8>) -> bool {
    matches!(timeout(ANSWER_TIME, stream.write_all(&answer)).await, Ok(Ok(())))
}
