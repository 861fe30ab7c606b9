//! Copies that an initiator has the target make: a list of segments, worked off piece by piece. SPC-4 6.4.
//!
//! A piece is read from one unit and written to another, as the initiator itself would, so that reservations, ceilings and the
//! meter see it; what is nothing but zeros is given back or never taken at the destination. Where source and destination lie
//! alike in their blocks and apart, no data is moved: a piece within one unit is copied by its volume, of one between two units
//! the one volume lends and the other borrows.

use super::Route;
use proto::scsi::{Command, CopyList, CopySegment, CopyState, CopyStatus, Sense, Span};
use units::{BLOCK_BYTES, SECTOR_BYTES};

/// Blocks of a piece: 1 MiB.
const PIECE_BLOCKS: u64 = 2048;

/// Logical blocks of a block of a volume.
const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;

/// What is copied at once.
#[derive(Debug, Clone, Copy)]
struct Piece {
    source_lba: u64,
    destination_lba: u64,
    blocks: u64,
    how: How,
}

/// How a piece is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is read and written.
    Data,
    /// The volume that has both shares it.
    Within,
    /// One volume lends it, the other one borrows it.
    Between,
}

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
    /// The piece that cannot be shared: its segment, and how many of that one's blocks are before it.
    unshared: Option<(usize, u64)>,
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
            unshared: None,
            is_aborted: false,
        })
    }

    /// The piece that is next.
    fn piece(&self) -> Option<Piece> {
        let (source, destination, segment) = self.segments.get(self.at)?;
        let rest = segment.blocks.checked_sub(self.done_blocks).filter(|rest| *rest > 0)?;
        let source_lba = segment.source_lba.saturating_add(self.done_blocks);
        let destination_lba = segment.destination_lba.saturating_add(self.done_blocks);
        let piece = Piece { source_lba, destination_lba, blocks: rest.min(PIECE_BLOCKS), how: How::Data };
        let distance = source_lba.abs_diff(destination_lba);
        let is_one = source.volume == destination.volume;
        let is_apart = !is_one || distance >= segment.blocks;
        if self.unshared == Some((self.at, self.done_blocks)) || !is_apart || !distance.is_multiple_of(BLOCK_SECTORS) {
            return Some(piece);
        }
        let how = if is_one { How::Within } else { How::Between };
        let to_block = source_lba.next_multiple_of(BLOCK_SECTORS) - source_lba;
        if to_block > 0 {
            return Some(Piece { blocks: rest.min(to_block), ..piece });
        }
        let blocks = piece.blocks / BLOCK_SECTORS * BLOCK_SECTORS;
        Some(if blocks > 0 { Piece { blocks, how, ..piece } } else { piece })
    }

    /// Copies the next piece, or reads it; `None` when all is copied.
    pub(crate) fn next_step(&mut self) -> Option<CopyStep> {
        while self.segments.get(self.at).is_some_and(|segment| self.done_blocks >= segment.2.blocks) {
            self.at += 1;
            self.done_blocks = 0;
        }
        let Piece { source_lba, destination_lba, blocks, how } = self.piece()?;
        let route = self.segments.get(self.at)?.0.clone();
        self.is_reading = how == How::Data;
        let span = Span { lba: source_lba, blocks };
        let command = match how {
            How::Data => Command::Read { span, fua: false },
            How::Within => Command::CopyWithin { span: Span { lba: destination_lba, blocks }, source_lba },
            How::Between => Command::Lend { span },
        };
        Some(CopyStep { route, command })
    }

    /// Where the piece goes.
    fn destination(&self) -> Option<(Route, Span)> {
        let Piece { destination_lba, blocks, .. } = self.piece()?;
        Some((self.segments.get(self.at)?.1.clone(), Span { lba: destination_lba, blocks }))
    }

    /// What is lent is borrowed.
    pub(crate) fn next_borrow(&self) -> Option<CopyStep> {
        let (route, span) = self.destination()?;
        Some(CopyStep { route, command: Command::Borrow { span } })
    }

    /// Whether the step that has ended was to share.
    pub(crate) fn is_sharing(&self) -> bool {
        self.piece().is_some_and(|piece| piece.how != How::Data)
    }

    /// The data of the piece is copied.
    pub(crate) const fn share_not(&mut self) {
        self.unshared = Some((self.at, self.done_blocks));
    }

    /// The write of the piece that was read.
    pub(crate) fn next_write(&mut self, is_zeros: bool) -> Option<CopyStep> {
        self.is_reading = false;
        let (route, span) = self.destination()?;
        let command = if is_zeros {
            Command::WriteSame { span, unmap: true, no_data: true }
        } else {
            Command::Write { span, fua: false }
        };
        Some(CopyStep { route, command })
    }

    /// A piece is written.
    pub(crate) fn note_written(&mut self) {
        let blocks = self.piece().map_or(0, |piece| piece.blocks);
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
        while let Some(read) = job.next_step() {
            let write = job.next_write(false).unwrap();
            steps.push((read.route.volume.0, read.command, write.route.volume.0, write.command));
            job.note_written();
        }
        let read = |lba, blocks| Command::Read { span: Span { lba, blocks }, fua: false };
        let write = |lba, blocks| Command::Write { span: Span { lba, blocks }, fua: false };
        assert_eq!(steps, [(7, read(10, 2048), 8, write(5, 2048)), (7, read(2058, 952), 8, write(2053, 952))]);
        assert_eq!(job.status(CopyState::Completed).1.bytes, 3000 * 512);
    }

    /// Parts of blocks are read and written; where both lie unlike in their blocks, or one on the other, all is.
    #[test]
    fn what_stays_within_a_unit_is_copied_by_its_volume() {
        let steps = |source_lba, destination_lba, blocks| {
            let segment = CopySegment { source: 0, destination: 0, source_lba, destination_lba, blocks };
            let list = CopyList { list_id: 9, is_listed: true, targets: vec![target(1)], segments: vec![segment] };
            let mut job = CopyJob::new(list, &[route(7, 1)]).unwrap();
            let mut steps = Vec::new();
            while let Some(step) = job.next_step() {
                if let Command::CopyWithin { span, source_lba } = step.command {
                    steps.push((true, source_lba, span.lba, span.blocks));
                } else if let Command::Read { span, .. } = step.command {
                    let Command::Write { span: to, .. } = job.next_write(false).unwrap().command else {
                        panic!("no write")
                    };
                    steps.push((false, span.lba, to.lba, span.blocks));
                }
                job.note_written();
            }
            steps
        };
        assert_eq!(steps(16, 8000, 2050), [(true, 16, 8000, 2048), (false, 2064, 10048, 2)]);
        assert_eq!(steps(13, 8005, 30), [(false, 13, 8005, 3), (true, 16, 8008, 24), (false, 40, 8032, 3)]);
        assert_eq!(steps(16, 8001, 20), [(false, 16, 8001, 20)]);
        assert_eq!(steps(0, 40, 40), [(true, 0, 40, 40)]);
        assert_eq!(steps(0, 32, 40), [(false, 0, 32, 40)]);
        assert_eq!(steps(8, 8, 16), [(false, 8, 8, 16)]);
    }

    #[test]
    fn a_unit_that_the_session_does_not_have_is_not_reached() {
        let routes = [route(7, 1)];
        assert_eq!(CopyJob::new(list(2, 1), &routes).unwrap_err(), Sense::COPY_TARGET_NOT_REACHABLE);
    }
}
