//! What a target sends: basic header segments, with the data segment's length in them.
//!
//! Spec: RFC 7143 11.4, 11.6 to 11.9, 11.11, 11.13, 11.15, 11.17, 11.19. Which status number a PDU takes, and whether
//! it uses it up, is the caller's to know: all that carry a status do; Data-In without one, R2T, and a NOP-In that asks
//! do not.

use super::constants::{BHS_BYTES, DATA_SEGMENT_BYTES_MAX, RESERVED_TAG, VERSION, flag, opcode};
use super::request::RejectReason;

/// The numbers in every PDU of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Numbers {
    /// The number of this status, or of the next one when the PDU carries none.
    pub stat_sn: u32,
    /// The next command that is waited for.
    pub exp_cmd_sn: u32,
    /// The last command that is taken.
    pub max_cmd_sn: u32,
}

/// How the data moved differs from the data expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Residual {
    /// Not at all.
    #[default]
    None,
    /// So many bytes fewer were moved.
    Underflow(u32),
    /// So many bytes more would have been moved.
    Overflow(u32),
}

impl Residual {
    /// Compares what the initiator expects with what there is to move.
    #[must_use]
    pub fn of(expected_bytes: u32, wanted_bytes: u64) -> Self {
        let expected = u64::from(expected_bytes);
        let bytes = u32::try_from(expected.abs_diff(wanted_bytes)).unwrap_or(u32::MAX);
        match wanted_bytes.cmp(&expected) {
            std::cmp::Ordering::Less => Self::Underflow(bytes),
            std::cmp::Ordering::Equal => Self::None,
            std::cmp::Ordering::Greater => Self::Overflow(bytes),
        }
    }

    const fn flag(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Underflow(_) => flag::UNDERFLOW,
            Self::Overflow(_) => flag::OVERFLOW,
        }
    }

    const fn bytes(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Underflow(bytes) | Self::Overflow(bytes) => bytes,
        }
    }
}

/// SCSI Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScsiResponse {
    /// The task's tag.
    pub itt: u32,
    /// The SCSI status.
    pub status: u8,
    /// One of [`service_response`](super::constants::service_response).
    pub response: u8,
    /// What was not moved.
    pub residual: Residual,
    /// How many Data-In or R2T PDUs the task sent.
    pub exp_data_sn: u32,
    /// Length of the sense data with its own two bytes of length.
    pub data_bytes: u32,
}

/// SCSI Data-In.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataIn {
    /// The task's tag.
    pub itt: u32,
    /// Where the data belongs.
    pub offset: u32,
    /// Its place among the task's Data-In PDUs.
    pub data_sn: u32,
    /// Length of the data.
    pub data_bytes: u32,
    /// The last one of its sequence; one with a status is in any case.
    pub is_final: bool,
    /// The SCSI status, which may be here only when there is no sense data.
    pub status: Option<(u8, Residual)>,
}

/// Ready To Transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2t {
    /// The logical unit.
    pub lun: [u8; 8],
    /// The task's tag.
    pub itt: u32,
    /// The tag that the data is to come with.
    pub ttt: u32,
    /// Its place among the task's R2T PDUs.
    pub sn: u32,
    /// Where the data wanted begins.
    pub offset: u32,
    /// How much is wanted; not 0.
    pub bytes: u32,
}

/// NOP-In.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopIn {
    /// The logical unit, when there is a target's tag.
    pub lun: [u8; 8],
    /// The tag of the NOP-Out answered, else [`RESERVED_TAG`].
    pub itt: u32,
    /// The tag to be answered with, else [`RESERVED_TAG`].
    pub ttt: u32,
    /// Length of the ping data sent back.
    pub data_bytes: u32,
}

/// Text Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextResponse {
    /// The target has nothing more to say.
    pub is_final: bool,
    /// The text goes on in the next response.
    pub is_continued: bool,
    /// The logical unit, which comes back with the target's tag.
    pub lun: [u8; 8],
    /// The tag of the request answered.
    pub itt: u32,
    /// The tag to go on with, [`RESERVED_TAG`] in a final response.
    pub ttt: u32,
    /// Length of the text.
    pub data_bytes: u32,
}

/// Login Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginResponse {
    /// The next stage begins.
    pub is_transit: bool,
    /// The text goes on in the next response.
    pub is_continued: bool,
    /// The current stage.
    pub current_stage: u8,
    /// The stage that begins.
    pub next_stage: u8,
    /// The initiator's part of the session's id.
    pub isid: [u8; 6],
    /// The target's part.
    pub tsih: u16,
    /// The tag of the request answered.
    pub itt: u32,
    /// Class and detail.
    pub status: LoginStatus,
    /// Length of the text.
    pub data_bytes: u32,
}

