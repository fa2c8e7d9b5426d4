//! Tokens for the demo's own users, signed with a key that is made anew for each run.

use std::io::Read;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

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
        let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = serde_json::json!({ "sub": user_id, "iat": now_s, "exp": now_s + LIFETIME_S });
        let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()));
        // HMAC takes keys of any length.
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).unwrap_or_else(|error| unreachable!("{error}"));
        mac.update(signed.as_bytes());
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_the_standard_says() {
        // RFC 7515, appendix A.1, with its own header and claims, could not be rebuilt here: the claims are ours. What
        // can be checked is the shape and that the signature is that of the two first parts.
        let key = Key("secret".to_owned());
        let token = key.token("user_007", 1_728_123_456);
        let parts: Vec<&str> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let claims = BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "user_007");
        assert_eq!(claims["exp"], 1_728_123_456 + LIFETIME_S);
        let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
        mac.update(format!("{}.{}", parts[0], parts[1]).as_bytes());
        mac.verify_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[2]).unwrap()).unwrap();
    }
}
