//! The meter's clock: what use is measured by, made of a clock that nobody can set.
//!
//! Within a boot of the machine it goes as the clock does that counts from the boot, restarts of the daemon between or not. Over
//! a reboot nothing counts but the wall clock: what that says to have passed since the clock was last kept is taken as it is,
//! and is told as an estimate; a wall clock that went back says that no time passed. It never goes back, not behind what a
//! volume's log tells either.
//!
//! A wall clock that is set while the daemon runs changes nothing here. It is told as a step, since it moves the border of a
//! month against the meter's time.

use serde::{Deserialize, Serialize};
use units::MeterTime;

/// How far the wall clock may go from the clock since boot between two looks, in milliseconds: what a clock that is
/// slowly put right does in a day is below it.
pub const STEP_TOLERANCE_MS: u64 = 1000;

/// What the machine's clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// Which boot of which machine: random, another one after each.
    pub boot: u128,
    /// Milliseconds since that boot, those with it that the machine slept.
    pub since_boot_ms: u64,
    /// Milliseconds since 1970, by the wall clock.
    pub wall_ms: u64,
}

/// What is kept of the clock, so that it goes on after a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptClock {
    /// What the machine's clocks said.
    pub clocks: Clocks,
    /// What this one said then, milliseconds.
    pub at_ms: u64,
}

/// What is to be written down of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", deny_unknown_fields)]
pub enum ClockEvent {
    /// The clock began: nothing was kept of it.
    Began {
        /// Where.
        at_ms: u64,
    },
    /// The machine was booted, or the pool came to another one: the time between is what the wall clock says.
    Estimated {
        /// What the clock said when it was last kept.
        from_ms: u64,
        /// What it says now.
        to_ms: u64,
        /// What the wall clock says to have passed; less than 0 counts as 0.
        wall_ms: i128,
    },
    /// The wall clock was set.
    Stepped {
        /// When.
        at_ms: u64,
        /// How far, forward or back.
        by_ms: i128,
        /// What the wall clock says now, milliseconds since 1970.
        wall_ms: u64,
    },
}

/// The meter's clock.
#[derive(Debug, Clone, Copy)]
pub struct MeterClock {
    /// What this clock said at the last look, and the machine's.
    last: KeptClock,
}

impl MeterClock {
    /// Goes on from what was kept, and not before `floor`, the latest time that a log tells.
    #[must_use]
    pub fn resume(kept: Option<KeptClock>, floor: MeterTime, now: Clocks) -> (Self, Option<ClockEvent>) {
        let Some(kept) = kept else {
            let clock = Self { last: KeptClock { clocks: now, at_ms: floor.0 } };
            return (clock, Some(ClockEvent::Began { at_ms: floor.0 }));
        };
        if kept.clocks.boot == now.boot {
            let mut clock = Self { last: kept };
            let stepped = clock.look(now);
            clock.last.at_ms = clock.last.at_ms.max(floor.0);
            return (clock, stepped);
        }
        let passed = i128::from(now.wall_ms) - i128::from(kept.clocks.wall_ms);
        let to_ms = kept.at_ms.saturating_add(u64::try_from(passed).unwrap_or(0)).max(floor.0);
        let clock = Self { last: KeptClock { clocks: now, at_ms: to_ms } };
        (clock, Some(ClockEvent::Estimated { from_ms: kept.at_ms, to_ms, wall_ms: passed }))
    }

    /// What it says when `since_boot_ms` have passed since the boot of the last look.
    #[must_use]
    pub const fn at(&self, since_boot_ms: u64) -> MeterTime {
        let passed = since_boot_ms.saturating_sub(self.last.clocks.since_boot_ms);
        MeterTime(self.last.at_ms.saturating_add(passed))
    }

    /// Looks at the machine's clocks, which are those of the same boot; tells whether the wall clock was set since the last look.
    pub fn look(&mut self, now: Clocks) -> Option<ClockEvent> {
        let before = self.last.clocks;
        let at_ms = self.at(now.since_boot_ms).0;
        let since_boot_ms = now.since_boot_ms.max(before.since_boot_ms);
        self.last = KeptClock { clocks: Clocks { since_boot_ms, ..now }, at_ms };
        let passed = i128::from(since_boot_ms - before.since_boot_ms);
        let by_ms = i128::from(now.wall_ms) - i128::from(before.wall_ms) - passed;
        let is_step = by_ms.unsigned_abs() > u128::from(STEP_TOLERANCE_MS);
        is_step.then_some(ClockEvent::Stepped { at_ms, by_ms, wall_ms: now.wall_ms })
    }

