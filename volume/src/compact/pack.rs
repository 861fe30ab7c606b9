//! Writing a pack: what is left of one part of a segment after the other is read where it is, checked block by block, and written;
//! behind the payload's writes comes the parcel's header, behind all parcels the directory, and at last the pack's header.
//! Then, once that is durable, all of it is read back and checked again.

use super::choose::Piece;
use super::parcel::{Target, parcel_of};
use super::round::{Moving, Trouble};
use super::{Context, Ids};
use crate::buffer::Buffer;
use crate::format::{Parcel, SlotHeader, Superblock, block_check, encode_parcel};
use crate::io::{Action, FetchPiece, IoId};
use crate::map::Location;
use crate::pool::{Index, Lease, ParcelPlace};
use crate::store::Store;
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use units::{BLOCK_LEN, SegmentId, SlotIndex};

/// Blocks that are read or written at a time.
const CHUNK_BLOCKS: usize = 128;

/// A pack in the making.
#[derive(Debug)]
pub(crate) struct Pack {
    pub(crate) lease: Lease,
    pub(crate) parcels: Vec<Written>,
    /// All headers once more; empty before the last parcel is written. From then on the pack's header may be on the disk.
    directory: Vec<u8>,
}

/// A parcel of it.
#[derive(Debug)]
pub(crate) struct Written {
    segment: SegmentId,
    part: usize,
    place: ParcelPlace,
    has_holes: bool,
    header: Vec<u8>,
    /// For each block of payload: which block of the segment's slot it was, and its check value.
    blocks: Vec<(u32, u32)>,
}

/// What is being written to a pack.
#[derive(Debug)]
pub(super) struct Copying {
    pub(super) pack: Pack,
    left: VecDeque<Piece>,
    /// The parcel that is being filled, and how many of its blocks are written.
    now: Option<(Written, usize)>,
    /// How many parcels there will be.
    count: u32,
    /// The block behind the last whole parcel.
    end: u32,
    /// The first block of what the directory has so far.
    directory: u32,
    step: Step,
}

/// What is under way.
#[derive(Debug, Clone, Copy)]
enum Step {
    Payload(usize),
    ParcelHeader,
    Directory,
    PackHeader,
}

/// A pack that is being read back: part after part, and within it the next of its blocks.
#[derive(Debug)]
pub(crate) struct Verifying {
    pub(crate) pack: Pack,
    part: Part,
    at: usize,
    count: usize,
}

/// A part of a pack.
#[derive(Debug, Clone, Copy)]
enum Part {
    Header,
    Parcel(usize),
    Directory,
}

impl Pack {
    /// One of parcels that are known from the start; its directory follows from them.
    pub(crate) fn of(superblock: &Superblock, lease: Lease, parcels: Vec<Written>) -> Self {
        let mut pack = Self { lease, parcels, directory: Vec::new() };
        pack.fill_directory(superblock);
        pack
    }

    /// What is to be written of it beside payload, in this order: where it goes in the slot, and the bytes.
    pub(crate) fn headers(&self, superblock: &Superblock) -> Vec<(u32, Buffer)> {
        let mut headers: Vec<(u32, Buffer)> =
            self.parcels.iter().map(|parcel| (parcel.place.block, Buffer::copy_of(&parcel.header))).collect();
        let directory = self.extent(superblock, Part::Directory);
        headers.extend(directory.map(|(block, _)| (block, Buffer::copy_of(&self.directory))));
        headers.push((0, self.header(superblock)));
        headers
    }

    /// Its parcels: of which segment and part, where they are, and whether they have trims or zeroes.
    pub(crate) fn places(&self) -> impl Iterator<Item = (SegmentId, usize, ParcelPlace, bool)> {
        self.parcels.iter().map(|parcel| (parcel.segment, parcel.part, parcel.place, parcel.has_holes))
    }

    pub(super) fn payload_blocks(&self) -> usize {
        self.parcels.iter().map(|parcel| parcel.blocks.len()).sum()
    }

    fn header(&self, superblock: &Superblock) -> Buffer {
        let mut block = Buffer::zeroed(BLOCK_LEN);
        SlotHeader::pack(superblock.pool, self.lease.segment, 0).encode(block.as_mut_slice());
        block
    }

