//! The commands that [`Command`](super::Command) decodes, as initiators are told of them.
//! Spec: SPC-4 6.35 "REPORT SUPPORTED OPERATION CODES", 6.36 "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS".

use super::sense::Sense;

/// A command: its service action if its operation code has some, the bits of its CDB that are looked at, and how long to
/// wait for it. The usage data are as long as the CDB and begin with the operation code.
struct Entry {
    service_action: Option<u8>,
    usage: &'static [u8],
    timeout_seconds: u32,
}

impl Entry {
    const fn new(usage: &'static [u8], timeout_seconds: u32) -> Self {
        Self { service_action: None, usage, timeout_seconds }
    }

    /// The second byte of the usage data of such an operation code holds the service action.
    const fn with_action(service_action: u8, usage: &'static [u8], timeout_seconds: u32) -> Self {
        Self { service_action: Some(service_action), usage, timeout_seconds }
    }

    fn opcode(&self) -> u8 {
        self.usage.first().copied().unwrap_or(0)
    }

    fn cdb_bytes(&self) -> u16 {
        u16::try_from(self.usage.len()).unwrap_or(u16::MAX)
    }

    /// The command timeouts descriptor: no nominal time is told, only when to take the command for lost.
    fn timeouts(&self) -> [u8; 12] {
        let [a, b, c, d] = self.timeout_seconds.to_be_bytes();
        [0, 10, 0, 0, 0, 0, 0, 0, a, b, c, d]
    }
}

/// Answers from memory.
const QUICK: u32 = 30;
/// Reads or writes what was sent.
const DATA: u32 = 60;
/// May touch much more than was sent.
const LONG: u32 = 300;

const F: u8 = 0xff;

