//! Tokens for the demo's own users, signed with a key that is made anew for each run.

use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{EncodingKey, Header};

/// How long a token is good. A run may be longer: pages and clients that come back fetch a new one.
const LIFETIME_S: u64 = 24 * 3600;

/// The secret that the gateway of this run shares.
pub(crate) struct Key(String);

impl Key {
    /// A new one.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A token for that user, by `now_s` (seconds since the Unix epoch).
    pub(crate) fn token(&self, user_id: &str, now_s: u64) -> String {
        bellwire_jwt::install();
        let claims = serde_json::json!({ "sub": user_id, "iat": now_s, "exp": now_s + LIFETIME_S });
        let key = EncodingKey::from_secret(self.0.as_bytes());
        // HMAC takes keys of any length, and the claims are plain JSON.
        jsonwebtoken::encode(&Header::default(), &claims, &key)
            .unwrap_or_else(|error| unreachable!("{error}"))
    }
}
