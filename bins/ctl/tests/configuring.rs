//! `config`: a first configuration, what is wrong with one, and where each value is from, as the real gateway sees it.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::*;
use serde_json::json;

struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("bellwirectl-config-{}", Bus::new().0));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn write(&self, text: &str) -> String {
        let path = self.0.join("gateway.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// With the gateway's real binary.
fn config(arguments: &[&str]) -> Ran {
    config_in(&[], arguments)
}

fn config_in(environment: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = command(&[&["config"], arguments].concat());
    command.env("BELLWIRE_GATEWAY", common::site::binary()).envs(environment.iter().copied());
    Ran::of(command.stdin(std::process::Stdio::null()).output().unwrap())
}

#[test]
fn a_first_configuration_is_sound_once_what_it_asks_for_is_given() {
    let dir = Dir::new();
    let path = dir.0.join("gateway.toml");
    let name = path.to_str().unwrap();
    config(&["init", name]).says("written to").exits(0);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o027, 0);
    config(&["init", name]).says("is there already").exits(5);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(config(&["init"]).exits(0), text);
    let bare = config(&["check", name]);
    assert!(bare.exits(1).contains("a key is missing"), "{bare:#?}");
    bare.says("config init");
    let given = text
        .replace("#key = \"do-not-use-this", "key = \"do-not-use-this")
        .replace("#dir = \"/var/lib/bellwire/journal\"", &format!("dir = {:?}", dir.0.join("journal")));
    let name = dir.write(&given);
    config(&["check", &name]).says("is sound").exits(0);
    assert_eq!(config(&["check", &name, "--json"]).json()[0]["sound"], true);
}

#[test]
fn everything_that_is_wrong_is_said_as_the_gateway_says_it() {
    let dir = Dir::new();
    let name = dir.write("[bus]\nname = \"Main\"\n[limits]\npending_max = 1\n[token]\nkey = \"short\"\n");
    let ran = config(&["check", &name, "--json"]);
    let problems = ran.json()[0]["problems"].as_array().unwrap().clone();
    let text = json!(problems).to_string();
    assert!(text.contains("bus name") && text.contains("pending_max") && text.contains("5 bytes"), "{text}");
    ran.says(&format!("{} problems", problems.len())).exits(1);
    let name = dir.write("[limits]\nsesions_total = 3\n");
    let ran = config(&["check", &name]);
    assert!(ran.exits(1).contains("line 2, column 1") && ran.out.contains("sesions_total"), "{ran:#?}");
    ran.says("1 problem");
}

#[test]
fn what_holds_is_shown_with_where_it_is_from() {
    let dir = Dir::new();
    let name = dir.write("[bus]\nname = \"a\"\n[token]\nkey = \"hush-hush-hush-hush-hush-hush-hush\"\n");
    let shown = config_in(&[("BELLWIRE_LISTEN_NAME", "gw-7")], &["show", &name, "--origin"]);
    let row = |key: &str| -> Vec<String> {
        let line = shown.out.lines().find(|line| line.starts_with(&format!("{key} ")));
        line.unwrap_or_else(|| panic!("{key}: {shown:#?}")).split_whitespace().map(str::to_owned).collect()
    };
    shown.exits(0);
    assert_eq!(row("bus.name"), ["bus.name", "\"a\"", &name]);
    assert_eq!(row("listen.name"), ["listen.name", "\"gw-7\"", "BELLWIRE_LISTEN_NAME"]);
    assert_eq!(row("bus.core"), ["bus.core", "-1", "default"]);
    assert_eq!(row("control.socket"), ["control.socket", "-", "default"]);
    assert!(!shown.out.contains("hush"), "{shown:#?}");
    let json = config(&["show", "--json"]).json();
    assert!(json.len() > 40 && json.iter().all(|one| one["origin"] == "default"), "{json:?}");
    let name = dir.write("nonsense");
    config(&["show", &name]).says("nonsense").exits(1);
}

#[test]
fn what_is_missing_is_named() {
    let dir = Dir::new();
    config(&["check", "/nowhere/gateway.toml"]).says("/nowhere/gateway.toml").exits(3);
    let name = dir.write("");
    config_in(&[("BELLWIRE_GATEWAY", "/nowhere/bellwire-gateway")], &["check", &name])
        .says("--gateway")
        .exits(3);
    // Another program of that name, or one that is too old.
    let old = dir.0.join("old");
    fs::write(&old, "#!/bin/sh\necho \"error: unexpected argument '--show' found\" >&2\nexit 2\n").unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o755)).unwrap();
    config(&["show", &name, "--gateway", old.to_str().unwrap()]).says("of another build").exits(6);
    fs::write(&old, "#!/bin/sh\necho hello\n").unwrap();
    config(&["show", &name, "--gateway", old.to_str().unwrap()]).says("is that a gateway").exits(1);
}
