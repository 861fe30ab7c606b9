//! The compactor, driven by hand. The order of what it does under faults in quantity is the simulator's work.

use super::*;
use crate::recover::tests::world::{MemoryStore, VOLUME, World, write_op};

/// A compactor, and a disk that answers when it is told to.
struct Driver {
    world: World,
    compactor: Compactor,
    actions: Vec<Action>,
    freed: u32,
}

impl Driver {
    /// A volume with so many dead segments, which no read uses, and the newest.
    fn with_dead(count: usize) -> Self {
        let mut world = World::new(16);
        for _ in 0..=count {
            world.segment(VOLUME, &[&[write_op(0, 1)]]);
        }
        let dead = world.fold(VOLUME);
        assert_eq!(dead.len(), count);
        let mut driver = Self { world, compactor: Compactor::default(), actions: Vec::new(), freed: 0 };
        driver.act(|compactor, context| compactor.look_at(context, VOLUME));
        assert!(driver.compactor.is_freeing(), "it waits for reads");
        for segment in dead {
            driver.act(|compactor, context| compactor.unpinned(context, VOLUME, segment));
        }
        driver
    }

    fn act(&mut self, act: impl FnOnce(&mut Compactor, &mut Context<'_, MemoryStore>)) {
        let mut news = Vec::new();
        let index = &mut self.world.index;
        act(&mut self.compactor, &mut Context { index, actions: &mut self.actions, news: &mut news });
        self.freed += news.iter().map(|news| u32::from(matches!(news, News::Freed))).sum::<u32>();
    }

    /// Ends what is under way, and not what follows from that.
    fn end(&mut self, result: Result<(), DiskFault>) {
        for action in std::mem::take(&mut self.actions) {
            let event = if let Action::Append { id, buffers, .. } = action {
                Event::Appended { id, buffers, result }
            } else if let Action::Sync { id } = action {
                Event::Synced { id, result }
            } else {
                panic!("the compactor wants {action:?}")
            };
            self.act(|compactor, context| compactor.handle(context, &event));
        }
    }

    fn tick(&mut self) {
        self.act(Compactor::tick);
    }

    fn segments(&self) -> usize {
        self.world.index.segments(VOLUME).len()
    }
}

#[test]
fn dead_segments_leave_once_their_void_headers_are_durable() {
    let mut driver = Driver::with_dead(3);
    while driver.compactor.is_freeing() {
        driver.end(Ok(()));
    }
    assert!(driver.compactor.is_idle() && !driver.compactor.wants_ticks());
    assert_eq!((driver.segments(), driver.world.index.figures().slots_free), (1, 15));
}

/// P6. Headers that the disk refuses are tried again, and are no space that a full pool could wait for.
#[test]
fn headers_that_the_disk_refuses_are_nothing_to_wait_for() {
    let mut driver = Driver::with_dead(2);
    driver.end(Err(DiskFault::Io));
    assert_eq!(driver.compactor.refused.len(), 1);
    driver.end(Ok(()));
    assert!(!driver.compactor.is_freeing() && driver.compactor.wants_ticks(), "the next try comes with a tick");
    driver.tick();
    assert!(driver.compactor.is_freeing(), "of the two, one was not tried before");
    driver.end(Err(DiskFault::NoSpace));
    assert!(!driver.compactor.is_freeing() && !driver.compactor.is_idle());
    driver.end(Ok(()));
    driver.tick();
    assert!(!driver.compactor.is_freeing() && !driver.compactor.is_idle());
    driver.end(Ok(()));
    assert!(driver.compactor.is_freeing(), "the disk took the headers");
    driver.end(Ok(()));
    assert_eq!(driver.segments(), 1);
    assert!(driver.freed > 0 && driver.compactor.is_idle());
}

/// P1, P6. After a failed sync nothing is given back, and nothing is waited for.
#[test]
fn a_failed_sync_ends_all_giving_back() {
    let mut driver = Driver::with_dead(2);
    driver.end(Ok(()));
    driver.end(Err(DiskFault::Io));
    assert!(!driver.compactor.is_freeing());
    driver.tick();
    driver.end(Ok(()));
    assert_eq!((driver.segments(), driver.actions.len()), (3, 0));
}