    /// Whether its header may be on the disk.
    pub(super) const fn has_header(&self) -> bool {
        !self.directory.is_empty()
    }

    /// All headers once more: the first parcel's is the last but that of the pack.
    fn fill_directory(&mut self, superblock: &Superblock) {
        let mut directory: Vec<u8> =
            self.parcels.iter().rev().flat_map(|parcel| parcel.header.iter().copied()).collect();
        directory.extend_from_slice(self.header(superblock).as_slice());
        self.directory = directory;
    }

    /// Where a part of it begins in its slot, and how many blocks it has.
    fn extent(&self, superblock: &Superblock, part: Part) -> Option<(u32, usize)> {
        let directory = self.directory.len() / BLOCK_LEN;
        match part {
            Part::Header => Some((0, 1)),
            Part::Parcel(parcel) => self.parcels.get(parcel).map(|parcel| (parcel.place.block, parcel.total_blocks())),
            Part::Directory => {
                let blocks = u32::try_from(directory).ok()?;
                Some((superblock.geometry.slot_blocks().checked_sub(blocks)?, directory))
            }
        }
    }

    /// Whether `bytes` are the blocks of a part from `at` on.
    fn is_whole(&self, superblock: &Superblock, (part, at): (Part, usize), bytes: &[u8]) -> bool {
        match part {
            Part::Header => bytes == self.header(superblock).as_slice(),
            Part::Parcel(parcel) => self.parcels.get(parcel).is_some_and(|parcel| parcel.is_whole(at, bytes)),
            Part::Directory => self.directory.get(at * BLOCK_LEN..at * BLOCK_LEN + bytes.len()) == Some(bytes),
        }
    }
}

impl Written {
    fn of(superblock: &Superblock, (moving, part): (&Moving, usize), slot: SlotIndex, target: Target) -> Self {
        let log = &moving.log;
        Self::of_parcel(&parcel_of(superblock, (log, part), (&moving.survivors, &moving.lent), target), slot)
    }

    /// A parcel of a pack in a slot.
    pub(crate) fn of_parcel(parcel: &Parcel, slot: SlotIndex) -> Self {
        let (header_blocks, header) = (parcel.header_blocks(), &parcel.header);
        let (pack, block, copy) = (header.pack, header.block, header.copy);
        let (moves, clean_lsn) = (header.moves, header.clean_lsn);
        let own =
            parcel.entries.iter().flat_map(|entry| (entry.block..).take(entry.operation.payload_blocks() as usize));
        Self {
            segment: header.segment,
            part: usize::from(header.part),
            place: ParcelPlace { pack, slot, block, copy, header_blocks, moves, clean_lsn },
            has_holes: parcel.entries.iter().any(|entry| entry.operation.makes_holes()),
            header: encode_parcel(parcel),
            blocks: own.zip(parcel.checks.iter().copied()).collect(),
        }
    }

    /// Where it is.
    pub(crate) const fn place(&self) -> ParcelPlace {
        self.place
    }

    const fn total_blocks(&self) -> usize {
        self.place.header_blocks as usize + self.blocks.len()
    }

    fn is_payload(&self, at: usize, bytes: &[u8]) -> bool {
        let mut blocks = bytes.chunks_exact(BLOCK_LEN).zip(self.blocks.get(at..).unwrap_or_default());
        bytes.len() / BLOCK_LEN + at <= self.blocks.len()
            && blocks.all(|(bytes, (block, check))| block_check(self.segment, *block, bytes) == *check)
    }

    /// Whether `bytes` are the blocks of the parcel from `at` on.
    fn is_whole(&self, at: usize, bytes: &[u8]) -> bool {
        let in_header = self.header.len().saturating_sub(at * BLOCK_LEN).min(bytes.len());
        let Some((header, payload)) = bytes.split_at_checked(in_header) else { return false };
        let first = at.saturating_sub(self.place.header_blocks as usize);
        self.header.get(at * BLOCK_LEN..at * BLOCK_LEN + in_header).unwrap_or_default() == header
            && self.is_payload(first, payload)
    }
}

