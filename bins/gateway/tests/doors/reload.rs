//! SIGHUP.

use super::{Bench, replace, status, until_says};
use crate::common::{Client, token};

#[tokio::test]
async fn sighup_takes_over_what_can_change_and_names_what_cannot() {
    let bench = Bench::new();
    let file = bench.dir.path().join("gateway.toml");
    std::fs::write(&file, "[listen]\norigins = [\"https://a.example\"]\n").unwrap();
    let (gateway, log) = bench.gateway_with_log(|command| {
        command.arg("--config").arg(&file);
    });
    let hang_up = || {
        let pid = nix::unistd::Pid::from_raw(gateway.pid() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    };
    let mut inside = Client::subscribed(&gateway.url, &token("anna")).await;
    assert_eq!(status(&gateway, &[("Origin", "https://a.example")]).await, 101);
    assert_eq!(status(&gateway, &[("Origin", "https://b.example")]).await, 403);

    // A configuration that is not sound changes nothing.
    replace(&file, "[listen]\norigins = [\"https://b.example/path\"]\n");
    hang_up();
    until_says(&log, "nothing changes").await;
    assert_eq!(status(&gateway, &[("Origin", "https://a.example")]).await, 101);

    replace(&file, "[listen]\norigins = [\"https://b.example\"]\n[session]\nidle_ms = 77000\n");
    hang_up();
    until_says(&log, "reloaded").await;
    until_says(&log, "takes effect at the next start key=session.idle_ms").await;
    assert_eq!(status(&gateway, &[("Origin", "https://a.example")]).await, 403);
    assert_eq!(status(&gateway, &[("Origin", "https://b.example")]).await, 101);
    inside.send(serde_json::json!({"op": "list"})).await;
    inside.until("subscriptions").await;
}
