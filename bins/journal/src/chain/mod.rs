//! The chain: evidence that nobody altered, removed or exchanged what was journalled.
//!
//! Beside each segment file stands `<base>.chain`, with one *link* of 32 bytes for each entry. A link is
//! HMAC-SHA-256 over the link before it and the entry's body, so it vouches for everything before it:
//!
//! ```text
//!  0        +----------------------------------------------------+
//!           | magic                        | version      | zero  |
//!  16       | journal id                   | base                  |
//!  32       | the last link of the segment before (32 bytes);     |
//!           | zeros: the chain begins here                        |
//!  64       | mark of the key              | zero (24 bytes)       |
//!  96       | link of entry 0 | link of entry 1 | ...              |
//!           +----------------------------------------------------+
//!
//!  link of entry 0 = MAC(MAC(the 96 bytes above) | body of entry 0)
//!  link of entry n = MAC(link of entry n - 1     | body of entry n)
//! ```
//!
//! The *body* is all of an entry but its length and its crc, which depend on where it stands.
//!
//! # What it shows, and to whom
//!
//! With a key (`chain_key_file`) nobody without that key can make a link, so whoever has the key can tell. Without one, the
//! chain finds whatever was done to the files without redoing the chain; who redoes it is found by a link that was noted
//! elsewhere: the gateway logs the newest one whenever a segment is full and at its end, and `bellwirectl journal verify`
//! takes such *anchors*. The oldest segments leave the journal by retention: that they are gone shows nothing.
//!
//! # What it costs
//!
//! The journal's housekeeping thread makes it, behind the appending thread, ten times a second: an append costs nothing more. What
//! was appended since, at most that long ago, is not covered yet; after a death of the gateway the next start goes on from
//! there. A disk that is full leaves the chain behind, too, and nothing else.

mod file;
mod follow;

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use file::LINK_LEN;
pub use file::{ChainHeader, ChainHeaderError};
pub(super) use file::{Links, chain_path, read_links};
pub(super) use follow::Follower;

/// Shortest key, in bytes: as long as the hash.
pub const CHAIN_KEY_LEN_MIN: usize = 32;

/// One link: what vouches for an entry and all before it. Shown as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link(pub [u8; LINK_LEN]);

impl Link {
    /// In a header: there is no segment before that this one follows.
    pub const NONE: Self = Self([0; LINK_LEN]);
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a link is 64 hex digits")]
pub struct NoLink;

impl FromStr for Link {
    type Err = NoLink;

    fn from_str(text: &str) -> Result<Self, NoLink> {
        let mut link = [0; LINK_LEN];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != LINK_LEN || !rest.is_empty() {
            return Err(NoLink);
        }
        for (byte, pair) in link.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(NoLink);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Self(link))
    }
}

/// What links are made with.
#[derive(Clone)]
pub struct ChainKey {
    mac: Hmac<Sha256>,
    is_secret: bool,
}

/// A key that is too short to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a chain key of {found} bytes, at least {CHAIN_KEY_LEN_MIN} are needed")]
pub struct KeyTooShort {
    pub found: usize,
}

impl ChainKey {
    /// No secret: a plain hash chain.
    pub fn public() -> Self {
        Self { mac: keyed(&[]), is_secret: false }
    }

    /// A secret.
    ///
    /// # Errors
    /// [`KeyTooShort`].
    pub fn secret(key: &[u8]) -> Result<Self, KeyTooShort> {
        if key.len() < CHAIN_KEY_LEN_MIN {
            return Err(KeyTooShort { found: key.len() });
        }
        Ok(Self { mac: keyed(key), is_secret: true })
    }

    /// By which another key is told from this one; 0 without a secret.
    pub(super) fn mark(&self) -> u64 {
        if !self.is_secret {
            return 0;
        }
        let mark = self.make(b"bellwire chain key", &[]).0;
        mark.first_chunk().map_or(1, |mark| u64::from_le_bytes(*mark).max(1))
    }

    /// What the first link of a segment follows.
    pub(super) fn start(&self, header: &ChainHeader) -> Link {
        self.make(&header.to_bytes(), &[])
    }

    /// The link of the entry with that body, behind `before`.
    #[inline]
    pub(super) fn link(&self, before: &Link, body: &[u8]) -> Link {
        self.make(&before.0, body)
    }

    fn make(&self, first: &[u8], second: &[u8]) -> Link {
        let mut mac = self.mac.clone();
        mac.update(first);
        mac.update(second);
        Link(mac.finalize().into_bytes().into())
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    }
}

/// Written by hand: the secret is nobody's business.
impl fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secret { "ChainKey(secret)" } else { "ChainKey(public)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_depends_on_key_predecessor_and_body() {
        let (public, secret) = (ChainKey::public(), ChainKey::secret(&[7; 32]).unwrap());
        let link = public.link(&Link::NONE, b"body");
        assert_eq!(link, public.link(&Link::NONE, b"body"));
        for other in [
            public.link(&Link::NONE, b"bodx"),
            public.link(&Link([1; LINK_LEN]), b"body"),
            secret.link(&Link::NONE, b"body"),
        ] {
            assert_ne!(link, other);
        }
        assert_eq!((public.mark(), secret.mark() == ChainKey::secret(&[8; 32]).unwrap().mark()), (0, false));
        assert_eq!(format!("{secret:?}"), "ChainKey(secret)");
    }

    /// HMAC-SHA-256 of an empty text with an empty key, from the standard's definition, so that other tools can follow a chain.
    #[test]
    fn a_link_is_hmac_sha_256() {
        let known = "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad";
        assert_eq!(ChainKey::public().make(b"", b"").to_string(), known);
    }

    #[test]
    fn links_are_read_as_they_are_shown_and_nothing_else_is() {
        let link = ChainKey::public().make(b"a", b"b");
        assert_eq!(link.to_string().parse(), Ok(link));
        let text = link.to_string();
        for wrong in ["", "12", &text[1..], &format!("{text}0"), &text.replace(|_| true, "g"), "é"] {
            assert_eq!(wrong.parse::<Link>(), Err(NoLink), "{wrong}");
        }
    }

    #[test]
    fn short_keys_are_refused() {
        assert_eq!(ChainKey::secret(&[0; 31]).unwrap_err(), KeyTooShort { found: 31 });
    }
}
