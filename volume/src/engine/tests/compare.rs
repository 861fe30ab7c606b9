//! Compare-and-write and or-write.

use super::*;
use crate::request::{COMPARE_BYTES_MAX, OR_BYTES_MAX, PIECE_BYTES_MAX, Payload};

fn payload(bytes: &[u8]) -> Payload {
    bytes.chunks(PIECE_BYTES_MAX).map(Buffer::copy_of).collect()
}

fn compare(offset: u64, expected: &[u8], bytes: &[u8]) -> Request {
    let range = range(offset, bytes.len() as u64);
    Request::CompareAndWrite { range, expected: payload(expected), payload: payload(bytes), fua: false }
}

fn or(offset: u64, bytes: &[u8]) -> Request {
    Request::OrWrite { range: range(offset, bytes.len() as u64), payload: payload(bytes), fua: false }
}

/// What a compare-and-write came to: `Ok(None)` when it wrote, else where it found something else.
type Outcome = Result<Option<u64>, ErrorKind>;

fn outcome(driver: &mut Driver, id: u64) -> Outcome {
    match driver.replies.remove(&id).expect("answered") {
        Ok(Completion::Done) => Ok(None),
        Ok(Completion::Miscompare { at }) => Ok(Some(at)),
        Ok(other) => panic!("a compare-and-write was answered by {other:?}"),
        Err(error) => Err(error.kind),
    }
}

fn ended(driver: &mut Driver, request: Request) -> Outcome {
    let id = driver.ask(request);
    driver.run();
    outcome(driver, id)
}

/// Bytes that are no two the same nearby.
fn noise(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8) ^ seed).collect()
}

/// Takes the next fetch out of the queue and fails it.
fn fail_fetch(driver: &mut Driver) {
    let at = driver.queue.iter().position(|action| matches!(action, Action::Fetch { .. })).expect("a fetch");
    let Action::Fetch { id, buffer, .. } = driver.queue.remove(at) else { panic!("it is a fetch") };
    driver.give(Event::Fetched { id, buffer, result: Err(DiskFault::Io) });
}

/// P3.
#[test]
fn equal_bytes_are_replaced_and_others_stay_and_tell_where_they_differ() {
    let mut driver = Driver::new(64);
    let (old, new) = (noise(1, 12288), noise(2, 12288));
    driver.write(4096, &old).unwrap();
    let mut wrong = old.clone();
    wrong[9000] ^= 1;
    wrong[11000] ^= 1;
    assert_eq!(ended(&mut driver, compare(4096, &wrong, &new)), Ok(Some(9000)));
    assert_eq!(driver.read(4096, 12288).unwrap(), old);
    let batches = driver.volume.status().batches;
    assert_eq!(ended(&mut driver, compare(4096, &old, &new)), Ok(None));
    assert_eq!(driver.read(4096, 12288).unwrap(), new);
    assert_eq!(driver.volume.status().batches, batches + 1);
    assert_eq!(driver.read(0, 4096).unwrap(), [0; 4096]);
    assert_eq!(driver.read(16384, 4096).unwrap(), [0; 4096]);
    assert!(driver.volume.is_idle());
}

/// P3. Holes are compared as the zeros that they read as.
#[test]
fn what_was_never_written_equals_zeros() {
    let mut driver = Driver::new(64);
    assert_eq!(ended(&mut driver, compare(0, &[0, 0, 1, 0].repeat(256), &[5; 1024])), Ok(Some(2)));
    assert_eq!(driver.read(0, 4096).unwrap(), [0; 4096]);
    assert_eq!(ended(&mut driver, compare(0, &[0; 1024], &[5; 1024])), Ok(None));
    assert_eq!(driver.read(0, 4096).unwrap(), [vec![5; 1024], vec![0; 3072]].concat());
}

/// P3. One sector within a block, and ranges that begin and end within blocks: only they are compared, and changed.
#[test]
fn sectors_of_blocks_are_compared_and_written_alone() {
    for (offset, len) in [(0, 512), (1024, 512), (3584, 512), (3584, 1024), (512, 11776), (4608, 8192), (0, 4608)] {
        let mut driver = Driver::new(64);
        let old = noise(3, 16384);
        driver.write(0, &old).unwrap();
        let place = offset as usize..offset as usize + len;
        let mut wrong = old[place.clone()].to_vec();
        wrong[len - 1] ^= 0x80;
        let new = noise(4, len);
        assert_eq!(ended(&mut driver, compare(offset, &wrong, &new)), Ok(Some(len as u64 - 1)));
        assert_eq!(driver.read(0, 16384).unwrap(), old);
        assert_eq!(ended(&mut driver, compare(offset, &old[place.clone()], &new)), Ok(None));
        let mut expected = old;
        expected[place].copy_from_slice(&new);
        assert_eq!(driver.read(0, 16384).unwrap(), expected);
        assert!(driver.volume.is_idle());
    }
}

