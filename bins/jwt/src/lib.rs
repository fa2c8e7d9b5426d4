//! The signatures that Bellwire's tokens may have, for the jsonwebtoken crate: HS256 and EdDSA (Ed25519) from RustCrypto's
//! `hmac` and `ed25519-dalek`, ES256 and RS256 from `ring`.
//!
//! jsonwebtoken's own back ends would cost more than they give: `aws_lc_rs` compiles a C library (over two minutes of
//! two cores, half of what a clone has until its first notification) and `rust_crypto` brings RSA and its open
//! advisory along. Parsing, the algorithm check and the claims stay
//! jsonwebtoken's; what stands here compares in constant time (`Mac::verify_slice`) and refuses weak keys
//! (`verify_strict`).

mod public;

use std::sync::Once;

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey};
use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey};
use sha2::Sha256;
use signature::{Error, Signer, Verifier};

pub use public::{NotPublic, decoding_key, encoding_key};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // These make a JWK out of a key, which nobody does here. A key out of a JWK needs none of them.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes jsonwebtoken use these; the first call of the process does it.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // An error says that somebody else's provider is in place. Only tests of other crates could do that.
        let _ = PROVIDER.install_default();
    });
}

/// What jsonwebtoken verifies by, from the public half of an Ed25519 key in PEM.
///
/// # Errors
/// [`NotEd25519`]; also for the private half, which has no business where tokens are only verified.
pub fn ed25519_decoding_key(pem: &str) -> std::result::Result<DecodingKey, NotEd25519> {
    let public =
        VerifyingKey::from_public_key_pem(pem.trim()).map_err(|error| NotEd25519(error.to_string()))?;
    Ok(DecodingKey::from_ed_der(public.as_bytes()))
}

/// The same from the private half.
///
/// # Errors
/// [`NotEd25519`].
pub fn ed25519_decoding_key_of_private(pem: &str) -> std::result::Result<DecodingKey, NotEd25519> {
    Ok(DecodingKey::from_ed_der(private(pem)?.verifying_key().as_bytes()))
}

/// What jsonwebtoken signs by, from an Ed25519 private key in PEM (PKCS #8).
///
/// # Errors
/// [`NotEd25519`].
pub fn ed25519_encoding_key(pem: &str) -> std::result::Result<EncodingKey, NotEd25519> {
    Ok(EncodingKey::from_ed_der(private(pem)?.as_bytes()))
}

fn private(pem: &str) -> std::result::Result<SigningKey, NotEd25519> {
    SigningKey::from_pkcs8_pem(pem.trim()).map_err(|error| NotEd25519(error.to_string()))
}

/// Not the key that was asked for, and why.
#[derive(Debug)]
pub struct NotEd25519(String);

impl std::fmt::Display for NotEd25519 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotEd25519 {}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256(keyed(key.as_bytes())?))),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            let seed = key.as_bytes().try_into().map_err(|_| ErrorKind::InvalidEddsaKey)?;
            Ok(Box::new(EdDsaSigner(SigningKey::from_bytes(seed))))
        }
        (Algorithm::ES256, AlgorithmFamily::Ec) => Ok(Box::new(public::Es256Signer::new(key)?)),
        (Algorithm::RS256, AlgorithmFamily::Rsa) => Ok(Box::new(public::Rs256Signer::new(key)?)),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hs256(keyed(key.try_get_as_bytes()?)?))),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            let bytes = key.try_get_as_bytes()?.try_into().map_err(|_| ErrorKind::InvalidEddsaKey)?;
            let key = VerifyingKey::from_bytes(bytes).map_err(|_| ErrorKind::InvalidEddsaKey)?;
            Ok(Box::new(EdDsaVerifier(key)))
        }
        (Algorithm::ES256, AlgorithmFamily::Ec) => Ok(Box::new(public::Es256Verifier::new(key)?)),
        (Algorithm::RS256, AlgorithmFamily::Rsa) => Ok(Box::new(public::Rs256Verifier::new(key))),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn keyed(key: &[u8]) -> Result<Hmac<Sha256>> {
    Hmac::new_from_slice(key).map_err(|_| ErrorKind::InvalidKeyFormat.into())
}

struct Hs256(Hmac<Sha256>);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(self.0.clone().chain_update(message).finalize().into_bytes().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        // Compares in constant time.
        self.0.clone().chain_update(message).verify_slice(signature).map_err(|_| Error::new())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

struct EdDsaSigner(SigningKey);

impl Signer<Vec<u8>> for EdDsaSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(ed25519_dalek::Signer::sign(&self.0, message).to_vec())
    }
}

