use ed25519_dalek::pkcs8::EncodePublicKey;
use ed25519_dalek::{Signer as _, SigningKey};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use bellwire::Channel;

use super::*;
use crate::config::Algorithm;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn hs256() -> Token {
    Token { key: Some(SECRET.to_owned()), leeway_s: 0, ..Token::default() }
}

fn far() -> u64 {
    jsonwebtoken::get_current_timestamp() + 600
}

fn signed(claims: &Value, secret: &str) -> String {
    bellwire_jwt::install();
    let header = Header::new(jsonwebtoken::Algorithm::HS256);
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

/// URL-safe base 64 without padding; the test must be able to write what no library would.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * index) & 63) as usize]));
        }
    }
    text
}

#[test]
fn a_good_token_gives_user_end_and_channels() {
    let verifier = Verifier::new(&hs256()).unwrap();
    let end = far();
    let identity = verifier.verify(&signed(&json!({"sub": "user_01", "exp": end}), SECRET)).unwrap();
    assert_eq!((&*identity.user_id, identity.expires), ("user_01", end));
    assert_eq!(identity.channels, ChannelSet::ALL);

    let claims = json!({"sub": "u", "exp": end, "channels": ["risk", "trade"]});
    let channels = verifier.verify(&signed(&claims, SECRET)).unwrap().channels;
    assert_eq!(channels.iter().collect::<Vec<_>>(), [Channel::Trade, Channel::Risk]);
    let claims = json!({"sub": "u", "exp": end, "channels": []});
    assert!(verifier.verify(&signed(&claims, SECRET)).unwrap().channels.is_empty());
}

#[test]
fn what_is_wrong_with_a_token_is_told_apart() {
    let verifier = Verifier::new(&hs256()).unwrap();
    let refused = |claims: Value| verifier.verify(&signed(&claims, SECRET)).unwrap_err();
    assert_eq!(refused(json!({"sub": "u", "exp": 1})), TokenError::Expired);
    assert_eq!(refused(json!({"sub": "u", "exp": far(), "nbf": far()})), TokenError::NotYet);
    assert_eq!(refused(json!({"exp": far(), "sub": "*"})), TokenError::User);
    assert_eq!(refused(json!({"exp": far(), "sub": ""})), TokenError::User);
    assert_eq!(refused(json!({"exp": far(), "sub": "x".repeat(129)})), TokenError::User);
    assert_eq!(
        refused(json!({"sub": "u", "exp": far(), "channels": ["x"]})),
        TokenError::Channel("x".into())
    );
    // Without `exp` or `sub` nothing is believed, whichever check notices it first.
    assert!(matches!(refused(json!({"sub": "u"})), TokenError::Missing(_) | TokenError::Malformed));
    assert!(matches!(refused(json!({"exp": far()})), TokenError::Missing(_) | TokenError::Malformed));

    let foreign = signed(&json!({"sub": "u", "exp": far()}), &SECRET.replace('0', "1"));
    assert_eq!(verifier.verify(&foreign), Err(TokenError::Signature));
    for garbage in ["", "a", "a.b", "a.b.c", "....", "\u{1f514}.x.y"] {
        assert_eq!(verifier.verify(garbage), Err(TokenError::Malformed), "{garbage}");
    }
    assert_eq!(verifier.verify(&"x".repeat(5000)), Err(TokenError::TooLong(5000)));
}

#[test]
fn a_token_cannot_choose_its_algorithm() {
    let claims = base64(json!({"sub": "u", "exp": far()}).to_string().as_bytes());
    let verifier = Verifier::new(&hs256()).unwrap();
    for alg in ["none", "None", "NONE"] {
        let header = base64(json!({"alg": alg, "typ": "JWT"}).to_string().as_bytes());
        for signature in ["", "AAAA"] {
            assert!(verifier.verify(&format!("{header}.{claims}.{signature}")).is_err(), "{alg}");
        }
    }

    // The classic: the public key, which everybody knows, used as an HMAC secret.
    let signing = SigningKey::from_bytes(&[7; 32]);
    let pem = signing.verifying_key().to_public_key_pem(Default::default()).unwrap();
    let config =
        Token { algorithm: Algorithm::EdDSA, key: Some(pem.clone()), leeway_s: 0, ..Token::default() };
    let verifier = Verifier::new(&config).unwrap();
    for secret in [pem.as_bytes(), signing.verifying_key().as_bytes()] {
        let header = Header::new(jsonwebtoken::Algorithm::HS256);
        let claims = json!({"sub": "u", "exp": far()});
        let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(verifier.verify(&token), Err(TokenError::Algorithm));
    }
}

#[test]
fn eddsa_tokens_are_checked_by_the_public_key() {
    let signing = SigningKey::from_bytes(&[7; 32]);
    let pem = signing.verifying_key().to_public_key_pem(Default::default()).unwrap();
    let config = Token { algorithm: Algorithm::EdDSA, key: Some(pem), ..Token::default() };
    let verifier = Verifier::new(&config).unwrap();
    let header = base64(json!({"alg": "EdDSA"}).to_string().as_bytes());
    let claims = base64(json!({"sub": "user_01", "exp": far()}).to_string().as_bytes());
    let message = format!("{header}.{claims}");
    let signature = base64(&signing.sign(message.as_bytes()).to_bytes());
    assert_eq!(&*verifier.verify(&format!("{message}.{signature}")).unwrap().user_id, "user_01");

    let other = base64(&SigningKey::from_bytes(&[8; 32]).sign(message.as_bytes()).to_bytes());
    assert_eq!(verifier.verify(&format!("{message}.{other}")), Err(TokenError::Signature));

    let config = Token { algorithm: Algorithm::EdDSA, key: Some(SECRET.into()), ..Token::default() };
    assert!(matches!(Verifier::new(&config), Err(KeyError::NotPublic { .. })));
}

#[test]
fn audience_and_issuer_count_when_they_are_configured() {
    let config = Token { audience: Some("bell".into()), issuer: Some("sso".into()), ..hs256() };
    let verifier = Verifier::new(&config).unwrap();
    let verify = |claims: Value| verifier.verify(&signed(&claims, SECRET)).map(|_| ());
    assert_eq!(verify(json!({"sub": "u", "exp": far(), "aud": "bell", "iss": "sso"})), Ok(()));
    assert_eq!(
        verify(json!({"sub": "u", "exp": far(), "aud": "x", "iss": "sso"})),
        Err(TokenError::NotForUs)
    );
    assert_eq!(
        verify(json!({"sub": "u", "exp": far(), "aud": "bell", "iss": "x"})),
        Err(TokenError::NotForUs)
    );
    assert!(verify(json!({"sub": "u", "exp": far()})).is_err());
    // And a token with an audience is fine where nobody asks for one.
    let verifier = Verifier::new(&hs256()).unwrap();
    assert!(verifier.verify(&signed(&json!({"sub": "u", "exp": far(), "aud": "x"}), SECRET)).is_ok());
}
