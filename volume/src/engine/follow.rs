//! The secondary: appends the primary's batches as they are, to segments of the same ids.
//!
//! A batch is looked at as if anybody could have sent it: it must follow on the log, and its payload must be what its checks say.
//! One that begins a segment tells that everything before it is committed, since the primary opens none before; what the
//! secondary has from there on was given up by the primary, whose disk had failed it, and is cut off. Where the secondary
//! cannot go on, it says so and appends nothing any more: it is then brought up to date by other ways.

use super::log::{Batch, OpenSegment, Spare};
use super::mirror::{Mirror, PeerLog, Role};
use super::request::Pending;
use super::time::Mark;
use super::{Context, Volume};
use crate::buffer::{Buffer, total_len};
use crate::feed::BatchEnd;
use crate::format::{BatchHeader, OperationKind, block_check, decode_batch};
use crate::io::{Action, FellOut, IoId};
use crate::pool::{Home, Lease, LeaseClass, Loan, SegmentRow};
use std::collections::VecDeque;
use units::{BLOCK_LEN, Epoch, Lsn, SegmentId};

/// Most bytes of batches that wait for a slot or a sync: what the primary may send ahead is bounded by the link's credits, this is
/// what is taken at all.
const WAITING_BYTES_MAX: u64 = 64 << 20;

/// No pool comes to higher ids: they begin below half of [`SegmentId::MAX`], and a quarter is more than disks last for. A higher one would
/// use up those of this pool.
const SEGMENT_MAX: SegmentId = SegmentId(SegmentId::MAX.0 / 4 * 3);

/// What a secondary knows of the primary's log.
#[derive(Debug)]
pub(super) struct Following {
    epoch: Epoch,
    committed: Lsn,
    /// What of that is on stable storage at the primary, too.
    stable: Lsn,
    /// Batches that wait for the slot of the segment that the first of them begins, or for a sync.
    waiting: VecDeque<Received>,
    waiting_bytes: u64,
    /// Bytes of all that came and is not on the disk: of what waits, and of appends under way.
    held_bytes: u64,
    /// Appends under way of what was cut off, and their bytes: nothing else is done with their segment before they have ended.
    cut: Vec<(IoId, u64)>,
    /// The segment for which a slot was asked for, and the slot.
    wanted: Option<SegmentId>,
    lease: Option<Lease>,
    /// It appends nothing until there is another role.
    is_still: bool,
    /// It appends nothing any more.
    has_fallen_out: bool,
    /// The role that it takes once all that it appends has ended.
    next: Option<Role>,
    /// What the primary was told; nothing where it is to be told in any case.
    told: Option<PeerLog>,
    /// What it has asked to be made durable.
    wanted_durable: Lsn,
}

/// A batch as it came, and what its header says.
#[derive(Debug)]
struct Received {
    header: BatchHeader,
    chain: u32,
    buffers: Vec<Buffer>,
}

impl Following {
    pub(super) const fn committed(&self) -> Lsn {
        self.committed
    }

    pub(super) const fn stable(&self) -> Lsn {
        self.stable
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.wanted.is_none() && self.cut.is_empty()
    }

    pub(super) fn is_still(&self) -> bool {
        self.is_still && self.cut.is_empty()
    }

    /// Forgets what waits to be appended. A slot that was leased for the segment that it begins bears the primary's id, under which that
    /// may have been written: it is had again with that.
    pub(super) fn forget_waiting(&mut self, context: &mut Context<'_>) {
        self.held_bytes -= std::mem::take(&mut self.waiting_bytes);
        self.waiting.drain(..).for_each(|received| context.buffers.put_all(received.buffers));
    }
}

impl Volume {
    /// Begins to follow. Nothing may be under way: who has written and is not sure what of it counts opens the volume anew. What is
    /// merged now would be appended by the next primary of this site, over what was written meanwhile.
    pub(super) fn begin_to_follow(&mut self, context: &mut Context<'_>, epoch: Epoch) {
        if let Mirror::Secondary(following) = &mut self.mirror {
            following.epoch = following.epoch.max(epoch);
            (following.next, following.wanted_durable) = (None, Lsn::ZERO);
            (following.told, following.is_still) = (None, false);
            self.tell_primary(context);
        } else if self.follows_from_here(context, epoch, false) {
            self.tell_primary(context);
        }
    }

