//! Rate cards of the provider, and how tenants are billed.

use super::account::Account;
use super::errors::{not_rated, period_error};
use super::model::{RateCardEntry, RateCardList, SetTenantBilling, TenantBilling};
use super::settings::{BillingNote, KeptCard, ProviderNote, Settings, card_payload};
use super::{Desk, internal, milliseconds, refused};
use crate::books::NewAccountEntry;
use crate::error::{ErrorCode, ServiceError};
use crate::name::Name;
use jiff::Timestamp;
use metering::ledger::{Kind, PAYLOAD_BYTES_MAX};
use metering::{CardsError, Period, RateCard};
use std::collections::BTreeMap;
use units::TenantId;

/// Most characters of what stands on an invoice as its tenant or issuer, and of a prefix.
const NAME_CHARS_MAX: usize = 128;
const PREFIX_BYTES_MAX: usize = 32;

/// Most bytes of what a card has beside itself where it comes with an invoice.
const INVOICE_BYTES_MAX: usize = 128;

impl Desk {
    /// Every card that holds or will.
    pub(crate) async fn rate_cards(&self) -> Result<RateCardList, ServiceError> {
        let (mut cards, tenants) = (self.settings().await?.cards, self.tenants().await?);
        cards.sort_by_key(|kept| (kept.card.effective_from(), kept.tenant));
        Ok(RateCardList { rate_cards: cards.iter().map(|kept| shown(kept, &tenants)).collect::<Result<_, _>>()? })
    }

    /// The card of that id.
    pub(crate) async fn rate_card(&self, id: &str) -> Result<RateCardEntry, ServiceError> {
        let all = self.rate_cards().await?;
        all.rate_cards.into_iter().find(|entry| entry.id == id).ok_or_else(|| no_card(id))
    }

    /// Adds a card for all tenants that have none of their own, or for one; one that is there already changes nothing.
    pub(crate) async fn add_card(&self, json: &str, tenant: Option<Name>) -> Result<RateCardEntry, ServiceError> {
        let card = RateCard::parse(json).map_err(|error| refused(error.to_string()))?;
        let tenant = match tenant {
            Some(name) => Some(TenantId(self.tenant(&name).await?.id)),
            None => None,
        };
        let payload = card_payload(&card, tenant);
        // With an invoice it bears that one's number.
        let (bytes, bytes_max) = (payload.len(), PAYLOAD_BYTES_MAX - INVOICE_BYTES_MAX);
        if bytes > bytes_max {
            return Err(refused(format!("the card has {bytes} bytes: at most {bytes_max} with its scope")));
        }
        let _one_at_a_time = self.books.changes().lock().await;
        let (mut settings, tenants) = (self.settings().await?, self.tenants().await?);
        let is_same = |kept: &&KeptCard| (kept.card.id(), kept.tenant) == (card.id(), tenant);
        if let Some(kept) = settings.cards.iter().find(is_same) {
            return shown(kept, &tenants);
        }
        let from = card.effective_from();
        if let Some(until) = self.billed_until(&settings, tenant).await?.filter(|until| from < *until) {
            return Err(conflict(CardsError::Used { from, until }));
        }
        let time_ms = milliseconds(Timestamp::now());
        let kept = KeptCard { card, tenant, added_ms: time_ms };
        settings.cards.push(kept.clone());
        settings.check_cards().map_err(conflict)?;
        let entry = NewAccountEntry { tenant: TenantId::DEFAULT, kind: Kind::RateCard, time_ms, payload };
        self.books.append(vec![entry]).await?;
        shown(&kept, &tenants)
    }

    /// Takes a card away that no bill was made by, nor can be.
    pub(crate) async fn withdraw_card(&self, id: &str, tenant: Option<Name>) -> Result<(), ServiceError> {
        let tenant = match tenant {
            Some(name) => Some(TenantId(self.tenant(&name).await?.id)),
            None => None,
        };
        let _one_at_a_time = self.books.changes().lock().await;
        let mut settings = self.settings().await?;
        let is_meant = |kept: &KeptCard| kept.card.id().to_string() == id && kept.tenant == tenant;
        let place = settings.cards.iter().position(is_meant).ok_or_else(|| no_card(id))?;
        let card = settings.cards.remove(place).card;
        // What has begun is a price that somebody relies on, billed or not.
        let from = card.effective_from();
        let until = self.billed_until(&settings, tenant).await?.max(Some(Timestamp::now()));
        if let Some(until) = until.filter(|until| from < *until) {
            return Err(conflict(CardsError::Used { from, until }));
        }
        settings.check_cards().map_err(conflict)?;
        let note = ProviderNote::CardWithdrawn { card: card.id().clone(), tenant: tenant.map(|tenant| tenant.0) };
        self.note(&note).await
    }

