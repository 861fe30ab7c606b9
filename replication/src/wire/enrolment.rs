//! What a site tells of a volume that the other one is to hold a copy of.
//!
//! | offset | size | body |
//! | --- | --- | --- |
//! | 0 | 8 + 8 | number of the question; the volume |
//! | 16 | 8 + 8 | its bytes when it was made; when that was, milliseconds since 1970 |
//! | 32 | 2 | bytes of the name |
//! | 34 | | name, then the name of its class |

use super::bytes::Fields;
use super::error::WireError;
use units::VolumeId;

/// Longest name, of a volume with its tenant or of a class.
const NAME_BYTES_MAX: usize = 256;

/// Bytes of a body before its names.
const HEAD_BYTES: usize = 34;

/// Bytes of a body: names have a byte at least.
pub(super) const ENROLMENT_BYTES_MIN: usize = HEAD_BYTES + 2;

/// The longest one.
pub(super) const ENROLMENT_BYTES_MAX: usize = HEAD_BYTES + 2 * NAME_BYTES_MAX;

/// A volume that the other site is to hold a copy of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// It, at both sites.
    pub volume: VolumeId,
    /// Its name, with `TENANT/` in front where it is not the default tenant's.
    pub name: String,
    /// The name of its class.
    pub class: String,
    /// Its size when it was made; later ones are told by its log.
    pub created_bytes: u64,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
}

impl Enrolment {
    /// Whether its names can be told: printable ASCII without spaces, 1 to 256 bytes.
    pub(super) fn is_sound(&self) -> bool {
        [&self.name, &self.class].into_iter().all(|name| is_name(name.as_bytes()))
    }

    pub(super) fn encode(&self, number: u64, out: &mut Vec<u8>) {
        for word in [number, self.volume.0, self.created_bytes, self.created_ms] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let name_bytes = u16::try_from(self.name.len()).expect("a name that is sound is short");
        out.extend_from_slice(&name_bytes.to_le_bytes());
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(self.class.as_bytes());
    }

    pub(super) fn decode(fields: &mut Fields<'_>) -> Result<(u64, Self), WireError> {
        let (number, volume) = (fields.u64()?, VolumeId(fields.u64()?));
        let (created_bytes, created_ms) = (fields.u64()?, fields.u64()?);
        let name_bytes = usize::from(fields.u16()?);
        let (name, class) = fields.rest().split_at_checked(name_bytes).ok_or(WireError::Cut)?;
        let read = |bytes: &[u8]| {
            let name =
                Some(bytes).filter(|bytes| is_name(bytes)).and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
            name.ok_or(WireError::Value { field: "name" })
        };
        Ok((number, Self { volume, name: read(name)?, class: read(class)?, created_bytes, created_ms }))
    }
}

fn is_name(bytes: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}
