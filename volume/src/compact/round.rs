//! One round: some slots become fewer. What is left of their segments is found, copied to packs, made durable, read back,
//! and found again before the segments get their new places, all at once: the parts of one may be in several packs.
//!
//! Nothing is changed before the last step, so that whatever goes wrong leaves every segment where it is. What was written to
//! packs that are given up is made void before any of their segments may leave or move again: a rebuild would take an old
//! parcel for its segment.

use super::choose::{self, Item, Piece, Sizes};
use super::pack::{Copying, Pack, Verifying};
use super::parcel::{Target, cut_of, parcel_of};
use super::reading::{Read, Reading};
use super::{Context, Ids};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::format::{Cut, PartSet, Superblock};
use crate::io::{Action, Event, IoId};
use crate::pool::{Home, Lease, LeaseClass, Move, Parcels, SegmentRow, SurvivorOutcome, SurvivorSearch, Survivors};
use crate::recover::{SegmentLog, survivors_of};
use crate::store::Store;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{Lsn, SegmentId, VolumeId};

/// Pages of maps that are looked at in one turn.
const PAGES_PER_TURN: usize = 32;

/// Why a round does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A segment is not what it ought to be: it stays where it is.
    Suspect(SegmentId),
    /// The disk does not give it.
    Unreadable(SegmentId),
    /// Nobody reads a segment any more, and what it borrowed may be gone.
    Unread(SegmentId),
    /// No slot is gained by it any more.
    Pointless,
    /// There are only so many slots for its packs, which are more.
    TooFewSlots(usize),
    /// Of what it was to move something must stay by now: its volume is closed, or wants it whole.
    Changed,
    /// Something else failed: all of it may be tried again.
    Failed(&'static str),
    /// A sync failed.
    Poisoned,
}

/// A segment that is to be moved, or some parts of one.
#[derive(Debug)]
pub(super) struct Moving {
    /// What is in those parts.
    pub(super) log: SegmentLog,
    pub(super) survivors: Survivors,
    /// Those of them that no page names: copies have their content from there.
    pub(super) lent: Survivors,
    /// Into how many parts it is cut; of one in its own slot only known once the survivors are.
    pub(super) cut: Cut,
    /// Those that leave where they are.
    pub(super) parts: PartSet,
    /// Those that go to packs: the trunk, and where something is left.
    pub(super) stays: PartSet,
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
    /// Segments have their new places; packs, and blocks that were copied to them.
    Moved { segments: Vec<SegmentId>, packs: usize, blocks: usize },
    /// All of it is done.
    Over,
}

/// A round.
#[derive(Debug)]
pub(super) struct Round {
    /// By the slots that they are in.
    victims: Vec<Vec<SegmentId>>,
    parts: BTreeMap<SegmentId, PartSet>,
    moving: BTreeMap<SegmentId, Moving>,
    volumes: BTreeMap<SegmentId, VolumeId>,
    /// What is still to be written, a pack each.
    packs: VecDeque<Vec<Piece>>,
    /// Their slots: all of them before any is written, so that nobody takes what the round counts on.
    leases: Vec<Lease>,
    /// Those that are written, but for being durable.
    written: VecDeque<Pack>,
    /// Those that were read back, and are what was written.
    verified: Vec<Pack>,
    stage: Stage,
    /// What is under way on the disk.
    io: Option<IoId>,
    /// What the segments that were looked at take of packs.
    pub(super) found: BTreeMap<SegmentId, Sizes>,
    is_given_up: bool,
    /// Whether it goes on though no slot is gained.
    is_at_any_cost: bool,
    /// The index was told, and it is not known whether the store has it.
    is_switch_open: bool,
    /// It goes on with the next tick, or when slots have become free.
    waits: bool,
}

