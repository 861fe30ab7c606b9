//! Runs many seeds and tells of the first that finds something, with the command that replays it.
//!
//! `ALJIBE_SIM_SEEDS` is the number of seeds of each test, `ALJIBE_SIM_FRESH=1` begins at a seed of now (printed),
//! `ALJIBE_SIM_SEED` is the one that `replay` runs.
#![expect(
    clippy::disallowed_methods,
    reason = "this module is the tests' edge: it reads their settings and runs worlds on every core"
)]

use crate::census::Fault;
use crate::plan::{Profile, SWEEP_STEPS_MAX, sweep_seed};
use crate::trace::Finding;
use crate::world::{Broken, Outcome, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds of each test when nothing else is said.
const SEEDS: u64 = 200;

/// Where seeds begin when nothing else is said.
const BASE: u64 = 0x00a1_71be_0000_0000;

/// Lines of the trace that are printed of a failing seed.
const LINES_PRINTED: usize = 40;

/// Runs one world.
///
/// # Errors
/// What it found, a panic too.
pub fn run(seed: u64, broken: Broken) -> Result<Outcome, Finding> {
    run_told(seed, broken, false).0
}

/// Runs one world, and tells what happened when `is_told`.
pub fn run_told(seed: u64, broken: Broken, is_told: bool) -> (Result<Outcome, Finding>, Vec<String>) {
    let mut world = World::with(seed, broken, is_told);
    let result = caught(|| world.run());
    (result, world.lines().to_vec())
}

/// Runs a world whose panics are findings, too.
pub(crate) fn caught<T>(run: impl FnOnce() -> Result<T, Finding>) -> Result<T, Finding> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Finding(format!("panic: {}", text.unwrap_or_default())))
    })
}

/// How many seeds a test runs.
#[must_use]
pub fn count() -> u64 {
    std::env::var("ALJIBE_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

/// The seed that `replay` is to run.
#[must_use]
pub fn wanted() -> Option<u64> {
    let text = std::env::var("ALJIBE_SIM_SEED").ok()?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    u64::from_str_radix(digits, 16).ok()
}

fn base() -> u64 {
    let is_fresh = std::env::var("ALJIBE_SIM_FRESH").is_ok_and(|text| text == "1");
    if !is_fresh {
        return BASE;
    }
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    crate::random::mix(now)
}

/// Runs `count` seeds of a profile, on every core.
///
/// # Panics
/// When one finds something, with the command that replays it; and when so many seeds have not met a fault of `wanted`.
pub fn check(profile: Profile, count: u64, wanted: &[Fault]) {
    let base = base();
    let outcome = run_all(count, |index| {
        let seed = profile.seed(base.wrapping_add(index));
        run(seed, Broken::Nothing).map_err(|finding| (seed, finding))
    });
    print(&format!("{profile:?}: {count} seeds from {base:#x}: {outcome}"));
    let missed: Vec<&Fault> = wanted.iter().filter(|fault| outcome.census.of(**fault) == 0).collect();
    assert!(count < SEEDS || missed.is_empty(), "{profile:?}: {count} seeds never met {missed:?}");
}

/// Runs each of `count` small worlds of a profile once for every step of its first life, with a crash after it.
///
/// # Panics
/// When one finds something, with the command that replays it.
pub fn sweep(profile: Profile, count: u64) {
    let base = base();
    let outcome = run_all(count, |index| {
        let mut total = Outcome::default();
        for step in 0..SWEEP_STEPS_MAX {
            let seed = sweep_seed(profile, base.wrapping_add(index), step);
            let outcome = run(seed, Broken::Nothing).map_err(|finding| (seed, finding))?;
            add(&mut total, &outcome);
            if !outcome.was_cut {
                break;
            }
        }
        Ok(total)
    });
    print(&format!("{profile:?}: every step of {count} seeds from {base:#x}: {outcome}"));
}

/// Runs `one` for each index below `count`, on every core.
fn run_all(count: u64, one: impl Fn(u64) -> Result<Outcome, (u64, Finding)> + Sync) -> Outcome {
    let (next, total) = (AtomicU64::new(0), Mutex::new((Outcome::default(), None::<(u64, Finding)>)));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let index = next.fetch_add(1, Ordering::Relaxed)
                    && index < count
                {
                    let result = one(index);
                    let mut total = total.lock().unwrap();
                    match result {
                        Ok(outcome) => add(&mut total.0, &outcome),
                        Err(found) => {
                            next.store(count, Ordering::Relaxed);
                            total.1.get_or_insert(found);
                        }
                    }
                }
            });
        }
    });
    let (outcome, found) = total.into_inner().unwrap();
    if let Some((seed, finding)) = found {
        tell(seed);
        panic!("{finding}\nreplay: ALJIBE_SIM_SEED={seed:#x} cargo test --release -p sim --test replay -- --nocapture");
    }
    outcome
}

/// Prints what happens in the world of a seed; panics with what it finds.
///
/// # Panics
/// With what it finds.
pub fn replay(seed: u64) {
    if let Some(finding) = tell(seed) {
        panic!("{finding}");
    }
    print(&format!("seed {seed:#x} finds nothing"));
}

fn tell(seed: u64) -> Option<Finding> {
    let (result, lines) = run_told(seed, Broken::Nothing, true);
    print_end(&lines, LINES_PRINTED);
    result.err()
}

/// Prints the last lines of a world; all of the one that is wanted.
pub fn print_end(lines: &[String], most: usize) {
    let skipped = if wanted().is_some() { 0 } else { lines.len().saturating_sub(most) };
    lines.iter().skip(skipped).for_each(|line| print(line));
}

/// The first of `count` seeds of a profile in which something that is switched off shows.
#[must_use]
pub fn first_finding(profile: Profile, broken: Broken, count: u64) -> Option<(u64, Finding)> {
    (0..count).map(|index| profile.seed(BASE + index)).find_map(|seed| Some((seed, run(seed, broken).err()?)))
}

/// Prints a line of a test.
#[expect(clippy::print_stdout, reason = "a test's output")]
pub fn print(line: &str) {
    println!("{line}");
}

fn add(total: &mut Outcome, one: &Outcome) {
    total.answers += one.answers;
    total.errors += one.errors;
    total.starts += one.starts;
    total.quarantined += one.quarantined;
    total.exhausted += one.exhausted;
    total.bills += one.bills;
    total.census.add(&one.census);
    total.trace ^= one.trace;
}
