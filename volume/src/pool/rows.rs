//! Keys and values of the index in the store.
//!
//! | key | value |
//! | --- | --- |
//! | 0 | the pool: version 4, pool id 16, generation 8, window's first segment 8, next segment 8, the window's slots 4 each |
//! | 1, segment 8 | a segment: volume 8, flags 1 (bit 0 sealed, 1 holes, 2 live count lost), first and last LSN 8 each, live |
//! | | blocks of each eighth 4; where it is; of one that was moved: blocks of a slot 4, a bit for each block that is left |
//! | | Where it is: 0, slot 4; or 1, cut 1, a bit for each part that is somewhere 1, and for each of these pack 8, slot, block, |
//! | | copy, header blocks, moves 4 each, clean LSN 8 |
//! | 2, volume 8 | a volume: size 8, folded to 8, epoch 8, generation 8, mapped blocks 8 |
//! | 3, volume 8, page 8, inverted generation 8 | a page of the map as that generation left it, then the last change in it: LSN 8 |
//! | 4, slot 4 | nothing: a slot that is kept out of use |
//! | 5, volume 8, generation 8 | a boundary, the end of a generation that is needed: LSN 8, time 8, size 8, mapped blocks 8, |
//! | | flags 1 (bit 0: it is being deleted) |
//! | 6, volume 8, generation 8, page 8 | nothing: the page has a version of this generation |
//! | 7, pack 8 | a pack: slot 4 |
//! | 8, segment 8 | the places that a segment has left, not void yet: as where it is |
//! | 9, segment 8, block 4 | what a segment borrows from this block of its slot on: blocks 4, segment 8, block of its slot 2 |
//! | 10, volume 8 | what an heir inherits: parent volume 8, generation 8 |
//! | 14, volume 8 | nothing: the volume is being erased |
//! | 15 | how far a scrub is, in the words of whoever runs it |
//! | 17, volume 8 | what the volume has used: see [`super::meter`] |
//! | 18, volume 8 | what was asked of it: reads, writes, bytes read, bytes written 8 each |
//! | 16 | nothing: no rebuild made this index, so that it has seen every snapshot that there ever was |
//! | 19, volume 8 | a resync of the volume: from 8; once its log is joined, and not folded yet: to 8, and of each end of a generation
//! | | generation, LSN, size, time 8 each |
//! | 20, segment 8 | a segment that is kept aside: volume, first and last LSN, epoch, size, as of 8 each, chain before and after 4 each,
//! | | a bit for each of its parts 1, holes 1; where it is as far as it is here; the blocks that are, as of one that was moved |
//! | 24 | what is left of credits, in the words of whoever counts them |
//!
//! Numbers in keys are big-endian, so that the order of keys is theirs; in values little-endian.

use super::OpenError;
use super::lineage::Parent;
use super::live::Live;
use super::loans::Loan;
use super::place::{Home, ParcelPlace, Parcels};
use super::survivors::Survivors;
use crate::format::{Cut, FormatError, PartSet};
use crate::io::PageIndex;
use crate::map::{Location, Page};
use units::{Epoch, Lsn, PoolId, SegmentId, SlotIndex, VolumeId};

/// The version of keys and values; another one is made anew from the pool.
const INDEX_VERSION: u16 = 5;

/// Blocks of the largest slot.
const BLOCKS_MAX: u32 = 1 << 16;

pub(super) const POOL_KEY: &[u8] = &[0];
pub(super) const SCRUB_KEY: &[u8] = &[15];
pub(super) const FIRST_KEY: &[u8] = &[16];
pub(super) const CREDITS_KEY: &[u8] = &[24];
const SEGMENTS: u8 = 1;
const VOLUMES: u8 = 2;
const PAGES: u8 = 3;
const KEPT: u8 = 4;
const BOUNDARIES: u8 = 5;
const BIRTHS: u8 = 6;
const PACKS: u8 = 7;
const LEFT: u8 = 8;
const LOANS: u8 = 9;
const PARENTS: u8 = 10;
const ERASING: u8 = 14;
const METERS: u8 = 17;
const REQUESTS: u8 = 18;
const RESYNCS: u8 = 19;
const ASIDES: u8 = 20;

