//! The order of a session's commands: `CmdSN`, over all its connections.
//!
//! Commands are carried out in the order of their numbers, whichever connection they come by; one that comes early is
//! held until those before it are there. Immediate ones are carried out at once and take no number. The window opens as
//! tasks end, so that no more than its size are in flight. Spec: RFC 7143 4.2.2.1, 11.5.1; numbers compare as in RFC
//! 1982.

use std::collections::BTreeMap;

/// The largest window; beyond it numbers would not compare.
pub const WINDOW_SIZE_MAX: u32 = 1 << 16;

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed<T> {
    /// It is carried out now; then come those that [`Window::pop_ready`] gives.
    Ready(T),
    /// It waits for others.
    Held,
    /// It is outside the window or came before, and is to be ignored: RFC 7143 4.2.2.1.
    Dropped,
}

/// The window of a session.
#[derive(Debug)]
pub struct Window<T> {
    size: u32,
    /// The next number to be carried out.
    exp_cmd_sn: u32,
    /// The last number taken; never moves back, `exp_cmd_sn - 1 <= max_cmd_sn < exp_cmd_sn + size`.
    max_cmd_sn: u32,
    /// Tasks that have taken a number and have not ended.
    in_flight: u32,
    /// Commands that came early, by their number; `None` for one that counts as received and is not carried out.
    held: BTreeMap<u32, Option<T>>,
}

impl<T> Window<T> {
    /// Begins with the number that the login had. `size` is from 1 to [`WINDOW_SIZE_MAX`].
    #[must_use]
    pub fn new(first_cmd_sn: u32, size: u32) -> Self {
        let size = size.clamp(1, WINDOW_SIZE_MAX);
        let max_cmd_sn = first_cmd_sn.wrapping_add(size - 1);
        Self { size, exp_cmd_sn: first_cmd_sn, max_cmd_sn, in_flight: 0, held: BTreeMap::new() }
    }

    /// The next number that is waited for.
    #[must_use]
    pub const fn exp_cmd_sn(&self) -> u32 {
        self.exp_cmd_sn
    }

    /// The last number that is taken; one before the next when the window is closed.
    #[must_use]
    pub const fn max_cmd_sn(&self) -> u32 {
        self.max_cmd_sn
    }

    /// Finds a command its place. One that is [`Placed::Ready`] and not immediate is in flight until [`Self::release`].
    pub fn place(&mut self, cmd_sn: u32, immediate: bool, item: T) -> Placed<T> {
        if immediate {
            return Placed::Ready(item);
        }
        if !self.takes(cmd_sn) {
            return Placed::Dropped;
        }
        if cmd_sn != self.exp_cmd_sn {
            self.held.insert(cmd_sn, Some(item));
            return Placed::Held;
        }
        self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
        self.in_flight += 1;
        Placed::Ready(item)
    }

    /// Gives out the next command that was held and is ready now; in flight until [`Self::release`].
    pub fn pop_ready(&mut self) -> Option<T> {
        loop {
            let next = self.held.remove(&self.exp_cmd_sn)?;
            self.exp_cmd_sn = self.exp_cmd_sn.wrapping_add(1);
            if next.is_some() {
                self.in_flight += 1;
                return next;
            }
            self.open();
        }
    }

    /// Tells that a task that was in flight has ended.
    pub fn release(&mut self) {
        assert!(self.in_flight > 0, "a task ended that took no number");
        self.in_flight -= 1;
        self.open();
    }

    /// Counts a number as received that has not come, since the task was aborted before it did: RFC 7143 11.5.1.
    /// Returns whether it did so; then [`Self::pop_ready`] may have something. It has come, or is outside the window,
    /// otherwise.
    pub fn count_received(&mut self, cmd_sn: u32) -> bool {
        let has_room = self.takes(cmd_sn);
        if has_room {
            self.held.insert(cmd_sn, None);
        }
        has_room
    }

    /// Takes out the commands that are held and that `is_wanted` picks, in no order; their numbers count as received.
    pub fn take_held(&mut self, mut is_wanted: impl FnMut(&T) -> bool) -> Vec<T> {
        let picked = self.held.values_mut().filter(|held| held.as_ref().is_some_and(&mut is_wanted));
        picked.filter_map(Option::take).collect()
    }

    /// Whether commands wait for one before them that has not come.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.held.values().any(Option::is_some)
    }

    /// Whether an item of this number would be taken: it lies in the window, and has not come before.
    #[must_use]
    pub fn takes(&self, cmd_sn: u32) -> bool {
        // The window is far smaller than half of all numbers, so that distances from its start compare as numbers do.
        let width = self.max_cmd_sn.wrapping_sub(self.exp_cmd_sn).wrapping_add(1);
        cmd_sn.wrapping_sub(self.exp_cmd_sn) < width && !self.held.contains_key(&cmd_sn)
    }

    fn open(&mut self) {
        let wanted = self.exp_cmd_sn.wrapping_add(self.size).wrapping_sub(self.in_flight).wrapping_sub(1);
        if is_behind(self.max_cmd_sn, wanted) {
            self.max_cmd_sn = wanted;
        }
    }
}

