use super::*;
use crate::format::SlotHeader;
use crate::recover::tests::world::{VOLUME, World, content_of, resize_op, snapshot_op, trim_op, write_op};
use units::BlockIndex;

fn mark_op(wall_ms: u64) -> Operation {
    Operation::without_range(OperationKind::TimeMark { wall_ms, meter: None })
}

/// A volume with a base at operation 3, and marks of four seconds in two sealed segments and an open one.
fn world_with_history() -> (World, Boundary) {
    let mut world = World::new(16);
    world.segment(VOLUME, &[&[write_op(0, 4), write_op(9, 1), snapshot_op(0)], &[mark_op(1000), write_op(1, 1)]]);
    world.index.begin_history(VOLUME);
    world.author(VOLUME).map.begin_generation(1);
    world.segment(VOLUME, &[&[mark_op(2000), trim_op(0, 1), write_op(5, 2)], &[write_op(1, 1), trim_op(2, 2)]]);
    world.segment(
        VOLUME,
        &[&[mark_op(2000), write_op(1, 2)], &[mark_op(3000), trim_op(9, 1), resize_op(8 << 12), write_op(7, 1)]],
    );
    world.open(VOLUME);
    world.append(VOLUME, &[mark_op(3000), write_op(0, 1)]);
    world.append(VOLUME, &[mark_op(4000), resize_op(1 << 40), write_op(3000, 1)]);
    world.fold(VOLUME);
    let base = world.index.boundaries(VOLUME).next().unwrap().boundary;
    world.index.keep_history(&BTreeMap::from([(VOLUME, base.lsn)]));
    world.index.end_beginning();
    (world, base)
}

/// The volume's blocks after `lsn`, as they were written.
fn blocks_at(world: &World, lsn: Lsn) -> BTreeMap<u64, Vec<u8>> {
    let author = &world.authors[&VOLUME];
    let of_location = |(block, (location, _)): (u64, (Location, u32))| {
        let (lsn, first) = (1..).zip(&author.history).find_map(|(lsn, (operation, first, _))| {
            let first = first.filter(|first| first.segment == location.segment)?;
            let by = u64::from(location.block).checked_sub(u64::from(first.block))?;
            (by < operation.range.count).then_some((Lsn(lsn), first))
        })?;
        Some((block, content_of(lsn, u32::from(location.block - first.block))))
    };
    author.mapped_at(lsn).into_iter().filter_map(of_location).collect()
}

/// What a clone of the base is made by the changes up to a moment, and its size.
fn replayed(world: &World, base: Boundary, until_ms: u64) -> Result<(BTreeMap<u64, Vec<u8>>, u64), HistoryError> {
    let (mut blocks, mut size_bytes) = (blocks_at(world, base.lsn), base.size_bytes);
    let targets = world.index.history_targets(VOLUME, base.lsn);
    Replay::new(base, until_ms).run((&world.pool, &world.superblock), &targets, &mut |change| {
        match change {
            Change::Resize(to) => size_bytes = to,
            Change::Zero(range) => {
                assert!(range.end() <= size_bytes);
                blocks.retain(|block, _| !range.blocks_touched().contains(BlockIndex(*block)));
            }
            Change::Write(range, buffer) => {
                assert!(range.end() <= size_bytes);
                let contents = buffer.as_slice().chunks(BLOCK_LEN).map(<[u8]>::to_vec);
                blocks.extend(range.blocks_touched().blocks().map(|block| block.0).zip(contents));
            }
        }
        Ok(())
    })?;
    blocks.retain(|block, _| *block < size_bytes.div_ceil(4096));
    Ok((blocks, size_bytes))
}

/// P2. At each second the volume is what had been written before the first mark of that second or a later one, also where that is
/// overwritten, trimmed or cut off since, and whichever segments it lies in.
#[test]
fn the_past_is_what_was_written_before_the_mark() {
    let (world, base) = world_with_history();
    let ends = [(500, 3), (1000, 3), (1001, 5), (2000, 5), (2001, 12), (3000, 12), (3500, 18), (4000, 18), (9000, 21)];
    for (until_ms, lsn) in ends {
        let (blocks, size_bytes) = replayed(&world, base, until_ms).unwrap();
        let mut wanted = blocks_at(&world, Lsn(lsn));
        wanted.retain(|block, _| *block < size_bytes.div_ceil(4096));
        assert_eq!(blocks.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>(), "at {until_ms}");
        assert_eq!(blocks, wanted, "at {until_ms}");
        assert_eq!(size_bytes, if lsn == 18 { 8 << 12 } else { 1 << 40 }, "at {until_ms}");
    }
}

/// P2. What is kept for history's sake neither leaves nor moves; when less is kept, it does.
#[test]
fn history_stays_until_it_is_given_up() {
    let (mut world, base) = world_with_history();
    let rows = world.index.segments(VOLUME);
    let [first, second, ..] = rows.as_slice() else { panic!("{rows:?}") };
    world.seal(VOLUME);
    let overwritten = world.segment(VOLUME, &[&[write_op(40, 1)]]);
    world.segment(VOLUME, &[&[write_op(40, 1)]]);
    world.segment(VOLUME, &[&[write_op(41, 1)]]);
    assert_eq!(world.fold(VOLUME), []);
    assert!(!world.index.may_move(first.segment), "what the base lies in is kept whole");
    assert!(world.index.history_blocks(VOLUME) > 0);
    let later = BTreeMap::from([(VOLUME, second.last_lsn.unwrap())]);
    assert_eq!(world.index.keep_history(&later), [VOLUME]);
    assert!(world.index.may_move(first.segment) && world.index.may_move(second.segment));
    assert_eq!(world.index.keep_history(&later), []);
    let (lease, moves) = world.write_pack(&[second.segment]);
    world.index.relocate(&[lease], moves).unwrap();
    assert!(replayed(&world, base, 500).is_ok(), "all of that is in the first");
    assert_eq!(replayed(&world, base, 9000), Err(HistoryError::Gone(Lsn(6))), "a gap is told");
    world.index.keep_history(&BTreeMap::new());
    assert!(!world.index.has_history());
    assert_eq!(world.dead(VOLUME), [overwritten.segment]);
}

/// P2. Where the last segment has gone since it was listed, that is told too.
#[test]
fn an_end_that_is_missing_is_told() {
    let (mut world, base) = world_with_history();
    let targets = world.index.history_targets(VOLUME, base.lsn);
    let last = targets.last().unwrap().row;
    world.pool.write(world.superblock.geometry.block_offset(last.a_slot(), 0), &{
        let mut block = vec![0; BLOCK_LEN];
        SlotHeader::void(world.superblock.pool, last.segment, VOLUME, last.first_lsn).encode(&mut block);
        block
    });
    assert_eq!(replayed(&world, base, 9000), Err(HistoryError::Gone(last.first_lsn)));
}

/// P2. A block of the past that has rotted is told, and no other bytes are taken for it.
#[test]
fn rot_in_the_past_is_told() {
    let (mut world, base) = world_with_history();
    let second = world.index.segments(VOLUME)[1];
    // Of the batch with the trim: slot header, batch header, then what was written to block 5.
    world.rot(second.a_slot(), 2);
    assert_eq!(replayed(&world, base, 9000), Err(HistoryError::Rotten(second.segment, 2)));
}
