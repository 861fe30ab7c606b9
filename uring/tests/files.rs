//! Files through the ring: every byte arrives, short transfers go on, and what was lent comes back.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "a surprise is a failed test"
)]

use smallvec::smallvec;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use uring::{Completion, Config, DISCARDED_BYTES_MAX, Outcome, ReadPiece, Region, Ring, Want};

fn ring() -> Ring<u32> {
    Ring::new(Config { submissions: 8, completions: 16 }).unwrap()
}

fn next(ring: &mut Ring<u32>) -> Completion<u32> {
    loop {
        if let Some(completion) = ring.next_completion() {
            return completion;
        }
        ring.enter(Want::Completion(None)).unwrap();
    }
}

fn file_of(bytes: &[u8]) -> Rc<OwnedFd> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Rc::new(file.into())
}

fn bytes_of(file: &Rc<OwnedFd>, len: usize) -> Vec<u8> {
    let file = File::from(file.try_clone().unwrap());
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 256) as u8).collect()
}

fn read_of(completion: Completion<u32>) -> (Region, io::Result<()>) {
    match completion.outcome {
        Outcome::Read { region, result } => (region, result),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pieces_of_a_scattered_read_land_where_they_belong_and_complete_once() {
    let mut ring = ring();
    let bytes = pattern(64 << 10);
    let file = file_of(&bytes);
    // More pieces than the submission queue has entries.
    let pieces = (0..16).map(|i| ReadPiece {
        file_offset: (15 - i) * 4096,
        region_offset: usize::try_from(i).ok().map(|place| place * 4096),
        len: 4096,
    });
    ring.read(7, &file, Region::zeroed(64 << 10), pieces.collect());
    let completion = next(&mut ring);
    assert_eq!(completion.token, 7);
    let (region, result) = read_of(completion);
    result.unwrap();
    for (got, expected) in region.as_slice().chunks(4096).zip(bytes.chunks(4096).rev()) {
        assert_eq!(got, expected);
    }
    assert_eq!(ring.in_flight(), 0);
}

#[test]
fn a_read_past_the_end_is_an_error_and_gives_the_region_back() {
    let mut ring = ring();
    let file = file_of(&pattern(6000));
    let piece = |file_offset, region_offset| ReadPiece { file_offset, region_offset: Some(region_offset), len: 4096 };
    ring.read(0, &file, Region::zeroed(8192), smallvec![piece(0, 0), piece(4096, 4096)]);
    let (region, result) = read_of(next(&mut ring));
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(region.as_slice()[..6000], pattern(6000));
}

#[test]
fn what_nobody_wants_of_a_read_is_not_in_the_region_and_no_error() {
    let mut ring = ring();
    let file = file_of(&pattern(12_000));
    let unwanted = |file_offset, len| ReadPiece { file_offset, region_offset: None, len };
    let wanted = |file_offset, region_offset| ReadPiece { file_offset, region_offset: Some(region_offset), len: 1000 };
    let pieces = smallvec![wanted(0, 0), unwanted(1000, 5000), wanted(6000, 1000), unwanted(7000, DISCARDED_BYTES_MAX)];
    ring.read(0, &file, Region::zeroed(3000), pieces);
    let (region, result) = read_of(next(&mut ring));
    result.unwrap();
    let bytes = pattern(12_000);
    assert_eq!(region.as_slice(), [&bytes[..1000], &bytes[6000..7000], &[0; 1000]].concat());
}

#[test]
#[should_panic(expected = "leaves")]
fn more_that_nobody_wants_than_there_is_room_for_is_refused() {
    let piece = ReadPiece { file_offset: 0, region_offset: None, len: DISCARDED_BYTES_MAX + 1 };
    ring().read(0, &file_of(&[]), Region::zeroed(1), smallvec![piece]);
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let mut ring = ring();
    let folder = Rc::new(OwnedFd::from(File::open("/").unwrap()));
    let piece = ReadPiece { file_offset: 0, region_offset: Some(0), len: 1 };
    ring.read(0, &folder, Region::zeroed(1), smallvec![piece]);
    assert_eq!(read_of(next(&mut ring)).1.unwrap_err().kind(), io::ErrorKind::IsADirectory);
}

#[test]
fn a_write_of_more_regions_than_the_kernel_takes_at_once_is_whole() {
    let mut ring = ring();
    let bytes = pattern(700 * 512);
    let file = file_of(&[]);
    let regions: Vec<Region> = bytes.chunks(512).map(|chunk| Region::new(chunk.into(), 0, 512)).collect();
    ring.write(1, &file, 0, regions);
    let Outcome::Written { regions, result } = next(&mut ring).outcome else { panic!() };
    result.unwrap();
    assert_eq!(regions.len(), 700);
    assert_eq!(bytes_of(&file, bytes.len()), bytes);
}

#[test]
fn views_into_larger_storage_are_written_as_views() {
    let mut ring = ring();
    let file = file_of(&[]);
    let storage = pattern(100).into_boxed_slice();
    ring.write(1, &file, 3, vec![Region::new(storage, 10, 20), Region::zeroed(0), Region::zeroed(1)]);
    let Outcome::Written { result, .. } = next(&mut ring).outcome else { panic!() };
    result.unwrap();
    assert_eq!(bytes_of(&file, 24)[3..23], pattern(100)[10..30]);
}

#[test]
fn a_failed_write_gives_its_regions_back_with_the_reason() {
    let mut ring = ring();
    let read_only = Rc::new(OwnedFd::from(File::open("/proc/self/exe").unwrap()));
    ring.write(1, &read_only, 0, vec![Region::zeroed(512), Region::zeroed(512)]);
    let Outcome::Written { regions, result } = next(&mut ring).outcome else { panic!() };
    assert_eq!(result.unwrap_err().raw_os_error(), Some(9));
    assert_eq!(regions.len(), 2);
}

#[test]
fn syncs_and_writebacks_complete() {
    let mut ring = ring();
    let file = file_of(&pattern(1 << 20));
    ring.write_back(1, &file, 0, 1 << 20);
    ring.sync_data(2, &file);
    ring.forget(3, &file, 0, 1 << 20);
    let mut tokens = [next(&mut ring), next(&mut ring), next(&mut ring)].map(|completion| {
        let Outcome::Done { result } = completion.outcome else { panic!() };
        result.unwrap();
        completion.token
    });
    tokens.sort_unstable();
    assert_eq!(tokens, [1, 2, 3]);
}

#[test]
fn a_sync_of_what_cannot_be_synced_fails() {
    let mut ring = ring();
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    ring.sync_data(1, &Rc::new(socket.into()));
    let Outcome::Done { result } = next(&mut ring).outcome else { panic!() };
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn a_file_stays_open_while_an_operation_uses_it() {
    let mut ring = ring();
    let file = file_of(&pattern(4096));
    ring.read(
        1,
        &file,
        Region::zeroed(4096),
        smallvec![ReadPiece { file_offset: 0, region_offset: Some(0), len: 4096 }],
    );
    drop(file);
    let (region, result) = read_of(next(&mut ring));
    result.unwrap();
    assert_eq!(region.as_slice(), pattern(4096));
}

#[test]
fn thousands_of_operations_pass_through_a_small_ring() {
    let mut ring = ring();
    let bytes = pattern(1 << 20);
    let file = file_of(&bytes);
    for block in 0..2000_u32 {
        let piece = ReadPiece { file_offset: u64::from(block % 256) * 4096, region_offset: Some(0), len: 4096 };
        ring.read(block, &file, Region::zeroed(4096), smallvec![piece]);
    }
    let mut seen = vec![false; 2000];
    for _ in 0..2000 {
        let completion = next(&mut ring);
        let at = (completion.token % 256) as usize * 4096;
        seen[completion.token as usize] = true;
        assert_eq!(read_of(completion).0.as_slice(), &bytes[at..at + 4096]);
    }
    assert!(seen.iter().all(|seen| *seen));
    assert!(ring.counters().enters < 2000, "{:?}", ring.counters());
}
