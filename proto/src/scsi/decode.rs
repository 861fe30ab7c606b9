//! Command descriptor blocks, judged. What they may contain is told to initiators by [`table`](super::table).
//!
//! Spec: SPC-4 clause 6, SBC-3 clause 5. Reserved and obsolete bits are not looked at, nor are the group number, FUA_NV,
//! and those that only advise (DPO).

use super::cdb::{Command, Compare, PageControl, Span};
use super::sense::Sense;

impl Command {
    /// Judges a CDB: 16 bytes, a shorter one filled up with zeros, or the first bytes of a longer one.
    ///
    /// # Errors
    /// INVALID COMMAND OPERATION CODE, or INVALID FIELD IN CDB with the field.
    pub fn decode(cdb: &[u8]) -> Result<Self, Sense> {
        let fields = Fields(*cdb.first_chunk::<16>().ok_or(Sense::INVALID_FIELD_IN_CDB)?);
        let command = match fields.opcode() {
            0x08 | 0x0a | 0x28 | 0x2a | 0x2e | 0x2f | 0x34 | 0x35 | 0x41 => fields.block_command(),
            0x88..=0x8b | 0x8e..=0x91 | 0x93 | 0xa8 | 0xaa | 0xae | 0xaf => fields.block_command(),
            0x5e | 0x5f | 0x83 | 0x84 | 0x9e | 0xa3 => fields.command_with_action(),
            _ => fields.other_command(),
        }?;
        fields.check_control()?;
        Ok(command)
    }
}

/// A CDB's fields, where most commands have them.
struct Fields([u8; 16]);

impl Fields {
    const fn opcode(&self) -> u8 {
        self.0[0]
    }

    /// The group code, which gives the CDB's length: 0 of 6 bytes, 1 and 2 of 10, 4 of 16, 5 of 12.
    const fn group(&self) -> u8 {
        self.0[0] >> 5
    }

    const fn has(&self, mask: u8) -> bool {
        self.0[1] & mask != 0
    }

    const fn action(&self) -> u8 {
        self.0[1] & 0x1f
    }

    /// Where commands of 10 bytes have their length.
    const fn length10(&self) -> u16 {
        u16::from_be_bytes([self.0[7], self.0[8]])
    }

    /// Where commands of 12 bytes have their length.
    const fn length12(&self) -> u32 {
        u32::from_be_bytes([self.0[6], self.0[7], self.0[8], self.0[9]])
    }

    /// Where commands of 16 bytes have their length.
    const fn length16(&self) -> u32 {
        u32::from_be_bytes([self.0[10], self.0[11], self.0[12], self.0[13]])
    }

    fn lba32(&self) -> u64 {
        u32::from_be_bytes([self.0[2], self.0[3], self.0[4], self.0[5]]).into()
    }

