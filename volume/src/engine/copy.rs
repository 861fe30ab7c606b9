//! Copies within the volume, and to another one of the pool. No data is moved: a copy is an operation of the log that says
//! where the content of its blocks is, and what is there is lent ([`crate::pool::Loans`]). Holes stay holes.
//!
//! Each part is an edge, see [`super::subblock`], of its source and its target: no change of either is under way when the map is
//! asked where the blocks are, and none comes before the copy in the log. So what it names is what the map named just before it.
//! Only what is on stable storage is shared: a rebuild after a power cut passes over what that took, and a copy may be of what came
//! before. A copy of something newer waits for a sync.
//!
//! Of a copy to another volume, this one is asked where the blocks are, and has them kept ([`crate::pool::Pledge`]) until the
//! other one has borrowed them.
//!
//! Nothing is shared while the log is kept whole for history's sake, since what was overwritten is read from the log's own
//! segments; nor what lies in little pieces, since each is kept in memory. Such a copy is refused, and whoever asked reads and
//! writes the data.

use super::request::{Asker, Pending, Shared};
use super::subblock::{Merge, part_of};
use super::{Context, Parked, Volume, poisoned, reply};
use crate::error::{Error, ErrorKind};
use crate::format::{Operation, OperationKind, moved_checks};
use crate::io::Action;
use crate::map::{Location, ResolvedRun};
use crate::pool::{Loan, Loans, Pledge};
use crate::request::{COPY_BYTES_MAX, Completion, Lent, LentRun, RequestId};
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
        if source.len() != target.len() {
            return Err(uneven());
        }
        check_whole(source)?;
        check_whole(target)?;
        if source.blocks_touched().overlaps(target.blocks_touched()) {
            return Err(invalid("a copy to a part of what it is of; read and write it"));
        }
        Ok(())
    }

    /// Whether copies share what they copy. Not at two sites: the place of what is lent is each one's own, since each compacts by
    /// itself.
    pub(super) const fn may_share(&self) -> bool {
        !self.time.is_kept() && !self.is_mirrored
    }

    pub(super) fn on_lend(&mut self, context: &mut Context<'_>, id: RequestId, range: ByteRange) {
        let checked = self.check_range(range).and_then(|()| check_whole(range));
        if range.is_empty() || checked.is_err() {
            reply(context, id, checked.map(|()| Completion::Lent(Lent::default())));
            return;
        }
        self.begin(id, false);
        self.add_edge(context, id, range, Merge::Lend);
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    pub(super) fn on_borrow(&mut self, context: &mut Context<'_>, asker: Asker, target: ByteRange, lent: Lent) {
        let Asker { id, fua } = asker;
        let checked = self.check_change(target).and_then(|()| check_whole(target));
        let checked = checked.and_then(|()| if lent.len() == target.len() { Ok(()) } else { Err(uneven()) });
        let checked = checked.and_then(|()| if self.may_share() { Ok(()) } else { Err(kept_whole()) });
        if target.is_empty() || checked.is_err() {
            reply(context, id, checked.map(|()| Completion::Done));
            return;
        }
        self.begin(id, fua);
        let mut first = target.blocks_touched().first;
        for LentRun { count, content } in lent.runs {
            let end = BlockIndex(first.0 + u64::from(count));
            let Some((location, checks)) = content else {
                let range = BlockRange::new(first, count.into());
                self.add_operation(context, id, Operation { kind: OperationKind::Trim, range }, None);
                first = end;
                continue;
            };
            for (checks, by) in checks.chunks(self.operation_blocks_max() as usize).zip(0_u32..) {
                let by = by * self.operation_blocks_max() as u32;
                let source = location.plus(by);
                let range = BlockRange::new(BlockIndex(first.0 + u64::from(by)), checks.len() as u64);
                let operation = Operation { kind: OperationKind::Copy { source }, range };
                let pledge = Some(lent.pledge.clone());
                let shared = Some(Shared { named: source, checks: checks.to_vec(), pledge });
                self.add_waiting(context, Pending { operation, payload: None, shared, request: Some(id) });
            }
            first = end;
        }
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    /// Nothing that is under way changes the source or the target of edge `number`: makes operations of what the map says.
    pub(super) fn share(&mut self, context: &mut Context<'_>, number: u64, source: BlockRange) {
        let Some(pieces) = self.find_shared(context, number, source) else { return };
        if !self.may_share() {
            return self.fail_subblock(context, number, kept_whole());
        }
        let Some((request, range)) = self.subblock.take(number) else { return };
        let mut target = range.blocks_touched().first;
        for Piece { count, content } in pieces {
            let range = BlockRange::new(target, count.into());
            target = range.end();
            let pending = match content {
                None => Pending::new(Operation { kind: OperationKind::Trim, range }, None, request),
                Some(Content { named, source, checks }) => {
                    let operation = Operation { kind: OperationKind::Copy { source }, range };
                    let shared = Some(Shared { named, checks, pledge: None });
                    Pending { operation, payload: None, shared, request: Some(request) }
                }
            };
            self.add_part(request);
            self.add_pending(context, pending);
        }
        self.part_done(context, request, Ok(Lsn::ZERO));
        self.resume_subblocks(context);
    }

    /// Nothing that is under way changes the blocks of edge `number`: tells where they are, and has them kept.
    pub(super) fn lend(&mut self, context: &mut Context<'_>, number: u64, blocks: BlockRange) {
        let Some(pieces) = self.find_shared(context, number, blocks) else { return };
        let Some((request, _)) = self.subblock.take(number) else { return };
        let pledge = Pledge::default();
        let (mut runs, mut kept) = (Vec::with_capacity(pieces.len()), Vec::new());
        for Piece { count, content } in pieces {
            let content = content.map(|Content { named, source, checks }| {
                kept.push((source, count));
                (source, moved_checks(&checks, named.place(), source.place()).collect())
            });
            runs.push(LentRun { count, content });
        }
        context.actions.push(Action::Pledge { pledge: pledge.clone(), runs: kept });
        self.note_answer(request, Completion::Lent(Lent { runs, pledge }));
        self.part_done(context, request, Ok(Lsn::ZERO));
        self.resume_subblocks(context);
    }

    /// Finds what edge `number` is to share of these blocks; `None` while something has to come first.
    fn find_shared(&mut self, context: &mut Context<'_>, number: u64, blocks: BlockRange) -> Option<Vec<Piece>> {
        if self.is_poisoned {
            // What the disk may have lost is not shared: whoever borrowed it would call it durable.
            self.fail_subblock(context, number, poisoned());
            return None;
        }
        let (mut runs, mut checks) = (SmallVec::<[ResolvedRun; 2]>::new(), Vec::new());
        if let Err(page) = self.map.resolve(blocks, &mut runs, &mut checks) {
            self.park(context, page, Parked::SubBlock(number));
            return None;
        }
        // Only then it is known what another volume's segment borrows.
        if let Some(segment) = self.ask_places(context, &runs) {
            self.park_for_place(segment, Parked::SubBlock(number));
            return None;
        }
        let is_durable = runs.iter().filter_map(|run| run.location).all(|location| self.is_durable(location.segment));
        if !is_durable && !self.subblock.has_waited(number) {
            self.subblock.wait_until(number, self.applied_lsn);
            self.want_sync(context);
            return None;
        }
        self.status.map_lookups += 1;
        let none = Loans::default();
        let (mut pieces, mut rest) = (Vec::new(), checks.as_slice());
        for ResolvedRun { count, location, .. } in runs {
            let Some(location) = location else {
                pieces.push(Piece { count, content: None });
                continue;
            };
            let mut named = location;
            for (source, count) in self.loans_of(location.segment).unwrap_or(&none).split(location, count) {
                let (checks, others) = rest.split_at_checked(count as usize).unwrap_or((rest, &[]));
                rest = others;
                pieces.push(Piece { count, content: Some(Content { named, source, checks: checks.to_vec() }) });
                named = named.plus(count);
            }
        }
        let contents = pieces.iter().filter(|piece| piece.content.is_some());
        let (count, held) = contents.fold((0, 0), |(count, held), piece| (count + 1, held + u64::from(piece.count)));
        if count * u64::from(self.config.shared_piece_blocks_min) > held {
            let error = invalid("the data lies in too little pieces to be shared; read and write it");
            self.fail_subblock(context, number, error);
            return None;
        }
        Some(pieces)
    }

    /// Whether all that the map names of a segment is on stable storage. What an heir inherits is.
    fn is_durable(&self, segment: SegmentId) -> bool {
        let Some(row) = self.segments.get(&segment) else { return true };
        self.applied_lsn <= self.durable_lsn || row.last_lsn.is_some_and(|last| last <= self.durable_lsn)
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

/// What is shared of neighbouring blocks; `None` where they are holes.
struct Piece {
    count: u32,
    content: Option<Content>,
}

/// Where blocks are that the map names, where their content is, and their check values where they are.
struct Content {
    named: Location,
    source: Location,
    checks: Vec<u32>,
}

/// Whether a range can be shared at once.
fn check_whole(range: ByteRange) -> Result<(), Error> {
    if !range.is_block_aligned() {
        return Err(invalid("a copy of parts of blocks; read and write them"));
    }
    if range.len() > COPY_BYTES_MAX {
        return Err(invalid("a copy of more than 16 MiB; split it"));
    }
    Ok(())
}

fn uneven() -> Error {
    invalid("a copy to more or less than it is of")
}

pub(super) fn kept_whole() -> Error {
    invalid("the volume keeps history or is mirrored, and shares nothing; read and write the data")
}

fn invalid(detail: &str) -> Error {
    Error::new(ErrorKind::InvalidRequest, detail)
}
