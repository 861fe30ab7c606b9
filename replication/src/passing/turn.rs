//! What becomes of a request that waits, by the role of its site.

use super::{Asker, Held, may_be_passed};
use crate::seat::Admission;
use units::Monotonic;

/// Whose a request is that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A client's of this site.
    Own,
    /// One's that has gone, or does not want it any more.
    Abandoned,
    /// A client's of the other site, which has passed it on.
    Guest,
}

/// What is to be done with a request that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is begun here.
    Begin,
    /// It is passed on, if there is room.
    PassOn,
    /// It ends with an error.
    Fail,
    /// It is the other site's, which finds out by itself who leads by now.
    GiveBack,
    /// It waits on.
    Wait,
}

impl<K> Asker<K> {
    /// What is to be done now with a request that waits.
    #[must_use]
    pub fn turn(&self, now: Monotonic, admission: Admission, held: &Held<K>, whose: Whose) -> Turn {
        let is_wanted = whose != Whose::Abandoned;
        match admission {
            Admission::Wait if is_wanted => Turn::Wait,
            Admission::Serve if is_wanted && !held.is_lost() => Turn::Begin,
            Admission::Pass | Admission::Refuse if whose == Whose::Guest => Turn::GiveBack,
            Admission::Pass if is_wanted && self.may_pass_on(now, held) => Turn::PassOn,
            Admission::Wait | Admission::Serve | Admission::Pass | Admission::Refuse => {
                if held.may_fail(now) {
                    Turn::Fail
                } else {
                    Turn::Wait
                }
            }
        }
    }

    fn may_pass_on(&self, now: Monotonic, held: &Held<K>) -> bool {
        may_be_passed(&held.request) && !held.is_lost() && self.is_in_time(now, held)
    }
}
