//! The clients: each keeps so many requests under way, and asks the next one some time after an answer.

use super::{Checked, Happening, MS, World};
use crate::oracle::{Expectation, Moment, OpId, Step};
use crate::pattern::{self, SECTOR_LEN, Stamp};
use crate::trace::Finding;
use crate::workload::{Wish, next_look, next_wish};
use std::ops::Range;
use units::{ByteRange, SECTOR_BYTES, SnapshotId};
use volume::io::Event;
use volume::request::{PIECE_BYTES_MAX, Payload, Reply, Request, RequestId};

/// A request under way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) wish: Wish,
    pub(super) started: Step,
    /// What it changes.
    pub(super) op: Option<OpId>,
    /// Whether it may be refused for its place, and may be served.
    pub(super) may_be: (bool, bool),
    /// Of a compare-and-write: what it expects, but for the byte that is wrong on purpose.
    pub(super) expected: Option<Expectation>,
    /// Of an or-write: whether it sets bits.
    pub(super) sets_bits: bool,
    /// Of a resize: whether there was data in what it cuts off.
    pub(super) had_data: bool,
    /// Of a snapshot: what it may show is known by then.
    pub(super) moment: Option<Moment>,
    /// Whether the world waits for it, not a client.
    pub(super) is_waited: bool,
    /// Whether no client waits for it, nor anybody else.
    pub(super) is_apart: bool,
}

/// A request that is about to be given to a volume, and what [`Asked`] is to know of it.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) request: Request,
    pub(super) op: Option<OpId>,
    pub(super) expected: Option<Expectation>,
    pub(super) sets_bits: bool,
    pub(super) had_data: bool,
}

impl Begun {
    pub(super) const fn new(request: Request, op: Option<OpId>) -> Self {
        Self { request, op, expected: None, sets_bits: false, had_data: false }
    }
}

/// Happenings without an answer after which something hangs.
const PATIENCE: u64 = 400_000;

impl World {
    /// Lets the clients ask `requests` in all.
    pub(super) fn open_clients(&mut self, requests: u64) {
        self.requests_left = requests;
        self.is_open = true;
        for site in 0..self.sites.len() {
            for _ in 0..self.plan.volumes[site].depth {
                let wait = self.random.below(5 * MS);
                self.after(wait, Happening::Client(site));
            }
        }
    }

    pub(super) fn ask_next(&mut self, site: usize) -> Checked {
        if !self.is_open || self.requests_left == 0 || !self.takes_clients(site) {
            return Ok(());
        }
        self.requests_left -= 1;
        self.draw_mishaps();
        if self.plan.families > 0 && self.random.chance(self.plan.families) && self.act_on_families(site)? {
            return Ok(());
        }
        // Its view may have been closed.
        if self.sites[site].volume.is_none() {
            return Ok(());
        }
        let size_bytes = self.sites[site].oracle.size_bytes();
        if self.sites[site].is_view {
            let wish = next_look(&self.plan, site, &mut self.random);
            return self.ask(site, wish, false).map(|_| ());
        }
        let mut wish = next_wish(&self.plan, site, size_bytes, &mut self.random);
        if self.is_set_meanwhile(site, &wish) {
            wish = Wish::Flush;
        }
        self.ask(site, wish, false).map(|_| ())
    }

    pub(super) fn ask(&mut self, site: usize, wish: Wish, is_waited: bool) -> Checked<RequestId> {
        let started = self.next_step();
        let id = RequestId(self.sites[site].next_request);
        self.sites[site].next_request += 1;
        self.trace.note(&[10, self.now, id.0]);
        self.trace.tell(|| format!("[{started}] {site}: asks {}: {wish:?}", id.0));
        let Begun { request, op, expected, sets_bits, had_data } = self.begin(site, &wish, started);
        let is_apart = matches!(wish, Wish::Borrow { .. });
        // A copy of which nobody could tell what comes of it.
        let is_other = wish.changed().is_some() || matches!(wish, Wish::Lend { .. });
        let wish = if matches!(request, Request::Flush) && is_other { Wish::Flush } else { wish };
        let may_be = self.sites[site].oracle.judge_end(end_of(&wish));
        let moment = matches!(wish, Wish::Snapshot(_)).then(|| self.sites[site].oracle.moment(started));
        let asked = Asked { wish, started, op, may_be, expected, sets_bits, had_data, moment, is_waited, is_apart };
        self.sites[site].asked.insert(id, asked);
        self.tell_volume(site, Event::Request { id, request })?;
        Ok(id)
    }

