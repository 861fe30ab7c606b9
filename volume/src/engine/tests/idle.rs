//! Volumes that nobody writes to give their slot up.

use super::*;

fn tick(driver: &mut Driver) {
    driver.give(Event::Tick);
    driver.run();
}

/// P6. An idle volume does not keep a slot for what it may write some day, and then time alone makes it do nothing more.
#[test]
fn a_volume_without_writes_seals_and_settles_its_segment_and_comes_to_rest() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    let mut ticks = 0;
    while driver.volume.wants_ticks() {
        tick(&mut driver);
        ticks += 1;
        assert!(ticks < 100, "it never comes to rest");
        if ticks == 30 {
            assert_eq!(driver.settled, []);
            driver.write(4096, &[2; 4096]).unwrap();
        }
    }
    assert!(ticks > 80, "{ticks}: a write begins the time anew");
    let settled = driver.settled.last().unwrap();
    assert_eq!((settled.up_to, settled.newest_durable), (SegmentId(2), SegmentId(2)));
    driver.write(0, &[3; 4096]).unwrap();
    assert_eq!(driver.next_segment, 3, "the log goes on in another segment");
    assert_eq!(driver.read(0, 8192).unwrap(), [[3; 4096], [2; 4096]].concat());
}

/// P6. When slots are few, a volume that rests seals at once; one that is written to does not, nor one that is half full.
#[test]
fn when_slots_are_few_only_what_rests_and_is_nearly_empty_is_sealed() {
    let seals = |blocks: u64, ticks: u32| {
        let mut driver = Driver::new(64);
        (0..blocks).for_each(|block| driver.write(block * 4096, &[1; 4096]).unwrap());
        (0..ticks).for_each(|_| tick(&mut driver));
        driver.give(Event::SlotsFew);
        driver.run();
        !driver.settled.is_empty()
    };
    assert!(seals(2, 2));
    assert!(!seals(2, 0), "it was just written to");
    assert!(!seals(4, 2), "of its 16 blocks over half are used");
}
