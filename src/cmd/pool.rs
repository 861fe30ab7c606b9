//! `aljibe pool`. Showing asks the daemon; checking and rebuilding work on the data directory, which they lock.

use super::scrub;
use crate::cli::{PoolCommand, PoolVerb};
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::output::{Output, fields, sized};
use crate::wiring;
use control::{Pool, Size};
use std::path::{Path, PathBuf};

pub(crate) fn run(command: PoolCommand, output: Output) -> Result<(), Failure> {
    let environment = |name: &str| std::env::var_os(name);
    let target = command.target;
    match command.verb {
        PoolVerb::Show => show(&Client::of(&target)?, output),
        PoolVerb::Scrub { now, status } => scrub::run(&Client::of(&target)?, output, now, status),
        PoolVerb::Check(offline) => {
            let data = DataDir::lock(&target.data_dir(environment)?)?;
            check(&data, &pool_path(&data, offline.pool), output)
        }
        PoolVerb::Rebuild(offline) => {
            let data = DataDir::lock(&target.data_dir(environment)?)?;
            rebuild(&data, &pool_path(&data, offline.pool), output)
        }
    }
}

fn show(client: &Client, output: Output) -> Result<(), Failure> {
    let pool: Pool = client.get("/v1/pool")?;
    output.show(&pool, || described(&pool))
}

/// Checks every structure of the pool that can be checked at rest.
fn check(data: &DataDir, pool: &Path, output: Output) -> Result<(), Failure> {
    let checked = wiring::check(data, pool)?;
    output.show(&checked, || {
        let counted = fields(&[
            ("volumes", Some(checked.volumes.to_string())),
            ("segments", Some(checked.segments.to_string())),
            ("operations", Some(checked.operations.to_string())),
            ("map pages", Some(checked.pages.to_string())),
            ("mapped blocks", Some(checked.mapped_blocks.to_string())),
            ("verified blocks", Some(checked.verified_blocks.to_string())),
            ("problems", Some(checked.problem_count.to_string())),
        ]);
        checked.problems.iter().fold(counted, |shown, problem| format!("{shown}{problem}\n"))
    })?;
    match checked.problem_count {
        0 => Ok(()),
        count => {
            let detail =
                format!("pool {} has {count} problems: the volumes that they name are damaged", pool.display());
            Err(Failure::new(Exit::Damage, "damage_found", detail))
        }
    }
}

/// Makes the index anew from the pool.
fn rebuild(data: &DataDir, pool: &Path, output: Output) -> Result<(), Failure> {
    let rebuilt = wiring::rebuild(data, pool)?;
    output.show(&rebuilt, || {
        let counted = fields(&[
            ("volumes", Some(rebuilt.volumes.to_string())),
            ("segments", Some(rebuilt.segments.to_string())),
            ("free slots", Some(rebuilt.free_slots.to_string())),
            ("slots out of use", Some(rebuilt.kept_slots.len().to_string())),
            ("damaged volumes", Some(rebuilt.damaged.len().to_string())),
        ]);
        rebuilt.damaged.iter().chain(&rebuilt.notes).fold(counted, |shown, note| format!("{shown}{note}\n"))
    })?;
    match rebuilt.damaged.len() {
        0 => Ok(()),
        count => {
            let detail = format!("the index is made; {count} volumes of pool {} are damaged", pool.display());
            Err(Failure::new(Exit::Damage, "damage_found", detail))
        }
    }
}

fn pool_path(data: &DataDir, given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| data.path().join("pool"))
}

fn compaction_described(pool: &Pool) -> String {
    let done = &pool.compaction;
    let (packs, segments, bytes) =
        (done.packs_written, done.segments_moved, Size::from_bytes(done.bytes_moved).rounded());
    let (given_up, suspects) = (done.rounds_given_up, done.suspects);
    format!(
        "{packs} packs written, {segments} segments ({bytes}) moved, {given_up} rounds given up, {suspects} suspect"
    )
}

fn described(pool: &Pool) -> String {
    let slots = pool.slots;
    fields(&[
        ("path", Some(pool.path.clone())),
        ("size", Some(sized(pool.size_bytes))),
        ("slot size", Some(sized(pool.slot_bytes))),
        (
            "slots",
            Some(format!("{} free, {} reserved, {} used of {}", slots.free, slots.reserved, slots.used, slots.total)),
        ),
        ("segments", Some(pool.segments.to_string())),
        ("compaction", Some(compaction_described(pool))),
        ("gave up", pool.compaction.last_error.clone()),
        ("volumes", Some(pool.volumes.to_string())),
        ("state", Some(pool.state.to_string())),
        ("reason", pool.state_reason.clone()),
        ("index", Some(format!("generation {}", pool.index_generation))),
    ])
}
