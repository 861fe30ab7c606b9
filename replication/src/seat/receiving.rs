//! The secondary's side of the log: where it leaves the primary's, what it asks for, and what it takes.

use super::io::Action;
use super::{Given, Seat};
use crate::wire::{Frame, STRETCHES_MAX};
use std::fmt;
use units::{Epoch, Lsn};
use volume::buffer::{Buffer, total_len};
use volume::engine::{PeerLog, Volume};
use volume::parting::Parting;

/// After how many ticks a question is asked again that was not answered, the first time; doubled each time.
const ASK_AGAIN_TICKS: u32 = 10;

/// And at most.
const ASK_AGAIN_TICKS_MAX: u32 = 600;

/// Why a log cannot be brought up to date by the primary's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apart {
    /// Nobody can tell any more where the two logs part: what would tell is not kept.
    Untold,
    /// They part at this operation, and the stored map goes beyond it.
    Stored(Lsn),
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untold => f.write_str("nobody can tell any more where the two part"),
            Self::Stored(lsn) => write!(f, "they part at operation {lsn}, and the stored map here goes beyond it"),
        }
    }
}

/// A question for the log.
#[derive(Debug)]
struct Want {
    number: u64,
    epoch: Epoch,
    /// The primary has begun to answer it.
    has_begun: bool,
    ticks: u32,
    ticks_max: u32,
}

/// A question where the logs part.
#[derive(Debug, Clone, Copy)]
struct Asked {
    number: u64,
    /// The role, by its number, that it was asked for.
    role: u64,
    ticks: u32,
    is_answered: bool,
}

/// What a secondary knows.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    /// The last one.
    asked: Option<Asked>,
    want: Option<Want>,
    /// Of the questions of this life.
    questions: u32,
    told: Option<PeerLog>,
    /// Bytes of batches that came in this life of the link, and were not told to be consumed.
    unconsumed: u64,
    pub(super) apart: Option<Apart>,
}

impl Receiving {
    pub(super) const fn unconsumed(&self) -> u64 {
        self.unconsumed
    }

    /// Credit is of a life of the link.
    pub(super) const fn forget_credit(&mut self) {
        self.unconsumed = 0;
    }

    /// Nothing is taken any more until it was asked for.
    pub(super) fn stop(&mut self) {
        self.want = None;
        self.told = None;
    }

    /// Greater than any number of an earlier question, in all lives of the site.
    const fn next_number(&mut self, life: u64) -> u64 {
        self.questions = self.questions.wrapping_add(1);
        life << 32 | self.questions as u64
    }
}

impl Seat {
    /// Asks the primary where this log leaves its own.
    pub(super) fn ask_parting(&mut self, volume: &Volume, (role, epoch): (u64, Epoch), actions: &mut Vec<Action>) {
        // What nobody can tell now, nobody can soon.
        let pause = if self.receiving.apart.is_some() { ASK_AGAIN_TICKS_MAX } else { ASK_AGAIN_TICKS };
        if self.receiving.asked.is_some_and(|asked| asked.role == role && asked.ticks < pause) {
            return;
        }
        let number = self.receiving.next_number(self.member.life().0);
        self.receiving.asked = Some(Asked { number, role, ticks: 0, is_answered: false });
        let mut stretches = volume.stretches();
        stretches.truncate(STRETCHES_MAX);
        self.send(actions, |group| Frame::Align { group, epoch, number, stretches });
    }

    /// The primary has told. Only an answer to the last question counts: an earlier one was about another log.
    pub(super) fn on_aligned(
        &mut self,
        volume: &Volume,
        (epoch, number): (Epoch, u64),
        parting: Parting,
    ) -> Option<crate::Event> {
        let asked = self.receiving.asked.as_mut().filter(|asked| asked.number == number && !asked.is_answered)?;
        asked.is_answered = true;
        let role = asked.role;
        if epoch != self.member.epoch() {
            return None;
        }
        let (end, stored) = (volume.end().lsn, volume.status().folded_to);
        self.receiving.apart = match parting {
            Parting::Untold => Some(Apart::Untold),
            Parting::Behind(common) if common < stored.min(end) => Some(Apart::Stored(common)),
            Parting::Behind(_) => None,
        };
        let Parting::Behind(common) = parting else { return None };
        self.receiving.apart.is_none().then_some(crate::Event::Aligned { number: role, common })
    }