/// What the store notes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentRow {
    /// Its id.
    pub segment: SegmentId,
    /// Whose blocks it holds.
    pub volume: VolumeId,
    /// Where it is.
    pub home: Home,
    /// The first operation in it.
    pub first_lsn: Lsn,
    /// The last operation in it; `None` while it is open.
    pub last_lsn: Option<Lsn>,
    /// Whether trims, zeroes or resizes are in it: without it, `rebuild` would bring back what they took from older segments.
    pub has_holes: bool,
}

/// What the store notes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VolumeRow {
    /// Which.
    pub volume: VolumeId,
    /// Its size at `folded_to` or later.
    pub size_bytes: u64,
    /// The stored map holds everything up to here.
    pub folded_to: Lsn,
    /// An epoch that it has reached.
    pub epoch: Epoch,
    /// The generation at `folded_to`.
    pub generation: u64,
    /// Blocks that the stored map has, as it is now.
    pub mapped: u64,
}

/// The end of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Boundary {
    /// Which.
    pub generation: u64,
    /// The operation that ended it.
    pub lsn: Lsn,
    /// The volume's size there.
    pub size_bytes: u64,
    /// When it ended, milliseconds since 1970: a label, never compared.
    pub wall_ms: u64,
}

/// What the store notes of the end of a generation that somebody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BoundaryRow {
    /// Which.
    pub boundary: Boundary,
    /// Blocks that the stored map had there.
    pub mapped: u64,
    /// Its deletion is under way: nobody looks at it any more, and part of what it showed may be gone.
    pub is_leaving: bool,
}

/// What the store notes of the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoolRow {
    pub(super) pool: PoolId,
    pub(super) generation: u64,
    /// The first segment id that a slot of the window may bear.
    pub(super) window_first: SegmentId,
    /// No id from here on has been given out.
    pub(super) next_segment: SegmentId,
    pub(super) window: Vec<SlotIndex>,
}

impl PoolRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = INDEX_VERSION.to_le_bytes().to_vec();
        out.extend_from_slice(&self.pool.0);
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.window_first.0.to_le_bytes());
        out.extend_from_slice(&self.next_segment.0.to_le_bytes());
        for slot in &self.window {
            out.extend_from_slice(&slot.0.to_le_bytes());
        }
        out
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, OpenError> {
        let mut fields = Fields(value);
        let version = fields.take().map(u16::from_le_bytes);
        if let Some(version) = version.filter(|version| *version != INDEX_VERSION) {
            return Err(OpenError::OtherVersion(version));
        }
        let parse = |fields: &mut Fields<'_>| {
            let pool = PoolId(fields.take()?);
            let generation = fields.u64()?;
            let window_first = SegmentId(fields.u64()?);
            let next_segment = SegmentId(fields.u64()?);
            let (slots, rest) = fields.0.as_chunks::<4>();
            let window = slots.iter().map(|slot| SlotIndex(u32::from_le_bytes(*slot))).collect();
            rest.is_empty().then_some(Self { pool, generation, window_first, next_segment, window })
        };
        parse(&mut fields).ok_or(OpenError::Corrupt("the pool's row"))
    }
}

/// Encodes a segment's row, its live counts, and which of its blocks are left where it was moved.
pub(super) fn encode_segment(row: &SegmentRow, live: Option<Live>, survivors: Option<&Survivors>) -> Vec<u8> {
    let mut out = row.volume.0.to_le_bytes().to_vec();
    let flags = [row.last_lsn.is_some(), row.has_holes, live.is_none()];
    out.push(flags.into_iter().zip(0..).map(|(flag, bit)| u8::from(flag) << bit).sum());
    out.extend_from_slice(&row.first_lsn.0.to_le_bytes());
    out.extend_from_slice(&row.last_lsn.unwrap_or(Lsn::ZERO).0.to_le_bytes());
    out.extend(live.unwrap_or_default().eighths().into_iter().flat_map(u32::to_le_bytes));
    put_home(&row.home, &mut out);
    if let Some(survivors) = survivors.filter(|_| row.is_moved()) {
        put_survivors(survivors, &mut out);
    }
    out
}

