//! Keeps the history of volumes: takes bases, which are snapshots without names, and has the log behind the oldest of them
//! kept whole; gives the oldest up when it is older than asked for, holds more than it may, or when space runs short.
//!
//! Bases are taken and expire once a second, by one task. Another gives them up for space, oldest of all first, when slots
//! become few and whenever a volume waits for one: it needs no lock that somebody may hold who waits for that volume.

use super::record::{Record, SnapshotRecord, SnapshotState, VolumeRecord};
use super::shelf::{KeptSnapshot, Shelf, boundary_of};
use super::snapshots::missing;
use super::trial::is_trial;
use super::{Catalogue, CatalogueError, Entry, ask};
use crate::open::wall_ms;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use units::{BLOCK_BYTES, Lsn, SnapshotId, VolumeId};
use volume::pool::Boundary;
use volume::request::Request;

/// How often it is looked whether a base is due.
const PERIOD: Duration = Duration::from_secs(1);

/// How often it is counted what history holds; where that takes long, it rests so many times as long.
const COUNT_PERIOD: Duration = Duration::from_secs(5);
const COUNT_RESTS: u32 = 20;

/// So many bases in the time that history is kept for, but neither more often nor more rarely than these.
const BASES: u64 = 24;
const BASE_SECONDS: (u64, u64) = (60, 3600);

/// A base is taken after so much of log, too: what a clone of a moment has to copy at most, about.
const BASE_LOG_BYTES: u64 = 1 << 30;

/// Of what history may hold, and of the pool, at most one of so many parts comes between two bases.
const PARTS: u64 = 16;

/// What history holds is counted in whole slots: unless told, it may hold so many of a small volume.
const LIMIT_SLOTS_MIN: u64 = 8;

/// For how long a volume's history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// In seconds.
    pub seconds: u64,
    /// Most bytes that it may hold; where none are told, as many as the volume has, or eight slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// What there is of a volume's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HistoryFigures {
    /// The first second that it reaches back to, milliseconds since 1970, when it does.
    pub since_ms: Option<u64>,
    /// Bytes that it holds and nothing else does, as they were counted last.
    pub bytes: u64,
}

/// Wakes those who keep history, and knows what they have counted.
#[derive(Debug, Default)]
pub(super) struct HistoryKeeper {
    due: Arc<Notify>,
    starving: Arc<Starving>,
    /// Bytes held, by line.
    counted: Mutex<BTreeMap<u64, u64>>,
}

/// Whether somebody wants space.
#[derive(Debug, Default)]
struct Starving {
    notify: Notify,
    is_wanted: AtomicBool,
}

/// What the keeping of all histories begins with.
struct Round {
    is_short: bool,
    /// Of each open volume, the last operation that was answered, and the bytes that were appended since the start.
    appended: BTreeMap<VolumeId, (Lsn, u64)>,
}

/// How far the keeping of a volume's history is.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that it had appended at the last base.
    appended_bytes: u64,
    counted: Option<(Instant, Duration)>,
}

/// A base, as it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Base {
    at_ms: u64,
    id: u64,
    of: u64,
    lsn: u64,
}

impl HistoryKeeper {
    pub(super) fn wake(&self) {
        self.due.notify_one();
    }

    fn counted(&self, line: u64) -> u64 {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).get(&line).copied().unwrap_or(0)
    }

    fn note_counted(&self, line: u64, bytes: u64) {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).insert(line, bytes);
    }
}

impl Progress {
    /// Bytes that were appended since the last base; after a start, since then.
    fn note(&mut self, appended_bytes: u64) -> u64 {
        if self.appended_bytes == 0 || self.appended_bytes > appended_bytes {
            self.appended_bytes = appended_bytes;
        }
        appended_bytes - self.appended_bytes
    }
}

