//! What a site has durably promised. Its driver keeps it in a file of its own, replaced as a whole.

use crate::io::Seen;
use units::Epoch;

/// Counts the starts of a site: what an earlier life said of its log does not count after a later one was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Life(pub u64);

/// A site's durable word: it takes part in no epoch before this one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Promise {
    /// The committed record that was promised; none on a site that never knew one.
    pub seen: Option<Seen>,
    /// This start of the site.
    pub life: Life,
    /// Whether the log is known to have every operation that was acknowledged while the site was in sync.
    pub is_certain: bool,
}

impl Promise {
    /// The promised epoch; 0 before the first.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.seen.as_ref().map_or(Epoch(0), |seen| seen.record.epoch)
    }
}