    /// Takes no more from the primary, and forgets what waits.
    pub(super) fn rest(&mut self, context: &mut Context<'_>) {
        if self.is_frozen() {
            return;
        }
        if let Mirror::Secondary(following) = &mut self.mirror {
            (following.next, following.is_still) = (None, true);
            (following.wanted, following.lease) = (None, None);
            following.forget_waiting(context);
        } else {
            self.follows_from_here(context, self.epoch, true);
        }
    }

    /// Makes a volume that serves a secondary; `false` while something is under way.
    fn follows_from_here(&mut self, context: &mut Context<'_>, epoch: Epoch, is_still: bool) -> bool {
        if !self.is_at_rest() {
            context.actions.push(Action::FellOut { why: FellOut::NotAtRest });
            return false;
        }
        self.mirror = Mirror::Secondary(Following {
            epoch,
            committed: self.end_of_log(),
            stable: Lsn::ZERO,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            held_bytes: 0,
            cut: Vec::new(),
            wanted: None,
            lease: None,
            is_still,
            has_fallen_out: false,
            next: None,
            told: None,
            wanted_durable: Lsn::ZERO,
        });
        true
    }

    /// Takes a role once what is being appended has ended: what came from a primary cannot be appended again.
    pub(super) fn lead_later(&mut self, role: Role) -> bool {
        let has_failed = self.log.in_flight.iter().any(|batch| matches!(batch.ended, Some(Err(_))));
        let is_under_way = self.log.in_flight.iter().any(|batch| batch.ended.is_none());
        let Mirror::Secondary(following) = &mut self.mirror else { return false };
        let waits = !has_failed && (is_under_way || !following.cut.is_empty());
        following.next = Some(role).filter(|_| waits);
        waits
    }

    /// Takes the role that waits, if it can be taken now.
    pub(super) fn take_waiting_role(&mut self, context: &mut Context<'_>) {
        let Mirror::Secondary(following) = &mut self.mirror else { return };
        let next = following.next.take();
        next.into_iter().for_each(|role| self.on_role(context, role));
    }

    /// A batch came from the primary: its header in the first buffer, its payload in the others.
    pub(super) fn on_replicated(&mut self, context: &mut Context<'_>, buffers: Vec<Buffer>) {
        let judged = self.judge_received(&buffers);
        let Mirror::Secondary(following) = &mut self.mirror else {
            context.buffers.put_all(buffers);
            return;
        };
        let bytes = total_len(&buffers);
        let refusal = match judged {
            Ok(_) if following.has_fallen_out || following.is_still => None,
            Ok(_) if following.waiting_bytes + bytes > WAITING_BYTES_MAX => Some(FellOut::TooMuch),
            Ok((header, chain)) => {
                following.waiting_bytes += bytes;
                following.held_bytes += bytes;
                following.waiting.push_back(Received { header, chain, buffers });
                self.append_received(context);
                return;
            }
            Err(why) => Some(why),
        };
        context.buffers.put_all(buffers);
        refusal.into_iter().for_each(|why| self.fall_out(context, why));
    }

    /// Whether what came is a batch of this volume that can be part of a log, whatever this one's end is.
    fn judge_received(&self, buffers: &[Buffer]) -> Result<(BatchHeader, u32), FellOut> {
        let decoded = buffers.first().and_then(|first| decode_batch(first.as_slice()).ok());
        let (header, chain) = decoded.ok_or(FellOut::BadBatch)?;
        let slot_blocks = self.config.geometry.slot_blocks();
        let is_inside = header.block >= 1
            && header.block < slot_blocks
            && header.total_blocks() <= slot_blocks - header.block
            && (SegmentId(1)..=SEGMENT_MAX).contains(&header.segment);
        let tells_past = header.durable_lsn < header.first_lsn;
        if header.volume != self.id || !is_inside || !tells_past || !is_whole(&header, buffers) {
            return Err(FellOut::BadBatch);
        }
        if header.operations.iter().any(|operation| operation.source().is_some()) {
            return Err(FellOut::Shared);
        }
        Ok((header, chain))
    }

