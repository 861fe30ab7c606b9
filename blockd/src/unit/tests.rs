//! A unit without a shard: commands in, what is asked of the volume and what is answered out.

use super::*;
use crate::listener::Attachment;
use proto::scsi::{Access, Command, Compare, Nexus, PageControl, Span, Status};
use smallvec::smallvec;
use volume::buffer::{Buffer, BufferPool};
use volume::error::{Error, ErrorKind};
use volume::request::{Completion, Payload, Request};

const SIZE_BYTES: u64 = 1 << 20;
const SPAN: Span = Span { lba: 8, blocks: 8 };

struct World {
    unit: LogicalUnit,
    buffers: BufferPool,
}

fn nexus(number: u8) -> Nexus {
    Nexus { initiator: format!("iqn.2026-11.test:{number}"), isid: [number; 6], port: 1 }
}

impl World {
    /// A unit with sessions 1 and 2, whose initiators have heard of it.
    fn new() -> Self {
        let settings = UnitSettings { naa: [0x31; 8], ..UnitSettings::default() };
        let mut world = Self { unit: LogicalUnit::new(&settings, SIZE_BYTES), buffers: BufferPool::new(1 << 20) };
        for number in [1, 2] {
            let session = SessionKey(number.into());
            let (target, home, attachment) = ("iqn.t".into(), Home::Here, Attachment::default());
            world.unit.attach(NewNexus { session, nexus: nexus(number), target, home, attachment });
            let (status, sense) = world.ended(number.into(), Command::TestUnitReady, &[]);
            assert_eq!((status, sense), (Status::CheckCondition, Some((6, 0x29, 0x00))));
        }
        world
    }

    fn task(&mut self, session: u64, command: Command, data: &[u8]) -> UnitTask {
        let payload: Payload = if data.is_empty() { Payload::new() } else { smallvec![Buffer::copy_of(data)] };
        let (attribute, bytes) = (Attribute::Simple, data.len() as u64);
        let session = SessionKey(session);
        let command = Ok(command);
        UnitTask { session, tag: 7, attribute, command, payload, expected_bytes: bytes, lent: None }
    }

    fn begin(&mut self, session: u64, command: Command, data: &[u8]) -> Begun {
        let task = self.task(session, command, data);
        self.unit.begin(task, Facts { size_bytes: SIZE_BYTES, buffers: &mut self.buffers })
    }

    /// Status, and key and codes of the sense, of a command that asks nothing of the volume.
    fn ended(&mut self, session: u64, command: Command, data: &[u8]) -> (Status, Option<(u8, u8, u8)>) {
        let begun = self.begin(session, command, data);
        let Begun::Ended(outcome) = begun else { panic!("it is not over: {begun:?}") };
        told(outcome)
    }

    fn asked(&mut self, session: u64, command: Command, data: &[u8]) -> (Plan, Vec<Request>) {
        let begun = self.begin(session, command, data);
        let Begun::Asked(plan, requests) = begun else { panic!("nothing is asked: {begun:?}") };
        (plan, requests.into_vec())
    }
}

fn told(outcome: Outcome) -> (Status, Option<(u8, u8, u8)>) {
    let Outcome::Ended { status, sense, .. } = outcome else { panic!("aborted") };
    (status, (!sense.is_empty()).then(|| (sense[2] & 0x0f, sense[12], sense[13])))
}

const fn write(span: Span, fua: bool) -> Command {
    Command::Write { span, fua }
}

/// P6. What the pool has no room for is told so that hypervisors pause the machine and go on later; other errors each as theirs.
#[test]
fn errors_of_the_volume_are_told_as_sense_data() {
    let mut world = World::new();
    for (kind, expected) in [
        (ErrorKind::NoSpace, (Status::CheckCondition, Some((7, 0x27, 0x07)))),
        (ErrorKind::Corrupt, (Status::CheckCondition, Some((3, 0x11, 0x00)))),
        (ErrorKind::Closing, (Status::Busy, None)),
    ] {
        let (plan, _) = world.asked(1, write(SPAN, false), &[1; 4096]);
        let next = world.unit.advance(plan, Err(Error::new(kind, "")), &mut world.buffers);
        let Next::End(outcome) = next else { panic!("{next:?}") };
        assert_eq!(told(outcome), expected, "{kind}");
    }
}

