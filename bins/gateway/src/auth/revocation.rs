//! Tokens that are no longer believed although they have not ended.
//!
//! A revocation is for one token (`jti`), for a user, or for everybody; of the last two, for what was issued before a time.
//! They come from a watched file and from commands; the file's replace each other as a whole, the command's add up until
//! the process ends. What a session's token says is kept with it ([`TokenMark`]), so open sessions are measured too: the
//! shards look through theirs whenever [`Revocations::generation`] moves.
//!
//! An entry may say `until` when it is needed: the end of the last token that it revokes. After that it is forgotten. A
//! command must say it; in the file an entry without it stands as long as it stands there.
//!
//! The file has one JSON object a line; empty lines and lines that begin with `#` do not count:
//!
//! ```text
//! {"jti": "7f1c", "until": 1790003600}
//! {"user": "user_01", "issued_before": 1790000000, "until": 1790003600}
//! {"user": "user_02"}
//! {"all": true, "issued_before": 1790000000}
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use serde::Deserialize;

use super::TokenMark;

/// Longest file that is read, in bytes.
pub const FILE_BYTES_MAX: u64 = 8 << 20;

/// Most entries of the file, and as many again of commands. One takes about 32 bytes.
pub const ENTRIES_MAX: usize = 100_000;

/// One thing that is taken back. Exactly one of `jti`, `user` and `all`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Revocation {
    pub jti: Option<String>,
    pub user: Option<String>,
    pub all: bool,
    /// Only what was issued before, in seconds since the Unix epoch. Without it, all of the user's tokens, also new ones.
    pub issued_before: Option<u64>,
    /// When this may be forgotten, in seconds since the Unix epoch.
    pub until: Option<u64>,
}

/// A revocation that is not understood, or for which there is no room.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error("line {line}, column {column}: not a revocation: {why}")]
    Malformed { line: usize, column: usize, why: String },
    #[error("line {line}: {error}")]
    Line { line: usize, error: Box<RevocationError> },
    #[error("exactly one of jti, user and all is to be given")]
    NotOne,
    #[error("all needs issued_before: without it, nobody could ever come in")]
    Everybody,
    #[error("a jti is one token: issued_before says nothing about it")]
    TokenBefore,
    #[error("until is missing: the end of the last token that is revoked")]
    Endless,
    #[error("more than {ENTRIES_MAX} revocations; give fewer, by user or by time of issue")]
    Full,
}

/// What was issued before a time, for as long as such tokens may be around.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    issued: u64,
    until: u64,
}

#[derive(Debug, Default)]
struct Entries {
    // Keyed by seeded hashes, so an entry is of one size whatever a name's length. Together bounded by ENTRIES_MAX.
    tokens: HashMap<NonZeroU64, u64>,
    users: HashMap<u64, Before>,
    all: Before,
}

/// Everything that is taken back at present.
#[derive(Debug, Default)]
pub struct Revocations {
    of_file: RwLock<Entries>,
    of_commands: RwLock<Entries>,
    generation: AtomicU64,
    seed: RandomState,
}

