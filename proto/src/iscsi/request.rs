//! What an initiator sends, as typed facts: RFC 7143 11.3, 11.5, 11.7, 11.10, 11.12, 11.14, 11.16, 11.18.
//!
//! Reads one header; the data segment stays with the caller, who knows what to do with so many bytes. What makes no
//! sense on any connection is refused here with the reason for a Reject PDU; what depends on the session's state is not
//! judged.

use super::constants::{IMMEDIATE, RESERVED_TAG, flag, opcode};
use super::frame::Head;
use crate::wire::{take, take_bytes, take_u16, take_u32};

/// Any PDU of an initiator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A ping, or the answer to one.
    NopOut(NopOut),
    /// A SCSI command.
    Command(ScsiCommand),
    /// A task management function.
    Task(TaskManagement),
    /// A step of the login.
    Login(LoginRequest),
    /// Keys and values after login.
    Text(TextRequest),
    /// Data of a write.
    DataOut(DataOut),
    /// A farewell.
    Logout(LogoutRequest),
    /// Asks for something to be sent again, for which there is no error recovery level here.
    Snack,
}

/// NOP-Out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NopOut {
    /// To be carried out at once, outside the order of commands.
    pub immediate: bool,
    /// The logical unit, for an answer to a NOP-In.
    pub lun: [u8; 8],
    /// [`RESERVED_TAG`] when no answer is wanted.
    pub itt: u32,
    /// [`RESERVED_TAG`] when it answers no NOP-In.
    pub ttt: u32,
    /// Its place in the order of commands.
    pub cmd_sn: u32,
    /// The next status that the initiator waits for.
    pub exp_stat_sn: u32,
    /// Length of the ping data.
    pub data_bytes: u32,
}

/// Task attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// None.
    Untagged,
    /// May be reordered.
    Simple,
    /// A barrier.
    Ordered,
    /// Before all others.
    HeadOfQueue,
    /// Auto contingent allegiance.
    Aca,
}

/// SCSI Command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScsiCommand {
    /// To be carried out at once, outside the order of commands.
    pub immediate: bool,
    /// No unsolicited Data-Out follows.
    pub is_final: bool,
    /// Expects data to come in.
    pub reads: bool,
    /// Has data to send.
    pub writes: bool,
    /// The task's attribute.
    pub attribute: Attribute,
    /// The logical unit.
    pub lun: [u8; 8],
    /// The task's tag.
    pub itt: u32,
    /// Expected data transfer length: of the write when it both reads and writes.
    pub expected_bytes: u32,
    /// Expected length of the read when it both reads and writes.
    pub expected_read_bytes: Option<u32>,
    /// Its place in the order of commands.
    pub cmd_sn: u32,
    /// The next status that the initiator waits for.
    pub exp_stat_sn: u32,
    /// The first 16 bytes of the command descriptor block.
    pub cdb: [u8; 16],
    /// The bytes beyond, most often none.
    pub extended: Vec<u8>,
    /// Length of the immediate data.
    pub data_bytes: u32,
}

/// SCSI Task Management Function Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskManagement {
    /// To be carried out at once, outside the order of commands.
    pub immediate: bool,
    /// One of [`task_function`](super::constants::task_function), or anything.
    pub function: u8,
    /// The logical unit.
    pub lun: [u8; 8],
    /// The tag of this request.
    pub itt: u32,
    /// The tag of the task concerned.
    pub referenced: u32,
    /// Its place in the order of commands.
    pub cmd_sn: u32,
    /// The next status that the initiator waits for.
    pub exp_stat_sn: u32,
    /// The place of the task concerned.
    pub ref_cmd_sn: u32,
}

