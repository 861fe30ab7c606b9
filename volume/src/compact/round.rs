//! One round: some slots become fewer. What is left of their segments is found, copied to packs, made durable, read back,
//! and found again before the segments get their new places.
//!
//! Nothing is changed before the last step, so that whatever goes wrong leaves every segment where it is. What was written to
//! a pack that is given up is made void before any of its segments may leave or move again: a rebuild would take an old
//! parcel for its segment.

use super::choose::{self, Item};
use super::pack::{Copying, Pack, Verifying};
use super::parcel::{Target, parcel_of};
use super::reading::{Read, Reading};
use super::{Context, Ids};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::io::{Action, Event, IoId};
use crate::pool::{Lease, LeaseClass, SurvivorOutcome, SurvivorSearch, Survivors};
use crate::recover::SegmentLog;
use crate::store::Store;
use std::collections::{BTreeMap, VecDeque};
use units::{Lsn, SegmentId, VolumeId};

/// Pages of maps that are looked at in one turn.
const PAGES_PER_TURN: usize = 32;

/// Why a round does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// A segment is not what it ought to be: it stays where it is.
    Suspect(SegmentId),
    /// The disk does not give it.
    Unreadable(SegmentId),
    /// Its volume is closed, or no slot is gained by it any more.
    Pointless,
    /// Something else failed: all of it may be tried again.
    Failed(&'static str),
    /// A sync failed.
    Poisoned,
}

/// A segment that is to be moved.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) log: SegmentLog,
    pub(super) survivors: Survivors,
    /// The stored map was complete up to here when the survivors were found.
    pub(super) clean_lsn: Lsn,
    /// Its trims say nothing any more.
    pub(super) drops_trims: bool,
}

/// What a step has come to.
#[derive(Debug)]
pub(super) enum Progress {
    /// There is more to do.
    More,
    /// Segments have their new places; blocks that were copied.
    Moved(Vec<SegmentId>, usize),
    /// All of it is done.
    Over,
}

/// A round.
#[derive(Debug)]
pub(super) struct Round {
    /// By the slots that they are in.
    victims: Vec<Vec<SegmentId>>,
    moving: BTreeMap<SegmentId, Moving>,
    volumes: BTreeMap<SegmentId, VolumeId>,
    /// What is still to be written, a pack each.
    packs: VecDeque<Vec<SegmentId>>,
    stage: Stage,
    /// What is under way on the disk.
    io: Option<IoId>,
    /// Blocks beside payload of the segments that were looked at.
    pub(super) overheads: BTreeMap<SegmentId, u32>,
    is_given_up: bool,
    /// It goes on with the next tick, or when slots have become free.
    waits: bool,
}

#[derive(Debug)]
enum Stage {
    /// What the segments wrote is read, the last one first.
    Reading(Vec<SegmentId>, Option<Reading>),
    Searching(SurvivorSearch),
    /// The next pack wants a slot.
    Packing,
    Leasing(Vec<SegmentId>),
    Copying(Box<Copying>),
    Syncing(Pack),
    Verifying(Verifying),
    /// Looks for survivors again.
    Checking(Pack, Option<SurvivorSearch>),
    /// A pack is to be noted, so that it is made void.
    GivingUp(Lease, Vec<SegmentId>),
    /// It is being made void.
    Voiding(SegmentId),
    Over,
}

impl Round {
    pub(super) fn begin<S: Store>(context: &Context<'_, S>, victims: Vec<Vec<SegmentId>>) -> Self {
        let segments: Vec<SegmentId> = victims.iter().flatten().copied().collect();
        let volume_of = |segment: &SegmentId| Some((*segment, context.index.segment(*segment)?.volume));
        Self {
            volumes: segments.iter().filter_map(volume_of).collect(),
            victims,
            moving: BTreeMap::new(),
            packs: VecDeque::new(),
            stage: Stage::Reading(segments, None),
            io: None,
            overheads: BTreeMap::new(),
            is_given_up: false,
            waits: false,
        }
    }

