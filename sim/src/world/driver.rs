//! What volumes want done on the disk: carried out late, in any order, and sometimes wrongly.

use super::{Checked, Happening, World};
use crate::census::Fault;
use crate::disk::WriteNumber;
use crate::pattern::SECTOR_LEN;
use crate::trace::Finding;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use units::BLOCK_BYTES;
use volume::buffer::Buffer;
use volume::error::DiskFault;
use volume::format::{POOL_DATA_OFFSET, SlotHeader, SlotUse};
use volume::io::{Action, Event, FetchPiece, IoId};

/// Whose a request of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Site(usize),
    Compactor,
}

impl Owner {
    fn site(self) -> Checked<usize> {
        match self {
            Self::Site(site) => Ok(site),
            Self::Compactor => Err(Finding("the compactor asks for what only a volume may".to_owned())),
        }
    }
}

/// What someone has under way on the disk.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    appends: BTreeMap<IoId, Append>,
    fetches: BTreeMap<IoId, Fetch>,
    syncs: BTreeMap<IoId, Sync>,
}

impl Transfers {
    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty() && self.fetches.is_empty() && self.syncs.is_empty()
    }

    pub(super) fn is_appending(&self) -> bool {
        !self.appends.is_empty()
    }

    pub(super) fn is_syncing(&self) -> bool {
        !self.syncs.is_empty()
    }

    /// The appends that were under way when the process ended.
    pub(super) fn take_appends(&mut self) -> Vec<Append> {
        std::mem::take(&mut self.appends).into_values().collect()
    }
}

/// An append under way.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) pool_offset: u64,
    pub(super) buffers: Vec<Buffer>,
    /// Set once the disk is done with it.
    pub(super) landed: Option<(Option<WriteNumber>, Result<(), DiskFault>)>,
}

/// A fetch under way.
#[derive(Debug)]
pub(super) struct Fetch {
    buffer: Buffer,
    pieces: SmallVec<[FetchPiece; 2]>,
    result: Result<(), DiskFault>,
    /// Whether it read bytes that are not what was written.
    is_tainted: bool,
}

/// A sync under way.
#[derive(Debug)]
pub(super) struct Sync {
    covered: BTreeSet<WriteNumber>,
    result: Result<(), DiskFault>,
}

/// A kind of request that fails every time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outage {
    Appends,
    HostSpace,
    Fetches,
    Syncs,
    Store,
}

impl World {
    pub(super) fn carry_out(&mut self, owner: Owner, actions: Vec<Action>) -> Checked {
        for action in actions {
            match action {
                Action::Append { id, pool_offset, buffers, to_peer: _ } => {
                    self.begin_append(owner, id, pool_offset, buffers)?;
                }
                Action::Fetch { id, buffer, pieces, .. } => self.begin_fetch(owner, id, buffer, pieces),
                Action::Sync { id } => self.begin_sync(owner, id),
                Action::Reply(reply) => self.take_reply(owner.site()?, reply)?,
                Action::Lease { .. } if owner == Owner::Compactor => self.lease_for_compactor()?,
                asked @ (Action::LoadPage { .. }
                | Action::LoadPlace { .. }
                | Action::LoadChanges { .. }
                | Action::WriteBack { .. }
                | Action::Lease { .. }
                | Action::LeaseFor { .. }
                | Action::SyncPeer { .. }
                | Action::TellPrimary(_)
                | Action::FellOut { .. }
                | Action::NoteSegment(_)
                | Action::NoteBoundary(_)
                | Action::NoteLoans { .. }
                | Action::Pledge { .. }
                | Action::Settle(_)
                | Action::Unpinned { .. }
                | Action::Release { .. }) => self.ask_store(owner.site()?, asked)?,
            }
        }
        Ok(())
    }

    fn transfers(&mut self, owner: Owner) -> &mut Transfers {
        match owner {
            Owner::Site(site) => &mut self.sites[site].transfers,
            Owner::Compactor => &mut self.compaction.transfers,
        }
    }

    fn tell(&mut self, owner: Owner, event: Event) -> Checked {
        match owner {
            Owner::Site(site) => self.tell_volume(site, event),
            Owner::Compactor => self.tell_compactor(event),
        }
    }

