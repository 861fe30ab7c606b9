//! Budgets: what a tenant means to spend in a month, and who is told when it does.

use metering::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Most thresholds of each kind, and most webhooks.
const THRESHOLDS_MAX: usize = 20;
const WEBHOOKS_MAX: usize = 4;
const URL_BYTES_MAX: usize = 512;
const PERCENT_MAX: u32 = 1000;

/// What a tenant means to spend in a month, and who is told when that much is spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// The amount, in the currency of the tenant's rate card.
    #[schema(example = "250.00")]
    pub amount: String,
    /// At which percentages of it, reached by the bill so far, somebody is told.
    #[serde(default)]
    #[schema(example = json!([50, 80, 100]))]
    pub thresholds: Vec<u32>,
    /// At which percentages of it, reached by the month's forecast, somebody is told.
    #[serde(default)]
    #[schema(example = json!([100]))]
    pub forecast_thresholds: Vec<u32>,
    /// Where that is posted to, signed: `http` or `https`. It is in the daemon's log in any case.
    #[serde(default)]
    #[schema(example = json!(["https://hooks.example.com/billing"]))]
    pub webhooks: Vec<String>,
}

/// What has reached a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The bill so far.
    Bill,
    /// What the month will come to.
    Forecast,
}

/// A threshold of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Threshold {
    /// What reaches it.
    pub(super) basis: Basis,
    /// At which percentage.
    pub(super) percent: u32,
}

/// How a month stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The bill so far.
    pub(super) bill: metering::Amount,
    /// What the month will come to, when that is known.
    pub(super) forecast: Option<metering::Amount>,
}

impl Budget {
    /// Why it is none, and what to write.
    ///
    /// # Errors
    /// A sentence.
    pub fn check(&self) -> Result<(), String> {
        let amount = Decimal::parse(&self.amount).map(|amount| amount.exact());
        if amount.is_none_or(|amount| amount.is_zero()) {
            return Err(format!("amount {:?} is none: write digits such as 250.00, above 0", self.amount));
        }
        let all = [&self.thresholds, &self.forecast_thresholds];
        if all.iter().any(|thresholds| thresholds.len() > THRESHOLDS_MAX) {
            return Err(format!("there are more than {THRESHOLDS_MAX} thresholds: leave some out"));
        }
        if let Some(wrong) = all.into_iter().flatten().find(|percent| !(1..=PERCENT_MAX).contains(*percent)) {
            return Err(format!("{wrong} is no threshold: write a percentage from 1 to {PERCENT_MAX}"));
        }
        if self.webhooks.len() > WEBHOOKS_MAX {
            return Err(format!("there are more than {WEBHOOKS_MAX} webhooks: leave some out"));
        }
        self.webhooks.iter().try_for_each(|url| check_url(url))
    }

    fn all(&self) -> impl Iterator<Item = Threshold> {
        let of = |basis| move |percent: &u32| Threshold { basis, percent: *percent };
        self.thresholds.iter().map(of(Basis::Bill)).chain(self.forecast_thresholds.iter().map(of(Basis::Forecast)))
    }

    /// Which thresholds are reached by how the month stands and were not told yet.
    #[must_use]
    pub(super) fn due(&self, standing: Standing, told: &BTreeSet<Threshold>) -> BTreeSet<Threshold> {
        let Some(amount) = Decimal::parse(&self.amount).map(|amount| amount.exact()) else { return BTreeSet::new() };
        let is_reached = |threshold: &Threshold| {
            let reached = match threshold.basis {
                Basis::Bill => Some(standing.bill),
                Basis::Forecast => standing.forecast,
            };
            let hundredths = |number: u64| metering::Exact::from(number);
            reached.is_some_and(|reached| {
                reached.exact() * hundredths(100) >= amount.clone() * hundredths(threshold.percent.into())
            })
        };
        self.all().filter(|threshold| !told.contains(threshold)).filter(is_reached).collect()
    }
}

/// Where something may be posted to: a host, and neither a user nor a fragment.
fn check_url(url: &str) -> Result<(), String> {
    let refused = |hint: &str| Err(format!("webhook {url:?}: {hint}"));
    if url.len() > URL_BYTES_MAX || url.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return refused(&format!("write at most {URL_BYTES_MAX} characters of ASCII, without spaces"));
    }
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some(rest) = rest else { return refused("write http:// or https:// in front") };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') || rest.contains('#') {
        return refused("write a host, without user, password or fragment");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> Budget {
        Budget {
            amount: "200.00".to_owned(),
            thresholds: vec![50, 80, 100],
            forecast_thresholds: vec![100],
            webhooks: vec!["https://hooks.example.com/a?b=c".to_owned()],
        }
    }

    fn standing(bill: &str, forecast: Option<&str>) -> Standing {
        let amount = |text: &str| serde_json::from_str(&format!("\"{text}\"")).unwrap();
        Standing { bill: amount(bill), forecast: forecast.map(amount) }
    }

    fn threshold(basis: Basis, percent: u32) -> Threshold {
        Threshold { basis, percent }
    }

    /// P7. A threshold is told when it is reached, to the last unit, by what it is about, and once.
    #[test]
    fn a_threshold_is_due_once_it_is_reached() {
        let due = |standing, told: &[Threshold]| -> Vec<Threshold> {
            budget().due(standing, &told.iter().copied().collect()).into_iter().collect()
        };
        assert_eq!(due(standing("99.99", None), &[]), []);
        assert_eq!(due(standing("100.00", Some("199.99")), &[]), [threshold(Basis::Bill, 50)]);
        let all = due(standing("160.00", Some("200")), &[threshold(Basis::Bill, 50)]);
        assert_eq!(all, [threshold(Basis::Bill, 80), threshold(Basis::Forecast, 100)]);
        assert_eq!(due(standing("160.00", Some("200")), &all), [threshold(Basis::Bill, 50)]);
        assert_eq!(due(standing("-5.00", None), &[]), []);
    }

    #[test]
    fn what_is_no_budget_is_refused_with_what_to_write() {
        assert_eq!(budget().check(), Ok(()));
        let wrong = [
            (Budget { amount: "-1".to_owned(), ..budget() }, "digits"),
            (Budget { amount: "0.00".to_owned(), ..budget() }, "above 0"),
            (Budget { thresholds: vec![0], ..budget() }, "from 1"),
            (Budget { forecast_thresholds: vec![1001], ..budget() }, "to 1000"),
            (Budget { thresholds: vec![1; 21], ..budget() }, "more than 20"),
            (Budget { webhooks: vec!["ftp://a".to_owned()], ..budget() }, "http"),
            (Budget { webhooks: vec!["http://user@a".to_owned()], ..budget() }, "user"),
            (Budget { webhooks: vec!["http:///a".to_owned()], ..budget() }, "host"),
            (Budget { webhooks: vec!["http://a b".to_owned()], ..budget() }, "spaces"),
            (Budget { webhooks: vec!["http://a".to_owned(); 5], ..budget() }, "more than 4"),
        ];
        for (budget, hint) in wrong {
            let error = budget.check().unwrap_err();
            assert!(error.contains(hint), "{error}");
        }
    }
}
