//! What holds for all inputs: decoding undoes encoding, how a stream is cut does not matter, no bytes panic or cost much.
#![cfg(test)]
#![forbid(unsafe_code)]

mod driver;

use driver::{Driven, Outcome, drive};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proto::nbd::client::{
    Body, Reply, decode_option_reply, decode_reply, encode_client_flags, encode_info, encode_meta_context,
    encode_option, encode_request,
};
use proto::nbd::constants::{command, option};
use proto::nbd::{
    BlockSizes, Cookie, Errno, ErrorReply, Export, FastZero, Handshake, ReplyStyle, ReplyTo, Request, RequestHeader,
    STATUS_DESCRIPTORS_MAX, Session, Span, StatusChunk, StatusExtent, TlsPolicy, TransmissionFlags, UnwantedPayload,
    limit,
};

const STYLES: [ReplyStyle; 3] = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended];
const CHUNKED: [ReplyStyle; 2] = [ReplyStyle::Structured, ReplyStyle::Extended];

fn header(style: ReplyStyle) -> impl Strategy<Value = RequestHeader> {
    let length_max = if style == ReplyStyle::Extended { u64::MAX } else { u64::from(u32::MAX) };
    (any::<u16>(), any::<u16>(), any::<u64>(), any::<u64>(), 0..=length_max).prop_map(
        |(flags, command, cookie, offset, length_bytes)| RequestHeader {
            flags,
            command,
            cookie: Cookie(cookie),
            offset,
            length_bytes,
        },
    )
}

fn styled_header() -> impl Strategy<Value = (ReplyStyle, RequestHeader)> {
    select(STYLES.to_vec()).prop_flat_map(|style| (Just(style), header(style)))
}

/// Numbers around the places where rules change.
fn edge() -> impl Strategy<Value = u64> {
    let edges = vec![0, 1, 511, 512, 4096, 32 << 20, u64::from(u32::MAX), 1 << 62, 1 << 63, u64::MAX];
    prop_oneof![select(edges.clone()), (select(edges), 0_u64..3).prop_map(|(edge, more)| edge.wrapping_add(more))]
}

fn session() -> impl Strategy<Value = Session> {
    let fast_zero = select(vec![FastZero::Never, FastZero::WithHole, FastZero::Always]);
    (select(STYLES.to_vec()), edge(), any::<u16>(), select(vec![1_u32, 512, 4096]), fast_zero, any::<bool>()).prop_map(
        |(style, size_bytes, flags, min_bytes, fast_zero, has_contexts)| Session {
            size_bytes,
            flags: TransmissionFlags::from_wire(flags),
            style,
            block_sizes: BlockSizes { min_bytes, ..BlockSizes::default() },
            fast_zero,
            has_contexts,
        },
    )
}

fn span_of(request: Request) -> Option<Span> {
    match request {
        Request::Read { span, .. }
        | Request::Write { span, .. }
        | Request::Trim { span, .. }
        | Request::Cache { span }
        | Request::WriteZeroes { span, .. }
        | Request::BlockStatus { span, .. } => Some(span),
        Request::Disconnect | Request::Flush => None,
    }
}

fn any_session(style: ReplyStyle) -> Session {
    Session {
        size_bytes: 0,
        flags: TransmissionFlags::NONE,
        style,
        block_sizes: BlockSizes::default(),
        fast_zero: FastZero::Never,
        has_contexts: false,
    }
}

/// The reply in `bytes`, which no beginning of them is.
fn decoded_whole(style: ReplyStyle, data_len: usize, bytes: &[u8]) -> Reply {
    for len in [0, 3, 4, 15, 16, 20, 31, bytes.len() - 1].into_iter().filter(|len| *len < bytes.len()) {
        assert_eq!(decode_reply(style, |_| data_len, &mut &bytes[..len]), Ok(None));
    }
    let mut input = bytes;
    let reply = decode_reply(style, |_| data_len, &mut input).unwrap().unwrap();
    assert_eq!(input, []);
    reply
}

fn reply_to() -> impl Strategy<Value = ReplyTo> {
    (any::<u64>(), any::<u64>()).prop_map(|(cookie, offset)| ReplyTo { cookie: Cookie(cookie), offset })
}

fn expected(style: ReplyStyle, to: ReplyTo, is_last: bool, body: Body) -> Reply {
    let offset = (style == ReplyStyle::Extended).then_some(to.offset);
    Reply { cookie: to.cookie, offset, is_last, body }
}

