//! The admin listener of a real gateway, asked over real sockets by a client that takes nothing on trust.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Bench, Client, PATIENCE, numbers, token, trade};
use serde_json::Value;

struct Answer {
    status: u16,
    head: String,
    body: String,
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes and reads until the other side closes.
fn exchange(address: &str, request: &[u8]) -> Answer {
    let mut stream = connect(address);
    // It may have been refused, and the rest of it not be wanted.
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}

fn ask(address: &str, method: &str, path: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes())
}

fn get(address: &str, path: &str) -> Answer {
    let answer = ask(address, "GET", path);
    assert_eq!(answer.status, 200, "{path}: {} {}", answer.head, answer.body);
    answer
}

fn get_json(address: &str, path: &str) -> Value {
    serde_json::from_str(&get(address, path).body).unwrap()
}

/// Samples by their name and labels as written.
type Samples = BTreeMap<String, f64>;

/// Reads the text format strictly: every sample belongs to the family whose help and type stand right before it, no sample
/// is there twice, and histograms are cumulative and end with their count.
fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut families = BTreeSet::new();
    let (mut help, mut family, mut kind) = (String::new(), String::new(), String::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').expect(line).0.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, of) = rest.split_once(' ').expect(line);
            assert_eq!(name, help, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            assert!(families.insert(name.to_owned()), "{name} twice");
            (family, kind) = (name.to_owned(), of.to_owned());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect(line);
        let name = sample.split('{').next().unwrap();
        assert!(name.chars().all(|character| character.is_ascii_lowercase() || character == '_'), "{line}");
        assert!(sample.contains('{') == sample.ends_with('}'), "{line}");
        let suffix = name.strip_prefix(&family).expect(line);
        let allowed: &[_] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(allowed.contains(&suffix), "{line}");
        let value: f64 = value.parse().expect(line);
        assert!(value >= 0.0, "{line}");
        assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} twice");
        if suffix == "_count" {
            let all = sample.replace("_count", "_bucket").replace('}', ",le=\"+Inf\"}");
            assert_eq!(samples.get(&all), Some(&value), "{line}");
        }
    }
    samples
}

fn metrics(address: &str) -> Samples {
    parse(&get(address, "/metrics").body)
}

/// Asks until it holds.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let found = ask();
        if holds(&found) {
            return found;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_parser_of_these_tests_refuses_what_is_no_exposition() {
    let sound = "# HELP a_total A.\n# TYPE a_total counter\na_total{of=\"x\"} 1\n";
    assert_eq!(parse(sound).len(), 1);
    for unsound in [
        "a_total 1\n",
        "# HELP a_total A.\n# TYPE a_total counter\nb_total 1\n",
        "# HELP a A.\n# TYPE a counter\na 1\n",
        "# HELP a_total A.\n# TYPE a_total counter\na_total 1\na_total 1\n",
        "# HELP a A.\n# TYPE a histogram\na_bucket{c=\"x\",le=\"+Inf\"} 1\na_count{c=\"x\"} 2\n",
    ] {
        assert!(std::panic::catch_unwind(|| parse(unsound)).is_err(), "{unsound}");
    }
}

#[tokio::test]
async fn what_was_published_and_delivered_is_what_the_metrics_and_the_api_count() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let admin = gateway.admin.clone().unwrap();
    let mut producer = bench.producer("engine");
    let mut client = Client::subscribed(&gateway.url, &token("anna")).await;
    let texts = numbers(0..150);
    for text in &texts {
        producer.publish(&trade("anna", text)).unwrap();
    }
    client.until_got(150).await;

    let samples = wait_for(
        "150 delivered",
        || metrics(&admin),
        |found| found["bellwire_delivered_total{shard=\"0\"}"] == 150.0,
    );
    for name in [
        "bellwire_lane_read_total{lane=\"engine\",class=\"P1\"}",
        "bellwire_lane_journalled_total{lane=\"engine\",class=\"P1\"}",
        "bellwire_ring_wait_seconds_count{class=\"P1\"}",
        "bellwire_journal_seconds_count{class=\"P1\"}",
        "bellwire_push_seconds_count{class=\"P1\"}",
    ] {
        assert_eq!(samples[name], 150.0, "{name}");
    }
    assert_eq!(samples["bellwire_lane_read_total{lane=\"engine\",class=\"P0\"}"], 0.0);
    assert_eq!(samples["bellwire_sessions{shard=\"0\"}"], 1.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6);
    // The negative control of "never a label by user": the name is known to the gateway, and to nobody here.
    assert!(samples.keys().all(|name| !name.contains("anna")));

    let lanes = get_json(&admin, "/api/v1/lanes");
    let lane = &lanes["lanes"][0];
    assert_eq!((lanes["schema"].as_u64(), lane["name"].as_str()), (Some(1), Some("engine")));
    assert_eq!((&lane["attached"], &lane["producer_alive"]), (&true.into(), &true.into()));
    assert_eq!((&lane["journalled"][1], &lane["rings"][1]["published"]), (&150.into(), &150.into()));
    assert_eq!(lane["rings"][1]["unread_bytes"], 0);
    assert_eq!(get_json(&admin, "/api/v1/sessions")["shards"][0]["delivered"], 150);
    assert_eq!(get_json(&admin, "/api/v1/streams")["streams"], 1);
    let overview = get_json(&admin, "/api/v1/overview");
    assert_eq!(overview["ready"], true);
    let pushed: u64 =
        overview["latency"]["push"][1].as_array().unwrap().iter().filter_map(Value::as_u64).sum();
    assert_eq!(pushed, 150);
}

