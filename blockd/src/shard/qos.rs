//! Requests at the gate: held while they may not pass, taken when they are called.

use super::mailbox::ShardQos;
use super::requests::Origin;
use super::tasks::UNIT_BIT;
use super::{Shard, VolumeSlot};
use crate::qos::{QosLimits, Queue};
use proto::nbd::{Request as NbdRequest, Span};
use std::time::Duration;
use units::{Monotonic, VolumeId};

/// Connections called in a turn: what they ask for is answered before more are.
const CALLS_PER_TURN: usize = 64;

/// How long a request is under way before it is late.
const LATE: Duration = Duration::from_secs(1);

impl Shard {
    /// Takes requests from connections that are called by the gate.
    pub(super) fn resume_held(&mut self) {
        for _ in 0..CALLS_PER_TURN {
            let Some(key) = self.gate.call(self.now) else { return };
            if key & UNIT_BIT != 0 {
                self.resume_unit(key & !UNIT_BIT);
            } else if let Some(connection) = self.connections.get_mut(key) {
                connection.held_in = None;
                self.take_requests(key);
            }
        }
    }

    /// How long nobody is called for a ceiling, if somebody waits for one.
    pub(super) fn held_for(&self, now: Monotonic) -> Option<Duration> {
        self.gate.opens_at().map(|at| at.since(now))
    }

    /// Counts work of a volume as under way.
    pub(super) fn begin_work(&mut self, volume: usize, work: u64) {
        if let Some(slot) = self.volumes.get(volume) {
            self.gate.begin_work(self.now, slot.standing, work);
        }
    }

    /// Counts it no more.
    pub(super) fn end_work(&mut self, volume: usize, work: u64) {
        if let Some(slot) = self.volumes.get(volume) {
            self.gate.end_work(self.now, slot.standing, work);
        }
    }

    /// While somebody waits for a share: what has been under way for long is no load on the shard. It waits for its client, for
    /// a slot, or for the disk, and those who share with it should not.
    pub(super) fn forget_late_work(&mut self) {
        if !self.gate.has_share_waiters() {
            return;
        }
        let Self { connections, requests, executing, volumes, gate, ring, now, .. } = self;
        let mut forget = |volume: usize, work: &mut u64| {
            if let Some(slot) = volumes.get(volume) {
                gate.end_work(*now, slot.standing, std::mem::take(work));
            }
        };
        for (_, connection) in connections.iter_mut() {
            let is_late = connection.arrival_stall(ring, *now).is_some_and(|stall| stall >= LATE);
            if let Some(arriving) = connection.arriving.as_mut().filter(|_| is_late) {
                forget(connection.volume, &mut arriving.work);
            }
        }
        for (_, pending) in requests.iter_mut().filter(|(_, pending)| now.since(pending.since) >= LATE) {
            if let Origin::Connection { work, .. } = &mut pending.origin {
                forget(pending.volume, work);
            }
        }
        for (_, task) in executing.iter_mut().filter(|(_, task)| now.since(task.since) >= LATE) {
            forget(task.place, &mut task.work);
        }
    }

    /// Has a connection that is over wait for nothing any more.
    pub(super) fn leave_queue(&mut self, queue: Option<Queue>, key: usize) {
        if let Some(queue) = queue {
            self.gate.leave(queue, key);
        }
    }

    /// Holds a volume to other ceilings, if it is open.
    pub(super) fn set_volume_qos(&mut self, volume: VolumeId, limits: QosLimits) -> bool {
        let slot = self.by_id.get(&volume).and_then(|place| self.volumes.get(*place));
        let standing = slot.map(|slot| slot.standing);
        standing.inspect(|standing| self.gate.set_volume(self.now, *standing, limits)).is_some()
    }

    /// What is left of ceilings.
    pub(super) fn qos(&self) -> ShardQos {
        let of_volume = |slot: &VolumeSlot| Some((slot.volume.id(), self.gate.credits(self.now, slot.standing)?));
        let volumes = self.volumes.iter().filter_map(|(_, slot)| of_volume(slot)).collect();
        ShardQos { volumes, tenants: self.gate.tenant_use(self.now) }
    }
}

/// The bytes that a request reads or writes, when it counts as an operation. Trims, write-zeroes and what only asks move none;
/// a flush and a farewell count for nothing, nor does what concerns no bytes.
pub(super) const fn operation_bytes(request: &NbdRequest) -> Option<u64> {
    match request {
        NbdRequest::Disconnect | NbdRequest::Flush => None,
        NbdRequest::Read { span, .. } | NbdRequest::Write { span, .. } => moved(*span, span.len_bytes),
        NbdRequest::Trim { span, .. }
        | NbdRequest::Cache { span }
        | NbdRequest::WriteZeroes { span, .. }
        | NbdRequest::BlockStatus { span, .. } => moved(*span, 0),
    }
}

const fn moved(span: Span, bytes: u64) -> Option<u64> {
    if span.len_bytes == 0 { None } else { Some(bytes) }
}
