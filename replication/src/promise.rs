//! What a site has durably promised. Its driver keeps it in a file of its own, replaced as a whole.
//!
//! As text, one `name value` a line, in this order; the record, where there is one, stands behind it as the witness has it:
//!
//! ```text
//! aljibe-promise 1
//! life 3
//! certain yes
//! boot 6c0b3d2e-7f51-4f0e-9a43-2f5f0a6f8d11
//! revision 12
//! ```

use crate::io::Seen;
use crate::record::{RECORD_BYTES_MAX, Record, RecordError, Revision, read_number};
use std::fmt::Write as _;
use thiserror::Error;
use units::Epoch;

const VERSION: &str = "1";

/// Longest boot id that is kept.
const BOOT_BYTES_MAX: usize = 64;

/// Longest promise that is looked at: its own lines, and a record.
pub const PROMISE_BYTES_MAX: usize = 256 + RECORD_BYTES_MAX;

/// Counts the starts of a site: what an earlier life said of its log does not count after a later one was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Life(pub u64);

impl Life {
    /// No site comes to more starts.
    pub const MAX: Self = Self(u32::MAX as u64 - 1);

    /// The next start.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1)).min(Self::MAX)
    }
}

/// A site's durable word: it takes part in no epoch before this one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promise {
    /// The committed record that was promised; none on a site that never knew one.
    pub seen: Option<Seen>,
    /// This start of the site.
    pub life: Life,
    /// Whether the log is known to have every operation that was acknowledged while the site was in sync.
    pub is_certain: bool,
}

impl Promise {
    /// The promised epoch; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.seen.as_ref().map_or(Epoch(0), |seen| seen.record.epoch)
    }
}

/// A promise as it is kept, with the boot of the machine in which it was made: after another one the log may lack its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPromise {
    /// It.
    pub promise: Promise,
    /// The boot id of the machine.
    pub boot: String,
}

impl KeptPromise {
    /// Whether a boot id can be kept: printable ASCII without spaces, 64 bytes at most.
    #[must_use]
    pub fn is_boot(text: &str) -> bool {
        !text.is_empty() && text.len() <= BOOT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The text of the promise.
    #[must_use]
    pub fn encode(&self) -> String {
        let Self { promise, boot } = self;
        let certain = if promise.is_certain { "yes" } else { "no" };
        let mut text = format!("aljibe-promise {VERSION}\nlife {}\ncertain {certain}\nboot {boot}\n", promise.life.0);
        // Writing to a String cannot fail.
        let _ = match promise.seen {
            Some(Seen { revision, record }) => write!(text, "revision {}\n{}", revision.0, record.encode()),
            None => writeln!(text, "revision none"),
        };
        text
    }

    /// Reads a promise.
    ///
    /// # Errors
    /// What is wrong with the text. A site whose promise cannot be read must not take part: it may have promised more than it knows.
    pub fn decode(bytes: &[u8]) -> Result<Self, PromiseError> {
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= PROMISE_BYTES_MAX);
        let mut rest = text.ok_or(PromiseError::NotText)?;
        let mut field = |name: &'static str| {
            let missing = PromiseError::Missing { name };
            let (line, behind) = rest.split_once('\n').ok_or(missing)?;
            rest = behind;
            line.strip_prefix(name).and_then(|value| value.strip_prefix(' ')).ok_or(PromiseError::Missing { name })
        };
        let version = field("aljibe-promise")?;
        if version != VERSION {
            return Err(PromiseError::Version { found: version.to_owned() });
        }
        let life = Life(number("life", field("life")?)?);
        if life > Life::MAX {
            return Err(PromiseError::Value { name: "life" });
        }
        let is_certain = match field("certain")? {
            "yes" => true,
            "no" => false,
            _ => return Err(PromiseError::Value { name: "certain" }),
        };
        let boot = field("boot")?.to_owned();
        if !Self::is_boot(&boot) {
            return Err(PromiseError::Value { name: "boot" });
        }
        let seen = match field("revision")? {
            "none" if rest.is_empty() => None,
            "none" => return Err(PromiseError::Value { name: "revision" }),
            revision => {
                let revision = Revision(number("revision", revision)?);
                Some(Seen { revision, record: Record::decode(rest.as_bytes())? })
            }
        };
        Ok(Self { promise: Promise { seen, life, is_certain }, boot })
    }
}