impl Starving {
    fn want(&self) {
        self.is_wanted.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    fn take(&self) -> bool {
        self.is_wanted.swap(false, Ordering::AcqRel)
    }
}

/// The first whole second behind a base.
pub(super) const fn second_behind(at_ms: u64) -> u64 {
    (at_ms / 1000 + 1) * 1000
}

/// How long after a base the next one is taken.
fn base_ms(history: History) -> u64 {
    let seconds = (history.seconds / BASES).clamp(BASE_SECONDS.0, BASE_SECONDS.1);
    seconds.min(history.seconds / 2).max(1).saturating_mul(1000)
}

fn bases(shelf: &Shelf, line: u64) -> Vec<Base> {
    let base = |record: &SnapshotRecord| {
        let SnapshotRecord { id, of, at_ms, lsn, .. } = *record;
        Base { at_ms, id, of, lsn }
    };
    let mut bases: Vec<Base> = shelf.bases_of_line(line).map(base).collect();
    bases.sort_unstable();
    bases
}

/// Takes bases and has them expire.
async fn keep(catalogue: Weak<Catalogue>, due: Arc<Notify>) {
    let mut progress = BTreeMap::new();
    let mut told = BTreeMap::new();
    loop {
        {
            let Some(catalogue) = catalogue.upgrade().filter(|catalogue| !catalogue.is_stopping()) else { return };
            catalogue.note_floors().await;
            catalogue.tell_if_changed(&mut told).await;
            catalogue.keep_all(&mut progress).await;
        }
        // Whether it is woken or the time is over does not matter.
        let _ = tokio::time::timeout(PERIOD, due.notified()).await;
    }
}

/// Gives history up for space.
async fn give_up_for_space(catalogue: Weak<Catalogue>, starving: Arc<Starving>) {
    loop {
        starving.notify.notified().await;
        let Some(catalogue) = catalogue.upgrade().filter(|catalogue| !catalogue.is_stopping()) else { return };
        if !starving.take() {
            continue;
        }
        let given_up = catalogue.give_up_oldest().await;
        if let Err(error) = &given_up {
            tracing::warn!(%error, "cannot give up history for space");
        }
        if !matches!(given_up, Ok(true)) {
            // Who waits for it is told that there is no space, and nobody waits until it is tried again.
            catalogue.stop_history();
            tokio::time::sleep(PERIOD).await;
            if catalogue.is_stopping() || catalogue.hear_starving().is_err() {
                return;
            }
        }
    }
}

impl Catalogue {
    /// Has the logs of volumes with history tell the time, and starts those who keep it. They end with the catalogue.
    pub(super) async fn start_history(self: &Arc<Self>) -> Result<(), CatalogueError> {
        let volumes: Vec<u64> = {
            let shelf = self.read();
            let has_bases = |record: &VolumeRecord| shelf.bases_of_line(record.line()).next().is_some();
            let with_history = shelf.volumes().filter(|record| record.history.is_some() || has_bases(record));
            with_history.map(|record| record.id).filter(|id| shelf.damage_of(*id).is_none()).collect()
        };
        for volume in volumes {
            // One that is not open takes no writes.
            let _ = self.keep_time(VolumeId(volume), true).await;
        }
        self.hear_starving()?;
        tokio::spawn(keep(Arc::downgrade(self), Arc::clone(&self.history.due)));
        tokio::spawn(give_up_for_space(Arc::downgrade(self), Arc::clone(&self.history.starving)));
        Ok(())
    }

    /// A volume that finds no slot waits for history to be given up from now on.
    fn hear_starving(&self) -> Result<(), CatalogueError> {
        let starving = Arc::clone(&self.history.starving);
        let call = self.store.on_starving(Some(Box::new(move || starving.want())));
        call.map_err(|_| CatalogueError::Ended("the index"))
    }

    /// Nobody gives history up any more: who waits for that is told that there is no space.
    pub(super) fn stop_history(&self) {
        // Where the index has ended, nobody waits for it.
        let _ = self.store.on_starving(None);
    }

    /// Space runs short: something of what is kept goes.
    pub(super) fn want_space(&self) {
        self.history.starving.want();
    }

