//! What a token says, once its signature was found good.

use bellwire::{Channel, EVERYBODY, USER_ID_BYTES_MAX};
use jsonwebtoken::errors::ErrorKind;
use serde::Deserialize;

use super::ChannelSet;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user_id: Box<str>,
    /// When the token ends, in seconds since the Unix epoch.
    pub expires: u64,
    pub channels: ChannelSet,
    /// `jti`, if there is one.
    pub token_id: Option<Box<str>>,
    /// What is kept of the token as long as its session is open.
    pub mark: TokenMark,
}

/// By what a token can be told from others when it is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenMark {
    /// The key of its `jti` among the revocations.
    pub token_id: Option<std::num::NonZeroU64>,
    /// `iat`, in seconds since the Unix epoch. A token that does not say counts as issued before everything.
    pub issued: u64,
}

/// Why a token was refused. The text goes to the client; it says nothing about the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
    #[error("the token was revoked")]
    Revoked,
    #[error("the token is not signed by the algorithm that is asked for here")]
    Algorithm,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token's `kid` names no key that is known here")]
    UnknownKey,
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
    #[error("the token's header asks for extensions (`crit`) that are not understood here")]
    Critical,
    #[error("this is not a token")]
    Malformed,
}

#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: f64,
    #[serde(default)]
    iat: Option<f64>,
    #[serde(default)]
    jti: Option<String>,
    #[serde(default)]
    channels: Option<Vec<String>>,
}

impl TryFrom<Claims> for Identity {
    type Error = TokenError;

    fn try_from(claims: Claims) -> Result<Self, TokenError> {
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
        Ok(Self {
            user_id: claims.sub.into(),
            // Casts from floats saturate; a token without a sensible end was refused already.
            expires: claims.exp as u64,
            channels,
            token_id: claims.jti.map(Into::into),
            mark: TokenMark { token_id: None, issued: claims.iat.unwrap_or_default() as u64 },
        })
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