#[derive(Debug)]
enum Stage {
    /// What the segments wrote is read, the last one first.
    Reading(Vec<SegmentId>, Option<Box<Reading>>),
    Searching(SurvivorSearch),
    /// The next pack wants a slot, or to be written.
    Packing,
    Leasing,
    Copying(Box<Copying>),
    Syncing,
    Verifying(Verifying),
    /// Looks for survivors again.
    Checking(Option<SurvivorSearch>),
    /// Packs are to be noted, so that they are made void.
    GivingUp(Vec<Lease>, BTreeSet<SegmentId>),
    /// They are being made void.
    Voiding(Vec<SegmentId>),
    Over,
}

impl Round {
    /// Begins with some slots, by the parts of segments that are in them.
    pub(super) fn begin<S: Store>(context: &Context<'_, S>, victims: Vec<Vec<(SegmentId, PartSet)>>) -> Self {
        let mut parts: BTreeMap<SegmentId, PartSet> = BTreeMap::new();
        // In the order of the slots; the last one is read first.
        let mut segments = Vec::new();
        for (segment, here) in victims.iter().flatten() {
            let all = parts.entry(*segment).or_insert_with(|| {
                segments.push(*segment);
                PartSet::default()
            });
            *all = all.and(*here);
        }
        let volume_of = |segment: &SegmentId| Some((*segment, context.index.segment(*segment)?.volume));
        let of_slot = |here: Vec<(SegmentId, PartSet)>| here.into_iter().map(|(segment, _)| segment).collect();
        Self {
            volumes: segments.iter().filter_map(volume_of).collect(),
            victims: victims.into_iter().map(of_slot).collect(),
            parts,
            moving: BTreeMap::new(),
            packs: VecDeque::new(),
            leases: Vec::new(),
            written: VecDeque::new(),
            verified: Vec::new(),
            stage: Stage::Reading(segments, None),
            io: None,
            found: BTreeMap::new(),
            is_given_up: false,
            is_at_any_cost: false,
            is_switch_open: false,
            waits: false,
        }
    }

    /// The same, though no slot is gained by it: somebody waits for what its segments borrow.
    pub(super) fn at_any_cost(self) -> Self {
        Self { is_at_any_cost: true, ..self }
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
        let is_waiting = self.io.is_some() || self.waits || matches!(self.stage, Stage::Leasing | Stage::Voiding(_));
        !is_waiting
    }

    /// Whether slots may come of it before anything else happens. Those of packs that are being made void are given back by
    /// others.
    pub(super) const fn makes_progress(&self) -> bool {
        !self.waits && !matches!(self.stage, Stage::Voiding(_))
    }

    /// Whether it gives its packs up: that need not wait for what made it do so.
    pub(super) const fn gives_up(&self) -> bool {
        matches!(self.stage, Stage::GivingUp(..))
    }

    /// Packs that have a slot and do not count.
    pub(super) fn packs_under_way(&self) -> usize {
        let now = match &self.stage {
            Stage::Leasing | Stage::Copying(_) | Stage::Verifying(_) => 1,
            Stage::GivingUp(leases, _) => leases.len(),
            Stage::Voiding(packs) => packs.len(),
            Stage::Reading(..)
            | Stage::Searching(_)
            | Stage::Packing
            | Stage::Syncing
            | Stage::Checking(_)
            | Stage::Over => 0,
        };
        now + self.leases.len() + self.written.len() + self.verified.len()
    }

    /// Something has changed that it may have waited for.
    pub(super) const fn retry(&mut self) {
        self.waits = false;
    }

    /// The packs that it waits for to be void.
    pub(super) fn is_voiding(&self) -> Option<&[SegmentId]> {
        if let Stage::Voiding(packs) = &self.stage { Some(packs) } else { None }
    }

