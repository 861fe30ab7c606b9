//! How a volume becomes one of a mirror, and how it is opened anew when it cannot go on as it is.

use super::super::port::StoreAsk;
use super::super::{Shard, VolumeSlot};
use super::passing::Passing;
use super::{Callback, Mirrored};
use crate::mirror::{MirrorPort, Wish};
use replication::passing::Held;
use replication::seat::{Admission, Event, Seat};
use replication::{Config, Promise};
use std::collections::VecDeque;
use std::time::Duration;
use units::{Lsn, Monotonic};
use volume::engine::Volume;
use volume::error::{Error, ErrorKind};
use volume::io::Event as VolumeEvent;
use volume::request::RequestId;

/// How long a volume that is to be mirrored has for coming to rest.
const REST_WITHIN: Duration = Duration::from_secs(2);

/// What a seat begins with.
#[derive(Debug)]
pub struct SeatSettings {
    /// Which site is which.
    pub config: Config,
    /// What this site has promised.
    pub promise: Promise,
    /// Whether no power cut can have taken anything from the end of the log.
    pub is_log_whole: bool,
    /// Its way to its host and the other site.
    pub port: MirrorPort,
}

/// A volume that is to be mirrored once it is at rest.
pub(super) struct Beginning {
    promise: Promise,
    is_log_whole: bool,
    since: Monotonic,
    done: Callback<Result<(), Error>>,
}

/// A volume that is opened anew: the one that is there is told nothing any more.
#[derive(Debug)]
pub(super) struct Closed {
    limit: Option<Lsn>,
    /// The host has been asked to.
    is_asked: bool,
    /// Why it could not be opened the last time.
    pub(super) failure: Option<String>,
}

impl Mirrored {
    fn new(config: Config, port: MirrorPort) -> Self {
        Self {
            config,
            port,
            seat: None,
            beginning: None,
            closed: None,
            news: VecDeque::new(),
            ahead: VecDeque::new(),
            is_told: false,
            life: None,
            passing: Passing::default(),
            found: Vec::new(),
            admitted: Admission::Wait,
            is_retired: false,
            is_poison_told: false,
        }
    }
}

impl VolumeSlot {
    /// Whether nothing of it is under way.
    pub(in super::super) fn is_idle(&self) -> bool {
        match self.mirror.as_deref() {
            Some(mirror) if mirror.closed.is_some() => self.under_way == 0,
            _ => self.volume.is_idle(),
        }
    }

    /// Whether it is mirrored, and this site does not lead.
    pub(in super::super) fn is_led_elsewhere(&self) -> bool {
        self.mirror.as_deref().is_some_and(|mirror| mirror.admission() != Admission::Serve)
    }

    /// Whether it is closed until it has been opened anew.
    pub(in super::super) fn is_closed(&self) -> bool {
        self.mirror.as_deref().is_some_and(|mirror| mirror.closed.is_some())
    }
}

impl Shard {
    /// Has a volume that was just opened, and is frozen, be one of a mirror.
    pub(in super::super) fn open_mirrored(&mut self, place: usize, settings: SeatSettings) {
        let SeatSettings { config, promise, is_log_whole, port } = settings;
        if let Some(slot) = self.volumes.get_mut(place) {
            slot.mirror = Some(Box::new(Mirrored::new(config, port)));
            self.mirrored.push(place);
            self.start_seat(place, (promise, is_log_whole));
        }
    }

    /// Has a volume that serves be one of a mirror, once it is at rest: what comes meanwhile waits.
    pub(super) fn begin_mirror(&mut self, place: usize, settings: SeatSettings, done: Callback<Result<(), Error>>) {
        let SeatSettings { config, promise, is_log_whole, port } = settings;
        let since = self.now;
        let Some(slot) = self.volumes.get_mut(place).filter(|slot| slot.mirror.is_none() && slot.closing.is_none())
        else {
            return done(Err(Error::new(ErrorKind::Closing, "the volume is mirrored already, or is being closed")));
        };
        let mut mirror = Mirrored::new(config, port);
        mirror.beginning = Some(Beginning { promise, is_log_whole, since, done });
        slot.mirror = Some(Box::new(mirror));
        self.mirrored.push(place);
        self.touch(place);
    }

    /// Freezes a volume that is to be mirrored when it is at rest, and gives up when it has not come to that in time.
    pub(super) fn freeze_if_at_rest(&mut self, place: usize) {
        let now = self.now;
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let Some(mirror) = slot.mirror.as_deref_mut() else { return };
        let is_at_rest = slot.volume.is_at_rest() && slot.under_way == 0;
        let may_end = |beginning: &mut Beginning| is_at_rest || now.since(beginning.since) >= REST_WITHIN;
        let Some(Beginning { promise, is_log_whole, done, .. }) = mirror.beginning.take_if(may_end) else { return };
        if is_at_rest {
            slot.volume.freeze();
            self.start_seat(place, (promise, is_log_whole));
            return done(Ok(()));
        }
        let held = mirror.passing.take_if(|_| true);
        slot.mirror = None;
        self.mirrored.retain(|mirrored| *mirrored != place);
        for Held { key: id, request, .. } in held {
            self.tell(place, VolumeEvent::Request { id: RequestId(id as u64), request });
        }
        let detail = format!("the volume was not at rest within {REST_WITHIN:?}: try again when less is asked of it");
        done(Err(Error::new(ErrorKind::Unavailable, detail)));
    }

