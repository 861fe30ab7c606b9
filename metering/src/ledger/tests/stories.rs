//! What bundles say, whom they trust, and what is said of a wrong one.

use super::super::head::Statement;
use super::*;

fn verified(bundle: &[u8], seed: u8) -> Verified {
    verify(bundle, trusting(seed)).unwrap_or_else(|error| panic!("{error}\n{}", String::from_utf8_lossy(bundle)))
}

/// P7. A tenant's bundle is right by any key that signed a head of it, and by any of its heads, and by nothing else.
#[test]
fn a_bundle_is_checked_by_a_key_or_a_head() {
    let world = four_days();
    let bundle = world.export(export(2, Some(1), 4)).expect("a bundle");
    for seed in [1, 9] {
        let found = verified(&bundle, seed);
        assert_eq!((found.tenant, found.books, found.entries), (TenantId(2), Books::Both, 9));
        assert_eq!(found.after.map(|head| head.number()), Some(1));
        assert_eq!((found.last.number(), found.last.date().to_string().as_str()), (4, "2026-11-04"));
        assert_eq!(found.tips, Book::ALL.map(|book| world.ledger.tip(TenantId(2), book)));
    }
    for place in world.ledger.heads() {
        let trust = Trust { keys: Vec::new(), heads: vec![place.hash] };
        assert!(verify(&bundle, trust).is_ok(), "head {}", place.number);
    }
    for trust in [trusting(2), Trust::default()] {
        let fault = Fault::Untrusted { key: key(9).public() };
        assert_eq!(verify(&bundle, trust).map_err(|error| error.fault), Err(fault));
    }
}

/// P7. A bundle has a tenant's own entries alone, and all of them: from the first, when it came in the period.
#[test]
fn a_bundle_begins_where_the_tenant_did() {
    let world = four_days();
    for (tenant, after, entries) in [(1, None, 12), (3, None, 9), (3, Some(1), 9), (3, Some(2), 6), (3, Some(4), 0)] {
        let bundle = world.export(export(tenant, after, 4)).expect("a bundle");
        let (mut verifier, mut own) = (Verifier::new(trusting(9)), 0);
        verifier
            .push(&bundle, &mut |entry| {
                assert_eq!(entry.tenant, TenantId(tenant));
                own += 1;
            })
            .expect("a bundle");
        assert_eq!((verifier.finish().expect("a bundle").entries, own), (entries, entries));
    }
    assert_eq!(world.export(export(4, None, 4)), Err(ExportError::Tenant));
    assert_eq!(world.export(export(3, None, 1)), Err(ExportError::Tenant));
}

/// P7. A bundle of the first format is right for ever, and the same ledger still comes to the same bytes, in its blocks too.
#[test]
fn the_first_format_stays() {
    let golden = include_bytes!("../../../vectors/bundle-1.jsonl");
    let key = PublicKey::parse("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c").expect("a key");
    let world = four_days();
    let bundle = world.export(export(2, Some(1), 4)).expect("a bundle");
    assert!(verify(golden, Trust { keys: vec![key], heads: Vec::new() }).is_ok());
    assert_eq!(String::from_utf8_lossy(&bundle), String::from_utf8_lossy(golden));
    let blocks = Digest::of_line(&world.disk.into_values().flatten().collect::<Vec<_>>());
    assert_eq!(blocks.to_string(), "2ca3562e2d34c6d7be333f73317561c1d9672e14cee5cab0254d307274740fd0");
}

/// P7. A month is what was measured behind the last head of the month before, to its own last one.
#[test]
fn days_are_told_by_heads() {
    let world = four_days();
    let day = |day| Date::new(2026, 11, day).expect("a day");
    let days = |first, last| world.ledger.export((TenantId(2), Books::Both), (day(first), day(last)));
    let heads = world.ledger.heads();
    assert_eq!(days(2, 3), Some((export(2, Some(1), 3), heads[0].block)));
    assert_eq!(days(1, 30), Some((export(2, None, 4), 1)));
    assert_eq!(days(5, 30), None);
}

/// P7. Readings leave through a bundle as they came in.
#[test]
fn readings_are_read_out_of_a_bundle() {
    let world = four_days();
    let bundle = world.export(export(2, Some(3), 4)).expect("a bundle");
    let mut sequences = Vec::new();
    let mut take = |entry: &Entry<'_>| {
        if entry.kind == Kind::Readings {
            let readings = decode_readings(entry.tenant, entry.payload).expect("readings");
            sequences.extend(readings.iter().map(|reading| (reading.resource.0, reading.sequence)));
        }
    };
    Verifier::new(trusting(9)).push(&bundle, &mut take).expect("a bundle");
    assert_eq!(sequences, [(21, 7), (22, 7), (21, 8), (22, 8)]);
}

