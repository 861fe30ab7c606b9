//! A volume at two sites of which one is far behind, or new, and is sent what is left of the segments that it lacks, while the
//! other one goes on, compacts, takes and deletes snapshots. Either is killed at any step. Before the segments are joined the copy shows what
//! it showed before; then it shows what the other one did at that operation, and fed from there on, what that does.

mod model;
mod station;
mod transfer;

use crate::random::Random;
use crate::trace::{Finding, Trace};
use model::{Change, Image, Model};
use station::{SIZE_BYTES, Station, VOLUME};
use units::{BLOCK_BYTES, BLOCK_LEN, ByteRange, Epoch, Lsn, SnapshotId, VolumeId};
use volume::buffer::Buffer;
use volume::engine::{PeerLog, Role, Volume};
use volume::feed::{Feed, FeedError};
use volume::format::block_check;
use volume::io::{Event, LoadedPage, PageIndex};
use volume::map::{Found, PAGE_BLOCKS, Page};
use volume::pool::{Parent, PeerBehind};
use volume::request::{Completion, Request};

/// Blocks that the client uses lie in three places.
const SPOTS: [u64; 3] = [0, 5_000, 100_000];
const SPOT_BLOCKS: u64 = 32;
const SNAPSHOTS_MAX: usize = 3;
const STEPS_MAX: u64 = 200_000;

/// What happened in a world.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The hash of what happened.
    pub hash: u64,
    /// Logs that were joined.
    pub joins: u64,
    /// Parts that were taken.
    pub parts: u64,
    /// Sites that were killed while segments were sent.
    pub kills: u64,
    /// Segments that were not where they were when they were to be sent.
    pub moved: u64,
    /// Joins that were refused since they would have been too early.
    pub too_early: u64,
    /// Packs that the receiver gave up.
    pub given_up: u64,
    /// Resyncs that were not gone on with.
    pub drops: u64,
    /// Indexes that were made anew from the pool.
    pub rebuilds: u64,
}

/// The world of one seed.
pub struct Resyncs {
    random: Random,
    primary: Station,
    secondary: Station,
    model: Model,
    epoch: u64,
    next_value: u64,
    size_bytes: u64,
    /// The blocks of each spot that are written for now; elsewhere there are but trims.
    hot: std::ops::Range<u64>,
    takes_snapshots: bool,
    outcome: Outcome,
    trace: Trace,
}

type Checked<T = ()> = Result<T, Finding>;

/// What came of feeding a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fed {
    Some,
    /// There is no more.
    All,
    /// What comes next is not kept as it was written.
    Gone,
}