/// P3. Whatever was asked before is there when the bytes are compared, and what is asked after comes after.
#[test]
fn a_compare_and_write_waits_for_writes_in_flight_and_holds_later_ones_back() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    driver.holds_appends = true;
    let before = driver.ask(write(4096, &[2; 4096], false));
    driver.run();
    let swap = driver.ask(compare(0, &[vec![1; 4096], vec![2; 4096]].concat(), &[3; 8192]));
    let after = driver.ask(write(512, &[4; 512], false));
    let last = driver.ask(write(4096, &[5; 8192], false));
    driver.run();
    assert!(driver.replies.is_empty(), "they wait: {:?}", driver.replies);
    assert_eq!(driver.read(0, 8192).unwrap(), [1; 8192], "a read does not");
    driver.holds_appends = false;
    driver.run();
    assert_eq!(outcome(&mut driver, swap), Ok(None));
    assert!([before, after, last].iter().all(|id| driver.replies[id].is_ok()));
    let expected = [vec![3; 512], vec![4; 512], vec![3; 3072], vec![5; 8192]].concat();
    assert_eq!(driver.read(0, 12288).unwrap(), expected);
    assert!(driver.volume.is_idle());
}

/// P3. What is asked while the blocks are on their way waits, of whatever kind; a read gets the old bytes or the new.
#[test]
fn trims_and_writes_wait_while_the_blocks_are_fetched() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 16384]).unwrap();
    driver.holds_fetches = true;
    let swap = driver.ask(compare(0, &[1; 8192], &[2; 8192]));
    let trim = driver.ask(Request::Trim { range: range(4096, 8192), fua: false });
    let whole = driver.ask(write(0, &[3; 4096], false));
    let elsewhere = driver.ask(write(12288, &[4; 4096], false));
    driver.run();
    assert_eq!(driver.replies.keys().copied().collect::<Vec<_>>(), [elsewhere]);
    driver.holds_fetches = false;
    driver.run();
    assert_eq!(outcome(&mut driver, swap), Ok(None));
    assert!(driver.replies[&trim].is_ok() && driver.replies[&whole].is_ok());
    assert_eq!(driver.read(0, 16384).unwrap(), [vec![3; 4096], vec![0; 8192], vec![4; 4096]].concat());
}

/// P3.
#[test]
fn of_two_that_expect_the_same_one_wins() {
    for is_hole in [false, true] {
        let mut driver = Driver::new(64);
        let old = if is_hole { 0 } else { 1 };
        if !is_hole {
            driver.write(0, &[old; 4096]).unwrap();
        }
        let first = driver.ask(compare(512, &[old; 1024], &[8; 1024]));
        let second = driver.ask(compare(1024, &[old; 1024], &[9; 1024]));
        let third = driver.ask(compare(512, &[8; 512], &[7; 512]));
        driver.run();
        assert_eq!(outcome(&mut driver, first), Ok(None));
        assert_eq!(outcome(&mut driver, second), Ok(Some(0)));
        assert_eq!(outcome(&mut driver, third), Ok(None));
        let expected = [vec![old; 512], vec![7; 512], vec![8; 512], vec![old; 2560]].concat();
        assert_eq!(driver.read(0, 4096).unwrap(), expected);
    }
}

/// P6. However they overlap, all end, and each sees all of the others or nothing.
#[test]
fn overlapping_ranges_in_any_order_all_end() {
    let starts = [2, 0, 3, 1, 1, 4, 0, 2, 5, 3];
    for turn in 0..starts.len() {
        let mut driver = Driver::new(64);
        driver.write(0, &[0; 32768]).unwrap();
        driver.holds_fetches = true;
        let mut ids = Vec::new();
        for (n, first) in starts.iter().cycle().skip(turn).take(starts.len()).enumerate() {
            let offset = first * 4096 + 512;
            ids.push(driver.ask(or(offset, &[1; 8192])));
            ids.push(driver.ask(compare(offset, &[1; 12288], &[1; 12288])));
            ids.push(driver.ask(write(first * 4096, &[1; 16384], false)));
            ids.push(driver.ask(Request::WriteZeroes { range: range(offset, 1024 * n as u64), fua: false }));
            driver.run();
        }
        driver.holds_fetches = false;
        driver.run();
        assert!(ids.iter().all(|id| driver.replies[id].is_ok()));
        assert!(driver.volume.is_idle());
    }
}

