//! Mirrored volumes: their seats are told what happens, and what they want is carried out.
//!
//! docs/mirror.md, "The seat", has the rules that are kept here. Pieces: `requests` what a request meets, `passing` what waits and what goes
//! to or comes from the other site, `opening` how a volume becomes one of a mirror and is opened anew.

mod opening;
mod passing;
mod requests;

pub use opening::SeatSettings;

use super::mailbox::Callback;
use super::{Shard, VolumeSlot};
use crate::mirror::{MirrorPort, MirrorView, ReadBatch, RoleEvidence, Sent, Wish};
use link::LifeNumber;
use opening::{Beginning, Closed};
use passing::Passing;
use replication::Config;
use replication::seat::{Action, Admission, Event, FeedId, Seat};
use replication::wire::Frame;
use requests::Found;
use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;
use units::{Lsn, Monotonic, VolumeId};
use volume::buffer::Buffer;
use volume::engine::Volume;
use volume::error::Error;
use volume::feed::{Feed, FeedError};

/// What a mirrored volume's shard can be told of it.
pub enum MirrorMessage {
    /// Mirror an open volume from now on. Told when it is so, or why it is not.
    Begin {
        /// Its seat's.
        settings: Box<SeatSettings>,
        /// Told.
        done: Callback<Result<(), Error>>,
    },
    /// For its seat.
    Seat(Box<Event>),
    /// The life of the link that begins, or that there is none any more.
    Link(Option<LifeNumber>),
    /// The other site sends this.
    Frame {
        /// In which life of the link.
        life: LifeNumber,
        /// What.
        frame: Box<Frame>,
    },
    /// There is room on the link again.
    Room(LifeNumber),
    /// The other site answers too slowly, or well again.
    Slow {
        /// In which life of the link.
        life: LifeNumber,
        /// Which of the two.
        is_slow: bool,
    },
    /// Batches of the log have been read for the other site, from `feed` on; none where it had ended.
    Fed {
        /// Of the question.
        id: FeedId,
        /// From where.
        feed: Feed,
        /// One behind the other.
        batches: Result<VecDeque<ReadBatch>, FeedError>,
    },
    /// The volume has been opened anew, frozen; or could not be.
    Reopened(Result<Box<Volume>, String>),
    /// Have its seat do nothing any more, if that may be. Told whether it is so.
    Retire(Retiring, Callback<bool>),
    /// Tell how it is.
    View(Callback<Option<MirrorView>>),
}

impl fmt::Debug for MirrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { .. } => f.write_str("Begin"),
            Self::Seat(event) => write!(f, "Seat({event:?})"),
            Self::Link(life) => write!(f, "Link({life:?})"),
            Self::Frame { life, frame } => write!(f, "Frame({life}, {:?})", frame.kind()),
            Self::Room(life) => write!(f, "Room({life})"),
            Self::Slow { life, is_slow } => write!(f, "Slow({life}, {is_slow})"),
            Self::Fed { id, batches, .. } => write!(f, "Fed({id:?}, {})", batches.is_ok()),
            Self::Reopened(result) => write!(f, "Reopened({})", result.is_ok()),
            Self::Retire(retiring, _) => write!(f, "Retire({retiring:?})"),
            Self::View(_) => f.write_str("View"),
        }
    }
}

/// How far the two sites are with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedLog {
    /// The volume.
    pub volume: VolumeId,
    /// The other site surely has everything up to here on stable storage; nothing while that is not known.
    pub lsn: Option<Lsn>,
    /// Whether this site knows of a record of the witness.
    pub has_record: bool,
}

/// Why a seat is to do nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retiring {
    /// It leads alone, and the volume is not to be mirrored any more.
    Leader,
    /// It does not lead, and its copy is to be deleted.
    Copy,
}

/// A volume's part in a mirror.
pub(super) struct Mirrored {
    config: Config,
    port: MirrorPort,
    /// Absent until the volume is at rest.
    seat: Option<Seat>,
    beginning: Option<Beginning>,
    closed: Option<Closed>,
    /// What the seat has still to be told.
    news: VecDeque<Event>,
    /// What was read of the log for the other site and was not asked for yet: of operations that had ended well.
    ahead: VecDeque<ReadBatch>,
    is_told: bool,
    /// The life of the link that it was told of.
    life: Option<LifeNumber>,
    /// Requests that are not the volume's.
    passing: Passing,
    /// Answers that may not be shown yet.
    found: Vec<Found>,
    /// What became of requests when they were looked at last.
    admitted: Admission,
    /// The seat does nothing any more, and serves nobody.
    is_retired: bool,
    /// That a sync of the volume has failed is being noted.
    is_poison_told: bool,
}

