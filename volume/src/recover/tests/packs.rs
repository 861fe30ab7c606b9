//! Segments that were moved: recovered, rebuilt and checked as they were written.

use super::world::{MemoryStore, OTHER_VOLUME, VOLUME, World, trim_op, write_op};
use crate::check::{CheckOptions, check};
use crate::format::{Cut, Operation, SlotHeader};
use crate::pool::{Home, Index, Lease, LeaseClass, ParcelPlace, SegmentRow};
use crate::rebuild::rebuild;
use crate::recover::{DamageKind, recover, walk_pack};
use crate::store::PoolReader;
use proptest::prelude::*;
use units::{BLOCK_LEN, Lsn, SegmentId, SlotIndex};

/// Folded segments of two volumes, each with blocks that are overwritten and trims, and a newer one.
fn aged() -> (World, Vec<SegmentRow>) {
    let mut world = World::new(40);
    let mut rows = Vec::new();
    for n in 0..4 {
        rows.push(world.segment(VOLUME, &[&[write_op(n * 3, 4), write_op(n * 5000, 2)], &[trim_op(n * 5, 2)]]));
        world.segment(OTHER_VOLUME, &[&[write_op(n, 3)]]);
    }
    world.segment(VOLUME, &[&[write_op(90, 1)]]);
    world.fold(VOLUME);
    world.fold(OTHER_VOLUME);
    (world, rows)
}

fn segments(rows: &[SegmentRow]) -> Vec<SegmentId> {
    rows.iter().map(|row| row.segment).collect()
}

/// Where the trunk of a segment is that was moved.
fn parcel(world: &World, segment: SegmentId) -> ParcelPlace {
    world.index.segment(segment).unwrap().home.each_parcel().next().unwrap()
}

/// The index and the pool hold what was written, wherever it is.
fn hold_all(world: &mut World) {
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: true });
    assert!(report.is_clean(), "{:#?}", report.problems);
    for volume in world.index.volumes() {
        let mut recovered = world.recover(volume).unwrap();
        let last = Lsn(world.authors[&volume].next_lsn.0 - 1);
        assert_eq!(recovered.next_lsn, last.next());
        assert_eq!(recovered.size_bytes, world.authors[&volume].size_bytes);
        let mapped = world.resolve(&mut recovered.map, volume, 20 * 2048);
        assert_eq!(mapped, world.authors[&volume].mapped_at(last));
    }
}

/// Loses the index and makes it anew.
fn rebuild_it(world: &mut World) {
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert_eq!((report.damaged.len(), report.notes.len()), (0, 0), "{report:?}");
    for (offset, bytes) in report.mends {
        world.pool.write(offset, &bytes);
    }
    world.index = index;
}

/// Recovers, mends and folds both volumes, as a start does.
fn start(world: &mut World) {
    for volume in world.index.volumes() {
        let recovered = world.recover(volume).unwrap();
        world.mend(&recovered);
        world.author(volume).map = recovered.map;
        world.fold(volume);
    }
}

/// P1. What is left of a segment counts where it is, through a restart and without the index.
#[test]
fn what_was_moved_is_there_as_it_was_written() {
    let (mut world, rows) = aged();
    let live: Vec<Option<u64>> = rows.iter().map(|row| world.index.live_blocks(row.segment)).collect();
    let pack = world.pack(&segments(&rows[..3]));
    hold_all(&mut world);
    world.crash(0);
    assert_eq!(world.index.left_places().count(), 3, "the places before are not free");
    hold_all(&mut world);
    let free = world.index.figures().slots_free;
    world.void_left();
    assert_eq!(world.index.figures().slots_free, free + 3);
    hold_all(&mut world);
    rebuild_it(&mut world);
    hold_all(&mut world);
    assert_eq!(world.index.packs().collect::<Vec<_>>(), [(pack.segment, pack.slot)]);
    for (row, live) in rows.iter().zip(live) {
        assert_eq!(world.index.live_blocks(row.segment), live);
    }
    // And on, with others, to another pack.
    start(&mut world);
    world.pack(&segments(&rows));
    world.void_left();
    assert_eq!(world.index.empty_packs(), [(pack.segment, pack.slot)]);
    assert_eq!(parcel(&world, rows[0].segment).moves, 2);
    hold_all(&mut world);
}

