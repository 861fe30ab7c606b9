//! One test per rule of the NBD transmission phase and its exact answer: NBD proto.md, "Transmission phase".
#![cfg(test)]
#![forbid(unsafe_code)]

use proto::nbd::constants::{command, command_flag};
use proto::nbd::{
    BadMagic, BlockSizes, Cookie, Errno, FastZero, Rejection, ReplyStyle, Request, RequestHeader, Session, Span,
    TransmissionFlags, UnwantedPayload,
};

const SIZE: u64 = 1 << 30;
const PAYLOAD_MAX: u64 = 32 << 20;

fn session(style: ReplyStyle) -> Session {
    Session {
        size_bytes: SIZE,
        flags: TransmissionFlags::WRITABLE,
        style,
        block_sizes: BlockSizes::default(),
        fast_zero: FastZero::WithHole,
        has_contexts: true,
    }
}

fn without(abilities: TransmissionFlags) -> Session {
    Session { flags: TransmissionFlags::WRITABLE.without(abilities), ..session(ReplyStyle::Structured) }
}

fn read_only() -> Session {
    Session { flags: TransmissionFlags::WRITABLE.with(TransmissionFlags::READ_ONLY), ..session(ReplyStyle::Structured) }
}

fn header(command: u16, flags: u16, offset: u64, length_bytes: u64) -> RequestHeader {
    RequestHeader { flags, command, cookie: Cookie(7), offset, length_bytes }
}

fn parse(session: Session, command: u16, flags: u16, offset: u64, length_bytes: u64) -> Result<Request, Rejection> {
    session.parse(&header(command, flags, offset, length_bytes))
}

fn compact(command: u16, flags: u16, offset: u64, length_bytes: u64) -> Result<Request, Rejection> {
    parse(session(ReplyStyle::Structured), command, flags, offset, length_bytes)
}

fn extended(command: u16, flags: u16, offset: u64, length_bytes: u64) -> Result<Request, Rejection> {
    parse(session(ReplyStyle::Extended), command, flags, offset, length_bytes)
}

/// The errno, and how many bytes of payload are to be skipped.
#[track_caller]
fn refused(result: Result<Request, Rejection>) -> (Errno, u32) {
    match result.unwrap_err() {
        Rejection { errno, payload: UnwantedPayload::Skip { bytes }, .. } => (errno, bytes),
        rejection => panic!("{rejection:?}"),
    }
}

#[track_caller]
fn ended(result: Result<Request, Rejection>) -> Errno {
    let rejection = result.unwrap_err();
    assert_eq!(rejection.payload, UnwantedPayload::TooLong);
    rejection.errno
}

fn span(offset: u64, len_bytes: u64) -> Span {
    Span { offset, len_bytes }
}

#[test]
fn a_wrong_magic_ends_the_connection_as_soon_as_it_is_read() {
    for style in [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended] {
        let mut input: &[u8] = &[0x12, 0x56, 0x09, 0x53];
        assert_eq!(session(style).decode_header(&mut input), Err(BadMagic { found: 0x1256_0953 }));
        let mut input: &[u8] = &[0x12, 0x56, 0x09];
        assert_eq!(session(style).decode_header(&mut input), Ok(None));
    }
}

#[test]
fn each_form_of_header_is_taken_only_where_it_was_negotiated() {
    let mut compact: &[u8] = &0x2560_9513_u32.to_be_bytes();
    assert!(session(ReplyStyle::Extended).decode_header(&mut compact).is_err());
    let mut extended: &[u8] = &0x21e4_1c71_u32.to_be_bytes();
    assert!(session(ReplyStyle::Structured).decode_header(&mut extended).is_err());
}

#[test]
fn an_unknown_command_is_invalid() {
    assert_eq!(refused(compact(8, 0, 0, 4096)), (Errno::Inval, 0));
    assert_eq!(refused(compact(u16::MAX, 0, 0, 4096)), (Errno::Inval, 0));
    assert_eq!(refused(extended(8, command_flag::PAYLOAD_LEN, 0, 4096)), (Errno::Inval, 4096));
}

#[test]
fn a_flag_that_the_command_does_not_know_is_invalid() {
    for (command, known) in [
        (command::READ, command_flag::FUA | command_flag::DF),
        (command::WRITE, command_flag::FUA),
        (command::FLUSH, command_flag::FUA),
        (command::TRIM, command_flag::FUA),
        (command::CACHE, command_flag::FUA),
        (command::WRITE_ZEROES, command_flag::FUA | command_flag::NO_HOLE | command_flag::FAST_ZERO),
        (command::BLOCK_STATUS, command_flag::FUA | command_flag::REQ_ONE),
    ] {
        let length_bytes = if command == command::FLUSH { 0 } else { 512 };
        let skipped = if command == command::WRITE { 512 } else { 0 };
        for flag in (0..16).map(|bit| 1 << bit) {
            let result = compact(command, flag, 0, length_bytes);
            if known & flag == 0 {
                assert_eq!(refused(result), (Errno::Inval, skipped), "{command} {flag:#x}");
            } else {
                assert!(result.is_ok(), "{command} {flag:#x}");
            }
        }
    }
}

