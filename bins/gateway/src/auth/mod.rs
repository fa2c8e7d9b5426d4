//! Who a client is: the token, and nothing but the token, says so.
//!
//! A token is a JWT with `sub` (the user id), `exp`, and optionally `channels` (a list of channel names that limits what
//! the client may subscribe to). It is checked by one key, and each key is for one algorithm: what a token says of its
//! algorithm must be equal to that, so neither `alg: none` nor a public key used as an HMAC secret gets anywhere. Which
//! key it is, the token's `kid` says; see [`keys`]. A token is verified once a connection, and once more for each refresh.
//!
//! A token that was believed may be taken back before its end: see [`revocation`].

mod channels;
mod claims;
mod jwks;
mod keys;
pub mod revocation;

use std::sync::{Arc, PoisonError, RwLock};

use crate::config::Token;

pub use channels::ChannelSet;
pub use claims::{Identity, TOKEN_BYTES_MAX, TokenError, TokenMark};
pub use jwks::JwksError;
pub use keys::{KeyError, Keyring};
pub use revocation::Revocations;

/// Checks tokens. What is cloned shares keys and revocations.
#[derive(Clone)]
pub struct Verifier {
    // Taken for reading once a connection, for writing when keys change.
    keys: Arc<RwLock<Arc<Keyring>>>,
    revocations: Arc<Revocations>,
}

impl Verifier {
    /// A verifier with the configured keys, and nothing revoked.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with a key.
    pub fn new(config: &Token) -> Result<Self, KeyError> {
        let keys = Arc::new(Keyring::load(config)?);
        Ok(Self { keys: Arc::new(RwLock::new(keys)), revocations: Arc::default() })
    }

    /// Reads the keys anew. Whoever is inside stays; who comes from now on is measured by the new keys.
    ///
    /// # Errors
    /// [`KeyError`]; then the old keys stay.
    pub fn reload(&self, config: &Token) -> Result<(), KeyError> {
        let keys = Arc::new(Keyring::load(config)?);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    /// How many keys there are.
    pub fn key_count(&self) -> usize {
        self.keys().len()
    }

    /// Checks a token.
    ///
    /// # Errors
    /// [`TokenError`] says why the token is not believed.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let mut identity = self.keys().verify(token)?;
        identity.mark.token_id = identity.token_id.as_deref().map(|id| self.revocations.key_of(id));
        if self.revocations.is_revoked(&identity.user_id, identity.mark) {
            return Err(TokenError::Revoked);
        }
        Ok(identity)
    }

    /// What was taken back; the place where a command takes back more.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    fn keys(&self) -> Arc<Keyring> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
