//! What a disk that loses what it had, somebody without the key, and whoever has the key may try.

use super::super::blocks::{Line, Place, encode_batch};
use super::super::head::Statement;
use super::super::merkle;
use super::super::proof::Proof;
use super::*;
use proptest::prelude::*;

fn notes(count: usize, bytes: usize) -> Vec<(Kind, u64, String)> {
    (0..count).map(|_| (Kind::Note, 1, format!("\"{}\"", "x".repeat(bytes)))).collect()
}

/// Batches of a block, and two of 160, with no head yet; and where the last begins.
fn long_batches() -> (World, u64) {
    let mut world = World::new();
    let mut last = 0;
    for (place, blocks) in [150, 160, 5, 160, 5].into_iter().enumerate() {
        let batches = if place % 2 == 0 { vec![notes(1, 10); blocks] } else { vec![notes(blocks / 16, 64_000)] };
        for batch in batches {
            let write = world.append(&batch);
            last = write.first;
            world.write(&write);
        }
    }
    (world, last)
}

/// P7. While there is no head, a stretch of up to 63 vanished blocks anywhere before the last batch
/// stops the start: nothing durable is taken for never written.
#[test]
fn a_vanished_block_is_never_the_end() {
    let (mut world, last) = long_batches();
    assert!(world.recover().is_ok());
    let mut taken = Vec::new();
    for (run, step) in [(1, 1), (2, 20), (63, 20)] {
        for first in (1..last - run).step_by(step) {
            let mut gone = world.disk.split_off(&first);
            let mut behind = gone.split_off(&(first + run));
            world.disk.append(&mut behind);
            if let Ok(found) = world.recover() {
                taken.push((first, run, found.end_block()));
            }
            world.disk.append(&mut gone);
        }
    }
    assert!(taken.is_empty(), "of a ledger of {} blocks (from, blocks gone, end found): {taken:?}", last + 1);
}

fn recover_any(world: &World) -> Result<Option<Ledger>, RecoverError> {
    let mut recovery = Recovery::new(CAPACITY_BLOCKS);
    while let Some(blocks) = recovery.wants() {
        recovery.take(&blocks.map(|block| world.block(block)).collect::<Vec<_>>().concat())?;
    }
    recovery.finish()
}

/// P7. A ledger of which block 0 is gone is not taken for a new volume, after old readings were dropped neither.
#[test]
fn a_swept_ledger_without_block_0_is_lost_and_not_new() {
    let mut world = four_days();
    let write = world.ledger.drop_readings_before(3).expect("a head");
    world.write(&write);
    for block in world.ledger.sweep().expect("blocks to look at") {
        if is_droppable(block, &world.block(block)).expect("a block") {
            world.disk.remove(&block);
        }
    }
    world.disk.remove(&0);
    assert!(matches!(recover_any(&world), Err(RecoverError::Gone { block: 0 })), "{:?}", recover_any(&world));
}

/// P7. What is appended can be read again, or is refused: a number that no line can say is not written.
#[test]
fn nothing_unreadable_is_appended() {
    for (tenant, time_ms) in [(1, (1 << 63) - 1), (1, 1 << 63), (1, u64::MAX), (1 << 63, 0), ((1 << 63) - 1, 0)] {
        let mut world = World::new();
        let note = NewEntry { tenant: TenantId(tenant), kind: Kind::Note, time_ms, payload: "1" };
        if let Ok(write) = world.ledger.append(&[note]) {
            world.write(&write);
        }
        let write = world.note(1, "behind");
        world.write(&write);
        assert!(world.recover().is_ok(), "tenant {tenant}, time {time_ms}: {:?}", world.recover().err());
    }
}

/// P7. A head is shown once it is durable: a power cut before that makes another of the same number, and both would be signed.
#[test]
fn a_head_is_not_shown_before_it_is_durable() {
    let mut world = World::new();
    world.day(&[1, 2], 1, None);
    let before = (world.ledger.newest().map(Head::number), world.ledger.heads().len());
    let write = world.head(1, None);
    let shown = (world.ledger.newest().map(Head::number), world.ledger.heads().len());
    let continuation = world.ledger.continuation(1).is_some();
    world.write(&write);
    assert_eq!((shown, continuation), (before, false));
    assert_eq!((world.ledger.newest().map(Head::number), world.ledger.heads().len()), (Some(2), 2));
}

