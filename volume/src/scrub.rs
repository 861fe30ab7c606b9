//! Reads everything of a segment, live or dead, against its check data: headers, batches, footer or parcel, payload.
//!
//! Judges only what was on stable storage for certain when the index was asked ([`ScrubTarget`]). A finding is none before
//! the index has been asked again and the segment has still been where it was read: its slot may have been given back, and
//! filled anew, in between.

use crate::error::DiskFault;
use crate::format::{PartSet, Superblock, block_check};
use crate::pool::{Home, ParcelPlace, ScrubTarget, SegmentRow};
use crate::recover::{
    Damage, DamageKind, HeaderAt, Place, SegmentLog, SlotSource, Wanted, header_at, is_pack_header, pack_headers,
    read_segment,
};
use crate::store::PoolReader;
use std::fmt;
use units::{BLOCK_LEN, BlockIndex, SegmentId, SlotIndex, VolumeId};

/// Payload blocks read at a time.
const PAYLOAD_BLOCKS: usize = 64;

/// What a block is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The slot's header.
    Header,
    /// A batch's header, which tells what the footer tells too.
    Batch,
    /// The footer, which tells what the batches tell too.
    Footer,
    /// The header of a parcel, or the same in the directory of its pack.
    Parcel,
    /// Data.
    Payload,
}

/// How a block is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Badness {
    /// It is not what was written.
    Rotten,
    /// The disk does not give it.
    Unreadable,
}

/// A block that does not hold what it ought to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BadBlock {
    /// Whose.
    pub volume: VolumeId,
    /// Of which segment; of a pack's header the pack.
    pub segment: SegmentId,
    /// Where it is.
    pub slot: SlotIndex,
    /// The block of the slot.
    pub block: u32,
    /// What it is for.
    pub part: Part,
    /// How it is bad.
    pub badness: Badness,
    /// Of payload: the volume's block that it was written for, and the block of the segment's own slot where it was written,
    /// by which the map names it.
    pub written_as: Option<(BlockIndex, u32)>,
}

/// What was read of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Payload blocks that were read.
    pub blocks: u64,
    /// Those that are bad, and other parts.
    pub bad: Vec<BadBlock>,
}

/// Reads a segment, each of its parts by itself: one that is damaged hides no other.
#[must_use]
pub fn scrub(reader: &dyn PoolReader, superblock: &Superblock, target: &ScrubTarget) -> Scrubbed {
    let mut scrubbed = Scrubbed::default();
    match target.row.home {
        Home::Own(_) => scrub_place(reader, superblock, target, &mut scrubbed),
        Home::Parcels(parcels) => parcels.each().for_each(|(part, _)| {
            let home = Home::Parcels(parcels.only(PartSet::of_part(part)));
            let part = ScrubTarget { row: SegmentRow { home, ..target.row }, ..*target };
            scrub_place(reader, superblock, &part, &mut scrubbed);
        }),
    }
    scrubbed
}

/// Reads a segment that is in its own slot, or one part of it.
fn scrub_place(reader: &dyn PoolReader, superblock: &Superblock, target: &ScrubTarget, scrubbed: &mut Scrubbed) {
    let wanted = Wanted::of_target(reader, superblock, target);
    let log = match read_segment(&wanted) {
        Ok(log) => log,
        Err(damage) => {
            scrubbed.bad.extend(of_damage(target, &damage));
            return;
        }
    };
    // It is being given back: its header is void already.
    if log.is_empty() {
        return;
    }
    match &target.row.home {
        Home::Own(slot) => check_own_slot(&wanted, (target, *slot), &log, scrubbed),
        Home::Parcels(parcels) => parcels.each().for_each(|(part, place)| {
            check_pack(reader, superblock, (target, place), scrubbed);
            check_parcel(reader, superblock, (target, part, place), scrubbed);
        }),
    }
    Payload { reader, superblock, target }.check(&log, scrubbed);
}

/// The header of a pack, in both its places, with each of its parcels.
fn check_pack(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (target, parcel): (&ScrubTarget, ParcelPlace),
    scrubbed: &mut Scrubbed,
) {
    for at in pack_headers(superblock) {
        let mut block = vec![0; BLOCK_LEN];
        let badness = match reader.read_at(superblock.geometry.block_offset(parcel.slot, at), &mut block) {
            Ok(()) if is_pack_header(superblock, parcel.pack, &block) => continue,
            Ok(()) => Badness::Rotten,
            Err(_) => Badness::Unreadable,
        };
        scrubbed.bad.push(BadBlock { segment: parcel.pack, ..bad(target, (parcel.slot, at), Part::Header, badness) });
    }
}

/// The header of a parcel, in both its places, of which each can stand in for the other.
fn check_parcel(
    reader: &dyn PoolReader,
    superblock: &Superblock,
    (target, part, parcel): (&ScrubTarget, usize, ParcelPlace),
    scrubbed: &mut Scrubbed,
) {
    let mut source = SlotSource::new(reader, superblock.geometry, parcel.slot);
    for at in parcel.headers() {
        let badness = match header_at(&mut source, superblock, (&target.row, (part, parcel), at)) {
            HeaderAt::Whole(_) | HeaderAt::Void => continue,
            HeaderAt::Rotten => Badness::Rotten,
            HeaderAt::Unreadable(_) => Badness::Unreadable,
        };
        scrubbed.bad.push(bad(target, (parcel.slot, at), Part::Parcel, badness));
    }
}