impl JwtSigner for EdDsaSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct EdDsaVerifier(VerifyingKey);

impl Verifier<Vec<u8>> for EdDsaVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let signature = Signature::from_slice(signature).map_err(|_| Error::new())?;
        self.0.verify_strict(message, &signature).map_err(|_| Error::new())
    }
}

impl JwtVerifier for EdDsaVerifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Header, Validation};
    use serde_json::{Value, json};

    use super::*;

    /// A private key that belongs to nobody, and the public half.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJHdRxyFJVmdqsG+82tVHHIRkrX2q+Aa2l9dXJcGftKC
-----END PRIVATE KEY-----";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA+1ZmiTW7MX4oq2/TNtYH7SSKZyN73/DhrfHUZbJ89Ak=
-----END PUBLIC KEY-----";

    fn check(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Result<Value> {
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        jsonwebtoken::decode(token, key, &validation).map(|data| data.claims)
    }

    #[test]
    fn what_one_key_signed_no_other_verifies() {
        install();
        let claims = json!({"sub": "user_01"});
        let secret = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
        let signing =
            [(Algorithm::HS256, secret), (Algorithm::EdDSA, ed25519_encoding_key(PRIVATE).unwrap())];
        let verifying = [
            (Algorithm::HS256, DecodingKey::from_secret(b"0123456789abcdef0123456789abcdef")),
            (Algorithm::HS256, DecodingKey::from_secret(b"another")),
            (Algorithm::EdDSA, ed25519_decoding_key(PUBLIC).unwrap()),
            (Algorithm::EdDSA, ed25519_decoding_key_of_private(PRIVATE).unwrap()),
        ];
        let mut good = Vec::new();
        for (signer, (algorithm, key)) in signing.iter().enumerate() {
            let token = jsonwebtoken::encode(&Header::new(*algorithm), &claims, key).unwrap();
            for (verifier, (algorithm, key)) in verifying.iter().enumerate() {
                if let Ok(found) = check(&token, *algorithm, key) {
                    assert_eq!(found, claims);
                    good.push((signer, verifier));
                }
            }
        }
        assert_eq!(good, [(0, 0), (1, 2), (1, 3)]);
    }

    /// P-256, of nobody.
    const EC_PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgT6iNJVQciznvPYp1
U0A/Z3+wTvkL2TSsEpMhMRaCpJqhRANCAASn9UyK3eOD2xt0Z5lRN0mVWF/WHlIz
AJhesxAFLWqG/+xOiWOZq7JK77e68/sG+hOihNBGx6ChlzFto91KJ8PM
-----END PRIVATE KEY-----";
    const EC_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEp/VMit3jg9sbdGeZUTdJlVhf1h5S
MwCYXrMQBS1qhv/sToljmauySu+3uvP7BvoTooTQRsegoZcxbaPdSifDzA==
-----END PUBLIC KEY-----";

    #[test]
    fn a_public_key_says_which_algorithm_it_is_for() {
        install();
        let (algorithm, key) = decoding_key(EC_PUBLIC).unwrap();
        assert_eq!(algorithm, Algorithm::ES256);
        assert_eq!(decoding_key(PUBLIC).unwrap().0, Algorithm::EdDSA);
        let claims = json!({"sub": "user_01"});
        let signing = encoding_key(Algorithm::ES256, EC_PRIVATE).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &signing).unwrap();
        assert_eq!(check(&token, Algorithm::ES256, &key).unwrap(), claims);
        let (message, _) = token.rsplit_once('.').unwrap();
        assert!(check(&format!("{message}.{}", "A".repeat(86)), Algorithm::ES256, &key).is_err());
        for other in [PRIVATE, EC_PRIVATE, "", "-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----"] {
            assert!(decoding_key(other).is_err(), "{other}");
        }
        assert!(encoding_key(Algorithm::ES256, EC_PUBLIC).is_err());
    }

    #[test]
    fn a_key_of_another_kind_is_no_key() {
        assert!(ed25519_encoding_key(PUBLIC).is_err() && ed25519_decoding_key(PRIVATE).is_err());
        install();
        let secret = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
        assert!(jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &json!({}), &secret).is_err());
        assert!(jsonwebtoken::encode(&Header::new(Algorithm::RS256), &json!({}), &secret).is_err());
    }
}
