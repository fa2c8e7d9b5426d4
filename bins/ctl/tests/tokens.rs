//! `token`, and what stands around the verbs.

mod common;

use std::fs;

use common::*;

#[test]
fn a_token_is_made_and_checked_with_a_secret() {
    let made = ctl(&[
        "token",
        "new",
        "--sub",
        "user_01",
        "--key",
        SECRET,
        "--ttl",
        "90s",
        "--channels",
        "risk,trade",
    ]);
    let token = made.exits(0).trim();
    assert_eq!((token.split('.').count(), made.err.as_str()), (3, ""));
    let checked = ctl(&["token", "check", token, "--key", SECRET]);
    assert!(checked.exits(0).contains("sub        \"user_01\""), "{checked:#?}");
    assert!(checked.out.contains("channels   [\"risk\",\"trade\"]"), "{checked:#?}");
    checked.says("the token is good");
    let json = ctl(&["token", "check", token, "--key", SECRET, "--json"]).json().remove(0);
    let (exp, iat) = (json["claims"]["exp"].as_i64().unwrap(), json["claims"]["iat"].as_i64().unwrap());
    assert_eq!((exp - iat, json["good"].as_bool(), json["alg"].as_str()), (90, Some(true), Some("HS256")));
}

#[test]
fn a_refused_token_is_exit_1_with_the_reason() {
    let token = ctl(&["token", "new", "--sub", "u", "--key", SECRET, "--ttl", "1s"]);
    let token = token.exits(0).trim();
    let other = SECRET.replace('0', "f");
    ctl(&["token", "check", token, "--key", &other]).says("the signature does not fit").exits(1);
    let altered = token.replacen('e', "f", 1);
    ctl(&["token", "check", &altered, "--key", SECRET]).says("refused").exits(1);
    ctl(&["token", "check", "abc", "--key", SECRET]).says("1 parts between dots").exits(1);
    until("it has expired", || {
        let ran = ctl(&["token", "check", token, "--key", SECRET]);
        ran.code == Some(1) && ran.err.contains("expired")
    });
    ctl(&["token", "check", token, "--key", "short"]).says("want 32 or more").says("openssl rand").exits(2);
    ctl(&["token", "check", token]).says("--key-file").exits(2);
    ctl(&["token", "new", "--sub", "*", "--key", SECRET]).says("one user").exits(2);
    ctl(&["token", "new", "--sub", "u", "--key-file", "/nowhere/key"]).says("/nowhere/key").exits(3);
}

#[test]
fn ed25519_keys_sign_and_either_half_checks() {
    // From RFC 8410, section 10.3 and 10.1: a key pair that others have made.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    let dir = std::env::temp_dir().join(format!("bellwire-keys-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = |name: &str, text: &str| {
        fs::write(dir.join(name), text).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    let (private, public) = (file("key.pem", PRIVATE), file("pub.pem", PUBLIC));
    let made = ctl(&["token", "new", "--sub", "user_01", "--key-file", &private]);
    let token = file("token", made.exits(0));
    let check = |key: &str| ctl(&["token", "check", "--token-file", &token, "--key-file", key]);
    assert!(check(&public).exits(0).contains("EdDSA"));
    check(&private).exits(0);
    ctl(&["token", "check", "--token-file", &token, "--key", SECRET])
        .says("signed with EdDSA, but the key is for HS256")
        .exits(1);
    ctl(&["token", "new", "--sub", "u", "--key-file", &public])
        .says("private key")
        .says("openssl genpkey")
        .exits(1);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_typing_error_is_answered_with_what_was_meant() {
    ctl(&["tial"]).says("similar subcommand exists: 'tail'").exits(2);
    ctl(&["ls", "--jsno"]).says("--json").exits(2);
    ctl(&[]).exits(2);
}

#[test]
fn help_goes_to_standard_output_with_exit_codes_and_examples() {
    let help = ctl(&["--help"]);
    assert!(help.exits(0).contains("Exit codes:") && help.err.is_empty());
    for verb in ["ls", "inspect", "tail", "publish", "listen"] {
        let help = ctl(&[verb, "--help"]);
        assert!(help.exits(0).contains(&format!("Examples:\n  bellwirectl {verb}")), "{}", help.out);
    }
    assert!(ctl(&["--version"]).exits(0).starts_with("bellwirectl 0."));
}

#[test]
fn the_bus_can_come_from_the_environment() {
    let bus = Bus::new();
    let _producer = bellwire::Producer::open(&bus.0, "risk").unwrap();
    let run = |bus: &str| Ran::of(command(&["ls"]).env("BELLWIRE_BUS", bus).output().unwrap());
    assert!(run(&bus.0).exits(0).contains("risk"));
    run("t-nobody-has-this").exits(3);
}
