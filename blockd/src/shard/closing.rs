//! How volumes, and with them the shard, come to an end: requests answered, map checkpointed, nothing left under way.

use super::mailbox::Callback;
use super::port::StoreAsk;
use super::requests::Origin;
use super::{Shard, VolumeSlot};
use crate::nbd::Phase;
use units::{Monotonic, VolumeId};
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, Request};

/// How far the closing of a volume is.
pub(super) struct Closing {
    /// Until when its connections may take.
    drain_by: Monotonic,
    done: Option<Callback<Result<(), Error>>>,
    checkpoint: Checkpoint,
    /// It only loses its connections, and stays open.
    stays_open: bool,
}

impl std::fmt::Debug for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Closing({:?})", self.checkpoint)
    }
}

#[derive(Debug)]
enum Checkpoint {
    /// Connections have requests under way.
    Later,
    /// The volume has been asked.
    Asked,
    /// It has answered.
    Over(Result<(), Error>),
}

impl Shard {
    /// Begins to close a volume.
    pub(super) fn close_volume(&mut self, volume: VolumeId, done: Callback<Result<(), Error>>) {
        self.end_service(volume, done, false);
    }

    /// Begins to cut a volume's clients off.
    pub(super) fn detach_clients(&mut self, volume: VolumeId, done: Callback<Result<(), Error>>) {
        self.end_service(volume, done, true);
    }

    fn end_service(&mut self, volume: VolumeId, done: Callback<Result<(), Error>>, stays_open: bool) {
        match self.by_id.get(&volume).copied() {
            Some(place) => self.begin_closing(place, Some(done), stays_open),
            None => done(Err(Error::new(ErrorKind::Closing, format!("volume {volume} is not open")))),
        }
    }

    fn begin_closing(&mut self, place: usize, done: Option<Callback<Result<(), Error>>>, stays_open: bool) {
        let Some(slot) = self.volumes.get_mut(place) else { return };
        match &mut slot.closing {
            Some(closing) => {
                closing.stays_open &= stays_open;
                if let Some(done) = done {
                    if closing.done.is_some() {
                        done(Err(Error::new(ErrorKind::Closing, "the volume is being closed already")));
                    } else {
                        closing.done = Some(done);
                    }
                }
            }
            None => {
                let drain_by = self.now.plus(self.limits.drain_max);
                slot.closing = Some(Closing { drain_by, done, checkpoint: Checkpoint::Later, stays_open });
                self.closing_count += 1;
            }
        }
        self.touch(place);
        for key in self.connections_of(place) {
            self.drain_connection(key);
        }
        self.close_unit(place);
    }

    pub(super) fn connections_of(&self, place: usize) -> Vec<usize> {
        self.connections.iter().filter(|(_, connection)| connection.volume == place).map(|(key, _)| key).collect()
    }

    /// Begins to end the shard.
    pub(super) fn stop(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        // Connections get the first half of the time, checkpoints the second.
        self.stop_by = Some(self.now.plus(self.limits.drain_max * 2));
        self.next_tick = self.now;
        self.drain_all_sessions();
        let places: Vec<usize> = self.volumes.iter().map(|(place, _)| place).collect();
        for place in places {
            self.begin_closing(place, None, false);
        }
    }

    /// Whether the shard has been stopped and nothing is left.
    pub(super) fn is_finished(&self) -> bool {
        // When it took too long, connections may wait for volumes that have been given up.
        self.stop_by.is_some_and(|stop_by| self.volumes.is_empty() && (self.has_no_connection() || self.now >= stop_by))
    }

    fn has_no_connection(&self) -> bool {
        self.connections.is_empty() && self.iscsi.is_empty()
    }

