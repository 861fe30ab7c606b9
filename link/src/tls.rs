//! Who is on the other side: both show a certificate, in TLS 1.3, and both look at it.
//!
//! The other site's certificate is one that an authority of the mirror has signed **and** that bears the name `site-N.aljibe`, since a site
//! that holds a valid certificate must not pass for the other one; or it is, byte by byte, the one that was pinned, whatever it says. Sessions
//! are not resumed: each connection is looked at anew.

mod files;
mod verify;

pub use files::{TlsConfigError, TlsFiles, Trust};
pub(crate) use files::{TlsConfigs, load};

use units::SiteId;

/// The name that the certificate of a site bears.
#[must_use]
pub fn site_name(site: SiteId) -> String {
    format!("site-{site}.aljibe")
}
