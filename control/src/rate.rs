//! How often one may ask: a rate with a burst for each token, and for each address what is refused to it.
//!
//! GCRA: of each asker it is known when its next request would be due at the rate; one that comes more than a burst earlier
//! may not pass. The table is bounded: who rests is forgotten, and when it is full all others are one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most askers that are told apart.
const ASKERS_MAX: usize = 10_000;

/// What may come at once, in seconds of the rate.
const BURST_SECONDS: u32 = 10;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asker {
    /// By a token.
    Token(u64),
    /// Over TCP, by the network of the address: one who has an IPv6 network has all its addresses.
    Network([u8; 8]),
    /// Over a unix socket.
    Local,
    /// Whoever is beyond those that are told apart.
    Others,
}

/// A rate, and who has used it up.
#[derive(Debug)]
pub(crate) struct Rate {
    interval: Option<Duration>,
    due: Mutex<BTreeMap<Asker, Instant>>,
}

impl Asker {
    /// Of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        let mut network = [0; 8];
        match address.to_canonical() {
            IpAddr::V4(address) => network[4..].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => network.copy_from_slice(&address.octets()[..8]),
        }
        Self::Network(network)
    }
}

impl Rate {
    /// Of so many a second; without one, whatever comes.
    pub(crate) fn new(per_second: Option<NonZeroU32>) -> Self {
        let interval = per_second.map(|rate| Duration::from_secs(1) / rate.get());
        Self { interval, due: Mutex::new(BTreeMap::new()) }
    }

    /// Counts one, unless it comes too early; tells whether it may pass.
    pub(crate) fn take(&self, asker: Asker, now: Instant) -> bool {
        let Some(interval) = self.interval else { return true };
        let burst = Duration::from_secs(BURST_SECONDS.into());
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asker = asker;
        if !due.contains_key(&asker) && due.len() >= ASKERS_MAX {
            due.retain(|_, at| *at > now);
            if due.len() >= ASKERS_MAX {
                asker = Asker::Others;
            }
        }
        let at = due.get(&asker).copied().unwrap_or(now).max(now);
        if at.duration_since(now) + interval > burst {
            return false;
        }
        due.insert(asker, at + interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P8. Who asks too often waits for itself, and keeps nobody else.
    #[test]
    fn a_burst_passes_then_the_rate() {
        let (rate, now) = (Rate::new(NonZeroU32::new(5)), Instant::now());
        let passed = |asker, at| (0..1000).filter(|_| rate.take(asker, at)).count();
        assert_eq!(passed(Asker::Token(1), now), 50);
        assert_eq!(passed(Asker::Token(1), now + Duration::from_secs(1)), 5, "a second later there is room again");
        assert_eq!(passed(Asker::Token(2), now), 50);
        assert_eq!(passed(Asker::Token(1), now + Duration::from_secs(1000)), 50);
        assert!((0..1000).all(|_| Rate::new(None).take(Asker::Local, now)));
    }

    #[test]
    fn the_table_is_bounded_and_an_ipv6_network_is_one() {
        let (rate, now) = (Rate::new(NonZeroU32::new(1)), Instant::now());
        (0..3 * ASKERS_MAX as u64).for_each(|id| assert!(rate.take(Asker::Token(id), now) || id >= ASKERS_MAX as u64));
        assert!(rate.due.lock().unwrap().len() <= ASKERS_MAX + 1);
        assert!(rate.take(Asker::Token(u64::MAX), now + Duration::from_secs(60)));
        let of = |text: &str| Asker::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
