//! No change of a bundle, however small, is taken.

use super::*;
use proptest::prelude::*;

fn small_bundle() -> Vec<u8> {
    let mut world = World::new();
    world.day(&[1, 2, 3], 1, Some(9));
    world.day(&[1, 2, 3], 9, None);
    world.export(export(2, None, 2)).expect("a bundle")
}

/// P7. Each single bit of a bundle counts: not one of them can be another.
#[test]
fn every_single_bit_edit_is_refused() {
    let mut bundle = small_bundle();
    assert!(verify(&bundle, trusting(1)).is_ok());
    for at in 0..bundle.len() * 8 {
        bundle[at / 8] ^= 1 << (at % 8);
        let result = verify(&bundle, trusting(1));
        assert!(result.is_err(), "bit {} of byte {} of {}", at % 8, at / 8, bundle.len());
        bundle[at / 8] ^= 1 << (at % 8);
    }
    assert!(verify(&bundle, trusting(1)).is_ok());
}

/// P7. So does each byte's being there: none can go, none can come, and the end cannot be cut anywhere.
#[test]
fn every_lost_and_every_new_byte_is_refused() {
    let bundle = small_bundle();
    for at in 0..bundle.len() {
        let (before, after) = bundle.split_at(at);
        assert!(verify(before, trusting(1)).is_err(), "cut at {at}");
        assert!(verify(&[before, &after[1..]].concat(), trusting(1)).is_err(), "without byte {at}");
        for new in [b' ', b'0', b'\n', b'\r', b'\t', 0, after[0]] {
            assert!(verify(&[before, &[new], after].concat(), trusting(1)).is_err(), "{new} at {at}");
        }
    }
    for new in [&b" "[..], b"\n", b"\0", b"{}\n"] {
        assert!(verify(&[&bundle, new].concat(), trusting(1)).is_err());
    }
}

/// P7. No line can go, come twice, or change its place with another.
#[test]
fn every_lost_repeated_and_moved_line_is_refused() {
    let bundle = small_bundle();
    let lines: Vec<&[u8]> = bundle.split_inclusive(|byte| *byte == b'\n').collect();
    let refused = |lines: &[&[u8]]| verify(&lines.concat(), trusting(1)).is_err();
    for at in 0..lines.len() {
        let mut without = lines.clone();
        let line = without.remove(at);
        assert!(refused(&without), "without line {at}");
        for place in 0..=without.len() {
            let mut moved = without.clone();
            moved.insert(place, line);
            assert_eq!(refused(&moved), place != at, "line {at} at {place}");
            let mut repeated = lines.clone();
            repeated.insert(place, line);
            assert!(refused(&repeated), "line {at} again at {place}");
        }
        for end in at + 1..=lines.len() {
            let mut without = lines.clone();
            without.drain(at..end);
            assert!(refused(&without), "without lines {at} to {end}");
        }
    }
}

/// P7. Nor can a line of another bundle of the same ledger stand for one: of another tenant or another day.
#[test]
fn lines_of_another_bundle_are_refused() {
    let world = four_days();
    let bundle = |tenant, after, last| world.export(export(tenant, after, last)).expect("a bundle");
    let own = bundle(2, Some(2), 4);
    let own: Vec<&[u8]> = own.split_inclusive(|byte| *byte == b'\n').collect();
    for other in [bundle(1, Some(2), 4), bundle(3, Some(2), 4), bundle(2, Some(1), 3), bundle(2, None, 4)] {
        for line in other.split_inclusive(|byte| *byte == b'\n').filter(|line| !own.contains(line)) {
            for at in 0..own.len() {
                let mut replaced = own.clone();
                replaced[at] = line;
                assert!(verify(&replaced.concat(), trusting(9)).is_err(), "line {at}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// P7. Whatever somebody hands in as a bundle is answered.
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(verify(&bytes, trusting(1)).is_err());
    }

    /// P7. A bundle with pieces of itself in wrong places is refused.
    #[test]
    fn a_mixed_up_bundle_is_refused(edits in proptest::collection::vec((any::<u16>(), any::<u16>(), any::<u8>()), 1..4)) {
        let bundle = small_bundle();
        let mut wrong = bundle.clone();
        for (from, to, len) in edits {
            let (from, to) = (usize::from(from) % wrong.len(), usize::from(to) % wrong.len());
            let piece = wrong[from..(from + usize::from(len)).min(wrong.len())].to_vec();
            let end = (to + piece.len()).min(wrong.len());
            wrong.splice(to..end, piece);
        }
        prop_assert_eq!(verify(&wrong, trusting(1)).is_ok(), wrong == bundle);
    }

    /// P7. However the bytes are cut, the answer is the same.
    #[test]
    fn the_answer_does_not_depend_on_the_pieces(at in any::<u16>(), bit in 0..8_u8, piece in 1..300_usize) {
        let mut bundle = small_bundle();
        let at = usize::from(at) % (bundle.len() * 2);
        if let Some(byte) = bundle.get_mut(at) {
            *byte ^= 1 << bit;
        }
        let mut verifier = Verifier::new(trusting(1));
        let mut pushed = Ok(());
        for bytes in bundle.chunks(piece) {
            pushed = verifier.push(bytes, &mut |_| ());
        }
        prop_assert_eq!(pushed.and_then(|()| verifier.finish()), verify(&bundle, trusting(1)));
    }
}
