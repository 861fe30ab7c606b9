//! The beginning of a command: what lets it not begin, and who carries it out.

use super::LogicalUnit;
use super::plan::Plan;
use super::reserve::Reserving;
use super::task::{Outcome, UnitTask};
use proto::scsi::{Access, Command, Sense, Status};
use smallvec::{SmallVec, smallvec};
use units::SECTOR_BYTES;
use volume::buffer::BufferPool;
use volume::request::{Payload, Request};

/// What a command needs of the shard while it begins.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The volume's size.
    pub(crate) size_bytes: u64,
    pub(crate) buffers: &'a mut BufferPool,
}

/// What became of a command that was to begin.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is over.
    Ended(Outcome),
    /// The volume is asked these.
    Asked(Plan, SmallVec<[Request; 1]>),
    /// The reservations are to be kept first.
    Reserving(Box<Reserving>),
}

impl Begun {
    pub(super) fn one(plan: Plan, request: Request) -> Self {
        Self::Asked(plan, smallvec![request])
    }

    pub(super) const fn good() -> Self {
        Self::Ended(Outcome::good())
    }
}

impl LogicalUnit {
    /// Begins a task, unless something lets it not. SAM-5 5.3.3, 5.14; SPC-4 5.13.
    pub(crate) fn begin(&mut self, mut task: UnitTask, mut facts: Facts<'_>) -> Begun {
        let begun = match self.judge(&task) {
            Ok(command) => self.carry_out(&mut task, command, &mut facts),
            Err(outcome) => Begun::Ended(outcome),
        };
        facts.buffers.put_all(task.payload);
        begun
    }

    fn judge(&mut self, task: &UnitTask) -> Result<Command, Outcome> {
        let Some(nexus) = self.nexuses.get_mut(&task.session) else { return Err(Outcome::Aborted) };
        let is_told_otherwise = matches!(
            task.command,
            Ok(Command::Inquiry { .. } | Command::ReportLuns { .. } | Command::RequestSense { .. })
        );
        if !is_told_otherwise && let Some(attention) = nexus.attentions.pop_front() {
            return Err(self.check(&attention));
        }
        let nexus = nexus.nexus.clone();
        let command = task.command.map_err(|sense| self.check(&sense))?;
        let access = command.access();
        if !self.reservations.check(Some(&nexus), access) {
            return Err(Outcome::status(Status::ReservationConflict));
        }
        if access == Access::Write && is_medium_write(&command) {
            if self.identity.is_read_only {
                return Err(self.check(&Sense::WRITE_PROTECTED));
            }
            if self.mode.write_protect {
                return Err(self.check(&Sense::SOFTWARE_WRITE_PROTECTED));
            }
        }
        self.check_data_out(task, &command)?;
        Ok(command)
    }

    /// Whether the initiator sends what the command asks for. A write of less is carried out as far as whole blocks come, and
    /// the transport tells the rest in its residual; what compares or repeats its data needs all of it, and no more.
    fn check_data_out(&self, task: &UnitTask, command: &Command) -> Result<(), Outcome> {
        let asked = command.data_out_bytes();
        let is_exact = matches!(command, Command::CompareAndWrite { .. } | Command::WriteSame { no_data: false, .. });
        let may_be_less =
            matches!(command, Command::Write { .. } | Command::WriteAndVerify { .. } | Command::OrWrite { .. });
        if is_exact && task.expected_bytes != asked {
            Err(self.check(&Sense::INVALID_FIELD_IN_CDB))
        } else if !may_be_less && task.payload_bytes() < asked {
            Err(self.check(&Sense::INVALID_FIELD_IN_INFORMATION_UNIT))
        } else {
            Ok(())
        }
    }

