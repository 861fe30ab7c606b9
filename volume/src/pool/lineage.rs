//! Who inherits from whom. A clone shows its parent as a generation of it ended, and its own changes over that; a view of a
//! snapshot is a clone that never changes.
//!
//! Which of the layers above a clone has a page is told by a set of pages for each layer ([`Presence`]), so that a look-up
//! costs a test of a bit a layer and one seek, at any depth. A set is made of the keys that tell which generations a page
//! has versions of, once the parent's stored map is complete to there; it stays right as long as the boundary does, since
//! the versions that a boundary shows are kept.
//!
//! While an heir lives its parent's boundary lives: a block of the parent's segments that an heir names is named by a
//! version of the parent too. So an heir's versions are counted over what they inherit, and add nothing to the counts of
//! segments that are not its own.

use super::index::{Index, io};
use super::presence::Presence;
use super::rows;
use super::versions::Version;
use crate::error::DiskFault;
use crate::io::{LoadedPage, PageIndex};
use crate::map::Page;
use crate::store::{Durability, Store, StoreWrite};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter;
use std::sync::Arc;
use units::{Lsn, VolumeId};

/// What an heir inherits: a volume as one of its generations ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Parent {
    /// The volume. Its id is below that of the heir.
    pub volume: VolumeId,
    /// The generation, whose boundary lives.
    pub generation: u64,
}

/// Whether the store has what a volume inherits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inheritance {
    /// All of it; or it inherits nothing.
    Ready,
    /// Not yet: a parent has still to write back what it had at the boundary.
    Waits,
    /// A boundary is not there: what was inherited cannot be told any more.
    Lost,
}

/// Why a volume cannot be the heir of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineageError {
    /// The heir's id is not above the parent's, or the heir has another parent, or changes of its own already.
    Order,
    /// The parent has no such boundary.
    NoBoundary,
    /// The store failed.
    Store(DiskFault),
}

impl fmt::Display for LineageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Order => f.write_str("a volume inherits from an older one, and from its beginning"),
            Self::NoBoundary => f.write_str("there is no such snapshot in the index"),
            Self::Store(fault) => write!(f, "{fault}"),
        }
    }
}

impl std::error::Error for LineageError {}

/// The heirs that the index knows.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    parents: BTreeMap<VolumeId, Parent>,
    heirs: BTreeSet<(Parent, VolumeId)>,
    /// Made when they are first asked for.
    presence: RefCell<BTreeMap<Parent, Arc<Presence>>>,
}

impl Lineage {
    pub(super) fn new(parents: BTreeMap<VolumeId, Parent>) -> Self {
        let heirs = parents.iter().map(|(heir, parent)| (*parent, *heir)).collect();
        Self { parents, heirs, presence: RefCell::default() }
    }

    fn insert(&mut self, heir: VolumeId, parent: Parent) {
        self.parents.insert(heir, parent);
        self.heirs.insert((parent, heir));
    }

    pub(super) fn remove(&mut self, heir: VolumeId) {
        let Some(parent) = self.parents.remove(&heir) else { return };
        self.heirs.remove(&(parent, heir));
        if self.heirs_of(parent).next().is_none() {
            self.presence.get_mut().remove(&parent);
        }
    }

    fn heirs_of(&self, parent: Parent) -> impl Iterator<Item = VolumeId> {
        self.heirs.range((parent, VolumeId(0))..=(parent, VolumeId(u64::MAX))).map(|(_, heir)| *heir)
    }

    /// What a volume inherits, nearest first. Ends, since ids fall from heir to parent.
    fn layers(&self, volume: VolumeId) -> impl Iterator<Item = Parent> {
        iter::successors(self.parents.get(&volume), |layer| self.parents.get(&layer.volume)).copied()
    }
}

impl<S: Store> Index<S> {
    /// Notes that `heir`, which has nothing of its own yet, inherits from `parent`.
    ///
    /// # Errors
    /// [`LineageError`]; nothing is noted.
    pub fn note_parent(&mut self, heir: VolumeId, parent: Parent) -> Result<(), LineageError> {
        if self.parent(heir) == Some(parent) {
            return Ok(());
        }
        let is_new = self.parent(heir).is_none() && self.volume_row(heir).is_none();
        if heir <= parent.volume || !is_new {
            return Err(LineageError::Order);
        }
        let boundary = self.boundaries.get(&(parent.volume, parent.generation));
        if boundary.is_none_or(|row| row.is_leaving) || self.is_being_erased(parent.volume) {
            return Err(LineageError::NoBoundary);
        }
        let row = StoreWrite::Put(rows::parent_key(heir), rows::encode_parent(parent));
        self.commit(vec![row], Durability::Lazy).map_err(LineageError::Store)?;
        self.lineage.insert(heir, parent);
        Ok(())
    }

