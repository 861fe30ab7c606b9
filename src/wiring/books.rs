//! The books of the ledger, as billing wants them, over the ledger's volume.

use super::service::service_error;
use blockd::catalogue::Catalogue;
use control::{Answer, Books, NewAccountEntry, Pieces};
use metering::Reading;
use metering::ledger::{AccountEntry, Books as WhichBooks, Date, HeadPlace, NewEntry, PublicKey};
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{Mutex, mpsc};
use units::TenantId;

/// Pieces of a bundle that are read ahead of who takes them.
const PIECES_AHEAD: usize = 4;

/// The ledger of a pool.
#[derive(Debug)]
pub(super) struct PoolBooks {
    catalogue: Arc<Catalogue>,
    changes: Mutex<()>,
}

impl PoolBooks {
    pub(super) fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, changes: Mutex::new(()) }
    }

    fn pieces(&self, tenant: TenantId, which: (WhichBooks, (Date, Date))) -> Pieces {
        let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
        let catalogue = Arc::clone(&self.catalogue);
        tokio::spawn(async move {
            let exported = catalogue.export_books(tenant, which, &sender).await;
            if let Err(error) = exported {
                // Whoever wanted it may have gone.
                let _ = sender.send(Err(service_error(error))).await;
            }
        });
        receiver
    }
}

impl Books for PoolBooks {
    fn changes(&self) -> &Mutex<()> {
        &self.changes
    }

    fn read_due(&self) -> Answer<'_, ()> {
        Box::pin(async move { self.catalogue.read_due().await.map_err(service_error) })
    }

    fn readings(&self, tenant: TenantId, span_ms: Range<u64>, borders_ms: Vec<u64>) -> Answer<'_, Vec<Reading>> {
        Box::pin(async move { self.catalogue.readings(tenant, span_ms, &borders_ms).await.map_err(service_error) })
    }

    fn readings_now(&self, tenant: TenantId) -> Answer<'_, Vec<Reading>> {
        Box::pin(async move { self.catalogue.readings_now(tenant).await.map_err(service_error) })
    }

    fn account(&self, tenant: TenantId) -> Answer<'_, Vec<AccountEntry>> {
        Box::pin(async move { self.catalogue.account(tenant).await.map_err(service_error) })
    }

    fn append(&self, entries: Vec<NewAccountEntry>) -> Answer<'_, ()> {
        Box::pin(async move {
            let entries: Vec<NewEntry<'_>> = entries
                .iter()
                .map(|entry| NewEntry {
                    tenant: entry.tenant,
                    kind: entry.kind,
                    time_ms: entry.time_ms,
                    payload: &entry.payload,
                })
                .collect();
            self.catalogue.append_to_accounts(&entries).await.map_err(service_error)
        })
    }

    fn export(&self, tenant: TenantId, books: WhichBooks, days: (Date, Date)) -> Answer<'_, Pieces> {
        Box::pin(std::future::ready(Ok(self.pieces(tenant, (books, days)))))
    }

    fn heads(&self) -> Answer<'_, Vec<HeadPlace>> {
        Box::pin(async move { self.catalogue.heads().await.map_err(service_error) })
    }

    fn sign(&self) -> Answer<'_, HeadPlace> {
        Box::pin(async move { self.catalogue.sign_ledger().await.map_err(service_error) })
    }

    fn key(&self) -> Answer<'_, PublicKey> {
        Box::pin(async move { self.catalogue.ledger_key().await.map_err(service_error) })
    }
}
