//! The machine's clocks as the meter reads them, and the meter's time for whoever stamps operations with it.

use crate::mirror::boot_id;
use metering::{Clocks, MeterClock};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use units::MeterTime;

/// Tells the meter's time, on any thread and without a lock: within a boot of the machine it is the clock since boot and a
/// constant, which is found before any volume that is metered is served.
#[derive(Debug, Clone, Default)]
pub struct MeterTimes(Arc<AtomicU64>);

impl MeterTimes {
    /// The time.
    #[must_use]
    pub fn now(&self) -> MeterTime {
        MeterTime(since_boot_ms().wrapping_add(self.0.load(Ordering::Relaxed)))
    }

    /// Goes by `clock` from now on.
    pub(crate) fn follow(&self, clock: &MeterClock) {
        let kept = clock.kept();
        self.0.store(kept.at_ms.wrapping_sub(kept.clocks.since_boot_ms), Ordering::Relaxed);
    }
}

fn since_boot_ms() -> u64 {
    u64::try_from(uring::clock::since_boot().as_millis()).unwrap_or(u64::MAX)
}

/// What the machine's clocks say now.
///
/// # Errors
/// When the system does not tell its boot's id.
pub(crate) fn clocks() -> io::Result<Clocks> {
    let digits: String = boot_id()?.chars().filter(char::is_ascii_hexdigit).collect();
    let boot = u128::from_str_radix(&digits, 16).map_err(io::Error::other)?;
    Ok(Clocks { boot, since_boot_ms: since_boot_ms(), wall_ms: crate::open::wall_ms() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P7. Shards go by the meter's clock, whatever it says, and it goes on.
    #[test]
    fn shards_go_by_the_meters_clock() {
        let now = clocks().expect("the machine's clocks");
        for floor in [0, 1 << 60] {
            let (clock, _) = MeterClock::resume(None, MeterTime(floor), now);
            let times = MeterTimes::default();
            times.follow(&clock);
            let first = times.now();
            assert!(first >= MeterTime(floor) && first.0 - floor < 60_000, "{first:?}");
            assert!(times.now() >= first);
        }
    }
}
