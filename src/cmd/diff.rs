//! `aljibe snapshot diff`.

use crate::client::Client;
use crate::failure::{Exit, Failure};
use crate::output::{Output, written};
use control::{DiffExtent, DiffKind, ExportName, SnapshotDiff, SnapshotName};
use std::io::{self, BufWriter, Write};

/// Prints what differs as the parts of it come: one JSON array, or a line for each extent. Where it fails on the way, the
/// array is not closed.
pub(super) fn run(client: &Client, output: Output, since: &SnapshotName, to: &ExportName) -> Result<(), Failure> {
    let out = BufWriter::new(io::stdout().lock());
    let ask = |from| client.get(&format!("/v1/snapshots/{}/diff?to={to}&from={from}", since.in_path()));
    match print(&mut Printer { out, is_json: output.is_json, open: None, is_first: true }, ask) {
        Ok(()) => Ok(()),
        Err(Ended::Output(error)) => written(Err(error)),
        Err(Ended::Failed(failure)) => Err(failure),
    }
}

/// Why printing has ended early.
#[derive(Debug)]
enum Ended {
    Output(io::Error),
    Failed(Failure),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn print<W: Write>(printer: &mut Printer<W>, ask: impl Fn(u64) -> Result<SnapshotDiff, Failure>) -> Result<(), Ended> {
    let first = ask(0).map_err(Ended::Failed)?;
    let ids = (first.since_id, first.to_id);
    let (mut from, mut part) = (0, first);
    loop {
        for extent in part.extents {
            printer.push(extent)?;
        }
        let Some(next) = part.next_offset else { return Ok(printer.end()?) };
        if next <= from {
            let detail = format!("the daemon's answer leads from offset {from} to {next}: do the versions differ?");
            return Err(Ended::Failed(Failure::new(Exit::Failure, "bad_answer", detail)));
        }
        (from, part) = (next, ask(next).map_err(Ended::Failed)?);
        if (part.since_id, part.to_id) != ids {
            let detail = format!("{} or {} is not what it was when this began: begin anew", part.since, part.to);
            return Err(Ended::Failed(Failure::new(Exit::TryLater, "snapshot_changed", detail)));
        }
    }
}

/// Prints extents. One that goes on in the next part is printed as one.
struct Printer<W> {
    out: W,
    is_json: bool,
    open: Option<DiffExtent>,
    is_first: bool,
}

impl<W: Write> Printer<W> {
    fn push(&mut self, extent: DiffExtent) -> io::Result<()> {
        match &mut self.open {
            Some(open) if open.kind == extent.kind && open.offset.saturating_add(open.length) == extent.offset => {
                open.length = open.length.saturating_add(extent.length);
                Ok(())
            }
            open => match open.replace(extent) {
                Some(whole) => self.write(whole),
                None => Ok(()),
            },
        }
    }

    fn write(&mut self, extent: DiffExtent) -> io::Result<()> {
        if self.is_json {
            let before = if self.is_first { "[" } else { "," };
            let text = serde_json::to_string(&extent)?;
            write!(self.out, "{before}\n  {text}")?;
        } else {
            let DiffExtent { offset, length, kind } = extent;
            let kind = match kind {
                DiffKind::Data => "data",
                DiffKind::Zero => "zero",
            };
            writeln!(self.out, "{offset} {length} {kind}")?;
        }
        self.is_first = false;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(last) = self.open.take() {
            self.write(last)?;
        }
        match (self.is_json, self.is_first) {
            (true, true) => writeln!(self.out, "[]")?,
            (true, false) => writeln!(self.out, "\n]")?,
            (false, _) => {}
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(extents: &[(u64, u64, DiffKind)], next_offset: Option<u64>) -> SnapshotDiff {
        let extents =
            extents.iter().map(|(offset, length, kind)| DiffExtent { offset: *offset, length: *length, kind: *kind });
        SnapshotDiff {
            since: "vm@a".into(),
            since_id: 1,
            to: "vm@b".into(),
            to_id: 2,
            size_bytes: 1 << 20,
            extents: extents.collect(),
            next_offset,
        }
    }

    fn printed(is_json: bool, parts: &[(u64, SnapshotDiff)]) -> (Result<(), Ended>, String) {
        let mut printer = Printer { out: Vec::new(), is_json, open: None, is_first: true };
        let ask = |from| Ok(parts.iter().find(|(at, _)| *at == from).expect("a part begins there").1.clone());
        let result = print(&mut printer, ask);
        (result, String::from_utf8(printer.out).unwrap())
    }

    #[test]
    fn parts_become_one_array_and_an_extent_that_they_cut_one_extent() {
        let parts = [
            (0, part(&[(0, 4096, DiffKind::Data), (8192, 4096, DiffKind::Zero)], Some(12288))),
            (12288, part(&[], Some(16384))),
            (16384, part(&[(16384, 4096, DiffKind::Data)], Some(20480))),
            (20480, part(&[(20480, 512, DiffKind::Data)], None)),
        ];
        let (result, json) = printed(true, &parts);
        result.unwrap();
        let expected = serde_json::json!([
            {"offset": 0, "length": 4096, "kind": "data"},
            {"offset": 8192, "length": 4096, "kind": "zero"},
            {"offset": 16384, "length": 4608, "kind": "data"},
        ]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
        assert_eq!(printed(false, &parts).1, "0 4096 data\n8192 4096 zero\n16384 4608 data\n");
        assert_eq!(printed(true, &[(0, part(&[], None))]).1, "[]\n");
    }

    #[test]
    fn an_answer_of_another_snapshot_or_that_leads_nowhere_is_an_error_and_no_whole_array() {
        let begun = (0, part(&[(0, 4096, DiffKind::Data), (8192, 4096, DiffKind::Data)], Some(12288)));
        let other = (12288, SnapshotDiff { since_id: 7, ..part(&[], None) });
        for (next, code) in [(other, "snapshot_changed"), ((12288, part(&[], Some(12288))), "bad_answer")] {
            let (result, json) = printed(true, &[begun.clone(), next]);
            assert!(matches!(result, Err(Ended::Failed(failure)) if failure.code == code));
            assert!(json.starts_with('[') && !json.contains(']'), "{json}");
        }
    }
}
