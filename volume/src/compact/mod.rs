//! Compaction, sans-io, beside the index that it works on: slots of which little is live become fewer, and slots of which
//! nothing is live become free.
//!
//! A round (`round`) takes some slots (`choose`), finds what is left of their segments, copies that to packs, and has the
//! index give the segments their new places. Places that count no more are given back (`giving`).
//!
//! What it wants done comes as [`Action`]s of appends, fetches, syncs and leases, which come back by [`Compactor::handle`]. In
//! between it takes turns, each a short step ([`Compactor::turn`]), when the driver has time for it.

mod choose;
mod giving;
mod holders;
pub(crate) mod pack;
pub(crate) mod parcel;
mod reading;
mod round;

use crate::error::DiskFault;
use crate::format::PartSet;
use crate::io::{Action, Event, IoId};
use crate::pool::{Index, Place, SegmentRow};
use crate::store::Store;
use choose::{Need, Sizes};
use giving::{Giving, Going};
use holders::Holders;
pub(crate) use round::Trouble;
use round::{Progress, Round};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use units::{SegmentId, VolumeId};

/// Ticks for which segments are left alone that could not be read.
const REST_TICKS: u32 = 60;

/// Ticks after which it is looked which segments that lend are dead.
const LENDER_TICKS: u32 = 8;

/// Compacts, and gives slots back.
#[derive(Debug, Default)]
pub struct Compactor {
    giving: Giving,
    /// Who reads what.
    holders: Holders,
    round: Option<Round>,
    /// Segments that are not what they ought to be: they stay where they are until the pool is opened anew.
    suspects: BTreeSet<SegmentId>,
    /// Segments that are left alone for a while.
    resting: BTreeSet<SegmentId>,
    ticks_of_rest: u32,
    ticks: u32,
    /// What segments were found to take of packs.
    found: BTreeMap<SegmentId, Sizes>,
    /// Something has changed since the slots were last looked at.
    has_news: bool,
    /// There has been a tick since then.
    is_due: bool,
    /// The last look found something to compact.
    has_found: bool,
    /// Free slots when they were last looked at.
    free_at_look: u32,
    /// Packs that a round found no slots for: the next one is to have no more than this.
    packs_max: Option<usize>,
    /// Volumes that are to be erased, from which others borrow.
    lenders: BTreeSet<VolumeId>,
    /// Packs of a former life that nothing names: while one is not void, no segment that it may tell of may move or leave.
    adopted: Vec<SegmentId>,
    /// A round failed: the next one begins with a tick.
    waits_for_tick: bool,
    ids: Ids,
    figures: CompactionFigures,
}

/// What the compactor has done since the pool was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompactionFigures {
    /// Packs to which segments were moved.
    pub packs_written: u64,
    /// Segments moved.
    pub segments_moved: u64,
    /// Blocks of data copied for that.
    pub blocks_moved: u64,
    /// Rounds that were given up.
    pub rounds_given_up: u64,
    /// Segments that are not moved since what they hold is not what it ought to be.
    pub suspects: u64,
    /// Why the last round was given up.
    pub last_error: Option<String>,
}

/// How fast compaction should go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Slots are plenty.
    Plenty,
    /// Slots are owed to whoever trimmed or deleted something.
    Owing,
    /// Writers are about to find no slot.
    Short,
}

/// How few slots are left to writers, while more may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Free slots for data.
    pub left: u32,
    /// So many or fewer are a shortage.
    pub bound: u32,
}

/// Whether free slots are so few that writers are about to find none.
#[must_use]
pub fn is_short_of_slots<S: Store>(index: &Index<S>) -> bool {
    Need::of(index).is_short()
}

/// Names what is under way.
#[derive(Debug, Default)]
pub(crate) struct Ids(u64);

impl Ids {
    pub(crate) const fn next(&mut self) -> IoId {
        self.0 += 1;
        IoId(self.0)
    }
}

/// What the compactor works on, and where what it wants goes.
#[derive(Debug)]
pub struct Context<'a, S> {
    /// The index.
    pub index: &'a mut Index<S>,
    /// What is to be done on the disk, in the order it must begin; a lease is answered by [`Event::Leased`].
    pub actions: &'a mut Vec<Action>,
    /// What others are to be told.
    pub news: &'a mut Vec<News>,
}

/// Why a volume is not erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EraseError {
    /// The disk, or the store, has failed; or somebody inherits from it.
    Disk(DiskFault),
    /// Other volumes borrow from it: what they borrow is being moved to them, and the volume may be erased later.
    Lent,
}