proptest! {
    #[test]
    fn a_decoded_header_is_the_encoded_one((style, header) in styled_header(), more in vec(any::<u8>(), 0..4)) {
        let mut bytes = Vec::new();
        encode_request(style, &header, &mut bytes);
        for len in 0..bytes.len() {
            let mut input = &bytes[..len];
            prop_assert_eq!(any_session(style).decode_header(&mut input), Ok(None));
            prop_assert_eq!(input.len(), len);
        }
        bytes.extend_from_slice(&more);
        let mut input = bytes.as_slice();
        prop_assert_eq!(any_session(style).decode_header(&mut input), Ok(Some(header)));
        prop_assert_eq!(input, more.as_slice());
    }

    #[test]
    fn an_accepted_request_lies_within_the_export_and_every_payload_within_the_limit(
        session in session(),
        command in prop_oneof![9 => 0_u16..9, 1 => any::<u16>()],
        flags in prop_oneof![0_u16..64, any::<u16>()],
        (offset, length_bytes) in (edge(), edge()),
    ) {
        let header = RequestHeader { flags, command, cookie: Cookie(0), offset, length_bytes };
        match session.parse(&header) {
            Ok(request) => {
                prop_assert!(request.payload_bytes() <= u64::from(session.block_sizes.payload_bytes_max));
                prop_assert_eq!(request.payload_bytes() > 0, command == command::WRITE && length_bytes > 0);
                if let Some(span) = span_of(request) {
                    prop_assert!(span.offset.checked_add(span.len_bytes).unwrap() <= session.size_bytes);
                    prop_assert_eq!((span.offset, span.len_bytes), (offset, length_bytes));
                }
            }
            Err(rejection) => if let UnwantedPayload::Skip { bytes } = rejection.payload {
                prop_assert!(bytes <= session.block_sizes.payload_bytes_max);
                prop_assert!(bytes == 0 || u64::from(bytes) == length_bytes);
            }
        }
    }

    #[test]
    fn a_decoded_read_reply_is_the_encoded_one(
        style in select(STYLES.to_vec()), to in reply_to(), data in vec(any::<u8>(), 0..600),
    ) {
        let mut bytes = style.read(to, u32::try_from(data.len()).unwrap()).as_slice().to_vec();
        bytes.extend_from_slice(&data);
        let body = match style {
            ReplyStyle::Simple => Body::Simple { error: 0, data: data.clone() },
            ReplyStyle::Structured | ReplyStyle::Extended if data.is_empty() => Body::None,
            ReplyStyle::Structured | ReplyStyle::Extended => Body::Data { at: to.offset, data: data.clone() },
        };
        prop_assert_eq!(decoded_whole(style, data.len(), &bytes), expected(style, to, true, body));
    }

    #[test]
    fn decoded_chunks_are_the_encoded_ones(
        style in select(CHUNKED.to_vec()), to in reply_to(), at in any::<u64>(), data in vec(any::<u8>(), 1..600),
        len_bytes in 1_u32.., is_last in any::<bool>(),
    ) {
        let mut bytes = style.data_chunk(to, at, u32::try_from(data.len()).unwrap(), is_last).as_slice().to_vec();
        bytes.extend_from_slice(&data);
        prop_assert_eq!(decoded_whole(style, 0, &bytes), expected(style, to, is_last, Body::Data { at, data }));
        let hole = style.hole_chunk(to, at, len_bytes, is_last);
        let body = Body::Hole { at, len_bytes };
        prop_assert_eq!(decoded_whole(style, 0, hole.as_slice()), expected(style, to, is_last, body));
        prop_assert_eq!(decoded_whole(style, 0, style.done(to).as_slice()), expected(style, to, true, Body::None));
    }

    #[test]
    fn a_decoded_error_is_the_encoded_one(
        style in select(STYLES.to_vec()), to in reply_to(), errno in select(Errno::ALL.to_vec()),
        message in ".{0,60}", at in any::<Option<u64>>(),
    ) {
        let mut bytes = Vec::new();
        style.encode_error(to, ErrorReply { errno, message: &message, at }, &mut bytes);
        let error = errno.to_wire();
        let body = |message: &str, at| match style {
            ReplyStyle::Simple => Body::Simple { error, data: Vec::new() },
            ReplyStyle::Structured | ReplyStyle::Extended => {
                Body::Error { error, message: message.as_bytes().to_vec(), at }
            }
        };
        prop_assert_eq!(decoded_whole(style, 0, &bytes), expected(style, to, true, body(&message, at)));
        let short = style.error(to, errno);
        prop_assert_eq!(decoded_whole(style, 0, short.as_slice()), expected(style, to, true, body("", None)));
    }

    #[test]
    fn decoded_extents_are_the_encoded_ones_cut_to_the_request(
        style in select(CHUNKED.to_vec()), to in reply_to(), context_id in any::<u32>(), is_last in any::<bool>(),
        lens in vec(0_u64..1 << 20, 0..20), one_extent in any::<bool>(), len_bytes_max in 1_u64..1 << 22,
    ) {
        let extents: Vec<StatusExtent> =
            lens.iter().zip(0..).map(|(len_bytes, status)| StatusExtent { len_bytes: *len_bytes, status }).collect();
        let mut wanted = Vec::new();
        let mut left_bytes = len_bytes_max;
        for extent in extents.iter().filter(|extent| extent.len_bytes > 0) {
            if left_bytes > 0 && !(one_extent && wanted.len() == 1) {
                wanted.push(StatusExtent { len_bytes: extent.len_bytes.min(left_bytes), ..*extent });
                left_bytes -= extent.len_bytes.min(left_bytes);
            }
        }
        let about = StatusChunk { context_id, len_bytes_max, one_extent, is_last };
        let mut bytes = vec![9];
        prop_assert_eq!(style.encode_status(to, about, extents, &mut bytes), wanted.len());
        if wanted.is_empty() {
            prop_assert_eq!(bytes, [9]);
        } else {
            let body = Body::Status { context_id, extents: wanted };
            prop_assert_eq!(decoded_whole(style, 0, &bytes[1..]), expected(style, to, is_last, body));
        }
    }

    #[test]
    fn how_a_handshake_is_cut_does_not_matter(stream in client_stream(), cuts in vec(1_usize..40, 1..60)) {
        let whole = drive(Handshake::new(TlsPolicy::Off), &exports(), [stream.as_slice()]);
        let by_byte = drive(Handshake::new(TlsPolicy::Off), &exports(), stream.chunks(1));
        prop_assert_eq!(&by_byte, &whole);
        let mut rest = stream.as_slice();
        let pieces = cuts.iter().cycle().map_while(|cut| {
            let (piece, behind) = rest.split_at(rest.len().min(*cut));
            rest = behind;
            (!piece.is_empty()).then_some(piece)
        });
        prop_assert_eq!(&drive(Handshake::new(TlsPolicy::Off), &exports(), pieces), &whole);
    }

    #[test]
    fn what_a_client_encodes_is_what_the_driver_is_asked(name in "[^\0]{0,40}", infos in vec(any::<u16>(), 0..9)) {
        let mut stream = flags();
        encode_info(option::GO, &name, &infos, &mut stream);
        let driven = drive(Handshake::new(TlsPolicy::Off), &[], [stream.as_slice()]);
        prop_assert_eq!(driven.asked, [name]);
    }

    #[test]
    fn random_bytes_harm_no_decoder(bytes in vec(any::<u8>(), 0..300), policy in 0_usize..3) {
        let policy = [TlsPolicy::Off, TlsPolicy::Optional, TlsPolicy::Required][policy];
        drive(Handshake::new(policy), &exports(), [bytes.as_slice()]);
        for style in STYLES {
            let _ = any_session(style).decode_header(&mut bytes.as_slice());
            let _ = decode_reply(style, |_| 10, &mut bytes.as_slice());
        }
        let _ = decode_option_reply(&mut bytes.as_slice());
    }

    #[test]
    fn what_a_handshake_answers_is_well_formed(stream in client_stream()) {
        let driven = drive(Handshake::new(TlsPolicy::Off), &exports(), [stream.as_slice()]);
        let mut output = &driven.output[18..];
        while let Some(_reply) = decode_option_reply(&mut output).unwrap_or(None) {}
        let by_name = matches!(&driven.outcome, Outcome::Transmission(_)) && !output.is_empty();
        prop_assert!(output.is_empty() || (by_name && [10, 134].contains(&output.len())), "{:?}", driven);
    }
}

