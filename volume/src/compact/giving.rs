//! Places on their way to be free: of dead segments, of segments that were moved, of packs in which nothing is.
//!
//! Each leaves in this order: no read uses it; what it says is durable in the store; its header is made void; a sync; its
//! row goes and its slot is free. `pool rebuild` takes whatever is not void, so that a slot is never free before its void
//! header is durable. What goes wrong on the way leaves the place where it is, and is tried again with the next tick, but
//! for a failed sync: after that nothing leaves until the pool is opened anew.

use super::{Context, Ids, News};
use crate::buffer::Buffer;
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::format::{ParcelStart, SlotHeader, decode_parcel_start};
use crate::io::{Action, Event, FetchPiece, IoId};
use crate::pool::{Home, Index, ParcelPlace, SegmentRow};
use crate::store::Store;
use smallvec::smallvec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{BLOCK_LEN, SegmentId, VolumeId};

/// Most places made void in one round.
const ROUND_MAX: usize = 64;

/// A place. Of one segment the one that it has left comes first: no older place may outlive a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Going {
    /// Where a segment was, or parts of it, before they were moved.
    Left(SegmentId),
    /// Where a dead segment is.
    Segment(SegmentId),
    /// A pack in which nothing is that counts.
    Pack(SegmentId),
}

/// What is on its way to be free.
#[derive(Debug, Default)]
pub(super) struct Giving {
    /// Places whose readers have been told, and have not all answered.
    pinned: BTreeSet<Going>,
    /// Places that no read uses.
    ready: BTreeSet<Going>,
    /// Places whose headers the disk failed at the last try. They may never be free.
    pub(super) refused: BTreeSet<Going>,
    /// Of these one of two headers is void, durably, and the disk refuses the other.
    half_void: BTreeSet<Going>,
    round: Option<Round>,
    /// Void, durably, and still in the index since its store failed.
    voided: Vec<Going>,
    /// Segments that have gone since they were last asked for.
    gone: Vec<SegmentId>,
    /// Volumes that are to be forgotten.
    erasing: VecDeque<VolumeId>,
    /// A round failed: the next one begins with a tick.
    pub(super) waits_for_tick: bool,
    /// A sync failed. Never tried again: a second one may succeed over what was lost.
    pub(super) is_poisoned: bool,
}

/// Headers on their way to be void.
#[derive(Debug, Default)]
struct Round {
    places: BTreeSet<Going>,
    /// The volume that is to be forgotten, when they are one's.
    erases: Option<VolumeId>,
    /// First blocks of the headers of parcels: of these one sector changes, and the others stay as they are.
    reading: BTreeMap<IoId, (Going, ParcelPlace)>,
    writing: BTreeMap<IoId, Going>,
    failed: BTreeSet<Going>,
    /// Places of which a header was written.
    written: BTreeSet<Going>,
    sync: Option<IoId>,
}

impl Giving {
    /// Whether something is under way that may free slots soon. What waits for a tick, and headers that the disk refuses,
    /// are nothing to wait for.
    pub(super) fn is_freeing(&self) -> bool {
        if self.is_poisoned {
            return false;
        }
        let in_round = self.round.iter().flat_map(|round| &round.places);
        let waiting = self.ready.iter().filter(|_| self.may_begin());
        !self.pinned.is_empty() || in_round.chain(waiting).any(|place| !self.refused.contains(place))
    }

    pub(super) fn is_idle(&self) -> bool {
        let may_go_on = !self.ready.is_empty() && self.may_begin();
        self.round.is_none() && self.pinned.is_empty() && !may_go_on && self.erasing.is_empty()
    }

    /// Whether a segment, or the place that it has left, is on its way out.
    pub(super) fn has(&self, segment: SegmentId) -> bool {
        [Going::Left(segment), Going::Segment(segment)].iter().any(|place| self.is_on_its_way(place))
    }

    pub(super) fn is_on_its_way(&self, place: &Going) -> bool {
        self.pinned.contains(place)
            || self.ready.contains(place)
            || self.voided.contains(place)
            || self.round.as_ref().is_some_and(|round| round.places.contains(place))
    }

