//! Why a connection ended, and whether coming back makes sense.

use std::time::Duration;

use super::codes::Code;
use crate::exit::Exit;
use crate::failure::Failure;

/// The end of a connection.
#[derive(Debug)]
pub(crate) struct Lost {
    failure: Failure,
    /// Whether the same again may work.
    pub(crate) retry: bool,
    /// How long the gateway asks us to wait.
    pub(crate) after: Option<Duration>,
}

impl Lost {
    /// An end after which coming back makes sense.
    pub(crate) fn retry(why: impl Into<String>) -> Self {
        Self { failure: Failure::new(Exit::Wrong, why.into()), retry: true, after: None }
    }

    /// The same again would not work.
    pub(crate) fn for_good(self) -> Self {
        Self { retry: false, ..self }
    }

    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self { failure: self.failure.exit(exit), ..self }
    }

    pub(crate) fn next(self, hint: &str) -> Self {
        Self { failure: self.failure.next(hint), ..self }
    }

    pub(crate) fn after(self, after: Option<Duration>) -> Self {
        Self { after, ..self }
    }

    pub(crate) fn why(&self) -> String {
        self.failure.to_string()
    }

    pub(crate) fn into_failure(self) -> Failure {
        self.failure
    }
}

/// A fault on our side: nothing that another connection would heal.
impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Self { failure, retry: false, after: None }
    }
}

/// The end that a close or error code announces.
pub(crate) fn by_code(code: u16, said: &str, explained: Code) -> Lost {
    let said: String = said.chars().filter(|c| !c.is_control()).collect();
    let said = if said.is_empty() { said } else { format!(" {said}") };
    let lost = Lost::retry(format!("{code}{said}: {}", explained.words)).exit(explained.exit);
    if explained.retry { lost } else { lost.for_good() }
}
