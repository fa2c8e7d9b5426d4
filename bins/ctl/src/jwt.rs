//! Tokens: who a client is, for how long, and which channels it may see.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwire::{Channel, EVERYBODY, USER_ID_BYTES_MAX};
use clap::{Args, ValueEnum};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::human;

/// A key or a token file longer than this is a mistake.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// A gateway refuses to start with a shorter secret.
const HS256_KEY_BYTES_MIN: usize = 32;

/// A gateway does not look at a longer token.
const TOKEN_BYTES_MAX: usize = 4096;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Algorithm {
    /// A secret that the gateway shares.
    #[value(name = "HS256", alias = "hs256")]
    Hs256,
    /// An Ed25519 key pair in PEM; the gateway knows the public half.
    #[value(name = "EdDSA", alias = "eddsa")]
    EdDsa,
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Hs256 => Self::HS256,
            Algorithm::EdDsa => Self::EdDSA,
        }
    }
}

/// The key, as an argument or in a file.
#[derive(Args, Debug, Default)]
pub(crate) struct KeyArgs {
    /// The HS256 secret (32 bytes or more), or an Ed25519 key in PEM. Others can see it in the
    /// process list: prefer --key-file or the environment
    #[arg(
        long,
        env = "BELLWIRE_TOKEN_KEY",
        hide_env_values = true,
        value_name = "KEY",
        verbatim_doc_comment
    )]
    key: Option<String>,
    // No conflict with `key`: that may linger in the environment, the file was asked for.
    /// A file with the key; a line break at its end does not count. `-` is standard input
    #[arg(long, env = "BELLWIRE_TOKEN_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How the token is signed [default: EdDSA if the key is PEM, else HS256]
    #[arg(long, value_name = "ALG", ignore_case = true)]
    alg: Option<Algorithm>,
}

/// A key that was read.
pub(crate) struct Key {
    text: String,
    algorithm: Algorithm,
}

impl Key {
    /// An HS256 secret.
    pub(crate) fn secret(text: &str) -> Self {
        Self { text: text.to_owned(), algorithm: Algorithm::Hs256 }
    }
}

impl KeyArgs {
    pub(crate) fn is_given(&self) -> bool {
        self.key.is_some() || self.key_file.is_some()
    }

    pub(crate) fn read(&self) -> Result<Key, Failure> {
        let text = match (&self.key, &self.key_file) {
            (_, Some(path)) => read_secret(path)?,
            (Some(key), None) => key.clone(),
            (None, None) => {
                return Err(Failure::new(Exit::Usage, "no key")
                    .next("give --key-file FILE, --key KEY or the variable BELLWIRE_TOKEN_KEY"));
            }
        };
        let by_look = if text.contains("-----BEGIN") { Algorithm::EdDsa } else { Algorithm::Hs256 };
        let algorithm = self.alg.unwrap_or(by_look);
        if algorithm == Algorithm::Hs256 && text.len() < HS256_KEY_BYTES_MIN {
            let (len, min) = (text.len(), HS256_KEY_BYTES_MIN);
            return Err(Failure::new(
                Exit::Usage,
                format!("an HS256 key of {len} bytes; gateways want {min} or more"),
            )
            .next("make one: openssl rand -hex 32 > jwt.key"));
        }
        Ok(Key { text, algorithm })
    }
}

/// Reads a file with one secret in it; `-` is standard input.
pub(crate) fn read_secret(path: &Path) -> Result<String, Failure> {
    let reader: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| Failure::file(path, &error))?)
    };
    let mut text = String::new();
    let read = reader.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let len = read.map_err(|error| Failure::file(path, &error))? as u64;
    if len > FILE_BYTES_MAX {
        let what = format!("{}: longer than {}", path.display(), human::bytes(FILE_BYTES_MAX));
        return Err(Failure::new(Exit::Wrong, what));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// What we put into a token.
#[derive(Debug, Serialize)]
pub(crate) struct Claims<'a> {
    pub(crate) sub: &'a str,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) channels: Option<Vec<&'static str>>,
}

impl<'a> Claims<'a> {
    /// Claims that are good from now on. No channels named: all of them.
    pub(crate) fn from_now(sub: &'a str, ttl: Duration, channels: &[Channel]) -> Self {
        let iat = now();
        let exp = iat.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX));
        let names = channels.iter().map(|channel| channel.name()).collect();
        Self { sub, iat, exp, aud: None, iss: None, channels: (!channels.is_empty()).then_some(names) }
    }
}

