//! The data of one write on its way in: immediate, unsolicited, and asked for by R2T.
//!
//! Data comes in order, within a sequence and between sequences, and one R2T is outstanding at a time, as was
//! negotiated (`DataPDUInOrder`, `DataSequenceInOrder`, `MaxOutstandingR2T`). Counts bytes and holds none. At error
//! recovery level 0 what is out of order is an error of the command or of the connection. Spec: RFC 7143 4.2.5,
//! 11.4.7.2, 11.7, 11.8, 13.10, 13.11, 13.13, 13.14.

use super::constants::RESERVED_TAG;
use super::parameters::Parameters;
use super::request::DataOut;

/// What bounds the data of a session's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Data may come with the command.
    pub immediate_data: bool,
    /// No data comes behind the command without an R2T.
    pub initial_r2t: bool,
    /// The most unsolicited data.
    pub first_burst: u32,
    /// The most data that an R2T asks for; not 0.
    pub max_burst: u32,
}

impl From<&Parameters> for TransferLimits {
    fn from(parameters: &Parameters) -> Self {
        Self {
            immediate_data: parameters.immediate_data,
            initial_r2t: parameters.initial_r2t,
            first_burst: parameters.first_burst,
            max_burst: parameters.max_burst,
        }
    }
}

/// Which rule data breaks. RFC 7143 11.4.7.2 gives the sense data for some; the others are protocol errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransferError {
    /// Data came unsolicited that may not: sense 0B/0C/0C.
    UnexpectedUnsolicited,
    /// Less or more data came than was to come: sense 0B/0C/0D.
    IncorrectAmount,
    /// No R2T with this tag is outstanding.
    UnknownTag,
    /// A PDU of the sequence is missing or came twice.
    DataSn,
    /// The data does not follow on what came before.
    Offset,
}

/// What a Data-Out brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Where its data belongs.
    pub offset: u32,
    /// How much it is.
    pub bytes: u32,
    /// It was the last of its sequence: the next R2T may be made.
    pub is_sequence_over: bool,
    /// All data that is wanted has come.
    pub is_complete: bool,
}

/// The range that an R2T is to ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct R2tWanted {
    /// Its place among the task's R2Ts.
    pub sn: u32,
    /// Where the data begins.
    pub offset: u32,
    /// How much; not 0.
    pub bytes: u32,
}

/// The data of one write.
#[derive(Debug)]
pub struct Transfer {
    limits: TransferLimits,
    /// How much the initiator has.
    expected: u32,
    /// How much the command wants of it, at most `expected`.
    wanted: u32,
    /// How much has come.
    received: u32,
    sequence: Option<Sequence>,
    r2t_sn: u32,
}

/// A sequence of Data-Out PDUs that has begun.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    /// [`RESERVED_TAG`] when unsolicited.
    ttt: u32,
    data_sn: u32,
    end: u32,
}

impl Transfer {
    /// Begins with what came with the command: `expected` is its expected data transfer length, `is_final` its F bit.
    ///
    /// # Errors
    /// The session does not allow so much.
    pub fn new(
        expected: u32,
        limits: TransferLimits,
        immediate_bytes: u32,
        is_final: bool,
    ) -> Result<Self, TransferError> {
        let unsolicited_bytes_max = limits.first_burst.min(expected);
        let is_unsolicited_wrong = !is_final && limits.initial_r2t;
        if is_unsolicited_wrong || immediate_bytes > 0 && !limits.immediate_data {
            return Err(TransferError::UnexpectedUnsolicited);
        }
        if immediate_bytes > unsolicited_bytes_max {
            return Err(TransferError::IncorrectAmount);
        }
        let unsolicited = Sequence { ttt: RESERVED_TAG, data_sn: 0, end: unsolicited_bytes_max };
        let sequence = (!is_final).then_some(unsolicited);
        Ok(Self { limits, expected, wanted: expected, received: immediate_bytes, sequence, r2t_sn: 0 })
    }

    /// Leaves what is behind the first `bytes` unasked for, since the command has no use for it.
    #[must_use]
    pub fn wanting(self, bytes: u32) -> Self {
        Self { wanted: self.expected.min(bytes), ..self }
    }

