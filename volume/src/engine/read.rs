//! Reads: resolved through the map, fetched, checked block by block, tried once more when a check fails.

use super::{Context, Parked, Volume, reply};
use crate::buffer::Buffer;
use crate::error::{DiskFault, Error, ErrorKind};
use crate::format::block_check;
use crate::io::{Action, FetchPiece, IoId};
use crate::map::{Location, ResolvedRun};
use crate::pool::Stretch;
use crate::request::{Completion, REQUEST_BYTES_MAX, RequestId};
use slab::Slab;
use smallvec::SmallVec;
use units::{BLOCK_LEN, BlockRange, ByteRange, SegmentId};

/// Marks the ids of fetches; the other bits are the slab's key.
const FETCH_BIT: u64 = 1 << 63;

/// A read that has not been resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReadRequest {
    pub(super) id: RequestId,
    pub(super) range: ByteRange,
}

/// For whom blocks are fetched.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// To answer a request.
    Client(ReadRequest),
    /// To merge part of a block.
    SubBlock(u64),
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Fetch {
    purpose: Purpose,
    blocks: BlockRange,
    runs: SmallVec<[ResolvedRun; 2]>,
    checks: SmallVec<[u32; 2]>,
    /// The segments that borrowed blocks are read from.
    lenders: SmallVec<[SegmentId; 2]>,
    is_second_try: bool,
    /// Its place among all that ever began.
    number: u64,
}

/// Where what is found goes: pieces of the pool, and the segments that blocks are borrowed from.
type Found<'a> = (&'a mut SmallVec<[FetchPiece; 2]>, &'a mut SmallVec<[SegmentId; 2]>);

/// Fetches under way.
#[derive(Debug, Default)]
pub(super) struct Reads {
    fetches: Slab<Fetch>,
    next_number: u64,
}

impl Reads {
    pub(super) fn is_empty(&self) -> bool {
        self.fetches.is_empty()
    }

    /// The number of the next fetch.
    pub(super) const fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether a fetch under way that has a number below `end` reads from `segment`.
    pub(super) fn uses(&self, segment: SegmentId, end: u64) -> bool {
        let is_in = |run: &ResolvedRun| run.location.is_some_and(|location| location.segment == segment);
        let uses = |fetch: &Fetch| fetch.runs.iter().any(is_in) || fetch.lenders.contains(&segment);
        self.fetches.iter().any(|(_, fetch)| fetch.number < end && uses(fetch))
    }
}

impl Volume {
    pub(super) fn on_read(&mut self, context: &mut Context<'_>, id: RequestId, range: ByteRange) {
        let checked = self.check_range(range).and_then(|()| {
            let is_long = range.len() > REQUEST_BYTES_MAX;
            if is_long {
                Err(Error::new(ErrorKind::InvalidRequest, "a read of more than 32 MiB; split it"))
            } else {
                Ok(())
            }
        });
        match checked {
            Ok(()) if range.is_empty() => {
                let buffer = context.buffers.take(0);
                reply(context, id, Ok(Completion::Read { buffer, skip: 0, len: 0 }));
            }
            Ok(()) => self.resolve_read(context, ReadRequest { id, range }),
            Err(error) => reply(context, id, Err(error)),
        }
    }

    pub(super) fn resolve_read(&mut self, context: &mut Context<'_>, read: ReadRequest) {
        self.fetch(context, read.range.blocks_touched(), Purpose::Client(read));
    }

    /// Brings `blocks` into a buffer; what then happens with it depends on the purpose.
    pub(super) fn fetch(&mut self, context: &mut Context<'_>, blocks: BlockRange, purpose: Purpose) {
        let (mut runs, mut checks) = (SmallVec::<[ResolvedRun; 2]>::new(), SmallVec::<[u32; 2]>::new());
        if let Err(page) = self.map.resolve(blocks, &mut runs, &mut checks) {
            self.park(context, page, parked_of(purpose));
            return;
        }
        if let Some(segment) = self.ask_places(context, &runs) {
            self.park_for_place(segment, parked_of(purpose));
            return;
        }
        self.status.map_lookups += 1;
        let mut buffer = context.buffers.take(blocks.count as usize * BLOCK_LEN);
        for hole in runs.iter().filter(|run| run.location.is_none()) {
            run_bytes_mut(&mut buffer, hole).fill(0);
        }
        let lenders = SmallVec::new();
        let fetch = Fetch { purpose, blocks, runs, checks, lenders, is_second_try: false, number: 0 };
        self.begin_fetch(context, fetch, buffer);
    }

