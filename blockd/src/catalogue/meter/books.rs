//! The ledger's books for whoever makes bills of them.

use super::super::trial::is_trial;
use super::super::{Catalogue, CatalogueError, ask};
use super::ledger::{Lines, broken};
use super::looks::Look;
use super::readings_of;
use super::rounds::Resource;
use metering::Reading;
use metering::ledger::{
    AccountEntry, Book, Books, Date, Entry, ExportError, Exporter, HeadPlace, Ledger, NewEntry, PublicKey,
};
use std::collections::BTreeMap;
use std::ops::Range;
use tokio::sync::mpsc;
use units::TenantId;
use volume::request::{Completion, Request};

/// Bytes of a bundle that are given out at a time.
const PIECE_BYTES: usize = 256 << 10;

/// The first block that may have lines.
const FIRST_BLOCK: u64 = 1;

impl Catalogue {
    /// Appends entries to the accounts of tenants, all or none, durably.
    ///
    /// # Errors
    /// [`CatalogueError::Request`] for what no entry can be; or the ledger's volume's.
    pub async fn append_to_accounts(&self, entries: &[NewEntry<'_>]) -> Result<(), CatalogueError> {
        let mut keeping = self.meter.keeping.lock().await;
        self.refuse_if_stopping()?;
        self.find_ledger(&mut keeping).await?;
        if is_trial() {
            return Ok(());
        }
        keeping.append(entries).await
    }

    /// The account of a tenant, from its first entry on.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn account(&self, tenant: TenantId) -> Result<Vec<AccountEntry>, CatalogueError> {
        let mut accounts = self.meter.accounts.lock().await;
        let (read_to, mut found) = (accounts.read_to, Vec::new());
        let end = self
            .each_line(
                |_| Ok(read_to),
                |line| {
                    if let Ok(Entry { number, tenant, kind, time_ms, payload, .. }) = Entry::parse(line)
                        && kind.book() == Book::Account
                    {
                        found.push((tenant, AccountEntry { number, kind, time_ms, payload: payload.to_owned() }));
                    }
                    Ok(())
                },
            )
            .await?;
        for (tenant, entry) in found {
            accounts.of.entry(tenant).or_default().push(entry);
        }
        accounts.read_to = end;
        Ok(accounts.of.get(&tenant).cloned().unwrap_or_default())
    }

    /// What was read of every volume that was a tenant's, of each from the last reading before `span_ms`, by the wall clock, to
    /// the first one behind it. Of those between, the ones are left out that say nothing but how use went on within a day (of the last
    /// one, within an hour), and that lie beside none of `borders_ms`.
    ///
    /// # Errors
    /// [`CatalogueError::ReadingsGone`] of a time of which readings are kept no more; when the ledger cannot be read.
    pub async fn readings(
        &self,
        tenant: TenantId,
        span_ms: Range<u64>,
        borders_ms: &[u64],
    ) -> Result<Vec<Reading>, CatalogueError> {
        let kept = self.meter.looks.of(tenant);
        let mut kept = kept.lock().await;
        // Taken out, so that a look that is broken off leaves nothing half read.
        let before = if kept.is_of(&span_ms, borders_ms) { std::mem::take(&mut *kept) } else { Look::default() };
        let mut look = if before.read_to.is_some() { before } else { Look::new(span_ms.clone(), borders_ms) };
        let read_to = look.read_to;
        let begin = |ledger: &Ledger| match read_to {
            Some(read_to) => Ok(read_to),
            None => beginning(ledger, span_ms.start),
        };
        let end = self.each_line(begin, |line| {
            let is_theirs = Entry::parse(line).is_ok_and(|entry| entry.tenant == tenant);
            for reading in if is_theirs { readings_of(line)? } else { Vec::new() } {
                look.take(reading);
            }
            Ok(())
        });
        look.read_to = Some(end.await?);
        let readings = look.readings();
        if span_ms.contains(&crate::open::wall_ms()) {
            *kept = look;
        }
        Ok(readings)
    }

    /// Sees to it that what is due is read: after a time in which nothing ran, readings of it are missing until the first round.
    ///
    /// # Errors
    /// When a shard has ended, or the ledger cannot be written.
    pub async fn read_due(&self) -> Result<(), CatalogueError> {
        if is_trial() { Ok(()) } else { self.look().await }
    }