    /// Whether an or-write under way sets bits where a wish changes something, or a copy is of that: what comes of both, the
    /// oracle cannot tell.
    pub(super) fn is_set_meanwhile(&self, site: usize, wish: &Wish) -> bool {
        let Some(changed) = wish.changed() else { return false };
        let kept = |asked: &Asked| {
            if let Wish::Copy { source, .. } | Wish::Lend { source, .. } = &asked.wish {
                return Some(source.clone());
            }
            asked.wish.changed().filter(|_| asked.sets_bits)
        };
        let mut set = self.sites[site].asked.values().filter_map(kept);
        set.any(|set| set.start < changed.end && changed.start < set.end)
    }

    /// Makes the request and tells the oracle.
    fn begin(&mut self, site: usize, wish: &Wish, started: Step) -> Begun {
        let oracle = &mut self.sites[site].oracle;
        match wish.clone() {
            Wish::CompareAndWrite { sectors, is_fua, wrong_at } => {
                self.begin_compare(site, (sectors, is_fua), wrong_at, started)
            }
            Wish::OrWrite { sectors, is_fua, sets } => self.begin_or(site, (sectors, is_fua), sets, started),
            Wish::Copy { source, target, is_fua } => self.begin_copy(site, (source, target, is_fua), started),
            Wish::Lend { source, .. } => self.begin_lend(site, &source, started),
            Wish::Borrow { target } => self.begin_borrow(site, &target, started),
            Wish::Read(sectors) => Begun::new(Request::Read { range: bytes_of(&sectors) }, None),
            Wish::Write { sectors, is_fua } => {
                let (op, stamp) = oracle.begin_write(sectors.clone(), is_fua, started);
                let payload = self.payload(stamp, &sectors);
                Begun::new(Request::Write { range: bytes_of(&sectors), payload, fua: is_fua }, Some(op))
            }
            Wish::Zero { sectors, is_fua, is_write_zeroes } => {
                let op = oracle.begin_zero(sectors.clone(), is_fua, started);
                let (range, fua) = (bytes_of(&sectors), is_fua);
                let request =
                    if is_write_zeroes { Request::WriteZeroes { range, fua } } else { Request::Trim { range, fua } };
                Begun::new(request, Some(op))
            }
            Wish::Flush | Wish::FlushFor(_) => Begun::new(Request::Flush, None),
            Wish::Snapshot(id) => Begun::new(Request::Snapshot { id: SnapshotId(id.0) }, None),
            Wish::Cache(sectors) => Begun::new(Request::Cache { range: bytes_of(&sectors) }, None),
            Wish::Extents(sectors, extents_max) => {
                Begun::new(Request::Extents { range: bytes_of(&sectors), extents_max }, None)
            }
            Wish::Resize { size_bytes, discard_tail } => {
                let tail = size_bytes / SECTOR_BYTES..u64::MAX;
                let had_data = oracle.has_data(tail.clone(), started);
                oracle.begin_resize(size_bytes);
                let op = oracle.begin_zero(tail, true, started);
                Begun { had_data, ..Begun::new(Request::Resize { size_bytes, discard_tail }, Some(op)) }
            }
            Wish::Checkpoint => Begun::new(Request::Checkpoint, None),
            Wish::Meter => Begun::new(Request::Meter, None),
            Wish::Hold => Begun::new(Request::Hold, None),
            Wish::Release => Begun::new(Request::Release, None),
        }
    }

