//! What the API writes down in the data directory.

use crate::audit::AuditLog;
use crate::kept::KeptAnswers;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The audit log, and the answers that are kept.
#[derive(Debug)]
pub struct Journals {
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) answers: Arc<KeptAnswers>,
}

impl Journals {
    /// Opens them in a data directory, which must be there. One process at a time may.
    ///
    /// # Errors
    /// When one of them cannot be read or written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self { audit: Arc::new(AuditLog::open(&folder.join("audit"))?), answers: KeptAnswers::open(folder)? })
    }
}