    /// Says for how long a volume's history is to be kept; with none, what there is of it is given up.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], [`CatalogueError::Quarantined`]; or the system volume's.
    pub async fn keep_history(&self, name: &str, history: Option<History>) -> Result<Entry, CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = self.show_served(name)?;
        self.refuse_if_mirrored(entry.volume, "history of")?;
        let known = self.read().volume(entry.volume.0).cloned().ok_or_else(|| missing(name))?;
        if is_trial() {
            return Ok(Entry { history, ..entry });
        }
        let record = VolumeRecord { history, ..known };
        book.put(&Record::Volume(record.clone())).await?;
        self.note_history(name, record);
        // As long as there is a base, the log tells the time.
        if history.is_some() {
            self.keep_time(entry.volume, true).await?;
        }
        self.history.wake();
        tracing::info!(name, ?history, "history is kept from now on");
        Ok(Entry { history, ..entry })
    }

    /// What there is of a volume's history.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`].
    pub fn history_figures(&self, name: &str) -> Result<HistoryFigures, CatalogueError> {
        let shelf = self.read();
        let line = shelf.line_of(shelf.names.get(name).ok_or_else(|| missing(name))?.entry.volume.0);
        let since_ms = bases(&shelf, line).first().map(|base| second_behind(base.at_ms));
        let bytes = if since_ms.is_some() { self.history.counted(line) } else { 0 };
        Ok(HistoryFigures { since_ms, bytes })
    }

    fn note_history(&self, name: &str, record: VolumeRecord) {
        let mut shelf = self.write();
        if let Some(kept) = shelf.names.get_mut(name) {
            kept.entry.history = record.history;
        }
        shelf.put_volume(record);
    }

    async fn keep_time(&self, volume: VolumeId, is_kept: bool) -> Result<(), CatalogueError> {
        let (_, shard) = self.shard_of(volume);
        ask::submit(shard, volume, Request::KeepTime { is_kept }).await.map(drop)
    }

    /// Tells the index where each history begins when that is not as it was `told`: a volume may have been deleted, and lives
    /// on without history.
    async fn tell_if_changed(&self, told: &mut BTreeMap<VolumeId, Lsn>) {
        let (histories, begun) = {
            let shelf = self.read();
            let histories = shelf.kept_logs();
            // Of a volume that had no segments then, the index knows nothing.
            if histories == *told && !shelf.floors.holds_back() {
                return;
            }
            let begun = ask::begin_keep_history(&self.store, histories.clone(), false);
            (histories, begun)
        };
        if let Ok(begun) = begun
            && begun.end().await.is_ok()
        {
            *told = histories;
        }
    }

    async fn keep_all(&self, progress: &mut BTreeMap<u64, Progress>) {
        let heads: Vec<VolumeRecord> = {
            let shelf = self.read();
            let heads = shelf.names.values().filter_map(|kept| shelf.volume(kept.entry.volume.0));
            let is_kept =
                |head: &&VolumeRecord| head.history.is_some() || shelf.bases_of_line(head.line()).next().is_some();
            heads.filter(is_kept).cloned().collect()
        };
        progress.retain(|volume, _| heads.iter().any(|head| head.id == *volume));
        if heads.is_empty() {
            return;
        }
        let round = match self.begin_round().await {
            Ok(round) => round,
            Err(error) => return tracing::warn!(%error, "cannot keep history"),
        };
        if round.is_short {
            self.history.starving.want();
        }
        for head in heads {
            let progress = progress.entry(head.id).or_default();
            if let Err(error) = self.keep_one(&head, progress, &round).await
                && !self.is_stopping()
            {
                tracing::warn!(name = head.name, %error, "cannot keep the history of a volume now, and tries again");
            }
        }
    }

    async fn begin_round(&self) -> Result<Round, CatalogueError> {
        let stats = self.stats().await?.into_iter().flat_map(|shard| shard.volumes);
        let appended = stats.map(|(volume, stats)| (volume, (stats.status.applied_lsn, stats.status.appended_bytes)));
        Ok(Round { is_short: ask::is_short(&self.store).await?, appended: appended.collect() })
    }