impl From<DiskFault> for EraseError {
    fn from(fault: DiskFault) -> Self {
        Self::Disk(fault)
    }
}

impl fmt::Display for EraseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(fault) => write!(f, "{fault}"),
            Self::Lent => f.write_str("other volumes have copies of it"),
        }
    }
}

impl std::error::Error for EraseError {}

/// What others are to be told.
#[derive(Debug)]
pub enum News {
    /// An event for an open volume.
    Tell(VolumeId, Event),
    /// The end of [`Compactor::erase`].
    Erased(VolumeId, Result<(), EraseError>),
    /// Slots have become free.
    Freed,
}

impl Compactor {
    /// Goes on where the last stop came: places that were left, and packs in which nothing is, go. Once, before anything
    /// else.
    pub fn open<S: Store>(&mut self, context: &mut Context<'_, S>) {
        let left: Vec<SegmentId> = context.index.left_places().map(|(segment, _)| segment).collect();
        left.into_iter().for_each(|segment| self.giving.give(Going::Left(segment)));
        self.adopted = context.index.empty_packs().into_iter().map(|(pack, _)| pack).collect();
        self.adopted.iter().for_each(|pack| self.giving.give(Going::Pack(*pack)));
        self.has_news = true;
        self.advance(context);
    }

    /// Whether something is under way that may free slots soon. What waits for a tick, and headers that the disk refuses,
    /// are nothing to wait for.
    #[must_use]
    pub fn is_freeing<S: Store>(&self, index: &Index<S>) -> bool {
        self.giving.is_freeing() || (!self.giving.is_poisoned && (self.goes_on() || self.would_look(index)))
    }

    /// Whether nothing is under way.
    #[must_use]
    pub fn is_idle<S: Store>(&self, index: &Index<S>) -> bool {
        let may_go_on = self.goes_on() && !self.giving.is_poisoned;
        self.giving.is_idle() && !may_go_on && !self.wants_turn(index)
    }

    /// Whether a round is under way that waits for nothing but the disk.
    fn goes_on(&self) -> bool {
        let goes_on = |round: &Round| round.makes_progress() && (round.gives_up() || !self.waits_for_tick);
        self.round.as_ref().is_some_and(goes_on)
    }

    /// Whether time alone will make it act.
    #[must_use]
    pub fn wants_ticks<S: Store>(&self, index: &Index<S>) -> bool {
        let waits = self.giving.waits_for_tick || self.waits_for_tick || self.has_news || !self.resting.is_empty();
        (waits || self.round.is_some() || index.is_lending()) && !self.giving.is_poisoned
    }

    /// Whether it wants a turn.
    #[must_use]
    pub fn wants_turn<S: Store>(&self, index: &Index<S>) -> bool {
        if self.giving.is_poisoned {
            return false;
        }
        match &self.round {
            Some(round) => round.wants_turn() && (round.gives_up() || !self.waits_for_tick),
            None => self.would_look(index),
        }
    }

    /// Whether segments are being moved.
    #[must_use]
    pub const fn is_moving(&self) -> bool {
        self.round.is_some()
    }

    /// How fast it should go.
    #[must_use]
    pub fn urgency<S: Store>(&self, index: &Index<S>) -> Urgency {
        let need = Need::of(index);
        match (need.is_short(), need.is_owing()) {
            (true, _) => Urgency::Short,
            (false, true) => Urgency::Owing,
            (false, false) => Urgency::Plenty,
        }
    }

    /// Whether writers should go slower, since slots are few and waiting brings more: it is not one where nothing is to be
    /// gained.
    #[must_use]
    pub fn shortage<S: Store>(&self, index: &Index<S>) -> Option<Shortage> {
        Need::of(index).shortage().filter(|_| self.is_freeing(index))
    }

    /// Packs that are being written, or given up.
    #[must_use]
    pub fn packs_under_way(&self) -> usize {
        self.round.as_ref().map_or(0, Round::packs_under_way)
    }

    /// What it has done.
    #[must_use]
    pub const fn figures(&self) -> &CompactionFigures {
        &self.figures
    }

    /// Whether the next turn looks for slots to compact.
    fn would_look<S: Store>(&self, index: &Index<S>) -> bool {
        let need = Need::of(index);
        let has_news = self.has_news || need.free != self.free_at_look;
        let is_due = self.is_due || !self.lenders.is_empty() || need.is_short() || (self.has_found && need.is_owing());
        self.round.is_none() && self.adopted.is_empty() && !self.waits_for_tick && has_news && is_due
    }

