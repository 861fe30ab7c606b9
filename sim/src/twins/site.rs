//! A site of the pair: a disk, an index, and the volume on them; what the volume wants is carried out with delays.

use crate::disk::{SimDisk, WriteNumber};
use crate::fuse::Fuse;
use crate::random::Random;
use crate::store::SimStore;
use crate::trace::Finding;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use units::{BLOCK_LEN, Lsn, PoolId, SegmentId, VolumeId};
use volume::buffer::{Buffer, total_len};
use volume::engine::{Volume, VolumeConfig};
use volume::error::DiskFault;
use volume::feed::{BatchEnd, Feed, FeedError};
use volume::format::{Geometry, SlotHeader, Superblock};
use volume::io::{Action, Event, FetchPiece, IoId, ToPeer};
use volume::parting::{Stretch, stretches};
use volume::pool::{Index, LeaseClass, SegmentRow};
use volume::recover::{self, Damage, Recovered, Terms};
use volume::store::{Durability, Store};

/// The volume that both sites have.
pub(crate) const VOLUME: VolumeId = VolumeId(3);

/// Its size, which every client stays in.
pub(crate) const SIZE_BYTES: u64 = 1 << 20;

const GEOMETRY: Geometry = Geometry { slot_bytes: 128 << 10, slot_count: 360 };

/// What is under way at a disk.
#[derive(Debug)]
pub(crate) enum Transfer {
    Append { buffers: Vec<Buffer>, number: Option<WriteNumber>, result: Result<(), DiskFault> },
    Fetch { buffer: Buffer, pieces: Vec<FetchPiece> },
    Sync { covered: BTreeSet<WriteNumber>, is_failed: bool },
}

/// What a volume wants of others than its disk and its store.
#[derive(Debug)]
pub(crate) enum Wish {
    /// The transfer is under way.
    Transfer(IoId),
    /// The store has something to do.
    StoreTurn,
    Ship(Vec<Buffer>, ToPeer),
    Other(Action),
}

/// What goes wrong at a disk: none of it by itself.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Appends of a thousand that fail.
    pub(crate) appends: u32,
    /// Every append fails since there is no room.
    pub(crate) is_full: bool,
    /// The next sync fails.
    pub(crate) is_sync_failing: bool,
}

#[derive(Debug)]
pub(crate) struct Site {
    disk: SimDisk,
    store: SimStore,
    superblock: Superblock,
    index: Option<Index<SimStore>>,
    pub(crate) volume: Option<Volume>,
    transfers: BTreeMap<IoId, Transfer>,
    asked: VecDeque<Action>,
    appends_in_flight_max: usize,
    number: u8,
    pub(crate) faults: Faults,
    /// With fewer free slots segments of which nothing is live leave, and these are under way.
    pub(crate) slots_wanted: u32,
    leaving: BTreeSet<SegmentId>,
    /// Of this life: what comes of an earlier one is for nobody.
    pub(crate) life: u64,
}