/// P1. Where a stop came before the older place was void, that one counts after a rebuild and the newer one never again.
#[test]
fn of_two_places_the_older_one_counts_and_the_newer_one_is_void() {
    let (mut world, rows) = aged();
    let first = world.pack(&segments(&rows[..2]));
    rebuild_it(&mut world);
    hold_all(&mut world);
    assert!(world.index.segments(VOLUME).iter().all(|row| !row.is_moved()));
    assert!(!world.index.used_slots().contains(&first.slot));
    start(&mut world);
    world.pack(&segments(&rows[..3]));
    world.void_left();
    let second = world.pack(&segments(&rows[1..2]));
    rebuild_it(&mut world);
    hold_all(&mut world);
    assert_eq!(parcel(&world, rows[1].segment).moves, 1);
    assert!(!world.index.used_slots().contains(&second.slot));
}

/// P1. A pack that was written and that no row names counts for nothing, and its slot is not free before it is void.
#[test]
fn a_pack_that_nothing_was_moved_to_is_found_and_counts_for_nothing() {
    let (mut world, rows) = aged();
    let (lease, _) = world.write_pack(&segments(&rows[..2]));
    world.crash(0);
    assert_eq!(world.index.empty_packs(), [(lease.segment, lease.slot)]);
    assert!(world.index.used_slots().contains(&lease.slot));
    hold_all(&mut world);
    rebuild_it(&mut world);
    assert!(!world.index.used_slots().contains(&lease.slot));
    hold_all(&mut world);
}

/// P1. A header of a pack that has rotted hides nothing.
#[test]
fn a_rotten_header_of_a_pack_is_made_up_for_by_its_last_block() {
    let (mut world, rows) = aged();
    let pack = world.pack(&segments(&rows[..3]));
    world.void_left();
    world.rot(pack.slot, 0);
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(report.damaged.is_empty() && report.kept_slots.is_empty());
    assert_eq!(segments(&index.segments(VOLUME)), segments(&world.index.segments(VOLUME)));
}

/// P2. A pack that the disk wrote to a second slot too, whole or in part, is in one of them, and the other is out of use.
#[test]
fn a_pack_in_two_slots_is_in_one_of_them() {
    for (is_before, blocks) in [(false, 16), (true, 16), (false, 1), (true, 1)] {
        let (mut world, rows) = aged();
        let geometry = world.superblock.geometry;
        let before = world.index.lease(LeaseClass::Data).unwrap().slot;
        let pack = world.pack(&segments(&rows[..3]));
        world.void_left();
        let behind = world.index.lease(LeaseClass::Data).unwrap().slot;
        let copy = if is_before { before } else { behind };
        assert_eq!(copy < pack.slot, is_before);
        let mut bytes = vec![0; blocks * BLOCK_LEN];
        world.pool.read_at(geometry.slot_offset(pack.slot), &mut bytes).unwrap();
        world.pool.write(geometry.slot_offset(copy), &bytes);
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert_eq!((report.damaged.len(), report.notes.len()), (0, 1), "{report:?}");
        assert_eq!(report.kept_slots.len(), 1);
        world.index = index;
        for (offset, bytes) in report.mends {
            world.pool.write(offset, &bytes);
        }
        for volume in world.index.volumes() {
            let mut recovered = world.recover(volume).unwrap();
            let last = Lsn(world.authors[&volume].next_lsn.0 - 1);
            let mapped = world.resolve(&mut recovered.map, volume, 20 * 2048);
            assert_eq!(mapped, world.authors[&volume].mapped_at(last));
        }
    }
}

