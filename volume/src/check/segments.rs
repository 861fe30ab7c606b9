//! The segments of one volume: headers, batches, chains, footers, order, and the end of the log.

use super::map::Replayed;
use super::{CheckReport, ProblemKind, lineage, segment_of_slot};
use crate::format::SlotUse;
use crate::pool::{Index, SegmentRow};
use crate::recover::{SegmentLog, Wanted, cut_at, cuts_of, read_segment, recover, survivors_of};
use crate::store::{PoolReader, Store};
use units::{Lsn, VolumeId};

/// Reads every segment of `volume`, oldest first, and replays it.
pub(super) fn check<S: Store>(
    index: &Index<S>,
    reader: &dyn PoolReader,
    volume: VolumeId,
    report: &mut CheckReport,
) -> Replayed {
    let superblock = index.superblock();
    let folded_to = index.volume_row(volume).map_or(Lsn::ZERO, |row| row.folded_to);
    let mut replayed = Replayed::new(folded_to, lineage::pages(index, volume, report));
    // One that was joined and is not folded yet recovery refuses rightly.
    if index.joined(volume).is_none()
        && let Err(damage) = recover(reader, superblock, &index.known(volume, 0))
    {
        report.add(ProblemKind::Log, Some(volume), damage.to_string());
        replayed.is_whole = false;
    }
    let mut rows = index.segments(volume);
    rows.sort_by_key(|row| row.segment);
    let cuts = cuts_of(&rows);
    let is_folded = |row: &&SegmentRow| row.last_lsn.is_some_and(|last| last <= folded_to);
    let newest_folded = rows.iter().filter(is_folded).map(|row| row.segment).max();
    let mut before: Option<SegmentLog> = None;
    for row in &rows {
        report.segments += 1;
        if row.segment >= index.next_segment() {
            let detail = format!("{}: the id is to come: run `aljibe pool rebuild`", at(row));
            report.add(ProblemKind::Slot, Some(volume), detail);
        }
        let wanted = Wanted {
            reader,
            superblock,
            // What the index says of its end is compared, not believed.
            row: SegmentRow { last_lsn: None, ..*row },
            cut: cut_at(&cuts, row),
            durable_lsn: folded_to,
            known_to: row.last_lsn.map_or(folded_to, |last| last.min(folded_to)),
            distrusts_footer: true,
        };
        match read_segment(&wanted) {
            Ok(log) => {
                report.operations += log.entries.len() as u64;
                let is_own = log.header.is_some_and(|header| header.slot_use == SlotUse::Segment);
                let is_segment = is_own || (row.is_moved() && !log.is_empty());
                // A stop came while its header was made void, or between that and its row: the volume gives it back when
                // it is open again.
                if is_segment || index.live_blocks(row.segment) != Some(0) {
                    // Recovery mends the newest folded segment and those after it.
                    let is_settled = is_folded(&row) && Some(row.segment) != newest_folded;
                    if is_settled {
                        check_segment(row, &log, report);
                    }
                }
                let has_all = index.survivors(row.segment).is_none_or(|survivors| {
                    **survivors == survivors_of(&log.entries, superblock.geometry.slot_blocks())
                });
                if !has_all && !log.is_empty() {
                    let detail = format!("{}: the index is wrong about which blocks are left", at(row));
                    report.add(ProblemKind::Slot, Some(volume), format!("{detail}: run `aljibe pool rebuild`"));
                }
                if !has_loans(index, &log) {
                    let detail = format!("{}: the index is wrong about what its copies borrow", at(row));
                    report.add(ProblemKind::Slot, Some(volume), format!("{detail}: run `aljibe pool rebuild`"));
                }
                check_order(before.as_ref(), &log, report);
                replayed.take(&log);
                before = Some(log).filter(|log| !log.is_empty()).or(before);
            }
            Err(damage) => {
                report.add(ProblemKind::Log, Some(volume), damage.to_string());
                replayed.is_whole = false;
                before = None;
            }
        }
    }
    replayed
}

/// Whether the index has what the copies of a segment borrow. What is not folded recovery will tell it.
fn has_loans<S: Store>(index: &Index<S>, log: &SegmentLog) -> bool {
    let folded_to = index.volume_row(log.row.volume).map_or(Lsn::ZERO, |row| row.folded_to);
    let known = index.loans(log.row.segment);
    log.end() > folded_to.next() || log.loans().iter().all(|loan| known.is_some_and(|known| known.has(loan)))
}

fn check_segment(row: &SegmentRow, log: &SegmentLog, report: &mut CheckReport) {
    let mut add = |kind, detail: String| report.add(kind, Some(row.volume), format!("{}: {detail}", at(row)));
    let Some(last) = row.last_lsn else { return };
    if log.is_empty() && last.next() == row.first_lsn {
        // A rebuild found it without a whole batch; it is given back as dead.
        return;
    }
    if log.header.is_none() && !row.is_moved() {
        add(ProblemKind::Slot, "the header is damaged: what its first batch or its footer says is used".to_owned());
    }
    if !log.has_footer {
        add(ProblemKind::Log, "the footer is damaged or is not what the batches say: these are used".to_owned());
    }
    if log.end().0 != last.0 + 1 {
        let detail = format!("operations end before {}, and the index says after {last}", log.end());
        add(ProblemKind::Log, format!("{detail}: run `aljibe pool rebuild`"));
    }
    if log.has_holes() != row.has_holes {
        add(ProblemKind::Slot, "the index is wrong about its trims: run `aljibe pool rebuild`".to_owned());
    }
}

/// Gaps are of segments given back; an overlap or a broken chain is not.
fn check_order(before: Option<&SegmentLog>, log: &SegmentLog, report: &mut CheckReport) {
    let Some(before) = before.filter(|_| !log.is_empty()) else { return };
    let first = log.row.first_lsn;
    let is_broken = before.end() > first || (before.end() == first && before.chain_after != log.chain_before);
    if is_broken {
        let detail = format!("{} does not follow on {}", at(&log.row), at(&before.row));
        report.add(ProblemKind::Log, Some(log.row.volume), format!("{detail}: restore the volume from a copy"));
    }
}

fn at(row: &SegmentRow) -> String {
    segment_of_slot(row.segment, row.a_slot())
}