    /// Appends what has come, as far as there is a slot for it.
    pub(super) fn append_received(&mut self, context: &mut Context<'_>) {
        loop {
            let Mirror::Secondary(following) = &self.mirror else { return };
            let Some(received) = following.waiting.front().filter(|_| following.next.is_none()) else { return };
            if self.is_poisoned {
                self.fall_out(context, FellOut::Disk);
                return;
            }
            if self.map.dirty_bytes() > 2 * self.config.map_limit_bytes {
                // What comes waits for the store rather than take memory without bound.
                self.checkpoint_if_due(context, false);
                return;
            }
            let begins = received.header.block == 1;
            let judged = if begins { self.judge_first(&received.header) } else { self.judge_next(received) };
            if let Err(why) = judged {
                self.fall_out(context, why);
                return;
            }
            // What a batch says to be durable has to be so here before it is on the disk: recovery believes it.
            let claimed = received.header.durable_lsn;
            if claimed > self.synced_lsn {
                // What is still being appended calls again.
                if claimed <= self.ended_lsn() && !self.flush.covers(claimed) {
                    self.want_sync(context);
                }
                return;
            }
            if begins && !self.open_for_received(context) {
                return;
            }
            let Mirror::Secondary(following) = &mut self.mirror else { return };
            let Some(received) = following.waiting.pop_front() else { return };
            following.waiting_bytes -= total_len(&received.buffers);
            self.append_one(context, received);
        }
    }

    /// Whether a batch goes on where the open segment ends.
    fn judge_next(&self, received: &Received) -> Result<(), FellOut> {
        let Received { header, .. } = received;
        let Some(open) = &self.log.open else { return Err(FellOut::NotNext) };
        let follows = open.segment == header.segment
            && open.filled_blocks == header.block
            && header.first_lsn == self.log.next_lsn
            && header.chain == self.log.chain
            && header.epoch == self.epoch;
        let fits = self.has_room(header, open.entries.len(), open.checks.len());
        if follows && fits { Ok(()) } else { Err(FellOut::NotNext) }
    }

    /// Whether a batch may begin a segment: what is before it is there, and it takes nothing back that counts.
    fn judge_first(&self, header: &BatchHeader) -> Result<(), FellOut> {
        let Mirror::Secondary(following) = &self.mirror else { return Err(FellOut::NotNext) };
        let newest = self.segments.last_key_value().map(|(newest, _)| *newest);
        let chain = match self.log.in_flight.iter().find(|batch| batch.first_lsn >= header.first_lsn) {
            Some(batch) if batch.first_lsn == header.first_lsn => batch.chain_before,
            Some(_) => return Err(FellOut::NotNext),
            None => self.log.chain,
        };
        let follows = newest.is_none_or(|newest| header.segment > newest)
            && header.first_lsn > following.committed
            && header.first_lsn <= self.log.next_lsn
            && header.chain == chain
            && (self.epoch..=following.epoch).contains(&header.epoch);
        if follows && self.has_room(header, 0, 0) { Ok(()) } else { Err(FellOut::NotNext) }
    }

    fn has_room(&self, header: &BatchHeader, operations: usize, payload_blocks: usize) -> bool {
        let footer =
            crate::format::footer_blocks(operations + header.operations.len(), payload_blocks + header.checks.len());
        header.block + header.total_blocks() + footer <= self.config.geometry.slot_blocks()
    }

    /// Makes ready for the batch in front, which begins a segment; `false` while something is missing for that.
    fn open_for_received(&mut self, context: &mut Context<'_>) -> bool {
        let Mirror::Secondary(following) = &mut self.mirror else { return false };
        let Some(Received { header, .. }) = following.waiting.front() else { return false };
        let (segment, first_lsn, epoch) = (header.segment, header.first_lsn, header.epoch);
        following.committed = following.committed.max(Lsn(first_lsn.0 - 1));
        let lease = following.lease.take_if(|lease| lease.segment == segment);
        if lease.is_none() && following.wanted.replace(segment) != Some(segment) {
            context.actions.push(Action::LeaseFor { segment });
        }
        self.cut_from(first_lsn);
        self.take_in_ended(context);
        let Some(lease) = lease else { return false };
        let Mirror::Secondary(following) = &mut self.mirror else { return false };
        if !self.log.in_flight.is_empty() || !following.cut.is_empty() {
            // The footer says what is in the segment: all of it must have ended well, and nothing else may be on its way there.
            following.lease = Some(lease);
            return false;
        }
        self.seal(context);
        self.epoch = epoch;
        let spare = Spare { lease, class: LeaseClass::Data };
        let open = OpenSegment::new(spare, epoch, first_lsn, self.log.chain);
        let home = Home::Own(open.slot);
        let row = SegmentRow { segment, volume: self.id, home, first_lsn, last_lsn: None, has_holes: false };
        self.segments.insert(segment, row);
        context.actions.push(Action::NoteSegment(Box::new(row)));
        self.log.open = Some(open);
        true
    }

