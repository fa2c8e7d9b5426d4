//! The control socket of a real gateway, spoken to as anybody may who can reach it.

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::{Bench, Client, Ended, PATIENCE, in_seconds, token, trade};
use serde_json::{Value, json};

/// A bench whose gateway has a control socket, and where that is.
fn bench() -> (Bench, PathBuf) {
    let bench = Bench::new();
    let path = bench.dir.path().join("control");
    let bench = bench.with("CONTROL_SOCKET", path.to_str().unwrap());
    (bench, path)
}

struct Operator(BufReader<UnixStream>);

impl Operator {
    fn new(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn say(&mut self, line: &[u8]) -> Value {
        // It may have been refused already.
        let _ = self.0.get_mut().write_all(line);
        self.hear().expect("closed without an answer")
    }

    /// `None`: closed.
    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).ok()?;
        let answer = (!line.is_empty()).then(|| serde_json::from_str::<Value>(&line).unwrap())?;
        assert_eq!(answer["schema"], 1);
        assert_eq!(answer["ok"], json!(answer.get("error").is_none()));
        Some(answer)
    }

    fn ask(&mut self, request: Value) -> Value {
        self.say(format!("{request}\n").as_bytes())
    }

    fn granted(&mut self, request: Value) -> Value {
        let answer = self.ask(request);
        assert_eq!(answer["ok"], true, "{answer}");
        answer
    }

    fn refused(&mut self, request: Value) -> (String, String) {
        let answer = self.ask(request);
        let of = |key: &str| answer["error"][key].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (of("code"), of("message"))
    }

    /// Every session, page by page.
    fn sessions(&mut self) -> Vec<Value> {
        let mut sessions = Vec::new();
        let mut from = Value::Null;
        loop {
            let answer = self.granted(json!({"op": "sessions", "from": from}));
            sessions.extend(answer["sessions"].as_array().unwrap().iter().cloned());
            from = answer["next"].clone();
            if from.is_null() {
                return sessions;
            }
        }
    }
}

#[tokio::test]
async fn a_kick_ends_the_sessions_that_are_meant_and_no_other() {
    let (bench, path) = bench();
    let bench = bench.with("LISTEN_SHARDS", "2");
    let gateway = bench.gateway();
    let mut annas = [
        Client::subscribed(&gateway.url, &token("anna")).await,
        Client::subscribed(&gateway.url, &token("anna")).await,
    ];
    let mut berts = [
        Client::subscribed(&gateway.url, &token("bert")).await,
        Client::subscribed(&gateway.url, &token("bert")).await,
    ];
    let mut operator = Operator::new(&path);
    let answer = operator.granted(json!({"op": "kick", "user": "anna"}));
    assert_eq!(answer["kicked"].as_array().unwrap().len(), 2);
    for anna in &mut annas {
        assert_eq!(anna.until_end().await, Ended::Close(4505));
    }

    let conn = berts[0].frames[0]["conn"].clone();
    assert!(conn.is_string(), "{:?}", berts[0].frames[0]);
    let answer = operator.granted(json!({"op": "kick", "conn": conn}));
    assert_eq!((&answer["kicked"][0], &answer["user"]), (&conn, &json!("bert")));
    assert_eq!(berts[0].until_end().await, Ended::Close(4505));
    berts[1].assert_silent(Duration::from_millis(200)).await;

    assert_eq!(operator.refused(json!({"op": "kick", "conn": conn})).0, "not_found");
    assert_eq!(operator.refused(json!({"op": "kick", "user": "anna"})).0, "not_found");
    for wrong in [json!({"op": "kick"}), json!({"op": "kick", "user": "bert", "conn": "c-0-1"})] {
        assert_eq!(operator.refused(wrong).0, "bad_request");
    }
    // A kick is for the sessions that are there; the user's next one is a revocation's business.
    Client::subscribed(&gateway.url, &token("anna")).await;
}

