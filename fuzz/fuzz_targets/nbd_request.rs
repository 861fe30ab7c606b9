//! A client sends any requests: each is judged, lies within the export if it is accepted, and can be skipped if it is not.
//! First four bytes: form of headers and what the session holds clients to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::nbd::{
    BlockSizes, FastZero, ReplyStyle, Request, RequestHeader, Session, Span, TransmissionFlags, UnwantedPayload,
};

const SIZES: [u64; 4] = [0, 1 << 20, 1 << 40, 1 << 63];

fn session(setup: [u8; 4]) -> Session {
    let [form, rules, high, low] = setup;
    Session {
        size_bytes: SIZES[usize::from(rules % 4)],
        flags: TransmissionFlags::from_wire(u16::from_be_bytes([high, low])),
        style: [ReplyStyle::Simple, ReplyStyle::Structured, ReplyStyle::Extended][usize::from(form % 3)],
        block_sizes: BlockSizes { min_bytes: if rules & 4 == 0 { 1 } else { 512 }, ..BlockSizes::default() },
        fast_zero: [FastZero::Never, FastZero::WithHole, FastZero::Always][usize::from(rules >> 4) % 3],
        has_contexts: rules & 8 == 0,
    }
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

/// Bytes of payload behind the header; `None` ends the connection.
fn judge(session: &Session, header: &RequestHeader) -> Option<u64> {
    match session.parse(header) {
        Ok(request) => {
            if let Some(span) = span_of(request) {
                let end = span.offset.checked_add(span.len_bytes).expect("an accepted span has an end");
                assert!(end <= session.size_bytes);
            }
            Some(request.payload_bytes())
        }
        Err(rejection) => match rejection.payload {
            UnwantedPayload::Skip { bytes } => Some(u64::from(bytes)),
            UnwantedPayload::TooLong => None,
        },
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((setup, mut stream)) = data.split_first_chunk::<4>() else { return };
    let session = session(*setup);
    while let Ok(Some(header)) = session.decode_header(&mut stream) {
        let Some(payload_bytes) = judge(&session, &header) else { return };
        assert!(payload_bytes <= u64::from(session.block_sizes.payload_bytes_max));
        let skipped = stream.len().min(usize::try_from(payload_bytes).expect("it is limited"));
        stream = &stream[skipped..];
    }
});
