//! Keys and values of the index in the store.
//!
//! | key | value |
//! | --- | --- |
//! | 0 | the pool: version 2, pool id 16, generation 8, window's first segment 8, next segment 8, the window's slots 4 each |
//! | 1, segment 8 | a segment: volume 8, slot 4, flags 1 (bit 0 sealed, bit 1 holes), first LSN 8, last LSN 8, live 8 |
//! | 2, volume 8 | a volume: size 8, folded to 8, epoch 8 |
//! | 3, volume 8, page 8, inverted generation 4 | a page of the map |
//! | 4, slot 4 | nothing: a slot that is kept out of use |
//!
//! Numbers in keys are big-endian, so that the order of keys is theirs; in values little-endian.

use super::OpenError;
use crate::format::FormatError;
use crate::io::PageIndex;
use units::{Epoch, Lsn, PoolId, SegmentId, SlotIndex, VolumeId};

/// The version of keys and values; another one is made anew from the pool.
const INDEX_VERSION: u16 = 1;

/// A live count that has been lost: the segment is never taken for dead.
pub(super) const LIVE_UNKNOWN: u64 = u64::MAX;

pub(super) const POOL_KEY: &[u8] = &[0];
const SEGMENTS: u8 = 1;
const VOLUMES: u8 = 2;
const PAGES: u8 = 3;
const KEPT: u8 = 4;

/// What the store notes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentRow {
    /// Its id.
    pub segment: SegmentId,
    /// Whose blocks it holds.
    pub volume: VolumeId,
    /// Where it is.
    pub slot: SlotIndex,
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
        let parse = |fields: &mut Fields<'_>| {
            if u16::from_le_bytes(fields.take()?) != INDEX_VERSION {
                return None;
            }
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

pub(super) fn encode_segment(row: &SegmentRow, live: u64) -> Vec<u8> {
    let mut out = row.volume.0.to_le_bytes().to_vec();
    out.extend_from_slice(&row.slot.0.to_le_bytes());
    out.push(u8::from(row.last_lsn.is_some()) | u8::from(row.has_holes) << 1);
    out.extend_from_slice(&row.first_lsn.0.to_le_bytes());
    out.extend_from_slice(&row.last_lsn.unwrap_or(Lsn::ZERO).0.to_le_bytes());
    out.extend_from_slice(&live.to_le_bytes());
    out
}

/// Decodes a segment's row and its live count.
pub(super) fn decode_segment(key: &[u8], value: &[u8]) -> Result<(SegmentRow, u64), OpenError> {
    let parse = || {
        let segment = SegmentId(read_key(key, SEGMENTS)?);
        let mut fields = Fields(value);
        let volume = VolumeId(fields.u64()?);
        let slot = SlotIndex(u32::from_le_bytes(fields.take()?));
        let [flags] = fields.take()?;
        let first_lsn = Lsn(fields.u64()?);
        let last = Lsn(fields.u64()?);
        let live = fields.u64()?;
        let last_lsn = (flags & 1 != 0).then_some(last);
        let row = SegmentRow { segment, volume, slot, first_lsn, last_lsn, has_holes: flags & 2 != 0 };
        (fields.0.is_empty() && flags < 4).then_some((row, live))
    };
    parse().ok_or(OpenError::Corrupt("a segment's row"))
}

pub(super) fn encode_volume(row: &VolumeRow) -> Vec<u8> {
    let mut out = row.size_bytes.to_le_bytes().to_vec();
    out.extend_from_slice(&row.folded_to.0.to_le_bytes());
    out.extend_from_slice(&row.epoch.0.to_le_bytes());
    out
}

pub(super) fn decode_volume(key: &[u8], value: &[u8]) -> Result<VolumeRow, OpenError> {
    let parse = || {
        let volume = VolumeId(read_key(key, VOLUMES)?);
        let mut fields = Fields(value);
        let size_bytes = fields.u64()?;
        let folded_to = Lsn(fields.u64()?);
        let epoch = Epoch(fields.u64()?);
        fields.0.is_empty().then_some(VolumeRow { volume, size_bytes, folded_to, epoch })
    };
    parse().ok_or(OpenError::Corrupt("a volume's row"))
}

pub(super) fn decode_kept(key: &[u8]) -> Result<SlotIndex, OpenError> {
    let slot = key.split_first().filter(|(kind, _)| **kind == KEPT).and_then(|(_, slot)| slot.try_into().ok());
    slot.map(|slot| SlotIndex(u32::from_be_bytes(slot))).ok_or(OpenError::Corrupt("a kept slot's row"))
}

pub(super) fn segment_key(segment: SegmentId) -> Vec<u8> {
    key_of(SEGMENTS, segment.0)
}

pub(super) fn volume_key(volume: VolumeId) -> Vec<u8> {
    key_of(VOLUMES, volume.0)
}

pub(super) fn kept_key(slot: SlotIndex) -> Vec<u8> {
    let mut key = vec![KEPT];
    key.extend_from_slice(&slot.0.to_be_bytes());
    key
}

/// The key that the pages of `page` begin with: the smallest of them and greater than all of the page before.
pub(super) fn page_start(volume: VolumeId, page: PageIndex) -> Vec<u8> {
    let mut key = key_of(PAGES, volume.0);
    key.extend_from_slice(&page.0.to_be_bytes());
    key
}

/// The key of a page in generation 0, the only one until there are snapshots.
pub(super) fn page_key(volume: VolumeId, page: PageIndex) -> Vec<u8> {
    let mut key = page_start(volume, page);
    key.extend_from_slice(&(!0_u32).to_be_bytes());
    key
}

/// The key after all pages of `volume`.
pub(super) fn pages_end(volume: VolumeId) -> Vec<u8> {
    volume.0.checked_add(1).map_or_else(|| vec![PAGES + 1], |next| key_of(PAGES, next))
}

pub(super) fn page_of_key(key: &[u8]) -> Result<PageIndex, FormatError> {
    let index = key.get(9..17).and_then(|bytes| bytes.try_into().ok()).ok_or(FormatError::Field("page key"))?;
    Ok(PageIndex(u64::from_be_bytes(index)))
}

/// The keys of all segments, of all volumes, of all kept slots: start and end.
pub(super) const SEGMENT_KEYS: (&[u8], &[u8]) = (&[SEGMENTS], &[SEGMENTS + 1]);
pub(super) const VOLUME_KEYS: (&[u8], &[u8]) = (&[VOLUMES], &[VOLUMES + 1]);
pub(super) const KEPT_KEYS: (&[u8], &[u8]) = (&[KEPT], &[KEPT + 1]);

fn key_of(kind: u8, number: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

fn read_key(key: &[u8], kind: u8) -> Option<u64> {
    let (found, number) = key.split_first()?;
    (*found == kind).then_some(u64::from_be_bytes(number.try_into().ok()?))
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
