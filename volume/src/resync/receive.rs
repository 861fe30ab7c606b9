//! The receiver, sans-io: parts of segments go to packs of this pool, and are kept aside once these are durable and were read back.
//!
//! The payload of a part is written as it comes; the headers of all parts of a pack, its directory and its own header follow when it
//! is full, since each header tells how many there are. Until a pack is kept nothing in it counts, and a part that was in it
//! is sent again after a stop. A pack that is given up is void before its parts are joined.

use super::part::{Part, Refusal, judge, whole_of};
use crate::buffer::Buffer;
use crate::compact::pack::{Pack, Verifying, Written};
use crate::compact::{Context, Ids};
use crate::error::DiskFault;
use crate::format::{Parcel, ParcelHeader, PartSet, pack_room_blocks};
use crate::io::{Action, Event, IoId};
use crate::pool::{Aside, Index, Lease, LeaseClass, Parcels};
use crate::recover::survivors_of;
use crate::store::Store;
use std::collections::VecDeque;
use std::fmt;
use units::{SegmentId, VolumeId};

/// Takes parts of segments of one volume.
pub struct Receiver {
    volume: VolumeId,
    /// The part that is being taken.
    taking: Option<(Parcel, Vec<Buffer>)>,
    pack: Option<Filling>,
    /// What the index is to be told of the pack that is closed.
    closed: Vec<Aside>,
    stage: Stage,
    io: Option<IoId>,
    /// The pack is to be closed though it may have room.
    is_ending: bool,
    /// It goes on with the next try.
    waits: bool,
    given_up: Vec<SegmentId>,
    last_error: Option<&'static str>,
    is_poisoned: bool,
    ids: Ids,
}

/// What becomes of a part that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is being written.
    Begun,
    /// It is here, or on its way.
    Known,
    /// Another one is being taken, or the store failed: later.
    Busy,
}

/// A pack in the making: the parcels of which the payload is written, and where that is.
#[derive(Debug)]
struct Filling {
    lease: Lease,
    parcels: Vec<Parcel>,
    /// The block behind the last one.
    end: u32,
    /// Blocks of all headers.
    header_blocks: u32,
}

#[derive(Debug)]
enum Stage {
    /// Nothing is under way.
    Resting,
    Leasing,
    Payload,
    /// Headers are written, the next one first.
    Headers(Pack, VecDeque<(u32, Buffer)>),
    Syncing(Pack),
    Verifying(Box<Verifying>),
    /// The index is to be told.
    Keeping(Pack),
    /// It is to be told that nothing in the pack counts; whether it may have been told that it does.
    GivingUp(Lease, Vec<Aside>),
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("volume", &self.volume).field("stage", &self.stage).finish_non_exhaustive()
    }
}

impl Receiver {
    /// One for a volume of which a resync was begun ([`Index::begin_resync`]).
    #[must_use]
    pub fn new(volume: VolumeId) -> Self {
        Self {
            volume,
            taking: None,
            pack: None,
            closed: Vec::new(),
            stage: Stage::Resting,
            io: None,
            is_ending: false,
            waits: false,
            given_up: Vec::new(),
            last_error: None,
            is_poisoned: false,
            ids: Ids::default(),
        }
    }

