//! Making batches, appending them, and taking them in when they have ended.

use super::log::{Batch, FOOTER_FAULTS_MAX, FooterState, OpenSegment, SealedFooter, Spare};
use super::request::{Pending, Shared};
use super::{Context, Volume};
use crate::buffer::{Buffer, total_len};
use crate::error::{DiskFault, Error, ErrorKind};
use crate::feed::BatchEnd;
use crate::format::{
    BATCH_OPERATIONS_MAX, BatchHeader, OperationKind, SlotHeader, SlotUse, batch_header_blocks, block_check,
    encode_batch, encode_footer, moved_checks,
};
use crate::io::{Action, FellOut, IoId, ToPeer};
use crate::map::Location;
use crate::pool::{Boundary, Home, Lease, LeaseClass, Loan, SegmentRow};
use crate::request::Completion;
use units::{BLOCK_BYTES, BLOCK_LEN, Lsn, VolumeId};

/// Most payload blocks of one batch: 4 MiB. Bounds how much one append keeps others waiting.
const BATCH_PAYLOAD_BLOCKS_MAX: usize = 1024;

/// Appends that may fail one after the other, each in a new segment, before their requests fail.
const APPEND_FAILURES_MAX: u32 = 3;

/// Of the blocks of a slot, one of so many is left to trims by writes that have no slot to go on in: what is kept back
/// for trims of all volumes may have been used up by others.
const BLOCKS_PER_BLOCK_FOR_TRIMS: u32 = 64;

/// Fewest and most blocks left to trims: at least a batch, and a block that it may add to the footer.
const BLOCKS_FOR_TRIMS: (u32, u32) = (2, 16);

/// How many operations of the front of the queue make the next batch.
#[derive(Debug, Clone, Copy, Default)]
struct Cut {
    operations: usize,
    payload_blocks: usize,
}

impl Volume {
    /// Gives out what has gathered since the last call as appends. The driver calls it when it has handed over every event
    /// it has, so that what arrived together shares a batch.
    pub fn poll_append(&mut self, context: &mut Context<'_>) {
        self.append_up_to(context, usize::MAX);
    }

    /// As [`Volume::poll_append`], but one batch at most: the driver asks again when that may go, too.
    pub fn poll_one_append(&mut self, context: &mut Context<'_>) {
        self.append_up_to(context, 1);
    }

    fn append_up_to(&mut self, context: &mut Context<'_>, batches_max: usize) {
        self.end_hold_if_late(context);
        self.turn_over_if_due(context);
        if self.map.dirty_bytes() > 2 * self.config.map_limit_bytes {
            // Writes wait for the store rather than take memory without bound, but not for one that fails.
            self.checkpoint_if_due(context, false);
            if !self.checkpoint.is_folding() {
                let detail = "the index store fails to take map pages, and no more can be kept; look at its disk";
                self.fail_pending(context, &Error::new(ErrorKind::Unavailable, detail));
            }
            return;
        }
        let mut batches = 0;
        while batches < batches_max && self.may_begin_batch() {
            let mut cut = self.cut_batch();
            if self.hold.keeps_back() {
                cut = Cut { operations: cut.operations.min(self.snapshots_in_front()), payload_blocks: 0 };
            }
            if cut.operations == 0 {
                if !self.open_next_segment(context) {
                    return;
                }
            } else {
                self.append_batch(context, cut);
                batches += 1;
            }
        }
    }

    /// Whether what is appended next is a write.
    #[must_use]
    pub fn is_write_next(&self) -> bool {
        self.log.pending.front().is_some_and(|pending| pending.operation.gives_content())
    }

    fn may_begin_batch(&self) -> bool {
        let waiting = if self.hold.keeps_back() { self.snapshots_in_front() } else { self.log.pending.len() };
        let under_way = self.log.in_flight.iter().filter(|batch| batch.ended.is_none()).count();
        let may_append = self.may_write() && !self.log.is_failing && !self.log.is_turning_over;
        waiting > 0 && may_append && under_way < self.config.appends_in_flight_max
    }