/// Why a login ends, or that it goes well: RFC 7143 11.13.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoginStatus {
    /// 0 success, 1 redirection, 2 the initiator's fault, 3 the target's fault.
    pub class: u8,
    /// What exactly.
    pub detail: u8,
}

impl LoginStatus {
    /// The login goes well.
    pub const SUCCESS: Self = Self::new(0, 0);
    /// A rule was broken.
    pub const INITIATOR_ERROR: Self = Self::new(2, 0x00);
    /// The initiator is not who it says it is, or does not say.
    pub const AUTHENTICATION_FAILED: Self = Self::new(2, 0x01);
    /// The initiator may not use this target.
    pub const FORBIDDEN: Self = Self::new(2, 0x02);
    /// There is no such target.
    pub const NOT_FOUND: Self = Self::new(2, 0x03);
    /// The target is gone for good.
    pub const REMOVED: Self = Self::new(2, 0x04);
    /// No version is spoken by both.
    pub const UNSUPPORTED_VERSION: Self = Self::new(2, 0x05);
    /// The session has as many connections as it may.
    pub const TOO_MANY_CONNECTIONS: Self = Self::new(2, 0x06);
    /// A name is missing.
    pub const MISSING_PARAMETER: Self = Self::new(2, 0x07);
    /// The session cannot have this connection.
    pub const CANNOT_INCLUDE: Self = Self::new(2, 0x08);
    /// No such type of session.
    pub const SESSION_TYPE_UNSUPPORTED: Self = Self::new(2, 0x09);
    /// There is no such session.
    pub const NO_SESSION: Self = Self::new(2, 0x0a);
    /// Something else than a login came during login.
    pub const INVALID_DURING_LOGIN: Self = Self::new(2, 0x0b);
    /// The target fails.
    pub const TARGET_ERROR: Self = Self::new(3, 0x00);
    /// The target does not serve now.
    pub const UNAVAILABLE: Self = Self::new(3, 0x01);
    /// The target has too much to do.
    pub const OUT_OF_RESOURCES: Self = Self::new(3, 0x02);

    const fn new(class: u8, detail: u8) -> Self {
        Self { class, detail }
    }
}

/// Asynchronous Message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsyncMessage {
    /// The logical unit, for sense data.
    pub lun: [u8; 8],
    /// One of [`async_event`](super::constants::async_event).
    pub event: u8,
    /// What they mean depends on the event.
    pub parameters: [u16; 3],
    /// Length of the sense data with its own two bytes of length.
    pub data_bytes: u32,
}

/// Makes a SCSI Response.
#[must_use]
pub fn scsi_response(response: &ScsiResponse, numbers: Numbers) -> [u8; BHS_BYTES] {
    // A status is valid only when the command was completed: RFC 7143 11.4.2.
    Bhs::new(opcode::RESPONSE, flag::FINAL | response.residual.flag(), response.data_bytes)
        .put(2, [response.response, response.status])
        .put(16, response.itt.to_be_bytes())
        .numbers(numbers)
        .put(36, response.exp_data_sn.to_be_bytes())
        .put(44, response.residual.bytes().to_be_bytes())
        .0
}

/// Makes a SCSI Data-In; its status number counts only when it has a status.
#[must_use]
pub fn data_in(data: &DataIn, numbers: Numbers) -> [u8; BHS_BYTES] {
    let (status, residual, status_flag, stat_sn) = match data.status {
        Some((status, residual)) => (status, residual, flag::STATUS | flag::FINAL, numbers.stat_sn),
        None => (0, Residual::None, 0, 0),
    };
    let final_flag = if data.is_final { flag::FINAL } else { 0 };
    Bhs::new(opcode::DATA_IN, final_flag | status_flag | residual.flag(), data.data_bytes)
        .put(3, [status])
        .put(16, data.itt.to_be_bytes())
        .put(20, RESERVED_TAG.to_be_bytes())
        .numbers(Numbers { stat_sn, ..numbers })
        .put(36, data.data_sn.to_be_bytes())
        .put(40, data.offset.to_be_bytes())
        .put(44, residual.bytes().to_be_bytes())
        .0
}

/// Makes a Ready To Transfer; it tells the next status number without using it.
#[must_use]
pub fn r2t(r2t: &R2t, numbers: Numbers) -> [u8; BHS_BYTES] {
    Bhs::new(opcode::R2T, flag::FINAL, 0)
        .put(8, r2t.lun)
        .put(16, r2t.itt.to_be_bytes())
        .put(20, r2t.ttt.to_be_bytes())
        .numbers(numbers)
        .put(36, r2t.sn.to_be_bytes())
        .put(40, r2t.offset.to_be_bytes())
        .put(44, r2t.bytes.to_be_bytes())
        .0
}