#[test]
fn what_leaves_the_medium_is_refused_and_no_blocks_at_its_end_are_not() {
    let mut world = World::new();
    let out_of_range = (Status::CheckCondition, Some((5, 0x21, 0x00)));
    let read = |lba, blocks| Command::Read { span: Span { lba, blocks }, fua: false };
    for command in [read(2048, 1), read(2049, 0), read(u64::MAX, 1), read(0, 2049)] {
        assert_eq!(world.ended(1, command, &[]), out_of_range, "{command:?}");
    }
    assert_eq!(world.ended(1, read(2048, 0), &[]), (Status::Good, None));
    let (_, requests) = world.asked(1, read(2047, 1), &[]);
    assert!(matches!(requests[..], [Request::Read { range }] if range.offset() == 2047 * 512 && range.len() == 512));
}

/// P1. Without a write cache every write is durable when it is answered, and each initiator but the one who said so is told.
#[test]
fn mode_select_turns_the_write_cache_off_for_all() {
    let mut world = World::new();
    let is_durable = |world: &mut World| {
        let (_, requests) = world.asked(1, write(SPAN, false), &[1; 4096]);
        matches!(requests[..], [Request::Write { fua: true, .. }])
    };
    assert!(!is_durable(&mut world));
    let sense = Command::ModeSense {
        ten: false,
        long_lba: false,
        no_blocks: true,
        control: PageControl::Current,
        page: 0x08,
        subpage: 0,
        allocation: 255,
    };
    let Begun::Ended(Outcome::Ended { data: DataIn::Bytes(mut page), .. }) = world.begin(1, sense, &[]) else {
        panic!("no mode page");
    };
    page[0] = 0;
    page[2] = 0;
    page[4] &= 0x3f;
    page[6] &= !0x04;
    let length = u16::try_from(page.len()).unwrap();
    let select = Command::ModeSelect { ten: false, page_format: true, save: false, length };
    assert_eq!(world.ended(1, select, &page), (Status::Good, None));
    assert!(is_durable(&mut world));
    assert_eq!(world.ended(2, Command::TestUnitReady, &[]).1, Some((6, 0x2a, 0x01)));
    assert_eq!(world.ended(1, Command::TestUnitReady, &[]), (Status::Good, None));
}

#[test]
fn a_write_of_less_than_it_asks_for_writes_the_whole_blocks_that_come() {
    let mut world = World::new();
    let (_, requests) = world.asked(1, write(SPAN, false), &[9; 1200]);
    let [Request::Write { range, payload, .. }] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!((range.offset(), range.len(), payload[0].len()), (4096, 1024, 1024));
    assert_eq!(world.ended(1, write(SPAN, false), &[9; 511]), (Status::Good, None));
    let compare = Command::CompareAndWrite { span: Span { lba: 0, blocks: 1 }, fua: false };
    for len in [512, 1023, 1536] {
        assert_eq!(world.ended(1, compare, &vec![0; len]).1, Some((5, 0x24, 0x00)), "{len}");
    }
}

#[test]
fn a_difference_is_told_with_its_place() {
    let mut world = World::new();
    let (plan, _) = world.asked(1, Command::Verify { span: SPAN, compare: Compare::Data }, &[7; 4096]);
    let mut read = Buffer::zeroed(4096);
    read.as_mut_slice().fill(7);
    read.as_mut_slice()[1000] = 8;
    let next = world.unit.advance(plan, Ok(Completion::Read { buffer: read, skip: 0, len: 4096 }), &mut world.buffers);
    let Next::End(Outcome::Ended { sense, .. }) = next else { panic!("{next:?}") };
    assert_eq!((sense[2], sense[3..7].to_vec(), sense[12]), (0x0e, 1000_u32.to_be_bytes().to_vec(), 0x1d));
}

#[test]
fn one_block_is_written_again_and_again_and_zeros_take_no_space() {
    let mut world = World::new();
    let same = |unmap, no_data| Command::WriteSame { span: Span { lba: 0, blocks: 16 }, unmap, no_data };
    let (_, requests) = world.asked(1, same(true, true), &[]);
    assert!(matches!(requests[..], [Request::Trim { .. }]));
    let (_, requests) = world.asked(1, same(false, false), &[0; 512]);
    assert!(matches!(requests[..], [Request::WriteZeroes { .. }]));
    let block: Vec<u8> = (0..=255).cycle().take(512).collect();
    let (plan, requests) = world.asked(1, same(true, false), &block);
    let [Request::Write { payload, .. }] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(payload[0].as_slice(), block.repeat(16));
    let next = world.unit.advance(plan, Ok(Completion::Done), &mut world.buffers);
    assert!(matches!(next, Next::End(Outcome::Ended { status: Status::Good, .. })));
}