/// P2. The header of a parcel that has rotted is told by the check, and the same in the directory stands in for it; where
/// both have, the check and the rebuild tell.
#[test]
fn a_rotten_header_of_a_parcel_is_told() {
    let told = |world: &World, what: &str| {
        let report = check(&world.index, &world.pool, CheckOptions { verify_data: true });
        let problems = report.problems.iter();
        problems.filter(|problem| problem.volume == Some(VOLUME) && problem.detail.contains(what)).count()
    };
    let (mut world, rows) = aged();
    let pack = world.pack(&segments(&rows[..3]));
    world.void_left();
    let place = parcel(&world, rows[1].segment);
    for block in place.headers() {
        let sound = world.pool.bytes.clone();
        world.rot(pack.slot, block);
        assert_eq!(told(&world, "is damaged"), 1, "and nothing else: it is read by the other one");
        rebuild_it(&mut world);
        hold_all(&mut world);
        assert!(world.pool.bytes == sound, "the rebuild has mended it");
    }
    // In one its index alone.
    world.rot(pack.slot, place.copy);
    let at = world.at(pack.slot, place.block);
    world.pool.bytes[at + 160] ^= 4;
    assert_eq!(told(&world, "is damaged"), 3, "both, and the log");
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(matches!(report.damaged[0].kind, DamageKind::Parcel { .. }));
    assert!(recover(&world.pool, &world.superblock, &index.known(VOLUME, 0)).is_err());
    assert!(recover(&world.pool, &world.superblock, &index.known(OTHER_VOLUME, 0)).is_ok());
    // In both the start: nobody knows whose it was, but that it was.
    world.rot(pack.slot, place.block);
    assert_eq!(told(&world, "nor in the directory"), 1);
    let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(report.notes[0].contains("of 1 parcels no header is left"), "{report:?}");
    assert_eq!(index.segments(VOLUME).len(), rows.len());
}

