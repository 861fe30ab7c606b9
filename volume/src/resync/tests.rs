//! The resync, driven by hand. Its order under faults in quantity is the simulator's work.

mod join;
mod refusals;
mod send;

use super::{Part, Receiver, Refusal, Sender, Taken, fold};
use crate::buffer::Buffer;
use crate::check::{CheckOptions, check};
use crate::compact::{Compactor, Context};
use crate::error::DiskFault;
use crate::format::{Cut, Parcel, decode_parcel_start, encode_parcel};
use crate::io::{Action, Event};
use crate::pool::{JoinError, Listing};
use crate::recover::tests::world::{MemoryStore, SIZE_BYTES, VOLUME, World};
use crate::store::PoolReader;
use units::{Lsn, SegmentId};

/// A pool at another site, and what is done to it.
struct Copy {
    world: World,
    receiver: Receiver,
    compactor: Compactor,
    /// Appends that still end well, and whether what they write is lost then.
    appends_left: usize,
    loses_writes: bool,
}

impl Copy {
    /// An empty one, whose resync was begun.
    fn new() -> Self {
        let mut world = World::new(40);
        world.index.set_site(1);
        world.index.begin_resync(VOLUME, Lsn::ZERO).unwrap();
        let (receiver, compactor) = (Receiver::new(VOLUME), Compactor::default());
        Self { world, receiver, compactor, appends_left: usize::MAX, loses_writes: false }
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Receiver, &mut Context<'_, MemoryStore>) -> T) -> T {
        let (mut actions, mut news) = (Vec::new(), Vec::new());
        let index = &mut self.world.index;
        let told = act(&mut self.receiver, &mut Context { index, actions: &mut actions, news: &mut news });
        while !actions.is_empty() {
            for action in std::mem::take(&mut actions) {
                let event = self.carry_out(action);
                let index = &mut self.world.index;
                self.receiver.handle(&mut Context { index, actions: &mut actions, news: &mut news }, event);
            }
        }
        told
    }

    fn carry_out(&mut self, action: Action) -> Event {
        if let Action::Append { id, pool_offset, buffers, .. } = action {
            let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.as_slice()).copied().collect();
            let is_well = self.appends_left > 0;
            self.appends_left = self.appends_left.saturating_sub(1);
            if is_well {
                self.world.pool.write(pool_offset, &bytes);
            }
            let result = if is_well || self.loses_writes { Ok(()) } else { Err(DiskFault::Io) };
            Event::Appended { id, buffers, result }
        } else if let Action::Fetch { id, mut buffer, pieces, .. } = action {
            for piece in pieces {
                let bytes = &mut buffer.as_mut_slice()[piece.buffer_offset..piece.buffer_offset + piece.len];
                self.world.pool.read_at(piece.pool_offset, bytes).unwrap();
            }
            Event::Fetched { id, buffer, result: Ok(()) }
        } else if let Action::Sync { id } = action {
            Event::Synced { id, result: Ok(()) }
        } else if let Action::Lease { class } = action {
            Event::Leased { result: self.world.index.lease(class) }
        } else {
            panic!("a receiver wants {action:?}")
        }
    }

    fn take(&mut self, part: Part) -> Result<Taken, Refusal> {
        self.act(|receiver, context| receiver.take(context, part))
    }

    fn finish(&mut self) {
        self.act(Receiver::finish);
    }

    /// Makes packs void.
    fn void(&mut self, packs: &[SegmentId]) {
        let (mut actions, mut news) = (Vec::new(), Vec::new());
        let index = &mut self.world.index;
        let context = &mut Context { index, actions: &mut actions, news: &mut news };
        self.compactor.void_packs(context, packs);
        while !actions.is_empty() {
            for action in std::mem::take(&mut actions) {
                let event = self.carry_out(action);
                let index = &mut self.world.index;
                self.compactor.handle(&mut Context { index, actions: &mut actions, news: &mut news }, event);
            }
        }
    }

    /// Takes all of the segments that the other site lists.
    fn take_all(&mut self, primary: &World, listing: &Listing) {
        for segment in &listing.segments {
            for part in parts_of(primary, *segment, None) {
                assert_eq!(self.take(part), Ok(Taken::Begun));
                assert!(self.receiver.is_ready());
            }
        }
        self.finish();
        assert!(self.receiver.is_idle());
    }

    fn join(&mut self, to: Lsn, listing: &Listing) -> Result<(), JoinError> {
        let recovered = self.world.recover(VOLUME).unwrap();
        self.world.index.join(&recovered, to, listing)
    }

    /// Loses the process, and all that was not durable of the store.
    fn crash(&mut self) {
        self.world.crash(0);
        self.world.index.set_site(1);
        (self.receiver, self.compactor) = (Receiver::new(VOLUME), Compactor::default());
    }

    fn fold(&mut self) {
        while !fold(&mut self.world.index, &self.world.pool, VOLUME, 1).unwrap() {}
    }

    fn is_clean(&self) {
        let report = check(&self.world.index, &self.world.pool, CheckOptions { verify_data: true });
        let problems = report.problems.iter().filter(|found| !found.detail.contains("superblock"));
        let problems: Vec<_> = problems.collect();
        assert!(problems.is_empty(), "{problems:#?}");
    }

    /// The copy shows what the other site's volume did after an operation, by its stored map.
    fn shows(&self, primary: &World, lsn: Lsn) {
        let mut recovered = self.world.recover(VOLUME).unwrap();
        let mapped = self.world.resolve(&mut recovered.map, VOLUME, 64 * 2048);
        assert_eq!(mapped, primary.authors[&VOLUME].mapped_at(lsn));
    }
}

/// A pool whose ids are those of one of several sites.
fn primary() -> World {
    let mut world = World::new(60);
    world.index.set_site(0);
    world
}

/// All of a volume's log.
fn listing(world: &World) -> (Lsn, Listing) {
    let to = world.index.segments(VOLUME).iter().filter_map(|row| row.last_lsn).max().unwrap();
    (to, world.index.listing(VOLUME, (Lsn::ZERO, to)))
}

/// All parts of a segment.
fn parts_of(world: &World, segment: SegmentId, cut: Option<Cut>) -> Vec<Part> {
    let source = world.index.source(segment).unwrap();
    let sender = Sender::open(&world.pool, &world.superblock, source, cut).unwrap();
    (0..8).filter(|part| sender.parts().contains(*part)).map(|part| sender.part(part).unwrap()).collect()
}

/// A part with another header.
fn changed(part: &Part, change: impl FnOnce(&mut Parcel)) -> Part {
    let bytes = part.header.as_slice();
    let mut parcel = decode_parcel_start(bytes).unwrap().with_index(bytes).unwrap();
    change(&mut parcel);
    Part { header: Buffer::copy_of(&encode_parcel(&parcel)), payload: copies_of(&part.payload) }
}

fn copies_of(buffers: &[Buffer]) -> Vec<Buffer> {
    buffers.iter().map(|buffer| Buffer::copy_of(buffer.as_slice())).collect()
}

fn copy_of(part: &Part) -> Part {
    changed(part, |_| ())
}

/// Blocks of the volume whose size the tests' volumes have.
const _: () = assert!(SIZE_BYTES > 64 * 2048 * 4096, "what is looked at lies in the volume");
