//! Which volumes a target shows, and as which LUNs: for a target that somebody made as they say; of the default target in the order in
//! which its volumes were made, each with the number that it was given first.

use super::super::record::Record;
use super::super::shelf::Shelf;
use super::super::tenants::refuse_other_tenant;
use super::super::trial::is_trial;
use super::super::{Book, Catalogue, CatalogueError};
use super::names::DEFAULT_TARGET;
use super::records::TargetRecord;
use super::{DEFAULT_PORT, Target};
use crate::open::wall_ms;
use std::collections::{BTreeMap, BTreeSet};
use units::TenantId;

/// The highest LUN: SAM-5 4.7.7.2, peripheral device addressing.
pub const LUN_MAX: u16 = 255;

/// A volume of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lun {
    /// Its number.
    pub lun: u16,
    /// The volume's name.
    pub volume: String,
    /// The volume's size; nothing where its record cannot be read.
    pub size_bytes: Option<u64>,
}

/// What a target shows.
pub(super) fn described(shelf: &Shelf, record: &TargetRecord) -> Vec<Lun> {
    let described = |(lun, line): (&u16, &u64)| {
        let head = shelf.head_of(*line);
        let kept = head.and_then(|head| shelf.names.get(&head.name));
        let volume = head.map_or_else(|| format!("volume-{line}"), |head| head.name.clone());
        Lun { lun: *lun, volume, size_bytes: kept.map(|kept| kept.entry.size_bytes) }
    };
    record.luns.iter().map(described).collect()
}

/// The number of a volume that is mapped next: as long as there is one, none that another volume may have had.
fn next_lun(luns: &BTreeMap<u16, u64>) -> Option<u16> {
    let above = luns.last_key_value().map_or(0, |(lun, _)| lun + 1);
    if above <= LUN_MAX { Some(above) } else { (0..=LUN_MAX).find(|lun| !luns.contains_key(lun)) }
}

/// What the default target shows when there are volumes of these lines. While a record cannot be read, what it lacks may come back.
fn renumbered(luns: &BTreeMap<u16, u64>, lines: &BTreeSet<u64>, is_unsure: bool) -> BTreeMap<u16, u64> {
    let mut now = luns.clone();
    now.retain(|_, line| is_unsure || lines.contains(line));
    let known: BTreeSet<u64> = now.values().copied().collect();
    for line in lines.difference(&known) {
        let Some(lun) = next_lun(&now) else { break };
        now.insert(lun, *line);
    }
    now
}

