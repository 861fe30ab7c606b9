//! The ledger is found again as it was, whatever a crash left of the last batch, and never where something durable is gone.

use super::*;
use proptest::prelude::*;

fn state(ledger: &Ledger) -> (Vec<Tip>, Vec<HeadPlace>, Option<String>, u64) {
    let tips = ledger.tips.values().filter(|tip| tip.count > 0).copied().collect();
    (tips, ledger.heads.clone(), ledger.newest.as_ref().map(Head::line), ledger.end_block())
}

/// P7. After every write a start finds all of it.
#[test]
fn a_start_finds_what_was_written() {
    let mut world = World::new();
    assert_eq!(state(&world.recover().expect("a ledger")), state(&world.ledger));
    for day in 0..6 {
        for _ in 0..70 {
            let write = world.readings(&[1, 2, 3]);
            world.write(&write);
        }
        assert_eq!(state(&world.recover().expect("a ledger")), state(&world.ledger), "day {day}");
        let write = world.head(1, None);
        world.write(&write);
        let found = world.recover().expect("a ledger");
        assert_eq!(state(&found), state(&world.ledger), "day {day}");
        assert_eq!(found.next, world.ledger.next);
    }
}

/// P7. What was found may be in the page cache alone: nothing is appended before a sync.
#[test]
fn a_recovered_ledger_waits_for_a_sync() {
    let world = four_days();
    let mut ledger = world.recover().expect("a ledger");
    let note = NewEntry { tenant: TenantId(1), kind: Kind::Note, time_ms: 0, payload: "1" };
    assert_eq!(ledger.append(&[note]), Err(AppendError::Busy));
    ledger.on_durable();
    assert!(ledger.append(&[note]).is_ok());
    assert_eq!(ledger.append(&[note]), Err(AppendError::Busy), "one batch at a time");
}

/// P7. A volume that was never written to has no ledger; one of which block 0 is gone has lost it.
#[test]
fn an_empty_volume_has_no_ledger() {
    let mut world = four_days();
    world.disk.remove(&0);
    assert!(matches!(world.recover(), Err(RecoverError::Gone { block: 0 })));
    let mut recovery = Recovery::new(CAPACITY_BLOCKS);
    while let Some(blocks) = recovery.wants() {
        recovery.take(&blocks.flat_map(|_| vec![0; BLOCK_LEN]).collect::<Vec<_>>()).expect("zeros");
    }
    assert!(recovery.finish().expect("an answer").is_none());
}

/// P7. A block that has rotted or is gone stops the start, wherever it is read; a ledger that lacks some of what it had is
/// never gone on with.
#[test]
fn a_rotten_or_vanished_block_stops_the_start() {
    let mut world = four_days();
    for _ in 0..20 {
        let write = world.readings(&[1, 2, 3]);
        world.write(&write);
    }
    let end = world.ledger.end_block();
    let newest = world.ledger.heads().last().expect("a head").block;
    for block in newest..end {
        let whole = world.block(block);
        for bit in [0, 100, 4095 * 8 + 7, 500 * 8] {
            let mut rotten = whole.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            world.disk.insert(block, rotten);
            assert!(matches!(world.recover(), Err(RecoverError::Block { block: at, .. }) if at == block), "{block}");
        }
        world.disk.remove(&block);
        let found = world.recover();
        if block + 1 < end {
            assert!(found.is_err(), "block {block} of {end}: {found:?}");
        }
        world.disk.insert(block, whole);
    }
    assert!(world.recover().is_ok());
}

/// P7. So does a long stretch of vanished blocks, as long as bisection finds one behind it.
#[test]
fn a_vanished_stretch_stops_the_start() {
    let mut world = World::new();
    for _ in 0..200 {
        let write = world.note(1, "x");
        world.write(&write);
    }
    world.disk.retain(|block, _| !(40..120).contains(block));
    assert_eq!(world.recover().map(|_| ()), Err(RecoverError::Gone { block: 40 }));
}