    /// What the registers of a tenant's volumes say now: of each the last reading that the ledger has, since a round may have taken it
    /// behind whoever read the ledger before, and one that the ledger does not have.
    ///
    /// # Errors
    /// When the ledger cannot be read, or a shard has ended.
    pub async fn readings_now(&self, tenant: TenantId) -> Result<Vec<Reading>, CatalogueError> {
        let mut keeping = self.meter.keeping.lock().await;
        let resources: Vec<Resource> = {
            let shelf = self.read();
            shelf.metered().filter(|record| record.tenant == tenant.0).map(Resource::of).collect()
        };
        self.find_ledger(&mut keeping).await?;
        self.note_requests().await?;
        let mut readings = Vec::new();
        for resource in resources {
            let (_, shard) = self.shard_of(resource.volume);
            let asked = ask::submit(shard, resource.volume, Request::Meter).await;
            // One that cannot tell is as it was read last.
            let Ok(Completion::Metered(to)) = asked else { continue };
            readings.extend(keeping.last.get(&resource.volume).cloned());
            readings.extend(self.read_one(&keeping, &resource, |_| vec![to]).await?);
        }
        Ok(readings)
    }

    /// Gives out the bundle of a tenant's books, of the heads of days from the first to the last.
    ///
    /// # Errors
    /// [`CatalogueError::NotSigned`] while no head that has something of the tenant has ended any of these days;
    /// [`CatalogueError::ReadingsGone`] of both books when readings are kept no more; when the ledger cannot be read.
    pub async fn export_books<E>(
        &self,
        tenant: TenantId,
        (books, days): (Books, (Date, Date)),
        pieces: &mpsc::Sender<Result<Vec<u8>, E>>,
    ) -> Result<(), CatalogueError> {
        let (export, begin, place, end) = {
            let mut keeping = self.meter.keeping.lock().await;
            self.find_ledger(&mut keeping).await?;
            let open = keeping.open_ledger()?;
            let (export, begin) = open.ledger().export((tenant, books), days).ok_or(CatalogueError::NotSigned)?;
            if books == Books::Both && begin < open.ledger().whole_from_block() {
                return Err(CatalogueError::ReadingsGone);
            }
            (export, begin, open.place(), open.ledger().end_block())
        };
        let (mut exporter, mut piece) = (Exporter::new(export), Vec::new());
        let mut lines = Lines::of(begin..end);
        while !exporter.is_done()
            && let Some(line) = lines.next(&place).await?
        {
            exporter.line(&line, &mut piece).map_err(not_exported)?;
            if piece.len() >= PIECE_BYTES && pieces.send(Ok(std::mem::take(&mut piece))).await.is_err() {
                return Ok(());
            }
        }
        // Whoever wanted it may have gone.
        let _ = pieces.send(Ok(piece)).await;
        Ok(())
    }

    /// All heads, the oldest first.
    ///
    /// # Errors
    /// While the ledger is out of order.
    pub async fn heads(&self) -> Result<Vec<HeadPlace>, CatalogueError> {
        let mut keeping = self.meter.keeping.lock().await;
        self.find_ledger(&mut keeping).await?;
        let heads = keeping.open_ledger()?.ledger().heads().iter();
        Ok(heads.copied().collect())
    }

    /// Signs what there is now, as a head of today: what comes later today is under the next one.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn sign_ledger(&self) -> Result<HeadPlace, CatalogueError> {
        let mut keeping = self.meter.keeping.lock().await;
        self.refuse_if_stopping()?;
        self.find_ledger(&mut keeping).await?;
        let today =
            Date::of_ms(crate::open::wall_ms()).ok_or_else(|| broken("the wall clock is beyond the year 9999"))?;
        keeping.sign(today).await?;
        keeping.open_ledger()?.ledger().heads().last().copied().ok_or(CatalogueError::NotSigned)
    }

    /// Who signs the heads.
    ///
    /// # Errors
    /// While the ledger is out of order.
    pub async fn ledger_key(&self) -> Result<PublicKey, CatalogueError> {
        let mut keeping = self.meter.keeping.lock().await;
        self.find_ledger(&mut keeping).await?;
        Ok(keeping.open_ledger()?.key())
    }

    /// Gives each line of the ledger, from the block on that `begin` tells, to `visit`; returns the block behind them.
    async fn each_line(
        &self,
        begin: impl Fn(&Ledger) -> Result<u64, CatalogueError>,
        mut visit: impl FnMut(&[u8]) -> Result<(), CatalogueError>,
    ) -> Result<u64, CatalogueError> {
        let (begin, place, end) = {
            let mut keeping = self.meter.keeping.lock().await;
            self.find_ledger(&mut keeping).await?;
            let open = keeping.open_ledger()?;
            (begin(open.ledger())?.max(FIRST_BLOCK), open.place(), open.ledger().end_block())
        };
        let mut lines = Lines::of(begin..end);
        while let Some(line) = lines.next(&place).await? {
            visit(&line)?;
        }
        Ok(end)
    }
}

