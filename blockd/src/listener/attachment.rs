//! Who uses a volume: every client counts from the moment that it finds the volume which it enters until its connection is
//! gone. In between it is in the last steps of its handshake, or on its way to the shard, which knows nothing of it yet. Who
//! only asks what a volume is like does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The clients that are attached to a volume.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    /// How often all that there were have been expelled. Every attachment has it, too.
    expulsions: Arc<AtomicU64>,
}

/// A client's part in the count; dropped when its connection is gone.
#[derive(Debug, Default)]
pub struct Attachment {
    expulsions: Arc<AtomicU64>,
    /// How many there had been when it came.
    seen: u64,
}

impl Clients {
    pub(crate) fn attach(&self) -> Attachment {
        Attachment { expulsions: Arc::clone(&self.expulsions), seen: self.expulsions.load(Ordering::Acquire) }
    }

    /// How many are attached, those too that were expelled and are not gone. While nobody is let in, it only falls.
    pub(crate) fn count(&self) -> u64 {
        // One is this.
        (Arc::strong_count(&self.expulsions) - 1) as u64
    }

    /// Expels all who are attached: from now on the shard takes none of them. Those that it has taken before are to be
    /// cut off behind this.
    pub(crate) fn expel(&self) {
        self.expulsions.fetch_add(1, Ordering::AcqRel);
    }
}

impl Attachment {
    /// Whether the volume is not this client's any more.
    pub(crate) fn is_expelled(&self) -> bool {
        self.expulsions.load(Ordering::Acquire) != self.seen
    }
}
