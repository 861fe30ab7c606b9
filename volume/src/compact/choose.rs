//! Which slots are compacted: of what is live in them, and of how old they are (docs/decisions/0007-compaction.md).
//!
//! A slot is worth moving when little of it is live, by a bound that grows as free slots become few. The best are taken
//! first, as many of them as give the most slots for what is moved: their segments must fill fewer packs than there were
//! slots. Segments are cut into parts, so that packs are full.

use super::Shortage;
use super::parcel::cut_of;
use crate::controls::{Safeguard, is_missing};
use crate::format::{PartSet, pack_room_blocks, parcel_header_blocks};
use crate::pool::{Home, Index, LeaseClass, Live, SegmentRow};
use crate::store::Store;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use units::{SegmentId, SlotIndex};

/// Most slots that are compacted together.
const VICTIMS_MAX: usize = 16;

/// Most parts of segments that are moved together.
const PIECES_MAX: usize = 2048;

/// Most bytes of what was written, as footers and parcels tell it, that are held at a time.
const INDEX_BYTES_MAX: u64 = 32 << 20;

/// Bytes of a footer for each block of a slot, where every write was of one block.
const INDEX_BYTES_PER_BLOCK: u64 = 44;

/// Of a slot, in percent, at most so much is live of one that is compacted while slots are plenty.
const SHARE_WHILE_PLENTY: u32 = 25;

/// The same while slots are owed to whoever trimmed or deleted something: for each block that is given back at most four are
/// moved.
const SHARE_WHILE_OWED: u32 = 80;

/// While writers find slots, so many packs at most are written by one round.
const PACKS_WHILE_PLENTY: usize = 6;

/// While writers find slots, no more packs are written for one slot that is gained.
const PACKS_PER_GAIN: usize = 4;

/// A part of a segment.
pub(super) type Piece = (SegmentId, usize);

/// A part that is to be moved, and the blocks that it will take of a pack.
pub(super) type Item = (Piece, u32);

/// A slot that may be compacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Victim {
    /// The segments in it, and which parts of each are there.
    pub(super) segments: Vec<(SegmentId, PartSet)>,
    items: Vec<Item>,
    score: u128,
    index_bytes: u64,
}

impl Victim {
    /// Blocks that it will take of packs.
    fn size(&self) -> u32 {
        self.items.iter().map(|(_, size)| size).sum()
    }
}

/// What a round has found that a segment takes of packs.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// Live blocks that it had then.
    pub(super) live: u64,
    /// The parts that were looked at.
    pub(super) parts: PartSet,
    /// What they take.
    pub(super) items: Vec<Item>,
    /// Blocks beside what was live: of headers, and of what is lent.
    pub(super) overhead: u32,
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
    /// Most packs that may be in the making at once: none comes to count before all of them are written.
    packs_max: usize,
}

impl Need {
    pub(super) fn of<S: Store>(index: &Index<S>) -> Self {
        let (total, free) = index.slot_counts();
        let for_data = free.saturating_sub(index.kept_back(LeaseClass::Data));
        // Those that nobody else may have are there for certain, and of the others half, while writers find any. Once they
        // find none all wait for what comes of this: trims, too.
        let certain = index.kept_back(LeaseClass::Reserve).max(free / 2);
        let packs_max = if for_data == 0 { free } else { free.min(certain) } as usize;
        let need = Self { free, for_data, begins_below: (total / 50).max(8), owed: index.owed_slots(), packs_max };
        // One part that must stay ends all of a round: so it is as short as it may be.
        if need.is_short() { need } else { Self { packs_max: packs_max.min(PACKS_WHILE_PLENTY), ..need } }
    }

