//! Making, listing and deleting snapshots.
//!
//! A snapshot is an operation in its volume's log, then a record. It is answered when both are durable, by one sync: that of
//! the record, which begins when the operation is in the pool, and covers all that was in the pool then. Without the record
//! it is not there. The volume goes on meanwhile. Several that are made at once show one point, and their records are one
//! write with that of their group: after a crash, too, all of them are there or none.

use super::book::Book;
use super::record::{GROUP_MEMBERS_MAX, GroupRecord, Record, SnapshotRecord, SnapshotState};
use super::shelf::{KeptSnapshot, Shelf, boundary_of};
use super::tenants::{Usage, refuse_other_tenant, tenant_of};
use super::trial::is_trial;
use super::{Catalogue, CatalogueError, Entry, ask};
use crate::open::wall_ms;
use std::collections::BTreeSet;
use units::{SnapshotId, VolumeId};
use volume::pool::Boundary;
use volume::request::Request;

/// How a snapshot is called: by its volume's name and its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotName {
    /// The volume's.
    pub volume: String,
    /// Its own.
    pub snapshot: String,
}

/// A snapshot, as the catalogue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    /// Its id.
    pub id: u64,
    /// How it is called.
    pub name: SnapshotName,
    /// The volume that it was taken of, which a rollback may have replaced since.
    pub volume: VolumeId,
    /// The generation of that volume that it ends.
    pub generation: u64,
    /// The volume's size there.
    pub size_bytes: u64,
    /// When it was taken, milliseconds since 1970.
    pub taken_ms: u64,
    /// The name of the group that it was taken with, if that has one.
    pub group: Option<String>,
    /// The volumes that began as it, and keep it from being deleted.
    pub clones: Vec<String>,
    /// Why it cannot be read, when it cannot.
    pub damage: Option<String>,
}

