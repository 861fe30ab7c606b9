//! Groups of snapshots: what two volumes and a client that goes from one to the other make of them.

use super::*;
use crate::engine::HOLD_DURATION_MAX;
use crate::map::{Found, PAGE_BLOCKS, Page, PageWrite};
use std::collections::BTreeSet;

/// Two volumes, a client that asks its next write when the last is answered, and the order in which things happen.
struct Pair {
    drivers: [Driver; 2],
    random: u64,
    /// The write under way: its volume and request.
    asked: Option<(usize, u64)>,
    /// The volume of each write; write N is to block N.
    writes: Vec<usize>,
}

impl Pair {
    fn new(seed: u64) -> Self {
        let drivers = [Driver::new(64), Driver::new(64)];
        Self { drivers, random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, asked: None, writes: Vec::new() }
    }

    fn pick(&mut self, below: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random >> 33) as usize % below
    }

    /// One thing happens: an action of a volume is carried out, or the client goes on.
    fn step(&mut self) {
        let which = self.pick(2);
        let driver = &mut self.drivers[which];
        driver.poll();
        let count = driver.queue.len();
        if count > 0 {
            let at = self.pick(count);
            let action = self.drivers[which].queue.remove(at);
            self.drivers[which].carry_out(action);
        }
        let is_answered = |(volume, id): &(usize, u64)| self.drivers[*volume].replies.contains_key(id);
        if self.asked.as_ref().is_none_or(is_answered) && self.writes.len() < 100 {
            let volume = self.pick(2);
            let block = self.writes.len() as u64;
            self.writes.push(volume);
            self.asked = Some((volume, self.drivers[volume].ask(write(block * 4096, &[1; 4096], false))));
        }
    }

    fn ask_both(&mut self, request: impl Fn() -> Request) -> [u64; 2] {
        [0, 1].map(|which| self.drivers[which].ask(request()))
    }

    /// Goes on until both are answered; whether both are granted.
    fn wait(&mut self, ids: [u64; 2]) -> bool {
        while !(0..2).all(|which| self.drivers[which].replies.contains_key(&ids[which])) {
            self.step();
        }
        (0..2).all(|which| self.drivers[which].replies[&ids[which]].is_ok())
    }

    /// The writes that are in the snapshots, in order, told by the pages that the first generation left.
    fn in_snapshots(mut self) -> Vec<bool> {
        for driver in &mut self.drivers {
            driver.run();
            driver.done(Request::Checkpoint).unwrap();
        }
        let writes = self.writes.iter().enumerate();
        writes.map(|(block, volume)| self.drivers[*volume].first_generation.contains(&(block as u64))).collect()
    }
}

/// Whether no write is in the snapshots of a group that one before it is not in.
fn is_in_order(writes: &[bool]) -> bool {
    writes.iter().skip_while(|is_in| **is_in).all(|is_in| !is_in)
}

fn run(seed: u64, is_held: bool) -> Vec<bool> {
    let mut pair = Pair::new(seed);
    for _ in 0..pair.pick(400) {
        pair.step();
    }
    if is_held {
        let held = pair.ask_both(|| Request::Hold);
        assert!(pair.wait(held));
    }
    let mut ids = [0, 0];
    for (which, id) in ids.iter_mut().enumerate() {
        *id = pair.drivers[which].snapshot(90);
        for _ in 0..pair.pick(30) {
            pair.step();
        }
    }
    assert!(pair.wait(ids));
    if is_held {
        for which in [0, 1] {
            let id = pair.drivers[which].ask(Request::Release);
            assert!(pair.drivers[which].queue.iter().any(|action| matches!(action, Action::Reply(reply)
                if reply.id.0 == id && reply.result.is_ok())));
            for _ in 0..pair.pick(30) {
                pair.step();
            }
        }
    }
    for _ in 0..200 {
        pair.step();
    }
    pair.in_snapshots()
}

/// P2. A client that writes to one volume after the other finds in the snapshots of a group no write without those that
/// were answered before it was asked. Without the hold it would.
#[test]
fn the_snapshots_of_a_group_show_one_point() {
    let mut broken_without = 0;
    for seed in 1..400 {
        let writes = run(seed, true);
        assert!(is_in_order(&writes), "seed {seed}: {writes:?}");
        broken_without += u32::from(!is_in_order(&run(seed, false)));
    }
    assert!(broken_without > 0, "the test cannot tell");
}

/// P6. A hold that nobody ends ends by itself, and says so to who comes late.
#[test]
fn a_hold_ends_by_itself() {
    let mut driver = Driver::new(64);
    driver.done(Request::Hold).unwrap();
    assert_eq!(driver.done(Request::Hold), Err(ErrorKind::Unavailable), "one at a time");
    let waiting = driver.ask(write(0, &[1; 4096], false));
    driver.now += HOLD_DURATION_MAX.as_nanos() as u64 - 1;
    driver.give(Event::Tick);
    driver.run();
    assert!(!driver.replies.contains_key(&waiting) && driver.volume.wants_ticks());
    driver.now += 1;
    driver.give(Event::Tick);
    driver.run();
    assert!(driver.replies[&waiting].is_ok());
    assert_eq!(driver.done(Request::Release), Err(ErrorKind::Unavailable));
    assert!(driver.volume.is_idle());
}

/// The hold is granted when the batches in flight have ended, however; a disk that fails them does not keep it.
#[test]
fn a_hold_waits_for_the_batches_in_flight_and_no_more() {
    let mut driver = Driver::new(64);
    driver.holds_appends = true;
    let first = driver.ask(write(0, &[1; 4096], false));
    driver.run();
    let held = driver.ask(Request::Hold);
    let second = driver.ask(write(4096, &[2; 4096], false));
    driver.run();
    assert!(!driver.replies.contains_key(&held));
    driver.append_faults = vec![DiskFault::Io];
    driver.holds_appends = false;
    driver.run();
    assert!(driver.replies.remove(&held).unwrap().is_ok());
    assert!(!driver.replies.contains_key(&first) && !driver.replies.contains_key(&second));
    // Snapshots go on meanwhile, and before what failed.
    let snapshot = driver.snapshot(90);
    driver.run();
    assert_eq!(driver.boundary_of(snapshot).lsn, Lsn(1));
    driver.done(Request::Release).unwrap();
    assert!(driver.replies[&first].is_ok() && driver.replies[&second].is_ok());
}

/// The blocks that pages of the map name.
pub(super) fn mapped(pages: &[PageWrite]) -> BTreeSet<u64> {
    let mut blocks = BTreeSet::new();
    for write in pages {
        let PageWrite::Put { encoded, .. } = write else { continue };
        Page::decode(encoded).unwrap().visit(0, PAGE_BLOCKS, |first, len, found| {
            if matches!(found, Found::Data { .. }) {
                blocks.extend((first..first + len).map(u64::from));
            }
        });
    }
    blocks
}
