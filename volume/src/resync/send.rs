//! The sender: what is left of a segment, cut into parts, wherever it is.
//!
//! It reads with no more memory than the index of one segment and the payload of one part. A segment that is moved, or leaves, while it
//! is read is found out, since its old place is void before anything else is there: nothing more is sent of it then. Every block is
//! held against its check value.

use super::part::Part;
use crate::buffer::Buffer;
use crate::compact::parcel::{Target, cut_of, parcel_of};
use crate::error::DiskFault;
use crate::format::{
    Cut, OperationKind, Parcel, ParcelHeader, ParcelStart, PartSet, SlotHeader, SlotUse, Superblock, block_check,
    decode_parcel_start, encode_parcel,
};
use crate::pool::{Home, Index, Listing, ParcelPlace, SegmentRow, Survivors};
use crate::recover::{SegmentLog, SlotSource, Wanted, read_segment, survivors_of};
use crate::store::{PoolReader, Store};
use std::fmt;
use std::sync::Arc;
use units::{BLOCK_LEN, Lsn, SegmentId, SlotIndex, VolumeId};

/// Blocks that are read at a time.
const CHUNK_BLOCKS: u32 = 128;

/// Where a segment is and up to where the stored map was complete then: all that is needed to read it without the index.
#[derive(Debug, Clone)]
pub struct Source {
    row: SegmentRow,
    survivors: Option<Arc<Survivors>>,
    as_of: Lsn,
}

impl Source {
    /// Which segment.
    #[must_use]
    pub const fn segment(&self) -> SegmentId {
        self.row.segment
    }

    /// Whether another one tells of the same segment in the same place.
    #[must_use]
    pub fn is_at(&self, other: &Self) -> bool {
        (self.row.segment, self.row.home) == (other.row.segment, other.row.home)
    }
}

/// Why nothing is sent of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendError {
    /// It is not where it was: to be tried again with a fresh source.
    Moved(SegmentId),
    /// It is void where it was: to be tried again with a fresh source. Where that tells of the same place ([`Source::is_at`]) it
    /// was dead, and a stop came while it left: it is no part of the log any more, and to be left out of the listing.
    Void(SegmentId),
    /// It is not sealed.
    Open(SegmentId),
    /// It shares blocks with others, until it has been moved.
    Shared(SegmentId),
    /// What it holds is not what was written.
    Rotten(SegmentId),
    /// A part of it fits into no pack.
    TooLarge(SegmentId),
    /// The disk does not give it.
    Disk(DiskFault),
}

impl From<DiskFault> for SendError {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(segment) => write!(f, "segment {segment} was moved meanwhile"),
            Self::Void(segment) => write!(f, "segment {segment} was moved meanwhile, or has left"),
            Self::Open(segment) => write!(f, "segment {segment} is not sealed yet"),
            Self::Shared(segment) => write!(f, "segment {segment} shares blocks with others until it is moved"),
            Self::Rotten(segment) => write!(f, "segment {segment} is not what was written"),
            Self::TooLarge(segment) => write!(f, "a part of segment {segment} fits into no pack"),
            Self::Disk(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for SendError {}

impl<S: Store> Index<S> {
    /// Where a segment is that is to be sent.
    #[must_use]
    pub fn source(&self, segment: SegmentId) -> Option<Source> {
        let row = self.segment(segment)?;
        let survivors = self.survivors(segment).cloned();
        Some(Source { row, survivors, as_of: self.folded_to(row.volume) })
    }

    /// The sealed segments of a volume behind `from` and up to `to`, and the ends of its generations up to there.
    #[must_use]
    pub fn listing(&self, volume: VolumeId, (from, to): (Lsn, Lsn)) -> Listing {
        let is_between = |row: &SegmentRow| row.first_lsn > from && row.last_lsn.is_some_and(|last| last <= to);
        let rows = self.segments(volume).into_iter().filter(is_between);
        let needed = self.boundaries(volume).filter(|row| !row.is_leaving && row.boundary.lsn <= to);
        Listing {
            segments: rows.map(|row| row.segment).collect(),
            as_of: self.folded_to(volume),
            boundaries: needed.map(|row| row.boundary).collect(),
        }
    }

    fn folded_to(&self, volume: VolumeId) -> Lsn {
        self.volume_row(volume).map_or(Lsn::ZERO, |row| row.folded_to)
    }
}

/// A segment that is being sent.
pub struct Sender<'a> {
    reader: &'a dyn PoolReader,
    superblock: &'a Superblock,
    source: Source,
    log: SegmentLog,
    /// Of all that is left.
    survivors: Survivors,
    cut: Cut,
}

impl fmt::Debug for Sender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("row", &self.source.row).field("cut", &self.cut).finish_non_exhaustive()
    }
}