    /// The same with no more packs than these.
    pub(super) fn with_packs(self, packs_max: Option<usize>) -> Self {
        Self { packs_max: packs_max.map_or(self.packs_max, |max| max.min(self.packs_max)), ..self }
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

/// What of a segment is in a slot: its row, the parts, and how many of their blocks are live.
struct There<'a> {
    row: &'a SegmentRow,
    parts: PartSet,
    live: Live,
    /// Blocks of `parts` that are live.
    count: u32,
}

/// The slots that may be compacted, the best first. `is_out` tells segments that may not be moved now; `found` what
/// segments were found to take, which may be more than one would think.
pub(super) fn victims<S: Store>(
    index: &Index<S>,
    is_out: impl Fn(SegmentId) -> bool,
    found: &BTreeMap<SegmentId, Sizes>,
) -> Vec<Victim> {
    let slot_blocks = index.superblock().geometry.slot_blocks();
    let hundredths_max = u64::from(slot_blocks) * u64::from(Need::of(index).share_max());
    let left = index.packs_left();
    let mut slots: BTreeMap<SlotIndex, Vec<There<'_>>> = BTreeMap::new();
    // Of these something has to stay.
    let mut blocked: BTreeSet<SlotIndex> = BTreeSet::new();
    for (row, live) in index.rows() {
        // Asked first, since most slots of a pool in use are such: a slot of its own, of which too much is live.
        if !row.is_moved() && live.is_some_and(|live| live.total().saturating_mul(100) > hundredths_max) {
            continue;
        }
        let Some(live) = live.filter(|_| !is_out(row.segment) && may_move(index, row.segment)) else {
            blocked.extend(row.home.slots());
            continue;
        };
        match &row.home {
            // It leaves by itself.
            Home::Own(_) if live.total() == 0 && !row.has_holes && !index.is_lent(row.segment) => {}
            Home::Own(slot) => {
                let count = u32::try_from(live.total()).unwrap_or(u32::MAX);
                slots.entry(*slot).or_default().push(There { row, parts: PartSet::ALL, live, count });
            }
            Home::Parcels(parcels) => {
                for (part, place) in parcels.each() {
                    let there = slots.entry(place.slot).or_default();
                    if there.last().is_none_or(|last| last.row.segment != row.segment) {
                        there.push(There { row, parts: PartSet::default(), live, count: 0 });
                    }
                    if let Some(there) = there.last_mut() {
                        there.parts = there.parts.and(PartSet::of_part(part));
                        there.count += live.of_part(parcels.cut, part);
                    }
                }
                blocked.extend(parcels.places().filter(|place| left.contains(&place.pack)).map(|place| place.slot));
            }
        }
    }
    let next = index.next_segment();
    let of_slot = slots.into_iter().filter(|(slot, _)| !blocked.contains(slot)).filter_map(|(_, there)| {
        let items: Vec<Item> = there.iter().flat_map(|there| there.items(slot_blocks, found)).collect();
        let size: u32 = items.iter().map(|(_, size)| size).sum();
        let is_worth = u64::from(size) * 100 <= hundredths_max;
        is_worth.then(|| Victim {
            segments: there.iter().map(|there| (there.row.segment, there.parts)).collect(),
            items,
            score: score_of(slot_blocks, next, &there),
            index_bytes: there.iter().map(|there| there.index_bytes(slot_blocks)).sum(),
        })
    });
    let mut victims: Vec<Victim> = of_slot.collect();
    // Of those that are worth the same, the oldest first: the order must be the same in every run.
    victims.sort_by(|one, other| other.score.cmp(&one.score).then_with(|| one.items.cmp(&other.items)));
    victims
}

impl There<'_> {
    /// What is to be moved of it, as far as that can be told without reading any index.
    fn items(&self, slot_blocks: u32, found: &BTreeMap<SegmentId, Sizes>) -> Vec<Item> {
        let segment = self.row.segment;
        let found = found.get(&segment);
        let is_as_then = |found: &&Sizes| found.live == self.live.total() && self.parts.without(found.parts).is_empty();
        if let Some(found) = found.filter(is_as_then) {
            return found.items.iter().filter(|((_, part), _)| self.parts.contains(*part)).copied().collect();
        }
        let parcels = self.row.home.parcels();
        let cut = parcels.map_or_else(|| cut_of(self.count, slot_blocks), |parcels| parcels.cut);
        // The trunk stays while there is anything else.
        let parts = (0..cut.parts()).filter(|part| self.parts.contains(*part));
        let stays = parts.filter(|part| *part == 0 || self.live.of_part(cut, *part) > 0);
        let item = |part: usize| {
            let live = self.live.of_part(cut, part);
            let header = parcel_header_blocks(live as usize, live as usize);
            let trunk = parcels.and_then(|parcels| parcels.of(part)).filter(|_| part == 0 && self.row.has_holes);
            // The header of a parcel is in its pack twice.
            ((segment, part), live + 2 * header.max(trunk.map_or(0, |place| place.header_blocks)))
        };
        let mut items: Vec<Item> = stays.map(item).collect();
        let told: u32 = items.iter().map(|(_, size)| size).sum();
        if let Some(more) = found.map(|found| (self.count + found.overhead).saturating_sub(told))
            && let Some((_, size)) = items.first_mut()
        {
            *size += more;
        }
        items
    }

    /// Bytes of what tells of it.
    fn index_bytes(&self, slot_blocks: u32) -> u64 {
        match &self.row.home {
            Home::Own(_) => u64::from(slot_blocks) * INDEX_BYTES_PER_BLOCK,
            Home::Parcels(parcels) => {
                let here = parcels.each().filter(|(part, _)| self.parts.contains(*part));
                here.map(|(_, place)| u64::from(place.header_blocks) << 12).sum()
            }
        }
    }
}

/// Takes segments that are not folded, too, when told so.
fn may_move<S: Store>(index: &Index<S>, segment: SegmentId) -> bool {
    let is_stale = is_missing(Safeguard::FoldedFirst) || is_missing(Safeguard::SecondCheck);
    index.may_move(segment) || (is_stale && index.is_sealed_of_open(segment))
}