/// Makes a NOP-In; one that answers no NOP-Out tells the next status number without using it.
#[must_use]
pub fn nop_in(nop: &NopIn, numbers: Numbers) -> [u8; BHS_BYTES] {
    Bhs::new(opcode::NOP_IN, flag::FINAL, nop.data_bytes)
        .put(8, nop.lun)
        .put(16, nop.itt.to_be_bytes())
        .put(20, nop.ttt.to_be_bytes())
        .numbers(numbers)
        .0
}

/// Makes a response to a task management function; `response` is of
/// [`task_response`](super::constants::task_response).
#[must_use]
pub fn task_response(itt: u32, response: u8, numbers: Numbers) -> [u8; BHS_BYTES] {
    Bhs::new(opcode::TASK_RESPONSE, flag::FINAL, 0).put(2, [response]).put(16, itt.to_be_bytes()).numbers(numbers).0
}

/// Makes a Text Response.
#[must_use]
pub fn text_response(text: &TextResponse, numbers: Numbers) -> [u8; BHS_BYTES] {
    let flags = if text.is_final { flag::FINAL } else { 0 } | if text.is_continued { flag::CONTINUE } else { 0 };
    Bhs::new(opcode::TEXT_RESPONSE, flags, text.data_bytes)
        .put(8, text.lun)
        .put(16, text.itt.to_be_bytes())
        .put(20, text.ttt.to_be_bytes())
        .numbers(numbers)
        .0
}

/// Makes a Login Response.
#[must_use]
pub fn login_response(login: &LoginResponse, numbers: Numbers) -> [u8; BHS_BYTES] {
    let transit = if login.is_transit { flag::TRANSIT | login.next_stage & 0x03 } else { 0 };
    let goes_on = if login.is_continued { flag::CONTINUE } else { 0 };
    Bhs::new(opcode::LOGIN_RESPONSE, transit | goes_on | (login.current_stage & 0x03) << 2, login.data_bytes)
        .put(2, [VERSION, VERSION])
        .put(8, login.isid)
        .put(14, login.tsih.to_be_bytes())
        .put(16, login.itt.to_be_bytes())
        .numbers(numbers)
        .put(36, [login.status.class, login.status.detail])
        .0
}

/// Makes a Logout Response; `response` is of [`logout_response`](super::constants::logout_response), times in seconds.
#[must_use]
pub fn logout_response(itt: u32, response: u8, time2wait: u16, time2retain: u16, numbers: Numbers) -> [u8; BHS_BYTES] {
    Bhs::new(opcode::LOGOUT_RESPONSE, flag::FINAL, 0)
        .put(2, [response])
        .put(16, itt.to_be_bytes())
        .numbers(numbers)
        .put(40, time2wait.to_be_bytes())
        .put(42, time2retain.to_be_bytes())
        .0
}

/// Makes a Reject; its data is the basic header segment of the PDU rejected.
#[must_use]
pub fn reject(reason: RejectReason, numbers: Numbers) -> [u8; BHS_BYTES] {
    Bhs::new(opcode::REJECT, flag::FINAL, REJECT_DATA_BYTES)
        .put(2, [reason.to_wire()])
        .put(16, RESERVED_TAG.to_be_bytes())
        .numbers(numbers)
        .0
}

/// Makes an Asynchronous Message.
#[must_use]
pub fn async_message(message: &AsyncMessage, numbers: Numbers) -> [u8; BHS_BYTES] {
    let [first, second, third] = message.parameters;
    Bhs::new(opcode::ASYNC_MESSAGE, flag::FINAL, message.data_bytes)
        .put(8, message.lun)
        .put(16, RESERVED_TAG.to_be_bytes())
        .numbers(numbers)
        .put(36, [message.event])
        .put(38, first.to_be_bytes())
        .put(40, second.to_be_bytes())
        .put(42, third.to_be_bytes())
        .0
}

/// A header in the making.
struct Bhs([u8; BHS_BYTES]);

impl Bhs {
    fn new(opcode: u8, flags: u8, data_bytes: u32) -> Self {
        assert!(data_bytes <= DATA_SEGMENT_BYTES_MAX, "a data segment of {data_bytes} bytes");
        let [_, length @ ..] = data_bytes.to_be_bytes();
        Self([0; BHS_BYTES]).put(0, [opcode, flags]).put(5, length)
    }

    #[inline]
    fn put<const N: usize>(mut self, at: usize, field: [u8; N]) -> Self {
        if let Some(place) = self.0.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<N>()) {
            *place = field;
        }
        self
    }

    fn numbers(self, numbers: Numbers) -> Self {
        self.put(24, numbers.stat_sn.to_be_bytes())
            .put(28, numbers.exp_cmd_sn.to_be_bytes())
            .put(32, numbers.max_cmd_sn.to_be_bytes())
    }
}

