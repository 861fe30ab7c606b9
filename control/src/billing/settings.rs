//! What the provider has said about bills: rate cards and whom they are for, how tenants are billed, budgets, and what was told
//! of them. All of it is in the account of the provider's own tenant, the newest word holds.
//!
//! A tenant is billed by the cards of its own from the first of them on, and by those for all before that.

use super::budget::{Budget, Threshold};
use super::model::BudgetAlert;
use super::{broken, note_in};
use crate::error::ServiceError;
use jiff::Timestamp;
use metering::ledger::{AccountEntry, Kind};
use metering::{CardId, CardsError, RateCard, RateCards};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use units::TenantId;

/// All that holds.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) cards: Vec<KeptCard>,
    billing: BTreeMap<TenantId, BillingNote>,
    /// Who has ever had a prefix.
    prefixes: BTreeMap<String, TenantId>,
    pub(super) budgets: BTreeMap<TenantId, Budget>,
    /// By id.
    pub(super) alerts: BTreeMap<String, Alerted>,
    /// Alerts that were posted, or given up.
    delivered: BTreeSet<String>,
}

/// A card that was added and not withdrawn.
#[derive(Debug, Clone)]
pub(super) struct KeptCard {
    pub(super) card: RateCard,
    /// Whom it is for, when it is for one.
    pub(super) tenant: Option<TenantId>,
    pub(super) added_ms: u64,
}

/// How a tenant is billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BillingNote {
    pub(super) tenant: u64,
    pub(super) name: String,
    pub(super) zone: String,
    pub(super) prefix: String,
}

/// An alert that was raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Alerted {
    pub(super) tenant: u64,
    pub(super) alert: BudgetAlert,
}

/// What the provider's account has as notes; other members there are none of ours.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ProviderNote {
    Billing(BillingNote),
    CardWithdrawn { card: CardId, tenant: Option<u64> },
    Budget { tenant: u64, budget: Option<Budget> },
    BudgetAlert(Alerted),
    BudgetAlertDelivered { id: String, is_sent: bool },
}

impl ProviderNote {
    const MEMBERS: [&str; 5] = ["billing", "card_withdrawn", "budget", "budget_alert", "budget_alert_delivered"];
}

/// A card as the payload of an entry: that of the tenant, or for all; or, with an invoice, as one that that was made by.
#[derive(Debug, Deserialize)]
struct CardPayload {
    card: serde_json::Value,
    #[serde(default)]
    tenant: Option<u64>,
    #[serde(default)]
    invoice: Option<String>,
}

/// A card as an entry of the provider's account has it.
pub(super) fn card_payload(card: &RateCard, tenant: Option<TenantId>) -> String {
    with_card(card, &tenant.map(|tenant| format!(",\"tenant\":{tenant}")).unwrap_or_default())
}

/// A card as an entry has it that comes with an invoice.
pub(super) fn card_of_invoice(card: &RateCard, invoice: &str) -> String {
    with_card(card, &format!(",\"invoice\":{}", serde_json::Value::from(invoice)))
}

/// What a card says stands there as its id was made of it.
fn with_card(card: &RateCard, members: &str) -> String {
    let text = String::from_utf8(card.canonical()).unwrap_or_default();
    format!("{{\"card\":{text}{members}}}")
}

/// Reads what [`card_payload`] wrote; nothing of a card that comes with an invoice.
fn read_card(entry: &AccountEntry) -> Result<Option<(RateCard, Option<TenantId>)>, ServiceError> {
    let payload: CardPayload = serde_json::from_str(&entry.payload).map_err(|error| broken(entry, &error))?;
    if payload.invoice.is_some() {
        return Ok(None);
    }
    let card = RateCard::parse(&payload.card.to_string()).map_err(|error| broken(entry, &error))?;
    Ok(Some((card, payload.tenant.map(TenantId))))
}

impl Settings {
    /// Reads them from the provider's account.
    pub(super) fn read(entries: &[AccountEntry]) -> Result<Self, ServiceError> {
        let mut settings = Self::default();
        for entry in entries {
            match entry.kind {
                Kind::RateCard => {
                    let told = read_card(entry)?;
                    settings.cards.extend(told.map(|(card, tenant)| KeptCard {
                        card,
                        tenant,
                        added_ms: entry.time_ms,
                    }));
                }
                Kind::Note => {
                    if let Some(note) = note_in(entry, &ProviderNote::MEMBERS)? {
                        settings.take(note);
                    }
                }
                // Its own bills.
                Kind::InvoiceLine | Kind::Invoice | Kind::Reversal | Kind::Readings | Kind::ClockStep => {}
            }
        }
        Ok(settings)
    }

