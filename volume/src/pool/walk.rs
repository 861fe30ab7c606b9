//! Walking the versions of pages that only certain boundaries need: what their deletion gives back, and the deletion itself.
//!
//! Boundaries that follow one another are thought away together. A version is then needed by nobody when it was born after
//! the boundary below them, is hidden by a later one, and that one was born before the boundary above them ends. So both
//! its birth and the next one of its page are in known lists, of which the walk takes turns: when either has ended, every
//! such version has been met. A walk thus costs twice the shorter list, whatever the order in which boundaries go.
//!
//! Between two boundaries that follow one another a page has one version at most.

use super::LiveChange;
use super::index::{Index, io};
use super::rows;
use super::versions::{Version, count_change};
use crate::controls::{Safeguard, is_missing};
use crate::error::DiskFault;
use crate::io::PageIndex;
use crate::map::Page;
use crate::store::Store;
use std::collections::BTreeSet;
use units::VolumeId;

/// Where a walk is.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    pub(super) volume: VolumeId,
    /// The first and the last of boundaries that follow one another; the last of these is walked now.
    runs: Vec<(u64, u64)>,
    /// Where the births that may be of unneeded versions go on, and those that may hide them.
    hidden_from: Vec<u8>,
    hiding_from: Vec<u8>,
    /// Which of the two comes next.
    is_hiding_next: bool,
    /// The page that is being looked at, between two of its versions.
    open: Option<OpenPage>,
    /// Births and versions looked at.
    visits: u64,
}

/// A page of which some versions have been looked at.
#[derive(Debug, Clone)]
struct OpenPage {
    page: PageIndex,
    /// The newest one that stays and lies above `next`.
    above: Version,
    next: Version,
}

/// What a run of boundaries is between.
#[derive(Debug, Clone, Copy)]
struct Span {
    /// The boundary below the run, when there is one.
    below: Option<u64>,
    first: u64,
    last: u64,
    /// The boundary above the run; beyond all generations where that is the volume as it is now.
    above: u64,
}

impl Span {
    fn is_above_its_floor(&self, generation: u64) -> bool {
        self.below.is_none_or(|below| generation > below) || is_missing(Safeguard::OtherBoundaries)
    }

    /// The first and the last generation of the hidden, or of those that hide them.
    fn births(&self, is_hiding: bool) -> Option<(u64, u64)> {
        if is_hiding {
            Some((self.first.checked_add(1)?, self.above))
        } else {
            Some((self.below.map_or(Some(0), |below| below.checked_add(1))?, self.last))
        }
    }
}

/// A version that nobody needs, and what is next to it.
#[derive(Debug)]
pub(super) struct Unneeded<'a> {
    pub(super) version: &'a Version,
    pub(super) content: &'a Page,
    /// The next older one, or what the volume inherits of the page.
    pub(super) below: Option<&'a Page>,
    /// The one that hides it, which stays.
    pub(super) above: &'a Version,
    pub(super) above_content: &'a Page,
}

impl Unneeded<'_> {
    /// Adds to `live` what segments lose with it.
    pub(super) fn count(&self, live: &mut LiveChange) {
        // Whoever inherits from this version would keep its boundary; so nobody but the next version is above it.
        count_change((Some(self.content), None), self.below, &[self.above_content], live);
    }
}

impl Walk {
    pub(super) const fn new(volume: VolumeId, runs: Vec<(u64, u64)>) -> Self {
        Self {
            volume,
            runs,
            hidden_from: Vec::new(),
            hiding_from: Vec::new(),
            is_hiding_next: false,
            open: None,
            visits: 0,
        }
    }

    pub(super) const fn visits(&self) -> u64 {
        self.visits
    }

    pub(super) const fn is_between_pages(&self) -> bool {
        self.open.is_none()
    }

    fn end_run(&mut self) {
        self.runs.pop();
        self.hidden_from.clear();
        self.hiding_from.clear();
        self.is_hiding_next = false;
    }
}

impl<S: Store> Index<S> {
    /// The boundaries of `generations`, those that follow one another together, the first ones last.
    pub(super) fn runs_of(&self, volume: VolumeId, generations: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut is_going_on = false;
        for row in self.boundaries(volume) {
            let generation = row.boundary.generation;
            let is_in = generations.contains(&generation);
            match runs.last_mut() {
                Some((_, last)) if is_in && is_going_on => *last = generation,
                _ if is_in => runs.push((generation, generation)),
                _ => {}
            }
            is_going_on = is_in;
        }
        runs.reverse();
        runs
    }

