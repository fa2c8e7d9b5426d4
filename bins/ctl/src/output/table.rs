//! Aligned tables without borders.

use anstyle::Style;

use super::Out;
use crate::failure::Failure;

/// Rows under a heading; every column is as wide as its widest cell.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

impl Table {
    /// A heading that begins with `>` names a column of numbers, aligned to the right.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let column = |heading: &&'static str| match heading.strip_prefix('>') {
            Some(name) => (name, Align::Right),
            None => (*heading, Align::Left),
        };
        Self { columns: headings.iter().map(column).collect(), rows: Vec::new() }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    pub(crate) fn row_of(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self, out: &mut Out) -> Result<(), Failure> {
        let width = |cell: &str| cell.chars().count();
        let mut widths: Vec<_> = self.columns.iter().map(|(name, _)| width(name)).collect();
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut line = String::new();
            for ((cell, (_, align)), widest) in cells.zip(&self.columns).zip(&widths) {
                let blank = " ".repeat(widest - width(cell));
                match align {
                    Align::Left => line.extend([cell, &blank, "  "]),
                    Align::Right => line.extend([&blank, cell, "  "]),
                }
            }
            line.truncate(line.trim_end().len());
            line
        };
        if out.headings() {
            let heading = line(&mut self.columns.iter().map(|(name, _)| *name));
            let heading = out.styled(Style::new().bold(), heading);
            out.line(heading)?;
        }
        self.rows.iter().try_for_each(|row| out.line(line(&mut row.iter().map(String::as_str))))
    }
}
