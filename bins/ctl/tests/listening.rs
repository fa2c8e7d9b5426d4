//! `listen` against a gateway that misbehaves to order: gaps, duplicates, resyncs, close codes.

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, WebSocket};
use tokio_tungstenite::tungstenite::{self, http};

/// A gateway whose every connection plays one scene.
struct Stage {
    url: String,
    scenes: JoinHandle<()>,
}

type Scene = Box<dyn FnOnce(&mut Session) + Send>;

/// The gateway's side of one connection.
struct Session {
    socket: WebSocket<TcpStream>,
    authorization: Option<String>,
}

fn scene(scene: impl FnOnce(&mut Session) + Send + 'static) -> Scene {
    Box::new(scene)
}

impl Stage {
    fn open(scenes: Vec<Scene>) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), scenes)
    }

    fn on(listener: TcpListener, scenes: Vec<Scene>) -> Self {
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let scenes = std::thread::spawn(move || {
            for scene in scenes {
                scene(&mut Session::accept(listener.accept().unwrap().0));
            }
        });
        Self { url, scenes }
    }

    /// Runs `listen` with a token to its end, and the scenes to theirs.
    fn listen(self, arguments: &[&str]) -> Ran {
        let ran = finish(self.start(arguments));
        self.scenes.join().unwrap();
        ran
    }

    fn start(&self, arguments: &[&str]) -> std::process::Child {
        command(&[&["listen", &self.url, "--token", "t.o.k"], arguments].concat()).spawn().unwrap()
    }
}

impl Session {
    fn accept(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut authorization = None;
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let callback = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let header = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
            authorization = header("authorization");
            assert_eq!(header("sec-websocket-protocol").as_deref(), Some("bellwire.v1.json"));
            let protocol = http::HeaderValue::from_static("bellwire.v1.json");
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let socket = tungstenite::accept_hdr(stream, callback).unwrap();
        Self { socket, authorization }
    }

    fn say(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).unwrap();
    }

    fn hear(&mut self) -> Value {
        match self.socket.read().unwrap() {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a request, got {other:?}"),
        }
    }

    /// The close code with which the client goes.
    fn hear_close(&mut self) -> u16 {
        match self.socket.read().unwrap() {
            Message::Close(Some(frame)) => frame.code.into(),
            other => panic!("expected a close, got {other:?}"),
        }
    }

    fn close(&mut self, code: u16) {
        self.socket.close(Some(CloseFrame { code: code.into(), reason: "said".into() })).unwrap();
        while self.socket.read().is_ok() {}
    }

    fn greet(&mut self) -> Value {
        self.say(json!({"op": "hello", "v": 1, "conn": "c-1", "gateway": "gw-t", "heartbeat_ms": 15_000}));
        self.say(json!({"op": "auth_ok", "user_id": "user_01", "channels": ["trade", "risk"]}));
        self.hear()
    }

    /// Everything up to a subscription whose user stream begins at `seq`; gives the client's request.
    fn begin(&mut self, seq: u64) -> Value {
        let request = self.greet();
        assert_eq!(request["op"], "subscribe");
        let recovered = request["resume"]["user"].is_object();
        let mut user = json!({"epoch": "e1", "seq": seq, "to": seq});
        if recovered {
            user["recovered"] = json!(true);
        }
        self.say(json!({"op": "subscribed", "id": request["id"], "channels": ["trade", "risk"],
            "streams": {"user": user, "all": {"epoch": "b1", "seq": 4, "to": 4}}}));
        request
    }

    fn notify(&mut self, prev: u64, seq: u64) {
        self.say(json!({"op": "notification", "stream": "user", "epoch": "e1", "prev": prev, "seq": seq,
            "data": data(seq, "user_01")}));
    }
}

fn data(seq: u64, user_id: &str) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as i64;
    json!({"message_id": format!("01a209b3-0000-7000-8000-{seq:012}"), "message_type": "order_canceled",
        "user_id": user_id, "priority": 1, "timestamp": now, "source": "Test",
        "payload": {"type": "order_canceled", "order_id": format!("o{seq}"), "timestamp": now}})
}

/// A file name of this test alone.
fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("bellwirectl-test-{}-{name}", std::process::id()))
}