#[test]
fn every_command_is_understood_with_its_flags() {
    let whole = span(512, 1024);
    let (fua, one) = (command_flag::FUA, command_flag::REQ_ONE);
    let parsed = |command, flags| compact(command, flags, 512, 1024).unwrap();
    assert_eq!(parsed(command::READ, command_flag::DF), Request::Read { span: whole, dont_fragment: true });
    assert_eq!(parsed(command::WRITE, fua), Request::Write { span: whole, fua: true });
    assert_eq!(parsed(command::WRITE, 0).payload_bytes(), 1024);
    assert_eq!(parsed(command::TRIM, fua), Request::Trim { span: whole, fua: true });
    assert_eq!(parsed(command::CACHE, 0), Request::Cache { span: whole });
    assert_eq!(parsed(command::BLOCK_STATUS, one), Request::BlockStatus { span: whole, one_extent: true });
    let zeroes = Request::WriteZeroes { span: whole, fua: true, no_hole: true, fast_zero: false };
    assert_eq!(parsed(command::WRITE_ZEROES, fua | command_flag::NO_HOLE), zeroes);
    assert_eq!(compact(command::FLUSH, 0, 0, 0), Ok(Request::Flush));
    assert_eq!(parsed(command::DISC, 0xffff), Request::Disconnect);
}

#[test]
fn a_command_that_was_not_offered_is_invalid() {
    for (command, ability) in [
        (command::FLUSH, TransmissionFlags::SEND_FLUSH),
        (command::TRIM, TransmissionFlags::SEND_TRIM),
        (command::CACHE, TransmissionFlags::SEND_CACHE),
        (command::WRITE_ZEROES, TransmissionFlags::SEND_WRITE_ZEROES),
    ] {
        assert_eq!(refused(parse(without(ability), command, 0, 0, 0)), (Errno::Inval, 0));
    }
}

#[test]
fn a_flag_that_was_not_offered_is_invalid() {
    for (command, flag, ability) in [
        (command::READ, command_flag::DF, TransmissionFlags::SEND_DF),
        (command::TRIM, command_flag::FUA, TransmissionFlags::SEND_FUA),
        (command::WRITE_ZEROES, command_flag::FAST_ZERO, TransmissionFlags::SEND_FAST_ZERO),
    ] {
        assert_eq!(refused(parse(without(ability), command, flag, 0, 512)), (Errno::Inval, 0));
    }
}

#[test]
fn writes_to_a_read_only_export_are_not_permitted() {
    for (command, skipped) in [(command::WRITE, 512), (command::TRIM, 0), (command::WRITE_ZEROES, 0)] {
        assert_eq!(refused(parse(read_only(), command, 0, 0, 512)), (Errno::Perm, skipped));
    }
    assert!(parse(read_only(), command::READ, 0, 0, 512).is_ok());
    assert!(parse(read_only(), command::FLUSH, 0, 0, 0).is_ok());
}

#[test]
fn a_request_beyond_the_end_has_its_error_and_its_connection() {
    let beyond = [(SIZE - 511, 512), (SIZE, 1), (u64::MAX, 512), (SIZE + 512, 0)];
    for (offset, length_bytes) in beyond {
        for command in [command::READ, command::TRIM, command::CACHE, command::BLOCK_STATUS] {
            assert_eq!(refused(compact(command, 0, offset, length_bytes)), (Errno::Inval, 0));
        }
        let skipped = u32::try_from(length_bytes).unwrap();
        assert_eq!(refused(compact(command::WRITE, 0, offset, length_bytes)), (Errno::NoSpc, skipped));
        assert_eq!(refused(compact(command::WRITE_ZEROES, 0, offset, length_bytes)), (Errno::NoSpc, 0));
    }
    assert!(compact(command::WRITE, 0, SIZE - 512, 512).is_ok());
}

#[test]
fn a_write_longer_than_the_payload_limit_ends_the_connection() {
    assert_eq!(ended(compact(command::WRITE, 0, 0, PAYLOAD_MAX + 1)), Errno::Inval);
    assert_eq!(ended(extended(command::WRITE, command_flag::PAYLOAD_LEN, 0, 1 << 40)), Errno::Inval);
    assert_eq!(ended(extended(command::TRIM, command_flag::PAYLOAD_LEN, 0, PAYLOAD_MAX + 1)), Errno::Inval);
    assert!(compact(command::WRITE, 0, 0, PAYLOAD_MAX).is_ok());
}