    fn start_seat(&mut self, place: usize, (promise, is_log_whole): (Promise, bool)) {
        let now = self.now;
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let Some(mirror) = slot.mirror.as_deref_mut() else { return };
        let mut actions = Vec::new();
        mirror.seat = Some(Seat::start(mirror.config, now, (promise, is_log_whole), &slot.volume, &mut actions));
        if mirror.life.is_some() {
            mirror.news.push_back(Event::Link { is_up: true });
        }
        for action in actions {
            self.carry_out_for_seat(place, action);
        }
        self.touch(place);
    }

    /// Takes what happens to a volume before that is told of it; gives it back where it may be.
    pub(in super::super) fn sift(&mut self, place: usize, event: VolumeEvent) -> Option<VolumeEvent> {
        let Some(slot) = self.volumes.get_mut(place) else { return Some(event) };
        if matches!(event, VolumeEvent::Appended { .. } | VolumeEvent::Fetched { .. } | VolumeEvent::Synced { .. }) {
            slot.under_way -= 1;
        }
        if !slot.is_closed() {
            return Some(event);
        }
        match event {
            VolumeEvent::Appended { buffers, .. } | VolumeEvent::Replicated { buffers } => {
                self.buffers.put_all(buffers);
            }
            VolumeEvent::Fetched { buffer, .. } => self.buffers.put(buffer),
            VolumeEvent::Request { request, .. } => self.buffers.put_all(request.into_buffers()),
            VolumeEvent::Synced { .. }
            | VolumeEvent::PageLoaded { .. }
            | VolumeEvent::Place { .. }
            | VolumeEvent::ChangesLoaded { .. }
            | VolumeEvent::WroteBack { .. }
            | VolumeEvent::Moved { .. }
            | VolumeEvent::Leaves { .. }
            | VolumeEvent::Leased { .. }
            | VolumeEvent::LeasedFor { .. }
            | VolumeEvent::Role(_)
            | VolumeEvent::PeerHas(_)
            | VolumeEvent::Committed(_)
            | VolumeEvent::MakeDurable { .. }
            | VolumeEvent::SlotsFew
            | VolumeEvent::Awaited { .. }
            | VolumeEvent::Tick => {}
        }
        self.open_anew_if_idle(place);
        None
    }

    /// Counts an operation of the disk that begins.
    pub(in super::super) fn note_under_way(&mut self, place: usize) {
        if let Some(slot) = self.volumes.get_mut(place) {
            slot.under_way += 1;
        }
    }

    /// Closes a mirrored volume: whatever it has begun ends with an error. It is opened anew once nothing of it is under way.
    pub(super) fn begin_reopening(&mut self, place: usize, limit: Option<Lsn>) {
        self.carry_out_all(place);
        let Some(mirror) = self.mirror_mut(place) else { return };
        mirror.closed = Some(Closed { limit, is_asked: false, failure: None });
        mirror.ahead.clear();
        tracing::info!(group = %mirror.config.group, ?limit, "a mirrored volume is opened anew");
        self.end_begun(place);
        self.forget_ended_requests(place);
        self.throttled.retain(|throttled| *throttled != place);
        self.open_anew_if_idle(place);
    }

    fn open_anew_if_idle(&mut self, place: usize) {
        let Some(slot) = self.volumes.get_mut(place).filter(|slot| slot.under_way == 0) else { return };
        let volume = slot.volume.id();
        let Some(mirror) = slot.mirror.as_deref_mut() else { return };
        let Some(closed) = mirror.closed.as_mut().filter(|closed| !closed.is_asked) else { return };
        closed.is_asked = true;
        let (port, limit) = (mirror.port.clone(), closed.limit);
        // First: what the volume has leased and not used is free then, and nothing of it is moved while it is read.
        self.store.ask(StoreAsk::Closed { volume });
        port.ask(Wish::Reopen { limit });
    }

    pub(super) fn on_reopened(&mut self, place: usize, result: Result<Box<Volume>, String>) {
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let Some(mirror) = slot.mirror.as_deref_mut() else { return };
        let Some(closed) = mirror.closed.as_mut().filter(|closed| closed.is_asked) else { return };
        match result {
            Ok(volume) => {
                mirror.closed = None;
                slot.volume = volume;
                self.note_size(place);
                self.tell_seat(place, Event::Opened);
            }
            Err(reason) => {
                tracing::error!(group = %mirror.config.group, reason, "a mirrored volume cannot be opened");
                closed.failure = Some(reason);
                self.tell_seat(place, Event::OpenFailed);
            }
        }
    }
}
