//! Persistent reservations that outlive a restart: SPC-4 5.12, `APTPL`. What they mean is not known here.
//!
//! They are kept in as many records as they take, whose ids lie one behind the other: these are written as one, so that after a
//! crash all of them are there or none, and of two generations of them the one with the higher ids counts.

use super::super::record::Record;
use super::super::shelf::Shelf;
use super::super::{Book, Catalogue, CatalogueError};
use super::names::ISCSI_NAME_BYTES_MAX;
use super::records::{KeptNexus, ReservationRecord};
use crate::shard::UnitSettings;
use crate::unit::naa_of;
use std::collections::BTreeMap;
use std::ops::Range;
use units::{PoolId, VolumeId};

/// Most registrations of a volume that are kept.
pub const REGISTRATIONS_MAX: usize = 256;

/// Most characters of an ISID, which has 6 bytes.
const ISID_LEN_MAX: usize = 32;

/// Bytes of a record that registrations may take; the rest of a block is for what is told of all.
const PART_BYTES: usize = 3600;

/// A volume's registrations, and its reservation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeptReservations {
    /// `PRGENERATION`.
    pub generation: u32,
    /// The type of the reservation, when there is one.
    pub kind: Option<u8>,
    /// Who is registered, and who of them holds it.
    pub registrations: Vec<KeptNexus>,
}

/// They, and where they are kept.
#[derive(Debug)]
pub(super) struct KeptSet {
    first: u64,
    parts: u64,
    kept: KeptReservations,
}

impl KeptSet {
    pub(super) const fn ids(&self) -> Range<u64> {
        self.first..self.first + self.parts
    }
}

/// The newest of each volume that is there with all its parts; and the ids of all other records.
pub(super) fn newest(records: Vec<ReservationRecord>) -> (BTreeMap<u64, KeptSet>, Vec<u64>) {
    let mut sets: BTreeMap<(u64, u64), Vec<ReservationRecord>> = BTreeMap::new();
    let mut stale = Vec::new();
    for record in records {
        match record.id.checked_sub(u64::from(record.part)) {
            Some(first) => sets.entry((record.volume, first)).or_default().push(record),
            None => stale.push(record.id),
        }
    }
    let mut newest: BTreeMap<u64, KeptSet> = BTreeMap::new();
    for ((volume, first), mut records) in sets {
        records.sort_by_key(|record| record.part);
        let Some(set) = whole(first, &mut records) else {
            stale.extend(records.iter().map(|record| record.id));
            continue;
        };
        stale.extend(newest.insert(volume, set).iter().flat_map(KeptSet::ids));
    }
    (newest, stale)
}

/// What some parts in order are together, if none is missing.
fn whole(first: u64, records: &mut [ReservationRecord]) -> Option<KeptSet> {
    let ReservationRecord { generation, parts, reservation: kind, .. } = *records.first()?;
    let is_whole = records.len() == usize::from(parts)
        && records.iter().all(|record| (record.generation, record.parts) == (generation, parts));
    if !is_whole {
        return None;
    }
    let registrations = records.iter_mut().flat_map(|record| std::mem::take(&mut record.registrations)).collect();
    Some(KeptSet { first, parts: u64::from(parts), kept: KeptReservations { generation, kind, registrations } })
}

/// The records, without their ids.
fn records_of(line: u64, kept: &KeptReservations) -> Vec<ReservationRecord> {
    let mut parts: Vec<Vec<KeptNexus>> = vec![Vec::new()];
    let mut bytes = 0;
    for nexus in &kept.registrations {
        let len = serde_json::to_vec(nexus).map_or(PART_BYTES, |text| text.len()) + 1;
        if bytes + len > PART_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        if let Some(part) = parts.last_mut() {
            part.push(nexus.clone());
        }
    }
    let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
    let record = |(part, registrations)| ReservationRecord {
        id: 0,
        volume: line,
        generation: kept.generation,
        part,
        parts: count,
        registrations,
        reservation: kept.kind,
    };
    (0..count).zip(parts).map(record).collect()
}

fn check(kept: &KeptReservations) -> Result<(), CatalogueError> {
    let is_text = |text: &str, len_max: usize| text.len() <= len_max && !text.chars().any(char::is_control);
    let is_good =
        |nexus: &KeptNexus| is_text(&nexus.initiator, ISCSI_NAME_BYTES_MAX) && is_text(&nexus.isid, ISID_LEN_MAX);
    if kept.registrations.len() > REGISTRATIONS_MAX || !kept.registrations.iter().all(is_good) {
        let detail =
            format!("at most {REGISTRATIONS_MAX} registrations of a volume are kept, by initiators with names");
        return Err(CatalogueError::Request(detail));
    }
    Ok(())
}

impl Shelf {
    /// What a volume is as a logical unit: the same for those that replace it by rollbacks.
    pub(in crate::catalogue) fn unit_of(&self, pool: &PoolId, volume: VolumeId) -> UnitSettings {
        let line = self.line_of(volume.0);
        let reservations = self.targets.reservations.get(&line).map(|set| set.kept.clone());
        UnitSettings { naa: naa_of(pool, line), is_read_only: false, reservations }
    }
}

