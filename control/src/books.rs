//! The books of the ledger, as billing needs them: what was read of each tenant's registers, and what it was charged.

use crate::error::ServiceError;
use crate::service::Answer;
use metering::Reading;
use metering::ledger::{AccountEntry, Books as WhichBooks, Date, HeadPlace, Kind, PublicKey};
use std::fmt;
use std::ops::Range;
use tokio::sync::{Mutex, mpsc};
use units::TenantId;

/// An entry that is to be appended to a tenant's account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccountEntry {
    /// Whose account.
    pub tenant: TenantId,
    /// What it is: a kind of the account's book.
    pub kind: Kind,
    /// When, milliseconds since 1970.
    pub time_ms: u64,
    /// JSON on one line, of at most [`metering::ledger::PAYLOAD_BYTES_MAX`].
    pub payload: String,
}

/// What comes piece by piece. An error ends it.
pub type Pieces = mpsc::Receiver<Result<Vec<u8>, ServiceError>>;

/// The ledger's books. The program implements them over the ledger's volume.
pub trait Books: Send + Sync + 'static {
    /// Held through a change of accounts, from the look at them to the end of the append: there is one at a time.
    fn changes(&self) -> &Mutex<()>;

    /// Sees to it that what is due is read: right after a start, what was used before it may not be.
    fn read_due(&self) -> Answer<'_, ()>;

    /// What was read, as the ledger has it, of every resource that was the tenant's at some time of `span_ms`, wall clock: of each
    /// from the last reading before it to the first one behind it. Those between that no bill needs may be left out: that say
    /// nothing but how use went on within a day (of the last one, within an hour), and are beside none of `borders_ms`, between
    /// which prices differ. Fails with `readings_gone` of a time of which they are kept no more.
    fn readings(&self, tenant: TenantId, span_ms: Range<u64>, borders_ms: Vec<u64>) -> Answer<'_, Vec<Reading>>;

    /// What the registers of the tenant's resources say now, as readings that the ledger does not have yet, and the last one of each
    /// that it has: read behind [`Self::readings`], both together have no gap though readings were taken meanwhile.
    fn readings_now(&self, tenant: TenantId) -> Answer<'_, Vec<Reading>>;

    /// A tenant's account from its first entry on.
    fn account(&self, tenant: TenantId) -> Answer<'_, Vec<AccountEntry>>;

    /// Appends entries to accounts, all or none; they are durable when this is answered.
    fn append(&self, entries: Vec<NewAccountEntry>) -> Answer<'_, ()>;

    /// A bundle of a tenant's books, of the heads of days from the first to the last. Fails with `not_signed` while there is none.
    fn export(&self, tenant: TenantId, books: WhichBooks, days: (Date, Date)) -> Answer<'_, Pieces>;

    /// All heads, the oldest first.
    fn heads(&self) -> Answer<'_, Vec<HeadPlace>>;

    /// Signs what there is now, as a head of today.
    fn sign(&self) -> Answer<'_, HeadPlace>;

    /// Who signs the next head.
    fn key(&self) -> Answer<'_, PublicKey>;
}

impl fmt::Debug for dyn Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Books")
    }
}