pub(super) fn put_survivors(survivors: &Survivors, out: &mut Vec<u8>) {
    out.extend_from_slice(&survivors.slot_blocks().to_le_bytes());
    out.extend(survivors.words().iter().flat_map(|word| word.to_le_bytes()));
}

/// What the row of a segment says: it, its live counts where they are not lost, and which of its blocks are left where it
/// was moved.
type Decoded = (SegmentRow, Option<Live>, Option<Survivors>);

/// Decodes a segment's row.
pub(super) fn decode_segment(key: &[u8], value: &[u8]) -> Result<Decoded, OpenError> {
    let parse = || {
        let segment = SegmentId(read_key(key, SEGMENTS)?);
        let mut fields = Fields(value);
        let volume = VolumeId(fields.u64()?);
        let [flags] = fields.take()?;
        let first_lsn = Lsn(fields.u64()?);
        let last = Lsn(fields.u64()?);
        let mut eighths = [0; Cut::PARTS_MAX];
        for live in &mut eighths {
            *live = fields.u32().filter(|live| *live <= BLOCKS_MAX)?;
        }
        let live = (flags & 4 == 0).then(|| Live::of_eighths(eighths));
        let last_lsn = (flags & 1 != 0).then_some(last);
        let home = take_home(&mut fields)?;
        // The trunk is there as long as anything is.
        home.parcels().map_or(Some(()), |parcels| parcels.of(0).map(|_| ()))?;
        let survivors = if home.own().is_some() { None } else { Some(take_survivors(&mut fields)?) };
        let row = SegmentRow { segment, volume, home, first_lsn, last_lsn, has_holes: flags & 2 != 0 };
        (fields.0.is_empty() && flags < 8).then_some((row, live, survivors))
    };
    parse().ok_or(OpenError::Corrupt("a segment's row"))
}

pub(super) fn take_survivors(fields: &mut Fields<'_>) -> Option<Survivors> {
    let slot_blocks = fields.u32()?;
    let (words, rest) = std::mem::take(&mut fields.0).as_chunks::<8>();
    let is_whole = rest.is_empty() && words.len() as u64 == u64::from(slot_blocks).div_ceil(u64::from(u64::BITS));
    let words = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    is_whole.then(|| Survivors::of_words(slot_blocks, words))
}

pub(super) fn put_home(home: &Home, out: &mut Vec<u8>) {
    match home {
        Home::Own(slot) => {
            out.push(0);
            out.extend_from_slice(&slot.0.to_le_bytes());
        }
        Home::Parcels(parcels) => {
            out.extend([1, parcels.cut.log2(), parcels.parts().bits()]);
            for ParcelPlace { pack, slot, block, copy, header_blocks, moves, clean_lsn } in parcels.places() {
                out.extend_from_slice(&pack.0.to_le_bytes());
                out.extend([slot.0, block, copy, header_blocks, moves].into_iter().flat_map(u32::to_le_bytes));
                out.extend_from_slice(&clean_lsn.0.to_le_bytes());
            }
        }
    }
}

