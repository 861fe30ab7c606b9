//! What PERSISTENT RESERVE IN tells. Spec: SPC-4 6.15. The caller cuts the data to the allocation length.

use super::super::sense::{FieldPointer, Sense};
use super::kind::TYPE_MASK;
use super::{Reservations, transport_id};

const READ_KEYS: u8 = 0;
const READ_RESERVATION: u8 = 1;
const REPORT_CAPABILITIES: u8 = 2;
const READ_FULL_STATUS: u8 = 3;

/// PTPL_C: state can survive power loss. CRH, SIP_C, ATP_C and RLR_C are 0.
const PTPL_C: u8 = 0x01;
/// TMV (the type mask is valid), and ALLOW COMMANDS 001b: TEST UNIT READY goes through every reservation.
const TMV_AND_ALLOW_COMMANDS: u8 = 0x80 | 0x10;
/// PTPL_A: state does survive power loss at present.
const PTPL_A: u8 = 0x01;
/// R_HOLDER: this registration holds the reservation.
const R_HOLDER: u8 = 0x01;

impl Reservations {
    /// The data of a PERSISTENT RESERVE IN, whole.
    ///
    /// # Errors
    /// Service actions other than 0 to 3 are invalid fields of the CDB.
    pub fn read(&self, action: u8) -> Result<Vec<u8>, Sense> {
        match action {
            READ_KEYS => Ok(self.with_header(&self.keys())),
            READ_RESERVATION => Ok(self.with_header(&self.reservation())),
            REPORT_CAPABILITIES => Ok(self.capabilities()),
            READ_FULL_STATUS => Ok(self.with_header(&self.full_status())),
            _ => Err(Sense::INVALID_FIELD_IN_CDB.with_field(FieldPointer { in_cdb: true, byte: 1, bit: Some(4) })),
        }
    }

    fn with_header(&self, list: &[u8]) -> Vec<u8> {
        let mut data = self.generation.to_be_bytes().to_vec();
        data.extend(len_field(list));
        data.extend(list);
        data
    }

    fn keys(&self) -> Vec<u8> {
        self.registrations.values().flat_map(|key| key.to_be_bytes()).collect()
    }

    fn reservation(&self) -> Vec<u8> {
        let Some(held) = &self.held else { return Vec::new() };
        // Where all registrants hold it no one key does, and 0 stands for them.
        let key = held.holder.as_ref().and_then(|holder| self.registrations.get(holder)).copied().unwrap_or(0);
        let mut descriptor = key.to_be_bytes().to_vec();
        descriptor.extend([0; 5]);
        descriptor.push(held.kind.to_wire());
        descriptor.extend([0; 2]);
        descriptor
    }

    fn capabilities(&self) -> Vec<u8> {
        let activated = if self.is_kept { PTPL_A } else { 0 };
        let [mask, mask_more] = TYPE_MASK;
        vec![0, 8, PTPL_C, TMV_AND_ALLOW_COMMANDS | activated, mask, mask_more, 0, 0]
    }

    fn full_status(&self) -> Vec<u8> {
        let mut list = Vec::new();
        for (nexus, key) in &self.registrations {
            let holds = self.held.as_ref().filter(|_| self.is_holder(nexus));
            let transport_id = transport_id::encode(&nexus.initiator, nexus.isid);
            list.extend(key.to_be_bytes());
            list.extend([0; 4]);
            list.extend(holds.map_or([0, 0], |held| [R_HOLDER, held.kind.to_wire()]));
            list.extend([0; 4]);
            list.extend(nexus.port.to_be_bytes());
            list.extend(len_field(&transport_id));
            list.extend(transport_id);
        }
        list
    }
}

/// The length as a field; lists are far below its limit, since registrations are counted and names bounded.
fn len_field(list: &[u8]) -> [u8; 4] {
    u32::try_from(list.len()).unwrap_or(u32::MAX).to_be_bytes()
}
