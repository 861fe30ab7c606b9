//! What goes wrong, and when.

use super::clients::Request;
use super::{Happening, MILLISECOND, Next, Pair};
use crate::mirror::faults::Who;
use crate::mirror::site::PromiseFile;
use crate::random::Random;
use crate::twins::site::Faults;
use replication::seat::Event;
use replication::{Command, DiskState, Reads};

/// How a world is, and what happens to it.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) is_durable: bool,
    pub(super) reads: Reads,
    /// How fast clocks go, in thousandths.
    pub(super) rates: [u64; 2],
    pub(super) delay_us: u64,
    /// Bytes of batches that may be on the way.
    pub(super) window: u64,
    pub(super) small_refused: u32,
    /// Where fewer slots are free, what is dead leaves: a log that is far behind cannot be brought up to date then.
    pub(super) slots_wanted: u32,
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) end: u64,
}

/// What happens to a world.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The process ends, and starts again after a while; with the machine's power, where that excuses nothing.
    Kill { who: Who, is_power_cut: bool, back_ms: u64 },
    /// Both at once.
    KillBoth { is_power_cut: bool, back_ms: [u64; 2] },
    /// The process is stopped for a while.
    Stop { who: Who, ms: u64 },
    /// Nothing arrives from the primary, from the secondary, for a while.
    Cut { from_primary: bool, from_secondary: bool },
    /// A site hears nobody, neither the other one nor the witness; then it does again.
    Isolate { who: Who },
    /// The link is as before, and the witness hears everybody.
    Mend,
    /// A life of the link ends, and the next one begins.
    Reset,
    /// The link takes longer from now on.
    Delay { us: u64 },
    /// The witness does not answer, or slowly, or one of the sites, for a while.
    Witness { is_down: bool, cut: Option<Who>, is_slow: bool, is_frail: bool },
    /// Appends of a thousand fail.
    Appends { who: Who, per_mille: u32 },
    /// The disk is full, or not any more.
    Full { who: Who, is_full: bool },
    /// The next sync fails; the process ends a while later, and what the sync lost is gone.
    Sync { who: Who, back_ms: u64 },
    /// The disk is lost with all that is on it, and another one takes its place, where the other site has all that counts.
    LoseDisk { who: Who, back_ms: u64 },
    /// A planned switch.
    Switch,
}

impl Plan {
    pub(super) fn new(random: &mut Random) -> Self {
        let is_durable = random.chance(500);
        let rate = |random: &mut Random| random.within(950, 1050);
        let mut plan = Self {
            is_durable,
            reads: if random.chance(300) { Reads::Confirm } else { Reads::Lease },
            rates: [rate(random), rate(random)],
            delay_us: *random.pick(&[100, 1000, 8000]),
            window: *random.pick(&[16 << 10, 64 << 10, 1 << 20]),
            small_refused: *random.pick(&[0, 0, 20]),
            slots_wanted: *random.pick(&[100, 100, 350]),
            faults: Vec::new(),
            end: 0,
        };
        let mut at = 3000 * MILLISECOND;
        for _ in 0..random.within(1, 7) {
            at += random.within(1, 6000) * MILLISECOND;
            let (fault, after) = any_fault(random);
            plan.faults.push((at, fault));
            if let Some((wait_ms, undone)) = after {
                plan.faults.push((at + wait_ms * MILLISECOND, undone));
                if random.chance(500) {
                    at += wait_ms * MILLISECOND;
                }
            }
        }
        plan.end = at + random.within(1000, 6000) * MILLISECOND;
        plan
    }
}

impl Plan {
    /// Of a world in which the link is lost for about as long as a client waits, and slow once it is back: what is passed on then comes late.
    pub(super) fn late(random: &mut Random) -> Self {
        let mut plan = Self { faults: Vec::new(), slots_wanted: 100, small_refused: 0, ..Self::new(random) };
        let mut at = 5000 * MILLISECOND;
        for _ in 0..12 {
            plan.faults.push((at, Fault::Cut { from_primary: true, from_secondary: true }));
            at += random.within(2200, 3500) * MILLISECOND;
            plan.faults.push((at, Fault::Mend));
            plan.faults.push((at, Fault::Delay { us: random.within(300, 1500) * 1000 }));
            at += random.within(3000, 5000) * MILLISECOND;
            plan.faults.push((at, Fault::Delay { us: 500 }));
            at += random.within(4000, 8000) * MILLISECOND;
        }
        plan.end = at;
        plan
    }
}

fn any_who(random: &mut Random) -> Who {
    if random.chance(600) { Who::Primary } else { Who::Secondary }
}

