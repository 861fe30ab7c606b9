//! Clones of moments: a volume as it was at a second within its history.
//!
//! The newest base before that second is cloned, and what the log says between is made to the clone by ordinary writes. Until
//! that is done the clone's record says that it is being deleted, so that a start takes what a stop has left unfinished
//! away; then one record gives it its name.

use super::history::second_behind;
use super::record::{Metered, Record, SnapshotRecord, VolumeRecord, VolumeState};
use super::shelf::{Shelf, boundary_of};
use super::tenants::{Usage, refuse_other_tenant, tenant_of};
use super::trial::is_trial;
use super::{Catalogue, CatalogueError, Entry, ask};
use crate::open::wall_ms;
use crate::shard::ShardHandle;
use smallvec::smallvec;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;
use units::{ClassId, Lsn, VolumeId};
use volume::error::{Error, ErrorKind};
use volume::history::{Change, HistoryError, Replay};
use volume::pool::Boundary;
use volume::recover::fresh_clone;
use volume::request::Request;

/// Changes of up to 1 MiB that are read ahead, and that are under way.
const AHEAD_MAX: usize = 8;

/// A clone that is not there yet, and what it began as.
struct Begun {
    record: VolumeRecord,
    base: SnapshotRecord,
}

impl Catalogue {
    /// Makes a volume that is another one as that was at the beginning of a second, milliseconds since 1970: with all that
    /// had been answered before, and nothing that was asked for later. It is there when all of it is.
    ///
    /// # Errors
    /// [`CatalogueError::NoHistory`] when that does not reach so far back; [`CatalogueError::Request`] for a second to come;
    /// or as of [`Catalogue::clone_snapshot`].
    pub async fn clone_moment(&self, volume: &str, at_ms: u64, name: &str) -> Result<Entry, CatalogueError> {
        if at_ms > wall_ms() {
            return Err(CatalogueError::Request(format!("that moment of volume {volume} is still to come")));
        }
        if is_trial() {
            return self.would_begin_moment((volume, at_ms), name).await;
        }
        let begun = self.begin_moment((volume, at_ms), name).await?;
        let made = match self.fill(&begun, at_ms).await {
            Ok(size_bytes) => self.finish(begun.record.clone(), size_bytes).await,
            Err(error) => Err(error),
        };
        if made.is_err() {
            self.abandon(begun.record);
        }
        made.map_err(|error| {
            let is_gone = matches!(error, CatalogueError::NoHistory { .. });
            if is_gone { self.no_history(volume) } else { error }
        })
    }

    /// What the clone would be, if the copy does not fail; of the base's size, since another one is found by reading the log.
    async fn would_begin_moment(&self, (volume, at_ms): (&str, u64), name: &str) -> Result<Entry, CatalogueError> {
        let _book = self.book.lock().await;
        self.refuse_if_stopping()?;
        refuse_other_tenant(volume, name)?;
        let entry = self.show_served(volume)?;
        self.refuse_if_taken(name)?;
        let base = base_before(&self.read(), entry.volume.0, at_ms).cloned();
        let base = base.ok_or_else(|| self.no_history(volume))?;
        self.read().refuse_over_quota(tenant_of(name), Usage::volume(base.size_bytes))?;
        let (volume, name, size_bytes, created_ms) = (VolumeId(0), name.to_owned(), base.size_bytes, wall_ms());
        Ok(Entry { volume, name, size_bytes, created_ms, image: None, history: None, qos: None, ..entry })
    }