    /// Takes one short step. None of its actions is under way for a step that wants a turn.
    pub fn turn<S: Store>(&mut self, context: &mut Context<'_, S>) {
        if !self.wants_turn(context.index) {
            return;
        }
        match &mut self.round {
            None => self.look(context),
            Some(round) => {
                let progress = round.turn(context, &mut self.ids);
                self.take(context, progress);
            }
        }
        self.advance(context);
    }

    /// Looks for slots that are worth compacting, and begins a round with them.
    fn look<S: Store>(&mut self, context: &mut Context<'_, S>) {
        let need = Need::of(context.index).with_packs(self.packs_max.take());
        (self.has_news, self.is_due, self.free_at_look) = (false, false, need.free);
        let (giving, suspects, resting) = (&self.giving, &self.suspects, &self.resting);
        let is_out = |segment| suspects.contains(&segment) || resting.contains(&segment) || giving.has(segment);
        let is_wanted = |segment: &SegmentId| context.index.may_move(*segment) && !is_out(*segment);
        let borrowers = self.lenders.iter().flat_map(|volume| context.index.borrowers_abroad(*volume, &self.lenders));
        if let Some(borrower) = borrowers.into_iter().find(is_wanted) {
            self.round = Some(Round::begin(context, vec![vec![(borrower, PartSet::ALL)]]).at_any_cost());
            return;
        }
        let victims = choose::victims(context.index, is_out, &self.found);
        let slot_blocks = context.index.superblock().geometry.slot_blocks();
        let victims = choose::pick(victims, need, slot_blocks);
        self.has_found = !victims.is_empty();
        if self.has_found {
            let slots = victims.into_iter().map(|victim| victim.segments).collect();
            self.round = Some(Round::begin(context, slots));
        }
    }

    /// Where a segment is, for `heir`, which is told of what becomes of it from now on. `None` when there is no such
    /// segment, or it is dead: then nobody inherits any of it.
    pub fn hold<S: Store>(&mut self, index: &Index<S>, heir: VolumeId, segment: SegmentId) -> Option<Place> {
        let place = index.place(segment).filter(|_| !self.giving.is_on_its_way(&Going::Segment(segment)))?;
        self.holders.add(segment, heir);
        Some(place)
    }

    /// Takes what a step of the round has come to.
    fn take<S: Store>(&mut self, context: &mut Context<'_, S>, progress: Result<Progress, Trouble>) {
        match progress {
            Ok(Progress::More) => {
                let voiding = self.round.as_ref().and_then(Round::is_voiding).unwrap_or_default();
                voiding.iter().for_each(|pack| self.giving.give(Going::Pack(*pack)));
            }
            Ok(Progress::Moved { segments, packs, blocks }) => {
                self.figures.packs_written += packs as u64;
                self.figures.segments_moved += segments.len() as u64;
                self.figures.blocks_moved += blocks as u64;
                segments.into_iter().for_each(|segment| self.tell_moved(context, segment));
            }
            Ok(Progress::Over) => self.end_round(context),
            Err(trouble) => self.give_up(context, trouble),
        }
    }

    /// Tells whoever may read a segment where it is now.
    fn tell_moved<S: Store>(&mut self, context: &mut Context<'_, S>, segment: SegmentId) {
        self.found.remove(&segment);
        let Some(row) = context.index.segment(segment) else { return };
        let Some(survivors) = context.index.survivors(segment) else { return };
        self.giving.pin(Going::Left(segment));
        for reader in self.holders.ask(segment, row.volume) {
            context
                .news
                .push(News::Tell(reader, Event::Moved { row: Box::new(row), survivors: Arc::clone(survivors) }));
        }
    }

