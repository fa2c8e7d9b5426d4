//! What stands between the network and a session: TLS, origins, proxies that are believed, keys and revocations.
//!
//! All of it can change while the gateway runs; [`Keeper`] sees to that. Who is inside is not disturbed by a change, unless
//! it is a revocation.

mod keeper;
mod origins;
mod proxies;
mod tls;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio_tungstenite::tungstenite::http::HeaderMap;

use crate::auth::revocation::{FILE_BYTES_MAX, RevocationError};
use crate::auth::{KeyError, Verifier};
use crate::config::{Config, Listen, read_bounded};

pub use keeper::Keeper;
pub use origins::{Origins, check_origin};
pub use proxies::Proxies;
pub use tls::{Tls, TlsError};

/// Doors that do not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("token.revocation_file: cannot read {}: {error}", path.display())]
    ReadRevocations { path: std::path::PathBuf, error: std::io::Error },
    #[error("token.revocation_file: {}: {error}", path.display())]
    Revocations { path: std::path::PathBuf, error: RevocationError },
}

/// Shared by acceptor, shards and commands.
pub struct Doors {
    verifier: Verifier,
    tls: Option<Tls>,
    // Taken for reading once a connection, for writing when the configuration changes.
    policy: RwLock<Arc<Policy>>,
}

/// Who may knock, and as whom.
#[derive(Debug)]
pub struct Policy {
    origins: Origins,
    proxies: Proxies,
}

impl Doors {
    /// Reads everything that the configuration names.
    ///
    /// # Errors
    /// A key, a certificate or the revocations cannot be used.
    pub fn open(config: &Config) -> Result<Arc<Self>, DoorsError> {
        let doors = Self {
            verifier: Verifier::new(&config.token)?,
            tls: Tls::load(&config.listen)?,
            policy: RwLock::new(Arc::new(Policy::new(&config.listen))),
        };
        doors.reload_revocations(config)?;
        Ok(Arc::new(doors))
    }

    /// Checks tokens; revocations are reached through it.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn reload_policy(&self, config: &Config) {
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Policy::new(&config.listen));
    }

    fn reload_revocations(&self, config: &Config) -> Result<usize, DoorsError> {
        let revocations = self.verifier.revocations();
        let Some(path) = config.token.revocation_file.as_deref() else {
            return Ok(revocations.replace(b"").unwrap_or_default());
        };
        let text = read_bounded(path, FILE_BYTES_MAX)
            .map_err(|error| DoorsError::ReadRevocations { path: path.to_owned(), error })?;
        revocations.replace(&text).map_err(|error| DoorsError::Revocations { path: path.to_owned(), error })
    }
}

impl Policy {
    fn new(listen: &Listen) -> Self {
        Self {
            origins: Origins::new(&listen.origins),
            proxies: Proxies::new(&listen.trusted_proxies, listen.forwarded_header),
        }
    }

    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// The client's address, if the peer is a proxy that is believed; `None`: the peer is the client.
    pub fn client_behind(&self, peer: IpAddr, headers: &HeaderMap) -> Option<IpAddr> {
        self.proxies.trusts(peer).then(|| self.proxies.client(peer, headers))
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("policy", &self.policy()).finish_non_exhaustive()
    }
}
