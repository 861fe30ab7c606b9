//! What a change of a volume costs, before it is made.

use super::errors::{invoice_error, rating_error};
use super::{Desk, ErrorCode, ServiceError};
use crate::model::Volume;
use crate::name::VolumeName;
use crate::trial::{ChangePrice, VolumePrice};
use jiff::Timestamp;
use metering::{Amount, Dimension, InvoiceError, Period, RateCard, RatingError, preview};
use units::ClassId;

impl Desk {
    /// What a volume would cost that a dry run was answered with, and what it costs now, by the card that holds; nothing where its
    /// class has no price.
    pub(crate) async fn price_of_change(&self, after: &Volume) -> Result<Option<ChangePrice>, ServiceError> {
        let name: VolumeName = after.name.parse()?;
        let of = self.billed(name.tenant()).await?;
        let (now, cards) = (Timestamp::now(), of.cards()?);
        let period = of.period(&of.month_at(now)?)?;
        let Some(card) = cards.at(now) else { return Ok(None) };
        let Some(price) = self.price(card, &period, after).await? else { return Ok(None) };
        let before = match self.service.show_volume(name).await {
            Ok(before) => self.price(card, &period, &before).await?,
            // It would be made.
            Err(ServiceError { code: ErrorCode::VolumeNotFound, .. }) => None,
            Err(error) => return Err(error),
        };
        let (month, currency) = (period.month().to_owned(), card.currency().code().to_owned());
        Ok(Some(ChangePrice { month, currency, before, after: price }))
    }

    async fn price(
        &self,
        card: &RateCard,
        period: &Period,
        volume: &Volume,
    ) -> Result<Option<VolumePrice>, ServiceError> {
        let class = ClassId(self.service.show_class(volume.class.parse()?).await?.id);
        let bytes = volume.size_bytes;
        let empty = [(Dimension::Provisioned, bytes)];
        let full = [(Dimension::Provisioned, bytes), (Dimension::Written, bytes), (Dimension::Physical, bytes)];
        let (least, most) = match (preview(card, class, period, &empty), preview(card, class, period, &full)) {
            (Ok(least), Ok(most)) => (least, most),
            (Err(RatingError::NoClass { .. }), _) => return Ok(None),
            (Err(error), _) | (_, Err(error)) => return Err(rating_error(error)),
        };
        let sum = |lines: Vec<metering::Line>| {
            let zero = Amount::zero(card.currency().digits());
            let sum = lines.into_iter().try_fold(zero, |sum, line| sum.plus(line.amount));
            sum.map(|sum| sum.to_string()).ok_or_else(|| invoice_error(InvoiceError::TooMuch))
        };
        Ok(Some(VolumePrice { least: sum(least)?, most: sum(most)? }))
    }
}