    /// Takes one step that needs nothing of the disk.
    pub(super) fn turn<S: Store>(&mut self, context: &mut Context<'_, S>, ids: &mut Ids) -> Result<Progress, Trouble> {
        if self.is_given_up && !matches!(self.stage, Stage::GivingUp(..)) {
            return Err(Trouble::Changed);
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Reading(segments, _) => self.read_next(context, ids, segments)?,
            Stage::Searching(search) => self.search(context, search)?,
            Stage::Packing => {
                if self.leases.len() < self.packs.len() {
                    self.stage = Stage::Leasing;
                    context.actions.push(Action::Lease { class: LeaseClass::Compaction });
                } else if let (Some(pieces), Some(lease)) = (self.packs.pop_front(), self.leases.pop()) {
                    self.copy(context, ids, (lease, pieces))?;
                } else if self.moving.is_empty() {
                    return Ok(Progress::Over);
                } else if self.written.is_empty() {
                    // All that is left of the segments is dead.
                    self.stage = Stage::Checking(None);
                } else {
                    let id = ids.next();
                    self.stage = Stage::Syncing;
                    self.io = Some(id);
                    context.actions.push(Action::Sync { id });
                }
            }
            Stage::Checking(search) => return self.check(context, search),
            Stage::GivingUp(leases, segments) => {
                if context.index.give_up_packs(&leases, &segments).is_ok() {
                    if leases.is_empty() {
                        return Ok(Progress::Over);
                    }
                    self.stage = Stage::Voiding(leases.iter().map(|lease| lease.segment).collect());
                } else {
                    self.stage = Stage::GivingUp(leases, segments);
                    self.waits = true;
                }
            }
            stage @ (Stage::Leasing
            | Stage::Copying(_)
            | Stage::Syncing
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
                moving.add_to(&mut search, *segment);
            }
            self.stage = Stage::Searching(search);
            return Ok(());
        };
        let Some(row) = self.row_of(context, segment) else {
            segments.pop();
            self.stage = Stage::Reading(segments, None);
            return Ok(());
        };
        let (reading, id) = Reading::begin(context, ids, (row, geometry));
        self.stage = Stage::Reading(segments, Some(Box::new(reading)));
        self.io = Some(id);
        Ok(())
    }

    /// The row of a segment with the parts alone that are to be moved.
    fn row_of<S: Store>(&self, context: &Context<'_, S>, segment: SegmentId) -> Option<SegmentRow> {
        let row = context.index.segment(segment)?;
        let home = match row.home {
            Home::Own(_) => row.home,
            Home::Parcels(parcels) => {
                let parcels = parcels.only(self.parts.get(&segment).copied()?);
                Home::Parcels(Some(parcels).filter(|parcels| !parcels.is_empty())?)
            }
        };
        Some(SegmentRow { home, ..row })
    }