    /// Clones the base, without a name.
    async fn begin_moment(&self, (volume, at_ms): (&str, u64), name: &str) -> Result<Begun, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        refuse_other_tenant(volume, name)?;
        let entry = self.show_served(volume)?;
        self.refuse_if_taken(name)?;
        let id = book.take_ids(1).await?;
        let begun = {
            let mut shelf = self.write();
            let base = base_before(&shelf, entry.volume.0, at_ms).cloned();
            let Some(base) = base else {
                drop(shelf);
                return Err(self.no_history(volume));
            };
            let damage = shelf.snapshot(base.id).and_then(|kept| shelf.damage_of_snapshot(kept));
            if let Some(reason) = damage.cloned() {
                return Err(CatalogueError::Quarantined { name: volume.to_owned(), reason });
            }
            shelf.refuse_over_quota(tenant_of(name), Usage::volume(base.size_bytes))?;
            let qos = shelf.policy_of(entry.class).qos;
            let record = VolumeRecord {
                id,
                name: name.to_owned(),
                tenant: entry.tenant.0,
                size_bytes: base.size_bytes,
                created_ms: wall_ms(),
                state: VolumeState::Deleting,
                parent: Some(boundary_of(&base)),
                line: None,
                image: None,
                history: None,
                qos,
                class: entry.class.0,
                meter_changes: Vec::new(),
                mirror: None,
                metered: Metered::default(),
            };
            // Nobody deletes it while it is being made.
            shelf.put_volume(VolumeRecord { state: VolumeState::Live, ..record.clone() });
            shelf.note_coming(name, base.size_bytes);
            Begun { record, base }
        };
        let served = match self.record_heir(&book, &begun.record).await {
            Ok(()) => self.serve(fresh_clone(VolumeId(id), begun.record.size_bytes), (entry.tenant, begun.record.qos)),
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            self.abandon(begun.record);
            return Err(error);
        }
        Ok(begun)
    }

    /// Has the cleaner take a clone away that is not to be there, as it does one that nobody needs any more: its record is
    /// written first. One that was to give it its name may have been written in spite of an error.
    fn abandon(&self, record: VolumeRecord) {
        let mut shelf = self.write();
        shelf.forget_coming(&record.name);
        shelf.put_volume(VolumeRecord { state: VolumeState::Ghost, ..record });
        drop(shelf);
        self.cleaner.wake();
    }

    /// Makes the clone what the volume was; returns the size of that.
    async fn fill(&self, begun: &Begun, at_ms: u64) -> Result<u64, CatalogueError> {
        let SnapshotRecord { of, lsn, generation, size_bytes, at_ms: wall_ms, .. } = begun.base;
        let (source, lsn) = (VolumeId(of), Lsn(lsn));
        // What was answered is then on stable storage, and the index knows it.
        ask::submit(self.shard_of(source).1, source, Request::Checkpoint).await?;
        let targets = ask::history_targets(&self.store, (source, lsn)).await?;
        let (sender, mut changes) = mpsc::channel(AHEAD_MAX);
        let pool = Arc::clone(&self.pool);
        let replay = Replay::new(Boundary { generation, lsn, size_bytes, wall_ms }, at_ms);
        let reading = tokio::task::spawn_blocking(move || {
            let mut give = |change| sender.blocking_send(change).map_err(|_| HistoryError::Stopped);
            replay.run((&*pool, pool.superblock()), &targets, &mut give)
        });
        let volume = VolumeId(begun.record.id);
        let mut copying = Copying { shard: self.shard_of(volume).1, volume, under_way: VecDeque::new(), size_bytes };
        while let Some(change) = changes.recv().await {
            self.refuse_if_stopping()?;
            copying.make(change).await?;
        }
        copying.wait_for(0).await?;
        let read = reading.await.map_err(|_| CatalogueError::Ended("the replay of a log"))?;
        read.map_err(|error| error_of(&error, self.read().is_log_kept(&begun.base), &begun.record.name))?;
        ask::submit(copying.shard, volume, Request::Flush).await?;
        Ok(copying.size_bytes)
    }

    /// Gives the clone its name.
    async fn finish(&self, record: VolumeRecord, size_bytes: u64) -> Result<Entry, CatalogueError> {
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        {
            let shelf = self.read();
            // It counts already as it was at its base.
            let coming = shelf.coming.get(&record.name).copied().unwrap_or(0);
            shelf.refuse_over_quota(tenant_of(&record.name), Usage::bytes(size_bytes.saturating_sub(coming)))?;
        }
        // Not before all of it is there: its bases are of what it is then.
        let history = self.read().policy_of(ClassId(record.class)).history;
        let (state, metered) = (VolumeState::Live, self.metered_from_now());
        let record = VolumeRecord { state, size_bytes, history, metered, ..record };
        self.begin_meter(&record).await?;
        book.put(&Record::Volume(record.clone())).await?;
        let volume = VolumeId(record.id);
        let (shard, _) = self.shard_of(volume);
        let entry = Entry::of(&record, shard);
        self.put(record, entry.clone());
        self.show_by_default(&mut book).await;
        self.history.wake();
        self.write().forget_coming(&entry.name);
        tracing::info!(name = entry.name, id = volume.0, "made a clone of a moment");
        Ok(entry)
    }

    fn no_history(&self, volume: &str) -> CatalogueError {
        let since_ms = self.history_figures(volume).ok().and_then(|figures| figures.since_ms);
        CatalogueError::NoHistory { name: volume.to_owned(), since_ms }
    }
}

