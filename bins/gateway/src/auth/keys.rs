//! The keys that tokens are checked by. Each key is for one algorithm.
//!
//! There may be one *plain* key (`token.key` or `token.key_file`) and any number of *named* ones (`token.jwks_file`). With
//! a JWKS, a token's `kid` says which named key it is checked by, and a `kid` that is not there is refused. A token without
//! a `kid` is checked by the plain key; if there is none, by the named key, if there is just one. Without a JWKS a `kid`
//! means nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::claims::{Claims, Identity, TOKEN_BYTES_MAX, TokenError};
use super::jwks::{self, JwksError};
use crate::config::{self, Token};

/// Keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A sentence of the configuration.
    #[error("{0}")]
    Config(String),
    #[error("token: the key for {expected:?} is {why}")]
    NotPublic { expected: config::Algorithm, why: String },
    #[error("token: the key is for {found:?}, but token.algorithm is {expected:?}")]
    OtherAlgorithm { found: Algorithm, expected: config::Algorithm },
    #[error("token.jwks_file: cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error("token.jwks_file: {}: {error}", path.display())]
    Jwks { path: PathBuf, error: JwksError },
}

/// All keys at one time.
pub struct Keyring {
    plain: Option<Key>,
    /// `None` if there is no JWKS. Bounded by [`jwks::KEYS_MAX`].
    named: Option<HashMap<Box<str>, Key>>,
}

struct Key {
    key: DecodingKey,
    /// Of one algorithm.
    validation: Validation,
}

impl Keyring {
    /// Reads the configured keys.
    ///
    /// # Errors
    /// No key at all, or one that cannot be used.
    pub fn load(config: &Token) -> Result<Self, KeyError> {
        bellwire_jwt::install();
        let plain = config.key_bytes().map_err(KeyError::Config)?;
        let plain = plain.map(|bytes| plain_key(config.algorithm, &bytes)).transpose()?;
        let named = config.jwks_file.as_deref().map(read_jwks).transpose()?;
        let key = |(algorithm, key)| Key { key, validation: validation(config, algorithm) };
        Ok(Self {
            plain: plain.map(key),
            named: named.map(|named| named.into_iter().map(|(id, of)| (id, key(of))).collect()),
        })
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.plain.is_some()) + self.named.as_ref().map_or(0, HashMap::len)
    }

    /// Checks signature and claims.
    pub(super) fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(token.len()));
        }
        let header =
            jsonwebtoken::decode_header(token).map_err(|error| match TokenError::from(error.kind()) {
                // An algorithm that nobody knows, `none` among them, makes the header unreadable.
                TokenError::Algorithm => TokenError::Algorithm,
                _ => TokenError::Malformed,
            })?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let Key { key, validation } = self.find(header.kid.as_deref()).ok_or(TokenError::UnknownKey)?;
        jsonwebtoken::decode::<Claims>(token, key, validation)
            .map_err(|error| TokenError::from(error.kind()))?
            .claims
            .try_into()
    }

    fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (&self.named, id) {
            (Some(named), Some(id)) => named.get(id),
            (Some(named), None) if self.plain.is_none() && named.len() == 1 => named.values().next(),
            _ => self.plain.as_ref(),
        }
    }
}

fn plain_key(expected: config::Algorithm, bytes: &[u8]) -> Result<(Algorithm, DecodingKey), KeyError> {
    if expected == config::Algorithm::HS256 {
        return Ok((Algorithm::HS256, DecodingKey::from_secret(bytes)));
    }
    let not_public = |why: String| KeyError::NotPublic { expected, why };
    let pem = std::str::from_utf8(bytes).map_err(|error| not_public(error.to_string()))?;
    let (found, key) = bellwire_jwt::decoding_key(pem).map_err(|error| not_public(error.to_string()))?;
    if found != expected.into() {
        return Err(KeyError::OtherAlgorithm { found, expected });
    }
    Ok((found, key))
}

fn read_jwks(path: &Path) -> Result<jwks::Named, KeyError> {
    let text = config::read_bounded(path, jwks::BYTES_MAX)
        .map_err(|error| KeyError::Read { path: path.to_owned(), error })?;
    jwks::parse(&text).map_err(|error| KeyError::Jwks { path: path.to_owned(), error })
}

fn validation(config: &Token, algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.leeway = config.leeway_s;
    validation.validate_nbf = true;
    let mut required = vec!["exp", "sub"];
    match &config.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        None => validation.validate_aud = false,
    }
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    validation.set_required_spec_claims(&required);
    validation
}

impl From<config::Algorithm> for Algorithm {
    fn from(algorithm: config::Algorithm) -> Self {
        match algorithm {
            config::Algorithm::HS256 => Self::HS256,
            config::Algorithm::EdDSA => Self::EdDSA,
            config::Algorithm::ES256 => Self::ES256,
            config::Algorithm::RS256 => Self::RS256,
        }
    }
}
