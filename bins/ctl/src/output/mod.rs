//! What goes to standard output: tables, lines and JSON.

pub(crate) mod human;
pub(crate) mod line;
pub(crate) mod progress;
pub(crate) mod render;
pub(crate) mod table;

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use anstream::AutoStream;
use anstyle::Style;
use serde::Serialize;

use crate::cli::Global;
use crate::failure::Failure;

/// Standard output, buffered: a verb that waits flushes before it does.
pub(crate) struct Out {
    writer: BufWriter<Stdout>,
    /// Whether it is a terminal that wants colours (NO_COLOR, CLICOLOR and TERM are heeded).
    color: bool,
    /// Whether tables have headings.
    headings: bool,
}

/// Version of the fields of what `--json` prints: grows when a field is removed or means something else.
pub(crate) const JSON_SCHEMA: u32 = 1;

/// An object behind the version of its fields.
#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    object: &'a T,
}

impl Out {
    pub(crate) fn new(global: &Global) -> Self {
        let stdout = io::stdout();
        let color = stdout.is_terminal() && AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
        Self { writer: BufWriter::new(stdout), color, headings: !global.no_header }
    }

    /// One line of text.
    pub(crate) fn line(&mut self, text: impl fmt::Display) -> Result<(), Failure> {
        writeln!(self.writer, "{text}").map_err(|error| Failure::output(&error))
    }

    /// One line of bytes that are text already.
    pub(crate) fn bytes_line(&mut self, text: &[u8]) -> Result<(), Failure> {
        let written = self.writer.write_all(text).and_then(|()| self.writer.write_all(b"\n"));
        written.map_err(|error| Failure::output(&error))
    }

    /// One JSON object on a line, with the version of its fields.
    pub(crate) fn json(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let object = Versioned { schema: JSON_SCHEMA, object };
        let written = serde_json::to_writer(&mut self.writer, &object).map_err(io::Error::from);
        let written = written.and_then(|()| self.writer.write_all(b"\n"));
        written.map_err(|error| Failure::output(&error))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| Failure::output(&error))
    }

    /// `text` in that style, if the terminal wants any.
    pub(crate) fn styled(&self, style: Style, text: impl fmt::Display) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_string() }
    }

    pub(crate) fn color(&self) -> bool {
        self.color
    }

    pub(crate) fn headings(&self) -> bool {
        self.headings
    }
}