    fn begin_append(&mut self, owner: Owner, id: IoId, pool_offset: u64, buffers: Vec<Buffer>) -> Checked {
        let len: usize = buffers.iter().map(Buffer::len).sum();
        let slot_bytes = self.plan.geometry.slot_bytes;
        let within = pool_offset.checked_sub(POOL_DATA_OFFSET).map(|at| at % slot_bytes);
        if !pool_offset.is_multiple_of(BLOCK_BYTES) || within.is_none_or(|at| at + len as u64 > slot_bytes) || len == 0
        {
            return Err(Finding(format!("an append of {len} bytes at {pool_offset} leaves its slot")));
        }
        self.trace.note(&[1, self.now, id.0, pool_offset, len as u64]);
        self.trace.tell(|| format!("{owner:?}: append {} at {pool_offset:#x}, {len:#x} bytes", id.0));
        self.note_batch(owner, &buffers);
        self.transfers(owner).appends.insert(id, Append { pool_offset, buffers, landed: None });
        let delay = self.delay();
        self.after(delay, Happening::AppendLands(owner, id));
        Ok(())
    }

    /// The append reaches the page cache, or does not.
    pub(super) fn land_append(&mut self, owner: Owner, id: IoId) {
        let Some(append) = self.transfers(owner).appends.get(&id) else { return };
        let bytes: Vec<u8> = append.buffers.iter().flat_map(|buffer| buffer.as_slice()).copied().collect();
        let pool_offset = append.pool_offset;
        let landed = match self.append_fault() {
            Some(fault) => {
                self.note_append_fault(fault);
                let sectors = (bytes.len() / SECTOR_LEN) as u64;
                let kept = *self.random.pick(&[0, sectors, u64::MAX]);
                let kept = if kept == u64::MAX { self.random.below(sectors) } else { kept };
                let kept = kept as usize * SECTOR_LEN;
                (self.write_part(pool_offset, &bytes, kept), Err(fault))
            }
            None => (self.write_or_lie(pool_offset, bytes), Ok(())),
        };
        self.trace.tell(|| format!("{owner:?}: append {} lands: {:?}", id.0, landed.1));
        if let Some(append) = self.transfers(owner).appends.get_mut(&id) {
            append.landed = Some(landed);
        }
        let delay = self.delay();
        self.after(delay, Happening::AppendEnds(owner, id));
    }

    fn note_append_fault(&mut self, fault: DiskFault) {
        match fault {
            DiskFault::Io => {
                self.injected.disk += 1;
                self.note(Fault::AppendIo);
            }
            DiskFault::NoSpace => {
                self.injected.no_space += 1;
                self.note(Fault::AppendNoSpace);
            }
        }
    }

    fn append_fault(&mut self) -> Option<DiskFault> {
        match self.outage {
            Some(Outage::Appends) => return Some(DiskFault::Io),
            Some(Outage::HostSpace) => return Some(DiskFault::NoSpace),
            Some(Outage::Fetches | Outage::Syncs | Outage::Store) | None => {}
        }
        if self.random.chance(self.rates.append_io) {
            return Some(DiskFault::Io);
        }
        self.random.chance(self.rates.append_no_space).then_some(DiskFault::NoSpace)
    }

    /// Writes the first `kept` bytes.
    pub(super) fn write_part(&mut self, pool_offset: u64, bytes: &[u8], kept: usize) -> Option<WriteNumber> {
        (kept > 0).then(|| self.disk.write(pool_offset, bytes[..kept].to_vec()))
    }

    /// Writes, unless the disk only says so, or writes elsewhere.
    pub(super) fn write_or_lie(&mut self, pool_offset: u64, bytes: Vec<u8>) -> Option<WriteNumber> {
        let is_lost = self.random.chance(self.rates.lost);
        let is_misdirected = !is_lost && self.random.chance(self.rates.misdirected);
        if !(is_lost || is_misdirected) {
            return Some(self.disk.write(pool_offset, bytes));
        }
        self.injected.lies += 1;
        let is_void = SlotHeader::decode(&bytes).is_ok_and(|header| header.slot_use == SlotUse::Void);
        self.injected.lost_voids += u64::from(is_void);
        self.note(if is_lost { Fault::WriteLost } else { Fault::WriteMisdirected });
        let len = bytes.len();
        self.trace.tell(|| format!("the disk lies about {pool_offset:#x}: lost {is_lost}"));
        let number = is_misdirected.then(|| {
            let blocks = (self.disk.len() - POOL_DATA_OFFSET - len as u64) / BLOCK_BYTES;
            let elsewhere = POOL_DATA_OFFSET + self.random.below(blocks + 1) * BLOCK_BYTES;
            self.trace.tell(|| format!("... and writes to {elsewhere:#x}"));
            let number = self.disk.write(elsewhere, bytes);
            self.disk.note_damage(elsewhere, len);
            number
        });
        self.disk.note_damage(pool_offset, len);
        number
    }

