//! `aljibe pool`. Showing asks the daemon; checking and rebuilding work on the data directory, which they lock.

use crate::cli::{PoolCommand, PoolVerb};
use crate::client::Client;
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use crate::output::{Output, fields};
use control::{Pool, Size};
use std::path::{Path, PathBuf};

pub(crate) fn run(command: PoolCommand, output: Output) -> Result<(), Failure> {
    let environment = |name: &str| std::env::var_os(name);
    let target = command.target;
    match command.verb {
        PoolVerb::Show => show(&Client::new(target.address(environment)?)?, output),
        PoolVerb::Check(offline) => {
            let data = DataDir::lock(&target.data_dir(environment)?)?;
            check(&data, &pool_path(&data, offline.pool))
        }
        PoolVerb::Rebuild(offline) => {
            let data = DataDir::lock(&target.data_dir(environment)?)?;
            rebuild(&data, &pool_path(&data, offline.pool))
        }
    }
}

fn show(client: &Client, output: Output) -> Result<(), Failure> {
    let pool: Pool = client.get("/v1/pool")?;
    output.show(&pool, || described(&pool))
}

/// Checks every structure of the pool that can be checked at rest.
fn check(data: &DataDir, pool: &Path) -> Result<(), Failure> {
    Err(missing(&format!("check pool {} of {}", pool.display(), data.path().display())))
}

/// Makes the index anew from the pool.
fn rebuild(data: &DataDir, pool: &Path) -> Result<(), Failure> {
    Err(missing(&format!("rebuild the index of pool {} in {}", pool.display(), data.path().display())))
}

fn missing(what: &str) -> Failure {
    Failure::new(
        Exit::Failure,
        "not_in_this_build",
        format!("this build cannot {what}: nothing was looked at or changed"),
    )
}

fn pool_path(data: &DataDir, given: Option<PathBuf>) -> PathBuf {
    given.unwrap_or_else(|| data.path().join("pool"))
}

fn described(pool: &Pool) -> String {
    let sized = |bytes: u64| Some(format!("{} ({bytes} bytes)", Size::from_bytes(bytes).rounded()));
    let slots = pool.slots;
    fields(&[
        ("path", Some(pool.path.clone())),
        ("size", sized(pool.size_bytes)),
        ("slot size", sized(pool.slot_bytes)),
        (
            "slots",
            Some(format!("{} free, {} reserved, {} used of {}", slots.free, slots.reserved, slots.used, slots.total)),
        ),
        ("segments", Some(pool.segments.to_string())),
        ("volumes", Some(pool.volumes.to_string())),
        ("state", Some(pool.state.to_string())),
        ("reason", pool.state_reason.clone()),
        ("index", Some(format!("generation {}", pool.index_generation))),
    ])
}
