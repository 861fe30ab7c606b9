//! The clients: each keeps so many requests under way, and asks the next one some time after an answer.

use super::{Checked, Happening, MS, World};
use crate::oracle::{Moment, OpId, Step};
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
    /// Of a resize: whether there was data in what it cuts off.
    pub(super) had_data: bool,
    /// Of a snapshot: what it may show is known by then.
    pub(super) moment: Option<Moment>,
    /// Whether the world waits for it, not a client.
    pub(super) is_waited: bool,
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
        let wish = next_wish(&self.plan, site, size_bytes, &mut self.random);
        self.ask(site, wish, false).map(|_| ())
    }

    pub(super) fn ask(&mut self, site: usize, wish: Wish, is_waited: bool) -> Checked<RequestId> {
        let started = self.next_step();
        let id = RequestId(self.sites[site].next_request);
        self.sites[site].next_request += 1;
        self.trace.note(&[10, self.now, id.0]);
        self.trace.tell(|| format!("[{started}] {site}: asks {}: {wish:?}", id.0));
        let may_be = self.sites[site].oracle.judge_end(end_of(&wish));
        let (request, op, had_data) = self.begin(site, &wish, started);
        let moment = matches!(wish, Wish::Snapshot(_)).then(|| self.sites[site].oracle.moment(started));
        let asked = Asked { wish, started, op, may_be, had_data, moment, is_waited };
        self.sites[site].asked.insert(id, asked);
        self.tell_volume(site, Event::Request { id, request })?;
        Ok(id)
    }

    /// Makes the request and tells the oracle.
    fn begin(&mut self, site: usize, wish: &Wish, started: Step) -> (Request, Option<OpId>, bool) {
        let oracle = &mut self.sites[site].oracle;
        match wish.clone() {
            Wish::Read(sectors) => (Request::Read { range: bytes_of(&sectors) }, None, false),
            Wish::Write { sectors, is_fua } => {
                let (op, stamp) = oracle.begin_write(sectors.clone(), is_fua, started);
                let payload = self.payload(stamp, &sectors);
                (Request::Write { range: bytes_of(&sectors), payload, fua: is_fua }, Some(op), false)
            }
            Wish::Zero { sectors, is_fua, is_write_zeroes } => {
                let op = oracle.begin_zero(sectors.clone(), is_fua, started);
                let (range, fua) = (bytes_of(&sectors), is_fua);
                let request =
                    if is_write_zeroes { Request::WriteZeroes { range, fua } } else { Request::Trim { range, fua } };
                (request, Some(op), false)
            }
            Wish::Flush | Wish::FlushFor(_) => (Request::Flush, None, false),
            Wish::Snapshot(id) => (Request::Snapshot { id: SnapshotId(id.0) }, None, false),
            Wish::Cache(sectors) => (Request::Cache { range: bytes_of(&sectors) }, None, false),
            Wish::Extents(sectors, extents_max) => {
                (Request::Extents { range: bytes_of(&sectors), extents_max }, None, false)
            }
            Wish::Resize { size_bytes, discard_tail } => {
                let tail = size_bytes / SECTOR_BYTES..u64::MAX;
                let had_data = oracle.has_data(tail.clone(), started);
                oracle.begin_resize(size_bytes);
                let op = oracle.begin_zero(tail, true, started);
                (Request::Resize { size_bytes, discard_tail }, Some(op), had_data)
            }
            Wish::Checkpoint => (Request::Checkpoint, None, false),
            Wish::Meter => (Request::Meter, None, false),
            Wish::Hold => (Request::Hold, None, false),
            Wish::Release => (Request::Release, None, false),
        }
    }

    fn payload(&mut self, stamp: Stamp, sectors: &Range<u64>) -> Payload {
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
        Wish::Flush | Wish::Resize { .. } | Wish::Checkpoint | Wish::Snapshot(_) | Wish::FlushFor(_) => 0,
        Wish::Hold | Wish::Release | Wish::Meter => 0,
    }
}

fn bytes_of(sectors: &Range<u64>) -> ByteRange {
    ByteRange::new(sectors.start * SECTOR_BYTES, (sectors.end - sectors.start) * SECTOR_BYTES).unwrap()
}
