//! The clock that goes on from boot, through a suspend too, whatever is done to the wall clock.

use std::time::Duration;

/// How long ago the system was started.
#[must_use]
pub fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is writable; the call fails for an unknown clock only, and then leaves it as it is.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanoseconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::since_boot;

    #[test]
    fn it_goes_on() {
        let before = since_boot();
        assert!(!before.is_zero() && since_boot() >= before);
    }
}
