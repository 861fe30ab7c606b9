//! What is used, and what it costs: readings of cumulative registers, the ledger that holds them, and the bill.
//!
//! Sans-io: time, randomness and storage are arguments. No number here is a float.

#![forbid(unsafe_code)]

mod clock;
mod reading;

pub use clock::{ClockEvent, Clocks, KeptClock, MeterClock, STEP_TOLERANCE_MS};
pub use reading::{Dimension, Reading, Registers, Unit};