    fn search<S: Store>(&mut self, context: &Context<'_, S>, mut search: SurvivorSearch) -> Result<(), Trouble> {
        if !step(context, &mut search)? {
            self.stage = Stage::Searching(search);
            return Ok(());
        }
        let superblock = *context.index.superblock();
        let mut sizes: BTreeMap<SegmentId, Vec<Item>> = BTreeMap::new();
        for (segment, outcome) in search.finish() {
            let Some(moving) = self.moving.get_mut(&segment) else { continue };
            if outcome.is_suspect {
                return Err(Trouble::Suspect(segment));
            }
            let named = outcome.survivors.count();
            moving.take_lent(&outcome.survivors, &context.index.lent_blocks(segment));
            let items = moving.cut(&superblock, segment, dropping(outcome.survivors));
            let total: u32 = items.iter().map(|(_, size)| size).sum();
            let (overhead, parts) = (total.saturating_sub(named), moving.parts);
            let live = context.index.live_blocks(segment).unwrap_or(0);
            self.found.insert(segment, Sizes { live, parts, items: items.clone(), overhead });
            sizes.insert(segment, items);
        }
        // What of one segment is in several slots goes with the first of them.
        let mut sized = |segment: &SegmentId| sizes.remove(segment).unwrap_or_default();
        let victims: Vec<Vec<Item>> =
            self.victims.iter().map(|victim| victim.iter().flat_map(&mut sized).collect()).collect();
        let packs = choose::packs(&victims, superblock.geometry.slot_blocks()).ok_or(Trouble::Pointless)?;
        if packs.len() >= victims.len() && !self.is_at_any_cost {
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
        search: Option<SurvivorSearch>,
    ) -> Result<Progress, Trouble> {
        self.stage = Stage::Checking(None);
        let mut search = search.unwrap_or_else(|| {
            let mut search = SurvivorSearch::new(context.index.superblock().geometry.slot_blocks());
            self.moving.iter().for_each(|(segment, moving)| moving.add_to(&mut search, *segment));
            search
        });
        if !step(context, &mut search)? {
            self.stage = Stage::Checking(Some(search));
            return Ok(Progress::More);
        }
        if let Some(trouble) = self.first_wrong(context, search.finish()) {
            return Err(trouble);
        }
        let leases: Vec<Lease> = self.verified.iter().map(|pack| pack.lease).collect();
        if context.index.relocate(&leases, self.moves()).is_err() {
            // It may have come through all the same: only the same again, or taking it back, ends that.
            self.is_switch_open = true;
            self.waits = true;
            return Ok(Progress::More);
        }
        self.is_switch_open = false;
        self.volumes.retain(|segment, _| !self.moving.contains_key(segment));
        let segments = std::mem::take(&mut self.moving).into_keys().collect();
        let blocks = self.verified.iter().map(Pack::payload_blocks).sum();
        self.stage = Stage::Packing;
        Ok(Progress::Moved { segments, packs: std::mem::take(&mut self.verified).len(), blocks })
    }

    /// What the index is to be told once all packs are as they ought to be.
    fn moves(&self) -> Vec<Move> {
        let mut moves: BTreeMap<SegmentId, Move> = BTreeMap::new();
        for (segment, moving) in &self.moving {
            let (segment, parts, parcels) = (*segment, moving.parts, Parcels::none(moving.cut));
            let (survivors, has_holes) = (moving.survivors.clone(), moving.log.row.has_holes);
            moves.insert(segment, Move { segment, parts, parcels, survivors, has_holes });
        }
        for (segment, part, place, has_holes) in self.verified.iter().flat_map(Pack::places) {
            if let Some(moved) = moves.get_mut(&segment) {
                moved.parcels = moved.parcels.with(part, place);
                if part == 0 {
                    moved.has_holes = has_holes;
                }
            }
        }
        moves.into_values().collect()
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
            let moving = self.moving.get(&segment);
            let has_lent =
                |moving: &Moving| moving.lent_of(&context.index.lent_blocks(segment)).is_within(&moving.survivors);
            let has_trims = |moving: &Moving| !moving.drops_trims || !context.index.keeps_trims(&moving.log.row);
            if !context.index.may_move(segment) || !moving.is_some_and(|moving| has_lent(moving) && has_trims(moving)) {
                // In the second case it has been lent since, in the third its trims are to stay since.
                return Some(Trouble::Changed);
            }
            let has_named = moving.is_some_and(|moving| outcome.survivors.is_within(&moving.survivors));
            let is_right = has_named && !outcome.is_suspect;
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
                let Stage::Leasing = self.stage else { return None };
                Some(self.on_leased(result))
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
                if !matches!(self.stage, Stage::Syncing) {
                    return Some(Err(Trouble::Failed("a sync out of turn")));
                }
                if result.is_err() {
                    return Some(Err(Trouble::Poisoned));
                }
                self.verify_next(context, ids);
                Some(Ok(()))
            }
            Event::Request { .. }
            | Event::LeasedFor { .. }
            | Event::Role(_)
            | Event::PeerHas(_)
            | Event::Replicated { .. }
            | Event::Committed(_)
            | Event::MakeDurable { .. }
            | Event::PageLoaded { .. }
            | Event::Place { .. }
            | Event::ChangesLoaded { .. }
            | Event::WroteBack { .. }
            | Event::Moved { .. }
            | Event::Leaves { .. }
            | Event::SlotsFew
            | Event::Awaited { .. }
            | Event::Tick => None,
        }
    }

    /// Begins to read the next pack back; when there is none, what was copied is held against the map once more.
    fn verify_next<S: Store>(&mut self, context: &mut Context<'_, S>, ids: &mut Ids) {
        self.stage = match self.written.pop_front() {
            None => Stage::Checking(None),
            Some(pack) => {
                let (verifying, id) = Verifying::begin(context, ids, pack);
                self.io = Some(id);
                Stage::Verifying(verifying)
            }
        };
    }

    fn on_leased(&mut self, result: Result<Lease, DiskFault>) -> Result<(), Trouble> {
        self.stage = Stage::Packing;
        match result {
            Ok(lease) => {
                self.leases.push(lease);
                if self.is_given_up { Err(Trouble::Changed) } else { Ok(()) }
            }
            // With fewer slots it would not be another round.
            Err(DiskFault::NoSpace) if self.is_at_any_cost => Err(Trouble::Pointless),
            Err(DiskFault::NoSpace) => Err(Trouble::TooFewSlots(self.leases.len())),
            Err(DiskFault::Io) => Err(Trouble::Failed("the index store failed to lease a slot")),
        }
    }

    /// Begins to write a pack.
    fn copy<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (lease, pieces): (Lease, Vec<Piece>),
    ) -> Result<(), Trouble> {
        match Copying::begin(context, ids, (lease, pieces, &self.moving)) {
            Ok((copying, id)) => {
                self.stage = Stage::Copying(Box::new(copying));
                self.io = Some(id);
                Ok(())
            }
            Err(trouble) => {
                context.index.give_back(lease);
                Err(trouble)
            }
        }
    }

    fn on_fetched<S: Store>(
        &mut self,
        context: &mut Context<'_, S>,
        ids: &mut Ids,
        (buffer, result): (crate::buffer::Buffer, Result<(), DiskFault>),
    ) -> Result<(), Trouble> {
        if self.is_given_up {
            return Err(Trouble::Changed);
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Reading(mut segments, Some(mut reading)) => {
                let Some(segment) = segments.last().copied() else { return Ok(()) };
                result.map_err(|_| Trouble::Unreadable(segment))?;
                let superblock = *context.index.superblock();
                match reading.on_fetched(context, ids, (&superblock, &buffer)) {
                    Read::Nothing => return Err(Trouble::Suspect(segment)),
                    Read::Whole(log) => {
                        let parts = self.parts.get(&segment).copied().unwrap_or_default();
                        let drops_trims = log.row.has_holes && context.index.has_spent_trims(&log.row);
                        self.moving.insert(segment, Moving::new(*log, parts, drops_trims));
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
                        self.verified.push(verifying.pack);
                        self.verify_next(context, ids);
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
            | Stage::Leasing
            | Stage::Syncing
            | Stage::Checking(_)
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
            _ if self.is_given_up => Err(Trouble::Changed),
            Ok(()) => copying.on_appended(context, ids, &self.moving),
            Err(DiskFault::NoSpace) => Err(Trouble::Failed("no space on the host for a pack")),
            Err(DiskFault::Io) => Err(Trouble::Failed("a write to a pack failed")),
        };
        match next {
            Ok(None) => {
                self.written.push_back(copying.pack);
                self.stage = Stage::Packing;
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

    /// Ends without the moves that are not done yet; `false` while packs have still to be made void. Nothing is under way.
    pub(super) fn give_up<S: Store>(&mut self, context: &mut Context<'_, S>) -> bool {
        self.packs.clear();
        self.waits = false;
        let pack = match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Copying(copying) => Some(copying.pack),
            Stage::Verifying(verifying) => Some(verifying.pack),
            Stage::Reading(..)
            | Stage::Searching(_)
            | Stage::Packing
            | Stage::Leasing
            | Stage::Syncing
            | Stage::Checking(_)
            | Stage::GivingUp(..)
            | Stage::Voiding(_)
            | Stage::Over => None,
        };
        self.leases.drain(..).for_each(|lease| context.index.give_back(lease));
        let mut leases = Vec::new();
        for pack in self.written.drain(..).chain(self.verified.drain(..)).chain(pack) {
            if pack.has_header() {
                leases.push(pack.lease);
            } else {
                // Without a header nothing in it counts.
                context.index.give_back(pack.lease);
            }
        }
        if leases.is_empty() && !self.is_switch_open {
            return true;
        }
        self.stage = Stage::GivingUp(leases, self.moving.keys().copied().collect());
        false
    }
}

impl Moving {
    fn new(log: SegmentLog, parts: PartSet, drops_trims: bool) -> Self {
        let cut = log.row.home.parcels().map_or(Cut::WHOLE, |parcels| parcels.cut);
        let (survivors, lent) = (Survivors::default(), Survivors::default());
        let (clean_lsn, stays) = (log.last_lsn, PartSet::default());
        Self { log, survivors, lent, cut, parts, stays, clean_lsn, drops_trims }
    }

    /// Those of some blocks that are in the parts that are to be moved.
    fn within_parts(&self, blocks: &Survivors) -> Survivors {
        let slot_blocks = blocks.slot_blocks();
        let parts = (0..self.cut.parts()).filter(|part| self.parts.contains(*part));
        let none = Survivors::none(slot_blocks);
        parts.fold(none, |all, part| all.replaced(self.cut.span(part, slot_blocks), blocks))
    }

    /// What is lent stays, whether or not a page names it.
    fn take_lent(&mut self, named: &Survivors, lent: &Survivors) {
        self.lent = self.lent_of(lent).without(named);
    }

    /// What is lent of the parts that are moved: no more than is there, or ranks would be of blocks that are not.
    fn lent_of(&self, lent: &Survivors) -> Survivors {
        let lent = self.within_parts(lent);
        let held = survivors_of(&self.log.entries, lent.slot_blocks());
        lent.without(&lent.without(&held))
    }

    fn add_to(&self, search: &mut SurvivorSearch, segment: SegmentId) {
        search.add((self.log.row.volume, segment), (self.cut, self.parts), &self.log.entries);
    }

    /// Cuts it into the parts that go to packs; returns these and what each takes there.
    fn cut(&mut self, superblock: &Superblock, segment: SegmentId, mut survivors: Survivors) -> Vec<Item> {
        survivors.add(&self.lent);
        let slot_blocks = superblock.geometry.slot_blocks();
        if self.log.row.own_slot().is_some() {
            self.cut = cut_of(survivors.count(), slot_blocks);
        }
        let parts = (0..self.cut.parts()).filter(|part| self.parts.contains(*part));
        let stays = |part: &usize| *part == 0 || survivors.count_in(self.cut.span(*part, slot_blocks)) > 0;
        self.stays = parts.filter(stays).collect();
        self.survivors = survivors;
        let target = self.target((segment, 1), (1, slot_blocks));
        let parts = (0..self.cut.parts()).filter(|part| self.stays.contains(*part));
        let size = |part| parcel_of(superblock, (&self.log, part), (&self.survivors, &self.lent), target).pack_blocks();
        parts.map(|part| ((segment, part), size(part))).collect()
    }

    /// Where a part of it goes, in a pack of so many parcels: its first block, and the one behind the header's copy.
    pub(super) const fn target(&self, (pack, parcels): (SegmentId, u32), (block, copy_end): (u32, u32)) -> Target {
        let (clean_lsn, drops_trims, cut, parts) = (self.clean_lsn, self.drops_trims, self.cut, self.stays);
        Target { pack, parcels, block, copy_end, clean_lsn, drops_trims, cut, parts }
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
    Survivors::of_words(survivors.slot_blocks(), words)
}