/// P6. A write that waits is not overtaken by compare-and-writes that come later, however many.
#[test]
fn what_waits_goes_before_what_came_later() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    driver.holds_fetches = true;
    let first = driver.ask(compare(0, &[1; 4096], &[2; 4096]));
    let waiting = driver.ask(write(0, &[3; 8192], false));
    let later = driver.ask(compare(4096, &[1; 4096], &[4; 4096]));
    driver.run();
    assert_eq!(driver.queue.len(), 1, "only the first has begun");
    driver.holds_fetches = false;
    driver.run();
    assert_eq!(outcome(&mut driver, first), Ok(None));
    assert!(driver.replies[&waiting].is_ok());
    assert_eq!(outcome(&mut driver, later), Ok(Some(0)));
    assert_eq!(driver.read(0, 8192).unwrap(), [3; 8192]);
}

/// P6. Thousands that wait for one block go on one after the other, not one within the other.
#[test]
fn a_long_queue_of_one_block_is_worked_off() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    driver.done(Request::Trim { range: range(0, 4096), fua: false }).unwrap();
    driver.holds_appends = true;
    let before = driver.ask(Request::Trim { range: range(0, 8192), fua: false });
    driver.run();
    let ids: Vec<u64> = (0..3000).map(|_| driver.ask(compare(0, &[1; 512], &[2; 512]))).collect();
    driver.holds_appends = false;
    driver.run();
    assert!(driver.replies[&before].is_ok());
    for id in ids {
        assert_eq!(outcome(&mut driver, id), Ok(Some(0)));
    }
    assert!(driver.volume.is_idle());
}

/// P6.
#[test]
fn blocks_that_cannot_be_read_fail_it_and_what_waits_goes_on() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    driver.holds_fetches = true;
    let swap = driver.ask(compare(512, &[1; 4096], &[2; 4096]));
    let bits = driver.ask(or(0, &[2; 512]));
    let whole = driver.ask(write(4096, &[3; 4096], false));
    fail_fetch(&mut driver);
    fail_fetch(&mut driver);
    driver.run();
    assert_eq!(outcome(&mut driver, swap), Err(ErrorKind::Unavailable));
    fail_fetch(&mut driver);
    fail_fetch(&mut driver);
    driver.holds_fetches = false;
    driver.run();
    assert_eq!(outcome(&mut driver, bits), Err(ErrorKind::Unavailable));
    assert!(driver.replies[&whole].is_ok());
    assert_eq!(driver.read(0, 8192).unwrap(), [vec![1; 4096], vec![3; 4096]].concat());
    assert!(driver.volume.is_idle());
}

/// P2. A block that rotted is compared with nothing.
#[test]
fn rot_fails_it() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    let at = driver.pool.windows(8192).position(|bytes| bytes == [1; 8192]).unwrap();
    driver.pool[at + 5000] ^= 1;
    assert_eq!(ended(&mut driver, compare(0, &[1; 8192], &[2; 8192])), Err(ErrorKind::Corrupt));
    assert_eq!(ended(&mut driver, compare(0, &[1; 4096], &[2; 4096])), Ok(None));
    assert_eq!(ended(&mut driver, or(4096, &[2; 4096])), Err(ErrorKind::Corrupt));
}

/// P1. What was written waits for stable storage when asked to; where nothing was, there is nothing to wait for.
#[test]
fn fua_waits_for_a_sync() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 4096]).unwrap();
    let swap = |old: u8, new: u8| Request::CompareAndWrite {
        range: range(0, 512),
        expected: payload(&[old; 512]),
        payload: payload(&[new; 512]),
        fua: true,
    };
    assert_eq!(ended(&mut driver, swap(7, 2)), Ok(Some(0)));
    assert_eq!(driver.synced, 0);
    assert_eq!(ended(&mut driver, swap(1, 2)), Ok(None));
    assert_eq!(driver.synced, 1);
    let bits = |fua| Request::OrWrite { range: range(0, 8192), payload: payload(&[1; 8192]), fua };
    assert_eq!(ended(&mut driver, bits(false)), Ok(None));
    assert_eq!(driver.synced, 1);
    assert_eq!(ended(&mut driver, bits(true)), Ok(None));
    assert_eq!(driver.synced, 2);
    driver.is_sync_failing = true;
    assert_eq!(ended(&mut driver, swap(3, 4)), Err(ErrorKind::Poisoned));
    assert_eq!(ended(&mut driver, swap(4, 5)), Err(ErrorKind::Poisoned));
    assert_eq!(ended(&mut driver, bits(false)), Err(ErrorKind::Poisoned));
    assert!(driver.volume.is_idle());
}

