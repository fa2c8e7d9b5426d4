//! What of a configuration can change while the gateway runs: everything in `[token]` but `leeway_s`, and of `[listen]` the
//! origins, the proxies and the paths of certificate and key. All other keys wait for the next start.

use toml::{Table, Value};

use super::Config;

impl Config {
    /// This configuration with the live keys of another one, and the names of the keys that differ and are not live.
    pub fn with_live_keys_of(&self, new: &Self) -> (Self, Vec<String>) {
        let mut merged = self.clone();
        merged.token = super::Token { leeway_s: self.token.leeway_s, ..new.token.clone() };
        merged.listen = super::Listen {
            address: self.listen.address,
            name: self.listen.name.clone(),
            shards: self.listen.shards,
            ..new.listen.clone()
        };
        // TLS cannot be switched on or off under a listener that is open.
        if self.listen.tls_cert.is_some() != new.listen.tls_cert.is_some() {
            merged.listen.tls_cert.clone_from(&self.listen.tls_cert);
            merged.listen.tls_key.clone_from(&self.listen.tls_key);
        }
        let mut at_restart = differing(&merged, new);
        at_restart.sort();
        (merged, at_restart)
    }
}

/// `section.key` of every key that is not the same in both.
fn differing(one: &Config, other: &Config) -> Vec<String> {
    let (Ok(one), Ok(other)) = (Table::try_from(one), Table::try_from(other)) else { return Vec::new() };
    let mut names = Vec::new();
    for (section, value) in one.iter().chain(&other) {
        let keys = |table: &Table| table.get(section).and_then(Value::as_table).cloned().unwrap_or_default();
        let (one, other) = (keys(&one), keys(&other));
        for key in value.as_table().into_iter().flat_map(Table::keys) {
            let name = format!("{section}.{key}");
            if one.get(key) != other.get(key) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_keys_are_taken_over_and_the_others_are_named() {
        let old = Config::default();
        let mut new = Config::default();
        new.listen.origins = vec!["https://a.example".to_owned()];
        new.token.audience = Some("bell".to_owned());
        new.token.leeway_s = 9;
        new.limits.sessions_per_user = 3;
        new.listen.tls_cert = Some("cert.pem".into());
        let (merged, at_restart) = old.with_live_keys_of(&new);
        assert_eq!(merged.listen.origins, new.listen.origins);
        assert_eq!(merged.token.audience, new.token.audience);
        assert_eq!(merged.limits, old.limits);
        assert_eq!(at_restart, ["limits.sessions_per_user", "listen.tls_cert", "token.leeway_s"]);
        assert_eq!(old.with_live_keys_of(&old), (old.clone(), Vec::new()));
    }
}