fn number(name: &'static str, text: &str) -> Result<u64, PromiseError> {
    read_number(text).ok_or(PromiseError::Value { name })
}

/// Why a text is no promise.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PromiseError {
    /// Not text, or longer than any promise.
    #[error("a mirror's promise is text of {PROMISE_BYTES_MAX} bytes at most, and this is not")]
    NotText,
    /// Written by another version of the program.
    #[error("mirror promise of version {found:?}, known is {VERSION}")]
    Version {
        /// What it says.
        found: String,
    },
    /// A line is not there, or not in its place.
    #[error("mirror promise lacks its line \"{name} ...\", or has another one in its place")]
    Missing {
        /// The line's name.
        name: &'static str,
    },
    /// A line says what cannot be.
    #[error("mirror promise says of \"{name}\" what cannot be")]
    Value {
        /// The line's name.
        name: &'static str,
    },
    /// Its record is none.
    #[error("mirror promise: {0}")]
    Record(#[from] RecordError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::EPOCH_MAX;
    use proptest::prelude::*;
    use units::SiteId;

    fn kept() -> impl Strategy<Value = KeptPromise> {
        let seen = prop::option::of((any::<u64>(), 1..=EPOCH_MAX.0, any::<u8>(), any::<bool>()));
        (0..=Life::MAX.0, any::<bool>(), "[!-~]{1,64}", seen).prop_map(|(life, is_certain, boot, seen)| {
            let seen = seen.map(|(revision, epoch, site, is_sole)| {
                let (epoch, primary) = (Epoch(epoch), SiteId(site));
                let partner = Some(SiteId(site.wrapping_add(1)));
                let record = Record { epoch, primary, partner, is_sole, lineage: 1, fork: None };
                Seen { revision: Revision(revision), record }
            });
            KeptPromise { promise: Promise { seen, life: Life(life), is_certain }, boot }
        })
    }

    proptest! {
        /// P4. Every promise comes back as it was written.
        #[test]
        fn what_is_written_is_read(kept in kept()) {
            let text = kept.encode();
            prop_assert!(text.len() <= PROMISE_BYTES_MAX);
            prop_assert_eq!(KeptPromise::decode(text.as_bytes()), Ok(kept));
        }

        /// P4. What is cut or changed is refused, or is another promise that is written so.
        #[test]
        fn nothing_else_is_read(kept in kept(), at in any::<prop::sample::Index>(), byte in any::<u8>(), is_cut in any::<bool>()) {
            let mut bytes = kept.encode().into_bytes();
            let at = at.index(bytes.len());
            if is_cut { bytes.truncate(at) } else { bytes[at] = byte }
            if let Ok(read) = KeptPromise::decode(&bytes) {
                prop_assert_eq!(read.encode().into_bytes(), bytes);
            }
        }
    }

    /// P4. What cannot be is refused with what is wrong.
    #[test]
    fn what_cannot_be_is_refused() {
        let text = KeptPromise { promise: Promise::default(), boot: "b".to_owned() }.encode();
        assert_eq!(text, "aljibe-promise 1\nlife 0\ncertain no\nboot b\nrevision none\n");
        let read = |from: &str, to: &str| KeptPromise::decode(text.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(read("promise 1", "promise 2"), PromiseError::Version { found: "2".to_owned() });
        assert_eq!(read("life 0", "life 00"), PromiseError::Value { name: "life" });
        assert_eq!(read("certain no", "certain maybe"), PromiseError::Value { name: "certain" });
        assert_eq!(read("boot b", "boot b c"), PromiseError::Value { name: "boot" });
        assert_eq!(read("boot b\n", ""), PromiseError::Missing { name: "boot" });
        assert_eq!(read("none\n", "none\nmore\n"), PromiseError::Value { name: "revision" });
        assert!(matches!(read("none\n", "4\n"), PromiseError::Record(_)));
        assert_eq!(KeptPromise::decode(&[0xff]).unwrap_err(), PromiseError::NotText);
    }
}
