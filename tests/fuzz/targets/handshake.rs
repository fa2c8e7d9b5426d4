//! The HTTP request of a connection: a WebSocket, a refusal that the client is told, or an error; and an identity only from a
//! token that stands in the request.
#![no_main]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bellwire_fuzz::tokens::{SECRET, good};
use bellwire_fuzz::{arbitrary, fuzz_target};
use bellwire_gateway::config::{Config, ForwardedHeader, Listen, Token};
use bellwire_gateway::doors::Doors;
use bellwire_gateway::socket::handshake::{Admission, Flavour, HandshakeError, accept};

/// A proxy that is believed: what it says of the client is read, too.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const ORIGIN: &str = "https://a.example";

static DOORS: LazyLock<Arc<Doors>> = LazyLock::new(|| {
    let token = Token { key: Some(SECRET.to_owned()), ..Token::default() };
    let listen = Listen {
        origins: vec![ORIGIN.to_owned()],
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        forwarded_header: ForwardedHeader::XForwardedFor,
        ..Listen::default()
    };
    Doors::open(&Config { token, listen, ..Config::default() }).expect("a sound configuration")
});
static GOOD: LazyLock<String> = LazyLock::new(good);

thread_local! {
    static RUNTIME: tokio::runtime::Runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    let admission = *bytes.choose(&[
        Admission::Admitted,
        Admission::Admitted,
        Admission::Admitted,
        Admission::TooManyOfAddress,
        Admission::Full,
    ])?;
    let request = if bytes.ratio(1, 4)? { bytes.bytes(bytes.len())?.to_vec() } else { made(bytes)? };
    accepted(&request, admission);
    Ok(())
}

/// A request that is right but for what the fuzzer changes.
fn made(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut request = Vec::new();
    let start = *bytes.choose(&[
        "GET / HTTP/1.1",
        "GET /",
        "POST / HTTP/1.1",
        "GET /?token=a.b.c HTTP/1.1",
        "GET / HTTP/1.0",
    ])?;
    request.extend_from_slice(if bytes.ratio(7, 8)? { b"GET / HTTP/1.1" } else { start.as_bytes() });
    let mut line = |name: &str, value: &[u8]| {
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(name.as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value);
    };
    let needed = [
        ("Host", "a"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in needed {
        match bytes.int_in_range(0..=31)? {
            0 => {}
            1 => line(name, bytes.arbitrary()?),
            _ => line(name, value.as_bytes()),
        }
    }
    for _ in 0..bytes.int_in_range(0..=4)? {
        let name = *bytes.choose(&[
            "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Protocol",
            "Authorization",
            "Origin",
            "X-Forwarded-For",
            "Host",
            "X",
        ])?;
        let mut value = Vec::new();
        for _ in 0..bytes.int_in_range(1..=4)? {
            let known = [
                "bellwire.v1.json",
                "bellwire.bare.json",
                "bearer.",
                "Bearer ",
                "Basic ",
                ", ",
                "mqtt",
                ORIGIN,
                "192.0.2.1",
                "127.0.0.2",
                "[2001:db8::1]:1",
                &*GOOD,
            ];
            if bytes.ratio(1, 6)? {
                value.extend_from_slice(bytes.arbitrary()?);
            } else {
                value.extend_from_slice(bytes.choose(&known)?.as_bytes());
            }
        }
        line(name, &value);
    }
    request.extend_from_slice(b"\r\n\r\n");
    // A client that begins with its frames does not wait for the answer.
    request.extend_from_slice(bytes.bytes(bytes.len())?);
    Ok(request)
}

fn accepted(request: &[u8], admission: Admission) {
    // A pair of sockets in the place of a connection: they read and write alike, and no port is used up.
    let (mut client, server) = UnixStream::pair().expect("two sockets");
    let server = TcpStream::from(OwnedFd::from(server));
    server.set_nonblocking(true).expect("a socket");
    client.write_all(request).expect("a request is shorter than a socket's buffer");
    client.shutdown(Shutdown::Write).expect("a socket");
    let accepted = RUNTIME.with(|runtime| {
        runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(server).expect("an event loop that takes sockets");
            // The client has said all that it says: there is nothing to wait for.
            tokio::time::timeout(
                Duration::from_secs(5),
                accept(stream, PEER, &DOORS, |client| {
                    assert!(client.is_some(), "a proxy that is believed speaks for somebody");
                    admission
                }),
            )
            .await
        })
    });
    let accepted = accepted.expect("a request has an end");
    let is_accepted = accepted.is_ok();
    let refused = match accepted {
        Ok(accepted) => {
            assert_eq!(admission, Admission::Admitted);
            assert!(accepted.answer.starts_with(b"HTTP/1.1 101 ") && accepted.answer.ends_with(b"\r\n\r\n"));
            let is_known = matches!(accepted.identity, Some(Ok(_)));
            assert!(accepted.flavour == Flavour::V1 || is_known, "a bare session of nobody");
            if let Some(Ok(identity)) = accepted.identity {
                let token = GOOD.as_bytes();
                assert!(
                    request.windows(token.len()).any(|window| window == token),
                    "an identity without its token"
                );
                assert_eq!(*identity.user_id, *"user_01");
            }
            None
        }
        Err(HandshakeError::Refused(code)) => Some(code),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    };
    let mut answer = Vec::new();
    // The other end may have been closed with bytes unread.
    let _ = client.read_to_end(&mut answer);
    if is_accepted {
        assert!(answer.is_empty(), "the answer that accepts goes out with the first frames");
    }
    if let Some(code) = refused {
        assert!(
            answer.starts_with(format!("HTTP/1.1 {code} ").as_bytes()),
            "a refusal that the client is not told"
        );
    }
}
