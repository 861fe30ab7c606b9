//! Invoices: the open month, issued ones, and what is put right on the next.

use super::account::{Account, AccountNote};
use super::errors::invoice_error;
use super::model::{CorrectionPreview, InvoiceList, InvoiceSummary, OrderedCorrection};
use super::{Billed, Desk, internal, milliseconds, note_of, off_the_threads, rating_error};
use crate::error::{ErrorCode, ServiceError};
use crate::name::Name;
use jiff::{SignedDuration, Timestamp};
use metering::{Amount, Charge, Invoice, Issuer, Line, Period, State, correct, forecast, rate};
use units::TenantId;

/// Readings are kept for about as long.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 100);

impl Desk {
    /// A tenant's issued invoices, and what comes with the next.
    pub(crate) async fn invoices(&self, name: &Name) -> Result<InvoiceList, ServiceError> {
        let Billed { account: Account { invoices, ordered, .. }, .. } = self.billed(name).await?;
        Ok(InvoiceList { invoices: invoices.iter().filter_map(summary).collect(), corrections: ordered })
    }

    /// The invoice of a month: as it was issued, or how it looks now.
    pub(crate) async fn invoice(&self, name: &Name, month: &str) -> Result<Invoice, ServiceError> {
        let of = self.billed(name).await?;
        if let Some(issued) = of.account.invoice_of(month) {
            return Ok(issued.clone());
        }
        self.open(&of, month, Timestamp::now()).await
    }

    /// How a month looks that is not issued, with what it will come to while it goes on.
    pub(super) async fn open(&self, of: &Billed, month: &str, now: Timestamp) -> Result<Invoice, ServiceError> {
        let period = of.period(month)?;
        let (readings, bill) = self.bill(of, &period, now).await?;
        let corrections = self.corrections(of, &period).await?;
        let ahead = if (period.span().from..period.span().to).contains(&now) {
            let resources = self.resources(&of.name.parse()?).await?;
            let account = of.account_of(resources);
            let cards = of.cards()?;
            let ahead = off_the_threads(move || rate(&forecast(&readings, &period, now), &cards, &period, &account));
            Some(ahead.await?.map_err(rating_error)?)
        } else {
            None
        };
        Invoice::open(bill, corrections, issuer(of), now, ahead).map_err(invoice_error)
    }

    /// Issues a month's invoice; also says whether it was issued by this. One that is issued already is answered as it was.
    pub(crate) async fn issue(&self, name: &Name, month: &str) -> Result<(Invoice, bool), ServiceError> {
        let _one_at_a_time = self.books.changes().lock().await;
        let of = self.billed(name).await?;
        if let Some(issued) = of.account.invoice_of(month) {
            return Ok((issued.clone(), false));
        }
        let (period, now) = (of.period(month)?, Timestamp::now());
        if now < period.span().to {
            let month = month.to_owned();
            return Err(invoice_error(metering::InvoiceError::NotOver { month, end: period.span().to }));
        }
        self.books.read_due().await?;
        let (_, bill) = self.bill(&of, &period, now).await?;
        let corrections = self.corrections(&of, &period).await?;
        let id = of.account.next_number(&of.billing.prefix);
        let invoice = Invoice::issue(bill, corrections, issuer(&of), &id, now).map_err(invoice_error)?;
        let entries = Account::entries_of(of.id, &invoice, &of.cards()?, milliseconds(now))?;
        self.books.append(entries).await?;
        tracing::info!(tenant = %name, month, id, total = %invoice.total(), "issued an invoice");
        Ok((invoice, true))
    }