    /// What is to be kept.
    #[must_use]
    pub const fn kept(&self) -> KeptClock {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: u64 = 3_600_000;

    fn clocks(boot: u128, since_boot_ms: u64, wall_ms: u64) -> Clocks {
        Clocks { boot, since_boot_ms, wall_ms }
    }

    fn begun() -> MeterClock {
        let (clock, event) = MeterClock::resume(None, MeterTime(0), clocks(1, 5000, 1_000_000));
        assert_eq!(event, Some(ClockEvent::Began { at_ms: 0 }));
        clock
    }

    /// P7. A stop of the daemon is time like any other, to the millisecond, whatever was kept last.
    #[test]
    fn it_goes_on_through_a_restart() {
        let clock = begun();
        let now = clocks(1, 5000 + HOUR_MS + 1, 1_000_000 + HOUR_MS + 1);
        let (resumed, event) = MeterClock::resume(Some(clock.kept()), MeterTime(0), now);
        assert_eq!((resumed.at(now.since_boot_ms), event), (MeterTime(HOUR_MS + 1), None));
        assert_eq!(resumed.at(now.since_boot_ms + 7), MeterTime(HOUR_MS + 8));
    }

    /// P7. A wall clock that is set, while the daemon runs or not, is told and changes nothing.
    #[test]
    fn a_step_of_the_wall_clock_is_told_and_not_counted() {
        for by_ms in [i128::from(HOUR_MS), -500_000] {
            let set = |wall_ms: u64| u64::try_from(i128::from(wall_ms) + by_ms).unwrap();
            let now = clocks(1, 15_000, set(1_010_000));
            let told = Some(ClockEvent::Stepped { at_ms: 10_000, by_ms, wall_ms: now.wall_ms });
            let mut clock = begun();
            let (resumed, event) = MeterClock::resume(Some(clock.kept()), MeterTime(0), now);
            assert_eq!((resumed.at(15_000), event), (MeterTime(10_000), told));
            assert_eq!((clock.look(now), clock.at(15_000)), (told, MeterTime(10_000)));
            assert_eq!(clock.look(clocks(1, 16_000, now.wall_ms + 1001)), None, "told once; slow ones are none");
        }
    }

    /// P7. Over a reboot the wall clock counts, and is told to be an estimate; one that went back says that no time passed.
    #[test]
    fn a_reboot_is_estimated_by_the_wall_clock() {
        let kept = begun().kept();
        for (wall_ms, passed) in [(1_000_000 + HOUR_MS, HOUR_MS), (999_999, 0), (0, 0)] {
            let (clock, event) = MeterClock::resume(Some(kept), MeterTime(0), clocks(2, 30, wall_ms));
            assert_eq!(clock.at(30), MeterTime(passed));
            let wall_ms = i128::from(wall_ms) - 1_000_000;
            assert_eq!(event, Some(ClockEvent::Estimated { from_ms: 0, to_ms: passed, wall_ms }));
        }
    }

    /// P7. What a log tells of the time lies behind, whatever was kept.
    #[test]
    fn it_is_never_before_what_a_log_tells() {
        let floor = MeterTime(77_000);
        for (kept, boot) in [(None, 1), (Some(begun().kept()), 1), (Some(begun().kept()), 2)] {
            let (clock, _) = MeterClock::resume(kept, floor, clocks(boot, 5000, 1_000_000));
            assert_eq!(clock.at(5000), floor);
        }
    }

    proptest! {
        /// P7. It never goes back, and within a boot never counts more or less than has passed.
        #[test]
        fn it_never_goes_back(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u64..1 << 40, 0_u64..1 << 44), 1..50),
        ) {
            let mut now = clocks(1, 0, 0);
            let (mut clock, _) = MeterClock::resume(None, MeterTime(0), now);
            for (is_restart, is_reboot, passed, wall_ms) in steps {
                let before = clock.at(now.since_boot_ms);
                now = clocks(now.boot, now.since_boot_ms + passed, wall_ms);
                if is_restart && is_reboot {
                    now = clocks(now.boot + 1, passed, wall_ms);
                }
                if is_restart {
                    clock = MeterClock::resume(Some(clock.kept()), MeterTime(0), now).0;
                } else {
                    clock.look(now);
                }
                let after = clock.at(now.since_boot_ms);
                prop_assert!(after >= before);
                if !(is_restart && is_reboot) {
                    prop_assert_eq!(after.since(before), passed);
                }
            }
        }
    }
}
