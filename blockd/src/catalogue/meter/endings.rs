//! The end of a volume's meter: what its registers said when it was deleted or rolled back is in its record before it is so,
//! and the record stays until the ledger has that too.

use super::super::book::Book;
use super::super::record::{MeterEnd, Metered, Record, VolumeRecord};
use super::super::{Catalogue, CatalogueError, ask};
use super::Keeping;
use super::rounds::{Resource, registers};
use metering::{Dimension, Mark, Reading, Registers};
use std::collections::{BTreeMap, BTreeSet};
use units::{MeterTime, TenantId, VolumeId};
use volume::pool::MeterStart;
use volume::request::{Completion, Request};

impl Catalogue {
    /// What the registers of a volume say that is about to be deleted, or rolled back. Of one that cannot tell, what they said
    /// last stands.
    pub(in super::super) async fn end_meter(&self, volume: VolumeId) -> MeterEnd {
        // Changes of its class come before that.
        if let Err(error) = Box::pin(self.read_change(volume)).await {
            tracing::debug!(%volume, %error, "what is not read yet of a volume that ends goes by its former class");
        }
        let (at, registers) = match self.read_to_now(volume).await {
            Ok((at, registers)) => (at, Some(registers)),
            Err(error) => {
                // One that is not a second old has used nothing that could be told.
                tracing::info!(%volume, %error, "what a volume has used since its last reading is not known");
                (self.meter.now(), None)
            }
        };
        let ago_ms = self.meter.now().since(at);
        MeterEnd { at: at.0, wall_ms: crate::open::wall_ms().saturating_sub(ago_ms), registers }
    }

    /// What the record of a volume says that is made now.
    pub(in super::super) fn metered_from_now(&self) -> Metered {
        Metered { from: Some(self.meter.now().0), end: None }
    }

    /// Begins the meter of a volume, durably, before it is served.
    pub(in super::super) async fn begin_meter(&self, record: &VolumeRecord) -> Result<(), CatalogueError> {
        let Some(from) = record.metered.from.map(MeterTime) else { return Ok(()) };
        let start = MeterStart { at: from, size_bytes: record.size_bytes, last: None };
        let begun = ask::begin_meters(&self.store, vec![(VolumeId(record.id), start)]).await?;
        begun.map_err(|fault| ask::store_failed("begin a meter", fault))
    }

    /// Writes the end of a volume's meter to its record, before another takes its name.
    pub(in super::super) async fn note_end(
        &self,
        book: &Book,
        volume: VolumeId,
        end: MeterEnd,
    ) -> Result<(), CatalogueError> {
        let Some(known) = self.read().volume(volume.0).cloned() else { return Ok(()) };
        let record = VolumeRecord { metered: Metered { end: Some(end), ..known.metered }, ..known };
        book.put(&Record::Volume(record.clone())).await?;
        self.write().put_volume(record);
        Ok(())
    }

    /// The moment that a change of a volume's class counts from: the last one up to which its registers can be told, behind what has
    /// been read and behind the changes in its record, of which those go that the ledger has. Nothing is read until what comes with
    /// it is dropped: a reading of a later moment that knows nothing of the change would contradict it.
    pub(in super::super) async fn moment_of_change(
        &self,
        record: &mut VolumeRecord,
    ) -> (MeterTime, tokio::sync::MutexGuard<'_, Keeping>) {
        let volume = VolumeId(record.id);
        let read = self.read_to_now(volume).await;
        let mut keeping = self.meter.keeping.lock().await;
        if let Err(error) = self.find_ledger(&mut keeping).await {
            tracing::debug!(%volume, %error, "what was read last is not known: the change counts as one in any case");
        }
        let at = read.map_or_else(|_| self.meter.now(), |(at, _)| at);
        let noted = record.meter_changes.last().map(|change| change.at);
        let read_to = keeping.last.get(&volume).map(|last| last.at.0);
        record.meter_changes.retain(|change| read_to.is_none_or(|read_to| change.at > read_to));
        let behind = noted.max(read_to).map(|last| last + 1).unwrap_or_default();
        (at.max(MeterTime(behind)), keeping)
    }

    /// Takes the reading of a change of a volume's class.
    pub(in super::super) async fn read_change(&self, volume: VolumeId) -> Result<(), CatalogueError> {
        let mut keeping = self.meter.keeping.lock().await;
        let resource = self.read().volume(volume.0).map(Resource::of);
        let Some(resource) = resource else { return Ok(()) };
        self.find_ledger(&mut keeping).await?;
        let (to, _) = self.read_to_now(volume).await?;
        let changes: Vec<MeterTime> = self.meter_changes(volume).iter().map(|change| MeterTime(change.at)).collect();
        let moments = |after: MeterTime| {
            let ends = self.period_ends(after, to).into_iter();
            let changes = changes.iter().copied().filter(|at| *at <= to);
            ends.chain(changes).collect::<BTreeSet<MeterTime>>().into_iter().collect()
        };
        let readings = self.read_one(&keeping, &resource, moments).await?;
        self.write_readings(&mut keeping, &BTreeMap::from([(resource.tenant, readings)])).await
    }

