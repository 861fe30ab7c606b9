//! Two sites as they are: engine, role machine and link. A failing seed is run again by `ALJIBE_SIM_SEED`.
#![forbid(unsafe_code)]

use replication::controls::{Safeguard, take_away};
use sim::pair::{Outcome, Pair};
use sim::seeds;
use sim::trace::Finding;

const BASE: u64 = 0x0b17_1be0_0000_0000;

/// Lines of the trace that are printed of a failing seed.
const LINES_PRINTED: usize = 400;

fn replay(seed: u64) {
    let (result, lines) = Pair::run(seed, true);
    seeds::print_end(&lines, LINES_PRINTED);
    seeds::print(&format!("seed {seed:#x}: {result:?}"));
}

/// P1, P2, P4, P6. Whatever happens to the sites, nothing that was acknowledged is lost or shown and gone, and afterwards both serve and
/// have the same.
#[test]
fn two_sites_are_one_storage() {
    if let Some(seed) = seeds::wanted() {
        return replay(seed);
    }
    let mut total = Outcome::default();
    for seed in (0..seeds::count()).map(|number| BASE + number) {
        match Pair::run(seed, false).0 {
            Ok(outcome) => {
                total.answers += outcome.answers;
                total.epochs += outcome.epochs;
                total.moves += outcome.moves;
                total.branches += outcome.branches;
                total.reopened += outcome.reopened;
                total.apart += outcome.apart;
                total.passed += outcome.passed;
                total.excuses += outcome.excuses;
            }
            Err(finding) => {
                replay(seed);
                panic!("{finding}\nreplay: ALJIBE_SIM_SEED={seed:#x} cargo test --release -p sim --test mirrored_pair");
            }
        }
    }
    seeds::print(&format!("{total:?}"));
}

/// P1. One seed gives one trace.
#[test]
fn a_seed_is_one_world() {
    for seed in BASE..BASE + 2 {
        assert_eq!(Pair::run(seed, false).0, Pair::run(seed, false).0);
    }
}

fn is_noticed(safeguard: Safeguard, count: u64) {
    is_noticed_by(|seed| Pair::run(seed, false).0, safeguard, count);
}

/// What is found in a world without `safeguard`, by at most `count` seeds; the same world with it finds nothing.
fn is_noticed_by(run: impl Fn(u64) -> Result<Outcome, Finding>, safeguard: Safeguard, count: u64) {
    take_away(Some(safeguard));
    let mut seeds = (0..count).map(|number| BASE + number);
    let found = seeds.find_map(|seed| Some((seed, run(seed).err()?.0)));
    take_away(None);
    let (seed, finding) = found.expect("some seed notices");
    assert_eq!(run(seed).err(), None, "the same world with nothing amiss");
    seeds::print(&format!("{safeguard:?}: {seed:#x}: {finding}"));
}

/// P1. S1: what the primary alone acknowledges is missed at the other site.
#[test]
fn an_acknowledgement_without_the_partner_is_noticed() {
    is_noticed(Safeguard::AllInSync, 50);
}

/// P1. S3: a site that was not in sync takes over.
#[test]
fn a_primary_that_was_not_in_sync_is_noticed() {
    is_noticed(Safeguard::Eligible, 50);
}

/// P2. S5: a primary that reads without the other site's word shows what is old.
#[test]
fn a_read_without_a_lease_is_noticed() {
    is_noticed(Safeguard::Lease, 300);
}

/// P1. A primary that lost part of its log in a power cut leads without asking.
#[test]
fn a_primary_that_does_not_compare_is_noticed() {
    is_noticed(Safeguard::Comparison, 500);
}

/// P1. S7: what is passed on and comes late undoes what its client has written since at the other site.
#[test]
fn a_request_that_comes_late_is_noticed() {
    is_noticed_by(Pair::run_late, Safeguard::InTime, 300);
}