/// Whether `number` comes behind `before`: RFC 1982, 32 bits.
const fn is_behind(before: u32, number: u32) -> bool {
    let distance = number.wrapping_sub(before);
    distance > 0 && distance < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_come_out_in_the_order_of_their_numbers_over_the_wrap() {
        let mut window = Window::new(u32::MAX, 8);
        assert_eq!(window.place(1, false, 'c'), Placed::Held);
        assert_eq!(window.place(0, false, 'b'), Placed::Held);
        assert_eq!(window.pop_ready(), None);
        assert_eq!(window.place(u32::MAX, false, 'a'), Placed::Ready('a'));
        assert_eq!((window.pop_ready(), window.pop_ready(), window.pop_ready()), (Some('b'), Some('c'), None));
        assert_eq!(window.exp_cmd_sn(), 2);
    }

    #[test]
    fn a_gap_is_told_until_it_is_filled() {
        let mut window = Window::new(7, 8);
        assert!(!window.has_gap());
        assert_eq!(window.place(8, false, 'b'), Placed::Held);
        assert!(window.has_gap());
        assert_eq!(window.place(7, false, 'a'), Placed::Ready('a'));
        assert_eq!(window.pop_ready(), Some('b'));
        assert!(!window.has_gap());
        assert!(window.count_received(10) && !window.has_gap());
    }

    #[test]
    fn numbers_outside_the_window_and_duplicates_are_dropped() {
        let mut window = Window::new(10, 4);
        assert_eq!(window.max_cmd_sn(), 13);
        for outside in [9, 14, 0, u32::MAX, 10 + (1 << 31)] {
            assert_eq!(window.place(outside, false, ()), Placed::Dropped, "{outside}");
        }
        assert_eq!(window.place(12, false, ()), Placed::Held);
        assert_eq!(window.place(12, false, ()), Placed::Dropped);
        assert_eq!(window.place(10, false, ()), Placed::Ready(()));
        assert_eq!(window.place(10, false, ()), Placed::Dropped);
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (11, 13));
    }

    #[test]
    fn immediate_commands_take_no_number_and_pass_a_closed_window() {
        let mut window = Window::new(10, 1);
        assert_eq!(window.place(10, false, ()), Placed::Ready(()));
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (11, 10));
        assert_eq!(window.place(11, false, ()), Placed::Dropped);
        assert_eq!(window.place(11, true, ()), Placed::Ready(()));
        assert_eq!(window.exp_cmd_sn(), 11);
        window.release();
        assert_eq!(window.max_cmd_sn(), 11);
        assert_eq!(window.place(11, false, ()), Placed::Ready(()));
    }

    #[test]
    fn a_number_that_counts_as_received_is_passed_over() {
        let mut window = Window::new(10, 4);
        assert_eq!(window.place(11, false, 'b'), Placed::Held);
        assert!(window.count_received(10));
        assert!(!window.count_received(11));
        assert!(!window.count_received(14));
        assert_eq!(window.pop_ready(), Some('b'));
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (12, 14));
        assert!(!window.count_received(10));
    }

    #[test]
    fn held_commands_that_are_aborted_leave_their_numbers_behind() {
        let mut window = Window::new(10, 8);
        for (cmd_sn, item) in [(11, 'x'), (12, 'y'), (13, 'x')] {
            assert_eq!(window.place(cmd_sn, false, item), Placed::Held);
        }
        assert_eq!(window.take_held(|item| *item == 'x'), ['x', 'x']);
        assert_eq!(window.place(11, false, 'z'), Placed::Dropped);
        assert_eq!(window.place(10, false, 'w'), Placed::Ready('w'));
        assert_eq!((window.pop_ready(), window.pop_ready()), (Some('y'), None));
        assert_eq!((window.exp_cmd_sn(), window.max_cmd_sn()), (14, 19));
    }

    proptest! {
        /// Whatever comes in whatever order: each number comes out once, in order, and the window never moves back.
        #[test]
        fn every_number_comes_out_once_and_in_order(
            first: u32,
            size in 1_u32..20,
            sent in proptest::collection::vec((0_u32..24, any::<bool>()), 0..200),
        ) {
            let mut window = Window::new(first, size);
            let mut next = first;
            let mut in_flight = 0;
            for (ahead, is_end) in sent {
                let before = window.max_cmd_sn();
                if is_end && in_flight > 0 {
                    window.release();
                    in_flight -= 1;
                }
                let cmd_sn = window.exp_cmd_sn().wrapping_add(ahead).wrapping_sub(2);
                let mut ready = match window.place(cmd_sn, false, cmd_sn) {
                    Placed::Ready(item) => Some(item),
                    Placed::Held | Placed::Dropped => None,
                };
                while let Some(item) = ready {
                    prop_assert_eq!(item, next);
                    next = next.wrapping_add(1);
                    in_flight += 1;
                    ready = window.pop_ready();
                }
                prop_assert_eq!(window.exp_cmd_sn(), next);
                prop_assert!(in_flight <= size);
                prop_assert!(window.max_cmd_sn() == before || is_behind(before, window.max_cmd_sn()));
                prop_assert!(window.max_cmd_sn().wrapping_sub(next).wrapping_add(1) <= size);
            }
        }
    }
}