/// Login Request. Stages and versions are as sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginRequest {
    /// The initiator is ready for the next stage.
    pub is_transit: bool,
    /// The text goes on in the next request.
    pub is_continued: bool,
    /// The current stage.
    pub current_stage: u8,
    /// The next stage, if it is ready.
    pub next_stage: u8,
    /// The highest version spoken.
    pub version_max: u8,
    /// The lowest version spoken.
    pub version_min: u8,
    /// The initiator's part of the session's id.
    pub isid: [u8; 6],
    /// The target's part: 0 for a new session.
    pub tsih: u16,
    /// The tag of this request.
    pub itt: u32,
    /// The connection's id within the session.
    pub cid: u16,
    /// The first place in the order of commands, for a new session.
    pub cmd_sn: u32,
    /// The next status that the initiator waits for.
    pub exp_stat_sn: u32,
    /// Length of the text.
    pub data_bytes: u32,
}

/// Text Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextRequest {
    /// To be carried out at once, outside the order of commands.
    pub immediate: bool,
    /// The initiator has nothing more to say.
    pub is_final: bool,
    /// The text goes on in the next request.
    pub is_continued: bool,
    /// The logical unit that came with the target's tag.
    pub lun: [u8; 8],
    /// The tag of this request.
    pub itt: u32,
    /// The target's tag of an answer that is to go on, else [`RESERVED_TAG`].
    pub ttt: u32,
    /// Its place in the order of commands.
    pub cmd_sn: u32,
    /// The next status that the initiator waits for.
    pub exp_stat_sn: u32,
    /// Length of the text.
    pub data_bytes: u32,
}

/// SCSI Data-Out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataOut {
    /// The last one of its sequence.
    pub is_final: bool,
    /// The logical unit, for solicited data.
    pub lun: [u8; 8],
    /// The task's tag.
    pub itt: u32,
    /// The tag of the R2T answered, [`RESERVED_TAG`] for unsolicited data.
    pub ttt: u32,
    /// The next status that the initiator waits for.
    pub exp_stat_sn: u32,
    /// Its place in the sequence.
    pub data_sn: u32,
    /// Where its data belongs.
    pub offset: u32,
    /// Length of its data.
    pub data_bytes: u32,
}

/// Logout Request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutRequest {
    /// To be carried out at once, outside the order of commands.
    pub immediate: bool,
    /// One of [`logout_reason`](super::constants::logout_reason), or anything.
    pub reason: u8,
    /// The tag of this request.
    pub itt: u32,
    /// The connection concerned, unless all are.
    pub cid: u16,
    /// Its place in the order of commands.
    pub cmd_sn: u32,
    /// The next status that the initiator waits for.
    pub exp_stat_sn: u32,
}

/// Reasons of a Reject PDU: RFC 7143 11.17.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// The data digest does not fit the data.
    DataDigest,
    /// Nothing is sent again.
    SnackRejected,
    /// The PDU was out of place.
    ProtocolError,
    /// The opcode is not known.
    CommandNotSupported,
    /// Too many immediate commands.
    TooManyImmediate,
    /// The task is in progress already.
    TaskInProgress,
    /// An acknowledgement of data that was not sent.
    InvalidDataAck,
    /// A field's value makes no sense.
    InvalidPduField,
    /// No target transfer tag is left.
    OutOfTags,
    /// Only a logout is taken now.
    WaitingForLogout,
}

impl RejectReason {
    /// The code on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::DataDigest => 0x02,
            Self::SnackRejected => 0x03,
            Self::ProtocolError => 0x04,
            Self::CommandNotSupported => 0x05,
            Self::TooManyImmediate => 0x06,
            Self::TaskInProgress => 0x07,
            Self::InvalidDataAck => 0x08,
            Self::InvalidPduField => 0x09,
            Self::OutOfTags => 0x0a,
            Self::WaitingForLogout => 0x0c,
        }
    }
}

