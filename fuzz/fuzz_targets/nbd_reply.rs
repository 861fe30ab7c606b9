//! A server says anything: the client's decoders take it apart, and our encoders put together again what is ours to say.
//! First byte: form of replies, and how much data a simple one brings.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::nbd::client::{Body, Reply, decode_greeting, decode_option_reply, decode_reply};
use proto::nbd::{Errno, ErrorReply, ReplyStyle, ReplyTo, StatusChunk};

/// Our encoding of what a reply says; `None` when we would not say it so.
fn encoded(style: ReplyStyle, reply: &Reply) -> Option<Vec<u8>> {
    let to = ReplyTo { cookie: reply.cookie, offset: reply.offset.unwrap_or(0) };
    let mut out = Vec::new();
    match &reply.body {
        Body::Simple { error: 0, data } => {
            out.extend_from_slice(ReplyStyle::Simple.done(to).as_slice());
            out.extend_from_slice(data);
        }
        Body::Simple { error, .. } => {
            out.extend_from_slice(ReplyStyle::Simple.error(to, Errno::from_wire(*error)?).as_slice());
        }
        Body::None => out.extend_from_slice(style.done(to).as_slice()),
        Body::Data { at, data } => {
            let len = u32::try_from(data.len()).ok()?;
            out.extend_from_slice(style.data_chunk(to, *at, len, reply.is_last).as_slice());
            out.extend_from_slice(data);
        }
        Body::Hole { at, len_bytes } => {
            out.extend_from_slice(style.hole_chunk(to, *at, *len_bytes, reply.is_last).as_slice());
        }
        Body::Status { context_id, extents } => {
            let len_bytes_max = extents.iter().try_fold(0_u64, |sum, extent| sum.checked_add(extent.len_bytes))?;
            let about =
                StatusChunk { context_id: *context_id, len_bytes_max, one_extent: false, is_last: reply.is_last };
            (style.encode_status(to, about, extents.iter().copied(), &mut out) == extents.len()).then_some(())?;
        }
        Body::Error { error, message, at } => {
            (reply.is_last && message.len() <= 4096).then_some(())?;
            let message = str::from_utf8(message).ok()?;
            style.encode_error(to, ErrorReply { errno: Errno::from_wire(*error)?, message, at: *at }, &mut out);
        }
    }
    Some(out)
}

fuzz_target!(|data: &[u8]| {
    let Some((setup, mut stream)) = data.split_first() else { return };
    let style = [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended][usize::from(setup % 3)];
    let data_len = usize::from(setup / 3);
    let _ = decode_greeting(&mut stream);
    while let Ok(Some(_)) = decode_option_reply(&mut stream) {}
    while let Ok(Some(reply)) = decode_reply(style, |_| data_len, &mut stream) {
        let Some(bytes) = encoded(style, &reply) else { continue };
        assert_eq!(decode_reply(style, |_| data_len, &mut bytes.as_slice()), Ok(Some(reply)));
    }
});
