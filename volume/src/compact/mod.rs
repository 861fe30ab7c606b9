//! Giving slots back, sans-io, beside the index that it works on.
//!
//! A segment that is dead ([`Index::dead_segments`]) leaves in this order: its volume is told, and answers when no read
//! uses it; its death is made durable in the store; its header is made void; a sync; its row goes and its slot is free.
//! `pool rebuild` replays every segment that it finds, so that a slot is never free before its void header is durable.
//! What goes wrong on the way leaves the segment where it is, and is tried again with the next tick, but for a failed sync:
//! after that nothing leaves until the pool is opened anew.
//!
//! What it wants done comes as [`Action`]s of appends and syncs, which come back by [`Compactor::handle`].

#[cfg(feature = "negative-controls")]
pub mod controls;
mod holders;
#[cfg(test)]
pub(crate) mod parcel;

use crate::buffer::Buffer;
use crate::error::DiskFault;
use crate::format::{SlotHeader, Superblock};
use crate::io::{Action, Event, IoId};
use crate::pool::{Index, Place, SegmentRow};
use crate::store::Store;
use holders::Holders;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{BLOCK_LEN, SegmentId, VolumeId};

/// Most headers made void in one round.
const ROUND_MAX: usize = 64;

/// Gives slots back.
#[derive(Debug, Default)]
pub struct Compactor {
    /// Segments whose readers have been told, and have not all answered.
    pinned: BTreeMap<SegmentId, VolumeId>,
    holders: Holders,
    /// Segments that no read uses.
    unpinned: BTreeMap<SegmentId, VolumeId>,
    /// Segments whose headers the disk failed at the last try. Their slots may never be free.
    refused: BTreeSet<SegmentId>,
    round: Option<Round>,
    /// Void, durably, and still in the index since its store failed.
    voided: Vec<SegmentId>,
    /// Volumes that are to be forgotten.
    erasing: VecDeque<VolumeId>,
    next_io: u64,
    /// A round failed: the next one begins with a tick.
    waits_for_tick: bool,
    /// A sync failed. Never tried again: a second one may succeed over what was lost.
    is_poisoned: bool,
}

/// Headers on their way to be void.
#[derive(Debug)]
struct Round {
    rows: BTreeMap<SegmentId, VolumeId>,
    /// The volume that is to be forgotten, when it is one's.
    erases: Option<VolumeId>,
    writing: BTreeMap<IoId, SegmentId>,
    failed: BTreeSet<SegmentId>,
    sync: Option<IoId>,
}

/// What the compactor works on, and where what it wants goes.
#[derive(Debug)]
pub struct Context<'a, S> {
    /// The index.
    pub index: &'a mut Index<S>,
    /// What is to be done on the disk, in the order it must begin.
    pub actions: &'a mut Vec<Action>,
    /// What others are to be told.
    pub news: &'a mut Vec<News>,
}

/// What others are to be told.
#[derive(Debug)]
pub enum News {
    /// An event for an open volume.
    Tell(VolumeId, Event),
    /// The end of [`Compactor::erase`].
    Erased(VolumeId, Result<(), DiskFault>),
    /// Slots have become free.
    Freed,
}

impl Compactor {
    /// Whether something is under way that may free slots soon. What waits for a tick, and headers that the disk refuses,
    /// are nothing to wait for.
    #[must_use]
    pub fn is_freeing(&self) -> bool {
        if self.is_poisoned {
            return false;
        }
        let in_round = self.round.iter().flat_map(|round| round.rows.keys());
        let waiting = self.unpinned.keys().filter(|_| self.may_begin());
        !self.pinned.is_empty() || in_round.chain(waiting).any(|segment| !self.refused.contains(segment))
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let may_go_on = !self.unpinned.is_empty() && self.may_begin();
        self.round.is_none() && self.pinned.is_empty() && !may_go_on && self.erasing.is_empty()
    }