    const fn lba64(&self) -> u64 {
        let [_, _, a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    fn span(&self) -> Span {
        match self.group() {
            0 => {
                let lba = u32::from_be_bytes([0, self.0[1] & 0x1f, self.0[2], self.0[3]]);
                let blocks = if self.0[4] == 0 { 256 } else { u64::from(self.0[4]) };
                Span { lba: lba.into(), blocks }
            }
            1 | 2 => Span { lba: self.lba32(), blocks: self.length10().into() },
            5 => Span { lba: self.lba32(), blocks: self.length12().into() },
            _ => Span { lba: self.lba64(), blocks: self.length16().into() },
        }
    }

    /// READ(6) and WRITE(6) have bits of the LBA there.
    const fn fua(&self) -> bool {
        self.group() != 0 && self.has(0x08)
    }

    /// There is no protection information, so none can be sent or asked for.
    const fn check_protect(&self) -> Result<(), Sense> {
        if self.group() != 0 && self.has(0xe0) { Err(Sense::invalid_in_cdb(1, 7)) } else { Ok(()) }
    }

    /// Nobody can be told that an auto contingent allegiance is established (NACA).
    fn check_control(&self) -> Result<(), Sense> {
        let (at, control) = match self.group() {
            0 => (5, self.0[5]),
            1 | 2 => (9, self.0[9]),
            5 => (11, self.0[11]),
            _ => (15, self.0[15]),
        };
        if control & 0x04 == 0 { Ok(()) } else { Err(Sense::invalid_in_cdb(at, 2)) }
    }

    fn byte_check(&self) -> Result<Compare, Sense> {
        match self.0[1] >> 1 & 0x03 {
            0 => Ok(Compare::Nothing),
            1 => Ok(Compare::Data),
            3 => Ok(Compare::SameBlock),
            _ => Err(Sense::invalid_in_cdb(1, 2)),
        }
    }

    /// A command on blocks, of which most come in several lengths.
    fn block_command(&self) -> Result<Command, Sense> {
        let span = self.span();
        let immediate = self.has(0x02);
        match self.opcode() {
            0x34 | 0x90 => return Ok(Command::Prefetch { span, immediate }),
            0x35 | 0x91 => return Ok(Command::SynchronizeCache { span, immediate }),
            _ => self.check_protect()?,
        }
        match self.opcode() {
            0x08 | 0x28 | 0x88 | 0xa8 => Ok(Command::Read { span, fua: self.fua() }),
            0x0a | 0x2a | 0x8a | 0xaa => Ok(Command::Write { span, fua: self.fua() }),
            0x2e | 0x8e | 0xae => match self.byte_check()? {
                Compare::Nothing => Ok(Command::WriteAndVerify { span, compare: false }),
                Compare::Data => Ok(Command::WriteAndVerify { span, compare: true }),
                Compare::SameBlock => Err(Sense::invalid_in_cdb(1, 2)),
            },
            0x2f | 0x8f | 0xaf => Ok(Command::Verify { span, compare: self.byte_check()? }),
            0x89 => {
                let span = Span { lba: self.lba64(), blocks: self.0[13].into() };
                Ok(Command::CompareAndWrite { span, fua: self.fua() })
            }
            0x8b => Ok(Command::OrWrite { span, fua: self.fua() }),
            0x41 | 0x93 => self.write_same(span),
            _ => Err(Sense::INVALID_OPCODE),
        }
    }

    fn write_same(&self, span: Span) -> Result<Command, Sense> {
        // ANCHOR: nothing can be allocated without being written. PBDATA, LBDATA: obsolete, but they change what is
        // written.
        for (mask, bit) in [(0x10, 4), (0x04, 2), (0x02, 1)] {
            if self.has(mask) {
                return Err(Sense::invalid_in_cdb(1, bit));
            }
        }
        let no_data = self.has(0x01);
        if no_data && self.group() != 4 {
            return Err(Sense::invalid_in_cdb(1, 0));
        }
        Ok(Command::WriteSame { span, unmap: self.has(0x08), no_data })
    }

    /// A command whose operation code has service actions.
    fn command_with_action(&self) -> Result<Command, Sense> {
        let action = self.action();
        let list_id = self.0[2];
        match (self.opcode(), action) {
            (0x5e, 0..=3) => Ok(Command::PersistentReserveIn { action, allocation: self.length10() }),
            (0x5f, 0..=7) => {
                let length = u32::from_be_bytes([self.0[5], self.0[6], self.0[7], self.0[8]]);
                let (scope, kind) = (self.0[2] >> 4, self.0[2] & 0x0f);
                Ok(Command::PersistentReserveOut { action, scope, kind, length })
            }
            (0x83, 0) => Ok(Command::ExtendedCopy { length: self.length16() }),
            (0x84, 0 | 3 | 4) => Ok(Command::ReceiveCopyResults { action, list_id, allocation: self.length16() }),
            (0x9e, 0x10) => Ok(Command::ReadCapacity16 { allocation: self.length16() }),
            (0x9e, 0x12) => Ok(Command::GetLbaStatus { lba: self.lba64(), allocation: self.length16() }),
            (0xa3, 0x0a) => match self.0[1] >> 5 {
                format @ (0 | 1) => {
                    Ok(Command::ReportTargetPortGroups { extended: format == 1, allocation: self.length12() })
                }
                _ => Err(Sense::invalid_in_cdb(1, 7)),
            },
            (0xa3, 0x0c) => Ok(Command::ReportOpcodes {
                timeouts: self.0[2] & 0x80 != 0,
                options: self.0[2] & 0x07,
                opcode: self.0[3],
                service_action: u16::from_be_bytes([self.0[4], self.0[5]]),
                allocation: self.length12(),
            }),
            (0xa3, 0x0d) => {
                Ok(Command::ReportTaskManagement { extended: self.0[2] & 0x80 != 0, allocation: self.length12() })
            }
            _ => Err(Sense::invalid_in_cdb(1, 4)),
        }
    }

    fn other_command(&self) -> Result<Command, Sense> {
        match self.opcode() {
            0x00 => Ok(Command::TestUnitReady),
            0x03 => Ok(Command::RequestSense { descriptor: self.has(0x01), allocation: self.0[4] }),
            0x12 => self.inquiry(),
            0x15 => Ok(self.mode_select(false, self.0[4].into())),
            0x16 | 0x17 => self.legacy_reservation(),
            0x1a => Ok(self.mode_sense(false, self.0[4].into())),
            0x1b => Ok(Command::StartStop {
                start: self.0[4] & 0x01 != 0,
                eject: self.0[4] & 0x02 != 0,
                power: self.0[4] >> 4,
                immediate: self.has(0x01),
            }),
            0x1e if self.0[4] & 0x02 != 0 => Err(Sense::invalid_in_cdb(4, 1)),
            0x1e => Ok(Command::PreventAllow { prevent: self.0[4] & 0x01 != 0 }),
            0x25 => Ok(Command::ReadCapacity10),
            0x42 if self.has(0x01) => Err(Sense::invalid_in_cdb(1, 0)),
            0x42 => Ok(Command::Unmap { length: self.length10() }),
            0x55 => Ok(self.mode_select(true, self.length10())),
            0x5a => Ok(self.mode_sense(true, self.length10())),
            0xa0 if self.0[2] > 2 => Err(Sense::invalid_in_cdb(2, 7)),
            0xa0 => Ok(Command::ReportLuns { select: self.0[2], allocation: self.length12() }),
            _ => Err(Sense::INVALID_OPCODE),
        }
    }

    fn inquiry(&self) -> Result<Command, Sense> {
        let allocation = u16::from_be_bytes([self.0[3], self.0[4]]);
        let page = self.0[2];
        if self.has(0x02) {
            // CMDDT of SPC-2 asks for a command's description, which another command gives now.
            return Err(Sense::invalid_in_cdb(1, 1));
        }
        match (self.has(0x01), page) {
            (true, page) => Ok(Command::Inquiry { page: Some(page), allocation }),
            (false, 0) => Ok(Command::Inquiry { page: None, allocation }),
            (false, _) => Err(Sense::invalid_in_cdb(2, 7)),
        }
    }

    /// Third-party and extent reservations of SPC and SCSI-2 are refused.
    fn legacy_reservation(&self) -> Result<Command, Sense> {
        match (self.opcode(), self.action()) {
            (0x16, 0) => Ok(Command::Reserve6),
            (_, 0) => Ok(Command::Release6),
            (_, 1..16) => Err(Sense::invalid_in_cdb(1, 3)),
            _ => Err(Sense::invalid_in_cdb(1, 4)),
        }
    }

    const fn mode_sense(&self, ten: bool, allocation: u16) -> Command {
        Command::ModeSense {
            ten,
            long_lba: ten && self.has(0x10),
            no_blocks: self.has(0x08),
            control: match self.0[2] >> 6 {
                0 => PageControl::Current,
                1 => PageControl::Changeable,
                2 => PageControl::Default,
                _ => PageControl::Saved,
            },
            page: self.0[2] & 0x3f,
            subpage: self.0[3],
            allocation,
        }
    }

    const fn mode_select(&self, ten: bool, length: u16) -> Command {
        Command::ModeSelect { ten, page_format: self.has(0x10), save: self.has(0x01), length }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cdb::Access;
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Command, Sense> {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        Command::decode(&cdb)
    }

    #[test]
    fn a_read_has_its_span_where_its_length_puts_it() {
        let read = |lba, blocks, fua| Ok(Command::Read { span: Span { lba, blocks }, fua });
        assert_eq!(decode(&[0x08, 0xff, 1, 2, 0]), read(0x1f_0102, 256, false));
        assert_eq!(decode(&[0x08, 0, 1, 2, 3]), read(0x0102, 3, false));
        assert_eq!(decode(&[0x28, 0x18, 1, 2, 3, 4, 0, 5, 6]), read(0x0102_0304, 0x0506, true));
        assert_eq!(decode(&[0xa8, 0x10, 1, 2, 3, 4, 5, 6, 7, 8]), read(0x0102_0304, 0x0506_0708, false));
        let sixteen = [0x88, 0x08, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        assert_eq!(decode(&sixteen), read(0x0102_0304_0506_0708, 0x090a_0b0c, true));
        assert_eq!(decode(&[0x28, 0, 0, 0, 0, 0, 0, 0, 0]), read(0, 0, false));
    }

    #[test]
    fn protection_information_is_refused() {
        for opcode in [0x28, 0x2a, 0x2e, 0x2f, 0x41, 0x88, 0x89, 0x8a, 0x8b, 0x8e, 0x8f, 0x93, 0xa8, 0xaa, 0xae, 0xaf] {
            for protect in 1..8 {
                assert_eq!(decode(&[opcode, protect << 5]), Err(Sense::invalid_in_cdb(1, 7)));
            }
        }
    }

    #[test]
    fn advice_and_obsolete_bits_of_a_write_do_not_matter() {
        let span = Span { lba: 0, blocks: 1 };
        assert_eq!(decode(&[0x2a, 0x12, 0, 0, 0, 0, 3, 0, 1]), Ok(Command::Write { span, fua: false }));
    }

    #[test]
    fn byte_check_says_what_to_compare_with() {
        let verify = |byte_check: u8| decode(&[0x2f, byte_check << 1]);
        let span = Span { lba: 0, blocks: 0 };
        assert_eq!(verify(0), Ok(Command::Verify { span, compare: Compare::Nothing }));
        assert_eq!(verify(1), Ok(Command::Verify { span, compare: Compare::Data }));
        assert_eq!(verify(2), Err(Sense::invalid_in_cdb(1, 2)));
        assert_eq!(verify(3), Ok(Command::Verify { span, compare: Compare::SameBlock }));
        assert_eq!(decode(&[0x2e, 0x06]), Err(Sense::invalid_in_cdb(1, 2)));
    }

    #[test]
    fn write_same_has_no_anchor_and_only_the_long_one_goes_without_data() {
        let span = Span { lba: 0, blocks: 0 };
        assert_eq!(decode(&[0x41, 0x08]), Ok(Command::WriteSame { span, unmap: true, no_data: false }));
        assert_eq!(decode(&[0x93, 0x09]), Ok(Command::WriteSame { span, unmap: true, no_data: true }));
        assert_eq!(decode(&[0x41, 0x01]), Err(Sense::invalid_in_cdb(1, 0)));
        assert_eq!(decode(&[0x41, 0x10]), Err(Sense::invalid_in_cdb(1, 4)));
        assert_eq!(decode(&[0x93, 0x18]), Err(Sense::invalid_in_cdb(1, 4)));
        assert_eq!(decode(&[0x42, 0x01]), Err(Sense::invalid_in_cdb(1, 0)));
    }

    #[test]
    fn a_page_without_evpd_is_refused() {
        assert_eq!(decode(&[0x12, 0, 1, 1, 0]), Err(Sense::invalid_in_cdb(2, 7)));
        assert_eq!(decode(&[0x12, 1, 0x83, 1, 0]), Ok(Command::Inquiry { page: Some(0x83), allocation: 256 }));
    }

    #[test]
    fn naca_is_refused_wherever_the_control_byte_is() {
        for (opcode, at) in [(0x00, 5), (0x28, 9), (0x5a, 9), (0x88, 15), (0xa0, 11)] {
            let mut cdb = [0; 16];
            cdb[0] = opcode;
            cdb[usize::from(at)] = 0x04;
            assert_eq!(Command::decode(&cdb), Err(Sense::invalid_in_cdb(at, 2)));
        }
    }

    #[test]
    fn a_short_cdb_is_refused() {
        assert_eq!(Command::decode(&[0; 15]), Err(Sense::INVALID_FIELD_IN_CDB));
    }

    #[test]
    fn data_out_is_what_each_command_needs() {
        let bytes = |cdb: &[u8]| decode(cdb).unwrap().data_out_bytes();
        assert_eq!(bytes(&[0x0a, 0, 0, 0, 0]), 256 * 512);
        assert_eq!(bytes(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]), 6 * 512);
        assert_eq!(bytes(&[0x2f, 0, 0, 0, 0, 0, 0, 0, 9]), 0);
        assert_eq!(bytes(&[0x2f, 2, 0, 0, 0, 0, 0, 0, 9]), 9 * 512);
        assert_eq!(bytes(&[0x2f, 6, 0, 0, 0, 0, 0, 0, 9]), 512);
        assert_eq!(bytes(&[0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), 512);
        assert_eq!(bytes(&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]), 0);
        assert_eq!(bytes(&[0xaa, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), 0xffff_ffff * 512);
        assert_eq!(bytes(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24]), 24);
        assert_eq!(bytes(&[0x28, 0, 0, 0, 0, 0, 0, 0, 9]), 0);
    }

    #[test]
    fn reservations_let_through_what_neither_reads_nor_writes() {
        let access = |cdb: &[u8]| decode(cdb).unwrap().access();
        assert_eq!(access(&[0x12]), Access::Always);
        assert_eq!(access(&[0x1b, 0, 0, 0, 0x01]), Access::Always);
        assert_eq!(access(&[0x1b, 0, 0, 0, 0x03]), Access::Write);
        assert_eq!(access(&[0x1b, 0, 0, 0, 0x11]), Access::Write);
        assert_eq!(access(&[0x1e, 0, 0, 0, 0]), Access::Always);
        assert_eq!(access(&[0x1e, 0, 0, 0, 1]), Access::Write);
        assert_eq!(access(&[0x35]), Access::Write);
        assert_eq!(access(&[0x2f]), Access::Read);
        assert_eq!(access(&[0x5f]), Access::Reservation);
        assert_eq!(access(&[0x16]), Access::Legacy);
    }
}
