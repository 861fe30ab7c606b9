//! A discovery session: tells an initiator which targets it may enter, and where. RFC 7143 4.3.1, Appendix C.

use super::read;
use crate::catalogue::Catalogue;
use crate::iscsi::go_on;
use crate::listener::exports::Client;
use crate::listener::handshake::{Failure, Stream};
use proto::iscsi::{
    Admitted, Framing, Head, LongText, NopIn, Numbers, Parameters, RejectReason, Request, TargetListing, TargetsWanted,
    TextQuery, TextRequest, constants, decode, decode_header, encode_pdu, logout_response, nop_in, reject,
    text_response,
};
use std::time::Duration;
use tokio::io::AsyncWriteExt;

/// How long a discovery may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Most bytes of a data segment, and of the keys of a request that comes in parts.
const DATA_BYTES_MAX: u32 = 64 << 10;

pub(super) struct Discovery<'a> {
    catalogue: &'a Catalogue,
    client: &'a Client,
    initiator: &'a str,
    address: String,
    parameters: Parameters,
    numbers: Numbers,
    text: Vec<u8>,
    answer: Option<LongText>,
    output: Vec<u8>,
}

impl<'a> Discovery<'a> {
    pub(super) fn new(
        catalogue: &'a Catalogue,
        (client, admitted): (&'a Client, &'a Admitted),
        address: String,
        stat_sn: u32,
    ) -> Self {
        let numbers = Numbers { stat_sn, exp_cmd_sn: admitted.cmd_sn, max_cmd_sn: admitted.cmd_sn.wrapping_add(1) };
        Self {
            catalogue,
            client,
            initiator: &admitted.initiator,
            address,
            parameters: admitted.parameters,
            numbers,
            text: Vec::new(),
            answer: None,
            output: Vec::new(),
        }
    }

    /// Serves until the initiator logs out, or is silent for long.
    pub(super) async fn serve(mut self, mut stream: impl Stream, mut input: Vec<u8>) -> Result<(), Failure> {
        loop {
            let is_over = loop {
                let mut rest = input.as_slice();
                let taken = self.take(&mut rest)?;
                let used = input.len() - rest.len();
                input.drain(..used);
                match taken {
                    None => break false,
                    Some(true) => break true,
                    Some(false) => {}
                }
            };
            stream.write_all(&std::mem::take(&mut self.output)).await?;
            stream.flush().await?;
            if is_over {
                return Ok(());
            }
            let more = tokio::time::timeout(SILENCE_MAX, read(&mut stream, &mut input)).await;
            more.unwrap_or(Err(Failure::Late))?;
        }
    }

    /// Takes one PDU, if all of it is there; whether it ends the session.
    fn take(&mut self, input: &mut &[u8]) -> Result<Option<bool>, Failure> {
        let framing = self.parameters.framing();
        let mut rest = *input;
        let head = decode_header(&mut rest, framing, DATA_BYTES_MAX).map_err(Failure::Frame)?;
        let Some(head) = head else { return Ok(None) };
        let Some((field, behind)) = rest.split_at_checked(head.data_field_bytes(framing)) else { return Ok(None) };
        let data = usize::try_from(head.data_bytes).ok().and_then(|len| field.get(..len)).unwrap_or_default();
        *input = behind;
        Ok(Some(self.on_pdu(&head, data)))
    }

    fn on_pdu(&mut self, head: &Head, data: &[u8]) -> bool {
        match decode(head) {
            Ok(Request::Text(text)) => {
                self.count(text.immediate, text.cmd_sn);
                self.on_text(head, &text, data);
                false
            }
            Ok(Request::NopOut(nop)) => {
                self.count(nop.immediate, nop.cmd_sn);
                if nop.itt != constants::RESERVED_TAG {
                    let limit = usize::try_from(self.parameters.initiator_data_bytes_max).unwrap_or(usize::MAX);
                    let data = data.get(..data.len().min(limit)).unwrap_or_default();
                    let answer = NopIn { lun: [0; 8], itt: nop.itt, ttt: constants::RESERVED_TAG, data_bytes: 0 };
                    self.push(|numbers| nop_in(&answer, numbers), data);
                }
                false
            }
            Ok(Request::Logout(logout)) => {
                self.count(logout.immediate, logout.cmd_sn);
                let closed = constants::logout_response::CLOSED;
                self.push(|numbers| logout_response(logout.itt, closed, 0, 0, numbers), &[]);
                true
            }
            // Nothing else is for discovery: RFC 7143 4.3.1.
            Ok(Request::Command(_) | Request::Task(_) | Request::DataOut(_) | Request::Login(_) | Request::Snack) => {
                self.push(|numbers| reject(RejectReason::ProtocolError, numbers), &head.bhs);
                true
            }
            Err(reason) => {
                self.push(|numbers| reject(reason, numbers), &head.bhs);
                false
            }
        }
    }

    fn on_text(&mut self, head: &Head, text: &TextRequest, data: &[u8]) {
        let limit = self.parameters.initiator_data_bytes_max;
        if let Some(answer) = self.answer.take_if(|answer| answer.is_asked_by(text)) {
            return self.answer_text(answer, limit);
        }
        self.text.extend_from_slice(data);
        if u32::try_from(self.text.len()).unwrap_or(u32::MAX) > DATA_BYTES_MAX {
            self.text.clear();
            return self.push(|numbers| reject(RejectReason::ProtocolError, numbers), &head.bhs);
        }
        if text.is_continued {
            return self.push(|numbers| text_response(&go_on(text, 1), numbers), &[]);
        }
        let keys = std::mem::take(&mut self.text);
        match TextQuery::parse(&keys, None, &mut self.parameters) {
            Ok(query) => {
                let targets = self.listings(query.targets.as_ref());
                let answer = query.answer(targets.iter());
                self.answer_text(LongText::new(text, 1, answer), limit);
            }
            Err(_) => self.push(|numbers| reject(RejectReason::ProtocolError, numbers), &head.bhs),
        }
    }

    fn answer_text(&mut self, mut answer: LongText, limit: u32) {
        let (response, data) = answer.respond(limit);
        self.push(|numbers| text_response(&response, numbers), &data);
        self.answer = Some(answer).filter(|answer| !answer.is_over());
    }

    fn listings(&self, wanted: Option<&TargetsWanted>) -> Vec<TargetListing> {
        let is_wanted = |name: &String| match wanted {
            None => false,
            Some(TargetsWanted::All) => true,
            Some(TargetsWanted::Named(other)) => name == other,
        };
        let names = self.catalogue.targets_for(self.initiator, self.client).into_iter().filter(is_wanted);
        names.map(|name| TargetListing { name, addresses: vec![self.address.clone()] }).collect()
    }

    fn count(&mut self, is_immediate: bool, cmd_sn: u32) {
        if !is_immediate {
            self.numbers.exp_cmd_sn = cmd_sn.wrapping_add(1);
            self.numbers.max_cmd_sn = self.numbers.exp_cmd_sn.wrapping_add(1);
        }
    }

    fn push(&mut self, pdu: impl FnOnce(Numbers) -> [u8; 48], data: &[u8]) {
        let framing: Framing = self.parameters.framing();
        encode_pdu(framing, pdu(self.numbers), data, &mut self.output);
        self.numbers.stat_sn = self.numbers.stat_sn.wrapping_add(1);
    }
}