/// P7. A full volume takes nothing more, and what is there stays.
#[test]
fn a_full_volume_refuses_whole_batches() {
    let (mut ledger, _) = Ledger::create(4, ID);
    ledger.on_durable();
    let long = format!("\"{}\"", "x".repeat(3000));
    let note = |payload| NewEntry { tenant: TenantId(1), kind: Kind::Note, time_ms: 0, payload };
    // Block 0, two for entries, and one for a head.
    assert_eq!(ledger.append(&[note(&long), note(&long), note(&long)]), Err(AppendError::Full));
    assert!(ledger.append(&[note(&long), note("1")]).is_ok());
    ledger.on_durable();
    assert_eq!(ledger.append(&[note("{")]), Err(AppendError::Payload(PayloadError::NotJson)));
    assert_eq!(ledger.tip(TenantId(1), Book::Account).count, 2);
    assert!(ledger.append(&[]).is_ok_and(|write| write.bytes.is_empty()), "of nothing there is nothing to wait for");
}

/// What happens to the ledger next.
#[derive(Debug, Clone)]
enum Step {
    Readings,
    /// A note of so many bytes.
    Note(u16),
    Head,
    Drop,
    /// The last write is cut off: of its blocks those stay of which the bit is set.
    Crash(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Readings),
        3 => (1..20_000_u16).prop_map(Step::Note),
        2 => Just(Step::Head),
        1 => Just(Step::Drop),
        5 => any::<u64>().prop_map(Step::Crash),
    ]
}

/// Writes what `bits` leave of `write`; whether that is all.
fn tear(world: &mut World, write: &BlockWrite, bits: u64) -> bool {
    let mut is_whole = true;
    for (place, (block, bytes)) in (write.first..).zip(write.bytes.chunks(BLOCK_LEN)).enumerate() {
        if bits >> (place % 64) & 1 == 1 {
            world.disk.insert(block, bytes.to_vec());
        } else {
            is_whole = false;
        }
    }
    is_whole
}

fn run(steps: &[Step]) {
    let mut world = World::new();
    let mut after = 0;
    for (place, step) in steps.iter().enumerate() {
        let before = state(&world.ledger);
        match step {
            Step::Readings => {
                let write = world.readings(&[1, 2]);
                world.write(&write);
            }
            Step::Note(len) => {
                let write = world.note(1, &"x".repeat(usize::from(*len)));
                world.write(&write);
            }
            Step::Head if world.day < 28 => {
                let write = world.head(1, None);
                world.write(&write);
            }
            Step::Drop => {
                let last = world.ledger.heads().len() as u64;
                if let Ok(write) = world.ledger.drop_readings_before(last) {
                    world.write(&write);
                    after = last;
                }
                for block in world.ledger.sweep().into_iter().flatten() {
                    if is_droppable(block, &world.block(block)).expect("a block") {
                        world.disk.remove(&block);
                    }
                }
            }
            Step::Head | Step::Crash(_) => {
                let bits = if let Step::Crash(bits) = step { *bits } else { 0 };
                let write = match bits >> 60 {
                    0..5 => world.readings(&[1, 2]),
                    5..12 => world.note(2, &format!("{place}").repeat(usize::try_from(bits >> 44 & 0x3fff).unwrap())),
                    _ if world.day < 28 => world.head(1, None),
                    _ => world.readings(&[2]),
                };
                let is_whole = tear(&mut world, &write, bits);
                let expected = if is_whole { state(&world.ledger) } else { before };
                world.ledger = world.recover().unwrap_or_else(|error| panic!("step {place}: {error}"));
                world.ledger.on_durable();
                assert_eq!(state(&world.ledger), expected, "step {place}");
                world.day = u8::try_from(world.ledger.heads().len()).unwrap();
            }
        }
    }
    assert_eq!(state(&world.recover().expect("a ledger")), state(&world.ledger));
    let write = world.readings(&[1, 2]);
    world.write(&write);
    world.day = world.day.min(29);
    let write = world.head(1, None);
    world.write(&write);
    let last = world.ledger.heads().len() as u64;
    let after = Some(after).filter(|after| *after > 0);
    let bundle = world.export(export(1, after, last)).expect("a bundle");
    verify(&bundle, trusting(1)).expect("a right bundle");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    /// P7. Through crashes that leave any blocks of a batch, over what earlier crashes left, the ledger has every batch that was
    /// durable, and of the last one all or nothing.
    #[test]
    fn no_durable_entry_is_lost_and_no_batch_is_halved(steps in proptest::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}