    /// How much of the queue fits the open segment as one batch. One has payload or copies: nothing is written for these, and what
    /// is written lies behind each other.
    fn cut_batch(&self) -> Cut {
        let mut cut = Cut::default();
        let Some(open) = &self.log.open else { return cut };
        let slot_blocks = self.config.geometry.slot_blocks();
        let (fewest, most) = BLOCKS_FOR_TRIMS;
        let for_trims = (slot_blocks / BLOCKS_PER_BLOCK_FOR_TRIMS).clamp(fewest, most);
        let leaves_room = open.filled_blocks > 0 && !self.log.has_spare_for_data();
        let mut room = 0;
        // Room for the one that tells the time.
        let marks = usize::from(self.tells_time());
        let mut copies = None;
        for pending in self.log.pending.iter().take(BATCH_OPERATIONS_MAX - marks) {
            if pending.operation.gives_content() {
                let is_copy = pending.operation.source().is_some();
                if !open.takes_data || *copies.get_or_insert(is_copy) != is_copy {
                    break;
                }
                room = if leaves_room { for_trims } else { 0 };
            }
            let operations = cut.operations + 1;
            let payload_blocks = cut.payload_blocks + pending.operation.payload_blocks() as usize;
            let blocks = batch_header_blocks(operations + marks, payload_blocks) + payload_blocks as u32;
            let fits = open.fits(slot_blocks, blocks + room, operations + marks, payload_blocks);
            if payload_blocks > BATCH_PAYLOAD_BLOCKS_MAX || !fits {
                break;
            }
            cut = Cut { operations, payload_blocks };
        }
        cut
    }

    fn append_batch(&mut self, context: &mut Context<'_>, cut: Cut) {
        let io = self.next_io();
        let (id, epoch, size_bytes, durable_lsn) = (self.id, self.epoch, self.size_bytes, self.stable_lsn());
        let mut operations: Vec<Pending> = self.log.pending.drain(..cut.operations).collect();
        self.name_generations(context, &mut operations);
        let is_first = self.log.open.as_ref().is_some_and(|open| open.filled_blocks == 0);
        let mark = self.mark_time(context, is_first);
        let open = self.log.open.as_mut().expect("a batch was cut for the open segment");
        let block = open.filled_blocks + u32::from(is_first);
        let count = cut.operations + usize::from(mark.is_some());
        let header_blocks = batch_header_blocks(count, cut.payload_blocks);
        let payload_block = block + header_blocks;
        let mut buffers = Vec::with_capacity(cut.operations + 2);
        if is_first {
            buffers.push(slot_header(context, &self.config, open, (id, epoch, size_bytes)));
        }
        let header_at = buffers.len();
        let first_check = open.checks.len();
        open.entries.extend(mark.map(|mark| (mark, 0)));
        let loans = add_entries(open, payload_block, &mut operations, &mut buffers);
        let pledges = operations.iter().filter_map(|pending| pending.shared.as_ref()?.pledge.clone()).collect();
        let header = BatchHeader {
            block,
            volume: id,
            segment: open.segment,
            epoch,
            first_lsn: self.log.next_lsn,
            durable_lsn,
            wall_ms: context.wall_ms,
            chain: self.log.chain,
            operations: mark.into_iter().chain(operations.iter().map(|pending| pending.operation)).collect(),
            checks: open.checks.get(first_check..).unwrap_or_default().to_vec(),
        };
        let mut encoded = context.buffers.take(header_blocks as usize * BLOCK_LEN);
        let chain = encode_batch(&header, encoded.as_mut_slice());
        buffers.insert(header_at, encoded);
        let pool_offset = self.config.geometry.block_offset(open.slot, if is_first { 0 } else { block });
        self.log.in_flight.push_back(Batch {
            io,
            segment: open.segment,
            payload_block,
            first_lsn: header.first_lsn,
            chain_before: header.chain,
            end: BatchEnd { lsn: header.last_lsn(), epoch, segment: Some(open.segment), chain },
            received_bytes: 0,
            checks: header.checks.iter().flat_map(|check| check.to_le_bytes()).collect(),
            mark,
            operations,
            ended: None,
        });
        self.log.next_lsn = header.last_lsn().next();
        self.log.chain = chain;
        self.status.batches += 1;
        self.status.operations += count as u64;
        let appended = total_len(&buffers);
        let header_bytes = u64::from(header_blocks + u32::from(is_first)) * BLOCK_BYTES;
        self.status.payload_bytes += appended - header_bytes;
        self.status.appended_bytes += appended;
        if !loans.is_empty() {
            self.note_loans(header.segment, &loans);
            context.actions.push(Action::NoteLoans { segment: header.segment, loans, pledges });
        }
        let lsns = (header.first_lsn, header.last_lsn());
        let end = (header.segment, header.block + header.total_blocks());
        let to_peer = self.has_peer().then_some(ToPeer { first_buffer: header_at, lsns, end });
        context.actions.push(Action::Append { id: io, pool_offset, buffers, to_peer });
        self.lease_ahead(context);
    }

