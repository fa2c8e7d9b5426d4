//! How a listener shows what arrives.

use serde_json::Value;
use serde_json::value::RawValue;

use super::position::StreamName;
use crate::cli::Global;
use crate::failure::Failure;
use crate::output::Out;
use crate::output::line::Line;

/// What goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// One aligned line a notification.
    Text,
    /// Every frame, as it came.
    Frames,
    /// Every notification object, as it came.
    Data,
    /// Nothing until the end.
    Summary,
}

/// How a notification came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Live,
    Replay,
    Snapshot,
}

/// Standard output with its way of showing.
pub(crate) struct Printer {
    pub(crate) out: Out,
    show: Show,
    line: Line,
}

impl Printer {
    pub(crate) fn new(global: &Global, show: Show) -> Self {
        let out = Out::new(global);
        let line = Line::new(out.color());
        Self { out, show, line }
    }

    pub(crate) fn frame(&mut self, text: &str) -> Result<(), Failure> {
        match self.show {
            // A frame is one line: the gateway's JSON has no line breaks, and another's would break our format.
            Show::Frames => self.out.line(text.replace(['\n', '\r'], " ")),
            Show::Text | Show::Data | Show::Summary => Ok(()),
        }
    }

    pub(crate) fn notification(
        &mut self,
        stream: StreamName,
        seq: u64,
        how: How,
        data: &RawValue,
    ) -> Result<(), Failure> {
        match self.show {
            Show::Data => self.out.line(data.get().replace(['\n', '\r'], " ")),
            Show::Text => {
                let value: Value = serde_json::from_str(data.get()).unwrap_or_default();
                let place = match how {
                    How::Live => format!("{stream}:{seq}"),
                    How::Replay => format!("{stream}:{seq} replay"),
                    How::Snapshot => format!("{stream}:{seq} state"),
                };
                self.out.line(self.line.of_json(&place, &value))
            }
            Show::Frames | Show::Summary => Ok(()),
        }
    }
}
