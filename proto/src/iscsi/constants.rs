//! Numbers of the iSCSI wire: RFC 7143 section 11 unless said otherwise.

/// Length of a basic header segment.
pub const BHS_BYTES: usize = 48;

/// Length of a header or data digest.
pub const DIGEST_BYTES: usize = 4;

/// The greatest length that the 24 bits of `DataSegmentLength` hold.
pub const DATA_SEGMENT_BYTES_MAX: u32 = 0x00ff_ffff;

/// The tag, initiator's or target's, that stands for none.
pub const RESERVED_TAG: u32 = 0xffff_ffff;

/// The port a target listens on unless told otherwise.
pub const PORT: u16 = 3260;

/// The only version of the protocol.
pub const VERSION: u8 = 0;

/// The longest iSCSI name: RFC 7143 4.2.7.1.
pub const NAME_BYTES_MAX: usize = 223;

/// Opcodes, without the immediate bit.
pub mod opcode {
    /// NOP-Out.
    pub const NOP_OUT: u8 = 0x00;
    /// SCSI Command.
    pub const COMMAND: u8 = 0x01;
    /// SCSI Task Management Function Request.
    pub const TASK: u8 = 0x02;
    /// Login Request.
    pub const LOGIN: u8 = 0x03;
    /// Text Request.
    pub const TEXT: u8 = 0x04;
    /// SCSI Data-Out.
    pub const DATA_OUT: u8 = 0x05;
    /// Logout Request.
    pub const LOGOUT: u8 = 0x06;
    /// SNACK Request.
    pub const SNACK: u8 = 0x10;
    /// NOP-In.
    pub const NOP_IN: u8 = 0x20;
    /// SCSI Response.
    pub const RESPONSE: u8 = 0x21;
    /// SCSI Task Management Function Response.
    pub const TASK_RESPONSE: u8 = 0x22;
    /// Login Response.
    pub const LOGIN_RESPONSE: u8 = 0x23;
    /// Text Response.
    pub const TEXT_RESPONSE: u8 = 0x24;
    /// SCSI Data-In.
    pub const DATA_IN: u8 = 0x25;
    /// Logout Response.
    pub const LOGOUT_RESPONSE: u8 = 0x26;
    /// Ready To Transfer.
    pub const R2T: u8 = 0x31;
    /// Asynchronous Message.
    pub const ASYNC_MESSAGE: u8 = 0x32;
    /// Reject.
    pub const REJECT: u8 = 0x3f;
}

/// Task management functions: RFC 7143 11.5.1.
pub mod task_function {
    /// Aborts the one task that the referenced tag names.
    pub const ABORT_TASK: u8 = 1;
    /// Aborts all tasks of this session on the logical unit.
    pub const ABORT_TASK_SET: u8 = 2;
    /// Clears the auto contingent allegiance.
    pub const CLEAR_ACA: u8 = 3;
    /// Aborts all tasks of every session on the logical unit.
    pub const CLEAR_TASK_SET: u8 = 4;
    /// Resets the logical unit.
    pub const LOGICAL_UNIT_RESET: u8 = 5;
    /// Resets the target and keeps its sessions.
    pub const TARGET_WARM_RESET: u8 = 6;
    /// Resets the target and ends its sessions.
    pub const TARGET_COLD_RESET: u8 = 7;
    /// Moves a task to this connection; needs an error recovery level of 2.
    pub const TASK_REASSIGN: u8 = 8;
}

/// Responses to task management functions: RFC 7143 11.6.1.
pub mod task_response {
    /// The function was carried out.
    pub const COMPLETE: u8 = 0;
    /// There is no such task.
    pub const NO_TASK: u8 = 1;
    /// There is no such logical unit.
    pub const NO_LUN: u8 = 2;
    /// The task is still allegiant to another connection.
    pub const STILL_ALLEGIANT: u8 = 3;
    /// Tasks cannot be reassigned.
    pub const REASSIGN_UNSUPPORTED: u8 = 4;
    /// The function is not supported.
    pub const UNSUPPORTED: u8 = 5;
    /// The initiator may not do this.
    pub const NOT_AUTHORIZED: u8 = 6;
    /// The function was rejected.
    pub const REJECTED: u8 = 255;
}

/// Reasons of a Logout Request: RFC 7143 11.14.1.
pub mod logout_reason {
    /// Ends the session.
    pub const CLOSE_SESSION: u8 = 0;
    /// Ends the connection named.
    pub const CLOSE_CONNECTION: u8 = 1;
    /// Ends the connection named, for its tasks to be reassigned.
    pub const REMOVE_FOR_RECOVERY: u8 = 2;
}

/// Responses to a Logout Request: RFC 7143 11.15.1.
pub mod logout_response {
    /// The connection or session was ended.
    pub const CLOSED: u8 = 0;
    /// There is no such connection.
    pub const CID_NOT_FOUND: u8 = 1;
    /// Connections cannot be recovered.
    pub const RECOVERY_UNSUPPORTED: u8 = 2;
    /// Cleanup failed.
    pub const CLEANUP_FAILED: u8 = 3;
}

/// The `Response` field of a SCSI Response: RFC 7143 11.4.3.
pub mod service_response {
    /// The command was carried out; its status is valid.
    pub const COMPLETED: u8 = 0x00;
    /// The target failed; there is no status.
    pub const TARGET_FAILURE: u8 = 0x01;
}

/// Events of an Asynchronous Message: RFC 7143 11.9.1.
pub mod async_event {
    /// Sense data is in the data segment.
    pub const SENSE: u8 = 0;
    /// The initiator is to log out within the time of the third parameter.
    pub const LOGOUT_WANTED: u8 = 1;
    /// The target drops the connection of the first parameter.
    pub const CONNECTION_DROPPED: u8 = 2;
    /// The target drops all connections of the session.
    pub const SESSION_DROPPED: u8 = 3;
    /// The target wants to negotiate parameters.
    pub const NEGOTIATION_WANTED: u8 = 4;
}

/// Bits of the second byte of a header.
pub(super) mod flag {
    /// The last PDU of a sequence, and what is always set in many others.
    pub(in crate::iscsi) const FINAL: u8 = 0x80;
    /// Login: go to the next stage.
    pub(in crate::iscsi) const TRANSIT: u8 = 0x80;
    /// Login and text: the text goes on in the next PDU.
    pub(in crate::iscsi) const CONTINUE: u8 = 0x40;
    /// SCSI Command: data comes in.
    pub(in crate::iscsi) const READ: u8 = 0x40;
    /// SCSI Command: data goes out.
    pub(in crate::iscsi) const WRITE: u8 = 0x20;
    /// More data was wanted than was expected.
    pub(in crate::iscsi) const OVERFLOW: u8 = 0x04;
    /// Less data was moved than was expected.
    pub(in crate::iscsi) const UNDERFLOW: u8 = 0x02;
    /// SCSI Data-In: the status is in it.
    pub(in crate::iscsi) const STATUS: u8 = 0x01;
}

/// The immediate bit of the first byte.
pub(super) const IMMEDIATE: u8 = 0x40;
