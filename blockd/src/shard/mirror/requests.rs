//! What a request of a mirrored volume meets: it is begun, waits for a role, or ends with an error; and what reads have found is
//! shown when it may be.

use super::super::Shard;
use super::super::requests::{Origin, Pending};
use super::Mirrored;
use replication::passing::may_be_passed;
use replication::seat::{Admission, Event};
use replication::times::HOLD;
use std::collections::{BTreeMap, BTreeSet};
use volume::error::{Error, ErrorKind};
use volume::io::{Action, Event as VolumeEvent};
use volume::request::{Completion, Reply, Request, RequestId};

/// An answer that may not be shown yet.
pub(super) struct Found {
    pending: Pending,
    completion: Completion,
}

impl Mirrored {
    pub(super) fn admission(&self) -> Admission {
        if self.is_retired {
            return Admission::Refuse;
        }
        match &self.seat {
            Some(seat) if self.closed.is_none() => match seat.admits() {
                Admission::Pass if !self.port.passes_on() => Admission::Refuse,
                admission @ (Admission::Serve | Admission::Wait | Admission::Pass | Admission::Refuse) => admission,
            },
            // It is opened anew, or begins to be mirrored.
            Some(_) | None => Admission::Wait,
        }
    }
}

impl Shard {
    /// Begins a request of a mirrored volume as its role has it.
    pub(in super::super) fn begin_mirrored(&mut self, place: usize, id: usize, request: Request) {
        let now = self.clock();
        let Some(mirror) = self.mirror_mut(place) else { return };
        match mirror.admission() {
            Admission::Serve => self.tell(place, VolumeEvent::Request { id: RequestId(id as u64), request }),
            // What ends the volume's service, or looks at it, does not wait for the other site.
            Admission::Wait if matches!(request, Request::Checkpoint | Request::Meter) => {
                self.refuse(place, (id, request));
            }
            Admission::Wait => mirror.passing.wait(now, id, request),
            Admission::Pass if may_be_passed(&request) => {
                mirror.passing.wait(now, id, request);
                self.go_on(place);
            }
            Admission::Pass | Admission::Refuse => self.refuse(place, (id, request)),
        }
    }

    /// Answers with an error, in turn with the volume's answers.
    fn refuse(&mut self, place: usize, (id, request): (usize, Request)) {
        let is_sharing = matches!(request, Request::Lend { .. } | Request::Borrow { .. });
        self.buffers.put_all(request.into_buffers());
        let error = if is_sharing { shares_nothing() } else { not_served() };
        let reply = Reply { id: RequestId(id as u64), result: Err(error) };
        if let Some(slot) = self.volumes.get_mut(place) {
            slot.actions.push(Action::Reply(reply));
        }
        self.touch(place);
    }

    /// Holds an answer back that shows what was read, until the seat lets it be shown; gives all others back.
    pub(in super::super) fn hold_back(
        &mut self,
        pending: Pending,
        result: Result<Completion, Error>,
    ) -> Option<(Pending, Result<Completion, Error>)> {
        let Some(mirror) = self.mirror_mut(pending.volume) else { return Some((pending, result)) };
        match result {
            Ok(
                completion @ (Completion::Read { .. }
                | Completion::Miscompare { .. }
                | Completion::Extents(_)
                | Completion::Changed(_)
                | Completion::Lent(_)),
            ) => {
                mirror.found.push(Found { pending, completion });
                mirror.news.push_back(Event::ReadWaits);
                None
            }
            Ok(Completion::Done | Completion::Metered(_) | Completion::Snapshot(_)) | Err(_) => Some((pending, result)),
        }
    }