    /// Whether the next part may come.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Resting) && self.taking.is_none() && !self.is_poisoned
    }

    /// Whether all that was taken is kept, or was given up.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.is_ready() && self.pack.is_none()
    }

    /// Whether a sync failed: it takes nothing any more.
    #[must_use]
    pub const fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// Why the last pack was given up. What was in it is to be sent again.
    pub const fn take_error(&mut self) -> Option<&'static str> {
        self.last_error.take()
    }

    /// Packs that were given up, for [`crate::compact::Compactor::void_packs`].
    pub fn take_given_up(&mut self) -> Vec<SegmentId> {
        std::mem::take(&mut self.given_up)
    }

    /// Whether a part is here, kept or on its way.
    #[must_use]
    pub fn has<S: Store>(&self, index: &Index<S>, segment: SegmentId, part: usize) -> bool {
        let is_it = |parcel: &Parcel| parcel.header.segment == segment && usize::from(parcel.header.part) == part;
        let is_kept = index.aside(segment).is_some_and(|aside| aside.parcels.of(part).is_some());
        is_kept || self.pending().any(is_it)
    }

    fn pending(&self) -> impl Iterator<Item = &Parcel> {
        let filling = self.pack.iter().flat_map(|pack| &pack.parcels);
        filling.chain(self.taking.iter().map(|(parcel, _)| parcel))
    }

    /// Takes a part. One that is here tells, too, which parts there are by now: where the sender has fewer than the segment was to be
    /// complete with, any of them is to be sent again.
    ///
    /// # Errors
    /// [`Refusal`]: nothing was done with it.
    pub fn take<S: Store>(&mut self, context: &mut Context<'_, S>, part: Part) -> Result<Taken, Refusal> {
        if !self.is_ready() {
            return Ok(Taken::Busy);
        }
        let pending: Vec<&Parcel> = self.pending().collect();
        let parcel = judge(context.index, self.volume, &part, &pending)?;
        if self.has(context.index, parcel.header.segment, usize::from(parcel.header.part)) {
            let header = &parcel.header;
            let noted = context.index.narrow_aside(header.segment, header.parts, header.clean_lsn);
            return Ok(noted.map_or(Taken::Busy, |()| Taken::Known));
        }
        self.taking = Some((parcel, part.payload));
        self.go_on(context);
        Ok(Taken::Begun)
    }

    /// Closes the pack that is being filled: no more parts come for now.
    pub fn finish<S: Store>(&mut self, context: &mut Context<'_, S>) {
        self.is_ending = true;
        if matches!(self.stage, Stage::Resting) {
            self.go_on(context);
        }
    }

    /// Time has passed: what the store failed is tried again.
    pub fn tick<S: Store>(&mut self, context: &mut Context<'_, S>) {
        if !std::mem::take(&mut self.waits) {
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Resting) {
            Stage::Keeping(pack) => self.keep(context, pack),
            Stage::GivingUp(lease, parts) => self.forget_pack(context, lease, parts),
            stage @ (Stage::Resting
            | Stage::Leasing
            | Stage::Payload
            | Stage::Headers(..)
            | Stage::Syncing(_)
            | Stage::Verifying(_)) => self.stage = stage,
        }
    }

    /// Begins what comes next while nothing is under way.
    fn go_on<S: Store>(&mut self, context: &mut Context<'_, S>) {
        if self.is_poisoned {
            return;
        }
        let room = pack_room_blocks(context.index.superblock().geometry.slot_blocks());
        let fits = |pack: &Filling, parcel: &Parcel| pack.end - 1 + pack.header_blocks + parcel.pack_blocks() <= room;
        match (&self.pack, &self.taking) {
            (Some(pack), Some((parcel, _))) if fits(pack, parcel) => self.write_payload(context),
            (Some(_), Some(_)) => self.close(context),
            (None, Some(_)) => {
                self.stage = Stage::Leasing;
                context.actions.push(Action::Lease { class: LeaseClass::Data });
            }
            (Some(_), None) if self.is_ending => self.close(context),
            (Some(_), None) => {}
            (None, None) => self.is_ending = false,
        }
    }

    fn write_payload<S: Store>(&mut self, context: &mut Context<'_, S>) {
        let (Some(pack), Some((parcel, payload))) = (&mut self.pack, self.taking.take()) else { return };
        let block = pack.end + parcel.header_blocks();
        let lease = pack.lease;
        pack.end = block + u32::try_from(parcel.checks.len()).unwrap_or(u32::MAX);
        pack.header_blocks += parcel.header_blocks();
        pack.parcels.push(parcel);
        if payload.is_empty() {
            self.stage = Stage::Resting;
            self.go_on(context);
            return;
        }
        self.stage = Stage::Payload;
        self.append(context, lease, (block, payload));
    }

    fn append<S: Store>(&mut self, context: &mut Context<'_, S>, lease: Lease, (block, buffers): (u32, Vec<Buffer>)) {
        let id = self.ids.next();
        self.io = Some(id);
        let pool_offset = context.index.superblock().geometry.block_offset(lease.slot, block);
        context.actions.push(Action::Append { id, pool_offset, buffers, to_peer: None });
    }

    /// All parcels of the pack are known now, and so are their headers.
    fn close<S: Store>(&mut self, context: &mut Context<'_, S>) {
        let Some(filling) = self.pack.take() else { return };
        let superblock = *context.index.superblock();
        let slot_blocks = superblock.geometry.slot_blocks();
        let count = u32::try_from(filling.parcels.len()).unwrap_or(u32::MAX);
        let (mut block, mut copy_end) = (1, slot_blocks - 1);
        let (lease, mut written) = (filling.lease, Vec::with_capacity(filling.parcels.len()));
        self.closed.clear();
        for parcel in filling.parcels {
            let (whole, told) = (whole_of(&parcel), parcel.header);
            let copy = copy_end - parcel.header_blocks();
            let header = ParcelHeader {
                block,
                copy,
                parcels: count,
                pool: superblock.pool,
                pack: lease.segment,
                parts: PartSet::of_part(usize::from(told.part)),
                // It claims nothing of what is dead by this site's map, which does not know of snapshots that are gone.
                clean_lsn: told.last_lsn,
                moves: 1,
                ..told
            };
            let parcel = Parcel { header, ..parcel };
            (block, copy_end) = (block + parcel.pack_blocks() - parcel.header_blocks(), copy);
            let one = Written::of_parcel(&parcel, lease.slot);
            let place = one.place();
            self.closed.push(Aside {
                segment: told.segment,
                whole,
                parcels: Parcels::none(told.cut).with(usize::from(told.part), place),
                survivors: survivors_of(&parcel.entries, slot_blocks),
                parts: told.parts,
                has_holes: parcel.entries.iter().any(|entry| entry.operation.makes_holes()),
                as_of: told.clean_lsn,
            });
            written.push(one);
        }
        let pack = Pack::of(&superblock, lease, written);
        let headers = pack.headers(&superblock).into();
        self.write_next(context, pack, headers);
    }

    fn write_next<S: Store>(&mut self, context: &mut Context<'_, S>, pack: Pack, mut headers: VecDeque<(u32, Buffer)>) {
        let lease = pack.lease;
        if let Some((block, header)) = headers.pop_front() {
            self.stage = Stage::Headers(pack, headers);
            self.append(context, lease, (block, vec![header]));
        } else {
            let id = self.ids.next();
            self.io = Some(id);
            self.stage = Stage::Syncing(pack);
            context.actions.push(Action::Sync { id });
        }
    }

    fn keep<S: Store>(&mut self, context: &mut Context<'_, S>, pack: Pack) {
        if context.index.keep_aside(pack.lease, &self.closed).is_err() {
            // It may have come through all the same: only the same again ends that.
            self.stage = Stage::Keeping(pack);
            self.waits = true;
            return;
        }
        self.closed.clear();
        self.stage = Stage::Resting;
        self.go_on(context);
    }

    /// Takes the end of one of its actions; what is not its own is left alone.
    pub fn handle<S: Store>(&mut self, context: &mut Context<'_, S>, event: Event) {
        match event {
            Event::Leased { result } => self.on_leased(context, result),
            Event::Appended { id, result, .. } => {
                if self.io.take_if(|io| *io == id).is_some() {
                    self.on_appended(context, result);
                }
            }
            Event::Synced { id, result } => {
                if self.io.take_if(|io| *io == id).is_some() {
                    self.on_synced(context, result);
                }
            }
            Event::Fetched { id, buffer, result } => {
                if self.io.take_if(|io| *io == id).is_some() {
                    self.on_fetched(context, &buffer, result);
                }
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
            | Event::Tick => {}
        }
    }

    fn on_leased<S: Store>(&mut self, context: &mut Context<'_, S>, result: Result<Lease, DiskFault>) {
        if !matches!(self.stage, Stage::Leasing) {
            return;
        }
        self.stage = Stage::Resting;
        match result {
            Ok(lease) => {
                self.pack = Some(Filling { lease, parcels: Vec::new(), end: 1, header_blocks: 0 });
                self.go_on(context);
            }
            Err(_) => {
                self.taking = None;
                self.last_error = Some("there is no slot for a pack");
            }
        }
    }

    fn on_appended<S: Store>(&mut self, context: &mut Context<'_, S>, result: Result<(), DiskFault>) {
        let why = "a write to a pack failed";
        match (std::mem::replace(&mut self.stage, Stage::Resting), result) {
            (Stage::Payload, Ok(())) => self.go_on(context),
            (Stage::Payload, Err(_)) => {
                // Without a header nothing in it counts.
                self.pack.take().into_iter().for_each(|pack| context.index.give_back(pack.lease));
                self.last_error = Some(why);
            }
            (Stage::Headers(pack, headers), Ok(())) => self.write_next(context, pack, headers),
            (Stage::Headers(pack, _), Err(_)) => self.give_up(context, pack.lease, why),
            (
                stage @ (Stage::Resting
                | Stage::Leasing
                | Stage::Syncing(_)
                | Stage::Verifying(_)
                | Stage::Keeping(_)
                | Stage::GivingUp(..)),
                _,
            ) => self.stage = stage,
        }
    }

    fn on_synced<S: Store>(&mut self, context: &mut Context<'_, S>, result: Result<(), DiskFault>) {
        match (std::mem::replace(&mut self.stage, Stage::Resting), result) {
            (Stage::Syncing(pack), Ok(())) => {
                let (verifying, id) = Verifying::begin(context, &mut self.ids, pack);
                self.io = Some(id);
                self.stage = Stage::Verifying(Box::new(verifying));
            }
            (Stage::Syncing(_), Err(_)) => {
                self.is_poisoned = true;
                self.last_error = Some("a sync failed");
            }
            (
                stage @ (Stage::Resting
                | Stage::Leasing
                | Stage::Payload
                | Stage::Headers(..)
                | Stage::Verifying(_)
                | Stage::Keeping(_)
                | Stage::GivingUp(..)),
                _,
            ) => self.stage = stage,
        }
    }

    fn on_fetched<S: Store>(&mut self, context: &mut Context<'_, S>, buffer: &Buffer, result: Result<(), DiskFault>) {
        match std::mem::replace(&mut self.stage, Stage::Resting) {
            Stage::Verifying(mut verifying) => {
                let next = result
                    .map_err(|_| ())
                    .and_then(|()| verifying.on_fetched(context, &mut self.ids, buffer).map_err(|_| ()));
                match next {
                    Ok(None) => self.keep(context, verifying.pack),
                    Ok(id) => {
                        self.io = id;
                        self.stage = Stage::Verifying(verifying);
                    }
                    Err(()) => {
                        let why = "a pack does not give back what was written to it";
                        self.give_up(context, verifying.pack.lease, why);
                    }
                }
            }
            stage @ (Stage::Resting
            | Stage::Leasing
            | Stage::Payload
            | Stage::Headers(..)
            | Stage::Syncing(_)
            | Stage::Keeping(_)
            | Stage::GivingUp(..)) => self.stage = stage,
        }
    }

    /// Gives up a pack of which headers may be on the disk. What is being taken may be of a segment whose trunk was in it.
    fn give_up<S: Store>(&mut self, context: &mut Context<'_, S>, lease: Lease, why: &'static str) {
        self.last_error = Some(why);
        self.taking = None;
        let parts = std::mem::take(&mut self.closed);
        self.forget_pack(context, lease, parts);
    }

    fn forget_pack<S: Store>(&mut self, context: &mut Context<'_, S>, lease: Lease, parts: Vec<Aside>) {
        if context.index.give_up_aside(lease, &parts).is_err() {
            self.stage = Stage::GivingUp(lease, parts);
            self.waits = true;
            return;
        }
        self.given_up.push(lease.segment);
        self.stage = Stage::Resting;
        self.go_on(context);
    }
}