/// P1, P2. A pack of which no parcel can be told any more may have the only copy of what was moved there: a rebuild tells of
/// it, and leaves it as it is.
#[test]
fn a_pack_of_which_no_parcel_is_told_is_kept() {
    for is_unreadable in [false, true] {
        let (mut world, rows) = aged();
        let pack = world.pack(&segments(&rows[..3]));
        world.void_left();
        let moved = segments(&rows[..3]).into_iter().filter_map(|segment| world.index.segment(segment));
        let places = moved.flat_map(|row| row.home.each_parcel().collect::<Vec<_>>());
        for block in places.flat_map(|place| place.headers()).collect::<Vec<_>>() {
            if is_unreadable {
                world.pool.unreadable.insert(world.superblock.geometry.block_offset(pack.slot, block) / 4096);
            } else {
                world.rot(pack.slot, block);
            }
        }
        let (_, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert!(report.notes.len() == 1 && report.notes[0].contains("no header of any parcel"), "{report:?}");
        assert_eq!(report.kept_slots, [pack.slot]);
        let slot = world.superblock.geometry.slot_offset(pack.slot)..=world.at(pack.slot, 31) as u64;
        assert!(!report.mends.iter().any(|(offset, _)| slot.contains(offset)), "it is written to");
    }
}

/// P1, P6. A pack of which a power cut left nothing but its own header is void, and no damage is told: where its first parcel
/// would be is what the slot held before, a segment, another pack or nothing.
#[test]
fn a_pack_of_which_nothing_but_its_header_is_there_is_void() {
    let (mut world, rows) = aged();
    let older = world.pack(&segments(&rows[2..3]));
    world.void_left();
    let (lease, _) = world.write_pack(&segments(&rows[..2]));
    for before in [Some(rows[3].a_slot()), Some(older.slot), None] {
        match before {
            Some(before) => {
                let from = world.at(before, 1);
                let to = world.at(lease.slot, 1);
                world.pool.bytes.copy_within(from..from + 30 * BLOCK_LEN, to);
            }
            None => world.zero(lease.slot, 1..31),
        }
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert!(report.notes.is_empty() && report.kept_slots.is_empty(), "{report:?}");
        assert!(!index.used_slots().contains(&lease.slot));
        assert_eq!(report.mends.len(), 2, "both of its headers");
    }
}

/// P1, P6. Whichever block of a pack the disk does not give, a rebuild finds all that was moved there.
#[test]
fn a_block_of_a_pack_that_cannot_be_read_costs_nothing_but_its_data() {
    let (mut world, rows) = aged();
    let pack = world.pack(&segments(&rows[..3]));
    world.void_left();
    let slot_blocks = world.superblock.geometry.slot_blocks();
    for block in 0..slot_blocks {
        let at = world.superblock.geometry.block_offset(pack.slot, block) / 4096;
        world.pool.unreadable = [at].into();
        rebuild_it(&mut world);
        let mut recovered = world.recover(VOLUME).unwrap();
        let last = Lsn(world.authors[&VOLUME].next_lsn.0 - 1);
        assert_eq!(world.resolve(&mut recovered.map, VOLUME, 20 * 2048), world.authors[&VOLUME].mapped_at(last));
    }
    world.pool.unreadable.clear();
    hold_all(&mut world);
}

/// P1. Where the place that a segment has left is damaged, and not void yet, the later one counts; where no place is whole
/// the volume is damaged, and never without the segment.
#[test]
fn a_later_place_counts_where_the_older_one_is_damaged() {
    type Damage = fn(&mut World, &SegmentRow);
    let first_batch_and_footer: Damage =
        |world, row| [1, 30, 31].iter().for_each(|block| world.rot(row.a_slot(), *block));
    let unreadable: Damage = |world, row| {
        let at = world.superblock.geometry.slot_offset(row.a_slot()) / 4096;
        world.pool.unreadable = (at + 1..at + 32).collect();
    };
    for (damage, is_moved_on) in [(first_batch_and_footer, false), (unreadable, false), (first_batch_and_footer, true)]
    {
        let (mut world, rows) = aged();
        let mut older = rows[1];
        if is_moved_on {
            world.pack(&segments(&rows[..2]));
            world.void_left();
            older = world.index.segment(older.segment).unwrap();
        }
        world.pack(&segments(&rows[1..3]));
        match older.home.each_parcel().next() {
            // Its index alone, so that it is known to be there.
            Some(place) => place.headers().into_iter().for_each(|block| {
                let at = world.at(place.slot, block);
                world.pool.bytes[at + 160] ^= 4;
            }),
            None => damage(&mut world, &older),
        }
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert!(report.damaged.is_empty() && report.notes.len() == 1, "{report:?}");
        let chosen = index.segment(older.segment).unwrap().home;
        let moves = |home: &Home| home.each_parcel().next().map_or(0, |parcel| parcel.moves);
        assert_eq!(moves(&chosen), moves(&older.home) + 1);
        // The other of the two was whole where it was.
        let whole = index.segment(rows[2].segment).unwrap();
        assert!(!whole.is_moved());
        world.pool.unreadable.clear();
        report.mends.into_iter().for_each(|(offset, bytes)| world.pool.write(offset, &bytes));
        world.index = index;
        hold_all(&mut world);
        rebuild_it(&mut world);
        assert_eq!(world.index.segment(older.segment).unwrap().home, chosen, "the older one is void");
        // Neither is whole.
        let (mut world, rows) = aged();
        world.pack(&segments(&rows[1..3]));
        damage(&mut world, &rows[1]);
        let place = parcel(&world, rows[1].segment);
        for block in place.headers() {
            let at = world.at(place.slot, block);
            world.pool.bytes[at + 160] ^= 4;
        }
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        assert_eq!((report.damaged[0].volume, report.kept_slots), (VOLUME, vec![rows[1].a_slot()]));
        assert!(recover(&world.pool, &world.superblock, &index.known(VOLUME, 0)).is_err());
    }
}

/// P1. A pack of which a power cut left the last block and not the first is found, by the next start and by a rebuild, before
/// its slot is used again, and so is one of which one header is void already.
#[test]
fn a_pack_of_which_one_header_is_there_is_found_and_becomes_void() {
    let void = |world: &World, pack| {
        let mut block = vec![0; BLOCK_LEN];
        SlotHeader::void_pack(world.superblock.pool, pack).encode(&mut block);
        block
    };
    for (lost, is_rebuilt) in [(0, false), (0, true), (31, false), (31, true)] {
        for is_void in [false, true] {
            let (mut world, rows) = aged();
            let (lease, _) = world.write_pack(&segments(&rows[..2]));
            let offset = world.superblock.geometry.block_offset(lease.slot, lost);
            let left = if is_void { void(&world, lease.segment) } else { void(&world, SegmentId(lease.segment.0 - 1)) };
            world.pool.write(offset, &left);
            // Nothing is made void that the index does not know.
            if is_void {
                world.index.give_up_packs(&[lease], &segments(&rows[..2]).into_iter().collect()).unwrap();
            }
            if is_rebuilt {
                rebuild_it(&mut world);
            } else {
                world.crash(0);
                assert_eq!(world.index.empty_packs(), [(lease.segment, lease.slot)]);
                world.void_empty_packs();
            }
            assert!(!world.index.used_slots().contains(&lease.slot));
            for block in [0, 31] {
                let at = world.at(lease.slot, block);
                assert_eq!(world.pool.bytes[at..at + BLOCK_LEN], void(&world, lease.segment), "block {block}");
            }
            hold_all(&mut world);
        }
    }
}

/// What may go wrong with a sector.
#[derive(Debug, Clone, Copy)]
enum Rot {
    /// A bit of the sector flips.
    Bit(usize),
    /// The sector is something else altogether.
    Whole,
}

/// Rots a sector of a slot; what was there.
fn rot_sector(world: &mut World, (slot, sector): (SlotIndex, u32), rot: Rot) -> (usize, Vec<u8>) {
    let at = world.at(slot, 0) + sector as usize * 512;
    let bytes = &mut world.pool.bytes[at..at + 512];
    let before = bytes.to_vec();
    match rot {
        Rot::Bit(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
        Rot::Whole => bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(7).wrapping_add(91)),
    }
    (at, before)
}

/// Whether a block of a slot is payload of a parcel that counts.
fn is_payload(world: &World, slot: SlotIndex, block: u32) -> bool {
    let slot_blocks = world.superblock.geometry.slot_blocks();
    let is_in = |row: &SegmentRow| {
        let Some(parcels) = row.home.parcels() else { return false };
        let survivors = world.index.survivors(row.segment).unwrap();
        parcels.each().filter(|(_, place)| place.slot == slot).any(|(part, place)| {
            let count = survivors.within(parcels.cut.span(part, slot_blocks)).count();
            (place.payload()..place.payload() + count).contains(&block)
        })
    };
    world.index.rows().any(|(row, _)| is_in(row))
}

/// Rots a sector of a pack, loses the index, and rebuilds it: all is there, and the pack as it was, but for the data that has
/// rotted; that is made good at the end.
fn rebuild_with_rot(world: &mut World, (slot, sector): (SlotIndex, u32), rot: Rot) {
    let (at, before) = rot_sector(world, (slot, sector), rot);
    rebuild_it(world);
    if is_payload(world, slot, sector / 8) {
        world.pool.bytes[at..at + 512].copy_from_slice(&before);
    }
    hold_all(world);
}

/// P1, P2. Any sector of a pack may rot, header, directory, parcels live and void: a rebuild has all that counts, and nothing
/// that is void.
#[test]
fn whichever_sector_of_a_pack_rots_a_rebuild_finds_all_of_it() {
    let (mut world, rows) = aged();
    let pack = world.pack(&segments(&rows[..3]));
    world.void_left();
    // The second of its parcels has moved on, and is void.
    world.pack(&segments(&rows[1..2]));
    world.void_left();
    let places = |world: &World| {
        let rows = world.index.segments(VOLUME).into_iter();
        rows.map(|row| (row.segment, row.home)).collect::<Vec<_>>()
    };
    let before = places(&world);
    for rot in [Rot::Whole, Rot::Bit(8 * 32), Rot::Bit(8 * 10), Rot::Bit(0)] {
        for sector in 0..32 * 8 {
            rebuild_with_rot(&mut world, (pack.slot, sector), rot);
            assert_eq!(places(&world), before, "sector {sector}, {rot:?}");
            let walked = walk_pack(&world.pool, &world.superblock, (pack.slot, pack.segment));
            let voids = walked.parcels.iter().map(|listed| (listed.is_void(), listed.is_whole()));
            assert_eq!(voids.collect::<Vec<_>>(), [(false, true), (true, true), (false, true)], "sector {sector}");
        }
    }
}

/// P1, P2. What was moved had been on stable storage, and so had all before it: rot there is not taken for a torn end, and a
/// read of it is an error.
#[test]
fn rot_before_what_was_moved_is_no_torn_end() {
    let mut world = World::new(16);
    let older = world.segment(VOLUME, &[&[write_op(0, 2)], &[write_op(2, 2)]]);
    world.sync(VOLUME);
    let newest = world.segment(VOLUME, &[&[write_op(4, 1)]]);
    world.fold(VOLUME);
    world.pack(&[newest.segment]);
    world.void_left();
    // The payload of its last batch: that it was durable was told by the batch of the newest.
    world.rot(older.a_slot(), 5);
    rebuild_it(&mut world);
    let mut recovered = world.recover(VOLUME).unwrap();
    assert_eq!(world.resolve(&mut recovered.map, VOLUME, 2048), world.authors[&VOLUME].mapped_at(Lsn(3)));
}

/// P2. A row that is wrong about what is left is found by the check.
#[test]
fn a_wrong_row_of_what_is_left_is_told() {
    let (mut world, rows) = aged();
    let (lease, mut moves) = world.write_pack(&segments(&rows[..1]));
    moves[0].survivors.insert(31);
    world.index.relocate(&[lease], moves).unwrap();
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: false });
    assert!(report.problems.iter().any(|problem| problem.detail.contains("wrong about which blocks are left")));
}