    /// Takes a Data-Out of this task.
    ///
    /// # Errors
    /// [`TransferError`] says which rule it breaks. Its data is not to be used, and nothing that comes after it counts.
    pub fn data(&mut self, data: &DataOut) -> Result<Progress, TransferError> {
        let mut sequence = match self.sequence {
            Some(sequence) if sequence.ttt == data.ttt => sequence,
            Some(_) | None if data.ttt == RESERVED_TAG => return Err(TransferError::UnexpectedUnsolicited),
            Some(_) | None => return Err(TransferError::UnknownTag),
        };
        if data.data_sn != sequence.data_sn {
            return Err(TransferError::DataSn);
        }
        if data.offset != self.received {
            return Err(TransferError::Offset);
        }
        let end = data.offset.checked_add(data.data_bytes).filter(|end| *end <= sequence.end);
        let end = end.ok_or(TransferError::IncorrectAmount)?;
        // A sequence is what was asked for, or as much as may come first: not less.
        if data.is_final && end != sequence.end {
            return Err(TransferError::IncorrectAmount);
        }
        sequence.data_sn = sequence.data_sn.wrapping_add(1);
        self.received = end;
        self.sequence = (!data.is_final).then_some(sequence);
        Ok(Progress {
            offset: data.offset,
            bytes: data.data_bytes,
            is_sequence_over: data.is_final,
            is_complete: self.is_complete(),
        })
    }

    /// Asks for more under the tag `ttt` (not [`RESERVED_TAG`]), when nothing is on its way and something is missing.
    pub fn next_r2t(&mut self, ttt: u32) -> Option<R2tWanted> {
        if self.sequence.is_some() {
            return None;
        }
        let bytes = self.wanted.saturating_sub(self.received).min(self.limits.max_burst);
        if bytes == 0 {
            return None;
        }
        let (sn, offset) = (self.r2t_sn, self.received);
        self.r2t_sn = self.r2t_sn.wrapping_add(1);
        self.sequence = Some(Sequence { ttt, data_sn: 0, end: offset + bytes });
        Some(R2tWanted { sn, offset, bytes })
    }