/// P8. What one initiator has reserved exclusively neither another one nor a client that is none reads or writes.
#[test]
fn a_reservation_keeps_others_out_and_goes_with_a_reset() {
    let mut world = World::new();
    assert_eq!(world.ended(1, Command::Reserve6, &[]), (Status::Good, None));
    assert_eq!(world.ended(2, write(SPAN, false), &[1; 4096]), (Status::ReservationConflict, None));
    assert!(!world.unit.admits_other(Access::Write) && !world.unit.admits_other(Access::Read));
    world.unit.reset(None, Sense::DEVICE_RESET);
    assert!(world.unit.admits_other(Access::Write));
    for session in [1, 2] {
        assert_eq!(world.ended(session, Command::TestUnitReady, &[]).1, Some((6, 0x29, 0x03)));
    }
    world.asked(2, write(SPAN, false), &[1; 4096]);
}

/// P8. Reservations that were kept are there from the first command on, and are told as they were kept.
#[test]
fn reservations_are_kept_before_they_count() {
    let mut world = World::new();
    // REGISTER of key 9, to be kept.
    let mut parameters = [0; 24];
    (parameters[15], parameters[20]) = (9, 1);
    let register = Command::PersistentReserveOut { action: 0, scope: 0, kind: 0, length: 24 };
    let Begun::Reserving(reserving) = world.begin(1, register, &parameters) else { panic!("not kept") };
    assert!(LogicalUnit::must_be_kept(&reserving));
    let kept = reserving.kept.clone().unwrap();
    assert_eq!((kept.registrations.len(), kept.registrations[0].key), (1, 9));
    // Nothing begins meanwhile.
    let task = world.task(2, Command::TestUnitReady, &[]);
    world.unit.push(task).unwrap();
    assert!(world.unit.front().is_none());
    let (outcome, _) = world.unit.end_reserving(*reserving, true);
    assert_eq!(told(outcome), (Status::Good, None));
    assert!(world.unit.front().is_some());
    let settings = UnitSettings { reservations: Some(kept), ..UnitSettings::default() };
    let restored = LogicalUnit::new(&settings, SIZE_BYTES);
    assert_eq!(restored.reservations, world.unit.reservations);
}

#[test]
fn an_ordered_task_runs_alone_and_one_for_the_head_of_the_queue_comes_first() {
    let mut world = World::new();
    let attributes = [Attribute::Simple, Attribute::Ordered, Attribute::Simple, Attribute::HeadOfQueue];
    for (tag, attribute) in (0..).zip(attributes) {
        let task = UnitTask { tag, attribute, ..world.task(1, Command::TestUnitReady, &[]) };
        world.unit.push(task).unwrap();
    }
    let begin = |unit: &mut LogicalUnit| {
        unit.front()?;
        let task = unit.pop()?;
        unit.note_begun(task.attribute);
        Some(task.tag)
    };
    assert_eq!((begin(&mut world.unit), begin(&mut world.unit), begin(&mut world.unit)), (Some(3), Some(0), None));
    world.unit.note_ended(&[]);
    assert_eq!(begin(&mut world.unit), None);
    world.unit.note_ended(&[]);
    assert_eq!((begin(&mut world.unit), begin(&mut world.unit)), (Some(1), None));
    world.unit.note_ended(&[]);
    assert_eq!(begin(&mut world.unit), Some(2));
}

#[test]
fn initiators_hear_of_a_new_size_and_of_a_pool_that_fills_once() {
    let mut world = World::new();
    world.unit.note_size(SIZE_BYTES);
    assert_eq!(world.ended(1, Command::TestUnitReady, &[]), (Status::Good, None));
    world.unit.note_size(2 * SIZE_BYTES);
    world.unit.note_slots_few(Monotonic(5));
    world.unit.note_slots_few(Monotonic(6));
    let attentions: Vec<_> = (0..3).map(|_| world.ended(1, Command::TestUnitReady, &[]).1).collect();
    assert_eq!(attentions, [Some((6, 0x2a, 0x09)), Some((6, 0x38, 0x07)), None]);
}

#[test]
fn a_unit_is_known_by_a_number_that_its_pool_and_line_make() {
    let naa = naa_of(&PoolId([1; 16]), 7);
    assert_eq!(naa[0] >> 4, 3, "locally assigned");
    assert_eq!(naa, naa_of(&PoolId([1; 16]), 7));
    assert_ne!(naa, naa_of(&PoolId([2; 16]), 7));
    assert_ne!(naa, naa_of(&PoolId([1; 16]), 8));
}
