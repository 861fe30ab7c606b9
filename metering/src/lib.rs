//! What is used, and what it costs: readings of cumulative registers, the ledger that holds them, and the bill.
//!
//! Sans-io: time, randomness and storage are arguments. No number here is a float.

#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

mod clock;
mod invoice;
pub mod ledger;
mod rating;
mod reading;

pub use clock::{ClockEvent, Clocks, KeptClock, MeterClock, STEP_TOLERANCE_MS};
pub use invoice::{Format, Invoice, InvoiceError, Issuer, Region, State, correct};
pub use rating::{
    Account, Amount, Bill, CardError, CardId, CardsError, Charge, Correction, CorrectionKind, Currency, Decimal, Exact,
    Line, Note, NoteKind, Period, PeriodError, PriceUnit, RateCard, RateCards, RatingError, ReadingError, RoundingRule,
    Share, Span, Tier, UsageCharge, Wrong, forecast, preview, rate,
};
pub use reading::{Dimension, Mark, Reading, Registers, Unit};