/// Signs a token.
pub(crate) fn sign(claims: &Claims<'_>, key: &Key) -> Result<String, Failure> {
    bellwire_jwt::install();
    let encoding = match key.algorithm {
        Algorithm::Hs256 => EncodingKey::from_secret(key.text.as_bytes()),
        Algorithm::EdDsa => bellwire_jwt::ed25519_encoding_key(&key.text).map_err(|error| {
            Failure::new(Exit::Wrong, format!("not an Ed25519 private key in PEM (PKCS #8): {error}"))
                .next("make one: openssl genpkey -algorithm ed25519 -out key.pem")
        })?,
    };
    jsonwebtoken::encode(&Header::new(key.algorithm.into()), claims, &encoding)
        .map_err(|error| Failure::new(Exit::Wrong, format!("the token cannot be signed: {error}")))
}

/// Why a token would be refused.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("not a token: {parts} parts between dots, a token has 3 (header.claims.signature)")]
    Shape { parts: usize },
    #[error("{len} bytes, more than {TOKEN_BYTES_MAX}")]
    TooLong { len: usize },
    #[error("the header cannot be read: {0}")]
    Header(String),
    #[error("signed with {found}, but the key is for {expected}")]
    Algorithm { found: String, expected: &'static str },
    #[error("the signature does not fit: made with another key, or the token was altered")]
    Signature,
    #[error("the claims cannot be read: {0}")]
    Claims(String),
    #[error("claim {claim}: missing; expected {expected}")]
    Missing { claim: &'static str, expected: &'static str },
    #[error("claim {claim}: expected {expected}, found {found}")]
    Wrong { claim: &'static str, expected: &'static str, found: String },
    #[error("expired {} ago, at {}", human::duration(*.ago), seconds(*.exp))]
    Expired { exp: i64, ago: Duration },
    #[error("not good before {}, in {}", seconds(*.nbf), human::duration(*.wait))]
    TooEarly { nbf: i64, wait: Duration },
    #[error("claim channels: no such channel {found:?}; there are trade, account, position, risk, system")]
    Channel { found: String },
}

/// What a token says, and the first reason to refuse it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) algorithm: Option<String>,
    /// Even of a refused token, if they can be read.
    pub(crate) claims: Option<Value>,
    pub(crate) refusal: Option<Refusal>,
}

/// Checks a token as a gateway does.
pub(crate) fn check(token: &str, key: &Key) -> Result<Checked, Failure> {
    bellwire_jwt::install();
    let parts = token.split('.').count();
    if parts != 3 {
        return Ok(Checked { algorithm: None, claims: None, refusal: Some(Refusal::Shape { parts }) });
    }
    if token.len() > TOKEN_BYTES_MAX {
        let refusal = Some(Refusal::TooLong { len: token.len() });
        return Ok(Checked { algorithm: None, claims: None, refusal });
    }
    let claims = jsonwebtoken::dangerous::insecure_decode::<Value>(token).map(|data| data.claims).ok();
    let (algorithm, refusal) = match jsonwebtoken::decode_header(token) {
        Err(error) => (None, Some(Refusal::Header(error.to_string()))),
        Ok(header) => (Some(format!("{:?}", header.alg)), check_signed(token, header.alg, key)?),
    };
    Ok(Checked { algorithm, claims, refusal })
}

fn check_signed(
    token: &str,
    algorithm: jsonwebtoken::Algorithm,
    key: &Key,
) -> Result<Option<Refusal>, Failure> {
    let expected: jsonwebtoken::Algorithm = key.algorithm.into();
    if algorithm != expected {
        let expected = match key.algorithm {
            Algorithm::Hs256 => "HS256",
            Algorithm::EdDsa => "EdDSA",
        };
        return Ok(Some(Refusal::Algorithm { found: format!("{algorithm:?}"), expected }));
    }
    let decoding = match key.algorithm {
        Algorithm::Hs256 => DecodingKey::from_secret(key.text.as_bytes()),
        Algorithm::EdDsa => verifying_key(&key.text)?,
    };
    // Only the signature: the claims are checked below, to say exactly what is wrong with them.
    let mut validation = Validation::new(expected);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    Ok(match jsonwebtoken::decode::<Value>(token, &decoding, &validation) {
        Ok(data) => check_claims(&data.claims, now()).err(),
        Err(error) => Some(match error.kind() {
            ErrorKind::InvalidSignature => Refusal::Signature,
            other => Refusal::Claims(format!("{other:?}")),
        }),
    })
}

/// From either half.
fn verifying_key(pem: &str) -> Result<DecodingKey, Failure> {
    let key = bellwire_jwt::ed25519_decoding_key(pem);
    key.or_else(|_| bellwire_jwt::ed25519_decoding_key_of_private(pem)).map_err(|error| {
        Failure::new(Exit::Wrong, format!("not an Ed25519 key in PEM: {error}"))
            .next("the public half of key.pem: openssl pkey -in key.pem -pubout")
    })
}

