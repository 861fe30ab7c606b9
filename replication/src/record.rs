//! The witness's record of a consistency group: who is primary, since which epoch, and who holds every acknowledged byte.
//!
//! As text, so that an operator reads it with etcdctl. One `name value` a line, in this order, all of them:
//!
//! ```text
//! aljibe-mirror 1
//! epoch 7
//! primary 1
//! in-sync 1 2
//! sole no
//! lineage 1
//! fork 6/1234
//! ```
//!
//! `in-sync` begins with the primary. `fork` is the last position that the site which took over had of its predecessor's log,
//! or `none`. Every change is one compare-and-swap on the key's revision, and raises the epoch.

use crate::position::Position;
use std::fmt::Write as _;
use thiserror::Error;
use units::{Epoch, Lsn, SiteId};

/// No group comes to higher epochs: those that are left out when a witness is made anew leave room for 2^40 times.
pub const EPOCH_MAX: Epoch = Epoch(1 << 60);

/// Longest record that is looked at.
pub const RECORD_BYTES_MAX: usize = 256;

const VERSION: &str = "1";

/// The witness's number of a record's content: a change names the one that it replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// The record of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// The right to write that this record gives.
    pub epoch: Epoch,
    /// Whose it is.
    pub primary: SiteId,
    /// The other site, while it is in sync: it holds all that was acknowledged.
    pub partner: Option<SiteId>,
    /// S3. The primary may go on alone without asking; nobody else becomes primary by itself.
    pub is_sole: bool,
    /// Raised when an operator decides what no protocol can: a failover by force, a witness made anew.
    pub lineage: u64,
    /// Where the primary's log parted from its predecessor's, when it took over without it.
    pub fork: Option<Fork>,
}

/// The end of a log, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// The epoch of its last operation.
    pub epoch: Epoch,
    /// And its place.
    pub lsn: Lsn,
}

impl From<Position> for Fork {
    fn from(Position { epoch, lsn, .. }: Position) -> Self {
        Self { epoch, lsn }
    }
}

impl Record {
    /// Whether `site` is the primary or in sync with it.
    #[must_use]
    pub fn is_in_sync(&self, site: SiteId) -> bool {
        self.primary == site || self.partner == Some(site)
    }

    /// The text of the record.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = format!("aljibe-mirror {VERSION}\nepoch {}\nprimary {}\n", self.epoch, self.primary);
        let partner = self.partner.map(|site| format!(" {site}")).unwrap_or_default();
        let sole = if self.is_sole { "yes" } else { "no" };
        let fork = self.fork.map_or_else(|| "none".to_owned(), |Fork { epoch, lsn }| format!("{epoch}/{lsn}"));
        // Writing to a String cannot fail.
        let _ = write!(text, "in-sync {}{partner}\nsole {sole}\nlineage {}\nfork {fork}\n", self.primary, self.lineage);
        text
    }

    /// Reads a record.
    ///
    /// # Errors
    /// What is wrong with the text, in words for the operator who may have written it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLong { bytes: bytes.len() });
        }
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).ok_or(RecordError::NotText)?;
        let mut lines = text.split_terminator('\n');
        let mut field = |name| {
            let line = lines.next().ok_or(RecordError::Missing { name })?;
            line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or(RecordError::Missing { name })
        };
        let version = field("aljibe-mirror")?;
        if version != VERSION {
            return Err(RecordError::Version { found: version.to_owned() });
        }
        let epoch = Epoch(number("epoch", field("epoch")?)?);
        let primary = SiteId(number("primary", field("primary")?)?);
        let partner = partner(primary, field("in-sync")?)?;
        let is_sole = match field("sole")? {
            "yes" => true,
            "no" => false,
            _ => return Err(RecordError::Value { name: "sole" }),
        };
        let lineage = number("lineage", field("lineage")?)?;
        let fork = fork(field("fork")?)?;
        if lines.next().is_some() || !text.ends_with('\n') {
            return Err(RecordError::Ending);
        }
        if epoch == Epoch(0) || epoch > EPOCH_MAX {
            return Err(RecordError::Value { name: "epoch" });
        }
        Ok(Self { epoch, primary, partner, is_sole, lineage, fork })
    }
}

/// Why a text is no record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// Longer than any record.
    #[error("mirror record of {bytes} bytes, at most {RECORD_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not ASCII.
    #[error("mirror record is not ASCII text")]
    NotText,
    /// Written by another version of the program.
    #[error("mirror record of version {found:?}, known is {VERSION}")]
    Version {
        /// What it says.
        found: String,
    },
    /// A line is not there, or not in its place.
    #[error("mirror record lacks its line \"{name} ...\", or has another one in its place")]
    Missing {
        /// The line's name.
        name: &'static str,
    },
    /// A line says what cannot be.
    #[error("mirror record says of \"{name}\" what cannot be")]
    Value {
        /// The line's name.
        name: &'static str,
    },
    /// More lines than there are, or the last one is not ended.
    #[error("mirror record does not end behind its line \"fork ...\"")]
    Ending,
}