    fn begin_fetch(&mut self, context: &mut Context<'_>, mut fetch: Fetch, buffer: Buffer) {
        let mut pieces: SmallVec<[FetchPiece; 2]> = SmallVec::new();
        fetch.lenders.clear();
        for run in &fetch.runs {
            let Some(location) = run.location else { continue };
            let Some(()) = self.add_pieces(location, run, (&mut pieces, &mut fetch.lenders)) else {
                if fetch.is_second_try {
                    // It was overwritten since the first try, and what is left of its segment was moved. What is there now
                    // is as right an answer.
                    context.buffers.put(buffer);
                    self.fetch(context, fetch.blocks, fetch.purpose);
                    return;
                }
                let detail = format!(
                    "the map of volume {} names block {} of segment {}, which is not there; rebuild the index, or restore the volume",
                    self.id, location.block, location.segment
                );
                self.end_fetch(context, fetch.purpose, buffer, Err(Error::new(ErrorKind::Corrupt, detail)));
                return;
            };
        }
        if pieces.is_empty() {
            self.end_fetch(context, fetch.purpose, buffer, Ok(fetch.runs.iter().all(|run| run.location.is_none())));
            return;
        }
        fetch.number = self.reads.next_number;
        self.reads.next_number += 1;
        let is_second_try = fetch.is_second_try;
        let key = self.reads.fetches.insert(fetch);
        context.actions.push(Action::Fetch { id: IoId(FETCH_BIT | key as u64), buffer, pieces, is_second_try });
    }

    /// Adds where the blocks of a run from `location` on are in the pool: in one piece, but where the segment is cut into
    /// parts. `None` when it does not have all of them.
    fn add_pieces(&self, location: Location, run: &ResolvedRun, (pieces, lenders): Found<'_>) -> Option<()> {
        let mut buffer_offset = run.at as usize * BLOCK_LEN;
        let Some(loans) = self.loans_of(location.segment) else {
            return self.add_pieces_at((location, run.count), &mut buffer_offset, pieces);
        };
        for (source, count) in loans.split(location, run.count) {
            if source.segment != location.segment && !lenders.contains(&source.segment) {
                lenders.push(source.segment);
            }
            self.add_pieces_at((source, count), &mut buffer_offset, pieces)?;
        }
        Some(())
    }

    /// The same of blocks that are not borrowed.
    fn add_pieces_at(
        &self,
        (location, count): (Location, u32),
        buffer_offset: &mut usize,
        pieces: &mut SmallVec<[FetchPiece; 2]>,
    ) -> Option<()> {
        let (row, survivors) = match self.segments.get(&location.segment) {
            Some(row) => (row, self.survivors.get(&location.segment)),
            None => self.places.of(location.segment).map(|place| (&place.row, place.survivors.as_ref()))?,
        };
        for stretch in row.stretches(survivors.map(AsRef::as_ref), u32::from(location.block), count) {
            let Stretch { slot, block, count } = stretch?;
            let pool_offset = self.config.geometry.block_offset(slot, block);
            let len = count as usize * BLOCK_LEN;
            add_piece(pieces, FetchPiece { pool_offset, buffer_offset: *buffer_offset, len });
            *buffer_offset += len;
        }
        Some(())
    }

    pub(super) fn on_fetched(
        &mut self,
        context: &mut Context<'_>,
        id: IoId,
        buffer: Buffer,
        result: Result<(), DiskFault>,
    ) {
        let key = (id.0 & !FETCH_BIT) as usize;
        match self.reads.fetches.try_remove(key) {
            Some(fetch) => self.judge_fetched(context, fetch, buffer, result),
            None => context.buffers.put(buffer),
        }
        self.unpin(context);
    }

