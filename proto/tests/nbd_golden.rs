//! What real clients say is understood, what real servers say is what we would say: conversations in `vectors/`.
#![cfg(test)]
#![forbid(unsafe_code)]

mod driver;

use driver::{Driven, Outcome, drive};
use proto::nbd::client::{Body, OptionReply, Reply, decode_greeting, decode_option_reply, decode_reply};
use proto::nbd::constants::{info, option, option_reply};
use proto::nbd::{
    Cookie, Errno, ErrorReply, Export, Handshake, Negotiated, ReplyStyle, ReplyTo, Request, StatusChunk, TlsPolicy,
};

const CAPTURES: [(&str, &str); 10] = [
    ("nbd-client-list-qemu.hex", include_str!("../vectors/nbd-client-list-qemu.hex")),
    ("nbdinfo-list-qemu.hex", include_str!("../vectors/nbdinfo-list-qemu.hex")),
    ("nbdsh-nbdkit-export-name.hex", include_str!("../vectors/nbdsh-nbdkit-export-name.hex")),
    ("nbdsh-nbdkit-simple.hex", include_str!("../vectors/nbdsh-nbdkit-simple.hex")),
    ("nbdsh-nbdkit.hex", include_str!("../vectors/nbdsh-nbdkit.hex")),
    ("nbdsh-qemu-options.hex", include_str!("../vectors/nbdsh-qemu-options.hex")),
    ("nbdsh-qemu.hex", include_str!("../vectors/nbdsh-qemu.hex")),
    ("qemu-img-map-nbdkit.hex", include_str!("../vectors/qemu-img-map-nbdkit.hex")),
    ("qemu-img-map-qemu.hex", include_str!("../vectors/qemu-img-map-qemu.hex")),
    ("qemu-io-qemu.hex", include_str!("../vectors/qemu-io-qemu.hex")),
];

/// A conversation, each side's bytes in one piece.
struct Capture {
    client: Vec<u8>,
    server: Vec<u8>,
}

fn capture(name: &str) -> Capture {
    let (_, text) = CAPTURES.iter().find(|(of, _)| *of == name).unwrap();
    let mut capture = Capture { client: Vec::new(), server: Vec::new() };
    for line in text.lines() {
        match line.split_once(' ') {
            Some((">", hex)) => capture.client.extend(unhex(hex)),
            Some(("<", hex)) => capture.server.extend(unhex(hex)),
            _ => assert!(line.starts_with('#'), "{name}: {line}"),
        }
    }
    capture
}

fn unhex(hex: &str) -> impl Iterator<Item = u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap())
}

/// The exports that the captured servers had.
fn exports() -> Vec<Export> {
    let disk = Export { description: "a disk".to_owned(), ..Export::writable("disk", 1 << 20) };
    vec![disk, Export::writable("", 1 << 20)]
}

fn replay(capture: &Capture, exports: &[Export]) -> Driven {
    drive(Handshake::new(TlsPolicy::Off), exports, [capture.client.as_slice()])
}

/// Takes the option replies off a server's stream: what matters of them, in an order that does not depend on the server's.
fn option_replies(stream: &mut &[u8]) -> Vec<OptionReply> {
    let mut replies = Vec::new();
    while let Ok(Some(mut reply)) = decode_option_reply(stream) {
        match reply.kind {
            // The message is the server's own.
            kind if kind & option_reply::ERROR_BIT != 0 => reply.data.clear(),
            // qemu-nbd gives a description unasked, and numbers contexts from 0 as we do; nbdkit from 1.
            option_reply::INFO if reply.data.starts_with(&info::DESCRIPTION.to_be_bytes()) => continue,
            option_reply::META_CONTEXT => reply.data[..4].fill(0),
            _ => {}
        }
        replies.push(reply);
    }
    let mut sorted: Vec<OptionReply> = Vec::new();
    for run in replies.chunk_by(|before, after| before.option == after.option && before.kind == after.kind) {
        let mut run = run.to_vec();
        run.sort_by(|one, other| one.data.cmp(&other.data));
        sorted.append(&mut run);
    }
    sorted
}

