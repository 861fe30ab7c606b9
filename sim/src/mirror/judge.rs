//! The oracle.

use super::history::History;
use super::log::{Entry, Log};
use super::{Outcome, SERVED_WITHIN, World};
use replication::Record;
use units::{Epoch, Lsn};

/// What must be so.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// What clients saw.
    pub(super) history: History,
    /// All that was acknowledged or shown, in the log's order.
    committed: Vec<Entry>,
    /// How much of it was flushed.
    flushed: usize,
    /// The last epoch in which something was acknowledged, and by whom.
    last: (Epoch, usize),
    /// How long the log was of who began to lead last.
    start: usize,
    /// The epoch that each site leads in.
    led: [Epoch; 2],
    pub(super) answers: u64,
    pub(super) branches: u64,
    epochs: u64,
    moves: u64,
    excuses: u64,
}

impl Judge {
    pub(super) fn outcome(&self) -> Outcome {
        Outcome {
            answers: self.answers,
            epochs: self.epochs,
            moves: self.moves,
            branches: self.branches,
            excuses: self.excuses,
            trace: 0,
        }
    }

    /// Everything up to `lsn` was flushed.
    pub(super) fn flush(&mut self, lsn: Lsn) {
        self.flushed = self.flushed.max(lsn.0 as usize);
    }

    /// Takes in that `log` up to `lsn` counts from now on. Says whether that goes on from what counted before.
    fn extend(&mut self, log: &Log, lsn: Lsn) -> bool {
        let upto = (lsn.0 as usize).min(log.entries().len());
        if upto <= self.committed.len() {
            return log.shared_with(&self.committed) >= upto;
        }
        if !log.has_all_of(&self.committed) {
            return false;
        }
        self.committed.extend_from_slice(&log.entries()[self.committed.len()..upto]);
        true
    }
}

impl World {
    /// A site begins to lead.
    pub(super) fn on_lead(&mut self, site: usize, epoch: Epoch) {
        self.judge.led[site] = epoch;
        // Who was stopped goes on in an old epoch until it hears of the new one, and acknowledges nothing.
        let is_newest = self.witness.seen().is_some_and(|seen| seen.record.epoch <= epoch);
        if is_newest {
            self.judge.start = self.sites[site].log.entries().len();
        }
        if is_newest && !self.sites[site].log.has_all_of(&self.judge.committed) {
            let missing = self.judge.committed.len() - self.sites[site].log.shared_with(&self.judge.committed);
            self.find(format!(
                "P1: site {} leads epoch {epoch} and lacks the last {missing} operations that were acknowledged or shown",
                site + 1
            ));
        }
    }

    /// A site acknowledges its log up to `lsn`.
    ///
    /// In an older epoch than another one did, only what that one had when it began: a process that is stopped between an
    /// acknowledgement and its answer, or before it looks at one that has come, cannot do less harm, and this does none.
    pub(super) fn on_acknowledged(&mut self, site: usize, lsn: Lsn) {
        let epoch = self.judge.led[site];
        let (last, by) = self.judge.last;
        let is_late = epoch < last && lsn.0 as usize <= self.judge.start;
        if !is_late && epoch < last || epoch == last && by != site {
            let (site, by) = (site + 1, by + 1);
            self.find(format!("P4: site {site} acknowledges in epoch {epoch} after site {by} did in epoch {last}"));
        }
        self.judge.last = self.judge.last.max((epoch, site));
        if !self.judge.extend(&self.sites[site].log, lsn) {
            self.find(format!("P1: site {} acknowledges on a log without what was acknowledged before", site + 1));
        }
    }

    /// A site shows its log up to `lsn`; whether it may is told by what clients see.
    pub(super) fn on_shown(&mut self, site: usize, lsn: Lsn) {
        self.judge.extend(&self.sites[site].log, lsn);
    }

    /// The log of a site has grown.
    pub(super) fn on_up_to_date(&mut self, site: usize) {
        if self.sites[site].has_lost && self.sites[site].log.has_all_of(&self.judge.committed) {
            self.sites[site].has_lost = false;
        }
    }