impl Catalogue {
    /// Takes snapshots, of one volume each, that show one point; `group` is what that is called.
    ///
    /// # Errors
    /// [`CatalogueError::SnapshotExists`]; [`CatalogueError::Request`] for two of one volume, or of two tenants;
    /// [`CatalogueError::Suspended`], [`CatalogueError::QuotaExceeded`]; or a volume's. There are all then, or none.
    pub async fn create_snapshots(
        &self,
        names: &[SnapshotName],
        group: Option<&str>,
    ) -> Result<Vec<SnapshotEntry>, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let volumes = self.check_new(names)?;
        volumes.iter().try_for_each(|entry| self.refuse_if_mirrored(entry.volume, "snapshots of"))?;
        if is_trial() {
            return Ok(names.iter().zip(&volumes).map(|(name, of)| would_be(name, of, group)).collect());
        }
        self.take(&mut book, names, &volumes, group).await
    }

    /// Every snapshot, or those of one volume, by the names of their volumes, then in the order in which they were taken.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`].
    pub fn list_snapshots(&self, volume: Option<&str>) -> Result<Vec<SnapshotEntry>, CatalogueError> {
        let shelf = self.read();
        let names = match volume {
            Some(name) => vec![shelf.names.get_key_value(name).ok_or_else(|| missing(name))?],
            None => shelf.names.iter().collect(),
        };
        let mut entries = Vec::new();
        for (name, kept) in names {
            let line = shelf.line_of(kept.entry.volume.0);
            let mut of_volume: Vec<_> = shelf.snapshots_of(line).map(|kept| describe(&shelf, name, kept)).collect();
            of_volume.sort_by_key(|entry| entry.id);
            entries.append(&mut of_volume);
        }
        Ok(entries)
    }

    /// One snapshot.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], [`CatalogueError::SnapshotNotFound`].
    pub fn show_snapshot(&self, name: &SnapshotName) -> Result<SnapshotEntry, CatalogueError> {
        let shelf = self.read();
        let kept = find(&shelf, name)?;
        Ok(describe(&shelf, &name.volume, kept))
    }

    /// Deletes a snapshot: its name is gone when this is answered, what it holds alone is given back behind that.
    ///
    /// # Errors
    /// [`CatalogueError::HasClones`]; [`CatalogueError::SnapshotInUse`] while clients read it; [`CatalogueError::Unsure`];
    /// or the system volume's, when the deletion cannot be recorded.
    pub async fn delete_snapshot(&self, name: &SnapshotName) -> Result<(), CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let record = self.check_unneeded(name)?;
        let mut views = self.views.lock().await;
        if is_trial() {
            return self.refuse_if_read(&views, &BTreeSet::from([record.id]), false);
        }
        self.close_views(&mut views, &BTreeSet::from([record.id]), false).await?;
        // Its own volume may have been rolled back to it: then it goes on without a name.
        let is_parent = self.read().has_children(boundary_of(&record));
        let state = if is_parent { SnapshotState::Pin } else { SnapshotState::Deleting };
        let record = SnapshotRecord { state, ..record };
        book.put(&Record::Snapshot(record.clone())).await?;
        let (volume, snapshot) = (name.volume.as_str(), name.snapshot.as_str());
        tracing::info!(volume, snapshot, id = record.id, "deleted a snapshot");
        self.write().put_snapshot(KeptSnapshot { record, damage: None });
        self.cleaner.wake();
        Ok(())
    }

    fn check_unneeded(&self, name: &SnapshotName) -> Result<SnapshotRecord, CatalogueError> {
        let shelf = self.read();
        let record = find(&shelf, name)?.record.clone();
        // That of an image goes with it.
        if shelf.names.get(&name.volume).is_some_and(|kept| kept.entry.image.is_some()) {
            return Err(missing(&name.volume));
        }
        let clones = shelf.clones_of(&record);
        if !clones.is_empty() {
            return Err(CatalogueError::HasClones { snapshot: name.to_string(), clones });
        }
        if shelf.may_be_needed(record.of) {
            return Err(CatalogueError::Unsure);
        }
        Ok(record)
    }

    /// The volumes of the snapshots to be taken.
    fn check_new(&self, names: &[SnapshotName]) -> Result<Vec<Entry>, CatalogueError> {
        let count = names.len();
        let Some(first) = names.first().filter(|_| count <= GROUP_MEMBERS_MAX) else {
            let detail = format!("from 1 to {GROUP_MEMBERS_MAX} snapshots are taken at once, not {count}");
            return Err(CatalogueError::Request(detail));
        };
        names.iter().try_for_each(|name| refuse_other_tenant(&first.volume, &name.volume))?;
        let mut seen = BTreeSet::new();
        let shelf = self.read();
        let mut volumes = Vec::with_capacity(names.len());
        for name in names {
            let kept = shelf.names.get(&name.volume).filter(|kept| !kept.is_leaving);
            // An image has the snapshot that it was sealed with, and no other.
            let kept = kept.filter(|kept| kept.entry.image.is_none());
            let entry = kept.ok_or_else(|| missing(&name.volume))?.entry.clone();
            if let Some(reason) = entry.damage {
                return Err(CatalogueError::Quarantined { name: entry.name, reason });
            }
            if !seen.insert(entry.volume) {
                let detail = format!("two snapshots of volume {} are asked for at one point", name.volume);
                return Err(CatalogueError::Request(detail));
            }
            if shelf.find_snapshot(&name.volume, &name.snapshot).is_some() {
                return Err(CatalogueError::SnapshotExists { snapshot: name.to_string() });
            }
            volumes.push(entry);
        }
        let tenant = tenant_of(&first.volume);
        if shelf.is_suspended(&first.volume) {
            return Err(CatalogueError::Suspended { tenant: tenant.to_owned() });
        }
        shelf.refuse_over_quota(tenant, Usage::snapshots(names.len() as u64))?;
        Ok(volumes)
    }

    /// Takes snapshots whose names have been found to be free.
    pub(super) async fn take(
        &self,
        book: &mut Book,
        names: &[SnapshotName],
        volumes: &[Entry],
        group: Option<&str>,
    ) -> Result<Vec<SnapshotEntry>, CatalogueError> {
        let has_group = volumes.len() > 1 || group.is_some();
        let count = volumes.len() as u64;
        let first = book.take_ids(count + u64::from(has_group)).await?;
        let members: Vec<(VolumeId, SnapshotId)> =
            volumes.iter().zip(first..).map(|(entry, id)| (entry.volume, SnapshotId(id))).collect();
        let boundaries = self.mark(&members).await?;
        let group = has_group.then(|| GroupRecord {
            id: first + count,
            name: group.map(str::to_owned),
            members: (first..first + count).collect(),
        });
        let record = |((name, entry), (id, boundary)): ((&SnapshotName, &Entry), (u64, &Boundary))| SnapshotRecord {
            id,
            of: entry.volume.0,
            name: name.snapshot.clone(),
            generation: boundary.generation,
            lsn: boundary.lsn.0,
            size_bytes: boundary.size_bytes,
            at_ms: boundary.wall_ms,
            group: group.as_ref().map(|group| group.id),
            state: SnapshotState::Live,
            is_base: false,
        };
        let taken: Vec<SnapshotRecord> =
            names.iter().zip(volumes).zip((first..).zip(&boundaries)).map(record).collect();
        let records: Vec<Record> =
            taken.iter().cloned().map(Record::Snapshot).chain(group.iter().cloned().map(Record::Group)).collect();
        self.put_taken(book, volumes, &records).await?;
        let mut shelf = self.write();
        group.into_iter().for_each(|group| shelf.put_group(group));
        for record in &taken {
            shelf.put_snapshot(KeptSnapshot { record: record.clone(), damage: None });
        }
        for (name, record) in names.iter().zip(&taken) {
            tracing::info!(snapshot = %name, id = record.id, lsn = record.lsn, "took a snapshot");
        }
        let kept = taken.iter().filter_map(|record| shelf.snapshot(record.id));
        Ok(names.iter().zip(kept).map(|(name, kept)| describe(&shelf, &name.volume, kept)).collect())
    }

    /// Appends the operations; at one point when there are several. What is left of a failure is cleaned away.
    async fn mark(&self, members: &[(VolumeId, SnapshotId)]) -> Result<Vec<Boundary>, CatalogueError> {
        let [(volume, id)] = members else { return self.mark_together(members).await };
        Ok(vec![self.mark_one(*volume, *id).await?])
    }

    pub(super) async fn mark_one(&self, volume: VolumeId, id: SnapshotId) -> Result<Boundary, CatalogueError> {
        let (_, shard) = self.shard_of(volume);
        ask::boundary(ask::submit(shard, volume, Request::Snapshot { id }).await?)
    }

    /// Writes the records of snapshots of some volumes, whose operations are in the pool: with their sync all of it is durable.
    /// What is refused is taken back.
    pub(super) async fn put_taken(
        &self,
        book: &Book,
        volumes: &[Entry],
        records: &[Record],
    ) -> Result<(), CatalogueError> {
        let (written, begun) = tokio::join!(book.put_all(records), async { self.begin_flushes(volumes) });
        let taken = written.and(begun);
        if taken.is_err() {
            self.take_back(book, records).await;
        }
        taken
    }

    /// Has volumes learn that their snapshots are durable, upon which they write back what these show. Nobody waits for it:
    /// the sync of the records has all of it.
    fn begin_flushes(&self, volumes: &[Entry]) -> Result<(), CatalogueError> {
        volumes.iter().try_for_each(|entry| {
            let (_, shard) = self.shard_of(entry.volume);
            ask::begin(shard, entry.volume, Request::Flush).map(drop)
        })
    }

    /// Sees to it that snapshots which were refused are not there: not now, and not at the next start.
    pub(super) async fn take_back(&self, book: &Book, records: &[Record]) {
        let Some(first) = records.first().map(Record::id) else { return };
        if let Err(error) = book.remove(first, records.len() as u64).await {
            tracing::warn!(first, %error, "snapshots that were refused may be there after a restart");
            return;
        }
        let of_snapshots = records.iter().filter_map(|record| match record {
            Record::Snapshot(record) => Some(boundary_of(record)),
            Record::Volume(_)
            | Record::Group(_)
            | Record::Tenant(_)
            | Record::Token(_)
            | Record::Class(_)
            | Record::Target(_)
            | Record::Initiator(_)
            | Record::Reservation(_)
            | Record::Meter(_) => None,
        });
        self.give_up(of_snapshots);
    }
}

