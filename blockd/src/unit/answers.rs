//! Commands that are answered from what the unit knows: SPC-4 6, SBC-3 5.15.

use super::LogicalUnit;
use super::begin::{Begun, first_bytes};
use super::task::{Outcome, UnitTask};
use proto::scsi::{Command, Identity, Limits, ModeQuery, PageControl, Sense, inquiry, mode, parameters, table};

/// The one target port group that there is: both sites will have theirs.
const PORT_GROUP: u16 = 1;

/// What a unit is called in its identification by vendor.
const PRODUCT: &str = "VOLUME";

/// Bytes of what READ CAPACITY(10) returns.
const CAPACITY10_BYTES: usize = 8;

impl LogicalUnit {
    pub(super) fn inquire(&self, task: &UnitTask, page: Option<u8>, allocation: u16) -> Begun {
        let Some(page) = page else { return told(inquiry::standard(), allocation) };
        let nexus = self.nexuses.get(&task.session);
        let identity = Identity {
            serial: &self.identity.serial,
            naa: self.identity.naa,
            target_name: nexus.map_or("", |nexus| &nexus.target),
            port: nexus.map_or(1, |nexus| nexus.nexus.port),
            port_group: PORT_GROUP,
            product: PRODUCT,
        };
        match inquiry::page(page, &identity, &Limits::default()) {
            Some(page) => told(page, allocation),
            None => self.refuse(&Sense::INVALID_FIELD_IN_CDB),
        }
    }

    /// What waits to be told is told by this, and not again.
    pub(super) fn request_sense(&mut self, task: &UnitTask, descriptor: bool, allocation: u8) -> Begun {
        let nexus = self.nexuses.get_mut(&task.session);
        let attention = nexus.and_then(|nexus| nexus.attentions.pop_front()).unwrap_or(Sense::NONE);
        told(attention.encode(descriptor), allocation)
    }

    pub(super) fn mode_sense(&self, command: &Command, blocks: u64) -> Begun {
        let Command::ModeSense { ten, long_lba, no_blocks, control, page, subpage, allocation } = *command else {
            return self.refuse(&Sense::INVALID_OPCODE);
        };
        if control == PageControl::Saved {
            return self.refuse(&Sense::SAVING_NOT_SUPPORTED);
        }
        let query = ModeQuery { ten, long_lba, no_blocks, control, page, subpage };
        let is_protected = self.identity.is_read_only || self.mode.write_protect;
        match mode::sense(&query, &self.mode, blocks, is_protected) {
            Ok(pages) => told(pages, allocation),
            Err(sense) => self.refuse(&sense),
        }
    }

    pub(super) fn mode_select(
        &mut self,
        task: &UnitTask,
        (ten, page_format, save): (bool, bool, bool),
        len: usize,
        blocks: u64,
    ) -> Begun {
        if save || !page_format {
            return self.refuse(&Sense::INVALID_FIELD_IN_CDB);
        }
        let bytes = first_bytes(&task.payload).get(..len).unwrap_or_default();
        match mode::select(ten, bytes, &self.mode, blocks) {
            Ok(next) => {
                if next != self.mode {
                    self.mode = next;
                    self.broadcast(Some(task.session), Sense::MODE_CHANGED);
                }
                Begun::good()
            }
            Err(sense) => self.refuse(&sense),
        }
    }

    pub(super) fn read_capacity10(blocks: u64) -> Begun {
        told(parameters::read_capacity10(blocks), CAPACITY10_BYTES)
    }

    pub(super) fn read_capacity16(blocks: u64, allocation: u32) -> Begun {
        told(parameters::read_capacity16(blocks), allocation)
    }

    pub(super) fn prevent(&mut self, task: &UnitTask, is_preventing: bool) -> Begun {
        if let Some(nexus) = self.nexuses.get_mut(&task.session) {
            nexus.is_preventing = is_preventing;
        }
        Begun::good()
    }

    pub(super) fn report_opcodes(
        &self,
        timeouts: bool,
        (options, opcode, service_action): (u8, u8, u16),
        allocation: u32,
    ) -> Begun {
        if options == 0 {
            return told(table::supported_opcodes(timeouts), allocation);
        }
        match table::one_command(options, opcode, service_action, timeouts) {
            Ok(command) => told(command, allocation),
            Err(sense) => self.refuse(&sense),
        }
    }

    pub(super) fn report_task_management(extended: bool, allocation: u32) -> Begun {
        told(table::task_management_functions(extended), allocation)
    }

    pub(super) fn report_port_groups(&self, task: &UnitTask, extended: bool, allocation: u32) -> Begun {
        let port = self.nexuses.get(&task.session).map_or(1, |nexus| nexus.nexus.port);
        told(parameters::report_target_port_groups(extended, PORT_GROUP, &[port]), allocation)
    }
}

fn told(bytes: Vec<u8>, allocation: impl TryInto<usize>) -> Begun {
    Begun::Ended(Outcome::parameters(bytes, allocation))
}
