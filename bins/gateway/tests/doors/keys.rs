//! Tokens of every algorithm, and tokens that lie about theirs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{base64, claims, refused, replace, until_says};
use crate::common::{Bench, Client, KEY, in_seconds, token, token_with};

const RSA_PRIVATE: &str = include_str!("rsa-nobodys.pem");
const RSA_PUBLIC: &str = include_str!("rsa-nobodys.pub.pem");
const RSA_MODULUS: &str = include_str!("rsa-nobodys.n");

/// A key with a name, its algorithm, and how it stands in a JWKS.
pub(crate) struct Named {
    pub(crate) kid: &'static str,
    algorithm: Algorithm,
    signing: EncodingKey,
    pub(crate) jwk: Value,
}

impl Named {
    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.kid, claims)
    }

    fn sign_as(&self, kid: &str, claims: &Value) -> String {
        bellwire_jwt::install();
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }
}

pub(crate) fn secret(kid: &'static str, secret: &str) -> Named {
    let jwk = json!({"kty": "oct", "kid": kid, "k": base64(secret), "alg": "HS256"});
    Named { kid, algorithm: Algorithm::HS256, signing: EncodingKey::from_secret(secret.as_bytes()), jwk }
}

fn one_of_each() -> [Named; 4] {
    let ec = rcgen::KeyPair::generate().unwrap();
    let point = ec.public_key_raw();
    let ed = SigningKey::from_bytes(&[9; 32]);
    [
        secret("hs", "a secret in a set, of thirty-two bytes"),
        Named {
            kid: "rs",
            algorithm: Algorithm::RS256,
            signing: bellwire_jwt::encoding_key(Algorithm::RS256, RSA_PRIVATE).unwrap(),
            jwk: json!({"kty": "RSA", "kid": "rs", "n": RSA_MODULUS.trim(), "e": "AQAB", "use": "sig"}),
        },
        Named {
            kid: "es",
            algorithm: Algorithm::ES256,
            signing: bellwire_jwt::encoding_key(Algorithm::ES256, &ec.serialize_pem()).unwrap(),
            jwk: json!({"kty": "EC", "crv": "P-256", "kid": "es", "x": base64(&point[1..33]), "y": base64(&point[33..])}),
        },
        Named {
            kid: "ed",
            algorithm: Algorithm::EdDSA,
            signing: EncodingKey::from_ed_der(ed.as_bytes()),
            jwk: json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64(ed.verifying_key().as_bytes())}),
        },
    ]
}

pub(crate) fn set<'a>(keys: impl IntoIterator<Item = &'a Named>) -> String {
    json!({"keys": keys.into_iter().map(|key| key.jwk.clone()).collect::<Vec<_>>()}).to_string()
}

#[tokio::test]
async fn each_key_lets_in_what_it_signed_by_its_own_algorithm_and_nothing_else() {
    let keys = one_of_each();
    let mut bench = Bench::new();
    let path = bench.dir.path().join("jwks.json");
    std::fs::write(&path, set(&keys)).unwrap();
    bench.set("TOKEN_JWKS_FILE", path.to_str().unwrap());
    let gateway = bench.gateway();
    for signer in &keys {
        for named in &keys {
            let code = refused(&gateway, &signer.sign_as(named.kid, &claims("anna"))).await;
            let expected = if signer.kid == named.kid { 0 } else { 4502 };
            assert_eq!(code, expected, "signed by {}, says {}", signer.kid, named.kid);
        }
        assert_eq!(refused(&gateway, &signer.sign_as("nobody", &claims("anna"))).await, 4502);
    }
    // The plain key is there too, for tokens without a `kid`.
    assert_eq!(refused(&gateway, &token("anna")).await, 0);

    // The public key, which everybody knows, as an HMAC secret; in every form that a careless verifier might take.
    let modulus = URL_SAFE_NO_PAD.decode(RSA_MODULUS.trim()).unwrap();
    for public in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim().as_bytes(), &modulus] {
        let confused = Named {
            kid: "rs",
            algorithm: Algorithm::HS256,
            signing: EncodingKey::from_secret(public),
            jwk: Value::Null,
        };
        assert_eq!(refused(&gateway, &confused.sign(&claims("anna"))).await, 4502);
    }
    // No signature at all.
    for kid in [json!(null), json!("hs"), json!("rs")] {
        for alg in ["none", "None", "nOnE"] {
            let header = base64(json!({"alg": alg, "typ": "JWT", "kid": kid}).to_string());
            let unsigned = format!("{header}.{}.", base64(claims("anna").to_string()));
            assert_eq!(refused(&gateway, &unsigned).await, 4502, "{alg} {kid}");
        }
    }
    // A header that asks for what is not understood.
    let mut header = Header::new(Algorithm::HS256);
    header.crit = Some(vec!["b64".to_owned()]);
    let key = EncodingKey::from_secret(KEY.as_bytes());
    let critical = jsonwebtoken::encode(&header, &claims("anna"), &key).unwrap();
    assert_eq!(refused(&gateway, &critical).await, 4502);
}