    /// Takes one step: a birth is looked up, or a version looked at. Returns whether the walk has ended. `is_wanted` tells
    /// whether to look at a page, and `visit` is told of each version that nobody needs, those of a page from the newest on.
    pub(super) fn walk(
        &self,
        walk: &mut Walk,
        is_wanted: impl FnOnce(PageIndex) -> bool,
        visit: impl FnOnce(&Unneeded<'_>),
    ) -> Result<bool, DiskFault> {
        let Some((first, last)) = walk.runs.last().copied() else { return Ok(true) };
        walk.visits += 1;
        // Looked up anew each time: snapshots may have been taken since, and then more is needed.
        let span = self.span(walk.volume, first, last);
        if let Some(open) = walk.open.take() {
            walk.open = self.look_at(walk.volume, &span, open, visit)?;
        } else {
            match self.next_birth(walk, &span)? {
                None => walk.end_run(),
                Some(page) if is_wanted(page) => walk.open = self.open_page(walk.volume, &span, page)?,
                Some(_) => {}
            }
        }
        Ok(walk.runs.is_empty())
    }

    fn span(&self, volume: VolumeId, first: u64, last: u64) -> Span {
        let generation = |row: (&(VolumeId, u64), _)| row.0.1;
        let below = self.boundaries.range((volume, 0)..(volume, first)).next_back().map(generation);
        let above = last
            .checked_add(1)
            .and_then(|after| self.boundaries.range((volume, after)..=(volume, u64::MAX)).next().map(generation));
        Span { below, first, last, above: above.unwrap_or(u64::MAX) }
    }

    /// The page of the next birth, of the two lists in turn; `None` when the one whose turn it is has ended.
    fn next_birth(&self, walk: &mut Walk, span: &Span) -> Result<Option<PageIndex>, DiskFault> {
        let is_hiding = walk.is_hiding_next;
        let Some((from, to)) = span.births(is_hiding).filter(|(from, to)| from <= to) else { return Ok(None) };
        let at = if is_hiding { &mut walk.hiding_from } else { &mut walk.hidden_from };
        let start = rows::birth_key(walk.volume, from, PageIndex(0));
        if *at < start {
            *at = start;
        }
        let found = self.store.seek(at, &rows::births_end(walk.volume, to)).map_err(io)?;
        let Some((key, _)) = found else { return Ok(None) };
        let page = rows::page_of_birth(&key).ok_or(DiskFault::Io)?;
        *at = key;
        at.push(0);
        walk.is_hiding_next = !is_hiding;
        Ok(Some(page))
    }

    fn open_page(&self, volume: VolumeId, span: &Span, page: PageIndex) -> Result<Option<OpenPage>, DiskFault> {
        let Some(above) = self.version_at(volume, page, span.above)?.filter(|above| above.generation > span.first)
        else {
            return Ok(None);
        };
        let next = self.version_below(volume, page, above.generation)?;
        let next = next.filter(|next| span.is_above_its_floor(next.generation));
        Ok(next.map(|next| OpenPage { page, above, next }))
    }

    /// Looks at the next version of a page; returns the page while there are more.
    fn look_at(
        &self,
        volume: VolumeId,
        span: &Span,
        open: OpenPage,
        visit: impl FnOnce(&Unneeded<'_>),
    ) -> Result<Option<OpenPage>, DiskFault> {
        let OpenPage { page, mut above, next: version } = open;
        let below = self.version_below(volume, page, version.generation)?;
        if version.generation > span.last {
            above = version;
        } else {
            let below_content = match &below {
                Some(below) => Some(below.content()?),
                None => self.inherited_page(volume, page)?,
            };
            visit(&Unneeded {
                version: &version,
                content: &version.content()?,
                below: below_content.as_ref(),
                above: &above,
                above_content: &above.content()?,
            });
        }
        let next = below.filter(|below| span.is_above_its_floor(below.generation));
        Ok(next.map(|next| OpenPage { page, above, next }))
    }
}

/// A search, in steps, for what the deletion of some boundaries of a volume gives back, to the block: what is held by
/// several of them and by nobody else is counted, once.
///
/// While the volume is written to, or its boundaries come and go, the figure is of no single moment. Boundaries whose
/// deletion is under way count as being there.
#[derive(Debug)]
pub struct Reclaim {
    walk: Walk,
    /// Pages that were met in the present run: each is met by both births.
    seen: BTreeSet<PageIndex>,
    blocks: u64,
}

impl Reclaim {
    /// Blocks that have been found.
    #[must_use]
    pub const fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Births and versions that were looked at.
    #[must_use]
    pub const fn visits(&self) -> u64 {
        self.walk.visits()
    }
}

impl<S: Store> Index<S> {
    /// Begins a search for what the deletion of the boundaries of `generations` gives back; those that something hangs on
    /// stay, and so does what they hold.
    #[must_use]
    pub fn reclaim(&self, volume: VolumeId, generations: &BTreeSet<u64>) -> Reclaim {
        let may_go = generations.iter().copied().filter(|generation| !self.is_pinned(volume, *generation));
        let runs = self.runs_of(volume, &may_go.collect());
        Reclaim { walk: Walk::new(volume, runs), seen: BTreeSet::new(), blocks: 0 }
    }

    /// Begins a search for what a boundary alone holds: nothing while something hangs on it.
    #[must_use]
    pub fn unique(&self, volume: VolumeId, generation: u64) -> Reclaim {
        self.reclaim(volume, &BTreeSet::from([generation]))
    }

    /// Goes on with a search, by so many steps of a few dozen microseconds each; returns whether it has ended.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or holds a page that is none.
    pub fn reclaim_some(&self, search: &mut Reclaim, steps_max: usize) -> Result<bool, DiskFault> {
        let slot_blocks = self.superblock().geometry.slot_blocks();
        for _ in 0..steps_max {
            let Reclaim { walk, seen, blocks } = search;
            let runs = walk.runs.len();
            let is_over = self.walk(
                walk,
                |page| seen.insert(page),
                |unneeded| {
                    let mut live = LiveChange::none(slot_blocks);
                    unneeded.count(&mut live);
                    *blocks += live.totals().map(|(_, by)| by.unsigned_abs()).sum::<u64>();
                },
            )?;
            if is_over {
                return Ok(true);
            }
            if walk.runs.len() < runs {
                // A page may have versions around several runs.
                seen.clear();
            }
        }
        Ok(false)
    }
}