/// Ordered by operation code and service action.
static COMMANDS: &[Entry] = &[
    Entry::new(&[0x00, 0, 0, 0, 0, 0], QUICK),
    Entry::new(&[0x03, 1, 0, 0, F, 0], QUICK),
    Entry::new(&[0x08, 0x1f, F, F, F, 0], DATA),
    Entry::new(&[0x0a, 0x1f, F, F, F, 0], DATA),
    Entry::new(&[0x12, 1, F, F, F, 0], QUICK),
    Entry::new(&[0x15, 0x11, 0, 0, F, 0], QUICK),
    Entry::new(&[0x16, 0, 0, 0, 0, 0], QUICK),
    Entry::new(&[0x17, 0, 0, 0, 0, 0], QUICK),
    Entry::new(&[0x1a, 0x08, F, F, F, 0], QUICK),
    Entry::new(&[0x1b, 1, 0, 0, 0xf3, 0], DATA),
    Entry::new(&[0x1e, 0, 0, 0, 1, 0], QUICK),
    Entry::new(&[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], QUICK),
    Entry::new(&[0x28, 0x18, F, F, F, F, 0, F, F, 0], DATA),
    Entry::new(&[0x2a, 0x18, F, F, F, F, 0, F, F, 0], DATA),
    Entry::new(&[0x2e, 0x12, F, F, F, F, 0, F, F, 0], DATA),
    Entry::new(&[0x2f, 0x16, F, F, F, F, 0, F, F, 0], DATA),
    Entry::new(&[0x34, 0x02, F, F, F, F, 0, F, F, 0], DATA),
    Entry::new(&[0x35, 0x02, F, F, F, F, 0, F, F, 0], LONG),
    Entry::new(&[0x41, 0x08, F, F, F, F, 0, F, F, 0], LONG),
    Entry::new(&[0x42, 0, 0, 0, 0, 0, 0, F, F, 0], LONG),
    Entry::new(&[0x55, 0x11, 0, 0, 0, 0, 0, F, F, 0], QUICK),
    Entry::new(&[0x5a, 0x18, F, F, 0, 0, 0, F, F, 0], QUICK),
    Entry::with_action(0, &[0x5e, 0, 0, 0, 0, 0, 0, F, F, 0], QUICK),
    Entry::with_action(1, &[0x5e, 1, 0, 0, 0, 0, 0, F, F, 0], QUICK),
    Entry::with_action(2, &[0x5e, 2, 0, 0, 0, 0, 0, F, F, 0], QUICK),
    Entry::with_action(3, &[0x5e, 3, 0, 0, 0, 0, 0, F, F, 0], QUICK),
    Entry::with_action(0, &[0x5f, 0, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(1, &[0x5f, 1, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(2, &[0x5f, 2, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(3, &[0x5f, 3, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(4, &[0x5f, 4, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(5, &[0x5f, 5, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(6, &[0x5f, 6, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(7, &[0x5f, 7, F, 0, 0, F, F, F, F, 0], QUICK),
    Entry::with_action(0, &[0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0], LONG),
    Entry::with_action(0, &[0x84, 0, F, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0], QUICK),
    Entry::with_action(3, &[0x84, 3, F, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0], QUICK),
    Entry::with_action(4, &[0x84, 4, F, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0], QUICK),
    Entry::new(&[0x88, 0x18, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0x89, 0x18, F, F, F, F, F, F, F, F, 0, 0, 0, F, 0, 0], DATA),
    Entry::new(&[0x8a, 0x18, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0x8b, 0x18, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0x8e, 0x12, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0x8f, 0x16, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0x90, 0x02, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0x91, 0x02, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], LONG),
    Entry::new(&[0x93, 0x09, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], LONG),
    Entry::with_action(0x10, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0], QUICK),
    Entry::with_action(0x12, &[0x9e, 0x12, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0xa0, 0, F, 0, 0, 0, F, F, F, F, 0, 0], QUICK),
    Entry::with_action(0x0a, &[0xa3, 0xea, 0, 0, 0, 0, F, F, F, F, 0, 0], QUICK),
    Entry::with_action(0x0c, &[0xa3, 0x0c, 0x87, F, F, F, F, F, F, F, 0, 0], QUICK),
    Entry::with_action(0x0d, &[0xa3, 0x0d, 0x80, 0, 0, 0, F, F, F, F, 0, 0], QUICK),
    Entry::new(&[0xa8, 0x18, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0xaa, 0x18, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0xae, 0x12, F, F, F, F, F, F, F, F, 0, 0], DATA),
    Entry::new(&[0xaf, 0x16, F, F, F, F, F, F, F, F, 0, 0], DATA),
];

fn of_opcode(opcode: u8) -> impl Iterator<Item = &'static Entry> {
    COMMANDS.iter().filter(move |entry| entry.opcode() == opcode)
}

/// All commands (reporting options 000b), with command timeouts descriptors if `timeouts`.
#[must_use]
pub fn supported_opcodes(timeouts: bool) -> Vec<u8> {
    let mut list = Vec::new();
    for entry in COMMANDS {
        let [action_high, action_low] = u16::from(entry.service_action.unwrap_or(0)).to_be_bytes();
        let [bytes_high, bytes_low] = entry.cdb_bytes().to_be_bytes();
        let flags = u8::from(timeouts) << 1 | u8::from(entry.service_action.is_some());
        list.extend_from_slice(&[entry.opcode(), 0, action_high, action_low, 0, flags, bytes_high, bytes_low]);
        if timeouts {
            list.extend_from_slice(&entry.timeouts());
        }
    }
    let mut data = u32::try_from(list.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    data.append(&mut list);
    data
}

/// One command (reporting options 001b, 010b and 011b): whether there is it, and which bits of its CDB are looked at.
///
/// # Errors
/// INVALID FIELD IN CDB: other reporting options; 001b of an operation code that has service actions, or 010b of one that
/// has none.
pub fn one_command(options: u8, opcode: u8, service_action: u16, timeouts: bool) -> Result<Vec<u8>, Sense> {
    let has_actions = of_opcode(opcode).any(|entry| entry.service_action.is_some());
    let is_known = of_opcode(opcode).next().is_some();
    match options {
        1 if has_actions => return Err(Sense::invalid_in_cdb(2, 2)),
        2 if is_known && !has_actions => return Err(Sense::invalid_in_cdb(2, 2)),
        1..=3 => {}
        _ => return Err(Sense::invalid_in_cdb(2, 2)),
    }
    let found = of_opcode(opcode).find(|entry| match entry.service_action {
        Some(action) => u16::from(action) == service_action,
        // 001b has the service action ignored; 011b takes an operation code without one for service action zero.
        None => options == 1 || service_action == 0,
    });
    let Some(entry) = found else { return Ok(vec![0, 0x01, 0, 0]) };
    let [bytes_high, bytes_low] = entry.cdb_bytes().to_be_bytes();
    let mut data = vec![0, u8::from(timeouts) << 7 | 0x03, bytes_high, bytes_low];
    data.extend_from_slice(entry.usage);
    if timeouts {
        data.extend_from_slice(&entry.timeouts());
    }
    Ok(data)
}

/// Task management functions: ABORT TASK, ABORT TASK SET, CLEAR TASK SET and LOGICAL UNIT RESET. No time is told for any.
#[must_use]
pub fn task_management_functions(extended: bool) -> Vec<u8> {
    let mut data = vec![0xd8, 0, 0, 0];
    if extended {
        data = vec![0; 16];
        data.splice(..4, [0xd8, 0, 0, 0x0c]);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::super::cdb::Command;
    use super::*;

    fn cdb_of(entry: &Entry) -> [u8; 16] {
        let mut cdb = [0; 16];
        cdb[0] = entry.opcode();
        cdb[1] = entry.service_action.unwrap_or(0);
        cdb
    }

    fn is_listed(opcode: u8, service_action: u8) -> bool {
        of_opcode(opcode).any(|entry| entry.service_action.is_none_or(|action| action == service_action))
    }

    #[test]
    fn every_listed_command_is_decoded() {
        for entry in COMMANDS {
            let cdb = cdb_of(entry);
            assert!(Command::decode(&cdb).is_ok(), "{cdb:02x?}");
        }
    }

    #[test]
    fn no_other_command_is_decoded() {
        for opcode in 0..=u8::MAX {
            for action in 0..32 {
                let mut cdb = [0; 16];
                cdb[0] = opcode;
                cdb[1] = action;
                if !is_listed(opcode, action) {
                    let is_known = of_opcode(opcode).next().is_some();
                    let expected = if is_known { Sense::invalid_in_cdb(1, 4) } else { Sense::INVALID_OPCODE };
                    assert_eq!(Command::decode(&cdb), Err(expected), "{cdb:02x?}");
                }
            }
        }
    }

    /// A bit that is not in the usage data changes nothing, or is refused.
    #[test]
    fn usage_data_show_every_bit_that_is_looked_at() {
        for entry in COMMANDS {
            let plain = cdb_of(entry);
            let command = Command::decode(&plain);
            for (at, usage) in entry.usage.iter().enumerate().skip(1) {
                for bit in 0..8 {
                    let mut cdb = plain;
                    cdb[at] ^= 1 << bit;
                    let is_action = at == 1 && bit < 5 && entry.service_action.is_some();
                    let changed = Command::decode(&cdb);
                    if usage & (1 << bit) == 0 && !is_action {
                        assert!(changed == command || changed.is_err(), "byte {at} bit {bit} of {plain:02x?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_cdb_is_as_long_as_its_operation_code_says() {
        for entry in COMMANDS {
            let expected = match entry.opcode() >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                _ => 12,
            };
            assert_eq!(entry.usage.len(), expected);
            assert_eq!(entry.timeouts()[1], 10);
        }
    }

    #[test]
    fn all_commands_are_listed_in_order_with_or_without_timeouts() {
        let plain = supported_opcodes(false);
        assert_eq!(plain.len(), 4 + 8 * COMMANDS.len());
        assert_eq!(plain[..4], u32::try_from(plain.len() - 4).unwrap().to_be_bytes());
        let with_timeouts = supported_opcodes(true);
        assert_eq!(with_timeouts.len(), 4 + 20 * COMMANDS.len());
        assert!(with_timeouts[4..].chunks(20).all(|descriptor| descriptor[5] & 2 != 0));
        assert!(plain[4..].chunks(8).is_sorted_by_key(|descriptor| (descriptor[0], descriptor[3])));
    }

    #[test]
    fn one_command_is_asked_for_in_the_way_its_operation_code_needs() {
        assert_eq!(one_command(1, 0x12, 0, false).unwrap(), [0, 3, 0, 6, 0x12, 1, 0xff, 0xff, 0xff, 0]);
        assert_eq!(one_command(1, 0xa3, 0x0c, false), Err(Sense::invalid_in_cdb(2, 2)));
        assert_eq!(one_command(2, 0x12, 0, false), Err(Sense::invalid_in_cdb(2, 2)));
        assert_eq!(one_command(2, 0xa3, 0x0c, true).unwrap().len(), 4 + 12 + 12);
        assert_eq!(one_command(3, 0x12, 0, true).unwrap()[1], 0x83);
        assert_eq!(one_command(4, 0x12, 0, false), Err(Sense::invalid_in_cdb(2, 2)));
    }

    #[test]
    fn what_is_not_there_is_told_so() {
        for (options, opcode, action) in [(1, 0x48, 0), (2, 0x48, 1), (2, 0xa3, 0x0f), (3, 0x12, 1)] {
            assert_eq!(one_command(options, opcode, action, true).unwrap(), [0, 1, 0, 0]);
        }
    }

    #[test]
    fn task_management_functions_come_short_or_extended() {
        assert_eq!(task_management_functions(false), [0xd8, 0, 0, 0]);
        assert_eq!(task_management_functions(true).len(), 16);
        assert_eq!(task_management_functions(true)[..4], [0xd8, 0, 0, 12]);
    }
}