    /// Takes what the catalogue says at a start for the truth: these are all heirs there are, but for one with changes or
    /// heirs of its own, whose record cannot be read. Without what that inherits its heirs would show holes. Boundaries may be
    /// told later, by recovery. Returns those that must not be served: one whose id is not above its parent's, which no catalogue says,
    /// and one whose stored map was made without what it inherits, by a rebuild that did not know of it.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed: nothing is changed.
    pub fn note_families(&mut self, parents: &BTreeMap<VolumeId, Parent>) -> Result<Vec<VolumeId>, DiskFault> {
        let is_sound = |heir: &VolumeId, parent: &Parent| {
            *heir > parent.volume && (self.volume_row(*heir).is_none() || self.parent(*heir) == Some(*parent))
        };
        let (sound, unsound): (BTreeMap<_, _>, BTreeMap<_, _>) =
            parents.iter().partition(|(heir, parent)| is_sound(heir, parent));
        let unsound = unsound.into_keys().copied().collect();
        let kept = self.families().filter(|(heir, _)| !parents.contains_key(heir) && self.is_rooted(*heir));
        let sound = sound.into_iter().map(|(heir, parent)| (*heir, *parent));
        let parents: BTreeMap<VolumeId, Parent> = kept.chain(sound).collect();
        if parents == self.lineage.parents {
            return Ok(unsound);
        }
        let gone = self.lineage.parents.keys().filter(|heir| !parents.contains_key(heir));
        let gone = gone.map(|heir| StoreWrite::Delete(rows::parent_key(*heir)));
        let rows = parents.iter();
        let rows = rows.map(|(heir, parent)| StoreWrite::Put(rows::parent_key(*heir), rows::encode_parent(*parent)));
        let writes = gone.chain(rows).collect();
        self.commit(writes, Durability::Lazy)?;
        self.lineage = Lineage::new(parents);
        Ok(unsound)
    }

    /// Whether something hangs on what an heir inherits: it was changed, or others inherit from it.
    fn is_rooted(&self, heir: VolumeId) -> bool {
        self.volume_row(heir).is_some() || self.has_heirs(heir)
    }

    /// Forgets that a volume inherits: a view that is closed, which has nothing of its own.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or the volume has changes of its own: it inherits on.
    pub fn forget_parent(&mut self, heir: VolumeId) -> Result<(), DiskFault> {
        if self.parent(heir).is_none() {
            return Ok(());
        }
        if self.volume_row(heir).is_some() {
            return Err(DiskFault::Io);
        }
        self.commit(vec![StoreWrite::Delete(rows::parent_key(heir))], Durability::Lazy)?;
        self.lineage.remove(heir);
        Ok(())
    }

    /// What a volume inherits, if anything.
    #[must_use]
    pub fn parent(&self, volume: VolumeId) -> Option<Parent> {
        self.lineage.parents.get(&volume).copied()
    }

    /// Every heir and what it inherits.
    pub fn families(&self) -> impl Iterator<Item = (VolumeId, Parent)> {
        self.lineage.parents.iter().map(|(heir, parent)| (*heir, *parent))
    }

    /// Who inherits from the end of a generation: while there is anyone, its boundary must stay.
    pub fn heirs(&self, parent: Parent) -> impl Iterator<Item = VolumeId> {
        self.lineage.heirs_of(parent)
    }

    /// Whether anyone inherits from any generation of `volume`.
    #[must_use]
    pub fn has_heirs(&self, volume: VolumeId) -> bool {
        let of = |generation| (Parent { volume, generation }, VolumeId(0));
        let first = self.lineage.heirs.range(of(0)..).next();
        first.is_some_and(|(parent, _)| parent.volume == volume)
    }

    /// Whether the store has what `volume` inherits.
    #[must_use]
    pub fn inheritance(&self, volume: VolumeId) -> Inheritance {
        let each = self.lineage.layers(volume).map(|layer| self.layer_state(layer));
        each.max_by_key(|state| match state {
            Inheritance::Ready => 0,
            Inheritance::Waits => 1,
            Inheritance::Lost => 2,
        })
        .unwrap_or(Inheritance::Ready)
    }

