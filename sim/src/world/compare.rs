//! Compare-and-writes, or-writes and copies: asked with what the oracle knows to be there.
//!
//! An or-write sets bits only where the oracle is sure of what is there: it puts a pattern where zeros are, and elsewhere
//! sets some of the bits that are set. While it is under way clients change nothing there. All other or-writes set no bit,
//! whatever else is under way, and so must not be noticed.

use super::clients::{Asked, Begun, bytes_of};
use super::{Checked, World};
use crate::census::Fault;
use crate::oracle::Step;
use crate::pattern::{self, SECTOR_LEN, Value};
use crate::random::mix;
use crate::trace::Finding;
use crate::workload::Wish;
use std::ops::Range;
use units::SECTOR_BYTES;
use volume::request::{Lent, PIECE_BYTES_MAX, Payload, Request};

impl World {
    pub(super) fn begin_compare(
        &mut self,
        site: usize,
        (sectors, fua): (Range<u64>, bool),
        wrong_at: Option<u64>,
        started: Step,
    ) -> Begun {
        let oracle = &mut self.sites[site].oracle;
        let expected = oracle.expected(&sectors, started);
        let (op, stamp) = oracle.begin_write(sectors.clone(), fua, started);
        let mut bytes = expected.bytes();
        if let Some(at) = wrong_at {
            bytes[at as usize] ^= 0x10;
            oracle.refuse(op);
        }
        let expected_payload = self.pieces(&bytes);
        let payload = self.payload(stamp, &sectors);
        let range = bytes_of(&sectors);
        let request = Request::CompareAndWrite { range, expected: expected_payload, payload, fua };
        Begun { expected: Some(expected), ..Begun::new(request, Some(op).filter(|_| wrong_at.is_none())) }
    }

    pub(super) fn begin_or(
        &mut self,
        site: usize,
        (sectors, fua): (Range<u64>, bool),
        sets: bool,
        started: Step,
    ) -> Begun {
        let oracle = &mut self.sites[site].oracle;
        let expected = oracle.expected(&sectors, started);
        let sets_bits = sets && expected.is_sure;
        let mut bytes = vec![0; expected.values.len() * SECTOR_LEN];
        let mut op = None;
        if sets_bits {
            let (begun, stamp) = oracle.begin_or(&expected, fua, started);
            op = Some(begun);
            let places = bytes.chunks_exact_mut(SECTOR_LEN);
            for ((sector, value), place) in sectors.clone().zip(&expected.values).zip(places) {
                match value {
                    Value::Zero | Value::Foreign => pattern::fill(stamp, sector, place),
                    Value::Written(_) | Value::Copied(..) => {
                        value.put(sector, place);
                        let kept = mix(stamp.0 ^ sector).to_le_bytes();
                        place.iter_mut().zip(kept.iter().cycle()).for_each(|(byte, kept)| *byte &= kept);
                    }
                }
            }
        }
        let payload = self.pieces(&bytes);
        Begun { sets_bits, ..Begun::new(Request::OrWrite { range: bytes_of(&sectors), payload, fua }, op) }
    }

    /// A copy of what the oracle knows to be there, to where it never was; while it is under way clients change nothing of its
    /// source. Else a flush.
    pub(super) fn begin_copy(
        &mut self,
        site: usize,
        (source, target, is_fua): (Range<u64>, Range<u64>, bool),
        started: Step,
    ) -> Begun {
        let oracle = &mut self.sites[site].oracle;
        let expected = oracle.expected(&source, started);
        let op = if expected.is_sure { oracle.begin_copy(&expected, target.clone(), is_fua, started) } else { None };
        let Some(op) = op else { return Begun::new(Request::Flush, None) };
        let (source, target) = (bytes_of(&source), bytes_of(&target));
        Begun::new(Request::Copy { source, target, fua: is_fua }, Some(op))
    }

