//! Bills: rate cards, invoices, corrections, usage and budgets of tenants, over the ledger's books.
//!
//! All that is decided here is an entry of an account, and is found again by reading it: nothing is kept beside. One change of
//! accounts is made at a time ([`Books::changes`]), and all of it in one append, so that a crash leaves all of it or none: an
//! invoice has one number, and a number one invoice.

mod account;
mod budget;
mod cards;
mod errors;
mod invoices;
mod model;
mod price;
mod settings;
mod usage;
mod watch;

pub use budget::{Basis, Budget};
pub use model::{
    BudgetAlert, BudgetStatus, CorrectInvoice, CorrectionPreview, InvoiceList, InvoiceSummary, IssueInvoice,
    LedgerHead, LedgerHeadList, LedgerKey, OrderedCorrection, RateCardEntry, RateCardList, SetTenantBilling,
    TenantBilling, UsageReport, UsedRow,
};
pub use watch::{BudgetWatch, DueAlert};

use crate::books::{Books, NewAccountEntry};
use crate::error::{ErrorCode, ServiceError};
use crate::name::Name;
use crate::page::Page;
use crate::service::Service;
use crate::tenant::Tenant;
use account::Account;
use errors::{broken, internal, not_rated, period_error, rating_error};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use metering::ledger::{AccountEntry, Kind};
use metering::{Bill, Period, RateCards, Reading, rate};
use serde::Serialize;
use serde::de::DeserializeOwned;
use settings::{BillingNote, ProviderNote, Settings};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use units::{TenantId, VolumeId};

/// Who makes bills.
#[derive(Clone)]
pub(crate) struct Desk {
    service: Arc<dyn Service>,
    books: Arc<dyn Books>,
}

/// A tenant, with all that its bills are made of.
struct Billed {
    id: TenantId,
    name: String,
    billing: BillingNote,
    account: Account,
    settings: Settings,
    /// From when on it has an account.
    since: Option<Timestamp>,
}

impl Desk {
    pub(crate) fn of(service: &Arc<dyn Service>) -> Self {
        Self { service: Arc::clone(service), books: service.books() }
    }

    async fn settings(&self) -> Result<Settings, ServiceError> {
        Settings::read(&self.books.account(TenantId::DEFAULT).await?)
    }

    async fn billed(&self, name: &Name) -> Result<Billed, ServiceError> {
        let tenant = self.tenant(name).await?;
        let id = TenantId(tenant.id);
        let settings = self.settings().await?;
        let account = Account::read(&self.books.account(id).await?)?;
        let billing = settings.billing_of(id, &tenant.name);
        let since = tenant.created_at;
        Ok(Billed { id, name: tenant.name, billing, account, settings, since })
    }

    async fn tenant(&self, name: &Name) -> Result<Tenant, ServiceError> {
        self.service.show_tenant(name.clone()).await
    }

    /// Every tenant, by its number, the provider's own with them.
    async fn tenants(&self) -> Result<BTreeMap<TenantId, Name>, ServiceError> {
        let mut tenants = BTreeMap::from([(TenantId::DEFAULT, Name::default_tenant())]);
        for tenant in self.service.list_tenants().await? {
            tenants.insert(TenantId(tenant.id), tenant.name.parse()?);
        }
        Ok(tenants)
    }

    /// What its volumes and images are called; those that are gone are known by their numbers.
    async fn resources(&self, name: &Name) -> Result<BTreeMap<VolumeId, String>, ServiceError> {
        let volumes = self.service.list_volumes(Some(name.clone()), Page::all()).await?;
        let images = self.service.list_images(Some(name.clone()), Page::all()).await?;
        let images = images.into_iter().filter(|image| image.tenant == name.as_str());
        let images = images.map(|image| (VolumeId(image.id), image.name));
        Ok(volumes.into_iter().map(|volume| (VolumeId(volume.id), volume.name)).chain(images).collect())
    }