#[test]
fn a_parcel_that_no_row_names_is_told() {
    let (mut world, rows) = aged();
    let (lease, mut moves): (Lease, _) = world.write_pack(&segments(&rows[..2]));
    moves.pop();
    world.index.relocate(&[lease], moves).unwrap();
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: false });
    assert!(report.problems.iter().any(|problem| problem.detail.contains("named by no row")), "{report:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Operation>),
    Fold,
    /// Moves those of the oldest segments whose bits are set, and leaves the places before as they are when told so.
    Pack(u8, bool),
    /// The same, cut into as many parts as the power of two, in turn in two packs.
    PackApart(u8, u8, bool),
    /// Moves some parts of segments that were moved; then a stop.
    PackParts(u8, u8, u8),
    /// Leaves dead segments nothing but their trunks; of what was left some becomes void, then a stop.
    LeaveTrunk(u32),
    Rebuild,
    /// Rebuilds when a sector of one of the packs has rotted.
    Rot(prop::sample::Index, u32, Rot),
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        3 => (0_u64..24, 1_u64..4).prop_map(|(first, count)| write_op(first, count)),
        1 => (0_u64..24, 1_u64..9).prop_map(|(first, count)| trim_op(first, count)),
    ];
    prop_oneof![
        6 => proptest::collection::vec(operation, 1..4).prop_map(Step::Write),
        4 => Just(Step::Fold),
        4 => (1_u8..=255, prop::bool::weighted(0.3)).prop_map(|(bits, is_cut)| Step::Pack(bits, is_cut)),
        4 => (1_u8..=255, 1_u8..4, prop::bool::weighted(0.3))
            .prop_map(|(bits, cut, is_cut)| Step::PackApart(bits, cut, is_cut)),
        6 => (1_u8..=255, 1_u8..=255, 1_u8..4).prop_map(|(bits, parts, packs)| Step::PackParts(bits, parts, packs)),
        3 => any::<u32>().prop_map(Step::LeaveTrunk),
        3 => Just(Step::Rebuild),
        3 => (any::<prop::sample::Index>(), 0_u32..256, prop_oneof![(0_usize..4096).prop_map(Rot::Bit), Just(Rot::Whole)])
            .prop_map(|(pack, sector, rot)| Step::Rot(pack, sector, rot)),
    ]
}