/// Reads a header as a request.
///
/// # Errors
/// The reason to reject the PDU with. Its data segment follows all the same.
pub fn decode(head: &Head) -> Result<Request, RejectReason> {
    let opcode = head.opcode();
    if !head.ahs.is_empty() && opcode != opcode::COMMAND {
        return Err(RejectReason::InvalidPduField);
    }
    let fields = Fields::split(head);
    match opcode {
        opcode::NOP_OUT => nop_out(&fields).map(Request::NopOut),
        opcode::COMMAND => command(&fields, &head.ahs).map(Request::Command),
        opcode::TASK => task(&fields).map(Request::Task),
        opcode::LOGIN => Ok(Request::Login(login(&fields))),
        opcode::TEXT => text(&fields).map(Request::Text),
        opcode::DATA_OUT => data_out(&fields).map(Request::DataOut),
        opcode::LOGOUT => logout(&fields).map(Request::Logout),
        opcode::SNACK => Ok(Request::Snack),
        _ => Err(RejectReason::CommandNotSupported),
    }
}

/// The header cut where most PDUs cut it.
struct Fields {
    immediate: bool,
    flags: u8,
    byte2: u8,
    byte3: u8,
    /// Bytes 8 to 15: the logical unit, mostly.
    lun: [u8; 8],
    itt: u32,
    /// Words at bytes 20, 24 and so on.
    words: [u32; 3],
    /// Bytes 32 to 47.
    tail: [u8; 16],
    data_bytes: u32,
}

impl Fields {
    fn split(head: &Head) -> Self {
        let mut rest = &head.bhs[..];
        let [first, flags, byte2, byte3] = take(&mut rest).unwrap_or_default();
        let _lengths = take_u32(&mut rest);
        Self {
            immediate: first & IMMEDIATE != 0,
            flags,
            byte2,
            byte3,
            lun: take(&mut rest).unwrap_or_default(),
            itt: take_u32(&mut rest).unwrap_or_default(),
            words: [(); 3].map(|()| take_u32(&mut rest).unwrap_or_default()),
            tail: take(&mut rest).unwrap_or_default(),
            data_bytes: head.data_bytes,
        }
    }

    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The tag, which must be one.
    const fn task_tag(&self) -> Result<u32, RejectReason> {
        if self.itt == RESERVED_TAG { Err(RejectReason::InvalidPduField) } else { Ok(self.itt) }
    }

    /// Word `N` of the tail.
    fn tail_word(&self, at: usize) -> u32 {
        let mut rest = self.tail.get(at * 4..).unwrap_or_default();
        take_u32(&mut rest).unwrap_or_default()
    }
}

fn nop_out(fields: &Fields) -> Result<NopOut, RejectReason> {
    let [ttt, cmd_sn, exp_stat_sn] = fields.words;
    // RFC 7143 11.18.1: without a task tag it must be immediate, so that it takes no place in the order of commands.
    if fields.itt == RESERVED_TAG && !fields.immediate {
        return Err(RejectReason::InvalidPduField);
    }
    Ok(NopOut {
        immediate: fields.immediate,
        lun: fields.lun,
        itt: fields.itt,
        ttt,
        cmd_sn,
        exp_stat_sn,
        data_bytes: fields.data_bytes,
    })
}

fn command(fields: &Fields, ahs: &[u8]) -> Result<ScsiCommand, RejectReason> {
    let [expected_bytes, cmd_sn, exp_stat_sn] = fields.words;
    let (is_final, writes) = (fields.has(flag::FINAL), fields.has(flag::WRITE));
    // RFC 7143 11.3.1: "Setting both the W and the F bit to 0 is an error"; data that no write announced is one too.
    if !writes && (!is_final || fields.data_bytes > 0) {
        return Err(RejectReason::InvalidPduField);
    }
    let Additional { extended, expected_read_bytes } = additional(ahs).ok_or(RejectReason::InvalidPduField)?;
    Ok(ScsiCommand {
        immediate: fields.immediate,
        is_final,
        reads: fields.has(flag::READ),
        writes,
        attribute: attribute(fields.flags & 0x07).ok_or(RejectReason::InvalidPduField)?,
        lun: fields.lun,
        itt: fields.task_tag()?,
        expected_bytes,
        expected_read_bytes,
        cmd_sn,
        exp_stat_sn,
        cdb: fields.tail,
        extended,
        data_bytes: fields.data_bytes,
    })
}