    async fn keep_one(
        &self,
        head: &VolumeRecord,
        progress: &mut Progress,
        round: &Round,
    ) -> Result<(), CatalogueError> {
        let bases = bases(&self.read(), head.line());
        let Some(history) = head.history else {
            for base in bases {
                self.give_up_base(base.id).await?;
            }
            // Unless it is kept again meanwhile.
            let _book = self.book.lock().await;
            if self.read().volume(head.id).is_some_and(|record| record.history.is_none()) {
                self.keep_time(VolumeId(head.id), false).await?;
            }
            return Ok(());
        };
        let since_ms = wall_ms().saturating_sub(history.seconds.saturating_mul(1000));
        if let [oldest, next, ..] = bases.as_slice()
            && next.at_ms < since_ms
        {
            self.give_up_base(oldest.id).await?;
            progress.counted = None;
        }
        let limit_bytes = self.limit_of(head, history);
        let is_over = self.count(head.line(), progress).await? > limit_bytes;
        if is_over && let [oldest, _, ..] = bases.as_slice() {
            self.give_up_base(oldest.id).await?;
            progress.counted = None;
        }
        if !round.is_short && self.read().damage_of(head.id).is_none() {
            let newest = bases.iter().rev().find(|base| base.of == head.id);
            if let Some((lsn, bytes)) = round.appended.get(&VolumeId(head.id)).copied()
                && self.is_due((head, history), newest, (lsn, progress.note(bytes), is_over))
            {
                progress.appended_bytes = bytes;
                self.take_base(VolumeId(head.id)).await?;
            }
        }
        Ok(())
    }

    fn limit_of(&self, head: &VolumeRecord, history: History) -> u64 {
        let size_bytes = self.read().names.get(&head.name).map_or(head.size_bytes, |kept| kept.entry.size_bytes);
        let least_bytes = self.pool.superblock().geometry.slot_bytes * LIMIT_SLOTS_MIN;
        history.limit_bytes.unwrap_or_else(|| size_bytes.max(least_bytes))
    }

    /// Whether a base is to be taken: of a volume that was written since the last one, some time or some log ago; or at once,
    /// when the last one is the only one and holds too much.
    fn is_due(
        &self,
        (head, history): (&VolumeRecord, History),
        newest: Option<&Base>,
        (applied_lsn, since_bytes, is_over): (Lsn, u64, bool),
    ) -> bool {
        let geometry = self.pool.superblock().geometry;
        let limit_bytes = self.limit_of(head, history).min(geometry.pool_bytes());
        let log_bytes = (limit_bytes / PARTS).clamp(geometry.slot_bytes, BASE_LOG_BYTES);
        newest.is_none_or(|base| {
            let is_written = applied_lsn.0 > base.lsn;
            let is_old = wall_ms().saturating_sub(base.at_ms) >= base_ms(history);
            is_written && (is_old || is_over || since_bytes >= log_bytes)
        })
    }

    /// Bytes that history alone holds: what no page names of the segments that are kept, and what the deletion of the
    /// bases would give back.
    async fn count(&self, line: u64, progress: &mut Progress) -> Result<u64, CatalogueError> {
        if let Some((at, took)) = progress.counted
            && at.elapsed() < COUNT_PERIOD.max(took * COUNT_RESTS)
        {
            return Ok(self.history.counted(line));
        }
        let began = Instant::now();
        let mut sets: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for record in self.read().bases_of_line(line) {
            sets.entry(record.of).or_default().insert(record.generation);
        }
        let mut blocks = 0;
        for (volume, set) in sets {
            blocks += ask::history_blocks(&self.store, VolumeId(volume)).await?;
            blocks += self.search(volume, vec![set]).await?.into_iter().sum::<u64>();
        }
        let bytes = blocks.saturating_mul(BLOCK_BYTES);
        self.history.note_counted(line, bytes);
        progress.counted = Some((Instant::now(), began.elapsed()));
        Ok(bytes)
    }

    async fn take_base(&self, volume: VolumeId) -> Result<(), CatalogueError> {
        // Before anything that comes behind it may go.
        ask::begin_history(&self.store, volume).await?;
        let taken = self.record_base(volume).await;
        self.send_histories(true).await?;
        taken
    }