    /// What the oracle knows to be there is lent; while that is under way clients change nothing of it. Else a flush.
    pub(super) fn begin_lend(&mut self, site: usize, source: &Range<u64>, started: Step) -> Begun {
        let expected = self.sites[site].oracle.expected(source, started);
        if !expected.is_sure {
            return Begun::new(Request::Flush, None);
        }
        let request = Request::Lend { range: bytes_of(source) };
        Begun { expected: Some(expected), ..Begun::new(request, None) }
    }

    /// What was lent last is borrowed. Else a flush.
    pub(super) fn begin_borrow(&mut self, site: usize, target: &Range<u64>, started: Step) -> Begun {
        let Some((expected, lent)) = self.lent.take() else { return Begun::new(Request::Flush, None) };
        let op = self.sites[site].oracle.begin_copy(&expected, target.clone(), false, started);
        let Some(op) = op else { return Begun::new(Request::Flush, None) };
        let request = Request::Borrow { target: bytes_of(target), lent, fua: false };
        Begun::new(request, Some(op))
    }

    /// A volume has lent what it was asked for: another one borrows it, when one takes clients.
    pub(super) fn take_lent(&mut self, site: usize, asked: &Asked, lent: &Lent) -> Checked {
        let (Wish::Lend { source, by }, Some(expected)) = (&asked.wish, &asked.expected) else { return Ok(()) };
        let others: Vec<usize> = (0..self.sites.len())
            .filter(|at| *at != site && self.takes_clients(*at) && !self.sites[*at].is_view)
            .filter(|at| self.sites[*at].volume.is_some())
            .collect();
        if !self.is_open || others.is_empty() {
            return Ok(());
        }
        let other = *self.random.pick(&others);
        let moved = |sector: u64| sector.saturating_add_signed(*by);
        let wish = Wish::Borrow { target: moved(source.start)..moved(source.end) };
        if self.is_set_meanwhile(other, &wish) {
            return Ok(());
        }
        self.lent = Some((expected.clone(), lent.clone()));
        self.outcome.census.note(Fault::Lent);
        self.ask(other, wish, false).map(|_| ())
    }

    fn pieces(&mut self, bytes: &[u8]) -> Payload {
        bytes.chunks(PIECE_BYTES_MAX).map(|piece| self.buffers.take_copy_of(piece)).collect()
    }

    /// A compare-and-write or an or-write is done.
    pub(super) fn judge_merged(&mut self, site: usize, asked: &Asked, now: Step) -> Checked {
        let oracle = &mut self.sites[site].oracle;
        if let Some(expected) = &asked.expected {
            let Some(op) = asked.op else {
                return Err(Finding("P3: a compare-and-write of what is not there has written".to_owned()));
            };
            oracle.check_compared(op, expected, asked.started, now).map_err(Finding)?;
            self.outcome.census.note(Fault::Compared);
        }
        if let Some(op) = asked.op {
            self.sites[site].oracle.end(op, now, true);
            self.outcome.census.note_many(Fault::BitsSet, u64::from(asked.sets_bits));
        }
        Ok(())
    }

    /// A compare-and-write has found something else at byte `at`, and written nothing.
    pub(super) fn judge_miscompare(
        &mut self,
        site: usize,
        asked: &Asked,
        (wrong_at, at): (Option<u64>, u64),
    ) -> Checked {
        let Some(expected) = &asked.expected else { return Ok(()) };
        let sectors = expected.sectors();
        let oracle = &mut self.sites[site].oracle;
        let is_known = expected.is_sure && oracle.was_quiet(sectors.clone(), asked.op, asked.started);
        if at >= (sectors.end - sectors.start) * SECTOR_BYTES || (is_known && wrong_at != Some(at)) {
            return Err(Finding(format!("P3: byte {at} of a compare-and-write is said to differ, not {wrong_at:?}")));
        }
        if let Some(op) = asked.op {
            oracle.refuse(op);
        }
        self.outcome.census.note(Fault::Miscompared);
        Ok(())
    }
}
