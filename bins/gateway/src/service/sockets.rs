//! A listening socket that systemd holds: it stays open while the gateway is restarted, and clients wait in its backlog
//! instead of being refused.

#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};

/// What was handed over is not what the gateway needs.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    #[error("LISTEN_FDS or LISTEN_PID: {0}")]
    Environment(io::Error),
    #[error(
        "{found} sockets were handed over (LISTEN_FDS); the gateway serves one: keep one ListenStream in its socket unit"
    )]
    Count { found: usize },
    #[error("the file that was handed over as descriptor {fd} is no listening TCP socket: {what}")]
    Kind { fd: i32, what: &'static str },
}

/// The socket that the service manager handed over, if it did.
///
/// # Errors
/// [`InheritError`].
pub fn inherited_listener() -> Result<Option<TcpListener>, InheritError> {
    let mut handed = sd_notify::listen_fds().map_err(InheritError::Environment)?;
    let Some(fd) = handed.next() else { return Ok(None) };
    if handed.len() > 0 {
        return Err(InheritError::Count { found: handed.len() + 1 });
    }
    let kind = |what| InheritError::Kind { fd, what };
    // SAFETY: the manager opened it for us (LISTEN_PID is ours, which `listen_fds` has checked) before we began; if it did
    // not, the descriptor is looked at and nothing is done to it.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    match getsockopt(&borrowed, sockopt::SockType) {
        Ok(SockType::Stream) => {}
        Ok(_) => return Err(kind("it is of another type than SOCK_STREAM")),
        Err(_) => return Err(kind("it is no socket")),
    }
    if getsockopt(&borrowed, sockopt::AcceptConn) != Ok(true) {
        return Err(kind("it does not listen"));
    }
    // SAFETY: it is open (it has answered), and from here on ours alone: nobody else in this process knows of it, and this
    // function is called once, at the start.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    let listener = TcpListener::from(owned);
    if listener.local_addr().is_err() {
        return Err(kind("it is of another family than IPv4 and IPv6"));
    }
    // What is accepted inherits it. A unit may have forgotten it.
    let set = setsockopt(&listener, sockopt::TcpNoDelay, &true);
    if let Err(error) = set {
        tracing::warn!(fd = listener.as_raw_fd(), %error, "TCP_NODELAY cannot be set on the socket that was handed over");
    }
    Ok(Some(listener))
}
