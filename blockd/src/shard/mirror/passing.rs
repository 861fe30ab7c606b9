//! Requests of mirrored volumes on their way to where they are carried out: those that wait for a role, those that are passed on to the site
//! that leads, and those of its clients that the other site passes on to this one.

use super::super::requests::Origin;
use super::super::{Shard, VolumeSlot};
use super::Mirrored;
use super::requests::not_served;
use crate::mirror::Sent;
use crate::nbd::Phase;
use link::LifeNumber;
use proto::scsi::Access;
use replication::passing::{Answer, Answerer, Ask, Asker, Came, Guest, Held, OPEN_MAX, Turn, Whose};
use replication::seat::Admission;
use replication::wire::Frame;
use std::collections::VecDeque;
use std::time::Duration;
use units::{Epoch, Monotonic};
use volume::error::{Error, ErrorKind};
use volume::io::Event as VolumeEvent;
use volume::request::{Completion, Request, RequestId};

/// A shard with mirrored volumes has something to do every 50 ms.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// After a question that the other site did not take, none is asked for so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What waits, and what is passed on. Requests are told apart by their places in the shard's.
#[derive(Debug, Default)]
pub(super) struct Passing {
    /// In the order in which they came.
    waiting: VecDeque<Held<usize>>,
    asker: Asker<usize>,
    ask_again_at: Monotonic,
    answerer: Answerer,
    /// Answers for which there was no room.
    answers: VecDeque<(Option<Guest>, Answer)>,
}

impl Passing {
    /// A request comes from its client, or from the other site.
    pub(super) fn wait(&mut self, now: Monotonic, id: usize, request: Request) {
        self.waiting.push_back(Held::new(now, id, request));
    }

    /// Requests that are here, and not the volume's.
    pub(super) fn ids(&self) -> impl Iterator<Item = usize> {
        self.waiting.iter().map(|held| held.key).chain(self.asker.keys().copied())
    }

    /// Those that are to end whatever becomes of them.
    pub(super) fn take_if(&mut self, mut is_to_end: impl FnMut(usize) -> bool) -> Vec<Held<usize>> {
        let mut ending = self.asker.take_if(|id| is_to_end(*id));
        let (waiting, kept) = std::mem::take(&mut self.waiting).into_iter().partition(|held| is_to_end(held.key));
        self.waiting = kept;
        ending.extend::<VecDeque<_>>(waiting);
        ending
    }
}

impl VolumeSlot {
    /// Whether what is asked of it is passed on to the other site, or may be.
    fn passes_on(&self) -> bool {
        let is_elsewhere = |mirror: &Mirrored| mirror.port.passes_on() && mirror.admission() != Admission::Serve;
        self.mirror.as_deref().is_some_and(is_elsewhere)
    }
}

impl Mirrored {
    /// Passes a request on; gives it back when that may not be now.
    fn pass_on(&mut self, now: Monotonic, held: Held<usize>) -> Option<Held<usize>> {
        let Some(epoch) = self.seat.as_ref().map(|seat| seat.member().epoch()) else { return Some(held) };
        if now < self.passing.ask_again_at || !self.passing.asker.has_room_for(&held.request) {
            return Some(held);
        }
        let ask = match self.passing.asker.ask(now, held) {
            Ok(ask) => ask,
            Err(held) => return Some(*held),
        };
        let (group, number) = (self.config.group, ask.number);
        match self.port.send(self.life, Frame::Ask { group, epoch, ask: Box::new(ask) }) {
            Sent::Gone => None,
            Sent::NoRoom(_) | Sent::Dropped => self.passing.asker.take_back(number),
        }
    }

    /// Answers the other site, where the life of the link is the one in which it asked.
    fn answer(&mut self, life: LifeNumber, (guest, answer): (Option<Guest>, Answer)) {
        if self.life == Some(life) {
            self.passing.answers.push_back((guest, answer));
            self.send_answers();
        } else {
            guest.into_iter().for_each(|guest| self.passing.answerer.close(guest));
        }
    }

