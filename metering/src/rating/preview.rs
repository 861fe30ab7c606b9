//! What something will cost in a month, before anybody has it.

use units::ClassId;

use super::RatingError;
use super::card::RateCard;
use super::lines::{Line, lines_without_free};
use super::period::Period;
use crate::reading::{Dimension, Unit};

/// What it costs to hold so many bytes from the beginning of `period` to its end, or to make so many requests in it, by
/// `card` and in `class`: a line for each dimension and tier, without resources. A dimension without a price costs nothing.
///
/// It is the price of this alone: tiers begin at 0, and neither what is free nor a minimum counts, since other volumes
/// may have used it up.
///
/// # Errors
/// [`RatingError`] when the class is not on the card, or an amount too large.
pub fn preview(
    card: &RateCard,
    class: ClassId,
    period: &Period,
    held: &[(Dimension, u64)],
) -> Result<Vec<Line>, RatingError> {
    let month = u128::from(period.milliseconds());
    let register = |(dimension, count): &(Dimension, u64)| match dimension.unit() {
        Unit::ByteMilliseconds => (*dimension, u128::from(*count) * month),
        Unit::Requests | Unit::Bytes => (*dimension, u128::from(*count)),
    };
    lines_without_free(card, class, period, &held.iter().map(register).collect::<Vec<_>>())
}