pub(super) fn take_home(fields: &mut Fields<'_>) -> Option<Home> {
    let [kind] = fields.take()?;
    match kind {
        0 => Some(Home::Own(SlotIndex(fields.u32()?))),
        1 => {
            let [cut, parts] = fields.take()?;
            let cut = Cut::of_log2(cut)?;
            let mut parcels = Parcels::none(cut);
            for part in (0..Cut::PARTS_MAX).filter(|part| PartSet::of_bits(parts).contains(*part)) {
                let (pack, slot) = (SegmentId(fields.u64()?), SlotIndex(fields.u32()?));
                let (block, copy, header_blocks, moves) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
                let clean_lsn = Lsn(fields.u64()?);
                if [block, copy, header_blocks].into_iter().any(|blocks| blocks > BLOCKS_MAX) {
                    return None;
                }
                parcels = parcels.with(part, ParcelPlace { pack, slot, block, copy, header_blocks, moves, clean_lsn });
            }
            (parcels.parts() == PartSet::of_bits(parts) && !parcels.is_empty()).then_some(Home::Parcels(parcels))
        }
        _ => None,
    }
}

pub(super) fn encode_left(places: &Home) -> Vec<u8> {
    let mut out = Vec::new();
    put_home(places, &mut out);
    out
}

pub(super) fn decode_left(key: &[u8], value: &[u8]) -> Result<(SegmentId, Home), OpenError> {
    let parse = || {
        let segment = SegmentId(read_key(key, LEFT)?);
        let mut fields = Fields(value);
        let places = take_home(&mut fields)?;
        fields.0.is_empty().then_some((segment, places))
    };
    parse().ok_or(OpenError::Corrupt("the row of a place that was left"))
}

pub(super) fn encode_pack(slot: SlotIndex) -> Vec<u8> {
    slot.0.to_le_bytes().to_vec()
}

pub(super) fn decode_pack(key: &[u8], value: &[u8]) -> Result<(SegmentId, SlotIndex), OpenError> {
    let pack = read_key(key, PACKS).map(SegmentId);
    let slot = value.try_into().ok().map(|slot| SlotIndex(u32::from_le_bytes(slot)));
    pack.zip(slot).ok_or(OpenError::Corrupt("a pack's row"))
}

pub(super) fn encode_volume(row: &VolumeRow) -> Vec<u8> {
    let mut out = row.size_bytes.to_le_bytes().to_vec();
    out.extend_from_slice(&row.folded_to.0.to_le_bytes());
    out.extend_from_slice(&row.epoch.0.to_le_bytes());
    out.extend_from_slice(&row.generation.to_le_bytes());
    out.extend_from_slice(&row.mapped.to_le_bytes());
    out
}

pub(super) fn decode_volume(key: &[u8], value: &[u8]) -> Result<VolumeRow, OpenError> {
    let parse = || {
        let volume = VolumeId(read_key(key, VOLUMES)?);
        let mut fields = Fields(value);
        let size_bytes = fields.u64()?;
        let folded_to = Lsn(fields.u64()?);
        let epoch = Epoch(fields.u64()?);
        let (generation, mapped) = (fields.u64()?, fields.u64()?);
        fields.0.is_empty().then_some(VolumeRow { volume, size_bytes, folded_to, epoch, generation, mapped })
    };
    parse().ok_or(OpenError::Corrupt("a volume's row"))
}

pub(super) fn encode_boundary(row: &BoundaryRow) -> Vec<u8> {
    let boundary = &row.boundary;
    let numbers = [boundary.lsn.0, boundary.wall_ms, boundary.size_bytes, row.mapped];
    numbers.iter().flat_map(|n| n.to_le_bytes()).chain([u8::from(row.is_leaving)]).collect()
}

/// Decodes a boundary's row and whose it is.
pub(super) fn decode_boundary(key: &[u8], value: &[u8]) -> Result<(VolumeId, BoundaryRow), OpenError> {
    let parse = || {
        let (volume, generation) = key.split_at_checked(9)?;
        let volume = VolumeId(read_key(volume, BOUNDARIES)?);
        let generation = u64::from_be_bytes(generation.try_into().ok()?);
        let mut fields = Fields(value);
        let (lsn, wall_ms) = (Lsn(fields.u64()?), fields.u64()?);
        let (size_bytes, mapped) = (fields.u64()?, fields.u64()?);
        let [flags] = fields.take()?;
        let boundary = Boundary { generation, lsn, size_bytes, wall_ms };
        let row = BoundaryRow { boundary, mapped, is_leaving: flags == 1 };
        (fields.0.is_empty() && flags < 2).then_some((volume, row))
    };
    parse().ok_or(OpenError::Corrupt("a boundary's row"))
}

