//! What is where.
//!
//! Browsers are kept from reading this on behalf of pages from elsewhere: a request names the address itself (or
//! `localhost`) as its `Host`, not a name that somebody else's DNS points here.

use std::net::{IpAddr, SocketAddr};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};

use super::watched::Watched;
use super::{api, health, metrics};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The page loads what lies beside it and asks this listener, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("/charts.js", "text/javascript; charset=utf-8", include_str!("page/charts.js")),
];

type Answer = Response<Full<Bytes>>;

pub(super) fn answer<B>(request: &Request<B>, watched: &Watched) -> Answer {
    if !request.headers().get(HOST).is_none_or(|host| host.to_str().is_ok_and(is_own_name)) {
        return respond(
            StatusCode::MISDIRECTED_REQUEST,
            TEXT,
            "ask by address (or as localhost), not by another name\n",
        );
    }
    let is_head = request.method() == Method::HEAD;
    if !is_head && request.method() != Method::GET {
        let mut response =
            respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET: nothing can be changed here\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let path = request.uri().path();
    if let Some((_, kind, body)) = FILES.iter().find(|(name, ..)| *name == path) {
        return respond(StatusCode::OK, kind, *body);
    }
    match path {
        "/livez" => healthy(&health::live(watched)),
        "/readyz" => healthy(&health::ready(watched)),
        "/metrics" => respond(StatusCode::OK, METRICS, metrics::text(watched)),
        "/api/v1/overview" => json(&api::overview(watched)),
        "/api/v1/lanes" => json(&api::lanes(watched)),
        "/api/v1/sessions" => json(&api::sessions(watched)),
        "/api/v1/streams" => json(&api::streams(watched)),
        "/api/v1/errors" => json(&api::recent_errors()),
        _ => respond(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /, /livez, /readyz, /metrics, /api/v1/overview, /api/v1/lanes, /api/v1/sessions, \
             /api/v1/streams and /api/v1/errors\n",
        ),
    }
}

/// A literal address or `localhost`, with or without a port.
fn is_own_name(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || host.parse::<SocketAddr>().is_ok()
        || bare.parse::<IpAddr>().is_ok()
}

fn healthy(checks: &[health::Check]) -> Answer {
    let (is_well, report) = health::report(checks);
    respond(if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, TEXT, report)
}

fn json(value: &serde_json::Value) -> Answer {
    respond(StatusCode::OK, JSON, format!("{value}\n"))
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_own_names() {
        for own in
            ["127.0.0.1", "127.0.0.1:9464", "[::1]:9464", "[::1]", "localhost", "LocalHost:80", "10.0.0.7:1"]
        {
            assert!(is_own_name(own), "{own}");
        }
        for foreign in
            ["", "evil.example", "evil.example:9464", "localhost.evil.example", "127.0.0.1.evil.example:80"]
        {
            assert!(!is_own_name(foreign), "{foreign}");
        }
    }
}