    /// Asks for the next slot once the open segment is half full, so that no write waits for one.
    fn lease_ahead(&mut self, context: &mut Context<'_>) {
        let half = self.config.geometry.slot_blocks() / 2;
        if !self.log.has_spare_for_data() && self.log.open.as_ref().is_some_and(|open| open.filled_blocks > half) {
            self.lease(context, LeaseClass::Data);
        }
    }

    fn lease(&mut self, context: &mut Context<'_>, class: LeaseClass) {
        if self.log.leasing.is_none() {
            self.log.leasing = Some(class);
            // Its records tell what is deleted: a full pool takes them as it takes trims.
            let class = if self.id == VolumeId::SYSTEM { LeaseClass::Reserve } else { class };
            context.actions.push(Action::Lease { class });
        }
    }

    /// Seals the open segment and opens the next; `false` while there is no slot for it.
    fn open_next_segment(&mut self, context: &mut Context<'_>) -> bool {
        if !self.log.in_flight.is_empty() {
            // The footer says what is in the segment: every batch of it must have ended well.
            return false;
        }
        if self.log.waits_for_space {
            return false;
        }
        let newest = self.segments.last_key_value().map(|(newest, _)| *newest);
        let Some(spare) = self.log.take_spare(newest) else {
            let wants_data = self.log.pending.iter().any(|pending| pending.operation.gives_content());
            self.lease(context, if wants_data { LeaseClass::Data } else { LeaseClass::Reserve });
            return false;
        };
        self.seal(context);
        let open = OpenSegment::new(spare, self.epoch, self.log.next_lsn, self.log.chain);
        let row = SegmentRow {
            segment: open.segment,
            volume: self.id,
            home: Home::Own(open.slot),
            first_lsn: open.first_lsn,
            last_lsn: None,
            has_holes: false,
        };
        self.segments.insert(row.segment, row);
        context.actions.push(Action::NoteSegment(Box::new(row)));
        self.log.open = Some(open);
        true
    }

    /// Writes the open segment's footer. The segment counts as sealed at once: until it is folded, a footer that is lost is
    /// made up for by a scan.
    pub(super) fn seal(&mut self, context: &mut Context<'_>) {
        let Some(open) = self.log.open.take() else { return };
        let last_lsn = Lsn(open.first_lsn.0 + open.entries.len() as u64 - 1);
        if open.entries.is_empty() {
            // Only a failed append leaves a segment with nothing in it; its slot goes back once its header is void.
            self.release_empty(context, open.segment);
            return;
        }
        if let Some(row) = self.segments.get_mut(&open.segment) {
            row.last_lsn = Some(last_lsn);
            row.has_holes = open.has_holes;
            context.actions.push(Action::NoteSegment(Box::new(*row)));
        }
        let footer = open.footer((self.config.pool, self.id), self.size_bytes, self.log.chain);
        let bytes = encode_footer(&footer);
        let blocks = (bytes.len() / BLOCK_LEN) as u32;
        let pool_offset = self.config.geometry.block_offset(open.slot, self.config.geometry.slot_blocks() - blocks);
        let id = self.next_io();
        let (first_lsn, state) = (open.first_lsn, FooterState::InFlight);
        self.log.footers.push(SealedFooter { io: id, pool_offset, segment: open.segment, first_lsn, state, faults: 0 });
        self.status.appended_bytes += bytes.len() as u64;
        let buffers = vec![context.buffers.take_copy_of(&bytes)];
        context.actions.push(Action::Append { id, pool_offset, buffers, to_peer: None });
    }

