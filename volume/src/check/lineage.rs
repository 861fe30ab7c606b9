//! What volumes inherit: every heir's boundary must be there, and what it shows be readable.

use super::{CheckReport, ProblemKind};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::Page;
use crate::pool::{Index, Inheritance};
use crate::store::Store;
use std::collections::BTreeMap;
use units::VolumeId;

/// Every heir has what it inherits, or waits for its parent to write it back.
pub(super) fn check<S: Store>(index: &Index<S>, report: &mut CheckReport) {
    for (heir, parent) in index.families() {
        if !index.boundaries(parent.volume).any(|row| row.boundary.generation == parent.generation) {
            let detail = format!("it inherits generation {} of volume {}", parent.generation, parent.volume);
            let hint = "run `aljibe pool rebuild`, and restore the volume from a copy if that does not help";
            report.add(ProblemKind::Lineage, Some(heir), format!("{detail}, of which no boundary is left: {hint}"));
        }
    }
}

/// Whether the stored map of a volume can be told: an heir's is laid over what its parent has still to write back.
pub(super) fn has_map<S: Store>(index: &Index<S>, volume: VolumeId) -> bool {
    index.inheritance(volume) == Inheritance::Ready
}

/// Every page that a volume inherits.
pub(super) fn pages<S: Store>(index: &Index<S>, volume: VolumeId, report: &mut CheckReport) -> BTreeMap<u64, Page> {
    let mut pages = BTreeMap::new();
    let mut from = PageIndex(0);
    while has_map(index, volume)
        && let Some(page) = told(index.next_inherited(volume, from), (volume, from), report)
    {
        pages.extend(self::page(index, volume, page, report).map(|content| (page.0, content)));
        from = PageIndex(page.0.saturating_add(1));
    }
    pages
}

/// What a volume inherits of a page.
pub(super) fn page<S: Store>(
    index: &Index<S>,
    volume: VolumeId,
    page: PageIndex,
    report: &mut CheckReport,
) -> Option<Page> {
    told(index.inherited_page(volume, page), (volume, page), report)
}

fn told<T>(
    read: Result<Option<T>, DiskFault>,
    (volume, page): (VolumeId, PageIndex),
    report: &mut CheckReport,
) -> Option<T> {
    read.unwrap_or_else(|fault| {
        let detail = format!("what it inherits from page {} on cannot be read ({fault})", page.0);
        report.add(ProblemKind::Lineage, Some(volume), format!("{detail}: run `aljibe pool rebuild`"));
        None
    })
}