/// Those of the oldest segments whose bits are set, as many as fit into a pack.
fn fitting(world: &mut World, bits: u8) -> Vec<SegmentId> {
    world.fold(VOLUME);
    world.void_left();
    free_dead(world);
    let rows = world.index.segments(VOLUME);
    let movable = rows.iter().take(rows.len().saturating_sub(1)).enumerate();
    let chosen = movable.filter(|(at, _)| *at < 8 && bits >> at & 1 == 1);
    let mut left = 30_u64;
    let fits = chosen.take_while(|(_, row)| {
        // Of as many parts as have a block, but no more than there can be; the header of each is there twice.
        let live = world.index.live_blocks(row.segment).unwrap();
        let size = live + 2 * (live + 1).min(8);
        let fits = left >= size;
        left = left.saturating_sub(size);
        fits
    });
    fits.map(|(_, row)| row.segment).collect()
}

/// Makes some of the places void that were left, as a stop in the midst leaves them.
fn void_some(world: &mut World, bits: u32) {
    let left: Vec<_> = world.index.left_places().flat_map(|(_, home)| home.each_parcel().collect::<Vec<_>>()).collect();
    for (at, parcel) in left.into_iter().enumerate() {
        if bits >> (at % 32) & 1 == 1 {
            world.void_parcel_at(parcel.slot, parcel.block);
        }
    }
}

