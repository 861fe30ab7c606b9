//! Carrying out what volumes want, and telling them what became of it.

use super::disk::{DiskToken, Fetch, note_fault};
use super::port::StoreAsk;
use super::{Shard, THROTTLED_MAX, Token};
use crate::memory::buffer_of;
use replication::seat::Event as SeatEvent;
use std::time::Duration;
use units::{BLOCK_BYTES, Monotonic, VolumeId};
use uring::{Completion, Outcome, Want};
use volume::buffer::total_len;
use volume::engine::Context;
use volume::io::{Action, Event};

impl Shard {
    /// Lets every volume that was handed events give out what gathered, until none wants anything.
    pub(super) fn settle(&mut self) {
        // What is asked for is older than the time that its batch is given.
        self.wall_ms = super::wall_ms();
        self.meter = self.meter_times.now();
        // By index: carrying out may touch more.
        let mut next = 0;
        while let Some(place) = self.touched.get(next).copied() {
            next += 1;
            self.settle_volume(place, false);
        }
        self.touched.clear();
    }

    /// Has everything go on its way that does not wait for an append: where several share the shard, who asks for little would
    /// else wait for all that others write, a read twice.
    pub(super) fn hurry(&mut self) -> std::io::Result<()> {
        let mut next = 0;
        while let Some(place) = self.touched.get(next).copied() {
            next += 1;
            self.carry_out_all(place);
        }
        let has_pdus = !self.iscsi_news.is_empty() || !self.session_news.is_empty();
        if self.news.is_empty() && self.fetches.is_empty() && !has_pdus {
            return Ok(());
        }
        self.send_replies();
        self.send_pdus();
        self.start_fetches();
        self.ring.enter(Want::Nothing)?;
        while let Some(completion) = self.ring.next_completion() {
            self.on_completion(completion);
        }
        Ok(())
    }

    /// `is_its_turn`: it has waited for the throttle, and that is open.
    fn settle_volume(&mut self, place: usize, mut is_its_turn: bool) {
        loop {
            let Some(slot) = self.volumes.get_mut(place) else { return };
            if slot.is_closed() {
                slot.is_touched = false;
                return;
            }
            let mut context = Context {
                now: self.now,
                wall_ms: self.wall_ms,
                meter: self.meter,
                buffers: &mut self.buffers,
                actions: &mut slot.actions,
            };
            let id = slot.volume.id();
            // A deletion must go on, and so must the end of a volume's service.
            let is_exempt = id == VolumeId::SYSTEM || slot.closing.is_some() || !slot.volume.is_write_next();
            let is_open = || self.throttled.is_empty() && self.throttle.opens_at(self.now).is_none();
            if std::mem::take(&mut is_its_turn) || is_exempt || is_open() {
                if self.throttle.is_on() {
                    // Whether the next may go is asked when this one has been counted.
                    slot.volume.poll_one_append(&mut context);
                } else {
                    slot.volume.poll_append(&mut context);
                }
            } else if !self.throttled.contains(&place) {
                self.throttled.push(place);
            }
            if slot.actions.is_empty() {
                slot.is_touched = false;
                self.look_at_mirrored(place);
                return;
            }
            self.carry_out_all(place);
        }
    }

    /// Carries out what a volume wants so far.
    pub(super) fn carry_out_all(&mut self, place: usize) {
        let Some(slot) = self.volumes.get_mut(place) else { return };
        let id = slot.volume.id();
        let mut actions = std::mem::take(&mut slot.actions);
        for action in actions.drain(..) {
            self.carry_out(place, id, action);
        }
        // Its memory serves the next actions.
        if let Some(slot) = self.volumes.get_mut(place) {
            slot.actions = actions;
        }
        let mut finished = std::mem::take(&mut self.finished);
        for (place, event) in finished.drain(..) {
            self.tell(place, event);
        }
        self.finished = finished;
        self.advance_units();
    }

    /// Goes on with volumes that waited for the throttle, one after the other while it is open.
    pub(super) fn resume_throttled(&mut self) {
        while !self.throttled.is_empty() && self.throttle.opens_at(self.now).is_none() {
            let place = self.throttled.remove(0);
            self.settle_volume(place, true);
        }
    }

    /// How long nothing has to be done for what waits for the throttle, if anything does.
    pub(super) fn throttled_for(&self, now: Monotonic) -> Option<Duration> {
        let opens_at = self.throttle.opens_at(now).unwrap_or(now);
        (!self.throttled.is_empty()).then(|| opens_at.since(now).min(THROTTLED_MAX))
    }

