//! What is done to a pool that no daemon serves: checked, or its index made anew.

use super::{failure_of, index_dir};
use crate::data_dir::DataDir;
use crate::failure::{Exit, Failure};
use blockd::open::{PoolFile, open_for_check, rebuild_index};
use serde::Serialize;
use std::path::Path;
use volume::check::{CheckOptions, check as check_pool};

/// What a check found.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    /// What is wrong, as far as it is told one by one.
    pub(crate) problems: Vec<String>,
    /// How much is.
    pub(crate) problem_count: u64,
    pub(crate) volumes: u64,
    pub(crate) segments: u64,
    pub(crate) operations: u64,
    pub(crate) pages: u64,
    pub(crate) mapped_blocks: u64,
    pub(crate) verified_blocks: u64,
}

/// What a rebuild found.
#[derive(Debug, Serialize)]
pub(crate) struct Rebuilt {
    pub(crate) volumes: u64,
    pub(crate) segments: u64,
    pub(crate) free_slots: u64,
    /// Slots out of use, since what they hold cannot be told.
    pub(crate) kept_slots: Vec<u32>,
    /// Volumes that will not be served, and why.
    pub(crate) damaged: Vec<String>,
    /// What else a person should know of.
    pub(crate) notes: Vec<String>,
}

/// Checks every structure of the pool that can be checked at rest, and every block that the map names.
pub(crate) fn check(data: &DataDir, pool: &Path) -> Result<Checked, Failure> {
    let (file, index) = open_for_check(pool, &index_dir(data)).map_err(failure_of)?;
    let report = check_pool(&index, &file, CheckOptions { verify_data: true });
    Ok(Checked {
        problems: report.problems.iter().map(ToString::to_string).collect(),
        problem_count: report.problem_count,
        volumes: report.volumes,
        segments: report.segments,
        operations: report.operations,
        pages: report.pages,
        mapped_blocks: report.mapped_blocks,
        verified_blocks: report.verified_blocks,
    })
}

/// Makes the index anew from the pool.
pub(crate) fn rebuild(data: &DataDir, pool: &Path) -> Result<Rebuilt, Failure> {
    let mut file = PoolFile::open(pool).map_err(failure_of)?;
    let (index, report) = rebuild_index(&index_dir(data), &mut file).map_err(failure_of)?;
    index.into_store().close().map_err(|fault| Failure::new(Exit::Failure, "failed", fault.to_string()))?;
    Ok(Rebuilt {
        volumes: report.volumes,
        segments: report.segments,
        free_slots: report.free_slots,
        kept_slots: report.kept_slots.iter().map(|slot| slot.0).collect(),
        damaged: report.damaged.iter().map(ToString::to_string).collect(),
        notes: report.notes,
    })
}
