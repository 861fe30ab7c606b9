//! The index's store: an ordered map in memory whose lazy commits a power cut takes away from the end.

use crate::fuse::Fuse;
use crate::random::Random;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use volume::map::Page;
use volume::store::{Durability, Store, StoreFault, StoreWrite};

/// The first byte of the keys of map pages.
const PAGE_KEY: u8 = 3;

/// What stands behind a page: its last change.
const LSN_LEN: usize = 8;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Default)]
struct State {
    pairs: Pairs,
    durable: Pairs,
    /// Committed since the last durable commit.
    lazy: Vec<Vec<StoreWrite>>,
    /// Commits of a thousand that fail.
    commit_faults: u32,
    /// Reads of a thousand that fail.
    read_faults: u32,
    /// Requests that were failed.
    faults: u64,
}

/// A store of which the world keeps one hand and the index the other.
#[derive(Debug, Clone)]
pub struct SimStore {
    state: Rc<RefCell<State>>,
    random: Rc<RefCell<Random>>,
    fuse: Fuse,
}

impl SimStore {
    /// Makes an empty store. Its commits are steps of `fuse`.
    #[must_use]
    pub fn new(random: Random, fuse: Fuse) -> Self {
        Self { state: Rc::default(), random: Rc::new(RefCell::new(random)), fuse }
    }

    /// Sets how many commits and reads of a thousand fail.
    pub fn set_faults(&self, commits: u32, reads: u32) {
        let mut state = self.state.borrow_mut();
        (state.commit_faults, state.read_faults) = (commits, reads);
    }

    /// How many requests were failed.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.state.borrow().faults
    }

    /// Cuts the power: some of the lazy commits, the last ones, are gone. Returns how many.
    pub fn power_cut(&self, random: &mut Random) -> u64 {
        let mut state = self.state.borrow_mut();
        let lazy = std::mem::take(&mut state.lazy);
        let commits = lazy.len() as u64;
        let kept = random.below(commits + 1);
        for writes in lazy.into_iter().take(kept as usize) {
            apply(&mut state.durable, &writes);
        }
        state.pairs = state.durable.clone();
        commits - kept
    }

    /// Turns a page of a map into something that is none; `false` when there is no page. A store has checksums of its own:
    /// what it gives is what was written, an error, or this.
    #[must_use]
    pub fn rot_page(&self, random: &mut Random) -> bool {
        let mut state = self.state.borrow_mut();
        let pages: Vec<Vec<u8>> = state.pairs.keys().filter(|key| key.first() == Some(&PAGE_KEY)).cloned().collect();
        if pages.is_empty() {
            return false;
        }
        let put = StoreWrite::Put(random.pick(&pages).clone(), vec![0xff; random.below(64) as usize]);
        apply(&mut state.pairs, std::slice::from_ref(&put));
        state.lazy.push(vec![put]);
        true
    }

    /// Whether it holds a page that is none.
    #[must_use]
    pub fn has_rotten_page(&self) -> bool {
        let state = self.state.borrow();
        let is_page =
            |value: &[u8]| value.split_last_chunk::<LSN_LEN>().is_some_and(|(page, _)| Page::decode(page).is_ok());
        state.pairs.iter().any(|(key, value)| key.first() == Some(&PAGE_KEY) && !is_page(value))
    }

    fn check_read(&self) -> Result<(), StoreFault> {
        let mut state = self.state.borrow_mut();
        if self.fuse.is_blown() || (state.read_faults > 0 && self.random.borrow_mut().chance(state.read_faults)) {
            state.faults += 1;
            return Err(StoreFault("a simulated read fault".to_owned()));
        }
        Ok(())
    }
}

impl Store for SimStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreFault> {
        self.check_read()?;
        Ok(self.state.borrow().pairs.get(key).cloned())
    }

    fn seek(&self, from: &[u8], end: &[u8]) -> Result<Option<(Vec<u8>, Vec<u8>)>, StoreFault> {
        self.check_read()?;
        if from >= end {
            return Ok(None);
        }
        let state = self.state.borrow();
        let mut range = state.pairs.range::<[u8], _>((Bound::Included(from), Bound::Excluded(end)));
        Ok(range.next().map(|(key, value)| (key.clone(), value.clone())))
    }

    fn commit(&mut self, writes: Vec<StoreWrite>, durability: Durability) -> Result<(), StoreFault> {
        let mut state = self.state.borrow_mut();
        if self.fuse.step() || (state.commit_faults > 0 && self.random.borrow_mut().chance(state.commit_faults)) {
            state.faults += 1;
            return Err(StoreFault("a simulated commit fault".to_owned()));
        }
        apply(&mut state.pairs, &writes);
        state.lazy.push(writes);
        if durability == Durability::Durable {
            for writes in std::mem::take(&mut state.lazy) {
                apply(&mut state.durable, &writes);
            }
        }
        Ok(())
    }
}

fn apply(pairs: &mut Pairs, writes: &[StoreWrite]) {
    for write in writes {
        match write {
            StoreWrite::Put(key, value) => {
                pairs.insert(key.clone(), value.clone());
            }
            StoreWrite::Delete(key) => {
                pairs.remove(key);
            }
            StoreWrite::DeleteRange(from, end) => {
                if from < end {
                    let range = (Bound::Included(from.as_slice()), Bound::Excluded(end.as_slice()));
                    let keys: Vec<Vec<u8>> = pairs.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
                    for key in keys {
                        pairs.remove(&key);
                    }
                }
            }
        }
    }
}