#[test]
fn notifications_are_printed_as_lines_as_objects_or_as_frames() {
    let play = || {
        Stage::open(vec![scene(|session| {
            assert_eq!(session.authorization.as_deref(), Some("Bearer t.o.k"));
            let request = session.begin(57);
            assert_eq!(request["channels"], json!(["trade", "risk"]));
            assert_eq!((&request["resume"], &request["snapshot"]), (&Value::Null, &json!(true)));
            session.say(json!({"op": "snapshot", "stream": "user", "epoch": "e1", "as_of": 57, "last": true,
                "items": [{"key": "account", "seq": 50, "data": data(50, "user_01")}]}));
            session.notify(57, 58);
            session.say(json!({"op": "notification", "stream": "all", "epoch": "b1", "prev": 4, "seq": 5,
                "data": data(5, "*")}));
            assert_eq!(session.hear_close(), 1000);
        })])
    };
    let arguments = ["--channels", "trade,risk", "--snapshot", "--count", "2"];
    let text = play().listen(&arguments);
    let lines: Vec<_> = text.exits(0).lines().collect();
    assert!(lines[0].contains("user:50 state"), "{text:#?}");
    assert!(lines[1].contains("user:58") && lines[1].contains("order_id=o58"), "{text:#?}");
    assert!(lines[2].contains("all:5"), "{text:#?}");
    text.says("connected to gw-t as c-1")
        .says("listening as user_01 to trade, risk")
        .says("user=e1:58,all=b1:5");

    let objects = play().listen(&[&arguments[..], &["--data"]].concat());
    objects.exits(0);
    assert_eq!(objects.json()[1]["payload"]["order_id"], "o58");
    let frames = play().listen(&[&arguments[..], &["--json"]].concat());
    frames.exits(0);
    let ops: Vec<_> = frames.json().iter().map(|frame| frame["op"].clone()).collect();
    assert_eq!(ops, ["hello", "auth_ok", "subscribed", "snapshot", "notification", "notification"]);
}

#[test]
fn a_gap_is_an_error_and_with_reconnect_it_is_resumed() {
    let gap = || {
        scene(|session| {
            session.begin(57);
            session.notify(57, 58);
            session.notify(59, 60);
            session.hear_close();
        })
    };
    let ran = Stage::open(vec![gap()]).listen(&[]);
    assert_eq!(ran.exits(1).lines().count(), 1);
    ran.says("gap in stream user: we stand at 58, the frame goes from 59 to 60").says("--reconnect");

    let healed = scene(|session| {
        let request = session.begin(58);
        assert_eq!(
            request["resume"],
            json!({"user": {"epoch": "e1", "seq": 58}, "all": {"epoch": "b1", "seq": 4}})
        );
        let items =
            json!([{"seq": 59, "data": data(59, "user_01")}, {"seq": 60, "data": data(60, "user_01")}]);
        session.say(
            json!({"op": "batch", "stream": "user", "epoch": "e1", "prev": 58, "seq": 60, "replay": true,
            "items": items}),
        );
        session.say(json!({"op": "replay_end", "stream": "user", "epoch": "e1", "prev": 60, "seq": 61}));
        session.notify(61, 62);
        session.hear_close();
    });
    let ran = Stage::open(vec![gap(), healed]).listen(&["--reconnect", "--count", "4", "--data"]);
    assert_eq!(ran.exits(0).lines().count(), 4);
    let orders: Vec<_> = ran.json().iter().map(|data| data["payload"]["order_id"].clone()).collect();
    assert_eq!(orders, ["o58", "o59", "o60", "o62"]);
    ran.says("trying again in").says("stream user: resumed from 58");
}

#[test]
fn a_gap_that_resuming_does_not_heal_is_given_up() {
    let gap = || {
        scene(|session| {
            session.begin(57);
            session.notify(60, 61);
            session.hear_close();
        })
    };
    let ran = Stage::open(vec![gap(), gap(), gap()]).listen(&["--reconnect"]);
    ran.exits(1);
    ran.says("the same gap 3 times in a row");
}

#[test]
fn a_heartbeat_exposes_a_lost_tail_and_an_epoch_does_not_change_silently() {
    let beat = |epoch: &'static str, prev: u64| {
        scene(move |session| {
            session.begin(57);
            session.say(json!({"op": "heartbeat", "time": "1", "streams": {
                "user": {"epoch": "e1", "prev": 57, "seq": 57}, "all": {"epoch": epoch, "prev": prev, "seq": 9}}}));
            session.hear_close();
        })
    };
    Stage::open(vec![beat("b1", 7)])
        .listen(&[])
        .says("gap in stream all: we stand at 4, the frame goes from 7 to 9")
        .exits(1);
    Stage::open(vec![beat("b2", 4)]).listen(&[]).says("epoch b2 without a resync; we stand in b1").exits(1);
}