fn lines(bundle: &[u8]) -> Vec<String> {
    bundle.split_inclusive(|byte| *byte == b'\n').map(|line| String::from_utf8(line.to_vec()).unwrap()).collect()
}

fn fault_of(lines: &[String]) -> String {
    verify(lines.concat().as_bytes(), trusting(1)).expect_err("a wrong bundle").to_string()
}

/// P7. Whoever changes a bundle is told where and what.
#[test]
fn a_wrong_bundle_is_told_where_and_what() {
    let world = four_days();
    // 1 header, 2 to 3 readings, 4 note, 5 head, 6 and 7 proofs, and so on.
    let whole = lines(&world.export(export(2, None, 2)).expect("a bundle"));
    assert_eq!(whole.len(), 13);
    let with = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines = whole.clone();
        change(&mut lines);
        fault_of(&lines)
    };
    let edited = with(&|lines| lines[1] = lines[1].replace("\"of\":[[21", "\"of\":[[20"));
    assert_eq!(
        edited,
        "line 3: entry 2 of the meter book does not follow the one before it: one of the two was changed"
    );
    let last = with(&|lines| lines[2] = lines[2].replace("\"of\":[[21", "\"of\":[[20"));
    assert_eq!(last, "line 6: entry 2 of the meter book was changed: head 1 was signed over another");
    let cut = with(&|lines| drop(lines.remove(8)));
    assert_eq!(cut, "line 11: entries 4 to 4 of the meter book are missing: head 2 was signed over them");
    let gap = with(&|lines| drop(lines.remove(1)));
    assert_eq!(gap, "line 2: entry 2 of the meter book where entry 1 belongs");
    let twice = with(&|lines| lines.insert(1, lines[1].clone()));
    assert_eq!(twice, "line 3: entry 1 of the meter book where entry 2 belongs");
    let order = with(&|lines| lines.swap(2, 3));
    assert_eq!(order, "line 4: entry 2 of the meter book has no place here");
    let foreign = with(&|lines| lines[1] = lines[1].replace("\"tenant\":2", "\"tenant\":1"));
    assert_eq!(foreign, "line 2: an entry of tenant 1 among those of tenant 2");
    let head = with(&|lines| lines[4] = lines[4].replace("2026-11-01", "2026-11-02"));
    assert_eq!(head, "line 5: the signature of head 1 is wrong: the head was changed");
    let proof = with(&|lines| lines[5] = lines[5].replace("\"count\":2", "\"count\":1"));
    assert_eq!(proof, "line 6: head 1 was not signed over what this says of the meter book");
    let day = with(&|lines| lines.truncate(7));
    assert_eq!(day, "line 8: the bundle ends before head 2 and its proofs");
    let more = with(&|lines| lines.push("\n".into()));
    assert_eq!(more, "line 14: the bundle goes on behind head 2 and its proofs");
    let header = with(&|lines| lines[0] = lines[0].replace("\"origin\":true", "\"origin\":false"));
    assert_eq!(header, "line 2: entry 1 of the meter book has no place here");
    let spelling = with(&|lines| lines[0] = lines[0].replace(":2,", ": 2,"));
    assert_eq!(spelling, "line 1: not written as the ledger writes it from byte 21 of the line on");
    assert_eq!(fault_of(&[]), "line 1: the bundle is empty");
    assert_eq!(fault_of(&["x".repeat(LINE_BYTES_MAX + 1)]), format!("line 1: longer than {LINE_BYTES_MAX} bytes"));
}

/// P7. Who writes all entries anew, hashes and all, but cannot sign, is found out at the next head; who signs with a key of his
/// own, by the key.
#[test]
fn a_forged_history_is_found_at_the_head() {
    let honest = lines(&four_days().export(export(2, None, 4)).expect("a bundle"));
    let mut other = World::new();
    other.day(&[1, 2], 1, None);
    let write = other.note(2, "a gift");
    other.write(&write);
    other.day(&[1, 2, 3], 1, Some(9));
    let forged = lines(&other.export(export(2, None, 2)).expect("a bundle"));
    // The honest heads over the forged entries.
    let mut spliced = honest[..7].to_vec();
    spliced.extend_from_slice(&forged[7..11]);
    spliced.extend_from_slice(&honest[10..]);
    assert_eq!(fault_of(&spliced), "line 14: head 2 was signed before there was an entry 3 of the account book",);
    let mut stranger = World::new();
    stranger.day(&[1, 2], 5, None);
    stranger.day(&[1, 2], 5, None);
    let bundle = stranger.export(export(2, None, 2)).expect("a bundle");
    let error = verify(&bundle, trusting(1)).expect_err("a stranger's");
    assert_eq!(error.fault, Fault::Untrusted { key: key(5).public() });
}