/// The newest base before a moment, of the volume that had the name then.
fn base_before(shelf: &Shelf, head: u64, at_ms: u64) -> Option<&SnapshotRecord> {
    let line = shelf.volumes_of(shelf.line_of(head)).filter_map(|id| shelf.volume(id));
    let volume = line.filter(|record| record.created_ms <= at_ms).last()?;
    let bases = shelf.bases_of(volume.id).filter(|base| second_behind(base.at_ms) <= at_ms);
    bases.max_by_key(|base| base.lsn)
}

/// The clone, as it is made.
struct Copying<'a> {
    shard: &'a ShardHandle,
    volume: VolumeId,
    under_way: VecDeque<ask::Begun>,
    size_bytes: u64,
}

impl Copying<'_> {
    /// Changes are made in the order in which they are handed over.
    async fn make(&mut self, change: Change) -> Result<(), CatalogueError> {
        let request = match change {
            Change::Write(range, buffer) => Request::Write { range, payload: smallvec![buffer], fua: false },
            Change::Zero(range) => Request::Trim { range, fua: false },
            Change::Resize(size_bytes) => {
                self.wait_for(0).await?;
                self.size_bytes = size_bytes;
                let resize = Request::Resize { size_bytes, discard_tail: true };
                return ask::submit(self.shard, self.volume, resize).await.map(drop);
            }
        };
        self.wait_for(AHEAD_MAX - 1).await?;
        self.under_way.push_back(ask::begin(self.shard, self.volume, request)?);
        Ok(())
    }

    /// Waits until no more than so many are under way.
    async fn wait_for(&mut self, count: usize) -> Result<(), CatalogueError> {
        while self.under_way.len() > count
            && let Some(first) = self.under_way.pop_front()
        {
            first.end().await?;
        }
        Ok(())
    }
}

/// Where the log was given up while it was read, what looks damaged is what has taken its place.
fn error_of(error: &HistoryError, is_kept: bool, name: &str) -> CatalogueError {
    let is_gone = CatalogueError::NoHistory { name: name.to_owned(), since_ms: None };
    let kind = match error {
        HistoryError::Gone(_) => return is_gone,
        HistoryError::Damage(_) | HistoryError::Rotten(..) if !is_kept => return is_gone,
        HistoryError::Damage(_) | HistoryError::Rotten(..) => ErrorKind::Corrupt,
        HistoryError::Disk(_) | HistoryError::Stopped => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("read the log of the past: {error}")).into()
}

#[cfg(test)]
mod tests {
    use super::super::record::SnapshotState;
    use super::super::shelf::KeptSnapshot;
    use super::*;
    use units::SegmentId;

    fn volume(id: u64, created_ms: u64, line: Option<u64>) -> VolumeRecord {
        let (name, state) = ("vm".to_owned(), VolumeState::Live);
        let (tenant, size_bytes, parent, image, history, qos) = (0, 4096, None, None, None, None);
        let (class, meter_changes, metered) = (0, Vec::new(), Metered::default());
        VolumeRecord {
            id,
            name,
            tenant,
            size_bytes,
            created_ms,
            state,
            parent,
            line,
            image,
            history,
            qos,
            class,
            meter_changes,
            metered,
            mirror: None,
        }
    }