    /// Whether `volume` inherits from `ancestor`, at any distance.
    #[must_use]
    pub fn is_descendant(&self, volume: VolumeId, ancestor: VolumeId) -> bool {
        self.lineage.layers(volume).any(|layer| layer.volume == ancestor)
    }

    fn layer_state(&self, layer: Parent) -> Inheritance {
        let Some(row) = self.boundaries.get(&(layer.volume, layer.generation)) else { return Inheritance::Lost };
        let folded_to = self.volume_row(layer.volume).map_or(Lsn::ZERO, |row| row.folded_to);
        if folded_to >= row.boundary.lsn { Inheritance::Ready } else { Inheritance::Waits }
    }

    /// Blocks that a volume without changes of its own has, by what it inherits.
    pub(super) fn inherited_mapped(&self, volume: VolumeId) -> u64 {
        let Some(parent) = self.parent(volume) else { return 0 };
        if self.volume_row(parent.volume).is_none() {
            // The parent has no changes of its own: it shows what it inherits.
            return self.inherited_mapped(parent.volume);
        }
        self.boundaries.get(&(parent.volume, parent.generation)).map_or(0, |row| row.mapped)
    }

    /// Blocks that the stored map of a volume has, own and inherited.
    #[must_use]
    pub fn mapped_blocks(&self, volume: VolumeId) -> u64 {
        self.volume_row(volume).map_or_else(|| self.inherited_mapped(volume), |row| row.mapped)
    }

    /// The version of a page that `volume` inherits: what it shows while it has none of its own.
    ///
    /// # Errors
    /// [`DiskFault::Io`] when the store failed, or does not have what is inherited.
    pub(crate) fn inherited(&self, volume: VolumeId, page: PageIndex) -> Result<Option<Version>, DiskFault> {
        for layer in self.lineage.layers(volume) {
            if self.presence(layer)?.contains(page)
                && let Some(version) = self.version_at(layer.volume, page, layer.generation)?
            {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// What `volume` inherits of a page, when that is not a hole all over.
    pub(crate) fn inherited_page(&self, volume: VolumeId, page: PageIndex) -> Result<Option<Page>, DiskFault> {
        let inherited = self.inherited(volume, page)?;
        Ok(inherited.map(|version| version.content()).transpose()?.filter(|content| !content.is_empty()))
    }

    /// The first page from `from` on that any layer may have.
    pub(crate) fn next_inherited(&self, volume: VolumeId, from: PageIndex) -> Result<Option<PageIndex>, DiskFault> {
        let mut first = None;
        for layer in self.lineage.layers(volume) {
            let next = self.presence(layer)?.next_from(from);
            first = first.into_iter().chain(next).min();
        }
        Ok(first)
    }

    /// The first page from `from` on of which `volume` has a version, or may inherit one.
    pub(crate) fn next_page(&self, volume: VolumeId, from: PageIndex) -> Result<Option<PageIndex>, DiskFault> {
        let own = self.newest_from(volume, from)?.map(|version| version.page);
        Ok(own.into_iter().chain(self.next_inherited(volume, from)?).min())
    }

    /// A page as an heir inherits it, or the index of the next one; `own` is the next page that it has itself.
    pub(super) fn load_inherited(
        &self,
        volume: VolumeId,
        page: PageIndex,
        own: Option<PageIndex>,
    ) -> Result<LoadedPage, DiskFault> {
        if let Some(version) = self.inherited(volume, page)? {
            return Ok(LoadedPage::Present(version.encoded));
        }
        let next = match page.0.checked_add(1) {
            Some(next) => self.next_inherited(volume, PageIndex(next))?,
            None => None,
        };
        Ok(LoadedPage::Absent { next: own.into_iter().chain(next).min() })
    }

    /// The pages that a layer has versions of.
    fn presence(&self, layer: Parent) -> Result<Arc<Presence>, DiskFault> {
        if let Some(known) = self.lineage.presence.borrow().get(&layer) {
            return Ok(Arc::clone(known));
        }
        if self.layer_state(layer) != Inheritance::Ready {
            return Err(DiskFault::Io);
        }
        let mut pages = Presence::default();
        let mut is_whole = true;
        let (from, end) = rows::births_to(layer.volume, layer.generation);
        let read = self.store.each(&from, &end, &mut |key, _| match rows::page_of_birth(key) {
            Some(page) => pages.insert(page),
            None => is_whole = false,
        });
        read.map_err(io)?;
        if !is_whole {
            return Err(DiskFault::Io);
        }
        let pages = Arc::new(pages);
        self.lineage.presence.borrow_mut().insert(layer, Arc::clone(&pages));
        Ok(pages)
    }
}
