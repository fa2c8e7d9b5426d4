//! Serves the page on the loopback interface: its files, who there is, a token for whom one wants to watch, and the
//! numbers of the run.
//!
//! Whoever can connect to this port gets a token of any of the demo's users, which is what the page is for. So requests
//! whose `Host` is not this very address are refused: a page from elsewhere must not get at it by a name of its own.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use super::tally::Look;
use super::token::Key;
use crate::exchange::ledger::{Kind, kind};
use crate::exchange::{User, user_id, user_number};

/// Browsers open half a dozen each.
const CONNECTIONS_MAX: usize = 64;

/// The header of requests that do something.
const BY_HAND: &str = "x-bellwire-demo";

const FILES: [(&str, &str, &str); 5] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("../page/page.js")),
    ("/session.js", "text/javascript; charset=utf-8", include_str!("../page/session.js")),
    ("/charts.js", "text/javascript; charset=utf-8", include_str!("../page/charts.js")),
];

/// What the page can ask for.
pub(crate) struct Site {
    pub(crate) key: Key,
    pub(crate) users: User,
    pub(crate) gateway: SocketAddr,
    pub(crate) look: RefCell<Option<Look>>,
    /// Somebody wants to see the gateway crash.
    pub(crate) kill: Notify,
}

/// Serves until the listener is dropped with its task.
pub(crate) async fn serve(listener: TcpListener, address: SocketAddr, site: Rc<Site>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; that passes.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let site = Rc::clone(&site);
        tokio::task::spawn_local(async move {
            let answer = service_fn(move |request| {
                let response = answer(&request, address, &site);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .serve_connection(TokioIo::new(stream), answer);
            // The browser went away, or spoke nonsense and was told so.
            let _ = connection.await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, address: SocketAddr, site: &Site) -> Response<Full<Bytes>> {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if host != address.to_string() && host != format!("localhost:{}", address.port()) {
        return text(StatusCode::FORBIDDEN, "this page has another address");
    }
    let path = request.uri().path();
    if request.method() == Method::POST && path == "/api/kill-gateway" {
        // A page from elsewhere cannot send this header without being asked for permission first, which it will not get.
        if !request.headers().contains_key(BY_HAND) {
            return text(StatusCode::FORBIDDEN, "only from this page");
        }
        site.kill.notify_one();
        return text(StatusCode::ACCEPTED, "killed");
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
    }
    if let Some((_, kind, body)) = FILES.iter().find(|(name, ..)| *name == path) {
        return respond(StatusCode::OK, kind, Bytes::from_static(body.as_bytes()), site.gateway);
    }
    let value = match path {
        "/api/users" => {
            let user = |user| json!({ "id": user_id(user), "kind": kind_name(user) });
            json!((0..site.users).map(user).collect::<Vec<_>>())
        }
        "/api/look" => json!(*site.look.borrow()),
        _ => match path.strip_prefix("/api/session/").and_then(user_number).filter(|&user| user < site.users)
        {
            Some(user) => {
                let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let token = site.key.token(&user_id(user), now_s);
                json!({ "url": format!("ws://{}/", site.gateway), "token": token })
            }
            None => return text(StatusCode::NOT_FOUND, "no such page"),
        },
    };
    respond(StatusCode::OK, "application/json", Bytes::from(value.to_string()), site.gateway)
}

fn kind_name(user: User) -> &'static str {
    match kind(user) {
        Kind::MarketMaker => "market maker",
        Kind::Gambler => "gambler",
        Kind::Retail => "trader",
    }
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(words.as_bytes())));
    *response.status_mut() = status;
    response
}

fn respond(
    status: StatusCode,
    kind: &'static str,
    body: Bytes,
    gateway: SocketAddr,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Browsers give a finer clock to pages that keep to themselves.
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-embedder-policy", HeaderValue::from_static("require-corp"));
    let policy = format!(
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws://{gateway}"
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}
