//! Books over a real ledger, whose volume is in memory.

use control::{Answer, Books, ErrorCode, NewAccountEntry, Pieces, ServiceError};
use metering::ledger::{
    AccountEntry, BlockWrite, Book, Books as WhichBooks, Date, Entry, Exporter, HeadPlace, Kind, Ledger, LedgerId,
    LineReader, NewEntry, PublicKey, SigningKey, decode_readings, encode_readings,
};
use metering::{Dimension, Mark, Reading, Registers};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use units::{BLOCK_LEN, ClassId, Epoch, MeterTime, TenantId, VolumeId};

pub(crate) struct MemoryBooks {
    inner: Mutex<Inner>,
    changes: AsyncMutex<()>,
}

struct Inner {
    ledger: Ledger,
    blocks: Vec<u8>,
    now: Vec<Reading>,
    /// How many appends go well before one fails.
    appends_left: Option<u32>,
    /// Whether what is appended is only tried.
    is_trial: bool,
}

impl MemoryBooks {
    pub(crate) fn new() -> Self {
        let (ledger, write) = Ledger::create(1 << 20, LedgerId([9; 16]));
        let mut inner = Inner { ledger, blocks: Vec::new(), now: Vec::new(), appends_left: None, is_trial: false };
        inner.write(&write);
        Self { inner: Mutex::new(inner), changes: AsyncMutex::new(()) }
    }

    /// Makes a tenant's books.
    pub(crate) fn admit(&self, tenant: TenantId) {
        self.inner.lock().unwrap().ledger.admit(tenant).unwrap();
    }

    /// Appends readings, which are one tenant's.
    pub(crate) fn measure(&self, readings: &[Reading]) {
        let Some(first) = readings.first() else { return };
        let payloads = encode_readings(readings);
        let entry = |payload| NewEntry { tenant: first.tenant, kind: Kind::Readings, time_ms: first.wall_ms, payload };
        let entries: Vec<_> = payloads.iter().map(|payload| entry(payload)).collect();
        self.inner.lock().unwrap().append(&entries);
    }

    /// What the registers say now.
    pub(crate) fn set_now(&self, readings: Vec<Reading>) {
        self.inner.lock().unwrap().now = readings;
    }

    /// Whether what is appended from now on is only tried.
    pub(crate) fn set_trial(&self, is_trial: bool) {
        self.inner.lock().unwrap().is_trial = is_trial;
    }

    /// Signs where all books end.
    pub(crate) fn sign(&self, date: Date) {
        let mut inner = self.inner.lock().unwrap();
        let write = inner.ledger.sign_head(date, &key(), None).unwrap();
        inner.write(&write);
    }

    /// Has appends fail after so many.
    pub(crate) fn fail_after(&self, appends: Option<u32>) {
        self.inner.lock().unwrap().appends_left = appends;
    }

    /// How many entries a tenant's account has.
    pub(crate) fn account_len(&self, tenant: TenantId) -> u64 {
        self.inner.lock().unwrap().ledger.tip(tenant, Book::Account).count
    }
}

/// What a volume of class 0 that holds so many bytes says at a moment, since 1970.
pub(crate) fn reading((volume, tenant): (u64, TenantId), bytes: u128, (sequence, wall_ms): (u64, u64)) -> Reading {
    Reading {
        resource: VolumeId(volume),
        tenant,
        class: ClassId::DEFAULT,
        epoch: Epoch(1),
        sequence,
        mark: if sequence == 0 { Mark::Begins } else { Mark::Usual },
        changes: 0,
        at: MeterTime(wall_ms),
        estimated_ms: 0,
        wall_ms,
        registers: Registers::default().with(Dimension::Written, bytes * u128::from(wall_ms)),
    }
}

fn new_entry(entry: &NewAccountEntry) -> NewEntry<'_> {
    let NewAccountEntry { tenant, kind, time_ms, payload } = entry;
    NewEntry { tenant: *tenant, kind: *kind, time_ms: *time_ms, payload }
}

/// The ledger's.
fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