const fn attribute(code: u8) -> Option<Attribute> {
    Some(match code {
        0 => Attribute::Untagged,
        1 => Attribute::Simple,
        2 => Attribute::Ordered,
        3 => Attribute::HeadOfQueue,
        4 => Attribute::Aca,
        _ => return None,
    })
}

/// What additional header segments say.
#[derive(Default)]
struct Additional {
    extended: Vec<u8>,
    expected_read_bytes: Option<u32>,
}

/// Reads additional header segments: RFC 7143 11.2.2. `None` when they are none, or one comes twice.
fn additional(mut ahs: &[u8]) -> Option<Additional> {
    let mut found = Additional::default();
    while !ahs.is_empty() {
        let length = usize::from(take_u16(&mut ahs)?);
        let [kind] = take(&mut ahs)?;
        // The length counts neither itself, nor the type, nor padding to a word.
        let padded = super::frame::padded(length + 3) - 3;
        let mut segment = take_bytes(&mut ahs, padded)?.get(..length)?;
        let [_reserved] = take(&mut segment)?;
        match kind {
            AHS_EXTENDED_CDB if found.extended.is_empty() && !segment.is_empty() => found.extended = segment.to_vec(),
            AHS_READ_LENGTH if found.expected_read_bytes.is_none() && segment.len() == 4 => {
                found.expected_read_bytes = take_u32(&mut segment);
            }
            _ => return None,
        }
    }
    Some(found)
}

fn task(fields: &Fields) -> Result<TaskManagement, RejectReason> {
    let [referenced, cmd_sn, exp_stat_sn] = fields.words;
    Ok(TaskManagement {
        immediate: fields.immediate,
        function: fields.flags & 0x7f,
        lun: fields.lun,
        itt: fields.task_tag()?,
        referenced,
        cmd_sn,
        exp_stat_sn,
        ref_cmd_sn: fields.tail_word(0),
    })
}

fn login(fields: &Fields) -> LoginRequest {
    let [cid, cmd_sn, exp_stat_sn] = fields.words;
    let [cid_high, cid_low, ..] = cid.to_be_bytes();
    let [isid @ .., tsih_high, tsih_low] = fields.lun;
    LoginRequest {
        is_transit: fields.has(flag::TRANSIT),
        is_continued: fields.has(flag::CONTINUE),
        current_stage: fields.flags >> 2 & 0x03,
        next_stage: fields.flags & 0x03,
        version_max: fields.byte2,
        version_min: fields.byte3,
        isid,
        tsih: u16::from_be_bytes([tsih_high, tsih_low]),
        itt: fields.itt,
        cid: u16::from_be_bytes([cid_high, cid_low]),
        cmd_sn,
        exp_stat_sn,
        data_bytes: fields.data_bytes,
    }
}

fn text(fields: &Fields) -> Result<TextRequest, RejectReason> {
    let [ttt, cmd_sn, exp_stat_sn] = fields.words;
    let (is_final, is_continued) = (fields.has(flag::FINAL), fields.has(flag::CONTINUE));
    // RFC 7143 11.10.2: text that goes on is not final.
    if is_final && is_continued {
        return Err(RejectReason::InvalidPduField);
    }
    Ok(TextRequest {
        immediate: fields.immediate,
        is_final,
        is_continued,
        lun: fields.lun,
        itt: fields.task_tag()?,
        ttt,
        cmd_sn,
        exp_stat_sn,
        data_bytes: fields.data_bytes,
    })
}

fn data_out(fields: &Fields) -> Result<DataOut, RejectReason> {
    let [ttt, _, exp_stat_sn] = fields.words;
    Ok(DataOut {
        is_final: fields.has(flag::FINAL),
        lun: fields.lun,
        itt: fields.task_tag()?,
        ttt,
        exp_stat_sn,
        data_sn: fields.tail_word(1),
        offset: fields.tail_word(2),
        data_bytes: fields.data_bytes,
    })
}