/// P7. A sweep that another drop overtakes leaves nothing that nobody looks at.
#[test]
fn a_drop_during_a_sweep_is_swept_too() {
    let mut world = four_days();
    let write = world.ledger.drop_readings_before(2).expect("a head");
    world.write(&write);
    let swept = world.ledger.sweep().expect("blocks to look at");
    let write = world.ledger.drop_readings_before(3).expect("a head");
    world.write(&write);
    let write = world.ledger.on_swept(swept.end).expect("a write");
    world.write(&write);
    let heads = world.ledger.heads();
    assert_eq!(swept, 1..heads[1].block);
    assert_eq!(world.ledger.sweep(), Some(heads[1].block..heads[2].block));
}

/// P7. Batches that were torn one after the other in the same place, alike in their first blocks or in their last, leave nothing,
/// or one of them whole: never a mixture. What comes in their place is then found, whatever is left of them.
#[test]
fn no_mixture_of_torn_batches_is_taken() {
    for is_alike_first in [true, false] {
        for bits in 0..1_u32 << 9 {
            let mut world = World::new();
            let write = world.note(1, "durable");
            world.write(&write);
            let (before, mut given_out) = (world.ledger.next, Vec::new());
            for torn in 0..3 {
                let (own, same) = (format!("\"{torn}{}\"", "x".repeat(4500)), format!("\"{}\"", "y".repeat(4500)));
                let payloads = if is_alike_first { [same, own] } else { [own, same] };
                let write = world.append(&payloads.map(|payload| (Kind::Note, 1, payload)));
                assert_eq!(write.bytes.len(), 3 * BLOCK_LEN);
                given_out.push(world.ledger.next);
                for (place, (block, bytes)) in (write.first..).zip(write.bytes.chunks(BLOCK_LEN)).enumerate() {
                    if bits >> (3 * torn + place) & 1 == 1 {
                        world.disk.insert(block, bytes.to_vec());
                    }
                }
                world.ledger = world.recover().expect("a ledger");
                world.ledger.on_durable();
                let next = world.ledger.next;
                assert!(next == before || given_out.contains(&next), "{bits:o}, torn {torn}");
                if next != before {
                    break;
                }
            }
            for text in ["a", "b"] {
                let write = world.note(1, text);
                world.write(&write);
                assert_eq!(world.recover().expect("a ledger").next, world.ledger.next, "{bits:o}");
            }
        }
    }
}

/// P7. A volume that is full to the last block, or to the one before, is found as it is, and again once it has grown.
#[test]
fn a_full_volume_is_found() {
    for capacity in 2..80_u64 {
        let (mut ledger, start) = Ledger::create(capacity, ID);
        ledger.on_durable();
        let mut disk = start.bytes;
        let payload = format!("\"{}\"", "x".repeat(4000));
        let note = NewEntry { tenant: TenantId(1), kind: Kind::Note, time_ms: 0, payload: &payload };
        let date = Date::new(2026, 11, 1).expect("a day");
        loop {
            let write = if ledger.end_block() % 5 == 0 {
                ledger.sign_head(date, &key(1), None)
            } else {
                ledger.append(&[note])
            };
            let Ok(write) = write else { break };
            disk.extend(write.bytes);
            ledger.on_durable();
        }
        for grown in [capacity, capacity + 1, 1 << 30] {
            let mut recovery = Recovery::new(grown);
            while let Some(blocks) = recovery.wants() {
                let block = |block: u64| {
                    let at = usize::try_from(block).unwrap() * BLOCK_LEN;
                    disk.get(at..at + BLOCK_LEN).map_or_else(|| vec![0; BLOCK_LEN], <[u8]>::to_vec)
                };
                recovery.take(&blocks.map(block).collect::<Vec<_>>().concat()).expect("blocks");
            }
            let found = recovery.finish().expect("an answer").expect("a ledger");
            assert_eq!(
                (found.next, &found.heads, found.newest),
                (ledger.next, &ledger.heads, ledger.newest),
                "{capacity}"
            );
        }
    }
}

/// The lines of `bundle` that `bits` has, but the first, between two heads by book.
fn subset<'a>(lines: &[&'a [u8]], bits: u32) -> Vec<&'a [u8]> {
    let mut kept: Vec<&[u8]> =
        lines.iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1).map(|(_, line)| *line).collect();
    let book = |line: &[u8]| Entry::parse(line.strip_suffix(b"\n").unwrap_or(line)).map(|entry| entry.kind.book());
    for part in kept.split_mut(|line| book(line).is_err()) {
        part.sort_by_key(|line| book(line).ok());
    }
    kept
}