/// What tells of a segment in its own slot: header, batches and footer, of which each can stand in for another.
fn check_own_slot(
    wanted: &Wanted<'_>,
    (target, slot): (&ScrubTarget, SlotIndex),
    log: &SegmentLog,
    scrubbed: &mut Scrubbed,
) {
    let last_block = wanted.superblock.geometry.slot_blocks() - 1;
    if log.header.is_none() {
        scrubbed.bad.push(bad(target, (slot, 0), Part::Header, Badness::Rotten));
    }
    if !log.has_footer {
        // Its batches told what there is. A footer that may be on its way to the disk is not missed.
        if target.is_settled {
            scrubbed.bad.push(bad(target, (slot, last_block), Part::Footer, Badness::Rotten));
        }
        return;
    }
    match read_segment(&Wanted { distrusts_footer: true, ..*wanted }) {
        Ok(batches) if batches.has_footer => {}
        Ok(batches) => scrubbed.bad.push(bad(target, (slot, batches.filled_blocks), Part::Batch, Badness::Rotten)),
        Err(damage) => scrubbed.bad.extend(of_damage(target, &damage)),
    }
}

/// The payload of a segment that is in its own slot, or of one part of it.
struct Payload<'a> {
    reader: &'a dyn PoolReader,
    superblock: &'a Superblock,
    target: &'a ScrubTarget,
}

impl Payload<'_> {
    fn check(&self, log: &SegmentLog, scrubbed: &mut Scrubbed) {
        // In a parcel, payload is behind each other in the order of its entries.
        let mut next = self.target.row.home.each_parcel().map(|place| (place.slot, place.payload())).next();
        log.each(|lsn, operation, written_at, checks| {
            let count = operation.payload_blocks();
            let at = match (self.target.row.home, &mut next) {
                (Home::Parcels(_), Some((slot, next))) => {
                    let at = (*slot, *next);
                    *next += count;
                    at
                }
                (Home::Own(slot), _) => (slot, written_at),
                (Home::Parcels(_), None) => return,
            };
            // Nothing was written for a copy.
            if count > 0 && operation.source().is_none() && lsn <= self.target.durable_lsn {
                self.check_run(at, (operation.range.first, written_at), checks, scrubbed);
            }
        });
    }

    /// Blocks behind each other in the slot, which were written for blocks of the volume behind each other.
    fn check_run(
        &self,
        (slot, at): (SlotIndex, u32),
        (first, written_at): (BlockIndex, u32),
        checks: &[u32],
        scrubbed: &mut Scrubbed,
    ) {
        let mut by = 0_u32;
        for checks in checks.chunks(PAYLOAD_BLOCKS) {
            let mut bytes = vec![0; checks.len() * BLOCK_LEN];
            let read = self.read((slot, at + by), &mut bytes);
            for (check, block) in checks.iter().zip(bytes.chunks_exact_mut(BLOCK_LEN)) {
                // One that cannot be read hides none beside it.
                let read = read.or_else(|_| self.read((slot, at + by), block));
                let place = written_at + by;
                let badness = match read {
                    Ok(()) if block_check(self.target.row.segment, place, block) == *check => None,
                    Ok(()) => Some(Badness::Rotten),
                    Err(_) => Some(Badness::Unreadable),
                };
                scrubbed.blocks += 1;
                if let Some(badness) = badness {
                    let written_as = Some((BlockIndex(first.0 + u64::from(by)), place));
                    let found = bad(self.target, (slot, at + by), Part::Payload, badness);
                    scrubbed.bad.push(BadBlock { written_as, ..found });
                }
                by += 1;
            }
        }
    }

    fn read(&self, (slot, block): (SlotIndex, u32), buffer: &mut [u8]) -> Result<(), DiskFault> {
        self.reader.read_at(self.superblock.geometry.block_offset(slot, block), buffer)
    }
}

const fn bad(target: &ScrubTarget, (slot, block): (SlotIndex, u32), part: Part, badness: Badness) -> BadBlock {
    let row = &target.row;
    BadBlock { volume: row.volume, segment: row.segment, slot, block, part, badness, written_as: None }
}

/// The block that keeps a segment from being read.
fn of_damage(target: &ScrubTarget, damage: &Damage) -> Option<BadBlock> {
    let (Place { slot, block, .. }, part, badness) = match damage.kind {
        DamageKind::Unreadable { place, .. } if place.block == 0 => (place, Part::Header, Badness::Unreadable),
        DamageKind::Unreadable { place, .. } if target.row.is_moved() => (place, Part::Parcel, Badness::Unreadable),
        DamageKind::Unreadable { place, .. } => (place, Part::Batch, Badness::Unreadable),
        DamageKind::HeaderRot { place, .. } => (place, Part::Batch, Badness::Rotten),
        DamageKind::OtherHeader { place } | DamageKind::Chain { place, .. } => (place, Part::Header, Badness::Rotten),
        DamageKind::Parcel { place } => (place, Part::Parcel, Badness::Rotten),
        // Of a log as a whole: no reading of one segment says so.
        DamageKind::Missing { .. } | DamageKind::Unfolded { .. } => return None,
    };
    Some(bad(target, (slot, block), part, badness))
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Batch => "batch",
            Self::Footer => "footer",
            Self::Parcel => "parcel",
            Self::Payload => "payload",
        })
    }
}

#[cfg(test)]
mod tests;
