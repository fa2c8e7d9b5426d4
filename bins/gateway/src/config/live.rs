//! What of a configuration can change while the gateway runs: everything in `[token]` but `leeway_s`; of `[listen]` the
//! origins, the proxies and the paths of certificate and key; `[limits]` but `frame_bytes_max`; `session.drain_ms`; `log.level`.
//! All other keys wait for the next start: what `hello` promises a client holds as long as its session does.

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
        merged.limits = super::Limits { frame_bytes_max: self.limits.frame_bytes_max, ..new.limits.clone() };
        merged.session.drain_ms = new.session.drain_ms;
        merged.log.level = new.log.level;
        // TLS cannot be switched on or off under a listener that is open.
        if self.listen.tls_cert.is_some() != new.listen.tls_cert.is_some() {
            merged.listen.tls_cert.clone_from(&self.listen.tls_cert);
            merged.listen.tls_key.clone_from(&self.listen.tls_key);
        }
        let at_restart = merged.differences(new);
        (merged, at_restart)
    }

    /// `section.key` of every key that is not the same in both, in order.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut names = differing(self, other);
        names.sort();
        names
    }
}

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
        new.limits.frame_bytes_max = 8192;
        new.session.heartbeat_ms = 7;
        new.log.level = crate::config::LogLevel::Debug;
        new.listen.tls_cert = Some("cert.pem".into());
        let (merged, at_restart) = old.with_live_keys_of(&new);
        assert_eq!(merged.listen.origins, new.listen.origins);
        assert_eq!(merged.token.audience, new.token.audience);
        assert_eq!((merged.limits.sessions_per_user, merged.log.level), (3, new.log.level));
        assert_eq!((merged.limits.frame_bytes_max, &merged.session), (4096, &old.session));
        assert_eq!(
            at_restart,
            ["limits.frame_bytes_max", "listen.tls_cert", "session.heartbeat_ms", "token.leeway_s"]
        );
        assert_eq!(old.with_live_keys_of(&old), (old.clone(), Vec::new()));
    }
}
