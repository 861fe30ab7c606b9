//! One test per rule of the NBD handshake and its exact answer: NBD proto.md, "Handshake phase".
#![cfg(test)]
#![forbid(unsafe_code)]

mod driver;

use driver::{Driven, Outcome, drive};
use proto::nbd::client::{
    decode_greeting, decode_option_reply, encode_client_flags, encode_export_name, encode_info, encode_meta_context,
    encode_option,
};
use proto::nbd::constants::{info, option, option_reply};
use proto::nbd::{
    BlockSizes, CloseReason, Export, Handshake, Negotiated, Refusal, ReplyStyle, Step, TlsPolicy, TransmissionFlags,
    limit,
};

/// Fixed newstyle, no zeroes.
const FLAGS: u32 = 3;

fn exports() -> Vec<Export> {
    let mut disk = Export { description: "a disk".to_owned(), ..Export::writable("disk", 1 << 30) };
    disk.contexts.push("x-test:one".to_owned());
    vec![disk, Export::writable("other", 4096)]
}

/// A client's stream under construction.
struct Client(Vec<u8>);

impl Client {
    fn new(flags: u32) -> Self {
        let mut bytes = Vec::new();
        encode_client_flags(flags, &mut bytes);
        Self(bytes)
    }

    fn option(mut self, number: u32, data: &[u8]) -> Self {
        encode_option(number, data, &mut self.0);
        self
    }

    fn info(mut self, number: u32, name: &str, infos: &[u16]) -> Self {
        encode_info(number, name, infos, &mut self.0);
        self
    }

    fn go(self, name: &str) -> Self {
        self.info(option::GO, name, &[])
    }

    fn export_name(mut self, name: &str) -> Self {
        encode_export_name(name, &mut self.0);
        self
    }

    fn meta_context(mut self, number: u32, name: &str, queries: &[&str]) -> Self {
        encode_meta_context(number, name, queries, &mut self.0);
        self
    }

    fn drive(&self, policy: TlsPolicy) -> Driven {
        drive(Handshake::new(policy), &exports(), [self.0.as_slice()])
    }

    fn replies(&self) -> Vec<u32> {
        kinds(&self.drive(TlsPolicy::Off))
    }
}

fn client() -> Client {
    Client::new(FLAGS)
}

/// Types of the option replies in the output, infos and contexts included.
fn kinds(driven: &Driven) -> Vec<u32> {
    replies(driven).into_iter().map(|(kind, _)| kind).collect()
}

fn replies(driven: &Driven) -> Vec<(u32, Vec<u8>)> {
    let mut output = driven.output.as_slice();
    assert_eq!(decode_greeting(&mut output), Ok(Some(3)));
    let mut replies = Vec::new();
    while let Ok(Some(reply)) = decode_option_reply(&mut output) {
        replies.push((reply.kind, reply.data));
    }
    replies
}

fn closed(driven: &Driven) -> CloseReason {
    match driven.outcome {
        Outcome::Closed(reason) => reason,
        Outcome::Waiting | Outcome::Transmission(_) => panic!("{driven:?}"),
    }
}

fn negotiated(driven: Driven) -> Negotiated {
    match driven.outcome {
        Outcome::Transmission(negotiated) => *negotiated,
        Outcome::Waiting | Outcome::Closed(_) => panic!("{:?}", driven.outcome),
    }
}

#[test]
fn a_client_flag_that_was_not_offered_ends_the_connection() {
    assert_eq!(closed(&Client::new(4 | FLAGS).drive(TlsPolicy::Off)), CloseReason::UnknownClientFlags);
    assert_eq!(closed(&Client::new(1 << 31).drive(TlsPolicy::Off)), CloseReason::UnknownClientFlags);
}

#[test]
fn an_option_without_its_magic_ends_the_connection() {
    let mut stream = client();
    stream.0.extend_from_slice(&[0; 16]);
    assert_eq!(closed(&stream.drive(TlsPolicy::Off)), CloseReason::BadOptionMagic);
}

