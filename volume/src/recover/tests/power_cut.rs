//! Power cuts by chance: any of the blocks written since the last sync may be lost.

use super::world::{MemoryStore, VOLUME, World, snapshot_op, trim_op, write_op};
use crate::check::{CheckOptions, check};
use crate::format::{Operation, OperationKind};
use crate::io::{LoadedPage, PageIndex};
use crate::map::{Found, Location, PAGE_BLOCKS, Page};
use crate::pool::Boundary;
use crate::rebuild::rebuild;
use proptest::prelude::*;
use std::collections::BTreeMap;
use units::{BLOCK_LEN, BlockIndex, Lsn};

const BLOCKS: u64 = 40;

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<Operation>),
    Seal,
    Sync,
    Fold,
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        4 => (0..BLOCKS - 4, 1_u64..4).prop_map(|(first, count)| write_op(first, count)),
        1 => (0..BLOCKS - 9, 1_u64..9).prop_map(|(first, count)| trim_op(first, count)),
    ];
    prop_oneof![
        6 => proptest::collection::vec(operation, 1..4).prop_map(Step::Append),
        2 => Just(Step::Seal),
        2 => Just(Step::Sync),
        1 => Just(Step::Fold),
        1 => Just(Step::Snapshot),
    ]
}

/// Every snapshot that is in the log shows what it showed, and the index knows of no other.
fn assert_snapshots(world: &World) {
    let author = &world.authors[&VOLUME];
    let is_snapshot = |operation: &Operation| matches!(operation.kind, OperationKind::Snapshot { .. });
    let taken = author.history.iter().zip((1..).map(Lsn)).filter(|((operation, ..), _)| is_snapshot(operation));
    let taken: Vec<Lsn> = taken.map(|(_, lsn)| lsn).collect();
    let known: Vec<Boundary> = world.index.boundaries(VOLUME).map(|row| row.boundary).collect();
    assert_eq!(known.iter().map(|boundary| boundary.lsn).collect::<Vec<_>>(), taken);
    for boundary in known {
        let mut found = BTreeMap::new();
        let loaded = world.index.load_page_at(VOLUME, PageIndex(0), boundary.generation).unwrap();
        if let LoadedPage::Present(encoded) = loaded {
            Page::decode(&encoded).unwrap().visit(0, PAGE_BLOCKS, |first, _, run| {
                let Found::Data { location, checks } = run else { return };
                for (check, by) in checks.as_chunks::<4>().0.iter().zip(0..) {
                    found.insert(u64::from(first + by), (location.plus(by), u32::from_le_bytes(*check)));
                }
            });
        }
        assert_eq!(found, author.mapped_at(boundary.lsn), "the end of generation {}", boundary.generation);
    }
}

/// They are there after a restart, and a rebuild finds them in the log.
fn assert_snapshots_survive(world: &mut World) {
    let recovered = world.restart(VOLUME);
    world.author(VOLUME).map = recovered.map;
    world.fold(VOLUME);
    assert_snapshots(world);
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: true });
    assert!(report.is_clean(), "{:?}", report.problems);
    world.sync(VOLUME);
    world.index = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap().0;
    let rebuilt = world.restart(VOLUME);
    world.author(VOLUME).map = rebuilt.map;
    world.fold(VOLUME);
    assert_snapshots(world);
}