#[test]
fn a_read_longer_than_the_payload_limit_is_refused_and_the_connection_lives() {
    let simple = parse(session(ReplyStyle::Simple), command::READ, 0, 0, PAYLOAD_MAX + 1);
    assert_eq!(refused(simple), (Errno::Inval, 0));
    assert_eq!(refused(compact(command::READ, 0, 0, PAYLOAD_MAX + 1)), (Errno::Overflow, 0));
    assert_eq!(refused(compact(command::READ, command_flag::DF, 0, PAYLOAD_MAX + 1)), (Errno::Overflow, 0));
    assert!(compact(command::READ, command_flag::DF, 0, PAYLOAD_MAX).is_ok());
}

#[test]
fn commands_without_payload_may_be_longer_than_the_payload_limit() {
    for command in [command::TRIM, command::WRITE_ZEROES, command::CACHE, command::BLOCK_STATUS] {
        assert!(compact(command, 0, 0, SIZE).is_ok());
        let wide = Session { size_bytes: 1 << 62, ..session(ReplyStyle::Extended) };
        assert!(parse(wide, command, 0, 0, 1 << 62).is_ok());
    }
}

#[test]
fn a_request_off_the_block_size_is_invalid() {
    let block_sizes = BlockSizes { min_bytes: 512, ..BlockSizes::default() };
    let strict = Session { block_sizes, ..session(ReplyStyle::Structured) };
    assert_eq!(refused(parse(strict, command::READ, 0, 1, 512)), (Errno::Inval, 0));
    assert_eq!(refused(parse(strict, command::WRITE, 0, 512, 100)), (Errno::Inval, 100));
    assert!(parse(strict, command::WRITE, 0, 512, 1024).is_ok());
}

#[test]
fn a_flush_of_a_range_is_invalid() {
    assert_eq!(refused(compact(command::FLUSH, 0, 4096, 0)), (Errno::Inval, 0));
    assert_eq!(refused(compact(command::FLUSH, 0, 0, 4096)), (Errno::Inval, 0));
}

#[test]
fn block_status_needs_a_selected_context_and_some_bytes() {
    let none = Session { has_contexts: false, ..session(ReplyStyle::Structured) };
    assert_eq!(refused(parse(none, command::BLOCK_STATUS, 0, 0, 512)), (Errno::Inval, 0));
    assert_eq!(refused(compact(command::BLOCK_STATUS, 0, 0, 0)), (Errno::Inval, 0));
}

#[test]
fn empty_requests_are_accepted() {
    for command in [command::READ, command::WRITE, command::TRIM, command::CACHE, command::WRITE_ZEROES] {
        assert!(compact(command, 0, SIZE, 0).is_ok());
    }
}

#[test]
fn a_payload_where_none_belongs_is_skipped() {
    let flag = command_flag::PAYLOAD_LEN;
    for command in [command::READ, command::FLUSH, command::TRIM, command::WRITE_ZEROES, command::BLOCK_STATUS] {
        assert_eq!(refused(extended(command, flag, 0, 24)), (Errno::Inval, 24));
        // In compact form the flag is unknown and announces nothing.
        assert_eq!(refused(compact(command, flag, 0, 24)), (Errno::Inval, 0));
    }
    assert_eq!(refused(compact(command::WRITE, flag, 0, 24)), (Errno::Inval, 24));
}

/// QEMU 10 sends writes of extended form without the flag that must announce their payload.
#[test]
fn a_write_of_extended_form_has_a_payload_whether_it_says_so_or_not() {
    for flags in [0, command_flag::PAYLOAD_LEN] {
        let write = extended(command::WRITE, flags, 512, 1024).unwrap();
        assert_eq!((write, write.payload_bytes()), (Request::Write { span: span(512, 1024), fua: false }, 1024));
        assert_eq!(refused(extended(command::WRITE, flags, SIZE, 1024)), (Errno::NoSpc, 1024));
    }
}

#[test]
fn zeroes_that_insist_on_speed_fail_where_they_cannot_have_it() {
    let fast = command_flag::FAST_ZERO;
    let no_hole = fast | command_flag::NO_HOLE;
    for (fast_zero, may_punch, may_not_punch) in
        [(FastZero::Never, false, false), (FastZero::WithHole, true, false), (FastZero::Always, true, true)]
    {
        let session = Session { fast_zero, ..session(ReplyStyle::Structured) };
        for (flags, succeeds) in [(fast, may_punch), (no_hole, may_not_punch)] {
            let result = parse(session, command::WRITE_ZEROES, flags, 0, 512);
            if succeeds {
                assert!(matches!(result, Ok(Request::WriteZeroes { fast_zero: true, .. })));
            } else {
                assert_eq!(refused(result), (Errno::NotSup, 0));
            }
        }
        assert!(parse(session, command::WRITE_ZEROES, command_flag::NO_HOLE, 0, 512).is_ok());
    }
}