#[test]
fn a_client_without_fixed_newstyle_may_only_name_an_export() {
    let driven = Client::new(0).option(option::LIST, &[]).drive(TlsPolicy::Off);
    assert_eq!(closed(&driven), CloseReason::NotFixedNewstyle);
    let driven = Client::new(0).export_name("disk").drive(TlsPolicy::Off);
    assert_eq!(driven.output.len(), 18 + 10 + 124);
    assert!(!negotiated(driven).no_zeroes);
}

#[test]
fn zeroes_after_an_export_name_are_left_out_on_request() {
    let driven = client().export_name("disk").drive(TlsPolicy::Off);
    assert_eq!(driven.output.len(), 18 + 10);
    assert_eq!(driven.output[18..26], (1_u64 << 30).to_be_bytes());
}

#[test]
fn an_unknown_option_is_refused_and_the_handshake_goes_on() {
    let stream = client().option(4, &[]).option(99, &[7; 300]).option(u32::MAX, &[]).option(option::LIST, &[]);
    let unsup = option_reply::ERR_UNSUP;
    assert_eq!(stream.replies(), [unsup, unsup, unsup, option_reply::SERVER, option_reply::SERVER, option_reply::ACK]);
}

#[test]
fn a_list_names_each_export_with_its_description() {
    let driven = client().option(option::LIST, &[]).drive(TlsPolicy::Off);
    let data: Vec<Vec<u8>> = replies(&driven).into_iter().map(|(_, data)| data).collect();
    assert_eq!(data, [b"\0\0\0\x04diska disk".to_vec(), b"\0\0\0\x05other".to_vec(), Vec::new()]);
}

#[test]
fn an_option_that_takes_no_data_is_invalid_with_some() {
    for number in [option::LIST, option::STARTTLS, option::STRUCTURED_REPLY, option::EXTENDED_HEADERS] {
        assert_eq!(client().option(number, b"x").replies(), [option_reply::ERR_INVALID], "{number}");
    }
}

#[test]
fn an_abort_is_acknowledged_whatever_it_carries() {
    let driven = client().option(option::ABORT, b"farewell").drive(TlsPolicy::Required);
    assert_eq!((kinds(&driven), closed(&driven)), (vec![option_reply::ACK], CloseReason::Aborted));
}

#[test]
fn an_unknown_export_is_refused_and_another_may_be_tried() {
    let driven = client().info(option::INFO, "none", &[]).go("none").go("disk").drive(TlsPolicy::Off);
    let unknown = option_reply::ERR_UNKNOWN;
    assert_eq!(kinds(&driven), [unknown, unknown, option_reply::INFO, option_reply::ACK]);
    assert_eq!(negotiated(driven).export.name, "disk");
}

#[test]
fn an_unknown_export_by_the_old_option_ends_the_connection() {
    assert_eq!(closed(&client().export_name("none").drive(TlsPolicy::Off)), CloseReason::ExportRefused);
}

#[test]
fn lengths_within_an_info_request_must_add_up() {
    let name_too_long = b"\0\0\0\x09disk\0\0".as_slice();
    let too_few_infos = b"\0\0\0\x04disk\0\x02\0\0";
    let too_many_infos = b"\0\0\0\x04disk\0\x00\0\0";
    let no_count = b"\0\0\0\x04disk";
    for data in [name_too_long, too_few_infos, too_many_infos, no_count, b"", b"\xff\xff\xff\xff"] {
        assert_eq!(client().option(option::GO, data).replies(), [option_reply::ERR_INVALID], "{data:?}");
    }
}

