//! States, performance data, and how plugins print them.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;

use crate::failure::Failure;
use crate::output::Out;

/// In the order in which one covers the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    Ok,
    Unknown,
    Warning,
    Critical,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }
}

impl From<State> for ExitCode {
    fn from(state: State) -> Self {
        Self::from(match state {
            State::Ok => 0,
            State::Warning => 1,
            State::Critical => 2,
            State::Unknown => 3,
        })
    }
}

/// What was found.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    state: State,
    bus: String,
    /// What was looked at, for the line of a state that is OK.
    summary: Vec<String>,
    troubles: Vec<Trouble>,
    performance: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Trouble {
    state: State,
    what: String,
    next: Option<String>,
}

/// One figure of the performance data.
#[derive(Debug, Serialize)]
pub(super) struct Figure {
    pub(super) label: String,
    pub(super) value: f64,
    /// `%`, `s`, `B`, `c` (a counter), or nothing.
    pub(super) unit: &'static str,
    pub(super) warning: Option<f64>,
    pub(super) critical: Option<f64>,
    pub(super) max: Option<f64>,
}

impl Figure {
    pub(super) fn new(label: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { label: label.into(), value, unit, warning: None, critical: None, max: None }
    }
}

impl Outcome {
    pub(super) fn new(bus: &str) -> Self {
        Self {
            state: State::Ok,
            bus: bus.to_owned(),
            summary: Vec::new(),
            troubles: Vec::new(),
            performance: Vec::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn trouble(&mut self, state: State, what: impl Into<String>, next: Option<String>) {
        self.state = self.state.max(state);
        self.troubles.push(Trouble { state, what: what.into(), next });
    }

    pub(super) fn failed(&mut self, state: State, failure: Failure) {
        let (what, next) = failure.into_words();
        self.trouble(state, what, next);
    }

    pub(super) fn saw(&mut self, what: String) {
        // A gateway that is asked twice is well once.
        if !self.summary.contains(&what) {
            self.summary.push(what);
        }
    }

    /// A label has one figure: the last.
    pub(super) fn figure(&mut self, figure: Figure) {
        self.performance.retain(|other| other.label != figure.label);
        self.performance.push(figure);
    }

    /// `BELLWIRE CRITICAL - bus main: ... | 'risk fill'=91%;70;90;0;100`, and a line for each trouble.
    pub(super) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let worst = self.troubles.iter().filter(|trouble| trouble.state == self.state);
        let mut said: Vec<_> = worst.map(|trouble| plain(&trouble.what)).collect();
        if said.is_empty() {
            said.clone_from(&self.summary);
        }
        let mut line = format!("BELLWIRE {} - bus {}: {}", self.state.word(), self.bus, said.join("; "));
        for (at, figure) in self.performance.iter().enumerate() {
            line.push_str(if at == 0 { " | " } else { " " });
            figure.write(&mut line);
        }
        out.line(line)?;
        for trouble in &self.troubles {
            let next = trouble.next.as_deref().unwrap_or("`bellwirectl doctor` says more");
            out.line(format!("{}: {} -> {}", trouble.state.word(), plain(&trouble.what), plain(next)))?;
        }
        Ok(())
    }
}

/// One line, without the sign that begins performance data.
fn plain(text: &str) -> String {
    text.replace('|', "/").split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Figure {
    fn write(&self, line: &mut String) {
        let number = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let min = if self.unit == "c" { "" } else { "0" };
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "'{}'={}{};{};{};{min};{}",
            self.label,
            self.value,
            self.unit,
            number(self.warning),
            number(self.critical),
            number(self.max),
        );
        line.truncate(line.trim_end_matches(';').len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_state_counts_and_unknown_covers_nothing_that_is_known() {
        let mut outcome = Outcome::new("main");
        assert_eq!(outcome.state(), State::Ok);
        for (state, worst) in [
            (State::Unknown, State::Unknown),
            (State::Warning, State::Warning),
            (State::Unknown, State::Warning),
            (State::Critical, State::Critical),
            (State::Warning, State::Critical),
        ] {
            outcome.trouble(state, "x", None);
            assert_eq!(outcome.state(), worst);
        }
    }

    #[test]
    fn figures_are_written_as_plugins_write_them() {
        let mut line = String::new();
        let fill = Figure::new("risk fill", 12.5, "%");
        Figure { warning: Some(70.0), critical: Some(90.0), max: Some(100.0), ..fill }.write(&mut line);
        line.push(' ');
        Figure::new("risk refused", 3.0, "c").write(&mut line);
        assert_eq!(line, "'risk fill'=12.5%;70;90;0;100 'risk refused'=3c");
        assert_eq!(plain("a|b\nc"), "a/b c");
    }
}