/// P6. What was there stays, and a trim that waited goes on.
#[test]
fn a_full_pool_fails_it_and_what_comes_later_goes_on() {
    let mut driver = Driver::new(3);
    let mut written = 0;
    while driver.write(written * 4096, &[7; 4096]).is_ok() {
        written += 1;
    }
    assert_eq!(ended(&mut driver, compare(0, &[8; 4096], &[9; 4096])), Ok(Some(0)), "nothing to write");
    let swap = driver.ask(compare(0, &[7; 8192], &[9; 8192]));
    let again = driver.ask(compare(512, &[7; 512], &[9; 512]));
    let bits = driver.ask(or(4096, &[8; 512]));
    let trim = driver.ask(Request::Trim { range: range(0, 4096), fua: false });
    driver.run();
    for id in [swap, again, bits] {
        assert_eq!(outcome(&mut driver, id), Err(ErrorKind::NoSpace));
    }
    assert!(driver.replies[&trim].is_ok());
    assert_eq!(driver.read(0, 8192).unwrap(), [vec![0; 4096], vec![7; 4096]].concat());
    driver.done(Request::Trim { range: range(0, written * 4096), fua: true }).unwrap();
    driver.slots_left = 3;
    assert_eq!(ended(&mut driver, compare(0, &[0; 4096], &[9; 4096])), Ok(None));
    assert_eq!(driver.read(0, 4096).unwrap(), [9; 4096]);
    assert!(driver.volume.is_idle());
}

/// P6. A failed append goes on elsewhere, and what was compared stays right: all else of the blocks waits.
#[test]
fn a_failed_append_writes_it_elsewhere() {
    let mut driver = Driver::new(64);
    driver.write(0, &[1; 8192]).unwrap();
    driver.append_faults = vec![DiskFault::Io];
    let first = driver.ask(compare(0, &[1; 8192], &[2; 8192]));
    let second = driver.ask(compare(4096, &[2; 512], &[3; 512]));
    driver.run();
    assert_eq!(outcome(&mut driver, first), Ok(None));
    assert_eq!(outcome(&mut driver, second), Ok(None));
    assert_eq!(driver.read(0, 8192).unwrap(), [vec![2; 4096], vec![3; 512], vec![2; 3584]].concat());
}

/// P6.
#[test]
fn what_breaks_a_rule_is_refused() {
    let mut driver = Driver::with_slots(16, 4 * MIB);
    let most = COMPARE_BYTES_MAX as usize;
    assert_eq!(ended(&mut driver, compare(512, &vec![0; most], &vec![1; most])), Ok(None));
    assert_eq!(ended(&mut driver, compare(0, &[], &[])), Ok(None));
    assert_eq!(ended(&mut driver, or(7, &[])), Ok(None));
    let refused = [
        compare(0, &vec![0; most + 512], &vec![1; most + 512]),
        compare(256, &[0; 512], &[1; 512]),
        compare(0, &[0; 100], &[1; 100]),
        compare(0, &[0; 512], &[1; 1024]),
        compare(0, &[0; 1024], &[1; 512]),
        compare(4 * MIB - 512, &[0; 1024], &[1; 1024]),
        or(4 * MIB - 512, &[0; 1024]),
        or(0, &vec![0; OR_BYTES_MAX as usize + 1]),
        Request::OrWrite { range: range(0, 512), payload: payload(&[0; 1024]), fua: false },
    ];
    for request in refused {
        let said = format!("{request:?}").chars().take(100).collect::<String>();
        assert_eq!(ended(&mut driver, request), Err(ErrorKind::InvalidRequest), "{said}");
    }
    assert_eq!(driver.volume.status().operations, 1);
    // A slot of 16 blocks takes 12 beside its headers and footer.
    let mut small = Driver::new(64);
    assert_eq!(ended(&mut small, compare(0, &[0; 49152], &[1; 49152])), Ok(None));
    assert_eq!(ended(&mut small, compare(512, &[1; 49152], &[2; 49152])), Err(ErrorKind::InvalidRequest));
    assert_eq!(small.read(0, 49152).unwrap(), [1; 49152]);
}

#[test]
fn a_view_refuses_both_and_gives_their_buffers_back() {
    let mut driver = Driver::new(64);
    driver.volume.is_read_only = true;
    assert_eq!(ended(&mut driver, compare(0, &[0; 4096], &[1; 4096])), Err(ErrorKind::InvalidRequest));
    assert_eq!(kept(&mut driver, 4096), 2);
    assert_eq!(ended(&mut driver, or(0, &[1; 8192])), Err(ErrorKind::InvalidRequest));
    assert_eq!(kept(&mut driver, 8192), 1);
}