#[test]
fn an_export_name_must_be_a_string_of_the_protocol() {
    for name in ["x".repeat(4097), "a\0b".to_owned()] {
        assert_eq!(client().go(&name).replies(), [option_reply::ERR_INVALID]);
        assert_eq!(closed(&client().export_name(&name).drive(TlsPolicy::Off)), CloseReason::BadExportName);
    }
    assert_eq!(client().option(option::GO, b"\0\0\0\x02\xff\xfe\0\0").replies(), [option_reply::ERR_INVALID]);
    assert_eq!(client().go(&"x".repeat(4096)).replies(), [option_reply::ERR_UNKNOWN]);
}

#[test]
fn size_and_flags_are_always_told_and_other_facts_when_asked() {
    let asked = |infos: &[u16]| {
        let driven = client().info(option::INFO, "disk", infos).drive(TlsPolicy::Off);
        let told = replies(&driven).into_iter().filter(|(kind, _)| *kind == option_reply::INFO);
        told.map(|(_, data)| data).collect::<Vec<_>>()
    };
    let flags = TransmissionFlags::WRITABLE.without(TransmissionFlags::SEND_DF).to_wire().to_be_bytes();
    let export = [[0, 0].as_slice(), &(1_u64 << 30).to_be_bytes(), &flags].concat();
    assert_eq!(asked(&[]), [export.as_slice()]);
    assert_eq!(asked(&[info::EXPORT, 77]), [export.as_slice()]);
    let sizes = b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0".as_slice();
    let all = asked(&[info::BLOCK_SIZE, info::DESCRIPTION, info::NAME, info::NAME]);
    assert_eq!(all, [export.as_slice(), b"\0\x01disk", b"\0\x02a disk", sizes]);
}

#[test]
fn unusual_block_sizes_are_told_unasked() {
    let sizes = BlockSizes { min_bytes: 512, ..BlockSizes::default() };
    let export = Export { block_sizes: sizes, ..Export::writable("disk", 4096) };
    let driven = drive(Handshake::new(TlsPolicy::Off), &[export], [client().go("disk").0.as_slice()]);
    assert_eq!(kinds(&driven), [option_reply::INFO, option_reply::INFO, option_reply::ACK]);
    assert!(!negotiated(driven).block_sizes_asked);
}

#[test]
fn one_piece_reads_are_offered_only_with_replies_in_pieces() {
    let entered = |stream: Client| negotiated(stream.go("disk").drive(TlsPolicy::Off));
    let simple = entered(client());
    assert_eq!(simple.style, ReplyStyle::Simple);
    assert!(!simple.flags.contains(TransmissionFlags::SEND_DF));
    let structured = entered(client().option(option::STRUCTURED_REPLY, &[]));
    assert_eq!(structured.style, ReplyStyle::Structured);
    assert!(structured.flags.contains(TransmissionFlags::SEND_DF));
    let extended = entered(client().option(option::STRUCTURED_REPLY, &[]).option(option::EXTENDED_HEADERS, &[]));
    assert_eq!(extended.style, ReplyStyle::Extended);
    assert!(extended.flags.contains(TransmissionFlags::SEND_DF));
}

#[test]
fn fast_zeroes_are_not_offered_without_write_zeroes() {
    let flags = TransmissionFlags::WRITABLE.without(TransmissionFlags::SEND_WRITE_ZEROES);
    let export = Export { flags, ..Export::writable("disk", 4096) };
    let driven = drive(Handshake::new(TlsPolicy::Off), &[export], [client().go("disk").0.as_slice()]);
    assert!(!negotiated(driven).flags.contains(TransmissionFlags::SEND_FAST_ZERO));
}

#[test]
fn structured_replies_cannot_be_negotiated_twice_nor_after_extended_headers() {
    let (ack, invalid) = (option_reply::ACK, option_reply::ERR_INVALID);
    let structured = option::STRUCTURED_REPLY;
    assert_eq!(client().option(structured, &[]).option(structured, &[]).replies(), [ack, invalid]);
    let extended = client().option(option::EXTENDED_HEADERS, &[]);
    assert_eq!(extended.option(structured, &[]).replies(), [ack, option_reply::ERR_EXT_HEADER_REQD]);
}