    /// Asks for what lies behind the end of the log, of which nothing is being appended.
    pub(super) fn ask_for_log(&mut self, volume: &Volume, epoch: Epoch, actions: &mut Vec<Action>) {
        let number = self.receiving.next_number(self.member.life().0);
        let before = self.receiving.want.as_ref().map(|want| (want.ticks_max * 2).min(ASK_AGAIN_TICKS_MAX));
        let ticks_max = before.unwrap_or(ASK_AGAIN_TICKS);
        self.receiving.want = Some(Want { number, epoch, has_begun: false, ticks: 0, ticks_max });
        let end = volume.end();
        self.send(actions, |group| Frame::Want { group, epoch, number, segment: end.segment, lsn: end.lsn });
    }

    pub(super) fn on_begins(&mut self, epoch: Epoch, number: u64) {
        let want = self.receiving.want.as_mut().filter(|want| (want.epoch, want.number) == (epoch, number));
        if let Some(want) = want {
            want.has_begun = true;
        }
    }

    /// S2. Whether what the primary sends in an epoch is what was asked for.
    fn takes(&self, epoch: Epoch) -> bool {
        let is_asked = self.receiving.want.as_ref().is_some_and(|want| want.has_begun && want.epoch == epoch);
        is_asked && self.given == (Given::Follow { epoch }) && self.role.accepts(self.config.peer, epoch)
    }

    pub(super) fn on_batch(&mut self, epoch: Epoch, buffers: Vec<Buffer>, actions: &mut Vec<Action>) {
        self.receiving.unconsumed += total_len(&buffers);
        if self.takes(epoch) {
            actions.push(Action::Volume(volume::io::Event::Replicated { buffers }));
        }
    }

    /// Tells what has been done with of all that came, the event of now not among it.
    pub(super) fn consume(&mut self, volume: Option<&Volume>, actions: &mut Vec<Action>) {
        let held = volume.map_or(0, Volume::held_bytes);
        let bytes = self.receiving.unconsumed.saturating_sub(held);
        if bytes > 0 {
            self.receiving.unconsumed -= bytes;
            actions.push(Action::Consumed { bytes });
        }
    }

    pub(super) fn on_committed(&self, epoch: Epoch, log: PeerLog, actions: &mut Vec<Action>) {
        if self.takes(epoch) {
            actions.push(Action::Volume(volume::io::Event::Committed(log)));
        }
    }

    pub(super) fn on_make_durable(&self, epoch: Epoch, lsn: Lsn, actions: &mut Vec<Action>) {
        if self.takes(epoch) {
            actions.push(Action::Volume(volume::io::Event::MakeDurable { lsn }));
        }
    }

    /// The volume says how far its log is.
    pub(super) fn on_tell_primary(&mut self, log: PeerLog, actions: &mut Vec<Action>) {
        if let Given::Follow { epoch } = self.given {
            self.receiving.told = Some(log);
            self.send(actions, |group| Frame::Has { group, epoch, log });
        }
    }

    /// Asks and says again what may have found no room.
    pub(super) fn tick_of_secondary(&mut self, volume: &Volume, actions: &mut Vec<Action>) {
        if let Some(asked) = &mut self.receiving.asked {
            asked.ticks = asked.ticks.saturating_add(1);
        }
        let Given::Follow { epoch } = self.given else { return };
        let Some(want) = &mut self.receiving.want else { return };
        want.ticks = want.ticks.saturating_add(1);
        if !want.has_begun && want.ticks >= want.ticks_max {
            self.ask_for_log(volume, epoch, actions);
        }
        if self.is_time_to_say_again()
            && let Some(log) = self.receiving.told
        {
            self.send(actions, |group| Frame::Has { group, epoch, log });
        }
    }
}