fn exports() -> Vec<Export> {
    vec![Export::writable("disk", 1 << 30), Export::writable("", 4096)]
}

fn flags() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_client_flags(3, &mut bytes);
    bytes
}

/// One option, well formed or not.
fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let name = || select(vec!["disk", "", "none"]);
    let encoded = |encode: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    };
    let info = (6_u32..8, name(), vec(0_u16..6, 0..4))
        .prop_map(move |(number, name, infos)| encoded(&|out| encode_info(number, name, &infos, out)));
    let query = select(vec!["base:", "base:allocation", "qemu:", "x"]);
    let contexts = (9_u32..11, name(), vec(query, 0..4))
        .prop_map(move |(number, name, queries)| encoded(&|out| encode_meta_context(number, name, &queries, out)));
    let bare = (0_u32..13).prop_map(move |number| encoded(&|out| encode_option(number, &[], out)));
    let wild = (0_u32..13, vec(any::<u8>(), 0..40))
        .prop_map(move |(number, data)| encoded(&|out| encode_option(number, &data, out)));
    prop_oneof![4 => info, 4 => contexts, 4 => bare, 2 => wild, 1 => vec(any::<u8>(), 0..20)]
}

fn client_stream() -> impl Strategy<Value = Vec<u8>> {
    (select(vec![0_u32, 1, 2, 3, 3, 3, 3, 8]), vec(any_option(), 0..12)).prop_map(|(flags, options)| {
        let mut stream = Vec::new();
        encode_client_flags(flags, &mut stream);
        stream.extend(options.concat());
        stream
    })
}

