//! Why a connection ended, and whether coming back makes sense.

use std::time::Duration;

use super::codes::Code;
use crate::exit::Exit;
use crate::failure::Failure;

/// The end of a connection.
#[derive(Debug)]
pub(crate) struct Lost {
    pub(crate) why: String,
    /// Whether the same again may work.
    pub(crate) retry: bool,
    /// What the gateway asked for.
    pub(crate) after: Option<Duration>,
    exit: Exit,
    next: Option<String>,
    /// A fault on our side: nothing to do with the gateway.
    failure: Option<Failure>,
}

impl Lost {
    pub(crate) fn retry(why: String) -> Self {
        Self { why, retry: true, after: None, exit: Exit::Wrong, next: None, failure: None }
    }

    /// The same again would not work.
    pub(crate) fn final_(self) -> Self {
        Self { retry: false, ..self }
    }

    pub(crate) fn exit(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }

    pub(crate) fn next(self, hint: &str) -> Self {
        Self { next: Some(hint.to_owned()), ..self }
    }

    pub(crate) fn after(self, after: Option<Duration>) -> Self {
        Self { after, ..self }
    }

    pub(crate) fn into_failure(self) -> Failure {
        if let Some(failure) = self.failure {
            return failure;
        }
        let failure = Failure::new(self.exit, self.why);
        match self.next {
            Some(hint) => failure.next(hint),
            None => failure,
        }
    }
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::retry(String::new()).final_() }
    }
}

/// The end that a close or error code announces.
pub(crate) fn by_code(code: u16, said: &str, explained: Code) -> Lost {
    let said: String = said.chars().filter(|c| !c.is_control()).collect();
    let said = if said.is_empty() { said } else { format!(" {said}") };
    let lost = Lost::retry(format!("{code}{said}: {}", explained.words)).exit(explained.exit);
    if explained.retry { lost } else { lost.final_() }
}