/// A fault, and what ends it after how long.
fn any_fault(random: &mut Random) -> (Fault, Option<(u64, Fault)>) {
    let who = any_who(random);
    let is_power_cut = random.chance(400);
    let back_ms = *random.pick(&[20, 500, 3000, 12_000]);
    let ms = *random.pick(&[100, 1000, 2500, 5000, 12_000]);
    match random.below(15) {
        0 | 1 => (Fault::Kill { who, is_power_cut, back_ms }, None),
        2 => {
            let back_ms = [back_ms, *random.pick(&[20, 1000, 6000])];
            (Fault::KillBoth { is_power_cut, back_ms }, None)
        }
        3 => (Fault::Stop { who, ms: *random.pick(&[200, 1500, 3000, 10_000]) }, None),
        4 | 5 => {
            let (from_primary, from_secondary) = *random.pick(&[(true, true), (true, false), (false, true)]);
            (Fault::Cut { from_primary, from_secondary }, Some((ms, Fault::Mend)))
        }
        6 if random.chance(300) => (Fault::Reset, None),
        6 => (Fault::Isolate { who }, Some((ms, Fault::Mend))),
        7 => {
            let us = *random.pick(&[20_000, 150_000, 600_000]);
            (Fault::Delay { us }, Some((ms, Fault::Delay { us: 500 })))
        }
        8 => {
            let is_down = random.chance(300);
            let cut = random.chance(300).then_some(any_who(random));
            let (is_slow, is_frail) = (random.chance(400), random.chance(300));
            let well = Fault::Witness { is_down: false, cut: None, is_slow: false, is_frail: false };
            (Fault::Witness { is_down, cut, is_slow, is_frail }, Some((ms, well)))
        }
        9 => {
            let per_mille = *random.pick(&[20, 300, 1000]);
            (Fault::Appends { who, per_mille }, Some((ms, Fault::Appends { who, per_mille: 0 })))
        }
        10 => (Fault::Full { who, is_full: true }, Some((ms, Fault::Full { who, is_full: false }))),
        11 => (Fault::Sync { who, back_ms }, None),
        12 => (Fault::LoseDisk { who, back_ms }, None),
        _ => (Fault::Switch, None),
    }
}

impl Pair {
    pub(super) fn on_fault(&mut self, fault: Fault) {
        self.say(|| format!("-- {fault:?}"));
        match fault {
            Fault::Kill { who, is_power_cut, back_ms } => self.kill_one(self.index(who), is_power_cut, back_ms),
            Fault::KillBoth { is_power_cut, back_ms } => self.kill_both(is_power_cut, back_ms),
            Fault::Stop { who, ms } => {
                let node = self.index(who);
                self.nodes[node].stalled_until = self.time + ms * MILLISECOND;
                // The other side hears nothing for too long.
                if ms >= 2000 {
                    self.at(self.time + 2000 * MILLISECOND, Happening::Fault(Fault::Reset));
                }
            }
            Fault::Cut { from_primary, from_secondary } => {
                let primary = self.index(Who::Primary);
                let mut is_cut = [from_secondary; 2];
                is_cut[primary] = from_primary;
                self.cut_link(is_cut);
            }
            Fault::Isolate { who } => {
                let node = self.index(who);
                self.witness.is_cut = [false; 2];
                self.witness.is_cut[node] = true;
                self.cut_link([true; 2]);
            }
            Fault::Mend => {
                self.witness.is_cut = [false; 2];
                self.cut_link([false; 2]);
            }
            Fault::Reset => self.end_link(),
            Fault::Delay { us } => self.link.delay_us = us,
            Fault::Witness { is_down, cut, is_slow, is_frail } => {
                self.witness.is_down = is_down;
                self.witness.is_cut = [false; 2];
                if let Some(who) = cut {
                    let node = self.index(who);
                    self.witness.is_cut[node] = true;
                }
                self.witness.is_slow = is_slow;
                self.witness.is_frail = is_frail;
            }
            Fault::Appends { who, per_mille } => {
                let node = self.index(who);
                // Who fails is who is meant now: the other one may have been when it began.
                self.nodes.iter_mut().for_each(|node| node.site.faults.appends = 0);
                self.nodes[node].site.faults.appends = per_mille;
            }
            Fault::Full { who, is_full } => self.fill(self.index(who), is_full),
            Fault::Sync { who, back_ms } => {
                let node = self.index(who);
                if self.excuses_nothing(node) {
                    self.nodes[node].site.faults.is_sync_failing = true;
                    self.at(
                        self.time + 1500 * MILLISECOND,
                        Happening::Fault(Fault::Kill { who, is_power_cut: true, back_ms }),
                    );
                }
            }
            Fault::LoseDisk { who, back_ms } => self.lose_disk(self.index(who), back_ms),
            Fault::Switch => {
                let node = self.index(Who::Primary);
                let event = Event::Command(Command::Switch);
                self.node_at(self.time, node, Next::Seat(Box::new(event)));
            }
        }
    }

    /// The disk of `node` is full or not any more, and that of the other site is not.
    fn fill(&mut self, node: usize, is_full: bool) {
        for index in 0..2 {
            let is_full = is_full && index == node;
            self.nodes[index].site.faults.is_full = is_full;
            let disk = if is_full { DiskState::Full } else { DiskState::Good };
            self.node_at(self.time, index, Next::Seat(Box::new(Event::Disk(disk))));
        }
    }

    fn kill_one(&mut self, node: usize, is_power_cut: bool, back_ms: u64) {
        let needs_excuse = is_power_cut && !self.excuses_nothing(node);
        self.kill(node, is_power_cut, back_ms);
        if needs_excuse {
            self.excuse();
        }
    }