impl Copying {
    pub(super) fn begin<S: Store>(
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (lease, pieces, moving): (Lease, Vec<Piece>, &BTreeMap<SegmentId, Moving>),
    ) -> Result<(Self, IoId), Trouble> {
        let pack = Pack { lease, parcels: Vec::new(), directory: Vec::new() };
        let mut copying = Self {
            pack,
            count: u32::try_from(pieces.len()).unwrap_or(u32::MAX),
            left: pieces.into(),
            now: None,
            end: 1,
            directory: context.index.superblock().geometry.slot_blocks() - 1,
            step: Step::ParcelHeader,
        };
        let id = copying.go_on(context, ids, moving)?;
        Ok((copying, id))
    }

    /// Begins the next read or write.
    fn go_on<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        moving: &BTreeMap<SegmentId, Moving>,
    ) -> Result<IoId, Trouble> {
        let superblock = *context.index.superblock();
        if self.now.is_none() {
            let Some((segment, part)) = self.left.pop_front() else {
                self.step = Step::Directory;
                self.pack.fill_directory(&superblock);
                let directory = Buffer::copy_of(&self.pack.directory);
                return Ok(self.write(context, ids, (self.directory, directory)));
            };
            let moving = moving.get(&segment).ok_or(Trouble::Suspect(segment))?;
            let lease = self.pack.lease;
            let target = moving.target((lease.segment, self.count), (self.end, self.directory));
            let parcel = Written::of(&superblock, (moving, part), lease.slot, target);
            if self.end as usize + parcel.total_blocks() > parcel.place.copy as usize {
                return Err(Trouble::Suspect(segment));
            }
            self.now = Some((parcel, 0));
        }
        let Some((parcel, done)) = &self.now else { return Err(Trouble::Failed("a pack has no parcel")) };
        let rest = parcel.blocks.get(*done..).unwrap_or_default();
        if rest.is_empty() {
            self.step = Step::ParcelHeader;
            let (block, header) = (parcel.place.block, Buffer::copy_of(&parcel.header));
            return Ok(self.write(context, ids, (block, header)));
        }
        let blocks: Vec<u32> = rest.iter().take(CHUNK_BLOCKS).map(|(block, _)| *block).collect();
        let pieces =
            pieces_of(context.index, parcel.segment, &blocks).ok_or_else(|| amiss(context.index, parcel.segment))?;
        self.step = Step::Payload(blocks.len());
        let id = ids.next();
        context.actions.push(Action::Fetch {
            id,
            buffer: Buffer::zeroed(blocks.len() * BLOCK_LEN),
            pieces,
            is_second_try: false,
        });
        Ok(id)
    }

    fn write<S: Store>(&self, context: &mut Context<'_, S>, ids: &mut Ids, (block, bytes): (u32, Buffer)) -> IoId {
        let id = ids.next();
        let pool_offset = context.index.superblock().geometry.block_offset(self.pack.lease.slot, block);
        context.actions.push(Action::Append { id, pool_offset, buffers: vec![bytes], to_peer: None });
        id
    }

    /// Blocks of payload have been read: where each is what was written, they go to the pack.
    pub(super) fn on_fetched<S: Store>(
        &self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        buffer: Buffer,
    ) -> Result<IoId, Trouble> {
        let Some((parcel, done)) = &self.now else { return Err(Trouble::Failed("a pack has no parcel")) };
        if !parcel.is_payload(*done, buffer.as_slice()) {
            return Err(amiss(context.index, parcel.segment));
        }
        let block = u32::try_from(*done).unwrap_or(u32::MAX).saturating_add(parcel.place.payload());
        Ok(self.write(context, ids, (block, buffer)))
    }

    /// The segment that is being read.
    pub(super) fn segment(&self) -> Option<SegmentId> {
        self.now.as_ref().map(|(parcel, _)| parcel.segment)
    }

    /// A write has ended; `None` when it was the last.
    pub(super) fn on_appended<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        moving: &BTreeMap<SegmentId, Moving>,
    ) -> Result<Option<IoId>, Trouble> {
        match (self.step, &mut self.now) {
            (Step::Payload(count), Some((_, done))) => *done += count,
            (Step::ParcelHeader, now) => {
                if let Some((parcel, _)) = now.take() {
                    self.end += u32::try_from(parcel.total_blocks()).unwrap_or(0);
                    self.directory = parcel.place.copy;
                    self.pack.parcels.push(parcel);
                }
            }
            (Step::Directory, _) => {
                self.step = Step::PackHeader;
                let header = self.pack.header(context.index.superblock());
                return Ok(Some(self.write(context, ids, (0, header))));
            }
            (Step::PackHeader | Step::Payload(_), _) => return Ok(None),
        }
        self.go_on(context, ids, moving).map(Some)
    }
}