pub(super) fn decode_erasing(key: &[u8]) -> Result<VolumeId, OpenError> {
    read_key(key, ERASING).map(VolumeId).ok_or(OpenError::Corrupt("the row of a volume that is being erased"))
}

pub(super) fn encode_parent(parent: Parent) -> Vec<u8> {
    [parent.volume.0, parent.generation].iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Decodes what an heir inherits, and whose that is.
pub(super) fn decode_parent(key: &[u8], value: &[u8]) -> Result<(VolumeId, Parent), OpenError> {
    let parse = || {
        let heir = VolumeId(read_key(key, PARENTS)?);
        let mut fields = Fields(value);
        let (volume, generation) = (VolumeId(fields.u64()?), fields.u64()?);
        (fields.0.is_empty() && volume < heir).then_some((heir, Parent { volume, generation }))
    };
    parse().ok_or(OpenError::Corrupt("the row of what a volume inherits"))
}

pub(super) fn decode_kept(key: &[u8]) -> Result<SlotIndex, OpenError> {
    let slot = key.split_first().filter(|(kind, _)| **kind == KEPT).and_then(|(_, slot)| slot.try_into().ok());
    slot.map(|slot| SlotIndex(u32::from_be_bytes(slot))).ok_or(OpenError::Corrupt("a kept slot's row"))
}

pub(super) fn segment_key(segment: SegmentId) -> Vec<u8> {
    key_of(SEGMENTS, segment.0)
}

pub(super) fn left_key(segment: SegmentId) -> Vec<u8> {
    key_of(LEFT, segment.0)
}

/// The row of a loan, by the first block of the borrower's slot.
pub(super) fn loan_key(borrower: SegmentId, block: u32) -> Vec<u8> {
    let mut key = key_of(LOANS, borrower.0);
    key.extend_from_slice(&block.to_be_bytes());
    key
}

/// The keys of all that a segment borrows: start and end.
pub(super) fn loan_keys(borrower: SegmentId) -> (Vec<u8>, Vec<u8>) {
    (key_of(LOANS, borrower.0), key_of(LOANS, borrower.0 + 1))
}

pub(super) fn encode_loan(loan: &Loan) -> Vec<u8> {
    let mut out = loan.count.to_le_bytes().to_vec();
    out.extend_from_slice(&loan.source.segment.0.to_le_bytes());
    out.extend_from_slice(&loan.source.block.to_le_bytes());
    out
}

/// Decodes a loan, and whose it is.
pub(super) fn decode_loan(key: &[u8], value: &[u8]) -> Result<(SegmentId, Loan), OpenError> {
    let parse = || {
        let (borrower, block) = key.split_at_checked(9)?;
        let borrower = SegmentId(read_key(borrower, LOANS)?);
        let block = u32::from_be_bytes(block.try_into().ok()?);
        let mut fields = Fields(value);
        let count = fields.u32()?;
        let source = Location { segment: SegmentId(fields.u64()?), block: u16::from_le_bytes(fields.take()?) };
        let is_in_slot = |first: u32| count > 0 && first.checked_add(count).is_some_and(|end| end <= BLOCKS_MAX);
        let is_sound = fields.0.is_empty() && is_in_slot(block) && is_in_slot(u32::from(source.block));
        is_sound.then_some((borrower, Loan { block, count, source }))
    };
    parse().ok_or(OpenError::Corrupt("the row of what a segment borrows"))
}

pub(super) fn pack_key(pack: SegmentId) -> Vec<u8> {
    key_of(PACKS, pack.0)
}

pub(super) fn volume_key(volume: VolumeId) -> Vec<u8> {
    key_of(VOLUMES, volume.0)
}

pub(super) fn parent_key(heir: VolumeId) -> Vec<u8> {
    key_of(PARENTS, heir.0)
}

pub(super) fn erasing_key(volume: VolumeId) -> Vec<u8> {
    key_of(ERASING, volume.0)
}

pub(super) fn meter_key(volume: VolumeId) -> Vec<u8> {
    key_of(METERS, volume.0)
}

pub(super) fn decode_meter_key(key: &[u8]) -> Option<VolumeId> {
    read_key(key, METERS).map(VolumeId)
}

pub(super) fn request_key(volume: VolumeId) -> Vec<u8> {
    key_of(REQUESTS, volume.0)
}

pub(super) fn decode_request_key(key: &[u8]) -> Option<VolumeId> {
    read_key(key, REQUESTS).map(VolumeId)
}

pub(super) fn resync_key(volume: VolumeId) -> Vec<u8> {
    key_of(RESYNCS, volume.0)
}

pub(super) fn volume_of_resync_key(key: &[u8]) -> Option<VolumeId> {
    read_key(key, RESYNCS).map(VolumeId)
}

pub(super) fn aside_key(segment: SegmentId) -> Vec<u8> {
    key_of(ASIDES, segment.0)
}

pub(super) fn segment_of_aside_key(key: &[u8]) -> Option<SegmentId> {
    read_key(key, ASIDES).map(SegmentId)
}

/// A stored page.
pub(super) fn encode_page(page: &Page, lsn: Lsn) -> Vec<u8> {
    let mut value = page.encode();
    value.extend_from_slice(&lsn.0.to_le_bytes());
    value
}

/// What a stored page is encoded as, and the last change in it.
pub(super) fn split_page(value: &[u8]) -> Option<(&[u8], Lsn)> {
    let (page, lsn) = value.split_last_chunk::<8>()?;
    Some((page, Lsn(u64::from_le_bytes(*lsn))))
}

pub(super) fn kept_key(slot: SlotIndex) -> Vec<u8> {
    let mut key = vec![KEPT];
    key.extend_from_slice(&slot.0.to_be_bytes());
    key
}

pub(super) fn boundary_key(volume: VolumeId, generation: u64) -> Vec<u8> {
    let mut key = key_of(BOUNDARIES, volume.0);
    key.extend_from_slice(&generation.to_be_bytes());
    key
}

/// The key that says that a page has a version of a generation.
pub(super) fn birth_key(volume: VolumeId, generation: u64, page: PageIndex) -> Vec<u8> {
    let mut key = key_of(BIRTHS, volume.0);
    key.extend_from_slice(&generation.to_be_bytes());
    key.extend_from_slice(&page.0.to_be_bytes());
    key
}

/// The key after all births of a volume up to the end of `generation`.
pub(super) fn births_end(volume: VolumeId, generation: u64) -> Vec<u8> {
    let [_, (_, end)] = generation_keys(volume);
    generation.checked_add(1).map_or(end, |next| birth_key(volume, next, PageIndex(0)))
}

/// The keys of all births of a volume up to a generation: start and end.
pub(super) fn births_to(volume: VolumeId, generation: u64) -> (Vec<u8>, Vec<u8>) {
    let [_, (from, _)] = generation_keys(volume);
    (from, births_end(volume, generation))
}

/// The generation of a birth's key.
pub(super) fn generation_of_birth(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(9..17)?.try_into().ok()?))
}

