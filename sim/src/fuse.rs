//! A crash between two steps: counts the steps of a start and fails every one after the last that it grants.

use std::cell::Cell;
use std::rc::Rc;

/// Shared by everything that a start writes to.
#[derive(Debug, Clone, Default)]
pub struct Fuse {
    steps_left: Rc<Cell<Option<u64>>>,
}

impl Fuse {
    /// Grants `steps` more; any number when `None`.
    pub fn set(&self, steps: Option<u64>) {
        self.steps_left.set(steps);
    }

    /// Whether no step is granted any more.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        self.steps_left.get() == Some(0)
    }

    /// Takes one step; `true` when it is not granted.
    #[must_use]
    pub fn step(&self) -> bool {
        match self.steps_left.get() {
            None => false,
            Some(0) => true,
            Some(left) => {
                self.steps_left.set(Some(left - 1));
                false
            }
        }
    }
}
