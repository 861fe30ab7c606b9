//! What a site's part in a mirror needs of its host.

mod config;
mod feeder;
mod host;
mod port;
mod promises;
mod routes;
mod view;

pub use config::{MirrorConfig, SITE_MAX};
pub use feeder::ReadBatch;
pub use host::MirrorHost;
pub(crate) use host::{Hosted, Wanted};
pub use port::MirrorPort;
pub(crate) use port::{Sent, Wish};
pub use promises::{KeepError, Promises, boot_id};
pub use view::{MirrorView, RoleEvidence};