    /// Whether a segment must stay as it is.
    pub(super) fn holds(&self, segment: SegmentId) -> bool {
        self.volumes.contains_key(&segment)
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.volumes.keys().copied()
    }

    pub(super) fn holds_of(&self, volume: VolumeId) -> bool {
        self.volumes.values().any(|owner| *owner == volume)
    }

    /// A volume is closed: the round ends where it is, when it moves any of its segments.
    pub(super) fn closed(&mut self, volume: VolumeId) {
        self.is_given_up |= self.holds_of(volume);
    }

    /// Whether it is to be advanced, without anything having ended.
    pub(super) const fn wants_turn(&self) -> bool {
        let is_waiting = self.io.is_some() || self.waits || matches!(self.stage, Stage::Leasing(_) | Stage::Voiding(_));
        !is_waiting
    }

    /// Whether slots may come of it before anything else happens.
    pub(super) const fn makes_progress(&self) -> bool {
        !self.waits && !matches!(self.stage, Stage::GivingUp(..) | Stage::Voiding(_))
    }

    /// Whether it found no slot for the next pack.
    pub(super) const fn waits_for_slot(&self) -> bool {
        self.waits && matches!(self.stage, Stage::Packing)
    }

    /// Something has changed that it may have waited for.
    pub(super) const fn retry(&mut self) {
        self.waits = false;
    }

    /// The pack that it waits for to be void.
    pub(super) const fn is_voiding(&self) -> Option<SegmentId> {
        if let Stage::Voiding(pack) = self.stage { Some(pack) } else { None }
    }

    /// Takes one step that needs nothing of the disk.
    pub(super) fn turn<S: Store>(&mut self, context: &mut Context<'_, S>, ids: &mut Ids) -> Result<Progress, Trouble> {
        if self.is_given_up && !matches!(self.stage, Stage::GivingUp(..)) {
            return Err(Trouble::Pointless);
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Reading(segments, _) => self.read_next(context, ids, segments)?,
            Stage::Searching(search) => self.search(context, search)?,
            Stage::Packing => {
                let Some(segments) = self.packs.pop_front() else { return Ok(Progress::Over) };
                self.stage = Stage::Leasing(segments);
                context.actions.push(Action::Lease { class: LeaseClass::Compaction });
            }
            Stage::Checking(pack, search) => return self.check(context, pack, search),
            Stage::GivingUp(lease, segments) => {
                if context.index.give_up_pack(lease, &segments).is_ok() {
                    self.stage = Stage::Voiding(lease.segment);
                } else {
                    self.stage = Stage::GivingUp(lease, segments);
                    self.waits = true;
                }
            }
            stage @ (Stage::Leasing(_)
            | Stage::Copying(_)
            | Stage::Syncing(_)
            | Stage::Verifying(_)
            | Stage::Voiding(_)
            | Stage::Over) => self.stage = stage,
        }
        Ok(Progress::More)
    }