impl fmt::Debug for Mirrored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mirrored(group {}, closed {:?})", self.config.group, self.closed)
    }
}

impl Mirrored {
    /// The next batch from a place on, when it has been read.
    fn take_ahead(&mut self, feed: Feed) -> Option<impl FnOnce(FeedId) -> Event + use<>> {
        if self.ahead.front().is_none_or(|batch| batch.from != feed.next_lsn()) {
            self.ahead.clear();
        }
        let ReadBatch { behind, buffers, .. } = self.ahead.pop_front()?;
        Some(move |id| Event::Fed { id, feed: behind, batch: Ok(Some(buffers)) })
    }
}

impl Shard {
    pub(super) fn on_mirror_message(&mut self, volume: VolumeId, message: MirrorMessage) {
        let Some(place) = self.by_id.get(&volume).copied() else { return };
        match message {
            MirrorMessage::Begin { settings, done } => self.begin_mirror(place, *settings, done),
            MirrorMessage::Seat(event) => self.tell_seat(place, *event),
            MirrorMessage::Link(life) => self.on_link(place, life),
            MirrorMessage::Frame { life, frame } => {
                // One of another life is of no group any more: the credit for it went with that.
                let Some(mirror) = self.mirror_mut(place).filter(|mirror| mirror.life == Some(life)) else { return };
                let (bytes, frame) = (frame.payload_bytes(), *frame);
                if let Frame::Ask { epoch, ask, .. } = frame {
                    return self.on_ask(place, (life, epoch), *ask);
                }
                if let Frame::Answer { answer, .. } = frame {
                    // Whoever asked has set memory for it aside.
                    mirror.port.consumed(mirror.life, bytes);
                    return self.on_answer(place, *answer);
                }
                if mirror.seat.is_none() || mirror.is_retired {
                    return mirror.port.consumed(mirror.life, bytes);
                }
                self.tell_seat(place, Event::Frame(frame));
            }
            MirrorMessage::Room(life) => {
                if self.mirror_mut(place).is_some_and(|mirror| mirror.life == Some(life)) {
                    self.tell_seat(place, Event::Room);
                }
            }
            MirrorMessage::Slow { life, is_slow } => {
                if self.mirror_mut(place).is_some_and(|mirror| mirror.life == Some(life)) {
                    self.tell_seat(place, Event::PeerSlow(is_slow));
                }
            }
            MirrorMessage::Fed { id, feed, batches } => self.on_read(place, (id, feed), batches),
            MirrorMessage::Reopened(result) => self.on_reopened(place, result),
            MirrorMessage::Retire(retiring, done) => done(self.retire(place, retiring)),
            MirrorMessage::View(done) => done(self.mirror_view(place)),
        }
    }

    pub(super) fn mirror_mut(&mut self, place: usize) -> Option<&mut Mirrored> {
        self.volumes.get_mut(place)?.mirror.as_deref_mut()
    }