#[test]
fn extended_headers_cannot_be_negotiated_twice() {
    let stream = client().option(option::EXTENDED_HEADERS, &[]).option(option::EXTENDED_HEADERS, &[]);
    assert_eq!(stream.replies(), [option_reply::ACK, option_reply::ERR_INVALID]);
}

#[test]
fn extended_headers_exclude_the_old_way_to_enter() {
    let stream = client().option(option::EXTENDED_HEADERS, &[]).export_name("disk");
    assert_eq!(closed(&stream.drive(TlsPolicy::Off)), CloseReason::ExportNameAfterExtendedHeaders);
}

#[test]
fn metadata_contexts_need_replies_in_pieces() {
    for number in [option::LIST_META_CONTEXT, option::SET_META_CONTEXT] {
        assert_eq!(client().meta_context(number, "disk", &[]).replies(), [option_reply::ERR_INVALID]);
        for enabling in [option::STRUCTURED_REPLY, option::EXTENDED_HEADERS] {
            let stream = client().option(enabling, &[]).meta_context(number, "disk", &["base:allocation"]);
            assert_eq!(stream.replies(), [option_reply::ACK, option_reply::META_CONTEXT, option_reply::ACK]);
        }
    }
}

fn structured() -> Client {
    client().option(option::STRUCTURED_REPLY, &[])
}

#[test]
fn metadata_contexts_of_an_unknown_export_are_unknown() {
    for number in [option::LIST_META_CONTEXT, option::SET_META_CONTEXT] {
        let stream = structured().meta_context(number, "none", &[]);
        assert_eq!(stream.replies(), [option_reply::ACK, option_reply::ERR_UNKNOWN]);
    }
}

#[test]
fn a_listing_of_contexts_bears_no_ids_and_a_selection_does() {
    let data = |number: u32, queries: &[&str]| {
        let driven = structured().meta_context(number, "disk", queries).drive(TlsPolicy::Off);
        let contexts = replies(&driven).into_iter().filter(|(kind, _)| *kind == option_reply::META_CONTEXT);
        contexts.map(|(_, data)| data).collect::<Vec<_>>()
    };
    let listed = data(option::LIST_META_CONTEXT, &[]);
    assert_eq!(listed, [b"\0\0\0\0base:allocation".as_slice(), b"\0\0\0\0x-test:one"]);
    assert_eq!(data(option::LIST_META_CONTEXT, &["x-test:"]), [b"\0\0\0\0x-test:one"]);
    let selected = data(option::SET_META_CONTEXT, &["x-test:one", "base:allocation", "no colon"]);
    assert_eq!(selected, [b"\0\0\0\0base:allocation".as_slice(), b"\0\0\0\x01x-test:one"]);
    assert!(data(option::SET_META_CONTEXT, &[]).is_empty());
    assert!(data(option::SET_META_CONTEXT, &["base:"]).is_empty());
}

#[test]
fn lengths_within_a_context_option_must_add_up() {
    let query_too_long = b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x09base:".as_slice();
    let too_few_queries = b"\0\0\0\x04disk\0\0\0\x02\0\0\0\x05base:";
    let bytes_behind = b"\0\0\0\x04disk\0\0\0\x01\0\0\0\x05base:!";
    for data in [query_too_long, too_few_queries, bytes_behind, b"\0\0\0\x04disk\0\0", b""] {
        let stream = structured().option(option::LIST_META_CONTEXT, data);
        assert_eq!(stream.replies(), [option_reply::ACK, option_reply::ERR_INVALID], "{data:?}");
    }
    let long = "x:".repeat(2049);
    let stream = structured().meta_context(option::SET_META_CONTEXT, "disk", &[&long]);
    assert_eq!(stream.replies(), [option_reply::ACK, option_reply::ERR_INVALID]);
}