pub(super) fn find<'a>(shelf: &'a Shelf, name: &SnapshotName) -> Result<&'a KeptSnapshot, CatalogueError> {
    if !shelf.names.contains_key(&name.volume) {
        return Err(missing(&name.volume));
    }
    let missing = || CatalogueError::SnapshotNotFound { snapshot: name.to_string() };
    shelf.find_snapshot(&name.volume, &name.snapshot).ok_or_else(missing)
}

/// A snapshot that can be read.
pub(super) fn find_sound<'a>(shelf: &'a Shelf, name: &SnapshotName) -> Result<&'a KeptSnapshot, CatalogueError> {
    let kept = find(shelf, name)?;
    match shelf.damage_of_snapshot(kept) {
        Some(reason) => Err(CatalogueError::Quarantined { name: name.to_string(), reason: reason.clone() }),
        None => Ok(kept),
    }
}

pub(super) fn missing(volume: &str) -> CatalogueError {
    CatalogueError::NotFound { name: volume.to_owned() }
}

fn describe(shelf: &Shelf, volume: &str, kept: &KeptSnapshot) -> SnapshotEntry {
    let record = &kept.record;
    SnapshotEntry {
        id: record.id,
        name: SnapshotName { volume: volume.to_owned(), snapshot: record.name.clone() },
        volume: VolumeId(record.of),
        generation: record.generation,
        size_bytes: record.size_bytes,
        taken_ms: record.at_ms,
        group: record.group.and_then(|group| shelf.group(group)).and_then(|group| group.name.clone()),
        clones: shelf.clones_of(record),
        damage: shelf.damage_of_snapshot(kept).cloned(),
    }
}

/// A snapshot that is not taken.
pub(super) fn would_be(name: &SnapshotName, of: &Entry, group: Option<&str>) -> SnapshotEntry {
    SnapshotEntry {
        id: 0,
        name: name.clone(),
        volume: of.volume,
        generation: 0,
        size_bytes: of.size_bytes,
        taken_ms: wall_ms(),
        group: group.map(str::to_owned),
        clones: Vec::new(),
        damage: None,
    }
}

impl std::fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.volume, self.snapshot)
    }
}