    /// Begins what waits, or ends it, and shows what may be shown.
    pub(super) fn answer_mirrored(&mut self, place: usize) {
        let now = self.clock();
        let Some(mirror) = self.mirror_mut(place) else { return };
        let admission = mirror.admission();
        let is_led_here = |admission| matches!(admission, Admission::Serve | Admission::Wait);
        let before = std::mem::replace(&mut mirror.admitted, admission);
        if is_led_here(before) && !is_led_here(admission) {
            self.end_begun(place);
        }
        self.go_on(place);
        let Some(mirror) = self.mirror_mut(place) else { return };
        let Mirrored { seat: Some(seat), found, .. } = mirror else { return };
        let shown: Vec<Found> = found.extract_if(.., |found| seat.may_read(now, found.pending.since)).collect();
        if !shown.is_empty() {
            shown.into_iter().for_each(|Found { pending, completion }| self.finish(pending, Ok(completion)));
            self.advance_units();
        }
    }

    /// Ends all that a volume has begun: what changes nothing waits for being begun once more, wherever that is; the rest ends with an error.
    /// What the volume answers of it later is thrown away.
    pub(super) fn end_begun(&mut self, place: usize) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        let found = std::mem::take(&mut mirror.found);
        let Some(mirror) = self.volumes.get(place).and_then(|slot| slot.mirror.as_deref()) else { return };
        let others: BTreeSet<usize> = mirror.passing.ids().collect();
        let is_begun = |id: usize, pending: &Pending| pending.volume == place && !others.contains(&id);
        let ids: Vec<usize> =
            self.requests.iter().filter(|(id, pending)| is_begun(*id, pending)).map(|(id, _)| id).collect();
        self.end_these((ids, found), |shard, pending| shard.begin_once_more(place, pending));
        self.touch(place);
    }

    fn begin_once_more(&mut self, place: usize, pending: Pending) {
        let Some(again) = pending.again else { return self.finish(pending, Err(not_served())) };
        let since = pending.since;
        let id = self.requests.insert(pending);
        if let Some(mirror) = self.mirror_mut(place) {
            mirror.passing.wait(since, id, again.request());
        }
    }

    /// Takes requests from a volume that has them, each by `end`.
    fn end_these(&mut self, (ids, found): (Vec<usize>, Vec<Found>), end: impl Fn(&mut Self, Pending)) {
        for Found { pending, completion } in found {
            self.throw_away(completion);
            end(self, pending);
        }
        for id in ids {
            if let Some(ended) = self.requests.get_mut(id).and_then(Pending::end) {
                end(self, ended);
            }
        }
        self.advance_units();
    }

    /// Forgets requests that ended, of a volume that does not answer them any more.
    pub(super) fn forget_ended_requests(&mut self, place: usize) {
        self.requests.retain(|_, pending| pending.volume != place || !matches!(pending.origin, Origin::Ended));
    }

    /// Ends what has waited for too long at mirrored volumes, whatever for.
    pub(super) fn end_late_requests(&mut self) {
        let now = self.now;
        let is_late = |pending: &Pending| now.since(pending.since) >= HOLD;
        let mut late: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (id, pending) in self.requests.iter().filter(|(_, pending)| is_late(pending)) {
            if !matches!(pending.origin, Origin::Ended) {
                late.entry(pending.volume).or_default().push(id);
            }
        }
        for place in self.mirrored.clone() {
            let ids = late.remove(&place).unwrap_or_default();
            let Some(mirror) = self.mirror_mut(place) else { continue };
            let held = mirror.passing.take_if(|id| ids.contains(&id));
            let found: Vec<_> = mirror.found.extract_if(.., |found| is_late(&found.pending)).collect();
            held.into_iter().for_each(|held| self.end_held(held, Err(not_served())));
            // Those that were not the volume's are not there any more.
            if !ids.is_empty() || !found.is_empty() {
                self.end_these((ids, found), |shard, pending| shard.finish(pending, Err(not_served())));
                self.touch(place);
            }
        }
    }

    pub(in super::super) fn throw_away(&mut self, completion: Completion) {
        if let Completion::Read { buffer, .. } = completion {
            self.buffers.put(buffer);
        }
    }
}

fn shares_nothing() -> Error {
    Error::new(ErrorKind::InvalidRequest, "the volume is mirrored, and shares nothing; read and write the data")
}

pub(super) fn not_served() -> Error {
    let detail = "neither this site nor the other one serves the volume now, as far as is known here: wait until the role is decided";
    Error::new(ErrorKind::Fenced, detail)
}