#[test]
fn a_replay_that_begins_elsewhere_than_asked_is_a_gap() {
    let ran = Stage::open(vec![scene(|session| {
        // The gateway pretends to have recovered, but from 45.
        session.begin(45);
        session.notify(45, 46);
        session.hear_close();
    })])
    .listen(&["--resume", "user=e1:41"]);
    ran.says("we stand at 41, the frame goes from 45 to 46").exits(1);
}

#[test]
fn a_resync_is_explained_and_counts_as_a_loss() {
    let ran = Stage::open(vec![scene(|session| {
        let request = session.greet();
        assert_eq!(request["resume"]["user"], json!({"epoch": "e0", "seq": 41}));
        session.say(json!({"op": "subscribed", "id": 1, "channels": ["trade"], "streams": {
            "user": {"epoch": "e1", "recovered": false, "seq": 57, "to": 57}, "all": {"epoch": "b1", "seq": 0, "to": 0}}}));
        session.say(json!({"op": "resync", "stream": "user", "epoch": "e1", "head": 57, "why": "epoch_changed"}));
        session.notify(57, 58);
        session.hear_close();
    })])
    .listen(&["--resume", "user=e0:41", "--count", "1"]);
    assert_eq!(ran.exits(1).lines().count(), 1);
    ran.says("cannot be resumed from e0:41: the stream was begun anew").says("e1:57").says("1 resync");
}

#[test]
fn duplicates_and_other_users_notifications_are_noticed() {
    let ran = Stage::open(vec![scene(|session| {
        session.begin(57);
        session.notify(57, 58);
        let mut again = data(58, "user_01");
        again["payload"]["order_id"] = json!("again");
        for (prev, data) in [(58, again), (59, data(60, "user_02"))] {
            session.say(
                json!({"op": "notification", "stream": "user", "epoch": "e1", "prev": prev, "seq": prev + 1,
                "data": data}),
            );
        }
        session.hear_close();
    })])
    .listen(&["--count", "3"]);
    ran.exits(1);
    ran.says("duplicate: user:59").says("user:60 is for \"user_02\", not for \"user_01\"");
    ran.says("1 duplicate, 1 notification of another user");
}

#[test]
fn close_codes_are_explained_and_decide_about_coming_back() {
    let close = |code| {
        scene(move |session| {
            session.begin(57);
            session.close(code);
        })
    };
    Stage::open(vec![close(4002)]).listen(&[]).says("4002 said: we read too slowly").exits(1);
    let arguments = ["--reconnect", "--count", "1"];
    Stage::open(vec![close(4503)]).listen(&arguments).says("4503 said: the token has expired").exits(4);
    Stage::open(vec![close(4506)]).listen(&arguments).says("too many sessions").exits(5);
    let drained = scene(|session| {
        session.begin(57);
        session.say(json!({"op": "goodbye", "code": 4001, "reason": "drain", "reconnect_after_ms": 400}));
        session.hear_close();
    });
    let after = scene(|session| {
        session.begin(57);
        session.notify(57, 58);
        session.hear_close();
    });
    let started = Instant::now();
    Stage::open(vec![drained, after])
        .listen(&arguments)
        .says("4001 drain: the gateway is shutting down")
        .exits(0);
    assert!(started.elapsed() >= Duration::from_millis(400));
}

#[test]
fn an_error_instead_of_a_subscription_is_the_end() {
    let refuse = |code: u16, msg: &'static str| {
        scene(move |session| {
            session.greet();
            session.say(
                json!({"op": "error", "id": 1, "code": code, "reason": "r", "msg": msg, "retryable": false}),
            );
            session.hear_close();
        })
    };
    let arguments = ["--reconnect", "--channels", "risk"];
    Stage::open(vec![refuse(4512, "channel 'risk'")])
        .listen(&arguments)
        .says("does not permit this channel")
        .exits(4);
    Stage::open(vec![refuse(4511, "seq 9")]).listen(&arguments).says("delete the resume file").exits(1);
}

