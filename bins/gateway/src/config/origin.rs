//! Where each key of a configuration has its value from, for people who wonder why it is what it is.

use std::path::Path;

use serde::Serialize;
use toml::{Table, Value};

use super::environment::{PREFIX, WITHOUT_DEFAULT};
use super::{Config, ConfigError};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    Default,
    File,
    Environment,
}

/// One key that holds.
#[derive(Debug, PartialEq, Serialize)]
pub struct Setting {
    pub section: String,
    pub key: String,
    /// None: it is not set and has no default.
    pub value: Option<Value>,
    pub origin: Origin,
}

/// What stands for a value that is nobody's business.
const HIDDEN: &str = "(hidden)";

impl Config {
    /// Every key with its value and where that is from. The token's key is not shown.
    ///
    /// # Errors
    /// As for [`Config::load`].
    pub fn settings(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<Setting>, ConfigError> {
        let environment: Vec<_> = environment.into_iter().collect();
        let config = Self::load(file, environment.iter().cloned())?;
        let table = |config: &Self| {
            Table::try_from(config).map_err(|error| ConfigError::Environment {
                variable: PREFIX.to_owned(),
                why: error.to_string(),
            })
        };
        let (holds, defaults) = (table(&config)?, table(&Self::default())?);
        // It has been read once without a fault.
        let written = file.and_then(|path| std::fs::read_to_string(path).ok());
        let written: Table = written.and_then(|text| toml::from_str(&text).ok()).unwrap_or_default();
        let is_in = |table: &Table, section: &str, key: &str| {
            table.get(section).and_then(Value::as_table).is_some_and(|keys| keys.contains_key(key))
        };
        let variable = |section: &str, key: &str| {
            let name = format!("{PREFIX}{section}_{key}").to_ascii_uppercase();
            environment.iter().any(|(variable, _)| *variable == name)
        };
        let mut settings = Vec::new();
        for (section, keys) in &defaults {
            let keys = keys.as_table().into_iter().flat_map(Table::keys).map(String::as_str);
            let without = WITHOUT_DEFAULT.iter().filter(|(of, _)| of == section).map(|(_, key)| *key);
            for key in keys.chain(without) {
                let value = holds.get(section).and_then(|keys| keys.get(key)).cloned();
                let is_secret = (section.as_str(), key) == ("token", "key");
                settings.push(Setting {
                    section: section.clone(),
                    key: key.to_owned(),
                    value: value.map(|value| if is_secret { HIDDEN.into() } else { value }),
                    origin: if variable(section, key) {
                        Origin::Environment
                    } else if is_in(&written, section, key) {
                        Origin::File
                    } else {
                        Origin::Default
                    },
                });
            }
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../gateway.toml");

    /// The template with every key given.
    fn all_given() -> String {
        let is_key = |line: &str| {
            let rest = line.strip_prefix('#').unwrap_or_default();
            let (key, _) = rest.split_once(" = ").unwrap_or_default();
            !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        let lines = TEMPLATE.lines().map(|line| if is_key(line) { &line[1..] } else { line });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_template_holds_every_key_with_its_default_and_changes_nothing() {
        let as_it_is: Config = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(as_it_is, Config::default());
        let given: Table = toml::from_str(&all_given()).unwrap();
        given.clone().try_into::<Config>().unwrap();
        let defaults = Table::try_from(Config::default()).unwrap();
        for (section, keys) in &defaults {
            for (key, value) in keys.as_table().unwrap() {
                assert_eq!(given[section].get(key), Some(value), "[{section}] {key}");
            }
        }
        for (section, key) in WITHOUT_DEFAULT {
            assert!(given[*section].get(key).is_some(), "[{section}] {key}");
        }
        let count = |table: &Table| table.values().filter_map(Value::as_table).map(Table::len).sum::<usize>();
        assert_eq!(count(&given), count(&defaults) + WITHOUT_DEFAULT.len());
    }

    #[test]
    fn each_key_says_where_it_is_from_and_the_secret_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.toml");
        std::fs::write(&path, "[bus]\nname = \"a\"\nspin_us = 1\n[token]\nkey = \"hush\"\n").unwrap();
        let environment = [("BELLWIRE_BUS_NAME".to_owned(), "b".to_owned())];
        let settings = Config::settings(Some(&path), environment).unwrap();
        let of = |section: &str, key: &str| {
            let found = settings.iter().find(|one| one.section == section && one.key == key).unwrap();
            (found.value.clone().map(|value| value.to_string()), found.origin)
        };
        assert_eq!(of("bus", "name"), (Some("\"b\"".to_owned()), Origin::Environment));
        assert_eq!(of("bus", "spin_us"), (Some("1".to_owned()), Origin::File));
        assert_eq!(of("bus", "core"), (Some("-1".to_owned()), Origin::Default));
        assert_eq!(of("control", "socket"), (None, Origin::Default));
        assert_eq!(of("token", "key"), (Some("\"(hidden)\"".to_owned()), Origin::File));
    }
}
