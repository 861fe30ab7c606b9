//! What is told of a mirrored volume.

use replication::{Record, Role, Why};
use units::{Epoch, Lsn, SiteId};

/// How a mirrored volume is at this site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorView {
    /// This site.
    pub site: SiteId,
    /// The other one.
    pub peer: SiteId,
    /// What this site's log is to do.
    pub role: Role,
    /// Whether requests are served here now.
    pub serves: bool,
    /// The epoch that this site has promised.
    pub epoch: Epoch,
    /// The newest record of the witness that this site has promised, once it knows one.
    pub record: Option<Record>,
    /// Whether the link to the other site is up.
    pub is_link_up: bool,
    /// Where the log ends here, whether it counts or not.
    pub end: Lsn,
    /// What keeps the two logs apart and ends by itself only when somebody sees to it.
    pub problem: Option<String>,
    /// What this site decided lately and why, the oldest first.
    pub evidence: Vec<RoleEvidence>,
}

impl MirrorView {
    /// Of a volume that is not served at this site.
    pub(crate) const fn not_served((site, peer): (SiteId, SiteId), damage: String) -> Self {
        Self {
            site,
            peer,
            role: Role::Freeze { why: Why::Starting },
            serves: false,
            epoch: Epoch(0),
            record: None,
            is_link_up: false,
            end: Lsn::ZERO,
            problem: Some(damage),
            evidence: Vec::new(),
        }
    }
}

/// One decision of a site, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleEvidence {
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What was decided, and what was seen.
    pub text: String,
}