    async fn note(&self, note: &ProviderNote) -> Result<(), ServiceError> {
        self.books.append(vec![note_of(TenantId::DEFAULT, note)?]).await
    }

    /// What a tenant has to pay for a month, and the readings that tell; with what the registers say now, while it goes on.
    async fn bill(&self, of: &Billed, period: &Period, now: Timestamp) -> Result<(Vec<Reading>, Bill), ServiceError> {
        let readings = self.readings_of(of, period, now).await?;
        let bill = self.rated(of, readings.clone(), period).await?;
        Ok((readings, bill))
    }

    /// The readings that a bill is made of; with what the registers say now, while the month goes on.
    async fn readings_of(&self, of: &Billed, period: &Period, now: Timestamp) -> Result<Vec<Reading>, ServiceError> {
        let borders = of.cards()?.iter().map(|card| milliseconds(card.effective_from())).collect();
        let mut readings = self.books.readings(of.id, span_ms(period), borders).await?;
        if now < period.span().to {
            readings.extend(self.books.readings_now(of.id).await?);
        }
        Ok(readings)
    }

    async fn rated(&self, of: &Billed, readings: Vec<Reading>, period: &Period) -> Result<Bill, ServiceError> {
        let (cards, period) = (of.cards()?, period.clone());
        let resources = self.resources(&of.name.parse()?).await?;
        let account =
            metering::Account { tenant: of.id, name: of.billing.name.clone(), resources, since: of.since, until: None };
        off_the_threads(move || rate(&readings, &cards, &period, &account).map_err(rating_error)).await?
    }
}

impl Billed {
    /// Who pays, as bills have it.
    fn account_of(&self, resources: BTreeMap<VolumeId, String>) -> metering::Account {
        let (tenant, name, since) = (self.id, self.billing.name.clone(), self.since);
        metering::Account { tenant, name, resources, since, until: None }
    }

    fn cards(&self) -> Result<RateCards, ServiceError> {
        self.settings.cards_of(self.id).map_err(not_rated)
    }

    fn period(&self, month: &str) -> Result<Period, ServiceError> {
        Period::of_month(month, &self.billing.zone).map_err(period_error)
    }

    /// The month that goes on.
    fn month_at(&self, now: Timestamp) -> Result<String, ServiceError> {
        let zone = TimeZone::get(&self.billing.zone).map_err(|error| internal(&error))?;
        Ok(now.to_zoned_datetime(zone).strftime("%Y-%m").to_string())
    }
}

/// Runs what may take a while where it keeps nobody waiting.
async fn off_the_threads<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServiceError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(&error))
}

fn span_ms(period: &Period) -> Range<u64> {
    milliseconds(period.span().from)..milliseconds(period.span().to)
}

fn milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// A note in an account, as of now.
fn note_of(tenant: TenantId, note: &impl Serialize) -> Result<NewAccountEntry, ServiceError> {
    let payload = serde_json::to_string(note).map_err(|error| internal(&error))?;
    Ok(NewAccountEntry { tenant, kind: Kind::Note, time_ms: milliseconds(Timestamp::now()), payload })
}

/// What a note says, when it is one of those that have one of `members`; others are somebody else's.
fn note_in<T: DeserializeOwned>(entry: &AccountEntry, members: &[&str]) -> Result<Option<T>, ServiceError> {
    let value: serde_json::Value = serde_json::from_str(&entry.payload).map_err(|error| broken(entry, &error))?;
    let is_ours = value.as_object().is_some_and(|object| members.iter().any(|member| object.contains_key(*member)));
    if !is_ours {
        return Ok(None);
    }
    serde_json::from_value(value).map(Some).map_err(|error| broken(entry, &error))
}

/// What is asked for is wrong.
fn refused(detail: impl Into<String>) -> ServiceError {
    ServiceError::new(ErrorCode::InvalidRequest, detail)
}
