//! What is promised of families at rest: who is there, what is kept for them and nothing else, and space that comes back.

use super::{SnapshotState, VolumeState, World};
use crate::store::SimStore;
use crate::trace::Finding;
use crate::world::ending::{EMPTY_SEGMENTS_MAX, RELEASE_TIME_MAX};
use crate::world::{Checked, TICK};
use std::collections::{BTreeMap, BTreeSet};
use units::{SegmentId, VolumeId};
use volume::error::DiskFault;
use volume::io::{LoadedPage, PageIndex};
use volume::map::{Found, Location, PAGE_BLOCKS, Page};
use volume::pool::{Index, Parent};

/// The generation of a volume as it is now.
const NOW: u64 = u64::MAX;

impl World {
    /// P5. What is deleted is gone within a minute: no record, no boundary, no segment of it is left.
    pub(in crate::world) fn let_chores_end(&mut self) -> Checked {
        let until = self.now + RELEASE_TIME_MAX;
        while self.now < until && !(self.is_catalogue_at_rest() && self.has_no_chores()) {
            self.let_pass(TICK)?;
        }
        if self.is_explained_by_lies() {
            return Ok(());
        }
        if self.is_catalogue_at_rest() && self.has_no_chores() {
            return self.check_families();
        }
        if self.injected.full_reserve > 0 {
            // What is thrown away of a ghost needs a slot of those that are kept back for trims.
            return Ok(());
        }
        let (chores, change) = (self.chores(), &self.families.change);
        Err(Finding(format!("P5: after a minute there is still to be done: {chores:?}, {change:?}")))
    }

    /// Bytes that are not what was written may keep anything.
    fn is_explained_by_lies(&self) -> bool {
        self.injected.lies + self.injected.map_pages > 0
    }

    /// The index knows the heirs and the boundaries that the records tell, and holds nothing of other volumes.
    fn check_families(&self) -> Checked {
        let Some(index) = &self.index else { return Ok(()) };
        let known: BTreeMap<VolumeId, Parent> = index.families().collect();
        if known != self.parents() {
            return Err(Finding(format!("the index knows the heirs {known:?}, and the records {:?}", self.parents())));
        }
        let snapshots = self.families.snapshots.values().filter(|one| one.state != SnapshotState::Deleting);
        let recorded: BTreeSet<Parent> = snapshots.map(|one| one.parent).collect();
        let volumes = self.sites.iter().filter(|site| site.has_record()).map(|site| site.id);
        let volumes: BTreeSet<VolumeId> = volumes.collect();
        let of_rows = volumes.iter().flat_map(|volume| {
            let rows = index.boundaries(*volume);
            rows.map(|row| Parent { volume: *volume, generation: row.boundary.generation })
        });
        let kept: BTreeSet<Parent> = of_rows.collect();
        if kept != recorded {
            return Err(Finding(format!("the index keeps {kept:?}, and the snapshots are of {recorded:?}")));
        }
        let strange = index.volumes().into_iter().find(|volume| !volumes.contains(volume));
        match strange {
            Some(volume) => Err(Finding(format!("P5: volume {volume} is deleted, and the index holds some of it"))),
            None => Ok(()),
        }
    }

    /// P5. Blocks that a segment has live are those that some volume or snapshot shows: no more, and no less. Counted by
    /// looking at every page of every one.
    pub(in crate::world) fn check_live_blocks(&self) -> Checked {
        let Some(index) = self.index.as_ref().filter(|_| !self.is_explained_by_lies()) else { return Ok(()) };
        // What a deletion that has not ended was the only one to show is on its way out.
        if index.leaving_boundaries().next().is_some() {
            return Ok(());
        }
        let mut shown: BTreeMap<SegmentId, BTreeSet<u16>> = BTreeMap::new();
        let mut volumes: BTreeSet<VolumeId> = index.volumes().into_iter().collect();
        volumes.extend(index.families().map(|(heir, _)| heir));
        for volume in &volumes {
            let ends = index.boundaries(*volume).map(|row| row.boundary.generation);
            for generation in ends.chain([NOW]) {
                let is_ready = index.inheritance(*volume) == volume::pool::Inheritance::Ready;
                let looked = if is_ready { look_at(index, (*volume, generation), &mut shown) } else { Ok(()) };
                looked.map_err(|fault| Finding(format!("generation {generation} of volume {volume}: {fault}")))?;
            }
        }
        for row in volumes.iter().flat_map(|volume| index.segments(*volume)) {
            let counted = shown.get(&row.segment).map_or(0, BTreeSet::len) as u64;
            let kept = index.live_blocks(row.segment);
            if kept != Some(counted) {
                return Err(Finding(format!("P5: {counted} blocks of {row:?} are shown, and {kept:?} are live")));
            }
        }
        Ok(())
    }