#[test]
fn too_many_queries_are_refused() {
    let queries = vec!["a:b"; limit::QUERIES_MAX as usize + 1];
    let stream = structured().meta_context(option::LIST_META_CONTEXT, "disk", &queries);
    assert_eq!(stream.replies(), [option_reply::ACK, option_reply::ERR_TOO_BIG]);
    let stream = structured().meta_context(option::LIST_META_CONTEXT, "disk", &queries[1..]);
    assert_eq!(stream.replies(), [option_reply::ACK, option_reply::ACK]);
}

fn contexts_after(stream: &Client) -> Vec<u32> {
    let driven = stream.drive(TlsPolicy::Off);
    negotiated(driven).contexts.iter().map(|context| context.id).collect()
}

#[test]
fn a_selection_is_void_for_another_export() {
    let selected = || structured().meta_context(option::SET_META_CONTEXT, "disk", &["base:allocation"]);
    assert_eq!(contexts_after(&selected().go("disk")), [0]);
    assert_eq!(contexts_after(&selected().export_name("disk")), [0]);
    assert!(contexts_after(&selected().go("other")).is_empty());
    assert_eq!(contexts_after(&selected().go("none").go("disk")), [0]);
}

#[test]
fn a_later_selection_replaces_an_earlier_one_even_when_it_fails() {
    let set = option::SET_META_CONTEXT;
    let selected = || structured().meta_context(set, "disk", &["base:allocation"]);
    assert_eq!(contexts_after(&selected().meta_context(set, "disk", &["x-test:one"]).go("disk")), [1]);
    assert!(contexts_after(&selected().meta_context(set, "disk", &[]).go("disk")).is_empty());
    assert!(contexts_after(&selected().meta_context(set, "none", &[]).go("disk")).is_empty());
    assert!(contexts_after(&selected().option(set, b"?").go("disk")).is_empty());
    assert!(contexts_after(&selected().option(set, &[0; 70_000]).go("disk")).is_empty());
    let listed = selected().meta_context(option::LIST_META_CONTEXT, "other", &[]);
    assert_eq!(contexts_after(&listed.go("disk")), [0]);
}

#[test]
fn a_selection_is_void_when_the_export_has_changed_since() {
    let stream = structured().meta_context(option::SET_META_CONTEXT, "disk", &["x-test:one"]).go("disk");
    let mut handshake = Handshake::new(TlsPolicy::Off);
    let mut input = stream.0.as_slice();
    assert!(matches!(handshake.advance(&mut input), Step::FindExport { .. }));
    handshake.answer_export(Ok(exports().remove(0)));
    assert!(matches!(handshake.advance(&mut input), Step::FindExport { .. }));
    handshake.answer_export(Ok(Export::writable("disk", 4096)));
    let Step::Transmission(negotiated) = handshake.advance(&mut input) else { panic!() };
    assert!(negotiated.contexts.is_empty());
    assert!(!negotiated.session().has_contexts);
    assert_eq!(handshake.advance(&mut input), Step::Close(CloseReason::Over));
}

#[test]
fn tls_is_refused_where_it_is_off() {
    assert_eq!(client().option(option::STARTTLS, &[]).replies(), [option_reply::ERR_POLICY]);
}

/// Drives pieces that are received one after the other, as the client waits for the answers between them.
fn drive_pieces(policy: TlsPolicy, pieces: &[Client]) -> Driven {
    drive(Handshake::new(policy), &exports(), pieces.iter().map(|piece| piece.0.as_slice()))
}

fn more() -> Client {
    Client(Vec::new())
}

#[test]
fn starting_tls_forgets_what_was_negotiated_before() {
    let before = structured().meta_context(option::SET_META_CONTEXT, "disk", &["base:allocation"]);
    let driven = drive_pieces(TlsPolicy::Optional, &[before.option(option::STARTTLS, &[]), more().go("disk")]);
    let negotiated = negotiated(driven);
    assert!(negotiated.tls && negotiated.contexts.is_empty());
    assert_eq!(negotiated.style, ReplyStyle::Simple);
}