    /// Sends what is to be answered, as far as there is room.
    fn send_answers(&mut self) {
        let (group, epoch) = (self.config.group, self.seat.as_ref().map_or(Epoch(0), |seat| seat.member().epoch()));
        while let Some((guest, answer)) = self.passing.answers.pop_front() {
            let frame = Frame::Answer { group, epoch, answer: Box::new(answer) };
            if let Sent::NoRoom(Frame::Answer { answer, .. }) = self.port.send(self.life, frame) {
                return self.passing.answers.push_front((guest, *answer));
            }
            guest.into_iter().for_each(|guest| self.passing.answerer.close(guest));
        }
    }
}

impl Shard {
    /// Does with what waits as the role has it, and sends what found no room before.
    pub(super) fn go_on(&mut self, place: usize) {
        let now = self.clock();
        let Some(mirror) = self.mirror_mut(place) else { return };
        mirror.send_answers();
        if mirror.passing.waiting.is_empty() {
            return;
        }
        let mut left = VecDeque::new();
        // Of those that could be passed on, none overtakes another.
        let mut is_full = false;
        for held in std::mem::take(&mut mirror.passing.waiting) {
            let Some(whose) = self.whose(held.key) else { continue };
            let Some(mirror) = self.volumes.get_mut(place).and_then(|slot| slot.mirror.as_deref_mut()) else { return };
            match mirror.passing.asker.turn(now, mirror.admission(), &held, whose) {
                Turn::Begin => {
                    let id = RequestId(held.key as u64);
                    self.tell(place, VolumeEvent::Request { id, request: held.request });
                }
                Turn::PassOn if is_full => left.push_back(held),
                Turn::PassOn => {
                    let back = mirror.pass_on(now, held);
                    is_full = back.is_some();
                    left.extend(back);
                }
                Turn::Fail => self.end_held(held, Err(not_served())),
                Turn::GiveBack => self.give_back(place, held),
                Turn::Wait => left.push_back(held),
            }
        }
        if let Some(mirror) = self.mirror_mut(place) {
            left.extend(std::mem::take(&mut mirror.passing.waiting));
            mirror.passing.waiting = left;
        }
        self.advance_units();
    }

    /// Whose a request is: nobody waits for one of which the connection is gone, or that was aborted.
    fn whose(&self, id: usize) -> Option<Whose> {
        let is_wanted = match &self.requests.get(id)?.origin {
            Origin::Guest { .. } => return Some(Whose::Guest),
            Origin::Connection { key, .. } => {
                self.connections.get(*key).is_some_and(|connection| connection.phase != Phase::Dead)
            }
            Origin::Unit { key } => self.executing.get(*key).is_some_and(|task| !task.is_aborted()),
            Origin::Status { .. } | Origin::Caller(_) | Origin::Closing => true,
            Origin::Ended => false,
        };
        Some(if is_wanted { Whose::Own } else { Whose::Abandoned })
    }

    /// Ends a request that no volume has.
    pub(super) fn end_held(&mut self, held: Held<usize>, result: Result<Completion, Error>) {
        self.buffers.put_all(held.request.into_buffers());
        match (self.requests.try_remove(held.key), result) {
            (Some(pending), result) => self.finish(pending, result),
            (None, Ok(completion)) => self.throw_away(completion),
            (None, Err(_)) => {}
        }
    }

    /// A request of the other site that was never begun here.
    fn give_back(&mut self, place: usize, held: Held<usize>) {
        self.buffers.put_all(held.request.into_buffers());
        let now = self.clock();
        let Some(pending) = self.requests.try_remove(held.key) else { return };
        self.note_ended(&pending, false);
        if let Origin::Guest { guest, life } = pending.origin
            && let Some(mirror) = self.mirror_mut(place)
        {
            mirror.answer(life, (Some(guest), Answerer::give_back(now, guest)));
        }
    }

