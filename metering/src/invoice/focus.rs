//! An invoice as FOCUS 1.2, dataset Cost and Usage: a row per line and resource, so that the usual tools can tell who cost what.
//!
//! Costs: `BilledCost` and `EffectiveCost` are what is to be paid, and add up to the invoice. `ListCost` and `ContractedCost` are
//! price times quantity before the one rounding. Columns that came with later versions, and ours, are called `x_`. Prices are told
//! in the currency of the bill, so what FOCUS wants in the pricing currency is the same again.

use std::fmt;

use jiff::Timestamp;

use super::{Document, State, clean, csv};
use crate::rating::{Amount, Charge, Line, Share, UsageCharge};

const PLACES: u32 = 18;
const SERVICE: &str = "Aljibe block storage";

/// The columns, in the order of [`row`].
const COLUMNS: [&str; 55] = [
    // Who pays whom, and when.
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "PricingCurrency",
    "BillingPeriodStart",
    "BillingPeriodEnd",
    "InvoiceId",
    "InvoiceIssuerName",
    "ProviderName",
    "PublisherName",
    "SubAccountId",
    "SubAccountName",
    "RegionId",
    "RegionName",
    "Tags",
    "x_ServiceProviderName",
    "x_HostProviderName",
    // For what.
    "ServiceCategory",
    "ServiceName",
    "ServiceSubcategory",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "CommitmentDiscountStatus",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "x_InvoiceDetailId",
    "x_CorrectedInvoiceId",
    "x_CorrectedInvoiceDetailId",
    "x_CorrectionReason",
    "x_RateCardId",
    // How much money.
    "BilledCost",
    "EffectiveCost",
    "PricingCurrencyEffectiveCost",
    "ListCost",
    "ContractedCost",
    // How much of what, at what price.
    "ListUnitPrice",
    "ContractedUnitPrice",
    "PricingCurrencyListUnitPrice",
    "PricingCurrencyContractedUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ResourceId",
    "ResourceName",
    "ResourceType",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "SkuPriceDetails",
    "x_Tier",
    "x_ConsumedRegister",
];

pub(super) fn render(document: &Document) -> Result<String, fmt::Error> {
    let rows = document.lines.iter().flat_map(|line| rows(document, line));
    csv::table(&COLUMNS, rows)
}

fn rows(document: &Document, line: &Line) -> Vec<[String; 55]> {
    match &line.charge {
        Charge::Usage(usage) => usage
            .resources
            .iter()
            .map(|share| {
                let exact = (share.quantity.clone() * usage.price.exact()).decimal(PLACES);
                row(document, line, money(&share.amount, &exact), used(line, usage, share))
            })
            .collect(),
        Charge::Minimum { .. } | Charge::Rounding => {
            let amount = line.amount.to_string();
            vec![row(document, line, money(&line.amount, &amount), std::array::from_fn(|_| String::new()))]
        }
    }
}

fn row(document: &Document, line: &Line, money: [String; 5], used: [String; 18]) -> [String; 55] {
    let mut cells = account(document).into_iter().chain(charge(line)).chain(money).chain(used);
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}

fn account(document: &Document) -> [String; 17] {
    let invoice = match &document.state {
        State::Issued { id, .. } => id.clone(),
        State::Open { .. } => String::new(),
    };
    let issuer = clean(&document.issuer.name);
    let region = document.issuer.region.as_ref();
    let span = document.period.span();
    [
        format!("tenant-{}", document.tenant),
        clean(&document.tenant_name),
        document.currency.code().to_owned(),
        document.currency.code().to_owned(),
        utc(span.from),
        utc(span.to),
        invoice,
        issuer.clone(),
        issuer.clone(),
        issuer.clone(),
        String::new(),
        String::new(),
        region.map(|region| clean(&region.id)).unwrap_or_default(),
        region.map(|region| clean(&region.name)).unwrap_or_default(),
        String::new(),
        issuer.clone(),
        issuer,
    ]
}

fn charge(line: &Line) -> [String; 15] {
    let (category, frequency) = match line.charge {
        Charge::Usage(_) => ("Usage", "Usage-Based"),
        Charge::Minimum { .. } => ("Adjustment", "Recurring"),
        Charge::Rounding => ("Adjustment", "One-Time"),
    };
    let correction = line.correction.as_ref();
    let corrected_line = correction.and_then(|correction| correction.line);
    [
        "Storage".to_owned(),
        SERVICE.to_owned(),
        "Block Storage".to_owned(),
        category.to_owned(),
        correction.map(|_| "Correction".to_owned()).unwrap_or_default(),
        clean(&line.description()),
        frequency.to_owned(),
        String::new(),
        utc(line.span.from),
        utc(line.span.to),
        line.number.to_string(),
        correction.map(|correction| correction.invoice.clone()).unwrap_or_default(),
        corrected_line.map(|line| line.to_string()).unwrap_or_default(),
        correction.map(|correction| clean(&correction.reason)).unwrap_or_default(),
        line.card.as_ref().map(ToString::to_string).unwrap_or_default(),
    ]
}

fn money(amount: &Amount, exact: &str) -> [String; 5] {
    [amount.to_string(), amount.to_string(), amount.to_string(), exact.to_owned(), exact.to_owned()]
}

fn used(line: &Line, usage: &UsageCharge, share: &Share) -> [String; 18] {
    let quantity = share.quantity.decimal(PLACES);
    let price = usage.price.to_string();
    let tier = csv::tier(&usage.tier);
    let sku = format!("class-{}/{}", usage.class, usage.dimension.name());
    let card = line.card.as_ref().map(ToString::to_string).unwrap_or_default();
    let details = serde_json::json!({ "StorageClass": usage.class_name, "x_Tier": tier });
    [
        price.clone(),
        price.clone(),
        price.clone(),
        price,
        "Standard".to_owned(),
        quantity.clone(),
        usage.unit.label().to_owned(),
        quantity,
        usage.unit.label().to_owned(),
        format!("volume-{}", share.resource),
        clean(share.name.as_deref().unwrap_or_default()),
        "Volume".to_owned(),
        sku.clone(),
        usage.dimension.name().to_owned(),
        format!("{card}/{sku}/{tier}"),
        details.to_string(),
        tier,
        // As text: it has more digits than most tools have places for.
        format!("{} {}", share.used, register_unit(usage)),
    ]
}

const fn register_unit(usage: &UsageCharge) -> &'static str {
    match usage.dimension.unit() {
        crate::Unit::ByteMilliseconds => "Byte-Milliseconds",
        crate::Unit::Requests => "Requests",
        crate::Unit::Bytes => "Bytes",
    }
}

/// A moment as FOCUS writes it ("DateTimeFormat"): UTC, to the second.
fn utc(moment: Timestamp) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
