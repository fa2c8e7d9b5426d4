//! Tokens: whoever is let in has one that the secret has signed, and is whom it names; whatever else it is, it is refused.
#![no_main]

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use bellwire::{Channel, EVERYBODY, USER_ID_BYTES_MAX};
use bellwire_fuzz::tokens::{END, PUBLIC, SECRET, claims, is_genuine, sign, verifier};
use bellwire_fuzz::{arbitrary, fuzz_target};
use bellwire_gateway::auth::{Identity, TOKEN_BYTES_MAX, Verifier};
use bellwire_gateway::config::{Algorithm, Token};
use serde_json::{Value, json};

static BY_SECRET: LazyLock<Verifier> = LazyLock::new(|| verifier(Algorithm::HS256));
static BY_PUBLIC_KEY: LazyLock<Verifier> = LazyLock::new(|| verifier(Algorithm::EdDSA));

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes));
});

fn run(bytes: &mut Unstructured<'_>) -> Result<()> {
    match bytes.int_in_range(0..=7)? {
        0 => check(bytes.arbitrary()?),
        1 => key(bytes.arbitrary()?),
        _ => return made(bytes),
    }
    Ok(())
}

fn made(bytes: &mut Unstructured<'_>) -> Result<()> {
    let algorithms = ["HS256", "HS256", "HS256", "none", "EdDSA", "HS384", "RS256", "hs256", ""];
    let mut header = json!({ "alg": bytes.choose(&algorithms)?, "typ": "JWT" });
    if bytes.ratio(1, 8)? {
        header[bytes.arbitrary::<&str>()?] = value(bytes)?;
    }
    let mut body = json!({ "sub": "user_01", "exp": END });
    for _ in 0..bytes.int_in_range(0..=4)? {
        let name =
            *bytes.choose(&["sub", "exp", "channels", "nbf", "iat", "jti", "aud", "iss", "SUB", ""])?;
        body[name] = value(bytes)?;
    }
    let keys = [SECRET, SECRET, SECRET, PUBLIC, "", "another secret of thirty-two bytes"];
    let mut token = sign(&header.to_string(), &body.to_string(), bytes.choose(&keys)?.as_bytes());
    while !bytes.is_empty() {
        let at = token.floor_char_boundary(bytes.int_in_range(0..=token.len())?);
        match bytes.int_in_range(0..=2)? {
            0 => token.truncate(at),
            1 => token.insert(at, bytes.arbitrary()?),
            _ => drop(token.pop()),
        }
    }
    check(&token);
    Ok(())
}

fn value(bytes: &mut Unstructured<'_>) -> Result<Value> {
    Ok(match bytes.int_in_range(0..=9)? {
        0 => bytes.arbitrary::<&str>()?.into(),
        1 => bytes.arbitrary::<f64>()?.into(),
        2 => bytes.arbitrary::<i64>()?.into(),
        3 => bytes.arbitrary::<u64>()?.into(),
        4 => Value::Null,
        5 => "*".repeat(bytes.int_in_range(0..=200)?).into(),
        6 => (0..bytes.int_in_range(0..=5)?)
            .map(|_| Ok(bytes.choose(&Channel::ALL)?.name()))
            .collect::<Result<Vec<_>>>()?
            .into(),
        7 => json!({ bytes.arbitrary::<&str>()?: bytes.arbitrary::<bool>()? }),
        8 => EVERYBODY.into(),
        _ => json!([bytes.arbitrary::<&str>()?]),
    })
}

fn check(token: &str) {
    assert!(BY_PUBLIC_KEY.verify(token).is_err(), "believed, and nobody can have signed it: {token}");
    match BY_SECRET.verify(token) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(Identity { user_id, expires, channels, .. }) => {
            assert!(
                is_genuine(token) && token.len() <= TOKEN_BYTES_MAX,
                "believed, and the secret has not signed it"
            );
            let claims = claims(token).expect("what was believed can be read");
            assert_eq!(claims["sub"], *user_id);
            assert!(
                (1..=USER_ID_BYTES_MAX).contains(&user_id.len()) && *user_id != *EVERYBODY,
                "no user: {user_id:?}"
            );
            assert!(expires > 1_700_000_000, "a token that has ended");
            let names: Vec<_> = channels.iter().map(Channel::name).collect();
            match claims["channels"].as_array() {
                Some(asked) => {
                    assert!(asked.iter().all(|name| names.contains(&name.as_str().unwrap_or_default())));
                    assert!(
                        names.iter().all(|name| asked.contains(&json!(name))),
                        "more than the token permits"
                    );
                }
                None => assert_eq!(names.len(), Channel::ALL.len()),
            }
        }
    }
}

/// Keys come from the operator; a text that is none is an error all the same.
fn key(text: &str) {
    for algorithm in [Algorithm::HS256, Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256] {
        let config = Token { algorithm, key: Some(text.to_owned()), ..Token::default() };
        if let Err(error) = Verifier::new(&config) {
            assert!(!error.to_string().is_empty());
        }
    }
    for text in [text.to_owned(), format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----")] {
        if let Err(error) = bellwire_jwt::decoding_key(&text) {
            assert!(!error.to_string().is_empty());
        }
    }
}
