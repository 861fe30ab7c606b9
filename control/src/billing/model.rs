//! What the API shows and takes of bills. Members are only ever added within v1.

use super::budget::Budget;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A rate card that was added, and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RateCardEntry {
    /// `sha256:` and the hash of what it says.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The tenant that it is for; absent where it is for all that have none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// From when on it holds, until the next one does. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub effective_from: Timestamp,
    /// When it was added. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub added_at: Timestamp,
    /// What it says, as the documentation of rate cards describes.
    #[schema(value_type = Object)]
    pub card: serde_json::Value,
}

/// Rate cards, by when they begin to hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RateCardList {
    /// In that order.
    pub rate_cards: Vec<RateCardEntry>,
}

/// How a tenant is billed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantBilling {
    /// The tenant.
    pub tenant: String,
    /// What stands on its invoices; of the default tenant, what stands there as who issues all invoices.
    pub name: String,
    /// The time zone of its months, of the tz database.
    pub zone: String,
    /// What its invoices' numbers begin with.
    pub prefix: String,
}

/// How a tenant is to be billed. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTenantBilling {
    /// What stands on its invoices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Acme Ltd")]
    pub name: Option<String>,
    /// The time zone of its months; it stays what it is once an invoice is issued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "Europe/Berlin")]
    pub zone: Option<String>,
    /// What its invoices' numbers begin with: letters, digits and any of `-_./`, the last one no digit; another tenant's at no time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "AC-")]
    pub prefix: Option<String>,
}

/// An issued invoice, in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvoiceSummary {
    /// Its number.
    pub id: String,
    /// Its month, as `2026-11`.
    pub month: String,
    /// When it was issued. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Timestamp,
    /// What is to be paid.
    pub total: String,
    /// In which currency.
    pub currency: String,
    /// How many lines it has.
    pub lines: u64,
}

/// A tenant's issued invoices, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvoiceList {
    /// In that order.
    pub invoices: Vec<InvoiceSummary>,
    /// Months whose corrections come with the next invoice.
    pub corrections: Vec<OrderedCorrection>,
}

/// A correction that comes with the next invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderedCorrection {
    /// The month that is put right.
    pub month: String,
    /// Why.
    pub reason: String,
}

/// The month whose invoice is to be issued.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssueInvoice {
    /// As `2026-11`.
    #[schema(example = "2026-11")]
    pub month: String,
}

/// The month that is to be put right on the next invoice.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrectInvoice {
    /// As `2026-11`.
    #[schema(example = "2026-11")]
    pub month: String,
    /// Why: 1 to 500 characters, which stand on the invoice.
    pub reason: String,
}

/// What the next invoice will put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CorrectionPreview {
    /// The month.
    pub month: String,
    /// Why.
    pub reason: String,
    /// What it comes to, lines that are taken back and lines as they should be together.
    pub amount: String,
    /// In which currency.
    pub currency: String,
    /// The lines, as on an invoice.
    #[schema(value_type = Vec<Object>)]
    pub lines: Vec<serde_json::Value>,
}

/// What a tenant used in a month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageReport {
    /// The tenant.
    pub tenant: String,
    /// The month.
    pub month: String,
    /// Its first moment. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub from: Timestamp,
    /// The first moment after it, or now. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub to: Timestamp,
    /// By volume, class and dimension; what was not used is left out.
    pub used: Vec<UsedRow>,
    /// What to know about the readings behind it.
    pub notes: Vec<String>,
}

/// What a volume used of one dimension, in one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsedRow {
    /// The volume's number.
    pub volume_id: u64,
    /// Its name, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The class's number.
    pub class_id: u64,
    /// What was counted.
    #[schema(example = "written")]
    pub dimension: String,
    /// How far its register went on, a whole number of `unit`.
    pub used: String,
    /// `byte_milliseconds`, `requests` or `bytes`.
    pub unit: String,
}

/// A tenant's budget, and how its month stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetStatus {
    /// The tenant.
    pub tenant: String,
    /// Its budget; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// The month that goes on.
    pub month: String,
    /// What was told in it.
    pub alerts: Vec<BudgetAlert>,
}

/// A threshold that was reached, as somebody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetAlert {
    /// What names it: whoever is told twice sees the same.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The month.
    pub month: String,
    /// What has reached it: the bill so far, or the forecast.
    pub basis: super::budget::Basis,
    /// At which percentage of the budget.
    pub percent: u32,
    /// The budget.
    pub amount: String,
    /// The bill then.
    pub bill: String,
    /// The forecast then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<String>,
    /// The currency.
    pub currency: String,
    /// When that was found. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

/// A head of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerHead {
    /// Its number.
    pub number: u64,
    /// The day that it ends, UTC.
    #[schema(example = "2026-11-30")]
    pub date: String,
    /// Its hash: whoever keeps it can check every bundle that has it.
    pub hash: String,
}

/// Heads of the ledger, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerHeadList {
    /// In that order.
    pub heads: Vec<LedgerHead>,
}

/// Who signs the ledger's heads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerKey {
    /// The Ed25519 public key, 64 hexadecimal digits.
    pub key: String,
}