    pub(super) fn on_leased(&mut self, context: &mut Context<'_>, result: Result<Lease, DiskFault>) {
        let Some(class) = self.log.leasing.take() else { return };
        match result {
            Ok(lease) => self.log.spares.push(Spare { lease, class }),
            Err(fault) if self.cut_batch().operations == 0 => self.on_no_slot(context, class, fault),
            Err(_) => {} // Asked ahead of need; asked again when it is needed.
        }
    }

    /// No slot can be had: waits while a write-back may still give some up, then fails the writes. Trims go on with
    /// the slots kept back for them.
    fn on_no_slot(&mut self, context: &mut Context<'_>, class: LeaseClass, fault: DiskFault) {
        if fault == DiskFault::NoSpace && self.may_gain_space(context) {
            self.log.waits_for_space = true;
            return;
        }
        let error = match fault {
            DiskFault::NoSpace => Error::new(
                ErrorKind::NoSpace,
                "the pool has no free slot: delete or trim data, or add space to the pool",
            ),
            DiskFault::Io => Error::new(ErrorKind::Unavailable, "the index store failed to lease a slot; see the log"),
        };
        let pending = std::mem::take(&mut self.log.pending);
        for pending in pending {
            if class == LeaseClass::Data && !pending.operation.gives_content() {
                self.log.pending.push_back(pending);
            } else {
                self.drop_pending(context, pending, &error);
            }
        }
        self.resume_subblocks(context);
    }

    fn fail_pending(&mut self, context: &mut Context<'_>, error: &Error) {
        for pending in std::mem::take(&mut self.log.pending) {
            self.drop_pending(context, pending, error);
        }
        self.resume_subblocks(context);
    }

    pub(super) fn on_appended(
        &mut self,
        context: &mut Context<'_>,
        id: IoId,
        buffers: Vec<Buffer>,
        result: Result<(), DiskFault>,
    ) {
        let Some(at) = self.log.in_flight.iter().position(|batch| batch.io == id) else {
            if self.end_cut_append(id) {
                context.buffers.put_all(buffers);
                self.append_received(context);
                self.take_waiting_role(context);
            } else {
                self.on_side_append(context, id, buffers, result);
            }
            return;
        };
        let is_for_primary = !self.may_write();
        self.end_received(at);
        let is_next = self.log.in_flight.iter().take(at).all(|batch| batch.ended == Some(Ok(())));
        let Some(batch) = self.log.in_flight.get_mut(at) else { return };
        batch.ended = Some(result);
        match result {
            Ok(()) if is_for_primary || (is_next && !self.log.is_failing) => {
                context.buffers.put_all(buffers);
            }
            Err(_) if is_for_primary => {
                self.status.append_faults += 1;
                context.buffers.put_all(buffers);
                self.fall_out(context, FellOut::Disk);
            }
            // A batch before it may fail yet, and then this one has to be appended again too.
            Ok(()) => give_payloads_back(context, batch, buffers),
            Err(_) => {
                self.log.is_failing = true;
                give_payloads_back(context, batch, buffers);
            }
        }
        self.take_in_ended(context);
        self.append_received(context);
        self.take_waiting_role(context);
    }

    fn on_side_append(
        &mut self,
        context: &mut Context<'_>,
        id: IoId,
        mut buffers: Vec<Buffer>,
        result: Result<(), DiskFault>,
    ) {
        let footer = self.log.footers.iter_mut().find(|footer| footer.io == id);
        let Some(footer) = footer else {
            context.buffers.put_all(buffers);
            self.on_voided(context, id, result);
            return;
        };
        if let Some(buffer) = buffers.pop().filter(|_| result.is_err()) {
            self.status.append_faults += 1;
            footer.faults += 1;
            footer.state = FooterState::Failed(buffer);
            if footer.faults == FOOTER_FAULTS_MAX
                && let Some(row) = self.segments.get(&footer.segment)
            {
                // A place that takes no footer must not keep the whole log from being folded. The index then has the
                // segment as open, so that the next start looks into it.
                context.actions.push(Action::NoteSegment(Box::new(SegmentRow { last_lsn: None, ..*row })));
            }
        } else {
            footer.state = FooterState::Written;
            if self.log.open.is_none() {
                // Sealed since the volume is idle: nobody else asks for the sync with which the segment is settled.
                self.want_sync(context);
            }
        }
        context.buffers.put_all(buffers);
        self.store_captured(context);
    }

