//! How much was asked of each volume, kept for whoever counts it.

use super::index::{Index, io};
use super::rows::{self, Fields};
use crate::error::DiskFault;
use crate::store::{Durability, Store, StoreWrite};
use units::VolumeId;

/// What was asked of a volume and carried out, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RequestCounts {
    /// Requests that read.
    pub reads: u64,
    /// Requests that write, zero or trim.
    pub writes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were written.
    pub write_bytes: u64,
}

impl RequestCounts {
    /// Both together.
    #[must_use]
    pub const fn plus(self, more: Self) -> Self {
        Self {
            reads: self.reads.saturating_add(more.reads),
            writes: self.writes.saturating_add(more.writes),
            read_bytes: self.read_bytes.saturating_add(more.read_bytes),
            write_bytes: self.write_bytes.saturating_add(more.write_bytes),
        }
    }

    /// What came to `before` since then.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            reads: self.reads.saturating_sub(before.reads),
            writes: self.writes.saturating_sub(before.writes),
            read_bytes: self.read_bytes.saturating_sub(before.read_bytes),
            write_bytes: self.write_bytes.saturating_sub(before.write_bytes),
        }
    }

    /// Of each the larger.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            reads: self.reads.max(other.reads),
            writes: self.writes.max(other.writes),
            read_bytes: self.read_bytes.max(other.read_bytes),
            write_bytes: self.write_bytes.max(other.write_bytes),
        }
    }

    fn encode(self) -> Vec<u8> {
        [self.reads, self.writes, self.read_bytes, self.write_bytes].into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut fields = Fields(value);
        let (reads, writes) = (fields.u64()?, fields.u64()?);
        let (read_bytes, write_bytes) = (fields.u64()?, fields.u64()?);
        fields.0.is_empty().then_some(Self { reads, writes, read_bytes, write_bytes })
    }
}

impl<S: Store> Index<S> {
    /// What was noted last of each volume. Rows that say nothing are none.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn noted_requests(&self) -> Result<Vec<(VolumeId, RequestCounts)>, DiskFault> {
        let mut noted = Vec::new();
        let (start, end) = rows::REQUEST_KEYS;
        let mut visit = |key: &[u8], value: &[u8]| {
            noted.extend(rows::decode_request_key(key).zip(RequestCounts::decode(value)));
        };
        self.store.each(start, end, &mut visit).map_err(io)?;
        Ok(noted)
    }

    /// Notes what was asked of volumes. A power cut may take that, and a rebuild does; the end of the process does not.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed.
    pub fn note_requests(&mut self, all: &[(VolumeId, RequestCounts)]) -> Result<(), DiskFault> {
        // One that was forgotten meanwhile must not come back.
        let put = |(volume, counts): &(VolumeId, RequestCounts)| {
            let has_meter = self.meters.contains_key(volume);
            has_meter.then(|| StoreWrite::Put(rows::request_key(*volume), counts.encode()))
        };
        let writes: Vec<StoreWrite> = all.iter().filter_map(put).collect();
        if writes.is_empty() { Ok(()) } else { self.commit(writes, Durability::Lazy) }
    }
}