impl std::fmt::Debug for Resyncs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resyncs").field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl Resyncs {
    /// Runs the world of a seed.
    ///
    /// # Errors
    /// The first finding.
    pub fn run(seed: u64) -> Checked<Outcome> {
        let mut random = Random::new(seed);
        let (primary, secondary) = (Station::new(0, &mut random)?, Station::new(1, &mut random)?);
        let mut world = Self {
            random,
            primary,
            secondary,
            model: Model::default(),
            epoch: 0,
            next_value: 1,
            size_bytes: SIZE_BYTES,
            hot: 0..SPOT_BLOCKS,
            takes_snapshots: true,
            outcome: Outcome::default(),
            trace: Trace::new(false),
        };
        crate::seeds::caught(|| world.live())?;
        world.outcome.hash = world.trace.hash();
        Ok(world.outcome)
    }

    fn live(&mut self) -> Checked {
        self.takes_snapshots = self.random.chance(600);
        self.primary.open_fresh();
        self.lead()?;
        let is_new = self.random.chance(400);
        let mut from = Lsn::ZERO;
        if !is_new {
            from = self.go_together()?;
        }
        self.move_on();
        for _ in 0..self.random.within(100, 500) {
            self.change()?;
            if self.random.chance(8) {
                self.restart_primary()?;
            }
        }
        for _ in 0..self.random.within(1, 2) {
            let Some(end) = self.come_back(from)? else { return self.end() };
            from = self.resync(end)?;
            self.secondary.close(&mut self.random);
            self.move_on();
            for _ in 0..self.random.within(50, 200) {
                self.change()?;
            }
        }
        if let Some(end) = self.come_back(from)? {
            self.resync(end)?;
        }
        self.end()
    }

    /// The client writes elsewhere from now on.
    fn move_on(&mut self) {
        let first = self.random.below(SPOT_BLOCKS - 8);
        self.hot = first..self.random.within(first + 8, SPOT_BLOCKS);
    }

    /// Both sites write the log for a while, then the secondary is lost. Returns where its log ends.
    fn go_together(&mut self) -> Checked<Lsn> {
        self.primary.keep_for(Some(PeerBehind { durable: Lsn::ZERO, sent: Lsn::ZERO }));
        self.primary.keep_whole(Some(Lsn::ZERO));
        self.secondary.open_fresh();
        let role = Role::Secondary { epoch: Epoch(self.epoch) };
        self.secondary.tell(Event::Role(role), &mut self.random);
        let mut feed = Feed::new(Lsn(1));
        for _ in 0..self.random.within(5, 100) {
            self.change()?;
            while self.random.chance(700) && self.feed(&mut feed)? == Fed::Some {}
        }
        let is_power_cut = self.random.chance(500);
        self.secondary.die(is_power_cut, &mut self.random);
        self.secondary.start(false, &mut self.random)?;
        let end = Lsn(self.secondary.recover(true)?.next_lsn.0 - 1);
        let sent = self.primary.peer.map_or(end, |peer| peer.sent);
        self.primary.keep_for(Some(PeerBehind { durable: end, sent }));
        self.primary.keep_whole(None);
        Ok(end)
    }

    /// The secondary comes back, and is fed as far as the log is kept. Returns where it ends where that is not all.
    fn come_back(&mut self, from: Lsn) -> Checked<Option<Lsn>> {
        if from == Lsn::ZERO {
            // A new copy: from now on what it will need is kept.
            self.primary.keep_for(Some(PeerBehind { durable: Lsn::ZERO, sent: Lsn::ZERO }));
            return Ok(Some(from));
        }
        self.secondary.die(false, &mut self.random);
        self.start_secondary(false)?;
        self.follow()?;
        let mut feed = Feed::new(from.next());
        loop {
            match self.feed(&mut feed)? {
                Fed::Some => {}
                Fed::All => return Ok(None),
                Fed::Gone => break,
            }
            if self.random.chance(100) {
                self.change()?;
            }
        }
        let end = Lsn(feed.next_lsn().0 - 1);
        let is_within =
            |row: &volume::pool::SegmentRow| row.first_lsn <= end && row.last_lsn.is_none_or(|last| last > end);
        if self.primary.index().segments(VOLUME).iter().any(is_within) {
            return Err(Finding("P6: the segment in which the secondary's log ends is not kept".to_owned()));
        }
        self.secondary.die(false, &mut self.random);
        Ok(Some(end))
    }

    fn lead(&mut self) -> Checked {
        self.epoch += 1;
        self.primary.tell(Event::Role(Role::Alone { epoch: Epoch(self.epoch) }), &mut self.random);
        self.primary.settle(&mut self.random)
    }

    fn restart_primary(&mut self) -> Checked {
        let is_power_cut = self.random.chance(500);
        if is_power_cut {
            self.primary.ask(Request::Flush, &mut self.random)?;
        }
        self.primary.die(is_power_cut, &mut self.random);
        // A rebuild may give the number of a generation again whose snapshot was deleted.
        let is_store_lost = self.random.chance(100) && !self.takes_snapshots;
        self.outcome.rebuilds += u64::from(is_store_lost);
        self.primary.records.boundaries = self.model.boundaries.values().copied().collect();
        self.primary.start(is_store_lost, &mut self.random)?;
        let recovered = self.primary.recover(false)?;
        self.primary.open(recovered);
        self.lead()
    }

    fn start_secondary(&mut self, is_store_lost: bool) -> Checked {
        self.outcome.rebuilds += u64::from(is_store_lost);
        self.secondary.start(is_store_lost, &mut self.random)
    }

    /// The secondary opens its volume and follows.
    fn follow(&mut self) -> Checked {
        let recovered = self.secondary.recover(true)?;
        self.secondary.open(recovered);
        let role = Role::Secondary { epoch: Epoch(self.epoch) };
        self.secondary.tell(Event::Role(role), &mut self.random);
        Ok(())
    }

    /// Sends the secondary the next batch.
    fn feed(&mut self, feed: &mut Feed) -> Checked<Fed> {
        let Some(volume) = &self.primary.volume else { return Ok(Fed::All) };
        let (rows, up_to) = (volume.segments(), volume.status().ended_lsn);
        let batch = feed.next_batch(&self.primary.disk, &self.primary.superblock, (&rows, up_to));
        let batch = match batch {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Fed::All),
            Err(FeedError::Gone(_)) => return Ok(Fed::Gone),
            Err(error) => return Err(Finding(format!("P1: the log cannot be fed: {error}"))),
        };
        let synced = self.secondary.volume.as_ref().map_or(Lsn::ZERO, Volume::synced_lsn);
        let durable = self.primary.peer.map_or(Lsn::ZERO, |peer| peer.durable).max(synced);
        let sent = Lsn(feed.next_lsn().0 - 1);
        self.primary.keep_for(Some(PeerBehind { durable, sent }));
        self.secondary.tell(Event::Replicated { buffers: batch }, &mut self.random);
        let claimed = self.primary.volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().durable_lsn);
        let end = self.primary.volume.as_ref().map(Volume::counted_end).unwrap_or_default();
        let log = PeerLog { segment: end.segment, appended: end.lsn, durable: claimed.min(synced).min(end.lsn) };
        self.secondary.tell(Event::Committed(log), &mut self.random);
        for _ in 0..STEPS_MAX {
            let has_it = self.secondary.volume.as_ref().is_none_or(|volume| volume.status().ended_lsn >= sent);
            if self.secondary.fell_out {
                return Err(Finding("P6: the secondary falls out".to_owned()));
            }
            if has_it {
                return Ok(Fed::Some);
            }
            if !self.secondary.step(&mut self.random) {
                self.secondary.tick(&mut self.random);
            }
        }
        Err(Finding("P6: the secondary never takes a batch".to_owned()))
    }

    /// The client does something at the primary, which does some of what else it wants.
    fn change(&mut self) -> Checked {
        match self.random.below(100) {
            0..=59 => self.write()?,
            60..=74 => self.clear()?,
            75..=79 => self.snapshot()?,
            80..=83 => self.delete_snapshot()?,
            84..=86 => self.resize()?,
            87..=91 => drop(self.primary.ask(Request::Flush, &mut self.random)?),
            _ => drop(self.primary.ask(Request::Checkpoint, &mut self.random)?),
        }
        for _ in 0..self.random.below(30) {
            self.primary.step(&mut self.random);
        }
        if self.random.chance(300) {
            self.primary.tick(&mut self.random);
        }
        Ok(())
    }

    fn applied(&self) -> Lsn {
        self.primary.volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().applied_lsn)
    }

    fn write(&mut self) -> Checked {
        let at = self.random.within(self.hot.start, self.hot.end - 1);
        let first = *self.random.pick(&SPOTS) + at;
        let blocks = first..first + self.random.within(1, 6).min(self.hot.end - at);
        if blocks.end > self.size_bytes / BLOCK_BYTES {
            return Ok(());
        }
        let value = self.next_value;
        self.next_value += 8;
        let payload: Vec<u8> = (value..).zip(blocks.clone()).flat_map(|(value, _)| block_of(value)).collect();
        let payload = std::iter::once(Buffer::copy_of(&payload)).collect();
        let range = bytes_of(&blocks);
        self.primary.ask(Request::Write { range, payload, fua: false }, &mut self.random)?;
        self.model.note(self.applied(), Change::Write(blocks, value));
        Ok(())
    }

    fn clear(&mut self) -> Checked {
        let at = self.random.below(SPOT_BLOCKS);
        let first = *self.random.pick(&SPOTS) + at;
        let end = self.size_bytes / BLOCK_BYTES;
        let blocks = match self.random.below(10) {
            0 => 0..end,
            1..=2 => 4_000..end.min(20_000),
            _ => first..first + self.random.within(1, 12),
        };
        if blocks.end > end || blocks.is_empty() {
            return Ok(());
        }
        let range = bytes_of(&blocks);
        let request = if self.random.chance(700) {
            Request::Trim { range, fua: false }
        } else {
            Request::WriteZeroes { range, fua: false }
        };
        self.primary.ask(request, &mut self.random)?;
        self.model.note(self.applied(), Change::Clear(blocks));
        Ok(())
    }

    fn resize(&mut self) -> Checked {
        let bytes = *self.random.pick(&[SIZE_BYTES, SIZE_BYTES / 2, 90_000 * BLOCK_BYTES, 4_000 * BLOCK_BYTES]);
        let request = Request::Resize { size_bytes: bytes, discard_tail: true };
        self.primary.ask(request, &mut self.random)?;
        self.size_bytes = bytes;
        self.model.note(self.applied(), Change::Resize(bytes));
        Ok(())
    }

    fn snapshot(&mut self) -> Checked {
        if !self.takes_snapshots || self.model.boundaries.len() >= SNAPSHOTS_MAX {
            return Ok(());
        }
        let id = SnapshotId(self.next_value);
        let taken = self.primary.ask(Request::Snapshot { id }, &mut self.random)?;
        let Completion::Snapshot(boundary) = taken else { return Ok(()) };
        self.model.boundaries.insert(boundary.generation, boundary);
        Ok(())
    }

    /// What only a snapshot shows goes, once its record says so.
    fn delete_snapshot(&mut self) -> Checked {
        let generations: Vec<u64> = self.model.boundaries.keys().copied().collect();
        if generations.is_empty() {
            return Ok(());
        }
        let generation = *self.random.pick(&generations);
        self.primary.settle(&mut self.random)?;
        self.model.boundaries.remove(&generation);
        let index = self.primary.index.as_mut().expect("the site is up");
        let begun = index.begin_deletion(VOLUME, generation);
        let Some(mut deletion) = begun.map_err(|error| Finding(error.to_string()))? else { return Ok(()) };
        while !index.delete_some(&mut deletion, 4).map_err(|fault| Finding(fault.to_string()))? {}
        self.primary.with_compactor(|compactor, context| compactor.look_at(context, VOLUME), &mut self.random);
        Ok(())
    }

    /// The secondary has all, and takes over: it shows all that was written, and does so after compaction, and without its index.
    fn end(&mut self) -> Checked {
        let end = self.applied();
        let mut feed = Feed::new(Lsn(self.secondary_end().0 + 1));
        while self.feed(&mut feed)? == Fed::Some {}
        if self.secondary_end() < end {
            return Err(Finding("P6: the secondary lacks what was fed to it".to_owned()));
        }
        self.secondary.records.boundaries = self.model.boundaries.values().copied().collect();
        for is_store_lost in [false, true, true] {
            self.secondary.die(false, &mut self.random);
            self.start_secondary(is_store_lost)?;
            let recovered = self.secondary.recover(false)?;
            self.secondary.open(recovered);
            self.epoch += 1;
            self.secondary.tell(Event::Role(Role::Alone { epoch: Epoch(self.epoch) }), &mut self.random);
            self.secondary.ask(Request::Checkpoint, &mut self.random)?;
            compare(&mut self.secondary, &self.model, end, "the secondary")?;
            for _ in 0..400 {
                if !self.secondary.step(&mut self.random) {
                    self.secondary.tick(&mut self.random);
                }
            }
            compare(&mut self.secondary, &self.model, end, "the compacted secondary")?;
            self.secondary.quiesce(&mut self.random)?;
            self.secondary.check()?;
        }
        self.primary.ask(Request::Checkpoint, &mut self.random)?;
        compare(&mut self.primary, &self.model, end, "the primary")
    }

    fn secondary_end(&self) -> Lsn {
        self.secondary.volume.as_ref().map_or(Lsn::ZERO, |volume| volume.status().ended_lsn)
    }
}

