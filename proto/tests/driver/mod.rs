//! A driver without sockets: hands bytes to a handshake in pieces of any size and answers from a fixed set of exports.

use proto::nbd::{CloseReason, Export, Handshake, Negotiated, Refusal, Step};

/// How a handshake that was given some bytes stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It waits for more.
    Waiting,
    /// It has ended well.
    Transmission(Box<Negotiated>),
    /// It has ended otherwise.
    Closed(CloseReason),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Driven {
    /// How it stands.
    pub(crate) outcome: Outcome,
    /// Everything sent.
    pub(crate) output: Vec<u8>,
    /// Bytes not used, behind the end of the handshake.
    pub(crate) rest: Vec<u8>,
    /// Names of exports asked for, and "LIST" and "STARTTLS".
    pub(crate) asked: Vec<String>,
}

/// Drives a handshake over `pieces` of the client's stream, as blockd would.
pub(crate) fn drive<'a>(
    mut handshake: Handshake,
    exports: &[Export],
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Driven {
    let mut driven = Driven { outcome: Outcome::Waiting, output: Vec::new(), rest: Vec::new(), asked: Vec::new() };
    let mut buffer = Vec::new();
    // The greeting goes out before a byte comes in.
    advance(&mut handshake, exports, &mut buffer, &mut driven);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if driven.outcome == Outcome::Waiting {
            advance(&mut handshake, exports, &mut buffer, &mut driven);
        }
    }
    driven.rest = buffer;
    driven
}

fn advance(handshake: &mut Handshake, exports: &[Export], buffer: &mut Vec<u8>, driven: &mut Driven) {
    loop {
        let mut input = buffer.as_slice();
        let step = handshake.advance(&mut input);
        let used = buffer.len() - input.len();
        buffer.drain(..used);
        driven.output.extend(handshake.take_output());
        match step {
            Step::NeedBytes => return,
            Step::FindExport { name, .. } => {
                let found = exports.iter().find(|export| export.name == name).cloned();
                handshake.answer_export(found.ok_or(Refusal::Unknown));
                driven.asked.push(name);
            }
            Step::ListExports => {
                let listed = exports.iter().map(|export| (export.name.as_str(), export.description.as_str()));
                handshake.answer_list(Ok(listed));
                driven.asked.push("LIST".to_owned());
            }
            Step::StartTls => {
                handshake.tls_started();
                driven.asked.push("STARTTLS".to_owned());
            }
            Step::Transmission(negotiated) => return driven.outcome = Outcome::Transmission(negotiated),
            Step::Close(reason) => return driven.outcome = Outcome::Closed(reason),
        }
    }
}