    /// Gives up connections that keep a volume from closing, and volumes that keep the shard from ending, once their time
    /// is over.
    pub(super) fn force_closing_if_late(&mut self) {
        let is_late = |slot: &VolumeSlot| slot.closing.as_ref().is_some_and(|closing| self.now >= closing.drain_by);
        let places = self.volumes.iter().filter(|(_, slot)| is_late(slot)).map(|(place, _)| place);
        for place in places.collect::<Vec<_>>() {
            for key in self.connections_of(place) {
                self.kill_connection(key);
            }
        }
        if self.stop_by.is_some_and(|stop_by| self.now >= stop_by) {
            let keys: Vec<usize> = self.iscsi.iter().map(|(key, _)| key).collect();
            keys.into_iter().for_each(|key| self.kill_iscsi(key));
            for slot in self.volumes.drain() {
                tracing::warn!(volume = %slot.volume.id(), "stopped before the volume's checkpoint was done");
            }
            self.by_id.clear();
        }
    }

    /// Takes closing volumes the next step.
    pub(super) fn close_volumes(&mut self) {
        if self.closing_count == 0 {
            return;
        }
        for place in 0..self.volumes.capacity() {
            self.end_nexuses_if_idle(place);
            let Some(slot) = self.volumes.get_mut(place) else { continue };
            let (has_connections, is_idle) = (slot.stats.connections > 0, slot.is_idle());
            let is_led_elsewhere = slot.is_led_elsewhere();
            let Some(closing) = &mut slot.closing else { continue };
            match closing.checkpoint {
                // Where another site leads, that has all that counts, and this one's map is written back as it says.
                Checkpoint::Later if !has_connections && is_led_elsewhere => {
                    closing.checkpoint = Checkpoint::Over(Ok(()));
                }
                Checkpoint::Later if !has_connections => {
                    closing.checkpoint = Checkpoint::Asked;
                    self.begin(place, Request::Checkpoint, Origin::Closing);
                }
                Checkpoint::Over(_) if closing.stays_open => self.reopen(place),
                Checkpoint::Over(_) if is_idle => self.forget_volume(place),
                Checkpoint::Later | Checkpoint::Asked | Checkpoint::Over(_) => {}
            }
        }
    }

    /// Takes the answer to a closing volume's checkpoint.
    pub(super) fn on_checkpointed(&mut self, place: usize, result: Result<Completion, Error>) {
        if let Some(closing) = self.volumes.get_mut(place).and_then(|slot| slot.closing.as_mut()) {
            closing.checkpoint = Checkpoint::Over(result.map(|_| ()));
        }
        self.touch(place);
    }

    /// Ends the closing of a volume that only was to lose its connections.
    fn reopen(&mut self, place: usize) {
        let slot = self.volumes.get_mut(place);
        let closing = slot.and_then(|slot| {
            slot.unit.is_closing = false;
            slot.closing.take()
        });
        self.closing_count -= 1;
        if let Some(Closing { done: Some(done), checkpoint: Checkpoint::Over(result), .. }) = closing {
            done(result);
        }
    }

    fn forget_volume(&mut self, place: usize) {
        self.leave_mirror(place);
        let slot = self.volumes.remove(place);
        let id = slot.volume.id();
        if let Some(queue) = slot.unit.held_in {
            self.gate.leave(queue, super::tasks::UNIT_BIT | place);
        }
        self.stalled_units.retain(|stalled| *stalled != place);
        self.gate.close(slot.standing);
        self.by_id.remove(&id);
        self.store.ask(StoreAsk::Closed { volume: id });
        self.closing_count -= 1;
        self.touched.retain(|touched| *touched != place);
        self.throttled.retain(|throttled| *throttled != place);
        let Some(Closing { done, checkpoint: Checkpoint::Over(result), .. }) = slot.closing else { return };
        if let Err(error) = &result {
            tracing::warn!(volume = %id, %error, "the volume was closed without a checkpoint");
        }
        if let Some(done) = done {
            done(result);
        }
    }

    /// Takes no more requests from a connection; it ends when those under way are answered.
    pub(super) fn drain_connection(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.phase == Phase::Open {
            connection.phase = Phase::Draining;
            if let Some(receive) = connection.receiving {
                self.ring.cancel(receive);
            }
            self.note_news(key);
        }
    }
}
