//! The end of the log: operations that wait, batches in flight, the segment that is open.

use super::request::Pending;
use crate::buffer::Buffer;
use crate::feed::BatchEnd;
use crate::format::{Footer, Operation, footer_blocks};
use crate::io::IoId;
use crate::pool::{Lease, LeaseClass};
use crate::recover::Tail;
use std::collections::VecDeque;
use units::{Epoch, Lsn, PoolId, SegmentId, SlotIndex, VolumeId};

/// A batch under way.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) io: IoId,
    pub(super) segment: SegmentId,
    /// The block of the slot where the payload begins.
    pub(super) payload_block: u32,
    pub(super) first_lsn: Lsn,
    /// CRC of the header before.
    pub(super) chain_before: u32,
    /// Where it ends.
    pub(super) end: BatchEnd,
    /// Its first operation, where that tells the time; it is not among `operations`.
    pub(super) mark: Option<Operation>,
    /// The operations; their payload is with the driver.
    pub(super) operations: Vec<Pending>,
    /// Bytes that came from a primary for it; none of what is the volume's own.
    pub(super) received_bytes: u64,
    /// Check values of the payload blocks, four bytes each.
    pub(super) checks: Vec<u8>,
    /// How it ended, when it has.
    pub(super) ended: Option<Result<(), crate::error::DiskFault>>,
}

impl Batch {
    /// Its last operation.
    pub(super) const fn last_lsn(&self) -> Lsn {
        self.end.lsn
    }
}

/// A slot that is leased and not in use yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spare {
    pub(super) lease: Lease,
    pub(super) class: LeaseClass,
}

/// The footer of a sealed segment on its way to stable storage.
#[derive(Debug)]
pub(super) struct SealedFooter {
    pub(super) io: IoId,
    pub(super) pool_offset: u64,
    pub(super) segment: SegmentId,
    /// Of its segment.
    pub(super) first_lsn: Lsn,
    pub(super) state: FooterState,
    pub(super) faults: u32,
}

/// Times that the disk may refuse a footer before the log is folded without it. It is still tried again.
pub(super) const FOOTER_FAULTS_MAX: u32 = 3;

impl SealedFooter {
    pub(super) const fn is_refused(&self) -> bool {
        self.faults >= FOOTER_FAULTS_MAX
    }
}

/// How far a footer is.
#[derive(Debug)]
pub(super) enum FooterState {
    InFlight,
    /// The disk failed it; to be appended again.
    Failed(Buffer),
    Written,
    /// A sync that began after it had been written is under way.
    Syncing,
}

/// A segment that takes appends.
#[derive(Debug)]
pub(super) struct OpenSegment {
    pub(super) segment: SegmentId,
    pub(super) slot: SlotIndex,
    /// The right under which all of it is written.
    pub(super) epoch: Epoch,
    pub(super) first_lsn: Lsn,
    pub(super) chain_before: u32,
    /// Blocks given out from the start of the slot.
    pub(super) filled_blocks: u32,
    pub(super) entries: Vec<(Operation, u32)>,
    pub(super) checks: Vec<u32>,
    pub(super) has_holes: bool,
    /// Whether it may take writes: the slots kept back are for trims and metadata only, and would be filled with data
    /// otherwise, so that a full pool could not be emptied by trims.
    pub(super) takes_data: bool,
}

impl OpenSegment {
    /// The segment that a log goes on in that was opened anew, which was written under `epoch`.
    pub(super) fn of_tail(tail: Tail, epoch: Epoch) -> Self {
        let Tail { segment, slot, first_lsn, chain_before, filled_blocks, entries, checks } = tail;
        let has_holes = entries.iter().any(|(operation, _)| operation.makes_holes());
        let takes_data = true;
        Self { segment, slot, epoch, first_lsn, chain_before, filled_blocks, entries, checks, has_holes, takes_data }
    }

    pub(super) const fn new(spare: Spare, epoch: Epoch, first_lsn: Lsn, chain_before: u32) -> Self {
        Self {
            segment: spare.lease.segment,
            slot: spare.lease.slot,
            epoch,
            takes_data: matches!(spare.class, LeaseClass::Data),
            first_lsn,
            chain_before,
            filled_blocks: 0,
            entries: Vec::new(),
            checks: Vec::new(),
            has_holes: false,
        }
    }

    /// Whether a batch of so many blocks fits and leaves room for the footer with it.
    pub(super) fn fits(&self, slot_blocks: u32, batch_blocks: u32, operations: usize, payload_blocks: usize) -> bool {
        let footer = footer_blocks(self.entries.len() + operations, self.checks.len() + payload_blocks);
        let header = u32::from(self.filled_blocks == 0);
        self.filled_blocks + header + batch_blocks + footer <= slot_blocks
    }

    pub(super) fn footer(&self, identity: (PoolId, VolumeId), size_bytes: u64, chain_after: u32) -> Footer {
        let (pool, volume) = identity;
        Footer {
            pool,
            segment: self.segment,
            volume,
            epoch: self.epoch,
            first_lsn: self.first_lsn,
            size_bytes,
            filled_blocks: self.filled_blocks,
            chain_before: self.chain_before,
            chain_after,
            entries: self.entries.clone(),
            checks: self.checks.clone(),
        }
    }

