//! What commands print: text for people, or one JSON document.

use crate::failure::Failure;
use anyhow::Context;
use control::Size;
use serde::Serialize;
use std::io::{self, ErrorKind, Write};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// As JSON instead of text.
    pub(crate) is_json: bool,
}

impl Output {
    /// Prints a result on stdout. A reader that has gone is no failure.
    pub(crate) fn show<T: Serialize>(self, value: &T, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let shown = if self.is_json {
            serde_json::to_string_pretty(value).context("the result cannot be shown as JSON")?
        } else {
            text()
        };
        written(writeln!(io::stdout().lock(), "{}", shown.trim_end()))
    }

    /// Prints a failure on stderr. When that fails too, the exit code alone must tell.
    pub(crate) fn show_failure(self, failure: &Failure) {
        let shown = if self.is_json {
            serde_json::json!({ "error": failure }).to_string()
        } else {
            format!("aljibe: {failure}")
        };
        let _ = writeln!(io::stderr().lock(), "{shown}");
    }
}

/// What became of a result on stdout. A reader that has gone is no failure.
pub(crate) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::from(anyhow::Error::new(error).context("cannot write to stdout")))
        }
        _ => Ok(()),
    }
}

/// Columns as wide as their widest cell, two spaces between them, nothing behind the last.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|title| title.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width_of).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let joined = padded.collect::<Vec<_>>().join("  ");
        format!("{}\n", joined.trim_end())
    };
    let mut shown = line(&mut header.iter().copied());
    for row in rows {
        shown.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    shown
}

/// Names and values below one another, further lines of a value below its first; those without a value are left out.
pub(crate) fn fields(fields: &[(&str, Option<String>)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let given = fields.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
    let next_line = format!("\n{:width$}  ", "");
    given.map(|(name, value)| format!("{name:width$}  {}\n", value.replace('\n', &next_line))).collect()
}

/// Bytes for people in a cell of a table.
pub(crate) fn rounded(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| Size::from_bytes(bytes).rounded())
}

/// Bytes for people, and exactly.
pub(crate) fn sized(bytes: u64) -> String {
    format!("{} ({bytes} bytes)", Size::from_bytes(bytes).rounded())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["vm-100".to_owned(), "10G".to_owned()], vec!["a".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "SIZE"], &rows), "NAME    SIZE\nvm-100  10G\na\n");
        assert_eq!(table(&["NAME", "SIZE"], &[]), "NAME  SIZE\n");
    }

    #[test]
    fn the_lines_of_a_value_are_below_one_another() {
        let shown = fields(&[("nbd", Some("one\ntwo".into())), ("snapshots", Some("3".into()))]);
        assert_eq!(shown, "nbd        one\n           two\nsnapshots  3\n");
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        assert_eq!(fields(&[("name", Some("a".into())), ("reason", None)]), "name    a\n");
    }
}