/// The page of a birth's key.
pub(super) fn page_of_birth(key: &[u8]) -> Option<PageIndex> {
    let page = key.get(17..)?.try_into().ok()?;
    Some(PageIndex(u64::from_be_bytes(page)))
}

/// The keys of all boundaries of a volume, and of all its births: starts and ends.
pub(super) fn generation_keys(volume: VolumeId) -> [(Vec<u8>, Vec<u8>); 2] {
    [BOUNDARIES, BIRTHS].map(|kind| {
        let end = volume.0.checked_add(1).map_or_else(|| vec![kind + 1], |next| key_of(kind, next));
        (key_of(kind, volume.0), end)
    })
}

/// The key that the versions of `page` begin with: the smallest of them and greater than all of the page before.
pub(super) fn page_start(volume: VolumeId, page: PageIndex) -> Vec<u8> {
    let mut key = key_of(PAGES, volume.0);
    key.extend_from_slice(&page.0.to_be_bytes());
    key
}

/// The key after all versions of `page`.
pub(super) fn page_end(volume: VolumeId, page: PageIndex) -> Vec<u8> {
    page.0.checked_add(1).map_or_else(|| pages_end(volume), |next| page_start(volume, PageIndex(next)))
}

/// The key of a page's version of a generation: later ones come first.
pub(super) fn page_key(volume: VolumeId, page: PageIndex, generation: u64) -> Vec<u8> {
    let mut key = page_start(volume, page);
    key.extend_from_slice(&(!generation).to_be_bytes());
    key
}