#[tokio::test]
async fn a_plain_public_key_is_for_its_own_algorithm() {
    let [_, key, ..] = one_of_each();
    let bench = Bench::new().with("TOKEN_ALGORITHM", "RS256").with("TOKEN_KEY", RSA_PUBLIC);
    let gateway = bench.gateway();
    assert_eq!(refused(&gateway, &key.sign(&claims("anna"))).await, 0, "a kid without a set says nothing");
    assert_eq!(refused(&gateway, &token("anna")).await, 4502);
}

#[tokio::test]
async fn times_and_audience_count() {
    let bench =
        Bench::new().with("TOKEN_LEEWAY_S", "0").with("TOKEN_AUDIENCE", "bell").with("TOKEN_ISSUER", "sso");
    let gateway = bench.gateway();
    let with = |changes: Value| {
        let mut claims = json!({"sub": "anna", "exp": in_seconds(60), "aud": "bell", "iss": "sso"});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        token_with(claims)
    };
    for (changes, code) in [
        (json!({}), 0),
        (json!({"exp": in_seconds(-1)}), 4503),
        (json!({"nbf": in_seconds(60)}), 4502),
        (json!({"aud": "other"}), 4502),
        (json!({"iss": "other"}), 4502),
        (json!({"aud": null}), 4502),
        (json!({"exp": null}), 4502),
        (json!({"aud": ["other", "bell"]}), 0),
    ] {
        assert_eq!(refused(&gateway, &with(changes.clone())).await, code, "{changes}");
    }
}

#[tokio::test]
async fn keys_rotate_without_a_restart_and_a_broken_set_changes_nothing() {
    let [old, new] =
        [("old", "an old secret, of thirty-two bytes or"), ("new", "a new secret, of thirty-two bytes or")]
            .map(|(kid, text)| secret(kid, text));
    let mut bench = Bench::new();
    let path = bench.dir.path().join("jwks.json");
    std::fs::write(&path, set([&old])).unwrap();
    bench.set("TOKEN_JWKS_FILE", path.to_str().unwrap());
    let (gateway, log) = bench.gateway_with_log(|_| ());
    assert_eq!(refused(&gateway, &new.sign(&claims("anna"))).await, 4502);
    let mut inside = Client::subscribed(&gateway.url, &old.sign(&claims("anna"))).await;

    replace(&path, &set([&old, &new]));
    until_says(&log, "token keys read keys=3").await;
    for key in [&old, &new] {
        assert_eq!(refused(&gateway, &key.sign(&claims("anna"))).await, 0, "both, while they overlap");
    }
    replace(&path, "{\"keys\": [");
    until_says(&log, "what was there before stays").await;
    assert_eq!(refused(&gateway, &new.sign(&claims("anna"))).await, 0);
    replace(&path, &set([&new]));
    until_says(&log, "token keys read keys=2").await;
    assert_eq!(refused(&gateway, &old.sign(&claims("anna"))).await, 4502);
    assert_eq!(refused(&gateway, &new.sign(&claims("anna"))).await, 0);
    // Who was let in by the old key stays, and may come to the new one.
    inside.send(json!({"op": "auth", "id": 7, "token": new.sign(&claims("anna"))})).await;
    inside.until("auth_ok").await;
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(!log.contains("secret, of") && !log.contains(&base64("a new secret")), "{log}");
}

#[tokio::test]
async fn a_token_that_ends_is_announced_and_its_session_closed() {
    let bench = Bench::new().with("TOKEN_LEEWAY_S", "0").with("SESSION_HEARTBEAT_MS", "400");
    let gateway = bench.gateway();
    let short = |seconds| token_with(json!({"sub": "anna", "exp": in_seconds(seconds)}));
    let mut client = Client::subscribed(&gateway.url, &short(3)).await;
    let mut refreshed = Client::subscribed(&gateway.url, &short(3)).await;
    client.until("auth_expiring").await;
    refreshed.until("auth_expiring").await;
    refreshed.send(json!({"op": "auth", "token": short(600)})).await;
    refreshed.until("auth_ok").await;
    assert_eq!(client.until_end().await, super::Ended::Close(4503));
    refreshed.send(json!({"op": "list"})).await;
    refreshed.until("subscriptions").await;
}
