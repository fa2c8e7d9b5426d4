//! ES256 and RS256 by `ring`, and public keys in PEM of any kind that is verified here.
//!
//! ring is there for TLS anyway. It verifies with public keys only, so its RSA has no secret to leak.

use jsonwebtoken::crypto::{JwtSigner, JwtVerifier};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use pkcs8::der::{Decode, Document, pem::PemLabel};
use pkcs8::{ObjectIdentifier, SubjectPublicKeyInfoRef};
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
};
use signature::{Error, Signer, Verifier};

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Not a public key that tokens can be verified by.
#[derive(Debug, PartialEq, Eq)]
pub enum NotPublic {
    /// Not `-----BEGIN PUBLIC KEY-----`; a private key, for example.
    Pem(String),
    /// A key of a kind that is not used here, by its object identifier.
    Kind(String),
}

impl std::fmt::Display for NotPublic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pem(why) => write!(f, "not a public key in PEM (-----BEGIN PUBLIC KEY-----): {why}"),
            Self::Kind(oid) => write!(f, "a key of kind {oid}; Ed25519, P-256 and RSA are understood"),
        }
    }
}

impl std::error::Error for NotPublic {}

/// What jsonwebtoken verifies by, and the one algorithm that the key is for, from a public key in PEM.
///
/// # Errors
/// [`NotPublic`]; also for a private key, which has no business where tokens are only verified.
pub fn decoding_key(pem: &str) -> std::result::Result<(Algorithm, DecodingKey), NotPublic> {
    let (label, document) =
        Document::from_pem(pem.trim()).map_err(|error| NotPublic::Pem(error.to_string()))?;
    if label != SubjectPublicKeyInfoRef::PEM_LABEL {
        return Err(NotPublic::Pem(format!("it says {label:?}")));
    }
    let info = SubjectPublicKeyInfoRef::from_der(document.as_bytes())
        .map_err(|error| NotPublic::Pem(error.to_string()))?;
    let bits = info
        .subject_public_key
        .as_bytes()
        .ok_or_else(|| NotPublic::Pem("the key is not of whole bytes".to_owned()))?;
    match info.algorithm.oid {
        ED25519 => Ok((Algorithm::EdDSA, DecodingKey::from_ed_der(bits))),
        RSA => Ok((Algorithm::RS256, DecodingKey::from_rsa_der(bits))),
        EC if info.algorithm.parameters_oid() == Ok(P256) => {
            Ok((Algorithm::ES256, DecodingKey::from_ec_der(bits)))
        }
        other => Err(NotPublic::Kind(other.to_string())),
    }
}

pub(crate) struct Es256Verifier(Vec<u8>);

impl Es256Verifier {
    pub(crate) fn new(key: &DecodingKey) -> Result<Self> {
        Ok(Self(key.try_get_as_bytes()?.to_vec()))
    }
}

impl Verifier<Vec<u8>> for Es256Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0)
            .verify(message, signature)
            .map_err(|_| Error::new())
    }
}

impl JwtVerifier for Es256Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

/// The key as DER, or as the two numbers that a JWKS has. Keys shorter than 2048 bits verify nothing.
pub(crate) struct Rs256Verifier(DecodingKey);

impl Rs256Verifier {
    pub(crate) fn new(key: &DecodingKey) -> Self {
        Self(key.clone())
    }
}

impl Verifier<Vec<u8>> for Rs256Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let algorithm = &RSA_PKCS1_2048_8192_SHA256;
        match self.0.kind() {
            DecodingKeyKind::SecretOrDer(der) => {
                UnparsedPublicKey::new(algorithm, der).verify(message, signature)
            }
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(algorithm, message, signature)
            }
        }
        .map_err(|_| Error::new())
    }
}

impl JwtVerifier for Rs256Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

/// Signs by a P-256 key (PKCS #8, DER).
pub(crate) struct Es256Signer(EcdsaKeyPair);

impl Es256Signer {
    pub(crate) fn new(key: &EncodingKey) -> Result<Self> {
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.as_bytes(), &SystemRandom::new())
            .map(Self)
            .map_err(|_| ErrorKind::InvalidEcdsaKey.into())
    }
}

impl Signer<Vec<u8>> for Es256Signer {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let signed = self.0.sign(&SystemRandom::new(), message).map_err(|_| Error::new())?;
        Ok(signed.as_ref().to_vec())
    }
}

impl JwtSigner for Es256Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::ES256
    }
}

/// Signs by an RSA key (PKCS #8, DER).
pub(crate) struct Rs256Signer(RsaKeyPair);

impl Rs256Signer {
    pub(crate) fn new(key: &EncodingKey) -> Result<Self> {
        RsaKeyPair::from_pkcs8(key.as_bytes())
            .map(Self)
            .map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()).into())
    }
}

impl Signer<Vec<u8>> for Rs256Signer {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        let mut signed = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signed)
            .map_err(|_| Error::new())?;
        Ok(signed)
    }
}

impl JwtSigner for Rs256Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

/// What jsonwebtoken signs by, from a P-256 or RSA private key in PEM (PKCS #8); the algorithm says which.
///
/// # Errors
/// [`NotPublic::Pem`] if it is not PEM of a private key.
pub fn encoding_key(algorithm: Algorithm, pem: &str) -> std::result::Result<EncodingKey, NotPublic> {
    let (label, document) =
        Document::from_pem(pem.trim()).map_err(|error| NotPublic::Pem(error.to_string()))?;
    match (label, algorithm) {
        ("PRIVATE KEY", Algorithm::ES256) => Ok(EncodingKey::from_ec_der(document.as_bytes())),
        ("PRIVATE KEY", Algorithm::RS256) => Ok(EncodingKey::from_rsa_der(document.as_bytes())),
        _ => Err(NotPublic::Pem(format!("{label:?} for {algorithm:?}"))),
    }
}