/// The key after all pages of `volume`.
pub(super) fn pages_end(volume: VolumeId) -> Vec<u8> {
    volume.0.checked_add(1).map_or_else(|| vec![PAGES + 1], |next| key_of(PAGES, next))
}

/// Which page, and which generation's version of it.
pub(super) fn version_of_key(key: &[u8]) -> Result<(PageIndex, u64), FormatError> {
    let (page, generation) =
        key.get(9..).and_then(|rest| rest.split_first_chunk::<8>()).ok_or(FormatError::Field("page key"))?;
    let generation = generation.try_into().map_err(|_| FormatError::Field("page key"))?;
    Ok((PageIndex(u64::from_be_bytes(*page)), !u64::from_be_bytes(generation)))
}

/// The keys of all segments, of all volumes, of all kept slots, of all packs, of all places left, of all boundaries, of all
/// that is borrowed, of all heirs, of all volumes that are being erased, of all that is used, of all resyncs, of all that is kept
/// aside: start and end.
pub(super) const SEGMENT_KEYS: (&[u8], &[u8]) = (&[SEGMENTS], &[SEGMENTS + 1]);
pub(super) const VOLUME_KEYS: (&[u8], &[u8]) = (&[VOLUMES], &[VOLUMES + 1]);
pub(super) const KEPT_KEYS: (&[u8], &[u8]) = (&[KEPT], &[KEPT + 1]);
pub(super) const PACK_KEYS: (&[u8], &[u8]) = (&[PACKS], &[PACKS + 1]);
pub(super) const LEFT_KEYS: (&[u8], &[u8]) = (&[LEFT], &[LEFT + 1]);
pub(super) const BOUNDARY_KEYS: (&[u8], &[u8]) = (&[BOUNDARIES], &[BOUNDARIES + 1]);
pub(super) const LOAN_KEYS: (&[u8], &[u8]) = (&[LOANS], &[LOANS + 1]);
pub(super) const PARENT_KEYS: (&[u8], &[u8]) = (&[PARENTS], &[PARENTS + 1]);
pub(super) const ERASING_KEYS: (&[u8], &[u8]) = (&[ERASING], &[ERASING + 1]);
pub(super) const METER_KEYS: (&[u8], &[u8]) = (&[METERS], &[METERS + 1]);
pub(super) const REQUEST_KEYS: (&[u8], &[u8]) = (&[REQUESTS], &[REQUESTS + 1]);
pub(super) const RESYNC_KEYS: (&[u8], &[u8]) = (&[RESYNCS], &[RESYNCS + 1]);
pub(super) const ASIDE_KEYS: (&[u8], &[u8]) = (&[ASIDES], &[ASIDES + 1]);

fn key_of(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn read_key(key: &[u8], kind: u8) -> Option<u64> {
    let (found, number) = key.split_first()?;
    (*found == kind).then_some(u64::from_be_bytes(number.try_into().ok()?))
}

pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
