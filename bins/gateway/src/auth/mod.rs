//! Who a client is: the token, and nothing but the token, says so.
//!
//! A token is a JWT with `sub` (the user id), `exp`, and optionally `channels` (a list of channel names that limits what
//! the client may subscribe to). The algorithm is fixed by the configuration: what a token says of itself must be equal to
//! it, so neither `alg: none` nor a public key used as an HMAC secret gets anywhere. A token is verified once a
//! connection, and once more for each refresh.

use bellwire::{Channel, EVERYBODY, USER_ID_BYTES_MAX};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;

use crate::config::{Algorithm, Token};

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Checks tokens. Cloning it for every shard is cheap enough: once at start.
#[derive(Clone)]
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user_id: Box<str>,
    /// When the token ends, in seconds since the Unix epoch.
    pub expires: u64,
    pub channels: ChannelSet,
}

/// A key that checks nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A sentence of the configuration.
    #[error("{0}")]
    Config(String),
    #[error("token: the EdDSA key is not an Ed25519 public key in PEM (-----BEGIN PUBLIC KEY-----)")]
    NotEd25519,
}

/// Why a token was refused. The text goes to the client; it says nothing about the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token is not signed by the algorithm that is asked for here")]
    Algorithm,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has no `{0}`")]
    Missing(String),
    #[error("the token is for another audience or from another issuer")]
    NotForUs,
    #[error("the token's `sub` is no user id: 1 to {USER_ID_BYTES_MAX} bytes and not `*`")]
    User,
    #[error("the token names the channel {0:?}, which does not exist")]
    Channel(String),
    #[error("the token has {0} bytes, more than {TOKEN_BYTES_MAX}")]
    TooLong(usize),
    #[error("this is not a token")]
    Malformed,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    #[serde(default)]
    channels: Option<Vec<String>>,
}

impl Verifier {
    /// A verifier with the configured key.
    ///
    /// # Errors
    /// [`KeyError`] says what is wrong with the key.
    pub fn new(config: &Token) -> Result<Self, KeyError> {
        bellwire_jwt::install();
        let key = config.key_bytes().map_err(KeyError::Config)?;
        let (key, algorithm) = match config.algorithm {
            Algorithm::HS256 => (DecodingKey::from_secret(&key), jsonwebtoken::Algorithm::HS256),
            Algorithm::EdDSA => {
                let pem = std::str::from_utf8(&key).map_err(|_| KeyError::NotEd25519)?;
                let public = bellwire_jwt::ed25519_decoding_key(pem).map_err(|_| KeyError::NotEd25519)?;
                (public, jsonwebtoken::Algorithm::EdDSA)
            }
        };
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
        Ok(Self { key, validation })
    }

    /// Checks a token.
    ///
    /// # Errors
    /// [`TokenError`] says why the token is not believed.
    pub fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong(token.len()));
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| TokenError::from(error.kind()))?
            .claims;
        if claims.sub.is_empty() || claims.sub.len() > USER_ID_BYTES_MAX || claims.sub == EVERYBODY {
            return Err(TokenError::User);
        }
        let channels = match claims.channels {
            None => ChannelSet::ALL,
            Some(names) => {
                let mut channels = ChannelSet::NONE;
                for name in names {
                    match Channel::from_name(&name) {
                        Some(channel) => channels.insert(channel),
                        None => return Err(TokenError::Channel(name)),
                    }
                }
                channels
            }
        };
        // A cast from a float saturates; a token without a sensible end was refused above.
        Ok(Identity { user_id: claims.sub.into(), expires: claims.exp as u64, channels })
    }
}

impl From<&ErrorKind> for TokenError {
    fn from(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYet,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => Self::Algorithm,
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => Self::NotForUs,
            ErrorKind::MissingRequiredClaim(claim) => Self::Missing(claim.clone()),
            _ => Self::Malformed,
        }
    }
}

/// A set of channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelSet(u8);

impl ChannelSet {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << Channel::ALL.len()) - 1);

    pub fn insert(&mut self, channel: Channel) {
        self.0 |= 1 << channel as u8;
    }

    #[inline]
    pub fn contains(self, channel: Channel) -> bool {
        self.0 & (1 << channel as u8) != 0
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one alone.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The channels, in the order in which the protocol lists them.
    pub fn iter(self) -> impl Iterator<Item = Channel> {
        Channel::ALL.into_iter().filter(move |&channel| self.contains(channel))
    }
}

impl serde::Serialize for ChannelSet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Channel::name))
    }
}

#[cfg(test)]
mod tests;
