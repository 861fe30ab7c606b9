//! Recovery of many volumes side by side. One that is damaged is set aside with the reason; the others start.

use super::error::OpenError;
use super::pool_file::PoolFile;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;
use units::{Lsn, SegmentId, VolumeId};
use volume::error::DiskFault;
use volume::pool::{Boundary, Index, Loan, SegmentRow};
use volume::recover::{Known, Recovered, Terms, recover_by};
use volume::store::Store;

/// Most volumes recovered side by side: it is reading from one disk.
const THREADS_MAX: usize = 8;

/// What recovery found.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Volumes to be served. What had to be written for them is durable.
    pub(crate) volumes: Vec<Recovered>,
    /// Volumes that cannot be, and why.
    pub(crate) damaged: BTreeMap<VolumeId, String>,
    /// For the index, before any volume is served.
    pub(crate) notes: Notes,
}

/// What the index is to note of recovered volumes.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    /// Segments that have been sealed.
    pub(crate) sealed: Vec<SegmentRow>,
    /// Segments that have been made void, to be given back.
    pub(crate) voided: Vec<SegmentId>,
    /// What segments borrow.
    pub(crate) borrowed: Vec<(SegmentId, Vec<Loan>)>,
    /// Where each log goes on, and the generations that have ended.
    pub(crate) boundaries: Vec<(VolumeId, Lsn, Vec<Boundary>)>,
}

impl Notes {
    /// Notes it all, once what recovery wrote is durable.
    pub(crate) fn note_in<S: Store>(self, index: &mut Index<S>) -> Result<(), DiskFault> {
        self.sealed.into_iter().try_for_each(|row| index.note_segment(row))?;
        self.voided.into_iter().try_for_each(|segment| index.release(segment))?;
        self.borrowed.iter().try_for_each(|(segment, loans)| index.note_loans(*segment, loans))?;
        let mut boundaries = self.boundaries.iter();
        boundaries.try_for_each(|(volume, next_lsn, found)| index.note_recovered_boundaries(*volume, *next_lsn, found))
    }
}

/// Recovers the volumes in `known`, each by its terms, and makes durable what that needs.
pub(crate) fn recover_all(pool: &PoolFile, known: Vec<(Known, Terms)>) -> Result<Recovery, OpenError> {
    let threads = known.len().min(THREADS_MAX);
    let left = Mutex::new(known.into_iter());
    let found = Mutex::new(Recovery::default());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((known, terms)) = take(&left) {
                    let result = recover_by(pool, pool.superblock(), &known, terms);
                    let mut found = found.lock().expect("no thread panics with the lock held");
                    match result {
                        Ok(volume) => found.volumes.push(volume),
                        Err(damage) => {
                            tracing::error!(volume = %known.volume, %damage, "a volume is damaged and not served");
                            found.damaged.insert(known.volume, damage.to_string());
                        }
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().expect("no thread panics with the lock held");
    apply(pool, &mut found)?;
    Ok(found)
}

fn take<T>(left: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    left.lock().expect("no thread panics with the lock held").next()
}

/// Writes what recovery wants written. The sync is needed even when there is nothing: what was read may be in the page
/// cache only, left by a process that was killed, and the next batch of each volume counts on it.
fn apply(pool: &PoolFile, found: &mut Recovery) -> Result<(), OpenError> {
    for volume in &mut found.volumes {
        for (offset, bytes) in volume.writes.drain(..) {
            pool.write_at(offset, &bytes).map_err(OpenError::Disk)?;
        }
        found.notes.sealed.append(&mut volume.sealed);
        found.notes.voided.append(&mut volume.voided);
        found.notes.borrowed.append(&mut volume.borrowed);
        found.notes.boundaries.push((volume.volume, volume.next_lsn, std::mem::take(&mut volume.boundaries)));
    }
    pool.sync().map_err(OpenError::Disk)
}