#[test]
fn tls_cannot_be_started_twice() {
    for policy in [TlsPolicy::Optional, TlsPolicy::Required] {
        let pieces = [client().option(option::STARTTLS, &[]), more().option(option::STARTTLS, &[])];
        assert_eq!(kinds(&drive_pieces(policy, &pieces)), [option_reply::ACK, option_reply::ERR_INVALID]);
    }
}

/// A man in the middle who puts options in front of the client's TLS handshake must not have them taken for the client's.
#[test]
fn bytes_in_the_clear_behind_the_request_for_tls_end_the_connection() {
    let driven = client().option(option::STARTTLS, &[]).go("disk").drive(TlsPolicy::Required);
    assert_eq!(closed(&driven), CloseReason::BytesBeforeTls);
    assert!(driven.asked.is_empty());
}

#[test]
fn nothing_but_tls_and_farewell_is_served_where_tls_is_required() {
    let reqd = option_reply::ERR_TLS_REQD;
    for number in [option::LIST, option::INFO, option::GO, option::STRUCTURED_REPLY, option::SET_META_CONTEXT, 99] {
        let driven = client().option(number, b"data").drive(TlsPolicy::Required);
        assert_eq!((kinds(&driven), driven.asked.len()), (vec![reqd], 0), "{number}");
    }
    let driven = client().export_name("disk").drive(TlsPolicy::Required);
    assert_eq!(closed(&driven), CloseReason::TlsRequired);
    let pieces = [client().option(option::STARTTLS, &[]), more().export_name("disk")];
    assert!(negotiated(drive_pieces(TlsPolicy::Required, &pieces)).tls);
}

fn refused(policy: TlsPolicy, refusal: Refusal) -> u32 {
    let stream = client().go("disk");
    let mut handshake = Handshake::new(policy);
    let mut input = stream.0.as_slice();
    assert!(matches!(handshake.advance(&mut input), Step::FindExport { .. }));
    handshake.answer_export(Err(refusal));
    assert_eq!(handshake.advance(&mut input), Step::NeedBytes);
    let output = handshake.take_output();
    decode_option_reply(&mut &output[18..]).unwrap().unwrap().kind
}

#[test]
fn each_refusal_of_an_export_has_its_reply() {
    assert_eq!(refused(TlsPolicy::Off, Refusal::Unknown), option_reply::ERR_UNKNOWN);
    assert_eq!(refused(TlsPolicy::Off, Refusal::Policy), option_reply::ERR_POLICY);
    assert_eq!(refused(TlsPolicy::Off, Refusal::Shutdown), option_reply::ERR_SHUTDOWN);
    assert_eq!(refused(TlsPolicy::Optional, Refusal::TlsRequired), option_reply::ERR_TLS_REQD);
    // A server that does not offer TLS must not ask for it.
    assert_eq!(refused(TlsPolicy::Off, Refusal::TlsRequired), option_reply::ERR_POLICY);
}

#[test]
fn an_option_that_is_too_long_is_skipped_and_refused() {
    let long = vec![0; limit::OPTION_BYTES_MAX as usize + 1];
    let driven = client().option(option::GO, &long).go("disk").drive(TlsPolicy::Off);
    assert_eq!(kinds(&driven), [option_reply::ERR_TOO_BIG, option_reply::INFO, option_reply::ACK]);
    let driven = client().option(option::EXPORT_NAME, &long).drive(TlsPolicy::Off);
    assert_eq!(closed(&driven), CloseReason::BadExportName);
}