/// P7. Of all bundles that can be made of the lines of one, whatever its first line then says, those are right that the ledger
/// could have given out, and those of a book from its first entry on without the first heads: nothing in a bundle tells when a
/// tenant came.
#[test]
fn what_can_be_cut_out_of_a_bundle_is_a_bundle_of_another_period() {
    let mut world = World::new();
    world.day(&[1, 2], 1, None);
    world.day(&[1, 2], 1, None);
    let whole = world.export(export(2, None, 2)).expect("a bundle");
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').skip(1).collect();
    let mut honest = Vec::new();
    for books in [Books::Both, Books::Account] {
        for (after, last) in [(None, 1), (None, 2), (Some(1), 1), (Some(1), 2), (Some(2), 2)] {
            honest.push(world.export(Export { books, ..export(2, after, last) }).expect("a bundle"));
        }
    }
    let mut others = Vec::new();
    for books in ["both", "account"] {
        for origin in [true, false] {
            for (first, last) in [(1, 1), (1, 2), (2, 2)] {
                let header = format!(
                    "{{\"bundle\":1,\"tenant\":2,\"books\":\"{books}\",\"origin\":{origin},\"first\":{first},\"last\":{last}}}\n"
                );
                for bits in 0..1 << lines.len() {
                    let bundle = [&[header.as_bytes()][..], &subset(&lines, bits)].concat().concat();
                    if verify(&bundle, trusting(1)).is_ok() && !honest.contains(&bundle) {
                        others.push((books, origin, first, last, bits));
                    }
                }
            }
        }
    }
    let without_first_head = ["both", "account"].map(|books| (books, true, 2, 2));
    let found: Vec<_> = others.iter().map(|(books, origin, first, last, _)| (*books, *origin, *first, *last)).collect();
    assert_eq!(found, without_first_head, "{others:?}");
}

