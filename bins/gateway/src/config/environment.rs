//! `BELLWIRE_<SECTION>_<KEY>` on top of the file, for example `BELLWIRE_LISTEN_ADDRESS=127.0.0.1:0`.
//!
//! The keys and their kinds are taken from the configuration itself, so there is no second list of them. A variable of
//! a known section with an unknown key is an error; variables of other sections belong to other programs.

use toml::{Table, Value};

use super::{Config, ConfigError};

pub(super) const PREFIX: &str = "BELLWIRE_";

/// Keys without a default do not show up in a written configuration; all of them are texts.
pub(super) const WITHOUT_DEFAULT: &[(&str, &str)] = &[
    ("bus", "group"),
    ("control", "socket"),
    ("control", "group"),
    ("journal", "chain_key_file"),
    ("listen", "tls_cert"),
    ("listen", "tls_key"),
    ("presence", "bus"),
    ("token", "key"),
    ("token", "key_file"),
    ("token", "jwks_file"),
    ("token", "revocation_file"),
    ("token", "audience"),
    ("token", "issuer"),
];

pub(super) fn apply(
    config: Config,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let fail = |variable: &str, why: String| ConfigError::Environment { variable: variable.to_owned(), why };
    let mut config = config;
    for (variable, text) in environment {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        // Each variable is applied alone, so that an error can name it.
        let mut table = Table::try_from(&config).map_err(|error| fail(&variable, error.to_string()))?;
        let rest = rest.to_ascii_lowercase();
        let Some((section, key)) = rest.split_once('_') else { continue };
        let Some(Value::Table(keys)) = table.get_mut(section) else { continue };
        let value = match keys.get(key) {
            Some(Value::Integer(_)) => text
                .trim()
                .parse()
                .map(Value::Integer)
                .map_err(|_| fail(&variable, format!("expected a whole number, found {text:?}")))?,
            Some(Value::Boolean(_)) => text
                .trim()
                .parse()
                .map(Value::Boolean)
                .map_err(|_| fail(&variable, format!("expected true or false, found {text:?}")))?,
            // A list is written with commas.
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
            }
            Some(_) => Value::String(text),
            None if WITHOUT_DEFAULT.contains(&(section, key)) => Value::String(text),
            None => {
                let mut known: Vec<&str> = keys.keys().map(String::as_str).collect();
                known.extend(WITHOUT_DEFAULT.iter().filter(|(of, _)| *of == section).map(|(_, key)| key));
                let why = format!("section [{section}] has no key {key:?}; known here: {}", known.join(", "));
                return Err(fail(&variable, why));
            }
        };
        keys.insert(key.to_owned(), value);
        config =
            table.try_into().map_err(|error: toml::de::Error| fail(&variable, error.message().to_owned()))?;
    }
    Ok(config)
}
