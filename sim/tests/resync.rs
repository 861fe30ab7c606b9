//! A copy that is far behind is sent what is left of the segments that it lacks. A failing seed is run again by `ALJIBE_SIM_SEED`.
#![forbid(unsafe_code)]

use sim::resync::{Outcome, Resyncs};
use sim::seeds;
use volume::controls::{Safeguard, take_away};

const BASE: u64 = 0x0e5c_1be0_0000_0000;

/// P1, P2. Whatever is left of its segments, and whatever stops either site: the copy shows what the primary does, and until it is
/// brought up to that, what it did before.
#[test]
fn a_copy_that_is_sent_segments_shows_what_the_primary_does() {
    let seeds: Vec<u64> = match seeds::wanted() {
        Some(seed) => vec![seed],
        None => (0..seeds::count()).map(|number| BASE + number).collect(),
    };
    let (count, mut all) = (seeds.len(), Outcome::default());
    for seed in seeds {
        match Resyncs::run(seed) {
            Ok(outcome) => {
                all.joins += outcome.joins;
                all.parts += outcome.parts;
                all.kills += outcome.kills;
                all.moved += outcome.moved;
                all.too_early += outcome.too_early;
                all.given_up += outcome.given_up;
                all.drops += outcome.drops;
                all.rebuilds += outcome.rebuilds;
            }
            Err(finding) => {
                panic!("{finding}\nreplay: ALJIBE_SIM_SEED={seed:#x} cargo test --release -p sim --test resync");
            }
        }
    }
    println!("{count} seeds: {all:?}");
    let Outcome { joins, parts, kills, moved, too_early, given_up, drops, rebuilds, .. } = all;
    let has_all = [joins, parts, kills, moved, too_early, given_up, drops, rebuilds];
    assert!(count < 200 || !has_all.contains(&0), "something never happens: {all:?}");
}

/// P1. One seed gives one trace.
#[test]
fn a_seed_is_one_world() {
    for seed in BASE..BASE + 3 {
        assert_eq!(Resyncs::run(seed), Resyncs::run(seed));
    }
}

/// P1. Where trims that the copy lacks are dropped, it shows what they took.
#[test]
fn trims_that_are_not_kept_are_noticed() {
    is_noticed(Safeguard::KeptTrims);
}

/// P1. Where the log is joined before what overwrote what is missing, the copy shows what was never there.
#[test]
fn a_join_that_is_too_early_is_noticed() {
    is_noticed(Safeguard::LateJoin);
}

fn is_noticed(safeguard: Safeguard) {
    take_away(Some(safeguard));
    let found = (BASE..BASE + 400).find(|seed| Resyncs::run(*seed).is_err());
    take_away(None);
    let seed = found.expect("some seed notices");
    assert!(Resyncs::run(seed).is_ok(), "the same world with nothing amiss");
}