#[test]
fn extents_too_long_for_32_bits_are_cut_and_end_the_chunk() {
    let to = ReplyTo { cookie: Cookie(1), offset: 0 };
    let about = StatusChunk { context_id: 0, len_bytes_max: u64::MAX, one_extent: false, is_last: true };
    let extents = [10 << 30, 4096].map(|len_bytes| StatusExtent { len_bytes, status: 3 });
    let mut bytes = Vec::new();
    assert_eq!(ReplyStyle::Structured.encode_status(to, about, extents, &mut bytes), 1);
    let cut = vec![StatusExtent { len_bytes: 0xffff_f000, status: 3 }];
    let body = Body::Status { context_id: 0, extents: cut };
    assert_eq!(decoded_whole(ReplyStyle::Structured, 0, &bytes), expected(ReplyStyle::Structured, to, true, body));
    bytes.clear();
    assert_eq!(ReplyStyle::Extended.encode_status(to, about, extents, &mut bytes), 2);
    let body = Body::Status { context_id: 0, extents: extents.to_vec() };
    assert_eq!(decoded_whole(ReplyStyle::Extended, 0, &bytes), expected(ReplyStyle::Extended, to, true, body));
    bytes.clear();
    assert_eq!(ReplyStyle::Simple.encode_status(to, about, extents, &mut bytes), 0);
    assert!(bytes.is_empty());
}

#[test]
fn a_chunk_holds_a_limited_number_of_extents() {
    let to = ReplyTo { cookie: Cookie(1), offset: 0 };
    let about = StatusChunk { context_id: 0, len_bytes_max: u64::MAX, one_extent: false, is_last: true };
    let mut bytes = Vec::new();
    let endless = std::iter::repeat(StatusExtent { len_bytes: 512, status: 0 });
    assert_eq!(ReplyStyle::Structured.encode_status(to, about, endless, &mut bytes), STATUS_DESCRIPTORS_MAX);
    assert_eq!(bytes.len(), 24 + 8 * STATUS_DESCRIPTORS_MAX);
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let to = ReplyTo { cookie: Cookie(1), offset: 0 };
    let message = format!("x{}", "\u{e9}".repeat(4000));
    let mut bytes = Vec::new();
    let error = ErrorReply { errno: Errno::Io, message: &message, at: None };
    ReplyStyle::Structured.encode_error(to, error, &mut bytes);
    let reply = decoded_whole(ReplyStyle::Structured, 0, &bytes);
    let Body::Error { message: told, .. } = reply.body else { panic!("{reply:?}") };
    assert_eq!(told, message.as_bytes()[..4095]);
}

/// A client can announce much and send it slowly: what is kept for it is one option's data and its own answers.
#[test]
fn an_endless_stream_of_options_is_ended() {
    let mut option = Vec::new();
    encode_option(option::GO, &vec![b'x'; limit::OPTION_BYTES_MAX as usize], &mut option);
    let stream = std::iter::once(flags()).chain(std::iter::repeat_n(option, limit::OPTIONS_MAX as usize + 1));
    let stream: Vec<Vec<u8>> = stream.collect();
    let Driven { outcome, output, .. } =
        drive(Handshake::new(TlsPolicy::Off), &exports(), stream.iter().map(Vec::as_slice));
    assert!(matches!(outcome, Outcome::Closed(_)));
    assert!(output.len() < 100 * limit::OPTIONS_MAX as usize);
}