    /// Takes back what was appended from `first_lsn` on and does not count.
    fn cut_from(&mut self, first_lsn: Lsn) {
        let Some(at) = self.log.in_flight.iter().position(|batch| batch.first_lsn >= first_lsn) else { return };
        let cut = self.log.in_flight.split_off(at);
        let Some(first) = cut.front() else { return };
        self.log.next_lsn = first.first_lsn;
        self.log.chain = first.chain_before;
        let end = self.end_of_log();
        self.synced_lsn = self.synced_lsn.min(end);
        self.flush.cut_to(end);
        if let Mirror::Secondary(following) = &mut self.mirror {
            let under_way = cut.iter().filter(|batch| batch.ended.is_none());
            following.cut.extend(under_way.map(|batch| (batch.io, batch.received_bytes)));
        }
        if let Some(open) = &mut self.log.open {
            open.cut(first_lsn);
        }
    }

    fn append_one(&mut self, context: &mut Context<'_>, received: Received) {
        let Received { header, chain, mut buffers } = received;
        let received_bytes = total_len(&buffers);
        let io = self.next_io();
        let identity = (self.id, self.epoch, self.size_bytes);
        let Some(open) = &mut self.log.open else { return };
        let is_first = open.filled_blocks == 0;
        if is_first {
            buffers.insert(0, super::append::slot_header(context, &self.config, open, identity));
        }
        let pool_offset = self.config.geometry.block_offset(open.slot, if is_first { 0 } else { header.block });
        let payload_block = header.block + header.header_blocks();
        let loans = add_received(open, &header, payload_block);
        let mark =
            header.operations.first().copied().filter(|first| matches!(first.kind, OperationKind::TimeMark { .. }));
        if let Some(OperationKind::TimeMark { wall_ms, meter }) = mark.map(|mark| mark.kind) {
            self.time.note(Mark { wall_ms, meter: meter.unwrap_or_default() });
        }
        let operations = header.operations.iter().skip(usize::from(mark.is_some()));
        self.log.in_flight.push_back(Batch {
            io,
            segment: header.segment,
            payload_block,
            first_lsn: header.first_lsn,
            chain_before: header.chain,
            end: BatchEnd { lsn: header.last_lsn(), epoch: header.epoch, segment: Some(header.segment), chain },
            received_bytes,
            checks: header.checks.iter().flat_map(|check| check.to_le_bytes()).collect(),
            mark,
            operations: operations.map(|operation| Pending::of_nobody(*operation)).collect(),
            ended: None,
        });
        self.log.next_lsn = header.last_lsn().next();
        self.log.chain = chain;
        self.status.batches += 1;
        self.status.operations += header.operations.len() as u64;
        self.status.payload_bytes += u64::from(header.total_blocks() - header.header_blocks()) * BLOCK_LEN as u64;
        self.status.appended_bytes += total_len(&buffers);
        if !loans.is_empty() {
            self.note_loans(header.segment, &loans);
            context.actions.push(Action::NoteLoans { segment: header.segment, loans, pledges: Vec::new() });
        }
        context.actions.push(Action::Append { id: io, pool_offset, buffers, to_peer: None });
    }

    /// An append of what was cut off has ended; whether it was one.
    pub(super) fn end_cut_append(&mut self, id: IoId) -> bool {
        let Mirror::Secondary(following) = &mut self.mirror else { return false };
        let Some(at) = following.cut.iter().position(|(cut, _)| *cut == id) else { return false };
        let (_, bytes) = following.cut.swap_remove(at);
        following.held_bytes -= bytes;
        true
    }

    /// The append of the batch in flight at this place has ended.
    pub(super) fn end_received(&mut self, at: usize) {
        let bytes = self.log.in_flight.get_mut(at).map_or(0, |batch| std::mem::take(&mut batch.received_bytes));
        if let Mirror::Secondary(following) = &mut self.mirror {
            following.held_bytes -= bytes;
        }
    }

    /// Bytes of what came from the primary that are held in memory until they are on the disk.
    #[must_use]
    pub const fn held_bytes(&self) -> u64 {
        match &self.mirror {
            Mirror::Secondary(following) => following.held_bytes,
            Mirror::Alone | Mirror::Primary(_) | Mirror::Frozen => 0,
        }
    }

