//! Copies within the volume. No data is moved: a copy is an operation of the log that says where the content of its blocks is,
//! and what is there is lent ([`crate::pool::Loans`]). Holes stay holes.
//!
//! Each part is an edge, see [`super::subblock`], of its source and its target: no change of either is under way when the map is
//! asked where the blocks are, and none comes before the copy in the log. So what it names is what the map named just before it.
//! Only what is on stable storage is shared: a rebuild after a power cut passes over what that took, and a copy may be of what came
//! before. A copy of something newer waits for a sync.
//!
//! While the log is kept whole for history's sake, data is copied: what was overwritten is read from the log's own segments.

use super::request::{Asker, Pending, Shared};
use super::subblock::{Merge, part_of};
use super::{Context, Parked, Volume, reply};
use crate::error::{Error, ErrorKind};
use crate::format::{Operation, OperationKind};
use crate::map::{Location, ResolvedRun};
use crate::pool::{Loan, Loans};
use crate::request::{COPY_BYTES_MAX, Completion, RequestId};
use smallvec::SmallVec;
use units::{BLOCK_BYTES, BlockIndex, BlockRange, ByteRange, Lsn, SegmentId};

impl Volume {
    pub(super) fn on_copy(&mut self, context: &mut Context<'_>, asker: Asker, source: ByteRange, target: ByteRange) {
        let Asker { id, fua } = asker;
        let checked = self.check_copy(source, target);
        if source.is_empty() || checked.is_err() {
            reply(context, id, checked.map(|()| Completion::Done));
            return;
        }
        self.begin(id, fua);
        let part_bytes = self.operation_blocks_max() * BLOCK_BYTES;
        let mut done = 0;
        while done < target.len() {
            let len = part_bytes.min(target.len() - done);
            let from = part_of(source.offset() + done, source.offset() + done + len);
            let to = part_of(target.offset() + done, target.offset() + done + len);
            self.add_edge(context, id, to, Merge::Copy(from.blocks_touched()));
            done += len;
        }
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    fn check_copy(&self, source: ByteRange, target: ByteRange) -> Result<(), Error> {
        self.check_range(source)?;
        self.check_change(target)?;
        let invalid = |detail: &str| Err(Error::new(ErrorKind::InvalidRequest, detail));
        if source.len() != target.len() {
            return invalid("a copy to more or less than it is of");
        }
        if !source.is_block_aligned() || !target.is_block_aligned() {
            return invalid("a copy of parts of blocks; read and write them");
        }
        if source.len() > COPY_BYTES_MAX {
            return invalid("a copy of more than 16 MiB; split it");
        }
        if source.blocks_touched().overlaps(target.blocks_touched()) {
            return invalid("a copy to a part of what it is of; read and write it");
        }
        Ok(())
    }

    /// Whether copies share what they copy.
    pub(super) const fn may_share(&self) -> bool {
        !self.time.is_kept()
    }

    /// Nothing that is under way changes the source or the target of edge `number`: makes operations of what the map says.
    pub(super) fn share(&mut self, context: &mut Context<'_>, number: u64, source: BlockRange) {
        let (mut runs, mut checks) = (SmallVec::<[ResolvedRun; 2]>::new(), Vec::new());
        if let Err(page) = self.map.resolve(source, &mut runs, &mut checks) {
            self.park(context, page, Parked::SubBlock(number));
            return;
        }
        // Only then it is known what another volume's segment borrows.
        if let Some(segment) = self.ask_places(context, &runs) {
            self.park_for_place(segment, Parked::SubBlock(number));
            return;
        }
        let is_durable = runs.iter().filter_map(|run| run.location).all(|location| self.is_durable(location.segment));
        if !is_durable && !self.is_poisoned && !self.subblock.has_waited(number) {
            self.subblock.wait_until(number, self.applied_lsn);
            self.want_sync(context);
            return;
        }
        self.status.map_lookups += 1;
        let Some((request, range)) = self.subblock.take(number) else { return };
        let first = range.blocks_touched().first;
        let mut checks = checks.as_slice();
        for run in runs {
            let target = BlockIndex(first.0 + u64::from(run.at));
            let Some(location) = run.location else {
                let operation =
                    Operation { kind: OperationKind::Trim, range: BlockRange::new(target, run.count.into()) };
                self.add_shared(context, Pending::new(operation, None, request));
                continue;
            };
            let (here, rest) = checks.split_at_checked(run.count as usize).unwrap_or((checks, &[]));
            checks = rest;
            self.share_run(context, request, (target, location, here));
        }
        self.part_done(context, request, Ok(Lsn::ZERO));
        self.resume_subblocks(context);
    }

    /// Whether all that the map names of a segment is on stable storage. What an heir inherits is.
    fn is_durable(&self, segment: SegmentId) -> bool {
        let Some(row) = self.segments.get(&segment) else { return true };
        self.applied_lsn <= self.durable_lsn || row.last_lsn.is_some_and(|last| last <= self.durable_lsn)
    }

    /// Neighbouring blocks from `location` on, with their check values there, are to be the content of those from `target` on.
    fn share_run(
        &mut self,
        context: &mut Context<'_>,
        request: RequestId,
        (target, location, checks): (BlockIndex, Location, &[u32]),
    ) {
        let none = Loans::default();
        let loans = self.loans_of(location.segment).unwrap_or(&none);
        let pieces: SmallVec<[(Location, u32); 2]> = loans.split(location, checks.len() as u32).collect();
        let mut at = 0_u32;
        for (source, count) in pieces {
            let range = BlockRange::new(BlockIndex(target.0 + u64::from(at)), count.into());
            let operation = Operation { kind: OperationKind::Copy { source }, range };
            let checks = checks.iter().skip(at as usize).take(count as usize).copied().collect();
            let shared = Some(Shared { named: location.plus(at), checks });
            self.add_shared(context, Pending { operation, payload: None, shared, request });
            at += count;
        }
    }

    fn add_shared(&mut self, context: &mut Context<'_>, pending: Pending) {
        self.add_part(pending.request);
        self.add_pending(context, pending);
    }

    /// What a segment borrows, whosever it is.
    pub(super) fn loans_of(&self, segment: SegmentId) -> Option<&Loans> {
        self.loans.get(&segment).or_else(|| self.places.of(segment)?.loans.as_deref())
    }

    /// A segment was moved, and what it borrowed is its own: copies that are not in the log yet have their content from there.
    pub(super) fn note_moved(&mut self, segment: SegmentId) {
        for pending in self.log.all_mut() {
            if let Some(Shared { named, .. }) = pending.shared.as_ref().filter(|shared| shared.named.segment == segment)
            {
                pending.operation.kind = OperationKind::Copy { source: *named };
            }
        }
    }

    /// A batch with copies is about to be appended: from now on its segment borrows what they name.
    pub(super) fn note_loans(&mut self, segment: SegmentId, loans: &[Loan]) {
        let known = self.loans.entry(segment).or_default();
        loans.iter().for_each(|loan| known.add(*loan));
    }
}
