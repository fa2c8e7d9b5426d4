//! What all verbs have in common: the manual, completions, headings, the version of `--json`, colours, closed pipes.

mod common;

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use bellwire::Producer;
use common::*;

#[test]
fn each_verb_has_a_page_of_the_manual_that_says_how_it_ends() {
    let bus = Bus::new();
    let dir = std::env::temp_dir().join(format!("bellwirectl-man-{}", bus.0));
    ctl(&["man", dir.to_str().unwrap()]).says("pages written").exits(0);
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let (whole, verb) = (read("bellwirectl.1"), read("bellwirectl-token-new.1"));
    fs::remove_dir_all(&dir).unwrap();
    for page in [&whole, &verb] {
        assert!(page.contains("EXIT STATUS") && page.contains("  5  busy"), "{page}");
    }
    assert!(whole.contains("bellwirectl\\-inspect(1)") && whole.contains("BELLWIRE_BUS"), "{whole}");
    assert!(verb.contains(".SH EXAMPLES") && verb.contains("SEE ALSO"), "{verb}");
    assert_eq!(ctl(&["man", "--page", "token-new"]).exits(0), verb);
    assert_eq!(ctl(&["man"]).exits(0), whole);
    ctl(&["man", "--page", "inspekt"]).says("did you mean inspect?").exits(2);
    ctl(&["man", "/proc/nothing/here"]).says("/proc/nothing").exits(3);
}

#[test]
fn completions_are_what_the_shells_read() {
    for shell in ["zsh", "fish"] {
        let ran = ctl(&["completions", shell]);
        assert!(ran.exits(0).contains("inspect") && ran.out.contains("no-header"), "{shell}");
    }
    let script = ctl(&["completions", "bash"]);
    let ask = r#"
        COMP_WORDS=(bellwirectl ins); COMP_CWORD=1
        _bellwirectl bellwirectl ins bellwirectl; echo "${COMPREPLY[@]}"
        COMP_WORDS=(bellwirectl token new --aud); COMP_CWORD=3
        _bellwirectl bellwirectl --aud new; echo "${COMPREPLY[@]}"
    "#;
    let bash = Command::new("bash").arg("-c").arg(format!("{}\n{ask}", script.exits(0))).output().unwrap();
    let bash = Ran::of(bash);
    assert_eq!(bash.exits(0).lines().collect::<Vec<_>>(), ["inspect", "--audience"], "{bash:#?}");
    ctl(&["completions", "tcsh"]).says("bash, zsh, fish").exits(2);
}

#[test]
fn headings_can_be_left_out_and_json_says_which_version_it_is() {
    let bus = Bus::new();
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    let with = bus.ctl(&["ls"]);
    let without = bus.ctl(&["ls", "--no-header"]);
    assert!(with.exits(0).starts_with("BUS "), "{with:#?}");
    assert_eq!(without.exits(0), with.out.split_once('\n').unwrap().1);
    for verb in ["ls", "inspect"] {
        let ran = bus.ctl(&[verb, "--json"]);
        assert!(ran.exits(0).lines().all(|line| line.starts_with("{\"schema\":1,")), "{ran:#?}");
    }
}

#[test]
fn a_pipe_that_is_closed_ends_every_verb_without_a_word() {
    let bus = Bus::new();
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    let run = |arguments: &[&str]| {
        let mut child = bus.start(arguments);
        drop(child.stdout.take());
        finish(child)
    };
    for arguments in
        [&["ls"][..], &["inspect"], &["man"], &["completions", "bash"], &["config", "init"], &["--help"]]
    {
        let ran = run(arguments);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments:?}");
    }
    // These have words to say, if they get so far before the pipe is closed, and a code that means something.
    for arguments in [&["consumers"][..], &["gc"], &["doctor"], &["check", "--sample", "0"]] {
        let ran = run(arguments);
        assert!(matches!(ran.code, Some(0 | 1)), "{arguments:?}: {ran:#?}");
        assert!(!ran.err.contains("standard output") && !ran.err.contains("panicked"), "{ran:#?}");
    }
}

#[test]
fn colours_are_for_terminals_and_for_those_who_want_them() {
    let bus = Bus::new();
    let _producer = Producer::open(&bus.0, "risk").unwrap();
    let on_a_terminal = |variables: &[(&str, &str)]| {
        let line = format!("{} ls --bus {}", env!("CARGO_BIN_EXE_bellwirectl"), bus.0);
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm");
        // What a build machine may have set, and what counts for colours too.
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "CI"] {
            script.env_remove(name);
        }
        script.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = script.stderr(Stdio::null()).spawn().ok()?;
        let mut text = String::new();
        child.stdout.take()?.read_to_string(&mut text).ok()?;
        child.wait().ok()?;
        Some(text)
    };
    let Some(plain) = on_a_terminal(&[]) else {
        eprintln!("needs script(1) for a terminal");
        return;
    };
    assert!(plain.contains("\u{1b}[1m"), "{plain:?}");
    for variables in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = on_a_terminal(&[variables]).unwrap();
        assert!(text.contains("risk") && !text.contains('\u{1b}'), "{variables:?}: {text:?}");
    }
}
