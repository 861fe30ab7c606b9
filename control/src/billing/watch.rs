//! Budgets: set, shown, and looked at again and again.
//!
//! An alert is an entry before anybody is told, and another one when it was posted or given up. So it is raised once for each
//! threshold and month, and posted again after a crash in between: by its id whoever gets it knows it.

use super::budget::{Budget, Standing, Threshold};
use super::model::{BudgetAlert, BudgetStatus};
use super::settings::{Alerted, ProviderNote, Settings};
use super::{Billed, Desk, note_of, refused};
use crate::error::{ErrorCode, ServiceError};
use crate::name::Name;
use crate::service::Service;
use jiff::{SignedDuration, Timestamp};
use metering::{Invoice, State};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use units::TenantId;

/// For how long it is tried to post an alert.
const DELIVERY_AGE_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Looks at budgets.
pub struct BudgetWatch {
    desk: Desk,
    /// Why a tenant's could not be looked at, as it was told.
    told: Mutex<BTreeMap<TenantId, String>>,
}

/// An alert that is to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueAlert {
    /// The tenant's number.
    pub tenant: TenantId,
    /// What is told.
    pub alert: BudgetAlert,
    /// To whom.
    pub webhooks: Vec<String>,
}

impl BudgetWatch {
    /// Over the service's books.
    #[must_use]
    pub fn new(service: &Arc<dyn Service>) -> Self {
        Self { desk: Desk::of(service), told: Mutex::default() }
    }

    /// Looks at every budget once, raises what is reached, and tells what is to be posted.
    ///
    /// # Errors
    /// The books' own. What cannot be said of one tenant is logged, and keeps no other's from being told.
    pub async fn round(&self) -> Result<Vec<DueAlert>, ServiceError> {
        let now = Timestamp::now();
        let settings = self.desk.settings().await?;
        if settings.budgets.is_empty() {
            return Ok(Vec::new());
        }
        let tenants = self.desk.tenants().await?;
        for (id, name) in settings.budgets.keys().filter_map(|id| tenants.get_key_value(id)) {
            let looked = self.desk.look_at_budget(name, now).await;
            self.tell((*id, name), looked.err());
        }
        let since = now.checked_sub(DELIVERY_AGE_MAX).unwrap_or(Timestamp::MIN);
        let settings = self.desk.settings().await?;
        let due = |alerted: &Alerted| {
            let tenant = TenantId(alerted.tenant);
            let webhooks = settings.budgets.get(&tenant).map(|budget| budget.webhooks.clone()).unwrap_or_default();
            DueAlert { tenant, alert: alerted.alert.clone(), webhooks }
        };
        Ok(settings.undelivered(since).map(due).filter(|due| !due.webhooks.is_empty()).collect())
    }

    /// Logs why a budget cannot be looked at, once for each reason.
    fn tell(&self, (id, name): (TenantId, &Name), error: Option<ServiceError>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else {
            told.remove(&id);
            return;
        };
        let reason = error.to_string();
        if told.get(&id) == Some(&reason) {
            return;
        }
        if error.code == ErrorCode::NotRated {
            // Of a provider who has not written a card yet.
            tracing::info!(tenant = %name, %id, %error, "a budget is not looked at");
        } else {
            tracing::warn!(tenant = %name, %id, %error, "a budget cannot be looked at");
        }
        told.insert(id, reason);
    }

    /// Notes what became of an alert: it was posted, or nobody could be told.
    ///
    /// # Errors
    /// The books' own.
    pub async fn delivered(&self, id: &str, is_sent: bool) -> Result<(), ServiceError> {
        let _one_at_a_time = self.desk.books.changes().lock().await;
        self.desk.note(&ProviderNote::BudgetAlertDelivered { id: id.to_owned(), is_sent }).await
    }
}

impl fmt::Debug for BudgetWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BudgetWatch")
    }
}

