//! The volume: events in, actions out.
//!
//! A write joins the pending operations; [`Volume::poll_append`] makes a batch of what has gathered and appends it. When the
//! append has ended, and all before it, the map takes the batch in and its requests are answered. So a read sees what has
//! been acknowledged and never what may still fail; reads of a block whose batch is in flight get the content before.
//!
//! Order kept at every moment: `folded_to <= durable_lsn <= applied_lsn < next_lsn`.

#![expect(
    clippy::cast_possible_truncation,
    reason = "counts of blocks and bytes of one request, batch or slot: at most 32 MiB and 65,536 blocks"
)]

mod append;
mod changes;
mod checkpoint;
mod compare;
mod copy;
mod extents;
mod flush;
mod follow;
mod hold;
mod idle;
mod log;
mod mirror;
mod places;
mod read;
mod release;
mod request;
mod resize;
mod snapshot;
mod subblock;
mod time;

pub(crate) use follow::is_whole;
pub use hold::HOLD_DURATION_MAX;
pub use mirror::{PeerLog, Role};
pub(crate) use time::Mark;

use crate::buffer::BufferPool;
use crate::error::{DiskFault, Error, ErrorKind};
use crate::feed::BatchEnd;
use crate::format::{Geometry, OperationKind};
use crate::io::{Action, Event, IoId, PageIndex};
use crate::map::Map;
use crate::pool::{Loans, SegmentRow, Survivors};
use crate::recover::Recovered;
use crate::request::{Completion, Reply, Request, RequestId};
use log::{Log, OpenSegment};
use request::Asker;
use std::collections::BTreeMap;
use std::sync::Arc;
use units::{Epoch, Lsn, MeterTime, Monotonic, PoolId, SegmentId, VolumeId};

/// What a volume needs from its driver while it handles an event.
#[derive(Debug)]
pub struct Context<'a> {
    /// The time.
    pub now: Monotonic,
    /// Milliseconds since 1970: a label on batches, never compared.
    pub wall_ms: u64,
    /// The meter's time.
    pub meter: MeterTime,
    /// Where buffers come from and go to.
    pub buffers: &'a mut BufferPool,
    /// What the volume wants done is added here, in the order it must begin.
    pub actions: &'a mut Vec<Action>,
}

/// What a volume is told once.
#[derive(Debug, Clone, Copy)]
pub struct VolumeConfig {
    /// The pool's id.
    pub pool: PoolId,
    /// How the pool is cut.
    pub geometry: Geometry,
    /// Most appends under way at once: 1 where an append ends as it is given, more to keep a device busy.
    pub appends_in_flight_max: usize,
    /// Bytes that the map's cache may take; see [`Volume::set_map_limit`].
    pub map_limit_bytes: usize,
    /// Sealed segments that may wait to be folded into the stored map: bounds what a restart replays.
    pub unfolded_segments_max: usize,
    /// Most pages of one write-back, 1 at least; a page takes 20 KiB at most.
    pub write_back_pages_max: usize,
    /// Blocks that a piece has at least, on the average, of what copies share: bounds the memory that shared pieces take.
    pub shared_piece_blocks_min: u32,
    /// Whether what it uses is measured, so that its log tells the time.
    pub is_metered: bool,
}

/// Figures of a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// The volume's size.
    pub size_bytes: u64,
    /// Whether it takes no writes any more since a sync failed.
    pub is_poisoned: bool,
    /// The last operation that is acknowledged.
    pub applied_lsn: Lsn,
    /// The last operation that is appended with all before it, whether it counts or not.
    pub ended_lsn: Lsn,
    /// The last operation on stable storage for certain.
    pub durable_lsn: Lsn,
    /// The stored map holds everything up to here.
    pub folded_to: Lsn,
    /// Segments it holds.
    pub segments: usize,
    /// Bytes of the map's cache.
    pub map_bytes: usize,
    /// Bytes of it that wait to be written back.
    pub map_dirty_bytes: usize,
    /// Reads, and merges of partial blocks, that were looked up in the map.
    pub map_lookups: u64,
    /// Pages of the map that were asked of the store for requests.
    pub map_page_loads: u64,
    /// Blocks that failed their check since the volume was opened.
    pub corrupt_blocks: u64,
    /// Reads of a check that failed and were right at the second try.
    pub reread_blocks: u64,
    /// Batches appended.
    pub batches: u64,
    /// Operations in them.
    pub operations: u64,
    /// Bytes appended, headers and footers too.
    pub appended_bytes: u64,
    /// Bytes of payload in them.
    pub payload_bytes: u64,
    /// Write-backs that the store failed.
    pub store_faults: u64,
    /// Appends that the disk failed.
    pub append_faults: u64,
}