#[test]
fn a_resume_file_goes_on_exactly_where_the_last_listener_stood() {
    let file = scratch("resume.json");
    let _ = fs::remove_file(&file);
    let arguments = ["--resume-file", file.to_str().unwrap(), "--count", "2", "--data"];
    let first = scene(|session| {
        assert_eq!(session.begin(57)["resume"], Value::Null);
        let items: Vec<_> = (58..63).map(|seq| json!({"seq": seq, "data": data(seq, "user_01")})).collect();
        session.say(
            json!({"op": "batch", "stream": "user", "epoch": "e1", "prev": 57, "seq": 62, "items": items}),
        );
        session.hear_close();
    });
    Stage::open(vec![first]).listen(&arguments).exits(0);
    // In the middle of a batch: what was not printed was not taken.
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(saved["streams"]["user"], json!({"epoch": "e1", "seq": 59}));

    let second = scene(|session| {
        assert_eq!(session.begin(59)["resume"]["user"], json!({"epoch": "e1", "seq": 59}));
        session.notify(59, 60);
        session.notify(60, 61);
        session.hear_close();
    });
    let ran = Stage::open(vec![second]).listen(&arguments);
    ran.exits(0);
    assert_eq!(ran.json()[0]["payload"]["order_id"], "o60");

    fs::write(&file, r#"{"user_id":"somebody","streams":{"user":{"epoch":"e1","seq":3}}}"#).unwrap();
    let greeted = scene(|session| {
        session.say(json!({"op": "auth_ok", "user_id": "user_01", "channels": []}));
        session.hear_close();
    });
    Stage::open(vec![greeted]).listen(&arguments).says("positions of \"somebody\"").exits(1);
    fs::write(&file, "nonsense").unwrap();
    Stage::open(vec![]).listen(&arguments).says("not a resume file").says("delete it").exits(1);
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_listener_that_is_killed_resumes_without_a_hole() {
    let file = scratch("killed.json");
    let _ = fs::remove_file(&file);
    let (told, tell) = mpsc::channel::<()>();
    let stage = Stage::open(vec![scene(move |session| {
        session.begin(57);
        session.notify(57, 58);
        tell.recv().unwrap();
    })]);
    let child = stage.start(&["--resume-file", file.to_str().unwrap()]);
    until("a position is saved", || file.exists());
    signal(&child, Signal::SIGKILL);
    assert_eq!(finish(child).code, None);
    told.send(()).unwrap();
    stage.scenes.join().unwrap();
    let saved: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert!(matches!(saved["streams"]["user"]["seq"].as_u64(), Some(57 | 58)), "{saved}");
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_summary_counts_by_type_and_class_with_latencies() {
    let play = || {
        Stage::open(vec![scene(|session| {
            session.begin(57);
            let items = json!([{"seq": 58, "data": data(58, "user_01")}]);
            session.say(
                json!({"op": "batch", "stream": "user", "epoch": "e1", "prev": 57, "seq": 58, "replay": true,
                "items": items}),
            );
            (58..68).for_each(|prev| session.notify(prev, prev + 1));
            let mut odd = data(69, "user_01");
            odd["timestamp"] = json!(42);
            session.say(json!({"op": "notification", "stream": "user", "epoch": "e1", "prev": 68, "seq": 69,
                "conflated": 3, "data": odd}));
            session.hear_close();
        })])
    };
    let ran = play().listen(&["--summary", "--json", "--count", "12"]);
    ran.exits(0);
    let summary = &ran.json()[0];
    let count = |name: &str| summary[name].as_u64().unwrap();
    assert_eq!(
        (count("notifications"), count("replayed"), count("latency_unknown"), count("conflated")),
        (12, 1, 1, 3)
    );
    assert_eq!((count("gaps"), count("duplicates"), count("reconnects")), (0, 0, 0));
    assert_eq!(summary["by_type"], json!({"order_canceled": 12}));
    let class = &summary["by_priority"][0];
    assert_eq!(
        (&class["priority"], &class["count"], &class["latency_us"]["measured"]),
        (&json!(1), &json!(12), &json!(10))
    );
    assert!(class["latency_us"]["p50"].as_f64() <= class["latency_us"]["p99"].as_f64());
    let text = play().listen(&["--summary", "--count", "12"]);
    assert!(text.exits(0).lines().any(|line| line.starts_with("P1") && line.contains("12")), "{text:#?}");
}

#[test]
fn a_missing_gateway_is_exit_3_or_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("ws://{address}/");
    let ran = ctl(&["listen", &url, "--token", "t"]);
    assert_eq!(ran.exits(3), "");
    ran.says("Connection refused").says("bellwire-gateway --dev");

    let child = command(&["listen", &url, "--token", "t", "--reconnect", "--count", "1"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let late = scene(|session| {
        session.begin(57);
        session.notify(57, 58);
        session.hear_close();
    });
    let stage = Stage::on(TcpListener::bind(address).unwrap(), vec![late]);
    let ran = finish(child);
    stage.scenes.join().unwrap();
    assert_eq!(ran.exits(0).lines().count(), 1);
    assert_eq!(ran.err.matches("trying again").count(), 1, "one line, however long it takes: {ran:#?}");
}

#[test]
fn what_is_no_gateway_is_said_so() {
    let answer = |answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let ran = ctl(&["listen", &url, "--token", "t"]);
        server.join().unwrap();
        ran
    };
    let refused = answer("HTTP/1.1 401 Unauthorized\r\nContent-Length: 23\r\n\r\nthe token has expired\r\n");
    refused.says("401 Unauthorized: the token has expired").says("token check").exits(4);
    answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").says("HTTP 200").exits(1);
    answer("SSH-2.0-OpenSSH_9.2\r\n\r\n").says("handshake failed").exits(1);
    ctl(&["listen", "wss://127.0.0.1/", "--token", "t"]).says("plain WebSocket only").says("TLS").exits(2);
    ctl(&["listen", "http://127.0.0.1/", "--token", "t"]).says("ws://HOST:PORT/").exits(2);
    ctl(&["listen", "ws://127.0.0.1/"]).says("--token-file").exits(2);
    ctl(&["listen", "ws://127.0.0.1/", "--token", "a\nb"]).exits(3);
}

#[test]
fn a_token_can_go_in_a_frame_and_is_renewed_before_it_expires() {
    let stage = Stage::open(vec![scene(|session| {
        assert_eq!(session.authorization, None);
        session.say(json!({"op": "hello", "v": 1, "conn": "c", "gateway": "g", "heartbeat_ms": 15_000}));
        let auth = session.hear();
        assert_eq!(auth["op"], "auth");
        session.say(json!({"op": "auth_ok", "id": auth["id"], "user_id": "user_01", "channels": []}));
        session.hear();
        session.say(
            json!({"op": "subscribed", "channels": [], "streams": {"user": {"epoch": "e1", "seq": 0, "to": 0},
            "all": {"epoch": "b1", "seq": 0, "to": 0}}}),
        );
        session.say(json!({"op": "auth_expiring", "expires": 1, "in_ms": 60_000}));
        let renewed = session.hear();
        assert_eq!((&renewed["op"], renewed["token"].is_string()), (&json!("auth"), true));
        session.say(json!({"op": "auth_ok", "id": renewed["id"], "user_id": "user_01", "channels": []}));
        session.notify(0, 1);
        session.hear_close();
    })]);
    let arguments =
        ["listen", &stage.url, "--user", "user_01", "--key", SECRET, "--auth-frame", "--count", "1"];
    let ran = finish(command(&arguments).spawn().unwrap());
    stage.scenes.join().unwrap();
    ran.exits(0);
    ran.says("the token expires in 1m 0s: sending a newer one");
}

#[test]
fn a_gateway_that_falls_silent_is_noticed() {
    let (told, tell) = mpsc::channel::<()>();
    let stage = Stage::open(vec![scene(move |session| {
        session.say(json!({"op": "hello", "heartbeat_ms": 1, "conn": "c", "gateway": "g"}));
        tell.recv().unwrap();
    })]);
    let ran = finish(stage.start(&[]));
    told.send(()).unwrap();
    stage.scenes.join().unwrap();
    ran.says("not even a heartbeat").exits(1);
}

#[test]
fn ctrl_c_and_time_end_a_listener_in_order() {
    let play = |ready: mpsc::Sender<()>| {
        Stage::open(vec![scene(move |session| {
            session.begin(57);
            session.notify(57, 58);
            ready.send(()).unwrap();
            assert_eq!(session.hear_close(), 1000);
        })])
    };
    let (ready, is_ready) = mpsc::channel();
    let stage = play(ready);
    let file = scratch("ctrl-c.json");
    let _ = fs::remove_file(&file);
    let child = stage.start(&["--resume-file", file.to_str().unwrap()]);
    is_ready.recv_timeout(PATIENCE).unwrap();
    until("the position is saved", || fs::read_to_string(&file).is_ok_and(|saved| saved.contains("58")));
    signal(&child, Signal::SIGTERM);
    let ran = finish(child);
    stage.scenes.join().unwrap();
    ran.says("ended at user=e1:58").exits(0);
    fs::remove_file(&file).unwrap();

    let (ready, _is_ready) = mpsc::channel();
    let ran = play(ready).listen(&["--seconds", "500ms", "--count", "9"]);
    ran.says("1 of 9 notifications came in time").exits(1);
}

#[test]
fn a_frame_that_is_not_of_the_protocol_is_named() {
    let ran = Stage::open(vec![scene(|session| {
        session.say(json!({"op": "batch", "stream": "user"}));
        session.hear_close();
    })])
    .listen(&["--reconnect"]);
    ran.says("not of this protocol").says("batch").exits(1);
}
