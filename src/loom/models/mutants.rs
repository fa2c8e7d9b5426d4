//! The control: every ordering of the library is weakened, one at a time, and a model must then fail.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Orderings that no model runs, by file and a part of their line, and why.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "src/region/guard.rs",
        "",
        "a table that a signal handler reads: not modelled, argued in the module's head",
    ),
    (
        "src/region/foreign.rs",
        "",
        "orders loads before the look at the guard's mark: not modelled, see the guard",
    ),
    ("src/reader/mod.rs", "mark", "orders stores of a process that is killed, which no thread sees"),
];

/// A mutant is looked for where the slices look.
const SLICE: (&str, &str) = ("BELLWIRE_LOOM_SLICE", "1");

/// A place in the source, as `file:line`.
type Site = String;

/// Runs a model in a process of its own.
fn run(model: &str, set: &[(&str, &str)]) -> Output {
    Command::new(std::env::current_exe().expect("a test's own path"))
        .args(["--exact", model, "--nocapture", "--test-threads=1"])
        .env_remove("BELLWIRE_LOOM_SLICE")
        .env("RUST_BACKTRACE", "0")
        .envs(set.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("runs")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), output.stderr.as_slice()].concat()).into_owned()
}

fn models() -> Vec<String> {
    let exe = std::env::current_exe().expect("a test's own path");
    let list = Command::new(exe).args(["--list", "--format", "terse"]).output().expect("runs");
    let names = text(&list);
    let names = names.lines().filter_map(|line| line.strip_suffix(": test"));
    names
        .filter(|name| name.starts_with("loom::models::") && !name.contains("::mutants::"))
        .map(str::to_owned)
        .collect()
}

/// Every line of the library that has an ordering stronger than Relaxed or a fence, but for its tests and this folder.
fn orderings() -> Vec<(Site, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut folders) = (Vec::new(), vec![root.join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in
            std::fs::read_dir(folder).expect("the source").map(|entry| entry.expect("readable").path())
        {
            if entry.is_dir() && !entry.ends_with("src/loom") {
                folders.push(entry);
            } else if ["stress.rs", "testing.rs"].iter().any(|test| entry.ends_with(test)) {
                // Tests themselves.
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let source = std::fs::read_to_string(&entry).expect("readable");
                let file = entry.strip_prefix(root).expect("in the source").display().to_string();
                let lines = source.lines().take_while(|line| *line != "mod tests {").enumerate();
                found.extend(lines.filter_map(|(index, line)| {
                    let code = line.split("//").next().unwrap_or_default();
                    let strong = ["Acquire", "Release", "AcqRel", "SeqCst"];
                    let is_one = strong.iter().any(|order| code.contains(&format!("Ordering::{order}")));
                    is_one.then(|| (format!("{file}:{}", index + 1), line.trim().to_owned()))
                }));
            }
        }
    }
    found.sort();
    found
}

/// What became of an ordering that was weakened.
enum Verdict {
    /// That model failed, as it must.
    Killed(String),
    /// No model runs it, for that reason.
    Elsewhere(&'static str),
    /// Nothing noticed, or nothing could.
    Bad(String),
}

/// Weakens that ordering in the models that run it, until one fails.
fn judge(site: &str, line: &str, models: Option<&Vec<String>>) -> Verdict {
    let Some(models) = models else {
        let reason = ELSEWHERE.iter().find(|(file, part, _)| site.starts_with(file) && line.contains(part));
        return match reason {
            Some((_, _, reason)) => Verdict::Elsewhere(reason),
            None => Verdict::Bad("no model runs it".to_owned()),
        };
    };
    let fails = |model: &&String| {
        let output = run(model, &[("BELLWIRE_LOOM_WEAKEN", site), SLICE]);
        // A model that came to no end has shown nothing.
        !output.status.success() && !text(&output).contains("maximum number of branches")
    };
    match models.iter().find(fails) {
        Some(model) => Verdict::Killed(model.clone()),
        None => Verdict::Bad(format!("weakened, and {models:?} pass")),
    }
}

#[test]
#[ignore = "takes minutes: scripts/proofs/loom runs it"]
fn every_ordering_is_needed() {
    let mut reached: BTreeMap<Site, Vec<String>> = BTreeMap::new();
    for model in models() {
        let output = run(&model, &[SLICE, ("BELLWIRE_LOOM_SITES", "1")]);
        assert!(output.status.success(), "{model} fails with nothing weakened:\n{}", text(&output));
        for site in text(&output).lines().filter_map(|line| line.strip_prefix("site: ")) {
            reached.entry(site.to_owned()).or_default().push(model.clone());
        }
    }
    let orderings = orderings();
    let next = AtomicUsize::new(0);
    let mut verdicts: Vec<(usize, Verdict)> = std::thread::scope(|scope| {
        let (next, orderings, reached) = (&next, &orderings, &reached);
        let judges: Vec<_> = (0..std::thread::available_parallelism().map_or(1, usize::from))
            .map(|_| {
                scope.spawn(move || {
                    let mine = std::iter::from_fn(|| {
                        let index = next.fetch_add(1, Relaxed); // hands out numbers, nothing else
                        orderings.get(index).map(|(site, line)| (index, judge(site, line, reached.get(site))))
                    });
                    mine.collect::<Vec<_>>()
                })
            })
            .collect();
        judges.into_iter().flat_map(|judge| judge.join().expect("judges")).collect()
    });
    verdicts.sort_by_key(|(index, _)| *index);
    let (mut killed, mut elsewhere, mut bad) = (0, 0, Vec::new());
    for (index, verdict) in verdicts {
        let (site, line) = &orderings[index];
        match verdict {
            Verdict::Killed(model) => {
                killed += 1;
                println!("killed {site}  {line}  ({model})");
            }
            Verdict::Elsewhere(reason) => {
                elsewhere += 1;
                println!("elsewhere {site}  {line}  ({reason})");
            }
            Verdict::Bad(why) => bad.push(format!("{site}  {line}: {why}")),
        }
    }
    println!(
        "loom: {killed} orderings weakened and caught, {elsewhere} outside of the models, {} neither",
        bad.len()
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