    /// Whether all data that is wanted has come, and nothing is on its way.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.sequence.is_none() && self.received >= self.wanted
    }

    /// Whether unsolicited data is still to come.
    #[must_use]
    pub fn is_unsolicited_open(&self) -> bool {
        self.sequence.is_some_and(|sequence| sequence.ttt == RESERVED_TAG)
    }

    /// How much has come.
    #[must_use]
    pub const fn received_bytes(&self) -> u32 {
        self.received
    }

    /// How many R2Ts were made: the `ExpDataSN` of the response.
    #[must_use]
    pub const fn r2ts(&self) -> u32 {
        self.r2t_sn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TransferLimits =
        TransferLimits { immediate_data: true, initial_r2t: false, first_burst: 4096, max_burst: 8192 };

    fn out(ttt: u32, data_sn: u32, offset: u32, data_bytes: u32, is_final: bool) -> DataOut {
        DataOut { is_final, lun: [0; 8], itt: 1, ttt, exp_stat_sn: 0, data_sn, offset, data_bytes }
    }

    fn unsolicited(data_sn: u32, offset: u32, data_bytes: u32, is_final: bool) -> DataOut {
        out(RESERVED_TAG, data_sn, offset, data_bytes, is_final)
    }

    /// A write of 20000 bytes of which the first 4096 have come, and the next 8192 are asked for under tag 7.
    fn asked() -> Transfer {
        let mut transfer = Transfer::new(20000, LIMITS, 4096, true).unwrap();
        assert_eq!(transfer.next_r2t(7), Some(R2tWanted { sn: 0, offset: 4096, bytes: 8192 }));
        transfer
    }

    #[test]
    fn a_write_comes_immediate_unsolicited_and_asked_for() {
        let mut transfer = Transfer::new(20000, LIMITS, 1024, false).unwrap();
        assert!(transfer.is_unsolicited_open());
        assert_eq!(transfer.next_r2t(1), None);
        let progress = transfer.data(&unsolicited(0, 1024, 1024, false)).unwrap();
        assert_eq!(progress, Progress { offset: 1024, bytes: 1024, is_sequence_over: false, is_complete: false });
        assert!(transfer.data(&unsolicited(1, 2048, 2048, true)).unwrap().is_sequence_over);
        assert!(!transfer.is_unsolicited_open());
        assert_eq!(transfer.next_r2t(1), Some(R2tWanted { sn: 0, offset: 4096, bytes: 8192 }));
        assert_eq!(transfer.next_r2t(2), None);
        transfer.data(&out(1, 0, 4096, 8192, true)).unwrap();
        assert_eq!(transfer.next_r2t(2), Some(R2tWanted { sn: 1, offset: 12288, bytes: 7712 }));
        assert!(transfer.data(&out(2, 0, 12288, 7712, true)).unwrap().is_complete);
        assert_eq!((transfer.next_r2t(3), transfer.received_bytes(), transfer.r2ts()), (None, 20000, 2));
    }

    #[test]
    fn what_all_comes_with_the_command_is_complete() {
        let transfer = Transfer::new(4096, LIMITS, 4096, true).unwrap();
        assert!(transfer.is_complete());
        assert!(Transfer::new(0, LIMITS, 0, true).unwrap().is_complete());
    }

    #[test]
    fn unsolicited_data_that_the_session_does_not_allow_is_refused() {
        let no_immediate = TransferLimits { immediate_data: false, ..LIMITS };
        let initial_r2t = TransferLimits { initial_r2t: true, ..LIMITS };
        let unexpected = Some(TransferError::UnexpectedUnsolicited);
        assert_eq!(Transfer::new(512, no_immediate, 512, true).err(), unexpected);
        assert_eq!(Transfer::new(512, initial_r2t, 0, false).err(), unexpected);
        assert_eq!(Transfer::new(512, initial_r2t, 512, true).err(), None);
        assert_eq!(Transfer::new(8192, LIMITS, 4097, true).err(), Some(TransferError::IncorrectAmount));
        assert_eq!(Transfer::new(512, LIMITS, 513, true).err(), Some(TransferError::IncorrectAmount));
        let mut closed = Transfer::new(8192, LIMITS, 0, true).unwrap();
        assert_eq!(closed.data(&unsolicited(0, 0, 512, true)).err(), unexpected);
        closed.next_r2t(7).unwrap();
        assert_eq!(closed.data(&unsolicited(0, 0, 512, true)).err(), unexpected);
    }

    #[test]
    fn unsolicited_data_ends_where_the_first_burst_does() {
        let begun = || Transfer::new(20000, LIMITS, 1024, false).unwrap();
        assert_eq!(begun().data(&unsolicited(0, 1024, 1024, true)), Err(TransferError::IncorrectAmount));
        assert_eq!(begun().data(&unsolicited(0, 1024, 3073, true)), Err(TransferError::IncorrectAmount));
        assert!(begun().data(&unsolicited(0, 1024, 3072, true)).is_ok());
        let mut short = Transfer::new(2000, LIMITS, 1024, false).unwrap();
        assert!(short.data(&unsolicited(0, 1024, 976, true)).unwrap().is_complete);
    }

    /// What libiscsi's test suite sends: numbers twice, ahead, at the end of all numbers, and in reverse.
    #[test]
    fn a_number_out_of_order_is_refused() {
        let mut twice = asked();
        twice.data(&out(7, 0, 4096, 512, false)).unwrap();
        assert_eq!(twice.data(&out(7, 0, 4608, 512, true)), Err(TransferError::DataSn));
        assert_eq!(asked().data(&out(7, 27, 4096, 512, true)), Err(TransferError::DataSn));
        assert_eq!(asked().data(&out(7, u32::MAX, 4096, 512, true)), Err(TransferError::DataSn));
        assert_eq!(asked().data(&out(7, 1, 4096, 512, false)), Err(TransferError::DataSn));
    }

    #[test]
    fn data_that_does_not_answer_the_r2t_is_refused() {
        assert_eq!(asked().data(&out(8, 0, 4096, 8192, true)), Err(TransferError::UnknownTag));
        assert_eq!(asked().data(&out(7, 0, 0, 8192, true)), Err(TransferError::Offset));
        assert_eq!(asked().data(&out(7, 0, 4608, 512, false)), Err(TransferError::Offset));
        assert_eq!(asked().data(&out(7, 0, 4096, 8191, true)), Err(TransferError::IncorrectAmount));
        assert_eq!(asked().data(&out(7, 0, 4096, 8193, true)), Err(TransferError::IncorrectAmount));
        assert_eq!(asked().data(&out(7, 0, 4096, u32::MAX, false)), Err(TransferError::IncorrectAmount));
        let mut over = asked();
        over.data(&out(7, 0, 4096, 8192, true)).unwrap();
        assert_eq!(over.data(&out(7, 1, 12288, 512, true)), Err(TransferError::UnknownTag));
    }

    #[test]
    fn a_sequence_is_over_only_with_its_final_bit() {
        let mut transfer = asked();
        let progress = transfer.data(&out(7, 0, 4096, 8192, false)).unwrap();
        assert!(!progress.is_sequence_over);
        assert_eq!(transfer.next_r2t(8), None);
        assert!(transfer.data(&out(7, 1, 12288, 0, true)).unwrap().is_sequence_over);
    }

    #[test]
    fn what_the_command_has_no_use_for_is_not_asked_for() {
        let mut transfer = Transfer::new(20000, LIMITS, 0, true).unwrap().wanting(512);
        assert_eq!(transfer.next_r2t(7), Some(R2tWanted { sn: 0, offset: 0, bytes: 512 }));
        assert!(transfer.data(&out(7, 0, 0, 512, true)).unwrap().is_complete);
        // It may come all the same where it may come unasked.
        let transfer = Transfer::new(4096, LIMITS, 4096, true).unwrap().wanting(512);
        assert!(transfer.is_complete());
        assert_eq!(Transfer::new(512, LIMITS, 512, true).unwrap().wanting(4096).next_r2t(7), None);
    }
}