    fn judge_fetched(
        &mut self,
        context: &mut Context<'_>,
        mut fetch: Fetch,
        buffer: Buffer,
        result: Result<(), DiskFault>,
    ) {
        let fault = match result {
            Ok(()) => match first_bad_block(&fetch, &buffer) {
                None => {
                    self.status.reread_blocks += u64::from(fetch.is_second_try);
                    self.end_fetch(context, fetch.purpose, buffer, Ok(false));
                    return;
                }
                Some((at, location)) => Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "block {} of volume {}, at block {} of segment {}, fails its check: the disk returned other bytes",
                        fetch.blocks.first.0 + u64::from(at),
                        self.id,
                        location.block,
                        location.segment
                    ),
                ),
            },
            Err(fault) => Error::new(
                ErrorKind::Unavailable,
                format!("blocks {}.. of volume {}: {fault}", fetch.blocks.first, self.id),
            ),
        };
        if fetch.is_second_try {
            self.status.corrupt_blocks += u64::from(fault.kind == ErrorKind::Corrupt);
            self.end_fetch(context, fetch.purpose, buffer, Err(fault));
        } else {
            // A transfer that went wrong once may go right the second time; rot does not.
            fetch.is_second_try = true;
            self.begin_fetch(context, fetch, buffer);
        }
    }

    /// `Ok(true)` when all of it is holes.
    fn end_fetch(&mut self, context: &mut Context<'_>, purpose: Purpose, buffer: Buffer, result: Result<bool, Error>) {
        match (purpose, result) {
            (Purpose::Client(read), Ok(_)) => {
                let skip = (read.range.offset() % BLOCK_LEN as u64) as usize;
                let len = read.range.len() as usize;
                reply(context, read.id, Ok(Completion::Read { buffer, skip, len }));
            }
            (Purpose::SubBlock(number), Ok(is_hole)) => self.merge_subblock(context, number, buffer, is_hole),
            (purpose, Err(error)) => {
                context.buffers.put(buffer);
                match purpose {
                    Purpose::Client(read) => self.fail_read(context, read, error),
                    Purpose::SubBlock(number) => self.fail_subblock(context, number, error),
                }
            }
        }
    }

    pub(super) fn fail_read(&mut self, context: &mut Context<'_>, read: ReadRequest, error: Error) {
        let _ = self.id;
        reply(context, read.id, Err(error));
    }
}

const fn parked_of(purpose: Purpose) -> Parked {
    match purpose {
        Purpose::Client(read) => Parked::Read(read),
        Purpose::SubBlock(number) => Parked::SubBlock(number),
    }
}

/// Adds a piece, or lengthens the one before when both are neighbours in the pool and in the buffer.
fn add_piece(pieces: &mut SmallVec<[FetchPiece; 2]>, piece: FetchPiece) {
    if let Some(last) = pieces.last_mut()
        && last.pool_offset + last.len as u64 == piece.pool_offset
        && last.buffer_offset + last.len == piece.buffer_offset
    {
        last.len += piece.len;
        return;
    }
    pieces.push(piece);
}

fn run_bytes_mut<'a>(buffer: &'a mut Buffer, run: &ResolvedRun) -> &'a mut [u8] {
    let start = run.at as usize * BLOCK_LEN;
    buffer.as_mut_slice().get_mut(start..start + run.count as usize * BLOCK_LEN).unwrap_or_default()
}

/// The first block, counted from the start of the fetch, that is not what was written, and where it is.
fn first_bad_block(fetch: &Fetch, buffer: &Buffer) -> Option<(u32, Location)> {
    let mut checks = fetch.checks.iter();
    for run in &fetch.runs {
        let Some(location) = run.location else { continue };
        let start = run.at as usize * BLOCK_LEN;
        let bytes = buffer.as_slice().get(start..start + run.count as usize * BLOCK_LEN).unwrap_or_default();
        for (by, block) in (0_u32..).zip(bytes.chunks_exact(BLOCK_LEN)) {
            let here = location.plus(by);
            if checks.next() != Some(&block_check(here.segment, u32::from(here.block), block)) {
                return Some((run.at + by, here));
            }
        }
    }
    None
}