impl Revocations {
    /// Moves whenever something was revoked.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire) // pairs with the Release in `moved`
    }

    /// Takes something back at once, in sessions that are open too. This is what a command calls. It lasts until `until` or
    /// the end of the process, whichever is first.
    ///
    /// # Errors
    /// It is not one clear thing, it has no end, or there is no room.
    pub fn revoke(&self, revocation: &Revocation) -> Result<(), RevocationError> {
        if revocation.until.is_none() {
            return Err(RevocationError::Endless);
        }
        let now = jsonwebtoken::get_current_timestamp();
        let mut entries = self.of_commands.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= ENTRIES_MAX {
            entries.forget(now);
        }
        entries.add(revocation, &self.seed)?;
        drop(entries);
        self.moved();
        Ok(())
    }

    /// Takes back what the file says, and no more what it said before.
    ///
    /// # Errors
    /// A line that is not understood, or too many; then everything stays as it was.
    pub fn replace(&self, file: &[u8]) -> Result<usize, RevocationError> {
        let now = jsonwebtoken::get_current_timestamp();
        let mut entries = Entries::default();
        for (index, line) in file.split(|&byte| byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let number = index + 1;
            let revocation: Revocation = serde_json::from_slice(line).map_err(|error| {
                RevocationError::Malformed { line: number, column: error.column(), why: error.to_string() }
            })?;
            if revocation.until.is_some_and(|until| until <= now) {
                continue;
            }
            entries
                .add(&revocation, &self.seed)
                .map_err(|error| RevocationError::Line { line: number, error: Box::new(error) })?;
        }
        let count = entries.len();
        *self.of_file.write().unwrap_or_else(PoisonError::into_inner) = entries;
        self.moved();
        Ok(count)
    }

    /// Forgets what has passed; called now and then.
    pub fn forget_ended(&self) {
        let now = jsonwebtoken::get_current_timestamp();
        for entries in [&self.of_file, &self.of_commands] {
            entries.write().unwrap_or_else(PoisonError::into_inner).forget(now);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        [&self.of_file, &self.of_commands]
            .map(|entries| entries.read().unwrap_or_else(PoisonError::into_inner).len())
            .iter()
            .sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the token of that user was taken back.
    pub fn is_revoked(&self, user_id: &str, mark: TokenMark) -> bool {
        [&self.of_file, &self.of_commands].into_iter().any(|entries| {
            let entries = entries.read().unwrap_or_else(PoisonError::into_inner);
            entries.len() > 0 && entries.contains(self.seed.hash_one(user_id), mark)
        })
    }

    /// By what a token id is kept.
    pub(super) fn key_of(&self, token_id: &str) -> NonZeroU64 {
        token_key(&self.seed, token_id)
    }

    fn moved(&self) {
        // Pairs with the Acquire in `generation`: who sees the number sees the entries.
        self.generation.fetch_add(1, Ordering::Release);
    }
}

fn token_key(seed: &RandomState, token_id: &str) -> NonZeroU64 {
    NonZeroU64::new(seed.hash_one(token_id)).unwrap_or(NonZeroU64::MAX)
}

impl Entries {
    fn add(&mut self, revocation: &Revocation, seed: &RandomState) -> Result<(), RevocationError> {
        if self.len() >= ENTRIES_MAX {
            return Err(RevocationError::Full);
        }
        let until = revocation.until.unwrap_or(u64::MAX);
        let issued_before = revocation.issued_before;
        match (&revocation.jti, &revocation.user, revocation.all) {
            (Some(_), None, false) if issued_before.is_some() => return Err(RevocationError::TokenBefore),
            (Some(token_id), None, false) => {
                let kept = self.tokens.entry(token_key(seed, token_id)).or_default();
                *kept = until.max(*kept);
            }
            (None, Some(user), false) => {
                let issued = issued_before.unwrap_or(u64::MAX);
                self.users.entry(seed.hash_one(user.as_str())).or_default().widen(issued, until);
            }
            (None, None, true) => self.all.widen(issued_before.ok_or(RevocationError::Everybody)?, until),
            _ => return Err(RevocationError::NotOne),
        }
        Ok(())
    }

    fn contains(&self, user: u64, mark: TokenMark) -> bool {
        self.all.covers(mark)
            || self.users.get(&user).is_some_and(|before| before.covers(mark))
            || mark.token_id.is_some_and(|id| self.tokens.contains_key(&id))
    }

    fn forget(&mut self, now: u64) {
        self.tokens.retain(|_, until| *until > now);
        self.users.retain(|_, before| before.until > now);
        if self.all.until <= now {
            self.all = Before::default();
        }
    }

    fn len(&self) -> usize {
        self.tokens.len() + self.users.len() + usize::from(self.all.until > 0)
    }
}

impl Before {
    /// Two for the same become one that does what either does. That the shorter one lasts longer then harms nobody: the
    /// tokens that it is about have ended.
    fn widen(&mut self, issued: u64, until: u64) {
        *self = Self { issued: self.issued.max(issued), until: self.until.max(until) };
    }

    fn covers(self, mark: TokenMark) -> bool {
        self.until > 0 && (mark.issued < self.issued || self.issued == u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(revocations: &Revocations, token_id: &str, issued: u64) -> TokenMark {
        TokenMark { token_id: Some(revocations.key_of(token_id)), issued }
    }

    #[test]
    fn a_file_revokes_by_token_by_user_and_by_time_and_nothing_else() {
        let revocations = Revocations::default();
        let file =
            b"# these\n\n{\"jti\":\"a\"}\n{\"user\":\"anna\",\"issued_before\":100}\n{\"user\":\"bert\"}\n";
        assert_eq!(revocations.replace(file), Ok(3));
        let is = |user, id, issued| revocations.is_revoked(user, mark(&revocations, id, issued));
        assert!(is("cleo", "a", 500) && !is("cleo", "b", 500));
        assert!(is("anna", "b", 99) && !is("anna", "b", 100));
        assert!(is("bert", "b", u64::MAX));
        assert_eq!(revocations.replace(b"{\"all\":true,\"issued_before\":50}"), Ok(1));
        assert!(is("anna", "a", 49) && !is("bert", "a", 50), "the file replaces what it said before");
    }

    #[test]
    fn a_bad_line_keeps_the_last_good_state_and_says_where() {
        let revocations = Revocations::default();
        revocations.replace(b"{\"jti\":\"a\"}").unwrap();
        let generation = revocations.generation();
        for (file, why) in [
            ("{\"jti\":\"b\"}\n{\"jti\":", "line 2, column 7"),
            ("{\"jit\":\"b\"}", "unknown field"),
            ("{\"jti\":\"b\",\"user\":\"x\"}", "line 1: exactly one"),
            ("{\"all\":true}", "issued_before"),
            ("{}", "exactly one"),
        ] {
            let error = revocations.replace(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{file}: {error}");
        }
        assert!(revocations.is_revoked("x", mark(&revocations, "a", 0)));
        assert_eq!(revocations.generation(), generation);
    }

    #[test]
    fn a_command_must_have_an_end_and_is_forgotten_after_it() {
        let revocations = Revocations::default();
        let now = jsonwebtoken::get_current_timestamp();
        let of = |until| Revocation { jti: Some("a".into()), until, ..Revocation::default() };
        assert_eq!(revocations.revoke(&of(None)), Err(RevocationError::Endless));
        revocations.revoke(&of(Some(now))).unwrap();
        assert_eq!(revocations.len(), 1);
        revocations.forget_ended();
        assert!(revocations.is_empty());
        revocations.revoke(&of(Some(now + 60))).unwrap();
        revocations.forget_ended();
        assert!(revocations.is_revoked("x", mark(&revocations, "a", 0)));
    }

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        let revocations = Revocations::default();
        let until = Some(jsonwebtoken::get_current_timestamp() + 60);
        let add = |id: usize| {
            revocations.revoke(&Revocation { jti: Some(id.to_string()), until, ..Revocation::default() })
        };
        assert!((0..ENTRIES_MAX).all(|id| add(id).is_ok()));
        assert_eq!(add(ENTRIES_MAX), Err(RevocationError::Full));
    }
}
