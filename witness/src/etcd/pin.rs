//! Which cluster is believed: the first that answered, or the one that the caller knows from before.
//!
//! Another cluster at the same addresses knows nothing of what was decided: by its answers a site that was ejected could take
//! over. It is believed only once an operator has said so.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, OnceLock, PoisonError};
use thiserror::Error;

/// The identity of an etcd cluster, of which there is a new one whenever a cluster is made. Shown in hexadecimal, as etcd does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u64);

/// A text is no cluster's identity.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is no etcd cluster's id: 1 to 16 hexadecimal digits, not all zero")]
pub struct NotAClusterId {
    text: String,
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = NotAClusterId;

    fn from_str(text: &str) -> Result<Self, NotAClusterId> {
        let is_hexadecimal = text.chars().all(|c| c.is_ascii_hexdigit());
        let id = Some(text).filter(|_| is_hexadecimal).and_then(|text| u64::from_str_radix(text, 16).ok());
        id.filter(|id| *id != 0).map(Self).ok_or_else(|| NotAClusterId { text: text.to_owned() })
    }
}

/// The cluster that is believed.
#[derive(Debug)]
pub(super) struct Pin {
    known: OnceLock<ClusterId>,
    /// The last other one that was told of.
    stranger: Mutex<Option<ClusterId>>,
}

impl Pin {
    pub(super) fn new(expected: Option<ClusterId>) -> Self {
        Self { known: expected.map(OnceLock::from).unwrap_or_default(), stranger: Mutex::new(None) }
    }

    pub(super) fn known(&self) -> Option<ClusterId> {
        self.known.get().copied()
    }

    /// Whether an answer of `found` counts; the first one that comes decides which do.
    ///
    /// # Errors
    /// What is wrong, in words. An operator is told once of each stranger.
    pub(super) fn check(&self, found: ClusterId, endpoint: &impl fmt::Display) -> Result<(), String> {
        if found == ClusterId(0) {
            return Err("it does not tell its cluster".to_owned());
        }
        let known = *self.known.get_or_init(|| found);
        if known == found {
            return Ok(());
        }
        let before = self.stranger.lock().unwrap_or_else(PoisonError::into_inner).replace(found);
        if before != Some(found) {
            tracing::error!(
                %endpoint, %found, expected = %known,
                "the witness is another etcd cluster than before, and is not believed: it was made anew or restored, and may \
                 not know who is primary. If an address is wrong, put it right; if the cluster is meant, make sure that \
                 both sites are in agreement, then confirm its id at both of them"
            );
        }
        Err(format!("it is cluster {found}, expected is {known}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P4. The first cluster that answers is believed, and no other one after it.
    #[test]
    fn the_first_cluster_is_believed() {
        let pin = Pin::new(None);
        assert!(pin.check(ClusterId(0), &"e").is_err());
        assert_eq!(pin.known(), None);
        assert_eq!(pin.check(ClusterId(5), &"e"), Ok(()));
        assert_eq!(pin.check(ClusterId(0xab), &"e").unwrap_err(), "it is cluster ab, expected is 5");
        assert_eq!((pin.check(ClusterId(5), &"e"), pin.known()), (Ok(()), Some(ClusterId(5))));
        assert!(Pin::new(Some(ClusterId(6))).check(ClusterId(5), &"e").is_err());
    }

    /// P4. An identity is read as it is shown.
    #[test]
    fn an_identity_is_read_as_it_is_shown() {
        let id = ClusterId(13_455_796_455_940_752_355);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "0", "+5", "xyz", "1ffffffffffffffff"] {
            assert!(text.parse::<ClusterId>().is_err(), "{text}");
        }
    }
}
