//! What a request of a mirrored volume meets: it is begun, waits for a role, or ends with an error; and what reads have found is
//! shown when it may be.

use super::super::Shard;
use super::super::requests::{Origin, Pending};
use super::Mirrored;
use replication::seat::{Admission, Event};
use replication::times::HOLD;
use std::collections::BTreeMap;
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
            Some(seat) if self.closed.is_none() => seat.admits(),
            // It is opened anew, or begins to be mirrored.
            Some(_) | None => Admission::Wait,
        }
    }
}

impl Shard {
    /// Begins a request of a mirrored volume as its role has it.
    pub(in super::super) fn begin_mirrored(&mut self, place: usize, id: usize, request: Request) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        match mirror.admission() {
            Admission::Serve => self.tell(place, VolumeEvent::Request { id: RequestId(id as u64), request }),
            // What ends the volume's service, or looks at it, does not wait for the other site.
            Admission::Wait if matches!(request, Request::Checkpoint | Request::Meter) => {
                self.refuse(place, id, request);
            }
            Admission::Wait => mirror.held.push((id, request)),
            Admission::Refuse => self.refuse(place, id, request),
        }
    }

    /// Answers with an error, in turn with the volume's answers.
    fn refuse(&mut self, place: usize, id: usize, request: Request) {
        self.buffers.put_all(request.into_buffers());
        let reply = Reply { id: RequestId(id as u64), result: Err(not_served()) };
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
        let before = std::mem::replace(&mut mirror.admitted, admission);
        match admission {
            Admission::Serve => {
                for (id, request) in std::mem::take(&mut mirror.held) {
                    self.tell(place, VolumeEvent::Request { id: RequestId(id as u64), request });
                }
            }
            Admission::Wait => {}
            Admission::Refuse if before == Admission::Refuse => {}
            Admission::Refuse => self.end_requests(place),
        }
        let Some(mirror) = self.mirror_mut(place) else { return };
        let Mirrored { seat: Some(seat), found, .. } = mirror else { return };
        let shown: Vec<Found> = found.extract_if(.., |found| seat.may_read(now, found.pending.since)).collect();
        if !shown.is_empty() {
            shown.into_iter().for_each(|Found { pending, completion }| self.finish(pending, Ok(completion)));
            self.advance_units();
        }
    }

    /// Ends all requests of a volume with an error. What the volume answers of them later is thrown away.
    pub(super) fn end_requests(&mut self, place: usize) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        let (held, found) = (std::mem::take(&mut mirror.held), std::mem::take(&mut mirror.found));
        let is_of = |pending: &Pending| pending.volume == place;
        let ids = self.requests.iter().filter(|(_, pending)| is_of(pending)).map(|(id, _)| id).collect();
        self.end_these(place, ids, (held, found));
    }

    /// Ends requests; those that waited for a role the volume does not know of.
    fn end_these(&mut self, place: usize, ids: Vec<usize>, (held, found): (Vec<(usize, Request)>, Vec<Found>)) {
        for (id, request) in held {
            self.buffers.put_all(request.into_buffers());
            if let Some(pending) = self.requests.try_remove(id) {
                self.finish(pending, Err(not_served()));
            }
        }
        for Found { pending, completion } in found {
            self.throw_away(completion);
            self.finish(pending, Err(not_served()));
        }
        for id in ids {
            if let Some(ended) = self.requests.get_mut(id).and_then(Pending::end) {
                self.finish(ended, Err(not_served()));
            }
        }
        self.advance_units();
        self.touch(place);
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
            let held: Vec<_> = mirror.held.extract_if(.., |(id, _)| ids.contains(id)).collect();
            let found: Vec<_> = mirror.found.extract_if(.., |found| is_late(&found.pending)).collect();
            if !ids.is_empty() || !found.is_empty() {
                self.end_these(place, ids, (held, found));
            }
        }
    }

    pub(in super::super) fn throw_away(&mut self, completion: Completion) {
        if let Completion::Read { buffer, .. } = completion {
            self.buffers.put(buffer);
        }
    }
}

fn not_served() -> Error {
    let detail = "this site does not serve the volume now: connect to the other one, or wait until the role is decided";
    Error::new(ErrorKind::Fenced, detail)
}
