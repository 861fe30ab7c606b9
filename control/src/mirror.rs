//! What the API shows and takes of mirrored volumes. Members are only ever added within v1.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// How a mirrored volume is at this site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mirror {
    /// The volume.
    pub volume: String,
    /// This site.
    pub site: u8,
    /// The other one.
    pub peer: u8,
    /// What this site is to the volume now.
    pub role: MirrorRole,
    /// Whether requests are served here now.
    pub serves: bool,
    /// What this site does with its log, in words.
    #[schema(example = "leads in epoch 7, with the other site")]
    pub state: String,
    /// The right to write that this site has promised.
    pub epoch: u64,
    /// Whose that is by the newest record that this site has promised; absent where it knows none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<u8>,
    /// Whether both sites are in sync by that record: each holds all that was acknowledged.
    pub in_sync: bool,
    /// The link to the other site.
    pub link: LinkState,
    /// Where the log ends here, in operations, whether that counts or not.
    pub log_end: u64,
    /// What keeps the two logs apart, and ends only when somebody sees to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What this site decided lately and why, the oldest first; absent in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<MirrorEvidence>,
}

/// What a site is to a mirrored volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MirrorRole {
    /// It takes writes, and acknowledges what the other site has, too.
    Primary,
    /// It takes writes without the other site.
    PrimaryAlone,
    /// It follows the other site's log.
    Secondary,
    /// It does neither, until it knows what it is or its log has been cut.
    Waiting,
}

/// Whether the sites hear each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// They do.
    Up,
    /// They do not.
    Down,
}

/// One decision of a site.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorEvidence {
    /// When. RFC 3339.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// What was decided, and what was seen.
    pub text: String,
}

/// Mirrored volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorList {
    /// By the volume's name.
    pub mirrors: Vec<Mirror>,
    /// What gives the next part, as `?cursor=`; absent in the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Which site is meant.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ToSite {
    /// Its number.
    #[schema(example = 2)]
    pub to: u8,
}

impl fmt::Display for MirrorRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::PrimaryAlone => "primary alone",
            Self::Secondary => "secondary",
            Self::Waiting => "waiting",
        })
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}
