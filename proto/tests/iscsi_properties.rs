//! Whatever an initiator sends: nothing panics, and it means the same however the stream is cut. RFC 7143.
#![cfg(test)]
#![forbid(unsafe_code)]

use proptest::collection::vec;
use proptest::prelude::*;
use proto::iscsi::{
    ChapSecrets, Config, Door, Entry, Framing, Login, LoginStatus, Parameters, Step, TextQuery, decode, decode_header,
};

struct Guard {
    with_chap: bool,
}

impl Door for Guard {
    fn enter(&self, _: Option<&str>, _: &str) -> Result<Entry, LoginStatus> {
        let secrets = ChapSecrets { user: "joe".to_owned(), secret: b"twelve bytes".to_vec(), mutual: None };
        Ok(Entry { chap: self.with_chap.then_some(secrets) })
    }
}

/// The last step and all that was answered.
fn log_in<'a>(with_chap: bool, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Step, Vec<u8>) {
    let mut login = Login::new(Config { challenge: [7; 32], portal_group: 1 });
    let (mut output, mut buffer) = (Vec::new(), Vec::new());
    let mut step = Step::NeedBytes;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut input = buffer.as_slice();
        step = login.advance(&mut input, &Guard { with_chap });
        buffer = input.to_vec();
        output.extend(login.take_output());
        if step != Step::NeedBytes {
            break;
        }
    }
    (step, output)
}

/// A login request with flags and text of any kind, mostly of known keys.
fn login_request() -> impl Strategy<Value = Vec<u8>> {
    let key = prop_oneof![
        Just("InitiatorName"),
        Just("TargetName"),
        Just("SessionType"),
        Just("AuthMethod"),
        Just("CHAP_A"),
        Just("CHAP_N"),
        Just("CHAP_R"),
        Just("CHAP_C"),
        Just("HeaderDigest"),
        Just("MaxBurstLength"),
        Just("FirstBurstLength"),
        Just("MaxRecvDataSegmentLength"),
        Just("X-a"),
    ];
    let value = prop_oneof![
        Just("iqn.a:b".to_owned()),
        Just("Discovery".to_owned()),
        Just("CHAP,None".to_owned()),
        Just("5,7".to_owned()),
        Just("CRC32C".to_owned()),
        (0_u32..1 << 25).prop_map(|number| number.to_string()),
        "0[xb][0-9a-fA-F]{0,40}=?",
        ".{0,10}",
    ];
    let pairs = vec((key, value).prop_map(|(key, value)| format!("{key}={value}\0")), 0..6);
    let flags = prop_oneof![Just(0x00_u8), Just(0x81), Just(0x83), Just(0x04), Just(0x87), Just(0x44), any::<u8>()];
    (flags, pairs, any::<bool>()).prop_map(|(flags, pairs, is_named)| {
        let names = if is_named { "InitiatorName=iqn.a\0TargetName=iqn.b\0" } else { "" };
        let text = format!("{names}{}", pairs.concat());
        let mut pdu = vec![0x43, flags, 0, 0];
        pdu.extend_from_slice(&u32::try_from(text.len()).unwrap().to_be_bytes());
        pdu.resize(48, 0);
        pdu.extend_from_slice(text.as_bytes());
        pdu.resize(pdu.len().next_multiple_of(4), 0);
        pdu
    })
}

proptest! {
    #[test]
    fn a_login_goes_the_same_way_however_it_is_cut(
        requests in vec(login_request(), 1..6),
        with_chap: bool,
        piece_bytes in 1_usize..200,
    ) {
        let stream = requests.concat();
        let whole = log_in(with_chap, [stream.as_slice()]);
        prop_assert_eq!(&whole, &log_in(with_chap, stream.chunks(piece_bytes)));
        // Without a response that is right nobody comes in who must give one.
        prop_assert!(!with_chap || !matches!(whole.0, Step::Admitted(_)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(
        first in 0_u8..0x80,
        bytes in vec(any::<u8>(), 0..1200),
        header_digest: bool,
        data_digest: bool,
    ) {
        let framing = Framing { header_digest, data_digest };
        let stream = [&[first], bytes.as_slice()].concat();
        let mut input = stream.as_slice();
        while let Ok(Some(head)) = decode_header(&mut input, framing, 1 << 24) {
            let _judged = decode(&head);
            prop_assert!(head.data_field_bytes(framing) <= (1 << 24) + 4);
        }
        let _answer = TextQuery::parse(&bytes, None, &mut Parameters::default()).map(|query| query.answer([]));
        let _step = log_in(true, [stream.as_slice()]);
    }
}