#[test]
fn a_gateway_is_ready_until_it_is_stopped_or_its_broker_stands_still() {
    let bench = Bench::new().with("SESSION_DRAIN_MS", "3000");
    let gateway = bench.gateway();
    let admin = gateway.admin.clone().unwrap();
    assert_eq!(get(&admin, "/livez").body, "broker: ok\nprogress: ok\n");
    assert!(get(&admin, "/readyz").body.contains("draining: ok"));
    // The broker's thread alone, stopped as a debugger would.
    let broker = thread(gateway.pid(), "broker");
    let stopped = Stopped::new(broker);
    let answer = wait_for("not live", || ask(&admin, "GET", "/livez"), |answer| answer.status == 503);
    assert!(answer.body.contains("progress: the broker has not gone on"), "{}", answer.body);
    assert_eq!(ask(&admin, "GET", "/readyz").status, 503);
    drop(stopped);
    wait_for("live again", || ask(&admin, "GET", "/livez"), |answer| answer.status == 200);
}

/// A thread that stands still until this is dropped.
struct Stopped(nix::unistd::Pid);

impl Stopped {
    fn new(thread: nix::unistd::Pid) -> Self {
        nix::sys::ptrace::seize(thread, nix::sys::ptrace::Options::empty()).unwrap();
        nix::sys::ptrace::interrupt(thread).unwrap();
        nix::sys::wait::waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        nix::sys::ptrace::detach(self.0, None).unwrap();
    }
}

fn thread(pid: u32, name: &str) -> nix::unistd::Pid {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let found = tasks
        .map(|task| task.path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name));
    let id = found.unwrap().file_name().unwrap().to_str().unwrap().parse().unwrap();
    nix::unistd::Pid::from_raw(id)
}

#[test]
fn what_the_log_warned_of_is_told_once_with_a_count() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let admin = gateway.admin.clone().unwrap();
    assert_eq!(get_json(&admin, "/api/v1/errors")["errors"].as_array().map(Vec::len), Some(0));
    // A lane that is none.
    std::fs::write(format!("/dev/shm/bellwire.{}.lane.squatter", bench.bus), "nonsense").unwrap();
    let errors =
        wait_for("a warning", || get_json(&admin, "/api/v1/errors"), |answer| !answer["errors"][0].is_null());
    assert_eq!(
        (errors["errors"][0]["level"].as_str(), errors["errors"][0]["count"].as_u64()),
        (Some("warn"), Some(1))
    );
    assert!(errors["errors"][0]["text"].as_str().unwrap().contains("squatter"), "{errors}");
    assert_eq!(metrics(&admin)["bellwire_lanes_refused_total"], 1.0);
}