    pub(super) fn payload(&mut self, stamp: Stamp, sectors: &Range<u64>) -> Payload {
        let mut payload = Payload::new();
        let mut at = sectors.start;
        while at < sectors.end {
            let count = (sectors.end - at).min((PIECE_BYTES_MAX / SECTOR_LEN) as u64);
            let mut piece = self.buffers.take(count as usize * SECTOR_LEN);
            pattern::fill(stamp, at, piece.as_mut_slice());
            payload.push(piece);
            at += count;
        }
        payload
    }

    /// Asks, and lets the world go on until the answer.
    pub(super) fn ask_and_wait(&mut self, site: usize, wish: Wish) -> Checked<Reply> {
        let what = format!("{wish:?}");
        let id = self.ask(site, wish, true)?;
        for _ in 0..PATIENCE {
            if let Some(reply) = self.sites[site].answered.remove(&id) {
                return Ok(reply);
            }
            self.advance()?;
        }
        Err(Finding(format!("no answer to {what} of volume {}", self.sites[site].id)))
    }

    /// Whether the clients have asked all and nothing is under way.
    pub(super) fn is_at_rest(&self) -> bool {
        let is_done = self.requests_left == 0 || !(0..self.sites.len()).any(|at| self.takes_clients(at));
        // What a volume tries again and again while a kind of request fails is no unrest.
        let is_idle = |site: &super::Site| site.is_idle() || (self.outage.is_some() && site.asked.is_empty());
        let is_compaction_idle = self.compaction.is_idle(self.index.as_ref()) || self.outage.is_some();
        let has_all = (self.families.waiting.is_empty() && self.is_catalogue_at_rest()) || self.outage.is_some();
        is_done && has_all && self.jobs.is_empty() && is_compaction_idle && self.sites.iter().all(is_idle)
    }

    /// Lets the world go on until nothing is under way for one volume.
    pub(super) fn come_to_rest_of(&mut self, site: usize) -> Checked {
        for _ in 0..PATIENCE {
            if self.sites[site].is_idle() {
                return Ok(());
            }
            self.advance()?;
        }
        Err(Finding(format!("no rest of volume {}", self.sites[site].id)))
    }

    /// Lets the world go on until nothing is under way.
    pub(super) fn come_to_rest(&mut self) -> Checked {
        for _ in 0..PATIENCE {
            if self.is_at_rest() {
                return Ok(());
            }
            self.advance()?;
        }
        let busy: Vec<_> =
            self.sites.iter().filter(|site| !site.is_idle()).map(|site| (site.id, &site.asked)).collect();
        Err(Finding(format!("no rest: {} requests left, {} jobs, {busy:?}", self.requests_left, self.jobs.len())))
    }
}

fn end_of(wish: &Wish) -> u64 {
    match wish {
        Wish::Read(sectors) | Wish::Cache(sectors) | Wish::Extents(sectors, _) => sectors.end * SECTOR_BYTES,
        Wish::Write { sectors, .. } | Wish::Zero { sectors, .. } => sectors.end * SECTOR_BYTES,
        Wish::Copy { source, target, .. } => source.end.max(target.end) * SECTOR_BYTES,
        Wish::Lend { source, .. } => source.end * SECTOR_BYTES,
        Wish::Borrow { target } => target.end * SECTOR_BYTES,
        Wish::CompareAndWrite { sectors, .. } | Wish::OrWrite { sectors, .. } => sectors.end * SECTOR_BYTES,
        Wish::Flush | Wish::Resize { .. } | Wish::Checkpoint | Wish::Snapshot(_) | Wish::FlushFor(_) => 0,
        Wish::Hold | Wish::Release | Wish::Meter => 0,
    }
}

pub(super) fn bytes_of(sectors: &Range<u64>) -> ByteRange {
    ByteRange::new(sectors.start * SECTOR_BYTES, (sectors.end - sectors.start) * SECTOR_BYTES).unwrap()
}