    fn carry_out(&mut self, place: usize, volume: VolumeId, action: Action) {
        match action {
            Action::Append { id, pool_offset, buffers, to_peer } => {
                if let Some(batch) = to_peer {
                    self.ship(place, &buffers, batch);
                }
                self.note_under_way(place);
                self.throttle.charge(self.now, total_len(&buffers));
                let (disk, mut io) = self.disk_and_io();
                let event = disk.append(&mut io, DiskToken { volume: place, id }, pool_offset, buffers);
                self.finished.extend(event.map(|event| (place, event)));
            }
            Action::Fetch { id, buffer, pieces, is_second_try } => {
                self.note_under_way(place);
                let token = DiskToken { volume: place, id };
                self.fetches.push(Fetch { token, buffer, pieces, is_second_try });
            }
            Action::Sync { id } => {
                self.note_under_way(place);
                self.disk.want_sync(&mut self.stats, DiskToken { volume: place, id });
            }
            Action::Reply(reply) => self.on_reply(reply),
            Action::LoadPage { page } => self.store.ask(StoreAsk::LoadPage { volume, page }),
            Action::LoadChanges { id, since, pages, runs_max } => {
                self.store.ask(StoreAsk::LoadChanges { volume, id, since, pages, runs_max });
            }
            Action::LoadPlace { segment } => self.store.ask(StoreAsk::LoadPlace { volume, segment }),
            Action::WriteBack { id, generation, pages, folded } => {
                self.store.ask(StoreAsk::WriteBack { volume, id, generation, pages, folded });
            }
            Action::NoteLoans { segment, loans, pledges } => {
                // Nothing is written for a copy, and it takes room as a write does.
                let blocks: u64 = loans.iter().map(|loan| u64::from(loan.count)).sum();
                self.throttle.charge(self.now, blocks * BLOCK_BYTES);
                self.store.ask(StoreAsk::NoteLoans { volume, segment, loans, pledges });
            }
            Action::Pledge { pledge, runs } => self.store.ask(StoreAsk::Pledge { volume, pledge, runs }),
            Action::NoteBoundary(boundary) => self.store.ask(StoreAsk::NoteBoundary { volume, boundary }),
            Action::Lease { class } => self.store.ask(StoreAsk::Lease { volume, class }),
            Action::LeaseFor { segment } => self.store.ask(StoreAsk::LeaseFor { volume, segment }),
            Action::NoteSegment(row) => self.store.ask(StoreAsk::NoteSegment(row)),
            Action::Settle(settled) => self.store.ask(StoreAsk::Settle { volume, settled }),
            Action::Unpinned { segment } => self.store.ask(StoreAsk::Unpinned { volume, segment }),
            Action::Release { segment } => self.store.ask(StoreAsk::Release { volume, segment }),
            Action::SyncPeer { lsn } => self.note_for_seat(place, SeatEvent::SyncPeer(lsn)),
            Action::TellPrimary(log) => self.note_for_seat(place, SeatEvent::TellPrimary(log)),
            Action::FellOut { why } => {
                tracing::warn!(%volume, ?why, "a mirrored volume cannot go on as it was told");
                self.note_for_seat(place, SeatEvent::FellOut(why));
            }
        }
    }

    pub(super) fn on_completion(&mut self, completion: Completion<Token>) {
        match (completion.token, completion.outcome) {
            (Token::Receive(key), Outcome::Received { region, result }) => self.on_received(key, region, &result),
            (Token::Send(key), Outcome::Sent { message, result }) => self.on_sent(key, message, &result),
            (Token::IscsiReceive(key), Outcome::Received { region, result }) => {
                self.on_iscsi_received(key, region, &result);
            }
            (Token::IscsiSend(key), Outcome::Sent { message, result }) => self.on_iscsi_sent(key, message, &result),
            (Token::Fetch(token), Outcome::Read { region, result }) => {
                let result = note_fault(&mut self.stats, result);
                self.tell(token.volume, Event::Fetched { id: token.id, buffer: buffer_of(region), result });
            }
            (Token::Append { token, pool_offset, since }, Outcome::Written { regions, result }) => {
                let len = regions.iter().map(|region| region.len() as u64).sum();
                let (disk, mut io) = self.disk_and_io();
                disk.note_dirty(&mut io, (token.volume, pool_offset), len);
                self.stats.append_ns.record_time(self.now.since(since));
                let result = note_fault(&mut self.stats, result);
                let buffers = regions.into_iter().map(buffer_of).collect();
                self.tell(token.volume, Event::Appended { id: token.id, buffers, result });
            }
            (Token::Sync, Outcome::Done { result }) => self.on_synced(result),
            (Token::WriteBack { offset, len }, Outcome::Done { result }) => {
                self.disk.on_written_back(len, &result);
                if result.is_ok() {
                    let (disk, mut io) = self.disk_and_io();
                    disk.forget(&mut io, offset, len);
                }
            }
            (Token::Ignored, Outcome::Done { .. }) => {}
            (token, outcome) => unreachable!("{token:?} ended as {outcome:?}"),
        }
    }

    /// Tells those who waited for the sync how it ended.
    pub(super) fn on_synced(&mut self, result: std::io::Result<()>) {
        let (tokens, result) = self.disk.on_synced(&mut self.stats, self.now, result);
        let tokens: smallvec::SmallVec<[DiskToken; 8]> = tokens.collect();
        for DiskToken { volume, id } in tokens {
            self.tell(volume, Event::Synced { id, result });
        }
    }
}
