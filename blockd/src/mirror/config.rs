//! What a site of a mirror is told when it starts.

use link::TlsFiles;
use std::net::SocketAddr;
use std::path::PathBuf;
use units::SiteId;
use witness::WitnessAddress;

/// What a site of a mirror is told when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorConfig {
    /// This site: 1 to [`SITE_MAX`].
    pub site: SiteId,
    /// The other one.
    pub peer: SiteId,
    /// Where the other site may connect to; none where it cannot.
    pub listen: Option<SocketAddr>,
    /// Where the other site listens, `host:port`; none where it cannot be reached.
    pub peer_address: Option<String>,
    /// Certificates of the link.
    pub tls: TlsFiles,
    /// Who decides which site is primary.
    pub witness: WitnessAddress,
    /// Whether what clients ask here is passed on while the other site leads, and what is passed on from there is taken.
    pub passes_on: bool,
    /// The folder of this site's promises, which it alone uses.
    pub promises: PathBuf,
}

/// The highest number of a site: the ids of what is made at a site bear it.
pub const SITE_MAX: u8 = 3;