/// Gives back what is dead, as the compactor does.
fn free_dead(world: &mut World) {
    while let Some(segment) = world.dead(VOLUME).first().copied() {
        if world.index.leave_trunk(segment).unwrap() {
            world.void_left();
        }
        let row = world.index.segment(segment).unwrap();
        match row.home {
            Home::Own(_) => world.release(&row),
            Home::Parcels(parcels) => {
                parcels.places().for_each(|parcel| world.void_parcel_at(parcel.slot, parcel.block));
                world.index.release(segment).unwrap();
            }
        }
    }
    world.void_empty_packs();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// P1, P5. Whatever is moved, wherever a stop comes, and whichever sector of a pack has rotted, a rebuild brings nothing
    /// back that was trimmed or overwritten, and loses nothing.
    #[test]
    fn a_rebuild_after_moves_gives_what_was_written(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = World::new(48);
        world.segment(VOLUME, &[&[write_op(0, 2)]]);
        world.fold(VOLUME);
        for step in steps {
            match step {
                Step::Write(operations) => {
                    if world.index.figures().slots_free > 6 { world.segment(VOLUME, &[&operations]); }
                }
                Step::Fold => {
                    world.fold(VOLUME);
                    world.void_left();
                    free_dead(&mut world);
                }
                Step::Pack(bits, is_cut) => {
                    let fits = fitting(&mut world, bits);
                    if !fits.is_empty() && world.index.figures().slots_free > 1 {
                        world.cut = Cut::WHOLE;
                        world.pack(&fits);
                        if !is_cut { world.void_left(); }
                    }
                }
                Step::PackApart(bits, cut, is_cut) => {
                    let fits = fitting(&mut world, bits);
                    if !fits.is_empty() && world.index.figures().slots_free > 2 {
                        world.cut = Cut::of_log2(cut).unwrap();
                        world.pack_apart(&fits);
                        if !is_cut { world.void_left(); }
                    }
                }
                Step::PackParts(bits, parts, packs) => {
                    let fits = fitting(&mut world, bits);
                    let fits: Vec<_> = fits.into_iter().filter(|segment| {
                        let row = world.index.segment(*segment).unwrap();
                        row.home.parcels().is_none_or(|parcels| !parcels.only(crate::format::PartSet::of_bits(parts)).is_empty())
                    }).collect();
                    if !fits.is_empty() && world.index.figures().slots_free > 3 {
                        world.cut = Cut::FINEST;
                        world.parts = crate::format::PartSet::of_bits(parts);
                        let (leases, moves) = world.write_packs(&fits, usize::from(packs));
                        world.index.relocate(&leases, moves).unwrap();
                        world.parts = crate::format::PartSet::ALL;
                        void_some(&mut world, u32::from(bits) * 7919);
                    }
                }
                Step::LeaveTrunk(bits) => {
                    world.fold(VOLUME);
                    world.void_left();
                    for segment in world.dead(VOLUME) {
                        world.index.leave_trunk(segment).unwrap();
                    }
                    void_some(&mut world, bits);
                }
                Step::Rebuild => {
                    rebuild_it(&mut world);
                    start(&mut world);
                }
                Step::Rot(pack, sector, rot) => {
                    let packs: Vec<_> = world.index.packs().collect();
                    if !packs.is_empty() {
                        let slot = packs[pack.index(packs.len())].1;
                        rebuild_with_rot(&mut world, (slot, sector), rot);
                        start(&mut world);
                    }
                }
            }
            hold_all(&mut world);
        }
        rebuild_it(&mut world);
        hold_all(&mut world);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// P1. Whatever rots of directory and parcels, sectors here and there or in a row, nothing is lost in silence.
    #[test]
    fn what_a_rebuild_does_not_find_it_tells(
        sectors in proptest::collection::btree_set(8_u32..31 * 8, 1..4),
        run in 0_u32..20,
    ) {
        let (mut world, rows) = aged();
        let pack = world.pack(&segments(&rows[..3]));
        world.void_left();
        let in_a_row = sectors.first().map_or(0..0, |first| *first..(first + run).min(31 * 8));
        for sector in sectors.iter().copied().chain(in_a_row).collect::<std::collections::BTreeSet<u32>>() {
            rot_sector(&mut world, (pack.slot, sector), Rot::Whole);
        }
        let (index, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
        world.index = index;
        let is_told = !report.notes.is_empty() || report.damaged.iter().any(|damage| damage.volume == VOLUME);
        let recovered = world.recover(VOLUME);
        if !is_told && let Ok(mut recovered) = recovered {
            let last = Lsn(world.authors[&VOLUME].next_lsn.0 - 1);
            prop_assert_eq!(recovered.next_lsn, last.next());
            let mapped = world.resolve(&mut recovered.map, VOLUME, 20 * 2048);
            prop_assert_eq!(mapped, world.authors[&VOLUME].mapped_at(last));
        }
    }
}

/// The rows of an index survive its being opened again.
#[test]
fn rows_of_what_was_moved_are_read_back() {
    let (mut world, rows) = aged();
    world.pack(&segments(&rows[..3]));
    let again = Index::open(world.index.store().clone(), &world.superblock, &world.pool).unwrap();
    assert_eq!(again.segments(VOLUME), world.index.segments(VOLUME));
    assert!(rows[..3].iter().all(|row| again.survivors(row.segment) == world.index.survivors(row.segment)));
    assert!(again.left_places().eq(world.index.left_places()));
    assert_eq!(again.figures(), world.index.figures());
}
