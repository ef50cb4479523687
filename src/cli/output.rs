//! Answers of commands: JSON as the server sent it, or words.

use std::io::{self, Write};

use super::printable::printable;
use crate::client::api::Answer;

/// Where answers go, and in which form.
pub(super) struct Output<'a> {
    pub(super) json: bool,
    pub(super) out: &'a mut dyn Write,
}

impl Output<'_> {
    /// Writes the answer: as it came for programs, else as `words` says it. In one write, so that a reader that went away
    /// has got all of it or nothing.
    pub(super) fn answer<T>(
        &mut self,
        answer: &Answer<T>,
        words: impl FnOnce(&T, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut text = Vec::new();
        if self.json { writeln!(text, "{}", answer.json) } else { words(&answer.value, &mut text) }?;
        self.out.write_all(&text)
    }
}

/// Writes rows in columns. Cells are made safe for a terminal.
pub(super) fn table(out: &mut dyn Write, head: &[&str], rows: &[Vec<&str>]) -> io::Result<()> {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.len())).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(&mut head.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(AsRef::as_ref)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        table(&mut out, &["ID", "NAME"], &[vec!["long-id", "é"], vec!["x", "a\u{1b}b"]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID       NAME\nlong-id  é\nx        a\\u{1b}b\n");
    }
}
