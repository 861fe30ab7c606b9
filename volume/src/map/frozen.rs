//! Keeping what an ended generation has, until the store has it.
//!
//! The first change of a page in a new generation goes to the cached page, so what that was before must be kept where the
//! store lacks something of it: it is cloned once, or moved when the whole page is dropped. A page in write-back is kept
//! too, since the write may fail. Of a page that the store has nothing is kept.
//!
//! The cached page stays a union: what it holds of the ended generation it holds on, so that it says the same over the
//! stored page of either. It becomes the store's only after the frozen one has: captures are of the oldest generation.

use super::{Cached, Map};

impl Cached {
    /// Whether the store lacks something of it that belongs to a generation before `generation`.
    pub(super) const fn is_left_behind(&self, generation: u64) -> bool {
        self.generation < generation && (self.first_dirty.is_some() || self.is_in_write_back)
    }

    /// What its generation leaves, to be written in its stead. It has nothing to write back itself afterwards.
    pub(super) fn freeze(&mut self) -> Self {
        Self {
            page: self.page.clone(),
            first_dirty: self.first_dirty.take(),
            is_in_write_back: std::mem::take(&mut self.is_in_write_back),
            touches: std::mem::take(&mut self.touches),
            ..*self
        }
    }
}

impl Map {
    /// Before a page is dropped: moves it to the frozen ones when an ended generation needs it.
    pub(super) fn freeze_whole(&mut self, index: u64) {
        let generation = self.generation;
        if self.pages.get(&index).is_some_and(|cached| cached.is_left_behind(generation))
            && let Some(cached) = self.pages.remove(&index)
        {
            // The store will come to have it, so it must be told of the drop.
            self.absent.remove(&(index..index + 1));
            self.frozen.insert((index, cached.generation), cached);
        }
    }

    /// The page as `generation` has it and the store does not.
    pub(super) fn unstored_mut(&mut self, index: u64, generation: u64) -> Option<&mut Cached> {
        match self.frozen.get_mut(&(index, generation)) {
            None => self.pages.get_mut(&index).filter(|cached| cached.generation == generation),
            frozen => frozen,
        }
    }
}