    fn base(id: u64, of: u64, at_ms: u64) -> KeptSnapshot {
        let (name, state) = (String::new(), SnapshotState::Live);
        let (generation, lsn, size_bytes, group) = (id, id, 4096, None);
        let record = SnapshotRecord { id, of, name, generation, lsn, size_bytes, at_ms, group, state, is_base: true };
        KeptSnapshot { record, damage: None }
    }

    /// P2. A moment is looked for in the volume that had the name then, from the newest base that shows nothing of that second.
    #[test]
    fn a_moment_begins_as_the_newest_base_before_it() {
        let mut shelf = Shelf::default();
        shelf.put_volume(volume(1, 500, None));
        for (id, at_ms) in [(2, 900), (3, 2000), (4, 5999)] {
            shelf.put_snapshot(base(id, 1, at_ms));
        }
        // A rollback.
        shelf.put_volume(volume(5, 8100, Some(1)));
        shelf.put_snapshot(base(6, 5, 8700));
        let found = |shelf: &Shelf, at_ms| base_before(shelf, 5, at_ms).map(|base| base.id);
        let wanted = [(0, None), (1000, Some(2)), (2000, Some(2)), (3000, Some(3)), (6000, Some(4)), (8000, Some(4))];
        for (at_ms, id) in wanted {
            assert_eq!(found(&shelf, at_ms), id, "at {at_ms}");
        }
        assert_eq!(found(&shelf, 9000), Some(6));
        assert_eq!(shelf.snapshots_of(1).count(), 0, "people see no bases");
        assert_eq!(shelf.take_base(3).map(|record| record.state), Some(SnapshotState::Deleting));
        assert_eq!(found(&shelf, 3000), Some(2), "one that is given up is not cloned");
        shelf.put_volume(VolumeRecord { parent: Some(boundary_of(&base(2, 1, 900).record)), ..volume(7, 9000, None) });
        assert_eq!(shelf.take_base(2).map(|record| record.state), Some(SnapshotState::Pin));
        assert_eq!(found(&shelf, 2000), None);
    }

    /// P2. A log that was given up while a clone read it has no damage: there is no such history any more.
    #[test]
    fn a_log_that_goes_while_it_is_read_is_no_damage() {
        let mut shelf = Shelf::default();
        shelf.put_volume(volume(1, 500, None));
        shelf.put_snapshot(base(2, 1, 900));
        shelf.put_snapshot(base(3, 1, 2000));
        let begun = base(2, 1, 900).record;
        let rotten = HistoryError::Rotten(SegmentId(4), 5);
        let failed = |shelf: &Shelf| error_of(&rotten, shelf.is_log_kept(&begun), "vm");
        assert!(matches!(failed(&shelf), CatalogueError::Volume(error) if error.kind == ErrorKind::Corrupt));
        let given_up = shelf.take_base(2).unwrap();
        assert!(matches!(failed(&shelf), CatalogueError::Volume(_)), "it is kept until that is durable");
        shelf.end_taking(2, Some(&given_up));
        assert!(matches!(failed(&shelf), CatalogueError::NoHistory { .. }));
    }

    /// P2. The log behind a base is kept until the record that gives the base up is durable: a start before that believes in
    /// it. One whose record could not be written is a base again.
    #[test]
    fn a_base_is_counted_until_its_end_is_durable() {
        let mut shelf = Shelf::default();
        shelf.put_volume(volume(1, 500, None));
        shelf.put_snapshot(base(2, 1, 900));
        shelf.put_snapshot(base(3, 1, 2000));
        let kept = |lsn| [(VolumeId(1), Lsn(lsn))].into();
        let given_up = shelf.take_base(2).unwrap();
        assert_eq!((shelf.histories(), shelf.bases_of(1).count()), (kept(2), 1));
        shelf.end_taking(2, None);
        assert_eq!((shelf.histories(), shelf.bases_of(1).count()), (kept(2), 2));
        assert_eq!(shelf.take_base(2), Some(given_up.clone()));
        shelf.end_taking(2, Some(&given_up));
        assert_eq!((shelf.histories(), shelf.bases_of(1).count()), (kept(3), 1));
    }
}