fn same_handshake(name: &str) -> Driven {
    let capture = capture(name);
    let exports = if name.contains("nbdkit") { exports()[1..].to_vec() } else { exports()[..1].to_vec() };
    let driven = replay(&capture, &exports);
    let (mut theirs, mut ours) = (capture.server.as_slice(), driven.output.as_slice());
    assert_eq!(decode_greeting(&mut theirs), decode_greeting(&mut ours), "{name}");
    let mut ours = option_replies(&mut ours);
    let mut theirs = option_replies(&mut theirs);
    if name.contains("-nbdkit") {
        // It keeps its limits to itself as long as they are what a client takes for granted.
        ours.retain(|reply| !reply.data.starts_with(&info::BLOCK_SIZE.to_be_bytes()));
    }
    for replies in [&mut ours, &mut theirs] {
        // Some of these clients were gone before their farewell was answered.
        replies.retain(|reply| reply.option != option::ABORT);
    }
    assert_eq!(theirs, ours, "{name}");
    driven
}

fn negotiated(driven: &Driven) -> &Negotiated {
    match &driven.outcome {
        Outcome::Transmission(negotiated) => negotiated,
        Outcome::Waiting | Outcome::Closed(_) => panic!("{driven:?}"),
    }
}

#[test]
fn clients_that_only_ask_get_the_answers_that_other_servers_give() {
    assert_eq!(same_handshake("nbdinfo-list-qemu.hex").asked, ["LIST", "disk", "disk"]);
    assert_eq!(same_handshake("nbd-client-list-qemu.hex").asked, ["LIST"]);
    let driven = same_handshake("nbdsh-qemu-options.hex");
    assert_eq!(driven.asked, ["LIST", "disk", "disk", "disk", "nosuch"]);
    assert_eq!(driven.outcome, Outcome::Closed(proto::nbd::CloseReason::Aborted));
}

#[test]
fn clients_enter_as_they_enter_other_servers() {
    for (name, style, contexts) in [
        ("nbdsh-nbdkit.hex", ReplyStyle::Structured, 1),
        ("nbdsh-nbdkit-simple.hex", ReplyStyle::Simple, 0),
        ("nbdsh-qemu.hex", ReplyStyle::Structured, 1),
        ("qemu-io-qemu.hex", ReplyStyle::Extended, 1),
        ("qemu-img-map-qemu.hex", ReplyStyle::Extended, 1),
    ] {
        let driven = if style == ReplyStyle::Extended {
            // qemu-nbd offers the filter payload of block status there, and we do not: its flags differ by that bit.
            replay(&capture(name), &exports())
        } else {
            same_handshake(name)
        };
        let negotiated = negotiated(&driven);
        assert_eq!((negotiated.style, negotiated.contexts.len()), (style, contexts), "{name}");
        assert!(negotiated.block_sizes_asked && negotiated.no_zeroes, "{name}");
    }
}

#[test]
fn the_old_way_to_enter_gets_the_same_bytes_as_from_nbdkit() {
    let capture = capture("nbdsh-nbdkit-export-name.hex");
    let driven = replay(&capture, &exports());
    assert!(!negotiated(&driven).no_zeroes);
    assert_eq!(driven.output, capture.server[..driven.output.len()]);
    assert_eq!(driven.output.len(), 18 + 8 + 2 + 124);
}

/// Requests of a capture with the judgement each gets.
fn judged(driven: &Driven) -> Vec<(Cookie, ReplyTo, Result<Request, Errno>)> {
    let session = negotiated(driven).session();
    let mut stream = driven.rest.as_slice();
    let mut judged = Vec::new();
    while let Some(header) = session.decode_header(&mut stream).unwrap() {
        let request = session.parse(&header);
        let payload_bytes = match &request {
            Ok(request) => request.payload_bytes(),
            Err(rejection) => match rejection.payload {
                proto::nbd::UnwantedPayload::Skip { bytes } => u64::from(bytes),
                proto::nbd::UnwantedPayload::TooLong => panic!("{header:?}"),
            },
        };
        stream = &stream[usize::try_from(payload_bytes).unwrap()..];
        judged.push((header.cookie, header.reply_to(), request.map_err(|rejection| rejection.errno)));
    }
    assert_eq!(stream, []);
    judged
}

/// The replies that the captured server gave, with the bytes of each.
fn replies<'a>(driven: &Driven, server: &'a [u8]) -> Vec<(Reply, &'a [u8])> {
    let style = negotiated(driven).style;
    let mut stream = server;
    decode_greeting(&mut stream).unwrap();
    if driven.output.len() == 18 + 8 + 2 + 124 {
        stream = &server[driven.output.len()..];
    }
    while let Ok(Some(_)) = decode_option_reply(&mut stream) {}
    let requests = judged(driven);
    // Cookies of one client may repeat; reads of a capture are told apart by being all of one length then.
    let data_len = |cookie: Cookie| match requests.iter().find(|(of, ..)| *of == cookie) {
        Some((_, _, Ok(Request::Read { span, .. }))) => usize::try_from(span.len_bytes).unwrap(),
        _ => 0,
    };
    let mut replies = Vec::new();
    loop {
        let before = stream;
        let Some(reply) = decode_reply(style, data_len, &mut stream).unwrap() else { break };
        replies.push((reply, &before[..before.len() - stream.len()]));
    }
    assert_eq!(stream, []);
    replies
}

