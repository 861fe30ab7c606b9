//! Snapshots: an operation that ends a generation. It goes before everything that waits, so that a snapshot waits for no
//! more than the batches in flight, whatever the load; any order is right among what is not answered.
//!
//! When it is taken in, the map goes on in the next generation, and the store is told of the boundary before it is given
//! any page of that one.

use super::request::Pending;
use super::{Context, Volume, poisoned, reply};
use crate::format::{Operation, OperationKind};
use crate::io::Action;
use crate::pool::Boundary;
use crate::request::RequestId;
use units::{Lsn, SnapshotId};

impl Volume {
    pub(super) fn on_snapshot(&mut self, context: &mut Context<'_>, id: RequestId, snapshot: SnapshotId) {
        if self.is_poisoned {
            reply(context, id, Err(poisoned()));
            return;
        }
        self.begin(id, false);
        self.add_part(id);
        // Which generation it ends, and when, is known once it has its place in the log.
        let kind =
            OperationKind::Snapshot { generation: self.map.generation(), id: snapshot, wall_ms: context.wall_ms };
        let operation = Operation::without_range(kind);
        self.log.pending.push_front(Pending::new(operation, None, id));
        self.part_done(context, id, Ok(Lsn::ZERO));
    }

    /// Tells the snapshots of a batch, which is about to follow all that are in flight, which generations they end.
    pub(super) fn name_generations(&self, context: &Context<'_>, operations: &mut [Pending]) {
        if !operations.iter().any(is_snapshot) {
            return;
        }
        let in_flight = self.log.in_flight.iter().flat_map(|batch| &batch.operations);
        let mut next = self.map.generation() + in_flight.filter(|pending| is_snapshot(pending)).count() as u64;
        for pending in operations {
            if let OperationKind::Snapshot { generation, wall_ms, .. } = &mut pending.operation.kind {
                (*generation, *wall_ms) = (next, self.marked_ms(context));
                next += 1;
            }
        }
    }

    /// How many snapshots are the next to be appended.
    pub(super) fn snapshots_in_front(&self) -> usize {
        self.log.pending.iter().take_while(|pending| is_snapshot(pending)).count()
    }

    pub(super) fn take_in_snapshot(&mut self, context: &mut Context<'_>, boundary: Boundary) {
        self.map.begin_generation(boundary.generation + 1);
        context.actions.push(Action::NoteBoundary(boundary));
        // What the snapshot shows is wanted in the store soon.
        self.checkpoint.fold_to_snapshot(boundary.lsn);
    }
}

const fn is_snapshot(pending: &Pending) -> bool {
    matches!(pending.operation.kind, OperationKind::Snapshot { .. })
}