fn check_claims(claims: &Value, now: i64) -> Result<(), Refusal> {
    let time = |claim: &'static str| match &claims[claim] {
        Value::Null => Ok(None),
        Value::Number(number) => {
            Ok(number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)))
        }
        other => Err(Refusal::Wrong {
            claim,
            expected: "a number of seconds since 1970",
            found: other.to_string(),
        }),
    };
    let after = |from: i64, to: i64| Duration::from_secs(to.saturating_sub(from).max(0).unsigned_abs());
    match &claims["sub"] {
        Value::Null => return Err(Refusal::Missing { claim: "sub", expected: "the user" }),
        Value::String(user) if (1..=USER_ID_BYTES_MAX).contains(&user.len()) && user != EVERYBODY => {}
        other => {
            let expected = "a user id of 1 to 128 bytes that is not `*`";
            return Err(Refusal::Wrong { claim: "sub", expected, found: other.to_string() });
        }
    }
    match time("exp")? {
        None => {
            return Err(Refusal::Missing { claim: "exp", expected: "when it ends, in seconds since 1970" });
        }
        Some(exp) if exp <= now => return Err(Refusal::Expired { exp, ago: after(exp, now) }),
        Some(_) => {}
    }
    if let Some(nbf) = time("nbf")?
        && nbf > now
    {
        return Err(Refusal::TooEarly { nbf, wait: after(now, nbf) });
    }
    let wrong = |found: &Value| Refusal::Wrong {
        claim: "channels",
        expected: "a list of channel names",
        found: found.to_string(),
    };
    match &claims["channels"] {
        Value::Null => Ok(()),
        Value::Array(names) => names.iter().try_for_each(|name| match name.as_str() {
            Some(known) if Channel::from_name(known).is_some() => Ok(()),
            Some(unknown) => Err(Refusal::Channel { found: unknown.to_owned() }),
            None => Err(wrong(name)),
        }),
        other => Err(wrong(other)),
    }
}

fn now() -> i64 {
    human::now_ns() / 1_000_000_000
}

/// Seconds since 1970 as people write them.
pub(crate) fn seconds(seconds: i64) -> impl fmt::Display {
    let time = human::time(seconds.saturating_mul(1_000_000_000));
    time.replace(".000000000", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn key(text: &str) -> Key {
        Key { text: text.to_owned(), algorithm: Algorithm::Hs256 }
    }

    #[test]
    fn a_token_is_good_for_its_own_key_and_no_other() {
        let token = sign(&Claims::from_now("user_01", Duration::from_secs(60), &[]), &key(SECRET)).unwrap();
        let good = check(&token, &key(SECRET)).unwrap();
        assert_eq!((good.refusal, &good.claims.unwrap()["sub"]), (None, &json!("user_01")));
        assert_eq!(
            check(&token, &key("another secret, just as long as it")).unwrap().refusal,
            Some(Refusal::Signature)
        );
        assert_eq!(check("a.b", &key(SECRET)).unwrap().refusal, Some(Refusal::Shape { parts: 2 }));
        // {"alg":"none"}
        let none = format!("eyJhbGciOiJub25lIn0.{}.", token.split('.').nth(1).unwrap());
        assert!(matches!(check(&none, &key(SECRET)).unwrap().refusal, Some(Refusal::Header(_))));
    }

    #[test]
    fn claims_are_refused_with_the_reason() {
        let refused = |claims: Value| check_claims(&claims, 1_000).unwrap_err().to_string();
        assert_eq!(refused(json!({"exp": 2_000})), "claim sub: missing; expected the user");
        assert_eq!(
            refused(json!({"sub": "u"})),
            "claim exp: missing; expected when it ends, in seconds since 1970"
        );
        assert_eq!(refused(json!({"sub": "u", "exp": 940})), "expired 1m 0s ago, at 1970-01-01T00:15:40Z");
        assert_eq!(
            refused(json!({"sub": "u", "exp": 2_000, "nbf": 1_005})),
            "not good before 1970-01-01T00:16:45Z, in 5.0 s"
        );
        let unknown = refused(json!({"sub": "u", "exp": 2_000, "channels": ["trade", "trades"]}));
        assert!(unknown.starts_with("claim channels: no such channel \"trades\""), "{unknown}");
        assert_eq!(check_claims(&json!({"sub": "u", "exp": 1_001, "channels": ["risk"]}), 1_000), Ok(()));
    }
}
