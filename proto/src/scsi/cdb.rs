//! Commands, as their CDBs ask for them: what each sends, gets, and needs of a reservation.
//! Spec: SPC-4 clause 6, SBC-3 clause 5. CDBs are judged in `decode`; that blocks are within the logical unit, and that
//! there are not more of them than its limits allow, is judged by whoever knows it.

use super::SECTOR_BYTES;

/// Logical blocks, as a CDB names them: not yet known to be within the logical unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    /// First block.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u64,
}

/// Which values of mode parameters are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PageControl {
    /// Those in force.
    Current,
    /// A mask of those that can be changed.
    Changeable,
    /// Those after power on.
    Default,
    /// Those kept over power loss.
    Saved,
}

/// What VERIFY is to compare the medium with (BYTCHK).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compare {
    /// Nothing: blocks need only be readable.
    Nothing,
    /// As many blocks as are sent.
    Data,
    /// Each block with the one block that is sent.
    SameBlock,
}

/// What a reservation must allow for a command to be executed (SPC-4 table 66, SBC-3 table 13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing.
    Always,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// PERSISTENT RESERVE OUT has its own rules.
    Reservation,
    /// RESERVE(6) and RELEASE(6) have theirs.
    Legacy,
}

/// A command that keeps every rule that can be judged by its CDB alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// TEST UNIT READY.
    TestUnitReady,
    /// REQUEST SENSE.
    RequestSense {
        /// Whether the sense data are wanted in descriptor format.
        descriptor: bool,
        /// Allocation length.
        allocation: u8,
    },
    /// INQUIRY.
    Inquiry {
        /// Vital product data page; `None` for standard inquiry data.
        page: Option<u8>,
        /// Allocation length.
        allocation: u16,
    },
    /// MODE SENSE(6) and (10).
    ModeSense {
        /// Whether the answer has the header of MODE SENSE(10).
        ten: bool,
        /// Whether a long block descriptor is accepted.
        long_lba: bool,
        /// Whether no block descriptor is wanted.
        no_blocks: bool,
        /// Which values.
        control: PageControl,
        /// Page.
        page: u8,
        /// Subpage.
        subpage: u8,
        /// Allocation length.
        allocation: u16,
    },
    /// MODE SELECT(6) and (10).
    ModeSelect {
        /// Whether the list has the header of MODE SELECT(10).
        ten: bool,
        /// Whether the list has pages as the standard defines them (PF).
        page_format: bool,
        /// Whether the parameters are to be saved (SP), which cannot be: to be refused.
        save: bool,
        /// Parameter list length.
        length: u16,
    },
    /// READ CAPACITY(10).
    ReadCapacity10,
    /// READ CAPACITY(16).
    ReadCapacity16 {
        /// Allocation length.
        allocation: u32,
    },
    /// GET LBA STATUS.
    GetLbaStatus {
        /// First block to tell of.
        lba: u64,
        /// Allocation length.
        allocation: u32,
    },
    /// READ(6), (10), (12) and (16).
    Read {
        /// What to read.
        span: Span,
        /// Whether to read from stable storage.
        fua: bool,
    },
    /// WRITE(6), (10), (12) and (16).
    Write {
        /// Where to write.
        span: Span,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// WRITE AND VERIFY(10), (12) and (16).
    WriteAndVerify {
        /// Where to write.
        span: Span,
        /// Whether to compare with what was sent, else blocks need only be readable.
        compare: bool,
    },
    /// VERIFY(10), (12) and (16).
    Verify {
        /// What to verify.
        span: Span,
        /// What to compare it with.
        compare: Compare,
    },
    /// ORWRITE(16).
    OrWrite {
        /// Where to write.
        span: Span,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// COMPARE AND WRITE.
    CompareAndWrite {
        /// Where to compare and write; twice as many blocks are sent.
        span: Span,
        /// Whether to wait for stable storage.
        fua: bool,
    },
    /// WRITE SAME(10) and (16).
    WriteSame {
        /// Where to write.
        span: Span,
        /// Whether blocks may be unmapped if they then read as what was sent.
        unmap: bool,
        /// Whether nothing is sent and zeros are meant (NDOB).
        no_data: bool,
    },
    /// UNMAP.
    Unmap {
        /// Parameter list length.
        length: u16,
    },
    /// SYNCHRONIZE CACHE(10) and (16).
    SynchronizeCache {
        /// What to make durable; no blocks means all that follow.
        span: Span,
        /// Whether to answer before it is done.
        immediate: bool,
    },
    /// PRE-FETCH(10) and (16).
    Prefetch {
        /// What will be read soon; no blocks means all that follow.
        span: Span,
        /// Whether to answer before it is done.
        immediate: bool,
    },
    /// START STOP UNIT.
    StartStop {
        /// START.
        start: bool,
        /// LOEJ.
        eject: bool,
        /// POWER CONDITION.
        power: u8,
        /// Whether to answer before it is done.
        immediate: bool,
    },
    /// PREVENT ALLOW MEDIUM REMOVAL.
    PreventAllow {
        /// Whether removal is to be prevented.
        prevent: bool,
    },
    /// RESERVE(6).
    Reserve6,
    /// RELEASE(6).
    Release6,
    /// PERSISTENT RESERVE IN.
    PersistentReserveIn {
        /// Service action, 0 to 3.
        action: u8,
        /// Allocation length.
        allocation: u16,
    },
    /// PERSISTENT RESERVE OUT.
    PersistentReserveOut {
        /// Service action, 0 to 7.
        action: u8,
        /// SCOPE, not judged.
        scope: u8,
        /// TYPE, not judged.
        kind: u8,
        /// Parameter list length.
        length: u32,
    },
    /// REPORT LUNS.
    ReportLuns {
        /// SELECT REPORT, 0 to 2.
        select: u8,
        /// Allocation length.
        allocation: u32,
    },
    /// REPORT SUPPORTED OPERATION CODES.
    ReportOpcodes {
        /// Whether command timeouts descriptors are wanted (RCTD).
        timeouts: bool,
        /// REPORTING OPTIONS, not judged.
        options: u8,
        /// REQUESTED OPERATION CODE.
        opcode: u8,
        /// REQUESTED SERVICE ACTION.
        service_action: u16,
        /// Allocation length.
        allocation: u32,
    },
    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ReportTaskManagement {
        /// Whether extended data are wanted (REPD).
        extended: bool,
        /// Allocation length.
        allocation: u32,
    },
    /// REPORT TARGET PORT GROUPS.
    ReportTargetPortGroups {
        /// Whether the extended header is wanted.
        extended: bool,
        /// Allocation length.
        allocation: u32,
    },
    /// A copy within the unit, of whole 4 KiB blocks. No CDB asks for it: EXTENDED COPY(LID1) is made of such where it can be.
    CopyWithin {
        /// Where to.
        span: Span,
        /// Where from: as many blocks.
        source_lba: u64,
    },
    /// The first step of a copy to another unit, of whole 4 KiB blocks: the unit tells where they are. No CDB asks for it.
    Lend {
        /// What is copied.
        span: Span,
    },
    /// The second step: the other unit takes what is lent. No CDB asks for it.
    Borrow {
        /// Where to.
        span: Span,
    },
    /// EXTENDED COPY(LID1).
    ExtendedCopy {
        /// Parameter list length.
        length: u32,
    },
    /// RECEIVE COPY STATUS(LID1), OPERATING PARAMETERS, FAILED SEGMENT DETAILS(LID1).
    ReceiveCopyResults {
        /// Service action: 0, 3 or 4.
        action: u8,
        /// List identifier.
        list_id: u8,
        /// Allocation length.
        allocation: u32,
    },
}

impl Command {
    /// Number of bytes that the initiator is to send.
    #[must_use]
    pub fn data_out_bytes(&self) -> u64 {
        let sector_bytes = u64::from(SECTOR_BYTES);
        match *self {
            Self::Write { span, .. }
            | Self::WriteAndVerify { span, .. }
            | Self::OrWrite { span, .. }
            | Self::Verify { span, compare: Compare::Data } => span.blocks.saturating_mul(sector_bytes),
            Self::CompareAndWrite { span, .. } => span.blocks.saturating_mul(2 * sector_bytes),
            Self::Verify { compare: Compare::SameBlock, .. } | Self::WriteSame { no_data: false, .. } => sector_bytes,
            Self::ModeSelect { length, .. } | Self::Unmap { length } => length.into(),
            Self::PersistentReserveOut { length, .. } | Self::ExtendedCopy { length } => length.into(),
            Self::Verify { compare: Compare::Nothing, .. }
            | Self::WriteSame { no_data: true, .. }
            | Self::CopyWithin { .. }
            | Self::Lend { .. }
            | Self::Borrow { .. }
            | Self::TestUnitReady
            | Self::RequestSense { .. }
            | Self::Inquiry { .. }
            | Self::ModeSense { .. }
            | Self::ReadCapacity10
            | Self::ReadCapacity16 { .. }
            | Self::GetLbaStatus { .. }
            | Self::Read { .. }
            | Self::SynchronizeCache { .. }
            | Self::Prefetch { .. }
            | Self::StartStop { .. }
            | Self::PreventAllow { .. }
            | Self::Reserve6
            | Self::Release6
            | Self::PersistentReserveIn { .. }
            | Self::ReportLuns { .. }
            | Self::ReportOpcodes { .. }
            | Self::ReportTaskManagement { .. }
            | Self::ReportTargetPortGroups { .. }
            | Self::ReceiveCopyResults { .. } => 0,
        }
    }

    /// Number of bytes that the answer has at most: the blocks to read, or the allocation length.
    #[must_use]
    pub fn data_in_bytes_max(&self) -> u64 {
        match *self {
            Self::Read { span, .. } => span.blocks.saturating_mul(SECTOR_BYTES.into()),
            Self::ReadCapacity10 => 8,
            Self::RequestSense { allocation, .. } => allocation.into(),
            Self::Inquiry { allocation, .. }
            | Self::ModeSense { allocation, .. }
            | Self::PersistentReserveIn { allocation, .. } => allocation.into(),
            Self::ReadCapacity16 { allocation }
            | Self::GetLbaStatus { allocation, .. }
            | Self::ReportLuns { allocation, .. }
            | Self::ReportOpcodes { allocation, .. }
            | Self::ReportTaskManagement { allocation, .. }
            | Self::ReportTargetPortGroups { allocation, .. }
            | Self::ReceiveCopyResults { allocation, .. } => allocation.into(),
            Self::TestUnitReady
            | Self::ModeSelect { .. }
            | Self::Write { .. }
            | Self::WriteAndVerify { .. }
            | Self::Verify { .. }
            | Self::OrWrite { .. }
            | Self::CompareAndWrite { .. }
            | Self::WriteSame { .. }
            | Self::Unmap { .. }
            | Self::SynchronizeCache { .. }
            | Self::Prefetch { .. }
            | Self::StartStop { .. }
            | Self::PreventAllow { .. }
            | Self::Reserve6
            | Self::Release6
            | Self::PersistentReserveOut { .. }
            | Self::Lend { .. }
            | Self::Borrow { .. }
            | Self::CopyWithin { .. }
            | Self::ExtendedCopy { .. } => 0,
        }
    }

    /// What a reservation must allow.
    #[must_use]
    pub const fn access(&self) -> Access {
        match self {
            Self::TestUnitReady
            | Self::RequestSense { .. }
            | Self::Inquiry { .. }
            | Self::ReadCapacity10
            | Self::ReadCapacity16 { .. }
            | Self::StartStop { start: true, eject: false, power: 0, .. }
            | Self::PreventAllow { prevent: false }
            | Self::PersistentReserveIn { .. }
            | Self::ReportLuns { .. }
            | Self::ReportOpcodes { .. }
            | Self::ReportTaskManagement { .. }
            | Self::ReportTargetPortGroups { .. } => Access::Always,
            Self::ModeSense { .. }
            | Self::GetLbaStatus { .. }
            | Self::Read { .. }
            | Self::Lend { .. }
            | Self::Verify { .. }
            | Self::Prefetch { .. }
            | Self::ReceiveCopyResults { .. } => Access::Read,
            Self::ModeSelect { .. }
            | Self::Write { .. }
            | Self::WriteAndVerify { .. }
            | Self::OrWrite { .. }
            | Self::CompareAndWrite { .. }
            | Self::WriteSame { .. }
            | Self::Unmap { .. }
            | Self::CopyWithin { .. }
            | Self::Borrow { .. }
            | Self::SynchronizeCache { .. }
            | Self::StartStop { .. }
            | Self::PreventAllow { prevent: true }
            | Self::ExtendedCopy { .. } => Access::Write,
            Self::PersistentReserveOut { .. } => Access::Reservation,
            Self::Reserve6 | Self::Release6 => Access::Legacy,
        }
    }
}