/// An open volume.
#[derive(Debug)]
pub struct Volume {
    id: VolumeId,
    config: VolumeConfig,
    epoch: Epoch,
    size_bytes: u64,
    map: Map,
    log: Log,
    segments: BTreeMap<SegmentId, SegmentRow>,
    /// Which blocks are left of those that were moved.
    survivors: BTreeMap<SegmentId, Arc<Survivors>>,
    /// What they borrow, while they are in their own slots.
    loans: BTreeMap<SegmentId, Loans>,
    /// Whether its map may name segments of other volumes; what it borrows may be theirs, too.
    is_heir: bool,
    /// Whether it takes no changes: a view of a snapshot.
    is_read_only: bool,
    /// Segments of other volumes.
    places: places::Places,
    /// Everything up to here is in the map, and answered.
    applied_lsn: Lsn,
    /// Where the batch of that ends.
    applied_end: BatchEnd,
    /// Everything up to here is in the map and on stable storage.
    durable_lsn: Lsn,
    /// On stable storage is everything up to here, whether or not it counts.
    synced_lsn: Lsn,
    folded_to: Lsn,
    is_poisoned: bool,
    next_io: u64,
    writes: request::WriteTable,
    subblock: subblock::SubBlocks,
    reads: read::Reads,
    /// Requests that wait for a page of the map.
    page_waiters: BTreeMap<PageIndex, Vec<Parked>>,
    flush: flush::Flush,
    hold: hold::Hold,
    idle: idle::Idle,
    changes: changes::ChangesRequests,
    checkpoint: checkpoint::Checkpoint,
    release: release::Releases,
    time: time::TimeMarks,
    resize: Option<resize::Resize>,
    mirror: mirror::Mirror,
    is_mirrored: bool,
    status: Status,
}

/// What goes on when a page of the map has come.
#[derive(Debug)]
enum Parked {
    Read(read::ReadRequest),
    SubBlock(u64),
    Extents(extents::ExtentsRequest),
    Cache(RequestId, units::BlockRange),
    Resize,
}