    fn carry_out(&mut self, task: &mut UnitTask, command: Command, facts: &mut Facts<'_>) -> Begun {
        let blocks = facts.size_bytes / SECTOR_BYTES;
        match command {
            Command::Read { span, .. } => self.read(span, facts),
            Command::Verify { span, compare } => self.verify((span, compare), task, facts),
            Command::Prefetch { span, .. } => self.prefetch(span, facts),
            Command::SynchronizeCache { span, immediate } => self.synchronize(span, immediate, facts),
            Command::GetLbaStatus { lba, allocation } => self.lba_status(lba, allocation, facts),
            Command::Write { span, fua } => self.write((span, fua), task, facts),
            Command::WriteAndVerify { span, compare } => self.write_and_verify((span, compare), task, facts),
            Command::OrWrite { span, fua } => self.or_write((span, fua), task, facts),
            Command::CompareAndWrite { span, fua } => self.compare_and_write((span, fua), task, facts),
            Command::WriteSame { span, unmap, no_data } => self.write_same((span, unmap, no_data), task, facts),
            Command::Unmap { .. } => self.unmap(task, facts),
            Command::CopyWithin { span, source_lba } => self.copy_within(span, source_lba, facts),
            Command::Lend { span } => self.lend(span, facts),
            Command::Borrow { span } => self.borrow(span, task, facts),
            Command::Reserve6 => self.reserve6(task),
            Command::Release6 => self.release6(task),
            Command::PersistentReserveIn { action, allocation } => self.reserve_in(action, allocation),
            Command::PersistentReserveOut { action, scope, kind, length } => {
                self.reserve_out(task, (action, scope, kind), length)
            }
            Command::StartStop { start, eject, power, immediate } => {
                self.start_stop(start, power != 0 || eject, immediate)
            }
            Command::TestUnitReady => Begun::good(),
            Command::RequestSense { descriptor, allocation } => self.request_sense(task, descriptor, allocation),
            Command::Inquiry { page, allocation } => self.inquire(task, page, allocation),
            Command::ModeSense { .. } => self.mode_sense(&command, blocks),
            Command::ModeSelect { ten, page_format, save, length } => {
                self.mode_select(task, (ten, page_format, save), usize::from(length), blocks)
            }
            Command::ReadCapacity10 => Self::read_capacity10(blocks),
            Command::ReadCapacity16 { allocation } => Self::read_capacity16(blocks, allocation),
            Command::PreventAllow { prevent } => self.prevent(task, prevent),
            Command::ReportOpcodes { timeouts, options, opcode, service_action, allocation } => {
                self.report_opcodes(timeouts, (options, opcode, service_action), allocation)
            }
            Command::ReportTaskManagement { extended, allocation } => {
                Self::report_task_management(extended, allocation)
            }
            Command::ReportTargetPortGroups { extended, allocation } => {
                self.report_port_groups(task, extended, allocation)
            }
            // The session carries those out that concern several units.
            Command::ReportLuns { .. } | Command::ExtendedCopy { .. } | Command::ReceiveCopyResults { .. } => {
                self.refuse(&Sense::INVALID_OPCODE)
            }
        }
    }

    pub(super) fn refuse(&self, sense: &Sense) -> Begun {
        Begun::Ended(self.check(sense))
    }
}

/// Whether a command changes what the medium holds.
const fn is_medium_write(command: &Command) -> bool {
    matches!(
        command,
        Command::Write { .. }
            | Command::WriteAndVerify { .. }
            | Command::OrWrite { .. }
            | Command::CompareAndWrite { .. }
            | Command::WriteSame { .. }
            | Command::Unmap { .. }
            | Command::CopyWithin { .. }
            | Command::Borrow { .. }
            | Command::ExtendedCopy { .. }
    )
}

/// The bytes of a parameter list, which fit in one piece.
pub(super) fn first_bytes(payload: &Payload) -> &[u8] {
    payload.first().map_or(&[], |piece| piece.as_slice())
}

/// Bytes that a command moves, when it counts as an operation: see `shard::qos`.
pub(crate) const fn operation_bytes(command: &Command) -> Option<u64> {
    if let Command::Read { span, .. }
    | Command::Write { span, .. }
    | Command::WriteAndVerify { span, .. }
    | Command::OrWrite { span, .. }
    | Command::CompareAndWrite { span, .. }
    | Command::Verify { span, .. } = command
    {
        return Some(span.blocks.saturating_mul(SECTOR_BYTES));
    }
    let is_operation = matches!(
        command,
        Command::WriteSame { .. }
            | Command::Unmap { .. }
            | Command::CopyWithin { .. }
            | Command::Lend { .. }
            | Command::Borrow { .. }
            | Command::GetLbaStatus { .. }
            | Command::Prefetch { .. }
    );
    if is_operation { Some(0) } else { None }
}