    /// Whether nothing in a pack counts any more for whoever looks into its slot: one header that says so is enough.
    pub(super) fn is_void<S: Store>(&self, index: &Index<S>, pack: SegmentId) -> bool {
        index.pack_slot(pack).is_none() || self.half_void.contains(&Going::Pack(pack))
    }

    /// A place is to be free once all that read it have answered that they do no more.
    pub(super) fn pin(&mut self, place: Going) {
        if is_missing(Safeguard::Pins) {
            self.ready.insert(place);
        } else {
            self.pinned.insert(place);
        }
    }

    /// A place is to be free, and no read uses it.
    pub(super) fn give(&mut self, place: Going) {
        if !self.is_on_its_way(&place) {
            self.ready.insert(place);
        }
    }

    /// No read uses the place of a segment that it was told to leave.
    pub(super) fn unpin(&mut self, segment: SegmentId) {
        // Never both: a segment is not told to leave before the place is void where it was before.
        for place in [Going::Left(segment), Going::Segment(segment)] {
            if self.pinned.remove(&place) {
                self.ready.insert(place);
            }
        }
    }

    /// The segments that have gone since the last call.
    pub(super) fn take_gone(&mut self) -> Vec<SegmentId> {
        std::mem::take(&mut self.gone)
    }

    pub(super) fn erase(&mut self, volume: VolumeId) {
        self.erasing.push_back(volume);
    }

    const fn may_begin(&self) -> bool {
        self.round.is_none() && !self.waits_for_tick && !self.is_poisoned
    }

