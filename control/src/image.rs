//! What the API shows and takes of images. Members are only ever added within v1.

use crate::error::{ErrorCode, ServiceError};
use crate::size::VolumeSize;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// An image: a volume that is filled once, sealed, and from then on only read and cloned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Image {
    /// Its name, which is also its NBD export's: `TENANT/NAME`, or `NAME` alone of the default tenant.
    pub name: String,
    /// Whose it is.
    #[serde(default)]
    pub tenant: String,
    /// Its number in the pool, never used again.
    pub id: u64,
    /// Its size.
    pub size_bytes: u64,
    /// Bytes that hold data: mapped blocks times 4096. Absent when not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// Whether it can be used.
    pub state: ImageState,
    /// Why it cannot; absent while it is being imported or is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// Everything before it is copied from the source and on stable storage; the size once it is ready.
    pub copied_bytes: u64,
    /// The number of its import, never used again; an import that is gone on with has another.
    #[serde(default)]
    pub claim: u64,
    /// What it was copied from; empty where it is another tenant's.
    pub source: String,
    /// Which other tenants may make volumes of it.
    #[serde(default)]
    pub sharing: ImageSharing,
    /// When its import began. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// Where NBD clients find it; read-only once it is ready.
    pub nbd_uris: Vec<String>,
}

/// Which other tenants may make volumes of an image of the default tenant's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSharing {
    /// Every tenant.
    #[serde(default)]
    pub all: bool,
    /// These, up to 32; none with `all`.
    #[serde(default)]
    #[schema(example = json!(["acme"]))]
    pub tenants: Vec<String>,
}

/// Whether an image can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Its copy is not complete: `copied_bytes` tells how far it is.
    Importing,
    /// It is sealed.
    Ready,
    /// It was found damaged.
    Quarantined,
}

/// Every image, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageList {
    /// In the order of their names.
    pub images: Vec<Image>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An import to be begun, or to be gone on with. Who asks writes the data over NBD from `copied_bytes` of the answer on,
/// and tells how far it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportImage {
    /// `NAME` or `TENANT/NAME`, each 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
    #[schema(
        example = "debian-12",
        max_length = 257,
        pattern = "^([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*$"
    )]
    pub name: String,
    /// Its size, a multiple of 512.
    pub size_bytes: u64,
    /// What it is copied from, for people: 1 to 1024 bytes without control characters.
    #[schema(example = "/srv/images/debian-12.qcow2", max_length = 1024)]
    pub source: String,
    /// What changes when the source does, such as its time of change: an import goes on only where this is the same.
    #[serde(default)]
    #[schema(max_length = 100)]
    pub source_state: String,
}

/// How far an import is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkImage {
    /// Everything before it is written and flushed. A multiple of 4096, or the size.
    pub copied_bytes: u64,
}

/// Most bytes of a source's name.
const SOURCE_BYTES_MAX: usize = 1024;

/// Most bytes of a source's state.
const STATE_BYTES_MAX: usize = 100;

impl ImportImage {
    /// The size asked for, when the rest can be kept, too.
    ///
    /// # Errors
    /// `invalid_size`, `invalid_request`.
    pub fn checked_size(&self) -> Result<VolumeSize, ServiceError> {
        let is_source = !self.source.is_empty() && self.source.len() <= SOURCE_BYTES_MAX;
        let is_kept = is_source && self.source_state.len() <= STATE_BYTES_MAX;
        if !is_kept || self.source.chars().chain(self.source_state.chars()).any(char::is_control) {
            let detail = format!(
                "\"source\" wants 1 to {SOURCE_BYTES_MAX} bytes and \"source_state\" at most {STATE_BYTES_MAX}, without \
                 control characters"
            );
            return Err(ServiceError::new(ErrorCode::InvalidRequest, detail));
        }
        Ok(VolumeSize::from_bytes(self.size_bytes)?)
    }
}

impl fmt::Display for ImageState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Importing => "importing",
            Self::Ready => "ready",
            Self::Quarantined => "quarantined",
        })
    }
}
