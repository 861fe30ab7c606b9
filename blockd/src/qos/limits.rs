//! What may be asked of a volume, or of all volumes of a tenant, in a second.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The least operations a second that a ceiling may be set to: whoever waits behind others in a connection does not wait long.
pub const IOPS_MIN: u64 = 10;

/// The same where large operations count as several.
pub const SIZED_IOPS_MIN: u64 = 100;

/// The least bytes a second that a ceiling may be set to: the longest request takes half a minute.
pub const BANDWIDTH_MIN: u64 = 1 << 20;

/// The least size from which on an operation may count as several.
pub const OPERATION_BYTES_MIN: u64 = 16 << 10;

/// The most of anything: 2^40 a second, or saved.
pub const CEILING_MAX: u64 = 1 << 40;

/// A bucket of a tenth of a second and less would lose what comes while nobody looks.
const BURSTS_PER_SECOND_MAX: u64 = 10;

/// How much may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    /// In a second, for as long as one likes.
    pub rate: u64,
    /// Credits that are saved at most while less passes, and then may pass at once.
    pub burst: u64,
}

/// The ceilings of a volume, or of a tenant. What is absent has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QosLimits {
    /// Of operations: reads, writes, trims, write-zeroes, cache and block status. A flush is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iops: Option<Ceiling>,
    /// Of bytes that are read and written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Ceiling>,
    /// An operation counts once for each so many bytes that it reads or writes; where absent, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_bytes: Option<u64>,
}

/// Why limits are none that can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidLimits {
    /// Too few operations a second; so many are needed.
    Iops(u64),
    /// Too few bytes a second.
    Bandwidth,
    /// Too small a size of an operation.
    OperationBytes,
    /// A burst that is smaller than a tenth of a second's.
    Burst,
    /// More than [`CEILING_MAX`].
    TooLarge,
}

impl fmt::Display for InvalidLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iops(least) => write!(f, "a ceiling is of {least} operations a second at least, or none"),
            Self::Bandwidth => write!(f, "a ceiling is of {BANDWIDTH_MIN} bytes a second at least, or none"),
            Self::OperationBytes => write!(f, "operations are counted by {OPERATION_BYTES_MIN} bytes at least"),
            Self::Burst => f.write_str("a burst is a tenth of what comes in a second at least"),
            Self::TooLarge => write!(f, "a ceiling is {CEILING_MAX} at most"),
        }
    }
}

impl std::error::Error for InvalidLimits {}

impl Ceiling {
    /// So much in a second; without a burst, what comes in a second is saved.
    #[must_use]
    pub fn new(rate: u64, burst: Option<u64>) -> Self {
        Self { rate, burst: burst.unwrap_or(rate) }
    }

    fn check(self) -> Result<(), InvalidLimits> {
        if self.rate > CEILING_MAX || self.burst > CEILING_MAX {
            return Err(InvalidLimits::TooLarge);
        }
        if self.burst < self.rate.div_ceil(BURSTS_PER_SECOND_MAX) { Err(InvalidLimits::Burst) } else { Ok(()) }
    }

    /// A part of it, as it is divided among shards. The parts together are what it is, but that none is nothing.
    pub(crate) fn part(self, part: u64, whole: u64) -> Self {
        let of = |number: u64| {
            let part = u128::from(number) * u128::from(part) / u128::from(whole.max(1));
            u64::try_from(part).unwrap_or(u64::MAX).max(1)
        };
        Self { rate: of(self.rate), burst: of(self.burst) }
    }
}

impl QosLimits {
    /// Whether these can be kept, and whoever waits for them waits a bounded time.
    ///
    /// # Errors
    /// [`InvalidLimits`] says what not.
    pub fn check(&self) -> Result<(), InvalidLimits> {
        let least = if self.operation_bytes.is_some() { SIZED_IOPS_MIN } else { IOPS_MIN };
        if let Some(iops) = self.iops {
            iops.check()?;
            if iops.rate < least {
                return Err(InvalidLimits::Iops(least));
            }
        }
        if let Some(bandwidth) = self.bandwidth {
            bandwidth.check()?;
            if bandwidth.rate < BANDWIDTH_MIN {
                return Err(InvalidLimits::Bandwidth);
            }
        }
        match self.operation_bytes {
            Some(bytes) if bytes < OPERATION_BYTES_MIN => Err(InvalidLimits::OperationBytes),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether there is no ceiling at all.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.iops.is_none() && self.bandwidth.is_none()
    }

    /// As how many operations one counts that reads or writes so many bytes.
    pub(crate) fn operations(&self, bytes: u64) -> u64 {
        self.operation_bytes.map_or(1, |size| bytes.div_ceil(size.max(1)).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_would_hold_somebody_for_long_are_refused() {
        let iops = |rate| QosLimits { iops: Some(Ceiling::new(rate, None)), ..QosLimits::default() };
        let bandwidth = |rate| QosLimits { bandwidth: Some(Ceiling::new(rate, None)), ..QosLimits::default() };
        assert_eq!(QosLimits::default().check(), Ok(()));
        assert_eq!(iops(9).check(), Err(InvalidLimits::Iops(10)));
        assert_eq!(iops(10).check(), Ok(()));
        assert_eq!(QosLimits { operation_bytes: Some(1 << 14), ..iops(10) }.check(), Err(InvalidLimits::Iops(100)));
        assert_eq!(QosLimits { operation_bytes: Some(4096), ..iops(100) }.check(), Err(InvalidLimits::OperationBytes));
        assert_eq!(bandwidth((1 << 20) - 1).check(), Err(InvalidLimits::Bandwidth));
        assert_eq!(bandwidth(CEILING_MAX + 1).check(), Err(InvalidLimits::TooLarge));
        let burst = QosLimits { iops: Some(Ceiling { rate: 1000, burst: 99 }), ..QosLimits::default() };
        assert_eq!(burst.check(), Err(InvalidLimits::Burst));
    }

    #[test]
    fn large_operations_count_as_several_when_that_is_asked_for() {
        let sized = QosLimits { operation_bytes: Some(16 << 10), ..QosLimits::default() };
        assert_eq!([0, 1, 16 << 10, (16 << 10) + 1, 1 << 20].map(|bytes| sized.operations(bytes)), [1, 1, 1, 2, 64]);
        assert_eq!(QosLimits::default().operations(32 << 20), 1);
    }
}