    /// Begins the next round, when there is something for it. Volumes that `is_held` are not erased yet.
    pub(super) fn advance<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        is_held: impl Fn(VolumeId) -> bool,
    ) {
        if self.is_poisoned {
            for volume in std::mem::take(&mut self.erasing) {
                context.news.push(News::Erased(volume, Err(DiskFault::Io.into())));
            }
        }
        let erases = self.erasing.front().copied().filter(|volume| !is_held(*volume));
        if !self.may_begin() || (erases.is_none() && self.ready.is_empty()) {
            return;
        }
        // What is dead must stay dead when the store loses its end.
        if context.index.make_durable().is_err() {
            self.waits_for_tick = true;
            return;
        }
        let mut round = Round { erases, ..Round::default() };
        match erases {
            Some(volume) => {
                self.erasing.pop_front();
                round.places = places_of(context.index, volume);
                let index = &context.index;
                self.ready.retain(|place| volume_of(index, *place) != Some(volume));
            }
            None => {
                while round.places.len() < ROUND_MAX
                    && let Some(place) = self.ready.pop_first()
                {
                    round.places.insert(place);
                }
            }
        }
        if is_missing(Safeguard::VoidFirst) {
            return self.free(context, round.places);
        }
        round.begin(context, ids);
        self.round = Some(round);
    }

    /// Whether a fetch is of a block that is to become void.
    pub(super) fn is_reading(&self, id: IoId) -> bool {
        self.round.as_ref().is_some_and(|round| round.reading.contains_key(&id))
    }

    /// A block has been read that is to become void.
    pub(super) fn on_fetched<S: Store>(&mut self, context: &mut Context<'_, S>, ids: &mut Ids, event: Event) {
        let Event::Fetched { id, buffer, result } = event else { return };
        let Some(round) = &mut self.round else { return };
        let Some((place, parcel)) = round.reading.remove(&id) else { return };
        match void_header(buffer, parcel).filter(|_| result.is_ok()) {
            Some(block) => {
                for at in parcel.headers() {
                    let pool_offset = context.index.superblock().geometry.block_offset(parcel.slot, at);
                    round.write(context, ids, (place, pool_offset, Buffer::copy_of(&block)));
                }
            }
            // What cannot be read for certain may be read another time.
            None => {
                round.failed.insert(place);
                self.refused.insert(place);
            }
        }
        round.sync_if_written(context, ids);
    }

    pub(super) fn on_appended<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (id, result): (IoId, Result<(), DiskFault>),
    ) {
        let Some(round) = &mut self.round else { return };
        let Some(place) = round.writing.remove(&id) else { return };
        if result.is_err() {
            round.failed.insert(place);
            self.refused.insert(place);
        } else {
            round.written.insert(place);
            if !round.failed.contains(&place) {
                self.refused.remove(&place);
            }
        }
        round.sync_if_written(context, ids);
    }

    /// Returns the volumes of which something has gone.
    pub(super) fn on_synced<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        id: IoId,
        result: Result<(), DiskFault>,
    ) -> BTreeSet<VolumeId> {
        let Some(round) = self.round.take_if(|round| round.sync == Some(id)) else { return BTreeSet::new() };
        self.is_poisoned |= result.is_err();
        self.waits_for_tick |= !round.failed.is_empty();
        let has_all = result.is_ok() && round.failed.is_empty();
        if result.is_ok() {
            self.half_void.extend(round.failed.intersection(&round.written));
        }
        let (failed, voided): (BTreeSet<_>, BTreeSet<_>) =
            round.places.into_iter().partition(|place| round.failed.contains(place));
        self.ready.extend(failed);
        let volumes = voided.iter().filter_map(|place| volume_of(context.index, *place)).collect();
        if result.is_ok() {
            self.free(context, voided);
        }
        match round.erases {
            Some(volume) if has_all => self.go_on_erasing(context, volume),
            Some(volume) => context.news.push(News::Erased(volume, Err(DiskFault::Io.into()))),
            None => {}
        }
        volumes
    }

    fn go_on_erasing<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        if context.index.segments(volume).is_empty() {
            let forgotten = context.index.forget_volume(volume);
            context.news.push(News::Erased(volume, forgotten.map_err(Into::into)));
        } else if self.voided.is_empty() {
            self.erasing.push_front(volume);
        } else {
            context.news.push(News::Erased(volume, Err(DiskFault::Io.into())));
        }
    }

    /// Tries again to free what is void.
    pub(super) fn retry<S: Store>(&mut self, context: &mut Context<'_, S>) {
        self.waits_for_tick = false;
        let voided = std::mem::take(&mut self.voided);
        self.free(context, voided);
    }

    /// Frees places whose headers are void, durably.
    fn free<S: Store>(&mut self, context: &mut Context<'_, S>, voided: impl IntoIterator<Item = Going>) {
        for place in voided {
            let index = &mut *context.index;
            let packs = packs_of(index, place);
            let freed = match place {
                Going::Left(segment) => index.release_left(segment),
                // Its row tells whose the place is that it has left.
                Going::Segment(segment) if index.left_of(segment).is_some() => Err(DiskFault::Io),
                Going::Segment(segment) => index.release(segment),
                Going::Pack(pack) => index.release_pack(pack),
            };
            if freed.is_ok()
                && let Going::Segment(segment) = place
            {
                self.gone.push(segment);
            }
            if freed.is_err() {
                self.voided.push(place);
                self.waits_for_tick = true;
            } else {
                self.half_void.remove(&place);
                let empty = packs.into_iter().filter(|pack| index.is_empty_pack(*pack));
                empty.for_each(|pack| self.give(Going::Pack(pack)));
            }
        }
        context.news.push(News::Freed);
    }
}

impl Round {
    fn begin<S: Store>(&mut self, context: &mut Context<'_, S>, ids: &mut Ids) {
        let superblock = *context.index.superblock();
        for place in self.places.clone() {
            let Some((home, header)) = place_of(context.index, place) else {
                self.places.remove(&place);
                continue;
            };
            if let Some(slot) = home.own() {
                let mut block = Buffer::zeroed(BLOCK_LEN);
                header.encode(block.as_mut_slice());
                // The header of a pack is in its last block once more.
                let copy = matches!(place, Going::Pack(_)).then(|| superblock.geometry.slot_blocks() - 1);
                for at in [0].into_iter().chain(copy) {
                    let pool_offset = superblock.geometry.block_offset(slot, at);
                    self.write(context, ids, (place, pool_offset, Buffer::copy_of(block.as_slice())));
                }
            }
            for parcel in home.each_parcel().filter(|parcel| !parcel.is_nowhere()) {
                let id = ids.next();
                self.reading.insert(id, (place, parcel));
                let offset_of = |at| superblock.geometry.block_offset(parcel.slot, at);
                let [first, copy] = parcel.headers().map(offset_of);
                let pieces = smallvec![
                    FetchPiece { pool_offset: first, buffer_offset: 0, len: BLOCK_LEN },
                    FetchPiece { pool_offset: copy, buffer_offset: BLOCK_LEN, len: BLOCK_LEN },
                ];
                context.actions.push(Action::Fetch {
                    id,
                    buffer: Buffer::zeroed(2 * BLOCK_LEN),
                    pieces,
                    is_second_try: false,
                });
            }
        }
        self.sync_if_written(context, ids);
    }

