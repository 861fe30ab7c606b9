//! What a site's part in a mirror needs of its host. No volume is mirrored yet (docs/mirror.md).

mod promises;

pub use promises::{KeepError, Promises, boot_id};
