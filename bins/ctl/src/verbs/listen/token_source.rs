//! Where a listener's token comes from, again and again if need be.

use std::path::PathBuf;
use std::time::Duration;

use bellwire::Channel;

use crate::failure::Failure;
use crate::jwt::{self, Claims, Key};

/// How long a token is good that we sign for ourselves; the gateway tells us before it ends.
const OWN_TTL: Duration = Duration::from_secs(3_600);

/// A token, or the means to get one.
pub(crate) enum TokenSource {
    Given(String),
    /// Read again for each connection: somebody may have renewed it.
    File {
        path: PathBuf,
        last: String,
    },
    Signed {
        user: String,
        key: Key,
        channels: Vec<Channel>,
    },
}

impl TokenSource {
    /// A token for a new connection.
    pub(crate) fn token(&mut self) -> Result<String, Failure> {
        match self {
            Self::Given(token) => Ok(token.clone()),
            Self::File { path, last } => {
                *last = jwt::read_secret(path)?.trim().to_owned();
                Ok(last.clone())
            }
            Self::Signed { user, key, channels } => {
                jwt::sign(&Claims::from_now(user, OWN_TTL, channels), key)
            }
        }
    }

    /// A newer token than the last one, if there is one to be had.
    pub(crate) fn renewed(&mut self) -> Result<Option<String>, Failure> {
        match self {
            Self::Given(_) => Ok(None),
            Self::File { last, .. } => {
                let before = last.clone();
                let now = self.token()?;
                Ok((now != before).then_some(now))
            }
            Self::Signed { .. } => self.token().map(Some),
        }
    }
}
