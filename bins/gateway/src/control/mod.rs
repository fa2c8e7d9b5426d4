//! Where operators change something: a Unix socket, apart from everything that clients or scrapers reach.
//!
//! One request a line, one answer a line, both JSON; `requests` says what can be asked, the operator's guide what it does. Who may
//! ask is decided twice: by the socket's mode, and by the peer's credentials, which stand in the log with every change.
//!
//! A thread of its own with an event loop of its own, so that a slow disk (`reload`) or a slow directory service holds up
//! nobody but operators.

mod caller;
mod operations;
mod requests;
mod server;
mod socket;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::admin::Watched;
use crate::config;
use crate::doors::Doors;
use crate::reload::Reloader;
use crate::shard::Orders;
use caller::Permitted;
use socket::Bound;

/// What can be changed, and where.
#[derive(Debug)]
pub struct Parts {
    pub watched: Arc<Watched>,
    pub shards: Vec<Orders>,
    pub doors: Arc<Doors>,
    pub reloader: Arc<Reloader>,
    pub stops: mpsc::Sender<Stop>,
}

/// The gateway is to end in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// Within this time; `None`: within `session.drain_ms`.
    pub within: Option<Duration>,
}

/// A control socket that is served; dropping it ends it and removes the socket.
#[derive(Debug)]
pub struct Control {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("control.socket: cannot listen on {}: {error}{}", path.display(), hint(.error))]
    Listen { path: PathBuf, error: io::Error },
    #[error("control.socket: another gateway (or whoever else) listens on {}", path.display())]
    InUse { path: PathBuf },
    #[error("control.socket: {} is there and is no socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("control.group: {0}")]
    Group(String),
    #[error("cannot start the control socket's thread: {0}")]
    Thread(io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    // Of `chown`; the kernel has another word for a directory that may not be written to.
    if error.raw_os_error() == Some(nix::libc::EPERM) {
        return "; to give it to control.group the gateway's user must be a member (systemd: SupplementaryGroups=)";
    }
    match error.kind() {
        io::ErrorKind::NotFound => "; its directory is to be there already (systemd: RuntimeDirectory=)",
        io::ErrorKind::PermissionDenied => "; its directory must be writable for the gateway's user",
        _ => "",
    }
}

impl Control {
    /// Listens, and answers from then on; `None` if the configuration does not want it.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn start(config: &config::Control, parts: Parts) -> Result<Option<Self>, ControlError> {
        let Some(path) = &config.socket else { return Ok(None) };
        let permitted = Permitted::new(config.group.as_deref()).map_err(ControlError::Group)?;
        let bound = Bound::bind(path, permitted.group())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(ControlError::Thread)?;
        let (end, ended) = oneshot::channel::<()>();
        let serve = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                tokio::select! {
                    () = server::serve(bound, permitted, parts) => {}
                    _ = ended => {}
                }
            });
        };
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(serve)
            .map_err(ControlError::Thread)?;
        tracing::info!(path = %path.display(), "control socket");
        Ok(Some(Self { end: Some(end), thread: Some(thread) }))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to lose; a panic of it was reported when it happened.
            let _ = thread.join();
        }
    }
}