    /// A slot for the segment that the next batch begins. One for another segment, of another time, is of no use.
    pub(super) fn on_leased_for(
        &mut self,
        context: &mut Context<'_>,
        segment: SegmentId,
        result: Result<Lease, crate::error::DiskFault>,
    ) {
        let Mirror::Secondary(following) = &mut self.mirror else { return };
        if following.wanted.take_if(|wanted| *wanted == segment).is_none() {
            return;
        }
        match result {
            Ok(lease) => {
                following.lease = Some(lease);
                self.append_received(context);
            }
            Err(_) => self.fall_out(context, FellOut::NoSlot),
        }
    }

    /// What the primary has committed. Where its log ends in a segment that is not the newest here, that has not come yet, and what
    /// there is instead may be given up; or it is an older one, of which all counts anyway.
    pub(super) fn on_committed(&mut self, context: &mut Context<'_>, told: PeerLog) {
        let (end, newest) = (self.end_of_log(), self.newest_segment());
        let Mirror::Secondary(following) = &mut self.mirror else { return };
        if told.segment == newest {
            following.committed = following.committed.max(told.appended.min(end));
        }
        following.stable = following.stable.max(told.durable.min(following.committed));
        self.take_in_ended(context);
        self.append_received(context);
        self.store_captured(context);
    }

    /// The primary waits until what it has sent up to `lsn` is durable here.
    pub(super) fn on_make_durable(&mut self, context: &mut Context<'_>, lsn: Lsn) {
        let Mirror::Secondary(following) = &mut self.mirror else { return };
        following.wanted_durable = following.wanted_durable.max(lsn);
        following.told = None;
        self.tell_primary(context);
        self.sync_for_primary(context);
    }

    /// Begins the sync that the primary waits for, once all that it is to cover has ended.
    pub(super) fn sync_for_primary(&mut self, context: &mut Context<'_>) {
        let Mirror::Secondary(following) = &self.mirror else { return };
        let wanted = following.wanted_durable;
        if wanted > self.synced_lsn && wanted <= self.ended_lsn() && !self.flush.covers(wanted) {
            self.want_sync(context);
        }
    }

    /// Tells the primary how far the log is, where that has changed.
    pub(super) fn tell_primary(&mut self, context: &mut Context<'_>) {
        let appended = self.ended_lsn();
        let now = PeerLog { segment: self.newest_segment(), appended, durable: self.synced_lsn.min(appended) };
        let Mirror::Secondary(following) = &mut self.mirror else { return };
        if following.has_fallen_out || following.is_still || following.told.replace(now) == Some(now) {
            return;
        }
        context.actions.push(Action::TellPrimary(now));
    }

    /// A batch that was appended for the primary has failed: what comes behind it cannot be taken.
    pub(super) fn fall_out(&mut self, context: &mut Context<'_>, why: FellOut) {
        let Mirror::Secondary(following) = &mut self.mirror else { return };
        following.forget_waiting(context);
        if !std::mem::replace(&mut following.has_fallen_out, true) {
            context.actions.push(Action::FellOut { why });
        }
    }
}

/// Adds what a batch says to the segment; returns what the segment borrows by it.
fn add_received(open: &mut OpenSegment, header: &BatchHeader, mut at: u32) -> Vec<Loan> {
    let mut loans = Vec::new();
    for operation in &header.operations {
        let blocks = operation.payload_blocks();
        open.entries.push((*operation, if blocks > 0 { at } else { 0 }));
        open.has_holes |= operation.makes_holes();
        loans.extend(operation.source().map(|source| Loan { block: at, count: blocks, source }));
        at += blocks;
    }
    open.checks.extend(&header.checks);
    open.filled_blocks = at;
    loans
}

/// Whether the buffers hold the header and the payload that it announces, and each block of that is what its check says. A copy
/// has no payload.
pub(crate) fn is_whole(header: &BatchHeader, buffers: &[Buffer]) -> bool {
    let Some((first, payload)) = buffers.split_first() else { return false };
    let is_cut_right = payload.iter().all(|buffer| buffer.len().is_multiple_of(BLOCK_LEN));
    if first.len() != header.header_blocks() as usize * BLOCK_LEN || !is_cut_right {
        return false;
    }
    let mut blocks = payload.iter().flat_map(|buffer| buffer.as_slice().chunks_exact(BLOCK_LEN));
    let mut checks = header.checks.iter();
    let mut at = header.block + header.header_blocks();
    for operation in &header.operations {
        for _ in 0..operation.payload_blocks() {
            let check = checks.next();
            let is_right = operation.source().is_some()
                || blocks.next().is_some_and(|block| Some(&block_check(header.segment, at, block)) == check);
            if !is_right {
                return false;
            }
            at += 1;
        }
    }
    blocks.next().is_none()
}