    /// Appends the footers again that the disk failed.
    pub(super) fn retry_footers(&mut self, context: &mut Context<'_>) {
        if self.is_poisoned {
            return;
        }
        for at in 0..self.log.footers.len() {
            let id = self.next_io();
            let Some(footer) = self.log.footers.get_mut(at) else { continue };
            match std::mem::replace(&mut footer.state, FooterState::InFlight) {
                FooterState::Failed(buffer) => {
                    footer.io = id;
                    let pool_offset = footer.pool_offset;
                    context.actions.push(Action::Append { id, pool_offset, buffers: vec![buffer], to_peer: None });
                }
                as_it_is @ (FooterState::InFlight | FooterState::Written | FooterState::Syncing) => {
                    footer.state = as_it_is;
                }
            }
        }
    }

    /// Takes in every batch that has ended with all before it, and counts. Stops at one that failed.
    pub(super) fn take_in_ended(&mut self, context: &mut Context<'_>) {
        let before = self.applied_lsn;
        let limit = self.commit_limit();
        let counts = |batch: &Batch| batch.ended == Some(Ok(())) && batch.last_lsn() <= limit;
        // First of all, so that one sync covers everything that is taken in here.
        if let Some(last) = self.log.in_flight.iter().take_while(|batch| counts(batch)).last() {
            self.applied_lsn = last.last_lsn();
            self.applied_end = last.end;
        }
        while self.log.in_flight.front().is_some_and(counts) {
            let Some(batch) = self.log.in_flight.pop_front() else { break };
            self.take_in(context, batch);
        }
        if self.log.is_failing && self.log.in_flight.iter().all(|batch| batch.ended.is_some()) {
            self.append_elsewhere(context);
        }
        self.tell_primary(context);
        self.sync_for_primary(context);
        self.answer_hold(context);
        self.answer_keep_time(context);
        if self.applied_lsn > before {
            self.durable_lsn = self.synced_lsn.min(self.applied_lsn);
            self.resume_subblocks(context);
            self.checkpoint_if_due(context, false);
        }
    }

    fn take_in(&mut self, context: &mut Context<'_>, batch: Batch) {
        self.log.failures = 0;
        self.log.has_given_up = false;
        let mut lsn = batch.first_lsn;
        if let Some(mark) = &batch.mark {
            self.map.note_time(lsn, mark);
            lsn = lsn.next();
        }
        let mut location = Location { segment: batch.segment, block: batch.payload_block as u16 };
        let mut checks = batch.checks.as_slice();
        for pending in batch.operations {
            let operation = pending.operation;
            match operation.kind {
                OperationKind::Write | OperationKind::Copy { .. } => {
                    let blocks = operation.payload_blocks();
                    let (here, rest) = checks.split_at_checked(blocks as usize * 4).unwrap_or((checks, &[]));
                    self.map.write(lsn, operation.range, location, here);
                    checks = rest;
                    location = location.plus(blocks);
                }
                OperationKind::Trim | OperationKind::WriteZeroes => {
                    self.map.trim(lsn, operation.range);
                    self.checkpoint.note_trim();
                }
                OperationKind::Resize(size_bytes) => {
                    self.size_bytes = size_bytes;
                    self.map.note_size(lsn, size_bytes);
                }
                OperationKind::Snapshot { generation, wall_ms, .. } => {
                    let boundary = Boundary { generation, lsn, size_bytes: self.size_bytes, wall_ms };
                    self.take_in_snapshot(context, boundary);
                    pending
                        .request
                        .into_iter()
                        .for_each(|request| self.note_answer(request, Completion::Snapshot(boundary)));
                }
                OperationKind::TimeMark { .. } | OperationKind::Lent => {}
            }
            // A payload is here only when this batch ended before one that precedes it.
            if let Some(payload) = pending.payload {
                context.buffers.put(payload);
            }
            if let Some(request) = pending.request {
                self.part_done(context, request, Ok(lsn));
            }
            lsn = lsn.next();
        }
    }

