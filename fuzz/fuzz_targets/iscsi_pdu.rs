//! An initiator says anything: headers and requests are read without harm whatever the digests, a text is answered, and a
//! login goes the same way however the stream is cut, within its bounds, with CHAP and without. First byte: header digest,
//! data digest, CHAP, and the length of the pieces to cut into.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::iscsi::{
    Admitted, ChapSecrets, Config, Door, Entry, Framing, Login, LoginFailure, LoginStatus, LongText, Parameters,
    Request, Step, TextQuery, Transfer, TransferLimits, decode, decode_header,
};

const DATA_BYTES_MAX: u32 = 64 * 1024;

struct Guard {
    with_chap: bool,
}

impl Door for Guard {
    fn enter(&self, target: Option<&str>, _: &str) -> Result<Entry, LoginStatus> {
        if target.is_some_and(|target| target.ends_with("none")) {
            return Err(LoginStatus::NOT_FOUND);
        }
        let mutual = Some(("target".to_owned(), b"other secret".to_vec()));
        let secrets = ChapSecrets { user: "joe".to_owned(), secret: b"twelve bytes".to_vec(), mutual };
        Ok(Entry { chap: self.with_chap.then_some(secrets) })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Waiting,
    Admitted(Box<Admitted>),
    Closed(LoginFailure),
}

fn log_in<'a>(guard: &Guard, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Outcome, Vec<u8>) {
    let mut login = Login::new(Config { challenge: [7; 32], portal_group: 1 });
    let mut output = Vec::new();
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        let mut input = buffer.as_slice();
        let step = login.advance(&mut input, guard);
        buffer = input.to_vec();
        output.extend(login.take_output());
        match step {
            Step::NeedBytes => {}
            Step::Admitted(admitted) => {
                login.finish(Ok(1));
                output.extend(login.take_output());
                return (Outcome::Admitted(admitted), output);
            }
            Step::Close(failure) => return (Outcome::Closed(failure), output),
        }
    }
    (Outcome::Waiting, output)
}

fn read_all(framing: Framing, mut input: &[u8]) {
    let mut transfer = Transfer::new(65536, TransferLimits::from(&Parameters::default()), 0, true).ok();
    while let Ok(Some(head)) = decode_header(&mut input, framing, DATA_BYTES_MAX) {
        let field_bytes = head.data_field_bytes(framing).min(input.len());
        let (data, rest) = input.split_at(field_bytes);
        input = rest;
        match decode(&head) {
            Ok(Request::Text(text)) => {
                let mut parameters = Parameters::default();
                let Ok(query) = TextQuery::parse(data, None, &mut parameters) else { continue };
                let mut long = LongText::new(&text, 1, query.answer([]));
                while !long.respond(parameters.initiator_data_bytes_max).0.is_final {}
            }
            Ok(Request::DataOut(data)) => {
                let Some(transfer) = &mut transfer else { continue };
                let before = transfer.received_bytes();
                transfer.next_r2t(1);
                if let Ok(progress) = transfer.data(&data) {
                    assert_eq!(progress.offset, before);
                }
                assert!(transfer.received_bytes() <= 65536);
            }
            Ok(_) | Err(_) => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((setup, stream)) = data.split_first() else { return };
    let framing = Framing { header_digest: setup & 1 != 0, data_digest: setup & 2 != 0 };
    read_all(framing, stream);
    let guard = Guard { with_chap: setup & 4 != 0 };
    let whole = log_in(&guard, [stream]);
    let cut = log_in(&guard, stream.chunks(1 + usize::from(setup >> 3)));
    assert_eq!(whole, cut);
    let (outcome, output) = whole;
    assert!(output.len() <= 33 * 48 + 64 * stream.len() + 4096, "{} bytes of answers", output.len());
    if let Outcome::Admitted(admitted) = outcome {
        assert!(admitted.parameters.first_burst <= admitted.parameters.max_burst);
        assert!(admitted.parameters.initiator_data_bytes_max >= 512);
    }
});