/// What the stored map of a site shows is what the volume held after an operation, and at each snapshot up to there.
fn compare(station: &mut Station, model: &Model, lsn: Lsn, who: &str) -> Checked {
    let found = image_of(station, VOLUME)?;
    tell_apart(&found, &model.at(lsn), &format!("{who} at {lsn}"))?;
    for boundary in model.boundaries.values().filter(|boundary| boundary.lsn <= lsn) {
        let (view, generation) = (VolumeId(1_000 + boundary.generation), boundary.generation);
        let index = station.index.as_mut().expect("the site is up");
        let noted = index.note_parent(view, Parent { volume: VOLUME, generation });
        noted.map_err(|error| Finding(format!("P1: {who} lacks snapshot {generation}: {error}")))?;
        let found = image_of(station, view)?;
        tell_apart(&found, &model.at(boundary.lsn), &format!("{who}, snapshot {generation}"))?;
        let index = station.index.as_mut().expect("the site is up");
        index.forget_parent(view).map_err(|fault| Finding(fault.to_string()))?;
    }
    Ok(())
}

fn tell_apart(found: &Image, right: &Image, what: &str) -> Checked {
    let blocks: std::collections::BTreeSet<u64> = found.keys().chain(right.keys()).copied().collect();
    let wrong = blocks.into_iter().find(|block| found.get(block) != right.get(block));
    wrong.map_or(Ok(()), |block| {
        let (shows, held) = (found.get(&block), right.get(&block));
        Err(Finding(format!("P1, P2: {what}: block {block} shows {shows:?} and not {held:?}")))
    })
}