fn reading() -> impl Strategy<Value = Reading> {
    let value = prop_oneof![Just(0), Just(1), Just(u128::MAX), any::<u128>()];
    let few = || prop_oneof![0..3_u64, Just(u64::MAX), Just(1 << 63)];
    let mark = proptest::sample::select(Mark::ALL.to_vec());
    let whose = (few(), few(), few(), mark, few());
    (whose, (few(), few(), few()), few(), proptest::collection::vec(value, 9)).prop_map(
        |((resource, class, sequence, mark, changes), (epoch, at, estimated_ms), wall_ms, values)| Reading {
            resource: VolumeId(resource),
            tenant: TenantId(2),
            class: ClassId(class),
            epoch: Epoch(epoch),
            sequence,
            mark,
            changes,
            at: MeterTime(at),
            estimated_ms,
            wall_ms,
            registers: Dimension::ALL
                .into_iter()
                .zip(values)
                .fold(Registers::default(), |all, (dimension, value)| all.with(dimension, value)),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    /// P7. Readings of any numbers, of equal sequences and moments, in any order, come back as they were.
    #[test]
    fn any_readings_come_back(readings in proptest::collection::vec(reading(), 0..600)) {
        let payloads = encode_readings(&readings);
        prop_assert!(payloads.iter().all(|payload| payload.len() <= PAYLOAD_BYTES_MAX));
        let again: Vec<Reading> = payloads
            .iter()
            .flat_map(|payload| decode_readings(TenantId(2), payload).expect("readings"))
            .collect();
        prop_assert_eq!(again, readings);
    }

    /// P7. Whatever blocks are gone, what is put together of the rest are lines that were written, in order.
    #[test]
    fn no_line_is_put_together_over_a_hole(
        batches in proptest::collection::vec(proptest::collection::vec(1..14_000_usize, 1..6), 1..6),
        gone in proptest::collection::vec(any::<bool>(), 64),
    ) {
        let mut world = World::new();
        let mut written = Vec::new();
        for batch in batches {
            let entries: Vec<_> = batch.iter().map(|bytes| notes(1, *bytes).remove(0)).collect();
            let write = world.append(&entries);
            world.write(&write);
        }
        let mut reader = LineReader::default();
        for block in 1..world.ledger.end_block() {
            written.extend(reader.block(block, &world.block(block)).expect("a block"));
        }
        let (mut reader, mut rest) = (LineReader::default(), written.iter());
        for block in 1..world.ledger.end_block() {
            let is_gone = gone[usize::try_from(block).unwrap() % gone.len()];
            let bytes = if is_gone { vec![0; BLOCK_LEN] } else { world.block(block) };
            for line in reader.block(block, &bytes).expect("a block") {
                prop_assert!(rest.any(|known| *known == line));
            }
        }
    }
}

/// Tips as whoever has the key may sign them, in one head; and a bundle of it for the pair at `leaf`.
fn signed(tips: &[Tip]) -> (Head, Vec<Digest>) {
    let leaves: Vec<Digest> = tips.iter().map(Tip::leaf).collect();
    let tree = Tree { size: leaves.len() as u64, root: merkle::root(&leaves) };
    let date = Date::new(2026, 11, 1).expect("a day");
    let says = Statement {
        ledger: ID,
        number: 1,
        date,
        tips: tree,
        before: Digest::NONE,
        log: Digest::of(&[]),
        next_key: None,
    };
    (Head::sign(says, &key(1)), leaves)
}

/// P7. One head says one thing of a tenant: whoever has the key cannot show one history to the tenant and another to an auditor
/// under the very same head.
#[test]
fn one_head_has_one_book_of_a_tenant() {
    let history = |payload: &str| {
        let mut tips = Book::ALL.map(|book| Tip::empty(TenantId(2), book));
        let line = tips[1].append(Kind::Note, 1, payload).expect("a payload");
        (tips, line)
    };
    let (told, other) = (history("\"owes 1\""), history("\"owes 1000\""));
    let others = Book::ALL.map(|book| Tip::empty(TenantId(1), book));
    let (head, leaves) = signed(&[others, told.0, other.0].concat());
    let is_right = |(tips, line): &([Tip; 2], String), leaf: u64| {
        let mut bundle = format!(
            "{{\"bundle\":1,\"tenant\":2,\"books\":\"both\",\"origin\":true,\"first\":1,\"last\":1}}\n{line}\n{}\n",
            head.line()
        );
        for (leaf, tip) in (leaf..).zip(tips) {
            let path = merkle::inclusion(&leaves, usize::try_from(leaf).unwrap()).unwrap();
            let proof = Proof { book: tip.book, count: tip.count, hash: tip.hash, path };
            bundle.push_str(&proof.line());
            bundle.push('\n');
        }
        verify(bundle.as_bytes(), Trust { keys: Vec::new(), heads: vec![head.hash()] }).is_ok()
    };
    assert_eq!(
        [(&told, 2), (&other, 4)].map(|(book, leaf)| is_right(book, leaf)),
        [false, true],
        "only where it belongs"
    );
}

/// P7. Numbers of tenants are given one after the other; a wrong one makes no tree without end, here or when it is read again.
#[test]
fn a_wrong_tenant_makes_no_endless_tree() {
    let mut world = World::new();
    for wrong in [TENANTS_MAX, 1 << 40, u64::MAX] {
        assert_eq!(world.ledger.admit(TenantId(wrong)), Err(AppendError::Number));
        let note = NewEntry { tenant: TenantId(wrong), kind: Kind::Note, time_ms: 0, payload: "1" };
        assert_eq!(world.ledger.append(&[note]), Err(AppendError::Number));
    }
    assert_eq!(world.ledger.tree().size, 0);
    world.ledger.admit(TenantId(TENANTS_MAX - 1)).expect("the last number");
    let write = world.head(1, None);
    world.write(&write);
    assert_eq!(world.recover().expect("a ledger").tree().size, 2 * TENANTS_MAX);
}

/// P7. A wall clock that was years ahead for a day locks no later day out: heads are ordered by their numbers, and the days of a
/// month are found all the same.
#[test]
fn a_clock_years_ahead_locks_no_day_out() {
    let mut world = World::new();
    let date = |year, month, day| Date::new(year, month, day).expect("a day");
    let november = [date(2026, 11, 1), date(2040, 1, 1), date(2026, 11, 3)];
    for date in november.into_iter().chain([date(2026, 12, 1)]) {
        let write = world.readings(&[1]);
        world.write(&write);
        let write = world.ledger.sign_head(date, &key(1), None).expect("a head");
        world.write(&write);
    }
    assert_eq!(world.recover().expect("a ledger").heads, world.ledger.heads);
    let month = |from, to| world.ledger.export((TenantId(1), Books::Both), (from, to)).expect("an export").0;
    assert_eq!(month(date(2026, 11, 1), date(2026, 11, 30)), export(1, None, 3));
    assert_eq!(month(date(2026, 12, 1), date(2026, 12, 31)), export(1, Some(3), 4));
    let bundle = world.export(export(1, None, 4)).expect("a bundle");
    assert!(verify(&bundle, trusting(1)).is_ok());
}

/// P7. Heads of two ledgers that one key has signed are told apart, and neither follows or continues the other.
#[test]
fn heads_of_two_ledgers_do_not_mix() {
    let days = |id: LedgerId| {
        let (mut ledger, _) = Ledger::create(CAPACITY_BLOCKS, id);
        let mut heads = Vec::new();
        for day in 1..=2 {
            ledger.on_durable();
            ledger.sign_head(Date::new(2026, 11, day).expect("a day"), &key(1), None).expect("a head");
            ledger.on_durable();
            heads.push(*ledger.newest().expect("a head"));
        }
        (heads, ledger.continuation(1).expect("a proof"))
    };
    let ((one, proof), (other, _)) = (days(ID), days(LedgerId([1; 16])));
    assert!(one[1].follows(&one[0]) && one[1].continues(&one[0], &proof));
    assert!(!one[1].follows(&other[0]) && !one[1].continues(&other[0], &proof));
    // Not even where all else is the same.
    let ledger = LedgerId([1; 16]);
    let date = one[1].date();
    let (tips, log) = (one[1].tips(), one[1].log().root);
    let says = Statement { ledger, number: 2, date, tips, before: one[0].hash(), log, next_key: None };
    assert!(!Head::sign(says, &key(1)).follows(&one[0]));
    let mut world = four_days();
    let start = Ledger::create(CAPACITY_BLOCKS, ledger).1;
    world.disk.insert(0, start.bytes);
    assert!(matches!(world.recover(), Err(RecoverError::Lines { .. })), "block 0 is of another ledger");
}

/// P7. A head that says something else of those before it, rightly signed and in whole blocks, stops the start.
#[test]
fn a_head_with_a_false_log_stops_the_start() {
    for is_newest in [true, false] {
        let mut world = World::new();
        world.day(&[1], 1, None);
        world.day(&[1], 1, None);
        let place = world.ledger.next;
        let (newest, date) = (*world.ledger.newest().expect("a head"), Date::new(2026, 11, 3).expect("a day"));
        let (ledger, tips, log) = (ID, world.ledger.tree(), Digest::of(&[]));
        let says = Statement { ledger, number: 3, date, tips, before: newest.hash(), log, next_key: None };
        let head = Head::sign(says, &key(1));
        let texts = std::iter::once(head.line()).chain(world.ledger.tips.values().map(Tip::line));
        let lines: Vec<Line> = texts.map(|text| Line { text, is_kept: true }).collect();
        let (bytes, chain) = encode_batch(place, &lines).expect("a batch");
        world.ledger.add_head(head, place.first);
        let end = place.first + (bytes.len() / BLOCK_LEN) as u64;
        world.ledger.next = Place { first: end, batch: place.batch + 1, head: place.first, chain };
        world.write(&BlockWrite { first: place.first, bytes });
        if !is_newest {
            world.day = 3;
            world.day(&[1], 1, None);
        }
        assert_eq!(world.recover().map(|_| ()), Err(RecoverError::Lines { block: place.first }));
    }
}

/// P7. What is in the ledger can still be signed when it is full: entries stop while there is room for one more head.
#[test]
fn a_full_ledger_can_still_be_signed() {
    for capacity in 3..60 {
        for tenants in [1, 40, 400] {
            let (mut ledger, _) = Ledger::create(capacity, ID);
            ledger.on_durable();
            let payload = format!("\"{}\"", "x".repeat(3000));
            let mut entries = 0;
            let note = |tenant| NewEntry { tenant: TenantId(tenant), kind: Kind::Note, time_ms: 0, payload: &payload };
            while ledger.append(&[note(entries % tenants)]).is_ok() {
                ledger.on_durable();
                entries += 1;
            }
            let head = ledger.sign_head(Date::new(2026, 11, 1).expect("a day"), &key(1), None);
            assert!(entries == 0 || head.is_ok(), "{capacity} blocks, {entries} entries: {head:?}");
        }
    }
}