impl Verifying {
    pub(crate) fn begin<S: Store>(context: &mut Context<'_, S>, ids: &mut Ids, pack: Pack) -> (Self, IoId) {
        let mut verifying = Self { pack, part: Part::Header, at: 0, count: 1 };
        let id = verifying.fetch(context, ids, 0);
        (verifying, id)
    }

    fn fetch<S: Store>(&mut self, context: &mut Context<'_, S>, ids: &mut Ids, block: u32) -> IoId {
        let id = ids.next();
        let pool_offset = context.index.superblock().geometry.block_offset(self.pack.lease.slot, block);
        let len = self.count * BLOCK_LEN;
        let mut pieces = SmallVec::new();
        pieces.push(FetchPiece { pool_offset, buffer_offset: 0, len });
        context.actions.push(Action::Fetch { id, buffer: Buffer::zeroed(len), pieces, is_second_try: false });
        id
    }

    /// Blocks have been read back; `None` when they were the last.
    pub(crate) fn on_fetched<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        buffer: &Buffer,
    ) -> Result<Option<IoId>, Trouble> {
        let superblock = *context.index.superblock();
        if !self.pack.is_whole(&superblock, (self.part, self.at), buffer.as_slice()) {
            return Err(Trouble::Failed("what was written to a pack is not what it gives back"));
        }
        self.at += self.count;
        while self.pack.extent(&superblock, self.part).is_some_and(|(_, blocks)| self.at >= blocks) {
            self.part = match self.part {
                Part::Header => Part::Parcel(0),
                Part::Parcel(parcel) if parcel + 1 < self.pack.parcels.len() => Part::Parcel(parcel + 1),
                Part::Parcel(_) => Part::Directory,
                Part::Directory => return Ok(None),
            };
            self.at = 0;
        }
        let Some((first, blocks)) = self.pack.extent(&superblock, self.part) else { return Ok(None) };
        self.count = (blocks - self.at).min(CHUNK_BLOCKS);
        let block = first + u32::try_from(self.at).unwrap_or(0);
        Ok(Some(self.fetch(context, ids, block)))
    }
}

/// What is to be made of a segment the blocks of which are not what was written: those that it borrowed may be gone rightly, where
/// nobody reads any of it since the round began.
fn amiss<S: Store>(index: &Index<S>, segment: SegmentId) -> Trouble {
    let may_lack = index.loans(segment).is_some() && !index.is_read(segment);
    if may_lack { Trouble::Unread(segment) } else { Trouble::Suspect(segment) }
}

/// Where the content of blocks of a segment's slot is now, in the order of `blocks`.
fn pieces_of<S: Store>(index: &Index<S>, segment: SegmentId, blocks: &[u32]) -> Option<SmallVec<[FetchPiece; 2]>> {
    let geometry = index.superblock().geometry;
    let mut pieces: SmallVec<[FetchPiece; 2]> = SmallVec::new();
    for (at, block) in blocks.iter().enumerate() {
        let location = Location { segment, block: u16::try_from(*block).ok()? };
        let there = index.locate_one(location)?;
        let pool_offset = geometry.block_offset(there.slot, there.block);
        match pieces.last_mut() {
            Some(last) if last.pool_offset + last.len as u64 == pool_offset => last.len += BLOCK_LEN,
            _ => pieces.push(FetchPiece { pool_offset, buffer_offset: at * BLOCK_LEN, len: BLOCK_LEN }),
        }
    }
    Some(pieces)
}