    /// The other site passes a request of one of its clients on.
    pub(super) fn on_ask(&mut self, place: usize, (life, epoch): (LifeNumber, Epoch), ask: Ask) {
        let now = self.clock();
        let Some(mirror) = self.mirror_mut(place) else { return };
        let is_epoch = mirror.seat.as_ref().is_some_and(|seat| seat.member().epoch() == epoch);
        let is_led = is_epoch && matches!(mirror.admission(), Admission::Serve | Admission::Wait);
        // The window is for what is on its way: whoever waits for an answer keeps it from nobody. What is open has bounds of its own.
        mirror.port.consumed(Some(life), volume::buffer::total_len(&ask.payload));
        if mirror.passing.answers.len() > 4 * OPEN_MAX {
            // A site that takes no answers is told none.
            return;
        }
        let (guest, request) = match mirror.passing.answerer.take(now, is_led && mirror.port.passes_on(), ask) {
            Ok(taken) => taken,
            Err(answer) => return mirror.answer(life, (None, answer)),
        };
        if self.may_be_begun(place, &request) {
            return self.begin(place, request, Origin::Guest { guest, life });
        }
        self.buffers.put_all(request.into_buffers());
        let why = "an initiator of the site that leads has reserved the volume";
        self.answer_guest(place, (guest, life), Err(Error::new(ErrorKind::Unavailable, why)));
    }

    /// Whether reservations let a client of the other site do that, which has none here.
    fn may_be_begun(&self, place: usize, request: &Request) -> bool {
        let is_write = request.is_change() || matches!(request, Request::Flush);
        !self.is_fenced(place, if is_write { Access::Write } else { Access::Read })
    }

    /// A request of the other site has ended.
    pub(in super::super) fn answer_guest(
        &mut self,
        place: usize,
        (guest, life): (Guest, LifeNumber),
        result: Result<Completion, Error>,
    ) {
        let now = self.clock();
        if let Some(mirror) = self.mirror_mut(place) {
            mirror.answer(life, (Some(guest), Answerer::answer(now, guest, result)));
        }
    }

    /// What became of a request that was passed on.
    pub(super) fn on_answer(&mut self, place: usize, answer: Answer) {
        let now = self.clock();
        let Some(mirror) = self.mirror_mut(place) else { return };
        match mirror.passing.asker.on_answer(now, answer) {
            None => {}
            Some(Came::Answered(id, result, request)) => {
                self.end_held(Held::new(now, id, request), result);
                self.advance_units();
            }
            Some(Came::Again { held, at_once }) => {
                if !at_once {
                    mirror.passing.ask_again_at = now.plus(ASK_AGAIN_AFTER);
                }
                mirror.passing.waiting.push_front(held);
            }
        }
        self.go_on(place);
    }

    /// A life of the link is over: what was asked is to be asked again, and what was to be answered is nobody's.
    pub(super) fn forget_passed(&mut self, place: usize) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        for (guest, _) in std::mem::take(&mut mirror.passing.answers) {
            guest.into_iter().for_each(|guest| mirror.passing.answerer.close(guest));
        }
        let held = mirror.passing.asker.take_all();
        // They came before all that waits.
        held.into_iter().rev().for_each(|held| mirror.passing.waiting.push_front(held));
    }

    /// S7. A shard that did not run for a while, since its process was stopped, does not know how long what it finds on its connections has
    /// waited there: those whose requests it would pass on are cut.
    pub(in super::super) fn note_pause(&mut self) {
        let before = std::mem::replace(&mut self.turned_at, self.now);
        if self.mirrored.is_empty() || self.now.since(before) < PAUSE_MIN {
            return;
        }
        let passes = |place: &usize| self.volumes.get(*place).is_some_and(VolumeSlot::passes_on);
        for place in self.mirrored.iter().copied().filter(passes).collect::<Vec<_>>() {
            tracing::warn!(paused = ?self.now.since(before), "a mirrored volume's NBD connections are cut, since this process was stopped for a while");
            for key in self.connections_of(place) {
                self.kill_connection(key);
            }
        }
    }

    /// Requests of a site that is about to be gone, or is not mirrored any more.
    pub(super) fn end_all_held(&mut self, place: usize) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        for held in mirror.passing.take_if(|_| true) {
            let why = Error::new(ErrorKind::Closing, "the volume is being closed");
            self.end_held(held, Err(why));
        }
    }
}