#[test]
fn skipping_has_a_bound_that_holds_before_the_bytes_come() {
    let mut stream = client();
    for field in [b"IHAVEOPT".as_slice(), &99_u32.to_be_bytes(), &u32::MAX.to_be_bytes()] {
        stream.0.extend_from_slice(field);
    }
    assert_eq!(closed(&stream.drive(TlsPolicy::Off)), CloseReason::TooMuchSkipped);
    let mebibyte = vec![0; 1 << 20];
    let stream = (0..4).fold(client(), |stream, _| stream.option(99, &mebibyte));
    assert_eq!(stream.replies().len(), 4);
    assert_eq!(closed(&stream.option(99, b"x").drive(TlsPolicy::Off)), CloseReason::TooMuchSkipped);
}

#[test]
fn the_number_of_options_has_a_bound() {
    let stream = (0..limit::OPTIONS_MAX).fold(client(), |stream, _| stream.option(99, &[]));
    assert_eq!(stream.replies().len(), limit::OPTIONS_MAX as usize);
    assert_eq!(closed(&stream.option(99, &[]).drive(TlsPolicy::Off)), CloseReason::TooManyOptions);
}

#[test]
fn a_list_that_grows_too_long_is_cut_off_with_an_error() {
    let description = "d".repeat(9000);
    let mut handshake = Handshake::new(TlsPolicy::Off);
    let stream = client().option(option::LIST, &[]);
    assert_eq!(handshake.advance(&mut stream.0.as_slice()), Step::ListExports);
    let _ = handshake.take_output();
    handshake.answer_list(Ok(std::iter::repeat_n(("name", description.as_str()), 5000)));
    let output = handshake.take_output();
    assert!(output.len() < limit::LIST_BYTES_MAX + 8192);
    let mut rest = output.as_slice();
    let mut last = None;
    while let Ok(Some(reply)) = decode_option_reply(&mut rest) {
        assert!(reply.data.len() <= 4 + 4 + 4096);
        last = Some(reply.kind);
    }
    assert_eq!(last, Some(option_reply::ERR_TOO_BIG));
}

#[test]
fn more_contexts_than_one_answer_may_tell_of_are_refused_and_the_earlier_selection_is_gone() {
    let names: Vec<String> = (0..=limit::CONTEXTS_MAX).map(|n| format!("x-test:{n}")).collect();
    let mut many = Export::writable("many", 4096);
    many.contexts.clone_from(&names);
    let select = |stream: Client, count: usize| {
        let queries: Vec<&str> = names[..count].iter().map(String::as_str).collect();
        stream.meta_context(option::SET_META_CONTEXT, "many", &queries)
    };
    let driven = |stream: &Client| drive(Handshake::new(TlsPolicy::Off), &[many.clone()], [stream.0.as_slice()]);
    let allowed = driven(&select(structured(), limit::CONTEXTS_MAX).go("many"));
    assert_eq!(negotiated(allowed).contexts.len(), limit::CONTEXTS_MAX);
    let refused = driven(&select(select(structured(), 1), names.len()).go("many"));
    assert!(kinds(&refused).contains(&option_reply::ERR_TOO_BIG));
    assert!(negotiated(refused).contexts.is_empty());
}

#[test]
fn requests_behind_the_last_option_are_handed_over() {
    let mut stream = client().go("disk");
    stream.0.extend_from_slice(b"requests");
    assert_eq!(stream.drive(TlsPolicy::Off).rest, b"requests");
    let mut stream = client().export_name("disk");
    stream.0.extend_from_slice(b"requests");
    assert_eq!(stream.drive(TlsPolicy::Off).rest, b"requests");
}

#[test]
fn a_question_is_repeated_until_it_is_answered() {
    let stream = client().option(option::LIST, &[]).go("disk");
    let mut handshake = Handshake::new(TlsPolicy::Off);
    let mut input = stream.0.as_slice();
    assert_eq!(handshake.advance(&mut input), Step::ListExports);
    assert_eq!(handshake.advance(&mut input), Step::ListExports);
    handshake.answer_list(Ok([("disk", "")]));
    let asked = handshake.advance(&mut input);
    assert_eq!(asked, handshake.advance(&mut input));
    assert!(matches!(asked, Step::FindExport { name, .. } if name == "disk"));
}