    fn read_next<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        mut segments: Vec<SegmentId>,
    ) -> Result<(), Trouble> {
        let geometry = context.index.superblock().geometry;
        let Some(segment) = segments.last().copied() else {
            let mut search = SurvivorSearch::new(geometry.slot_blocks());
            for (segment, moving) in &mut self.moving {
                let row = context.index.volume_row(moving.log.row.volume).ok_or(Trouble::Suspect(*segment))?;
                moving.clean_lsn = row.folded_to.max(moving.log.last_lsn);
                search.add(moving.log.row.volume, *segment, &moving.log.entries);
            }
            self.stage = Stage::Searching(search);
            return Ok(());
        };
        let Some(row) = context.index.segment(segment) else {
            segments.pop();
            self.stage = Stage::Reading(segments, None);
            return Ok(());
        };
        let (reading, id) = Reading::begin(context, ids, (row, geometry));
        self.stage = Stage::Reading(segments, Some(reading));
        self.io = Some(id);
        Ok(())
    }

    fn search<S: Store>(&mut self, context: &Context<'_, S>, mut search: SurvivorSearch) -> Result<(), Trouble> {
        if !step(context, &mut search)? {
            self.stage = Stage::Searching(search);
            return Ok(());
        }
        let superblock = *context.index.superblock();
        let mut sizes: BTreeMap<SegmentId, u32> = BTreeMap::new();
        for (segment, outcome) in search.finish() {
            let Some(moving) = self.moving.get_mut(&segment) else { continue };
            if outcome.is_suspect {
                return Err(Trouble::Suspect(segment));
            }
            moving.survivors = dropping(outcome.survivors);
            let (clean_lsn, copy_end) = (moving.clean_lsn, superblock.geometry.slot_blocks());
            let drops_trims = moving.drops_trims;
            let target = Target { pack: segment, parcels: 1, block: 1, copy_end, clean_lsn, drops_trims };
            let parcel = parcel_of(&superblock, &moving.log, &moving.survivors, target);
            self.overheads.insert(segment, 2 * parcel.header_blocks());
            sizes.insert(segment, parcel.pack_blocks());
        }
        let sized = |segment: &SegmentId| Some((*segment, *sizes.get(segment)?));
        let victims: Vec<Vec<Item>> =
            self.victims.iter().map(|victim| victim.iter().filter_map(sized).collect()).collect();
        let packs = choose::packs(&victims, superblock.geometry.slot_blocks()).ok_or(Trouble::Pointless)?;
        if packs.len() >= victims.len() {
            return Err(Trouble::Pointless);
        }
        self.packs = packs.into();
        self.stage = Stage::Packing;
        Ok(())
    }

    /// The second check, and the switch: what was copied must still be all that is left. Blocks die and do not come back, so
    /// that survivors found later are among those found before, unless those were not all.
    fn check<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        pack: Pack,
        search: Option<SurvivorSearch>,
    ) -> Result<Progress, Trouble> {
        let mut search = search.unwrap_or_else(|| self.search_again(context, &pack));
        match step(context, &mut search) {
            Ok(true) => {}
            Ok(false) => {
                self.stage = Stage::Checking(pack, Some(search));
                return Ok(Progress::More);
            }
            Err(trouble) => {
                self.stage = Stage::Checking(pack, None);
                return Err(trouble);
            }
        }
        if let Some(trouble) = self.first_wrong(context, search.finish()) {
            self.stage = Stage::Checking(pack, None);
            return Err(trouble);
        }
        if context.index.relocate(pack.lease, pack.moves(&self.moving)).is_err() {
            // It may have come through all the same: only the same again, or taking it back, ends that.
            self.stage = Stage::Checking(pack, None);
            self.waits = true;
            return Ok(Progress::More);
        }
        for segment in pack.segments() {
            self.moving.remove(&segment);
            self.volumes.remove(&segment);
        }
        self.stage = Stage::Packing;
        Ok(Progress::Moved(pack.segments(), pack.payload_blocks()))
    }

    fn search_again<S: Store>(&self, context: &Context<'_, S>, pack: &Pack) -> SurvivorSearch {
        let mut search = SurvivorSearch::new(context.index.superblock().geometry.slot_blocks());
        for segment in pack.segments() {
            if let Some(moving) = self.moving.get(&segment) {
                search.add(moving.log.row.volume, segment, &moving.log.entries);
            }
        }
        search
    }

    fn first_wrong<S: Store>(
        &self,
        context: &Context<'_, S>,
        found: BTreeMap<SegmentId, SurvivorOutcome>,
    ) -> Option<Trouble> {
        if is_missing(Safeguard::SecondCheck) || is_missing(Safeguard::EverySurvivor) {
            return None;
        }
        found.into_iter().find_map(|(segment, outcome)| {
            let copied = self.moving.get(&segment).map(|moving| &moving.survivors);
            if !context.index.may_move(segment) {
                return Some(Trouble::Pointless);
            }
            let is_right = copied.is_some_and(|copied| outcome.survivors.is_within(copied)) && !outcome.is_suspect;
            (!is_right).then_some(Trouble::Suspect(segment))
        })
    }

    /// Takes what has ended; `None` when it is not its own.
    pub(super) fn handle<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        event: Event,
    ) -> Option<Result<(), Trouble>> {
        match event {
            Event::Leased { result } => {
                let Stage::Leasing(segments) = &mut self.stage else { return None };
                let segments = std::mem::take(segments);
                Some(self.on_leased(context, ids, (result, segments)))
            }
            Event::Fetched { id, buffer, result } => {
                self.io.take_if(|io| *io == id)?;
                Some(self.on_fetched(context, ids, (buffer, result)))
            }
            Event::Appended { id, result, .. } => {
                self.io.take_if(|io| *io == id)?;
                Some(self.on_appended(context, ids, result))
            }
            Event::Synced { id, result } => {
                self.io.take_if(|io| *io == id)?;
                let stage = std::mem::replace(&mut self.stage, Stage::Over);
                let Stage::Syncing(pack) = stage else { return Some(Err(Trouble::Failed("a sync out of turn"))) };
                if result.is_err() {
                    self.stage = Stage::Syncing(pack);
                    return Some(Err(Trouble::Poisoned));
                }
                let (verifying, id) = Verifying::begin(context, ids, pack);
                self.stage = Stage::Verifying(verifying);
                self.io = Some(id);
                Some(Ok(()))
            }
            Event::Request { .. }
            | Event::PageLoaded { .. }
            | Event::Place { .. }
            | Event::ChangesLoaded { .. }
            | Event::WroteBack { .. }
            | Event::Moved { .. }
            | Event::Leaves { .. }
            | Event::SlotsFew
            | Event::Tick => None,
        }
    }

    fn on_leased<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (result, segments): (Result<Lease, DiskFault>, Vec<SegmentId>),
    ) -> Result<(), Trouble> {
        match result {
            Ok(lease) if self.is_given_up => {
                context.index.give_back(lease);
                Err(Trouble::Pointless)
            }
            Ok(lease) => match Copying::begin(context, ids, (lease, segments, &self.moving)) {
                Ok((copying, id)) => {
                    self.stage = Stage::Copying(Box::new(copying));
                    self.io = Some(id);
                    Ok(())
                }
                Err(trouble) => {
                    context.index.give_back(lease);
                    Err(trouble)
                }
            },
            Err(DiskFault::NoSpace) => {
                self.packs.push_front(segments);
                self.stage = Stage::Packing;
                self.waits = true;
                Ok(())
            }
            Err(DiskFault::Io) => Err(Trouble::Failed("the index store failed to lease a slot")),
        }
    }

    fn on_fetched<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (buffer, result): (crate::buffer::Buffer, Result<(), DiskFault>),
    ) -> Result<(), Trouble> {
        if self.is_given_up {
            return Err(Trouble::Pointless);
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Reading(mut segments, Some(mut reading)) => {
                let Some(segment) = segments.last().copied() else { return Ok(()) };
                result.map_err(|_| Trouble::Unreadable(segment))?;
                let superblock = *context.index.superblock();
                match reading.on_fetched(context, ids, (&superblock, &buffer)) {
                    Read::Nothing => return Err(Trouble::Suspect(segment)),
                    Read::Whole(log) => {
                        let (survivors, clean_lsn) = (Survivors::default(), log.last_lsn);
                        let drops_trims = log.row.has_holes && context.index.has_spent_trims(&log.row);
                        self.moving.insert(segment, Moving { log: *log, survivors, clean_lsn, drops_trims });
                        segments.pop();
                        self.stage = Stage::Reading(segments, None);
                    }
                    Read::More(id) => {
                        self.stage = Stage::Reading(segments, Some(reading));
                        self.io = Some(id);
                    }
                }
                Ok(())
            }
            Stage::Copying(copying) => {
                let trouble = match (result, copying.segment()) {
                    (Err(_), Some(segment)) => Err(Trouble::Unreadable(segment)),
                    _ => copying.on_fetched(context, ids, buffer),
                };
                self.stage = Stage::Copying(copying);
                self.io = Some(trouble?);
                Ok(())
            }
            Stage::Verifying(mut verifying) => {
                let next = match result {
                    Ok(()) => verifying.on_fetched(context, ids, &buffer),
                    Err(_) => Err(Trouble::Failed("a pack that was written cannot be read")),
                };
                self.io = match next {
                    Ok(None) => {
                        self.stage = Stage::Checking(verifying.pack, None);
                        return Ok(());
                    }
                    next => {
                        self.stage = Stage::Verifying(verifying);
                        next?
                    }
                };
                Ok(())
            }
            stage @ (Stage::Reading(..)
            | Stage::Searching(_)
            | Stage::Packing
            | Stage::Leasing(_)
            | Stage::Syncing(_)
            | Stage::Checking(..)
            | Stage::GivingUp(..)
            | Stage::Voiding(_)
            | Stage::Over) => {
                self.stage = stage;
                Ok(())
            }
        }
    }

    fn on_appended<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        result: Result<(), DiskFault>,
    ) -> Result<(), Trouble> {
        let Stage::Copying(mut copying) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(Trouble::Failed("a write out of turn"));
        };
        let next = match result {
            _ if self.is_given_up => Err(Trouble::Pointless),
            Ok(()) => copying.on_appended(context, ids, &self.moving),
            Err(DiskFault::NoSpace) => Err(Trouble::Failed("no space on the host for a pack")),
            Err(DiskFault::Io) => Err(Trouble::Failed("a write to a pack failed")),
        };
        match next {
            Ok(None) => {
                let id = ids.next();
                self.stage = Stage::Syncing(copying.pack);
                self.io = Some(id);
                context.actions.push(Action::Sync { id });
                Ok(())
            }
            Ok(id) => {
                self.stage = Stage::Copying(copying);
                self.io = id;
                Ok(())
            }
            Err(trouble) => {
                self.stage = Stage::Copying(copying);
                Err(trouble)
            }
        }
    }

    /// Ends without the moves that are not done yet; `false` while a pack has still to be made void. Nothing is under way.
    pub(super) fn give_up<S: Store>(&mut self, context: &mut Context<'_, S>) -> bool {
        self.packs.clear();
        self.waits = false;
        let pack = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Copying(copying) => copying.pack,
            Stage::Syncing(pack) | Stage::Checking(pack, _) => pack,
            Stage::Verifying(verifying) => verifying.pack,
            Stage::Reading(..)
            | Stage::Searching(_)
            | Stage::Packing
            | Stage::Leasing(_)
            | Stage::GivingUp(..)
            | Stage::Voiding(_)
            | Stage::Over => return true,
        };
        if pack.has_header() {
            self.stage = Stage::GivingUp(pack.lease, pack.segments());
            return false;
        }
        // Without a header nothing in it counts.
        context.index.give_back(pack.lease);
        true
    }
}

/// Looks at some more pages; `true` when none is left.
fn step<S: Store>(context: &Context<'_, S>, search: &mut SurvivorSearch) -> Result<bool, Trouble> {
    let index = &context.index;
    let stepped = search.step(PAGES_PER_TURN, |volume, page, visit| index.each_version(volume, page, visit));
    stepped.map_err(|_| Trouble::Failed("the index store failed to read pages of a map"))
}

/// Loses one of the survivors, when told to.
fn dropping(survivors: Survivors) -> Survivors {
    if !is_missing(Safeguard::EverySurvivor) {
        return survivors;
    }
    let mut words = survivors.words().to_vec();
    if let Some(word) = words.iter_mut().find(|word| **word != 0) {
        *word &= *word - 1;
    }
    Survivors::of_words(words)
}