/// P7. A key is followed by the one that it announces, and by no other.
#[test]
fn a_key_is_followed_by_the_one_that_it_announces() {
    let mut world = four_days();
    let date = Date::new(2026, 11, 5).expect("a day");
    let refused = world.ledger.sign_head(date, &key(1), None);
    assert_eq!(refused, Err(AppendError::Key { expected: key(9).public() }));
    // Somebody else's signature over the very same is none, though he is trusted for the rest.
    let mut lines = lines(&world.export(export(2, None, 2)).expect("a bundle"));
    let head = Head::parse(lines[10].trim_end().as_bytes()).expect("head 2");
    let Tree { root: log, .. } = head.log();
    let (number, before, tips) = (head.number(), head.before(), head.tips());
    let ledger = ID;
    let says = Statement { ledger, number, date: head.date(), tips, before, log, next_key: None };
    for (seed, is_right) in [(1, true), (5, false)] {
        lines[10] = format!("{}\n", Head::sign(says, &key(seed)).line());
        let expected = Fault::HeadKey { number: 2, expected: key(1).public(), found: key(seed).public() };
        let found = verify(lines.concat().as_bytes(), trusting(1)).map_err(|error| error.fault).err();
        assert_eq!(found, Some(expected).filter(|_| !is_right));
    }
}

/// P7. A head that somebody kept proves what every newer head says of the time before.
#[test]
fn a_newer_head_continues_every_older_one() {
    let mut world = World::new();
    let mut heads = Vec::new();
    for _ in 0..20 {
        world.day(&[1], 1, None);
        heads.push(*world.ledger.newest().expect("a head"));
    }
    let newest = *world.ledger.newest().expect("a head");
    let mut stranger = World::new();
    stranger.day(&[2], 1, None);
    for older in &heads[..19] {
        let proof = world.ledger.continuation(older.number()).expect("a proof");
        assert!(newest.continues(older, &proof), "head {}", older.number());
        assert!(!newest.continues(stranger.ledger.newest().expect("a head"), &proof));
        if older.number() > 1 {
            let without = Continuation { consistency: Vec::new(), ..proof.clone() };
            let is_all = older.number() == 20;
            assert_eq!(newest.continues(older, &without), is_all, "head {}", older.number());
        }
        assert!(!newest.continues(older, &Continuation { inclusion: Vec::new(), ..proof }));
    }
    assert_eq!((world.ledger.continuation(0), world.ledger.continuation(20)), (None, None));
}

/// P7. What was measured long ago can go; what was charged stays, and both stay provable.
#[test]
fn a_ledger_without_old_readings_is_still_proven() {
    let mut world = four_days();
    let size = world.disk.len();
    let write = world.ledger.drop_readings_before(3).expect("a head");
    assert_eq!(world.ledger.sweep(), None, "before it is durable nothing is trimmed");
    world.write(&write);
    let range = world.ledger.sweep().expect("blocks to look at");
    for block in range.clone() {
        if is_droppable(block, &world.block(block)).expect("a block") {
            world.disk.remove(&block);
        }
    }
    let write = world.ledger.on_swept(range.end).expect("a write");
    world.write(&write);
    assert_eq!(world.ledger.sweep(), None);
    assert_eq!(size - world.disk.len(), 5, "six rounds of readings, a block each, of which block 1 stays");
    assert_eq!(world.ledger.drop_readings_before(2), Err(AppendError::NoHead));
    world.ledger = world.recover().expect("a ledger");
    world.ledger.on_durable();
    world.day(&[1, 2, 3], 9, None);
    assert_eq!(verified(&world.export(export(2, Some(3), 5)).expect("a bundle"), 9).entries, 6);
    assert_eq!(world.export(export(2, Some(1), 5)), Err(ExportError::Gap));
    let account = Export { books: Books::Account, ..export(2, None, 5) };
    let found = verified(&world.export(account).expect("a bundle"), 1);
    assert_eq!((found.books, found.entries, found.tips.len()), (Books::Account, 5, 1));
}