fn logout(fields: &Fields) -> Result<LogoutRequest, RejectReason> {
    let [cid, cmd_sn, exp_stat_sn] = fields.words;
    let [cid_high, cid_low, ..] = cid.to_be_bytes();
    Ok(LogoutRequest {
        immediate: fields.immediate,
        reason: fields.flags & 0x7f,
        itt: fields.task_tag()?,
        cid: u16::from_be_bytes([cid_high, cid_low]),
        cmd_sn,
        exp_stat_sn,
    })
}

const AHS_EXTENDED_CDB: u8 = 1;
const AHS_READ_LENGTH: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(first: u8, flags: u8, fields: &[(usize, &[u8])]) -> Head {
        let mut bhs = [0; 48];
        bhs[0] = first;
        bhs[1] = flags;
        bhs[16..20].copy_from_slice(&[0, 0, 0, 9]);
        for (at, field) in fields {
            bhs[*at..*at + field.len()].copy_from_slice(field);
        }
        Head { bhs, ahs: Vec::new(), data_bytes: 0 }
    }

    #[test]
    fn a_command_is_read_field_by_field() {
        let mut head = head(
            0x41,
            0xa1,
            &[(8, &[0, 3]), (20, &[0, 0, 2, 0]), (24, &[0, 0, 0, 5]), (28, &[0, 0, 0, 6]), (32, &[0x2a; 16])],
        );
        head.data_bytes = 512;
        let Request::Command(command) = decode(&head).unwrap() else { panic!("a command") };
        assert_eq!(
            command,
            ScsiCommand {
                immediate: true,
                is_final: true,
                reads: false,
                writes: true,
                attribute: Attribute::Simple,
                lun: [0, 3, 0, 0, 0, 0, 0, 0],
                itt: 9,
                expected_bytes: 512,
                expected_read_bytes: None,
                cmd_sn: 5,
                exp_stat_sn: 6,
                cdb: [0x2a; 16],
                extended: Vec::new(),
                data_bytes: 512,
            }
        );
    }

    #[test]
    fn commands_that_make_no_sense_are_refused() {
        let refused = Err(RejectReason::InvalidPduField);
        assert_eq!(decode(&head(0x01, 0x41, &[])), refused, "neither final nor a write");
        assert_eq!(decode(&head(0x01, 0xc5, &[])), refused, "attribute 5");
        assert_eq!(decode(&head(0x01, 0x80, &[(16, &[0xff; 4])])), refused, "no tag");
        assert_eq!(decode(&Head { data_bytes: 4, ..head(0x01, 0xc1, &[]) }), refused, "data of a read");
        assert!(decode(&head(0x01, 0x21, &[])).is_ok());
    }

    #[test]
    fn a_long_command_descriptor_block_and_a_second_length_come_in_additional_segments() {
        let decoded = |ahs: &[u8]| match decode(&Head { ahs: ahs.to_vec(), ..head(0x01, 0xe1, &[]) }) {
            Ok(Request::Command(command)) => Some((command.extended, command.expected_read_bytes)),
            _ => None,
        };
        // 20 bytes of block: an additional length of 20 - 15.
        let extended = [0, 5, 1, 0, 1, 2, 3, 4];
        let length = [0, 5, 2, 0, 0, 0, 0x10, 0];
        assert_eq!(decoded(&extended), Some((vec![1, 2, 3, 4], None)));
        assert_eq!(decoded(&length), Some((vec![], Some(4096))));
        assert_eq!(decoded(&[extended, length].concat()), Some((vec![1, 2, 3, 4], Some(4096))));
        // 17 bytes of block, padded.
        assert_eq!(decoded(&[0, 2, 1, 0, 7, 0, 0, 0]), Some((vec![7], None)));
        for wrong in [
            &[extended, extended].concat()[..],
            &[0, 0, 1, 0],
            &[0, 1, 1, 0],
            &[0, 5, 3, 0, 1, 2, 3, 4],
            &[0xff, 0xff, 1, 0],
            &[0, 9, 1, 0, 1, 2, 3, 4],
            &[0, 4, 2, 0, 1, 2, 3, 0],
        ] {
            assert_eq!(decoded(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_commands_have_additional_segments() {
        let text = Head { ahs: vec![0, 5, 1, 0, 1, 2, 3, 4], ..head(0x04, 0x80, &[]) };
        assert_eq!(decode(&text), Err(RejectReason::InvalidPduField));
    }

    #[test]
    fn a_login_request_is_read_field_by_field() {
        let fields: [(usize, &[u8]); 6] = [
            (2, &[1, 0]),
            (8, &[0x40, 1, 2, 3, 4, 5, 0, 7]),
            (20, &[0, 8]),
            (24, &[0, 0, 0, 5]),
            (28, &[0, 0, 0, 6]),
            (16, &[0xff; 4]),
        ];
        let Request::Login(login) = decode(&head(0x43, 0xc7, &fields)).unwrap() else { panic!("a login") };
        assert_eq!(
            login,
            LoginRequest {
                is_transit: true,
                is_continued: true,
                current_stage: 1,
                next_stage: 3,
                version_max: 1,
                version_min: 0,
                isid: [0x40, 1, 2, 3, 4, 5],
                tsih: 7,
                itt: RESERVED_TAG,
                cid: 8,
                cmd_sn: 5,
                exp_stat_sn: 6,
                data_bytes: 0,
            }
        );
    }

    #[test]
    fn data_is_read_field_by_field() {
        let fields: [(usize, &[u8]); 5] = [
            (20, &[0, 0, 0, 1]),
            (28, &[0, 0, 0, 2]),
            (36, &[0, 0, 0, 3]),
            (40, &[0, 0, 0, 4]),
            (8, &[0, 1, 0, 0, 0, 0, 0, 0]),
        ];
        let Request::DataOut(data) = decode(&head(0x05, 0x80, &fields)).unwrap() else { panic!("data") };
        let lun = [0, 1, 0, 0, 0, 0, 0, 0];
        let expected =
            DataOut { is_final: true, lun, itt: 9, ttt: 1, exp_stat_sn: 2, data_sn: 3, offset: 4, data_bytes: 0 };
        assert_eq!(data, expected);
    }

    #[test]
    fn task_management_logout_and_text_are_read() {
        let fields: [(usize, &[u8]); 2] = [(20, &[0, 7, 0, 8]), (32, &[0, 0, 0, 4])];
        let Request::Task(task) = decode(&head(0x42, 0x81, &fields)).unwrap() else { panic!("a task") };
        assert_eq!((task.function, task.referenced, task.ref_cmd_sn, task.immediate), (1, 0x0007_0008, 4, true));
        let Request::Logout(logout) = decode(&head(0x46, 0x81, &fields)).unwrap() else { panic!("a logout") };
        assert_eq!((logout.reason, logout.cid), (1, 7));
        let Request::Text(text) = decode(&head(0x04, 0x40, &fields)).unwrap() else { panic!("a text") };
        assert_eq!((text.is_final, text.is_continued, text.ttt, text.immediate), (false, true, 0x0007_0008, false));
        assert_eq!(decode(&head(0x04, 0xc0, &fields)), Err(RejectReason::InvalidPduField));
        assert_eq!(decode(&head(0x50, 0x80, &[])), Ok(Request::Snack));
    }

    #[test]
    fn a_ping_without_a_tag_must_be_immediate() {
        let no_tag: [(usize, &[u8]); 1] = [(16, &[0xff; 4])];
        assert_eq!(decode(&head(0x00, 0x80, &no_tag)), Err(RejectReason::InvalidPduField));
        assert!(matches!(decode(&head(0x40, 0x80, &no_tag)), Ok(Request::NopOut(NopOut { itt: RESERVED_TAG, .. }))));
    }

    #[test]
    fn opcodes_of_targets_and_unknown_ones_are_not_supported() {
        for opcode in (0..0x40).filter(|opcode| !matches!(opcode, 0..=6 | 0x10)) {
            assert_eq!(decode(&head(opcode, 0x80, &[])), Err(RejectReason::CommandNotSupported), "{opcode:#x}");
        }
    }
}
