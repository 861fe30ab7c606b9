//! Copies that share: what is lent stays, wherever it is moved to, until those that borrow are on their own.

use super::*;
use crate::format::OperationKind;
use crate::map::Location;
use crate::pool::{Index, Pledge};
use crate::recover::tests::world::copy_op;

/// A volume of which a segment lends a block that it has overwritten since, and the segments of the copy and of the rest.
fn lending() -> (World, [SegmentRow; 3]) {
    let mut world = World::new(30);
    let lender = world.segment(VOLUME, &[&[write_op(0, 12)]]);
    let copy = world.copy_of(VOLUME, 3, 500);
    let borrower = world.segment(VOLUME, &[&[copy]]);
    let newest = world.segment(VOLUME, &[&[write_op(0, 12)]]);
    world.fold(VOLUME);
    (world, [lender, borrower, newest])
}

fn has_entry(world: &World, row: &SegmentRow, kind: OperationKind) -> bool {
    let place = world.index.segment(row.segment).unwrap().home.parcels().unwrap().of(0).unwrap();
    let walked = walk_pack(&world.pool, &world.superblock, (place.slot, place.pack));
    let listed = walked.parcels.iter().find(|listed| listed.start.header.segment == row.segment).unwrap();
    let at = world.at(place.slot, place.block);
    let parcel = listed.start.with_index(&world.pool.bytes[at..at + place.header_blocks as usize * 4096]).unwrap();
    parcel.entries.iter().any(|entry| entry.operation.kind == kind)
}

/// P1. What is lent stays though no page names it; a copy that is moved is on its own, and then what it borrowed goes.
#[test]
fn what_is_lent_goes_once_the_copy_is_on_its_own() {
    let (mut world, [lender, borrower, _]) = lending();
    assert_eq!(world.dead(VOLUME), [], "no page names the first segment, and a copy does");
    assert!(world.index.is_lent(lender.segment) && world.index.loans(borrower.segment).is_some());
    // The lender is moved: what is left of it says nothing of the volume.
    world.pack(&[lender.segment]);
    world.void_left();
    assert!(has_entry(&world, &lender, OperationKind::Lent) && !has_entry(&world, &lender, OperationKind::Write));
    let mut disk = Disk::of(world);
    disk.is_clean();
    // The borrower is moved: until its slot is void a rebuild may find it there.
    disk.world.pack(&[borrower.segment]);
    assert!(has_entry(&disk.world, &borrower, OperationKind::Write));
    assert!(disk.world.index.loans(borrower.segment).is_none() && disk.world.index.is_lent(lender.segment));
    disk.is_clean();
    disk.world.void_left();
    assert!(!disk.world.index.is_lent(lender.segment));
    assert_eq!(disk.world.dead(VOLUME), [lender.segment]);
    disk.is_clean();
}

/// P1. What a copy borrows is told by its segment alone, and by the log when the store has lost it.
#[test]
fn loans_are_found_again() {
    let (world, [lender, borrower, _]) = lending();
    let loans = world.index.loans(borrower.segment).cloned();
    let rebuilt = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap().0;
    assert_eq!((rebuilt.loans(borrower.segment).cloned(), rebuilt.is_lent(lender.segment)), (loans.clone(), true));
    let reopened = Index::open(world.index.store().clone(), &world.superblock, &world.pool).unwrap();
    assert_eq!(reopened.loans(borrower.segment).cloned(), loans);
    // A copy that is durable and not folded; the store loses all that was not.
    let mut world = World::new(30);
    let lender = world.segment(VOLUME, &[&[write_op(0, 12)]]);
    world.fold(VOLUME);
    world.index.make_durable().unwrap();
    let copy = world.copy_of(VOLUME, 3, 500);
    world.segment(VOLUME, &[&[copy]]);
    world.segment(VOLUME, &[&[write_op(0, 12)]]);
    world.crash(0);
    assert!(!world.index.is_lent(lender.segment));
    world.author(VOLUME).map = world.restart(VOLUME).map;
    assert!(world.index.is_lent(lender.segment));
    world.fold(VOLUME);
    assert_eq!(world.dead(VOLUME), []);
    Disk::of(world).is_clean();
}