    fn write<S>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (place, pool_offset, block): (Going, u64, Buffer),
    ) {
        let id = ids.next();
        self.writing.insert(id, place);
        context.actions.push(Action::Append { id, pool_offset, buffers: vec![block], to_peer: None });
    }

    fn sync_if_written<S>(&mut self, context: &mut Context<'_, S>, ids: &mut Ids) {
        if self.reading.is_empty() && self.writing.is_empty() && self.sync.is_none() {
            let id = ids.next();
            self.sync = Some(id);
            context.actions.push(Action::Sync { id });
        }
    }
}

/// Up to so many places of a volume's segments as one round takes: of each first those that it has left, and all but its
/// trunk, which goes last.
fn places_of<S: Store>(index: &mut Index<S>, volume: VolumeId) -> BTreeSet<Going> {
    let segments: Vec<SegmentId> = index.segments(volume).into_iter().map(|row| row.segment).take(ROUND_MAX).collect();
    let mut place_of = |segment| {
        if index.left_of(segment).is_some() || index.leave_trunk(segment) == Ok(true) {
            Going::Left(segment)
        } else {
            Going::Segment(segment)
        }
    };
    segments.into_iter().map(&mut place_of).collect()
}

fn volume_of<S: Store>(index: &Index<S>, place: Going) -> Option<VolumeId> {
    match place {
        Going::Left(segment) | Going::Segment(segment) => index.segment(segment).map(|row| row.volume),
        Going::Pack(_) => None,
    }
}

/// The packs that a place is in.
fn packs_of<S: Store>(index: &Index<S>, place: Going) -> BTreeSet<SegmentId> {
    let home = match place {
        Going::Left(segment) => index.left_of(segment).copied(),
        Going::Segment(segment) => index.segment(segment).map(|row| row.home),
        Going::Pack(_) => None,
    };
    home.iter().flat_map(Home::each_parcel).map(|parcel| parcel.pack).collect()
}

/// Where a place is, and the header that makes it void when it is a slot of its own.
fn place_of<S: Store>(index: &Index<S>, place: Going) -> Option<(Home, SlotHeader)> {
    let pool = index.superblock().pool;
    let void = |row: &SegmentRow| SlotHeader::void(pool, row.segment, row.volume, row.first_lsn);
    match place {
        Going::Left(segment) => {
            index.left_of(segment).zip(index.segment(segment)).map(|(left, row)| (*left, void(&row)))
        }
        Going::Segment(segment) => index.segment(segment).map(|row| (row.home, void(&row))),
        Going::Pack(pack) => index.pack_slot(pack).map(|slot| (Home::Own(slot), SlotHeader::void_pack(pool, pack))),
    }
}

/// The first block of a parcel's header, made void, of the two that were read: the other one may have rotted, and one that
/// is void already may be so in the page cache alone. `None` when neither is it.
fn void_header(mut blocks: Buffer, place: ParcelPlace) -> Option<Vec<u8>> {
    let is_it = |start: &ParcelStart| {
        let header = &start.header;
        (header.pack, header.block, header.copy, header.moves) == (place.pack, place.block, place.copy, place.moves)
    };
    blocks.as_mut_slice().chunks_exact_mut(BLOCK_LEN).find_map(|block| {
        let start = decode_parcel_start(block).ok().filter(is_it)?;
        start.make_void(block);
        Some(block.to_vec())
    })
}