#[test]
fn nothing_can_be_changed_and_foreign_names_are_refused() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let admin = gateway.admin.clone().unwrap();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = ask(&admin, method, "/metrics");
        assert_eq!((answer.status, answer.head.contains("allow: get, head")), (405, true), "{method}");
    }
    assert_eq!(ask(&admin, "GET", "/../etc/passwd").status, 404);
    assert_eq!(ask(&admin, "HEAD", "/metrics").body, "");
    let rebound =
        exchange(&admin, b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    assert_eq!(rebound.status, 421);
    let page = get(&admin, "/");
    assert!(
        page.head.contains("content-security-policy: default-src 'none'; script-src 'self'"),
        "{}",
        page.head
    );
    assert!(!page.body.contains("http://") && !page.body.contains("https://"), "an outside resource");
}

#[tokio::test]
async fn hostile_clients_get_an_end_and_the_others_an_answer() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let admin = gateway.admin.clone().unwrap();
    let huge = format!("GET / HTTP/1.1\r\nHost: {admin}\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024));
    assert_eq!(exchange(&admin, huge.as_bytes()).status, 431);
    let many: String = (0..100).map(|number| format!("X-{number}: y\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nHost: {admin}\r\n{many}\r\n");
    assert_eq!(exchange(&admin, many.as_bytes()).status, 431);
    assert_eq!(exchange(&admin, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n").status, 400);
    // As many as there are places, and more, that say half a line and then nothing: their time ends, and it goes on.
    let mut slow: Vec<_> = (0..48).map(|_| connect(&admin)).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET / HT");
    }
    let begun = Instant::now();
    assert_eq!(ask(&admin, "GET", "/livez").status, 200);
    assert!(begun.elapsed() > Duration::from_secs(1), "there were not as many places as that");
    // The public side was never concerned.
    let _ = Client::subscribed(&gateway.url, &token("anna")).await;
}

#[test]
fn it_can_be_off_and_is_not_opened_to_others_by_mistake() {
    let bench = Bench::new().with("ADMIN_ENABLED", "false");
    assert!(bench.gateway().admin.is_none());
    let bench = Bench::new().with("ADMIN_ADDRESS", "0.0.0.0:0");
    let output = bench.command().arg("--check").output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(words.contains("admin.beyond_loopback"), "{words}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new().with("ADMIN_ADDRESS", &taken.local_addr().unwrap().to_string());
    let output = bench.command().output().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(words.contains("admin.enabled = false"), "{words}");
}

/// Names in that text that look like metrics of ours, as families.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    let ours = words.filter(|word| word.starts_with("bellwire_") || word.starts_with("process_"));
    ours.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn every_metric_that_the_alarms_the_dashboard_and_the_guide_name_is_there_and_the_guide_knows_all() {
    let bench = Bench::new();
    let gateway = bench.gateway();
    let admin = gateway.admin.clone().unwrap();
    let text = get(&admin, "/metrics").body;
    let families: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    let alerts = include_str!("../../../scripts/monitoring/alerts.yml");
    let guide = include_str!("../OPERATING.md");
    for text in [alerts, include_str!("../../../scripts/monitoring/grafana.json"), guide] {
        let unknown: Vec<_> = named(text).difference(&families).cloned().collect();
        assert_eq!(unknown, Vec::<String>::new());
        assert!(named(text).len() > 5);
    }
    let untold: Vec<_> = families.difference(&named(guide)).cloned().collect();
    assert_eq!(untold, Vec::<String>::new(), "the guide does not know these");
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(guide.contains(&format!("`{alert}`")), "the guide does not say what {alert} means");
    }
    // The negative control.
    assert!(!named("rate(bellwire_made_up_total[1m])").is_subset(&families));
}