    fn on_link(&mut self, place: usize, life: Option<LifeNumber>) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        let before = std::mem::replace(&mut mirror.life, life);
        if before.is_some() {
            self.forget_passed(place);
            self.tell_seat(place, Event::Link { is_up: false });
        }
        if life.is_some() {
            self.tell_seat(place, Event::Link { is_up: true });
        }
    }

    /// The log has been read for the other site: what was asked for goes to the seat, the rest waits until that asks for it.
    fn on_read(&mut self, place: usize, (id, feed): (FeedId, Feed), batches: Result<VecDeque<ReadBatch>, FeedError>) {
        let Some(mirror) = self.mirror_mut(place).filter(|mirror| mirror.closed.is_none()) else { return };
        let event = match batches {
            Ok(batches) => {
                mirror.ahead = batches;
                let event = mirror.take_ahead(feed);
                event.map_or(Event::Fed { id, feed, batch: Ok(None) }, |event| event(id))
            }
            Err(error) => Event::Fed { id, feed, batch: Err(error) },
        };
        self.tell_seat(place, event);
    }

    /// Ticks of all seats, when they are due.
    pub(super) fn tick_mirrors(&mut self) {
        if self.mirrored.is_empty() || self.now < self.next_mirror_tick {
            return;
        }
        self.next_mirror_tick = self.now.plus(replication::times::TICK);
        for place in self.mirrored.clone() {
            self.freeze_if_at_rest(place);
            self.tell_seat(place, Event::Tick);
        }
        self.end_late_requests();
    }

    /// How long no seat has to be told the time, if there is one.
    pub(super) fn mirrors_for(&self, now: Monotonic) -> Option<Duration> {
        (!self.mirrored.is_empty()).then(|| self.next_mirror_tick.since(now))
    }

    /// Has a seat do nothing any more: no other site may come to lead by itself where this one leads, and this one may not where it does
    /// not. Tells whether it is so.
    fn retire(&mut self, place: usize, retiring: Retiring) -> bool {
        let Some(mirror) = self.mirror_mut(place) else { return false };
        let Some(seat) = &mirror.seat else { return false };
        let member = seat.member();
        let is_led_there = member.record().is_none_or(|record| record.primary != mirror.config.me);
        let may_be = match retiring {
            Retiring::Leader => mirror.closed.is_none() && member.is_final(),
            // What is being opened is not waited for.
            Retiring::Copy => {
                let is_opening = mirror.closed.as_ref().is_some_and(|closed| closed.failure.is_none());
                is_led_there && !member.may_lead() && !is_opening
            }
        };
        mirror.is_retired |= may_be;
        may_be
    }

    /// Before a volume is forgotten: what came for it and is not on the disk gives its credit back.
    pub(super) fn leave_mirror(&mut self, place: usize) {
        self.end_all_held(place);
        self.mirrored.retain(|mirrored| *mirrored != place);
        if let Some(mirror) = self.mirror_mut(place)
            && let Some(seat) = &mirror.seat
        {
            mirror.port.consumed(mirror.life, seat.unconsumed());
        }
    }

    /// Gives a seat an event, and does all that comes of it.
    pub(super) fn tell_seat(&mut self, place: usize, event: Event) {
        // What the volume wanted before comes first.
        self.carry_out_all(place);
        let is_there = |mirror: &&mut Mirrored| mirror.seat.is_some() && !mirror.is_retired;
        let Some(mirror) = self.mirror_mut(place).filter(is_there) else { return };
        mirror.news.push_back(event);
        self.tell_news(place);
    }

    /// Tells a seat what there is for it, until nothing more comes of that.
    fn tell_news(&mut self, place: usize) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        if std::mem::replace(&mut mirror.is_told, true) {
            return;
        }
        let mut actions = Vec::new();
        while let Some(event) = self.mirror_mut(place).and_then(|mirror| mirror.news.pop_front()) {
            let Some(slot) = self.volumes.get_mut(place) else { break };
            let Some(mirror) = slot.mirror.as_deref_mut() else { break };
            let volume = mirror.closed.is_none().then_some(&*slot.volume);
            let Some(seat) = &mut mirror.seat else { break };
            seat.handle(self.now, event, volume, &mut actions);
            for action in actions.drain(..) {
                self.carry_out_for_seat(place, action);
            }
        }
        if let Some(mirror) = self.mirror_mut(place) {
            mirror.is_told = false;
        }
        self.answer_mirrored(place);
    }

    fn carry_out_for_seat(&mut self, place: usize, action: Action) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        match action {
            Action::ReadWitness { id } => mirror.port.ask(Wish::ReadWitness { id }),
            Action::Swap { id, expected, record } => mirror.port.ask(Wish::Swap { id, expected, record }),
            Action::Promise(promise) => mirror.port.ask(Wish::Promise(promise)),
            Action::Send(frame) => {
                let is_batch = matches!(frame, Frame::Batch { .. });
                if matches!(mirror.port.send(mirror.life, frame), Sent::NoRoom(_)) && is_batch {
                    mirror.news.push_front(Event::NoRoom);
                }
            }
            Action::Consumed { bytes } => mirror.port.consumed(mirror.life, bytes),
            Action::Volume(event) => {
                self.tell(place, event);
                self.carry_out_all(place);
                if let Some(mirror) = self.mirror_mut(place) {
                    mirror.news.push_back(Event::Looked);
                }
            }
            Action::Reopen { limit } => self.begin_reopening(place, limit),
            Action::Feed { id, feed, up_to } => match mirror.take_ahead(feed) {
                Some(event) => mirror.news.push_back(event(id)),
                None => mirror.port.ask(Wish::Feed { id, feed, up_to }),
            },
            Action::KeepBranch { from, to } => mirror.port.ask(Wish::KeepBranch { from, to }),
            Action::Tell(evidence) => tracing::info!(group = %mirror.config.group, "{evidence}"),
        }
    }

    /// A mirrored volume wants something of the other site, or tells its seat something.
    pub(super) fn note_for_seat(&mut self, place: usize, event: Event) {
        if let Some(mirror) = self.mirror_mut(place) {
            mirror.news.push_back(event);
        }
    }

    /// A mirrored volume appends a batch that the other site is to have, too.
    pub(super) fn ship(&mut self, place: usize, buffers: &[Buffer], batch: volume::io::ToPeer) {
        let Some(mirror) = self.mirror_mut(place) else { return };
        // The disk and the link need them at once, and each for as long as it takes.
        let buffers = buffers.iter().skip(batch.first_buffer).map(|buffer| Buffer::copy_of(buffer.as_slice()));
        let buffers = buffers.collect();
        mirror.news.push_back(Event::Shipped { buffers, batch });
    }

    /// After others have given a mirrored volume events, or asked it for appends: its seat looks at it.
    pub(super) fn look_at_mirrored(&mut self, place: usize) {
        if self.mirror_mut(place).is_some() {
            self.freeze_if_at_rest(place);
            self.note_poison(place);
            self.tell_seat(place, Event::Looked);
        }
    }

    /// Up to where the other site surely has each log, as far as that is known now.
    pub(super) fn shared(&self) -> Vec<SharedLog> {
        let slots = self.mirrored.iter().filter_map(|place| self.volumes.get(*place));
        let shared = |slot: &VolumeSlot| slot.volume.shared_lsn().filter(|_| !slot.is_closed());
        let has_record = |slot: &VolumeSlot| {
            let seat = slot.mirror.as_deref().and_then(|mirror| mirror.seat.as_ref());
            seat.is_none_or(|seat| seat.member().record().is_some())
        };
        let told =
            |slot: &VolumeSlot| SharedLog { volume: slot.volume.id(), lsn: shared(slot), has_record: has_record(slot) };
        slots.map(told).collect()
    }

    fn note_poison(&mut self, place: usize) {
        let is_poisoned = self.volumes.get(place).is_some_and(|slot| slot.volume.is_poisoned());
        if let Some(mirror) = self.mirror_mut(place).filter(|_| is_poisoned)
            && !std::mem::replace(&mut mirror.is_poison_told, true)
        {
            mirror.port.ask(Wish::NoteFailedSync);
        }
    }

    fn mirror_view(&self, place: usize) -> Option<MirrorView> {
        let slot = self.volumes.get(place)?;
        let mirror = slot.mirror.as_deref()?;
        let (site, peer) = (mirror.config.me, mirror.config.peer);
        let (is_link_up, end) = (mirror.life.is_some(), slot.volume.end().lsn);
        let seat = mirror.seat.as_ref()?;
        let member = seat.member();
        let evidence = member.evidence().map(|evidence| RoleEvidence {
            at_ms: self
                .wall_ms
                .saturating_sub(u64::try_from(self.now.since(evidence.at).as_millis()).unwrap_or(u64::MAX)),
            text: evidence.to_string(),
        });
        Some(MirrorView {
            site,
            peer,
            role: member.role(),
            serves: mirror.closed.is_none() && seat.admits() == Admission::Serve,
            epoch: member.epoch(),
            record: member.record(),
            is_link_up,
            end,
            problem: problem_of(seat, mirror.closed.as_ref().and_then(|closed| closed.failure.as_deref())),
            evidence: evidence.collect(),
        })
    }
}

/// What ends by itself only when somebody sees to it.
fn problem_of(seat: &Seat, failure: Option<&str>) -> Option<String> {
    if let Some(failure) = failure {
        return Some(format!("the volume cannot be opened: {failure}"));
    }
    if let Some(apart) = seat.apart() {
        return Some(format!("this site's log cannot follow the primary's: {apart}"));
    }
    seat.gone().map(|error| format!("the other site cannot be sent the log: {error}"))
}
