//! The login as a state machine, target side: from the first byte of a connection to full feature phase.
//!
//! The driver loops: [`Login::advance`] takes what it can use of the bytes received and says what comes next; the
//! driver then sends [`Login::take_output`]. [`Step::Admitted`] comes when everything has been judged and nothing yet
//! promised: the driver settles the session and calls [`Login::finish`], which makes the last response. Memory and the
//! number of steps are bounded; time is not: the driver sets a deadline. PDUs carry no digests until the login is over.
//!
//! Spec: RFC 7143 6.3 (stages), 11.12, 11.13, 12.1 (security keys). Which session a TSIH means is the driver's to know.

mod outcome;
mod visitor;

pub use outcome::{Admitted, Config, Door, Entry, LoginFailure, SessionKind, Step};

use super::chap::{Chap, ChapKeys};
use super::constants::{DATA_SEGMENT_BYTES_MAX, VERSION, opcode};
use super::frame::{Framing, Head, decode_header, encode_pdu};
use super::parameters::{Negotiation, TARGET_DATA_BYTES_MAX, chosen};
use super::reply::{LoginResponse, LoginStatus, Numbers, login_response};
use super::request::{LoginRequest, Request, decode};
use super::text::{GatheredText, Pieces, parse, push_pair};
use crate::wire::take_bytes;
use visitor::{Sorted, Visitor};

/// The longest data segment during login, either way: RFC 7143 6.3.
pub const LOGIN_DATA_BYTES_MAX: u32 = 8192;

/// The greatest number of requests in a login.
pub const LOGIN_REQUESTS_MAX: u32 = 32;

/// The login of one connection.
#[derive(Debug)]
pub struct Login {
    config: Config,
    state: State,
    output: Vec<u8>,
    requests_seen: u32,
    /// The first request, which all others must agree with, and its stage, which moves on.
    opening: Option<LoginRequest>,
    stage: u8,
    visitor: Option<Visitor>,
    security: Security,
    negotiation: Negotiation,
    has_declared: bool,
    /// A request's text until it is whole.
    text: GatheredText,
    /// The answer's text until all of it is sent.
    answer: Pieces,
    numbers: Numbers,
}

#[derive(Debug)]
enum State {
    Talking,
    /// The response to be made when the driver has settled the session, and its text.
    Admitting(Box<LoginResponse>, Vec<u8>),
    Closed(LoginFailure),
}

/// How far the initiator has come with saying who it is.
#[derive(Debug)]
enum Security {
    /// It need not prove anything.
    Open,
    /// It need not, and has agreed to that.
    Waived,
    /// It must prove itself and has not said how.
    Demanded(Box<Chap>),
    Proving(Box<Chap>),
}

impl Security {
    fn is_settled(&self) -> bool {
        match self {
            Self::Open | Self::Waived => true,
            Self::Demanded(_) => false,
            Self::Proving(chap) => chap.is_proven(),
        }
    }
}