/// How many buffers of a size the pool has; takes them out.
fn kept(driver: &mut Driver, len: usize) -> usize {
    let capacity = Buffer::zeroed(len).capacity();
    let mut count = 0;
    while driver.buffers.kept_bytes() > 0 {
        let before = driver.buffers.kept_bytes();
        driver.buffers.take(len);
        if driver.buffers.kept_bytes() + capacity != before {
            return count;
        }
        count += 1;
    }
    count
}

/// Every buffer that a request brings, or that is taken for it, is in the pool when it has been answered.
#[test]
fn all_buffers_come_back_however_it_ends() {
    const SIZE: usize = 32768;
    let mut driver = Driver::with_slots(16, MIB);
    driver.buffers = BufferPool::new(1 << 30);
    driver.write(0, &[1; SIZE]).unwrap();
    // Those for the blocks are taken from the pool. Headers and footers are smaller.
    let brings = |driver: &mut Driver, request: Request, outcome: Outcome, count: usize| {
        let before = driver.buffers.kept_bytes();
        let said = format!("{request:?}").chars().take(40).collect::<String>();
        let result = ended(driver, request);
        assert_eq!(result, outcome, "{said}");
        let more = driver.buffers.kept_bytes() - before;
        assert_eq!(more / SIZE, count, "{said}");
    };
    brings(&mut driver, compare(0, &[2; SIZE], &[3; SIZE]), Ok(Some(0)), 2);
    brings(&mut driver, compare(0, &[1; SIZE], &[3; SIZE]), Ok(None), 2);
    brings(&mut driver, compare(1, &[1; SIZE], &[3; SIZE]), Err(ErrorKind::InvalidRequest), 2);
    brings(&mut driver, or(0, &[4; SIZE]), Ok(None), 1);
    driver.append_faults = vec![DiskFault::NoSpace];
    brings(&mut driver, compare(0, &[7; SIZE], &[8; SIZE]), Err(ErrorKind::NoSpace), 2);
    let at = driver.pool.windows(4096).rposition(|bytes| bytes == [7; 4096]).unwrap();
    driver.pool[at..at + 4096].fill(9);
    brings(&mut driver, compare(0, &[7; SIZE], &[8; SIZE]), Err(ErrorKind::Corrupt), 2);
    driver.write(MIB, &[1; 512]).unwrap();
    driver.is_sync_failing = true;
    driver.done(Request::Flush).unwrap_err();
    brings(&mut driver, compare(0, &[7; SIZE], &[8; SIZE]), Err(ErrorKind::Poisoned), 2);
    brings(&mut driver, or(0, &[8; SIZE]), Err(ErrorKind::Poisoned), 1);
}

/// P3.
#[test]
fn bits_are_set_and_none_is_cleared() {
    // Slots that take a piece as it is, and such that do not.
    for slot_bytes in [SLOT_BYTES, 4 * MIB] {
        for (offset, len) in [(0, 4096), (512, 512), (100, 9000), (4096, 100_000), (0, 2 * MIB as usize)] {
            let mut driver = Driver::with_slots((16 * MIB / slot_bytes) as u32, slot_bytes);
            let old = noise(5, 65536);
            driver.write(8192, &old).unwrap();
            let mut expected = vec![0; 3 * MIB as usize];
            expected[8192..8192 + old.len()].copy_from_slice(&old);
            let bits = noise(6, len);
            assert_eq!(ended(&mut driver, or(offset, &bits)), Ok(None));
            for (byte, bits) in expected[offset as usize..].iter_mut().zip(&bits) {
                *byte |= bits;
            }
            assert!(driver.read(0, 3 * MIB).unwrap() == expected, "{len} bytes at {offset}");
            assert!(driver.volume.is_idle());
        }
    }
}

/// P3. Bits that several set at once are all there.
#[test]
fn bits_set_at_once_are_all_set() {
    let mut driver = Driver::new(64);
    let mut ids: Vec<u64> = (0..8).map(|bit| driver.ask(or(512 * (bit % 3), &[1 << bit; 8192]))).collect();
    ids.push(driver.ask(or(0, &[0; 16384])));
    driver.run();
    assert!(ids.iter().all(|id| driver.replies[id].is_ok()));
    let read = driver.read(0, 10240).unwrap();
    assert_eq!([read[0], read[512], read[1024], read[8191]], [0b0100_1001, 0b1101_1011, 0xff, 0xff]);
    assert_eq!([read[8192], read[8704], read[9216]], [0b1011_0110, 0b0010_0100, 0]);
}