/// The block behind which readings lie that are needed from a moment of the wall clock on.
fn beginning(ledger: &Ledger, from_ms: u64) -> Result<u64, CatalogueError> {
    let Some(day) = Date::of_ms(from_ms) else { return Ok(FIRST_BLOCK) };
    beginning_of(day, ledger.heads(), ledger.whole_from_block()).ok_or(CatalogueError::ReadingsGone)
}

/// Between two heads there is a round, so that behind the last but one before a day all were read. Dates of a clock that was wrong may
/// lie among those of other days: one that is too late has it begin earlier, as far as there are readings.
fn beginning_of(day: Date, heads: &[HeadPlace], whole_from: u64) -> Option<u64> {
    let behind = heads.iter().position(|place| place.date >= day).unwrap_or(heads.len());
    let place = behind.checked_sub(2).and_then(|place| heads.get(place));
    let begin = place.map_or(FIRST_BLOCK, |place| place.block);
    if begin >= whole_from {
        return Some(begin);
    }
    let mut kept = heads.iter().skip_while(|place| place.block < whole_from).map(|place| place.date);
    let is_before = |date: Option<Date>| date.is_some_and(|date| date < day);
    (is_before(kept.next()) && is_before(kept.next())).then_some(whole_from)
}

/// The accounts of all tenants, as far as the ledger was read. It is only appended to, and accounts stay for ever.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// The block behind that.
    read_to: u64,
    of: BTreeMap<TenantId, Vec<AccountEntry>>,
}

/// Why a bundle could not be made. Who has nothing under any of the heads is told so, and not that the ledger is broken.
fn not_exported(error: ExportError) -> CatalogueError {
    match error {
        ExportError::Tenant => CatalogueError::NotSigned,
        ExportError::Line(_) | ExportError::Gap | ExportError::Root => broken(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use metering::ledger::Digest;

    /// P7. Readings are found from the last but one head before a day on, or told to be gone; a head of a wrong date changes neither,
    /// however much was given up since.
    #[test]
    fn readings_begin_before_their_day() {
        let date = |year, day| Date::new(year, 11, day).unwrap();
        let head = |number, date| HeadPlace { number, date, hash: Digest::NONE, block: 10 * number };
        let heads_of = |days: &[(u16, u8)]| -> Vec<HeadPlace> {
            (1..).zip(days).map(|(number, (year, day))| head(number, date(*year, *day))).collect()
        };
        let right = heads_of(&[(2026, 1), (2026, 2), (2026, 3), (2026, 4), (2026, 5)]);
        assert_eq!(beginning_of(date(2026, 4), &right, FIRST_BLOCK), Some(20));
        assert_eq!(beginning_of(date(2026, 2), &right, FIRST_BLOCK), Some(FIRST_BLOCK));
        assert_eq!(beginning_of(date(2026, 4), &right, 20), Some(20));
        assert_eq!(beginning_of(date(2026, 4), &right, 30), None, "gone");
        let late = heads_of(&[(2026, 1), (2028, 9), (2026, 2), (2026, 3), (2026, 4), (2026, 5)]);
        assert_eq!(beginning_of(date(2026, 5), &late, FIRST_BLOCK), Some(FIRST_BLOCK));
        assert_eq!(beginning_of(date(2026, 5), &late, 30), Some(30), "it is among what was given up");
        assert_eq!(beginning_of(date(2026, 3), &late, 30), None);
        let early = heads_of(&[(2026, 1), (2026, 2), (2026, 3), (2020, 9), (2026, 4), (2026, 5)]);
        assert_eq!(beginning_of(date(2026, 3), &early, FIRST_BLOCK), Some(10));
    }
}
