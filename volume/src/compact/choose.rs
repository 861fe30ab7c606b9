//! Which slots are compacted: of what is live in them, and of how old they are (docs/decisions/0007-compaction.md).
//!
//! A slot is worth moving when little of it is live, by a bound that grows as free slots become few. The best are taken
//! first, as many of them as give the most slots for what is moved: their segments must fill fewer packs than there were
//! slots. A segment is moved whole, into one pack.

use super::Shortage;
use crate::controls::{Safeguard, is_missing};
use crate::format::{pack_room_blocks, parcel_header_blocks};
use crate::pool::{Index, LeaseClass, SegmentRow};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet};
use units::{SegmentId, SlotIndex};

/// Most slots that are compacted together.
const VICTIMS_MAX: usize = 16;

/// Most segments that are moved together.
const SEGMENTS_MAX: usize = 512;

/// Most bytes of what was written, as footers and parcels tell it, that are held at a time.
const INDEX_BYTES_MAX: u64 = 32 << 20;

/// Bytes of a footer for each block of a slot, where every write was of one block.
const INDEX_BYTES_PER_BLOCK: u64 = 44;

/// Of a slot, in percent, at most so much is live of one that is compacted while slots are plenty.
const SHARE_WHILE_PLENTY: u32 = 25;

/// The same while slots are owed to whoever trimmed or deleted something: for each block that is given back at most four are
/// moved.
const SHARE_WHILE_OWED: u32 = 80;

/// While writers find slots, no more packs are written for one slot that is gained.
const PACKS_PER_GAIN: usize = 4;

/// What of a segment is to be moved: it, and the blocks that its parcel will have.
pub(super) type Item = (SegmentId, u32);

/// A slot that may be compacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Victim {
    pub(super) items: Vec<Item>,
    score: u128,
    index_bytes: u64,
}

/// How much the pool needs slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Need {
    /// Free slots.
    pub(super) free: u32,
    /// Of these, for data.
    for_data: u32,
    /// Compaction begins in earnest below so many for data, and goes as fast as it can below half of them.
    begins_below: u32,
    /// Slots that trims and deletions have not seen come back yet.
    owed: u64,
}

impl Need {
    pub(super) fn of<S: Store>(index: &Index<S>) -> Self {
        let (total, free) = index.slot_counts();
        let for_data = free.saturating_sub(index.kept_back(LeaseClass::Data));
        Self { free, for_data, begins_below: (total / 50).max(8), owed: index.owed_slots() }
    }

    /// Whether writers are about to find no slot.
    pub(super) const fn is_short(&self) -> bool {
        self.for_data <= self.begins_below / 2
    }

    /// What is left, when that is so.
    pub(super) const fn shortage(&self) -> Option<Shortage> {
        if !self.is_short() {
            return None;
        }
        Some(Shortage { left: self.for_data, bound: self.begins_below / 2 })
    }

    /// Whether slots are owed.
    pub(super) const fn is_owing(&self) -> bool {
        self.owed > 0
    }

    /// Most blocks of a hundred that are live in a slot that is worth moving.
    fn share_max(&self) -> u32 {
        let half = self.begins_below / 2;
        if self.is_short() {
            return 100;
        }
        let above = (self.for_data - half).min(half);
        let share = 100 - (100 - SHARE_WHILE_PLENTY) * above / half;
        if self.is_owing() { share.max(SHARE_WHILE_OWED) } else { share }
    }
}

/// The slots that may be compacted, the best first. `is_out` tells segments that may not be moved now; `overheads` the
/// blocks beside payload of parcels that were found to need more than one would think.
pub(super) fn victims<S: Store>(
    index: &Index<S>,
    is_out: impl Fn(SegmentId) -> bool,
    overheads: &BTreeMap<SegmentId, u32>,
) -> Vec<Victim> {
    let slot_blocks = index.superblock().geometry.slot_blocks();
    let hundredths_max = u64::from(slot_blocks) * u64::from(Need::of(index).share_max());
    let left = index.packs_left();
    let mut slots: BTreeMap<SlotIndex, Vec<(SegmentRow, u32)>> = BTreeMap::new();
    // Of these some segment has to stay.
    let mut blocked: BTreeSet<SlotIndex> = BTreeSet::new();
    for (row, live) in index.rows() {
        // Asked first, since most slots of a pool in use are such: a slot of its own, of which too much is live.
        if row.parcel.is_none() && live.is_some_and(|live| live.saturating_mul(100) > hundredths_max) {
            continue;
        }
        let stays = is_out(row.segment) || !may_move(index, row.segment);
        let live = live.and_then(|live| u32::try_from(live).ok()).filter(|_| !stays);
        match live {
            // It leaves by itself.
            Some(0) if !row.has_holes && row.parcel.is_none() => {}
            Some(live) if row.parcel.is_none_or(|parcel| !left.contains(&parcel.pack)) => {
                slots.entry(row.slot).or_default().push((row, live));
            }
            _ => {
                blocked.insert(row.slot);
            }
        }
    }
    let next = index.next_segment();
    let of_slot = slots.into_iter().filter(|(slot, _)| !blocked.contains(slot)).filter_map(|(_, rows)| {
        let item = |(row, live): &(SegmentRow, u32)| (row.segment, size_of(row, *live, overheads));
        let items: Vec<Item> = rows.iter().map(item).collect();
        let size: u32 = items.iter().map(|(_, size)| size).sum();
        let is_worth = u64::from(size) * 100 <= hundredths_max;
        is_worth.then(|| Victim {
            items,
            score: score_of(slot_blocks, next, &rows),
            index_bytes: rows.iter().map(|(row, _)| index_bytes_of(row, slot_blocks)).sum(),
        })
    });
    let mut victims: Vec<Victim> = of_slot.collect();
    // Of those that are worth the same, the oldest first: the order must be the same in every run.
    victims.sort_by(|one, other| other.score.cmp(&one.score).then_with(|| one.items.cmp(&other.items)));
    victims
}