    /// Takes back the batches from `first_lsn` on.
    pub(super) fn cut(&mut self, first_lsn: Lsn) {
        let keep = first_lsn.0.saturating_sub(self.first_lsn.0) as usize;
        self.entries.truncate(keep);
        let payload: usize = self.entries.iter().map(|(operation, _)| operation.payload_blocks() as usize).sum();
        self.checks.truncate(payload);
        self.has_holes = self.entries.iter().any(|(operation, _)| operation.makes_holes());
    }
}

/// The end of the log.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) pending: VecDeque<Pending>,
    pub(super) in_flight: VecDeque<Batch>,
    pub(super) open: Option<OpenSegment>,
    /// There was no slot, and a write-back or release under way may free some: asked again when it has ended.
    pub(super) waits_for_space: bool,
    /// Slots for the segments after the open one; at most one of each class.
    pub(super) spares: Vec<Spare>,
    /// The class of the lease that is asked for.
    pub(super) leasing: Option<LeaseClass>,
    /// The LSN of the next operation that gets one.
    pub(super) next_lsn: Lsn,
    /// CRC of the header of the last batch made.
    pub(super) chain: u32,
    /// Appends that failed one after the other.
    pub(super) failures: u32,
    /// A batch failed: nothing is appended until all in flight have ended.
    pub(super) is_failing: bool,
    /// The open segment is to be sealed before the next batch, which is of another epoch.
    pub(super) is_turning_over: bool,
    /// Operations were given up and none has been appended since: should the process end now, they may be found whole on
    /// the disk and count.
    pub(super) has_given_up: bool,
    /// Footers that are not durable yet.
    pub(super) footers: Vec<SealedFooter>,
}

impl Log {
    pub(super) const fn new(next_lsn: Lsn, chain: u32) -> Self {
        Self {
            pending: VecDeque::new(),
            in_flight: VecDeque::new(),
            open: None,
            waits_for_space: false,
            spares: Vec::new(),
            leasing: None,
            next_lsn,
            chain,
            failures: 0,
            is_failing: false,
            is_turning_over: false,
            has_given_up: false,
            footers: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.pending.push_back(pending);
    }

    pub(super) fn has_spare_for_data(&self) -> bool {
        self.spares.iter().any(|spare| spare.class == LeaseClass::Data)
    }

    /// Takes a slot for the operation at the front of the queue.
    ///
    /// Segments of a volume bear ids in the order of its log, by which recovery tells the newer one: a slot that was leased
    /// before `newest` was opened is of no use any more.
    pub(super) fn take_spare(&mut self, newest: Option<SegmentId>) -> Option<Spare> {
        self.spares.retain(|spare| newest.is_none_or(|newest| spare.lease.segment > newest));
        let is_data = self.pending.front().is_some_and(|pending| pending.operation.gives_content());
        let wants = |spare: &Spare| spare.class == LeaseClass::Data || !is_data;
        let at = self.spares.iter().position(wants)?;
        Some(self.spares.swap_remove(at))
    }

    /// Whether the footer of `segment` is not durable yet.
    pub(super) fn has_footer_of(&self, segment: SegmentId) -> bool {
        self.footers.iter().any(|footer| footer.segment == segment)
    }

    pub(super) fn has_footer_in_flight(&self) -> bool {
        self.footers.iter().any(|footer| matches!(footer.state, FooterState::InFlight))
    }

    /// Whether a footer has still to be written, so that a sync now would not cover it.
    pub(super) fn is_writing_footers(&self) -> bool {
        let is_in_writing = |state: &FooterState| matches!(state, FooterState::InFlight | FooterState::Failed(_));
        self.footers.iter().any(|footer| !footer.is_refused() && is_in_writing(&footer.state))
    }

    pub(super) fn has_failed_footer(&self) -> bool {
        self.footers.iter().any(|footer| matches!(footer.state, FooterState::Failed(_)))
    }

    /// Whether the segments with operations up to `lsn`, where they are sealed, have durable footers, but for those that
    /// the disk refuses.
    pub(super) fn has_footers_to(&self, lsn: Lsn) -> bool {
        self.footers.iter().all(|footer| footer.first_lsn > lsn || footer.is_refused())
    }

    /// A sync begins: it covers every footer that is written.
    pub(super) fn begin_sync(&mut self) {
        for footer in &mut self.footers {
            if matches!(footer.state, FooterState::Written) {
                footer.state = FooterState::Syncing;
            }
        }
    }

    /// A sync has ended well. Returns the segments whose footers are durable now after the disk had refused them.
    pub(super) fn end_sync(&mut self) -> Vec<SegmentId> {
        let is_durable = |footer: &mut SealedFooter| matches!(footer.state, FooterState::Syncing);
        self.footers.extract_if(.., is_durable).filter(SealedFooter::is_refused).map(|footer| footer.segment).collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.rests() && !self.has_footer_in_flight() && self.leasing.is_none()
    }

    /// Whether no operation waits or is on its way to the disk.
    pub(super) fn rests(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty()
    }

    /// What waits, and what is in flight and may have to be appended again.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.in_flight.iter_mut().flat_map(|batch| &mut batch.operations).chain(&mut self.pending)
    }

    /// The operations that the map has not taken in.
    pub(super) fn operations(&self) -> impl Iterator<Item = &Operation> {
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.operations);
        in_flight.chain(&self.pending).map(|pending| &pending.operation)
    }
}