    /// Refuses to lose sight of a tenant that used something that is on no invoice, as far back as readings are kept.
    pub(crate) async fn refuse_unbilled(&self, name: &Name) -> Result<(), ServiceError> {
        let (of, now) = (self.billed(name).await?, Timestamp::now());
        // Where nothing has a price nothing is billed.
        let Some(since) = of.since.filter(|_| of.cards().is_ok_and(|cards| cards.iter().next().is_some())) else {
            return Ok(());
        };
        self.books.read_due().await?;
        let mut at = since.max(now.checked_sub(KEPT).map_err(|error| internal(&error))?);
        while at < now {
            let period = of.period(&of.month_at(at)?)?;
            at = period.span().to;
            if of.account.invoice_of(period.month()).is_some() {
                continue;
            }
            let is_due = |line: &Line| matches!(line.charge, Charge::Usage(_)) && line.amount.units() != 0;
            let why = match self.bill(&of, &period, now).await {
                Ok((_, bill)) if bill.lines.iter().any(is_due) => "is on no invoice: issue it when the month is over",
                Ok(_) | Err(ServiceError { code: ErrorCode::ReadingsGone, .. }) => continue,
                Err(ServiceError { code: ErrorCode::NotRated, .. }) => "has a part without a price: add that to a card",
                Err(error) => return Err(error),
            };
            let detail = format!("what tenant {name} used in {} {why}, or delete the tenant by force", period.month());
            return Err(ServiceError::new(ErrorCode::TenantUnbilled, detail));
        }
        Ok(())
    }

    /// Has the next invoice put a month right, and tells how.
    pub(crate) async fn correct(
        &self,
        name: &Name,
        month: &str,
        reason: &str,
    ) -> Result<CorrectionPreview, ServiceError> {
        let _one_at_a_time = self.books.changes().lock().await;
        let of = self.billed(name).await?;
        let ordered = OrderedCorrection { month: month.to_owned(), reason: reason.to_owned() };
        let (lines, currency) = self.correction(&of, &ordered).await?;
        if lines.is_empty() {
            let detail = format!("rated anew, {month} is as it was issued: there is nothing to put right");
            return Err(ServiceError::new(ErrorCode::NothingToCorrect, detail));
        }
        let sum = |sum: Option<Amount>, line: &Line| sum.and_then(|sum| sum.plus(line.amount));
        let amount = lines.iter().fold(Some(Amount::zero(currency.digits())), sum);
        let amount = amount.ok_or_else(|| invoice_error(metering::InvoiceError::TooMuch))?;
        let shown: Result<Vec<_>, _> = lines.iter().map(serde_json::to_value).collect();
        if !of.account.ordered.contains(&ordered) {
            let note = note_of(of.id, &AccountNote::CorrectionOrdered(ordered))?;
            self.books.append(vec![note]).await?;
        }
        Ok(CorrectionPreview {
            month: month.to_owned(),
            reason: reason.to_owned(),
            amount: amount.to_string(),
            currency: currency.code().to_owned(),
            lines: shown.map_err(|error| internal(&error))?,
        })
    }

    /// What comes with the invoice of `period`: of each month before it the last word.
    async fn corrections(&self, of: &Billed, period: &Period) -> Result<Vec<Line>, ServiceError> {
        let mut lines = Vec::new();
        for (place, ordered) in of.account.ordered.iter().enumerate() {
            let mut later = of.account.ordered.iter().skip(place + 1);
            if ordered.month.as_str() < period.month() && later.all(|later| later.month != ordered.month) {
                lines.extend(self.correction(of, ordered).await?.0);
            }
        }
        Ok(lines)
    }

    async fn correction(
        &self,
        of: &Billed,
        ordered: &OrderedCorrection,
    ) -> Result<(Vec<Line>, metering::Currency), ServiceError> {
        if of.account.invoice_of(&ordered.month).is_none() {
            return Err(invoice_error(metering::InvoiceError::NothingIssued(ordered.month.clone())));
        }
        let (_, rerated) = self.bill(of, &of.period(&ordered.month)?, Timestamp::now()).await?;
        let lines = correct(&of.account.invoices, &rerated, &ordered.reason).map_err(invoice_error)?;
        Ok((lines, rerated.currency))
    }
}

/// Who issues all invoices: the provider, as its own tenant is called on them.
fn issuer(of: &Billed) -> Issuer {
    let provider = of.settings.billing_of(TenantId::DEFAULT, "");
    Issuer { name: provider.name, region: None }
}

fn summary(invoice: &Invoice) -> Option<InvoiceSummary> {
    let State::Issued { id, at } = invoice.state() else { return None };
    Some(InvoiceSummary {
        id: id.clone(),
        month: invoice.period().month().to_owned(),
        issued_at: *at,
        total: invoice.total().to_string(),
        currency: invoice.currency().code().to_owned(),
        lines: invoice.lines().len() as u64,
    })
}