    async fn record_base(&self, volume: VolumeId) -> Result<(), CatalogueError> {
        self.keep_time(volume, true).await?;
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let entry = {
            let shelf = self.read();
            let name = shelf.name_of(volume.0).and_then(|name| shelf.names.get(name));
            let kept = name.filter(|kept| kept.entry.volume == volume && kept.entry.history.is_some());
            let Some(kept) = kept.filter(|kept| !kept.is_leaving) else { return Ok(()) };
            kept.entry.clone()
        };
        let id = book.take_ids(1).await?;
        let Boundary { generation, lsn, size_bytes, wall_ms } = self.mark_one(volume, SnapshotId(id)).await?;
        let record = SnapshotRecord {
            id,
            of: volume.0,
            name: String::new(),
            generation,
            lsn: lsn.0,
            size_bytes,
            at_ms: wall_ms,
            group: None,
            state: SnapshotState::Live,
            is_base: true,
        };
        self.put_taken(&book, std::slice::from_ref(&entry), &[Record::Snapshot(record.clone())]).await?;
        tracing::debug!(name = entry.name, id, %lsn, "took a base of history");
        self.write().put_snapshot(KeptSnapshot { record, damage: None });
        Ok(())
    }

    /// Gives up the oldest base of all; without any, what is kept for the other site. Tells whether there was either.
    async fn give_up_oldest(&self) -> Result<bool, CatalogueError> {
        let oldest = {
            let shelf = self.read();
            let lines = shelf.names.values().map(|kept| shelf.line_of(kept.entry.volume.0));
            lines.filter_map(|line| bases(&shelf, line).first().copied()).min()
        };
        match oldest {
            Some(base) => {
                tracing::info!(volume = base.of, at_ms = base.at_ms, "space runs short: history from then on goes");
                self.give_up_base(base.id).await?;
                Ok(true)
            }
            None => {
                let is_given_up = self.write().floors.give_up_one();
                self.tell_histories().await?;
                Ok(is_given_up)
            }
        }
    }

    /// Gives a base up: its record says so first; then what it alone holds goes, and the log behind it up to the next one.
    async fn give_up_base(&self, id: u64) -> Result<(), CatalogueError> {
        let Some(record) = self.write().take_base(id) else { return Ok(()) };
        let written = self.pen.put(&Record::Snapshot(record.clone())).await;
        self.write().end_taking(id, written.is_ok().then_some(&record));
        if let Err(error) = written {
            // Whatever the record says now, a clone of a moment is told when the log is not whole.
            self.tell_histories().await?;
            return Err(error);
        }
        let deleted = match record.state {
            SnapshotState::Deleting => self.delete_boundary(boundary_of(&record)).await,
            SnapshotState::Live | SnapshotState::Pin => Ok(()),
        };
        self.tell_histories().await?;
        self.cleaner.wake();
        deleted
    }

    async fn tell_histories(&self) -> Result<(), CatalogueError> {
        // Who starves after this does so in spite of it.
        self.history.starving.take();
        self.send_histories(false).await
    }

    /// Tells the index where each history begins. It is sent while nobody changes that, so that what is told last is newest.
    async fn send_histories(&self, ends_beginning: bool) -> Result<(), CatalogueError> {
        let begun = {
            let shelf = self.read();
            ask::begin_keep_history(&self.store, shelf.kept_logs(), ends_beginning)?
        };
        begun.end().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_some_parts_of_the_time_apart() {
        let of = |seconds| base_ms(History { seconds, limit_bytes: None });
        assert_eq!([1, 4, 60, 3600, 86400, 30 * 86400].map(of), [1000, 2000, 30_000, 150_000, 3_600_000, 3_600_000]);
    }

    #[test]
    fn history_begins_with_the_second_behind_its_base() {
        assert_eq!([0, 999, 1000, 1001].map(second_behind), [1000, 1000, 2000, 2000]);
    }
}