impl Volume {
    /// Opens a volume as recovery found it.
    #[must_use]
    pub fn open(config: VolumeConfig, recovered: Recovered) -> Self {
        let applied_lsn = Lsn(recovered.next_lsn.0 - 1);
        let mut checkpoint = checkpoint::Checkpoint::default();
        checkpoint.fold_to(recovered.wanted_lsn);
        Self {
            id: recovered.volume,
            config,
            epoch: recovered.epoch,
            size_bytes: recovered.size_bytes,
            map: recovered.map,
            log: Log {
                open: recovered.tail.map(|tail| OpenSegment::of_tail(tail, recovered.epoch)),
                ..Log::new(recovered.next_lsn, recovered.chain)
            },
            applied_end: BatchEnd {
                lsn: applied_lsn,
                epoch: recovered.epoch,
                segment: recovered.segments.iter().map(|row| row.segment).max(),
                chain: recovered.chain,
            },
            segments: recovered.segments.into_iter().map(|row| (row.segment, row)).collect(),
            survivors: recovered.survivors,
            loans: recovered.loans,
            is_heir: recovered.is_heir,
            is_read_only: recovered.is_read_only,
            places: places::Places::default(),
            applied_lsn,
            // Whoever recovers syncs before the volume is opened. The first batch tells it: rot in what came before is then
            // told from a torn end.
            durable_lsn: applied_lsn,
            synced_lsn: applied_lsn,
            folded_to: recovered.folded_to,
            is_poisoned: false,
            next_io: 1,
            writes: request::WriteTable::default(),
            subblock: subblock::SubBlocks::default(),
            reads: read::Reads::default(),
            page_waiters: BTreeMap::new(),
            flush: flush::Flush::default(),
            hold: hold::Hold::default(),
            idle: idle::Idle::default(),
            changes: changes::ChangesRequests::default(),
            checkpoint,
            release: release::Releases::default(),
            time: time::TimeMarks::new(recovered.last_mark),
            resize: None,
            mirror: mirror::Mirror::default(),
            is_mirrored: false,
            status: Status::default(),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> VolumeId {
        self.id
    }

    /// Its size in bytes now.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Its segments, in the order of its log.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentRow> {
        self.segments.values().copied().collect()
    }

    pub(crate) fn segment(&self, segment: SegmentId) -> Option<&SegmentRow> {
        self.segments.get(&segment)
    }

    /// Its figures.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            size_bytes: self.size_bytes,
            is_poisoned: self.is_poisoned,
            applied_lsn: self.applied_lsn,
            ended_lsn: self.ended_lsn(),
            durable_lsn: self.durable_lsn,
            folded_to: self.folded_to,
            segments: self.segments.len(),
            map_bytes: self.map.cached_bytes(),
            map_dirty_bytes: self.map.dirty_bytes(),
            ..self.status
        }
    }

    /// Bytes that the map's cache takes.
    #[must_use]
    pub const fn map_bytes(&self) -> usize {
        self.map.cached_bytes()
    }

    /// Sets the bytes that the map's cache may take. Pages that wait to be written back stay until they are.
    pub fn set_map_limit(&mut self, limit_bytes: usize) {
        self.config.map_limit_bytes = limit_bytes;
    }

    /// Advances the volume by one event; what it wants done goes to the context's actions.
    pub fn handle(&mut self, context: &mut Context<'_>, event: Event) {
        match event {
            Event::Request { id, request } => self.on_request(context, id, request),
            Event::Appended { id, buffers, result } => self.on_appended(context, id, buffers, result),
            Event::Fetched { id, buffer, result } => self.on_fetched(context, id, buffer, result),
            Event::Synced { id, result } => self.on_synced(context, id, result),
            Event::PageLoaded { page, result } => self.on_page_loaded(context, page, result),
            Event::Place { segment, place } => self.on_place(context, segment, place),
            Event::Moved { row, survivors } => self.on_moved(context, &row, survivors),
            Event::Leaves { segment } => self.on_leaves(context, segment),
            Event::ChangesLoaded { id, result } => self.on_changes_loaded(context, id, result),
            Event::WroteBack { id, result } => self.on_wrote_back(context, id, result),
            Event::Leased { result } => self.on_leased(context, result),
            Event::LeasedFor { segment, result } => self.on_leased_for(context, segment, result),
            Event::Role(role) => self.on_role(context, role),
            Event::PeerHas(log) => self.on_peer_has(context, log),
            Event::Replicated { buffers } => self.on_replicated(context, buffers),
            Event::Committed(log) => self.on_committed(context, log),
            Event::MakeDurable { lsn } => self.on_make_durable(context, lsn),
            Event::SlotsFew => self.on_slots_few(context),
            Event::Awaited { segment } => self.on_awaited(context, segment),
            Event::Tick => self.on_tick(context),
        }
    }

    /// Whether nothing is under way: no request unanswered, no action outstanding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.log.is_idle()
            && self.writes.is_empty()
            && self.subblock.is_empty()
            && self.reads.is_empty()
            && self.page_waiters.is_empty()
            && self.places.is_idle()
            && self.flush.is_idle()
            && !self.hold.is_on()
            && self.changes.is_empty()
            && self.checkpoint.is_idle()
            && self.release.is_idle()
            && self.time.is_idle()
            && self.resize.is_none()
            && self.is_following_idle()
    }

    /// Whether time alone will make it act: it has changes to write back, or something is under way.
    #[must_use]
    pub fn wants_ticks(&self) -> bool {
        !self.is_idle()
            || self.map.is_dirty()
            || (self.checkpoint.is_wanted_beyond(self.folded_to) && !self.is_poisoned)
            || self.release.has_empty()
            || self.has_untold()
            || self.log.has_failed_footer()
            || self.has_segment_to_seal()
    }

    fn on_request(&mut self, context: &mut Context<'_>, id: RequestId, request: Request) {
        if self.is_read_only && request.is_change() {
            context.buffers.put_all(request.into_buffers());
            let detail = "a snapshot does not change; clone it to write";
            reply(context, id, Err(Error::new(ErrorKind::InvalidRequest, detail)));
            return;
        }
        let Some(request) = self.refuse_by_role(context, id, request) else { return };
        match request {
            Request::Read { range } => self.on_read(context, id, range),
            Request::Write { range, payload, fua } => self.on_write(context, Asker { id, fua }, range, payload),
            Request::CompareAndWrite { range, expected, payload, fua } => {
                self.on_compare_and_write(context, Asker { id, fua }, range, (expected, payload));
            }
            Request::OrWrite { range, payload, fua } => self.on_or_write(context, Asker { id, fua }, range, payload),
            Request::Copy { source, target, fua } => self.on_copy(context, Asker { id, fua }, source, target),
            Request::Lend { range } => self.on_lend(context, id, range),
            Request::Borrow { target, lent, fua } => self.on_borrow(context, Asker { id, fua }, target, lent),
            Request::Trim { range, fua } => self.on_zero(context, Asker { id, fua }, range, OperationKind::Trim),
            Request::WriteZeroes { range, fua } => {
                self.on_zero(context, Asker { id, fua }, range, OperationKind::WriteZeroes);
            }
            Request::Flush => self.on_flush(context, id),
            Request::Cache { range } => self.on_cache(context, id, range),
            Request::Extents { range, extents_max } => self.on_extents(context, id, range, extents_max),
            Request::Changed { since, range, extents_max } => {
                self.on_changed(context, id, (since, extents_max), range);
            }
            Request::Resize { size_bytes, discard_tail } => self.on_resize(context, id, size_bytes, discard_tail),
            Request::Snapshot { id: snapshot } => self.on_snapshot(context, id, snapshot),
            Request::Hold => self.on_hold(context, id),
            Request::Release => self.on_release_hold(context, id),
            Request::Checkpoint => self.on_checkpoint(context, id),
            Request::Meter => self.on_meter(context, id),
            Request::KeepTime { is_kept } => self.on_keep_time(context, id, is_kept),
        }
    }

    fn on_page_loaded(
        &mut self,
        context: &mut Context<'_>,
        page: PageIndex,
        result: Result<crate::io::LoadedPage, DiskFault>,
    ) {
        let waiters = self.page_waiters.remove(&page).unwrap_or_default();
        let loaded = match result {
            Ok(loaded) => self.map.loaded(page, &loaded).map_err(|fault| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("map page {} of volume {}: {fault}; rebuild the index", page.0, self.id),
                )
            }),
            Err(fault) => Err(Error::new(
                ErrorKind::Unavailable,
                format!("map page {} of volume {} cannot be loaded: {fault}", page.0, self.id),
            )),
        };
        for parked in waiters {
            match &loaded {
                Ok(()) => self.resume(context, parked),
                Err(error) => self.fail_parked(context, parked, error.clone()),
            }
        }
        // Who waits for more than one page would lose the first while it waits for the next, for ever.
        if self.page_waiters.is_empty() {
            self.map.shrink_to(self.config.map_limit_bytes);
        }
    }

    /// Lets `parked` wait for `page`, and asks for it unless that is done.
    fn park(&mut self, context: &mut Context<'_>, page: PageIndex, parked: Parked) {
        let waiters = self.page_waiters.entry(page).or_default();
        if waiters.is_empty() {
            self.status.map_page_loads += 1;
            context.actions.push(Action::LoadPage { page });
        }
        waiters.push(parked);
    }

    fn resume(&mut self, context: &mut Context<'_>, parked: Parked) {
        match parked {
            Parked::Read(read) => self.resolve_read(context, read),
            Parked::SubBlock(number) => self.resolve_subblock(context, number),
            Parked::Extents(extents) => self.walk_extents(context, extents),
            Parked::Cache(id, range) => self.bring_near(context, id, range),
            Parked::Resize => self.advance_resize(context),
        }
    }

    fn fail_parked(&mut self, context: &mut Context<'_>, parked: Parked, error: Error) {
        match parked {
            Parked::Read(read) => self.fail_read(context, read, error),
            Parked::SubBlock(number) => self.fail_subblock(context, number, error),
            Parked::Extents(extents) => reply(context, extents.id, Err(error)),
            Parked::Cache(id, _) => reply(context, id, Err(error)),
            Parked::Resize => self.fail_resize(context, error),
        }
    }

    fn on_tick(&mut self, context: &mut Context<'_>) {
        self.end_hold_if_late(context);
        self.answer_keep_time(context);
        self.log.waits_for_space = false;
        self.retry_footers(context);
        self.void_empty(context);
        self.settle(context);
        self.checkpoint_if_due(context, true);
        self.note_idle(context);
        self.want_peer_sync_again(context);
        self.map.shrink_to(self.config.map_limit_bytes);
    }

    fn next_io(&mut self) -> IoId {
        let id = IoId(self.next_io);
        self.next_io += 1;
        id
    }
}

fn reply(context: &mut Context<'_>, id: RequestId, result: Result<Completion, Error>) {
    context.actions.push(Action::Reply(Reply { id, result }));
}

fn poisoned() -> Error {
    Error::new(
        ErrorKind::Poisoned,
        "the disk failed to make writes durable; look at the disk, then restart the daemon to open the volume anew",
    )
}

#[cfg(test)]
mod tests;