    /// Whether time alone will make it act.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        self.waits_for_tick && !self.is_poisoned
    }

    /// Looks for dead segments of a volume: after a write-back, and when it has told what is settled.
    pub fn look_at<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        if self.is_poisoned {
            return;
        }
        for row in context.index.dead_segments(volume) {
            if self.is_on_its_way(row.segment) {
                continue;
            }
            let told = if has_pins() { &mut self.pinned } else { &mut self.unpinned };
            told.insert(row.segment, volume);
            for reader in self.holders.ask(row.segment, volume) {
                context.news.push(News::Tell(reader, Event::Leaves { segment: row.segment }));
            }
        }
        self.advance(context);
    }

    fn is_on_its_way(&self, segment: SegmentId) -> bool {
        self.pinned.contains_key(&segment)
            || self.unpinned.contains_key(&segment)
            || self.voided.contains(&segment)
            || self.round.as_ref().is_some_and(|round| round.rows.contains_key(&segment))
    }

    /// Where a segment is, for `heir`, which is told of what becomes of it from now on. `None` when there is no such
    /// segment, or it is dead: then nobody inherits any of it.
    pub fn hold<S: Store>(&mut self, index: &Index<S>, heir: VolumeId, segment: SegmentId) -> Option<Place> {
        let place = index.place(segment).filter(|_| !self.is_on_its_way(segment))?;
        self.holders.add(segment, heir);
        Some(place)
    }

    /// No read of `volume` uses a segment any more.
    pub fn unpinned<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId, segment: SegmentId) {
        if self.holders.answered(segment, volume) {
            self.let_go(context, [segment]);
        }
    }

    /// Nobody reads these any more.
    fn let_go<S: Store>(&mut self, context: &mut Context<'_, S>, segments: impl IntoIterator<Item = SegmentId>) {
        for segment in segments {
            let owner = self.pinned.remove(&segment);
            self.unpinned.extend(owner.map(|owner| (segment, owner)));
        }
        self.advance(context);
    }

    /// A volume is closed: it reads nothing any more.
    pub fn closed<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        context.index.unsettle(volume);
        let unread = self.holders.closed(volume);
        self.let_go(context, unread);
    }

    /// Gives back every segment of a volume that is not open, whatever is in it, and then forgets the volume. Ends with
    /// [`News::Erased`].
    pub fn erase<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        self.erasing.push_back(volume);
        self.closed(context, volume);
    }

    /// Time has passed: what failed is tried again.
    pub fn tick<S: Store>(&mut self, context: &mut Context<'_, S>) {
        self.waits_for_tick = false;
        let voided = std::mem::take(&mut self.voided);
        self.free(context, voided);
        self.advance(context);
    }

    /// Takes the end of one of its actions.
    pub fn handle<S: Store>(&mut self, context: &mut Context<'_, S>, event: &Event) {
        match event {
            Event::Appended { id, result, .. } => self.on_voided(context, *id, *result),
            Event::Synced { id, result } => self.on_synced(context, *id, *result),
            Event::Request { .. }
            | Event::Fetched { .. }
            | Event::PageLoaded { .. }
            | Event::Place { .. }
            | Event::WroteBack { .. }
            | Event::Moved { .. }
            | Event::Leaves { .. }
            | Event::Leased { .. }
            | Event::Tick => {}
        }
    }

    const fn may_begin(&self) -> bool {
        self.round.is_none() && !self.waits_for_tick && !self.is_poisoned
    }

    /// Begins the next round, when there is something for it.
    fn advance<S: Store>(&mut self, context: &mut Context<'_, S>) {
        if self.is_poisoned {
            for volume in std::mem::take(&mut self.erasing) {
                context.news.push(News::Erased(volume, Err(DiskFault::Io)));
            }
        }
        if !self.may_begin() || (self.erasing.is_empty() && self.unpinned.is_empty()) {
            return;
        }
        // What is dead must stay dead when the store loses its end.
        if context.index.make_durable().is_err() {
            self.waits_for_tick = true;
            return;
        }
        let (rows, erases) = self.next_round(context.index);
        let mut round = Round {
            rows: rows.iter().map(|row| (row.segment, row.volume)).collect(),
            erases,
            writing: BTreeMap::new(),
            failed: BTreeSet::new(),
            sync: None,
        };
        let superblock = *context.index.superblock();
        for row in rows {
            let id = self.next_io();
            round.writing.insert(id, row.segment);
            let pool_offset = superblock.geometry.slot_offset(row.slot);
            context.actions.push(Action::Append { id, pool_offset, buffers: vec![void_header(&superblock, &row)] });
        }
        if round.writing.is_empty() {
            round.sync = Some(self.sync(context));
        }
        self.round = Some(round);
    }

    fn next_round<S: Store>(&mut self, index: &Index<S>) -> (Vec<SegmentRow>, Option<VolumeId>) {
        if let Some(volume) = self.erasing.pop_front() {
            let rows: Vec<SegmentRow> = index.segments(volume).into_iter().take(ROUND_MAX).collect();
            self.unpinned.retain(|_, owner| *owner != volume);
            return (rows, Some(volume));
        }
        let mut rows = Vec::new();
        while rows.len() < ROUND_MAX
            && let Some((segment, _)) = self.unpinned.pop_first()
        {
            rows.extend(index.segment(segment));
        }
        (rows, None)
    }

    fn next_io(&mut self) -> IoId {
        self.next_io += 1;
        IoId(self.next_io)
    }

    fn sync<S: Store>(&mut self, context: &mut Context<'_, S>) -> IoId {
        let id = self.next_io();
        context.actions.push(Action::Sync { id });
        id
    }

    fn on_voided<S: Store>(&mut self, context: &mut Context<'_, S>, id: IoId, result: Result<(), DiskFault>) {
        let Some(round) = &mut self.round else { return };
        let Some(segment) = round.writing.remove(&id) else { return };
        if result.is_err() {
            round.failed.insert(segment);
            self.refused.insert(segment);
        } else {
            self.refused.remove(&segment);
        }
        if round.writing.is_empty() {
            let sync = self.sync(context);
            if let Some(round) = &mut self.round {
                round.sync = Some(sync);
            }
        }
    }

    fn on_synced<S: Store>(&mut self, context: &mut Context<'_, S>, id: IoId, result: Result<(), DiskFault>) {
        let Some(round) = self.round.take_if(|round| round.sync == Some(id)) else { return };
        self.is_poisoned |= result.is_err();
        self.waits_for_tick |= !round.failed.is_empty();
        let has_all = result.is_ok() && round.failed.is_empty();
        let (failed, voided): (BTreeMap<_, _>, BTreeMap<_, _>) =
            round.rows.into_iter().partition(|(segment, _)| round.failed.contains(segment));
        self.unpinned.extend(failed);
        if result.is_ok() {
            self.free(context, voided.keys().copied().collect());
        }
        match round.erases {
            Some(volume) if has_all => self.go_on_erasing(context, volume),
            Some(volume) => context.news.push(News::Erased(volume, Err(DiskFault::Io))),
            None => {}
        }
        // A segment with trims may have become its volume's oldest.
        let volumes: BTreeSet<VolumeId> = voided.into_values().collect();
        volumes.into_iter().for_each(|volume| self.look_at(context, volume));
        self.advance(context);
    }

    fn go_on_erasing<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        if context.index.segments(volume).is_empty() {
            let forgotten = context.index.forget_volume(volume);
            context.news.push(News::Erased(volume, forgotten));
        } else if self.voided.is_empty() {
            self.erasing.push_front(volume);
        } else {
            context.news.push(News::Erased(volume, Err(DiskFault::Io)));
        }
    }

    /// Frees the slots of segments whose headers are void, durably.
    fn free<S: Store>(&mut self, context: &mut Context<'_, S>, voided: Vec<SegmentId>) {
        for segment in voided {
            if context.index.release(segment).is_err() {
                self.voided.push(segment);
                self.waits_for_tick = true;
            } else {
                self.holders.forget(segment);
            }
        }
        context.news.push(News::Freed);
    }
}

#[cfg(not(feature = "negative-controls"))]
const fn has_pins() -> bool {
    true
}

#[cfg(feature = "negative-controls")]
fn has_pins() -> bool {
    !controls::is_missing(controls::Safeguard::Pins)
}

fn void_header(superblock: &Superblock, row: &SegmentRow) -> Buffer {
    let header = SlotHeader::void(superblock.pool, row.segment, row.volume, row.first_lsn);
    let mut block = Buffer::zeroed(BLOCK_LEN);
    header.encode(block.as_mut_slice());
    block
}

#[cfg(test)]
mod tests;