impl<'a> Sender<'a> {
    /// Reads what is left of a segment. It is cut as the receiver has it already, if it has a part of it.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn open(
        reader: &'a dyn PoolReader,
        superblock: &'a Superblock,
        source: Source,
        cut: Option<Cut>,
    ) -> Result<Self, SendError> {
        let log = read_left(reader, superblock, &source)?;
        let is_shared = |kind: &OperationKind| matches!(kind, OperationKind::Copy { .. } | OperationKind::Lent);
        if log.entries.iter().any(|entry| is_shared(&entry.operation.kind)) {
            return Err(SendError::Shared(source.row.segment));
        }
        let slot_blocks = superblock.geometry.slot_blocks();
        let survivors = survivors_of(&log.entries, slot_blocks);
        let cut = cut.unwrap_or_else(|| cut_of(survivors.count(), slot_blocks));
        Ok(Self { reader, superblock, source, log, survivors, cut })
    }

    /// The parts of which something is left: part 0 is one of them.
    #[must_use]
    pub fn parts(&self) -> PartSet {
        let slot_blocks = self.superblock.geometry.slot_blocks();
        let is_left = |part: &usize| *part == 0 || self.survivors.count_in(self.cut.span(*part, slot_blocks)) > 0;
        (0..self.cut.parts()).filter(is_left).collect()
    }

    /// Reads a part.
    ///
    /// # Errors
    /// [`SendError`].
    pub fn part(&self, part: usize) -> Result<Part, SendError> {
        let segment = self.source.row.segment;
        let slot_blocks = self.superblock.geometry.slot_blocks();
        let lent = Survivors::none(slot_blocks);
        let clean_lsn = self.source.as_of.max(self.log.last_lsn);
        let (pack, parcels) = (SegmentId(0), 1);
        let (cut, parts) = (self.cut, self.parts());
        // Where it goes is the receiver's affair.
        let target =
            Target { pack, parcels, block: 1, copy_end: slot_blocks, clean_lsn, drops_trims: false, cut, parts };
        let parcel = parcel_of(self.superblock, (&self.log, part), (&self.survivors, &lent), target);
        if parcel.pack_blocks() > crate::format::pack_room_blocks(slot_blocks) {
            return Err(SendError::TooLarge(segment));
        }
        // What is whole lacks nothing.
        let clean_lsn = if self.source.row.is_moved() { clean_lsn } else { self.log.last_lsn };
        let header = ParcelHeader { moves: 1, clean_lsn, ..parcel.header };
        let parcel = Parcel { header, ..parcel };
        let payload = self.read_payload(&parcel)?;
        self.check_place()?;
        Ok(Part { header: Buffer::copy_of(&encode_parcel(&parcel)), payload })
    }

    fn read_payload(&self, parcel: &Parcel) -> Result<Vec<Buffer>, SendError> {
        let segment = self.source.row.segment;
        let mut checks = parcel.checks.iter();
        let mut payload = Vec::new();
        for entry in &parcel.entries {
            let (mut at, mut left) = (entry.block, entry.operation.payload_blocks());
            while left > 0 {
                let survivors = self.source.survivors.as_deref();
                let there = self.source.row.locate(survivors, at, left.min(CHUNK_BLOCKS));
                let there = there.ok_or(SendError::Rotten(segment))?;
                let mut buffer = Buffer::zeroed(there.count as usize * BLOCK_LEN);
                let offset = self.superblock.geometry.block_offset(there.slot, there.block);
                self.reader.read_at(offset, buffer.as_mut_slice())?;
                for (block, bytes) in (at..).zip(buffer.as_slice().chunks_exact(BLOCK_LEN)) {
                    if checks.next() != Some(&block_check(segment, block, bytes)) {
                        return Err(self.amiss());
                    }
                }
                payload.push(buffer);
                (at, left) = (at + there.count, left - there.count);
            }
        }
        Ok(payload)
    }

    /// What a block is that is not what was written: gone with its place, or rotten.
    fn amiss(&self) -> SendError {
        self.check_place().err().unwrap_or(SendError::Rotten(self.source.row.segment))
    }

    fn check_place(&self) -> Result<(), SendError> {
        check_place(self.reader, self.superblock, &self.source.row)
    }
}

