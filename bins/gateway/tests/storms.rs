//! Sixty-four gateways want one journal and one consumer's name at the same moment, and the one that gets them is killed.
//!
//! `cargo test` runs a few rounds; `scripts/proofs/storms` sets `BELLWIRE_STORM_ROUNDS` for more.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, Client, numbers, token, trade};

const RIVALS: usize = 64;

/// By when a killed gateway has a successor, on a machine where sixty-four of them start at once.
const NEXT_OWNER_WITHIN: Duration = Duration::from_secs(20);

fn rounds() -> usize {
    std::env::var("BELLWIRE_STORM_ROUNDS").map_or(2, |text| text.parse::<usize>().unwrap().div_ceil(16))
}

/// How one of them ended up.
#[derive(Debug)]
enum Outcome {
    Serves(Child, String),
    Refused { code: Option<i32>, words: String },
}

/// Starts so many at once and waits until each serves or has ended.
fn storm(bench: &Bench, count: usize) -> Vec<Outcome> {
    let start = |_| bench.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..count).map(start).collect();
    let mut outcomes = Vec::new();
    for mut child in children {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let url = lines.filter_map(|line| Some(line.strip_prefix("listening ")?.to_owned())).next();
        outcomes.push(match url {
            Some(url) => {
                // Somebody has to read what it says.
                let mut words = child.stderr.take().unwrap();
                std::thread::spawn(move || std::io::copy(&mut words, &mut std::io::sink()));
                Outcome::Serves(child, url)
            }
            None => {
                let mut words = String::new();
                child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
                Outcome::Refused { code: child.wait().unwrap().code(), words }
            }
        });
    }
    outcomes
}

/// The one that serves, if all others said that it does.
fn judge(outcomes: Vec<Outcome>) -> Result<(Child, String), String> {
    let (mut serving, mut refused) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Outcome::Serves(child, url) => serving.push((child, url)),
            Outcome::Refused { code: Some(1), words } => refused.push(words),
            other => return Err(format!("{other:?}")),
        }
    }
    if serving.len() != 1 {
        let count = serving.len();
        for (child, _) in &mut serving {
            let _ = child.kill();
            let _ = child.wait();
        }
        return Err(format!("{count} gateways serve"));
    }
    let Some((mut child, url)) = serving.pop() else { unreachable!("there is one") };
    let owner = format!("process {}", child.id());
    match refused.iter().find(|words| !words.contains(&owner)) {
        Some(words) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(format!("{owner} is the owner, and one said: {words}"))
        }
        None => Ok((child, url)),
    }
}

#[tokio::test]
async fn of_sixty_four_gateways_one_serves_and_a_killed_one_is_replaced_without_loss() {
    let bench = Bench::new().with("LOG_LEVEL", "error");
    let mut engine = bench.producer("engine");
    let (mut published, mut slowest, mut positions) = (0, Duration::ZERO, None);
    let mut got = Vec::new();
    for round in 0..rounds() {
        let begun = Instant::now();
        let (mut child, url) = judge(storm(&bench, RIVALS)).unwrap();
        slowest = slowest.max(begun.elapsed());
        let mut client = match &positions {
            None => Client::subscribed(&url, &token("anna")).await,
            Some(positions) => Client::resumed(&url, &token("anna"), positions).await,
        };
        for _ in 0..100 {
            engine.publish(&trade("anna", &published.to_string())).unwrap();
            published += 1;
        }
        // Killed in the middle: some were seen, some were not, and those go to the next round's client.
        let last = round + 1 == rounds();
        let wanted = if last { published - got.len() } else { 50.min(published - got.len()) };
        client.until_got(wanted).await;
        got.extend(client.texts());
        positions = Some(client.positions.clone());
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(got, numbers(0..published), "each once, in order, over {} gateways", rounds());
    assert!(slowest < NEXT_OWNER_WITHIN, "{slowest:?}");
    println!(
        "storm gateways: rounds {} starts {} kills {} next_owner_ms {}",
        rounds(),
        rounds() * RIVALS,
        rounds(),
        slowest.as_millis()
    );
}

/// The negative control: gateways that do not want the same journal are noticed.
#[test]
fn a_storm_with_two_that_serve_is_noticed() {
    let (one, two) = (Bench::new(), Bench::new());
    let mut outcomes = storm(&one, 2);
    outcomes.extend(storm(&two, 1));
    assert_eq!(judge(outcomes).unwrap_err(), "2 gateways serve");
}