#[tokio::test]
async fn sessions_are_listed_with_who_they_are_and_how_far() {
    let (bench, path) = bench();
    let gateway = bench.gateway();
    let mut producer = bench.producer("engine");
    let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
    let _stranger = Client::connect(&gateway.url).await;
    for text in ["1", "2", "3"] {
        producer.publish(&trade("anna", text)).unwrap();
    }
    anna.until_got(3).await;
    let mut operator = Operator::new(&path);
    let sessions = operator.sessions();
    assert_eq!(sessions.len(), 2, "{sessions:?}");
    let of_anna = sessions.iter().find(|session| session["user"] == "anna").unwrap();
    assert_eq!(of_anna["conn"], anna.frames[0]["conn"]);
    assert_eq!((&of_anna["state"], &of_anna["protocol"]), (&json!("open"), &json!("bellwire.v1.json")));
    assert_eq!(of_anna["streams"]["user"]["seq"], 3, "{of_anna}");
    assert_eq!((&of_anna["waiting"], &of_anna["tls"]), (&json!(0), &json!(false)));
    assert!(of_anna["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(of_anna["age_ms"].as_u64().unwrap() < 60_000);
    let stranger = sessions.iter().find(|session| session["user"].is_null()).unwrap();
    assert_eq!((&stranger["state"], &stranger["expires"]), (&json!("anonymous"), &Value::Null));

    let of_user = operator.granted(json!({"op": "sessions", "user": "anna"}));
    assert_eq!(of_user["sessions"].as_array().unwrap().len(), 1);
    let of_nobody = operator.granted(json!({"op": "sessions", "user": "nobody"}));
    assert_eq!(of_nobody["sessions"], json!([]));
    let status = operator.granted(json!({"op": "status"}));
    assert_eq!((&status["sessions"], &status["pid"]), (&json!(2), &json!(gateway.pid())));
}

#[tokio::test]
async fn a_listing_goes_on_over_pages_and_misses_nobody() {
    let (bench, path) = bench();
    let bench = bench.with("LISTEN_SHARDS", "2");
    let gateway = bench.gateway();
    let mut clients = Vec::new();
    for _ in 0..1_200 {
        clients.push(Client::connect(&gateway.url).await);
    }
    let mut operator = Operator::new(&path);
    let sessions = operator.sessions();
    let names: std::collections::BTreeSet<_> =
        sessions.iter().map(|session| session["conn"].as_str().unwrap()).collect();
    assert_eq!((sessions.len(), names.len()), (1_200, 1_200));
    let of = operator.granted(json!({"op": "sessions"}));
    assert!(of["sessions"].as_array().unwrap().len() <= 512, "one page");
}

#[tokio::test]
async fn a_revocation_by_command_reaches_open_sessions_and_new_ones() {
    let (bench, path) = bench();
    let gateway = bench.gateway();
    let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut bert = Client::subscribed(&gateway.url, &token("bert")).await;
    let mut operator = Operator::new(&path);
    assert_eq!(operator.refused(json!({"op": "revoke", "user": "anna"})).0, "bad_request", "no end");
    let begun = Instant::now();
    operator.granted(json!({"op": "revoke", "user": "anna", "until": in_seconds(600)}));
    assert_eq!(anna.until_end().await, Ended::Close(4504));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    bert.assert_silent(Duration::from_millis(100)).await;
    let mut again = Client::connect(&gateway.url).await;
    again.send(json!({"op": "auth", "token": token("anna")})).await;
    assert_eq!(again.until_end().await, Ended::Close(4504));
}

#[tokio::test]
async fn a_reload_answers_what_has_changed_and_what_waits_and_limits_are_live() {
    let (bench, path) = bench();
    let file = bench.dir.path().join("gateway.toml");
    std::fs::write(&file, "").unwrap();
    let (gateway, log) = bench.gateway_with_log(|command| {
        command.arg("--config").arg(&file).env_remove("BELLWIRE_LOG_LEVEL");
    });
    let first = Client::subscribed(&gateway.url, &token("anna")).await;
    let mut operator = Operator::new(&path);
    std::fs::write(
        &file,
        "[limits]\nsessions_per_user = 1\nauth_within_ms = 100\n[log]\nlevel = \"debug\"\n[session]\nidle_ms = 77000\n",
    )
    .unwrap();
    let answer = operator.granted(json!({"op": "reload"}));
    assert_eq!(
        answer["changed"],
        json!(["limits.auth_within_ms", "limits.sessions_per_user", "log.level"]),
        "{answer}"
    );
    assert_eq!((&answer["at_restart"], &answer["complete"]), (&json!(["session.idle_ms"]), &json!(true)));
    assert_eq!(operator.granted(json!({"op": "status"}))["log_level"], "debug");
    let mut second = Client::connect(&gateway.url).await;
    second.send(json!({"op": "auth", "token": token("anna")})).await;
    assert_eq!(second.until_end().await, Ended::Close(4506));
    let mut silent = Client::connect(&gateway.url).await;
    assert_eq!(silent.until_end().await, Ended::Close(4501));
    assert!(std::fs::read_to_string(&log).unwrap().contains("DEBUG"));

    std::fs::write(&file, "[limits]\nsessions_per_user = 0\n").unwrap();
    let (code, message) = operator.refused(json!({"op": "reload"}));
    assert_eq!(code, "failed");
    assert!(
        message.contains("nothing has changed") && message.contains("limits.sessions_per_user"),
        "{message}"
    );
    drop(first);
}

#[tokio::test]
async fn a_log_level_can_be_set_for_a_while() {
    let (bench, path) = bench();
    let bench = bench.with("LOG_LEVEL", "info");
    let (gateway, log) = bench.gateway_with_log(|_| ());
    let debugs = || std::fs::read_to_string(&log).unwrap().matches("DEBUG").count();
    let mut operator = Operator::new(&path);
    let visit = async || {
        let mut client = Client::connect(&gateway.url).await;
        client.send(json!({"op": "auth", "token": "no token"})).await;
        assert_eq!(client.until_end().await, Ended::Close(4502));
    };
    visit().await;
    assert_eq!(debugs(), 0);
    let answer = operator.granted(json!({"op": "log-level", "level": "debug", "for_s": 1}));
    assert_eq!((&answer["log_level"], &answer["was"]), (&json!("debug"), &json!("info")));
    visit().await;
    let heard = debugs();
    assert!(heard > 0);
    let end = Instant::now() + PATIENCE;
    while operator.granted(json!({"op": "status"}))["log_level"] != "info" {
        assert!(Instant::now() < end, "it stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let heard = debugs();
    visit().await;
    assert_eq!(debugs(), heard);
    assert_eq!(
        operator.refused(json!({"op": "log-level", "level": "debug", "for_s": 10_000_000})).0,
        "bad_request"
    );
    assert_eq!(operator.refused(json!({"op": "log-level", "level": "loud"})).0, "bad_request");
}

#[tokio::test]
async fn a_drain_says_good_bye_to_everybody_and_ends_the_process() {
    let (bench, path) = bench();
    let mut gateway = bench.gateway();
    let mut producer = bench.producer("engine");
    let mut anna = Client::subscribed(&gateway.url, &token("anna")).await;
    producer.publish(&trade("anna", "last")).unwrap();
    let mut operator = Operator::new(&path);
    let answer = operator.granted(json!({"op": "drain", "within_ms": 3_000}));
    assert_eq!((&answer["sessions"], &answer["within_ms"]), (&json!(1), &json!(3_000)));
    assert_eq!(anna.until_end().await, Ended::Close(4001));
    assert_eq!(anna.texts(), ["last"]);
    assert!(anna.frames.iter().any(|frame| frame["op"] == "goodbye"));
    assert!(gateway.wait().success());
    assert_eq!(operator.hear(), None, "who asked sees the end");
    assert!(!path.exists(), "the socket is taken away");
}

#[test]
fn what_is_no_request_is_answered_and_what_is_too_long_is_closed() {
    let (bench, path) = bench();
    let _gateway = bench.gateway();
    let mut operator = Operator::new(&path);
    for line in ["\n", "what\n", "{}\n", "{\"op\":\"sessions\",\"from\":{\"shard\":99,\"slot\":0}}\n"] {
        let answer = operator.say(line.as_bytes());
        assert_eq!(answer["error"]["code"], "bad_request", "{line}");
    }
    operator.granted(json!({"op": "status"}));
    let answer = operator.say(&[b'x'; 5_000]);
    assert_eq!(answer["error"]["code"], "too_long");
    assert_eq!(operator.hear(), None);
    // Those who only stand there take the places, and give them back.
    let idle: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut waiting = Operator::new(&path);
    waiting.0.get_mut().write_all(b"{\"op\":\"status\"}\n").unwrap();
    drop(idle);
    assert_eq!(waiting.hear().unwrap()["ok"], true);
}

#[test]
fn another_user_is_refused_by_the_mode_and_by_his_credentials() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can play another user");
        return;
    }
    let (bench, path) = bench();
    std::fs::set_permissions(bench.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let (_gateway, log) = bench.gateway_with_log(|_| ());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let as_nobody = || {
        let mut child = bench.child(path.to_str().unwrap());
        let output = child.uid(65_534).gid(65_534).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(as_nobody().contains("connect: PermissionDenied"), "{}", as_nobody());
    // Somebody opened the door by mistake.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let heard = as_nobody();
    assert!(heard.contains("uid 65534 may not"), "{heard}");
    assert!(std::fs::read_to_string(&log).unwrap().contains("control: refused uid=65534"));
    // The negative control: root is heard through the same door.
    Operator::new(&path).granted(json!({"op": "status"}));
}

/// Not a test of its own: what another user's process does.
#[test]
fn child() {
    let Ok(path) = std::env::var("TEST_ROLE") else { return };
    match UnixStream::connect(&path) {
        Err(error) => println!("connect: {:?}", error.kind()),
        Ok(stream) => {
            let mut operator = Operator(BufReader::new(stream));
            println!("{}", operator.ask(json!({"op": "status"})));
        }
    }
}

#[test]
fn a_socket_that_is_taken_or_cannot_be_made_is_an_error_at_the_start() {
    let (bench, path) = bench();
    let _first = bench.gateway();
    let (other, _) = self::bench();
    let fails = |bench: &Bench| {
        let output = bench.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = fails(&other.with("CONTROL_SOCKET", path.to_str().unwrap()));
    assert!(said.contains("another gateway"), "{said}");
    let (other, _) = self::bench();
    let said = fails(&other.with("CONTROL_SOCKET", "/nowhere/control"));
    assert!(said.contains("/nowhere/control") && said.contains("directory"), "{said}");
    let (other, _) = self::bench();
    let output = other.with("CONTROL_GROUP", "no-such-group").command().arg("--check").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-group"));
}