/// Our encoding of what a reply says.
fn encoded(style: ReplyStyle, to: ReplyTo, reply: &Reply) -> Vec<u8> {
    let mut out = Vec::new();
    match &reply.body {
        Body::Simple { error: 0, data } => {
            out.extend_from_slice(ReplyStyle::Simple.read(to, 0).as_slice());
            out.extend_from_slice(data);
        }
        Body::Simple { error, .. } => {
            out.extend_from_slice(ReplyStyle::Simple.error(to, Errno::from_wire(*error).unwrap()).as_slice());
        }
        Body::None => out.extend_from_slice(style.done(to).as_slice()),
        Body::Data { at, data } => {
            let len = u32::try_from(data.len()).unwrap();
            out.extend_from_slice(style.data_chunk(to, *at, len, reply.is_last).as_slice());
            out.extend_from_slice(data);
        }
        Body::Hole { at, len_bytes } => {
            out.extend_from_slice(style.hole_chunk(to, *at, *len_bytes, reply.is_last).as_slice());
        }
        Body::Status { context_id, extents } => {
            let len_bytes_max = extents.iter().map(|extent| extent.len_bytes).sum();
            let chunk =
                StatusChunk { context_id: *context_id, len_bytes_max, one_extent: false, is_last: reply.is_last };
            assert_eq!(style.encode_status(to, chunk, extents.iter().copied(), &mut out), extents.len());
        }
        Body::Error { error, message, at } => {
            let errno = Errno::from_wire(*error).unwrap();
            let message = str::from_utf8(message).unwrap();
            style.encode_error(to, ErrorReply { errno, message, at: *at }, &mut out);
        }
    }
    out
}

const CONVERSATIONS: [&str; 7] = [
    "nbdsh-nbdkit.hex",
    "nbdsh-nbdkit-simple.hex",
    "nbdsh-nbdkit-export-name.hex",
    "nbdsh-qemu.hex",
    "qemu-io-qemu.hex",
    "qemu-img-map-qemu.hex",
    "qemu-img-map-nbdkit.hex",
];

/// The driven handshake of a conversation. qemu-img asks nbdkit, which has none, for extended headers first: its later
/// options do not fit the answer that we would give, so that option is cut out.
fn conversation(name: &str) -> (Capture, Driven) {
    let mut capture = capture(name);
    if name == "qemu-img-map-nbdkit.hex" {
        capture.client.drain(4..20);
    }
    let driven = replay(&capture, &exports());
    (capture, driven)
}

#[test]
fn every_reply_of_other_servers_is_encoded_by_us_bit_for_bit() {
    for name in CONVERSATIONS {
        let (capture, driven) = conversation(name);
        let requests = judged(&driven);
        let replies = replies(&driven, &capture.server);
        // The farewell has no reply; every other request here has one of one chunk.
        assert_eq!(replies.len(), requests.len() - 1, "{name}");
        for ((reply, bytes), (_, to, _)) in replies.iter().zip(&requests) {
            assert_eq!(encoded(negotiated(&driven).style, *to, reply), *bytes, "{name}: {reply:?}");
        }
    }
}

#[test]
fn requests_are_accepted_and_refused_as_by_other_servers() {
    for name in CONVERSATIONS {
        let (capture, driven) = conversation(name);
        let requests = judged(&driven);
        assert!(matches!(requests.last(), Some((_, _, Ok(Request::Disconnect)))), "{name}");
        for ((reply, _), (_, _, judgement)) in replies(&driven, &capture.server).iter().zip(&requests) {
            let error = match reply.body {
                Body::Simple { error, .. } | Body::Error { error, .. } => error,
                Body::None | Body::Data { .. } | Body::Hole { .. } | Body::Status { .. } => 0,
            };
            let ours = judgement.as_ref().map_or_else(|errno| errno.to_wire(), |_| 0);
            // Of a write beyond the end, qemu-nbd says EINVAL; the protocol wants ENOSPC.
            let theirs = if name.contains("-qemu") && ours == Errno::NoSpc.to_wire() { ours } else { error };
            assert_eq!(ours, theirs, "{name}: {judgement:?}");
        }
    }
}
