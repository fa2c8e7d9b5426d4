//! What operators and their tools look at: health, metrics, a read-only API and a page, over HTTP.
//!
//! A thread of its own with an event loop of its own: whatever is asked here holds up neither broker nor shards. It reads
//! what they count ([`Watched`]) and can change nothing. `server` keeps the connections within bounds, `routes` says what is
//! where, `metrics` and `api` write the answers.

mod api;
mod errors;
mod exposition;
mod health;
mod metrics;
mod process;
mod routes;
mod server;
mod watched;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

pub use errors::RecentErrors;
pub use watched::Watched;

use crate::config;

/// An admin listener that runs; dropping it ends it.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("admin.address: cannot listen on {address}: {error}; admin.enabled = false goes without it")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot start the admin listener's thread: {0}")]
    Thread(io::Error),
}

impl Admin {
    /// Listens, and answers from then on; `None` if the configuration does not want it.
    ///
    /// # Errors
    /// [`AdminError`].
    pub fn start(config: &config::Admin, watched: Arc<Watched>) -> Result<Option<Self>, AdminError> {
        if !config.enabled {
            return Ok(None);
        }
        let listen = || {
            let listener = std::net::TcpListener::bind(config.address)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, listener))
        };
        let (address, listener) =
            listen().map_err(|error| AdminError::Listen { address: config.address, error })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(AdminError::Thread)?;
        let (end, ended) = oneshot::channel::<()>();
        let serve = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                tokio::select! {
                    () = server::serve(listener, watched) => {}
                    _ = ended => {}
                }
            });
        };
        let thread =
            std::thread::Builder::new().name("admin".to_owned()).spawn(serve).map_err(AdminError::Thread)?;
        announce(address);
        Ok(Some(Self { address, end: Some(end), thread: Some(thread) }))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to lose; a panic of it was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Tells programs and people where it is.
fn announce(address: SocketAddr) {
    // Nobody may be reading any more.
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "admin http://{address}").and_then(|()| out.flush());
    tracing::info!(%address, "admin listener");
}