/// P5. A block that is lent, and was trimmed where it was written, does not come back, though the trim is dropped.
#[test]
fn what_was_trimmed_and_is_lent_does_not_come_back() {
    let mut world = World::new(30);
    let lender = world.segment(VOLUME, &[&[write_op(0, 12)]]);
    let copy = world.copy_of(VOLUME, 3, 500);
    let borrower = world.segment(VOLUME, &[&[copy]]);
    let trimmer = world.segment(VOLUME, &[&[trim_op(0, 12)]]);
    world.segment(VOLUME, &[&[write_op(800, 1)]]);
    world.fold(VOLUME);
    world.pack(&[lender.segment]);
    world.void_left();
    world.pack(&[borrower.segment]);
    assert!(world.index.has_spent_trims(&trimmer) || world.index.left_places().next().is_some());
    world.void_left();
    assert!(world.index.has_spent_trims(&trimmer));
    world.pack(&[trimmer.segment]);
    world.void_left();
    Disk::of(world).is_clean();
}

/// A segment of another volume, all of it overwritten, that one of ours borrows from, and that one; the pledge has kept it until
/// then.
fn lent_abroad() -> (Disk, SegmentRow, SegmentRow) {
    let mut world = World::new(30);
    let lender = world.segment(OTHER_VOLUME, &[&[write_op(0, 12)]]);
    world.segment(OTHER_VOLUME, &[&[write_op(0, 12)]]);
    let source = Location { segment: lender.segment, block: 2 };
    let pledge = Pledge::default();
    world.index.pledge(pledge.clone(), vec![(source, 3)]);
    world.fold(OTHER_VOLUME);
    assert_eq!(world.dead(OTHER_VOLUME), [], "it is pledged");
    let borrower = world.segment(VOLUME, &[&[copy_op(70, 3, source)]]);
    drop(pledge);
    world.segment(VOLUME, &[&[write_op(100, 1)]]);
    world.fold(VOLUME);
    (Disk::of(world), lender, borrower)
}

/// P1, P5. A volume that is deleted is erased once what others borrow from it is theirs, and a pledge keeps what is about to be borrowed.
#[test]
fn a_volume_that_lends_is_erased_when_its_borrowers_are_on_their_own() {
    let (mut disk, lender, borrower) = lent_abroad();
    disk.act(|compactor, context| compactor.erase(context, OTHER_VOLUME));
    assert!(!disk.world.index.is_being_erased(OTHER_VOLUME) && disk.world.index.segment(lender.segment).is_some());
    disk.run();
    let row = disk.world.index.segment(borrower.segment).unwrap();
    assert!(row.is_moved() && !disk.world.index.is_lent(lender.segment), "{row:?}");
    disk.act(|compactor, context| compactor.erase(context, OTHER_VOLUME));
    disk.run();
    assert_eq!(disk.world.index.segments(OTHER_VOLUME), []);
    judge(&disk.world).unwrap();
}

/// P1. A block that a segment lends to itself stays for a copy of the copy that is not in the log yet when the segment is moved.
#[test]
fn what_a_segment_lends_to_itself_is_moved_with_it() {
    let mut world = World::new(30);
    world.open(VOLUME);
    world.append(VOLUME, &[write_op(0, 12)]);
    let copy = world.copy_of(VOLUME, 3, 500);
    world.append(VOLUME, &[copy]);
    let segment = world.seal(VOLUME).segment;
    world.segment(VOLUME, &[&[write_op(0, 12)]]);
    world.fold(VOLUME);
    let pending = world.copy_of(VOLUME, 500, 700);
    world.pack(&[segment]);
    world.segment(VOLUME, &[&[pending]]);
    world.void_left();
    world.segment(VOLUME, &[&[write_op(900, 1)]]);
    world.fold(VOLUME);
    Disk::of(world).is_clean();
}

/// P5. A segment of which no page names a block holds no lender, though it stays for its trims.
#[test]
fn a_borrower_that_nobody_reads_holds_no_lender() {
    let mut world = World::new(30);
    let lender = world.segment(VOLUME, &[&[write_op(0, 12)]]);
    let copy = world.copy_of(VOLUME, 3, 500);
    world.segment(VOLUME, &[&[copy], &[trim_op(700, 1)]]);
    world.segment(VOLUME, &[&[write_op(0, 12), write_op(500, 1)]]);
    assert!(world.index.is_lent(lender.segment));
    assert_eq!(world.fold(VOLUME)[0], lender.segment);
    assert!(!world.index.is_lent(lender.segment));
    world.release(&lender);
    world.segment(VOLUME, &[&[write_op(900, 1)]]);
    let (rebuilt, report) = rebuild(MemoryStore::default(), &world.superblock, &world.pool).unwrap();
    assert!(report.notes.is_empty() && rebuilt.segment(lender.segment).is_none(), "{report:?}");
    judge(&world).unwrap();
}