    fn lose_disk(&mut self, node: usize, back_ms: u64) {
        // Who makes a site anew asks the other one for the ids that are in its log.
        let rows = self.nodes[1 - node].site.segments();
        if !self.is_elsewhere(node) || self.nodes[node].seat.is_none() || rows.is_empty() {
            return;
        }
        self.kill(node, true, back_ms);
        let one = &mut self.nodes[node];
        one.file = PromiseFile::default();
        if let Err(finding) = one.site.replace(rows.last().copied(), &mut self.random) {
            self.find(finding.0);
        }
        self.nodes[node].site.die(false, &mut self.random);
    }

    fn kill_both(&mut self, is_power_cut: bool, back_ms: [u64; 2]) {
        for (node, back_ms) in back_ms.into_iter().enumerate() {
            self.kill(node, is_power_cut, back_ms);
        }
        if is_power_cut && !self.is_durable {
            self.excuse();
        }
    }

    fn index(&self, who: Who) -> usize {
        who.site(&self.witness)
    }

    /// What was not flushed may be lost with the power that was.
    fn excuse(&mut self) {
        if let Err(finding) = self.judge_history() {
            self.find(finding.0);
        }
        self.say(|| "excused".to_owned());
        self.outcome.excuses += 1;
        self.begin_history_anew();
    }

    /// Whether a power cut of this site may lose nothing that was answered: all of it is durable, or the other site has it.
    fn excuses_nothing(&self, node: usize) -> bool {
        self.is_durable || self.is_elsewhere(node)
    }

    /// Whether the other site has all that was answered.
    fn is_elsewhere(&self, node: usize) -> bool {
        let other = &self.nodes[1 - node];
        let Some(record) = self.witness.seen().map(|seen| seen.record) else { return false };
        let is_in_sync = record.partner.is_some() && !record.is_sole;
        let is_out = record.partner.is_none() && usize::from(record.primary.0 - 1) != node;
        !other.has_lost && !other.site.faults.is_sync_failing && (is_in_sync || is_out)
    }

    fn kill(&mut self, node: usize, is_power_cut: bool, back_ms: u64) {
        if self.nodes[node].seat.is_none() {
            return;
        }
        self.end_process(node);
        if is_power_cut {
            let one = &mut self.nodes[node];
            one.site.die(true, &mut self.random);
            one.boot += 1;
            one.has_lost = true;
            self.history.forget_unsure();
            // What it has shown and nobody has seen yet is asked for again.
            let is_content =
                |happening: &Happening| matches!(happening, Happening::Reply { answer: super::Answer::Content(_), .. });
            self.queue.retain(|_, happening| !is_content(happening));
            self.say(|| format!("site {} loses power", node + 1));
        }
        self.at(self.time + back_ms * MILLISECOND, Happening::Start(node));
    }

    /// The process ends: what is under way is done or not.
    pub(super) fn end_process(&mut self, node: usize) {
        self.say(|| format!("site {} ends", node + 1));
        let run = self.nodes[node].run;
        let keys: Vec<_> = self
            .queue
            .iter()
            .filter(|(_, what)| matches!(what, Happening::Node { node: at, run: of, .. } if *at == node && *of == run))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let Some(Happening::Node { next: Next::Promised(file), .. }) = self.queue.remove(&key) else { continue };
            if self.random.chance(500) {
                self.nodes[node].file = file;
            }
        }
        // Whoever waits notices that the connection is gone.
        let (free, tried) = self.nodes[node].lose_requests(self.time);
        for request in free {
            self.reply(request, super::Answer::Refused);
        }
        // A connection is given up for another site after five seconds.
        for Request { client, attempt, .. } in tried {
            let at = self.time + self.random.within(5000, 6000) * MILLISECOND;
            self.at(at, Happening::Client { client, attempt });
        }
        let one = &mut self.nodes[node];
        (one.seat, one.stalled_until, one.link_life) = (None, 0, None);
        one.run += 1;
        one.news.clear();
        one.site.die(false, &mut self.random);
        self.end_link();
    }

    /// Everything is well from now on.
    pub(super) fn heal(&mut self) {
        self.say(|| "-- all is well".to_owned());
        self.queue.retain(|_, happening| !matches!(happening, Happening::Fault(_)));
        self.link.delay_us = 500;
        (self.witness.is_down, self.witness.is_cut) = (false, [false; 2]);
        (self.witness.is_slow, self.witness.is_frail) = (false, false);
        self.cut_link([false; 2]);
        for node in 0..2 {
            let is_poisoned = self.nodes[node].site.volume.as_ref().is_some_and(|volume| volume.status().is_poisoned);
            if is_poisoned || self.nodes[node].site.faults.is_sync_failing {
                // What a sync has failed is gone: an operator has seen to the disk, and starts the daemon.
                self.kill_one(node, true, 100);
            }
            self.nodes[node].site.faults = Faults::default();
            self.node_at(self.time, node, Next::Seat(Box::new(Event::Disk(DiskState::Good))));
            self.at(self.time + 200 * MILLISECOND, Happening::Start(node));
        }
    }
}