    /// After a failed append: gives up the segment at the last batch that is whole and appends the rest in a new one.
    fn append_elsewhere(&mut self, context: &mut Context<'_>) {
        self.log.is_failing = false;
        self.log.has_given_up = true;
        // What is whole before it may wait for the peer.
        let whole = self.log.in_flight.iter().take_while(|batch| batch.ended == Some(Ok(()))).count();
        let given_up = self.log.in_flight.split_off(whole);
        let Some(first) = given_up.front() else { return };
        let fault = first.ended.and_then(Result::err).unwrap_or(DiskFault::Io);
        let first_lsn = first.first_lsn;
        self.log.next_lsn = first_lsn;
        self.log.chain = first.chain_before;
        self.take_back_from_peer(first_lsn);
        if let Some(open) = &mut self.log.open {
            open.cut(first.first_lsn);
        }
        self.seal(context);
        self.log.failures += 1;
        self.status.append_faults += 1;
        let operations: Vec<Pending> = given_up.into_iter().flat_map(|batch| batch.operations).collect();
        if self.log.failures < APPEND_FAILURES_MAX && fault == DiskFault::Io && !self.is_poisoned {
            operations.into_iter().rev().for_each(|pending| self.log.pending.push_front(pending));
            return;
        }
        self.log.failures = 0;
        let (kind, detail) = match fault {
            DiskFault::Io => {
                (ErrorKind::Unavailable, "the disk failed the append in several segments; look at the disk")
            }
            DiskFault::NoSpace => (ErrorKind::NoSpace, "the file system that holds the pool is full; free space there"),
        };
        let error = Error::new(kind, detail);
        operations.into_iter().for_each(|pending| self.drop_pending(context, pending, &error));
        self.resume_subblocks(context);
    }
}

/// Adds operations, whose payload begins at block `at` of the slot, to the segment, and the payload to the batch. Returns what
/// the segment borrows by them.
fn add_entries(
    open: &mut OpenSegment,
    mut at: u32,
    operations: &mut [Pending],
    buffers: &mut Vec<Buffer>,
) -> Vec<Loan> {
    let segment = open.segment;
    let mut loans = Vec::new();
    for pending in operations {
        let blocks = pending.operation.payload_blocks();
        open.entries.push((pending.operation, if blocks > 0 { at } else { 0 }));
        open.has_holes |= pending.operation.makes_holes();
        if let Some(source) = pending.operation.source() {
            if let Some(Shared { named, checks, .. }) = &pending.shared {
                open.checks.extend(moved_checks(checks, named.place(), (segment, at)));
            }
            loans.push(Loan { block: at, count: blocks, source });
        }
        if let Some(payload) = pending.payload.take() {
            let checked = payload.as_slice().chunks_exact(BLOCK_LEN).zip(at..);
            open.checks.extend(checked.map(|(block, index)| block_check(segment, index, block)));
            buffers.push(payload);
        }
        at += blocks;
    }
    open.filled_blocks = at;
    loans
}

/// Puts the payloads, which the driver gave back, with their operations again.
fn give_payloads_back(context: &mut Context<'_>, batch: &mut Batch, buffers: Vec<Buffer>) {
    let payloads = batch.operations.iter().filter(|pending| pending.operation.kind == OperationKind::Write).count();
    let headers = buffers.len().saturating_sub(payloads);
    let mut buffers = buffers.into_iter();
    context.buffers.put_all(buffers.by_ref().take(headers));
    for pending in &mut batch.operations {
        if pending.operation.kind == OperationKind::Write {
            pending.payload = buffers.next();
        }
    }
}

pub(super) fn slot_header(
    context: &mut Context<'_>,
    config: &super::VolumeConfig,
    open: &OpenSegment,
    (volume, epoch, size_bytes): (VolumeId, units::Epoch, u64),
) -> Buffer {
    let header = SlotHeader {
        slot_use: SlotUse::Segment,
        pool: config.pool,
        segment: open.segment,
        volume,
        epoch,
        first_lsn: open.first_lsn,
        size_bytes,
        chain: open.chain_before,
        opened_ms: context.wall_ms,
    };
    let mut block = context.buffers.take(BLOCK_LEN);
    header.encode(block.as_mut_slice());
    block
}
