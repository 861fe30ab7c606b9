//! What the other site says, and what it is told.

use super::Member;
use crate::io::{Action, DiskState};
use crate::message::{Body, Message};
use crate::position::Position;
use crate::promise::Life;
use crate::times::{HEARTBEAT, LEASE_GIVEN, SILENCE};
use std::time::Duration;
use units::{Epoch, Monotonic};

/// How many more starts than its promise tells the other site may have heard of: it was on a disk that was lost.
const LIVES_LOST_MAX: u64 = 1 << 20;

/// What is known of the other site.
#[derive(Debug)]
pub(super) struct Peer {
    life: Life,
    /// The newest of its heartbeats, by which its state is known.
    number: u64,
    heard_at: Monotonic,
    /// Since when it has been heard without a gap, and was not slow.
    pub(super) well_since: Monotonic,
    /// It has heard this life of this site: what it says of its log is as of now.
    pub(super) has_heard_me: bool,
    pub(super) end: Position,
    pub(super) epoch: Epoch,
    pub(super) disk: DiskState,
    pub(super) is_slow: bool,
    /// There is something that it should hear before the next heartbeat is due.
    pub(super) is_news_due: bool,
    spoken_at: Option<Monotonic>,
    spoken_number: u64,
}

impl Peer {
    pub(super) const fn new(now: Monotonic) -> Self {
        Self {
            life: Life(0),
            number: 0,
            heard_at: now,
            well_since: now,
            has_heard_me: false,
            end: Position::ZERO,
            epoch: Epoch(0),
            disk: DiskState::Good,
            is_slow: false,
            is_news_due: false,
            spoken_at: None,
            spoken_number: 0,
        }
    }

    pub(super) const fn silent(&self, now: Monotonic) -> Duration {
        now.since(self.heard_at)
    }

    /// Whether it was heard lately, and what it says is as of this life.
    pub(super) fn is_heard(&self, now: Monotonic) -> bool {
        self.has_heard_me && !self.is_lost(now)
    }

    pub(super) fn is_lost(&self, now: Monotonic) -> bool {
        self.silent(now) >= SILENCE
    }

    pub(super) const fn on_link(&mut self, now: Monotonic, is_up: bool) {
        self.well_since = now;
        self.is_news_due = is_up;
    }

    pub(super) const fn on_slow(&mut self, now: Monotonic, is_slow: bool) {
        self.is_slow = is_slow;
        self.well_since = now;
    }

    /// Whether it is too slow or too full to be in sync.
    pub(super) fn is_bad(&self) -> bool {
        self.is_slow || self.disk != DiskState::Good
    }

    fn restart(&mut self, life: Life) {
        self.life = life;
        self.number = 0;
        self.has_heard_me = false;
        self.end = Position::ZERO;
        self.epoch = Epoch(0);
        self.is_news_due = true;
    }
}

impl Member {
    pub(super) fn on_heard(&mut self, message: Message, actions: &mut Vec<Action>) {
        if message.life < self.peer.life || !self.has_started {
            return;
        }
        // More starts than a site can have had while the other one did not hear of them are a mistake of that one.
        if message.heard.0.saturating_sub(self.promise.life.0) <= LIVES_LOST_MAX {
            self.life_heard = self.life_heard.max(message.heard);
        }
        if message.life > self.peer.life {
            self.peer.restart(message.life);
        }
        if self.peer.is_lost(self.now) {
            self.peer.well_since = self.now;
            // It had nothing to answer while it was away.
            if let Some(lead) = &mut self.lead {
                lead.unanswered_since = self.now;
            }
        }
        self.peer.heard_at = self.now;
        let is_to_me = message.heard == self.promise.life && message.epoch == self.epoch();
        match message.body {
            Body::Heartbeat { .. } => self.on_heartbeat(&message, actions),
            Body::Word { of } if is_to_me => {
                if let Some(lead) = &mut self.lead {
                    lead.unanswered_since = lead.lease.answer(of).unwrap_or(lead.unanswered_since);
                }
            }
            Body::HandOver { end } if is_to_me => self.secondary.on_hand_over(message.number, end),
            Body::Ready { of } if is_to_me => self.on_ready(of, actions),
            Body::Word { .. } | Body::HandOver { .. } | Body::Ready { .. } => {}
        }
    }

    fn on_heartbeat(&mut self, message: &Message, actions: &mut Vec<Action>) {
        let Body::Heartbeat { seen, end, leads, asks_word, disk } = message.body else { return };
        if let Some(seen) = seen {
            self.learn(seen);
        }
        if message.number > self.peer.number {
            self.peer.number = message.number;
            self.peer.epoch = message.epoch;
            self.peer.has_heard_me |= message.heard == self.promise.life;
            self.peer.end = end;
            if disk != self.peer.disk {
                self.peer.disk = disk;
                self.peer.well_since = self.now;
            }
        }
        let is_my_primary = message.epoch == self.epoch()
            && self.record().is_some_and(|record| record.primary == self.config.peer)
            && self.witness.known.is_some_and(|known| known.record.epoch == self.epoch());
        if is_my_primary && leads && message.heard == self.promise.life {
            self.secondary.on_primary_end(end.lsn);
            // The primary can tell now where the logs part.
            self.peer.is_news_due |= self.is_aligning();
        }
        if is_my_primary && asks_word && !self.secondary.is_taking_over() {
            self.secondary.give_word(message.number, self.now.plus(LEASE_GIVEN));
            self.send(Body::Word { of: message.number }, actions);
        }
    }

    /// Tells the other site what it should hear now.
    pub(super) fn speak(&mut self, actions: &mut Vec<Action>) {
        if !self.has_started {
            return;
        }
        let is_due = self.peer.spoken_at.is_none_or(|at| self.now.since(at) >= HEARTBEAT);
        if !is_due && !self.peer.is_news_due && !self.wants_alignment() {
            return;
        }
        self.peer.spoken_at = Some(self.now);
        self.peer.is_news_due = false;
        self.ask_alignment(actions);
        // A primary that hands its role over wants no word.
        let asks_word = self.lead.as_ref().is_some_and(|lead| lead.switch.is_none());
        let body = Body::Heartbeat {
            seen: self.witness.known,
            end: self.log.end,
            leads: self.lead.is_some(),
            asks_word,
            disk: self.disk,
        };
        let number = self.send(body, actions);
        let now = self.now;
        if let Some(lead) = self.lead.as_mut().filter(|_| asks_word) {
            lead.lease.ask(number, now);
        }
    }

    pub(super) fn send(&mut self, body: Body, actions: &mut Vec<Action>) -> u64 {
        self.peer.spoken_number += 1;
        let number = self.peer.spoken_number;
        let (life, heard, epoch) = (self.promise.life, self.peer.life, self.epoch());
        actions.push(Action::Send(Message { life, heard, number, epoch, body }));
        number
    }
}