/// A life of writes, trims, copies and snapshots, with compaction and kills between; `Err` where something is lost.
fn live(seed: u64) -> Result<(), String> {
    let mut chance = Chance(seed);
    let mut world = World::with_slots(256 << 10, 40);
    let mut generation = 0;
    let mut disk = Disk::of(world);
    for _ in 0..24 {
        world = disk.world;
        world.open(VOLUME);
        for _ in 0..chance.below(4) + 1 {
            let batch: Vec<Operation> = (0..chance.below(6) + 1)
                .map(|_| {
                    let block = |chance: &mut Chance| chance.below(30) + 4096 * chance.below(2);
                    let target = block(&mut chance);
                    match chance.below(8) {
                        0 => trim_op(target, chance.below(4) + 1),
                        1 | 2 => write_op(target, chance.below(3) + 1),
                        _ => world.copy_of(VOLUME, block(&mut chance), target),
                    }
                })
                .collect();
            world.append(VOLUME, &batch);
        }
        if chance.below(6) == 0 {
            world.append(VOLUME, &[snapshot_op(generation)]);
            generation += 1;
        }
        world.seal(VOLUME);
        if chance.below(3) > 0 {
            world.fold(VOLUME);
        }
        disk.world = world;
        disk.settle();
        disk.act(|compactor, context| compactor.look_at(context, VOLUME));
        disk.run();
        if chance.below(4) == 0 {
            disk.world.sync(VOLUME);
            disk.world.crash(usize::try_from(chance.below(20)).unwrap());
            disk.world.author(VOLUME).map = disk.world.restart(VOLUME).map;
            disk.world.fold(VOLUME);
            disk = Disk::of(disk.world);
        }
        judge(&disk.world)?;
        let (index, report) = rebuild(MemoryStore::default(), &disk.world.superblock, &disk.world.pool).unwrap();
        if !report.damaged.is_empty() {
            return Err(format!("a rebuild finds damage: {report:?}"));
        }
        let own = std::mem::replace(&mut disk.world.index, index);
        let found = judge(&disk.world);
        disk.world.index = own;
        found.map_err(|found| format!("after a rebuild: {found}"))?;
    }
    Ok(())
}

fn judge(world: &World) -> Result<(), String> {
    let report = check(&world.index, &world.pool, CheckOptions { verify_data: true });
    if !report.is_clean() {
        return Err(format!("{:#?}", report.problems));
    }
    let mut recovered = world.recover(VOLUME).map_err(|damage| damage.to_string())?;
    let author = &world.authors[&VOLUME];
    let expected = author.mapped_at(units::Lsn(author.next_lsn.0 - 1));
    if world.resolve(&mut recovered.map, VOLUME, 8192) == expected { Ok(()) } else { Err("another map".to_owned()) }
}

/// P1, P2, P5. Whatever is written, copied, moved and lost in between, every block is there, by the index and without it.
#[test]
fn copies_live_through_compaction_and_kills() {
    for seed in 0..120 {
        live(seed).unwrap_or_else(|found| panic!("seed {seed}: {found}"));
    }
}

/// P6. A borrower that is overwritten while it is moved for its lender's sake is no suspect.
#[test]
fn a_lender_that_goes_while_its_borrower_is_moved_makes_no_suspect() {
    let mut found = Vec::new();
    for steps in 0..60 {
        let (mut disk, lender, borrower) = lent_abroad();
        disk.act(|compactor, context| compactor.erase(context, OTHER_VOLUME));
        disk.act(Compactor::tick);
        for _ in 0..steps {
            disk.step();
        }
        if disk.world.index.segment(borrower.segment).is_none_or(|row| row.is_moved()) {
            break;
        }
        // What was copied is overwritten, and folded; the deletion is tried again.
        disk.world.segment(VOLUME, &[&[write_op(70, 3)]]);
        disk.world.segment(VOLUME, &[&[write_op(101, 1)]]);
        disk.world.fold(VOLUME);
        let waits = std::mem::take(&mut disk.actions);
        disk.act(|compactor, context| compactor.erase(context, OTHER_VOLUME));
        while disk.step() {}
        let is_gone = disk.world.index.segment(lender.segment).is_none();
        // What the round waited for comes only now; the slot has been written to by others.
        let lease = disk.world.index.lease(crate::pool::LeaseClass::Data).ok();
        if let Some(lease) = lease.filter(|_| is_gone) {
            let geometry = disk.world.superblock.geometry;
            (0..geometry.slot_blocks())
                .for_each(|block| disk.world.pool.write(geometry.block_offset(lease.slot, block), &[0xaa; 4096]));
        }
        disk.actions.splice(0..0, waits);
        disk.run();
        if disk.compactor.figures().suspects > 0 {
            found.push((steps, is_gone, disk.compactor.figures().last_error.clone()));
        }
    }
    assert!(found.is_empty(), "{found:?}");
}
