//! Lines of a file or of standard input, numbered from 1, none longer than a notification can be.

use std::io::{self, BufRead, BufReader, Read};

/// A notification of 64 KiB whose every byte is escaped as `\u00XX`, and room around it.
pub(crate) const LINE_BYTES_MAX: usize = 512 << 10;

/// Reads line by line into one buffer.
pub(crate) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    number: u64,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextLine<'a> {
    Line(u64, &'a [u8]),
    /// Longer than [`LINE_BYTES_MAX`]; it was skipped.
    TooLong(u64),
    End,
}

impl<R: Read> Lines<R> {
    pub(crate) fn new(reader: BufReader<R>) -> Self {
        Self { reader, line: Vec::new(), number: 0 }
    }

    /// Whether the next line is not there yet, so that reading it may take long.
    pub(crate) fn would_wait(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }

    /// The next line that is not blank, without its line break.
    pub(crate) fn next(&mut self) -> io::Result<NextLine<'_>> {
        loop {
            self.line.clear();
            let mut limited = (&mut self.reader).take(LINE_BYTES_MAX as u64 + 1);
            if limited.read_until(b'\n', &mut self.line)? == 0 {
                return Ok(NextLine::End);
            }
            self.number += 1;
            if self.line.len() > LINE_BYTES_MAX && self.line.last() != Some(&b'\n') {
                self.reader.skip_until(b'\n')?;
                return Ok(NextLine::TooLong(self.number));
            }
            if !self.line.trim_ascii().is_empty() {
                return Ok(NextLine::Line(self.number, self.line.trim_ascii()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_blank_lines_and_an_endless_line_is_skipped() {
        let long = "x".repeat(2 * LINE_BYTES_MAX);
        let text = format!("a\r\n\n \nb\n{long}\nc");
        let mut lines = Lines::new(BufReader::new(text.as_bytes()));
        assert_eq!(lines.next().unwrap(), NextLine::Line(1, b"a"));
        assert_eq!(lines.next().unwrap(), NextLine::Line(4, b"b"));
        assert_eq!(lines.next().unwrap(), NextLine::TooLong(5));
        assert_eq!(lines.next().unwrap(), NextLine::Line(6, b"c"));
        assert_eq!(lines.next().unwrap(), NextLine::End);
    }
}
