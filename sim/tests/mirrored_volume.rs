//! One volume at two sites, the engine itself at both. A failing seed is run again by `ALJIBE_SIM_SEED`.
#![forbid(unsafe_code)]

use sim::seeds;
use sim::twins::{Broken, Twins};

const BASE: u64 = 0x0a17_1be0_0000_0000;

/// P1, P2. Whatever site is left, and whatever has come to it, shows what was acknowledged; after a power cut at both, what was
/// flushed.
#[test]
fn the_site_that_is_left_has_what_was_acknowledged() {
    let seeds: Vec<u64> = match seeds::wanted() {
        Some(seed) => vec![seed],
        None => (0..seeds::count()).map(|number| BASE + number).collect(),
    };
    for seed in seeds {
        if let Err(finding) = Twins::run(seed, Broken::Nothing) {
            panic!("{finding}\nreplay: ALJIBE_SIM_SEED={seed:#x} cargo test --release -p sim --test mirrored_volume");
        }
    }
}

/// P1. One seed gives one trace.
#[test]
fn a_seed_is_one_world() {
    for seed in BASE..BASE + 4 {
        assert_eq!(Twins::run(seed, Broken::Nothing), Twins::run(seed, Broken::Nothing));
    }
}

/// P1. Without what the mirror promises, the simulator notices.
#[test]
fn what_is_left_out_is_noticed() {
    for broken in [Broken::AckBeforePeer, Broken::FlushAtPeer] {
        let found = (BASE..BASE + 400).find(|seed| Twins::run(*seed, broken).is_err());
        assert!(found.is_some(), "{broken:?} is not noticed");
    }
}