impl Catalogue {
    /// What was kept of a volume's reservations.
    #[must_use]
    pub fn reservations_of(&self, volume: VolumeId) -> Option<KeptReservations> {
        let shelf = self.read();
        shelf.targets.reservations.get(&shelf.line_of(volume.0)).map(|set| set.kept.clone())
    }

    /// Keeps a volume's reservations in place of those that were kept, or none any more: durable when this is answered. A rollback
    /// leaves them, a deletion takes them away.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`]; [`CatalogueError::Request`] for more than [`REGISTRATIONS_MAX`]; or the system volume's: then either may
    /// be there after a restart.
    pub async fn keep_reservations(
        &self,
        volume: VolumeId,
        kept: Option<KeptReservations>,
    ) -> Result<(), CatalogueError> {
        kept.as_ref().map_or(Ok(()), check)?;
        let mut book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let line = {
            let shelf = self.read();
            let line = shelf.line_of(volume.0);
            let head = shelf.head_of(line);
            head.map(|_| line).ok_or_else(|| CatalogueError::NotFound { name: format!("of id {volume}") })?
        };
        match kept {
            Some(kept) => self.put_reservations(&mut book, line, kept).await,
            None => self.drop_reservations(&book, line).await,
        }
    }

    async fn put_reservations(&self, book: &mut Book, line: u64, kept: KeptReservations) -> Result<(), CatalogueError> {
        let mut records = records_of(line, &kept);
        let parts = records.len() as u64;
        let before = self.read().targets.reservations.get(&line).map(KeptSet::ids);
        // As many as before take their place in one write; others are written before those go.
        let first = match &before {
            Some(ids) if ids.end - ids.start == parts => ids.start,
            Some(_) | None => book.take_ids(parts).await?,
        };
        records.iter_mut().zip(first..).for_each(|(record, id)| record.id = id);
        let records: Vec<Record> = records.into_iter().map(Record::Reservation).collect();
        let before = before.filter(|ids| ids.start != first);
        if let Err(error) = book.put_all(&records).await {
            tracing::warn!(line, %error, "reservations that were refused may be there after a restart");
            return Err(error);
        }
        self.write().targets.reservations.insert(line, KeptSet { first, parts, kept });
        // Should a power cut bring them back, the newer ones count.
        let stale: Vec<u64> = before.into_iter().flatten().collect();
        if let Err(error) = book.drop_all(&stale).await {
            tracing::debug!(line, %error, "former reservations are taken away at the next start");
        }
        Ok(())
    }

    /// Takes away what was kept of the reservations of a line.
    pub(super) async fn drop_reservations(&self, book: &Book, line: u64) -> Result<(), CatalogueError> {
        let ids = self.read().targets.reservations.get(&line).map(KeptSet::ids);
        let Some(ids) = ids else { return Ok(()) };
        book.remove(ids.start, ids.end - ids.start).await?;
        self.write().targets.reservations.remove(&line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::record::encode;
    use super::*;

    fn longest(count: usize) -> KeptReservations {
        let nexus = KeptNexus {
            initiator: "\\".repeat(ISCSI_NAME_BYTES_MAX),
            isid: "f".repeat(ISID_LEN_MAX),
            port: u16::MAX,
            key: u64::MAX,
            is_holder: true,
        };
        KeptReservations { generation: u32::MAX, kind: Some(u8::MAX), registrations: vec![nexus; count] }
    }

    fn with_ids(first: u64, kept: &KeptReservations) -> Vec<ReservationRecord> {
        let records = records_of(7, kept).into_iter().zip(first..);
        records.map(|(record, id)| ReservationRecord { id, ..record }).collect()
    }

    /// P1. However many are registered, each part fits in its block, and together they are what was kept.
    #[test]
    fn parts_fit_in_blocks_and_are_together_what_was_kept() {
        for count in [0, 1, 5, REGISTRATIONS_MAX] {
            let kept = longest(count);
            check(&kept).unwrap();
            let mut records = with_ids(1 << 27, &kept);
            for record in &records {
                encode(&Record::Reservation(ReservationRecord { id: u64::MAX, volume: u64::MAX, ..record.clone() }));
            }
            records.reverse();
            let (sets, stale) = newest(records);
            assert_eq!(sets[&7].kept, kept);
            assert_eq!((stale, sets[&7].first), (Vec::new(), 1 << 27));
        }
        assert!(check(&longest(REGISTRATIONS_MAX + 1)).is_err());
    }

    /// P1. The newest that is there with all its parts counts, and all others may go.
    #[test]
    fn the_newest_that_is_whole_counts() {
        let (old, new) = (longest(20), KeptReservations { generation: 5, ..longest(30) });
        let (old_records, new_records) = (with_ids(100, &old), with_ids(200, &new));
        let all: Vec<_> = old_records.iter().chain(&new_records).cloned().collect();
        let (sets, stale) = newest(all.clone());
        assert_eq!(sets[&7].kept, new);
        assert_eq!(stale, (100..100 + old_records.len() as u64).collect::<Vec<_>>());
        let (sets, stale) = newest(all.into_iter().filter(|record| record.id != 201).collect());
        assert_eq!(sets[&7].kept, old);
        assert_eq!(stale.len(), new_records.len() - 1);
    }
}