    /// P5. A volume without a name holds ends of its generations, and nothing beside.
    pub(in crate::world) fn check_ghosts(&self) -> Checked {
        let Some(index) = self.index.as_ref().filter(|_| !self.is_explained_by_lies()) else { return Ok(()) };
        let ghosts = self.sites.iter().filter(|site| site.state == VolumeState::Ghost && site.volume.is_some());
        for ghost in ghosts {
            let mapped = index.mapped_blocks(ghost.id);
            if mapped > 0 && (ghost.is_emptied || self.injected.full_reserve == 0) {
                return Err(Finding(format!("P5: volume {} has no name, and holds {mapped} blocks", ghost.id)));
            }
        }
        Ok(())
    }

    /// P5. Segments that nothing shows are given back within a minute. What is kept all the same: those with trims, which
    /// a rebuild wants, those that copies borrow from, and the newest, which tell where the log goes on.
    pub(in crate::world) fn let_segments_go(&mut self) -> Checked {
        let until = self.now + RELEASE_TIME_MAX;
        while self.now < until && self.unneeded_segment().is_some() {
            self.let_pass(TICK)?;
        }
        match self.unneeded_segment().filter(|_| !self.is_explained_by_lies()) {
            Some(row) => Err(Finding(format!("P5: after a minute nothing of {row:?} is shown, and it is there"))),
            None => Ok(()),
        }
    }

    fn unneeded_segment(&self) -> Option<volume::pool::SegmentRow> {
        let index = self.index.as_ref()?;
        let open = self.sites.iter().filter(|site| site.volume.is_some());
        let mut rows = open.flat_map(|site| {
            let rows = index.segments(site.id);
            let older = rows.len().saturating_sub(EMPTY_SEGMENTS_MAX);
            rows.into_iter().take(older)
        });
        let is_kept = |row: &volume::pool::SegmentRow| row.has_holes || index.is_lent(row.segment);
        rows.find(|row| !is_kept(row) && index.live_blocks(row.segment) == Some(0))
    }

    /// P5. Deletes all snapshots and clones: of the volumes that were rolled back nothing is left, and of the others what
    /// they hold themselves.
    pub(in crate::world) fn take_families_apart(&mut self) -> Checked {
        if self.is_explained_by_lies() {
            return Ok(());
        }
        while let Some(next) = self.next_to_go() {
            match next {
                Leaving::Snapshot(id) => self.delete_snapshot(id)?,
                Leaving::Volume(at) => self.delete_volume(at),
            }
            if self.families.change.is_none() {
                return Err(Finding("a deletion is refused, and nothing is open".to_owned()));
            }
            while self.families.change.is_some() && self.advance()? {}
        }
        self.let_chores_end()?;
        self.check_live_blocks()
    }

    fn next_to_go(&mut self) -> Option<Leaving> {
        let is_clone = |at: &usize| self.sites[*at].parent.is_some();
        let volumes = self.served_heads().into_iter().filter(is_clone).map(Leaving::Volume);
        let named = self.families.snapshots.iter().filter(|(_, one)| self.is_named(one));
        let line_of = |volume| self.site_of(volume).map(|at| self.sites[at].line);
        let is_free = |parent: Parent| {
            let mut others = self.children_of(parent);
            others.all(|child| Some(child.line) == line_of(parent.volume))
        };
        let free = named.filter(|(_, one)| is_free(one.parent)).map(|(id, _)| Leaving::Snapshot(*id));
        let all: Vec<Leaving> = volumes.chain(free).collect();
        (!all.is_empty()).then(|| *self.random.pick(&all))
    }
}

/// What is deleted next.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    Snapshot(VolumeId),
    Volume(usize),
}

/// Adds the places of all blocks that a volume shows, or showed at the end of a generation.
fn look_at(
    index: &Index<SimStore>,
    (volume, generation): (VolumeId, u64),
    shown: &mut BTreeMap<SegmentId, BTreeSet<u16>>,
) -> Result<(), DiskFault> {
    let mut at = Some(PageIndex(0));
    while let Some(page) = at {
        at = match index.load_page_at(volume, page, generation)? {
            LoadedPage::Absent { next } => next,
            LoadedPage::Present(encoded) => {
                let content = Page::decode(&encoded).map_err(|_| DiskFault::Io)?;
                content.visit(0, PAGE_BLOCKS, |_, len, found| {
                    let Found::Data { location, .. } = found else { return };
                    for Location { segment, block } in (0..len).map(|by| location.plus(by)) {
                        shown.entry(segment).or_default().insert(block);
                    }
                });
                page.0.checked_add(1).map(PageIndex)
            }
        };
    }
    Ok(())
}
