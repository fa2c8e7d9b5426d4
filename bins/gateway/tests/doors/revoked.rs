//! Tokens that are taken back while their sessions are open.

use std::time::Instant;

use serde_json::{Value, json};

use super::{Ended, refused, replace, until_says};
use crate::common::{Bench, Client, in_seconds, token_with};

fn token(user: &str, jti: &str, issued_ago: i64) -> String {
    token_with(json!({"sub": user, "jti": jti, "exp": in_seconds(600), "iat": in_seconds(-issued_ago)}))
}

#[tokio::test]
async fn what_is_revoked_closes_open_sessions_and_what_is_not_stays() {
    let mut bench = Bench::new();
    let path = bench.dir.path().join("revoked");
    std::fs::write(&path, "").unwrap();
    bench.set("TOKEN_REVOCATION_FILE", path.to_str().unwrap());
    let (gateway, log) = bench.gateway_with_log(|_| ());
    let mut lines: Vec<Value> = Vec::new();
    for (revocation, taken, stays) in [
        (json!({"jti": "t-1"}), token("anna", "t-1", 0), token("anna", "t-2", 0)),
        (
            json!({"user": "bert", "issued_before": in_seconds(-50)}),
            token("bert", "b-1", 100),
            token("bert", "b-2", 0),
        ),
        (json!({"user": "cleo"}), token("cleo", "c", 0), token("dora", "d", 0)),
        (
            json!({"all": true, "issued_before": in_seconds(-200), "until": in_seconds(600)}),
            token("emil", "e-1", 300),
            token("emil", "e-2", 100),
        ),
    ] {
        let mut leaves = Client::subscribed(&gateway.url, &taken).await;
        let mut remains = Client::subscribed(&gateway.url, &stays).await;
        lines.push(revocation.clone());
        let begun = Instant::now();
        replace(&path, &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        assert_eq!(leaves.until("error").await["code"], 4504);
        assert_eq!(leaves.until_end().await, Ended::Close(4504), "{revocation}");
        println!("{revocation}: closed after {:?}", begun.elapsed());
        assert_eq!(refused(&gateway, &taken).await, 4504);
        remains.send(json!({"op": "list"})).await;
        remains.until("subscriptions").await;
        assert_eq!(refused(&gateway, &stays).await, 0);
        // A session cannot be refreshed by a token that was taken back. It goes on with the one it has.
        if revocation["jti"] == "t-1" {
            remains.send(json!({"op": "auth", "id": 1, "token": taken})).await;
            assert_eq!(remains.until("error").await["code"], 4504);
            remains.send(json!({"op": "list"})).await;
            remains.until("subscriptions").await;
        }
    }

    replace(&path, "{\"jti\": \"t-2\"}\nnot a line of ours\n");
    until_says(&log, "line 2").await;
    assert_eq!(refused(&gateway, &token("anna", "t-2", 0)).await, 0, "nothing of a bad file counts");
    assert_eq!(refused(&gateway, &token("anna", "t-1", 0)).await, 4504, "and the last good one stays");
    std::fs::remove_file(&path).unwrap();
    until_says(&log, "No such file").await;
    assert_eq!(refused(&gateway, &token("anna", "t-1", 0)).await, 4504);
    replace(&path, "");
    until_says(&log, "revocations read entries=0").await;
    assert_eq!(refused(&gateway, &token("anna", "t-1", 0)).await, 0);
}
