//! Tokens: the one key that is right, and what nobody has signed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellwire_gateway::auth::Verifier;
use bellwire_gateway::config::{Algorithm, Token};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The secret of the gateway.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The public half of a key whose private half nobody has here: nothing that it verifies is genuine.
pub const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA+1ZmiTW7MX4oq2/TNtYH7SSKZyN73/DhrfHUZbJ89Ak=
-----END PUBLIC KEY-----";

/// After this, all that is made here has expired: the year 2100.
pub const END: u64 = 4_102_444_800;

/// What checks tokens by the secret, or by the public key.
pub fn verifier(algorithm: Algorithm) -> Verifier {
    let key = if algorithm == Algorithm::HS256 { SECRET } else { PUBLIC };
    let config = Token { algorithm, key: Some(key.to_owned()), ..Token::default() };
    Verifier::new(&config).expect("a sound key")
}

/// A token of these parts, signed by that key.
pub fn sign(header: &str, claims: &str, key: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = mac(&message, key).finalize().into_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Whether the secret has signed it, found out without the library that the gateway uses.
pub fn is_genuine(token: &str) -> bool {
    let Some((message, signature)) = token.rsplit_once('.') else { return false };
    let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
    mac(message, SECRET.as_bytes()).verify_slice(&signature).is_ok()
}

/// What the token says, if it says anything.
pub fn claims(token: &str) -> Option<serde_json::Value> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice(&claims).ok()
}

/// A good token of `user_01`.
pub fn good() -> String {
    sign(r#"{"alg":"HS256","typ":"JWT"}"#, &format!(r#"{{"sub":"user_01","exp":{END}}}"#), SECRET.as_bytes())
}

fn mac(message: &str, key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of any length").chain_update(message)
}
