//! A JWKS (RFC 7517): many keys in one file, each with a name (`kid`).
//!
//! Keys are rotated by it: the new key is added, then tokens are signed by it, and the old one is taken out when its last
//! token has ended. A key's algorithm follows from its kind; an `alg` beside it must agree. Every key must be usable, so
//! that a typing error does not lock out half of the clients later.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};

/// Longest file that is read, in bytes.
pub(super) const BYTES_MAX: u64 = 256 * 1024;

/// Most keys in it.
pub(super) const KEYS_MAX: usize = 64;

/// Keys by name, each for one algorithm.
pub(super) type Named = std::collections::HashMap<Box<str>, (Algorithm, DecodingKey)>;

/// A JWKS that is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    #[error("not a JWKS: {0}")]
    Malformed(String),
    #[error("{0} keys; there must be 1 to {KEYS_MAX}")]
    Count(usize),
    #[error("key {0} has no `kid`; without a name it cannot be asked for")]
    Nameless(usize),
    #[error("key {kid:?} is there twice")]
    Twice { kid: String },
    #[error("key {kid:?} is for encryption (`use`)")]
    NotForSignatures { kid: String },
    #[error("key {kid:?} is of a kind that is not used here; Ed25519, P-256, RSA and oct are")]
    Kind { kid: String },
    #[error("key {kid:?} is for {expected:?}, but its `alg` says {found}")]
    Algorithm { kid: String, expected: Algorithm, found: String },
    #[error("key {kid:?} cannot be read: {why}")]
    Key { kid: String, why: String },
    #[error("key {kid:?} has {len} bytes; at least {min} are needed")]
    Short { kid: String, len: usize, min: usize },
}

pub(super) fn parse(text: &[u8]) -> Result<Named, JwksError> {
    // What serde says of a place that it cannot read might show a part of a secret: the place has to do.
    let set: JwkSet = serde_json::from_slice(text)
        .map_err(|error| JwksError::Malformed(format!("line {}, column {}", error.line(), error.column())))?;
    if !(1..=KEYS_MAX).contains(&set.keys.len()) {
        return Err(JwksError::Count(set.keys.len()));
    }
    let mut named = Named::new();
    for (index, jwk) in set.keys.iter().enumerate() {
        let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty());
        let kid = kid.ok_or(JwksError::Nameless(index))?;
        let key = usable(jwk, &kid)?;
        if named.insert(kid.as_str().into(), key).is_some() {
            return Err(JwksError::Twice { kid });
        }
    }
    Ok(named)
}

fn usable(jwk: &Jwk, kid: &str) -> Result<(Algorithm, DecodingKey), JwksError> {
    let kid = || kid.to_owned();
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return Err(JwksError::NotForSignatures { kid: kid() });
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return Err(JwksError::Kind { kid: kid() }),
    };
    if let Some(said) = jwk.common.key_algorithm
        && said.to_string() != format!("{algorithm:?}")
    {
        return Err(JwksError::Algorithm { kid: kid(), expected: algorithm, found: said.to_string() });
    }
    let key =
        DecodingKey::from_jwk(jwk).map_err(|error| JwksError::Key { kid: kid(), why: error.to_string() })?;
    let min = match algorithm {
        Algorithm::HS256 => crate::config::HS256_KEY_LEN_MIN,
        // The point, and the byte that says that it is not compressed.
        Algorithm::ES256 => 65,
        Algorithm::EdDSA => 32,
        _ => RSA_MODULUS_LEN_MIN,
    };
    let len = match key.kind() {
        jsonwebtoken::DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => n.len(),
    };
    if len < min {
        return Err(JwksError::Short { kid: kid(), len, min });
    }
    Ok((algorithm, key))
}

/// 2048 bits.
const RSA_MODULUS_LEN_MIN: usize = 256;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(keys: Value) -> String {
        parse(json!({ "keys": keys }).to_string().as_bytes()).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn a_set_with_one_bad_key_is_refused_as_a_whole_and_says_which() {
        // 32 bytes each.
        let k = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";
        let good = json!({"kty": "oct", "kid": "a", "k": k});
        assert!(parse(json!({ "keys": [good] }).to_string().as_bytes()).is_ok());
        for (bad, why) in [
            (json!({"kty": "oct", "k": k}), "key 1 has no `kid`"),
            (json!({"kty": "oct", "kid": "a", "k": k}), "key \"a\" is there twice"),
            (json!({"kty": "oct", "kid": "b", "k": "c2hvcnQ"}), "key \"b\" has 5 bytes; at least 32"),
            (
                json!({"kty": "oct", "kid": "b", "k": k, "alg": "RS256"}),
                "is for HS256, but its `alg` says RS256",
            ),
            (json!({"kty": "oct", "kid": "b", "k": k, "use": "enc"}), "is for encryption"),
            (json!({"kty": "EC", "crv": "P-384", "kid": "b", "x": k, "y": k}), "of a kind that is not used"),
            (json!({"kty": "RSA", "kid": "b", "n": k, "e": "AQAB"}), "key \"b\" has 32 bytes; at least 256"),
        ] {
            let error = refused(json!([good, bad]));
            assert!(error.contains(why), "{error}");
        }
        assert!(refused(json!([])).starts_with("0 keys"));
        let many: Vec<Value> =
            (0..65).map(|kid: u32| json!({"kty": "oct", "kid": kid.to_string(), "k": k})).collect();
        assert!(refused(json!(many)).starts_with("65 keys"));
    }

    #[test]
    fn an_error_does_not_show_what_stands_in_the_file() {
        let error = parse(br#"{"keys": [{"kty": "oct", "kid": "a", "k": 1, "hush": "secret"}"#);
        assert!(!error.map(|_| ()).unwrap_err().to_string().contains("secret"));
    }
}
