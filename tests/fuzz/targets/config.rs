//! A configuration, and variables of the environment on top of it: an error, or what reads back as the same; and the secret
//! is nowhere shown.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use bellwire_fuzz::{fuzz_target, place};
use bellwire_gateway::config::Config;

static FILE: LazyLock<PathBuf> = LazyLock::new(|| place::dir().join("gateway.toml"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // What follows a line of dashes are variables, one a line.
    let (file, environment) = text.split_once("\n---\n").unwrap_or((text, ""));
    let environment = environment.lines().filter_map(|line| line.split_once('='));
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = match load(file, environment) {
        Ok(config) => config,
        Err(error) => return assert!(!error.is_empty()),
    };
    let written = toml::to_string(&config).expect("a configuration can be written");
    assert_eq!(load(&written, []).as_ref(), Ok(&config), "{written}");
    let secret = "k".repeat(100);
    let mut shown = config.clone();
    shown.token.key = Some(secret.clone());
    assert!(!format!("{shown:?}").contains(&secret), "the secret is shown");
    // Whose key is a file, that file may be one without an end.
    if config.token.key_file.is_none() {
        assert!(config.problems().iter().all(|problem| !problem.is_empty()));
    }
    let _ = config.shard_count();
});

fn load(text: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<Config, String> {
    std::fs::write(&*FILE, text).expect("room in /dev/shm");
    Config::load(Some(&FILE), environment).map_err(|error| error.to_string())
}
