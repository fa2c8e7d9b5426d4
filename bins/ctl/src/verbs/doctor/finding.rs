//! One thing that was looked at.

use std::fmt;

use serde::Serialize;

use crate::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Ok,
    /// Look at it in the daytime.
    Warn,
    /// Somebody loses something, or soon will.
    Bad,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// What was looked at: a word of the list in the manual.
    pub(super) check: &'static str,
    /// Where: a bus, `bus/lane`, a path, the machine.
    pub(super) subject: String,
    pub(super) what: String,
    /// What to do; none if nothing needs to be done.
    pub(super) next: Option<String>,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        check: &'static str,
        subject: impl Into<String>,
        what: impl fmt::Display,
    ) -> Self {
        Self { severity, check, subject: subject.into(), what: what.to_string(), next: None }
    }

    pub(super) fn ok(check: &'static str, subject: impl Into<String>, what: impl fmt::Display) -> Self {
        Self::new(Severity::Ok, check, subject, what)
    }

    /// The same with what to do.
    pub(super) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// What another verb would have ended with.
    pub(super) fn of(
        severity: Severity,
        check: &'static str,
        subject: impl Into<String>,
        failure: Failure,
    ) -> Self {
        let (what, next) = failure.into_words();
        Self { severity, check, subject: subject.into(), what, next }
    }
}
