//! Runs many worlds of a case and tells of the first that finds something, with the command that replays it.

use super::plan::Case;
use super::{Outcome, World};
use crate::seeds::{caught, print, print_end};
use crate::trace::Finding;

/// Where seeds begin.
const BASE: u64 = 0x00a1_71be;

/// Lines of the trace that are printed of a failing seed.
const LINES_PRINTED: usize = 60;

/// Runs one world.
///
/// # Errors
/// What it found, a panic too.
pub fn run(seed: u64) -> Result<Outcome, Finding> {
    run_told(seed, false).0
}

/// Runs one world, and tells what happened when `is_told`.
pub fn run_told(seed: u64, is_told: bool) -> (Result<Outcome, Finding>, Vec<String>) {
    let mut world = World::new(seed, is_told);
    let result = caught(|| world.run());
    (result, world.lines().to_vec())
}

/// Runs `count` seeds of a case. Tells what they came to.
///
/// # Panics
/// When one finds something, with the command that replays it.
pub fn check(case: Case, count: u64) -> Outcome {
    let mut total = Outcome::default();
    for seed in seeds(case).take(count as usize) {
        match run(seed) {
            Ok(outcome) => add(&mut total, &outcome),
            Err(finding) => {
                replay(seed);
                panic!(
                    "{finding}\nreplay: ALJIBE_SIM_SEED={seed:#x} cargo test --release -p sim --test p4_mirror replay -- --nocapture"
                );
            }
        }
    }
    print(&format!("{case:?}: {count} seeds: {total:?}"));
    total
}

/// Prints what happens in the world of a seed.
pub fn replay(seed: u64) {
    let (result, lines) = run_told(seed, true);
    print_end(&lines, LINES_PRINTED);
    print(&format!("seed {seed:#x}: {result:?}"));
}

/// The first of `count` seeds of a case that finds something, which one it is, and what it finds.
#[must_use]
pub fn first_finding(case: Case, count: u64) -> Option<(u64, u64, Finding)> {
    (1..).zip(seeds(case)).take(count as usize).find_map(|(number, seed)| Some((number, seed, run(seed).err()?)))
}

fn seeds(case: Case) -> impl Iterator<Item = u64> {
    (0..).map(move |number| case.seed(BASE + number))
}

fn add(total: &mut Outcome, one: &Outcome) {
    total.answers += one.answers;
    total.epochs += one.epochs;
    total.moves += one.moves;
    total.branches += one.branches;
    total.excuses += one.excuses;
    total.trace ^= one.trace;
}
