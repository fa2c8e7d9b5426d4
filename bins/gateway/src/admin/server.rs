//! Connections: at most so many, each with a time for everything it does.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::routes;
use super::watched::{LOOK_EVERY, Watched};

/// Connections at once. At the bound the next ones wait in the kernel's backlog until one ends.
const CONNECTIONS_MAX: usize = 32;

/// Time for a request's head, and for the next one on an open connection.
const HEAD_TIME: Duration = Duration::from_secs(5);

/// The longest that a connection lives, whatever it does. Scrapers open another one.
const CONNECTION_TIME: Duration = Duration::from_secs(60);

/// A request's head and its headers, at most: hyper's least buffer, in bytes, and a number of our own.
const HEAD_BYTES_MAX: usize = 8192;
const HEADERS_MAX: usize = 64;

/// What is waited when there are no more file descriptors.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(100);

/// Answers until it is dropped.
pub(super) async fn serve(listener: TcpListener, watched: Arc<Watched>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin listener cannot be served"),
    };
    tokio::join!(watch(&watched), accept(listener, &watched));
}

async fn watch(watched: &Watched) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    // After a pause of this thread there is one look, not many: they would find no beat between them.
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        watched.look();
    }
}

async fn accept(listener: tokio::net::TcpListener, watched: &Arc<Watched>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
            continue;
        };
        let watched = Arc::clone(watched);
        tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
                let response = routes::answer(&request, &watched);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME)
                .max_buf_size(HEAD_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .serve_connection(TokioIo::new(stream), answer);
            // Whoever breaks a rule or takes too long was told so by hyper, or is simply gone.
            let _ = tokio::time::timeout(CONNECTION_TIME, connection).await;
            drop(place);
        });
    }
}