    fn give_up<S: Store>(&mut self, context: &mut Context<'_, S>, trouble: Trouble) {
        let Some(round) = &mut self.round else { return };
        let told = match trouble {
            Trouble::Suspect(segment) => {
                self.suspects.insert(segment);
                self.figures.suspects = self.suspects.len() as u64;
                Some(format!("segment {segment} is not what it ought to be, and stays where it is"))
            }
            Trouble::Unreadable(segment) => {
                self.resting.insert(segment);
                self.waits_for_tick = true;
                Some(format!("segment {segment} cannot be read"))
            }
            Trouble::Unread(segment) => {
                self.resting.insert(segment);
                None
            }
            Trouble::Pointless => {
                self.resting.extend(round.segments());
                None
            }
            Trouble::TooFewSlots(packs) => {
                (self.packs_max, self.has_news) = (Some(packs), true);
                None
            }
            // What must stay is no victim of the next round.
            Trouble::Changed => None,
            Trouble::Failed(why) => {
                self.waits_for_tick = true;
                Some(why.to_owned())
            }
            Trouble::Poisoned => {
                self.giving.is_poisoned = true;
                Some("a sync failed".to_owned())
            }
        };
        self.figures.rounds_given_up += 1;
        self.figures.last_error = told.or_else(|| self.figures.last_error.take());
        if trouble != Trouble::Poisoned && round.give_up(context) {
            self.end_round(context);
        }
    }

    /// What the round held may leave now.
    fn end_round<S: Store>(&mut self, context: &mut Context<'_, S>) {
        let Some(round) = self.round.take() else { return };
        self.has_news = true;
        let volumes = context.index.volumes_of(round.segments());
        self.found.extend(round.found);
        // Of one that was moved only what is lent is not told by its row.
        let is_told = |row: SegmentRow| row.is_moved() && !context.index.is_lent(row.segment);
        self.found.retain(|segment, _| context.index.segment(*segment).is_some_and(|row| !is_told(row)));
        volumes.into_iter().for_each(|volume| self.find_dead(context, volume));
    }