    /// Until when somebody is billed by cards of that scope: a tenant's own, or those for all. One with cards of its own is billed
    /// by those for all until the first of them.
    async fn billed_until(
        &self,
        settings: &Settings,
        scope: Option<TenantId>,
    ) -> Result<Option<Timestamp>, ServiceError> {
        let mut last = None;
        for tenant in self.tenants().await?.into_keys() {
            if scope.is_some_and(|scope| scope != tenant) {
                continue;
            }
            let until = Account::read(&self.books.account(tenant).await?)?.billed_until();
            let own = settings.cards.iter().filter(|kept| kept.tenant == Some(tenant));
            let own_begin = own.map(|kept| kept.card.effective_from()).min();
            let until = match (scope, own_begin) {
                (None, Some(begin)) => until.map(|until| until.min(begin)),
                (None, None) | (Some(_), _) => until,
            };
            last = last.max(until);
        }
        Ok(last)
    }

    /// How a tenant is billed.
    pub(crate) async fn tenant_billing(&self, name: &Name) -> Result<TenantBilling, ServiceError> {
        let of = self.billed(name).await?;
        Ok(shown_billing(name, of.billing))
    }

    /// Says how a tenant is billed.
    pub(crate) async fn set_tenant_billing(
        &self,
        name: &Name,
        wanted: SetTenantBilling,
    ) -> Result<TenantBilling, ServiceError> {
        let _one_at_a_time = self.books.changes().lock().await;
        let of = self.billed(name).await?;
        let mut billing = of.billing.clone();
        if let Some(name) = wanted.name {
            check_name(&name)?;
            billing.name = name;
        }
        if let Some(zone) = wanted.zone {
            // As the tz database writes it.
            let period = Period::of_month("2026-01", &zone).map_err(period_error)?;
            if period.zone() != billing.zone && !of.account.invoices.is_empty() {
                let detail = format!(
                    "invoices of {name} are issued by months of {}: in another zone hours would be billed twice, or never",
                    billing.zone
                );
                return Err(refused(detail));
            }
            period.zone().clone_into(&mut billing.zone);
        }
        if let Some(prefix) = wanted.prefix {
            check_prefix(&prefix)?;
            if of.settings.owner_of_prefix(&prefix).is_some_and(|owner| owner != of.id) {
                return Err(refused(format!("{prefix:?} begins another tenant's numbers: choose another prefix")));
            }
            billing.prefix = prefix;
        }
        if billing != of.billing {
            self.note(&ProviderNote::Billing(billing.clone())).await?;
        }
        Ok(shown_billing(name, billing))
    }
}

fn shown_billing(tenant: &Name, billing: BillingNote) -> TenantBilling {
    let BillingNote { name, zone, prefix, .. } = billing;
    TenantBilling { tenant: tenant.to_string(), name, zone, prefix }
}

fn shown(kept: &KeptCard, tenants: &BTreeMap<TenantId, Name>) -> Result<RateCardEntry, ServiceError> {
    let card = serde_json::from_slice(&kept.card.canonical()).map_err(|error| internal(&error))?;
    let name_of = |tenant: TenantId| tenants.get(&tenant).map_or_else(|| tenant.to_string(), ToString::to_string);
    let added_ms = i64::try_from(kept.added_ms).unwrap_or(i64::MAX);
    Ok(RateCardEntry {
        id: kept.card.id().to_string(),
        name: kept.card.name().to_owned(),
        tenant: kept.tenant.map(name_of),
        effective_from: kept.card.effective_from(),
        added_at: Timestamp::from_millisecond(added_ms).unwrap_or(Timestamp::MAX),
        card,
    })
}

fn no_card(id: &str) -> ServiceError {
    let id: String = id.chars().take(80).collect();
    let detail = format!("there is no rate card {id} of that scope: list the rate cards to see which there are");
    ServiceError::new(ErrorCode::RateCardNotFound, detail)
}

fn conflict(error: CardsError) -> ServiceError {
    ServiceError { code: ErrorCode::RateCardConflict, ..not_rated(error) }
}

fn check_name(name: &str) -> Result<(), ServiceError> {
    let count = name.chars().count();
    let is_clean = name.trim() == name && !name.chars().any(char::is_control);
    if (1..=NAME_CHARS_MAX).contains(&count) && is_clean {
        return Ok(());
    }
    Err(refused(format!(
        "a name on invoices has 1 to {NAME_CHARS_MAX} characters, none of them a control, no space around"
    )))
}

/// So that a number tells its prefix from what counts: no two prefixes make one number.
fn check_prefix(prefix: &str) -> Result<(), ServiceError> {
    let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let is_counted = prefix.bytes().last().is_none_or(|byte| byte.is_ascii_digit());
    if !is_counted && prefix.len() <= PREFIX_BYTES_MAX && prefix.bytes().all(is_letter) {
        return Ok(());
    }
    let detail = format!(
        "{prefix:?} is no prefix: write 1 to {PREFIX_BYTES_MAX} letters, digits and any of -_./, the last one no digit"
    );
    Err(refused(detail))
}
