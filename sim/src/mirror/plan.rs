//! Which faults a world meets, and when: the cases of the catalogue that concern roles, each with chance around it.

use super::MILLISECOND;
use super::faults::{Fault, Who};
use crate::random::Random;
use replication::{Command, DiskState, Reads};

/// Until then the sites find each other.
const CALM_MS: u64 = 4_000;

/// When an operator makes the group, where there is none yet.
const FOUND_MS: u64 = 20;

/// A case of the catalogue, or a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// F1. The primary is killed or loses power.
    KillPrimary,
    /// F2. So is the secondary.
    KillSecondary,
    /// F3. A planned switch, with either site killed or stopped at any step of it.
    KillInSwitch,
    /// F4. The link is cut; the witness sees both, one, or none.
    Partition,
    /// F5. It is cut in one direction.
    OneWay,
    /// F6. The witness's answers are lost, repeated, and up to half a minute late.
    LateWitness,
    /// F6. A takeover, or a join, is asked for, given up, and comes into force when nobody waits for it any more.
    LateChange,
    /// F7. The witness loses a member, then the link is cut, then it is back.
    FrailWitness,
    /// F8. The witness is restored from an old backup.
    RestoredWitness,
    /// F9. The witness stalls, and nothing else happens.
    StalledWitness,
    /// F11. The link flaps.
    Flapping,
    /// F14. A primary that was replaced returns; also after a failover by force.
    StalePrimary,
    /// F15. The primary is stopped for ten seconds while the other one takes over.
    Stop,
    /// F16. Clocks go up to a tenth too fast or too slow.
    Clocks,
    /// F17. Both sites fail, or a site and the witness.
    Double,
    /// F18. The secondary leaves, misses writes, and returns.
    Rejoin,
    /// F19. A site that missed writes is all that is left for a while.
    StaleSite,
    /// F10, F12, F13 as roles see them: slow and full disks, a slow link.
    Disks,
    /// F32. Anything.
    Mixed,
    /// F32 with the policy that never goes on alone.
    Strict,
    /// F32 with reads that ask each time.
    Confirm,
    /// Nothing, but that an operator makes the group.
    Calm,
}

/// Every case; a seed tells its own by its last byte.
pub const CASES: [Case; 22] = [
    Case::KillPrimary,
    Case::KillSecondary,
    Case::KillInSwitch,
    Case::Partition,
    Case::OneWay,
    Case::LateWitness,
    Case::LateChange,
    Case::FrailWitness,
    Case::RestoredWitness,
    Case::StalledWitness,
    Case::Flapping,
    Case::StalePrimary,
    Case::Stop,
    Case::Clocks,
    Case::Double,
    Case::Rejoin,
    Case::StaleSite,
    Case::Disks,
    Case::Mixed,
    Case::Strict,
    Case::Confirm,
    Case::Calm,
];

impl Case {
    /// The case of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        CASES[(seed & 0xff) as usize % CASES.len()]
    }

    /// A seed of this case.
    #[must_use]
    pub fn seed(self, number: u64) -> u64 {
        let index = CASES.iter().position(|case| *case == self).unwrap_or_default();
        number << 8 | index as u64
    }
}

/// What is planned for a world.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) faults: Vec<(u64, Fault)>,
    /// When the last of them is over.
    pub(super) end: u64,
    pub(super) rates: [u64; 2],
    pub(super) is_strict: bool,
    pub(super) reads: Reads,
    pub(super) clients: usize,
    /// What a message takes on the link beyond a millisecond.
    pub(super) link_ms: u64,
    pub(super) sync_ms_max: u64,
}

impl Plan {
    pub(super) fn new(case: Case, random: &mut Random) -> Self {
        let mut script = Script { at: CALM_MS, faults: Vec::new(), random };
        if case == Case::Calm {
            script.faults.push((FOUND_MS, Fault::Command { who: Who::Primary, command: Command::Found }));
        }
        let rounds = script.random.within(1, 3);
        for _ in 0..rounds {
            script.add_case(case);
            script.pause(2_000, 9_000);
        }
        let Script { at, mut faults, random } = script;
        faults.sort_by_key(|(at, _)| *at);
        let rate = |random: &mut Random| {
            if case == Case::Clocks { random.within(900, 1100) } else { random.within(995, 1005) }
        };
        Self {
            end: at.max(faults.last().map_or(0, |(at, _)| *at)) * MILLISECOND,
            faults: faults.into_iter().map(|(at, fault)| (at * MILLISECOND, fault)).collect(),
            rates: [rate(random), rate(random)],
            is_strict: case == Case::Strict,
            reads: if case == Case::Confirm { Reads::Confirm } else { Reads::Lease },
            link_ms: *random.pick(&[0, 5, 40]),
            clients: random.within(2, 4) as usize,
            sync_ms_max: *random.pick(&[5, 50, 250]),
        }
    }
}

