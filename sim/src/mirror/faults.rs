//! What goes wrong, and what operators do.

use super::witness::Witness;
use super::{Happening, MILLISECOND, Next, World};
use replication::{Command, DiskState, Event};
use units::Lsn;

/// Whom a fault is about, as the witness's record says when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Who is primary.
    Primary,
    /// The other one.
    Secondary,
}

impl Who {
    /// Which of the two sites that is.
    pub(crate) fn site(self, witness: &Witness) -> usize {
        let primary = witness.seen().map_or(0, |seen| usize::from(seen.record.primary.0 - 1));
        match self {
            Self::Primary => primary,
            Self::Secondary => 1 - primary,
        }
    }
}

/// What happens to a world.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The process is killed, and starts again.
    Kill {
        /// Whose.
        who: Who,
        /// The machine loses power.
        is_power_cut: bool,
        /// After how long it starts.
        back_ms: u64,
    },
    /// Both machines lose power, at once.
    PowerCutBoth {
        /// After how long each starts.
        back_ms: [u64; 2],
    },
    /// The process is stopped for a while.
    Stop {
        /// Whose.
        who: Who,
        /// How long.
        ms: u64,
    },
    /// Nothing arrives from the primary, from the secondary.
    Cut {
        /// From the primary.
        from_primary: bool,
        /// From the secondary.
        from_secondary: bool,
    },
    /// The connection breaks, and is there again at once.
    Reset,
    /// The link is well.
    Mend,
    /// Everything takes longer on the link.
    LinkDelay(u64),
    /// Nobody reaches the witness, or all do again.
    WitnessDown(bool),
    /// A site does not reach it, or does again.
    WitnessCut {
        /// Which.
        who: Who,
        /// Whether.
        is_cut: bool,
    },
    /// Its answers are late, lost and repeated, or not any more.
    WitnessSlow(bool),
    /// Changes reach it, and wait before they are carried out; or they do so no more, and all are.
    WitnessHolds(bool),
    /// It loses its third member, or gets it back.
    WitnessFrail(bool),
    /// It is restored as it was some changes ago.
    WitnessRestored(usize),
    /// The primary's driver finds the other site slow, or well again.
    PeerSlow(bool),
    /// A disk changes.
    Disk {
        /// Whose.
        who: Who,
        /// To what.
        state: DiskState,
    },
    /// Which site is preferred.
    Preferred(Who),
    /// An operator's word to a site.
    Command {
        /// Which.
        who: Who,
        /// What.
        command: Command,
    },
}

impl World {
    pub(super) fn on_fault(&mut self, fault: Fault) {
        self.say(|| format!("-- {fault:?}"));
        match fault {
            Fault::Kill { who, is_power_cut, back_ms } => self.kill(self.index(who), is_power_cut, back_ms),
            Fault::PowerCutBoth { back_ms } => {
                for (site, back_ms) in back_ms.into_iter().enumerate() {
                    self.end_process(site);
                    self.at(self.time + back_ms * MILLISECOND, Happening::Start { site });
                }
                (0..2).for_each(|site| self.lose_power(site));
            }
            Fault::Stop { who, ms } => {
                let site = self.index(who);
                self.sites[site].stalled_until = self.time + ms * MILLISECOND;
            }
            Fault::Cut { from_primary, from_secondary } => {
                let primary = self.index(Who::Primary);
                self.link.is_cut[primary] = from_primary;
                self.link.is_cut[1 - primary] = from_secondary;
            }
            Fault::Reset => self.reset_link(),
            Fault::Mend => {
                self.link.is_cut = [false; 2];
                self.reset_link();
            }
            Fault::LinkDelay(ms) => self.link.extra_ms = ms,
            Fault::WitnessDown(is_down) => self.witness.is_down = is_down,
            Fault::WitnessCut { who, is_cut } => {
                let site = self.index(who);
                // What was cut from it once may not be what it is now.
                self.witness.is_cut = [false; 2];
                self.witness.is_cut[site] = is_cut;
            }
            Fault::WitnessSlow(is_slow) => self.witness.is_slow = is_slow,
            Fault::WitnessHolds(holds) => self.hold_changes(holds),
            Fault::WitnessFrail(is_frail) => self.witness.is_frail = is_frail,
            Fault::WitnessRestored(changes) => self.witness.restore(changes),
            Fault::PeerSlow(is_slow) => self.event(Who::Primary, Event::PeerSlow(is_slow)),
            Fault::Disk { who, state } => self.event(who, Event::Disk(state)),
            Fault::Preferred(who) => {
                let site = self.index(who);
                for index in 0..2 {
                    self.site_at(self.time, index, Next::Member(Event::Preferred(index == site)));
                }
            }
            Fault::Command { who, command } => self.event(who, Event::Command(command)),
        }
    }

    fn hold_changes(&mut self, holds: bool) {
        self.witness_holds = holds;
        for change in std::mem::take(&mut self.held_changes) {
            let at = self.time + self.random.within(100, 2000) * super::MICROSECOND;
            self.at(at, change);
        }
    }

    fn event(&mut self, who: Who, event: Event) {
        let site = self.index(who);
        self.site_at(self.time, site, Next::Member(event));
    }

    fn index(&self, who: Who) -> usize {
        who.site(&self.witness)
    }

    fn kill(&mut self, site: usize, is_power_cut: bool, back_ms: u64) {
        if self.sites[site].process.is_none() {
            return;
        }
        self.end_process(site);
        if is_power_cut {
            self.lose_power(site);
        }
        self.at(self.time + back_ms * MILLISECOND, Happening::Start { site });
    }

    /// What is under way is done or not; nothing else of the process is left.
    fn end_process(&mut self, site: usize) {
        if self.sites[site].process.take().is_none() {
            return;
        }
        self.say(|| format!("site {} ends", site + 1));
        self.sites[site].stalled_until = 0;
        let run = self.sites[site].run;
        let is_its = |happening: &Happening| matches!(happening, Happening::Site { site: at, run: of, .. } if *at == site && *of == run);
        let keys: Vec<_> = self.queue.iter().filter(|(_, what)| is_its(what)).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(Happening::Site { next: Next::Promised(file), .. }) = self.queue.remove(&key) else { continue };
            if self.random.chance(500) {
                self.sites[site].file = file;
            }
        }
        self.reset_link();
    }

    fn lose_power(&mut self, site: usize) {
        let log = &mut self.sites[site].log;
        let (durable, end) = (log.durable().0, log.end().lsn.0);
        let left = self.random.within(durable, end);
        self.sites[site].boot += 1;
        self.sites[site].log.cut(Lsn(left));
        self.sites[site].log.sync(Lsn(left));
        if left < end {
            self.say(|| format!("site {} loses what is behind {left}, to {end}", site + 1));
            self.on_lost(site);
        }
    }

    /// Everything is well from now on.
    pub(super) fn heal(&mut self) {
        self.is_healed = true;
        self.link.extra_ms = 0;
        self.witness.is_down = false;
        self.witness.is_cut = [false; 2];
        self.witness.is_slow = false;
        self.hold_changes(false);
        self.witness.is_frail = false;
        self.on_fault(Fault::Mend);
        for site in 0..2 {
            self.sites[site].stalled_until = 0;
            self.start(site);
            self.site_at(self.time, site, Next::Member(Event::PeerSlow(false)));
            self.site_at(self.time, site, Next::Member(Event::Disk(DiskState::Good)));
        }
    }
}