/// What a stored map names, read and held against its check values.
fn image_of(station: &Station, volume: VolumeId) -> Checked<Image> {
    let index = station.index();
    let geometry = station.superblock.geometry;
    let (mut image, mut wrong) = (Image::new(), None);
    let mut next = Some(PageIndex(0));
    while let Some(page) = next {
        let loaded = index.load_page(volume, page).map_err(|fault| Finding(fault.to_string()))?;
        let encoded = match loaded {
            LoadedPage::Present(encoded) => encoded,
            LoadedPage::Absent { next: after } => {
                next = after;
                continue;
            }
        };
        let content = Page::decode(&encoded).map_err(|error| Finding(error.to_string()))?;
        let start = page.0 * u64::from(PAGE_BLOCKS);
        content.visit(0, PAGE_BLOCKS, |first, len, found| {
            let Found::Data { location, checks } = found else { return };
            for by in 0..len {
                let at = location.plus(by);
                let Some(there) = index.locate_one(at) else {
                    wrong.get_or_insert_with(|| format!("block {} is nowhere", start + u64::from(first + by)));
                    continue;
                };
                let bytes = station.disk.bytes(geometry.block_offset(there.slot, there.block), BLOCK_LEN);
                let check = &checks[by as usize * 4..by as usize * 4 + 4];
                if block_check(at.segment, u32::from(at.block), bytes).to_le_bytes() != check {
                    wrong.get_or_insert_with(|| format!("block {} is rotten", start + u64::from(first + by)));
                    continue;
                }
                let value = u64::from_le_bytes(bytes[..8].try_into().unwrap_or_default());
                image.insert(start + u64::from(first + by), value);
            }
        });
        next = Some(PageIndex(page.0 + 1));
    }
    wrong.map_or(Ok(image), |wrong| Err(Finding(format!("P2: {wrong}"))))
}

fn block_of(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(BLOCK_LEN / 8)
}

fn bytes_of(blocks: &std::ops::Range<u64>) -> ByteRange {
    let len = (blocks.end - blocks.start) * BLOCK_BYTES;
    ByteRange::new(blocks.start * BLOCK_BYTES, len).expect("the blocks of the world are of the volume")
}