struct Script<'a> {
    at: u64,
    faults: Vec<(u64, Fault)>,
    random: &'a mut Random,
}

impl Script<'_> {
    fn now(&mut self, fault: Fault) {
        self.faults.push((self.at, fault));
    }

    fn pause(&mut self, least_ms: u64, most_ms: u64) {
        self.at += self.random.within(least_ms, most_ms);
    }

    fn who(&mut self) -> Who {
        *self.random.pick(&[Who::Primary, Who::Secondary])
    }

    fn kill(&mut self, who: Who) {
        let is_power_cut = self.random.chance(500);
        let back_ms = *self.random.pick(&[1, 100, 1500, 2500, 6000, 15_000]);
        self.now(Fault::Kill { who, is_power_cut, back_ms });
    }

    fn cut(&mut self, from_primary: bool, from_secondary: bool) {
        self.now(Fault::Cut { from_primary, from_secondary });
    }

    fn switch(&mut self) {
        self.now(Fault::Command { who: Who::Primary, command: Command::Switch });
    }

    fn add_case(&mut self, case: Case) {
        match case {
            Case::KillPrimary => self.kill(Who::Primary),
            Case::KillSecondary => self.kill(Who::Secondary),
            Case::KillInSwitch => self.kill_in_switch(),
            Case::Partition => self.partition(),
            Case::OneWay => self.one_way(),
            Case::LateWitness => self.late_witness(),
            Case::LateChange => self.late_change(),
            Case::FrailWitness => self.frail_witness(),
            Case::RestoredWitness => self.restored_witness(),
            Case::StalledWitness => {
                self.now(Fault::WitnessDown(true));
                self.pause(1_000, 30_000);
                self.now(Fault::WitnessDown(false));
            }
            Case::Flapping => self.flap(),
            Case::StalePrimary => self.stale_primary(),
            Case::Stop => {
                let who = if self.random.chance(800) { Who::Primary } else { Who::Secondary };
                let ms = *self.random.pick(&[1_900, 3_000, 10_000]);
                self.now(Fault::Stop { who, ms });
                self.pause(500, ms + 3_000);
            }
            Case::Clocks => {
                let part = *self.random.pick(&[Case::Partition, Case::Stop, Case::OneWay, Case::KillInSwitch]);
                self.add_case(part);
            }
            Case::Double => self.double(),
            Case::Rejoin => {
                let back_ms = self.random.within(3_000, 15_000);
                self.now(Fault::Kill { who: Who::Secondary, is_power_cut: false, back_ms });
                self.pause(back_ms, back_ms + 2_000);
                self.kill(Who::Primary);
            }
            Case::StaleSite => self.stale_site(),
            Case::Disks => self.disks(),
            Case::Mixed | Case::Strict | Case::Confirm => self.mixed(),
            Case::Calm => self.pause(5_000, 20_000),
        }
    }

    /// Either site is killed or stopped at any step; the link or the witness may go, too.
    fn kill_in_switch(&mut self) {
        self.switch();
        self.at += self.random.within(0, 60);
        let who = self.who();
        match self.random.below(5) {
            0 | 1 => self.kill(who),
            2 => self.now(Fault::Stop { who, ms: 10_000 }),
            3 => {
                self.cut(true, true);
                self.pause(100, 6_000);
                self.now(Fault::Mend);
            }
            _ => {
                self.now(Fault::WitnessDown(true));
                self.pause(100, 8_000);
                self.now(Fault::WitnessDown(false));
            }
        }
    }

    fn partition(&mut self) {
        let is_preferred = self.who();
        self.now(Fault::Preferred(is_preferred));
        let who = self.who();
        let sees = self.random.below(3);
        match sees {
            0 => {}
            1 => self.now(Fault::WitnessCut { who, is_cut: true }),
            _ => self.now(Fault::WitnessDown(true)),
        }
        self.at += self.random.within(0, 50);
        self.cut(true, true);
        // Sometimes longer than writes are held.
        let most = *self.random.pick(&[3_000, 12_000, 12_000, 40_000]);
        self.pause(500, most);
        if self.random.chance(300) {
            self.kill(who);
        }
        self.now(Fault::Mend);
        self.pause(0, 3_000);
        self.now(Fault::WitnessDown(false));
        self.now(Fault::WitnessCut { who, is_cut: false });
    }

    fn one_way(&mut self) {
        let is_preferred = self.who();
        self.now(Fault::Preferred(is_preferred));
        let from_primary = self.random.chance(500);
        let is_witness_cut = self.random.chance(300);
        if is_witness_cut {
            let who = self.who();
            self.now(Fault::WitnessCut { who, is_cut: true });
        }
        self.cut(from_primary, !from_primary);
        self.pause(500, 10_000);
        self.now(Fault::Mend);
        self.now(Fault::WitnessCut { who: Who::Primary, is_cut: false });
    }

    fn late_witness(&mut self) {
        self.now(Fault::WitnessSlow(true));
        self.at += self.random.within(0, 4_000);
        for _ in 0..self.random.within(1, 4) {
            let who = self.who();
            match self.random.below(5) {
                0 => self.kill(who),
                1 => self.switch(),
                2 => self.now(Fault::Stop { who, ms: 3_000 }),
                _ => {
                    let most = self.random.within(1_000, 9_000);
                    self.cut(true, true);
                    self.pause(500, most);
                    self.now(Fault::Mend);
                }
            }
            self.pause(500, 9_000);
        }
        if self.random.chance(500) {
            self.now(Fault::WitnessDown(true));
            self.pause(500, 5_000);
            self.now(Fault::WitnessDown(false));
        }
        self.now(Fault::WitnessSlow(false));
    }

    fn late_change(&mut self) {
        if self.random.chance(300) {
            return self.late_join();
        }
        self.now(Fault::WitnessCut { who: Who::Primary, is_cut: true });
        self.now(Fault::WitnessHolds(true));
        self.cut(true, true);
        self.pause(2_050, 3_000);
        self.now(Fault::Mend);
        self.pause(1_000, 4_000);
        self.cut(true, true);
        self.pause(0, 400);
        self.now(Fault::WitnessHolds(false));
        self.pause(1_000, 5_000);
        self.now(Fault::WitnessCut { who: Who::Primary, is_cut: false });
        self.now(Fault::Mend);
    }

    fn late_join(&mut self) {
        self.cut(true, true);
        self.pause(2_500, 4_000);
        self.now(Fault::Mend);
        self.now(Fault::WitnessHolds(true));
        self.pause(1_200, 5_000);
        self.cut(true, true);
        self.pause(2_200, 6_000);
        self.now(Fault::WitnessHolds(false));
        self.pause(1_000, 5_000);
        self.now(Fault::Mend);
    }

    fn frail_witness(&mut self) {
        self.now(Fault::WitnessFrail(true));
        // Long enough for the pre-election, or not.
        self.pause(100, 9_000);
        self.cut(true, true);
        self.pause(500, 12_000);
        let who = self.who();
        match self.random.below(4) {
            // It comes back, for one site alone.
            0 => {
                self.now(Fault::WitnessCut { who, is_cut: true });
                self.now(Fault::WitnessFrail(false));
            }
            1 => self.kill(who),
            _ => {}
        }
        self.pause(500, 6_000);
        self.now(Fault::Mend);
        self.pause(0, 4_000);
        self.now(Fault::WitnessCut { who, is_cut: false });
        self.now(Fault::WitnessFrail(false));
    }

    /// An operator rebuilds it, once both sites are linked.
    fn restored_witness(&mut self) {
        if self.random.chance(700) {
            self.switch();
            self.pause(500, 3_000);
        }
        if self.random.chance(500) {
            self.cut(true, true);
            self.pause(2_500, 6_000);
            self.now(Fault::Mend);
            self.pause(2_500, 5_000);
        }
        let changes = self.random.within(1, 4) as usize;
        self.now(Fault::WitnessRestored(changes));
        if self.random.chance(300) {
            self.now(Fault::Kill { who: Who::Secondary, is_power_cut: false, back_ms: 20_000 });
            self.pause(6_000, 9_000);
            self.rebuild(true);
            self.pause(21_000, 24_000);
        }
        self.pause(0, 6_000);
        if self.random.chance(500) {
            self.cut(true, true);
            self.pause(500, 6_000);
            self.now(Fault::Mend);
        }
        self.pause(6_000, 9_000);
        self.rebuild(false);
        self.pause(6_000, 9_000);
    }

    /// To both sites: the one that is not primary does nothing.
    fn rebuild(&mut self, without_peer: bool) {
        for who in [Who::Primary, Who::Secondary] {
            self.now(Fault::Command { who, command: Command::Rebuild { without_peer } });
        }
    }

    fn flap(&mut self) {
        for _ in 0..self.random.within(4, 20) {
            self.cut(true, true);
            self.pause(2_500, 3_500);
            self.now(Fault::Mend);
            self.pause(500, 1_500);
        }
    }

    fn stale_primary(&mut self) {
        let back_ms = *self.random.pick(&[1_000, 6_000, 60_000]);
        let is_power_cut = self.random.chance(500);
        if self.random.chance(300) {
            return self.old_connection();
        }
        if self.random.chance(300) {
            // Out of sync first, so that only force helps.
            self.now(Fault::Kill { who: Who::Secondary, is_power_cut: false, back_ms: 8_000 });
            self.pause(5_000, 7_900);
            self.now(Fault::Kill { who: Who::Primary, is_power_cut, back_ms: 60_000 });
            self.pause(9_000, 12_000);
            self.now(Fault::Command { who: Who::Secondary, command: Command::Force });
        } else if self.random.chance(500) {
            self.cut(true, true);
            self.at += self.random.within(0, 500);
            self.now(Fault::Kill { who: Who::Primary, is_power_cut, back_ms });
            self.pause(3_000, 6_000);
            self.now(Fault::Mend);
        } else {
            self.now(Fault::Kill { who: Who::Primary, is_power_cut, back_ms });
        }
        self.pause(back_ms, back_ms + 4_000);
    }

    /// What a primary sent before it lost power arrives after it has begun anew, on a faster connection.
    fn old_connection(&mut self) {
        let ms = self.random.within(100, 400);
        self.now(Fault::LinkDelay(ms));
        self.pause(1_000, 2_000);
        self.now(Fault::Kill { who: Who::Primary, is_power_cut: true, back_ms: 1 });
        self.now(Fault::LinkDelay(0));
    }

    fn double(&mut self) {
        match self.random.below(4) {
            0 => {
                let back_ms = [self.random.within(100, 9_000), self.random.within(100, 9_000)];
                self.now(Fault::PowerCutBoth { back_ms });
            }
            1 => {
                self.kill(Who::Primary);
                self.at += self.random.within(0, 3_000);
                self.kill(Who::Secondary);
                self.pause(0, 5_000);
                self.kill(Who::Primary);
            }
            2 => {
                self.kill(Who::Secondary);
                self.pause(0, 4_000);
                self.kill(Who::Primary);
            }
            _ => {
                self.kill(Who::Primary);
                self.at += self.random.within(0, 3_000);
                self.now(Fault::WitnessDown(true));
                self.pause(1_000, 9_000);
                self.now(Fault::WitnessDown(false));
            }
        }
    }

    fn stale_site(&mut self) {
        self.now(Fault::Kill { who: Who::Secondary, is_power_cut: self.at.is_multiple_of(2), back_ms: 6_000 });
        self.pause(3_500, 5_900);
        self.now(Fault::Kill { who: Who::Primary, is_power_cut: self.at.is_multiple_of(3), back_ms: 15_000 });
        self.pause(15_000, 20_000);
    }

    fn disks(&mut self) {
        match self.random.below(4) {
            0 => {
                self.now(Fault::PeerSlow(true));
                self.pause(1_000, 9_000);
                self.now(Fault::PeerSlow(false));
            }
            1 => {
                self.now(Fault::LinkDelay(200));
                self.pause(2_000, 9_000);
                self.now(Fault::LinkDelay(0));
            }
            _ => {
                let who = self.who();
                let state = *self.random.pick(&[DiskState::Full, DiskState::Failing, DiskState::Slow]);
                self.now(Fault::Disk { who, state });
                self.pause(1_000, 9_000);
                self.now(Fault::Disk { who, state: DiskState::Good });
            }
        }
    }

    fn mixed(&mut self) {
        for _ in 0..self.random.within(2, 8) {
            let who = self.who();
            match self.random.below(14) {
                0 | 1 => self.kill(who),
                2 => self.now(Fault::Stop { who, ms: 10_000 }),
                3 => self.cut(true, true),
                4 => self.one_way(),
                5 => self.now(Fault::Mend),
                6 | 7 => self.switch(),
                8 => self.kill_in_switch(),
                9 => self.disks(),
                10 => self.now(Fault::Reset),
                11 => self.frail_witness(),
                12 => self.late_witness(),
                _ => self.partition(),
            }
            self.pause(10, 8_000);
        }
        self.now(Fault::Mend);
    }
}