/// Takes segments that are not folded, too, when told so.
fn may_move<S: Store>(index: &Index<S>, segment: SegmentId) -> bool {
    let is_stale = is_missing(Safeguard::FoldedFirst) || is_missing(Safeguard::SecondCheck);
    index.may_move(segment) || (is_stale && index.is_sealed_of_open(segment))
}

/// The blocks that a segment's parcel will have, as far as that can be told without reading its index.
fn size_of(row: &SegmentRow, live: u32, overheads: &BTreeMap<SegmentId, u32>) -> u32 {
    let header = parcel_header_blocks(live as usize, live as usize);
    let with_holes = row.parcel.filter(|_| row.has_holes).map_or(0, |parcel| parcel.header_blocks);
    // The header of a parcel is in its pack twice.
    live + overheads.get(&row.segment).copied().unwrap_or_else(|| 2 * header.max(with_holes))
}

fn index_bytes_of(row: &SegmentRow, slot_blocks: u32) -> u64 {
    let of_footer = u64::from(slot_blocks) * INDEX_BYTES_PER_BLOCK;
    row.parcel.map_or(of_footer, |parcel| u64::from(parcel.header_blocks) << 12)
}

/// (1 - l)^4 age / l, but for a factor that all have. Age is counted in segment ids; of a pack it is the mean of its segments'.
fn score_of(slot_blocks: u32, next: SegmentId, rows: &[(SegmentRow, u32)]) -> u128 {
    let live: u32 = rows.iter().map(|(_, live)| *live).sum();
    let weighted = rows.iter().map(|(row, live)| {
        let age = next.0.saturating_sub(row.segment.0);
        u128::from(age) * u128::from((*live).max(1))
    });
    let weights: u128 = rows.iter().map(|(_, live)| u128::from((*live).max(1))).sum();
    let age = weighted.sum::<u128>() / weights.max(1);
    // At most 2^64 by 2^40.
    u128::from(slot_blocks.saturating_sub(live)).pow(4) * age / u128::from(live.max(1))
}

/// How many of the first `victims` are best moved together: as many as give the most slots for each pack that is written.
/// `None` when no number gives one.
pub(super) fn count(victims: &[Victim], need: Need, slot_blocks: u32) -> Option<usize> {
    let (mut items, mut index_bytes) = (Vec::new(), 0);
    let mut best: Option<(usize, usize, usize)> = None;
    for (victim, count) in victims.iter().zip(1..=VICTIMS_MAX) {
        items.push(victim.items.clone());
        index_bytes += victim.index_bytes;
        if items.iter().map(Vec::len).sum::<usize>() > SEGMENTS_MAX || index_bytes > INDEX_BYTES_MAX {
            break;
        }
        let Some(packs) = packs(&items, slot_blocks) else { break };
        let (packs, gain) = (packs.len(), count.saturating_sub(packs.len()));
        let is_dear = need.for_data > 0 && packs > PACKS_PER_GAIN * gain;
        let is_better = best.is_none_or(|(_, best_packs, best_gain)| gain * best_packs > best_gain * packs);
        if gain > 0 && !is_dear && is_better {
            best = Some((count, packs, gain));
        }
    }
    best.map(|(count, _, _)| count)
}

/// Which segments go into which pack: each into the first that has room. `None` when one fits into no pack.
pub(super) fn packs(victims: &[Vec<Item>], slot_blocks: u32) -> Option<Vec<Vec<SegmentId>>> {
    let room = pack_room_blocks(slot_blocks);
    let mut packs: Vec<(u32, Vec<SegmentId>)> = Vec::new();
    for (segment, size) in victims.iter().flatten().copied() {
        if size > room {
            return None;
        }
        match packs.iter_mut().find(|(filled, _)| *filled + size <= room) {
            Some((filled, segments)) => {
                *filled += size;
                segments.push(segment);
            }
            None => packs.push((size, vec![segment])),
        }
    }
    Some(packs.into_iter().map(|(_, segments)| segments).collect())
}