    /// Looks for dead segments of a volume: after a write-back, and when it has told what is settled.
    pub fn look_at<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        self.has_news = true;
        self.find_dead(context, volume);
        self.advance(context);
    }

    fn find_dead<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        if self.giving.is_poisoned {
            return;
        }
        for row in context.index.dead_segments(volume) {
            let segment = row.segment;
            let is_in_round = self.round.as_ref().is_some_and(|round| round.holds(segment));
            // While a pack of a former life is not void that may tell of it, a rebuild would find what is there, without its
            // trunk or without the trims that took it.
            let is_held = is_in_round || self.adopted.iter().any(|pack| segment < *pack);
            // While the place is not void that it has left, a rebuild would find that one.
            if is_held || self.giving.has(segment) || context.index.left_of(segment).is_some() {
                continue;
            }
            // What went wrong is tried again when the volume is looked at next.
            match context.index.leave_trunk(segment) {
                Ok(true) => self.tell_moved(context, segment),
                Ok(false) => {}
                Err(_) => continue,
            }
            if context.index.left_of(segment).is_some() {
                continue;
            }
            self.giving.pin(Going::Segment(segment));
            for reader in self.holders.ask(segment, volume) {
                context.news.push(News::Tell(reader, Event::Leaves { segment }));
            }
        }
    }

    /// No read of `volume` uses a segment any more, where it was.
    pub fn unpinned<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId, segment: SegmentId) {
        if self.holders.answered(segment, volume) {
            self.giving.unpin(segment);
        }
        self.advance(context);
    }

    /// Makes packs void in which nothing counts, and frees their slots: such of a resync that were given up, or whose segments were
    /// dropped. They are in [`Index::packs`] until they are.
    pub fn void_packs<S: Store>(&mut self, context: &mut Context<'_, S>, packs: &[SegmentId]) {
        let empty = packs.iter().filter(|pack| context.index.is_empty_pack(**pack));
        empty.for_each(|pack| self.giving.give(Going::Pack(*pack)));
        self.advance(context);
    }

    /// A volume is closed: it reads nothing any more.
    pub fn closed<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        context.index.unsettle(volume);
        self.holders.closed(volume).into_iter().for_each(|segment| self.giving.unpin(segment));
        self.round.iter_mut().for_each(|round| round.closed(volume));
        self.advance(context);
    }

    /// Gives back every segment of a volume that is not open, whatever is in it, and then forgets the volume. Ends with
    /// [`News::Erased`]: an error, with nothing done, where somebody inherits or borrows from it; in the second case what is borrowed
    /// is moved to who borrows it, and whoever asks again comes to an end.
    pub fn erase<S: Store>(&mut self, context: &mut Context<'_, S>, volume: VolumeId) {
        if context.index.lends_abroad(volume, &self.lenders) {
            // What is borrowed is moved to those who borrow it first.
            self.has_news = true;
            if self.lenders.insert(volume) {
                self.closed(context, volume);
            }
            context.news.push(News::Erased(volume, Err(EraseError::Lent)));
            return;
        }
        let segments: Vec<SegmentId> = context.index.segments(volume).iter().map(|row| row.segment).collect();
        // Who borrowed may still be reading. An answer does not say what it is to: nobody is asked twice at once.
        if !self.holders.is_any_awaited(&segments) {
            for (segment, reader) in self.holders.let_go(volume, &segments) {
                context.news.push(News::Tell(reader, Event::Leaves { segment }));
            }
        }
        if self.holders.is_any_awaited(&segments) {
            context.news.push(News::Erased(volume, Err(EraseError::Lent)));
            return;
        }
        self.lenders.remove(&volume);
        if let Err(fault) = context.index.note_erasing(volume) {
            context.news.push(News::Erased(volume, Err(fault.into())));
            return;
        }
        self.giving.erase(volume);
        self.closed(context, volume);
    }

    /// Time has passed: what failed is tried again.
    pub fn tick<S: Store>(&mut self, context: &mut Context<'_, S>) {
        self.waits_for_tick = false;
        self.is_due = true;
        self.round.iter_mut().for_each(Round::retry);
        self.ticks_of_rest += 1;
        if self.ticks_of_rest >= REST_TICKS {
            self.ticks_of_rest = 0;
            self.has_news |= !self.resting.is_empty();
            self.resting.clear();
        }
        self.giving.retry(context);
        self.note_void(context);
        let freed = context.index.take_freed();
        self.has_news |= !freed.is_empty();
        self.found.retain(|segment, _| !freed.contains(segment));
        let mut volumes = context.index.volumes_of(freed);
        self.ticks += 1;
        if self.ticks.is_multiple_of(LENDER_TICKS) {
            // What borrowed from them may be read no more, which nobody tells them.
            volumes.extend(context.index.lending_volumes());
        }
        volumes.into_iter().for_each(|volume| self.find_dead(context, volume));
        for volume in self.lenders.clone() {
            for borrower in context.index.borrowers_abroad(volume, &self.lenders) {
                // One that is open, or not folded, is not moved.
                let awaited = context.index.segment(borrower).filter(|row| !context.index.is_folded(row));
                let event = Event::Awaited { segment: borrower };
                context.news.extend(awaited.map(|row| News::Tell(row.volume, event)));
            }
            self.has_news = true;
        }
        self.advance(context);
    }

    /// Takes the end of one of its actions.
    pub fn handle<S: Store>(&mut self, context: &mut Context<'_, S>, event: Event) {
        if let Event::Synced { id, result } = event {
            let volumes = self.giving.on_synced(context, id, result);
            if !volumes.is_empty() {
                self.round.iter_mut().for_each(Round::retry);
                self.has_news = true;
            }
            // A segment with trims may have become its volume's oldest, and one that was moved may be dead.
            volumes.into_iter().for_each(|volume| self.find_dead(context, volume));
            self.note_void(context);
        }
        if let Event::Appended { id, result, .. } = event {
            self.giving.on_appended(context, &mut self.ids, (id, result));
        }
        let is_of_giving = matches!(event, Event::Fetched { id, .. } if self.giving.is_reading(id));
        let ended = if is_of_giving {
            self.giving.on_fetched(context, &mut self.ids, event);
            None
        } else {
            self.round.as_mut().and_then(|round| round.handle(context, &mut self.ids, event))
        };
        if let Some(Err(trouble)) = ended {
            self.give_up(context, trouble);
        }
        self.advance(context);
    }

    /// A round ends once the packs that it gave up are void.
    fn note_void<S: Store>(&mut self, context: &mut Context<'_, S>) {
        let adopted = self.adopted.len();
        let (giving, index) = (&self.giving, &*context.index);
        self.adopted.retain(|pack| !giving.is_void(index, *pack));
        if self.adopted.len() < adopted {
            context.index.volumes().into_iter().for_each(|volume| self.find_dead(context, volume));
        }
        let voiding = self.round.as_ref().and_then(Round::is_voiding);
        if voiding.is_some_and(|packs| packs.iter().all(|pack| self.giving.is_void(context.index, *pack))) {
            self.end_round(context);
        }
    }

    fn advance<S: Store>(&mut self, context: &mut Context<'_, S>) {
        let round = self.round.as_ref();
        let is_held = |volume| round.is_some_and(|round| round.holds_of(volume));
        self.giving.advance(context, &mut self.ids, is_held);
        self.giving.take_gone().into_iter().for_each(|segment| self.holders.forget(segment));
    }
}

#[cfg(test)]
mod tests;