impl Desk {
    /// A tenant's budget, and what was told of it this month.
    pub(crate) async fn budget(&self, name: &Name) -> Result<BudgetStatus, ServiceError> {
        let of = self.billed(name).await?;
        let month = of.month_at(Timestamp::now())?;
        Ok(status(&of, name, month, of.settings.budgets.get(&of.id).cloned()))
    }

    /// Gives a tenant a budget, or none.
    pub(crate) async fn set_budget(&self, name: &Name, budget: Option<Budget>) -> Result<BudgetStatus, ServiceError> {
        budget.as_ref().map_or(Ok(()), Budget::check).map_err(refused)?;
        let _one_at_a_time = self.books.changes().lock().await;
        let of = self.billed(name).await?;
        if of.settings.budgets.get(&of.id) != budget.as_ref() {
            self.note(&ProviderNote::Budget { tenant: of.id.0, budget: budget.clone() }).await?;
        }
        let month = of.month_at(Timestamp::now())?;
        Ok(status(&of, name, month, budget))
    }

    /// Raises what a tenant's month has reached of its budget.
    async fn look_at_budget(&self, name: &Name, now: Timestamp) -> Result<(), ServiceError> {
        let of = self.billed(name).await?;
        let month = of.month_at(now)?;
        let invoice = self.open(&of, &month, now).await?;
        if reached(&of, &of.settings, &invoice).is_empty() {
            return Ok(());
        }
        let _one_at_a_time = self.books.changes().lock().await;
        // It may have changed, or have been told, since.
        let settings = self.settings().await?;
        let Some(budget) = settings.budgets.get(&of.id) else { return Ok(()) };
        let mut notes = Vec::new();
        for threshold in reached(&of, &settings, &invoice) {
            let alert = alert(&of, budget, &invoice, (threshold, now));
            tracing::warn!(
                tenant = %name, month = alert.month, percent = alert.percent, basis = ?alert.basis, bill = alert.bill,
                forecast = alert.forecast, budget = alert.amount, currency = alert.currency, "a budget's threshold is reached"
            );
            let alerted = Alerted { tenant: of.id.0, alert };
            notes.push(note_of(TenantId::DEFAULT, &ProviderNote::BudgetAlert(alerted))?);
        }
        if notes.is_empty() { Ok(()) } else { self.books.append(notes).await }
    }
}

fn status(of: &Billed, name: &Name, month: String, budget: Option<Budget>) -> BudgetStatus {
    let alerts = of.settings.alerts_of(of.id, &month).cloned().collect();
    BudgetStatus { tenant: name.to_string(), budget, month, alerts }
}

fn standing(invoice: &Invoice) -> Standing {
    let forecast = match invoice.state() {
        State::Open { forecast, .. } => *forecast,
        State::Issued { .. } => None,
    };
    Standing { bill: invoice.total(), forecast }
}

fn reached(of: &Billed, settings: &Settings, invoice: &Invoice) -> Vec<Threshold> {
    let Some(budget) = settings.budgets.get(&of.id) else { return Vec::new() };
    let told = settings.told(of.id, invoice.period().month(), budget);
    budget.due(standing(invoice), &told).into_iter().collect()
}

fn alert(of: &Billed, budget: &Budget, invoice: &Invoice, (threshold, at): (Threshold, Timestamp)) -> BudgetAlert {
    let Threshold { basis, percent } = threshold;
    let Standing { bill, forecast } = standing(invoice);
    let month = invoice.period().month().to_owned();
    let kind = match basis {
        super::Basis::Bill => "bill",
        super::Basis::Forecast => "forecast",
    };
    BudgetAlert {
        id: format!("{}-{month}-{kind}-{percent}-of-{}", of.id, budget.amount),
        tenant: of.name.clone(),
        month,
        basis,
        percent,
        amount: budget.amount.clone(),
        bill: bill.to_string(),
        forecast: forecast.map(|amount| amount.to_string()),
        currency: invoice.currency().code().to_owned(),
        at,
    }
}