const REJECT_DATA_BYTES: u32 = 48;
const _: () = assert!(BHS_BYTES == 48);

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: Numbers = Numbers { stat_sn: 0x11, exp_cmd_sn: 0x22, max_cmd_sn: 0x33 };

    fn hex(bytes: [u8; BHS_BYTES]) -> String {
        let words: Vec<String> = bytes
            .chunks(4)
            .map(|word| word.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}")))
            .collect();
        words.join(" ")
    }

    #[test]
    fn a_response_has_status_residual_and_counts() {
        let response = ScsiResponse {
            itt: 9,
            status: 2,
            response: 0,
            residual: Residual::Overflow(7),
            exp_data_sn: 3,
            data_bytes: 20,
        };
        assert_eq!(
            hex(scsi_response(&response, NUMBERS)),
            "21840002 00000014 00000000 00000000 00000009 00000000 \
             00000011 00000022 00000033 00000003 00000000 00000007"
        );
    }

    #[test]
    fn data_has_a_status_number_only_with_a_status() {
        let data = DataIn { itt: 9, offset: 512, data_sn: 1, data_bytes: 256, is_final: false, status: None };
        assert_eq!(
            hex(data_in(&data, NUMBERS)),
            "25000000 00000100 00000000 00000000 00000009 ffffffff \
             00000000 00000022 00000033 00000001 00000200 00000000"
        );
        let last = DataIn { status: Some((0, Residual::Underflow(4))), ..data };
        assert_eq!(
            hex(data_in(&last, NUMBERS)),
            "25830000 00000100 00000000 00000000 00000009 ffffffff \
             00000011 00000022 00000033 00000001 00000200 00000004"
        );
    }

    #[test]
    fn an_r2t_asks_for_a_range() {
        let wanted = R2t { lun: [0, 1, 0, 0, 0, 0, 0, 0], itt: 9, ttt: 5, sn: 2, offset: 0x1000, bytes: 0x2000 };
        assert_eq!(
            hex(r2t(&wanted, NUMBERS)),
            "31800000 00000000 00010000 00000000 00000009 00000005 \
             00000011 00000022 00000033 00000002 00001000 00002000"
        );
    }

    #[test]
    fn small_replies_are_as_the_specification_draws_them() {
        let nop = NopIn { lun: [0; 8], itt: 9, ttt: RESERVED_TAG, data_bytes: 8 };
        assert_eq!(
            hex(nop_in(&nop, NUMBERS)),
            "20800000 00000008 00000000 00000000 00000009 ffffffff \
             00000011 00000022 00000033 00000000 00000000 00000000"
        );
        assert!(hex(task_response(9, 5, NUMBERS)).starts_with("22800500 00000000 00000000 00000000 00000009"));
        assert!(hex(logout_response(9, 1, 2, 3, NUMBERS)).ends_with("00000000 00020003 00000000"));
        assert!(
            hex(reject(RejectReason::InvalidPduField, NUMBERS))
                .starts_with("3f800900 00000030 00000000 00000000 ffffffff")
        );
        let message = AsyncMessage { lun: [0; 8], event: 1, parameters: [0, 0, 10], data_bytes: 0 };
        assert!(hex(async_message(&message, NUMBERS)).ends_with("01000000 0000000a 00000000"));
        let text =
            TextResponse { is_final: false, is_continued: true, lun: [0; 8], itt: 9, ttt: 4, data_bytes: 0x0001_0203 };
        assert!(
            hex(text_response(&text, NUMBERS)).starts_with("24400000 00010203 00000000 00000000 00000009 00000004")
        );
    }

    #[test]
    fn a_login_response_names_the_stages_and_the_session() {
        let login = LoginResponse {
            is_transit: true,
            is_continued: false,
            current_stage: 1,
            next_stage: 3,
            isid: [1, 2, 3, 4, 5, 6],
            tsih: 7,
            itt: 9,
            status: LoginStatus::NOT_FOUND,
            data_bytes: 0,
        };
        assert_eq!(
            hex(login_response(&login, NUMBERS)),
            "23870000 00000000 01020304 05060007 00000009 00000000 \
             00000011 00000022 00000033 02030000 00000000 00000000"
        );
    }

    #[test]
    fn residuals_compare_what_is_expected_with_what_there_is() {
        assert_eq!(Residual::of(512, 512), Residual::None);
        assert_eq!(Residual::of(512, 500), Residual::Underflow(12));
        assert_eq!(Residual::of(512, 1024), Residual::Overflow(512));
        assert_eq!(Residual::of(0, u64::MAX), Residual::Overflow(u32::MAX));
    }
}
