//! Copies that an initiator has the target make: a list of segments, worked off piece by piece. SPC-4 6.4.
//!
//! A piece is read from one unit and written to another, as the initiator itself would, so that reservations, ceilings and the
//! meter see it; what is nothing but zeros is given back or never taken at the destination.

use super::Route;
use proto::scsi::{Command, CopyList, CopySegment, CopyState, CopyStatus, Sense, Span};
use units::SECTOR_BYTES;

/// Blocks of a piece: 1 MiB.
const PIECE_BLOCKS: u64 = 2048;

/// A copy under way.
#[derive(Debug)]
pub(crate) struct CopyJob {
    list_id: u8,
    segments: Vec<(Route, Route, CopySegment)>,
    /// The segment that is worked on, and how many of its blocks are copied.
    at: usize,
    done_blocks: u64,
    bytes: u64,
    /// The step under way, and where.
    pub(crate) tag: u64,
    pub(crate) step_route: Option<Route>,
    pub(crate) is_reading: bool,
    /// Whether the step has been tried again since its unit had something to tell first.
    pub(crate) is_retried: bool,
    /// Its command is aborted: no further step begins.
    pub(crate) is_aborted: bool,
}

/// What a copy does next.
#[derive(Debug)]
pub(crate) struct CopyStep {
    pub(crate) route: Route,
    pub(crate) command: Command,
}

impl CopyJob {
    /// Finds the units of a list.
    ///
    /// # Errors
    /// One that the initiator's session has no LUN for.
    pub(crate) fn new(list: CopyList, routes: &[Route]) -> Result<Self, Sense> {
        let CopyList { list_id, targets, segments, .. } = list;
        let found = |place: usize| {
            let target = targets.get(place)?;
            routes.iter().find(|route| route.naa.as_slice() == target.designator).cloned()
        };
        let mut resolved = Vec::with_capacity(segments.len());
        for segment in segments {
            let (source, destination) = (found(segment.source), found(segment.destination));
            let (Some(source), Some(destination)) = (source, destination) else {
                return Err(Sense::COPY_TARGET_NOT_REACHABLE);
            };
            resolved.push((source, destination, segment));
        }
        Ok(Self {
            list_id,
            segments: resolved,
            at: 0,
            done_blocks: 0,
            bytes: 0,
            tag: 0,
            step_route: None,
            is_reading: true,
            is_retried: false,
            is_aborted: false,
        })
    }

    /// Blocks of the piece that is next, with its place.
    fn piece(&self) -> Option<(&(Route, Route, CopySegment), u64)> {
        let segment = self.segments.get(self.at)?;
        Some((segment, (segment.2.blocks - self.done_blocks).min(PIECE_BLOCKS)))
    }

    /// The read of the next piece; `None` when all is copied.
    pub(crate) fn next_read(&mut self) -> Option<CopyStep> {
        while self.segments.get(self.at).is_some_and(|segment| self.done_blocks >= segment.2.blocks) {
            self.at += 1;
            self.done_blocks = 0;
        }
        let ((route, _, segment), blocks) = self.piece()?;
        let lba = segment.source_lba.saturating_add(self.done_blocks);
        let (route, command) = (route.clone(), Command::Read { span: Span { lba, blocks }, fua: false });
        self.is_reading = true;
        Some(CopyStep { route, command })
    }

    /// The write of the piece that was read.
    pub(crate) fn next_write(&mut self, is_zeros: bool) -> Option<CopyStep> {
        self.is_reading = false;
        let ((_, route, segment), blocks) = self.piece()?;
        let span = Span { lba: segment.destination_lba.saturating_add(self.done_blocks), blocks };
        let command = if is_zeros {
            Command::WriteSame { span, unmap: true, no_data: true }
        } else {
            Command::Write { span, fua: false }
        };
        Some(CopyStep { route: route.clone(), command })
    }

    /// A piece is written.
    pub(crate) fn note_written(&mut self) {
        let blocks = self.piece().map_or(0, |(_, blocks)| blocks);
        self.done_blocks += blocks;
        self.bytes += blocks * SECTOR_BYTES;
    }

    /// What RECEIVE COPY RESULTS tells of it.
    pub(crate) fn status(&self, state: CopyState) -> (u8, CopyStatus) {
        let segments = u16::try_from(self.at).unwrap_or(u16::MAX);
        (self.list_id, CopyStatus { state, segments, bytes: self.bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::scsi::CopyTarget;
    use units::VolumeId;

    fn route(volume: u64, naa: u8) -> Route {
        Route { volume: VolumeId(volume), shard: None, naa: [naa; 8] }
    }

    fn target(naa: u8) -> CopyTarget {
        CopyTarget { designator_type: 3, designator: vec![naa; 8], sector_bytes: 512 }
    }

    fn list(destination: u8, blocks: u64) -> CopyList {
        let segment = CopySegment { source: 0, destination: 1, source_lba: 10, destination_lba: 5, blocks };
        CopyList { list_id: 9, is_listed: true, targets: vec![target(1), target(destination)], segments: vec![segment] }
    }

    #[test]
    fn a_segment_is_copied_piece_by_piece() {
        let routes = [route(7, 1), route(8, 2)];
        let mut job = CopyJob::new(list(2, 3000), &routes).unwrap();
        let mut steps = Vec::new();
        while let Some(read) = job.next_read() {
            let write = job.next_write(false).unwrap();
            steps.push((read.route.volume.0, read.command, write.route.volume.0, write.command));
            job.note_written();
        }
        let read = |lba, blocks| Command::Read { span: Span { lba, blocks }, fua: false };
        let write = |lba, blocks| Command::Write { span: Span { lba, blocks }, fua: false };
        assert_eq!(steps, [(7, read(10, 2048), 8, write(5, 2048)), (7, read(2058, 952), 8, write(2053, 952))]);
        assert_eq!(job.status(CopyState::Completed).1.bytes, 3000 * 512);
    }

    #[test]
    fn a_unit_that_the_session_does_not_have_is_not_reached() {
        let routes = [route(7, 1)];
        assert_eq!(CopyJob::new(list(2, 1), &routes).unwrap_err(), Sense::COPY_TARGET_NOT_REACHABLE);
    }
}