/// Opens another segment unless the open one has so many blocks left.
fn make_room(world: &mut World, room: &mut Option<u64>, blocks: u64) {
    if room.is_none_or(|room| room < blocks) {
        if room.is_some() {
            world.seal(VOLUME);
        }
        world.open(VOLUME);
        *room = Some(28);
    }
    *room = room.map(|room| room - blocks);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// P1, P3. What was synced is there, and the volume is at one point of its log.
    #[test]
    fn a_power_cut_leaves_a_point_of_the_log_that_has_all_that_was_synced(
        steps in proptest::collection::vec(step(), 1..20),
        seed in any::<u64>(),
        kept_commits in 0_usize..20,
        is_double in any::<bool>(),
    ) {
        let mut world = World::new(12);
        let mut synced_bytes = world.pool.bytes.clone();
        let mut synced = Lsn::ZERO;
        // Blocks left in the open segment.
        let mut room: Option<u64> = None;
        for step in steps {
            match step {
                Step::Append(operations) => {
                    let blocks = 1 + operations.iter().map(|op| u64::from(op.payload_blocks())).sum::<u64>();
                    make_room(&mut world, &mut room, blocks);
                    world.append(VOLUME, &operations);
                }
                Step::Snapshot => {
                    make_room(&mut world, &mut room, 1);
                    let generation = world.author(VOLUME).map.generation();
                    world.append(VOLUME, &[snapshot_op(generation)]);
                }
                Step::Seal => {
                    if room.take().is_some() { world.seal(VOLUME); }
                }
                Step::Sync | Step::Fold => {
                    synced_bytes = world.pool.bytes.clone();
                    world.sync(VOLUME);
                    synced = Lsn(world.authors[&VOLUME].next_lsn.0 - 1);
                    if matches!(step, Step::Fold) { world.fold(VOLUME); }
                }
            }
        }
        let mut state = seed;
        let mut lost = std::iter::from_fn(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Some(state >> 63 == 1)
        });
        let blocks = world.pool.bytes.chunks_exact_mut(BLOCK_LEN).zip(synced_bytes.chunks_exact(BLOCK_LEN));
        for (block, old) in blocks.filter(|(new, old)| new != old) {
            // A sector boundary in the block, too.
            let from = if lost.next().unwrap() { 0 } else { 512 };
            if lost.next().unwrap() { block[from..].copy_from_slice(&old[from..]); }
        }
        world.crash(kept_commits);
        if is_double {
            // And once more, when recovery has written some of what it wants.
            let recovered = world.recover(VOLUME).unwrap();
            for (offset, bytes) in &recovered.writes {
                if lost.next().unwrap() { world.pool.write(*offset, bytes); }
            }
        }
        let mut recovered = world.recover(VOLUME).unwrap();
        prop_assert!(recovered.next_lsn > synced, "{} of {synced}", recovered.next_lsn);
        let expected = world.authors[&VOLUME].mapped_at(Lsn(recovered.next_lsn.0 - 1));
        prop_assert_eq!(world.resolve(&mut recovered.map, VOLUME, BLOCKS), expected.clone());
        // Without the index, what was synced is there too; of the rest there may be more than up to one point.
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        prop_assert!(report.damaged.is_empty(), "{:?}", report.damaged);
        let index = std::mem::replace(&mut world.index, index);
        let mut rebuilt = world.recover(VOLUME).unwrap();
        prop_assert!(rebuilt.next_lsn >= recovered.next_lsn);
        let author = &world.authors[&VOLUME];
        let later: Vec<Operation> = author.history.iter().skip(usize::try_from(synced.0).unwrap()).map(|(op, ..)| *op).collect();
        let is_settled = |block: &u64| !later.iter().any(|op| op.range.contains(BlockIndex(*block)));
        let settled = |mut mapped: BTreeMap<u64, (Location, u32)>| {
            mapped.retain(|block, _| is_settled(block));
            mapped
        };
        let of_synced = settled(author.mapped_at(synced));
        prop_assert_eq!(settled(world.resolve(&mut rebuilt.map, VOLUME, BLOCKS)), of_synced);
        world.index = index;
        let options = CheckOptions { verify_data: true };
        let report = check(&world.index, &world.pool, options);
        prop_assert!(report.is_clean(), "{:?}", report.problems);
        // The volume goes on, and after a kill it is where it was.
        world.restart(VOLUME);
        world.open(VOLUME);
        world.append(VOLUME, &[write_op(3, 2)]);
        let mut again = world.recover(VOLUME).unwrap();
        prop_assert_eq!(again.next_lsn, recovered.next_lsn.next());
        let expected = world.authors[&VOLUME].mapped_at(recovered.next_lsn);
        prop_assert_eq!(world.resolve(&mut again.map, VOLUME, BLOCKS), expected);
        let report = check(&world.index, &world.pool, options);
        prop_assert!(report.is_clean(), "{:?}", report.problems);
        assert_snapshots_survive(&mut world);
    }
}