    fn take(&mut self, note: ProviderNote) {
        match note {
            ProviderNote::Billing(note) => {
                let tenant = TenantId(note.tenant);
                self.prefixes.insert(note.prefix.clone(), tenant);
                self.billing.insert(tenant, note);
            }
            ProviderNote::CardWithdrawn { card, tenant } => {
                let tenant = tenant.map(TenantId);
                self.cards.retain(|kept| (kept.card.id(), kept.tenant) != (&card, tenant));
            }
            ProviderNote::Budget { tenant, budget: Some(budget) } => {
                self.budgets.insert(TenantId(tenant), budget);
            }
            ProviderNote::Budget { tenant, budget: None } => drop(self.budgets.remove(&TenantId(tenant))),
            ProviderNote::BudgetAlert(alerted) => drop(self.alerts.insert(alerted.alert.id.clone(), alerted)),
            ProviderNote::BudgetAlertDelivered { id, .. } => drop(self.delivered.insert(id)),
        }
    }

    /// The cards by which a tenant is billed.
    pub(super) fn cards_of(&self, tenant: TenantId) -> Result<RateCards, CardsError> {
        let own = || self.cards.iter().filter(|kept| kept.tenant == Some(tenant)).map(|kept| &kept.card);
        let begin = own().map(RateCard::effective_from).min();
        let of_all = self.cards.iter().filter(|kept| kept.tenant.is_none()).map(|kept| &kept.card);
        let before = of_all.filter(|card| begin.is_none_or(|begin| card.effective_from() < begin));
        let mut cards = RateCards::default();
        before.chain(own()).try_for_each(|card| cards.insert(card.clone(), None))?;
        Ok(cards)
    }

    /// Refuses cards that do not fit one another, for all tenants and for each that has cards of its own.
    pub(super) fn check_cards(&self) -> Result<(), CardsError> {
        let owners: BTreeSet<TenantId> = self.cards.iter().filter_map(|kept| kept.tenant).collect();
        let mut of_all = RateCards::default();
        let cards = self.cards.iter().filter(|kept| kept.tenant.is_none());
        cards.map(|kept| kept.card.clone()).try_for_each(|card| of_all.insert(card, None))?;
        owners.into_iter().try_for_each(|owner| self.cards_of(owner).map(drop))
    }

    /// How a tenant is billed; by itself, until something is told.
    pub(super) fn billing_of(&self, tenant: TenantId, name: &str) -> BillingNote {
        let by_itself = || BillingNote {
            tenant: tenant.0,
            name: if tenant == TenantId::DEFAULT { ISSUER.to_owned() } else { name.to_owned() },
            zone: "UTC".to_owned(),
            prefix: format!("T{tenant}-"),
        };
        self.billing.get(&tenant).cloned().unwrap_or_else(by_itself)
    }

    /// Who has, or had, a prefix of numbers; tenants that nothing was told of have theirs by their ids.
    pub(super) fn owner_of_prefix(&self, prefix: &str) -> Option<TenantId> {
        let by_itself = prefix.strip_prefix('T').and_then(|rest| rest.strip_suffix('-'));
        let by_itself = by_itself.and_then(|id| id.parse().ok()).map(TenantId);
        self.prefixes.get(prefix).copied().or(by_itself)
    }

    /// What was told of a tenant's budget in a month, as long as the budget has been the same amount.
    pub(super) fn told(&self, tenant: TenantId, month: &str, budget: &Budget) -> BTreeSet<Threshold> {
        let of = self.alerts_of(tenant, month).filter(|alert| alert.amount == budget.amount);
        of.map(|alert| Threshold { basis: alert.basis, percent: alert.percent }).collect()
    }

    /// What was told of a tenant in a month.
    pub(super) fn alerts_of(&self, tenant: TenantId, month: &str) -> impl Iterator<Item = &BudgetAlert> {
        let of = move |alerted: &&Alerted| alerted.tenant == tenant.0 && alerted.alert.month == month;
        self.alerts.values().filter(of).map(|alerted| &alerted.alert)
    }

    /// What was raised since `since`, and neither posted nor given up.
    pub(super) fn undelivered(&self, since: Timestamp) -> impl Iterator<Item = &Alerted> {
        let is_due = move |alerted: &&Alerted| alerted.alert.at >= since && !self.delivered.contains(&alerted.alert.id);
        self.alerts.values().filter(is_due)
    }
}

/// Who issues invoices, until the provider says who it is.
const ISSUER: &str = "Aljibe";