    pub(super) fn end_append(&mut self, owner: Owner, id: IoId) -> Checked {
        let Some(append) = self.transfers(owner).appends.remove(&id) else { return Ok(()) };
        let (number, result) = append.landed.unwrap_or((None, Err(DiskFault::Io)));
        if let Some(number) = number {
            self.disk.end_write(number);
        }
        self.trace.note(&[2, self.now, id.0, u64::from(result.is_ok())]);
        self.trace.tell(|| format!("{owner:?}: append {} ends: {result:?}", id.0));
        self.tell(owner, Event::Appended { id, buffers: append.buffers, result })
    }

    fn begin_fetch(&mut self, owner: Owner, id: IoId, buffer: Buffer, pieces: SmallVec<[FetchPiece; 2]>) {
        self.trace.note(&[3, self.now, id.0, pieces.len() as u64]);
        self.trace.tell(|| format!("{owner:?}: fetch {:x} of {pieces:x?}", id.0));
        self.transfers(owner).fetches.insert(id, Fetch { buffer, pieces, result: Ok(()), is_tainted: false });
        let delay = if matches!(owner, Owner::Site(_)) { self.delay_of_read() } else { self.delay() };
        self.after(delay, Happening::FetchReads(owner, id));
    }

    pub(super) fn read_fetch(&mut self, owner: Owner, id: IoId) {
        let fails = self.outage == Some(Outage::Fetches) || self.random.chance(self.rates.fetch_io);
        let delay = self.delay();
        let Some(mut fetch) = self.transfers(owner).fetches.remove(&id) else { return };
        if fails {
            self.injected.disk += 1;
            self.outcome.census.note(Fault::FetchIo);
            fetch.result = Err(DiskFault::Io);
        } else {
            for piece in &fetch.pieces {
                let place = &mut fetch.buffer.as_mut_slice()[piece.buffer_offset..piece.buffer_offset + piece.len];
                place.copy_from_slice(self.disk.bytes(piece.pool_offset, piece.len));
                fetch.is_tainted |= self.disk.is_damaged(piece.pool_offset, piece.len);
            }
        }
        self.injected.tainted += u64::from(fetch.is_tainted);
        self.transfers(owner).fetches.insert(id, fetch);
        self.after(delay, Happening::FetchEnds(owner, id));
    }

    pub(super) fn end_fetch(&mut self, owner: Owner, id: IoId) -> Checked {
        let Some(fetch) = self.transfers(owner).fetches.remove(&id) else { return Ok(()) };
        self.trace.note(&[4, self.now, id.0, u64::from(fetch.result.is_ok())]);
        self.excuse.corrupt = fetch.is_tainted;
        self.excuse.unavailable = fetch.result.is_err();
        let told = self.tell(owner, Event::Fetched { id, buffer: fetch.buffer, result: fetch.result });
        self.excuse = super::answers::Excuse::default();
        told
    }

    fn begin_sync(&mut self, owner: Owner, id: IoId) {
        let covered = self.disk.begin_sync(&mut self.random);
        self.trace.note(&[5, self.now, id.0, covered.len() as u64]);
        self.trace.tell(|| format!("{owner:?}: sync {} of {} writes", id.0, covered.len()));
        self.transfers(owner).syncs.insert(id, Sync { covered, result: Ok(()) });
        let delay = self.delay();
        self.after(delay, Happening::SyncLands(owner, id));
    }

    pub(super) fn land_sync(&mut self, owner: Owner, id: IoId) {
        // A failed sync is told to everyone who has the pool open, once: the driver has to tell all its volumes, and
        // every later one too (P1).
        let fails =
            self.injected.syncs > 0 || self.outage == Some(Outage::Syncs) || self.random.chance(self.rates.sync_io);
        let delay = self.delay();
        let Some(mut sync) = self.transfers(owner).syncs.remove(&id) else { return };
        if fails {
            sync.result = Err(DiskFault::Io);
            self.disk.fail_sync(&sync.covered, &mut self.random);
            self.injected.syncs += 1;
            self.outcome.census.note(Fault::SyncIo);
            self.loss = self.loss.max(crate::oracle::Loss::Unflushed);
        } else if self.broken != super::Broken::FlushBarrier {
            self.disk.end_sync(&sync.covered);
        }
        self.trace.tell(|| format!("{owner:?}: sync {} lands, fails: {fails}", id.0));
        self.transfers(owner).syncs.insert(id, sync);
        self.after(delay, Happening::SyncEnds(owner, id));
    }

    pub(super) fn end_sync(&mut self, owner: Owner, id: IoId) -> Checked {
        let Some(sync) = self.transfers(owner).syncs.remove(&id) else { return Ok(()) };
        self.trace.note(&[6, self.now, id.0, u64::from(sync.result.is_ok())]);
        self.tell(owner, Event::Synced { id, result: sync.result })
    }
}