impl Inner {
    fn append(&mut self, entries: &[NewEntry<'_>]) {
        let write = self.ledger.append(entries).unwrap();
        self.write(&write);
    }

    fn write(&mut self, write: &BlockWrite) {
        let at = usize::try_from(write.first).unwrap() * BLOCK_LEN;
        self.blocks.resize(self.blocks.len().max(at + write.bytes.len()), 0);
        self.blocks.get_mut(at..at + write.bytes.len()).unwrap().copy_from_slice(&write.bytes);
        self.ledger.on_durable();
    }

    fn lines(&self, from: u64) -> Vec<Vec<u8>> {
        let mut reader = LineReader::default();
        let blocks = (0..self.ledger.end_block()).zip(self.blocks.chunks(BLOCK_LEN));
        let blocks = blocks.skip(usize::try_from(from).unwrap());
        blocks.flat_map(|(number, block)| reader.block(number, block).unwrap()).collect()
    }

    fn entries(&self, tenant: TenantId, book: Book) -> Vec<AccountEntry> {
        let mut found = Vec::new();
        for line in self.lines(1).iter().filter(|line| line.starts_with(b"{\"entry\"")) {
            let entry = Entry::parse(line).unwrap();
            if (entry.tenant, entry.kind.book()) == (tenant, book) {
                let Entry { number, kind, time_ms, payload, .. } = entry;
                found.push(AccountEntry { number, kind, time_ms, payload: payload.to_owned() });
            }
        }
        found
    }

    fn readings(&self, tenant: TenantId, span_ms: &Range<u64>) -> Vec<Reading> {
        let mut by_volume: BTreeMap<VolumeId, Vec<Reading>> = BTreeMap::new();
        for entry in self.entries(tenant, Book::Meter) {
            for reading in decode_readings(tenant, &entry.payload).unwrap() {
                by_volume.entry(reading.resource).or_default().push(reading);
            }
        }
        let near = |readings: Vec<Reading>| {
            let first = readings.iter().rposition(|reading| reading.wall_ms < span_ms.start).unwrap_or(0);
            let end = readings.iter().position(|reading| reading.wall_ms >= span_ms.end);
            readings.get(first..end.map_or(readings.len(), |end| end + 1)).unwrap_or_default().to_vec()
        };
        by_volume.into_values().flat_map(near).collect()
    }

    fn bundle(&self, tenant: TenantId, books: WhichBooks, days: (Date, Date)) -> Result<Vec<u8>, ServiceError> {
        let not_signed = |text: String| ServiceError::new(ErrorCode::NotSigned, text);
        let export = self.ledger.export((tenant, books), days);
        let (export, from) = export.ok_or_else(|| not_signed("no day of it is signed yet".to_owned()))?;
        let (mut exporter, mut out) = (Exporter::new(export), Vec::new());
        for line in self.lines(from) {
            exporter.line(&line, &mut out).map_err(|error| not_signed(error.to_string()))?;
        }
        Ok(out)
    }
}

impl Books for MemoryBooks {
    fn changes(&self) -> &AsyncMutex<()> {
        &self.changes
    }

    fn read_due(&self) -> Answer<'_, ()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn readings(&self, tenant: TenantId, span_ms: Range<u64>, _: Vec<u64>) -> Answer<'_, Vec<Reading>> {
        Box::pin(async move { Ok(self.inner.lock().unwrap().readings(tenant, &span_ms)) })
    }

    fn readings_now(&self, tenant: TenantId) -> Answer<'_, Vec<Reading>> {
        let of = move |reading: &&Reading| reading.tenant == tenant;
        Box::pin(async move { Ok(self.inner.lock().unwrap().now.iter().filter(of).cloned().collect()) })
    }

    fn account(&self, tenant: TenantId) -> Answer<'_, Vec<AccountEntry>> {
        Box::pin(async move { Ok(self.inner.lock().unwrap().entries(tenant, Book::Account)) })
    }

    fn append(&self, entries: Vec<NewAccountEntry>) -> Answer<'_, ()> {
        Box::pin(async move {
            // Whoever has not the lock may look meanwhile.
            tokio::task::yield_now().await;
            let mut inner = self.inner.lock().unwrap();
            if inner.appends_left == Some(0) {
                return Err(ServiceError::new(ErrorCode::Unavailable, "the ledger cannot be written"));
            }
            if inner.is_trial {
                return Ok(());
            }
            inner.appends_left = inner.appends_left.map(|left| left - 1);
            let entries: Vec<_> = entries.iter().map(new_entry).collect();
            inner.append(&entries);
            Ok(())
        })
    }

    fn export(&self, tenant: TenantId, books: WhichBooks, days: (Date, Date)) -> Answer<'_, Pieces> {
        Box::pin(async move {
            let bundle = self.inner.lock().unwrap().bundle(tenant, books, days)?;
            let (sender, pieces) = mpsc::channel(2);
            tokio::spawn(async move {
                for piece in bundle.chunks(100) {
                    if sender.send(Ok(piece.to_vec())).await.is_err() {
                        return;
                    }
                }
            });
            Ok(pieces)
        })
    }

    fn heads(&self) -> Answer<'_, Vec<HeadPlace>> {
        Box::pin(async move {
            let inner = self.inner.lock().unwrap();
            Ok(inner.ledger.heads().to_vec())
        })
    }

    fn sign(&self) -> Answer<'_, HeadPlace> {
        Box::pin(async move {
            Self::sign(self, Date::new(2025, 7, 1).unwrap());
            let heads = Books::heads(self).await?;
            heads.last().copied().ok_or_else(|| ServiceError::new(ErrorCode::NotSigned, "nothing is signed"))
        })
    }

    fn key(&self) -> Answer<'_, PublicKey> {
        Box::pin(async move { Ok(key().public()) })
    }
}
