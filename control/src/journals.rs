//! What the API writes down in the data directory.

use crate::audit::AuditLog;
use crate::kept::KeptAnswers;
use crate::refusals::Refusals;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The audit log, that of refused requests, and the answers that are kept.
#[derive(Debug)]
pub struct Journals {
    pub(crate) audit: Arc<AuditLog>,
    pub(crate) refusals: Refusals,
    pub(crate) answers: Arc<KeptAnswers>,
}

impl Journals {
    /// Opens them in a data directory, which must be there. One process at a time may.
    ///
    /// # Errors
    /// When one of them cannot be read or written.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let audit = folder.join("audit");
        Ok(Self {
            audit: Arc::new(AuditLog::open(&audit)?),
            refusals: Refusals::open(&audit.join("refused"))?,
            answers: KeptAnswers::open(folder)?,
        })
    }
}