impl Catalogue {
    /// Has a target show a volume of its tenant, as a LUN or as the next one. One that shows it so already is left as it is.
    ///
    /// # Errors
    /// [`CatalogueError::NoTarget`], [`CatalogueError::NotFound`], also of an image; [`CatalogueError::LunInUse`] where the LUN is another
    /// volume's, or the volume has another LUN; [`CatalogueError::Suspended`]; [`CatalogueError::Request`] where the volume is another
    /// tenant's, for a number beyond [`LUN_MAX`], or when all are taken.
    pub async fn map_lun(&self, target: &str, volume: &str, lun: Option<u16>) -> Result<Lun, CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let mut record = self.target_record(target)?;
        refuse_other_tenant(target, volume)?;
        let entry = self.show(volume)?;
        let line = self.read().line_of(entry.volume.0);
        let shown = record.luns.iter().find(|(_, known)| **known == line).map(|(lun, _)| *lun);
        let mapped = |lun| Lun { lun, volume: entry.name.clone(), size_bytes: Some(entry.size_bytes) };
        if let Some(known) = shown.filter(|known| lun.is_some_and(|lun| lun == *known)) {
            return Ok(mapped(known));
        }
        let taken = match lun {
            Some(lun) if lun > LUN_MAX => {
                return Err(CatalogueError::Request(format!("{lun} is no LUN: write one from 0 to {LUN_MAX}")));
            }
            Some(lun) => shown.or_else(|| record.luns.contains_key(&lun).then_some(lun)),
            None => shown,
        };
        if let Some(taken) = taken {
            let shown = described(&self.read(), &record).into_iter().find(|shown| shown.lun == taken);
            let volume = shown.map_or_else(String::new, |shown| shown.volume);
            return Err(CatalogueError::LunInUse { target: target.to_owned(), lun: taken, volume });
        }
        let full = || CatalogueError::Request(format!("target {target} shows {} volumes, and no more", LUN_MAX + 1));
        let lun = lun.or_else(|| next_lun(&record.luns)).ok_or_else(full)?;
        if is_trial() {
            return Ok(mapped(lun));
        }
        record.luns.insert(lun, line);
        self.put_target(&book, record).await?;
        tracing::info!(target, volume, lun, "mapped a volume");
        Ok(mapped(lun))
    }

    /// Has a target show the volume of a LUN no more.
    ///
    /// # Errors
    /// [`CatalogueError::NoTarget`], [`CatalogueError::NoLun`], [`CatalogueError::Suspended`]; or the system volume's.
    pub async fn unmap_lun(&self, target: &str, lun: u16) -> Result<Target, CatalogueError> {
        let book = self.book.lock().await;
        self.refuse_if_stopping()?;
        let mut record = self.target_record(target)?;
        if record.luns.remove(&lun).is_none() {
            return Err(CatalogueError::NoLun { target: target.to_owned(), lun });
        }
        if is_trial() {
            let mut would_be = self.show_target(target)?;
            would_be.luns.retain(|shown| shown.lun != lun);
            return Ok(would_be);
        }
        self.put_target(&book, record).await?;
        tracing::info!(target, lun, "unmapped a volume");
        self.show_target(target)
    }

    /// Has the default target show a volume that was made. What cannot be written is not shown, and is tried again with the next
    /// one: nobody may see a number that another volume has after a restart.
    pub(in crate::catalogue) async fn show_by_default(&self, book: &mut Book) {
        if self.serves_targets()
            && let Err(error) = self.renumber_default(book, None).await
        {
            tracing::warn!(%error, "the default target does not show all volumes yet");
        }
    }

    /// Takes a deleted volume out of all targets, and its reservations away. That it is deleted is durable: what is left in records
    /// shows nothing, and goes later.
    pub(in crate::catalogue) async fn forget_in_targets(&self, book: &mut Book, line: u64) {
        if let Err(error) = self.take_out_of_targets(book, line).await {
            tracing::warn!(line, %error, "the records of targets still name a deleted volume");
        }
    }

    async fn take_out_of_targets(&self, book: &mut Book, line: u64) -> Result<(), CatalogueError> {
        let changed: Vec<TargetRecord> = {
            let mut shelf = self.write();
            let having = shelf.targets.named.values_mut().map(|kept| &mut kept.record);
            let having = having.filter(|record| record.luns.values().any(|known| *known == line));
            having.map(|record| without(record, line)).collect()
        };
        self.tell_targets();
        for record in changed {
            book.put(&Record::Target(record)).await?;
        }
        if self.serves_targets() {
            self.renumber_default(book, Some(line)).await?;
        }
        self.drop_reservations(book, line).await
    }

    /// Has the default target show the volumes that are there, durably; none of a line that was deleted.
    pub(super) async fn renumber_default(&self, book: &mut Book, deleted: Option<u64>) -> Result<(), CatalogueError> {
        let (known, luns, is_unsure) = {
            let shelf = self.read();
            let known = shelf.targets.default.clone();
            let mut luns = known.as_ref().map(|record| record.luns.clone()).unwrap_or_default();
            luns.retain(|_, line| deleted != Some(*line));
            (known, renumbered(&luns, &lines_by_default(&shelf), shelf.is_unsure()), shelf.is_unsure())
        };
        match known {
            Some(record) if record.luns == luns => Ok(()),
            Some(record) => self.put_target(book, TargetRecord { luns, ..record }).await,
            // The record that cannot be read may be its own: other numbers would be given.
            None if luns.is_empty() || is_unsure => Ok(()),
            None => {
                let (id, created_ms) = (book.take_ids(1).await?, wall_ms());
                let (name, tenant) = (DEFAULT_TARGET.to_owned(), TenantId::DEFAULT.0);
                let (port, is_default) = (DEFAULT_PORT, true);
                self.put_target(book, TargetRecord { id, name, tenant, port, luns, created_ms, is_default }).await
            }
        }
    }
}

/// Takes a line out of a record, and returns what that is then.
fn without(record: &mut TargetRecord, line: u64) -> TargetRecord {
    record.luns.retain(|_, known| *known != line);
    record.clone()
}

/// The lines of the default tenant's volumes that are no images.
fn lines_by_default(shelf: &Shelf) -> BTreeSet<u64> {
    let entries = shelf.names.values().map(|kept| &kept.entry);
    let shown = entries.filter(|entry| entry.tenant == TenantId::DEFAULT && entry.image.is_none());
    shown.filter_map(|entry| shelf.volume(entry.volume.0)).map(super::super::VolumeRecord::line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(luns: &[(u16, u64)], lines: &[u64], is_unsure: bool) -> Vec<(u16, u64)> {
        renumbered(&luns.iter().copied().collect(), &lines.iter().copied().collect(), is_unsure).into_iter().collect()
    }

    /// P2. A volume keeps its number whatever becomes of the others, and a new one gets one above all of them, as long as there is one.
    #[test]
    fn a_volume_keeps_its_number() {
        assert_eq!(numbered(&[], &[9, 4], false), [(0, 4), (1, 9)]);
        assert_eq!(numbered(&[(0, 4), (1, 9), (2, 11)], &[9, 11, 12], false), [(1, 9), (2, 11), (3, 12)]);
        assert_eq!(numbered(&[(3, 4), (255, 5)], &[4, 5, 6, 7], false), [(0, 6), (1, 7), (3, 4), (255, 5)]);
        let all: Vec<u64> = (1..=300).collect();
        assert_eq!(numbered(&[], &all, false).len(), 256);
        assert_eq!(numbered(&[(0, 4)], &[], true), [(0, 4)], "what cannot be read may come back");
    }
}