impl Site {
    pub(crate) fn new(number: u8, random: &mut Random) -> Result<Self, Finding> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&random.bits().to_le_bytes());
        let superblock = Superblock { pool: PoolId(id), geometry: GEOMETRY, generation: 1, created_ms: 0 };
        let store = SimStore::new(random.fork(), Fuse::default());
        let mut index = Index::create(store.clone(), &superblock).map_err(|error| Finding(error.to_string()))?;
        index.set_site(number);
        let mut site = Self {
            disk: SimDisk::new(GEOMETRY.pool_bytes(), random.fork()),
            store,
            superblock,
            index: Some(index),
            volume: None,
            transfers: BTreeMap::new(),
            asked: VecDeque::new(),
            appends_in_flight_max: *random.pick(&[1, 1, 4]),
            number,
            faults: Faults::default(),
            slots_wanted: 0,
            leaving: BTreeSet::new(),
            life: 0,
        };
        site.open(recover::fresh(VOLUME, SIZE_BYTES));
        Ok(site)
    }

    fn open(&mut self, recovered: Recovered) {
        let config = VolumeConfig {
            pool: self.superblock.pool,
            geometry: GEOMETRY,
            appends_in_flight_max: self.appends_in_flight_max,
            map_limit_bytes: 1 << 20,
            unfolded_segments_max: 3,
            write_back_pages_max: 4,
            shared_piece_blocks_min: 1,
            is_metered: true,
        };
        let mut volume = Volume::open(config, recovered);
        volume.freeze();
        self.volume = Some(volume);
    }

    /// Ends its life: what its disk has not got may be gone with the power.
    pub(crate) fn die(&mut self, is_power_cut: bool, random: &mut Random) {
        self.life += 1;
        self.volume = None;
        self.index = None;
        self.leaving.clear();
        self.transfers.clear();
        self.asked.clear();
        if is_power_cut {
            self.disk.power_cut(false, random);
            self.store.power_cut(random);
        }
    }

    /// Where the batches of its log end, as it lies on the disk of a site that is down.
    pub(crate) fn ends_at_rest(&self) -> Result<Vec<BatchEnd>, Finding> {
        let known = self.open_index()?.known(VOLUME, SIZE_BYTES);
        let terms = Terms::default();
        let recovered =
            recover::recover_by(&self.disk, &self.superblock, &known, terms).map_err(|damage| unexplained(&damage))?;
        self.ends(&recovered.segments, Lsn(recovered.next_lsn.0 - 1))
    }

    /// What its log has in its segments, as it lies on the disk of a site that is down.
    pub(crate) fn stretches_at_rest(&self) -> Result<Vec<Stretch>, Finding> {
        let known = self.open_index()?.known(VOLUME, SIZE_BYTES);
        let recovered = recover::recover_by(&self.disk, &self.superblock, &known, Terms::default());
        let recovered = recovered.map_err(|damage| unexplained(&damage))?;
        Ok(stretches(&recovered.segments, Lsn(recovered.next_lsn.0 - 1)))
    }

    /// How far its stored map goes.
    pub(crate) fn folded_at_rest(&self) -> Result<Lsn, Finding> {
        let known = self.open_index()?.known(VOLUME, SIZE_BYTES);
        Ok(known.row.map_or(Lsn::ZERO, |row| row.folded_to))
    }

    /// Takes its place with an empty pool, which gives out no id up to the newest that the other site has.
    pub(crate) fn replace(&mut self, newest: Option<SegmentId>, random: &mut Random) -> Result<(), Finding> {
        let life = self.life + 1;
        *self = Self { life, slots_wanted: self.slots_wanted, ..Self::new(self.number, random)? };
        if let (Some(index), Some(newest)) = (&mut self.index, newest) {
            index.pass_ids(newest).map_err(|fault| Finding(format!("the store fails by itself: {fault}")))?;
        }
        Ok(())
    }

    /// The same of one that serves, up to what counts.
    pub(crate) fn ends_served(&self) -> Result<Vec<BatchEnd>, Finding> {
        let Some(volume) = &self.volume else { return Ok(Vec::new()) };
        self.ends(&volume.segments(), volume.status().applied_lsn)
    }

    fn ends(&self, rows: &[SegmentRow], up_to: Lsn) -> Result<Vec<BatchEnd>, Finding> {
        let ends = Feed::new(Lsn(1)).ends(&self.disk, &self.superblock, (rows, up_to));
        ends.map_err(|error| Finding(format!("P1: the log cannot be told: {error}")))
    }

    /// The next batch of what is appended, up to an operation.
    pub(crate) fn read_on(&self, feed: &mut Feed, up_to: Lsn) -> Result<Option<Vec<Buffer>>, FeedError> {
        let Some(volume) = &self.volume else { return Ok(None) };
        feed.next_batch(&self.disk, &self.superblock, (&volume.segments(), up_to))
    }

    /// The next batch that a peer lacks, of what is appended.
    pub(crate) fn feed(&self, feed: &mut Feed) -> Result<Option<Vec<Buffer>>, Finding> {
        let Some(volume) = &self.volume else { return Ok(None) };
        let batch = self.read_on(feed, volume.status().ended_lsn);
        batch.map_err(|error| Finding(format!("P1: the log cannot be fed: {error}")))
    }

    fn open_index(&self) -> Result<Index<SimStore>, Finding> {
        let open = Index::open(self.store.clone(), &self.superblock, &self.disk);
        let mut index = open.map_err(|error| Finding(format!("the index does not open: {error}")))?;
        index.set_site(self.number);
        Ok(index)
    }

    /// Finds out what its log says, up to an operation where one is told, and opens the volume without a role.
    pub(crate) fn recover(&mut self, end: Option<Lsn>) -> Result<(), Finding> {
        let mut index = self.open_index()?;
        let known = index.known(VOLUME, SIZE_BYTES);
        let (disk, superblock) = (&self.disk, &self.superblock);
        let terms = Terms { limit: end.unwrap_or(Lsn(u64::MAX)), goes_on: true };
        let recovered = recover::recover_by(disk, superblock, &known, terms);
        let mut recovered = recovered.map_err(|damage| unexplained(&damage))?;
        for (offset, bytes) in std::mem::take(&mut recovered.writes) {
            self.disk.write(offset, bytes);
        }
        let covered = self.disk.all_unsynced();
        self.disk.end_sync(&covered);
        let noted = (|| {
            recovered.sealed.iter().try_for_each(|row| index.note_segment(*row))?;
            recovered.voided.iter().try_for_each(|segment| index.release(*segment))?;
            recovered.borrowed.iter().try_for_each(|(segment, loans)| index.note_loans(*segment, loans))?;
            index.note_recovered_boundaries(VOLUME, recovered.next_lsn, &recovered.boundaries)
        })();
        noted.map_err(|fault: DiskFault| Finding(format!("the store fails by itself: {fault}")))?;
        self.index = Some(index);
        self.open(recovered);
        Ok(())
    }

    /// Begins what the volume wants.
    pub(crate) fn begin(&mut self, action: Action, random: &mut Random) -> Vec<Wish> {
        match action {
            Action::Append { id, pool_offset, buffers, to_peer } => {
                let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.as_slice()).copied().collect();
                debug_assert_eq!(bytes.len() as u64, total_len(&buffers));
                let result = self.fault_of_append(random).map_or(Ok(()), Err);
                let number = self.write(pool_offset, bytes, result.is_ok(), random);
                let sent = to_peer.map(|to_peer| {
                    let sent = buffers.iter().skip(to_peer.first_buffer);
                    Wish::Ship(sent.map(|buffer| Buffer::copy_of(buffer.as_slice())).collect(), to_peer)
                });
                self.transfers.insert(id, Transfer::Append { buffers, number, result });
                sent.into_iter().chain([Wish::Transfer(id)]).collect()
            }
            Action::Fetch { id, buffer, pieces, .. } => {
                self.transfers.insert(id, Transfer::Fetch { buffer, pieces: pieces.into_vec() });
                vec![Wish::Transfer(id)]
            }
            Action::Sync { id } => {
                let covered = self.disk.begin_sync(random);
                let is_failed = std::mem::take(&mut self.faults.is_sync_failing);
                if is_failed {
                    self.disk.fail_sync(&covered, random);
                }
                self.transfers.insert(id, Transfer::Sync { covered, is_failed });
                vec![Wish::Transfer(id)]
            }
            asked @ (Action::LoadPage { .. }
            | Action::LoadPlace { .. }
            | Action::LoadChanges { .. }
            | Action::WriteBack { .. }
            | Action::NoteBoundary(_)
            | Action::NoteLoans { .. }
            | Action::Pledge { .. }
            | Action::Lease { .. }
            | Action::LeaseFor { .. }
            | Action::NoteSegment(_)
            | Action::Settle(_)
            | Action::Unpinned { .. }
            | Action::Release { .. }) => {
                self.asked.push_back(asked);
                vec![Wish::StoreTurn]
            }
            other @ (Action::Reply(_) | Action::SyncPeer { .. } | Action::TellPrimary(_) | Action::FellOut { .. }) => {
                vec![Wish::Other(other)]
            }
        }
    }

    fn fault_of_append(&self, random: &mut Random) -> Option<DiskFault> {
        if self.faults.is_full {
            return Some(DiskFault::NoSpace);
        }
        (self.faults.appends > 0 && random.chance(self.faults.appends)).then_some(DiskFault::Io)
    }

    /// Writes, all of it or, where it fails, as much as may be there then: all of it, too.
    fn write(&mut self, offset: u64, mut bytes: Vec<u8>, is_whole: bool, random: &mut Random) -> Option<WriteNumber> {
        if !is_whole {
            bytes.truncate(random.below(bytes.len() as u64 / BLOCK_LEN as u64 + 1) as usize * BLOCK_LEN);
        }
        (!bytes.is_empty()).then(|| self.disk.write(offset, bytes))
    }

    /// Ends a transfer.
    pub(crate) fn end(&mut self, id: IoId) -> Option<Event> {
        Some(match self.transfers.remove(&id)? {
            Transfer::Append { buffers, number, result } => {
                number.into_iter().for_each(|number| self.disk.end_write(number));
                Event::Appended { id, buffers, result }
            }
            Transfer::Fetch { mut buffer, pieces } => {
                for FetchPiece { pool_offset, buffer_offset, len } in pieces {
                    let found = self.disk.bytes(pool_offset, len);
                    buffer.as_mut_slice()[buffer_offset..buffer_offset + len].copy_from_slice(found);
                }
                Event::Fetched { id, buffer, result: Ok(()) }
            }
            Transfer::Sync { is_failed: true, .. } => Event::Synced { id, result: Err(DiskFault::Io) },
            Transfer::Sync { covered, is_failed: false } => {
                self.disk.end_sync(&covered);
                Event::Synced { id, result: Ok(()) }
            }
        })
    }

    /// Answers the oldest question to the store.
    pub(crate) fn take_store_turn(&mut self) -> Option<Event> {
        let index = self.index.as_mut()?;
        match self.asked.pop_front()? {
            Action::LoadPage { page } => Some(Event::PageLoaded { page, result: index.load_page(VOLUME, page) }),
            Action::WriteBack { id, generation, pages, folded } => {
                let result = index.write_back(VOLUME, generation, &pages, folded);
                Some(Event::WroteBack { id, result })
            }
            Action::Lease { class } => Some(Event::Leased { result: index.lease(class) }),
            Action::LeaseFor { segment } => {
                let lease = index.lease(LeaseClass::Data).and_then(|lease| index.rename_lease(lease, segment));
                Some(Event::LeasedFor { segment, result: lease })
            }
            Action::NoteSegment(row) => none(index.note_segment(*row)),
            Action::NoteBoundary(boundary) => none(index.note_boundary(VOLUME, boundary)),
            Action::NoteLoans { segment, loans, .. } => none(index.note_loans(segment, &loans)),
            Action::Release { segment } => none(index.release(segment)),
            Action::Settle(settled) => {
                index.settle(VOLUME, settled);
                self.next_to_leave()
            }
            Action::Unpinned { segment } => {
                self.give_back(segment);
                None
            }
            // No other volume is there.
            Action::Pledge { .. }
            | Action::LoadPlace { .. }
            | Action::LoadChanges { .. }
            | Action::Append { .. }
            | Action::Fetch { .. }
            | Action::Sync { .. }
            | Action::Reply(_)
            | Action::SyncPeer { .. }
            | Action::TellPrimary(_)
            | Action::FellOut { .. } => None,
        }
    }

    /// A segment of which nothing is live, when there are few slots.
    fn next_to_leave(&mut self) -> Option<Event> {
        let index = self.index.as_ref()?;
        if index.slot_counts().1 >= self.slots_wanted {
            return None;
        }
        let dead = index.dead_segments(VOLUME);
        let segment = dead.iter().map(|row| row.segment).find(|segment| !self.leaving.contains(segment))?;
        self.leaving.insert(segment);
        Some(Event::Leaves { segment })
    }

    /// What the segment says is durable in the store, then its header is void, then its slot is free.
    fn give_back(&mut self, segment: SegmentId) {
        let Some(index) = self.index.as_mut() else { return };
        self.leaving.remove(&segment);
        let Some(row) = index.segment(segment).filter(|row| row.volume == VOLUME) else { return };
        let Some(slot) = row.own_slot() else { return };
        self.store.commit(Vec::new(), Durability::Durable).expect("the store of this world does not fail");
        let mut void = vec![0; BLOCK_LEN];
        SlotHeader::void(self.superblock.pool, segment, VOLUME, row.first_lsn).encode(&mut void);
        let number = self.disk.write(GEOMETRY.slot_offset(slot), void);
        self.disk.end_sync(&std::iter::once(number).collect());
        index.release(segment).expect("the store of this world does not fail");
    }

    /// The ids of its segments, in order.
    pub(crate) fn segments(&self) -> Vec<SegmentId> {
        self.index
            .as_ref()
            .map(|index| index.segments(VOLUME).iter().map(|row| row.segment).collect())
            .unwrap_or_default()
    }
}

fn unexplained(damage: &Damage) -> Finding {
    Finding(format!("P1: nothing explains the damage: {damage}"))
}

/// A store that fails by itself is none of this world's.
fn none(result: Result<(), DiskFault>) -> Option<Event> {
    result.expect("the store of this world does not fail");
    None
}

/// A block full of a value.
pub(crate) fn block_of(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK_LEN / 8)
}
