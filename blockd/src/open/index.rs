//! The index beside the pool: opened, or made anew when it is missing.
//!
//! It is made in a directory of another name, which takes the right name when it is whole: an index that a crash left half
//! made is never opened.

use super::error::OpenError;
use super::pool_file::{PoolFile, PoolShape};
use super::space::Space;
use crate::catalogue::families;
use crate::store::RocksStore;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;
use volume::pool::{Index, OpenError as IndexError};
use volume::rebuild::{RebuildReport, rebuild_with};
use volume::store::StoreFault;

/// Which pool, and how it is made when it is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// The pool's file or device.
    pub pool: PathBuf,
    /// The directory of its index.
    pub index: PathBuf,
    /// What the pool looks like when it is made.
    pub shape: PoolShape,
    /// Whether a pool that is made is written once from end to end, so that it never pays for first use later.
    pub is_written_whole: bool,
}

/// An open pool that no volume is served of yet.
#[derive(Debug)]
pub struct OpenPool {
    pub(crate) file: PoolFile,
    pub(crate) index: Index<RocksStore>,
}

impl OpenPool {
    /// Opens a pool for serving, or makes one where there is nothing, and notes the start in it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_or_make(config: &PoolConfig) -> Result<Self, OpenError> {
        let has_index = is_there(&config.index)?;
        if has_index && matches!(PoolFile::open(&config.pool), Err(OpenError::Missing { .. })) {
            return Err(foreign(config));
        }
        let (mut file, is_new) = PoolFile::open_or_make(&config.pool, config.shape)?;
        if is_new {
            tracing::info!(pool = %file.path().display(), slots = file.superblock().geometry.slot_count, "made a pool");
            if config.is_written_whole {
                Space::of(&file)?.prepare_all()?;
            }
        }
        let mut index = if has_index {
            open_index(&config.index, &file)?
        } else if is_new {
            make_index(&config.index, |store| {
                let created = Index::create(store, file.superblock());
                created.map(|index| (index, ())).map_err(|error| unusable(&config.index, error))
            })?;
            open_index(&config.index, &file)?
        } else {
            rebuild_index(&config.index, &mut file)?.0
        };
        // The superblock that was read may be in the page cache only, left by a start that was killed: were it to go back
        // by one in a power cut, the index would be two ahead of it.
        file.sync().map_err(OpenError::Disk)?;
        note_start(&mut file, &mut index)?;
        renew_due(&mut file, &mut index)?;
        Ok(Self { file, index })
    }
}

/// Writes the pool's next generation. The index first: one that is ahead of its pool by this step is its own all the same.
fn note_start(file: &mut PoolFile, index: &mut Index<RocksStore>) -> Result<(), OpenError> {
    let noted = index.note_generation(file.superblock().generation + 1);
    noted.map_err(OpenError::Disk)?;
    file.renew()
}

/// Writes the superblocks anew that must not stay as they are.
fn renew_due(file: &mut PoolFile, index: &mut Index<RocksStore>) -> Result<(), OpenError> {
    while file.must_renew() {
        note_start(file, index)?;
    }
    Ok(())
}

/// Opens a pool and its index as they are, for a look at them.
///
/// # Errors
/// [`OpenError`].
pub fn open_for_check(pool: &Path, index: &Path) -> Result<(PoolFile, Index<RocksStore>), OpenError> {
    let file = PoolFile::open(pool)?;
    if !is_there(index)? {
        return Err(OpenError::Index {
            path: index.to_owned(),
            reason: "it is missing: run `aljibe pool rebuild`".to_owned(),
        });
    }
    let index = open_index(index, &file)?;
    Ok((file, index))
}

/// Makes the index of a pool anew and puts it in the place of the one that is there. A pool of an older format version becomes
/// one of this version before anything is written to it.
///
/// # Errors
/// [`OpenError`].
pub fn rebuild_index(path: &Path, file: &mut PoolFile) -> Result<(Index<RocksStore>, RebuildReport), OpenError> {
    tracing::info!(index = %path.display(), pool = %file.path().display(), "making the index anew from the pool");
    let begin = Instant::now();
    // What is in the page cache only may still be lost, and the index must not name it.
    file.sync().map_err(OpenError::Disk)?;
    let mut report = make_index(path, |store| {
        let made = rebuild_with(store, file.superblock(), &*file, |index| families(index, file));
        let (mut index, report) = made.map_err(|error| unusable(path, error))?;
        renew_due(file, &mut index)?;
        let mended = report.mends.iter().try_for_each(|(offset, bytes)| file.write_at(*offset, bytes));
        mended.and_then(|()| file.sync()).map_err(OpenError::Disk)?;
        Ok((index, report))
    })?;
    let index = open_index(path, file)?;
    report.mends.clear();
    let (volumes, segments) = (report.volumes, report.segments);
    tracing::info!(volumes, segments, took_ms = begin.elapsed().as_millis(), "the index is made");
    report.damaged.iter().for_each(|damage| tracing::error!(%damage, "a volume is damaged"));
    report.notes.iter().for_each(|note| tracing::warn!(note, "found in the pool"));
    Ok((index, report))
}

fn open_index(path: &Path, file: &PoolFile) -> Result<Index<RocksStore>, OpenError> {
    let store = RocksStore::open(path).map_err(|fault| broken(path, &fault))?;
    Index::open(store, file.superblock(), file).map_err(|error| unusable(path, error))
}

/// Makes an index beside its place, then puts it there.
fn make_index<T>(
    path: &Path,
    fill: impl FnOnce(RocksStore) -> Result<(Index<RocksStore>, T), OpenError>,
) -> Result<T, OpenError> {
    let nursery = beside(path, ".new");
    remove_dir(&nursery)?;
    let store = RocksStore::create(&nursery).map_err(|fault| broken(path, &fault))?;
    let (index, more) = fill(store)?;
    index.into_store().close().map_err(|fault| broken(path, &fault))?;
    let old = beside(path, ".old");
    remove_dir(&old)?;
    if is_there(path)? {
        fs::rename(path, &old).map_err(OpenError::system("put aside", path))?;
    }
    fs::rename(&nursery, path).map_err(OpenError::system("put in its place", &nursery))?;
    sync_parent(path).map_err(OpenError::system("sync the directory of", path))?;
    remove_dir(&old)?;
    Ok(more)
}

fn foreign(config: &PoolConfig) -> OpenError {
    OpenError::Setting(format!(
        "the index {} belongs to a pool, but there is none at {}: name the pool by --pool, or remove the index",
        config.index.display(),
        config.pool.display()
    ))
}

fn unusable(path: &Path, error: IndexError) -> OpenError {
    match error {
        IndexError::Disk(fault) => OpenError::Disk(fault),
        IndexError::Store(fault) => broken(path, &fault),
        IndexError::Stale { .. } | IndexError::Corrupt(_) | IndexError::OtherVersion(_) | IndexError::NotEmpty => {
            OpenError::Index { path: path.to_owned(), reason: error.to_string() }
        }
    }
}

fn broken(path: &Path, fault: &StoreFault) -> OpenError {
    // RocksDB tells of it in the system's words only.
    if fault.0.contains("No space left on device") {
        return OpenError::NoSpace(format!("{fault}: free space there; the index {} is as it was", path.display()));
    }
    let reason = format!("{fault}; `aljibe pool rebuild` makes it anew from the pool and loses nothing");
    OpenError::Index { path: path.to_owned(), reason }
}

fn is_there(path: &Path) -> Result<bool, OpenError> {
    path.try_exists().map_err(OpenError::system("look for", path))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn remove_dir(path: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(OpenError::system("remove", path)(error)),
        _ => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}