/// Whether a segment is still where it was.
fn check_place(reader: &dyn PoolReader, superblock: &Superblock, row: &SegmentRow) -> Result<(), SendError> {
    match look_at(reader, superblock, row) {
        There::Whole => Ok(()),
        There::Void => Err(SendError::Void(row.segment)),
        There::Other => Err(SendError::Moved(row.segment)),
    }
}

/// Reads what a segment says, all of it.
fn read_left(reader: &dyn PoolReader, superblock: &Superblock, source: &Source) -> Result<SegmentLog, SendError> {
    let row = source.row;
    let last = row.last_lsn.ok_or(SendError::Open(row.segment))?;
    let wanted = Wanted {
        reader,
        superblock,
        row,
        cut: last.next(),
        durable_lsn: last,
        known_to: last,
        distrusts_footer: false,
    };
    let read = read_segment(&wanted);
    // What a read leaves out is what is void: that is looked for behind it, since what is void stays so.
    check_place(reader, superblock, &row)?;
    let log = read.map_err(|_| SendError::Rotten(row.segment))?;
    let slot_blocks = superblock.geometry.slot_blocks();
    let has_all = source.survivors.as_deref().is_none_or(|left| *left == survivors_of(&log.entries, slot_blocks));
    let is_whole = log.last_lsn == last && !log.is_empty() && (row.is_moved() || log.header.is_some()) && has_all;
    if is_whole { Ok(log) } else { Err(SendError::Rotten(row.segment)) }
}

/// What is where a segment is by its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    /// The segment, all of it.
    Whole,
    /// It, or a part of it, void.
    Void,
    /// Something else.
    Other,
}

/// Looks at where a segment is. A header that is void in one of its places is void.
fn look_at(reader: &dyn PoolReader, superblock: &Superblock, row: &SegmentRow) -> There {
    match &row.home {
        Home::Own(slot) => look_at_slot(reader, superblock, (row, *slot)),
        Home::Parcels(parcels) => {
            let each = parcels.each().map(|(part, place)| look_at_parcel(reader, superblock, (row, part, place)));
            each.fold(There::Whole, |all, one| match (all, one) {
                (There::Whole, one) => one,
                (There::Other, There::Void) | (There::Void, _) => There::Void,
                (There::Other, There::Whole | There::Other) => There::Other,
            })
        }
    }
}

fn look_at_slot(reader: &dyn PoolReader, superblock: &Superblock, (row, slot): (&SegmentRow, SlotIndex)) -> There {
    let mut source = SlotSource::new(reader, superblock.geometry, slot);
    let header = source.block(0).ok().and_then(|block| SlotHeader::decode(block).ok());
    match header.filter(|header| (header.pool, header.segment) == (superblock.pool, row.segment)) {
        Some(header) if header.slot_use == SlotUse::Segment => There::Whole,
        Some(_) => There::Void,
        None => There::Other,
    }
}

fn look_at_parcel(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (row, part, place): (&SegmentRow, usize, ParcelPlace),
) -> There {
    let mut source = SlotSource::new(reader, superblock.geometry, place.slot);
    let is_it = |start: &ParcelStart| {
        let header = &start.header;
        let is_place = (header.pack, header.block, header.copy, header.moves)
            == (place.pack, place.block, place.copy, place.moves);
        is_place && header.segment == row.segment && usize::from(header.part) == part
    };
    let starts = place.headers().map(|at| source.block(at).ok().and_then(|block| decode_parcel_start(block).ok()));
    let (mut is_there, mut is_void) = (false, false);
    for start in starts.into_iter().flatten().filter(is_it) {
        is_there = true;
        is_void |= start.is_void;
    }
    match (is_there, is_void) {
        (_, true) => There::Void,
        (true, false) => There::Whole,
        (false, false) => There::Other,
    }
}