/// A number as it is written: no sign, no zeros in front, so that one record has one text.
pub(crate) fn read_number<N: std::str::FromStr + std::fmt::Display>(text: &str) -> Option<N> {
    text.parse::<N>().ok().filter(|number| number.to_string() == text)
}

fn number<N: std::str::FromStr + std::fmt::Display>(name: &'static str, text: &str) -> Result<N, RecordError> {
    read_number(text).ok_or(RecordError::Value { name })
}

fn partner(primary: SiteId, text: &str) -> Result<Option<SiteId>, RecordError> {
    let name = "in-sync";
    let (first, second) = text.split_once(' ').map_or((text, None), |(first, second)| (first, Some(second)));
    let partner = second.map(|site| number(name, site).map(SiteId)).transpose()?;
    if number::<u8>(name, first)? != primary.0 || partner == Some(primary) {
        return Err(RecordError::Value { name });
    }
    Ok(partner)
}

fn fork(text: &str) -> Result<Option<Fork>, RecordError> {
    let name = "fork";
    if text == "none" {
        return Ok(None);
    }
    let (epoch, lsn) = text.split_once('/').ok_or(RecordError::Value { name })?;
    Ok(Some(Fork { epoch: Epoch(number(name, epoch)?), lsn: Lsn(number(name, lsn)?) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = "aljibe-mirror 1\nepoch 7\nprimary 1\nin-sync 1 2\nsole no\nlineage 1\nfork 6/1234\n";

    fn records() -> impl Strategy<Value = Record> {
        let fork = prop::option::of((any::<u64>(), any::<u64>()));
        (1..=EPOCH_MAX.0, any::<u8>(), prop::option::of(1..=u8::MAX), any::<bool>(), any::<u64>(), fork).prop_map(
            |(epoch, primary, apart, is_sole, lineage, fork)| Record {
                epoch: Epoch(epoch),
                primary: SiteId(primary),
                partner: apart.map(|apart| SiteId(primary.wrapping_add(apart))),
                is_sole,
                lineage,
                fork: fork.map(|(epoch, lsn)| Fork { epoch: Epoch(epoch), lsn: Lsn(lsn) }),
            },
        )
    }

    /// P4. The record is the text that docs/mirror.md shows.
    #[test]
    fn the_example_is_read_and_written() {
        let record = Record::decode(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(record.encode(), EXAMPLE);
        assert!(record.is_in_sync(SiteId(2)) && !record.is_in_sync(SiteId(3)));
    }

    /// P4. What is not a record is refused with what is wrong.
    #[test]
    fn what_cannot_be_is_refused() {
        let read = |from: &str, to: &str| Record::decode(EXAMPLE.replace(from, to).as_bytes()).unwrap_err();
        assert_eq!(read("mirror 1", "mirror 2"), RecordError::Version { found: "2".to_owned() });
        assert_eq!(read("in-sync 1 2", "in-sync 2 1"), RecordError::Value { name: "in-sync" });
        assert_eq!(read("in-sync 1 2", "in-sync 1 1"), RecordError::Value { name: "in-sync" });
        assert_eq!(read("epoch 7", "epoch 0"), RecordError::Value { name: "epoch" });
        assert_eq!(read("epoch 7", "epoch 1152921504606846977"), RecordError::Value { name: "epoch" });
        assert_eq!(read("epoch 7", "epoch +7"), RecordError::Value { name: "epoch" });
        assert_eq!(read("sole no", "sole maybe"), RecordError::Value { name: "sole" });
        assert_eq!(read("sole no\n", ""), RecordError::Missing { name: "sole" });
        assert_eq!(read("fork 6/1234\n", "fork none\nmore\n"), RecordError::Ending);
        assert_eq!(read("fork 6/1234\n", "fork none"), RecordError::Ending);
        assert_eq!(Record::decode(&[b'x'; 300]).unwrap_err(), RecordError::TooLong { bytes: 300 });
        assert_eq!(Record::decode(&[0xff]).unwrap_err(), RecordError::NotText);
    }

    proptest! {
        /// P4. Every record comes back as it was written, within its bound.
        #[test]
        fn what_is_written_is_read(record in records()) {
            let text = record.encode();
            prop_assert!(text.len() <= RECORD_BYTES_MAX);
            prop_assert_eq!(Record::decode(text.as_bytes()), Ok(record));
        }

        /// P4. Of bytes of any kind, those alone are read that a record is written as.
        #[test]
        fn nothing_else_is_read(record in records(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = record.encode().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(read) = Record::decode(&bytes) {
                prop_assert_eq!(read.encode().into_bytes(), bytes);
            }
        }
    }
}