impl Login {
    /// Begins a login; the initiator speaks first.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            state: State::Talking,
            output: Vec::new(),
            requests_seen: 0,
            opening: None,
            stage: stage::SECURITY,
            visitor: None,
            security: Security::Open,
            negotiation: Negotiation::default(),
            has_declared: false,
            text: GatheredText::default(),
            answer: Pieces::default(),
            numbers: Numbers::default(),
        }
    }

    /// Takes whole PDUs off the front of `input`, and says what comes next. Part of a PDU is left there.
    ///
    /// A PDU has at most 48 + 1020 + [`LOGIN_DATA_BYTES_MAX`] bytes.
    pub fn advance(&mut self, input: &mut &[u8], door: &dyn Door) -> Step {
        loop {
            match &self.state {
                State::Talking => {}
                State::Admitting(..) => return Step::NeedBytes,
                State::Closed(failure) => return Step::Close(*failure),
            }
            let step = match self.take_request(input) {
                Ok(None) => return Step::NeedBytes,
                Ok(Some((request, text))) => self.on_request(&request, text, door),
                Err(failure) => Err(failure),
            };
            match step {
                Ok(None) => {}
                Ok(Some(admitted)) => return Step::Admitted(admitted),
                Err(failure) => return self.close(failure),
            }
        }
    }

    /// Takes the bytes to be sent. To be called after every step.
    #[must_use]
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Tells which commands the last response shall allow. For a new session one, unless told otherwise; a connection
    /// that joins a session has the session's.
    pub const fn set_window(&mut self, exp_cmd_sn: u32, max_cmd_sn: u32) {
        self.numbers.exp_cmd_sn = exp_cmd_sn;
        self.numbers.max_cmd_sn = max_cmd_sn;
    }

    /// Makes the last response: the session's handle (not 0), or why there is none.
    ///
    /// # Panics
    /// When nobody was admitted.
    pub fn finish(&mut self, settled: Result<u16, LoginStatus>) {
        let state = std::mem::replace(&mut self.state, State::Closed(LoginFailure::Over));
        let State::Admitting(response, text) = state else {
            panic!("nobody was admitted");
        };
        match settled {
            Ok(tsih) => self.send(&LoginResponse { tsih, ..*response }, &text),
            Err(status) => {
                self.refuse(response.itt, status);
                self.state = State::Closed(LoginFailure::Refused(status));
            }
        }
    }

    /// The number that the next status of this connection has.
    #[must_use]
    pub const fn stat_sn(&self) -> u32 {
        self.numbers.stat_sn
    }

    fn close(&mut self, failure: Failure) -> Step {
        let failure = match failure {
            Failure::NotLogin => LoginFailure::NotLogin,
            Failure::Refused(itt, status) => {
                self.refuse(itt, status);
                LoginFailure::Refused(status)
            }
        };
        self.state = State::Closed(failure);
        Step::Close(failure)
    }

    /// Takes one whole login request and its text.
    fn take_request<'a>(&self, input: &mut &'a [u8]) -> Result<Option<(LoginRequest, &'a [u8])>, Failure> {
        let mut rest = *input;
        // Without digests, and with any length allowed, so that one that is too long gets an answer.
        let Ok(Some(head)) = decode_header(&mut rest, Framing::default(), DATA_SEGMENT_BYTES_MAX) else {
            return Ok(None);
        };
        let request = self.login_request(&head)?;
        let field_bytes = head.data_field_bytes(Framing::default());
        let Some(field) = take_bytes(&mut rest, field_bytes) else {
            return Ok(None);
        };
        *input = rest;
        let padding_bytes = field_bytes - usize::try_from(request.data_bytes).unwrap_or(field_bytes);
        let text = field.len().checked_sub(padding_bytes).and_then(|len| field.get(..len));
        Ok(Some((request, text.unwrap_or_default())))
    }

    fn login_request(&self, head: &Head) -> Result<LoginRequest, Failure> {
        if head.opcode() != opcode::LOGIN {
            // RFC 7143 6.3: nothing else may come first, and then there is nobody to answer.
            let is_first = self.opening.is_none();
            let refused = Failure::Refused(head.itt(), LoginStatus::INVALID_DURING_LOGIN);
            return Err(if is_first { Failure::NotLogin } else { refused });
        }
        match decode(head) {
            Ok(Request::Login(request)) if request.data_bytes <= LOGIN_DATA_BYTES_MAX => Ok(request),
            _ => Err(Failure::Refused(head.itt(), LoginStatus::INITIATOR_ERROR)),
        }
    }

    fn on_request(&mut self, request: &LoginRequest, text: &[u8], door: &dyn Door) -> Result<Paused, Failure> {
        self.requests_seen += 1;
        self.judge(request, text, door).map_err(|status| Failure::Refused(request.itt, status))
    }

    fn judge(&mut self, request: &LoginRequest, text: &[u8], door: &dyn Door) -> Result<Paused, LoginStatus> {
        self.check(request)?;
        self.text.push(text).map_err(|_| LoginStatus::INITIATOR_ERROR)?;
        if request.is_continued {
            self.send(&self.response(request), &[]);
            return Ok(None);
        }
        let text = self.text.take();
        if self.answer.is_over() {
            self.answer = Pieces::new(self.answer_to(&text, door)?);
        } else if !text.is_empty() {
            // RFC 7143 6.2: who was told that the text goes on says nothing until it is whole.
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        self.reply(request)
    }

    /// Checks a request's fixed fields against the first request's and against the stage.
    fn check(&mut self, request: &LoginRequest) -> Result<(), LoginStatus> {
        let opening = match self.opening {
            Some(opening) => opening,
            None => self.open(request)?,
        };
        let is_same = (request.isid, request.tsih, request.cid) == (opening.isid, opening.tsih, opening.cid);
        let is_step = request.current_stage == self.stage && (!request.is_transit || is_forward(request));
        let is_whole = !(request.is_transit && request.is_continued);
        if is_same && is_step && is_whole && self.requests_seen <= LOGIN_REQUESTS_MAX {
            Ok(())
        } else {
            Err(LoginStatus::INITIATOR_ERROR)
        }
    }

    fn open(&mut self, request: &LoginRequest) -> Result<LoginRequest, LoginStatus> {
        self.opening = Some(*request);
        self.stage = request.current_stage;
        self.negotiation.is_joining = request.tsih != 0;
        let cmd_sn = request.cmd_sn;
        self.numbers = Numbers { stat_sn: request.exp_stat_sn, exp_cmd_sn: cmd_sn, max_cmd_sn: cmd_sn };
        if request.version_min > VERSION {
            return Err(LoginStatus::UNSUPPORTED_VERSION);
        }
        if !matches!(request.current_stage, stage::SECURITY | stage::OPERATIONAL) {
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        Ok(*request)
    }

    /// Takes a whole text, and makes the answer's.
    fn answer_to(&mut self, text: &[u8], door: &dyn Door) -> Result<Vec<u8>, LoginStatus> {
        let pairs = parse(text).map_err(|_| LoginStatus::INITIATOR_ERROR)?;
        let mut answer = Vec::new();
        let keys = Sorted::sort(&pairs, &mut answer)?;
        self.introduce(&keys, door, &mut answer)?;
        if self.stage == stage::SECURITY {
            self.secure(&keys, &mut answer)?;
        } else {
            self.negotiate(&keys, &mut answer)?;
        }
        Ok(answer)
    }

    /// Takes the names, which the first request has and no other.
    fn introduce(&mut self, keys: &Sorted<'_>, door: &dyn Door, answer: &mut Vec<u8>) -> Result<(), LoginStatus> {
        let is_first = self.visitor.is_none();
        if is_first {
            let visitor = Visitor::introduced(keys)?;
            let entry = door.enter(visitor.target.as_deref(), &visitor.initiator)?;
            if let Some(secrets) = entry.chap {
                self.security = Security::Demanded(Box::new(Chap::new(secrets, self.config.challenge)));
            }
            self.negotiation.is_discovery = visitor.kind == SessionKind::Discovery;
            if visitor.kind == SessionKind::Normal {
                // RFC 7143 13.9: in the first response of a normal session.
                push_pair(answer, "TargetPortalGroupTag", &self.config.portal_group.to_string());
            }
            self.visitor = Some(visitor);
        }
        let alias = self.visitor.as_mut().map(|visitor| &mut visitor.alias);
        match (keys.alias, alias) {
            (Some(told), Some(alias @ None)) => *alias = Some(told.chars().take(ALIAS_CHARS_MAX).collect()),
            (Some(_), _) => return Err(LoginStatus::INITIATOR_ERROR),
            (None, _) => {}
        }
        if keys.has_names() && !is_first { Err(LoginStatus::INITIATOR_ERROR) } else { Ok(()) }
    }

    /// Takes the keys of the security stage, which has no others.
    fn secure(&mut self, keys: &Sorted<'_>, answer: &mut Vec<u8>) -> Result<(), LoginStatus> {
        if !keys.operational.is_empty() {
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        match (std::mem::replace(&mut self.security, Security::Open), keys.methods) {
            // libiscsi asks twice where it has a user and a password.
            (Security::Open | Security::Waived, Some(list)) => {
                let method = chosen(list, &["None"]).ok_or(LoginStatus::AUTHENTICATION_FAILED)?;
                push_pair(answer, "AuthMethod", method);
                self.security = Security::Waived;
            }
            (Security::Demanded(chap), Some(list)) => {
                let method = chosen(list, &["CHAP"]).ok_or(LoginStatus::AUTHENTICATION_FAILED)?;
                push_pair(answer, "AuthMethod", method);
                self.security = Security::Proving(chap);
                // Who names the method may name the algorithms at once.
                return if keys.chap.algorithms.is_some() { self.prove(keys, answer) } else { Ok(()) };
            }
            (Security::Proving(_), Some(_)) => return Err(LoginStatus::INITIATOR_ERROR),
            (security, None) => self.security = security,
        }
        self.prove(keys, answer)
    }

    fn prove(&mut self, keys: &Sorted<'_>, answer: &mut Vec<u8>) -> Result<(), LoginStatus> {
        match &mut self.security {
            Security::Proving(chap) => chap.advance(&keys.chap, answer).map_err(|_| LoginStatus::AUTHENTICATION_FAILED),
            // Nobody asked for it.
            Security::Open | Security::Waived | Security::Demanded(_) if keys.chap != ChapKeys::default() => {
                Err(LoginStatus::AUTHENTICATION_FAILED)
            }
            Security::Open | Security::Waived | Security::Demanded(_) => Ok(()),
        }
    }

    /// Takes the keys of the operational stage, which only they reach who have proven what they must.
    fn negotiate(&mut self, keys: &Sorted<'_>, answer: &mut Vec<u8>) -> Result<(), LoginStatus> {
        if !self.security.is_settled() {
            return Err(LoginStatus::AUTHENTICATION_FAILED);
        }
        if keys.has_security() {
            return Err(LoginStatus::INITIATOR_ERROR);
        }
        self.negotiation.settle(&keys.operational, answer).map_err(|_| LoginStatus::INITIATOR_ERROR)?;
        if !std::mem::replace(&mut self.has_declared, true) {
            push_pair(answer, "MaxRecvDataSegmentLength", &TARGET_DATA_BYTES_MAX.to_string());
        }
        Ok(())
    }

    /// Sends the next piece of the answer, and goes to the next stage when both are ready for it.
    fn reply(&mut self, request: &LoginRequest) -> Result<Paused, LoginStatus> {
        let bytes_max = LOGIN_DATA_BYTES_MAX.min(self.negotiation.parameters().initiator_data_bytes_max);
        let text = self.answer.next_piece(bytes_max).to_vec();
        let is_continued = !self.answer.is_over();
        let wants_on = request.is_transit && !is_continued;
        if wants_on && matches!(self.security, Security::Demanded(_)) {
            return Err(LoginStatus::AUTHENTICATION_FAILED);
        }
        let is_transit = wants_on && self.security.is_settled();
        let response = LoginResponse { is_transit, is_continued, ..self.response(request) };
        if !is_transit {
            self.send(&response, &text);
            return Ok(None);
        }
        self.stage = request.next_stage;
        if self.stage != stage::FULL_FEATURE {
            self.send(&response, &text);
            return Ok(None);
        }
        self.state = State::Admitting(Box::new(response), text);
        Ok(self.admitted(request))
    }

    fn admitted(&self, request: &LoginRequest) -> Paused {
        let visitor = self.visitor.clone()?;
        Some(Box::new(Admitted {
            initiator: visitor.initiator,
            isid: request.isid,
            tsih: request.tsih,
            cid: request.cid,
            kind: visitor.kind,
            target: visitor.target,
            parameters: self.negotiation.parameters(),
            cmd_sn: self.opening.map_or(request.cmd_sn, |opening| opening.cmd_sn),
            alias: visitor.alias,
        }))
    }

    /// A response that stays in the stage.
    const fn response(&self, request: &LoginRequest) -> LoginResponse {
        LoginResponse {
            is_transit: false,
            is_continued: false,
            current_stage: self.stage,
            next_stage: request.next_stage,
            isid: request.isid,
            tsih: request.tsih,
            itt: request.itt,
            status: LoginStatus::SUCCESS,
            data_bytes: 0,
        }
    }

    fn refuse(&mut self, itt: u32, status: LoginStatus) {
        let (isid, tsih) = self.opening.map_or(([0; 6], 0), |opening| (opening.isid, opening.tsih));
        let refusal = LoginResponse {
            is_transit: false,
            is_continued: false,
            current_stage: self.stage,
            next_stage: self.stage,
            isid,
            tsih,
            itt,
            status,
            data_bytes: 0,
        };
        self.send(&refusal, &[]);
    }

    fn send(&mut self, response: &LoginResponse, text: &[u8]) {
        let bhs = login_response(response, self.numbers);
        encode_pdu(Framing::default(), bhs, text, &mut self.output);
        self.numbers.stat_sn = self.numbers.stat_sn.wrapping_add(1);
    }
}

/// Whether the stage to go to is one, and comes behind the current one.
const fn is_forward(request: &LoginRequest) -> bool {
    matches!(request.next_stage, stage::OPERATIONAL | stage::FULL_FEATURE) && request.next_stage > request.current_stage
}

/// `None` when the machine can go on by itself.
type Paused = Option<Box<Admitted>>;

/// Why a request ends the login.
#[derive(Clone, Copy)]
enum Failure {
    NotLogin,
    /// The tag of the request to be answered, and the status.
    Refused(u32, LoginStatus),
}

/// Stages: RFC 7143 11.12.3.
mod stage {
    pub(super) const SECURITY: u8 = 0;
    pub(super) const OPERATIONAL: u8 = 1;
    pub(super) const FULL_FEATURE: u8 = 3;
}

/// An alias is for people, and 255 characters are enough: RFC 7143 13.6.
const ALIAS_CHARS_MAX: usize = 255;