/// (1 - l)^4 age / l, but for a factor that all have. Age is counted in segment ids; of a pack it is the mean of its segments'.
fn score_of(slot_blocks: u32, next: SegmentId, there: &[There<'_>]) -> u128 {
    let live: u32 = there.iter().map(|there| there.count).sum();
    let weighted = there.iter().map(|there| {
        let age = next.0.saturating_sub(there.row.segment.0);
        u128::from(age) * u128::from(there.count.max(1))
    });
    let weights: u128 = there.iter().map(|there| u128::from(there.count.max(1))).sum();
    let age = weighted.sum::<u128>() / weights.max(1);
    // At most 2^64 by 2^40.
    u128::from(slot_blocks.saturating_sub(live)).pow(4) * age / u128::from(live.max(1))
}

/// Those of `victims` that are moved together: none when no slot is to be gained. Where the best are so old that they are too
/// full, the emptiest may still give one; where these are of too many parts, the emptiest of few.
pub(super) fn pick(mut victims: Vec<Victim>, need: Need, slot_blocks: u32) -> Vec<Victim> {
    let mut found = count(&victims, need, slot_blocks);
    if found.is_none() {
        victims.sort_by_key(Victim::size);
        found = count(&victims, need, slot_blocks);
    }
    if found.is_none() {
        victims.retain(|victim| victim.items.len() <= PIECES_MAX / VICTIMS_MAX);
        found = count(&victims, need, slot_blocks);
    }
    victims.truncate(found.unwrap_or(0));
    victims
}

/// How many of the first `victims` are best moved together: as many as give the most slots for each pack that is written.
/// `None` when no number gives one.
fn count(victims: &[Victim], need: Need, slot_blocks: u32) -> Option<usize> {
    let (mut items, mut index_bytes) = (Vec::new(), 0);
    let mut best: Option<(usize, usize, usize)> = None;
    for (victim, count) in victims.iter().zip(1..=VICTIMS_MAX) {
        items.push(victim.items.clone());
        index_bytes += victim.index_bytes;
        if items.iter().map(Vec::len).sum::<usize>() > PIECES_MAX || index_bytes > INDEX_BYTES_MAX {
            break;
        }
        let Some(packs) = packs(&items, slot_blocks).map(|packs| packs.len()) else { break };
        if packs > need.packs_max {
            break;
        }
        let gain = count.saturating_sub(packs);
        let is_dear = need.for_data > 0 && packs > PACKS_PER_GAIN * gain;
        let is_better = best.is_none_or(|(_, best_packs, best_gain)| {
            gain * best_packs > best_gain * packs || (packs == best_packs && gain > best_gain)
        });
        if gain > 0 && !is_dear && is_better {
            best = Some((count, packs, gain));
        }
    }
    best.map(|(count, _, _)| count)
}

/// What goes into which pack: each part into the first that has room, the largest first. `None` when one fits into no pack.
pub(super) fn packs(victims: &[Vec<Item>], slot_blocks: u32) -> Option<Vec<Vec<Piece>>> {
    let room = pack_room_blocks(slot_blocks);
    let mut packs: Vec<(u32, Vec<Piece>)> = Vec::new();
    let mut items: Vec<Item> = victims.iter().flatten().copied().collect();
    items.sort_by_key(|(_, size)| Reverse(*size));
    for (piece, size) in items {
        if size > room {
            return None;
        }
        match packs.iter_mut().find(|(filled, _)| *filled + size <= room) {
            Some((filled, pieces)) => {
                *filled += size;
                pieces.push(piece);
            }
            None => packs.push((size, vec![piece])),
        }
    }
    Some(packs.into_iter().map(|(_, pieces)| pieces).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot of which four parts, of a quarter of `size` each, are left.
    fn victim(slot: u64, size: u32) -> Victim {
        let items = (0..4).map(|part| ((SegmentId(slot), part), size / 4)).collect();
        Victim { segments: vec![(SegmentId(slot), PartSet::ALL)], items, score: 0, index_bytes: 0 }
    }

    /// P6. Old slots come first for their age; where all of them are too full to give a slot, others that do are moved.
    #[test]
    fn the_emptiest_slots_are_taken_when_the_oldest_give_nothing() {
        let need = Need { free: 3, for_data: 0, begins_below: 8, owed: 0, packs_max: 3 };
        let old = (0..20).map(|slot| victim(slot, 240));
        let emptier = (20..24).map(|slot| victim(slot, 160));
        let picked = pick(old.chain(emptier).collect(), need, 256);
        let slots: Vec<u64> = picked.iter().map(|victim| victim.segments[0].0.0).collect();
        assert_eq!(slots, [20, 21, 22]);
        assert!(pick((0..20).map(|slot| victim(slot, 240)).collect(), need, 256).is_empty());
    }

    /// P6. Packs of very many little parts hide no slot that could be gained.
    #[test]
    fn packs_of_many_parts_hide_no_others() {
        let need = Need { free: 3, for_data: 0, begins_below: 8, owed: 0, packs_max: 3 };
        let full_of_parts = |slot: u64| {
            let items = (0..1500).map(|part| ((SegmentId(slot << 20 | part), 0), 3)).collect();
            Victim { segments: vec![(SegmentId(slot), PartSet::ALL)], items, score: 9, index_bytes: 0 }
        };
        let others = || (10..20).map(|slot| victim(slot, 4800));
        assert!(!pick(others().collect(), need, 8192).is_empty());
        let all = (0..2).map(full_of_parts).chain(others());
        assert!(!pick(all.collect(), need, 8192).is_empty());
    }
}
