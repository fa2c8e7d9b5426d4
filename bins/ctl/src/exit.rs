//! The exit codes: part of the interface, and documented in `--help`.

use std::process::ExitCode;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Ok = 0,
    /// What was asked about is wrong, or a part of the work failed.
    Wrong = 1,
    Usage = 2,
    /// No such bus, lane, file or gateway.
    Nothing = 3,
    /// A permission or a token was refused.
    Refused = 4,
    /// Somebody else holds it, or it is full.
    Busy = 5,
    /// A segment of another build or owner, or a damaged one.
    Unusable = 6,
}

/// The text in `--help` and in the man pages.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done; also when the reader of our output went away (`| head`)
  1  the thing asked about is wrong or failed: a bad line, a gap, a refused notification, a bad token
  2  wrong usage: arguments that make no sense
  3  nothing there: no such bus, lane, file or gateway
  4  permission or token refused
  5  busy: another producer holds the lane, or a ring stayed full
  6  unusable: a segment of another build or owner, or a damaged one";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_documented_once() {
        let all =
            [Exit::Ok, Exit::Wrong, Exit::Usage, Exit::Nothing, Exit::Refused, Exit::Busy, Exit::Unusable];
        for (number, exit) in all.into_iter().enumerate() {
            assert_eq!(exit as usize, number);
            assert_eq!(EXIT_CODES.matches(&format!("\n  {number}  ")).count(), 1);
        }
    }
}