    /// The witness has a new record.
    pub(super) fn on_record(&mut self, before: Option<Record>, record: Record) {
        self.judge.epochs += 1;
        let Some(before) = before else { return };
        let primary = usize::from(record.primary.0 - 1);
        if before.primary != record.primary {
            self.judge.moves += 1;
        }
        if before.lineage != record.lineage {
            // By an operator's word: what the other site alone has is lost with an excuse, and kept as a branch.
            let left = self.sites[primary].log.shared_with(&self.judge.committed);
            self.excuse(left);
        }
        let Some(partner) = record.partner.filter(|_| before.partner.is_none() || before.is_sole && !record.is_sole)
        else {
            return;
        };
        let partner = &self.sites[usize::from(partner.0 - 1)];
        if !partner.has_lost && !partner.log.has_all_of(&self.judge.committed) {
            self.find(format!("P1: site {} is in sync and lacks what was acknowledged", partner.config.me));
        }
    }

    /// A power cut took the end of a site's log. What no site in sync has any more is lost with an excuse, unless it was
    /// flushed.
    pub(super) fn on_lost(&mut self, site: usize) {
        self.sites[site].has_lost = true;
        let Some(record) = self.witness.seen().map(|seen| seen.record) else { return };
        let committed = &self.judge.committed;
        let in_sync = self.sites.iter().filter(|site| record.is_in_sync(site.config.me));
        let left = in_sync.map(|site| site.log.shared_with(committed)).max().unwrap_or_default();
        if left >= committed.len() {
            return;
        }
        if self.judge.flushed > left {
            self.find(format!("P1: a power cut of site {} took what had been flushed", site + 1));
        }
        self.excuse(left);
    }

    fn excuse(&mut self, left: usize) {
        if left >= self.judge.committed.len() {
            return;
        }
        self.say(|| format!("excused: {left} operations are left"));
        self.judge_history();
        self.judge.excuses += 1;
        self.judge.committed.truncate(left);
        self.judge.flushed = self.judge.flushed.min(left);
        self.begin_history_anew();
    }

    fn judge_history(&mut self) {
        if let Some(fault) = self.judge.history.fault() {
            self.find(fault);
        }
    }

    /// Every client has been served since the last fault; then they stop.
    pub(super) fn judge_service(&mut self) -> Result<(), crate::trace::Finding> {
        let is_waiting = |client: &super::Client| !client.is_reader && client.served_at < self.end_of_faults;
        let waiting = self.clients.iter().position(is_waiting);
        if let Some(client) = waiting {
            let roles = self.roles();
            let secs = SERVED_WITHIN.as_secs();
            self.find(format!("P6: client {client} was not served within {secs} s of the last fault: {roles}"));
        }
        for client in &mut self.clients {
            client.is_done = true;
        }
        self.finding.take().map_or(Ok(()), Err)
    }

    pub(super) fn judge_end(&mut self) -> Result<(), crate::trace::Finding> {
        if !self.is_equal() {
            let roles = self.roles();
            self.find(format!("P6: the sites are not in sync and equal long after the last fault: {roles}"));
        }
        self.judge_history();
        self.finding.take().map_or(Ok(()), Err)
    }

    /// Whether both sites are in sync and have the same log.
    pub(super) fn is_equal(&self) -> bool {
        let record = self.witness.seen().map(|seen| seen.record);
        let is_in_sync = record.is_some_and(|record| record.partner.is_some() && !record.is_sole);
        let [a, b] = &self.sites;
        let is_idle = self.clients.iter().all(super::Client::is_idle);
        is_in_sync && is_idle && a.log.last() == b.log.last() && a.log.has_all_of(&self.judge.committed)
    }

    fn roles(&self) -> String {
        let role = |site: &super::Site| {
            let role = site.process.as_ref().map(|process| process.member.role());
            let role = role.map_or_else(|| "is down".to_owned(), |role| role.to_string());
            format!("site {} {role}, log to {}", site.config.me, site.log.end())
        };
        let [a, b] = self.sites.each_ref().map(role);
        format!("{a}; {b}; record {:?}", self.witness.seen().map(|seen| seen.record))
    }
}
