//! Fields off the front of a body.

use super::error::WireError;
use crate::position::Position;
use units::{Epoch, Lsn, SegmentId};

/// What is left of a body.
#[derive(Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(WireError::Cut)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, WireError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn bytes16(&mut self) -> Result<[u8; 16], WireError> {
        self.array()
    }

    pub(super) fn lsn(&mut self) -> Result<Lsn, WireError> {
        self.u64().map(Lsn)
    }

    /// A segment, or none.
    pub(super) fn segment(&mut self) -> Result<Option<SegmentId>, WireError> {
        match self.u64()? {
            u64::MAX => Ok(None),
            id if id <= SegmentId::MAX.0 => Ok(Some(SegmentId(id))),
            _ => Err(WireError::Value { field: "segment" }),
        }
    }

    pub(super) fn position(&mut self) -> Result<Position, WireError> {
        Ok(Position { epoch: Epoch(self.u64()?), segment: self.segment()?, lsn: self.lsn()? })
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether nothing is left.
    pub(super) const fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Tail) }
    }
}

/// Appends a segment, or that there is none.
pub(super) fn put_segment(out: &mut Vec<u8>, segment: Option<SegmentId>) {
    out.extend_from_slice(&segment.map_or(u64::MAX, |segment| segment.0).to_le_bytes());
}

/// Appends a position.
pub(super) fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(&position.epoch.0.to_le_bytes());
    put_segment(out, position.segment);
    out.extend_from_slice(&position.lsn.0.to_le_bytes());
}