    /// Takes changes of classes that the ledger has out of the records.
    pub(super) async fn settle_changes(&self) -> Result<(), CatalogueError> {
        let changed: Vec<u64> =
            self.read().volumes().filter(|record| !record.meter_changes.is_empty()).map(|record| record.id).collect();
        for volume in changed {
            let read_to = self.meter.keeping.lock().await.last.get(&VolumeId(volume)).map(|last| last.at);
            let Some(read_to) = read_to else { continue };
            let book = self.book.lock().await;
            let Some(mut record) = self.read().volume(volume).cloned() else { continue };
            let before = record.meter_changes.len();
            record.meter_changes.retain(|change| change.at > read_to.0);
            if record.meter_changes.len() < before {
                book.put(&Record::Volume(record.clone())).await?;
                self.write().put_volume(record);
            }
        }
        Ok(())
    }

    async fn read_to_now(&self, volume: VolumeId) -> Result<(MeterTime, Registers), CatalogueError> {
        let (_, shard) = self.shard_of(volume);
        let untold = || super::ledger::broken("a volume does not tell what it has used");
        let Completion::Metered(at) = ask::submit(shard, volume, Request::Meter).await? else { return Err(untold()) };
        let seen = ask::requests(shard).await?.into_iter().find(|(of, _)| *of == volume);
        if let Some((_, seen)) = seen {
            self.meter.requests().count(volume, seen);
        }
        let said = ask::meter_readings(&self.store, volume, vec![at]).await?.pop().ok_or_else(untold)?;
        Ok((at, registers(&said, self.meter.requests().total(volume))))
    }

    /// Writes the ends of all meters that have ended to the ledger, then takes them out of the records.
    pub(super) async fn settle_endings(&self) -> Result<(), CatalogueError> {
        let ended: Vec<u64> =
            self.read().volumes().filter(|record| record.metered.end.is_some()).map(|record| record.id).collect();
        for volume in ended {
            if !self.settle_ending(volume).await? {
                continue;
            }
            let book = self.book.lock().await;
            let Some(known) = self.read().volume(volume).cloned() else { continue };
            let record = VolumeRecord { metered: Metered { end: None, ..known.metered }, ..known };
            book.put(&Record::Volume(record.clone())).await?;
            self.write().put_volume(record);
        }
        Ok(())
    }

    /// Writes the end of a volume's meter to the ledger; tells whether it has ended.
    pub(in super::super) async fn settle_ending(&self, volume: u64) -> Result<bool, CatalogueError> {
        let ended = {
            let shelf = self.read();
            let record = shelf.volume(volume).filter(|_| shelf.name_of(volume).is_none());
            record.and_then(|record| Some((record.clone(), record.metered.end.clone()?)))
        };
        let Some((record, end)) = ended else { return Ok(false) };
        let mut keeping = self.meter.keeping.lock().await;
        self.find_ledger(&mut keeping).await?;
        let readings = self.last_of(&keeping, &record, &end);
        if !readings.is_empty() {
            self.write_readings(&mut keeping, &BTreeMap::from([(TenantId(record.tenant), readings)])).await?;
        }
        Ok(true)
    }

    /// The readings that are missing to the end of a volume's meter.
    fn last_of(&self, keeping: &Keeping, record: &VolumeRecord, end: &MeterEnd) -> Vec<Reading> {
        let mut readings = Vec::new();
        let before = match keeping.last.get(&VolumeId(record.id)) {
            Some(last) if last.mark == Mark::Ends => return readings,
            Some(last) => last.clone(),
            None => {
                let Some(begun) = self.begun_at(keeping, record) else { return readings };
                readings.push(begun.clone());
                begun
            }
        };
        let (at, wall_ms, registers) = match end.registers {
            Some(registers) if MeterTime(end.at) >= before.at => {
                (MeterTime(end.at), end.wall_ms, no_less(registers, &before.registers))
            }
            Some(_) | None => (before.at, before.wall_ms, before.registers),
        };
        let (sequence, mark) = (before.sequence + 1, Mark::Ends);
        let (class, changes) = Resource::of(record).class_after(&before, at);
        readings.push(Reading { sequence, mark, class, changes, at, wall_ms, registers, ..before });
        readings
    }
}

/// Registers of which none is less than it was before: they do not go back.
fn no_less(registers: Registers, before: &Registers) -> Registers {
    let raise = |all: Registers, of| all.with(of, registers.value(of).max(before.value(of)));
    Dimension::ALL.into_iter().fold(Registers::default(), raise)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. An end that knows less than what was read before it takes nothing back.
    #[test]
    fn registers_do_not_go_back() {
        let of = |reads, writes| Registers::default().with(Dimension::Reads, reads).with(Dimension::Writes, writes);
        assert_eq!(no_less(of(5, 7), &of(6, 4)), of(6, 7));
    }
}
